//! Credentials in files: whole or not at all, private from the first byte, and gone when they are over.
//!
//! Everything happens relative to the directory as it was opened, so that nobody moves it away between two steps. The new file is
//! made beside the old one with `O_EXCL`, and takes its place by `rename`: a reader finds the old credential or the new one, never half
//! of one. `rename` follows no link, and a link that is there already is refused all the same: whoever put it there expects the
//! secret elsewhere.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Write as _},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Stat},
    io::Errno,
};

use super::{
    ClientError, Format, Issued,
    format::{self, Rendered, Style},
};
use crate::secret::Secret;

/// Who may read a file that holds a credential. Never everybody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Readers {
    /// Its owner: mode 0600.
    #[default]
    Owner,
    /// A group besides: mode 0640. The group is this one, or that of the process.
    Group(Option<u32>),
}

impl Readers {
    fn mode(self) -> Mode {
        match self {
            Self::Owner => Mode::RUSR | Mode::WUSR,
            Self::Group(_) => Mode::RUSR | Mode::WUSR | Mode::RGRP,
        }
    }
}

/// A file that a credential goes into.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Where.
    pub path: PathBuf,
    /// As what.
    pub format: Format,
    /// How, where the format leaves a choice.
    pub style: Style,
    /// Who may read it.
    pub readers: Readers,
    /// Whether its directory may be one that everybody may write to: of a pod, say, that nobody else mounts.
    pub trusted: bool,
}

/// A file that was written: what is removed in the end is this one and no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Destination {
    /// Writes `issued` into the file.
    ///
    /// # Errors
    /// The format does not carry this credential, or the directory is no place for one.
    pub fn write(&self, issued: &Issued) -> Result<Written, ClientError> {
        let text = match format::render(self.format, issued, &self.style)? {
            Rendered::Text(text) => text,
            Rendered::Json(value) => Secret::from(format!("{value}\n")),
        };
        place(&self.path, &text, self.readers, self.trusted)
    }

    /// Whether the directory is a place for a credential, before there is one.
    ///
    /// # Errors
    /// It is not there, everybody may write to it, or somebody else's file is where ours will be.
    pub fn look(&self) -> Result<(), ClientError> {
        let (folder, name) = folder_of(&self.path, self.trusted)?;
        judge(&folder, name, &self.path)
    }
}

/// Writes `text` into the file at `path`, for `readers`, in place of what is there. `trusted`: [`Destination::trusted`].
///
/// # Errors
/// The directory can be written to by everybody, the path is a link or no file or a stranger's, or the machine refuses.
pub fn place(
    path: &Path,
    text: &Secret,
    readers: Readers,
    trusted: bool,
) -> Result<Written, ClientError> {
    let (folder, name) = folder_of(path, trusted)?;
    judge(&folder, name, path)?;
    // One name, and not a random one: what a killed process left behind is found, and goes.
    let new = temporary(name);
    remove(&folder, &new).map_err(|error| failed(path, error))?;
    let made = write(&folder, &new, text, readers).and_then(|made| {
        fs::renameat(&folder, &new, &folder, name)?;
        // So that the machine's own end does not bring the old one back. Not every file system can, and the new one is there.
        let _ = fs::fsync(&folder);
        Ok(made)
    });
    match made {
        Ok(made) => Ok(Written { path: path.to_owned(), device: made.st_dev, inode: made.st_ino }),
        Err(error) => {
            // The reason is told; that a half-written file could not be removed either adds nothing to it.
            let _ = remove(&folder, &new);
            Err(error.of(path))
        }
    }
}

/// What is there already, where the file and the one before it go.
fn judge(folder: &OwnedFd, name: &OsStr, path: &Path) -> Result<(), ClientError> {
    if let Some(found) = stat(folder, name, path)? {
        let kind = FileType::from_raw_mode(found.st_mode);
        if kind != FileType::RegularFile {
            let what =
                if kind == FileType::Symlink { "a symbolic link" } else { "no regular file" };
            return Err(refused(path, format_args!("is {what}, expected a file or nothing"))
                .hint("name the file itself: a credential follows no link"));
        }
        ours(&found, path, "")?;
    }
    match stat(folder, &temporary(name), path)? {
        Some(found) => ours(&found, path, "what it is made as, `.NAME.cambio-new`, "),
        None => Ok(()),
    }
}

/// Whoever put a file there can keep it there (in a sticky directory) or put it there again, and programs read it as ours.
fn ours(found: &Stat, path: &Path, what: &str) -> Result<(), ClientError> {
    let (owner, us) = (found.st_uid, rustix::process::geteuid().as_raw());
    if owner == us || owner == 0 {
        return Ok(());
    }
    let message = format_args!("{what}belongs to uid {owner}, expected us (uid {us}) or root");
    Err(refused(path, message)
        .hint("find out who put it there, and remove it: it is no credential of ours"))
}

/// Why a file was not made.
enum Unwritten {
    /// It can't be given to this group.
    Group(u32, Errno),
    Machine(io::Error),
}

impl From<io::Error> for Unwritten {
    fn from(error: io::Error) -> Self {
        Self::Machine(error)
    }
}

impl From<Errno> for Unwritten {
    fn from(error: Errno) -> Self {
        Self::Machine(error.into())
    }
}

impl Unwritten {
    /// chown(2) says no more than a number.
    fn of(self, path: &Path) -> ClientError {
        let (group, error) = match self {
            Self::Machine(error) => return failed(path, error),
            Self::Group(group, error) => (group, error),
        };
        let message = format_args!("can't be given to group {group}: {error}").to_string();
        match error {
            // Not tried again: only whoever runs the agent can change it.
            Errno::INVAL => refused(path, message).hint(
                "the agent's user namespace has no such group: `PrivateUsers=yes` of a unit, or `hostUsers: false` of a pod",
            ),
            Errno::PERM => refused(path, message).hint(format_args!(
                "the agent's user is no member of it: `SupplementaryGroups={group}` in its unit, `supplementalGroups` of a pod"
            )),
            _ => failed(path, message),
        }
    }
}

fn write(
    folder: &OwnedFd,
    name: &OsStr,
    text: &Secret,
    readers: Readers,
) -> Result<Stat, Unwritten> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Private from its first moment, whatever the umask says; the group comes when it may.
    let made = fs::openat(folder, name, flags, Mode::RUSR | Mode::WUSR)?;
    let mut file = File::from(made);
    if let Readers::Group(Some(group)) = readers {
        fs::fchown(&file, None, Some(Gid::from_raw(group)))
            .map_err(|error| Unwritten::Group(group, error))?;
    }
    fs::fchmod(&file, readers.mode())?;
    file.write_all(text.reveal())?;
    file.sync_all()?;
    Ok(fs::fstat(&file)?)
}

impl Written {
    /// Removes the file, unless it is gone or somebody put another one in its place.
    ///
    /// # Errors
    /// It is still there.
    pub fn remove(self) -> Result<(), ClientError> {
        let path = &self.path;
        // It was a good place when it was written.
        let (folder, name) = folder_of(path, true)?;
        let same = stat(&folder, name, path)?
            .is_some_and(|found| found.st_dev == self.device && found.st_ino == self.inode);
        if same {
            remove(&folder, name).map_err(|error| failed(path, error))?;
        }
        Ok(())
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The directory of `path`, opened and judged, and the name in it.
fn folder_of(path: &Path, trusted: bool) -> Result<(OwnedFd, &OsStr), ClientError> {
    let name = path.file_name().ok_or_else(|| refused(path, "names no file"))?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = fs::open(folder, flags, Mode::empty()).map_err(|error| {
        refused(path, format_args!("directory `{}`: {error}", folder.display()))
            .hint("make it first: none is made here, so that a typo can't pass for a new one")
    })?;
    let found = fs::fstat(&opened).map_err(|error| failed(path, error))?;
    let mode = Mode::from_raw_mode(found.st_mode);
    // Sticky or not: there, nobody takes our file away, but whoever is first keeps us from writing ours.
    if !trusted && mode.contains(Mode::WOTH) {
        return Err(refused(
            path,
            format_args!("anyone may write to directory `{}`", folder.display()),
        )
        .hint(
            "chmod o-w it, or name a directory of your own: whoever can write there can put another credential in place of this one",
        ));
    }
    Ok((opened, name))
}

/// Under which name the file at `path` is made, beside it.
#[must_use]
pub fn made_as(path: &Path) -> Option<PathBuf> {
    path.file_name().map(|name| path.with_file_name(temporary(name)))
}

fn temporary(name: &OsStr) -> OsString {
    let mut new = OsString::from(".");
    new.push(name);
    new.push(".cambio-new");
    new
}

/// What is there, if anything is; a link is told as a link.
fn stat(folder: &OwnedFd, name: &OsStr, path: &Path) -> Result<Option<Stat>, ClientError> {
    match fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(failed(path, error)),
    }
}

fn remove(folder: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match fs::unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn refused(path: &Path, what: impl std::fmt::Display) -> ClientError {
    ClientError::usage(format!("`{}`: {what}", path.display()))
}

fn failed(path: &Path, error: impl std::fmt::Display) -> ClientError {
    ClientError::unreachable(format!("`{}`: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    };

    use super::*;

    fn hush(text: &str) -> Secret {
        Secret::from(text.to_owned())
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_file_is_replaced_whole_and_private_and_nothing_is_left_beside_it() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("token");
        fs::write(&path, "old, and longer than what comes").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        // A reader that had opened the old one goes on reading the old one.
        let mut old = fs::File::open(&path).unwrap();
        place(&path, &hush("one\n"), Readers::Owner, false).unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("one\n", 0o600));
        let mut text = String::new();
        io::Read::read_to_string(&mut old, &mut text).unwrap();
        assert_eq!(text, "old, and longer than what comes");
        place(&path, &hush("two\n"), Readers::Group(None), false).unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("two\n", 0o640));
        assert_eq!(names(home.path()), ["token"]);
    }

    #[test]
    fn what_a_killed_writer_left_is_not_in_the_way_and_goes() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("token");
        fs::write(home.path().join(".token.cambio-new"), "half of a secr").unwrap();
        place(&path, &hush("whole"), Readers::Owner, false).unwrap();
        assert_eq!(names(home.path()), ["token"]);
    }

    #[test]
    fn no_link_is_followed_where_the_file_should_be_or_beside_it() {
        let home = tempfile::tempdir().unwrap();
        let victim = home.path().join("victim");
        fs::write(&victim, "untouched").unwrap();
        let path = home.path().join("token");
        symlink(&victim, &path).unwrap();
        let error = place(&path, &hush("secret"), Readers::Owner, false).unwrap_err();
        assert!(
            error.message.ends_with("is a symbolic link, expected a file or nothing"),
            "{error}"
        );
        fs::remove_file(&path).unwrap();
        symlink(&victim, home.path().join(".token.cambio-new")).unwrap();
        place(&path, &hush("secret"), Readers::Owner, false).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
        assert_eq!(names(home.path()), ["token", "victim"]);
        fs::create_dir(home.path().join("folder")).unwrap();
        let error =
            place(&home.path().join("folder"), &hush("s"), Readers::Owner, false).unwrap_err();
        assert!(error.message.ends_with("is no regular file, expected a file or nothing"));
    }

    #[test]
    fn a_directory_that_anyone_may_write_to_is_no_place_sticky_or_not_unless_it_is_trusted() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("open");
        fs::create_dir(&folder).unwrap();
        let path = folder.join("token");
        let with = |bits| {
            fs::set_permissions(&folder, fs::Permissions::from_mode(bits)).unwrap();
            place(&path, &hush("secret"), Readers::Owner, false).map(drop)
        };
        let error = with(0o777).unwrap_err();
        assert!(error.message.contains("anyone may write to directory"), "{error}");
        let error = with(0o1777).unwrap_err();
        assert!(error.message.contains("anyone may write to directory"), "{error}");
        assert_eq!(place(&path, &hush("secret"), Readers::Owner, true).map(drop), Ok(()));
        assert_eq!(with(0o770), Ok(()));
        let error =
            place(&home.path().join("no/token"), &hush("s"), Readers::Owner, false).unwrap_err();
        assert!(error.message.contains("No such file or directory"), "{error}");
    }

    #[test]
    fn a_strangers_file_is_never_in_the_place_of_ours_nor_where_it_is_made() {
        let home = tempfile::tempdir().unwrap();
        let destination = Destination {
            path: home.path().join("token"),
            format: Format::Token,
            style: Style::default(),
            readers: Readers::Owner,
            trusted: false,
        };
        for name in ["token", ".token.cambio-new"] {
            let theirs = home.path().join(name);
            fs::write(&theirs, "evil").unwrap();
            destination.look().unwrap();
            // Only root gives files away.
            if std::os::unix::fs::chown(&theirs, Some(65_533), None).is_err() {
                return;
            }
            let error = destination.look().unwrap_err();
            assert!(error.message.contains("belongs to uid 65533, expected us"), "{error}");
            let again = place(&destination.path, &hush("s"), Readers::Owner, true).unwrap_err();
            assert_eq!(error, again);
            assert_eq!(fs::read_to_string(&theirs).unwrap(), "evil");
            fs::remove_file(&theirs).unwrap();
        }
        assert_eq!(made_as(&destination.path), Some(home.path().join(".token.cambio-new")));
    }

    #[test]
    fn only_the_file_that_was_written_is_removed() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("token");
        let first = place(&path, &hush("one"), Readers::Owner, false).unwrap();
        first.clone().remove().unwrap();
        assert_eq!(names(home.path()), Vec::<String>::new());
        first.clone().remove().unwrap();
        let kept = place(&path, &hush("one"), Readers::Owner, false).unwrap();
        let other = home.path().join("other");
        fs::write(&other, "theirs").unwrap();
        fs::rename(&other, &path).unwrap();
        kept.remove().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "theirs");
    }

    #[test]
    fn a_group_that_a_file_can_not_be_given_to_is_told_with_what_to_change() {
        let path = Path::new("/run/cambio-agent/pgpass");
        let told = |errno| Unwritten::Group(1000, errno).of(path);
        let inval = told(Errno::INVAL);
        assert_eq!(
            inval.message,
            "`/run/cambio-agent/pgpass`: can't be given to group 1000: Invalid argument (os error 22)"
        );
        assert!(inval.hint.unwrap().contains("`PrivateUsers=yes`"));
        assert!(told(Errno::PERM).hint.unwrap().contains("`SupplementaryGroups=1000`"));
        // Exit code 2: no unit starts it again and again.
        assert_eq!(told(Errno::PERM).fault, crate::client::Fault::Usage);
        assert_eq!(told(Errno::IO).fault, crate::client::Fault::Unreachable);
    }
}
