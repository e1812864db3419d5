//! Step 5: the commit port. What happened becomes durable before it has any effect outside.

use crate::{
    clock::Instant,
    grant::{IssuerName, RoleName, RuleId, TargetName},
    id::{BlockId, ExchangeId, LeaseId},
};

pub mod anchor;
pub mod checkpoint;
mod commit;
pub mod entry;
pub mod facts;
pub mod intent;
pub mod journal;
mod lease;
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

pub use commit::{
    Commit, CommitError, Committed, InFlight, NotRecorded, Proposal, Receipt, Recorded, Written,
    record,
};
pub use intent::{Intent, IntentState, IntentStep};
pub use lease::{LeaseIntent, LeaseState, Share};

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
