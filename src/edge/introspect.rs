//! `POST /introspect` (RFC 7662). The caller is itself a workload with a token of ours: no second kind of login.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::Response,
};
use serde_json::json;

use super::{
    Surface,
    answer::{self, Front},
    caller::{bearer, challenge},
    form::{Dialect, Form, refuse},
    source::{self, AddressKey},
};
use crate::{refusal::Refusal, secret::Secret};

/// Serves one question.
pub(super) async fn introspect(State(surface): State<Arc<Surface>>, request: Request) -> Response {
    let now = surface.clock.now();
    match ask(&surface, request).await {
        Err(refusal) => {
            surface.metrics.refused(refusal.reason());
            answer::unattributed(&refusal, Front::TokenExchange)
        }
        Ok((caller, token)) => match surface.introspect.introspect(caller, token, now).await {
            Ok(Some(mut members)) => {
                members.insert("active".to_owned(), true.into());
                super::no_store(super::json(StatusCode::OK, &members.into()))
            }
            Ok(None) => super::no_store(super::json(StatusCode::OK, &json!({ "active": false }))),
            Err(refused) => challenge("introspection", &refused),
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
    let mut form = Form::read(&parts.headers, body, surface.body_timeout, Dialect::OAuth).await?;
    let token = form.take("token").ok_or_else(|| refuse("`token` is missing"))?;
    Ok((caller, Secret::from(token)))
}
