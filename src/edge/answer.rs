//! The only map from a [`Refusal`] to what the caller sees: status, OAuth error code, public words.
//!
//! INVARIANT(one-map-to-the-wire): causes stay inside and are found by `exchange_id`. No words here come from the request
//! or from a cause, but those of [`Refusal::BadRequest`], which the edge wrote about the request's own shape.

use std::{borrow::Cow, time::Duration};

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use serde_json::json;

use crate::{
    id::ExchangeId,
    ledger::CommitError,
    mint::{MintError, Unsuited},
    policy::DenialReason,
    refusal::{Refusal, Unfit},
    subject::Rejection,
};

mod aws;

/// Which protocol the caller speaks: the same refusal has another code in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front {
    /// RFC 8693.
    TokenExchange,
    /// RFC 7523 section 2.1.
    JwtBearer,
    /// RFC 8693 as Google's libraries speak it.
    Google,
    /// The AWS STS query protocol.
    AwsSts,
}

impl Front {
    /// The closed label in metrics and logs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::TokenExchange => "token_exchange",
            Self::JwtBearer => "jwt_bearer",
            Self::Google => "google",
            Self::AwsSts => "aws_sts",
        }
    }

    /// The code for a token that is bad or that policy refuses.
    ///
    /// RFC 8693 section 2.2.2 says `invalid_request` (MUST), RFC 7523 section 3.1 says `invalid_grant`, and so does Google.
    const fn bad_token(self) -> &'static str {
        match self {
            Self::TokenExchange | Self::AwsSts => "invalid_request",
            Self::JwtBearer | Self::Google => "invalid_grant",
        }
    }
}

/// What the caller sees of a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 4xx where the request is to blame, 5xx where we are.
    pub status: StatusCode,
    /// RFC 6749 section 5.2, RFC 8693 section 2.2.2.
    pub code: &'static str,
    /// `error_description`: public words, in the characters that RFC 6749 section 5.2 allows.
    pub description: Cow<'static, str>,
    /// When to come back: only while the token is unspent, so that coming back makes sense.
    pub retry_after: Option<Duration>,
}

/// When to come back after an outage that is likely to be short.
const SOON: Duration = Duration::from_secs(1);
/// When to come back after an outage of somebody else.
const LATER: Duration = Duration::from_secs(5);

const NOT_PERMITTED: &str = "no trust policy permits this exchange";
const TOKEN_REFUSED: &str = "the subject token was not accepted";
const NO_TARGET: &str = "the target can't be had: see `audience` and `resource`";
const NO_SCOPE: &str = "the scope is not permitted";
const NO_LIFETIME: &str = "no lifetime is left that the target can keep";
const NO_KEYS: &str = "the keys of the token's issuer are not available";
const NO_REVIEW: &str = "the token's issuer can't be asked about it now";

/// The public answer to `refusal`.
#[must_use]
pub fn answer(refusal: &Refusal, front: Front) -> Answer {
    let oauth = oauth(refusal, front);
    match front {
        Front::TokenExchange | Front::JwtBearer | Front::Google => oauth,
        // The words and the time to come back are the same; only what SDKs read is in their language.
        Front::AwsSts => aws::answer(refusal, oauth),
    }
}

fn oauth(refusal: &Refusal, front: Front) -> Answer {
    match refusal {
        Refusal::BadRequest(words) => Answer {
            description: Cow::Owned(speakable(words)),
            ..bad(StatusCode::BAD_REQUEST, "invalid_request", "")
        },
        Refusal::Unfit(unfit) => unfit_answer(*unfit),
        Refusal::UnsupportedGrantType(_) => {
            bad(StatusCode::BAD_REQUEST, "unsupported_grant_type", "the grant type is not served")
        }
        // No RFC gives a token endpoint a code for 429 and 503: `temporarily_unavailable` is RFC 6749 section 4.1.2.1's.
        Refusal::TooMany { scope: _, retry_after } => Answer {
            retry_after: Some(*retry_after),
            ..bad(StatusCode::TOO_MANY_REQUESTS, "temporarily_unavailable", "too many requests")
        },
        Refusal::SubjectToken(Rejection::KeysUnavailable { .. })
        | Refusal::ActorToken(Rejection::KeysUnavailable { .. }) => outage(NO_KEYS, Some(LATER)),
        // Nothing was committed: the token is unspent.
        Refusal::SubjectToken(Rejection::ReviewUnavailable { .. })
        | Refusal::ActorToken(Rejection::ReviewUnavailable { .. }) => {
            outage(NO_REVIEW, Some(LATER))
        }
        // One answer for every way in which a token can be bad (threat J28).
        Refusal::SubjectToken(
            Rejection::Malformed(_)
            | Rejection::Header(_)
            | Rejection::UnknownIssuer { .. }
            | Rejection::NoKey { .. }
            | Rejection::Signature { .. }
            | Rejection::Claim { .. }
            | Rejection::NotStanding { .. },
        ) => bad(StatusCode::BAD_REQUEST, front.bad_token(), TOKEN_REFUSED),
        Refusal::ActorToken(
            Rejection::Malformed(_)
            | Rejection::Header(_)
            | Rejection::UnknownIssuer { .. }
            | Rejection::NoKey { .. }
            | Rejection::Signature { .. }
            | Rejection::Claim { .. }
            | Rejection::NotStanding { .. },
        ) => bad(StatusCode::BAD_REQUEST, front.bad_token(), "the actor token was not accepted"),
        Refusal::Actor(_) => bad(
            StatusCode::BAD_REQUEST,
            front.bad_token(),
            "the actor may not act for this subject",
        ),
        Refusal::Denied(denial) => match denial.reason {
            // A conflict of rules is the owner's mistake, and fails closed: to the caller, nothing permits it.
            DenialReason::NoRule
            | DenialReason::Conditions
            | DenialReason::Guardrail(_)
            | DenialReason::Conflict(_) => {
                bad(StatusCode::BAD_REQUEST, front.bad_token(), NOT_PERMITTED)
            }
            DenialReason::Lifetime { .. } => {
                bad(StatusCode::BAD_REQUEST, front.bad_token(), NO_LIFETIME)
            }
            DenialReason::Target(_) => bad(StatusCode::BAD_REQUEST, "invalid_target", NO_TARGET),
            DenialReason::Scope(_) => bad(StatusCode::BAD_REQUEST, "invalid_scope", NO_SCOPE),
        },
        Refusal::Ambiguous(_) => bad(
            StatusCode::BAD_REQUEST,
            "invalid_target",
            "more than one role is permitted: name the target by `audience` and the role by `scope`",
        ),
        Refusal::Scope(_) => bad(StatusCode::BAD_REQUEST, "invalid_scope", NO_SCOPE),
        Refusal::AlreadySpent { .. } => bad(
            StatusCode::BAD_REQUEST,
            front.bad_token(),
            "the subject token was already used for this",
        ),
        // The token was not spent.
        Refusal::NoRoom { target: _, retry_after } => Answer {
            retry_after: Some(*retry_after),
            ..bad(
                StatusCode::TOO_MANY_REQUESTS,
                "temporarily_unavailable",
                "as many logins as may be are live: use one of them, or end one",
            )
        },
        // As if no rule permitted it: whether a block exists is nobody's business.
        Refusal::Blocked(_) => bad(StatusCode::BAD_REQUEST, front.bad_token(), NOT_PERMITTED),
        Refusal::Mint { target: _, error, unspent } => mint(error, *unspent, front),
        Refusal::Ledger(error) => ledger(error),
        Refusal::NotReady(_) => outage("the broker is not ready", Some(SOON)),
        Refusal::Internal(_) => {
            bad(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "internal error")
        }
    }
}

const fn unfit_answer(unfit: Unfit) -> Answer {
    match unfit {
        Unfit::MediaType => bad(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "invalid_request",
            "the body must be `application/x-www-form-urlencoded`, without a content coding",
        ),
        Unfit::TooLarge => {
            bad(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request", "the body is too large")
        }
        Unfit::TooSlow => {
            bad(StatusCode::REQUEST_TIMEOUT, "invalid_request", "the body did not arrive in time")
        }
        Unfit::Body => bad(
            StatusCode::BAD_REQUEST,
            "invalid_request",
            "the body could not be read: it needs one `Content-Length` and no `Transfer-Encoding`",
        ),
        Unfit::ClientAuthentication => bad(
            StatusCode::UNAUTHORIZED,
            "invalid_client",
            "there is no client authentication here: the subject token is the credential",
        ),
        Unfit::Overloaded => outage("the broker is busy", Some(SOON)),
    }
}

fn mint(error: &MintError, unspent: bool, front: Front) -> Answer {
    let again = unspent.then_some(LATER);
    match error {
        MintError::NoLifetime(_) => bad(
            StatusCode::BAD_REQUEST,
            front.bad_token(),
            "no lifetime is left that the target can keep",
        ),
        MintError::Actors(_) => bad(
            StatusCode::BAD_REQUEST,
            front.bad_token(),
            "the actor may not act for this subject",
        ),
        // The exchange has made a `BadRequest` of it, with its words.
        MintError::Request(_) => bad(
            StatusCode::BAD_REQUEST,
            "invalid_request",
            "what was sent for this target can't be used",
        ),
        MintError::NoName(_) => bad(
            StatusCode::BAD_REQUEST,
            front.bad_token(),
            "the subject has no name at this target",
        ),
        MintError::NoKey(_) => outage("no signing key may be used now", again),
        MintError::Unsuited(Unsuited::Claim, _) => bad(
            StatusCode::BAD_REQUEST,
            front.bad_token(),
            "the token lacks a claim that the target needs",
        ),
        MintError::Unsuited(Unsuited::Narrowing, _) => bad(
            StatusCode::BAD_REQUEST,
            "invalid_request",
            "the credential can't be narrowed as asked",
        ),
        MintError::Unsuited(Unsuited::TooLarge, _) => bad(
            StatusCode::BAD_REQUEST,
            "invalid_request",
            "session policies and tags are too large together",
        ),
        MintError::Busy(wait) => outage("the target does not answer now", unspent.then_some(*wait)),
        MintError::Refused(_) => outage("the target did not issue a credential", again),
        // Something may exist there: a token that counts once stays spent until its worst end, and trying again is refused.
        MintError::Unknown(_) => outage("the target did not answer", again),
        MintError::Internal(_) => {
            bad(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "internal error")
        }
    }
}

/// INVARIANT(no-answer-without-entry): what could not be recorded was not issued.
const fn ledger(error: &CommitError) -> Answer {
    const WORDS: &str = "the exchange could not be recorded";
    match error {
        // The commit's outcome may be unknown, and with it whether the token is spent.
        CommitError::Stopped(_) | CommitError::Fork(_) => outage(WORDS, None),
        CommitError::ClockBehind(_) | CommitError::Full => outage(WORDS, Some(SOON)),
        CommitError::TooLarge(_) => bad(StatusCode::INTERNAL_SERVER_ERROR, "server_error", WORDS),
    }
}

const fn outage(words: &'static str, retry_after: Option<Duration>) -> Answer {
    Answer {
        status: StatusCode::SERVICE_UNAVAILABLE,
        code: "temporarily_unavailable",
        description: Cow::Borrowed(words),
        retry_after,
    }
}

const fn bad(status: StatusCode, code: &'static str, words: &'static str) -> Answer {
    Answer { status, code, description: Cow::Borrowed(words), retry_after: None }
}

/// At most 200 characters of `words`, and only those that RFC 6749 section 5.2 allows in `error_description`: no quote,
/// no backslash, nothing that could be markup or a control (threat H13).
fn speakable(words: &str) -> String {
    let allowed = |c: char| matches!(c, ' ' | '!' | '#'..=';' | '=' | '?'..='[' | ']'..='~');
    words.chars().take(200).map(|c| if allowed(c) { c } else { '?' }).collect()
}

/// The whole error response of exchange `id`.
pub(super) fn respond(refusal: &Refusal, front: Front, id: ExchangeId) -> Response {
    let answer = answer(refusal, front);
    let body = match front {
        Front::TokenExchange | Front::JwtBearer | Front::Google => {
            let body = json!({
                "error": answer.code,
                "error_description": answer.description,
                "exchange_id": id.to_string(),
                "explain": format!("cambio policy explain {id}"),
            });
            super::json(answer.status, &body)
        }
        Front::AwsSts => super::aws::xml::refused(&answer, Some(id)),
    };
    let mut response = with_headers(&answer, body);
    if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
        response.headers_mut().insert(super::EXCHANGE_ID, value);
    }
    response
}

/// The error response where there is no exchange yet, or no longer one.
pub(super) fn unattributed(refusal: &Refusal, front: Front) -> Response {
    let answer = answer(refusal, front);
    let body = match front {
        Front::TokenExchange | Front::JwtBearer | Front::Google => {
            let body = json!({ "error": answer.code, "error_description": answer.description });
            super::json(answer.status, &body)
        }
        Front::AwsSts => super::aws::xml::refused(&answer, None),
    };
    let mut response = with_headers(&answer, body);
    // What is not read to its end must not be taken for the next request (threat H05).
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

fn with_headers(answer: &Answer, response: Response) -> Response {
    let mut response = super::no_store(response);
    let headers = response.headers_mut();
    if let Some(after) = answer.retry_after {
        // Rounded up: a caller that is told 0 s comes back at once. RFC 9110 section 10.2.3.
        let seconds = after.as_secs().saturating_add(u64::from(after.subsec_nanos() > 0)).max(1);
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if answer.status == StatusCode::UNAUTHORIZED {
        // RFC 9110 section 15.5.2 wants a challenge with every 401.
        headers.insert(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer error=\"invalid_client\""),
        );
    }
    if matches!(answer.status.as_u16(), 408 | 413 | 415) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
