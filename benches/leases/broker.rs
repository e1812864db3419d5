//! The broker in this process, used over HTTP as its callers do.

use std::{
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use cambio::{
    app::{self, Existing, Mode, Running},
    config::Config,
    edge::admin_client,
    grant::TargetName,
    ledger::{LeaseState, reader::Leases},
    telemetry::{self, Format},
};
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    fixture::{Issuer, Signs},
    load::Caller,
    server::REPOSITORY,
};

/// How long all leases of one run may take to end.
const PATIENCE: Duration = Duration::from_secs(300);

pub struct Broker(Running);

impl Broker {
    pub async fn start(folder: &Path) -> Self {
        telemetry::start(Format::Json, "error", None).expect("logging");
        let file = folder.join("cambio.yaml");
        let (config, _) = Config::read(&file).unwrap_or_else(|problems| {
            let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
            panic!("{}", problems.join("\n"))
        });
        let running = app::start(config, Some(file), Mode::Serve, Existing::Created).await;
        Self(running.unwrap_or_else(|error| panic!("the broker does not start: {error}")))
    }

    pub async fn drain(self) {
        self.0.drain().await;
    }

    /// Callers of the target called `target`, each on a connection of its own.
    pub async fn callers(
        &self,
        issuer: &Issuer,
        target: &str,
        count: usize,
    ) -> Vec<Box<dyn Caller>> {
        let request: Arc<[u8]> = request(issuer, target).into();
        let mut callers: Vec<Box<dyn Caller>> = Vec::new();
        for _ in 0..count {
            callers.push(Box::new(Http::to(self.0.public(), &request).await));
        }
        callers
    }

    /// How many live leases `target` has.
    pub fn live(&self, target: &str) -> usize {
        let leases = self.0.state().reader().leases(Leases::Live, u32::MAX).expect("leases");
        leases.iter().filter(|lease| lease.target == TargetName::from(target)).count()
    }

    /// How many leases of `target` are revoked, and how many there are.
    pub fn revoked(&self, target: &str) -> (usize, usize) {
        let leases = self.0.state().reader().leases(Leases::All, u32::MAX).expect("leases");
        let target = TargetName::from(target);
        let of_target = leases.iter().filter(|lease| lease.target == target);
        let revoked = of_target.clone().filter(|lease| lease.state == LeaseState::Revoked);
        (revoked.count(), of_target.count())
    }

    /// Ends all leases of `target`, and waits until they have ended.
    pub async fn end_all(&self, target: &str) -> Result<(), String> {
        let arguments = json!({ "target": target, "reason": "benchmark" });
        let Value::Object(arguments) = arguments else { return Err("no object".to_owned()) };
        let begun = Instant::now();
        self.call("leases/revoke", arguments).await?;
        while self.live(target) > 0 {
            if begun.elapsed() > PATIENCE {
                return Err(format!("{} leases of `{target}` do not end", self.live(target)));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    async fn call(&self, verb: &str, arguments: Map<String, Value>) -> Result<Value, String> {
        let socket = self.0.admin_socket();
        admin_client::call(&socket, verb, arguments).await.map_err(|error| error.to_string())
    }
}

/// The whole HTTP request of one exchange.
fn request(issuer: &Issuer, target: &str) -> Vec<u8> {
    let body = form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange")
        .append_pair("subject_token_type", "urn:ietf:params:oauth:token-type:jwt")
        .append_pair("subject_token", &issuer.token(Signs::Rs256, REPOSITORY))
        .append_pair("audience", target)
        .append_pair("scope", "writer")
        .finish();
    format!(
        "POST /token HTTP/1.1\r\nhost: cambio.test\r\ncontent-type: application/x-www-form-urlencoded\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// One connection to the broker.
struct Http {
    stream: TcpStream,
    request: Arc<[u8]>,
    answer: Vec<u8>,
}

impl Http {
    async fn to(address: SocketAddr, request: &Arc<[u8]>) -> Self {
        let stream = TcpStream::connect(address).await.expect("connect");
        stream.set_nodelay(true).expect("nodelay");
        Self { stream, request: Arc::clone(request), answer: Vec::new() }
    }
}

#[async_trait]
impl Caller for Http {
    async fn one(&mut self, _number: usize) -> Result<(), String> {
        let lost = |error: std::io::Error| error.to_string();
        self.stream.write_all(&self.request).await.map_err(lost)?;
        self.answer.clear();
        while !is_whole(&self.answer) {
            if self.stream.read_buf(&mut self.answer).await.map_err(lost)? == 0 {
                return Err("the broker hung up".to_owned());
            }
        }
        if self.answer.starts_with(b"HTTP/1.1 200") {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&self.answer).into_owned())
    }
}

/// Whether all of an answer is there.
fn is_whole(bytes: &[u8]) -> bool {
    const NAME: &[u8] = b"\r\ncontent-length: ";
    let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    // hyper writes lower-case names; an answer without this one is never whole, and the run ends loudly.
    let named = bytes[..head].windows(NAME.len()).position(|name| name == NAME);
    let Some(at) = named else { return false };
    let digits = bytes[at + NAME.len()..].iter().take_while(|byte| byte.is_ascii_digit());
    let length = digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0'));
    bytes.len() >= head + 4 + length
}
