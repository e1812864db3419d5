//! The sandbox over HTTP: discovery, key sets and the three ways of asking for a token.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, RawQuery, Request, State},
    http::{
        HeaderMap, StatusCode,
        header::{AUTHORIZATION, CACHE_CONTROL, HOST},
    },
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};

use super::{
    Desk, HandedOut, JWKS_MAX_AGE, Platform, SandboxError, TokenWish, claims, same_secret,
};
use crate::subject::json;

/// All routes, of all three platforms.
pub(super) fn router(desk: Arc<Desk>) -> Router {
    let mut router = Router::new();
    for platform in Platform::ALL {
        let discovery = format!("/{platform}/.well-known/openid-configuration");
        let jwks = format!("/{platform}{}", platform.jwks_path());
        router = router
            .route(
                &discovery,
                get(move |State(desk): Desks| async move { desk.discovery(platform).answer() }),
            )
            .route(&jwks, get(move |State(desk): Desks| async move { key_set(&desk, platform) }));
    }
    let account = "/kubernetes/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token";
    router
        .route("/github/token", get(github))
        .route("/gitlab/token", get(gitlab))
        .route(account, post(kubernetes))
        .layer(DefaultBodyLimit::max(json::Limits::CLAIMS.bytes))
        .layer(middleware::from_fn_with_state(Arc::clone(&desk), only_as_itself))
        .with_state(desk)
}

type Desks = State<Arc<Desk>>;

/// A web page in the developer's browser can reach loopback under a name of its own (DNS rebinding): only the address that
/// we print is served.
async fn only_as_itself(State(desk): Desks, request: Request, next: Next) -> Response {
    let host = request.headers().get(HOST).map(axum::http::HeaderValue::as_bytes);
    if host == Some(desk.authority.as_bytes()) {
        return next.run(request).await;
    }
    refusal(StatusCode::MISDIRECTED_REQUEST, "`Host` is not the address of this sandbox")
}

/// `GET $ACTIONS_ID_TOKEN_REQUEST_URL&audience=…` with `Authorization: bearer …` → `{"value": "<jwt>"}`.
async fn github(State(desk): Desks, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    if !may_ask(&desk, &headers) {
        let expected = "expected `Authorization: bearer` and the request token";
        return refusal(StatusCode::UNAUTHORIZED, expected);
    }
    match wish(query.as_deref(), "audience") {
        Ok(wish) => answer(
            desk.token(Platform::GitHub, &wish),
            StatusCode::OK,
            |token, _| json!({ "value": token }),
        ),
        Err(reason) => refusal(StatusCode::BAD_REQUEST, &reason),
    }
}

/// What a job finds in the variable that its `id_tokens:` names: here the answer's whole body is the token.
async fn gitlab(State(desk): Desks, RawQuery(query): RawQuery) -> Response {
    match wish(query.as_deref(), "aud") {
        Ok(wish) => match desk.token(Platform::GitLab, &wish) {
            Ok(out) => uncached(out.token.reveal_text().unwrap_or_default().to_owned()),
            Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        },
        Err(reason) => refusal(StatusCode::BAD_REQUEST, &reason),
    }
}

/// `TokenRequest` (authentication.k8s.io/v1) → the same object with `status.token`.
async fn kubernetes(
    State(desk): Desks,
    Path((namespace, account)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if !may_ask(&desk, &headers) {
        let expected = "expected `Authorization: bearer` and the request token";
        return refusal(StatusCode::UNAUTHORIZED, expected);
    }
    let parsed =
        json::parse_object(&body, &json::Limits::CLAIMS).map_err(|error| error.to_string());
    let asked = parsed.and_then(|request| {
        let mut wish = wish(query.as_deref(), "audience")?;
        wish.claims
            .entry("kubernetes.io".to_owned())
            .or_insert_with(|| claims::binding(&namespace, &account));
        let spec = request.get("spec").cloned().unwrap_or_default();
        let audiences = spec.get("audiences").and_then(Value::as_array);
        wish.audience.extend(
            audiences.into_iter().flatten().filter_map(Value::as_str).map(ToOwned::to_owned),
        );
        match spec.get("expirationSeconds").map(Value::as_u64) {
            None => {}
            // The API server refuses less than ten minutes.
            Some(Some(seconds)) if seconds >= 600 => {
                wish.lifetime = Some(Duration::from_secs(seconds));
            }
            Some(_) => {
                return Err("`spec.expirationSeconds` is not a number of at least 600".to_owned());
            }
        }
        Ok((wish, spec))
    });
    match asked {
        Ok((wish, spec)) => {
            let out = desk.token(Platform::Kubernetes, &wish);
            answer(out, StatusCode::CREATED, move |token, end| {
                json!({
                    "kind": "TokenRequest",
                    "apiVersion": "authentication.k8s.io/v1",
                    "metadata": { "name": account, "namespace": namespace },
                    "spec": spec,
                    "status": { "token": token, "expirationTimestamp": end },
                })
            })
        }
        Err(reason) => refusal(StatusCode::BAD_REQUEST, &reason),
    }
}

/// Reads `<audience>=…`, `claim.NAME=text`, `json.NAME=value`, `without=NAME`, `sub=immutable`, `lifetime=seconds`.
/// Any other parameter is the platform's own, and ignored as there.
fn wish(query: Option<&str>, audience: &str) -> Result<TokenWish, String> {
    let mut wish = TokenWish::default();
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        if name == audience {
            wish.audience.push(value.into_owned());
        } else if let Some(claim) = name.strip_prefix("claim.") {
            wish.claims.insert(claim.to_owned(), Value::String(value.into_owned()));
        } else if let Some(claim) = name.strip_prefix("json.") {
            let parsed = serde_json::from_str(&value)
                .map_err(|_| format!("parameter `{name}` is not JSON"))?;
            wish.claims.insert(claim.to_owned(), parsed);
        } else if name == "without" {
            wish.without.insert(value.into_owned());
        } else if name == "sub" {
            wish.immutable_sub = match value.as_ref() {
                "immutable" => true,
                "name" => false,
                _ => return Err("`sub` is neither `immutable` nor `name`".to_owned()),
            };
        } else if name == "lifetime" {
            let seconds = value.parse().map_err(|_| "`lifetime` is not a number of seconds")?;
            wish.lifetime = Some(Duration::from_secs(seconds));
        }
    }
    Ok(wish)
}

fn may_ask(desk: &Desk, headers: &HeaderMap) -> bool {
    let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    // RFC 9110 section 11.1: the scheme's name has no case.
    given.and_then(|text| text.split_once(' ')).is_some_and(|(scheme, token)| {
        scheme.eq_ignore_ascii_case("bearer") && same_secret(token, &desk.request_token)
    })
}

fn key_set(desk: &Desk, platform: Platform) -> Response {
    match desk.key(platform) {
        Ok(key) => key.key_set().answer(),
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// A public document, which may be cached.
trait Document {
    fn answer(self) -> Response;
}

impl Document for Value {
    fn answer(self) -> Response {
        let age = format!("public, max-age={}", JWKS_MAX_AGE.as_secs());
        ([(CACHE_CONTROL, age)], Json(self)).into_response()
    }
}

fn answer(
    out: Result<HandedOut, SandboxError>,
    status: StatusCode,
    body: impl FnOnce(&str, String) -> Value,
) -> Response {
    match out {
        Ok(HandedOut { token, expires_at }) => {
            let text = token.reveal_text().unwrap_or_default();
            (status, uncached(Json(body(text, expires_at.to_string())))).into_response()
        }
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn refusal(status: StatusCode, reason: &str) -> Response {
    (status, uncached(Json(json!({ "message": reason })))).into_response()
}

fn uncached(body: impl IntoResponse) -> Response {
    ([(CACHE_CONTROL, "no-store")], body).into_response()
}
