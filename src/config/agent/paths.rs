//! Which files the agent reads and makes: none that it makes is another one that it makes or reads.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

use super::super::reader::Reader;
use crate::{
    client::files,
    yaml::{Node, Place},
};

/// One file, where it is named, if it is, and what it is.
#[derive(Clone, Debug)]
struct Named {
    path: PathBuf,
    place: Option<Place>,
    what: &'static str,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Paths {
    read: Vec<Named>,
    made: Vec<Named>,
}

impl Paths {
    /// The file at `path` is read, or run.
    pub(super) fn reads(&mut self, path: &Path, place: Option<Place>, what: &'static str) {
        self.read.push(Named { path: plain(path), place, what });
    }

    /// So is the one under `key` of `map`, if there is one.
    pub(super) fn reads_at(&mut self, map: &Node, key: &'static str, path: Option<&Path>) {
        if let (Some(path), Some(node)) = (path, map.find(key)) {
            self.reads(path, Some(node.place), key);
        }
    }

    /// The file at `path` is made, under another name first.
    pub(super) fn makes(&mut self, path: &Path, place: Place, what: &'static str) {
        self.made.push(Named { path: plain(path), place: Some(place), what });
    }

    /// Refuses every file that would be made over another one.
    pub(super) fn judge(self, reader: &mut Reader<'_>) {
        let mut taken: BTreeMap<PathBuf, Taken> = BTreeMap::new();
        for one in self.read {
            let whose = owner(&one);
            taken.entry(one.path).or_insert(Taken { whose, hint: READ });
        }
        for one in self.made {
            let Some(place) = one.place else { continue };
            let whose = owner(&one);
            let beside = files::made_as(&one.path);
            if let Some(found) = taken.get(&one.path) {
                let message = format!("`{}` is that of {} too", one.what, found.whose);
                reader.refuse(place, message, found.hint);
            } else if let Some(found) = beside.as_ref().and_then(|beside| taken.get(beside)) {
                let message = format!(
                    "`{}` is made as `.NAME.cambio-new` first, and that is the file of {}",
                    one.what, found.whose
                );
                reader.refuse(place, message, found.hint);
            }
            taken.entry(one.path).or_insert_with(|| Taken { whose: whose.clone(), hint: MADE });
            if let Some(beside) = beside {
                taken.entry(beside).or_insert(Taken { whose, hint: BESIDE });
            }
        }
    }
}

/// Who has a path, and what is said of that.
#[derive(Debug)]
struct Taken {
    whose: String,
    hint: &'static str,
}

const MADE: &str = "two credentials in one file overwrite each other";
const BESIDE: &str = "that file is made as `.NAME.cambio-new` first: give this one another name";
const READ: &str = "the agent reads it: a credential there would take its place";

fn owner(one: &Named) -> String {
    match one.place {
        Some(place) => format!("line {}", place.line),
        None => one.what.to_owned(),
    }
}

/// `path` from the root, without `.` and `..`, as it is written: where a directory is a link, `..` may lead elsewhere, but whoever
/// writes both ways means one file.
fn plain(path: &Path) -> PathBuf {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut plain = PathBuf::new();
    for component in whole.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            other @ (Component::Prefix(_) | Component::RootDir | Component::Normal(_)) => {
                plain.push(other);
            }
        }
    }
    plain
}
