//! Keys turn while exchanges run.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use cambio::{
    clock::Instant,
    keys::Phase,
    subject::{Algorithm, jwk::KeySet},
};

use crate::support::{
    broker::{Broker, issued, parts},
    site::Site,
};

/// A resource server: it fetches `/jwks` and holds it, for `max-age` or as long as it likes.
struct ResourceServer {
    holds: Option<Duration>,
    held: Option<(Instant, Duration, KeySet)>,
}

impl ResourceServer {
    async fn verifies(&mut self, token: &str, broker: &Broker) -> bool {
        let now = broker.now();
        if self.held.as_ref().is_none_or(|(at, age, _)| now.since(*at) >= *age) {
            let answer = broker.read("/jwks").await;
            let control = answer.header("cache-control");
            let age = control.rsplit_once("max-age=").map_or(0, |(_, age)| age.parse().unwrap());
            let age = Duration::from_secs(age);
            let keys = KeySet::parse(answer.body.as_bytes()).unwrap();
            self.held = Some((now, self.holds.unwrap_or(age), keys));
        }
        let (_, _, keys) = self.held.as_ref().unwrap();
        let (input, signature) = token.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let Ok(found) = keys.find(parts(token).0["kid"].as_str()) else { return false };
        found.iter().any(|key| key.verify(Algorithm::ES256, input.as_bytes(), &signature))
    }
}

#[tokio::test]
async fn k05_a_hundred_rotations_under_load_and_no_verification_fails() {
    let site = Site::new();
    site.edit(
        "cambio.yaml",
        "sign_for: 2h, verifier_cache: 1h",
        "sign_for: 1h, verifier_cache: 10m, jwks_max_age: 2m",
    );
    let broker = Broker::start_at(site, |_| {}).await;
    let mut servers = [None, None, None, Some(600), Some(597)]
        .map(|seconds| ResourceServer { holds: seconds.map(Duration::from_secs), held: None });
    let mut living: Vec<(u64, String)> = Vec::new();
    let (mut kids, mut failures, mut verified, mut tick) = (Vec::new(), 0, 0, 0_usize);
    while kids.len() <= 100 {
        broker.pass(577);
        tick += 1;
        let now = broker.now().seconds();
        let token = broker.site.job().issued_at(now, 300).sign();
        // The ring turns while an exchange is on its way.
        let turning = async { while broker.rotator.turn().await.unwrap().is_some() {} };
        let (answer, ()) = tokio::join!(broker.ask(&token, "scope=write"), turning);
        living.retain(|(end, _)| *end > now);
        let token = issued(&answer);
        let (header, claims) = parts(&token);
        if !kids.contains(&header["kid"]) {
            kids.push(header["kid"].clone());
        }
        living.push((claims["exp"].as_u64().unwrap(), token));
        for (place, server) in servers.iter_mut().enumerate() {
            if tick % (place + 1) == 0 {
                for (_, token) in [living.first().unwrap(), living.last().unwrap()] {
                    verified += 1;
                    failures += u32::from(!server.verifies(token, &broker).await);
                }
            }
        }
    }
    assert_eq!(failures, 0, "of {verified}");
    assert!(verified > 2_000, "{verified}");
}

#[tokio::test]
async fn k06_a_key_withdrawn_while_exchanges_run_signs_nothing_more_and_leaves_the_set() {
    let broker = Broker::start().await;
    let token = issued(&broker.exchange(&broker.site.job().sign()).await);
    let leaked = parts(&token).0["kid"].as_str().unwrap().to_owned();
    // The prepared key was announced long enough.
    broker.pass(2 * 3_600 - 10);
    let jobs = || broker.site.job().issued_at(broker.now().seconds(), 300).sign();
    let (one, two) = (jobs(), jobs());
    let (before, done, after) = tokio::join!(
        broker.exchange(&one),
        broker.rotator.withdraw(&leaked, false),
        broker.exchange(&two),
    );
    let done = done.unwrap();
    assert_eq!(done.signed[0].credential, parts(&token).1["jti"].as_str().unwrap());
    assert!(!broker.read("/jwks").await.body.contains(&leaked));
    for answer in [before, after, broker.exchange(&jobs()).await] {
        if answer.status == 200 && parts(&issued(&answer)).0["kid"] == leaked.as_str() {
            let jti = parts(&issued(&answer)).1["jti"].as_str().unwrap().to_owned();
            let signed = broker.rotator.withdraw(&leaked, false).await.unwrap().signed;
            assert!(signed.iter().any(|it| it.credential == jti), "it is at least listed");
        }
    }
    let records = broker.rotator.keyring().records();
    let record = records.iter().find(|record| record.kid == leaked).unwrap();
    assert_eq!(record.phase, Phase::Withdrawn);
    let answer = broker.exchange(&jobs()).await;
    assert_eq!(parts(&issued(&answer)).0["kid"], done.successor.unwrap().as_str());
}
