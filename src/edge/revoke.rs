//! `POST /revoke` (RFC 7009): whoever holds a lease's token ends it; a workload with role `revoke` ends any.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use serde_json::json;

use super::{
    Revocation, Surface,
    answer::{self, Front},
    caller::{bearer, challenge},
    form::{Dialect, Form, refuse},
    source::{self, AddressKey},
};
use crate::{refusal::Refusal, secret::Secret};

/// When a target that does not answer is worth asking again.
const LATER: HeaderValue = HeaderValue::from_static("15");

/// Serves one revocation.
pub(super) async fn revoke(State(surface): State<Arc<Surface>>, request: Request) -> Response {
    let now = surface.clock.now();
    let (caller, token) = match ask(&surface, request).await {
        Ok(asked) => asked,
        Err(refusal) => {
            surface.metrics.refused(refusal.reason());
            return answer::unattributed(&refusal, Front::TokenExchange);
        }
    };
    match surface.revocations.revoke(caller, token, now).await {
        // RFC 7009 section 2.2: a token that we do not know is as good as revoked, and its holder learns no more.
        Ok(Revocation::Ended | Revocation::Unknown) => {
            super::no_store(super::json(StatusCode::OK, &json!({})))
        }
        // RFC 7009 section 2.2.1: 503 says that it may still be good. It is recorded, and tried until it is gone.
        Ok(Revocation::Pending) => {
            let body = json!({
                "error": "temporarily_unavailable",
                "error_description": "the revocation is recorded and goes on, the target does not answer yet",
            });
            let mut response = super::no_store(super::json(StatusCode::SERVICE_UNAVAILABLE, &body));
            response.headers_mut().insert(header::RETRY_AFTER, LATER);
            response
        }
        Ok(Revocation::Unsupported) => {
            let body = json!({
                "error": "unsupported_token_type",
                "error_description": "a JWT ends on its own: revoke leases by their token, signing keys by `cambio keys withdraw`",
            });
            super::no_store(super::json(StatusCode::BAD_REQUEST, &body))
        }
        Err(refused) => challenge("revocation", &refused),
    }
}

/// The caller's own token, if it shows one, and the token to revoke. `token_type_hint` is only a hint, and there is one type.
async fn ask(surface: &Surface, request: Request) -> Result<(Option<Secret>, Secret), Refusal> {
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
    let shown = parts.headers.contains_key(header::AUTHORIZATION);
    let caller = bearer(&parts.headers)?;
    let mut form = Form::read(&parts.headers, body, surface.body_timeout, Dialect::OAuth).await?;
    let token = form.take("token").ok_or_else(|| refuse("`token` is missing"))?;
    Ok((shown.then_some(caller), Secret::from(token)))
}
