//! The port of everything that reads the ledger: the checkpointer, proofs, `verify`, the public tiles, explain, the CLI.

use std::{fmt, ops::Range};

use thiserror::Error;

use crate::{
    clock::Instant,
    grant::TargetName,
    id::{BlockId, ExchangeId, LeaseId},
    ledger::{Block, Hash, Intent, LeaseState, tree::Nodes},
};

/// Why something could not be read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ReadError {
    /// The store failed.
    #[error("the store can't be read: {0}")]
    Store(String),
    /// What a row holds is not what we write.
    #[error("entry {index} is damaged: {reason}")]
    Damaged {
        /// Which entry.
        index: u64,
        /// What was found, and what was expected.
        reason: String,
    },
    /// There is no such entry or hash.
    #[error("there is no entry {0}")]
    Absent(u64),
}

/// What stands behind an entry's commitment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFacts {
    /// The salt of the commitment.
    pub salt: [u8; 16],
    /// [`crate::ledger::facts::Facts`] as JSON, exactly as committed to.
    pub json: Vec<u8>,
}

/// An entry as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEntry {
    /// Its place, from 0.
    pub index: u64,
    /// Its leaf, exactly as hashed.
    pub leaf: Vec<u8>,
    /// The leaf hash that the store remembers. `verify` compares it with the leaf.
    pub hash: Hash,
    /// The row's copy of the entry's ledger time.
    pub time: Instant,
    /// Its facts, unless it has none or they were erased.
    pub facts: Option<StoredFacts>,
}

/// A signed checkpoint as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCheckpoint {
    /// How many entries it covers.
    pub size: u64,
    /// When it was signed.
    pub time: Instant,
    /// The signed note.
    pub note: String,
}

/// A lease as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredLease {
    /// Names it.
    pub id: LeaseId,
    /// The entry that opened it.
    pub index: u64,
    /// Where.
    pub target: TargetName,
    /// The object's name at the target.
    pub object: String,
    /// Until when the mint may still take effect.
    pub mint_deadline: Instant,
    /// The worst possible end of the credential.
    pub worst_end: Instant,
    /// Where it stands.
    pub state: LeaseState,
}

/// An intent as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredIntent {
    /// Of which exchange.
    pub exchange_id: ExchangeId,
    /// The entry that opened it.
    pub index: u64,
    /// What was said of it.
    pub intent: Intent,
    /// Whether its outcome was told to be unknown; else nobody has told any.
    pub unknown: bool,
}

/// Grants of a target whose outcome nobody knows, and whose credential, if there is one, may still be good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownOutcomes {
    /// Where.
    pub target: TargetName,
    /// How many.
    pub count: u64,
    /// When the last of them ends.
    pub until: Instant,
}

/// How many live leases a target has in one state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseCount {
    /// Where.
    pub target: TargetName,
    /// In which state.
    pub state: LeaseState,
    /// How many.
    pub live: u64,
    /// How many of them are due.
    pub due: u64,
}

/// Which leases to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leases<'a> {
    /// All that ever were.
    All,
    /// Those whose object may still exist.
    Live,
    /// Those in one state.
    In(LeaseState),
    /// Live ones of a target that were to end by then, the longest overdue first, without the first few.
    Due {
        /// Where.
        target: &'a TargetName,
        /// By when.
        by: Instant,
        /// How many to leave out.
        skip: u32,
    },
    /// One by its id.
    Of(LeaseId),
    /// The one whose holder's token has this SHA-256.
    Held(&'a Hash),
}

/// Reads the ledger and the state that is committed with it. Safe beside a running writer.
///
/// Every call sees a state that was durable at one instant; two calls may see two instants.
pub trait LedgerReader: Nodes + fmt::Debug + Send + Sync {
    /// The log's name, fixed when it was created.
    fn origin(&self) -> &str;

    /// How many entries there are.
    ///
    /// # Errors
    /// The store can't be read.
    fn size(&self) -> Result<u64, ReadError>;

    /// At most `range.end - range.start` entries in order, with their facts. A caller asks for small ranges.
    ///
    /// # Errors
    /// The store can't be read.
    fn entries(&self, range: Range<u64>) -> Result<Vec<StoredEntry>, ReadError>;

    /// The entries of one exchange, oldest first: its grant or refusal, then its conclusion.
    ///
    /// # Errors
    /// The store can't be read.
    fn history(&self, id: ExchangeId) -> Result<Vec<StoredEntry>, ReadError>;

    /// The newest entry of one kind but `granted` and `refused`, which are not indexed.
    ///
    /// # Errors
    /// The store can't be read.
    fn newest_of(&self, kind: crate::ledger::entry::Kind)
    -> Result<Option<StoredEntry>, ReadError>;

    /// The newest checkpoint that covers at most `size` entries.
    ///
    /// # Errors
    /// The store can't be read.
    fn checkpoint_at_most(&self, size: u64) -> Result<Option<StoredCheckpoint>, ReadError>;

    /// The oldest checkpoint that covers at least `size` entries.
    ///
    /// # Errors
    /// The store can't be read.
    fn checkpoint_at_least(&self, size: u64) -> Result<Option<StoredCheckpoint>, ReadError>;

    /// Heads of anchors that an operator acknowledged as not ours (threat K07), newest first: (size, root).
    ///
    /// # Errors
    /// The store can't be read.
    fn forks(&self) -> Result<Vec<(u64, Hash)>, ReadError>;

    /// The sources of a policy set: JSON `[[name, text], …]`.
    ///
    /// # Errors
    /// The store can't be read.
    fn policy_set(&self, digest: &Hash) -> Result<Option<String>, ReadError>;

    /// The digest of the policy set that was put in force last.
    ///
    /// # Errors
    /// The store can't be read.
    fn active_policy(&self) -> Result<Option<Hash>, ReadError>;

    /// The encrypted key ring and its epoch.
    ///
    /// # Errors
    /// The store can't be read.
    fn key_ring(&self) -> Result<Option<(u64, String)>, ReadError>;

    /// The sealed private key of the log, and its public half as a verifier key (C2SP signed-note).
    ///
    /// # Errors
    /// The store can't be read.
    fn log_key(&self) -> Result<Option<(String, String)>, ReadError>;

    /// The blocks that were set and not lifted.
    ///
    /// # Errors
    /// The store can't be read.
    fn blocks(&self) -> Result<Vec<(BlockId, Block)>, ReadError>;

    /// The leases that `which` names, `limit` at most, in the order in which they are due; those that have ended last.
    ///
    /// # Errors
    /// The store can't be read.
    fn leases(&self, which: Leases<'_>, limit: u32) -> Result<Vec<StoredLease>, ReadError>;

    /// How many live leases there are, by target and state, and how many of them are due at `now`.
    ///
    /// # Errors
    /// The store can't be read.
    fn lease_counts(&self, now: Instant) -> Result<Vec<LeaseCount>, ReadError>;

    /// When the next live lease is due after `now`.
    ///
    /// # Errors
    /// The store can't be read.
    fn next_due(&self, now: Instant) -> Result<Option<Instant>, ReadError>;

    /// The intents that something is to be said of by `by`, oldest first, `limit` at most: open ones past their mint deadline
    /// or of an entry before `before`, unknown ones past their worst end.
    ///
    /// # Errors
    /// The store can't be read.
    fn intents_due(
        &self,
        by: Instant,
        before: u64,
        limit: u32,
    ) -> Result<Vec<StoredIntent>, ReadError>;

    /// The unknown outcomes whose worst end is not told to have passed, by target.
    ///
    /// # Errors
    /// The store can't be read.
    fn unknown_outcomes(&self) -> Result<Vec<UnknownOutcomes>, ReadError>;
}

impl dyn LedgerReader + '_ {
    /// One entry.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn entry(&self, index: u64) -> Result<Option<StoredEntry>, ReadError> {
        Ok(self.entries(index..index.saturating_add(1))?.pop())
    }

    /// The grant or refusal of an exchange.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn find(&self, id: ExchangeId) -> Result<Option<StoredEntry>, ReadError> {
        Ok(self.history(id)?.into_iter().next())
    }

    /// The newest checkpoint.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn newest_checkpoint(&self) -> Result<Option<StoredCheckpoint>, ReadError> {
        self.checkpoint_at_most(u64::MAX)
    }
}
