//! A private folder for secrets: only ours to read, in memory where the machine offers that, and gone at the end. What a run left
//! that was killed is swept by the next one: a lock that the kernel lets go of with its process tells the dead from the living,
//! in other PID namespaces as well.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{OFlags, statfs},
    process::geteuid,
};

use super::{
    ClientError, Environment,
    files::{self, Readers},
};
use crate::{chance::Chance, secret::Secret};

/// Folders of ours begin with this; anything else is nobody's to sweep.
const PREFIX: &str = "cambio-exec.";
/// Whoever holds it lives.
const LOCK: &str = "lock";
/// `TMPFS_MAGIC` of statfs(2).
const TMPFS: u64 = 0x0102_1994;

/// A folder of mode 0700. It goes when it is dropped.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Locked for as long as we live.
    _lock: File,
}

impl Folder {
    /// Makes one: in `XDG_RUNTIME_DIR` or `/dev/shm` where those are in memory, else where temporary files go. Sweeps what dead
    /// runs of the same user left there.
    ///
    /// # Errors
    /// There is no randomness for its name, or the folder can't be made.
    pub fn make(environment: &Environment, chance: &dyn Chance) -> Result<Self, ClientError> {
        Self::below(&place(environment), chance)
    }

    /// The same, in `parent`.
    ///
    /// # Errors
    /// As [`Folder::make`].
    pub fn below(parent: &Path, chance: &dyn Chance) -> Result<Self, ClientError> {
        sweep(parent);
        let mut bytes = [0; 16];
        chance.fill(&mut bytes).map_err(ClientError::unreachable)?;
        let name = format!("{:032x}", u128::from_be_bytes(bytes));
        let failed = |error: io::Error| {
            ClientError::usage(format!("no private folder in `{}`: {error}", parent.display()))
        };
        // Under a name that no sweeper looks at, until it is locked.
        let early = parent.join(format!(".{PREFIX}{name}"));
        let path = parent.join(format!("{PREFIX}{name}"));
        DirBuilder::new().mode(0o700).create(&early).map_err(failed)?;
        let made = locked(&early).and_then(|lock| {
            fs::rename(&early, &path)?;
            Ok(lock)
        });
        match made {
            Ok(lock) => Ok(Self { path, _lock: lock }),
            Err(error) => {
                let _ = fs::remove_dir_all(&early);
                Err(failed(error))
            }
        }
    }

    /// Where `name` lies.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes `name`, mode 0600, so that a reader sees the old one or the new one, and never half of it.
    ///
    /// # Errors
    /// It can't be written.
    pub fn put(&self, name: &str, content: &Secret) -> Result<(), ClientError> {
        if name == LOCK {
            return Err(ClientError::usage(format!(
                "`{LOCK}` is the folder's own file: what replaced it would have the folder swept"
            )));
        }
        files::place(&self.path(name), content, Readers::Owner, true).map(drop)
    }

    /// Removes `name`. One that is not there is as good as removed.
    ///
    /// # Errors
    /// It is still there.
    pub fn remove(&self, name: &str) -> Result<(), ClientError> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(ClientError::usage(format!("`{}`: {error}", path.display())))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Removes all of it.
    ///
    /// # Errors
    /// Something is still there.
    pub fn close(self) -> Result<(), ClientError> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(ClientError::usage(
                format!("`{}` can't be removed: {error}", self.path.display()),
            )
            .hint("it holds credentials that are ended or end soon: remove it")),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn locked(folder: &Path) -> io::Result<File> {
    let lock =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(folder.join(LOCK))?;
    lock.try_lock().map_err(io::Error::from)?;
    Ok(lock)
}

fn place(environment: &Environment) -> PathBuf {
    let own = environment.find("XDG_RUNTIME_DIR").map(PathBuf::from);
    // Others may read names in it, not more; but who may write there may put a link in our way.
    let own = own.filter(|path| path.is_absolute() && is_ours(path));
    let memory = own.into_iter().chain([PathBuf::from("/dev/shm")]);
    let found = memory.filter(|path| is_memory(path)).find(|path| is_writable(path));
    found.unwrap_or_else(|| environment.find("TMPDIR").unwrap_or("/tmp").into())
}

fn is_ours(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| {
        found.is_dir() && found.uid() == geteuid().as_raw() && found.mode() & 0o022 == 0
    })
}

fn is_memory(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| u64::try_from(found.f_type) == Ok(TMPFS))
}

fn is_writable(path: &Path) -> bool {
    use rustix::fs::{Access, access};
    access(path, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

/// Best effort: what can't be swept today is swept tomorrow.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if !name.to_str().is_some_and(|name| name.starts_with(PREFIX)) {
            continue;
        }
        let path = entry.path();
        // `/dev/shm` is everybody's: what others put there under our name is theirs.
        let private = fs::symlink_metadata(&path).is_ok_and(|found| {
            found.is_dir() && found.uid() == geteuid().as_raw() && found.mode() & 0o777 == 0o700
        });
        if private && is_dead(&path) {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

fn is_dead(folder: &Path) -> bool {
    // Whoever runs as us may have put anything there: a FIFO would keep us waiting for its writer, a link leads elsewhere.
    let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    match OpenOptions::new().read(true).custom_flags(flags).open(folder.join(LOCK)) {
        Ok(lock) => {
            let regular = lock.metadata().is_ok_and(|found| found.is_file());
            regular
                && !matches!(
                    lock.try_lock(),
                    Err(TryLockError::WouldBlock | TryLockError::Error(_))
                )
        }
        // Its removal was cut off.
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::{SeededChance, SystemChance};

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_folder_and_its_files_are_private_replaced_whole_and_gone_at_the_end() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::below(parent.path(), &SystemChance).unwrap();
        let put = |text: &str| folder.put("token", &Secret::from(text.to_owned())).unwrap();
        put("one");
        let inode = fs::metadata(folder.path("token")).unwrap().ino();
        put("two");
        assert_eq!(fs::read_to_string(folder.path("token")).unwrap(), "two");
        assert_ne!(fs::metadata(folder.path("token")).unwrap().ino(), inode, "written in place");
        assert_eq!((mode(&folder.path), mode(&folder.path("token"))), (0o700, 0o600));
        assert_eq!(names(&folder.path), ["lock", "token"]);
        folder.remove("token").unwrap();
        folder.remove("token").unwrap();
        // It would be another file than the one that is locked, and the next run would sweep the living.
        assert!(folder.put("lock", &Secret::from("hush".to_owned())).is_err());
        folder.close().unwrap();
        assert_eq!(names(parent.path()), Vec::<String>::new());
    }

    #[test]
    fn what_the_dead_left_is_swept_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        let living = Folder::below(parent.path(), &SeededChance::of(1)).unwrap();
        let killed = Folder::below(parent.path(), &SeededChance::of(2)).unwrap();
        let dead = parent.path().join("cambio-exec.dead");
        fs::rename(&killed.path, &dead).unwrap();
        drop(killed);
        fs::write(dead.join("token"), "hush").unwrap();
        // Not private, so none of ours; not ours by name; a link to something.
        let open = parent.path().join("cambio-exec.open");
        DirBuilder::new().mode(0o755).create(&open).unwrap();
        let other = parent.path().join("other");
        DirBuilder::new().mode(0o700).create(&other).unwrap();
        std::os::unix::fs::symlink(&other, parent.path().join("cambio-exec.link")).unwrap();

        // What hangs whoever opens it, and what leads elsewhere.
        for name in ["fifo", "lead"] {
            let folder = parent.path().join(format!("cambio-exec.{name}"));
            DirBuilder::new().mode(0o700).create(&folder).unwrap();
            let lock = folder.join(LOCK);
            if name == "fifo" {
                let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
                rustix::fs::mknodat(rustix::fs::CWD, &lock, kind, mode, 0).unwrap();
            } else {
                fs::write(other.join("free"), "").unwrap();
                std::os::unix::fs::symlink(other.join("free"), lock).unwrap();
            }
        }

        let mine = Folder::below(parent.path(), &SeededChance::of(3)).unwrap();
        let name = |folder: &Folder| folder.path.file_name().unwrap().to_str().unwrap().to_owned();
        let mut expected =
            vec![name(&living), name(&mine), "cambio-exec.open".into(), "other".into()];
        expected.extend(["link", "fifo", "lead"].map(|name| format!("cambio-exec.{name}")));
        expected.sort();
        assert_eq!(names(parent.path()), expected);
    }
}
