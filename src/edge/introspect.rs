//! `POST /introspect` (RFC 7662). The caller is itself a workload with a token of ours: no second kind of login.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::{
    CallerRefused, Surface, answer,
    form::{Form, refuse},
    source::{self, AddressKey},
};
use crate::{refusal::Refusal, secret::Secret};

/// Serves one question.
pub(super) async fn introspect(State(surface): State<Arc<Surface>>, request: Request) -> Response {
    let now = surface.clock.now();
    match ask(&surface, request).await {
        Err(refusal) => {
            surface.metrics.refused(refusal.reason());
            answer::unattributed(&refusal)
        }
        Ok((caller, token)) => match surface.introspect.introspect(caller, token, now).await {
            Ok(Some(mut members)) => {
                members.insert("active".to_owned(), true.into());
                super::no_store(super::json(StatusCode::OK, &members.into()))
            }
            Ok(None) => super::no_store(super::json(StatusCode::OK, &json!({ "active": false }))),
            Err(refused) => challenge(&refused),
        },
    }
}

async fn ask(surface: &Surface, request: Request) -> Result<(Secret, Secret), Refusal> {
    let (parts, body) = request.into_parts();
    let source = source::of(&parts, &surface.proxies)
        .ok_or_else(|| Refusal::Internal("the listener did not say who connected".to_owned()))?;
    surface.per_address.check(&AddressKey::of(source)).map_err(|retry_after| {
        surface.metrics.rate_limited("address");
        Refusal::TooMany { scope: "address", retry_after }
    })?;
    if parts.uri.query().is_some() {
        return Err(refuse("parameters belong in the body: the query must be absent"));
    }
    let caller = bearer(&parts.headers)?;
    let mut form = Form::read(&parts.headers, body, surface.body_timeout).await?;
    let token = form.take("token").ok_or_else(|| refuse("`token` is missing"))?;
    Ok((caller, Secret::from(token)))
}

/// Exactly one `Authorization`, and that a bearer token (threat H07). None at all is left to the judge of callers: an
/// empty token is nobody's.
fn bearer(headers: &HeaderMap) -> Result<Secret, Refusal> {
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
fn challenge(refused: &CallerRefused) -> Response {
    let (status, words) = match refused {
        CallerRefused::Unauthenticated(_) => {
            (StatusCode::UNAUTHORIZED, "Bearer error=\"invalid_token\"")
        }
        CallerRefused::NotAllowed => (StatusCode::FORBIDDEN, "Bearer error=\"insufficient_scope\""),
        CallerRefused::Unavailable(_) => {
            return answer::unattributed(&Refusal::NotReady("introspection".to_owned()));
        }
    };
    tracing::info!(
        http.status = status.as_u16(),
        "introspection refused: {}",
        crate::telemetry::Plain(&refused)
    );
    let challenge = [(header::WWW_AUTHENTICATE, HeaderValue::from_static(words))];
    super::no_store((status, challenge).into_response())
}
