//! Discovered keys: where they may come from, when they are fetched, and how long they are believed.

use std::{sync::Arc, time::Duration};

use cambio::{
    clock::Instant,
    subject::{
        Algorithm, KeySource, KeySourceError,
        issuers::IssuerUrl,
        key_source::{
            Discovered, DiscoveredConfig, Outbound,
            discovered::{DiscoveredError, MAXIMUM_STALE_AFTER},
            fetch::Deadlines,
            guard::SystemLookup,
        },
    },
};
use serde_json::{Value, json};
use tokio_util::task::TaskTracker;

use crate::support::{
    issuer::{Document, Reply, ServedIssuer, SigningKey},
    lines::{Lines, listen},
};

pub(crate) const T0: Instant = Instant::from_seconds(1_800_000_000);

pub(crate) fn after(seconds: u64) -> Instant {
    T0.plus(Duration::from_secs(seconds))
}

pub(crate) fn config(url: &str) -> DiscoveredConfig {
    DiscoveredConfig {
        dangerously_loopback: true,
        ..DiscoveredConfig::of(IssuerUrl::dangerously_loopback(url).expect("a loopback URL"))
    }
}

pub(crate) fn source_of(config: DiscoveredConfig) -> Discovered {
    Discovered::new(config, &Outbound::default(), TaskTracker::new()).expect("a source")
}

fn source(served: &ServedIssuer) -> Discovered {
    source_of(config(served.issuer.url()))
}

/// A source that does not wait long for peers that never answer.
pub(crate) fn hasty(config: DiscoveredConfig) -> Discovered {
    let deadlines =
        Deadlines { connect: Duration::from_millis(100), total: Duration::from_millis(150) };
    let outbound = Outbound::new(Arc::new(SystemLookup), deadlines);
    Discovered::new(config, &outbound, TaskTracker::new()).expect("a source")
}

async fn finds(source: &Discovered, kid: &str, now: Instant) -> bool {
    source.find(Some(kid), now).await.is_ok()
}

async fn refusal(source: &Discovered, now: Instant) -> String {
    source.find(None, now).await.expect_err("no keys").to_string()
}

/// Lets background fetches end: `count` fetches begun, none running.
async fn settled(source: &Discovered, count: u64, fetched_at: Instant) {
    while source.state().fetches < count || source.state().fetched_at != Some(fetched_at) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn d01_nothing_is_fetched_until_keys_are_asked_for() {
    let served = ServedIssuer::start().await;
    let source = source(&served);
    assert_eq!((source.state().fetches, served.fetches(Document::Discovery)), (0, 0));
    assert!(finds(&source, "key-1", T0).await);
    assert_eq!((source.state().fetches, served.fetches(Document::Jwks)), (1, 1));
    assert_eq!((source.state().fetched_at, source.state().keys), (Some(T0), 1));
}

#[tokio::test]
async fn d03_a_document_of_another_issuer_is_refused() {
    let served = ServedIssuer::start().await;
    let url = served.issuer.url();
    for found in ["https://evil.example".to_owned(), format!("{url}/"), url.replace("http", "HTTP")]
    {
        let mut document = served.issuer.discovery();
        document["issuer"] = json!(found);
        served.serve(Document::Discovery, Reply::json(&document));
        assert_eq!(
            refusal(&source(&served), T0).await,
            format!(
                "no keys were had: discovery document is of issuer `{found}`, expected `{url}`"
            )
        );
    }
    assert_eq!(served.fetches(Document::Jwks), 0);
}

#[tokio::test]
async fn d03_keys_on_another_origin_are_refused_unless_configured() {
    let (served, other) = (ServedIssuer::start().await, ServedIssuer::start().await);
    let mut document = served.issuer.discovery();
    document["jwks_uri"] = json!(other.jwks_url());
    served.serve(Document::Discovery, Reply::json(&document));
    assert_eq!(
        refusal(&source(&served), T0).await,
        format!(
            "no keys were had: discovery document: `jwks_uri` `{}` is on another origin than the issuer; if that is right, name it \
             as `jwks_origin`",
            other.jwks_url()
        )
    );
    assert_eq!(other.fetches(Document::Jwks), 0);

    let jwks_origin = Some(other.issuer.url().parse().expect("a URL"));
    let named = source_of(DiscoveredConfig { jwks_origin, ..config(served.issuer.url()) });
    assert!(finds(&named, "key-1", T0).await);
    assert_eq!((other.fetches(Document::Jwks), served.fetches(Document::Jwks)), (1, 0));
}

#[tokio::test]
async fn d03_a_configured_jwks_uri_takes_the_place_of_discovery() {
    let served = ServedIssuer::start().await;
    let jwks_uri = Some(served.jwks_url().parse().expect("a URL"));
    let issuer = IssuerUrl::dangerously_loopback("http://localhost:1").expect("a loopback URL");
    let pinned = DiscoveredConfig { issuer, jwks_uri, ..config(served.issuer.url()) };
    assert!(finds(&source_of(pinned), "key-1", T0).await);
    assert_eq!((served.fetches(Document::Discovery), served.fetches(Document::Jwks)), (0, 1));
}

#[tokio::test]
async fn d04_only_https_is_configured_or_followed() {
    let issuer: IssuerUrl = "https://issuer.example".parse().expect("an issuer");
    for (found, reason) in [
        ("http://issuer.example/jwks", "does not begin with `https://`"),
        ("file:///etc/passwd", "does not begin with `https://`"),
        ("ftp://issuer.example/jwks", "does not begin with `https://`"),
        ("data:application/json,{}", "does not begin with `https://`"),
        ("https://user@issuer.example/jwks", "has userinfo"),
        ("https://issuer.example/jwks#here", "has a fragment"),
    ] {
        let jwks_uri = Some(found.parse().expect("a URL"));
        let config = DiscoveredConfig { jwks_uri, ..DiscoveredConfig::of(issuer.clone()) };
        let error = Discovered::new(config, &Outbound::default(), TaskTracker::new())
            .expect_err("not fetched");
        assert_eq!(
            error.to_string(),
            format!("`jwks_uri` of issuer `https://issuer.example`: `{found}` {reason}")
        );
    }

    let served = ServedIssuer::start().await;
    for found in ["file:///etc/passwd", "data:application/json,{}", "gopher://127.0.0.1/"] {
        let mut document = served.issuer.discovery();
        document["jwks_uri"] = json!(found);
        served.serve(Document::Discovery, Reply::json(&document));
        assert_eq!(
            refusal(&source(&served), T0).await,
            format!(
                "no keys were had: discovery document: `jwks_uri` `{found}` does not begin with `https://`"
            )
        );
    }
}

#[tokio::test]
async fn d05_redirects_are_not_followed() {
    let (served, other) = (ServedIssuer::start().await, ServedIssuer::start().await);
    let url = format!("{}/.well-known/openid-configuration", served.issuer.url());
    for status in [301, 302, 303, 307, 308] {
        let elsewhere = Reply { status, ..Reply::redirect(&other.jwks_url()) };
        served.serve(Document::Discovery, elsewhere);
        assert_eq!(
            refusal(&source(&served), T0).await,
            format!("no keys were had: `{url}` answered {status}, expected 200")
        );
    }
    served.serve_honestly();
    served.serve(Document::Jwks, Reply::redirect(&other.jwks_url()));
    assert_eq!(
        refusal(&source(&served), T0).await,
        format!("no keys were had: `{}` answered 302, expected 200", served.jwks_url())
    );
    assert_eq!(other.fetches(Document::Jwks), 0);
}

#[tokio::test]
async fn d09_a_hanging_issuer_delays_no_other_and_not_its_own_known_keys() {
    let (slow, quick) = (ServedIssuer::start().await, ServedIssuer::start().await);
    let (slow_source, quick_source) = (source(&slow), source(&quick));
    slow.hold();
    let waiting = slow_source.find(Some("key-1"), T0);
    tokio::pin!(waiting);
    tokio::select! {
        biased;
        _ = &mut waiting => panic!("answered while held"),
        () = async { while slow.fetches(Document::Discovery) == 0 { tokio::task::yield_now().await; } } => {}
    }
    assert!(finds(&quick_source, "key-1", T0).await);
    slow.release();
    assert!(waiting.await.is_ok());

    // A refresh that hangs: the keys that are known are found meanwhile.
    slow.hold();
    assert!(finds(&slow_source, "key-1", after(250)).await);
    assert_eq!(slow_source.state().fetches, 2, "ageing keys are refreshed behind the scenes");
    assert!(finds(&slow_source, "key-1", after(251)).await);
    assert_eq!(slow_source.state().fetched_at, Some(T0));
}

#[tokio::test]
async fn d09_a_hanging_issuer_is_given_up_at_the_deadline() {
    let served = ServedIssuer::start().await;
    served.hold();
    let source = hasty(config(served.issuer.url()));
    let found = refusal(&source, T0).await;
    assert!(found.starts_with("no keys were had: no "), "{found}");
    served.release();
    assert!(!finds(&source, "key-1", after(9)).await, "not asked again at once");
    assert!(finds(&source, "key-1", after(10)).await);
}

#[tokio::test]
async fn v05_many_callers_share_one_fetch() {
    let served = ServedIssuer::start().await;
    let source = source(&served);
    let all = futures_util::future::join_all((0..200).map(|_| finds(&source, "key-1", T0))).await;
    assert!(all.into_iter().all(|found| found));
    assert_eq!((served.fetches(Document::Discovery), served.fetches(Document::Jwks)), (1, 1));
}

#[tokio::test]
async fn v05_a_caller_that_goes_away_does_not_take_the_fetch_with_it() {
    let served = ServedIssuer::start().await;
    let source = source(&served);
    served.hold();
    {
        let first = source.find(Some("key-1"), T0);
        tokio::pin!(first);
        tokio::select! {
            biased;
            _ = &mut first => panic!("answered while held"),
            () = async { while served.fetches(Document::Discovery) == 0 { tokio::task::yield_now().await; } } => {}
        }
    }
    served.release();
    assert!(finds(&source, "key-1", T0).await);
    assert_eq!(served.fetches(Document::Discovery), 1);
}

#[tokio::test]
async fn d10_a_flood_of_unknown_kids_is_one_fetch_in_thirty_seconds() {
    let mut served = ServedIssuer::start().await;
    let source = source(&served);
    assert!(finds(&source, "key-1", T0).await);
    for at in 0..1000_u64 {
        let kid = format!("unknown-{at}");
        assert!(!finds(&source, &kid, T0.plus(Duration::from_millis(at * 29))).await);
    }
    assert_eq!(source.state().fetches, 1);
    served.issuer.rotate();
    served.serve_honestly();
    assert!(!finds(&source, "key-2", after(29)).await);
    // Having been refused does not poison a name that appears later.
    assert!(finds(&source, "key-2", after(30)).await);
    assert_eq!(source.state().fetches, 2);
    assert!(!finds(&source, "unknown", after(31)).await);
    assert_eq!(source.state().fetches, 2);
}

#[tokio::test]
async fn d11_a_failed_fetch_changes_nothing() {
    let served = ServedIssuer::start().await;
    let source = source(&served);
    assert!(finds(&source, "key-1", T0).await);
    let oct = json!({"keys": [{"kty": "oct", "kid": "key-1", "k": "c2VjcmV0"}]});
    let failures = [
        (Reply::status(500), "answered 500, expected 200"),
        (Reply::status(404), "answered 404, expected 200"),
        (Reply::json(&json!({"keys": []})), "key set has no usable key"),
        (Reply::json(&oct), "key set has no usable key; key `key-1`: key type `oct` is symmetric"),
        (
            Reply::json(&json!([])),
            "key set is not acceptable JSON: found a list, expected an object",
        ),
        (Reply::json(&json!({"keys": {}})), "key set has no list `keys`"),
    ];
    let said = || source.state().last_error.unwrap_or_default();
    for (at, (failure, expected)) in failures.into_iter().enumerate() {
        served.serve(Document::Jwks, failure);
        assert!(finds(&source, "key-1", after(300 + 60 * at as u64)).await);
        while !said().ends_with(expected) {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(source.state().fetched_at, Some(T0));
    assert!(source.state().last_error.is_some());
}

#[tokio::test]
async fn d11_one_bad_key_takes_no_good_one_with_it() {
    let served = ServedIssuer::start().await;
    let mut jwks = served.issuer.jwks();
    jwks["keys"].as_array_mut().expect("keys").insert(0, json!({"kty": "EC", "kid": 7}));
    served.serve(Document::Jwks, Reply::json(&jwks));
    let source = source(&served);
    assert!(finds(&source, "key-1", T0).await);
    assert_eq!(source.state().keys, 1);
}

#[tokio::test]
async fn d12_a_key_that_left_the_set_is_gone_at_once() {
    let served = ServedIssuer::start().await;
    let source = source(&served);
    assert!(finds(&source, "key-1", T0).await);
    let other = SigningKey::generate(Algorithm::ES256, "other").public_jwk();
    served.serve(Document::Jwks, Reply::json(&json!({"keys": [other]})));
    // At the end of the set's time the caller waits for the fetch: five minutes, where the issuer says nothing.
    assert!(finds(&source, "key-1", after(239)).await);
    assert!(!finds(&source, "key-1", after(300)).await);
    assert!(finds(&source, "other", after(300)).await);
}

#[tokio::test]
async fn d13_other_key_material_under_one_kid_is_taken_and_reported() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber =
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = listen(subscriber);

    let served = ServedIssuer::start().await;
    let source = source(&served);
    let old = source.find(Some("key-1"), T0).await.expect("a key");
    let other = SigningKey::generate(Algorithm::ES256, "key-1").public_jwk();
    served.serve(Document::Jwks, Reply::json(&json!({"keys": [other]})));
    let new = source.find(Some("key-1"), after(300)).await.expect("a key");
    let (was, is) = (old[0].thumbprint(), new[0].thumbprint());
    assert_ne!(was, is);
    let text = lines.text();
    let expected = format!(
        "issuer `{}` has other key material under the same `kid` `key-1`: was {{\"{was}\"}}, is {{\"{is}\"}}",
        served.issuer.url()
    );
    assert!(text.contains("WARN") && text.contains(&expected), "{text}");
}

#[tokio::test]
async fn d14_a_silent_issuer_is_believed_for_an_hour_and_then_not() {
    let served = ServedIssuer::start().await;
    let source = source(&served);
    assert!(finds(&source, "key-1", T0).await);
    served.serve(Document::Discovery, Reply::status(503));
    // Five minutes of freshness and an hour of patience.
    assert!(finds(&source, "key-1", after(300 + 3600)).await);
    let url = format!("{}/.well-known/openid-configuration", served.issuer.url());
    assert_eq!(
        source.find(Some("key-1"), after(300 + 3601)).await.expect_err("too old"),
        KeySourceError::Unavailable(format!(
            "the keys are 3901 s old, expected at most 3900 s: `{url}` answered 503, expected 200"
        ))
    );
    served.serve_honestly();
    assert!(finds(&source, "key-1", after(300 + 3700)).await, "it recovers by itself");
}

#[test]
fn d14_patience_has_a_cap() {
    let stale_after = MAXIMUM_STALE_AFTER + Duration::from_secs(1);
    let config = DiscoveredConfig { stale_after, ..config("http://127.0.0.1:1") };
    let error = Discovered::new(config, &Outbound::default(), TaskTracker::new());
    assert!(matches!(error, Err(DiscoveredError::StaleAfter { .. })));
    assert_eq!(
        error.expect_err("too long").to_string(),
        "`stale_after` of issuer `http://127.0.0.1:1` is 86401 s, expected at most 86400 s"
    );
}

#[tokio::test]
async fn d16_max_age_is_kept_between_a_minute_and_an_hour() {
    // (what the issuer says, when a refresh begins behind the scenes)
    for (said, ageing) in [
        (Some("max-age=0"), 48),
        (Some("no-store"), 48),
        (Some("public, max-age=315360000, immutable"), 2880),
        (Some("max-age=600, MAX-AGE=\"100\""), 80),
        (Some("max-age=-1"), 48),
        (None, 240),
    ] {
        let served = ServedIssuer::start().await;
        let reply = Reply::json(&served.issuer.jwks());
        let reply = said.map_or(reply.clone(), |said| reply.with_header("cache-control", said));
        served.serve(Document::Jwks, reply);
        let source = source(&served);
        assert!(finds(&source, "key-1", T0).await);
        assert!(finds(&source, "key-1", after(ageing - 1)).await);
        assert_eq!(source.state().fetches, 1, "{said:?} too early");
        assert!(finds(&source, "key-1", after(ageing)).await);
        settled(&source, 2, after(ageing)).await;
    }
}

#[tokio::test]
async fn d16_a_304_is_no_key_set() {
    let served = ServedIssuer::start().await;
    served.serve(Document::Jwks, Reply::status(304));
    assert_eq!(
        refusal(&source(&served), T0).await,
        format!("no keys were had: `{}` answered 304, expected 200", served.jwks_url())
    );
}

#[tokio::test]
async fn v04_a_clock_that_is_stepped_back_does_not_freeze_the_keys() {
    let served = ServedIssuer::start().await;
    let source = source(&served);
    assert!(finds(&source, "key-1", after(3600)).await);
    let other = SigningKey::generate(Algorithm::ES256, "other").public_jwk();
    served.serve(Document::Jwks, Reply::json(&json!({"keys": [other]})));
    assert!(!finds(&source, "key-1", T0).await);
    assert_eq!((source.state().fetches, source.state().fetched_at), (2, Some(T0)));
}

#[tokio::test]
async fn a_document_without_its_members_is_refused() {
    let served = ServedIssuer::start().await;
    for member in ["issuer", "jwks_uri"] {
        let mut document: Value = served.issuer.discovery();
        document[member] = json!(["text"]);
        served.serve(Document::Discovery, Reply::json(&document));
        assert_eq!(
            refusal(&source(&served), T0).await,
            format!("no keys were had: discovery document has no text member `{member}`")
        );
    }
}
