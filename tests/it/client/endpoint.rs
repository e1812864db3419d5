//! The endpoint: who gets an answer, in which words, and who gets none.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use cambio::{
    chance::SystemChance,
    client::{
        Fault, Issued,
        endpoint::{self, Desk, Served, Whom, aws, google},
        keeper::Kept,
    },
    clock::{Instant, ManualClock},
    secret::Secret,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use super::exchange::issued;
use crate::support::token::NOW;

const AWS: &str = "urn:cambio:token-type:aws";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// The credential was asked for 0.9 s after `NOW`, and lives for 900 s.
const ENDS: u64 = (NOW + 900) * 1_000 + 900;

fn session() -> String {
    json!({
        "kind": "aws", "access_key_id": "ASIAEXAMPLE", "secret_access_key": "hush-key",
        "session_token": "hush-session", "expires_at": Instant::from_seconds(NOW + 900).to_string(),
    })
    .to_string()
}

/// One endpoint with one credential, on loopback.
struct Stage {
    at: SocketAddr,
    clock: Arc<ManualClock>,
    keep: watch::Sender<Arc<Kept>>,
    stop: CancellationToken,
    token: String,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn kept(issued: Issued) -> Arc<Kept> {
    Arc::new(Kept { issued: Some(Arc::new(issued)), generation: 1, ..Kept::default() })
}

/// What makes the router of a stage.
type Face = fn(Desk, Served, &Secret) -> axum::Router;

async fn stage(face: Face, whom: Whom, first: Option<Issued>) -> Stage {
    let listener = endpoint::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let at = listener.local_addr().unwrap();
    let clock = Arc::new(ManualClock::at(Instant::from_seconds(NOW + 1)));
    let (keep, receiver) = watch::channel(first.map(kept).unwrap_or_default());
    let served = Served { name: "deploy".to_owned(), kept: receiver };
    let token = aws::draw_token(&SystemChance).unwrap();
    let desk = Desk { at, clock: clock.clone() };
    let router = face(desk, served, &token);
    let stop = CancellationToken::new();
    tokio::spawn(endpoint::serve(listener, router, whom, stop.clone()));
    let token = token.reveal_text().unwrap().to_owned();
    Stage { at, clock, keep, stop, token }
}

async fn aws_stage(first: Option<Issued>) -> Stage {
    let face: Face = |desk, served, token| aws::router(desk, token.clone(), [served]);
    stage(face, Whom::Anybody, first).await
}

async fn google_stage(whom: Whom) -> Stage {
    let face: Face = |desk, served, _| {
        let email = "deploy@acme.iam.gserviceaccount.com".to_owned();
        google::router(desk, served, google::Account { email, project: Some("acme".to_owned()) })
    };
    stage(face, whom, Some(issued("ya29.hush", ACCESS_TOKEN).await)).await
}

fn me() -> Whom {
    Whom::Users(Arc::new(BTreeSet::from([rustix::process::geteuid().as_raw()])))
}

/// Status line and headers in lower case, and the body.
struct Said {
    status: u16,
    head: String,
    body: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{}", self.body))
    }
}

impl Stage {
    /// Sends exactly this request line and these headers.
    async fn send(&self, line: &str, headers: &[&str]) -> Said {
        let mut stream = TcpStream::connect(self.at).await.unwrap();
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let request = format!("{line} HTTP/1.1\r\n{headers}connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Said { status, head: head.to_lowercase(), body: body.to_owned() }
    }

    fn host(&self) -> String {
        format!("host: {}", self.at)
    }

    fn authorization(&self) -> String {
        format!("authorization: {}", self.token)
    }

    /// As an SDK does.
    async fn ask(&self) -> Said {
        self.send("GET /v1/credentials/deploy", &[&self.host(), &self.authorization()]).await
    }

    /// As Google's libraries do.
    async fn metadata(&self, path: &str) -> Said {
        let line = format!("GET {path}");
        self.send(&line, &[&self.host(), "metadata-flavor: Google"]).await
    }
}

#[tokio::test]
async fn an_aws_sdk_gets_the_session_and_its_true_end() {
    let stage = aws_stage(Some(issued(&session(), AWS).await)).await;
    let said = stage.ask().await;
    assert_eq!(said.status, 200);
    assert_eq!(
        said.json(),
        json!({
            "AccessKeyId": "ASIAEXAMPLE", "SecretAccessKey": "hush-key", "Token": "hush-session",
            "Expiration": "2027-01-15T08:15:00Z",
        })
    );
    for header in ["cache-control: no-store", "content-type: application/json"] {
        assert!(said.head.contains(header), "{}", said.head);
    }
    let local = format!("host: localhost:{}", stage.at.port());
    let said = stage.send("GET /v1/credentials/deploy", &[&local, &stage.authorization()]).await;
    assert_eq!(said.status, 200, "SDKs allow `localhost` too");
    assert_eq!(aws::url(stage.at, "deploy"), format!("http://{}/v1/credentials/deploy", stage.at));
}

#[tokio::test]
async fn whoever_lacks_the_token_learns_nothing() {
    let stage = aws_stage(Some(issued(&session(), AWS).await)).await;
    let (host, good) = (stage.host(), stage.authorization());
    let longer = format!("{good}x");
    let bearer = format!("authorization: Bearer {}", stage.token);
    let shorter = &good[..good.len() - 1];
    let attempts: [&[&str]; 7] = [
        &[&host],
        &[&host, "authorization:"],
        &[&host, shorter],
        &[&host, &longer],
        &[&host, &bearer],
        &[&host, &good, &good],
        &[&host, "authorization: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"],
    ];
    for headers in attempts {
        let mut all = Vec::new();
        // Whether a credential is there is not told either.
        for path in ["/v1/credentials/deploy", "/v1/credentials/other", "/"] {
            let said = stage.send(&format!("GET {path}"), headers).await;
            all.push((said.status, said.body));
        }
        assert_eq!(all[0].0, 401, "{headers:?}");
        assert!(all.iter().all(|one| *one == all[0]), "{all:?}");
        assert!(!all[0].1.contains("hush") && !all[0].1.contains(&stage.token));
    }
    assert_eq!(stage.token.len(), 43, "256 bits");
    assert_ne!(stage.token, aws_stage(None).await.token);
}

#[tokio::test]
async fn a_rebound_name_another_method_and_another_path_get_nothing() {
    let stage = aws_stage(Some(issued(&session(), AWS).await)).await;
    let (host, good) = (stage.host(), stage.authorization());
    let line = "GET /v1/credentials/deploy";
    let port = stage.at.port();
    for bad in [
        "host: evil.example".to_owned(),
        format!("host: evil.example:{port}"),
        format!("host: 127.0.0.1.evil.example:{port}"),
        format!("host: 127.0.0.2:{port}"),
        "host: 127.0.0.1".to_owned(),
        format!("{host}\r\n{host}"),
        "x-none: y".to_owned(),
    ] {
        let said = stage.send(line, &[&bad, &good]).await;
        assert!([400, 403].contains(&said.status), "{bad}: {}", said.status);
        assert!(!said.body.contains("hush"), "{bad}");
    }
    let absolute = format!("GET http://{}/v1/credentials/deploy", stage.at);
    assert_eq!(stage.send(&absolute, &[&host, &good]).await.status, 403);
    for method in ["POST", "PUT", "HEAD", "OPTIONS", "DELETE"] {
        let line = format!("{method} /v1/credentials/deploy");
        let said = stage.send(&line, &[&host, &good]).await;
        assert_eq!(said.status, 405, "{method}");
        assert!(!said.body.contains("hush"));
    }
    for path in [
        "/",
        "/v1/credentials/",
        "/v1/credentials/deploy/",
        "/v1/credentials/%64eploy",
        "//v1/credentials/deploy",
    ] {
        let said = stage.send(&format!("GET {path}"), &[&host, &good]).await;
        assert_eq!((said.status, said.json()["code"].as_str()), (404, Some("NotFound")), "{path}");
        assert!(!said.head.contains("location:"));
    }
}

#[tokio::test]
async fn the_last_good_one_is_served_to_its_true_end_and_then_the_error_says_so() {
    let stage = aws_stage(None).await;
    let said = stage.ask().await;
    assert_eq!(said.status, 503);
    assert_eq!(
        said.json(),
        json!({ "code": "CredentialsUnavailable", "message": "there is no credential `deploy` yet" })
    );
    stage.keep.send_replace(kept(issued(&session(), AWS).await));
    stage.clock.set(Instant::from_milliseconds(ENDS - 1));
    assert_eq!(stage.ask().await.status, 200);
    stage.clock.set(Instant::from_milliseconds(ENDS));
    let said = stage.ask().await;
    assert_eq!(said.status, 503);
    assert_eq!(
        said.json()["message"],
        "the credential `deploy` ended at 2027-01-15T08:15:00.9Z, and there is no new one"
    );
    // And a credential of another kind is not half of a session.
    stage.clock.set(Instant::from_seconds(NOW));
    stage.keep.send_replace(kept(issued("a.b.hush", ACCESS_TOKEN).await));
    let said = stage.ask().await;
    assert_eq!(said.status, 500);
    assert_eq!(said.json()["message"], "`deploy` is a token, and no AWS session");
}

#[tokio::test]
async fn nobody_listens_where_others_can_reach() {
    for elsewhere in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "169.254.170.2:80"] {
        let error = endpoint::bind(elsewhere.parse().unwrap()).await.unwrap_err();
        assert_eq!(error.fault, Fault::Usage);
        assert!(error.message.contains("can be reached from elsewhere"), "{error}");
    }
}

#[tokio::test]
async fn googles_libraries_find_token_address_scopes_and_project() {
    let stage = google_stage(me()).await;
    let account = "/computeMetadata/v1/instance/service-accounts/default/";
    let said = stage.metadata("/").await;
    assert_eq!(said.status, 200);
    assert!(said.head.contains("metadata-flavor: google"), "{}", said.head);
    let said = stage.metadata(&format!("{account}token?scopes=https%3A%2F%2Fa")).await;
    assert_eq!(
        said.json(),
        json!({ "access_token": "ya29.hush", "expires_in": 899, "token_type": "Bearer" })
    );
    let said = stage.metadata(&format!("{account}?recursive=true")).await;
    assert_eq!(
        said.json(),
        json!({ "aliases": ["default"], "email": "deploy@acme.iam.gserviceaccount.com", "scopes": [] })
    );
    assert!(said.head.contains("content-type: application/json"));
    let by_email = account.replace("default", "deploy@acme.iam.gserviceaccount.com");
    assert_eq!(
        stage.metadata(&format!("{by_email}email")).await.body,
        "deploy@acme.iam.gserviceaccount.com"
    );
    assert_eq!(stage.metadata("/computeMetadata/v1/project/project-id").await.body, "acme");
    for nothing in [
        "/computeMetadata/v1/universe/universe-domain",
        "/computeMetadata/v1/instance/service-accounts/other/token",
    ] {
        assert_eq!(stage.metadata(nothing).await.status, 404, "{nothing}");
    }
    stage.clock.set(Instant::from_milliseconds(ENDS));
    let said = stage.metadata(&format!("{account}token")).await;
    assert_eq!(said.status, 503);
    assert!(said.body.contains("ended at"), "{}", said.body);
}

#[tokio::test]
async fn a_metadata_request_of_a_browser_a_proxy_or_a_rebound_name_is_refused() {
    let stage = google_stage(me()).await;
    let host = stage.host();
    let line = "GET /computeMetadata/v1/instance/service-accounts/default/token";
    let flavor = "metadata-flavor: Google";
    let bad: [&[&str]; 6] = [
        &[&host],
        &[&host, "metadata-flavor: google"],
        &[&host, flavor, flavor],
        &[&host, flavor, "x-forwarded-for: 127.0.0.1"],
        &[&host, flavor, "x-forwarded-for:"],
        &["host: metadata.google.internal", flavor],
    ];
    for headers in bad {
        let said = stage.send(line, headers).await;
        assert_eq!(said.status, 403, "{headers:?}");
        assert!(!said.body.contains("hush"));
    }
    let said = stage.send(&line.replace("GET", "POST"), &[&host, flavor]).await;
    assert_eq!(said.status, 405);
}

#[tokio::test]
async fn a_program_of_another_user_gets_no_token() {
    // Nobody's user: whoever runs this test is not it.
    let stage = google_stage(Whom::Users(Arc::new(BTreeSet::from([4_294_967_293])))).await;
    let said = stage.metadata("/computeMetadata/v1/instance/service-accounts/default/token").await;
    assert_eq!(said.status, 403);
    assert_eq!(said.body, "this credential is not for programs of your user\n");
}

/// Connections that say nothing.
async fn silent(at: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(TcpStream::connect(at).await.unwrap());
    }
    all
}

#[tokio::test]
async fn whoever_holds_connections_in_silence_shuts_the_endpoint_to_nobody() {
    let stage = aws_stage(Some(issued(&session(), AWS).await)).await;
    let mut held = silent(stage.at, 80).await;
    for _ in 0..20 {
        assert_eq!(stage.ask().await.status, 200);
    }
    // The first ones paid for it.
    let mut byte = [0];
    assert_eq!(held[0].read(&mut byte).await.unwrap_or_default(), 0);
}

#[tokio::test]
async fn a_refused_user_is_told_before_it_asks_and_holds_nothing() {
    let stage = google_stage(Whom::Users(Arc::new(BTreeSet::from([4_294_967_293])))).await;
    for mut one in silent(stage.at, 40).await {
        let mut text = String::new();
        one.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{text}");
        assert!(text.ends_with("\r\n\r\nthis credential is not for programs of your user\n"));
    }
}

#[tokio::test]
async fn a_connection_has_one_answer() {
    let stage = aws_stage(Some(issued(&session(), AWS).await)).await;
    let mut one = TcpStream::connect(stage.at).await.unwrap();
    let request = format!(
        "GET /v1/credentials/deploy HTTP/1.1\r\n{}\r\n{}\r\n\r\n",
        stage.host(),
        stage.authorization()
    );
    one.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    one.read_to_string(&mut text).await.unwrap();
    assert!(text.to_lowercase().contains("\r\nconnection: close\r\n"), "{text}");
}
