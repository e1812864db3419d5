//! Workloads that call our own API with a token of ours: no second kind of login.

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{
    CallerRefused,
    answer::{self, Front},
    form::refuse,
};
use crate::{refusal::Refusal, secret::Secret};

/// Exactly one `Authorization`, and that a bearer token (threat H07). None at all is left to the judge of callers: an
/// empty token is nobody's.
pub(super) fn bearer(headers: &HeaderMap) -> Result<Secret, Refusal> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let token = match (all.next(), all.next()) {
        (None, _) => "",
        (Some(only), None) => only
            .to_str()
            .ok()
            .and_then(|text| text.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token)
            .unwrap_or_default(),
        (Some(_), Some(_)) => return Err(refuse("`Authorization` must be given exactly once")),
    };
    Ok(Secret::from(token.to_owned()))
}

/// RFC 6750 section 3.1. Causes stay inside.
pub(super) fn challenge(what: &'static str, refused: &CallerRefused) -> Response {
    let (status, words) = match refused {
        CallerRefused::Unauthenticated(_) => {
            (StatusCode::UNAUTHORIZED, "Bearer error=\"invalid_token\"")
        }
        CallerRefused::NotAllowed => (StatusCode::FORBIDDEN, "Bearer error=\"insufficient_scope\""),
        CallerRefused::Unavailable(_) => {
            return answer::unattributed(&Refusal::NotReady(what.to_owned()), Front::TokenExchange);
        }
    };
    tracing::info!(
        http.status = status.as_u16(),
        "{what} refused: {}",
        crate::telemetry::Plain(&refused)
    );
    let challenge = [(header::WWW_AUTHENTICATE, HeaderValue::from_static(words))];
    super::no_store((status, challenge).into_response())
}
