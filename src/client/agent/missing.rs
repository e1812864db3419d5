//! Which files of the configuration do not hold the credential that there is: an agent that has it and could not write it down is not
//! ready, whatever it serves besides.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The files that are missing, or old, by the name of their credential.
#[derive(Debug, Default)]
pub struct Missing(Mutex<BTreeMap<String, BTreeSet<PathBuf>>>);

impl Missing {
    /// The file at `path` does not hold the newest one of `credential`.
    pub(super) fn is_missing(&self, credential: &str, path: &Path) {
        self.all().entry(credential.to_owned()).or_default().insert(path.to_owned());
    }

    /// It does.
    pub(super) fn is_there(&self, credential: &str, path: &Path) {
        if let Some(files) = self.all().get_mut(credential) {
            files.remove(path);
        }
    }

    /// Those of `credential`, in order.
    pub(super) fn of(&self, credential: &str) -> Vec<String> {
        let all = self.all();
        let files = all.get(credential).into_iter().flatten();
        files.map(|path| path.display().to_string()).collect()
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, BTreeSet<PathBuf>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
