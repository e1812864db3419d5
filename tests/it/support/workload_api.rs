//! A SPIFFE Workload API on a Unix socket, as strict as the standard: byte by byte, with no gRPC library of the client's.

use std::{
    collections::VecDeque,
    convert::Infallible,
    path::Path,
    sync::{Arc, Mutex},
};

use http_body_util::{BodyExt as _, StreamBody};
use hyper::{
    HeaderMap, Method, Request, Response,
    body::{Bytes, Frame, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::{TcpListener, UnixListener};

#[derive(Clone, PartialEq, prost::Message)]
struct Ask {
    #[prost(string, repeated, tag = "1")]
    audience: Vec<String>,
    #[prost(string, tag = "2")]
    spiffe_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Answer {
    #[prost(message, repeated, tag = "1")]
    svids: Vec<Svid>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Svid {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "2")]
    pub(crate) token: String,
    #[prost(string, tag = "3")]
    pub(crate) hint: String,
}

/// An identity as an agent hands it out.
pub(crate) fn svid(path: &str, token: &str, hint: &str) -> Svid {
    let id = format!("spiffe://acme.example/{path}");
    Svid { id, token: token.to_owned(), hint: hint.to_owned() }
}

/// One prepared answer.
#[derive(Clone, Debug)]
pub(crate) enum Says {
    /// These identities.
    Svids(Vec<Svid>),
    /// A status of gRPC, and its words.
    No(u16, &'static str),
    /// A message of these bytes.
    Bytes(Vec<u8>),
    /// A message that says it has this many bytes.
    Announces(u32),
    /// Another status of HTTP.
    Http(u16),
    /// Nothing, for ever.
    Silence,
    /// The stream is reset.
    Reset,
}

#[derive(Debug)]
pub(crate) struct WorkloadApi {
    /// How often a well-formed question came.
    asked: Arc<Mutex<usize>>,
}

#[derive(Clone, Debug)]
struct Desk {
    audience: &'static str,
    asked: Arc<Mutex<usize>>,
    replies: Arc<Mutex<VecDeque<Says>>>,
}

impl WorkloadApi {
    /// Answers in this order; the last one stays.
    pub(crate) fn at(
        path: &Path,
        audience: &'static str,
        replies: impl IntoIterator<Item = Says>,
    ) -> Self {
        let (api, desk) = Self::desk(audience, replies);
        let listener = UnixListener::bind(path).unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, desk.clone()));
            }
        });
        api
    }

    /// The same, on loopback. Returns its address too.
    pub(crate) async fn at_loopback(
        audience: &'static str,
        replies: impl IntoIterator<Item = Says>,
    ) -> (Self, String) {
        let (api, desk) = Self::desk(audience, replies);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, desk.clone()));
            }
        });
        (api, address)
    }

    pub(crate) fn asked(&self) -> usize {
        *self.asked.lock().unwrap()
    }

    fn desk(audience: &'static str, replies: impl IntoIterator<Item = Says>) -> (Self, Desk) {
        let asked = Arc::new(Mutex::new(0));
        let replies = Arc::new(Mutex::new(replies.into_iter().collect()));
        (Self { asked: Arc::clone(&asked) }, Desk { audience, asked, replies })
    }
}

async fn serve(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    desk: Desk,
) {
    let service = service_fn(move |request| answer(request, desk.clone()));
    let _ = http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

type Frames = Vec<Result<Frame<Bytes>, Infallible>>;
type Body =
    StreamBody<futures_util::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;

async fn answer(request: Request<Incoming>, desk: Desk) -> Result<Response<Body>, std::io::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    if let Some((code, words)) = fault(&parts, &body, desk.audience) {
        return Ok(response(200, message(&[]), code, words));
    }
    *desk.asked.lock().unwrap() += 1;
    let says = {
        let mut replies = desk.replies.lock().unwrap();
        let next = replies.pop_front().expect("an answer is prepared");
        if replies.is_empty() {
            replies.push_back(next.clone());
        }
        next
    };
    match says {
        Says::Svids(svids) => Ok(response(200, message(&Answer { svids }.encode_to_vec()), 0, "")),
        Says::No(code, words) => Ok(response(200, Vec::new(), code, words)),
        Says::Bytes(bytes) => Ok(response(200, message(&bytes), 0, "")),
        Says::Announces(length) => {
            let head = [&[0][..], &length.to_be_bytes()].concat();
            Ok(response(200, vec![Ok(Frame::data(head.into()))], 0, ""))
        }
        Says::Http(status) => Ok(response(status, Vec::new(), 0, "")),
        Says::Silence => std::future::pending().await,
        Says::Reset => Err(std::io::Error::other("reset")),
    }
}

/// What the standard asks of a client (SPIFFE Workload Endpoint section 3, Workload API sections 3 and 6.2.1; gRPC over HTTP/2).
fn fault(
    parts: &hyper::http::request::Parts,
    body: &Bytes,
    audience: &str,
) -> Option<(u16, &'static str)> {
    const INVALID: u16 = 3;
    const UNIMPLEMENTED: u16 = 12;
    let is = |name: &str, value: &str| parts.headers.get(name).is_some_and(|found| found == value);
    if parts.method != Method::POST || parts.uri.path() != "/SpiffeWorkloadAPI/FetchJWTSVID" {
        return Some((UNIMPLEMENTED, "unknown method"));
    }
    if !is("workload.spiffe.io", "true") {
        return Some((INVALID, "security header missing from request"));
    }
    if !is("content-type", "application/grpc") || !is("te", "trailers") {
        return Some((INVALID, "no gRPC"));
    }
    let Some((&[0, a, b, c, d], bytes)) = body.split_first_chunk::<5>() else {
        return Some((INVALID, "no message"));
    };
    if u32::from_be_bytes([a, b, c, d]) as usize != bytes.len() {
        return Some((INVALID, "another length"));
    }
    let Ok(ask) = Ask::decode(bytes) else { return Some((INVALID, "no JWTSVIDRequest")) };
    if ask.audience.is_empty() {
        return Some((INVALID, "audience must be specified"));
    }
    if ask.audience != [audience] || !ask.spiffe_id.is_empty() {
        return Some((INVALID, "another audience or identity"));
    }
    None
}

fn message(bytes: &[u8]) -> Frames {
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    let all = [&[0][..], &length, bytes].concat();
    // In small frames, as a network may bring it.
    all.chunks(7000).map(|part| Ok(Frame::data(Bytes::copy_from_slice(part)))).collect()
}

fn response(status: u16, mut frames: Frames, code: u16, words: &str) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.to_string().parse().unwrap());
    trailers
        .insert("grpc-message", words.replace(' ', "%20").replace('\n', "%0A").parse().unwrap());
    let mut answer = Response::builder().status(status);
    if status == 200 {
        answer = answer.header("content-type", "application/grpc");
        frames.push(Ok(Frame::trailers(trailers)));
    }
    answer.body(StreamBody::new(futures_util::stream::iter(frames))).unwrap()
}
