//! `POST /token`: a form becomes an [`ExchangeRequest`], what was issued becomes an RFC 8693 response.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;
use serde_json::Value;
use url::Url;

use super::{
    Surface,
    answer::{self, Front},
    form::{Dialect, Form, refuse},
    google,
    source::{self, AddressKey},
};
use crate::{
    exchange::{ExchangeRequest, Issued, TokenType},
    id::ExchangeId,
    ledger::Hash,
    mint::Credential,
    policy::Wants,
    refusal::{Refusal, Unfit},
    subject::UnverifiedToken,
    telemetry::{self, Ended},
};

const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// The most scope tokens that one request may name.
const MOST_SCOPES: usize = 32;
/// The most bytes of an `audience`, a `resource` or a scope token. The configuration has no longer names; what a caller asks
/// for is kept beside the entry of its refusal, and must neither fill the ledger nor outgrow what `explain` reads (threat A11).
pub(super) const LONGEST_NAME: usize = 1_024;

/// What our own token types begin with: RFC 8693 section 3 lets every deployment name its own.
const OUR_TYPES: &str = "urn:cambio:token-type:";

/// In whose words a token exchange is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    /// The RFCs'.
    Rfc,
    /// Google's libraries'.
    Google,
}

/// Serves one exchange.
pub(super) async fn token(State(surface): State<Arc<Surface>>, request: Request) -> Response {
    serve(surface, request, Wire::Rfc).await
}

/// Serves one exchange that is asked for in the words of `wire`.
pub(super) async fn serve(surface: Arc<Surface>, request: Request, wire: Wire) -> Response {
    let now = surface.clock.now();
    let begun = tokio::time::Instant::now();
    let Ok(id) = ExchangeId::make(now, &*surface.chance) else {
        return answer::unattributed(
            &Refusal::NotReady("no randomness".to_owned()),
            Front::TokenExchange,
        );
    };
    let arrival = arrive(&surface, request, id, wire).await;
    answer_to(&surface, id, begun, arrival, granted).await
}

/// From what arrived to its answer, for every front; `granted` is how the front tells of a credential.
pub(super) async fn answer_to(
    surface: &Surface,
    id: ExchangeId,
    begun: tokio::time::Instant,
    arrival: Arrival,
    granted: fn(&Issued, ExchangeId, Duration) -> Response,
) -> Response {
    let (front, source) = (arrival.front, arrival.source);
    let outcome = match arrival.request {
        Ok(request) => surface.exchanges.exchange(request).await,
        Err(refusal) => {
            surface.exchanges.turned_away(id, &refusal);
            Err(refusal)
        }
    };
    let ended = Ended { id: &id, front: front.label(), source, took: begun.elapsed() };
    match outcome {
        Ok(issued) => {
            surface.metrics.granted(front.label(), ended.took);
            surface.metrics.issued(issued.kind);
            // `expires_in` is what is left when the answer leaves, not when the request came.
            let left = issued.credential.expires_at.since(surface.clock.now());
            telemetry::log_granted(&ended, issued.receipt.index(), left);
            granted(&issued, id, left)
        }
        Err(refusal) => {
            if let Refusal::TooMany { scope: "subject", .. } = &refusal {
                surface.metrics.rate_limited("subject");
            }
            if let Refusal::Mint { target, error, .. } = &refusal
                && let Some(kind) = error.at_the_target()
            {
                surface.metrics.target_failed(target, kind);
            }
            surface.metrics.ended_refused(front.label(), refusal.reason(), ended.took);
            let response = answer::respond(&refusal, front, id);
            telemetry::log_refused(&ended, refusal.reason(), &refusal, response.status().as_u16());
            response
        }
    }
}

/// What became of the bytes: even a request that is none has a front and, mostly, a source.
pub(super) struct Arrival {
    pub(super) front: Front,
    pub(super) source: Option<IpAddr>,
    pub(super) request: Result<ExchangeRequest, Refusal>,
}

async fn arrive(surface: &Surface, request: Request, id: ExchangeId, wire: Wire) -> Arrival {
    let mut arrival = Arrival {
        front: match wire {
            Wire::Rfc => Front::TokenExchange,
            Wire::Google => Front::Google,
        },
        source: None,
        request: Err(Refusal::Internal("the listener did not say who connected".to_owned())),
    };
    let (parts, body) = request.into_parts();
    let Some(source) = source::of(&parts, &surface.proxies) else {
        return arrival;
    };
    arrival.source = Some(source);
    let form = async {
        if let Err(retry_after) = surface.per_address.check(&AddressKey::of(source)) {
            surface.metrics.rate_limited("address");
            return Err(Refusal::TooMany { scope: "address", retry_after });
        }
        nothing_beside_the_form(&parts.headers, parts.uri.query())?;
        let limit = surface.body_timeout;
        match wire {
            Wire::Rfc => Form::read(&parts.headers, body, limit, Dialect::OAuth).await,
            Wire::Google => google::form(&parts.headers, body, limit).await,
        }
    };
    arrival.request = match form.await {
        Ok(form) => match front_of(&form, wire) {
            Ok(front) => {
                arrival.front = front;
                read(form, front, id, source)
            }
            Err(refusal) => Err(refusal),
        },
        Err(refusal) => Err(refusal),
    };
    arrival
}

/// The query is never read (threat H01), and whoever tries to authenticate as a client learns that nobody checked it
/// (threat H07): a credential that is ignored looks like one that was accepted.
fn nothing_beside_the_form(headers: &HeaderMap, query: Option<&str>) -> Result<(), Refusal> {
    if query.is_some() {
        return Err(refuse("parameters belong in the body: the query must be absent"));
    }
    if headers.contains_key(header::AUTHORIZATION) {
        return Err(Unfit::ClientAuthentication.into());
    }
    Ok(())
}

fn front_of(form: &Form, wire: Wire) -> Result<Front, Refusal> {
    match form.find("grant_type") {
        Some(TOKEN_EXCHANGE) if wire == Wire::Google => Ok(Front::Google),
        Some(TOKEN_EXCHANGE) => Ok(Front::TokenExchange),
        Some(JWT_BEARER) if wire == Wire::Rfc => Ok(Front::JwtBearer),
        Some(other) => Err(Refusal::UnsupportedGrantType(other.chars().take(80).collect())),
        None => Err(refuse("`grant_type` is missing")),
    }
}

/// Reads the parameters of `front`. Unknown ones are ignored (RFC 6749 section 3.2); those of the other grant type are
/// refused, because two readers might choose differently.
fn read(
    mut form: Form,
    front: Front,
    exchange_id: ExchangeId,
    source: IpAddr,
) -> Result<ExchangeRequest, Refusal> {
    let authenticates = ["client_secret", "client_assertion", "client_assertion_type"];
    if form.all(&authenticates).next().is_some() {
        return Err(Unfit::ClientAuthentication.into());
    }
    let mut wants = wants(&form)?;
    if front == Front::Google {
        wants = google::wants(&form, wants)?;
    }
    let csr = form.take("csr");
    let (subject_token, subject_token_type, actor_token, requested_token_type) = match front {
        Front::TokenExchange | Front::Google => {
            if form.find("assertion").is_some() {
                return Err(refuse("`assertion` does not belong to token exchange"));
            }
            // RFC 8693 section 2.1. Types that we do not verify are refused, not guessed (threats X08, X09).
            let kind = token_type(form.find("subject_token_type"), "subject_token_type")?
                .ok_or_else(|| refuse("`subject_token_type` is missing"))?;
            let actor_kind = token_type(form.find("actor_token_type"), "actor_token_type")?;
            let requested = token_type(form.find("requested_token_type"), "requested_token_type")?;
            let token =
                form.take("subject_token").ok_or_else(|| refuse("`subject_token` is missing"))?;
            let actor = match (form.take("actor_token"), actor_kind) {
                (Some(token), Some(kind)) => Some((UnverifiedToken::new(token), kind)),
                (None, None) => None,
                (Some(_), None) => return Err(refuse("`actor_token_type` is missing")),
                (None, Some(_)) => {
                    return Err(refuse("`actor_token_type` is given without `actor_token`"));
                }
            };
            (token, kind, actor, requested)
        }
        Front::AwsSts => return Err(Refusal::Internal("another front's form".to_owned())),
        Front::JwtBearer => {
            let foreign = [
                "subject_token",
                "subject_token_type",
                "actor_token",
                "actor_token_type",
                "requested_token_type",
            ];
            if form.all(&foreign).next().is_some() {
                return Err(refuse("a parameter of token exchange does not belong to jwt-bearer"));
            }
            let token = form.take("assertion").ok_or_else(|| refuse("`assertion` is missing"))?;
            (token, TokenType::Jwt, None, None)
        }
    };
    Ok(ExchangeRequest {
        exchange_id,
        subject_token: UnverifiedToken::new(subject_token),
        subject_token_type,
        actor_token,
        requested_token_type,
        wants,
        narrowing: None,
        csr,
        source,
    })
}

fn token_type(urn: Option<&str>, parameter: &str) -> Result<Option<TokenType>, Refusal> {
    urn.map(|urn| {
        TokenType::of(urn).ok_or_else(|| {
            refuse(&format!(
                "`{parameter}` must be `jwt`, `id_token` or `access_token` of RFC 8693"
            ))
        })
    })
    .transpose()
}

fn wants(form: &Form) -> Result<Wants, Refusal> {
    let mut targets = Vec::new();
    for (name, value) in form.all(&["audience", "resource"]) {
        if value.len() > LONGEST_NAME {
            return Err(refuse("`audience` and `resource` have at most 1024 bytes"));
        }
        if name == "resource" && !is_resource(value) {
            return Err(refuse("`resource` must be an absolute URI without a fragment"));
        }
        targets.push(value.to_owned());
    }
    Ok(Wants { targets, scope: scope(form.find("scope"))?, lifetime: lifetime(form)? })
}

/// RFC 8707 section 2.
fn is_resource(value: &str) -> bool {
    !value.contains('#') && Url::parse(value).is_ok()
}

/// RFC 6749 section 3.3: `scope-token *( SP scope-token )`.
fn scope(value: Option<&str>) -> Result<Vec<String>, Refusal> {
    let Some(value) = value else {
        return Ok(Vec::new());
    };
    let tokens: Vec<String> = value.split(' ').map(str::to_owned).collect();
    let allowed = |c: char| matches!(c, '!' | '#'..='[' | ']'..='~');
    let well_formed =
        |token: &String| (1..=LONGEST_NAME).contains(&token.len()) && token.chars().all(allowed);
    if tokens.len() > MOST_SCOPES || !tokens.iter().all(well_formed) {
        return Err(Refusal::Scope(value.chars().take(80).collect()));
    }
    Ok(tokens)
}

/// `requested_lifetime`, whole seconds: no sign, no fraction, no zero (threat X10). Too long is not an error: policy cuts.
fn lifetime(form: &Form) -> Result<Option<Duration>, Refusal> {
    let Some(text) = form.find("requested_lifetime") else {
        return Ok(None);
    };
    let digits = text.len() <= 10 && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u64>() {
        Ok(seconds) if digits && seconds > 0 => Ok(Some(Duration::from_secs(seconds))),
        _ => Err(refuse("`requested_lifetime` must be a whole number of seconds above 0")),
    }
}

fn granted(issued: &Issued, id: ExchangeId, left: Duration) -> Response {
    let place = (issued.receipt.index(), issued.receipt.leaf());
    let body = body(&issued.credential, place, id, left);
    match body.map(|body| (serde_json::to_string(&body), HeaderValue::try_from(body.exchange_id))) {
        Some((Ok(text), name)) => {
            let mut response = super::no_store(super::json_text(StatusCode::OK, text));
            if let Ok(name) = name {
                response.headers_mut().insert(super::EXCHANGE_ID, name);
            }
            response
        }
        Some((Err(_), _)) | None => {
            answer::respond(&Refusal::Internal("no text".to_owned()), Front::TokenExchange, id)
        }
    }
}

/// RFC 8693 section 2.2.1, and beside it the exchange's name and its receipt.
#[derive(Serialize)]
struct Body<'a> {
    access_token: &'a str,
    issued_token_type: &'a str,
    token_type: &'a str,
    /// INVARIANT(honest-expiry): the true seconds that are left, rounded down.
    expires_in: u64,
    exchange_id: String,
    ledger: Place,
    #[serde(skip_serializing_if = "String::is_empty")]
    scope: String,
    /// RFC 8693 section 2.2.1 makes `access_token` a string. One of our own types is JSON in it; beside it the same stands as
    /// an object, for those who read with `jq`.
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<Held<'a>>,
}

/// Where the entry stands.
#[derive(Serialize)]
struct Place {
    index: u64,
    leaf: String,
}

/// The lease, and what its holder ends it with.
#[derive(Serialize)]
struct Held<'a> {
    id: String,
    token: &'a str,
}

/// `None`: the credential is no text.
fn body(
    credential: &Credential,
    (index, leaf): (u64, Hash),
    id: ExchangeId,
    left: Duration,
) -> Option<Body<'_>> {
    let access_token = credential.value.reveal_text()?;
    let is_ours = credential.issued_token_type.starts_with(OUR_TYPES);
    let credential_again =
        if is_ours { Some(serde_json::from_str(access_token).ok()?) } else { None };
    let lease = match &credential.lease {
        Some(lease) => Some(Held { id: lease.id.to_string(), token: lease.token.reveal_text()? }),
        None => None,
    };
    Some(Body {
        access_token,
        issued_token_type: credential.issued_token_type,
        token_type: credential.token_type,
        expires_in: left.as_secs(),
        exchange_id: id.to_string(),
        ledger: Place { index, leaf: STANDARD.encode(leaf) },
        scope: credential.scope.join(" "),
        credential: credential_again,
        lease,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{clock::Instant, secret::Secret};

    #[test]
    fn x05_a_granted_exchange_is_answered_as_rfc_8693_says_with_the_scope_that_was_granted() {
        let now = Instant::from_seconds(1_800_000_000);
        let credential = Credential {
            value: Secret::from("a.b.c".to_owned()),
            issued_token_type: TokenType::Jwt.as_str(),
            token_type: "N_A",
            expires_at: now.plus(Duration::from_millis(899_999)),
            scope: vec!["deploy".to_owned(), "read".to_owned()],
            lease: None,
        };
        let id = ExchangeId::from_bytes([7; 16]);
        let body = body(&credential, (41, [1; 32]), id, credential.expires_at.since(now));
        assert_eq!(
            body.and_then(|body| serde_json::to_value(body).ok()),
            Some(json!({
                "access_token": "a.b.c",
                "issued_token_type": "urn:ietf:params:oauth:token-type:jwt",
                "token_type": "N_A",
                "expires_in": 899,
                "scope": "deploy read",
                "exchange_id": "ex_07070707070707070707070707070707",
                "ledger": { "index": 41, "leaf": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=" },
            }))
        );
    }
}
