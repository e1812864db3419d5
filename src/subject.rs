//! Step 2: `UnverifiedToken` → [`VerifiedSubject`]. Strict, ours, in front of the library.

use std::{fmt, ops::Deref, sync::Arc, time::Duration};

use async_trait::async_trait;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::{clock::Instant, grant::IssuerName, secret::Secret};

pub mod algorithm;
pub mod compact;
pub mod issuers;
pub mod jwk;
pub mod jws;
pub mod key_source;
pub mod provider;
pub mod review;
pub mod verify;

pub use crate::json;
pub use algorithm::Algorithm;
pub use issuers::{Issuer, Issuers};
pub use jwk::VerificationKey;
pub use provider::{ClaimError, Preset};
use review::Question;
pub use review::TokenReview;

/// The members of a claims object, integers kept as 64-bit integers, duplicates already refused.
pub type Claims = Map<String, Value>;

/// A token as it came in: proven by nothing, and able to do almost nothing.
#[derive(Clone)]
pub struct UnverifiedToken(Secret);

impl UnverifiedToken {
    /// Takes what a caller sent. Nothing is trimmed and nothing is parsed here.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Secret::from(text))
    }

    /// The compact serialisation, for the verifier.
    pub(in crate::subject) fn unverified_text(&self) -> &str {
        self.0.reveal_text().unwrap_or_default()
    }
}

impl fmt::Debug for UnverifiedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unverified{:?}", self.0)
    }
}

/// SHA-256 of a token's signing input: its name in the replay log and in the ledger.
///
/// INVARIANT(replay-window): never of the signature, because ECDSA signatures are malleable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenDigest(pub [u8; 32]);

/// What is said of a workload: its issuer's name, the kind of issuer, the claims. Proves nothing by itself; policy judges
/// it, for a verified subject as for a recorded or an invented one (`policy explain`, `policy test`).
#[derive(Clone, Debug)]
pub struct Profile {
    /// What the configuration calls the issuer.
    pub issuer: IssuerName,
    /// The kind of issuer.
    pub preset: &'static Preset,
    /// The claims as signed, and beside them those that the preset derives (`job_workflow`, `namespace` …).
    pub claims: Arc<Claims>,
    /// The preset's stable-id form: `repository_id:1296269`.
    pub stable_id: String,
}

impl Profile {
    /// Applies `preset` to the signed `claims`: types, grammar of `sub`, derived claims, the stable id.
    ///
    /// # Errors
    /// A claim has another type than the preset knows, or `sub` and the ids disagree (threat C03).
    pub fn of(
        issuer: IssuerName,
        preset: &'static Preset,
        claims: Claims,
    ) -> Result<Self, ClaimError> {
        let (claims, stable_id) = preset.interpret(claims)?;
        Ok(Self { issuer, preset, claims: Arc::new(claims), stable_id })
    }

    /// The profile that was recorded: its claims were interpreted when the exchange was decided, derived ones included.
    ///
    /// # Errors
    /// The claims hold no stable id: they are not what a broker records.
    pub fn recorded(
        issuer: IssuerName,
        preset: &'static Preset,
        claims: Arc<Claims>,
    ) -> Result<Self, ClaimError> {
        let stable_id = preset.stable_id(&claims)?;
        Ok(Self { issuer, preset, claims, stable_id })
    }

    /// `<issuer name>:<stable id>`: the `sub` of what we issue (design section 6).
    #[must_use]
    pub fn our_subject(&self) -> String {
        [self.issuer.as_str(), ":", &self.stable_id].concat()
    }

    /// The token's own `sub`.
    #[must_use]
    pub fn token_subject(&self) -> &str {
        self.claims.get("sub").and_then(Value::as_str).unwrap_or_default()
    }
}

/// A workload whose token passed every check of this module.
///
/// Holding one is the proof: no other module can build it.
#[derive(Clone, Debug)]
pub struct VerifiedSubject {
    profile: Profile,
    issued_at: Instant,
    expires_at: Instant,
    digest: TokenDigest,
    /// What its issuer is still to be asked, where the configuration wants that.
    question: Option<Arc<Question>>,
}

impl VerifiedSubject {
    pub(in crate::subject) const fn attest(
        profile: Profile,
        (issued_at, expires_at): (Instant, Instant),
        digest: TokenDigest,
        question: Option<Arc<Question>>,
    ) -> Self {
        Self { profile, issued_at, expires_at, digest, question }
    }

    /// Asks its issuer whether the token still stands, where the configuration wants that; every time anew.
    ///
    /// The one way to a credential: a minter takes a [`ConfirmedSubject`] and nothing less (threat C16).
    ///
    /// # Errors
    /// The issuer says no ([`Rejection::NotStanding`]), or can't be asked ([`Rejection::ReviewUnavailable`]).
    pub async fn confirm(&self) -> Result<ConfirmedSubject<'_>, Rejection> {
        if let Some(question) = &self.question {
            // Boxed: who asks nobody carries none of it.
            Box::pin(question.ask(&self.profile)).await?;
        }
        Ok(ConfirmedSubject(self))
    }

    /// The same for a subject whose issuer is not asked; `None` for any other.
    #[must_use]
    pub const fn unasked(&self) -> Option<ConfirmedSubject<'_>> {
        match self.question {
            None => Some(ConfirmedSubject(self)),
            Some(_) => None,
        }
    }

    /// Who it is.
    #[must_use]
    pub const fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The token's `iat`.
    #[must_use]
    pub const fn issued_at(&self) -> Instant {
        self.issued_at
    }

    /// The token's `exp`, without leeway.
    #[must_use]
    pub const fn expires_at(&self) -> Instant {
        self.expires_at
    }

    /// The token's name in replay log and ledger.
    #[must_use]
    pub const fn digest(&self) -> TokenDigest {
        self.digest
    }
}

/// A verified subject of which nothing is left to be asked: where the configuration wants its issuer to be asked whether the token
/// still stands, the issuer has just said yes.
///
/// Holding one is the proof: only [`VerifiedSubject::confirm`] asks, and no other module can build it.
#[derive(Clone, Copy, Debug)]
pub struct ConfirmedSubject<'a>(&'a VerifiedSubject);

impl<'a> ConfirmedSubject<'a> {
    /// The verified subject, for as long as it lives.
    #[must_use]
    pub const fn verified(self) -> &'a VerifiedSubject {
        self.0
    }
}

impl Deref for ConfirmedSubject<'_> {
    type Target = VerifiedSubject;

    fn deref(&self) -> &VerifiedSubject {
        self.0
    }
}

/// Why a token is not a subject. For the operator; a caller only ever sees one public answer (threat J28).
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Rejection {
    /// Not a compact JWS of acceptable size and shape.
    #[error("malformed token: {0}")]
    Malformed(String),
    /// A header that we do not accept.
    #[error("header refused: {0}")]
    Header(String),
    /// `iss` is not configured, byte for byte. No outbound call was made (threat D01).
    #[error("issuer `{found}` is not configured")]
    UnknownIssuer {
        /// What the token says, shortened.
        found: String,
    },
    /// No key of the issuer fits.
    #[error("no key of issuer `{issuer}` fits: {reason}")]
    NoKey {
        /// Whose.
        issuer: IssuerName,
        /// Which key was looked for, and why it was not found.
        reason: String,
    },
    /// The issuer's keys can't be had now: an outage, not a verdict.
    #[error("keys of issuer `{issuer}` are not available: {reason}")]
    KeysUnavailable {
        /// Whose.
        issuer: IssuerName,
        /// What happened.
        reason: String,
    },
    /// The signature does not verify.
    #[error("signature does not verify with key `{kid}` of issuer `{issuer}`")]
    Signature {
        /// Whose.
        issuer: IssuerName,
        /// With which key.
        kid: String,
    },
    /// The signature is good, but a claim is not. The issuer is therefore proven.
    #[error("claim `{claim}` refused: {reason}")]
    Claim {
        /// Who signed.
        issuer: IssuerName,
        /// Which claim.
        claim: String,
        /// What was found and what was expected.
        reason: String,
    },
    /// Every check of ours held, and the issuer says that the token no longer stands: what it is bound to is gone (threat C16).
    #[error("issuer `{issuer}` says that the token does not stand: {reason}")]
    NotStanding {
        /// Who was asked.
        issuer: IssuerName,
        /// What it said, fit for a log line.
        reason: String,
    },
    /// The issuer can't be asked now whether the token still stands: an outage, not a verdict.
    #[error("issuer `{issuer}` can't be asked whether the token stands: {reason}")]
    ReviewUnavailable {
        /// Whose.
        issuer: IssuerName,
        /// What happened, and what to mend.
        reason: String,
    },
}

/// How the reason of a token begins whose time is over.
pub(in crate::subject) const ENDED: &str = "the token ended at";

impl Rejection {
    /// Whether a genuine token came too late: its signature is good, its time is over.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        matches!(self, Self::Claim { claim, reason, .. } if claim == "exp" && reason.starts_with(ENDED))
    }

    /// A closed label for metrics and the roll-up (threat H10): never holds anything a caller chose.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed_token",
            Self::Header(_) => "header",
            Self::UnknownIssuer { .. } => "unknown_issuer",
            Self::NoKey { .. } => "no_key",
            Self::KeysUnavailable { .. } => "keys_unavailable",
            Self::Signature { .. } => "signature",
            Self::Claim { .. } => "claim",
            Self::NotStanding { .. } => "token_review",
            Self::ReviewUnavailable { .. } => "token_review_unavailable",
        }
    }
}

/// Why an issuer's keys can't be told.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum KeySourceError {
    /// The set is known and does not hold the key.
    #[error("no key `{kid}`: {reason}")]
    NoSuchKey {
        /// The wanted `kid`, or `-` where the token names none.
        kid: String,
        /// What the set holds.
        reason: String,
    },
    /// The set was never had, or is older than the staleness limit.
    #[error("{0}")]
    Unavailable(String),
}

/// How fresh an issuer's keys are, for readiness, metrics and `cambio doctor`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySourceState {
    /// When the set in use was fetched or loaded.
    pub fetched_at: Option<Instant>,
    /// How many usable keys it has.
    pub keys: usize,
    /// Why the last attempt failed, if it did.
    pub last_error: Option<String>,
    /// How many fetches were made since the start.
    pub fetches: u64,
}

/// Knows the keys of one issuer.
///
/// Duties, held by `tests/it/conformance/key_source.rs`:
///
/// 1. a key that left the issuer's set is gone here within one refresh interval;
/// 2. unknown `kid`s make us fetch at most once in 30 s, whoever asks;
/// 3. a failed fetch changes nothing: the last good set stays whole until the staleness limit, then nothing is found;
/// 4. no caller waits for another issuer's network, and none waits longer than the fetch deadline.
#[async_trait]
pub trait KeySource: fmt::Debug + Send + Sync {
    /// The keys that may have made a signature under `kid` (all usable ones, where the token names none).
    ///
    /// # Errors
    /// There is no such key, or no set to look in.
    async fn find(
        &self,
        kid: Option<&str>,
        now: Instant,
    ) -> Result<Vec<Arc<VerificationKey>>, KeySourceError>;

    /// How fresh the set is.
    fn state(&self) -> KeySourceState;
}

/// INVARIANT(replay-window): the most that any issuer's leeway may be; spends are kept this long past `exp`.
pub const MAXIMUM_LEEWAY: Duration = Duration::from_mins(1);
