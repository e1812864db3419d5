//! Listening: who may connect, for how long, and how it ends. HTTP/1.1 only, so that the attacks on HTTP/2's streams have
//! nothing to reset (threat H06).

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, body::Body};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service as _;
use tracing::{debug, info, warn};

use super::{
    source::{AddressKey, Peer, Proxies},
    tls::Tls,
};
use crate::telemetry::Metrics;

/// The most bytes that a request's line and headers may have: more is 431.
const MOST_HEADER_BYTES: usize = 16 * 1024;
/// The most headers.
const MOST_HEADERS: usize = 64;
/// How long to wait after the machine refused us a connection (no descriptors left): trying again at once would spin.
const BREATHE: Duration = Duration::from_millis(100);

/// The terms on which a listener serves.
#[derive(Clone, Debug)]
pub struct Terms {
    /// `public` or `operations`: a label.
    pub surface: &'static str,
    /// Open connections, all together.
    pub connections: usize,
    /// Open connections of one address ([`AddressKey`]). Configured proxies are exempt: they carry many callers.
    pub per_address: usize,
    /// Who is exempt.
    pub proxies: Proxies,
    /// How long a handshake, and then the headers of each request may take; an idle connection is closed after it too.
    pub header_timeout: Duration,
    /// How long connections may go on after `stop`.
    pub drain: Duration,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

impl Terms {
    /// What the public listener uses unless configured otherwise: 5 s for headers, 15 s to drain.
    #[must_use]
    pub fn public(connections: usize, proxies: Proxies, metrics: Arc<Metrics>) -> Self {
        Self {
            surface: "public",
            connections,
            per_address: (connections / 8).max(1),
            proxies,
            header_timeout: Duration::from_secs(5),
            drain: Duration::from_secs(15),
            metrics,
        }
    }

    /// What the operations listener uses: a handful of scrapers.
    #[must_use]
    pub fn operations(metrics: Arc<Metrics>) -> Self {
        Self {
            surface: "operations",
            connections: 64,
            per_address: 64,
            drain: Duration::from_secs(1),
            ..Self::public(64, Proxies::default(), metrics)
        }
    }
}

/// Serves `router` until `stop`, then stops accepting, lets each connection finish the request that it is in, and returns
/// when the last one is gone or [`Terms::drain`] is over.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    router: Router,
    terms: Terms,
    stop: CancellationToken,
) {
    let crowd = Arc::new(Crowd::default());
    let end = End { stop, kill: CancellationToken::new() };
    let connections = TaskTracker::new();
    while let Some(accepted) = next(&listener, &end.stop).await {
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, mostly (threat V07): what is open goes on.
                terms.metrics.connection_refused("accept");
                warn!(listener.surface = terms.surface, "could not accept: {error}");
                tokio::time::sleep(BREATHE).await;
                continue;
            }
        };
        match crowd.admit(peer, &terms) {
            Ok(place) => {
                let (tls, router, end) = (tls.clone(), router.clone(), end.clone());
                let timeout = terms.header_timeout;
                connections.spawn(async move {
                    receive(stream, peer, tls, router, timeout, &place, end).await;
                });
            }
            // Closed unserved: whoever holds so many has had its share.
            Err(reason) => terms.metrics.connection_refused(reason),
        }
    }
    drop(listener);
    connections.close();
    drained(&connections, &end, &terms).await;
}

/// The two words that end a connection: after this request; at once.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) stop: CancellationToken,
    pub(super) kill: CancellationToken,
}

async fn next(
    listener: &TcpListener,
    stop: &CancellationToken,
) -> Option<io::Result<(TcpStream, SocketAddr)>> {
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        accepted = listener.accept() => Some(accepted),
    }
}

async fn drained(connections: &TaskTracker, end: &End, terms: &Terms) {
    let open = connections.len();
    if tokio::time::timeout(terms.drain, connections.wait()).await.is_err() {
        let cut = connections.len();
        warn!(listener.surface = terms.surface, "cut {cut} connections that did not end in time");
        end.kill.cancel();
        connections.wait().await;
    }
    info!(listener.surface = terms.surface, "listener ended, {open} connections drained");
}

async fn receive(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<Arc<Tls>>,
    router: Router,
    timeout: Duration,
    place: &Place,
    end: End,
) {
    // Small answers: waiting for more to send would only cost time.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else {
        return converse(stream, Peer(peer), router, timeout, end).await;
    };
    let handshake = TlsAcceptor::from(tls.current()).accept(stream);
    tokio::select! {
        () = end.kill.cancelled() => {}
        shaken = tokio::time::timeout(timeout, handshake) => match shaken {
            Ok(Ok(stream)) => converse(stream, Peer(peer), router, timeout, end).await,
            Ok(Err(error)) => {
                place.metrics.connection_refused("handshake");
                debug!("TLS handshake failed: {error}");
            }
            Err(_) => place.metrics.connection_refused("handshake"),
        },
    }
}

/// Speaks HTTP/1.1 on `stream`; `who` goes into every request, from outside the request (threat H08).
pub(super) async fn converse<S, W>(stream: S, who: W, router: Router, timeout: Duration, end: End)
where
    S: AsyncRead + AsyncWrite + Unpin,
    W: Clone + Send + Sync + 'static,
{
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(who.clone());
        router.clone().call(request)
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(timeout)
            .max_headers(MOST_HEADERS)
            .max_buf_size(MOST_HEADER_BYTES)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = end.stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                () = end.kill.cancelled() => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        // The caller's doing, mostly: it went away, it was slow, it sent what is no HTTP.
        debug!("connection ended: {error}");
    }
}

/// Who is connected.
#[derive(Debug, Default)]
struct Crowd(Mutex<Heads>);

#[derive(Debug, Default)]
struct Heads {
    total: usize,
    by_address: HashMap<AddressKey, usize>,
}

/// One open connection; leaves the crowd when dropped.
struct Place {
    crowd: Arc<Crowd>,
    address: AddressKey,
    surface: &'static str,
    metrics: Arc<Metrics>,
}

impl Crowd {
    fn admit(self: &Arc<Self>, peer: SocketAddr, terms: &Terms) -> Result<Place, &'static str> {
        let address = AddressKey::of(peer.ip());
        let mut heads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if heads.total >= terms.connections {
            return Err("total");
        }
        let exempt = terms.proxies.vouch_for(peer.ip().to_canonical());
        let own = heads.by_address.get(&address).copied().unwrap_or_default();
        if own >= terms.per_address && !exempt {
            return Err("per_address");
        }
        heads.total = heads.total.saturating_add(1);
        heads.by_address.insert(address, own.saturating_add(1));
        terms.metrics.connected(terms.surface);
        Ok(Place {
            crowd: Arc::clone(self),
            address,
            surface: terms.surface,
            metrics: Arc::clone(&terms.metrics),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut heads = self.crowd.0.lock().unwrap_or_else(PoisonError::into_inner);
        heads.total = heads.total.saturating_sub(1);
        if let Some(own) = heads.by_address.get_mut(&self.address) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                heads.by_address.remove(&self.address);
            }
        }
        self.metrics.disconnected(self.surface);
    }
}
