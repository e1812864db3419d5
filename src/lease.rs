//! Leases: what must end, and does (threats B01 to B12). The commit opens them, the conclusion makes them `active`, the reaper
//! ends them when they are due, for whatever reason, and goes on until they have ended.

use std::{collections::BTreeMap, fmt, sync::Arc};

use async_trait::async_trait;
use thiserror::Error;

use crate::grant::TargetName;

pub mod ending;
mod orphans;
pub mod reaper;
pub mod select;
mod tries;

pub use tries::Trouble;

/// What was found where a lease's object should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// It was there, and is ended.
    Ended,
    /// The target says that there is none.
    Absent,
}

/// A lease could not be ended now.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RevokeError {
    /// The target can't be reached: nothing is wrong with the lease.
    #[error("the target can't be reached: {0}")]
    Unreachable(String),
    /// It was begun, and there is no answer: the target may be gone, or this object hangs.
    #[error("no answer: {0}")]
    Lost(String),
    /// The target is there, and this object can't be ended.
    #[error("it can't be ended: {0}")]
    Failed(String),
}

/// Ends what a target's minter made.
///
/// Duties, held by `tests/it/conformance/revoker.rs`:
///
/// 1. `revoke` is idempotent, and returns only when nothing of the object is left;
/// 2. [`Gone::Absent`] only if the target itself said so;
/// 3. `objects` finds what a lost answer left behind, and nothing that another broker made.
#[async_trait]
pub trait Revoker: fmt::Debug + Send + Sync {
    /// Ends `object`.
    ///
    /// # Errors
    /// It may still be there.
    async fn revoke(&self, object: &str) -> Result<Gone, RevokeError>;

    /// Everything at the target that carries this broker's mark.
    ///
    /// # Errors
    /// The target can't be asked.
    async fn objects(&self) -> Result<Vec<String>, RevokeError>;

    /// How many calls it takes at once.
    fn at_once(&self) -> usize;
}

/// The revokers, by target.
#[derive(Clone, Debug, Default)]
pub struct Revokers(BTreeMap<TargetName, Arc<dyn Revoker>>);

impl Revokers {
    /// The registry of `revokers`.
    #[must_use]
    pub fn of(revokers: impl IntoIterator<Item = (TargetName, Arc<dyn Revoker>)>) -> Self {
        Self(revokers.into_iter().collect())
    }

    /// The revoker of `target`.
    #[must_use]
    pub fn find(&self, target: &TargetName) -> Option<&Arc<dyn Revoker>> {
        self.0.get(target)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&TargetName, &Arc<dyn Revoker>)> {
        self.0.iter()
    }
}
