//! The listener over real sockets: framing, patience, crowds, the end.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use cambio::{
    edge::{
        Proxies, Surface,
        listen::{self, Terms},
        router,
    },
    telemetry::Metrics,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::surface::{EXCHANGE, FORM, FakeExchanges, surface};

/// A listener on loopback, and what ends it.
struct Listening {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
    exchanges: Arc<FakeExchanges>,
    metrics: Arc<Metrics>,
}

async fn listening(change: impl FnOnce(&mut Terms, &mut Surface)) -> Listening {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let exchanges = Arc::new(FakeExchanges::default());
    let mut surface = surface(&exchanges);
    let metrics = surface.metrics.clone();
    let mut terms = Terms::public(100, Proxies::default(), metrics.clone());
    change(&mut terms, &mut surface);
    let stop = CancellationToken::new();
    let address = listener.local_addr().unwrap();
    #[expect(clippy::disallowed_methods, reason = "a test's own task")]
    let task = tokio::spawn(listen::serve(listener, None, router(surface), terms, stop.clone()));
    Listening { address, stop, task, exchanges, metrics }
}

impl Listening {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Writes `bytes` and reads until the broker closes.
    async fn say(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        rest(&mut stream).await
    }
}

/// Everything until the other side closes; a reset is a close.
async fn rest(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let mut part = [0; 4096];
    loop {
        match stream.read(&mut part).await {
            Ok(0) | Err(_) => return String::from_utf8_lossy(&all).into_owned(),
            Ok(n) => all.extend_from_slice(&part[..n]),
        }
    }
}

/// One answer, without waiting for the close.
async fn one(stream: &mut TcpStream) -> String {
    let mut part = vec![0; 4096];
    let n = stream.read(&mut part).await.unwrap();
    String::from_utf8_lossy(&part[..n]).into_owned()
}

fn request(headers: &str, body: &str) -> String {
    format!("POST /token HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\n{headers}\r\n{body}")
}

fn exchange() -> String {
    request(&format!("Content-Length: {}\r\n", EXCHANGE.len()), EXCHANGE)
}

#[tokio::test]
async fn an_exchange_over_a_socket_keeps_the_connection() {
    let broker = listening(|_, _| {}).await;
    let mut stream = broker.connect().await;
    for _ in 0..2 {
        stream.write_all(exchange().as_bytes()).await.unwrap();
        assert!(one(&mut stream).await.starts_with("HTTP/1.1 503 "));
    }
    let arrived = broker.exchanges.arrived.lock().unwrap();
    assert_eq!(arrived.len(), 2);
    assert!(arrived[0].source.is_loopback());
}

#[tokio::test]
async fn h05_ambiguous_framing_is_400_and_close_and_never_a_second_request() {
    let broker = listening(|_, _| {}).await;
    let smuggled = "GET /jwks HTTP/1.1\r\nHost: x\r\n\r\n";
    let chunked = format!("{:x}\r\n{EXCHANGE}\r\n0\r\n\r\n{smuggled}", EXCHANGE.len());
    let n = EXCHANGE.len();
    let cases: Vec<(&str, String)> = vec![
        (
            "CL and TE",
            request(&format!("Content-Length: {n}\r\nTransfer-Encoding: chunked\r\n"), &chunked),
        ),
        (
            "TE and CL",
            request(&format!("Transfer-Encoding: chunked\r\nContent-Length: {n}\r\n"), &chunked),
        ),
        ("TE alone", request("Transfer-Encoding: chunked\r\n", &chunked)),
        ("TE: identity", request("Transfer-Encoding: identity\r\n", &chunked)),
        ("TE: chunked, identity", request("Transfer-Encoding: chunked, identity\r\n", &chunked)),
        (
            "TE twice",
            request("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", &chunked),
        ),
        ("space before the colon", request("Transfer-Encoding : chunked\r\n", &chunked)),
        (
            "two lengths",
            request(
                &format!("Content-Length: {n}\r\nContent-Length: 5\r\n"),
                &format!("{EXCHANGE}{smuggled}"),
            ),
        ),
        (
            "a list of lengths",
            request(&format!("Content-Length: {n}, {n}\r\n"), &format!("{EXCHANGE}{smuggled}")),
        ),
        (
            "length with a sign",
            request(&format!("Content-Length: +{n}\r\n"), &format!("{EXCHANGE}{smuggled}")),
        ),
        ("negative length", request("Content-Length: -1\r\n", &format!("{EXCHANGE}{smuggled}"))),
        (
            "hexadecimal length",
            request("Content-Length: 0x10\r\n", &format!("{EXCHANGE}{smuggled}")),
        ),
        ("length beyond 64 bits", request("Content-Length: 99999999999999999999\r\n", EXCHANGE)),
        ("folded header", request(&format!("X-A: b\r\n c\r\nContent-Length: {n}\r\n"), EXCHANGE)),
        ("NUL in a header", request(&format!("X-A: b\0c\r\nContent-Length: {n}\r\n"), EXCHANGE)),
        (
            "bare CR in a header",
            request(&format!("X-A: b\rc\r\nContent-Length: {n}\r\n"), EXCHANGE),
        ),
        ("header without a name", request(&format!(": b\r\nContent-Length: {n}\r\n"), EXCHANGE)),
        ("no HTTP at all", "\u{16}\u{3}\u{1} hello\r\n\r\n".to_owned()),
        ("space in the path", exchange().replace("/token ", "/to ken ")),
        (
            "HTTP/1.0 with TE",
            request("Transfer-Encoding: chunked\r\n", &chunked)
                .replace("HTTP/1.1\r\nHost", "HTTP/1.0\r\nHost"),
        ),
    ];
    for (name, bytes) in cases {
        let said = broker.say(bytes.as_bytes()).await;
        assert!(
            said.starts_with("HTTP/1.1 400 ") || said.starts_with("HTTP/1.0 400 "),
            "{name}: {said}"
        );
        assert_eq!(said.matches("HTTP/1.").count(), 1, "{name}: a second answer: {said}");
    }
    assert!(broker.exchanges.arrived.lock().unwrap().is_empty());
}

#[tokio::test]
async fn h05_headers_beyond_the_cap_are_431() {
    let broker = listening(|_, _| {}).await;
    let many: String = (0..100).map(|n| format!("X-{n}: 1\r\n")).collect();
    let long = format!("X-A: {}\r\n", "a".repeat(20_000));
    for headers in [many, long] {
        let said = broker.say(request(&headers, "").as_bytes()).await;
        assert!(said.starts_with("HTTP/1.1 431 "), "{said}");
    }
}

#[tokio::test]
async fn h06_http_2_is_not_spoken() {
    let broker = listening(|_, _| {}).await;
    let said = broker.say(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    assert!(!said.contains("HTTP/1.1 2") && !said.as_bytes().starts_with(b"\0\0"), "{said:?}");
}

#[tokio::test]
async fn h03_expect_continue_is_not_answered_for_a_body_over_the_cap() {
    let broker = listening(|_, _| {}).await;
    let bytes = request("Content-Length: 1000000\r\nExpect: 100-continue\r\n", "");
    let said = broker.say(bytes.as_bytes()).await;
    assert!(said.starts_with("HTTP/1.1 413 "), "{said}");
}

#[tokio::test]
async fn h04_headers_that_do_not_end_and_bodies_that_stop_are_cut_off() {
    let short = Duration::from_millis(50);
    let broker = listening(|terms, surface| {
        terms.header_timeout = short;
        surface.body_timeout = short;
    })
    .await;
    assert_eq!(broker.say(b"POST /token HTTP/1.1\r\nHost: x\r\nX-Slow: ").await, "");
    assert_eq!(broker.say(b"").await, "", "an idle connection");
    let said = broker.say(request("Content-Length: 100\r\n", "grant_type=").as_bytes()).await;
    assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
}

#[tokio::test]
async fn h04_one_address_and_all_together_have_so_many_connections() {
    let broker = listening(|terms, _| terms.per_address = 2).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = broker.connect().await;
        stream.write_all(exchange().as_bytes()).await.unwrap();
        assert!(one(&mut stream).await.starts_with("HTTP/1.1 503 "));
        held.push(stream);
    }
    assert_eq!(broker.say(exchange().as_bytes()).await, "", "the third is closed unserved");
    assert!(
        broker
            .metrics
            .text()
            .unwrap()
            .contains("connections_refused_total{reason=\"per_address\"} 1"),
        "{}",
        broker.metrics.text().unwrap()
    );
    let broker = listening(|terms, _| terms.connections = 0).await;
    assert_eq!(broker.say(exchange().as_bytes()).await, "");
}

#[tokio::test]
async fn h04_proxies_that_we_named_carry_many_callers() {
    let broker = listening(|terms, _| {
        terms.per_address = 0;
        terms.proxies = Proxies::of(["127.0.0.0/8".parse().unwrap()]);
    })
    .await;
    let mut stream = broker.connect().await;
    stream.write_all(exchange().as_bytes()).await.unwrap();
    assert!(one(&mut stream).await.starts_with("HTTP/1.1 503 "));
}

#[tokio::test]
async fn drain_lets_the_request_in_hand_end_and_takes_no_more() {
    let broker = listening(|_, _| {}).await;
    let whole = exchange();
    let (first, second) = whole.split_at(whole.len() - 10);
    let mut stream = broker.connect().await;
    stream.write_all(first.as_bytes()).await.unwrap();
    // The broker has read the head once it takes another connection's whole request.
    let mut other = broker.connect().await;
    other.write_all(exchange().as_bytes()).await.unwrap();
    one(&mut other).await;
    broker.stop.cancel();
    stream.write_all(second.as_bytes()).await.unwrap();
    let said = rest(&mut stream).await;
    assert!(said.starts_with("HTTP/1.1 503 ") && said.contains("connection: close"), "{said}");
    broker.task.await.unwrap();
    assert!(TcpStream::connect(broker.address).await.is_err());
}

#[tokio::test]
async fn drain_ends_at_its_deadline_whatever_callers_do() {
    let broker = listening(|terms, _| terms.drain = Duration::ZERO).await;
    let mut stream = broker.connect().await;
    stream.write_all(b"POST /token HTTP/1.1\r\n").await.unwrap();
    broker.stop.cancel();
    broker.task.await.unwrap();
    assert_eq!(rest(&mut stream).await, "");
}
