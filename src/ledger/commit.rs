//! The commit port: what is proposed, how it ends, and the proof that it is durable.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use thiserror::Error;

use crate::{
    clock::Instant,
    id::BlockId,
    ledger::{Change, Event, Hash, Intent, LeaseIntent, Spend, facts},
};

/// Everything that must become durable together, or not at all.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// What the entry tells.
    pub event: Event,
    /// What stands behind the entry, where a subject is involved.
    pub facts: Option<facts::Facts>,
    /// The token to use up.
    pub spend: Option<Spend>,
    /// The lease to open.
    pub lease: Option<LeaseIntent>,
    /// What to remember until the grant's conclusion.
    pub intent: Option<Intent>,
    /// The state to change.
    pub change: Option<Change>,
}

impl Proposal {
    /// An entry alone.
    #[must_use]
    pub const fn of(event: Event) -> Self {
        Self { event, facts: None, spend: None, lease: None, intent: None, change: None }
    }
}

/// What a caller gets at once: the entry's place and hash. The inclusion proof can be had later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    index: u64,
    leaf: Hash,
    time: Instant,
}

impl Receipt {
    /// Only the writer gives receipts, and only after the flush.
    pub(in crate::ledger) const fn durable(index: u64, leaf: Hash, time: Instant) -> Self {
        Self { index, leaf, time }
    }

    /// The entry's index, from 0.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// The RFC 6962 leaf hash.
    #[must_use]
    pub const fn leaf(&self) -> Hash {
        self.leaf
    }

    /// The entry's ledger time.
    #[must_use]
    pub const fn time(&self) -> Instant {
        self.time
    }
}

/// How a commit ended. In every case an entry is durable (a refusal's, where it was one).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Committed {
    /// Entry, spend, lease and change are durable.
    Durable(Receipt),
    /// The token was spent before; the entry is a refusal's.
    AlreadySpent(Receipt),
    /// A block applies; the entry is a refusal's.
    Blocked(Receipt, BlockId),
    /// The lease has no room in its [`Share`](crate::ledger::Share) before this instant at the earliest; the entry is a refusal's.
    NoRoom(Receipt, Instant),
    /// The entry is durable, but the lease did not take the step: it is being ended, or has ended. Or the intent did not: its
    /// outcome was told before.
    Overtaken(Receipt),
    /// The compare-and-swap found another epoch; there is no entry.
    Stale {
        /// The epoch that stands.
        found: u64,
    },
}

/// How a write ended: without a receipt, which is for what is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// As it was proposed.
    Stands,
    /// As [`Committed::Overtaken`].
    Overtaken,
}

impl Written {
    /// Grants and key rings want receipts; only they can end otherwise.
    pub(in crate::ledger) fn of(committed: Committed) -> Result<Self, CommitError> {
        match committed {
            Committed::Durable(_) => Ok(Self::Stands),
            Committed::Overtaken(_) => Ok(Self::Overtaken),
            other @ (Committed::AlreadySpent(_)
            | Committed::Blocked(..)
            | Committed::NoRoom(..)
            | Committed::Stale { .. }) => {
                Err(CommitError::Stopped(format!("found {other:?} of what was only written")))
            }
        }
    }
}

/// Why nothing was recorded, and therefore nothing may be issued.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CommitError {
    /// The writer stopped: a failed flush, a commit of unknown outcome, a damaged log. The process must end.
    #[error("the ledger stopped: {0}")]
    Stopped(String),
    /// The wall clock is more than 60 s behind the newest entry.
    #[error("the clock is {} s behind the newest entry", .0.as_secs())]
    ClockBehind(Duration),
    /// The head is behind or beside its newest anchor.
    #[error("the ledger's head does not agree with its anchor: {0}")]
    Fork(String),
    /// More waits for the disk than the queue holds.
    #[error("the ledger's queue is full")]
    Full,
    /// The entry is larger than 4 KiB.
    #[error("the entry has {0} bytes, expected at most 4096")]
    TooLarge(usize),
}

/// Makes what happened durable.
///
/// Duties, held by `tests/it/conformance/commit.rs`:
///
/// 1. it returns after entry, facts, spend, lease and change would survive a power cut: all or none of them;
/// 2. exactly one of many simultaneous spenders of one (issuer, token, target, role) gets `Durable`;
/// 3. indexes have no gap and no duplicate, and ledger time never goes back;
/// 4. a conflict of one proposal never fails another one of its batch;
/// 5. after a failed flush nothing is ever `Durable` again;
/// 6. a step of a lease that may not follow where it stands is not taken, and is [`Committed::Overtaken`];
/// 7. so is a second outcome of an intent, and it releases nothing;
/// 8. of many that open a lease at once, as many succeed as their [`Share`](crate::ledger::Share) has room for, and the others spend no token;
/// 9. what was [written](Self::write) would survive the end of the process, and with the next commit a power cut.
#[async_trait]
pub trait Commit: fmt::Debug + Send + Sync {
    /// Waits until `proposal` is durable, or known not to be.
    ///
    /// # Errors
    /// Nothing was recorded; nothing may be issued.
    async fn commit(&self, proposal: Proposal) -> Result<Committed, CommitError>;

    /// Waits until `proposal` is judged and written, in its order, but not until it is flushed. Only for what an entry that is
    /// durable already covers: the word that a recorded grant was carried out. A power cut within a moment can lose it, and then
    /// that entry's intent or lease tells that the outcome is unknown.
    ///
    /// # Errors
    /// Nothing was recorded.
    async fn write(&self, proposal: Proposal) -> Result<Written, CommitError> {
        self.commit(proposal).await.and_then(Written::of)
    }

    /// Hands over an entry that nobody waits for: a refusal. Dropped, and counted, when the queue is full.
    fn note(&self, proposal: Proposal);

    /// Says that a commit may come soon: a batch waits for it only while many do. Nothing is judged by it.
    fn enter(&self) -> InFlight;
}

/// One exchange between its beginning and its end, counted until it drops.
#[derive(Debug)]
#[must_use = "it counts as long as it lives"]
pub struct InFlight(Arc<AtomicUsize>);

impl InFlight {
    /// One more in `count`.
    pub fn count(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Proof that entry, spend and lease are on durable storage. Used up by minting; cannot be copied.
#[derive(Debug)]
#[must_use = "a recorded intent without an outcome"]
pub struct Recorded<P> {
    receipt: Receipt,
    prepared: P,
}

impl<P> Recorded<P> {
    /// Where the entry stands.
    #[must_use]
    pub const fn receipt(&self) -> Receipt {
        self.receipt
    }

    /// What was prepared, to look at.
    #[must_use]
    pub const fn prepared(&self) -> &P {
        &self.prepared
    }

    /// What was prepared, to mint: the proof is used up.
    #[must_use]
    pub fn redeem(self) -> (Receipt, P) {
        (self.receipt, self.prepared)
    }
}

/// Why [`record`] gave no proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotRecorded {
    /// The token was spent before.
    AlreadySpent,
    /// A block applies.
    Blocked(BlockId),
    /// As many leases are live as may be: there is no room before this instant.
    NoRoom(Instant),
    /// Nothing was written.
    Failed(CommitError),
}

/// Commits `proposal` and wraps `prepared` in the proof of it: the only maker of [`Recorded`].
///
/// INVARIANT(no-answer-without-entry): a minter takes a `Recorded`, and this is where one comes from.
///
/// # Errors
/// The token was spent, a block applies, there is no room, or nothing could be written.
pub async fn record<P>(
    ledger: &dyn Commit,
    proposal: Proposal,
    prepared: P,
) -> Result<Recorded<P>, NotRecorded> {
    match ledger.commit(proposal).await {
        Ok(Committed::Durable(receipt)) => Ok(Recorded { receipt, prepared }),
        Ok(Committed::AlreadySpent(_)) => Err(NotRecorded::AlreadySpent),
        Ok(Committed::Blocked(_, id)) => Err(NotRecorded::Blocked(id)),
        Ok(Committed::NoRoom(_, until)) => Err(NotRecorded::NoRoom(until)),
        Ok(Committed::Stale { found }) => {
            Err(NotRecorded::Failed(CommitError::Stopped(format!("unexpected epoch {found}"))))
        }
        Ok(Committed::Overtaken(_)) => {
            let reason = "a lease had ended before it was opened".to_owned();
            Err(NotRecorded::Failed(CommitError::Stopped(reason)))
        }
        Err(error) => Err(NotRecorded::Failed(error)),
    }
}
