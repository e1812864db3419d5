//! Step 1 and the last one: the HTTP surfaces. Bytes become an [`ExchangeRequest`]; what the exchange gave becomes an
//! OAuth answer. Nothing here decides, signs or stores.
//!
//! What the edge needs of the rest of the process comes through seven small seams, which `app` fills.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::{
    Router,
    body::Bytes,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};
use serde_json::{Map, Value};
use thiserror::Error;
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    chance::Chance,
    clock::{Clock, Instant},
    exchange::{Exchange, ExchangeRequest, Issued},
    id::ExchangeId,
    ledger::{Operator, rollup::Stranger, tile::TileName},
    refusal::{Refusal, Unfit},
    secret::Secret,
    telemetry::Metrics,
};

pub mod admin;
pub mod admin_client;
pub mod answer;
pub mod aws;
mod caller;
pub mod discovery;
pub mod form;
mod google;
pub mod introspect;
pub mod listen;
pub mod log;
pub mod operations;
pub mod revoke;
pub mod source;
pub mod tls;
pub mod token;

use answer::Front;

pub use crate::exchange::RateLimit;
pub use admin::Power;
pub use discovery::OurIssuer;
pub use source::{AddressKey, Peer, Proxies};

/// The data path, as the edge sees it.
///
/// Duties:
///
/// 1. an exchange outlives the connection that asked for it from its commit on: dropping the future is no abort;
/// 2. every refusal is recorded or rolled up, those that the edge made itself too (threat A09).
#[async_trait]
pub trait Exchanges: fmt::Debug + Send + Sync {
    /// Runs one exchange.
    ///
    /// # Errors
    /// It was refused, and that is recorded.
    async fn exchange(&self, request: ExchangeRequest) -> Result<Issued, Refusal>;

    /// Takes note of a refusal that the edge made before there was a request.
    fn turned_away(&self, id: ExchangeId, refusal: &Refusal);
}

/// What we publish of our signing keys.
///
/// Duties:
///
/// 1. INVARIANT(publish-before-sign): `jwks` holds every key that signs within the returned maximum age;
/// 2. public members only;
/// 3. a trust bundle holds every CA of its target that signs within the returned maximum age, and no other target's.
pub trait Published: fmt::Debug + Send + Sync {
    /// The JWK Set (RFC 7517 section 5) at `now`, and for how long it may be cached.
    fn jwks(&self, now: Instant) -> (Bytes, Duration);

    /// Whether nothing may be published now: nobody knows which of these keys were withdrawn since (threat K07).
    fn withheld(&self) -> bool;

    /// The `alg` names that we sign with, `ES256` first.
    fn algorithms(&self) -> Vec<&'static str>;

    /// The trust bundle of `target` at `now` as PEM (RFC 7468), and for how long it may be cached. `None`: it has none.
    fn bundle(&self, target: &str, now: Instant) -> Option<(Bytes, Duration)>;

    /// Whether any target has a trust bundle.
    fn has_bundles(&self) -> bool;
}

/// Something behind a seam could not answer now. For the operator; the caller only sees 503.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("not available: {0}")]
pub struct Unavailable(pub String);

/// The public half of the ledger: hashes, never entries or facts.
///
/// Duties:
///
/// 1. what `checkpoint` gave, `tile` can prove: every tile below the checkpoint's size is there;
/// 2. a full tile never changes.
#[async_trait]
pub trait Log: fmt::Debug + Send + Sync {
    /// The newest signed checkpoint; `None` before the first one.
    ///
    /// # Errors
    /// It can't be read now.
    async fn checkpoint(&self) -> Result<Option<Bytes>, Unavailable>;

    /// The hashes of one tile; `None` if the log does not reach so far.
    ///
    /// # Errors
    /// It can't be read now.
    async fn tile(&self, tile: TileName) -> Result<Option<Bytes>, Unavailable>;
}

/// Why a caller of our own API is not served.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CallerRefused {
    /// Its own token is none of ours, or not a live one (RFC 6750 section 3.1, `invalid_token`).
    #[error("the caller's token was not accepted: {0}")]
    Unauthenticated(String),
    /// It holds no role of target `cambio` that allows this (`insufficient_scope`).
    #[error("the caller has no role for this")]
    NotAllowed,
    /// Nobody can be judged now.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Tells about tokens of ours (RFC 7662).
///
/// Duties:
///
/// 1. `None` for whatever is not a live token of ours *with an audience that the caller may introspect*: unknown, expired,
///    foreign and forbidden can't be told apart (RFC 7662 section 4);
/// 2. the caller is judged before the token is looked at.
#[async_trait]
pub trait Introspect: fmt::Debug + Send + Sync {
    /// The members of the answer beside `active`, for a live token.
    ///
    /// # Errors
    /// The caller may not ask.
    async fn introspect(
        &self,
        caller: Secret,
        token: Secret,
        now: Instant,
    ) -> Result<Option<Map<String, Value>>, CallerRefused>;
}

/// What became of a revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// It is gone from its target, or was before.
    Ended,
    /// It is recorded and due, and the target has not ended it yet.
    Pending,
    /// Nothing of this name or token is known.
    Unknown,
    /// It is a JWT: nobody can call one back.
    Unsupported,
}

/// Ends leases (RFC 7009).
///
/// Duties:
///
/// 1. without a caller only the lease whose token is shown can be ended (threat B11);
/// 2. the revocation is durable before anything is told, and goes on if the target does not answer;
/// 3. the caller is judged before the token is looked at.
#[async_trait]
pub trait Revocations: fmt::Debug + Send + Sync {
    /// Ends the lease of `token`: its holder's token, or with a `caller` of role `revoke` its id too.
    ///
    /// # Errors
    /// The caller may not, or nothing can be recorded now.
    async fn revoke(
        &self,
        caller: Option<Secret>,
        token: Secret,
        now: Instant,
    ) -> Result<Revocation, CallerRefused>;
}

/// One thing that readiness looks at.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Check {
    /// `store`, `signing_key`, `ledger`, `anchors`, `policies`, `issuer:github` …
    pub name: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// Whether the broker is unready while it is not. A broken policy reload or a stale issuer is a detail, not a failure.
    pub required: bool,
    /// For people: `4 rules since 2026-11-21T09:00:00Z`, `reload failed: …`.
    pub detail: String,
}

/// How the broker is.
///
/// Duties:
///
/// 1. it answers from what is known: no call to the network, no wait for the disk;
/// 2. INVARIANT(closed-by-absence): what was not looked at yet is not `ok`.
pub trait Health: fmt::Debug + Send + Sync {
    /// Everything that readiness looks at. An empty list means *not ready*.
    fn checks(&self, now: Instant) -> Vec<Check>;
}

/// Why a power was not used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PowerError {
    /// What was asked for makes no sense.
    #[error("{0}")]
    BadRequest(String),
    /// The thing named is not there.
    #[error("{0}")]
    NotFound(String),
    /// It can't be done in this state: a stale epoch, no announced successor.
    #[error("{0}")]
    Conflict(String),
    /// It failed.
    #[error("{0}")]
    Failed(String),
}

/// The administrative powers.
///
/// Duties:
///
/// 1. what changes something is in the ledger, with `by`, before it takes effect (threat A09);
/// 2. no answer holds a secret, but a key export that the caller has encrypted to itself.
#[async_trait]
pub trait Powers: fmt::Debug + Send + Sync {
    /// Uses `power` on behalf of `by`. For a power that only looks, `by.reason` may be empty.
    ///
    /// # Errors
    /// It was not used, or it failed.
    async fn exercise(&self, power: Power, by: &Operator) -> Result<Value, PowerError>;
}

#[async_trait]
impl Exchanges for Exchange {
    async fn exchange(&self, request: ExchangeRequest) -> Result<Issued, Refusal> {
        Self::exchange(self, request).await
    }

    fn turned_away(&self, id: ExchangeId, refusal: &Refusal) {
        self.rollup.count(Stranger {
            exchange_id: id,
            at: self.clock.now(),
            reason: refusal.reason(),
            detail: refusal.to_string(),
        });
    }
}

/// Everything that the public listener serves from.
#[derive(Debug)]
pub struct Surface {
    /// The data path.
    pub exchanges: Arc<dyn Exchanges>,
    /// Our signing keys.
    pub published: Arc<dyn Published>,
    /// The public half of the ledger.
    pub log: Arc<dyn Log>,
    /// Who tells about our tokens.
    pub introspect: Arc<dyn Introspect>,
    /// Who ends leases.
    pub revocations: Arc<dyn Revocations>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Makes exchange ids.
    pub chance: Arc<dyn Chance>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Who we are: configuration, never a `Host` header (threat H08).
    pub our_issuer: OurIssuer,
    /// Whose `X-Forwarded-For` is believed.
    pub proxies: Proxies,
    /// Exchanges and introspections per address.
    pub per_address: RateLimit<AddressKey>,
    /// How many requests may be in flight; the rest is answered 503 at once (threat V07).
    pub in_flight: usize,
    /// How long a body may take. Ten seconds in production.
    pub body_timeout: Duration,
}

/// The routes of the public listener, exact and nothing else (threat H09).
///
/// An issuer with a path (`https://broker.example/team`) serves everything below that path, and its metadata in both
/// layouts: appended (OpenID Connect Discovery 1.0 section 4) and inserted (RFC 8414 section 3.1).
pub fn router(surface: Surface) -> Router {
    let base = surface.our_issuer.path().to_owned();
    let at = |path: &str| format!("{base}{path}");
    let admission = Arc::new(Semaphore::new(surface.in_flight));
    let metrics = Arc::clone(&surface.metrics);
    let mut router = Router::new()
        .route(&at("/token"), post(token::token))
        .route(&at("/google/token"), post(google::token))
        .route(&at(AWS), in_xml())
        .route(&at(&format!("{AWS}/")), in_xml())
        .route(&at("/introspect"), post(introspect::introspect))
        .route(&at("/revoke"), post(revoke::revoke))
        .route(&at("/authorize"), get(discovery::no_authorization))
        .route(&at("/jwks"), get(discovery::jwks))
        .route(&at("/ca/{*bundle}"), get(discovery::bundle))
        .route(&at("/.well-known/openid-configuration"), get(discovery::metadata))
        .route(&at("/.well-known/oauth-authorization-server"), get(discovery::metadata))
        .route(&at("/ledger/checkpoint"), get(log::checkpoint))
        .route(&at("/ledger/tile/{*tile}"), get(log::tile));
    if !base.is_empty() {
        router = router
            .route(&format!("/.well-known/openid-configuration{base}"), get(discovery::metadata))
            .route(
                &format!("/.well-known/oauth-authorization-server{base}"),
                get(discovery::metadata),
            );
    }
    // From the outside in, and as one: the router boxes each layer that it is given, and clones the boxes for each request.
    let layers = (
        middleware::map_response(guard),
        CatchPanicLayer::custom(|_: Box<dyn std::any::Any + Send>| panicked(Front::TokenExchange)),
        middleware::from_fn_with_state((admission, metrics), admit),
    );
    router.fallback(nothing_here).layer(layers).with_state(Arc::new(surface))
}

/// The AWS front, whose panics are told in its own language, too.
fn in_xml() -> MethodRouter<Arc<Surface>> {
    post(aws::assume)
        .layer(CatchPanicLayer::custom(|_: Box<dyn std::any::Any + Send>| panicked(Front::AwsSts)))
}

async fn nothing_here() -> StatusCode {
    StatusCode::NOT_FOUND
}

/// Takes a request on, or sheds it (threat V07); refuses framing that two parsers may read differently (threat H05).
async fn admit(
    State((admission, metrics)): State<(Arc<Semaphore>, Arc<Metrics>)>,
    request: Request,
    next: Next,
) -> Response {
    let front = front_of(&request);
    let Ok(_permit) = admission.try_acquire() else {
        metrics.refused(Refusal::from(Unfit::Overloaded).reason());
        return answer::unattributed(&Unfit::Overloaded.into(), front);
    };
    // hyper drops a `Content-Length` that came beside `Transfer-Encoding`, so the two can't be told from one here. No
    // client of a token endpoint needs chunked requests: none is read (RFC 9112 section 6.3 lets a server say so).
    if request.headers().contains_key(header::TRANSFER_ENCODING) {
        metrics.refused(Refusal::from(Unfit::Body).reason());
        return answer::unattributed(&Unfit::Body.into(), front);
    }
    next.run(request).await
}

/// A panic says nothing to the caller (threat V06); the panic hook has logged it.
fn panicked(front: Front) -> Response {
    answer::unattributed(&Refusal::Internal("a handler panicked".to_owned()), front)
}

/// Whoever is turned away before any handler has looked still hears the language it speaks: an SDK of AWS reads XML alone.
fn front_of(request: &Request) -> Front {
    let path = request.uri().path();
    let aws = path.strip_suffix('/').unwrap_or(path).ends_with(AWS);
    if aws { Front::AwsSts } else { Front::TokenExchange }
}

/// The path of the AWS front, with and without a slash at its end.
const AWS: &str = "/aws";

/// No answer of ours is a page: nothing may run in it, frame it or sniff it (threat H13). There is no CORS header either.
async fn guard<B>(mut response: Response<B>) -> Response<B> {
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    );
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// `value` as a JSON response.
fn json(status: StatusCode, value: &Value) -> Response {
    json_text(status, value.to_string())
}

/// `body`, which is JSON already, as a response.
fn json_text(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body)
        .into_response()
}

/// RFC 6749 section 5.1: nothing between us and the caller keeps a credential.
fn no_store(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

/// Carries the exchange's id in every answer of `/token`.
const EXCHANGE_ID: HeaderName = HeaderName::from_static("cambio-exchange-id");
