//! Every way to end without a credential. The public answer to each is made in one place, `edge/answer.rs`.

use std::time::Duration;

use thiserror::Error;

use crate::{
    grant::{RoleName, TargetName},
    ledger::CommitError,
    mint::MintError,
    policy::Denial,
    subject::Rejection,
};

/// Why a request never became one: what HTTP itself can tell.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Unfit {
    /// Not `application/x-www-form-urlencoded`, or with a content coding (threat H02).
    #[error("media type is not `application/x-www-form-urlencoded`")]
    MediaType,
    /// The body is larger than we read (threat H03).
    #[error("body is larger than the cap")]
    TooLarge,
    /// The body did not arrive in time (threat H04).
    #[error("body did not arrive in time")]
    TooSlow,
    /// The body broke off, or its framing is one that we do not read (threat H05).
    #[error("body could not be read")]
    Body,
    /// The caller tried to authenticate as a client; there is no client authentication here (threat H07).
    #[error("client authentication was tried")]
    ClientAuthentication,
    /// More is in flight than the broker takes on (threat V07).
    #[error("too much in flight")]
    Overloaded,
}

/// Why an exchange ended without a credential. For the operator; what the caller sees is `edge::answer::answer`.
#[derive(Debug, Error)]
pub enum Refusal {
    /// The request itself is not one (RFC 6749 section 5.2, `invalid_request`).
    #[error("bad request: {0}")]
    BadRequest(String),
    /// HTTP alone says no.
    #[error("unfit request: {0}")]
    Unfit(#[from] Unfit),
    /// `grant_type` is none that we serve.
    #[error("grant type `{0}` is not served")]
    UnsupportedGrantType(String),
    /// Too much, too fast.
    #[error("rate limit of this {scope} reached, free again in {} s", retry_after.as_secs())]
    TooMany {
        /// `address` or `subject`.
        scope: &'static str,
        /// When to come back.
        retry_after: Duration,
    },
    /// The subject token did not verify.
    #[error("subject token: {0}")]
    SubjectToken(#[source] Rejection),
    /// The actor token did not verify.
    #[error("actor token: {0}")]
    ActorToken(#[source] Rejection),
    /// The subject token's `may_act` does not name the actor (RFC 8693 section 4.4), or the chain is too deep or circular.
    #[error("actor refused: {0}")]
    Actor(String),
    /// No rule permits it.
    #[error("denied: {0}")]
    Denied(Box<Denial>),
    /// `scope` is not well-formed (RFC 6749 section 3.3).
    #[error("scope `{0}` is not well-formed")]
    Scope(String),
    /// More than one (target, role) is permitted and the request does not choose.
    #[error("the request fits {} permitted roles: name one by `audience` and `scope`", .0.len())]
    Ambiguous(Vec<(TargetName, RoleName)>),
    /// The token was already spent on this target and role.
    #[error("the subject token was already spent on `{target}` as `{role}`")]
    AlreadySpent {
        /// Where.
        target: TargetName,
        /// As what.
        role: RoleName,
    },
    /// As many credentials of this target are live as the subject, or all subjects together, may hold: nothing was made.
    #[error("as many logins of `{target}` are live as may be: the first of them ends in {} s", retry_after.as_secs())]
    NoRoom {
        /// Where.
        target: TargetName,
        /// When the first of them ends.
        retry_after: Duration,
    },
    /// A block stands in the way.
    #[error("block `{0}` applies")]
    Blocked(String),
    /// The credential could not be prepared or made.
    #[error("target `{target}`: {error}")]
    Mint {
        /// Which.
        target: TargetName,
        /// What happened.
        #[source]
        error: MintError,
        /// Whether the token is still unspent, so that trying again makes sense.
        unspent: bool,
    },
    /// The exchange could not be recorded: nothing was issued.
    #[error("ledger: {0}")]
    Ledger(#[from] CommitError),
    /// The broker is going down or is not ready.
    #[error("not ready: {0}")]
    NotReady(String),
    /// A defect of ours.
    #[error("internal: {0}")]
    Internal(String),
}

impl Refusal {
    /// The stable reason code: in metrics, in the ledger, in logs. A closed set.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad_request",
            Self::Unfit(unfit) => unfit.reason(),
            Self::UnsupportedGrantType(_) => "unsupported_grant_type",
            Self::TooMany { .. } => "too_many",
            Self::SubjectToken(rejection) | Self::ActorToken(rejection) => rejection.label(),
            Self::Actor(_) => "actor",
            Self::Denied(denial) => denial.reason.label(),
            Self::Scope(_) => "scope_syntax",
            Self::Ambiguous(_) => "ambiguous_target",
            Self::AlreadySpent { .. } => "already_spent",
            Self::NoRoom { .. } => "no_room",
            Self::Blocked(_) => "blocked",
            Self::Mint { .. } => "mint",
            Self::Ledger(_) => "ledger",
            Self::NotReady(_) => "not_ready",
            Self::Internal(_) => "internal",
        }
    }
}

impl Unfit {
    /// The stable reason code. A closed set.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::MediaType => "media_type",
            Self::TooLarge => "too_large",
            Self::TooSlow => "too_slow",
            Self::Body => "body",
            Self::ClientAuthentication => "client_authentication",
            Self::Overloaded => "overloaded",
        }
    }
}
