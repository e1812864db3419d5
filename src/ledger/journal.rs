//! The port of the one writer: what a store must do for it, batch by batch.

use std::fmt;

use thiserror::Error;

use crate::{
    clock::Instant,
    id::{BlockId, ExchangeId, LeaseId},
    ledger::{
        Block, Change, Hash, Intent, IntentStep, LeaseIntent, LeaseState, Spend, entry::Kind,
        reader::StoredFacts, tree::TileRoot,
    },
};

/// The store failed. Whether the batch is durable is unknown: the writer stops for good.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct JournalError(pub String);

/// What one proposal of a batch may only have if nobody else had it before.
#[derive(Clone, Copy, Debug, Default)]
pub struct Claim<'a> {
    /// A token to use up.
    pub spend: Option<&'a Spend>,
    /// The epoch that the key ring must have, and the one that it gets: [`Change::KeyRing`].
    pub epoch: Option<(u64, u64)>,
    /// The step that a lease is to take.
    pub lease: Option<(LeaseId, LeaseState)>,
    /// The lease to open, which wants room in its share.
    pub opens: Option<&'a LeaseIntent>,
    /// The step that an exchange's intent is to take.
    pub intent: Option<(ExchangeId, IntentStep)>,
}

/// What became of a [`Claim`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It holds, and the token is spent when the batch is durable.
    Holds,
    /// The token was spent before, or by an earlier claim of this batch.
    AlreadySpent,
    /// It holds, but for the step of its lease or its intent: that may not follow where it stands, or where an earlier claim
    /// of this batch brings it.
    Overtaken,
    /// Its lease has no room in its share before this instant.
    NoRoom(Instant),
    /// The key ring has another epoch.
    Stale {
        /// The epoch that stands.
        found: u64,
    },
}

/// An entry and everything that becomes durable with it.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its place.
    pub index: u64,
    /// What it tells.
    pub kind: Kind,
    /// Ledger time.
    pub time: Instant,
    /// The leaf.
    pub leaf: Vec<u8>,
    /// Its RFC 6962 hash.
    pub hash: Hash,
    /// The exchange that it is about.
    pub exchange: Option<ExchangeId>,
    /// What stands behind its commitment.
    pub facts: Option<StoredFacts>,
    /// The lease that it opens.
    pub lease: Option<LeaseIntent>,
    /// What is to be remembered of its exchange until that is concluded.
    pub intent: Option<Intent>,
    /// The state that it changes.
    pub change: Option<Change>,
    /// The lease whose state it changes.
    pub lease_step: Option<(LeaseId, LeaseState)>,
    /// The policy set that it puts in force.
    pub policy: Option<Hash>,
    /// The head of an anchor that it acknowledges as not ours.
    pub fork: Option<(u64, Hash)>,
}

/// A signed checkpoint to keep.
#[derive(Clone, Debug)]
pub struct KeptCheckpoint {
    /// How many entries it covers.
    pub size: u64,
    /// When it was signed.
    pub time: Instant,
    /// The signed note.
    pub note: String,
}

/// When a transaction is flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// By its commit.
    Now,
    /// Nobody waits for it: by the next one.
    WithNext,
}

/// What one transaction writes.
#[derive(Debug, Default)]
pub struct Batch {
    /// Entries, in order, without a gap.
    pub rows: Vec<Row>,
    /// Roots of the subtrees that they complete.
    pub tile_roots: Vec<TileRoot>,
    /// Checkpoints, which are no entries.
    pub checkpoints: Vec<KeptCheckpoint>,
    /// Spends that ended before this instant may be forgotten, a bounded number at a time.
    pub forget_before: Option<Instant>,
}

/// What stands when a writer starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// How many entries there are.
    pub size: u64,
    /// Blocks that hold.
    pub blocks: Vec<(BlockId, Block)>,
    /// The end of the log was torn: what was spent in it is not known any more.
    pub torn: Torn,
}

/// Whether the end of a log was ever torn, and what was said of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Torn {
    /// Never.
    #[default]
    No,
    /// It was found just now.
    Now,
    /// By the start at this instant.
    Before(Instant),
}

/// Keeps batches.
///
/// Duties, held by `tests/it/conformance/commit.rs` through the writer:
///
/// 1. `claim` opens a transaction, judges the claims in order and one by one, and spends the tokens of those that hold;
/// 2. when `commit` returns, that transaction would survive a power cut, or with [`Flush::WithNext`] the end of this process, and
///    a power cut after the next flush; before, nothing of it is visible to any reader;
/// 3. an error leaves the outcome to the next start: this journal is never used again;
/// 4. `tidy` does what can wait until the answers are out, and its failure is a failure to write (threat K10).
pub trait Journal: fmt::Debug + Send {
    /// What stands now.
    ///
    /// # Errors
    /// The store can't be read.
    fn standing(&mut self) -> Result<Standing, JournalError>;

    /// Remembers, durably, that the end of the log was found torn by the start at this instant.
    ///
    /// # Errors
    /// The store failed.
    fn torn(&mut self, at: Instant) -> Result<(), JournalError>;

    /// Opens a transaction and judges the claims of a batch at ledger time `now`: one verdict each, in order.
    ///
    /// # Errors
    /// The store failed.
    fn claim(
        &mut self,
        claims: &[Claim<'_>],
        now: Instant,
        flush: Flush,
    ) -> Result<Vec<Verdict>, JournalError>;

    /// Writes the batch and makes the transaction durable, with one flush or with the next one.
    ///
    /// # Errors
    /// The store failed, or the outcome is unknown.
    fn commit(&mut self, batch: &Batch) -> Result<(), JournalError>;

    /// Flushes what was committed without.
    ///
    /// # Errors
    /// The store failed, or the outcome is unknown.
    fn flush(&mut self) -> Result<(), JournalError>;

    /// Moves what was committed to where it rests (SQLite: checkpoints the WAL), if it is time.
    ///
    /// # Errors
    /// The store failed.
    fn tidy(&mut self) -> Result<(), JournalError>;
}
