//! Where programs on this machine ask for a credential that is kept fresh here: on loopback, in the words of the cloud's own SDKs.
//!
//! Loopback is no protection by itself. Every user of the machine reaches it, every container of a pod, and every web page in a
//! browser on it. So each face says who may ask: [`aws`] by a token that only a reader of a private file has, [`google`] by the
//! user that the kernel names as the owner of the other end ([`peer`]), because Google's libraries can't send a token. Both look at
//! `Host`, so that a name that was rebound to 127.0.0.1 reaches nothing, and neither redirects, nor takes anything but `GET`.
//!
//! And everybody who reaches it can hold connections open: `places` says who has to give one up then. Each connection has one
//! answer, so that a place is held no longer than that takes.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service as _;
use tracing::{debug, warn};

use self::{
    owners::Owners,
    places::{Peer, Place, Places},
};
use super::{ClientError, Issued, keeper::Kept};
use crate::clock::{Clock, Instant};

pub mod aws;
pub mod google;
mod owners;
pub mod peer;
mod places;

/// How long the first byte of a request may take, and then its headers.
const HEADERS: Duration = Duration::from_secs(5);
/// How long one connection may live.
const LONGEST: Duration = Duration::from_mins(1);
/// How long connections may go on after the end was asked for.
const DRAIN: Duration = Duration::from_secs(1);
/// The most bytes of a request's line and headers.
const MOST_HEADER_BYTES: usize = 16 * 1024;
/// How long to wait after the machine refused us a connection: trying again at once would spin.
const BREATHE: Duration = Duration::from_millis(100);

/// A credential that somebody keeps fresh.
#[derive(Clone, Debug)]
pub struct Served {
    /// Its name: a part of its path, and in every message.
    pub name: String,
    /// Its newest state.
    pub kept: watch::Receiver<Arc<Kept>>,
}

impl Served {
    /// The credential and when it ends, as long as that is still to come; else why there is none.
    ///
    /// # Errors
    /// There never was one, or the last one ended: an expired secret is of no use to anybody but a thief of logs.
    pub fn good_at(&self, now: Instant) -> Result<(Arc<Issued>, Instant), String> {
        let kept = Arc::clone(&self.kept.borrow());
        let why = kept.trouble.as_ref().map(|trouble| format!(": {}", trouble.what));
        let why = why.unwrap_or_default();
        let name = &self.name;
        let Some(issued) = &kept.issued else {
            return Err(match kept.generation {
                0 => format!("there is no credential `{name}` yet{why}"),
                _ => format!("the credential `{name}` ended, and there is no new one{why}"),
            });
        };
        match issued.ends {
            Some(ends) if ends > now => Ok((Arc::clone(issued), ends)),
            Some(ends) => Err(format!(
                "the credential `{name}` ended at {ends}, and there is no new one{why}"
            )),
            None => Err(format!("the credential `{name}` does not say when it ends")),
        }
    }
}

/// What both faces answer from.
#[derive(Clone, Debug)]
pub struct Desk {
    /// Where it listens: the only `Host` that it knows.
    pub at: SocketAddr,
    /// Now.
    pub clock: Arc<dyn Clock>,
}

/// Why a request is not even looked at: status and words.
type Stopped = (StatusCode, &'static str);

impl Desk {
    /// What both faces refuse before anything else.
    fn stops(&self, request: &Request<Body>) -> Result<(), Stopped> {
        // A name that resolves to 127.0.0.1 for a browser is still not our address; and we are nobody's proxy.
        let host = only(request.headers(), header::HOST);
        let ours = host.is_some_and(|host| self.is_ours(host));
        if !ours || request.uri().authority().is_some() {
            return Err((StatusCode::FORBIDDEN, "`Host` is not the address of this endpoint"));
        }
        if request.method() != Method::GET {
            return Err((StatusCode::METHOD_NOT_ALLOWED, "only `GET` is answered"));
        }
        Ok(())
    }

    fn is_ours(&self, host: &str) -> bool {
        host == self.at.to_string() || host == format!("localhost:{}", self.at.port())
    }
}

/// The only value of the header called `name`; `None` where there are two.
fn only(headers: &HeaderMap, name: impl header::AsHeaderName) -> Option<&str> {
    let mut all = headers.get_all(name).iter();
    match (all.next(), all.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

/// An answer that nobody keeps, and no browser takes for something else.
fn answer(status: StatusCode, kind: &'static str, body: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (status, headers, body).into_response()
}

/// Listens at `at`, which must be this machine's loopback; port 0 takes a free one.
///
/// # Errors
/// Others could reach the address, or it is taken.
pub async fn bind(at: SocketAddr) -> Result<TcpListener, ClientError> {
    if !at.ip().is_loopback() {
        return Err(ClientError::usage(format!(
            "`{at}` can be reached from elsewhere, expected an address on loopback"
        ))
        .hint("such as `127.0.0.1:9980`: credentials are handed out on this machine alone"));
    }
    listen(at).await
}

/// Listens at `at`, wherever that is: for health and metrics, which hold nothing secret.
///
/// # Errors
/// It is taken, or not ours.
pub async fn listen(at: SocketAddr) -> Result<TcpListener, ClientError> {
    TcpListener::bind(at)
        .await
        .map_err(|error| ClientError::unreachable(format!("can't listen on `{at}`: {error}")))
}

/// Who is spoken with.
#[derive(Clone, Debug)]
pub enum Whom {
    /// Everybody who can connect: the router judges by itself.
    Anybody,
    /// Programs of these users alone, as the kernel says. They are on this machine.
    Users(Arc<BTreeSet<u32>>),
}

/// What all connections of a listener share.
#[derive(Clone, Debug)]
struct Door {
    router: Router,
    whom: Whom,
    places: Places,
    owners: Owners,
    strangers: Arc<Mutex<Strangers>>,
    stop: CancellationToken,
}

/// Serves `router` until `stop`.
pub async fn serve(listener: TcpListener, router: Router, whom: Whom, stop: CancellationToken) {
    let connections = TaskTracker::new();
    let owners = Owners::start(&connections);
    let (places, strangers) = (Places::default(), Arc::default());
    let door = Door { router, whom, places, owners, strangers, stop };
    let unknown = Arc::new(Semaphore::new(owners::WAITING));
    loop {
        let next = async {
            // A turn first: who is not known yet holds nothing but one of these, for as long as the kernel is asked.
            let turn = Arc::clone(&unknown).acquire_owned().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((turn, listener.accept().await?))
        };
        let accepted = tokio::select! {
            biased;
            () = door.stop.cancelled() => break,
            accepted = next => accepted,
        };
        match accepted {
            Ok((turn, (stream, from))) => {
                connections.spawn(door.clone().receive(stream, from, turn));
            }
            Err(error) => {
                warn!("a connection was not accepted: {error}");
                tokio::time::sleep(BREATHE).await;
            }
        }
    }
    drop((listener, door));
    connections.close();
    // What is under way is a small answer from memory; who reads it slower than this has asked too late.
    let _ = tokio::time::timeout(DRAIN, connections.wait()).await;
}

impl Door {
    /// One connection, from finding out whose it is to its answer.
    async fn receive(self, stream: TcpStream, from: SocketAddr, turn: OwnedSemaphorePermit) {
        let owner = match stream.local_addr() {
            Ok(ours) => self.owners.of(from, ours).await,
            Err(error) => Err(error),
        };
        drop(turn);
        // Before it is given anything: whoever is not known to have a share can't take more than one.
        if let Whom::Users(users) = &self.whom {
            let judged = self.strangers().judge(users, &owner);
            if let Err((words, line)) = judged {
                if let Some(line) = line {
                    warn!(peer.uid = owner.as_ref().ok(), "{line}");
                }
                return turn_away(stream, words);
            }
        }
        // From elsewhere, the kernel knows nobody.
        let peer = owner.map_or_else(|_| Peer::at(from.ip()), Peer::User);
        let place = self.places.take(peer);
        let talk = converse(stream, self.router, &place, self.stop);
        tokio::select! {
            talked = tokio::time::timeout(LONGEST, talk) => if talked.is_err() {
                debug!("a connection was cut after {} s", LONGEST.as_secs());
            },
            () = place.lost() => debug!("a connection of {peer:?} was dropped for a newer one"),
        }
    }

    fn strangers(&self) -> MutexGuard<'_, Strangers> {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose programs may ask where `users` are named, and `own` is the user that this runs as, which is taken where none is.
///
/// # Errors
/// None is named, and ours is the one that stands for many ([`peer::overflow_user`]): each of them would be answered.
pub fn askers(users: &BTreeSet<u32>, own: u32) -> Result<BTreeSet<u32>, ClientError> {
    if !users.is_empty() {
        return Ok(users.clone());
    }
    if own == peer::overflow_user() {
        let message = format!(
            "an `endpoint` of kind `google` names no `users`, and the agent runs as user {own}, which the kernel shows for every user that has no number in the agent's user namespace"
        );
        let hint = "run the agent as a user of its own, or name the users whose programs may ask";
        return Err(ClientError::usage(message).hint(hint));
    }
    Ok(BTreeSet::from([own]))
}

/// Who was refused: each user, and each kind of trouble in finding it out, is told of once, so that none can fill the log.
#[derive(Debug, Default)]
struct Strangers(BTreeSet<Result<u32, io::ErrorKind>>);

impl Strangers {
    /// Whether `owner` is one of `users`; else what it is told, and what the log is told the first time.
    fn judge(
        &mut self,
        users: &BTreeSet<u32>,
        owner: &io::Result<u32>,
    ) -> Result<(), (&'static str, Option<String>)> {
        match owner {
            Ok(uid) if users.contains(uid) => Ok(()),
            Ok(uid) => {
                let line = self.0.insert(Ok(*uid)).then(|| {
                    let or = if *uid == peer::overflow_user() {
                        ", or one that the agent's user namespace does not know,"
                    } else {
                        ""
                    };
                    format!("user {uid}{or} asked for a credential that is not for it")
                });
                Err(("this credential is not for programs of your user\n", line))
            }
            Err(error) => {
                let line = self.0.insert(Err(error.kind())).then(|| {
                    format!(
                        "a program was refused a credential: which user's it is can't be told: {error}"
                    )
                });
                Err(("whose program this is can't be told\n", line))
            }
        }
    }
}

/// Says no and closes, without waiting for the question: a stranger holds nothing here, not even for a moment.
fn turn_away(stream: TcpStream, words: &'static str) {
    let length = words.len();
    let answer = format!(
        "HTTP/1.1 403 Forbidden\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\
         cache-control: no-store\r\nx-content-type-options: nosniff\r\nconnection: close\r\n\r\n{words}"
    );
    // It does not block: what does not fit into an empty buffer at once is not told. What was asked is read, as far as it is there,
    // and the end is told before the socket closes: a reset would take the answer with it.
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream.write(answer.as_bytes());
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read(&mut [0; 4096]);
    }
}

/// Gives one answer in HTTP/1.1 on `stream`, unless `stop` comes before the question.
async fn converse(stream: TcpStream, router: Router, place: &Place, stop: CancellationToken) {
    let asked = tokio::select! {
        () = stop.cancelled() => return,
        asked = tokio::time::timeout(HEADERS, stream.readable()) => asked,
    };
    if !matches!(asked, Ok(Ok(()))) {
        return;
    }
    place.spoke();
    // Small answers: waiting for more to send would only cost time.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut router = router.clone();
        async move {
            let answered: Result<Response, Infallible> = router.call(request.map(Body::new)).await;
            answered
        }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .keep_alive(false)
            .header_read_timeout(HEADERS)
            .max_buf_size(MOST_HEADER_BYTES)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!("a connection ended: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_runs_as_the_user_who_stands_for_many_answers_named_ones_alone() {
        let (nobody, named) = (peer::overflow_user(), BTreeSet::from([1000]));
        assert_eq!(askers(&BTreeSet::new(), 33).unwrap(), BTreeSet::from([33]));
        assert_eq!(askers(&named, nobody).unwrap(), named);
        let error = askers(&BTreeSet::new(), nobody).unwrap_err();
        assert!(error.message.contains(&format!("runs as user {nobody}, ")), "{error}");
        assert!(error.hint.is_some_and(|hint| hint.contains("a user of its own")));
    }

    #[test]
    fn who_is_refused_is_told_of_once_also_where_nobody_knows_who_it_is() {
        let (users, mut strangers) = (BTreeSet::from([1000]), Strangers::default());
        let mut line = |owner| strangers.judge(&users, &owner).err().map(|(_, line)| line);
        let hidden = || Err(io::Error::new(io::ErrorKind::PermissionDenied, "no table"));
        assert_eq!(line(Ok(1000)), None);
        assert_eq!(
            line(Ok(33)).flatten().as_deref(),
            Some("user 33 asked for a credential that is not for it")
        );
        assert_eq!(line(Ok(33)), Some(None));
        assert!(line(Ok(peer::overflow_user())).flatten().unwrap().contains("user namespace"));
        assert_eq!(
            line(hidden()).flatten().as_deref(),
            Some("a program was refused a credential: which user's it is can't be told: no table")
        );
        assert_eq!(line(hidden()), Some(None));
        // Another reason is another line.
        let gone = io::Error::new(io::ErrorKind::NotFound, "gone");
        assert!(line(Err(gone)).flatten().is_some());
    }
}
