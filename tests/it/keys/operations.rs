//! What the loop and operators do: two nodes, leaked keys, rotation by hand, export.

use std::sync::Arc;

use cambio::{
    keys::{Phase, ring::Ring},
    protector::{KeyContext, file::PassphraseFile},
    secret::Secret,
    subject::Algorithm,
};
use serde_json::Value;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::bench::{Bench, ENVIRONMENT, RING};

fn kid_in(rotator: &cambio::keys::rotator::Rotator, phase: Phase) -> String {
    let records = rotator.keyring().records();
    records.iter().find(|record| record.phase == phase).unwrap().kid.clone()
}

fn published(bench: &Bench, rotator: &cambio::keys::rotator::Rotator) -> Vec<String> {
    let document = rotator.keyring().published(bench.clock_now()).document;
    let set: Value = serde_json::from_str(&document).unwrap();
    let keys = set["keys"].as_array().unwrap().clone();
    keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_new_ring_signs_at_once_and_says_why_it_may() {
    let bench = Bench::new();
    let rotator = bench.start().await;
    assert!(rotator.keyring().ready());
    let (active, prepared) = (kid_in(&rotator, Phase::Active), kid_in(&rotator, Phase::Prepared));
    assert_eq!(
        bench.journal.told(),
        [
            format!("prepare {active}"),
            format!("promote-first {active}"),
            format!("prepare {prepared}")
        ]
    );
    assert!(rotator.keyring().find(&active).is_some());
    assert!(rotator.keyring().find(&prepared).is_none(), "announced, and not yet signing");
    assert_eq!(published(&bench, &rotator), [active, prepared]);
    assert_eq!(rotator.turn().await, Ok(None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k04_two_nodes_that_rotate_together_end_with_one_ring() {
    let bench = Bench::signing_with([Algorithm::ES256, Algorithm::EdDSA]);
    let (one, other) = tokio::join!(bench.try_start(), bench.try_start());
    let nodes = [Arc::new(one.unwrap()), Arc::new(other.unwrap())];
    for _ in 0..20 {
        bench.pass(7_200);
        let tracker = TaskTracker::new();
        for node in &nodes {
            for _ in 0..2 {
                let node = Arc::clone(node);
                tracker.spawn(async move { while node.turn().await.unwrap().is_some() {} });
            }
        }
        tracker.close();
        tracker.wait().await;
        for node in &nodes {
            assert_eq!(node.turn().await, Ok(None));
        }
        assert_eq!(published(&bench, &nodes[0]), published(&bench, &nodes[1]));
        assert_eq!(nodes[0].keyring().records(), nodes[1].keyring().records());
        assert_eq!(nodes[0].keyring().log_seed(), nodes[1].keyring().log_seed());
    }
    let (epoch, _) = bench.journal.sealed();
    assert_eq!(usize::try_from(epoch).unwrap(), bench.journal.told().len(), "one entry per epoch");
    let promotions = bench.journal.told().iter().filter(|told| told.starts_with("promote")).count();
    assert_eq!(promotions, 2 * 21, "each rotation happened once");
}

#[tokio::test]
async fn k03_a_ring_that_can_not_be_written_goes_on_signing_and_says_so() {
    let bench = Bench::new();
    let rotator = Arc::new(bench.start().await);
    let active = kid_in(&rotator, Phase::Active);
    bench.journal.break_writes(true);
    bench.pass(7_200);
    let error = rotator.turn().await.unwrap_err().to_string();
    assert_eq!(error, "key journal: disk full");
    assert_eq!(kid_in(&rotator, Phase::Active), active);
    assert!(rotator.keyring().active(Algorithm::ES256).is_some());
    bench.journal.break_writes(false);
    while rotator.turn().await.unwrap().is_some() {}
    assert_ne!(kid_in(&rotator, Phase::Active), active);
}

#[tokio::test]
async fn the_loop_turns_tells_its_trouble_and_ends_when_told() {
    let bench = Bench::new();
    let rotator = Arc::new(bench.start().await);
    let active = kid_in(&rotator, Phase::Active);
    for broken in [true, false] {
        let (tracker, cancelled) = (TaskTracker::new(), CancellationToken::new());
        bench.journal.break_writes(broken);
        bench.pass(7_200);
        Arc::clone(&rotator).run(&tracker, cancelled.clone());
        while rotator.trouble().is_some() != broken {
            tokio::task::yield_now().await;
        }
        assert_eq!(kid_in(&rotator, Phase::Active) == active, broken);
        cancelled.cancel();
        tracker.close();
        tracker.wait().await;
    }
}

#[tokio::test]
async fn k05_rotation_by_hand_waits_for_the_announcement_unless_forced() {
    let bench = Bench::new();
    let rotator = bench.start().await;
    let next = kid_in(&rotator, Phase::Prepared);
    let error = rotator.rotate_now(Algorithm::ES256, false).await.unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "key `{next}` may sign from 2027-01-15T09:00:00Z on: until then some verifiers do not have it yet"
        )
    );
    bench.pass(3_600);
    assert_eq!(rotator.rotate_now(Algorithm::ES256, false).await, Ok(next));
    while rotator.turn().await.unwrap().is_some() {}
    let next = kid_in(&rotator, Phase::Prepared);
    assert_eq!(rotator.rotate_now(Algorithm::ES256, true).await, Ok(next.clone()));
    assert_eq!(bench.journal.told().last(), Some(&format!("promote-forced {next}")));
    let error = rotator.rotate_now(Algorithm::RS256, true).await.unwrap_err().to_string();
    assert_eq!(error, "a prepared key is wanted for `RS256`");
}

#[tokio::test]
async fn k06_a_leaked_key_with_an_announced_successor_is_gone_at_once_and_signing_goes_on() {
    let bench = Bench::new();
    let rotator = bench.start().await;
    let (leaked, next) = (kid_in(&rotator, Phase::Active), kid_in(&rotator, Phase::Prepared));
    let signed = [bench.journal.granted(&leaked, "jti-1"), bench.journal.granted(&leaked, "jti-2")];
    bench.journal.granted(&next, "jti-3");
    bench.pass(3_600);
    let withdrawal = rotator.withdraw(&leaked, false).await.unwrap();
    assert_eq!(withdrawal.successor, Some(next.clone()));
    assert_eq!(withdrawal.signed, signed);
    let active = rotator.keyring().active(Algorithm::ES256).unwrap();
    assert_eq!(active.signer().key_id(), next);
    assert!(!published(&bench, &rotator).contains(&leaked));
    assert!(rotator.keyring().withdrawn(&leaked));
    assert!(rotator.keyring().find(&leaked).is_none());
    let told = bench.journal.told();
    assert_eq!(told[3..], [format!("promote {next}"), format!("withdraw {leaked}")]);
    // Its private half is gone from the ring at rest as well.
    let again = bench.start().await;
    assert!(again.keyring().find(&leaked).is_none());
    assert!(again.keyring().withdrawn(&leaked));
    assert_eq!(rotator.withdraw(&leaked, false).await.unwrap().signed, signed, "again: only lists");
}

#[tokio::test]
async fn k06_without_an_announced_successor_issuing_pauses_until_there_is_one() {
    let bench = Bench::new();
    let rotator = bench.start().await;
    let (leaked, next) = (kid_in(&rotator, Phase::Active), kid_in(&rotator, Phase::Prepared));
    bench.pass(3_599);
    let withdrawal = rotator.withdraw(&leaked, false).await.unwrap();
    assert_eq!(withdrawal.successor, None);
    assert!(rotator.keyring().active(Algorithm::ES256).is_none());
    assert!(!rotator.keyring().ready());
    assert_eq!(published(&bench, &rotator), std::slice::from_ref(&next));
    assert_eq!(rotator.turn().await, Ok(None), "no exemption: the ring has signed before");
    bench.pass(1);
    while rotator.turn().await.unwrap().is_some() {}
    let active = rotator.keyring().active(Algorithm::ES256).unwrap();
    assert_eq!(active.signer().key_id(), next);
}

#[tokio::test]
async fn k06_force_said_later_ends_the_pause_of_a_withdrawal() {
    let bench = Bench::new();
    let rotator = bench.start().await;
    let (leaked, next) = (kid_in(&rotator, Phase::Active), kid_in(&rotator, Phase::Prepared));
    assert_eq!(rotator.withdraw(&leaked, false).await.unwrap().successor, None);
    assert_eq!(rotator.withdraw(&leaked, false).await.unwrap().successor, None, "only lists");
    assert_eq!(rotator.withdraw(&leaked, true).await.unwrap().successor, Some(next));
    assert!(rotator.keyring().ready());
}

#[tokio::test]
async fn k06_a_forced_withdrawal_signs_with_the_next_key_at_once_and_says_so() {
    let bench = Bench::new();
    let rotator = bench.start().await;
    let (leaked, next) = (kid_in(&rotator, Phase::Active), kid_in(&rotator, Phase::Prepared));
    let withdrawal = rotator.withdraw(&leaked, true).await.unwrap();
    assert_eq!(withdrawal.successor, Some(next.clone()));
    let told = bench.journal.told();
    assert_eq!(told[3..], [format!("promote-forced {next}"), format!("withdraw {leaked}")]);
}

#[tokio::test]
async fn k06_a_leaked_prepared_key_never_signs_and_an_unknown_one_is_named() {
    let bench = Bench::new();
    let rotator = bench.start().await;
    let (active, leaked) = (kid_in(&rotator, Phase::Active), kid_in(&rotator, Phase::Prepared));
    let withdrawal = rotator.withdraw(&leaked, false).await.unwrap();
    assert_eq!(withdrawal.signed, []);
    bench.pass(3_600);
    while rotator.turn().await.unwrap().is_some() {}
    assert_eq!(kid_in(&rotator, Phase::Active), active);
    assert_eq!(
        rotator.withdraw("nobody", false).await.unwrap_err().to_string(),
        "no key `nobody` in the ring"
    );
    bench.journal.break_writes(true);
    assert!(rotator.withdraw(&active, true).await.is_err());
    assert!(!rotator.keyring().withdrawn(&active), "what was not recorded did not happen");
}

#[tokio::test]
async fn an_export_opens_with_its_passphrase_alone() {
    let bench = Bench::new();
    let rotator = bench.start().await;
    let passphrase = || Secret::from("correct horse battery staple".to_owned());
    let protector = PassphraseFile::of(passphrase()).unwrap();
    let exported = rotator.export(&protector).await.unwrap();
    let context =
        KeyContext { ring: RING.to_owned(), epoch: 3, environment: ENVIRONMENT.to_owned() };
    let ring = Ring::open(&exported, &context, &protector).await.unwrap();
    assert_eq!(ring.records(), rotator.keyring().records());
    for record in ring.records() {
        assert_eq!(ring.key(&record.kid).unwrap().key_id(), record.kid);
    }
    assert!(bench.protector.unwrap(&exported, &context).await.is_err());
}
