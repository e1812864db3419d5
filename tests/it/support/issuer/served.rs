//! An issuer that serves its documents on loopback.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use cambio::subject::Algorithm;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::FakeIssuer;

/// What a served document answers with.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    /// The HTTP status.
    pub(crate) status: u16,
    /// Headers beside `content-type`, which is JSON unless named here.
    pub(crate) headers: Vec<(String, String)>,
    /// The body.
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// 200 with `document`.
    pub(crate) fn json(document: &Value) -> Self {
        Self { status: 200, headers: Vec::new(), body: document.to_string().into_bytes() }
    }

    /// `status` with an empty body.
    pub(crate) fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    /// 302 to `location`.
    pub(crate) fn redirect(location: &str) -> Self {
        Self::status(302).with_header("location", location)
    }

    /// Adds a header.
    pub(crate) fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// The two documents of an issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Document {
    /// `/.well-known/openid-configuration`.
    Discovery,
    /// `/jwks`.
    Jwks,
}

/// A [`FakeIssuer`] on a loopback port that serves discovery and keys, and stops when dropped. It counts the fetches, can
/// answer anything, and can keep callers waiting for as long as the test wants, without a sleep.
#[derive(Debug)]
pub(crate) struct ServedIssuer {
    /// Signs tokens whose `iss` is this server.
    pub(crate) issuer: FakeIssuer,
    served: Arc<Served>,
    stop: watch::Sender<bool>,
}

#[derive(Debug)]
struct Served {
    replies: Mutex<(Reply, Reply)>,
    fetches: (AtomicU64, AtomicU64),
    held: watch::Sender<bool>,
}

impl ServedIssuer {
    /// Starts one with an ES256 key, on a free port of 127.0.0.1.
    pub(crate) async fn start() -> Self {
        Self::start_signing_with(Algorithm::ES256).await
    }

    /// Starts one with a key for `algorithm`, on a free port of 127.0.0.1.
    pub(crate) async fn start_signing_with(algorithm: Algorithm) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let issuer = FakeIssuer::signing_with(&url, algorithm);
        let served = Arc::new(Served {
            replies: Mutex::new((Reply::json(&issuer.discovery()), Reply::json(&issuer.jwks()))),
            fetches: Default::default(),
            held: watch::Sender::new(false),
        });
        let stop = watch::Sender::new(false);
        let mut stopped = stop.subscribe();
        let router = Router::new().fallback(serve).with_state(Arc::clone(&served));
        let answering = axum::serve(listener, router).with_graceful_shutdown(async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        });
        TaskTracker::new().spawn(async move { answering.await });
        Self { issuer, served, stop }
    }

    /// What is served for `document` from now on.
    pub(crate) fn serve(&self, document: Document, reply: Reply) {
        let mut replies = self.served.replies.lock().unwrap();
        match document {
            Document::Discovery => replies.0 = reply,
            Document::Jwks => replies.1 = reply,
        }
    }

    /// Serves the honest documents again: after [`Self::serve`], or after the issuer rotated.
    pub(crate) fn serve_honestly(&self) {
        self.serve(Document::Discovery, Reply::json(&self.issuer.discovery()));
        self.serve(Document::Jwks, Reply::json(&self.issuer.jwks()));
    }

    /// Callers wait, until [`Self::release`].
    pub(crate) fn hold(&self) {
        self.served.held.send_replace(true);
    }

    /// Callers are answered again, the waiting ones too.
    pub(crate) fn release(&self) {
        self.served.held.send_replace(false);
    }

    /// How often `document` was asked for, answered or not.
    pub(crate) fn fetches(&self, document: Document) -> u64 {
        let fetches = match document {
            Document::Discovery => &self.served.fetches.0,
            Document::Jwks => &self.served.fetches.1,
        };
        fetches.load(Ordering::SeqCst)
    }

    /// Where the keys are.
    pub(crate) fn jwks_url(&self) -> String {
        format!("{}/jwks", self.issuer.url())
    }
}

impl Drop for ServedIssuer {
    fn drop(&mut self) {
        self.release();
        self.stop.send_replace(true);
    }
}

async fn serve(State(served): State<Arc<Served>>, request: Request) -> Response {
    let fetches = match request.uri().path() {
        "/.well-known/openid-configuration" => &served.fetches.0,
        "/jwks" => &served.fetches.1,
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    fetches.fetch_add(1, Ordering::SeqCst);
    let _ = served.held.subscribe().wait_for(|held| !held).await;
    let replies = served.replies.lock().unwrap().clone();
    let reply = if request.uri().path() == "/jwks" { replies.1 } else { replies.0 };
    let mut response = Response::builder().status(reply.status);
    if !reply.headers.iter().any(|(name, _)| name == "content-type") {
        response = response.header(header::CONTENT_TYPE, "application/json");
    }
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    response.body(reply.body.into()).unwrap()
}
