//! The SPIFFE Workload API: an agent on this machine that looks at the process behind a connection, and hands it JWT-SVIDs. It is
//! gRPC without TLS and without a secret of ours (SPIFFE Workload Endpoint sections 3.1 and 5), so it is never asked over a network.

use std::{
    error::Error,
    fmt, io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hyper::{Uri, client::conn::http2, http::uri::PathAndQuery, rt::Executor};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    task::JoinSet,
    time::Instant,
};
use tonic::{Code, Request, Status, client::Grpc, metadata::MetadataValue};
use tonic_prost::ProstCodec;
use url::Url;

use super::{LONGEST, Means, Platform, Sign, Way, ask::PATIENCE, pods};
use crate::client::{ClientError, Machine, Waiting, said};

/// In a pod it comes after the file that was projected for the broker by name, and before what every pod has.
pub(super) const SPIFFE: Platform = Platform {
    name: "spiffe",
    title: "a SPIFFE workload",
    signs: &[Sign::SetWithout(SOCKET, pods::TOKEN)],
    way: Way::Spiffe,
    remedy: "run an agent (SPIRE's, say) on this machine and set `SPIFFE_ENDPOINT_SOCKET` to its socket, `unix:///run/spire/agent.sock`; in a pod, mount the volume of the CSI driver `csi.spiffe.io` and name the socket in it",
    shared: false,
};

const SOCKET: &str = "SPIFFE_ENDPOINT_SOCKET";
/// The service has no package (SPIFFE Workload API section 3).
const METHOD: &str = "/SpiffeWorkloadAPI/FetchJWTSVID";
/// An operator who gives a workload several identities says with this `hint` which one is for the broker.
const HINT: &str = "cambio";
/// What to do where the agent knows the process and no identity for it.
const REGISTER: &str = "register the workload (`spire-server entry create -parentID <the agent's> -spiffeID spiffe://<trust domain>/<path> -selector …`; in Kubernetes a `ClusterSPIFFEID`): its selectors have to fit the process of `cambio`, which is the one that asks";
/// How long "no identity" may only mean "not yet": agents hear of new entries every few seconds (SPIRE: 5 s), and a pod is faster.
const NEWS: Duration = Duration::from_secs(15);
/// The most bytes of an answer: a few identities.
const ANSWER: usize = 4 * LONGEST;
/// The most of an agent's words that are repeated.
const WORDS: usize = 300;

/// SPIFFE Workload API section 6, `JWTSVIDRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct Ask {
    #[prost(string, repeated, tag = "1")]
    audience: Vec<String>,
    /// Empty: every identity that the process has.
    #[prost(string, tag = "2")]
    spiffe_id: String,
}

/// `JWTSVIDResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct Answer {
    #[prost(message, repeated, tag = "1")]
    svids: Vec<Svid>,
}

/// `JWTSVID`. The derived text would show the token.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
struct Svid {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    token: String,
    #[prost(string, tag = "3")]
    hint: String,
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Where the agent listens (SPIFFE Workload Endpoint section 4).
#[derive(Clone, Debug, PartialEq, Eq)]
enum Endpoint {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

impl Endpoint {
    fn parse(text: &str, machine: &Machine) -> Result<Self, &'static str> {
        const SHAPE: &str = "expected `unix:///absolute/path` or `tcp://IP:port`";
        if let Some(address) = text.strip_prefix("tcp://") {
            let address: SocketAddr = address.parse().map_err(|_| SHAPE)?;
            let near = match address.ip().to_canonical() {
                IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local(),
                IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local(),
            };
            // Section 3: no TLS, and the agent knows a workload by where it calls from.
            return if near {
                Ok(Self::Tcp(address))
            } else {
                Err(
                    "expected an address of this machine: the token would cross a network in the clear",
                )
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
    async fn ask(&self, ask: Ask) -> Result<Answer, Failure> {
        match self {
            Self::Unix(path) => call(UnixStream::connect(path).await?, ask).await,
            Self::Tcp(address) => call(TcpStream::connect(address).await?, ask).await,
        }
    }
}

/// Why one try had no answer.
#[derive(Debug)]
enum Failure {
    /// Nobody listens there, or the connection broke.
    Away(String),
    /// The socket is not for us, or there can be none.
    Closed(io::Error),
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

/// A JWT-SVID for the wanted audience.
pub(super) async fn fetch(
    platform: &Platform,
    means: &Means<'_>,
    waiting: &mut Waiting<'_>,
) -> Result<(String, String), ClientError> {
    let Some(socket) = means.machine.environment.find(SOCKET).map(str::trim) else {
        return Err(platform.missing(&format!("`{SOCKET}` is not set")));
    };
    let told = said::tamed(socket);
    let endpoint = Endpoint::parse(socket, means.machine)
        .map_err(|expected| ClientError::usage(format!("`{SOCKET}` is `{told}`, {expected}")))?;
    let whom = format!("{}: `{told}`", platform.title);
    let (mut denied, mut before) = (None, None);
    let answer = loop {
        let ask = Ask { audience: vec![means.audience.to_owned()], spiffe_id: String::new() };
        let patience = waiting.left().min(PATIENCE);
        let failure = match tokio::time::timeout(patience, endpoint.ask(ask)).await {
            Ok(Ok(answer)) => break answer,
            Ok(Err(failure)) => failure,
            Err(_) => Failure::Away("no answer in time".to_owned()),
        };
        // Cut off by our own deadline: what was said before it tells more.
        if waiting.left().is_zero()
            && let Some(before) = before
        {
            return Err(before);
        }
        let (now, error) = judged(failure, &whom, platform);
        if !now.again(&mut denied) || !waiting.rest(None).await {
            return Err(error);
        }
        before = Some(error);
    };
    chosen(answer, &told)
        .map_err(|what| ClientError::unreachable(format!("{whom} answered {what}")))
}

/// What follows from a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Now {
    End,
    Again,
    AgainForAWhile,
}

impl Now {
    /// Whether to ask again. `denied` is since when there is said to be no identity.
    fn again(self, denied: &mut Option<Instant>) -> bool {
        match self {
            Self::End => false,
            Self::Again => true,
            Self::AgainForAWhile => denied.get_or_insert_with(Instant::now).elapsed() < NEWS,
        }
    }
}

fn judged(failure: Failure, whom: &str, platform: &Platform) -> (Now, ClientError) {
    match failure {
        Failure::Away(what) => {
            let error = ClientError::unreachable(format!("{whom} does not answer: {what}"));
            (Now::Again, error.hint(platform.remedy))
        }
        Failure::Closed(error) => {
            let hint = if error.kind() == io::ErrorKind::PermissionDenied {
                "the user that this runs as must be allowed to write to the socket"
            } else {
                platform.remedy
            };
            (Now::End, ClientError::usage(format!("{whom}: {error}")).hint(hint))
        }
        Failure::Said(status) => answered(&status, whom),
    }
}

/// SPIFFE Workload Endpoint section 6 and its appendix A.
fn answered(status: &Status, whom: &str) -> (Now, ClientError) {
    let words = said::tamed(&status.message().chars().take(WORDS).collect::<String>());
    let code = status.code();
    let message = format!("{whom} answered {code:?}: {words}");
    match code {
        Code::PermissionDenied => {
            let message = format!("{whom} has no identity for this process: {words}");
            (Now::AgainForAWhile, ClientError::refused(message).hint(REGISTER))
        }
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Aborted => {
            let hint = "the agent runs and can't answer: does it reach its server?";
            (Now::Again, ClientError::unreachable(message).hint(hint))
        }
        Code::InvalidArgument | Code::Unimplemented => {
            let hint = "is it the socket of a SPIFFE Workload API, with its JWT profile turned on?";
            (Now::End, ClientError::refused(message).hint(hint))
        }
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Internal
        | Code::DataLoss
        | Code::Unauthenticated => (Now::End, ClientError::unreachable(message)),
    }
}

/// The place and the token: of the identity that is hinted for us, else of the first, which is the default one (section 8).
fn chosen(answer: Answer, socket: &str) -> Result<(String, String), &'static str> {
    let all = answer.svids.len();
    let hinted = answer.svids.iter().position(|svid| svid.hint == HINT);
    let svid = answer.svids.into_iter().nth(hinted.unwrap_or_default());
    let svid = svid.ok_or("with no identity")?;
    // Section 4.5: where a mandatory field has its default value, the message is nothing.
    if svid.token.is_empty() || svid.id.is_empty() {
        return Err("with an empty identity");
    }
    let place = match (all, hinted) {
        (1, _) => format!("`{socket}`"),
        (all, Some(_)) => format!("`{socket}`, the one of {all} identities whose hint is `{HINT}`"),
        (all, None) => format!("`{socket}`, the first of {all} identities"),
    };
    Ok((place, svid.token))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Environment;

    fn parse(text: &str) -> Result<Endpoint, &'static str> {
        Endpoint::parse(text, &Machine::of(Environment::default()))
    }

    #[test]
    fn an_endpoint_is_an_absolute_path_or_an_address_of_this_machine() {
        for (text, path) in [
            ("unix:///run/spire/agent.sock", "/run/spire/agent.sock"),
            ("unix:/run/x", "/run/x"),
            ("unix:///run/a%20b", "/run/a b"),
        ] {
            assert_eq!(parse(text), Ok(Endpoint::Unix(path.into())));
        }
        for address in ["127.0.0.1:8000", "127.9.9.9:1", "[::1]:8", "169.254.0.1:8"] {
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
        for far in ["10.0.0.1:8000", "[fd00::1]:8000", "0.0.0.0:8000", "[::ffff:10.0.0.1]:1"] {
            let said = parse(&format!("tcp://{far}")).map_err(|said| said.contains("in the clear"));
            assert_eq!(said, Err(true), "{far}");
        }
    }

    #[test]
    fn a_socket_that_is_not_for_us_is_said_at_once() {
        let closed = Failure::from(io::Error::from(io::ErrorKind::PermissionDenied));
        let (now, error) = judged(closed, "an agent", &SPIFFE);
        assert_eq!((now, error.message.as_str()), (Now::End, "an agent: permission denied"));
        assert!(error.hint.is_some_and(|hint| hint.contains("must be allowed")));
        let away = Failure::from(io::Error::from(io::ErrorKind::ConnectionRefused));
        assert_eq!(judged(away, "an agent", &SPIFFE).0, Now::Again);
    }

    #[tokio::test(start_paused = true)]
    async fn no_identity_means_not_yet_for_some_seconds_and_then_no() {
        let mut denied = None;
        assert!(Now::AgainForAWhile.again(&mut denied));
        tokio::time::advance(Duration::from_secs(14)).await;
        assert!(Now::AgainForAWhile.again(&mut denied) && Now::Again.again(&mut denied));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!Now::AgainForAWhile.again(&mut denied) && !Now::End.again(&mut denied));
        assert!(Now::Again.again(&mut denied), "an agent that is away may come back");
    }

    #[test]
    fn an_svid_does_not_print() {
        let svid = Svid { id: "spiffe://a/b".into(), token: "hush".into(), hint: String::new() };
        let text = format!("{:?}", Answer { svids: vec![svid] });
        assert!(text.contains("spiffe://a/b") && !text.contains("hush"), "{text}");
    }
}
