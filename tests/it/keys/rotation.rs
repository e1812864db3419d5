//! A hundred rotations under verifiers that cache.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use cambio::{
    clock::Instant,
    keys::keyring::{Keyring, TokenType},
    subject::{Algorithm, jwk::KeySet},
};
use serde_json::{Value, json};

use super::bench::Bench;

/// Somebody who verifies our tokens with the document it fetched last.
struct Verifier {
    /// Caches this long; none means as long as `max-age` says.
    caches: Option<Duration>,
    fetched: Option<(Instant, Duration, KeySet)>,
    fetches: u32,
}

impl Verifier {
    fn that_caches(caches: Option<Duration>) -> Self {
        Self { caches, fetched: None, fetches: 0 }
    }

    fn verifies(&mut self, token: &str, keyring: &Keyring, now: Instant) -> bool {
        let fresh = |(at, age, _): &(Instant, Duration, KeySet)| now.since(*at) < *age;
        if !self.fetched.as_ref().is_some_and(fresh) {
            let published = keyring.published(now);
            let age = match self.caches {
                Some(_) if published.max_age.is_zero() => Duration::ZERO,
                Some(caches) => caches,
                None => published.max_age,
            };
            let keys = KeySet::parse(published.document.as_bytes()).unwrap();
            self.fetched = Some((now, age, keys));
            self.fetches += 1;
        }
        let (_, _, keys) = self.fetched.as_ref().unwrap();
        let (input, signature) = token.rsplit_once('.').unwrap();
        let header = URL_SAFE_NO_PAD.decode(input.split('.').next().unwrap()).unwrap();
        let header: Value = serde_json::from_str(std::str::from_utf8(&header).unwrap()).unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let Ok(found) = keys.find(header["kid"].as_str()) else { return false };
        found.iter().any(|key| key.verify(Algorithm::EdDSA, input.as_bytes(), &signature))
    }
}

async fn sign(keyring: &Keyring, now: Instant) -> String {
    let active = keyring.active(Algorithm::EdDSA).unwrap();
    let claims = json!({ "iat": now.seconds() }).to_string();
    let input =
        format!("{}.{}", active.header(TokenType::AccessToken), URL_SAFE_NO_PAD.encode(claims));
    let signature = active.signer().sign(input.as_bytes()).await.unwrap();
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[tokio::test]
async fn k05_a_hundred_rotations_and_no_caching_verifier_ever_fails() {
    let bench = Bench::signing_with([Algorithm::EdDSA]);
    let rotator = bench.start().await;
    let keyring = Arc::clone(rotator.keyring());
    let verifier_cache = bench.terms.verifier_cache;
    // Three that heed max-age, begun at odd times, and two that cache as long as they like.
    let mut verifiers: Vec<_> =
        [None, None, None, Some(verifier_cache), Some(Duration::from_secs(3_593))]
            .map(Verifier::that_caches)
            .into();
    let mut living: Vec<(Instant, String)> = Vec::new();
    let (mut failures, mut verified, mut ticks) = (0, 0, 0_usize);
    let rotations = || {
        let told = bench.journal.told();
        told.iter().filter(|told| told.starts_with("promote ")).count()
    };
    while rotations() < 100 {
        bench.pass(211);
        ticks += 1;
        while rotator.turn().await.unwrap().is_some() {}
        let now = bench.clock_now();
        living.retain(|(end, _)| *end > now);
        living.push((now.plus(bench.terms.longest_lifetime), sign(&keyring, now).await));
        for (place, verifier) in verifiers.iter_mut().enumerate() {
            // Each looks now and then, at the newest token and at the oldest that lives.
            if ticks % (place + 1) == 0 {
                for (_, token) in [living.first().unwrap(), living.last().unwrap()] {
                    verified += 1;
                    failures += u32::from(!verifier.verifies(token, &keyring, now));
                }
            }
        }
    }
    assert_eq!(failures, 0, "of {verified}");
    assert!(verified > 10_000, "{verified}");
    assert!(verifiers[3].fetches < 250, "it does cache: {}", verifiers[3].fetches);
    let live = keyring.records().len();
    assert!(live <= 3, "old keys are pruned, {live} are left");
}
