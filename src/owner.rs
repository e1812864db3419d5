//! Whose a file is: who else may read or change what this process trusts (threat K12). One judgement, for key files, passwords
//! and the configuration. The mode decides, not an attempt to open: what others could have read is no secret any more.

use std::{fs::Metadata, io, os::unix::fs::MetadataExt, path::Path};

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
    fn a_place_that_nobody_can_write_to_is_told_by_its_mount() {
        // The kernel's own tables: read-only nowhere, or nothing here could run.
        assert!(!read_only(Path::new("/proc/self")));
        assert!(!read_only(Path::new("/does/not/exist")));
    }
}
