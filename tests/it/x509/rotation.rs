//! The CA turns while certificates are used: by the same schedule as the keys for tokens.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use cambio::{
    clock::Instant,
    exchange::Scene,
    grant::Grant,
    keys::{Phase, Purpose, rotator::Rotator},
    ledger::Recorded,
    mint::{Behind, Credential, MintError, Minter, Minters, Prepared},
    target::Expiry,
};

use super::bench::{Held, ask, broker, bundle, held, shake};
use crate::support::broker::Broker;

/// A server that fetches its bundle as seldom as it may.
struct Server {
    every: Duration,
    held: Option<(Instant, String)>,
}

impl Server {
    async fn believes(&mut self, certificate: &Held, broker: &Broker) -> Result<(), String> {
        let now = broker.now();
        if self.held.as_ref().is_none_or(|(at, _)| now.since(*at) >= self.every) {
            self.held = Some((now, bundle(broker, "x509/orders").await));
        }
        let (_, bundle) = self.held.as_ref().unwrap();
        shake(certificate, bundle, now).await.map_err(|error| error.to_string())
    }
}

async fn turn(broker: &Broker) {
    while broker.rotator.turn().await.unwrap().is_some() {}
}

fn of_orders(broker: &Broker) -> Vec<(String, Phase)> {
    let purpose = Purpose::Certificates("x509/orders".into());
    let records = broker.rotator.keyring().records();
    let ours = records.into_iter().filter(|record| record.purpose == purpose);
    ours.map(|record| (record.kid, record.phase)).collect()
}

#[tokio::test]
async fn publish_before_sign_a_server_that_holds_its_bundle_for_an_hour_refuses_no_certificate() {
    let broker = broker().await;
    let mut servers =
        [1, 1_800, 3_599].map(|every| Server { every: Duration::from_secs(every), held: None });
    let (mut living, mut kids): (Vec<(Instant, Held)>, Vec<String>) = (Vec::new(), Vec::new());
    for _ in 0..80 {
        broker.pass(577);
        turn(&broker).await;
        let now = broker.now();
        let fresh = held(&ask(&broker, "x509/orders", "reader", None).await, None);
        let kid = fresh.credential["issuer_key"].as_str().unwrap().to_owned();
        if !kids.contains(&kid) {
            kids.push(kid);
        }
        living.push((now.plus(Duration::from_secs(900)), fresh));
        living.retain(|(end, _)| *end > now);
        for server in &mut servers {
            for (_, certificate) in &living {
                server.believes(certificate, &broker).await.unwrap();
            }
        }
    }
    assert!(kids.len() >= 6, "found {} CA keys in half a day of 2 h each", kids.len());
    // What was retired is gone once nothing lives that it signed.
    assert!(of_orders(&broker).len() <= 3, "{:?}", of_orders(&broker));
}

#[tokio::test]
async fn the_bundle_is_the_same_bytes_after_a_restart() {
    let broker = broker().await;
    let before = bundle(&broker, "x509/orders").await;
    let certificate = held(&ask(&broker, "x509/orders", "reader", None).await, None);
    let broker = broker.restart().await;
    assert_eq!(bundle(&broker, "x509/orders").await, before);
    shake(&certificate, &before, broker.now()).await.unwrap();
}

#[tokio::test]
async fn k06_a_withdrawn_ca_leaves_the_bundle_at_once_and_lists_what_it_signed() {
    let broker = broker().await;
    let leaked = held(&ask(&broker, "x509/orders", "reader", None).await, None);
    let kid = leaked.credential["issuer_key"].as_str().unwrap().to_owned();
    let paused = broker.rotator.withdraw(&kid, false).await.unwrap();
    assert_eq!(paused.successor, None, "its successor is not announced for long enough");
    let signed: Vec<_> = paused.signed.iter().map(|it| it.credential.clone()).collect();
    assert_eq!(signed, [leaked.credential["serial"].as_str().unwrap()]);
    assert_eq!(ask(&broker, "x509/orders", "reader", None).await.status, 503);
    let error = shake(&leaked, &bundle(&broker, "x509/orders").await, broker.now()).await;
    assert!(error.unwrap_err().to_string().contains("UnknownIssuer"));
    // The other target, and tokens, go on.
    assert_eq!(ask(&broker, "jwt/orders", "read", None).await.status, 200);
    // Said again with force, it ends the pause.
    let forced = broker.rotator.withdraw(&kid, true).await.unwrap();
    assert!(forced.successor.is_some());
    let next = held(&ask(&broker, "x509/orders", "reader", None).await, None);
    shake(&next, &bundle(&broker, "x509/orders").await, broker.now()).await.unwrap();
}

#[tokio::test]
async fn k05_a_ca_is_promoted_by_hand_only_when_servers_can_have_it() {
    let broker = broker().await;
    let target = "x509/orders".into();
    let before = of_orders(&broker);
    let early = broker.rotator.rotate_authority_now(&target, false).await.unwrap_err().to_string();
    assert!(early.contains("may sign from"), "{early}");
    broker.pass(3_600);
    let promoted = broker.rotator.rotate_authority_now(&target, false).await.unwrap();
    assert!(before.contains(&(promoted.clone(), Phase::Prepared)));
    let none = broker.rotator.rotate_authority_now(&"jwt/orders".into(), true).await;
    assert_eq!(none.unwrap_err().to_string(), "target `jwt/orders` gets no certificates");
    let billing = Purpose::Certificates("x509/billing".into());
    let records = broker.rotator.keyring().records();
    assert!(records.iter().any(|it| it.purpose == billing && it.phase == Phase::Active));
    assert!(records.iter().any(|it| it.kid == promoted && it.phase == Phase::Active));
}

#[tokio::test]
async fn a_target_that_is_no_longer_there_loses_its_ca_when_the_last_certificate_is_dead() {
    let broker = broker().await;
    assert_eq!(of_orders(&broker).len(), 2);
    let none = super::bench::TARGETS.replace("x509/orders", "x509/renamed");
    broker.site.edit("cambio.yaml", super::bench::TARGETS, &none);
    broker.site.edit("policies/orders.yaml", "x509/orders", "x509/renamed");
    let broker = broker.restart_configured().await;
    assert_eq!(of_orders(&broker).iter().map(|it| it.1).collect::<Vec<_>>(), [Phase::Retired]);
    assert_eq!(broker.read("/ca/x509/orders.pem").await.status, 404);
    assert_eq!(broker.read("/ca/x509/renamed.pem").await.status, 200);
    broker.pass(1_800 + 60 + 5);
    turn(&broker).await;
    assert_eq!(of_orders(&broker), []);
}

/// The CA key leaks between the commit and the mint.
#[derive(Debug)]
struct LeaksMeanwhile {
    inner: Arc<dyn Minter>,
    rotator: Arc<Rotator>,
}

#[async_trait]
impl Minter for LeaksMeanwhile {
    fn expiry(&self) -> Expiry {
        self.inner.expiry()
    }

    fn prepare(&self, grant: &Grant, behind: Behind<'_>) -> Result<Prepared, MintError> {
        self.inner.prepare(grant, behind)
    }

    async fn mint(&self, recorded: Recorded<Prepared>) -> Result<Credential, MintError> {
        let target = "x509/orders".into();
        let kid = self.rotator.keyring().authority(&target).unwrap().key.key_id().to_owned();
        self.rotator.withdraw(&kid, true).await.unwrap();
        self.inner.mint(recorded).await
    }
}

#[tokio::test]
async fn k06_what_was_prepared_is_not_signed_with_a_ca_withdrawn_meanwhile() {
    let broker = broker().await;
    let scene = broker.exchange.scene.load_full();
    let inner = Arc::clone(scene.minters.find(&"x509/orders".into()).unwrap());
    let minter = LeaksMeanwhile { inner, rotator: Arc::clone(&broker.rotator) };
    broker.exchange.scene.store(Arc::new(Scene {
        verifier: Arc::clone(&scene.verifier),
        policies: Arc::clone(&scene.policies),
        minters: Minters::of([("x509/orders".into(), Arc::new(minter) as Arc<dyn Minter>)]),
    }));
    let answer = ask(&broker, "x509/orders", "reader", None).await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(!answer.body.contains("CERTIFICATE"));
    let told: Vec<_> = broker.lines().await.into_iter().map(|line| line.event).collect();
    assert!(told.iter().any(|event| event["outcome"] == "void"), "{told:?}");
}

#[tokio::test]
async fn x10_never_outlive_the_certificate_of_the_ca() {
    let broker = broker().await;
    // The broker was away for so long that its CA is about to end, and the ring does not turn.
    let end = broker.rotator.keyring().authority(&"x509/orders".into()).unwrap().key.ends_at();
    broker.clock.set(end.minus(Duration::from_secs(10)));
    let answer = ask(&broker, "x509/orders", "reader", None).await;
    assert_eq!(answer.json()["expires_in"], 10, "{}", answer.body);
    broker.clock.set(end);
    let (status, _, words) = ask(&broker, "x509/orders", "reader", None).await.error();
    assert_eq!((status, words.as_str()), (400, "no lifetime is left that the target can keep"));
}
