//! What the configuration names on disk: is it there, and can nobody else read or change it?

use std::{
    fs::{self, Metadata},
    io::ErrorKind,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use super::reader::Reader;
use crate::{
    owner::{self, NotOurs, NotPrivate},
    yaml::Place,
};

/// Group or others may do anything.
const NOT_OURS_ALONE: u32 = 0o077;

/// What a path must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// A file that only its owner may read. Its path is never repeated: people paste secrets where paths belong.
    Secret,
    /// A token that the platform writes and renews: a loose mode is the platform's, so it only warns. Not where root lent it to a
    /// group of ours, as the kubelet does with `fsGroup`: that is as private as such a file gets.
    PlatformToken,
    /// A file that we read.
    File,
    /// A directory that we read.
    Directory,
    /// A directory that we write to, where nobody else may.
    Kept,
    /// A file that we will make: its directory must exist, and be as [`Need::Kept`].
    Made,
}

impl Need {
    /// Whether it is a folder that we write to, or lies in one.
    pub(super) const fn is_written(self) -> bool {
        matches!(self, Self::Kept | Self::Made)
    }
}

/// A path of the configuration, and what it must be.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// Where it is named.
    pub(super) place: Place,
    /// Under which key.
    pub(super) setting: &'static str,
    /// From the file's directory.
    pub(super) path: PathBuf,
    /// What it must be.
    pub(super) need: Need,
}

/// Looks at everything that was named. What others than its owner may change only warns where it is not `served`.
pub(super) fn check(reader: &mut Reader<'_>, served: bool) {
    for wanted in std::mem::take(&mut reader.files) {
        match wanted.need {
            Need::Secret => secret(reader, &wanted),
            Need::PlatformToken => platform_token(reader, &wanted),
            Need::File => file(reader, &wanted, served),
            Need::Directory => drop(directory(reader, &wanted, &wanted.path)),
            Need::Kept => kept(reader, &wanted, &wanted.path, served),
            Need::Made => {
                let parent = wanted.path.parent().unwrap_or(Path::new("."));
                kept(reader, &wanted, parent, served);
            }
        }
    }
}

/// Whether anyone may change `path`: then it says what they want. `false` where it can't be told.
pub(super) fn anyone_may_write(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| owner::anyone_may_write(path, &metadata))
}

fn secret(reader: &mut Reader<'_>, wanted: &Wanted) {
    let Some(metadata) = present(reader, wanted, Metadata::is_file, "a file") else { return };
    let setting = wanted.setting;
    match owner::private(&metadata) {
        Ok(()) => {}
        Err(NotPrivate::Mode(mode)) => reader.refuse(
            wanted.place,
            format!("`{setting}` names a file of mode {mode:04o}, expected 0600 or 0400: it holds a secret"),
            "chmod 0600 it, and replace the secret if others could read it",
        ),
        Err(NotPrivate::Owner(uid)) => reader.refuse(
            wanted.place,
            format!("`{setting}` names a file of uid {uid}, expected ours or root's: it holds a secret"),
            "chown it, and replace the secret if that user is not to know it",
        ),
    }
    if metadata.len() == 0 {
        let message = format!("`{setting}` names an empty file, expected a secret");
        reader.refuse(wanted.place, message, "write the secret into the file");
    }
}

/// Keys that are pinned and authorities that are trusted: whoever may write there decides whom we believe.
fn file(reader: &mut Reader<'_>, wanted: &Wanted, served: bool) {
    let Some(metadata) = present(reader, wanted, Metadata::is_file, "a file") else { return };
    let Err(why) = owner::believable(&wanted.path, &metadata) else { return };
    let (setting, path) = (wanted.setting, wanted.path.display());
    match why {
        NotOurs::Anyone(_) => {
            let message = format!("`{setting}`: anyone may write to `{path}`");
            reader.refuse(wanted.place, message, "chmod o-w it");
        }
        _ if served => {
            reader.refuse(wanted.place, format!("`{setting}`: `{path}` {why}"), why.remedy());
        }
        NotOurs::Owner(_) | NotOurs::Group(_) | NotOurs::Folder(_) | NotOurs::FolderOwner(_) => {
            let hint = format!("`cambio serve` refuses it so: {}", why.remedy());
            reader.warn(wanted.place, format!("`{setting}`: `{path}` {why}"), &hint);
        }
    }
}

fn platform_token(reader: &mut Reader<'_>, wanted: &Wanted) {
    let Some(metadata) = present(reader, wanted, Metadata::is_file, "a file") else { return };
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & NOT_OURS_ALONE != 0 && owner::private(&metadata).is_err() {
        let message = format!(
            "`{}` names a file of mode {mode:04o}: others can read the token",
            wanted.setting
        );
        reader.warn(
            wanted.place,
            message,
            "run as a user of your own; the platform then writes it with mode 0600",
        );
    }
}

/// Where store, anchors and the admin socket are: who may rename what lies there puts another in its place.
fn kept(reader: &mut Reader<'_>, wanted: &Wanted, path: &Path, served: bool) {
    let Some(about) = directory(reader, wanted, path) else { return };
    let Err(why) = owner::kept(path, &about) else { return };
    // Root looks at what is the broker's own, and can't know as whom that runs.
    if !served && matches!(why, NotOurs::Owner(_)) && rustix::process::geteuid().is_root() {
        return;
    }
    let message = format!("`{}`: directory `{}` {why}", wanted.setting, path.display());
    if served {
        reader.refuse(wanted.place, message, why.remedy());
    } else {
        let hint = format!("`cambio serve` refuses it so: {}", why.remedy());
        reader.warn(wanted.place, message, &hint);
    }
}

/// The metadata of a directory that is there and that not everybody may write to.
fn directory(reader: &mut Reader<'_>, wanted: &Wanted, path: &Path) -> Option<Metadata> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => {
            let message = format!("`{}`: `{}` is not a directory", wanted.setting, path.display());
            reader.refuse(wanted.place, message, "name a directory");
            None
        }
        Ok(metadata) if owner::anyone_may_write(path, &metadata) => {
            let message =
                format!("`{}`: anyone may write to directory `{}`", wanted.setting, path.display());
            reader.refuse(wanted.place, message, "chmod o-w it");
            None
        }
        Ok(metadata) => Some(metadata),
        Err(error) => {
            let message =
                format!("`{}`: directory `{}` {}", wanted.setting, path.display(), reason(&error));
            reader.refuse(
                wanted.place,
                message,
                "make it first: none is made here, so that a typo can't pass for a new one",
            );
            None
        }
    }
}

/// The metadata of what is there as it should be.
fn present(
    reader: &mut Reader<'_>,
    wanted: &Wanted,
    fits: fn(&Metadata) -> bool,
    expected: &str,
) -> Option<Metadata> {
    let shown = match wanted.need {
        Need::Secret => format!("`{}` names a file that", wanted.setting),
        Need::PlatformToken | Need::File | Need::Directory | Need::Kept | Need::Made => {
            format!("`{}`: file `{}`", wanted.setting, wanted.path.display())
        }
    };
    match fs::metadata(&wanted.path) {
        Ok(metadata) if fits(&metadata) => Some(metadata),
        Ok(_) => {
            reader.refuse(wanted.place, format!("{shown} is not {expected}"), "name a file");
            None
        }
        Err(error) => {
            let hint = "relative paths start where the configuration file lies";
            reader.refuse(wanted.place, format!("{shown} {}", reason(&error)), hint);
            None
        }
    }
}

fn reason(error: &std::io::Error) -> &'static str {
    let known = [
        (ErrorKind::NotFound, "does not exist"),
        (ErrorKind::PermissionDenied, "can't be reached: permission denied"),
        (ErrorKind::NotADirectory, "lies below something that is not a directory"),
    ];
    let found = known.into_iter().find(|(kind, _)| *kind == error.kind());
    found.map_or("can't be read", |(_, reason)| reason)
}
