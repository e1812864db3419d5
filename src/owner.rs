//! Whose a file is: who else may read or change what this process trusts (threat K12). One judgement, for key files, passwords
//! and the configuration. The mode decides, not an attempt to open: what others could have read is no secret any more.

use std::{
    collections::BTreeSet,
    fs::{self, File, Metadata},
    io::{self, Read as _},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::fs::{StatVfsMountFlags, statvfs};
use thiserror::Error;

/// Group or others may do anything, or its owner may run it.
const NOT_PRIVATE: u32 = 0o177;
/// The same, but its group may read.
const NOT_LENT: u32 = 0o137;
/// Others may write.
const ANYONE: u32 = 0o002;
/// Group or others may write.
const SHARED: u32 = 0o022;
/// In such a folder nobody replaces what is another's.
const STICKY: u32 = 0o1000;
/// Where Kubernetes keeps what a volume of files shows: it swaps this link.
const VOLUME: &str = "..data";

/// Why a file is no place for a secret. Its path is never part of it: people paste secrets where paths belong.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum NotPrivate {
    /// Others than its owner may read or change it.
    #[error("has mode {0:04o}, expected 0600 or 0400")]
    Mode(u32),
    /// It belongs to another user, by its uid: who therefore knows it.
    #[error("belongs to uid {0}, expected us or root")]
    Owner(u32),
}

/// Judges a file that holds a secret, by what the open file or its path says of itself.
///
/// Ours: 0600 or stricter. Root's, where we are not root: its group may read it too (0640), for root lent it on purpose. That is
/// how a service gets a file that it can't change: systemd's `LoadCredential` shows 0440 (the mask of an access list), and so does
/// a Kubernetes secret with `fsGroup`. PostgreSQL judges its key file alike.
///
/// # Errors
/// What others may do, or whose it is.
pub fn private(about: &Metadata) -> Result<(), NotPrivate> {
    judge(about.mode(), about.uid(), rustix::process::geteuid().as_raw())
}

/// Why others than us may say what a file or a directory says.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum NotOurs {
    /// Anyone may write to it.
    #[error("has mode {0:04o}: anyone may write to it")]
    Anyone(u32),
    /// It belongs to another user, by its uid.
    #[error("belongs to uid {0}, expected us or root")]
    Owner(u32),
    /// Its group may write to it.
    #[error("has mode {0:04o}: its group may write to it")]
    Group(u32),
    /// Anyone may put another in its place.
    #[error("lies in a folder of mode {0:04o}: anyone may put another in its place")]
    Folder(u32),
    /// Another user may put another in its place, by its uid.
    #[error(
        "lies in a folder of uid {0}, expected ours or root's: who may put another in its place"
    )]
    FolderOwner(u32),
}

impl NotOurs {
    /// What to do about it.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Anyone(_) | Self::Group(_) => "chmod go-w it",
            Self::Owner(_) => "chown it to root, or to whom the broker runs as",
            Self::Folder(_) => "chmod o-w its folder",
            Self::FolderOwner(_) => "chown its folder to root, or to whom the broker runs as",
        }
    }
}

/// Judges a file, or a directory, that says what is granted or who is believed: `about` is what the open file says of itself, `path`
/// the way to it. It is ours or root's, nobody else may write to it, and nobody else may put another in its place, neither where
/// its name is nor where a link leads.
///
/// Where Kubernetes shows files, and nobody who sees them can write, only their owner is asked for: a volume's folder is 0777.
///
/// # Errors
/// Who else may change it; what is worst comes first.
pub fn believable(path: &Path, about: &Metadata) -> Result<(), NotOurs> {
    let us = rustix::process::geteuid().as_raw();
    let mode = if shown_by_kubernetes(path) { 0 } else { about.mode() };
    changeable(mode, about.uid(), us)?;
    for folder in folders(path) {
        // What was opened by way of it is there: what vanished since is judged when it is read again.
        let Ok(about) = fs::metadata(&folder) else { continue };
        let mode = if shown_by_kubernetes(&folder) { 0 } else { about.mode() };
        replaceable(mode, about.uid(), us)?;
    }
    Ok(())
}

/// Judges a folder that we write to, by the way to it and what is there: whoever may rename what lies in it puts another store or
/// another anchor in its place. It is ours or root's, and so is a link at `path`; nobody else may write to it.
///
/// Root's, where we are not root: a group of ours may write to it too, for root lent it on purpose, as with secrets ([`private`]).
/// That is how Kubernetes gives a volume to a pod with `fsGroup`: 2770, root's, and only the pod has that group. A folder of our own
/// is another matter: nobody but us has any business there. The folder above is not asked for: volumes are open to everybody, and
/// who puts another folder in the place of ours can't make it ours.
///
/// # Errors
/// Who else may write to it, or whose it is.
pub fn kept(path: &Path, about: &Metadata) -> Result<(), NotOurs> {
    let us = rustix::process::geteuid().as_raw();
    // Without a `/` or `/.` at its end, by which the kernel would follow the link.
    let path = path.components().collect::<PathBuf>();
    // Of the link, if it is one: who may change where a name leads needs no right to what lies there.
    if let Ok(named) = fs::symlink_metadata(path)
        && named.uid() != us
        && named.uid() != 0
    {
        return Err(NotOurs::Owner(named.uid()));
    }
    keeps(about.mode(), about.uid(), us, || member_of(about.gid()))
}

/// Reads the text of a file that must be [`believable`]; asked of the open file, so that it is the one that is read.
///
/// # Errors
/// It can't be read, is not UTF-8, or others may change it (`PermissionDenied`, with what to do).
pub fn read_believable(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    believable(path, &file.metadata()?).map_err(io::Error::from)?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

impl From<NotOurs> for io::Error {
    fn from(why: NotOurs) -> Self {
        let told = format!("it {why}: {}", why.remedy());
        Self::new(io::ErrorKind::PermissionDenied, told)
    }
}

impl From<NotPrivate> for io::Error {
    fn from(why: NotPrivate) -> Self {
        Self::new(io::ErrorKind::PermissionDenied, format!("it {why}"))
    }
}

fn changeable(mode: u32, owner: u32, us: u32) -> Result<(), NotOurs> {
    let shown = mode & 0o7777;
    if mode & ANYONE != 0 {
        return Err(NotOurs::Anyone(shown));
    }
    if owner != us && owner != 0 {
        return Err(NotOurs::Owner(owner));
    }
    if mode & SHARED != 0 { Err(NotOurs::Group(shown)) } else { Ok(()) }
}

fn keeps(
    mode: u32,
    owner: u32,
    us: u32,
    its_group_is_ours: impl Fn() -> bool,
) -> Result<(), NotOurs> {
    match changeable(mode, owner, us) {
        Err(NotOurs::Group(_)) if owner == 0 && us != 0 && its_group_is_ours() => Ok(()),
        judged => judged,
    }
}

/// Whether this process has that group, as its own or beside it. `false` where it can't be told.
fn member_of(group: u32) -> bool {
    rustix::process::getegid().as_raw() == group
        || rustix::process::getgroups()
            .is_ok_and(|groups| groups.iter().any(|one| one.as_raw() == group))
}

fn replaceable(mode: u32, owner: u32, us: u32) -> Result<(), NotOurs> {
    if mode & ANYONE != 0 && mode & STICKY == 0 {
        return Err(NotOurs::Folder(mode & 0o7777));
    }
    if owner != us && owner != 0 { Err(NotOurs::FolderOwner(owner)) } else { Ok(()) }
}

/// The folders in which `path` is a name: as it is written, and where its links lead.
fn folders(path: &Path) -> BTreeSet<PathBuf> {
    let written = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Some(PathBuf::from(".")),
        parent => parent.map(Path::to_owned),
    };
    let led = fs::canonicalize(path).ok();
    written.into_iter().chain(led.as_deref().and_then(Path::parent).map(Path::to_owned)).collect()
}

/// Whether Kubernetes shows `path` from a `ConfigMap`, a `Secret` or the like: mounted to be read only, and laid out as it does. The
/// mount alone says little: systemd's `ProtectSystem` shows us everything so, and others go on writing.
fn shown_by_kubernetes(path: &Path) -> bool {
    // The file, the dated folder that it lies in, and the volume.
    read_only(path) && path.ancestors().take(3).any(|above| above.join(VOLUME).is_symlink())
}

fn judge(mode: u32, owner: u32, us: u32) -> Result<(), NotPrivate> {
    let forbidden = match owner {
        owner if owner == us => NOT_PRIVATE,
        0 => NOT_LENT,
        stranger => return Err(NotPrivate::Owner(stranger)),
    };
    if mode & forbidden == 0 { Ok(()) } else { Err(NotPrivate::Mode(mode & 0o7777)) }
}

/// Whether anyone on this machine may write to `path`. A file system that is mounted to be read only is written by nobody who
/// sees it, whatever its modes say: Kubernetes shows the folder of a `ConfigMap` as 0777.
#[must_use]
pub fn anyone_may_write(path: &Path, about: &Metadata) -> bool {
    about.mode() & ANYONE != 0 && !read_only(path)
}

/// Whether others than its owner, its group among them, may write to `path`; as [`anyone_may_write`].
///
/// # Errors
/// It can't be examined.
pub fn others_may_write(path: &Path) -> io::Result<bool> {
    let about = std::fs::metadata(path)?;
    Ok(about.mode() & SHARED != 0 && !read_only(path))
}

/// `false` where it can't be told.
fn read_only(path: &Path) -> bool {
    statvfs(path).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY))
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: u32 = 4711;

    #[test]
    fn k12_a_secret_of_ours_is_ours_alone() {
        for mode in [0o600, 0o400] {
            assert_eq!(judge(0o100_000 | mode, US, US), Ok(()));
        }
        for mode in [0o640, 0o620, 0o610, 0o604, 0o602, 0o601, 0o700] {
            assert_eq!(judge(0o100_000 | mode, US, US), Err(NotPrivate::Mode(mode)));
        }
    }

    #[test]
    fn k12_root_may_lend_us_a_secret_that_we_can_not_change() {
        for mode in [0o600, 0o400, 0o440, 0o640] {
            assert_eq!(judge(mode, 0, US), Ok(()), "{mode:o}");
        }
        for mode in [0o660, 0o460, 0o444, 0o644, 0o642, 0o650] {
            assert_eq!(judge(mode, 0, US), Err(NotPrivate::Mode(mode)));
        }
        // As root, root's file is ours: nobody lent it.
        assert_eq!(judge(0o640, 0, 0), Err(NotPrivate::Mode(0o640)));
    }

    #[test]
    fn k12_a_secret_of_a_stranger_is_refused_whatever_its_mode() {
        assert_eq!(judge(0o400, 1000, US), Err(NotPrivate::Owner(1000)));
        assert_eq!(judge(0o400, 1000, 0), Err(NotPrivate::Owner(1000)));
    }

    #[test]
    fn k12_what_says_who_gets_what_is_changed_by_us_or_root_alone() {
        for owner in [US, 0] {
            for mode in [0o644, 0o600, 0o755, 0o1755] {
                assert_eq!(changeable(0o100_000 | mode, owner, US), Ok(()), "{mode:o}");
            }
            for mode in [0o666, 0o646, 0o1777] {
                assert_eq!(changeable(mode, owner, US), Err(NotOurs::Anyone(mode)));
            }
            for mode in [0o664, 0o660, 0o2770] {
                assert_eq!(changeable(mode, owner, US), Err(NotOurs::Group(mode)));
            }
        }
        assert_eq!(changeable(0o644, 1000, US), Err(NotOurs::Owner(1000)));
        assert_eq!(changeable(0o644, 1000, 0), Err(NotOurs::Owner(1000)));
    }

    #[test]
    fn k12_a_folder_that_we_write_to_is_written_to_by_nobody_else() {
        let keeps = |mode, owner, us, ours| keeps(mode, owner, us, move || ours);
        for mode in [0o700, 0o750, 0o755, 0o2750] {
            assert_eq!(keeps(mode, US, US, false), Ok(()), "{mode:o}");
        }
        // Whatever its group is: it may have other members.
        for (mode, ours) in [(0o770, true), (0o770, false), (0o2770, true), (0o775, true)] {
            assert_eq!(keeps(mode, US, US, ours), Err(NotOurs::Group(mode)));
        }
        // What root lends to a group of ours: a volume with `fsGroup`.
        for mode in [0o2770, 0o2775, 0o770] {
            assert_eq!(keeps(mode, 0, US, true), Ok(()), "{mode:o}");
            assert_eq!(keeps(mode, 0, US, false), Err(NotOurs::Group(mode)));
            assert_eq!(keeps(mode, 0, 0, true), Err(NotOurs::Group(mode)), "it is root's own");
        }
        for mode in [0o2777, 0o1777, 0o702] {
            assert_eq!(keeps(mode, 0, US, true), Err(NotOurs::Anyone(mode)));
        }
        assert_eq!(keeps(0o700, 1000, US, true), Err(NotOurs::Owner(1000)));
    }

    #[test]
    fn k12_nobody_puts_another_in_its_place() {
        for mode in [0o755, 0o1777, 0o770, 0o700] {
            assert_eq!(replaceable(mode, 0, US), Ok(()), "{mode:o}");
        }
        assert_eq!(replaceable(0o777, 0, US), Err(NotOurs::Folder(0o777)));
        assert_eq!(replaceable(0o755, 1000, US), Err(NotOurs::FolderOwner(1000)));
        let folder = tempfile::tempdir().unwrap();
        let (open, link) = (folder.path().join("open"), folder.path().join("link"));
        fs::create_dir(&open).unwrap();
        fs::write(open.join("file"), "x").unwrap();
        std::os::unix::fs::symlink(open.join("file"), &link).unwrap();
        assert_eq!(read_believable(&link).unwrap(), "x");
        fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        for path in [open.join("file"), link] {
            let told = read_believable(&path).unwrap_err().to_string();
            assert!(told.contains("anyone may put another in its place"), "{told}");
        }
    }

    #[test]
    fn a_place_that_nobody_can_write_to_is_told_by_its_mount() {
        // The kernel's own tables: read-only nowhere, or nothing here could run.
        assert!(!read_only(Path::new("/proc/self")));
        assert!(!read_only(Path::new("/does/not/exist")));
    }
}
