//! The bounded client: addresses, bodies, credentials, trust roots.

use std::{
    fs, io,
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use axum::{Router, body::Body, extract::State, http::HeaderMap, response::IntoResponse};
use cambio::subject::{
    KeySource,
    issuers::IssuerUrl,
    key_source::{
        Discovered, DiscoveredConfig, Outbound,
        fetch::{Bounds, Deadlines, Fetcher},
        guard::{Lookup, Reach},
    },
};
use futures_util::stream;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;
use url::Url;

use super::discovered::{T0, after, config, hasty, source_of};
use crate::support::issuer::{Document, FakeIssuer, Reply, ServedIssuer};

/// Answers every name with the same addresses, and counts.
#[derive(Debug)]
struct Says(Vec<IpAddr>, AtomicU64);

#[async_trait]
impl Lookup for Says {
    async fn lookup(&self, _host: &str) -> io::Result<Vec<IpAddr>> {
        self.1.fetch_add(1, Ordering::SeqCst);
        Ok(self.0.clone())
    }
}

fn outbound(addresses: &[&str]) -> (Outbound, Arc<Says>) {
    let addresses = addresses.iter().map(|text| text.parse().expect("an address")).collect();
    let says = Arc::new(Says(addresses, AtomicU64::new(0)));
    (Outbound::new(Arc::clone(&says) as Arc<dyn Lookup>, Deadlines::default()), says)
}

async fn refusal(outbound: &Outbound, config: DiscoveredConfig) -> String {
    let source = Discovered::new(config, outbound, TaskTracker::new()).expect("a source");
    source.find(None, T0).await.expect_err("no keys").to_string()
}

fn issuer(url: &str) -> DiscoveredConfig {
    DiscoveredConfig::of(url.parse::<IssuerUrl>().expect("an issuer"))
}

#[tokio::test]
async fn d06_a_name_that_leads_inside_is_not_dialled() {
    // The listener stands where the name leads: it must never hear from us.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let url = format!("https://169.254.169.254.nip.example:{port}");
    for (addresses, told) in [
        (&["127.0.0.1"][..], "127.0.0.1, which is loopback"),
        (&["1.1.1.1", "127.0.0.1"], "127.0.0.1, which is loopback"),
        (
            &["::ffff:127.0.0.1"],
            "::ffff:127.0.0.1, which is link-local, reserved, multicast or wraps an IPv4 address",
        ),
        (&["10.1.2.3"], "10.1.2.3, which is private"),
        (&["169.254.169.254"], "169.254.169.254, which is a cloud's metadata service"),
    ] {
        let (outbound, says) = outbound(addresses);
        let refused = refusal(&outbound, issuer(&url)).await;
        let expected =
            format!("`169.254.169.254.nip.example` has the address {told}: not allowed here");
        assert!(refused.ends_with(&expected), "{refused}");
        assert_eq!(says.1.load(Ordering::SeqCst), 1, "a name is resolved once");
    }
    tokio::select! {
        biased;
        heard = listener.accept() => panic!("we dialled: {heard:?}"),
        () = tokio::task::yield_now() => {}
    }
}

#[tokio::test]
async fn d06_a_name_is_resolved_once_and_the_checked_address_is_dialled() {
    let served = ServedIssuer::start().await;
    let port = served.issuer.url().rsplit_once(':').expect("a port").1;
    let named = format!("http://localhost:{port}");
    let (outbound, says) = outbound(&["127.0.0.1"]);
    let jwks_uri: Url = format!("{named}/jwks").parse().expect("a URL");
    let config = DiscoveredConfig { jwks_uri: Some(jwks_uri), ..config(&named) };
    let source = Discovered::new(config, &outbound, TaskTracker::new()).expect("a source");
    assert_eq!(source.find(Some("key-1"), T0).await.map(|keys| keys.len()), Ok(1));
    assert_eq!(says.1.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn d06_an_address_in_place_of_a_name_is_checked_too() {
    let (outbound, says) = outbound(&["1.1.1.1"]);
    for (url, told) in [
        ("https://127.0.0.1", "`127.0.0.1` has the address 127.0.0.1, which is loopback"),
        ("https://10.0.0.1:8443", "`10.0.0.1` has the address 10.0.0.1, which is private"),
        ("https://[::1]", "`[::1]` has the address ::1, which is loopback"),
        (
            "https://169.254.169.254",
            "`169.254.169.254` has the address 169.254.169.254, which is a cloud's metadata service",
        ),
    ] {
        assert_eq!(
            refusal(&outbound, issuer(url)).await,
            format!("no keys were had: {told}: not allowed here")
        );
    }
    assert_eq!(says.1.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn d06_a_private_origin_is_configured_as_one() {
    let (outbound, _) = outbound(&["127.0.0.1"]);
    let private = DiscoveredConfig { private: true, ..issuer("https://127.0.0.1") };
    assert_eq!(
        refusal(&outbound, private).await,
        "no keys were had: `127.0.0.1` has the address 127.0.0.1, which is loopback: not allowed here",
        "private is not loopback"
    );
}

fn fetcher(origin: &Url) -> Fetcher {
    let bounds = Bounds {
        origins: vec![origin.origin()],
        reach: Reach::DangerouslyLoopback,
        ca: None,
        bearer: None,
    };
    Outbound::default().fetcher(bounds).expect("a fetcher")
}

#[tokio::test]
async fn d07_nothing_but_the_configured_origin_is_dialled() {
    let (served, other) = (ServedIssuer::start().await, ServedIssuer::start().await);
    let own: Url = served.jwks_url().parse().expect("a URL");
    let fetcher = fetcher(&own);
    assert!(fetcher.fetch(&own, 10_000).await.is_ok());
    let foreign: Url = other.jwks_url().parse().expect("a URL");
    assert_eq!(
        fetcher.fetch(&foreign, 10_000).await.expect_err("foreign").to_string(),
        format!("`{foreign}` is not on a configured origin")
    );
    assert_eq!(other.fetches(Document::Jwks), 0);
}

type Heard = Arc<Mutex<Vec<Option<String>>>>;

/// Serves what `body` makes of its own URL at every path, and notes which credential it was shown.
async fn eavesdropper(body: impl FnOnce(&str) -> String) -> (String, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let heard = Heard::default();
    let note = |State((heard, body)): State<(Heard, String)>, headers: HeaderMap| async move {
        let shown = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
        heard.lock().unwrap().push(shown);
        body
    };
    let router = Router::new().fallback(note).with_state((Arc::clone(&heard), body(&url)));
    TaskTracker::new().spawn(async move { axum::serve(listener, router).await });
    (url, heard)
}

#[tokio::test]
async fn d07_the_bearer_token_is_shown_to_its_own_origin_alone_and_read_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    fs::write(&file, "first\n").expect("written");
    let keys = FakeIssuer::at("https://issuer.example").jwks().to_string();
    let (elsewhere, elsewhere_heard) = eavesdropper(|_| keys).await;
    let document =
        |url: &str| json!({"issuer": url, "jwks_uri": format!("{elsewhere}/jwks")}).to_string();
    let (url, heard) = eavesdropper(document).await;
    let source = source_of(DiscoveredConfig {
        bearer_token_file: Some(file.clone()),
        jwks_origin: Some(elsewhere.parse().expect("a URL")),
        ..config(&url)
    });
    assert!(source.find(None, T0).await.is_ok());
    fs::write(&file, "second").expect("written");
    assert!(source.find(None, after(300)).await.is_ok());

    let first_and_second = ["first", "second"].map(|token| Some(format!("Bearer {token}")));
    assert_eq!(*heard.lock().unwrap(), first_and_second);
    assert_eq!(*elsewhere_heard.lock().unwrap(), [None, None]);

    fs::remove_file(&file).expect("removed");
    assert!(source.find(None, after(600)).await.is_ok(), "from the last good set");
    let error = source.state().last_error.expect("an error");
    assert!(error.starts_with(&format!("bearer token file `{}` ", file.display())), "{error}");
}

#[tokio::test]
async fn d08_long_and_compressed_bodies_are_refused() {
    let served = ServedIssuer::start().await;
    let long = |bytes| Reply { body: vec![b' '; bytes], ..Reply::status(200) };
    let refused =
        async |config| source_of(config).find(None, T0).await.expect_err("no keys").to_string();
    served.serve(Document::Jwks, long(256 * 1024 + 1));
    assert_eq!(
        refused(config(served.issuer.url())).await,
        format!("no keys were had: `{}` answered with more than 262144 bytes", served.jwks_url())
    );
    let gzip = Reply::json(&served.issuer.jwks()).with_header("content-encoding", "gzip");
    served.serve(Document::Jwks, gzip);
    assert_eq!(
        refused(config(served.issuer.url())).await,
        format!(
            "no keys were had: `{}` answered with a content encoding, expected none",
            served.jwks_url()
        )
    );
    served.serve(Document::Discovery, long(64 * 1024 + 1));
    let url = format!("{}/.well-known/openid-configuration", served.issuer.url());
    assert_eq!(
        refused(config(served.issuer.url())).await,
        format!("no keys were had: `{url}` answered with more than 65536 bytes")
    );
}

#[tokio::test]
async fn d08_endless_and_dripping_bodies_are_given_up() {
    async fn endless() -> impl IntoResponse {
        Body::from_stream(stream::repeat_with(|| Ok::<_, io::Error>(vec![b' '; 4096])))
    }
    async fn dripping() -> impl IntoResponse {
        // One byte, and then silence.
        let first = stream::once(async { Ok::<_, io::Error>(b"{".to_vec()) });
        let rest = stream::pending::<Result<Vec<u8>, io::Error>>();
        Body::from_stream(futures_util::StreamExt::chain(first, rest))
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let router = Router::new()
        .route("/endless", axum::routing::get(endless))
        .route("/dripping", axum::routing::get(dripping));
    TaskTracker::new().spawn(async move { axum::serve(listener, router).await });

    let source = |path: &str| {
        let jwks_uri = Some(format!("{url}/{path}").parse().expect("a URL"));
        hasty(DiscoveredConfig { jwks_uri, ..config(&url) })
    };
    assert_eq!(
        source("endless").find(None, T0).await.expect_err("no keys").to_string(),
        format!("no keys were had: `{url}/endless` answered with more than 262144 bytes")
    );
    let refused = source("dripping").find(None, T0).await.expect_err("no keys").to_string();
    assert!(refused.starts_with("no keys were had: no "), "{refused}");
}

#[tokio::test]
async fn d15_without_a_usable_ca_there_is_no_client() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ca.pem");
    let error = || {
        let config =
            DiscoveredConfig { ca: Some(path.clone()), ..issuer("https://issuer.example") };
        let error = Discovered::new(config, &Outbound::default(), TaskTracker::new());
        error.expect_err("no client").to_string()
    };
    let place = format!("issuer `https://issuer.example`: CA file `{}`", path.display());
    assert!(error().starts_with(&format!("{place} can't be read: ")), "{}", error());
    fs::write(&path, "no certificate here").expect("written");
    assert_eq!(error(), format!("{place} holds no certificate"));
    fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .expect("written");
    let odd = error();
    assert!(odd.starts_with(&format!("{place} holds a certificate that is not a root: ")), "{odd}");
}
