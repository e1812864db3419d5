//! The SPIFFE Workload API: what exactly an agent is asked, whose answer is a token, and when it is asked again.

use std::{
    fs,
    path::{Path, PathBuf},
};

use cambio::client::{ClientError, Fault, ambient::Found};
use futures_util::future::join_all;
use insta::assert_snapshot;
use tempfile::{TempDir, tempdir};
use tokio::io::AsyncWriteExt as _;

use super::{AUDIENCE, find_below, told, words};
use crate::support::workload_api::{Says, Svid, WorkloadApi, svid};

const TOKEN: &str = "e30.e30.c2ln";
const SOCKET: &str = "unix:///run/agent.sock";

/// A machine with an agent on it.
struct Stage {
    root: TempDir,
    agent: WorkloadApi,
}

impl Stage {
    fn with(replies: impl IntoIterator<Item = Says>) -> Self {
        let (root, path) = empty();
        let agent = WorkloadApi::at(&path, AUDIENCE, replies);
        Self { root, agent }
    }

    async fn find(&self) -> Result<Found, ClientError> {
        find_at(self.root.path(), SOCKET).await
    }

    /// What is said of the one failure, and how often the agent was asked.
    async fn fails(replies: impl IntoIterator<Item = Says>) -> (String, usize) {
        let stage = Self::with(replies);
        let error = stage.find().await.unwrap_err();
        (words(&error), stage.agent.asked())
    }
}

fn empty() -> (TempDir, PathBuf) {
    let root = tempdir().unwrap();
    fs::create_dir(root.path().join("run")).unwrap();
    let path = root.path().join("run/agent.sock");
    (root, path)
}

async fn find_at(root: &Path, socket: &str) -> Result<Found, ClientError> {
    find_below(root, &[("SPIFFE_ENDPOINT_SOCKET", socket)], None).await
}

fn worker() -> Vec<Svid> {
    vec![svid("worker", TOKEN, "")]
}

fn tuple(place: &str) -> (String, String, String) {
    ("spiffe".to_owned(), place.to_owned(), TOKEN.to_owned())
}

#[tokio::test]
async fn an_agent_is_asked_as_the_standard_says_for_the_brokers_audience() {
    let stage = Stage::with([Says::Svids(worker())]);
    assert_eq!(told(stage.find().await), tuple("`unix:///run/agent.sock`"));
    assert_eq!(stage.agent.asked(), 1);
}

#[tokio::test]
async fn an_agent_on_loopback_is_asked_the_same() {
    let (agent, address) = WorkloadApi::at_loopback(AUDIENCE, [Says::Svids(worker())]).await;
    let socket = format!("tcp://{address}");
    let found = find_at(tempdir().unwrap().path(), &socket).await;
    assert_eq!(told(found), tuple(&format!("`{socket}`")));
    assert_eq!(agent.asked(), 1);
}

#[tokio::test]
async fn of_several_identities_the_hinted_one_is_taken_else_the_first() {
    let others = || vec![svid("first", TOKEN, ""), svid("second", "e30.e30.b3RoZXI", "internal")];
    let stage = Stage::with([Says::Svids(others())]);
    assert_eq!(
        told(stage.find().await),
        tuple("`unix:///run/agent.sock`, the first of 2 identities")
    );
    let mut hinted = others();
    hinted.reverse();
    hinted.push(svid("third", "e30.e30.dGhpcmQ", "cambio"));
    hinted[1].hint = "cambio".to_owned();
    let stage = Stage::with([Says::Svids(hinted)]);
    assert_eq!(
        told(stage.find().await),
        tuple("`unix:///run/agent.sock`, the one of 3 identities whose hint is `cambio`")
    );
}

#[tokio::test]
async fn an_agent_that_is_not_ready_is_asked_again() {
    let stage = Stage::with([
        Says::No(14, "agent is not in sync"),
        Says::No(4, "too late"),
        Says::No(8, "rate limit"),
        Says::Reset,
        // What the standard calls eventual: the entry is on its way to this agent.
        Says::No(7, "no identity issued"),
        Says::Svids(worker()),
    ]);
    assert_eq!(told(stage.find().await).2, TOKEN);
    assert_eq!(stage.agent.asked(), 6);
}

#[tokio::test]
async fn an_agent_that_comes_late_is_waited_for() {
    let (root, path) = empty();
    // What an agent that was killed leaves behind: a socket at which nobody listens.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let late = async {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        fs::remove_file(&path).unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        WorkloadApi::at(&path, AUDIENCE, [Says::Svids(worker())])
    };
    let (found, agent) = tokio::join!(find_at(root.path(), SOCKET), late);
    assert_eq!(told(found).2, TOKEN);
    assert_eq!(agent.asked(), 1);
}

#[tokio::test]
async fn a_process_without_an_identity_is_told_how_it_gets_one() {
    let (said, asked) = Stage::fails([Says::No(7, "no identity issued")]).await;
    assert!(asked > 1, "{asked}");
    assert_snapshot!(said, @r#"
    Refused: a SPIFFE workload: `unix:///run/agent.sock` has no identity for this process: no identity issued
      hint: register the workload (`spire-server entry create -parentID <the agent's> -spiffeID spiffe://<trust domain>/<path> -selector …`; in Kubernetes a `ClusterSPIFFEID`): its selectors have to fit the process of `cambio`, which is the one that asks
    "#);
}

#[tokio::test]
async fn what_will_not_heal_is_not_asked_again() {
    let mut all = String::new();
    for says in [
        Says::No(3, "security header missing from request"),
        Says::No(12, "unknown method FetchJWTSVID"),
        Says::No(2, "odd"),
        Says::No(16, "who?\n::add-mask::x"),
        // Its own word, and not ours.
        Says::No(11, "no such page"),
        Says::No(13, "can't sign: eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.c2ln is no key"),
        Says::Http(404),
        Says::Bytes(b"\x0a\xff garbage".to_vec()),
        Says::Announces(256 * 1024 + 1),
        Says::Svids(Vec::new()),
        Says::Svids(vec![svid("worker", "", "")]),
        Says::Svids(vec![Svid { id: String::new(), ..worker().remove(0) }]),
        Says::Svids(vec![svid("worker", "a token of\nmany words", "")]),
        Says::Svids(vec![svid("worker", &"a".repeat(64 * 1024 + 1), "")]),
    ] {
        let (said, asked) = Stage::fails([says]).await;
        assert_eq!(asked, 1, "{said}");
        all.push_str(&said);
        all.push('\n');
    }
    assert_snapshot!(all, @r#"
    Refused: a SPIFFE workload: `unix:///run/agent.sock` answered InvalidArgument: security header missing from request
      hint: is it the socket of a SPIFFE Workload API, with its JWT profile turned on?
    Refused: a SPIFFE workload: `unix:///run/agent.sock` answered Unimplemented: unknown method FetchJWTSVID
      hint: is it the socket of a SPIFFE Workload API, with its JWT profile turned on?
    Unreachable: a SPIFFE workload: `unix:///run/agent.sock` answered Unknown: odd
    Unreachable: a SPIFFE workload: `unix:///run/agent.sock` answered Unauthenticated: who? ::add-mask::x
    Unreachable: a SPIFFE workload: `unix:///run/agent.sock` answered OutOfRange: no such page
    Unreachable: a SPIFFE workload: `unix:///run/agent.sock` answered Internal: can't sign: <a token> is no key
    Refused: a SPIFFE workload: `unix:///run/agent.sock` answered Unimplemented: grpc-status header missing, mapped from HTTP status code 404
      hint: is it the socket of a SPIFFE Workload API, with its JWT profile turned on?
    Unreachable: a SPIFFE workload: `unix:///run/agent.sock` answered Internal: failed to decode Protobuf message: Answer.svids: buffer underflow
    Unreachable: a SPIFFE workload: `unix:///run/agent.sock` answered more than the 262144 bytes that are read
    Unreachable: a SPIFFE workload: `unix:///run/agent.sock` answered with no identity
    Unreachable: a SPIFFE workload: `unix:///run/agent.sock` answered with an empty identity
    Unreachable: a SPIFFE workload: `unix:///run/agent.sock` answered with an empty identity
    Unreachable: a SPIFFE workload: `unix:///run/agent.sock` holds something else than a token
    Unreachable: a SPIFFE workload: `unix:///run/agent.sock` holds something else than a token
    "#);
}

#[tokio::test]
async fn an_agent_that_stays_away_is_said_to() {
    let all = [Says::No(14, "no connection to the server"), Says::Silence, Says::Reset];
    let all = join_all(all.map(|says| Stage::fails([says]))).await;
    let mut all: String = all.into_iter().map(|(said, _)| said + "\n").collect();
    let ((nothing, _), (deserted, path)) = (empty(), empty());
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let found = join_all([&nothing, &deserted].map(|root| find_at(root.path(), SOCKET))).await;
    let said: Vec<String> = found.into_iter().map(|found| words(&found.unwrap_err())).collect();
    all.push_str(&said.join("\n"));
    assert_snapshot!(all, @r#"
    Unreachable: a SPIFFE workload: `unix:///run/agent.sock` answered Unavailable: no connection to the server
      hint: the agent runs and can't answer: does it reach its server?
    Unreachable: a SPIFFE workload: `unix:///run/agent.sock` does not answer: no answer in time
      hint: run an agent (SPIRE's, say) on this machine and set `SPIFFE_ENDPOINT_SOCKET` to its socket, `unix:///run/spire/agent.sock`; in a pod, mount the volume of the CSI driver `csi.spiffe.io` and name the socket in it
    Unreachable: a SPIFFE workload: `unix:///run/agent.sock` does not answer: stream error received: unexpected internal error encountered
      hint: run an agent (SPIRE's, say) on this machine and set `SPIFFE_ENDPOINT_SOCKET` to its socket, `unix:///run/spire/agent.sock`; in a pod, mount the volume of the CSI driver `csi.spiffe.io` and name the socket in it
    Unreachable: a SPIFFE workload: `unix:///run/agent.sock` does not answer: No such file or directory (os error 2)
      hint: run an agent (SPIRE's, say) on this machine and set `SPIFFE_ENDPOINT_SOCKET` to its socket, `unix:///run/spire/agent.sock`; in a pod, mount the volume of the CSI driver `csi.spiffe.io` and name the socket in it
    Unreachable: a SPIFFE workload: `unix:///run/agent.sock` does not answer: Connection refused (os error 111)
      hint: run an agent (SPIRE's, say) on this machine and set `SPIFFE_ENDPOINT_SOCKET` to its socket, `unix:///run/spire/agent.sock`; in a pod, mount the volume of the CSI driver `csi.spiffe.io` and name the socket in it
    "#);
}

#[tokio::test]
async fn what_an_agent_said_is_not_lost_when_the_time_is_over() {
    let (said, _) = Stage::fails([Says::No(7, "no identity issued"), Says::Silence]).await;
    assert!(said.starts_with("Refused: ") && said.contains("no identity issued"), "{said}");
}

#[tokio::test]
async fn another_server_at_the_socket_is_no_agent() {
    for greeting in ["", "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"] {
        let (root, path) = empty();
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(greeting.as_bytes()).await;
            }
        });
        let error = find_at(root.path(), SOCKET).await.unwrap_err();
        assert_eq!(error.fault, Fault::Unreachable);
        assert!(error.message.contains("does not answer"), "{error}");
    }
}

#[tokio::test]
async fn a_variable_that_names_no_endpoint_says_what_one_is() {
    let root = tempdir().unwrap();
    let mut all = String::new();
    let long = format!("unix:///{}", "x".repeat(108));
    for bad in ["/run/agent.sock", "tcp://agent.example:8081", "tcp://10.0.0.1:8081", &long] {
        all.push_str(&words(&find_at(root.path(), bad).await.unwrap_err()));
        all.push('\n');
    }
    let unset = find_below(root.path(), &[], Some("spiffe")).await.unwrap_err();
    all.push_str(&words(&unset));
    assert_snapshot!(all, @r#"
    Usage: `SPIFFE_ENDPOINT_SOCKET` is `/run/agent.sock`, expected `unix:///absolute/path` or `tcp://IP:port`
    Usage: `SPIFFE_ENDPOINT_SOCKET` is `tcp://agent.example:8081`, expected `unix:///absolute/path` or `tcp://IP:port`
    Usage: `SPIFFE_ENDPOINT_SOCKET` is `tcp://10.0.0.1:8081`, expected an address of loopback: the token would cross a network in the clear
    Usage: a SPIFFE workload: `unix:///xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx`: path must be shorter than SUN_LEN
      hint: run an agent (SPIRE's, say) on this machine and set `SPIFFE_ENDPOINT_SOCKET` to its socket, `unix:///run/spire/agent.sock`; in a pod, mount the volume of the CSI driver `csi.spiffe.io` and name the socket in it
    Usage: this is a SPIFFE workload, and `SPIFFE_ENDPOINT_SOCKET` is not set
      hint: run an agent (SPIRE's, say) on this machine and set `SPIFFE_ENDPOINT_SOCKET` to its socket, `unix:///run/spire/agent.sock`; in a pod, mount the volume of the CSI driver `csi.spiffe.io` and name the socket in it
    "#);
}

#[tokio::test]
async fn in_a_pod_a_mounted_socket_is_found_where_no_token_is_projected_for_us() {
    let stage = Stage::with([Says::Svids(worker())]);
    let pod = [("KUBERNETES_SERVICE_HOST", "10.0.0.1"), ("SPIFFE_ENDPOINT_SOCKET", SOCKET)];
    let found = find_below(stage.root.path(), &pod, None).await;
    assert_eq!(told(found).0, "spiffe");
    // Who projects a token for the broker, means that one.
    let projected = stage.root.path().join("var/run/secrets/cambio");
    fs::create_dir_all(&projected).unwrap();
    fs::write(projected.join("token"), "e30.e30.cG9k").unwrap();
    let found = find_below(stage.root.path(), &pod, None).await;
    assert_eq!((told(found).0.as_str(), stage.agent.asked()), ("kubernetes", 1));
    // Unless somebody says so.
    let found = find_below(stage.root.path(), &pod, Some("spiffe")).await;
    assert_eq!(told(found).0, "spiffe");
    // And a job of a CI system is that job, whatever the pod under it has.
    let job = [pod[0], pod[1], ("GITHUB_ACTIONS", "true")];
    let error = find_below(stage.root.path(), &job, None).await.unwrap_err();
    assert!(error.message.starts_with("this is GitHub Actions, and"), "{error}");
}
