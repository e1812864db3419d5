//! A public surface over fakes, and the words to talk to it.

use std::{
    net::SocketAddr,
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, Request, StatusCode},
};
use cambio::{
    chance::SeededChance,
    clock::{Instant, ManualClock},
    edge::{
        self, CallerRefused, Exchanges, Introspect, Log, OurIssuer, Peer, Proxies, Published,
        RateLimit, Revocation, Revocations, Surface, Unavailable,
    },
    exchange::{ExchangeRequest, Issued},
    id::ExchangeId,
    ledger::tile::TileName,
    refusal::Refusal,
    secret::Secret,
    telemetry::Metrics,
};
use http_body_util::BodyExt as _;
use serde_json::{Map, Value, json};
use tower::ServiceExt as _;

pub(crate) const NOW: Instant = Instant::from_seconds(1_800_000_000);
pub(crate) const FORM: &str = "application/x-www-form-urlencoded";
pub(crate) const EXCHANGE: &str = "grant_type=urn:ietf:params:oauth:grant-type:token-exchange\
     &subject_token=a.b.c&subject_token_type=urn:ietf:params:oauth:token-type:jwt";
pub(crate) const BEARER: &str =
    "grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer&assertion=a.b.c";

/// Keeps what arrives, and refuses each with the next refusal that was laid out (else `NotReady`).
#[derive(Debug, Default)]
pub(crate) struct FakeExchanges {
    pub(crate) arrived: Mutex<Vec<ExchangeRequest>>,
    pub(crate) turned_away: Mutex<Vec<String>>,
    pub(crate) refusals: Mutex<Vec<Refusal>>,
    pub(crate) panics: bool,
    /// What to answer instead of refusing.
    pub(crate) issued: Mutex<Vec<Issued>>,
}

#[async_trait]
impl Exchanges for FakeExchanges {
    async fn exchange(&self, request: ExchangeRequest) -> Result<Issued, Refusal> {
        assert!(!self.panics, "a secret in a panic message");
        self.arrived.lock().unwrap().push(request);
        if let Some(issued) = self.issued.lock().unwrap().pop() {
            return Ok(issued);
        }
        let next = self.refusals.lock().unwrap().pop();
        Err(next.unwrap_or_else(|| Refusal::NotReady("fake".to_owned())))
    }

    fn turned_away(&self, _id: ExchangeId, refusal: &Refusal) {
        self.turned_away.lock().unwrap().push(refusal.to_string());
    }
}

#[derive(Debug)]
pub(crate) struct FakeRest;

impl Published for FakeRest {
    fn jwks(&self, _now: Instant) -> (Bytes, Duration) {
        (Bytes::from_static(b"{\"keys\":[]}"), Duration::from_secs(600))
    }

    fn withheld(&self) -> bool {
        false
    }

    fn algorithms(&self) -> Vec<&'static str> {
        vec!["ES256"]
    }

    fn bundle(&self, target: &str, _now: Instant) -> Option<(Bytes, Duration)> {
        (target == "x509/orders")
            .then(|| (Bytes::from_static(b"a bundle\n"), Duration::from_secs(600)))
    }

    fn has_bundles(&self) -> bool {
        true
    }
}

#[async_trait]
impl Log for FakeRest {
    async fn checkpoint(&self) -> Result<Option<Bytes>, Unavailable> {
        Ok(Some(Bytes::from_static(b"origin\n1\nroot\n")))
    }

    async fn tile(&self, tile: TileName) -> Result<Option<Bytes>, Unavailable> {
        let hashes = if tile.is_full() { 256 } else { 7 };
        match tile.to_string().split('/').next() {
            Some("0") => Ok(Some(Bytes::from(vec![0; hashes * 32]))),
            Some("1") => Ok(None),
            _ => Err(Unavailable("a cause with /a/path".to_owned())),
        }
    }
}

#[async_trait]
impl Introspect for FakeRest {
    async fn introspect(
        &self,
        caller: Secret,
        token: Secret,
        _now: Instant,
    ) -> Result<Option<Map<String, Value>>, CallerRefused> {
        match caller.reveal() {
            b"reader" => {}
            b"other" => return Err(CallerRefused::NotAllowed),
            _ => return Err(CallerRefused::Unauthenticated("a cause".to_owned())),
        }
        let live = token.reveal() == b"live";
        Ok(live.then(|| Map::from_iter([("sub".to_owned(), json!("github:1"))])))
    }
}

/// Lease tokens are named after what becomes of them.
#[async_trait]
impl Revocations for FakeRest {
    async fn revoke(
        &self,
        caller: Option<Secret>,
        token: Secret,
        _now: Instant,
    ) -> Result<Revocation, CallerRefused> {
        match caller.as_ref().map(Secret::reveal) {
            None | Some(b"revoker") => {}
            Some(b"other") => return Err(CallerRefused::NotAllowed),
            Some(_) => return Err(CallerRefused::Unauthenticated("a cause".to_owned())),
        }
        Ok(match token.reveal() {
            b"live" => Revocation::Ended,
            b"stuck" => Revocation::Pending,
            b"a.b.c" => Revocation::Unsupported,
            _ => Revocation::Unknown,
        })
    }
}

pub(crate) fn surface(exchanges: &Arc<FakeExchanges>) -> Surface {
    let many = NonZeroU32::new(10_000).unwrap();
    Surface {
        exchanges: exchanges.clone(),
        published: Arc::new(FakeRest),
        log: Arc::new(FakeRest),
        introspect: Arc::new(FakeRest),
        revocations: Arc::new(FakeRest),
        clock: Arc::new(ManualClock::at(NOW)),
        chance: Arc::new(SeededChance::of(1)),
        metrics: Arc::new(Metrics::new()),
        our_issuer: OurIssuer::of("https://broker.example").unwrap(),
        proxies: Proxies::default(),
        per_address: RateLimit::of(many, many),
        in_flight: 64,
        body_timeout: Duration::from_secs(10),
    }
}

pub(crate) fn broker() -> (Router, Arc<FakeExchanges>) {
    let exchanges = Arc::new(FakeExchanges::default());
    (edge::router(surface(&exchanges)), exchanges)
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answered {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> Value {
        self.body.parse().unwrap_or_else(|_| panic!("not JSON: `{}`", self.body))
    }

    /// Status, code and words of an OAuth error.
    pub(crate) fn error(&self) -> (u16, String, String) {
        let body = self.json();
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        (self.status.as_u16(), text("error"), text("error_description"))
    }
}

pub(crate) async fn send(router: &Router, mut request: Request<Body>) -> Answered {
    request.extensions_mut().insert(Peer(SocketAddr::from(([203, 0, 113, 9], 4711))));
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answered {
        status: parts.status,
        headers: parts.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    }
}

pub(crate) async fn read(router: &Router, path: &str) -> Answered {
    send(router, Request::get(path).body(Body::empty()).unwrap()).await
}

pub(crate) async fn post(router: &Router, form: &str) -> Answered {
    let request = Request::post("/token").header("content-type", FORM);
    send(router, request.body(Body::from(form.to_owned())).unwrap()).await
}
