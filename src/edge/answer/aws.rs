//! The same refusals in the codes that AWS SDKs know (AWS STS API reference, "Errors" and "Common errors"): by the code they
//! choose the exception that a person sees, and whether to try again.

use std::borrow::Cow;

use axum::http::StatusCode;

use super::Answer;
use crate::{
    ledger::CommitError,
    mint::{MintError, Unsuited},
    policy::DenialReason,
    refusal::{Refusal, Unfit},
    subject::Rejection,
};

const SERVED: &str = "AssumeRoleWithWebIdentity alone is served here: ask AWS itself for the rest";

/// `oauth` with the status and the code of AWS.
pub(super) fn answer(refusal: &Refusal, oauth: Answer) -> Answer {
    let (status, code) = of(refusal);
    let unserved = matches!(refusal, Refusal::UnsupportedGrantType(_));
    let description = if unserved { Cow::Borrowed(SERVED) } else { oauth.description };
    Answer { status, code, description, retry_after: oauth.retry_after }
}

const INVALID: (StatusCode, &str) = (StatusCode::BAD_REQUEST, "ValidationError");
const DENIED: (StatusCode, &str) = (StatusCode::FORBIDDEN, "AccessDenied");
const BAD_TOKEN: (StatusCode, &str) = (StatusCode::BAD_REQUEST, "InvalidIdentityToken");
const UNAVAILABLE: (StatusCode, &str) = (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable");
const FAILED: (StatusCode, &str) = (StatusCode::INTERNAL_SERVER_ERROR, "InternalFailure");

fn of(refusal: &Refusal) -> (StatusCode, &'static str) {
    match refusal {
        Refusal::BadRequest(_) => INVALID,
        Refusal::UnsupportedGrantType(_) => (StatusCode::BAD_REQUEST, "InvalidAction"),
        Refusal::Unfit(unfit) => match unfit {
            Unfit::MediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, INVALID.1),
            Unfit::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, INVALID.1),
            Unfit::TooSlow => (StatusCode::REQUEST_TIMEOUT, "RequestTimeout"),
            Unfit::Body => INVALID,
            Unfit::ClientAuthentication => DENIED,
            Unfit::Overloaded => UNAVAILABLE,
        },
        Refusal::TooMany { .. } => (StatusCode::TOO_MANY_REQUESTS, "Throttling"),
        // Every SDK tries again on this one.
        Refusal::SubjectToken(
            Rejection::KeysUnavailable { .. } | Rejection::ReviewUnavailable { .. },
        )
        | Refusal::ActorToken(
            Rejection::KeysUnavailable { .. } | Rejection::ReviewUnavailable { .. },
        ) => (StatusCode::BAD_REQUEST, "IDPCommunicationError"),
        Refusal::SubjectToken(rejection) | Refusal::ActorToken(rejection) => of_token(rejection),
        Refusal::Denied(denial) => match denial.reason {
            DenialReason::Lifetime { .. } => INVALID,
            DenialReason::NoRule
            | DenialReason::Conditions
            | DenialReason::Guardrail(_)
            | DenialReason::Conflict(_)
            | DenialReason::Target(_)
            | DenialReason::Scope(_) => DENIED,
        },
        // Not `InvalidIdentityToken`, on which some SDKs try again: the same token is never good a second time.
        Refusal::AlreadySpent { .. }
        | Refusal::Actor(_)
        | Refusal::Scope(_)
        | Refusal::Ambiguous(_)
        | Refusal::Blocked(_) => DENIED,
        Refusal::Mint { target: _, error, unspent: _ } => of_mint(error),
        Refusal::Ledger(error) => match error {
            CommitError::Stopped(_)
            | CommitError::Fork(_)
            | CommitError::ClockBehind(_)
            | CommitError::Full => UNAVAILABLE,
            CommitError::TooLarge(_) => FAILED,
        },
        Refusal::NoRoom { .. } | Refusal::NotReady(_) => UNAVAILABLE,
        Refusal::Internal(_) => FAILED,
    }
}

/// Threat J28: one answer, but for the one thing that the holder of a genuine token can read in it: that its time is over. The
/// signature was good by then, so nobody learns that of a token of his own making.
fn of_token(rejection: &Rejection) -> (StatusCode, &'static str) {
    if rejection.is_expired() {
        return (StatusCode::BAD_REQUEST, "ExpiredTokenException");
    }
    match rejection {
        Rejection::Malformed(_)
        | Rejection::Header(_)
        | Rejection::UnknownIssuer { .. }
        | Rejection::NoKey { .. }
        | Rejection::KeysUnavailable { .. }
        | Rejection::Signature { .. }
        | Rejection::Claim { .. }
        | Rejection::NotStanding { .. }
        | Rejection::ReviewUnavailable { .. } => BAD_TOKEN,
    }
}

fn of_mint(error: &MintError) -> (StatusCode, &'static str) {
    match error {
        MintError::NoLifetime(_) | MintError::Request(_) => INVALID,
        // AWS refused, for certain: an SDK that tries again changes nothing. The owner finds the reason by the request id.
        MintError::Refused(_)
        | MintError::Actors(_)
        | MintError::NoName(_)
        | MintError::Unsuited(Unsuited::Claim, _) => DENIED,
        MintError::Unsuited(Unsuited::Narrowing, _) => {
            (StatusCode::BAD_REQUEST, "MalformedPolicyDocument")
        }
        MintError::Unsuited(Unsuited::TooLarge, _) => {
            (StatusCode::BAD_REQUEST, "PackedPolicyTooLarge")
        }
        MintError::NoKey(_) | MintError::Busy(_) | MintError::Unknown(_) => UNAVAILABLE,
        MintError::Internal(_) => FAILED,
    }
}
