//! Ending leases before their time: recorded first, then left to the reaper, and waited for a while.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::task::JoinSet;

use super::reaper::Reaper;
use crate::{
    id::LeaseId,
    ledger::{
        Commit, CommitError, Event, Hash, LeaseState, Operator, Proposal,
        reader::{Leases, LedgerReader, ReadError, StoredLease},
    },
};

/// How long somebody who asked is kept waiting for the target. What has not ended then is tried on.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(50);
/// So many leases are looked at one by one.
const FEW: usize = 16;

/// Why nothing is known of a revocation: it may not be recorded.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum EndingError {
    /// The store can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The revocation can't be recorded.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Ends leases on request.
#[derive(Debug)]
pub struct Ending {
    reader: Arc<dyn LedgerReader>,
    ledger: Arc<dyn Commit>,
    reaper: Arc<Reaper>,
}

impl Ending {
    /// Ends leases in `reader` through `reaper`, and writes down to `ledger` who asked for it.
    #[must_use]
    pub const fn of(
        reader: Arc<dyn LedgerReader>,
        ledger: Arc<dyn Commit>,
        reaper: Arc<Reaper>,
    ) -> Self {
        Self { reader, ledger, reaper }
    }

    /// Who does it.
    #[must_use]
    pub const fn reaper(&self) -> &Arc<Reaper> {
        &self.reaper
    }

    /// The lease whose holder's token has this SHA-256.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn held(&self, token: &Hash) -> Result<Option<StoredLease>, ReadError> {
        Ok(self.reader.leases(Leases::Held(token), 1)?.pop())
    }

    /// The lease called `id`.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn find(&self, id: LeaseId) -> Result<Option<StoredLease>, ReadError> {
        Ok(self.reader.leases(Leases::Of(id), 1)?.pop())
    }

    /// Makes `leases` due for `by`, and waits for their targets. Once it is recorded it happens, whatever becomes of this
    /// process and of who asked. Gives those that have not ended yet.
    ///
    /// # Errors
    /// Not all of it could be recorded.
    pub async fn end(
        &self,
        leases: &[StoredLease],
        by: &Operator,
    ) -> Result<BTreeSet<LeaseId>, EndingError> {
        // Together, so that they share a flush.
        let mut commits = JoinSet::new();
        for lease in leases.iter().filter(|lease| LeaseState::Revoking.may_follow(lease.state)) {
            let step = LeaseState::Revoking;
            let event = Event::Lease { id: lease.id, step, by: Some(by.clone()) };
            let ledger = Arc::clone(&self.ledger);
            commits.spawn(async move { ledger.commit(Proposal::of(event)).await });
        }
        while let Some(done) = commits.join_next().await {
            done.map_err(|error| CommitError::Stopped(error.to_string()))??;
        }
        self.reaper.wake();
        let mut pending: BTreeSet<LeaseId> = leases.iter().map(|lease| lease.id).collect();
        let deadline = tokio::time::Instant::now().checked_add(PATIENCE);
        loop {
            self.drop_ended(&mut pending)?;
            let over = deadline.is_none_or(|deadline| tokio::time::Instant::now() >= deadline);
            if pending.is_empty() || over {
                return Ok(pending);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// One by one as long as they are few: a holder whose target is dead must not make us read all leases again and again.
    fn drop_ended(&self, pending: &mut BTreeSet<LeaseId>) -> Result<(), ReadError> {
        if pending.len() > FEW {
            let live = self.reader.leases(Leases::Live, u32::MAX)?;
            let live: BTreeSet<LeaseId> = live.into_iter().map(|lease| lease.id).collect();
            pending.retain(|id| live.contains(id));
            return Ok(());
        }
        for id in pending.clone() {
            if self.find(id)?.is_none_or(|found| !found.state.is_live()) {
                pending.remove(&id);
            }
        }
        Ok(())
    }
}
