//! Our signing keys: phases, the pure schedule, who signs now, what is published.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use thiserror::Error;

use crate::{
    clock::Instant, grant::TargetName, ledger::Event, protector::ProtectError, subject::Algorithm,
};

pub mod authority;
pub mod certificate;
pub mod keyring;
pub mod own;
pub mod ring;
pub mod rotator;
pub mod schedule;
pub mod schedules;
pub mod signing;

/// Where a key is in its life (design section 2: prepare → promote → retire → prune; withdraw when it leaked).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Published, not yet signing.
    Prepared,
    /// Published and signing.
    Active,
    /// Published, no longer signing.
    Retired,
    /// Leaked: neither published nor signing, its private half gone. Remembered until the last token it signed is dead,
    /// so that its successor is not taken for the first key of a new ring.
    Withdrawn,
}

/// What a key is for. No key has two purposes: what is signed for one can't be passed off as the other (cross-protocol use),
/// and what one target's servers believe is nothing to another's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Tokens of ours, which everyone verifies by our JWK Set.
    Tokens,
    /// Client certificates of this target, which its servers verify by its trust bundle.
    Certificates(TargetName),
}

impl Purpose {
    /// What a key of `algorithm` is called in the ledger: `ES256`, `ES256 ca:postgres-cert/orders`.
    #[must_use]
    pub fn label(&self, algorithm: Algorithm) -> String {
        match self {
            Self::Tokens => algorithm.as_str().to_owned(),
            Self::Certificates(target) => format!("{algorithm} ca:{target}"),
        }
    }
}

/// One key's public record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// RFC 7638 thumbprint.
    pub kid: String,
    /// What it is for.
    pub purpose: Purpose,
    /// What it signs with.
    pub algorithm: Algorithm,
    /// Where it is in its life.
    pub phase: Phase,
    /// When it was first published.
    pub prepared_at: Instant,
    /// When it began to sign.
    pub promoted_at: Option<Instant>,
    /// When it stopped signing: retired or withdrawn.
    pub retired_at: Option<Instant>,
    /// INVARIANT(never-outlive): the longest lifetime of a token it may sign. It stays published that much longer than it
    /// signs, whatever the configuration says by then.
    pub window: Duration,
    /// Published before the ring had ever signed, and so exempt from the announcement: nobody held a set without it.
    pub first: bool,
}

/// A signature was not made.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("key `{kid}` did not sign: {reason}")]
pub struct SignError {
    /// Which key.
    pub kid: String,
    /// Why.
    pub reason: String,
}

/// Signs with one key. The private half is never returned.
///
/// Duties, held by `tests/it/conformance/signer.rs`:
///
/// 1. what it signs verifies under the JWK that is published for its `key_id`;
/// 2. `key_id` is the RFC 7638 thumbprint of that JWK.
#[async_trait]
pub trait Signer: fmt::Debug + Send + Sync {
    /// The `kid`.
    fn key_id(&self) -> &str;

    /// What it signs with.
    fn algorithm(&self) -> Algorithm;

    /// The JWS signature (RFC 7518 section 3 encodings) over `input`.
    ///
    /// # Errors
    /// The key, or what holds it, failed.
    async fn sign(&self, input: &[u8]) -> Result<Vec<u8>, SignError>;
}

/// What the store holds of the ring, and what the ledger says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// The epoch and the sealed ring, if there is one.
    pub ring: Option<(u64, String)>,
    /// The epoch in the newest key entry of the ledger; 0 if it has none.
    pub witnessed: u64,
}

/// How a compare-and-swap ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// The new ring and its entry are durable.
    Durable,
    /// Another epoch stands; nothing was written.
    Stale {
        /// Which.
        found: u64,
    },
}

/// A token that a key signed, as the ledger tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// `ex_…`.
    pub exchange_id: String,
    /// Its `jti`.
    pub credential: String,
    /// Who got it.
    pub subject: String,
    /// Where it is good.
    pub target: String,
    /// Until when.
    pub expires_at: Instant,
}

/// The journal could not be read or written.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("key journal: {0}")]
pub struct JournalError(pub String);

/// Keeps the sealed ring.
///
/// Duties, held by `tests/it/conformance/key_journal.rs`:
///
/// 1. `replace` is a compare-and-swap on the epoch: of many at once exactly one is `Durable` (threat K04);
/// 2. ring and entry become durable in one transaction, before it returns;
/// 3. `witnessed` is read from the ledger, never from the ring's row (threat K07);
/// 4. `signed_by` leaves out no grant whose entry names the key (threat K06).
#[async_trait]
pub trait KeyJournal: fmt::Debug + Send + Sync {
    /// What stands.
    ///
    /// # Errors
    /// The store can't be read.
    async fn load(&self) -> Result<Stored, JournalError>;

    /// Puts `sealed` of epoch `to` in the place of epoch `from` (0: of nothing), and appends `event`.
    ///
    /// # Errors
    /// Nothing is known to have been written.
    async fn replace(
        &self,
        from: u64,
        to: u64,
        sealed: String,
        event: Event,
    ) -> Result<Replaced, JournalError>;

    /// Every grant whose entry names `kid`.
    ///
    /// # Errors
    /// The ledger can't be read.
    async fn signed_by(&self, kid: &str) -> Result<Vec<Signed>, JournalError>;
}

/// Why the ring can't be had, or was not changed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum KeysError {
    /// The waits contradict each other.
    #[error(transparent)]
    Schedule(#[from] schedule::ScheduleError),
    /// The ring does not open or close (threat K03).
    #[error(transparent)]
    Protect(#[from] ProtectError),
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The ring that stands is not the newest one that the ledger knows: a restored backup (threat K07).
    #[error(
        "the stored key ring has epoch {found}, the ledger's newest key entry has epoch {witnessed}"
    )]
    RolledBack {
        /// The epoch of the stored ring, or of the one in use; 0 for none.
        found: u64,
        /// The epoch in the ledger.
        witnessed: u64,
    },
    /// An export that does not open, with the reason.
    #[error("the export does not open: {0}")]
    Export(String),
    /// An export of another ring than the one that stands (threat K07).
    #[error(
        "this export is of epoch {found}, the ring is at {stands}: it is in already, or a key was rotated since; export again"
    )]
    OtherExport {
        /// The epoch that the export names.
        found: u64,
        /// The epoch of the ring that stands.
        stands: u64,
    },
    /// What was opened is not a ring, or not a sound one.
    #[error("the key ring is not sound: {0}")]
    Unsound(String),
    /// No key of that name.
    #[error("no key `{0}` in the ring")]
    NoSuchKey(String),
    /// The step does not fit the key's phase.
    #[error("key `{kid}` is {found}, expected {expected}")]
    Phase {
        /// Which key.
        kid: String,
        /// Its phase.
        found: Phase,
        /// What the step wants.
        expected: &'static str,
    },
    /// INVARIANT(publish-before-sign): verifiers may not have the key yet.
    #[error("key `{kid}` may sign from {until} on: until then some verifiers do not have it yet")]
    NotAnnounced {
        /// Which key.
        kid: String,
        /// From when it may sign.
        until: Instant,
    },
    /// Another node changed the ring first, again and again.
    #[error("the key ring was changed elsewhere, epoch {0} stands")]
    Contended(u64),
    /// A key could not be made or read.
    #[error("key of algorithm `{algorithm}`: {reason}")]
    Key {
        /// What for.
        algorithm: Algorithm,
        /// What happened. Never key material.
        reason: &'static str,
    },
    /// No CA for this target.
    #[error("target `{0}` gets no certificates")]
    NoAuthority(TargetName),
    /// A step that wants a new key was given none.
    #[error("a prepared key is wanted for `{0}`")]
    NoKey(Algorithm),
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prepared => "prepared",
            Self::Active => "active",
            Self::Retired => "retired",
            Self::Withdrawn => "withdrawn",
        })
    }
}
