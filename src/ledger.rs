//! Step 5: the commit port. What happened becomes durable before it has any effect outside.

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
    grant::{IssuerName, RoleName, RuleId, TargetName},
    id::{BlockId, ExchangeId, LeaseId},
};

pub mod anchor;
pub mod checkpoint;
pub mod entry;
pub mod facts;
pub mod intent;
pub mod journal;
pub mod matching;
pub mod note;
pub mod proof;
pub mod reader;
pub mod receipt;
pub mod rollup;
pub mod show;
pub mod tile;
pub mod tree;
pub mod verify;
pub mod writer;

pub use intent::{Intent, IntentState, IntentStep};

/// A SHA-256 hash: of a leaf, a node, a policy set, a signing input.
pub type Hash = [u8; 32];

/// What an entry tells. The leaf's `kind`; never a secret, never free text that a stranger chose without a bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A credential is about to leave: the grant and what will be true of the credential.
    Granted(Granted),
    /// An exchange of a known tenant ended without a credential.
    Refused(Refused),
    /// How a grant with outside effects ended: `minted`, `void` or `unknown`; and, of one that was unknown, that its worst end
    /// has passed: `ended`.
    Concluded {
        /// Which exchange.
        exchange_id: ExchangeId,
        /// `minted`, `void`, `unknown`, `ended`.
        outcome: &'static str,
    },
    /// Refusals of strangers, counted per reason over a minute (threat A11).
    RolledUp {
        /// The minute's first instant.
        from: Instant,
        /// (reason, how many).
        counts: Vec<(String, u64)>,
    },
    /// The key ring changed.
    Keys {
        /// `prepare`, `promote`, `retire`, `prune`, `withdraw`, `restore`.
        step: &'static str,
        /// The key.
        kid: String,
        /// Its algorithm.
        algorithm: String,
        /// The ring's epoch after the step.
        epoch: u64,
    },
    /// Another policy set is in force.
    Policy {
        /// SHA-256 over the set.
        digest: Hash,
        /// How many rules it has.
        rules: u64,
        /// The Git commit of its directory, when there is one.
        commit: Option<String>,
    },
    /// A block was set or lifted.
    Blocked {
        /// Which.
        id: BlockId,
        /// `set` or `lifted`.
        step: &'static str,
        /// Who did it and why.
        by: Operator,
    },
    /// A lease changed state after its exchange was concluded.
    Lease {
        /// Which.
        id: LeaseId,
        /// Its new state.
        step: LeaseState,
        /// Who asked for it, where somebody did.
        by: Option<Operator>,
    },
    /// Something at a target carries our mark and has no lease: it is ended next (threat B03).
    Orphan {
        /// Where.
        target: TargetName,
        /// Its name there.
        object: String,
    },
    /// An operator used a power that no other kind tells of.
    Admin {
        /// `reload`, `start`, `erase` …
        action: String,
        /// Who did it and why.
        by: Operator,
    },
    /// The log goes on from a head that its anchor does not know (threat K07).
    Forked {
        /// What the anchor holds: size and root.
        anchored: (u64, Hash),
        /// Who did it and why.
        by: Operator,
    },
}

/// Who used an administrative power, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// `uid:0` over the Unix socket, or the subject of a workload with role `admin`.
    pub who: String,
    /// The `--reason`.
    pub reason: String,
}

/// The entry of a grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Names the exchange.
    pub exchange_id: ExchangeId,
    /// Who signed the subject token.
    pub issuer: IssuerName,
    /// `<issuer name>:<stable id>`.
    pub subject: String,
    /// SHA-256 of the subject token's signing input.
    pub token: Hash,
    /// Where the credential is good.
    pub target: TargetName,
    /// As what.
    pub role: RoleName,
    /// Which rules permitted it.
    pub rules: Vec<RuleId>,
    /// Under which policy set.
    pub policy: Hash,
    /// The true end of the credential.
    pub expires_at: Instant,
    /// What names the credential afterwards: `jti`, lease id, access key id. Never a secret.
    pub credential: String,
    /// SHA-256 of what will be signed, where something is; commits to every byte of a JWT of ours.
    pub signing_input: Option<Hash>,
    /// The signing key's `kid`, where something is signed.
    pub kid: Option<String>,
}

/// The entry of a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Names the exchange.
    pub exchange_id: ExchangeId,
    /// Who signed the subject token.
    pub issuer: IssuerName,
    /// `<issuer name>:<stable id>`.
    pub subject: String,
    /// SHA-256 of the subject token's signing input.
    pub token: Hash,
    /// [`crate::refusal::Refusal::reason`].
    pub reason: String,
    /// Under which policy set.
    pub policy: Hash,
}

/// A token used up: at most once per (issuer, token, target, role).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spend {
    /// Who signed the token.
    pub issuer: IssuerName,
    /// SHA-256 of its signing input.
    pub token: Hash,
    /// What it was spent on.
    pub target: TargetName,
    /// As what.
    pub role: RoleName,
    /// INVARIANT(replay-window): `exp` + [`crate::subject::MAXIMUM_LEEWAY`], in ledger time; not sooner.
    pub forget_at: Instant,
}

/// INVARIANT(intent-before-effect): a lease is opened in the commit, before the first call to the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseIntent {
    /// Names the lease.
    pub id: LeaseId,
    /// Where.
    pub target: TargetName,
    /// The object's name at the target.
    pub object: String,
    /// From when on nothing that the mint began can still take effect: its time-out and the target's own are both over.
    pub mint_deadline: Instant,
    /// The worst possible end of the credential.
    pub worst_end: Instant,
    /// SHA-256 of the token by which the holder may revoke it (RFC 7009).
    pub token: Hash,
    /// How much of the target it may take up, where that is bounded.
    pub share: Option<Share>,
}

/// How many leases of one target may be live at once, judged in the commit that opens one (threats V03, B05).
///
/// A rate bounds how fast they come, not how many there are: who takes one after another and keeps them fills a server, until
/// nobody else gets in, the broker included, and then nothing can be ended there any more. A lease counts until the target has
/// confirmed that it is gone: what may still be there takes up room. But not one that could not be ended by its last instant: that
/// is alarmed (threat B04), and nobody is locked out by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// SHA-256 of the subject's name.
    pub holder: Hash,
    /// At most so many of this holder.
    pub of_holder: u32,
    /// At most so many of all holders together.
    pub of_all: Option<u32>,
}

/// The life of a lease.
///
/// ```text
/// opened ─► active ─► revoking ─► revoked
///    │  └─► unknown ────┘  │  ▲
///    └────► void           ▼  │
///                      irrevocable
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LeaseState {
    /// The intent is durable; the mint may be under way.
    Opened,
    /// The credential was handed out.
    Active,
    /// Nobody knows whether the mint took effect: it is looked for after the mint deadline.
    Unknown,
    /// The mint failed for certain: there is nothing to end.
    Void,
    /// It is to end now.
    Revoking,
    /// What it stood for is gone.
    Revoked,
    /// It could not be ended so far: alarmed, and tried for ever (threat B04).
    Irrevocable,
}

impl LeaseState {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Opened,
        Self::Active,
        Self::Unknown,
        Self::Void,
        Self::Revoking,
        Self::Revoked,
        Self::Irrevocable,
    ];

    /// The word in the ledger, the store and the CLI.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Active => "active",
            Self::Unknown => "unknown",
            Self::Void => "void",
            Self::Revoking => "revoking",
            Self::Revoked => "revoked",
            Self::Irrevocable => "irrevocable",
        }
    }

    /// The state of this word.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Whether something may still exist at the target.
    #[must_use]
    pub const fn is_live(self) -> bool {
        match self {
            Self::Opened | Self::Active | Self::Unknown | Self::Revoking | Self::Irrevocable => {
                true
            }
            Self::Void | Self::Revoked => false,
        }
    }

    /// The states from which this one may be reached. A conclusion that comes late never wakes a lease that is being ended.
    #[must_use]
    pub const fn may_follow(self, from: Self) -> bool {
        match self {
            Self::Opened => false,
            Self::Active | Self::Unknown | Self::Void => matches!(from, Self::Opened),
            Self::Revoking => matches!(from, Self::Opened | Self::Active | Self::Unknown),
            Self::Revoked | Self::Irrevocable => from.is_live(),
        }
    }

    /// When a lease in this state is to be ended.
    #[must_use]
    pub const fn due(self, mint_deadline: Instant, worst_end: Instant) -> Option<Instant> {
        match self {
            // Before the deadline the mint may be under way: what is not there yet may still come.
            Self::Opened | Self::Unknown => Some(mint_deadline),
            Self::Active => Some(worst_end),
            Self::Revoking | Self::Irrevocable => Some(Instant::from_milliseconds(0)),
            Self::Void | Self::Revoked => None,
        }
    }
}

/// A change of the broker's own state, in the same transaction as its entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The encrypted key ring, by compare-and-swap on its epoch.
    KeyRing {
        /// The epoch that is replaced; 0 where there was no ring.
        from: u64,
        /// The new epoch.
        to: u64,
        /// The encrypted JWK Set (RFC 7517 section 7), compact.
        sealed: String,
    },
    /// A policy set in force, stored by digest with its sources.
    PolicySet {
        /// SHA-256 over the set.
        digest: Hash,
        /// The files, as JSON `[[name, text], …]`.
        sources: String,
    },
    /// A block begins.
    BlockSet {
        /// Which.
        id: BlockId,
        /// What it matches.
        block: Block,
    },
    /// A block ends.
    BlockLifted {
        /// Which.
        id: BlockId,
    },
    /// What the conclusion of a mint means: its lease goes on, and where nothing was made its token is unspent again. Goes
    /// with [`Event::Concluded`].
    Concluded {
        /// The spend to forget: only of a mint that failed for certain.
        release: Option<Spend>,
        /// The lease of the grant, if it had one, and its new state.
        lease: Option<(LeaseId, LeaseState)>,
        /// What it means for the grant's [`Intent`], if it had one.
        intent: Option<IntentStep>,
    },
}

/// A durable deny, checked in the commit.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Block {
    /// Only tokens of this issuer.
    pub issuer: Option<IssuerName>,
    /// Only grants by this rule.
    pub rule: Option<RuleId>,
    /// Only subjects or actors with all these claims (name or JSON Pointer → value; letter case, and whether a number stands
    /// in quotes, do not matter; of a list one element is enough).
    pub claims: std::collections::BTreeMap<String, serde_json::Value>,
    /// Until when, in milliseconds since 1970 of ledger time; none means until lifted.
    pub until: Option<u64>,
}

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
    /// The lease has no room in its [`Share`] before this instant at the earliest; the entry is a refusal's.
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
    fn of(committed: Committed) -> Result<Self, CommitError> {
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
/// 8. of many that open a lease at once, as many succeed as their [`Share`] has room for, and the others spend no token;
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
