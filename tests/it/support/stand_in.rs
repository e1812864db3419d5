//! A server on loopback, or behind a socket, that gives prepared answers in order and remembers what it was asked, byte by byte.

use std::{
    collections::VecDeque,
    path::Path,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, Response},
};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::net::{TcpListener, UnixListener};

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Method, path and query, as they came.
    pub(crate) line: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// One prepared answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(&'static str, &'static str)>,
    body: String,
}

impl Reply {
    pub(crate) fn text(status: u16, body: &str) -> Self {
        Self { status, headers: Vec::new(), body: body.to_owned() }
    }

    pub(crate) fn json(status: u16, body: Value) -> Self {
        Self::text(status, &body.to_string()).header("content-type", "application/json")
    }

    pub(crate) fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }
}

#[derive(Debug, Default)]
struct Desk {
    seen: Mutex<Vec<Seen>>,
    replies: Mutex<VecDeque<Reply>>,
}

/// The server. Ends with its test's runtime.
#[derive(Debug)]
pub(crate) struct StandIn {
    pub(crate) url: String,
    desk: Arc<Desk>,
}

impl StandIn {
    pub(crate) async fn at_loopback(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (router, desk) = router(replies);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, desk }
    }

    pub(crate) fn at_socket(path: &Path, replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let (router, desk) = router(replies);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url: String::new(), desk }
    }

    /// Everything that was asked.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.desk.seen.lock().unwrap().clone()
    }

    /// The one thing that was asked.
    #[track_caller]
    pub(crate) fn only(&self) -> Seen {
        let mut seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.remove(0)
    }
}

fn router(replies: impl IntoIterator<Item = Reply>) -> (Router, Arc<Desk>) {
    let replies = Mutex::new(replies.into_iter().collect());
    let desk = Arc::new(Desk { seen: Mutex::default(), replies });
    (Router::new().fallback(answer).with_state(Arc::clone(&desk)), desk)
}

async fn answer(State(desk): State<Arc<Desk>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    let line = format!("{} {}", parts.method, parts.uri);
    desk.seen.lock().unwrap().push(Seen { line, headers: parts.headers, body });
    let reply = desk.replies.lock().unwrap().pop_front();
    let reply = reply.unwrap_or_else(|| Reply::text(500, "nothing more was prepared"));
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    response.body(Body::from(reply.body)).unwrap()
}
