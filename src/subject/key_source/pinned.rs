//! Keys from a file of `jwks/`: for issuers out of reach, and for issuer URLs that thousands of clusters share (threat C17).

use std::{
    fs,
    io::{self, Read as _},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use thiserror::Error;

use crate::{
    clock::Instant,
    subject::{
        KeySource, KeySourceError, KeySourceState, VerificationKey,
        json::Limits,
        jwk::{KeySet, KeySetError, Unusable},
    },
};

/// The keys of one file. Read at the start and when told so, never in between.
#[derive(Debug)]
pub struct Pinned {
    path: PathBuf,
    loaded: ArcSwap<(KeySet, Instant)>,
    last_error: Mutex<Option<String>>,
}

/// Why a file is not a pinned key set.
#[derive(Debug, Error)]
pub enum PinnedError {
    /// The file can't be read.
    #[error("pinned keys `{path}` can't be read: {error}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// What it holds is no key set.
    #[error("pinned keys `{path}`: {error}")]
    Set {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        error: KeySetError,
    },
    /// A folder of public keys holds a private or symmetric one: somebody put it there by mistake, and must be told.
    #[error("pinned keys `{path}`: {key}")]
    NotPublic {
        /// Which.
        path: PathBuf,
        /// The key, and what shows.
        key: String,
    },
}

impl Pinned {
    /// Reads `path` at `now`.
    ///
    /// # Errors
    /// [`PinnedError`]; nothing is served from a file that is not wholly public.
    pub fn load(path: PathBuf, now: Instant) -> Result<Self, PinnedError> {
        let set = read(&path)?;
        Ok(Self { path, loaded: ArcSwap::from_pointee((set, now)), last_error: Mutex::default() })
    }

    /// Reads the file again. On failure the set in use stays whole, and the state says what happened (threat D11).
    ///
    /// # Errors
    /// [`PinnedError`].
    pub fn reload(&self, now: Instant) -> Result<(), PinnedError> {
        let read = read(&self.path);
        let mut last_error = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(set) => {
                self.loaded.store(Arc::new((set, now)));
                *last_error = None;
                Ok(())
            }
            Err(error) => {
                *last_error = Some(error.to_string());
                Err(error)
            }
        }
    }
}

fn read(path: &PathBuf) -> Result<KeySet, PinnedError> {
    // One byte more than the limit, so that a longer file is refused rather than cut.
    let most = u64::try_from(Limits::JWKS.bytes).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(most).read_to_end(&mut bytes))
        .map_err(|error| PinnedError::Read { path: path.clone(), error })?;
    let set =
        KeySet::parse(&bytes).map_err(|error| PinnedError::Set { path: path.clone(), error })?;
    let secret = set
        .ignored()
        .iter()
        .find(|key| matches!(key.reason, Unusable::Private(_) | Unusable::Symmetric));
    match secret {
        Some(key) => Err(PinnedError::NotPublic { path: path.clone(), key: key.to_string() }),
        None => Ok(set),
    }
}

#[async_trait]
impl KeySource for Pinned {
    async fn find(
        &self,
        kid: Option<&str>,
        _now: Instant,
    ) -> Result<Vec<Arc<VerificationKey>>, KeySourceError> {
        self.loaded.load().0.find(kid)
    }

    fn state(&self) -> KeySourceState {
        let loaded = self.loaded.load();
        KeySourceState {
            fetched_at: Some(loaded.1),
            keys: loaded.0.keys().len(),
            last_error: self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            fetches: 0,
        }
    }
}
