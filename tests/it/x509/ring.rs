//! CA keys in the ring: sealed with the others, and never taken for one of them.

use std::{collections::BTreeSet, fmt::Write as _, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use cambio::{
    clock::Clock,
    keys::{
        KeyJournal, Phase, Purpose,
        ring::Ring,
        rotator::Rotator,
        schedule::{Schedule, Terms},
        schedules::Schedules,
    },
    protector::KeyContext,
    secret::Secret,
    subject::Algorithm,
};
use serde_json::{Value, json};

use crate::keys::bench::{Bench, ENVIRONMENT, RING};

fn schedules(bench: &Bench) -> Schedules {
    let terms = |name: &str| {
        let terms = Terms { algorithms: BTreeSet::from([Algorithm::ES256]), ..bench.terms.clone() };
        Schedule::of(Purpose::Certificates(name.into()), terms).unwrap()
    };
    let tokens = Schedule::derive(bench.terms.clone()).unwrap();
    Schedules::of(tokens, [terms("x509/a"), terms("x509/b")])
}

async fn start(bench: &Bench) -> Rotator {
    let journal = Arc::clone(&bench.journal) as Arc<dyn KeyJournal>;
    let clock = Arc::clone(&bench.clock) as Arc<dyn Clock>;
    let protector = Arc::clone(&bench.protector);
    Rotator::start((RING, ENVIRONMENT), schedules(bench), journal, protector, clock).await.unwrap()
}

/// The ring at rest, opened, and what becomes of it after a change.
struct AtRest<'a> {
    bench: &'a Bench,
    context: KeyContext,
    plain: Value,
}

impl<'a> AtRest<'a> {
    async fn of(bench: &'a Bench) -> Self {
        let (epoch, sealed) = bench.journal.sealed();
        let environment = ENVIRONMENT.to_owned();
        let context = KeyContext { ring: RING.to_owned(), epoch, environment };
        let plain = bench.protector.unwrap(&sealed, &context).await.unwrap();
        let plain = serde_json::from_str(plain.reveal_text().unwrap()).unwrap();
        Self { bench, context, plain }
    }

    async fn opens_as(&self, plain: &Value) -> Result<Ring, String> {
        let secret = Secret::from(plain.to_string());
        let sealed = self.bench.protector.wrap(&secret, &self.context).await.unwrap();
        let opened = Ring::open(&sealed, &self.context, &*self.bench.protector).await;
        opened.map_err(|error| error.to_string())
    }

    fn keys(&self, usage: &str) -> Vec<Value> {
        let keys = self.plain["keys"].as_array().unwrap();
        keys.iter().filter(|key| key["use"] == usage).cloned().collect()
    }
}

#[tokio::test]
async fn k01_every_purpose_has_keys_of_its_own_and_the_ring_comes_back_from_rest() {
    let bench = Bench::new();
    let rotator = start(&bench).await;
    let at_rest = AtRest::of(&bench).await;
    assert_eq!((at_rest.keys("sig").len(), at_rest.keys("cambio-ca").len()), (2, 4));
    let ring = at_rest.opens_as(&at_rest.plain).await.unwrap();
    let now = rotator.keyring().records();
    assert_eq!(ring.records(), now.as_slice());
    let active = now.iter().filter(|record| record.phase == Phase::Active);
    let purposes: Vec<_> = active.map(|it| it.purpose.label(it.algorithm)).collect();
    assert_eq!(purposes, ["ES256", "ES256 ca:x509/a", "ES256 ca:x509/b"]);
    for record in &now {
        let token = matches!(record.purpose, Purpose::Tokens);
        assert_eq!(ring.token_key(&record.kid).is_some(), token);
        assert_eq!(ring.authority_key(&record.kid).is_some(), !token);
        assert_eq!(rotator.keyring().find_authority(&record.kid).is_some(), {
            !token && record.phase == Phase::Active
        });
        assert!(token || rotator.keyring().find(&record.kid).is_none(), "signs no token");
    }
}

#[tokio::test]
async fn k02_a_key_at_rest_is_not_taken_for_one_of_another_purpose() {
    let bench = Bench::new();
    start(&bench).await;
    let at_rest = AtRest::of(&bench).await;
    let swap = |change: &dyn Fn(&mut Value)| {
        let mut plain = at_rest.plain.clone();
        change(&mut plain);
        plain
    };
    let records = |plain: &mut Value, change: &dyn Fn(&mut Value)| {
        plain["cambio"]["records"].as_array_mut().unwrap().iter_mut().for_each(change);
    };
    // A CA key that is said to sign tokens, and the other way round.
    for changed in [
        swap(&|plain| {
            records(plain, &|it| {
                it.as_object_mut().unwrap().shift_remove("certificates");
            });
        }),
        swap(&|plain| records(plain, &|it| it["certificates"] = json!("x509/a"))),
    ] {
        let error = at_rest.opens_as(&changed).await.unwrap_err();
        assert!(error.ends_with("is for another purpose than its record says"), "{error}");
    }
    // The certificate of another CA key; none; two.
    let others = at_rest.keys("cambio-ca");
    let first = others[0]["kid"].clone();
    for (chain, words) in [
        (others[1]["x5c"].clone(), "its certificate is another key's"),
        (json!([]), "`x5c` does not hold one certificate"),
        (json!([STANDARD.encode("x")]), "its certificate does not parse"),
    ] {
        let changed = swap(&|plain| {
            let keys = plain["keys"].as_array_mut().unwrap();
            let key = keys.iter_mut().find(|key| key["kid"] == first).unwrap();
            key["x5c"] = chain.clone();
        });
        let error = at_rest.opens_as(&changed).await.unwrap_err();
        assert!(error.ends_with(words), "{error}");
    }
}

#[tokio::test]
async fn k12_a_ca_key_does_not_print() {
    let bench = Bench::new();
    let rotator = start(&bench).await;
    let at_rest = AtRest::of(&bench).await;
    let ring = at_rest.opens_as(&at_rest.plain).await.unwrap();
    let mut printed = format!("{ring:?} {rotator:?}");
    for record in ring.records() {
        write!(printed, "{:?}", ring.key(&record.kid).unwrap()).unwrap();
    }
    for key in at_rest.keys("cambio-ca") {
        assert!(!printed.contains(key["d"].as_str().unwrap()));
    }
    // A CA key made with a certificate of its own lives as long as everything that it may sign.
    for record in ring.records() {
        if let Some(key) = ring.authority_key(&record.kid) {
            let needed = record.prepared_at.plus(bench.terms.sign_for).plus(bench.terms.sign_for);
            assert!(key.ends_at() > needed.plus(Duration::from_secs(24 * 3_600)));
        }
    }
}
