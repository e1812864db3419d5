//! Where an agent listens, and one call to it: gRPC over HTTP/2 on a connection of its own.

use std::{
    error::Error,
    fmt, io,
    net::SocketAddr,
    path::PathBuf,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use hyper::{Uri, client::conn::http2, http::uri::PathAndQuery, rt::Executor};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    task::JoinSet,
};
use tonic::{Code, Request, Status, client::Grpc, metadata::MetadataValue};
use tonic_prost::ProstCodec;
use url::Url;

use super::super::LONGEST;
use crate::client::Machine;

/// The service has no package (SPIFFE Workload API section 3).
const METHOD: &str = "/SpiffeWorkloadAPI/FetchJWTSVID";
/// The most bytes of an answer: a few identities.
pub(super) const ANSWER: usize = 4 * LONGEST;
/// How tonic says that an answer has more, as if the agent had said it.
const TOO_LONG: &str = "Error, decoded message length too large";

/// SPIFFE Workload API section 6, `JWTSVIDRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Ask {
    #[prost(string, repeated, tag = "1")]
    pub(super) audience: Vec<String>,
    /// Empty: every identity that the process has.
    #[prost(string, tag = "2")]
    pub(super) spiffe_id: String,
}

/// `JWTSVIDResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Answer {
    #[prost(message, repeated, tag = "1")]
    pub(super) svids: Vec<Svid>,
}

/// `JWTSVID`. The derived text would show the token.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(super) struct Svid {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(string, tag = "2")]
    pub(super) token: String,
    #[prost(string, tag = "3")]
    pub(super) hint: String,
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Where the agent listens (SPIFFE Workload Endpoint section 4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

impl Endpoint {
    pub(super) fn parse(text: &str, machine: &Machine) -> Result<Self, &'static str> {
        const SHAPE: &str = "expected `unix:///absolute/path` or `tcp://IP:port`";
        if let Some(address) = text.strip_prefix("tcp://") {
            let address: SocketAddr = address.parse().map_err(|_| SHAPE)?;
            // Section 3: no TLS, and the agent knows a workload by where it calls from. A link-local address is on a network, too.
            return if address.ip().to_canonical().is_loopback() {
                Ok(Self::Tcp(address))
            } else {
                Err("expected an address of loopback: the token would cross a network in the clear")
            };
        }
        let url = Url::parse(text).map_err(|_| SHAPE)?;
        let only_a_path = url.scheme() == "unix"
            && !url.cannot_be_a_base()
            && url.host().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
            && url.path() != "/";
        let path = only_a_path.then(|| url.to_file_path().ok()).flatten();
        let path = path.as_deref().and_then(|path| path.to_str()).ok_or(SHAPE)?;
        Ok(Self::Unix(machine.path(path)))
    }

    /// Asks once.
    pub(super) async fn ask(&self, ask: Ask) -> Result<Answer, Failure> {
        match self {
            Self::Unix(path) => call(UnixStream::connect(path).await?, ask).await,
            Self::Tcp(address) => call(TcpStream::connect(address).await?, ask).await,
        }
    }
}

/// Why one try had no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nobody listens there, or the connection broke.
    Away(String),
    /// The socket is not for us, or there can be none.
    Closed(io::Error),
    /// The answer has more than [`ANSWER`] bytes.
    TooLong,
    /// The agent's own no, or an answer that is none.
    Said(Status),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        // What no agent that starts a moment later could change: a path that is too long is no input.
        let closed = [
            io::ErrorKind::PermissionDenied,
            io::ErrorKind::NotADirectory,
            io::ErrorKind::InvalidInput,
        ];
        if closed.contains(&error.kind()) {
            return Self::Closed(error);
        }
        Self::Away(error.to_string())
    }
}

impl From<hyper::Error> for Failure {
    fn from(error: hyper::Error) -> Self {
        Self::Away(root(&error))
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        // What has a source was not said by the agent: the connection broke under the call.
        match status.source() {
            Some(source) => Self::Away(root(source)),
            None if status.code() == Code::OutOfRange && status.message().starts_with(TOO_LONG) => {
                Self::TooLong
            }
            None => Self::Said(status),
        }
    }
}

/// What was the matter at the bottom of it: above it stands "http2 error".
fn root(mut error: &(dyn Error + 'static)) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Where hyper runs what goes on beside a call. It ends with the call: an agent that hangs would else keep a connection of ours for
/// each try.
#[derive(Clone, Debug, Default)]
struct Beside(Arc<Mutex<JoinSet<()>>>);

impl Beside {
    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn guard(&self) -> Ending {
        Ending(self.clone())
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Beside {
    fn execute(&self, future: F) {
        self.tasks().spawn(future);
    }
}

/// Ends them when it goes.
struct Ending(Beside);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.tasks().abort_all();
    }
}

/// One unary call over a connection of its own.
async fn call<S>(stream: S, ask: Ask) -> Result<Answer, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let beside = Beside::default();
    let _ended_with_this = beside.guard();
    let (sender, connection) = http2::handshake(beside, TokioIo::new(stream)).await?;
    let service = tower::service_fn(move |request| {
        let mut sender = sender.clone();
        async move { sender.send_request(request).await }
    });
    let mut client = Grpc::with_origin(service, Uri::from_static("http://localhost"))
        .max_decoding_message_size(ANSWER);
    let mut request = Request::new(ask);
    // Section 3: whoever makes a server of ours send requests can't make it send this.
    request.metadata_mut().insert("workload.spiffe.io", MetadataValue::from_static("true"));
    let answer = async {
        let method = PathAndQuery::from_static(METHOD);
        client.unary(request, method, ProstCodec::<Ask, Answer>::default()).await
    };
    let (mut answer, mut connection) = (pin!(answer), pin!(connection));
    let answered = tokio::select! {
        biased;
        answered = &mut answer => answered,
        // Its end ends the call too; what had come before that is an answer all the same.
        _ = &mut connection => answer.await,
    };
    Ok(answered?.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Environment;

    fn parse(text: &str) -> Result<Endpoint, &'static str> {
        Endpoint::parse(text, &Machine::of(Environment::default()))
    }

    #[test]
    fn an_endpoint_is_an_absolute_path_or_an_address_of_loopback() {
        for (text, path) in [
            ("unix:///run/spire/agent.sock", "/run/spire/agent.sock"),
            ("unix:/run/x", "/run/x"),
            ("unix:///run/a%20b", "/run/a b"),
        ] {
            assert_eq!(parse(text), Ok(Endpoint::Unix(path.into())));
        }
        for address in ["127.0.0.1:8000", "127.9.9.9:1", "[::1]:8", "[::ffff:127.0.0.1]:8"] {
            let tcp = Endpoint::Tcp(address.parse().unwrap());
            assert_eq!(parse(&format!("tcp://{address}")), Ok(tcp));
        }
    }

    #[test]
    fn what_is_no_endpoint_says_what_one_is() {
        for bad in [
            "/run/spire.sock",
            "unix:run/x",
            "unix://run/x",
            "unix://user@/x",
            "unix://",
            "unix:///",
            "unix:///x?y",
            "unix:///x#y",
            "https:///x",
            "file:///x",
            "tcp://localhost:8000",
            "tcp://127.0.0.1",
            "tcp://127.0.0.1:8000/",
            "tcp://127.0.0.1:8000/foo",
            "tcp://u@127.0.0.1:8000",
            "tcp://127.1:8000",
        ] {
            let said = parse(bad).map_err(|said| said.starts_with("expected `unix:"));
            assert_eq!(said, Err(true), "{bad}");
        }
        for far in [
            "10.0.0.1:8000",
            "[fd00::1]:8000",
            "0.0.0.0:8000",
            "[::ffff:10.0.0.1]:1",
            "169.254.0.1:8",
            "[fe80::1]:8",
            "[::ffff:169.254.169.254]:1",
        ] {
            let said = parse(&format!("tcp://{far}")).map_err(|said| said.contains("in the clear"));
            assert_eq!(said, Err(true), "{far}");
        }
    }

    #[test]
    fn an_svid_does_not_print() {
        let svid = Svid { id: "spiffe://a/b".into(), token: "hush".into(), hint: String::new() };
        let text = format!("{:?}", Answer { svids: vec![svid] });
        assert!(text.contains("spiffe://a/b") && !text.contains("hush"), "{text}");
    }
}
