//! The duties of [`KeySource`], held against discovered and pinned keys.

use std::{fs, path::PathBuf, time::Duration};

use async_trait::async_trait;
use cambio::{
    clock::Instant,
    subject::{
        Algorithm, KeySource,
        issuers::IssuerUrl,
        key_source::{Discovered, DiscoveredConfig, Outbound, Pinned},
    },
};
use serde_json::{Value, json};
use tokio_util::task::TaskTracker;

use crate::support::issuer::{Document, Reply, ServedIssuer, SigningKey};

const T0: Instant = Instant::from_seconds(1_800_000_000);

/// What stands behind a source, and the little that differs between sources.
#[async_trait]
trait Upstream {
    /// Makes `jwks` what the issuer publishes; `None` makes it unreadable.
    fn publish(&self, jwks: Option<&Value>);
    /// Lets the source notice at `now`, if it doesn't by being asked.
    fn notice(&self, now: Instant);
    /// How often something was fetched.
    fn fetches(&self) -> u64;
    /// Past its refresh interval; and past its staleness limit, if it has one.
    fn limits(&self) -> (Duration, Option<Duration>);
}

async fn holds(source: &dyn KeySource, upstream: &dyn Upstream) {
    let found = async |kid: &str, now| source.find(Some(kid), now).await.is_ok();
    let (refresh, stale) = upstream.limits();
    let new = SigningKey::generate(Algorithm::ES256, "new").public_jwk();
    assert!(found("key-1", T0).await);
    assert_eq!(source.state().keys, 1);

    // Duty 2.
    let before = upstream.fetches();
    for at in 0..100_u64 {
        assert!(!found(&format!("unknown-{at}"), T0.plus(Duration::from_millis(at * 600))).await);
    }
    let fetched = upstream.fetches() - before;
    assert!(fetched <= 1, "duty 2: {fetched} fetches in a minute, whose last second is not over");

    // Duty 1.
    upstream.publish(Some(&json!({ "keys": [new] })));
    let now = T0.plus(Duration::from_secs(60)).plus(refresh);
    upstream.notice(now);
    assert!(found("new", now).await, "duty 1: a new key is found within one interval");
    assert!(!found("key-1", now).await, "duty 1: a key that left is gone within one interval");

    // Duty 3.
    upstream.publish(None);
    let now = now.plus(refresh);
    upstream.notice(now);
    assert!(found("new", now).await, "duty 3: the last good set stays whole");
    assert_eq!(source.state().keys, 1, "duty 3: the last good set stays whole");
    assert!(source.state().last_error.is_some(), "duty 3: and the state tells");
    if let Some(stale) = stale {
        let late = now.plus(stale).plus(Duration::from_secs(1));
        assert!(!found("new", late).await, "duty 3: until the staleness limit");
        assert!(source.find(None, late).await.is_err(), "duty 3: until the staleness limit");
    }
}

#[async_trait]
impl Upstream for ServedIssuer {
    fn publish(&self, jwks: Option<&Value>) {
        self.serve(Document::Jwks, jwks.map_or(Reply::status(500), Reply::json));
    }

    fn notice(&self, _now: Instant) {}

    fn fetches(&self) -> u64 {
        ServedIssuer::fetches(self, Document::Jwks)
    }

    fn limits(&self) -> (Duration, Option<Duration>) {
        (Duration::from_secs(300), Some(Duration::from_secs(3600)))
    }
}

#[tokio::test]
async fn discovered_keys_do_their_duties() {
    let served = ServedIssuer::start().await;
    let issuer = IssuerUrl::dangerously_loopback(served.issuer.url()).expect("a loopback URL");
    let config = DiscoveredConfig { dangerously_loopback: true, ..DiscoveredConfig::of(issuer) };
    let source = Discovered::new(config, &Outbound::default(), TaskTracker::new());
    let source = source.expect("a source");
    holds(&source, &served).await;

    // Duty 4: `tests/it/sources/discovered.rs`, rows D09.
}

struct File {
    path: PathBuf,
    source: Pinned,
}

#[async_trait]
impl Upstream for File {
    fn publish(&self, jwks: Option<&Value>) {
        let text = jwks.map_or("not JSON".to_owned(), Value::to_string);
        fs::write(&self.path, text).expect("written");
    }

    fn notice(&self, now: Instant) {
        let _ = self.source.reload(now);
    }

    fn fetches(&self) -> u64 {
        self.source.state().fetches
    }

    fn limits(&self) -> (Duration, Option<Duration>) {
        (Duration::from_secs(1), None)
    }
}

#[tokio::test]
async fn pinned_keys_do_their_duties() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("cluster.json");
    let key = SigningKey::generate(Algorithm::ES256, "key-1").public_jwk();
    fs::write(&path, json!({ "keys": [key] }).to_string()).expect("written");
    let file = File { source: Pinned::load(path.clone(), T0).expect("keys"), path };
    holds(&file.source, &file).await;
}

#[test]
fn a_pinned_file_with_a_private_key_is_not_loaded() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("cluster.json");
    let mut leaked = SigningKey::generate(Algorithm::ES256, "leaked").public_jwk();
    leaked["d"] = json!("AQ");
    let good = SigningKey::generate(Algorithm::ES256, "good").public_jwk();
    fs::write(&path, json!({ "keys": [good, leaked] }).to_string()).expect("written");
    assert_eq!(
        Pinned::load(path.clone(), T0).expect_err("refused").to_string(),
        format!(
            "pinned keys `{}`: key `leaked`: private member `d` is published: the key must be taken as leaked",
            path.display()
        )
    );
    assert!(Pinned::load(folder.path().join("absent.json"), T0).is_err());
}
