//! A closed-loop load generator over plain sockets: N connections, one request in flight on each, as cheap as can be so that
//! the server is what is measured.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// What one run saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Answers with status 200 per second.
    pub per_second: f64,
    /// Latencies of the good ones, sorted, in microseconds.
    pub latencies: Vec<u32>,
    /// Other answers.
    pub refused: usize,
}

impl Seen {
    /// The latency that `part` of the requests did not exceed, in milliseconds.
    pub fn quantile(&self, part: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        let at = (part * last as f64).round() as usize;
        self.latencies.get(at).map_or(f64::NAN, |us| f64::from(*us) / 1_000.0)
    }
}

/// Sends `request` over `connections` for `during`; connections share nothing.
pub async fn run(
    address: SocketAddr,
    request: &[u8],
    connections: usize,
    during: Duration,
) -> Seen {
    let end = Instant::now() + during;
    let mut seen = many(address, request, connections, move |_| Instant::now() < end).await;
    seen.per_second = seen.latencies.len() as f64 / during.as_secs_f64();
    seen
}

/// Sends `request` exactly `each` times over each of `connections`.
pub async fn times(address: SocketAddr, request: &[u8], connections: usize, each: usize) -> Seen {
    many(address, request, connections, move |sent| sent < each).await
}

async fn many(
    address: SocketAddr,
    request: &[u8],
    connections: usize,
    more: impl Fn(usize) -> bool + Clone + Send + 'static,
) -> Seen {
    let mut tasks = Vec::new();
    for _ in 0..connections {
        let (request, more) = (request.to_vec(), more.clone());
        tasks.push(tokio::spawn(async move { one(address, &request, more).await }));
    }
    let (mut latencies, mut refused) = (Vec::new(), 0);
    for task in tasks {
        let (good, bad) = task.await.expect("a connection's task");
        latencies.extend(good);
        refused += bad;
    }
    latencies.sort_unstable();
    Seen { per_second: f64::NAN, latencies, refused }
}

async fn one(
    address: SocketAddr,
    request: &[u8],
    more: impl Fn(usize) -> bool,
) -> (Vec<u32>, usize) {
    let mut stream = TcpStream::connect(address).await.expect("connect");
    stream.set_nodelay(true).expect("nodelay");
    let (mut latencies, mut refused) = (Vec::with_capacity(1 << 14), 0);
    let mut buffer = vec![0_u8; 16 * 1024];
    while more(latencies.len() + refused) {
        let began = Instant::now();
        stream.write_all(request).await.expect("write");
        let mut filled = 0;
        let good = loop {
            let read = stream.read(&mut buffer[filled..]).await.expect("read");
            assert!(
                read > 0,
                "the server closed: {:?}",
                String::from_utf8_lossy(&buffer[..filled])
            );
            filled += read;
            if let Some(status) = whole_answer(&buffer[..filled]) {
                break status;
            }
        };
        if good {
            latencies.push(u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX));
        } else {
            refused += 1;
        }
    }
    (latencies, refused)
}

/// `Some(status == 200)` once the whole answer is there.
fn whole_answer(bytes: &[u8]) -> Option<bool> {
    const NAME: &[u8] = b"\r\ncontent-length: ";
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    // hyper writes lower-case names; an answer without this one is never whole, and the run ends loudly.
    let at = bytes[..head].windows(NAME.len()).position(|name| name == NAME)? + NAME.len();
    let digits = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit());
    let length = digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0'));
    (bytes.len() >= head + length).then(|| bytes.starts_with(b"HTTP/1.1 200"))
}

/// One exchange over a connection of its own: the whole answer.
pub async fn once(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connect");
    stream.write_all(request).await.expect("write");
    let (mut answer, mut buffer) = (Vec::new(), [0; 4_096]);
    while whole_answer(&answer).is_none() {
        let read = stream.read(&mut buffer).await.expect("read");
        assert!(read > 0, "the server closed: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8(answer).expect("text")
}
