//! What is due is ended: not before, not by two, not all at once.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use cambio::{
    lease::{Gone, RevokeError, Revoker, Revokers},
    ledger::{LeaseState, reader::Leases},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::bench::{AT_ONCE, Bench, DEADLINE, LIFETIME, ORDERS, Told, look, reaper, seconds};
use crate::{
    ledger::log::{Log, NOW},
    support::server::{FakeServer, Fault},
};

#[tokio::test]
async fn b06_a_lease_is_ended_at_its_worst_end_and_not_a_millisecond_before() {
    let bench = Bench::new();
    let lease = bench.active(1).await;
    bench.pass(LIFETIME - Duration::from_millis(1));
    bench.look().await;
    assert!(bench.server.has(&lease.object));
    assert_eq!(bench.state(&lease), LeaseState::Active);
    bench.pass(Duration::from_millis(1));
    bench.look().await;
    assert!(!bench.server.has(&lease.object));
    assert_eq!(bench.state(&lease), LeaseState::Revoked);
    let told = bench.entries("lease");
    assert_eq!(told.len(), 1);
    assert_eq!(
        (&told[0]["lease"], &told[0]["step"]),
        (&lease.id.to_string().into(), &"revoked".into())
    );
    assert_eq!(*bench.told.ended.lock().unwrap(), [Duration::ZERO]);
    // It is over: nobody asks again.
    bench.pass(seconds(3_600));
    bench.look().await;
    assert_eq!(bench.server.told_to_end().len(), 1);
}

#[tokio::test]
async fn the_loop_sleeps_until_something_is_due_or_it_is_woken() {
    let bench = Bench::new();
    let (first, second) = (bench.active(1).await, bench.active(2).await);
    bench.revoke(&second).await;
    let tracker = TaskTracker::new();
    tracker.spawn(Arc::clone(&bench.reaper).run(tracker.clone(), bench.stop.clone()));
    until(|| bench.state(&second) == LeaseState::Revoked).await;
    assert_eq!(bench.state(&first), LeaseState::Active);
    bench.pass(LIFETIME);
    bench.reaper.wake();
    until(|| bench.state(&first) == LeaseState::Revoked).await;
    bench.stop.cancel();
    tracker.close();
    tracker.wait().await;
}

/// Waits for what other threads do; nothing is judged by how long that takes.
async fn until(is_so: impl Fn() -> bool) {
    for _ in 0..3_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not happen");
}

#[tokio::test]
async fn a_void_lease_is_over_and_its_token_is_good_again() {
    let bench = Bench::new();
    let lease = bench.open(1).await;
    bench.conclude(1, &lease, LeaseState::Void).await;
    bench.pass(LIFETIME);
    bench.look().await;
    assert_eq!(bench.server.told_to_end(), Vec::<String>::new());
    assert_eq!(bench.state(&lease), LeaseState::Void);
    bench.log.clock.set(NOW);
    crate::ledger::log::durable(
        cambio::ledger::Commit::commit(&bench.log.writer, crate::ledger::log::grant(1)).await,
    );
}

#[tokio::test]
async fn b03_what_was_opened_or_is_unknown_is_looked_for_at_the_mint_deadline() {
    for unknown in [false, true] {
        let bench = Bench::new();
        let lease = bench.open(1).await;
        bench.server.put(&lease.object);
        if unknown {
            bench.conclude(1, &lease, LeaseState::Unknown).await;
        }
        bench.pass(DEADLINE - Duration::from_millis(1));
        bench.look().await;
        assert!(bench.server.has(&lease.object), "the mint may be under way");
        bench.pass(Duration::from_millis(1));
        bench.look().await;
        assert!(!bench.server.has(&lease.object));
        assert_eq!(bench.state(&lease), LeaseState::Revoked);
    }
}

/// The statement left, the answer did not come, and the server goes on working on it.
#[tokio::test]
async fn b03_absent_before_the_deadline_is_not_the_end_and_a_late_creation_is_found() {
    let bench = Bench::new();
    let lease = bench.open(1).await;
    bench.conclude(1, &lease, LeaseState::Unknown).await;
    // Somebody wants it gone at once.
    bench.revoke(&lease).await;
    bench.look().await;
    assert_eq!(bench.server.told_to_end().len(), 1, "it is looked for at once");
    assert_eq!(bench.state(&lease), LeaseState::Revoking, "and absence says nothing yet");
    bench.look().await;
    assert_eq!(bench.server.told_to_end().len(), 1, "not without a pause");
    bench.pass(seconds(10));
    bench.server.put(&lease.object);
    bench.look().await;
    assert!(!bench.server.has(&lease.object), "it is found before the deadline");
    assert_eq!(bench.state(&lease), LeaseState::Revoked);

    let never = bench.open(2).await;
    bench.revoke(&never).await;
    bench.look().await;
    bench.pass(DEADLINE);
    bench.look().await;
    assert_eq!(bench.state(&never), LeaseState::Revoked, "at the deadline absence is the end");
}

#[tokio::test]
async fn b03_a_late_conclusion_does_not_wake_what_is_being_ended() {
    let bench = Bench::new();
    let lease = bench.open(1).await;
    bench.revoke(&lease).await;
    bench.server.put(&lease.object);
    bench.conclude(1, &lease, LeaseState::Active).await;
    assert_eq!(bench.state(&lease), LeaseState::Revoking);
    bench.look().await;
    assert!(!bench.server.has(&lease.object));
    bench.conclude(1, &lease, LeaseState::Unknown).await;
    assert_eq!(bench.state(&lease), LeaseState::Revoked);
}

#[tokio::test]
async fn b09_two_reapers_over_one_ledger_do_no_harm() {
    let bench = Bench::new();
    let mut leases = Vec::new();
    for number in 0..40 {
        leases.push(bench.active(number).await);
    }
    bench.pass(LIFETIME);
    let told = Arc::new(Told::default());
    let revokers = Revokers::of([(ORDERS.into(), Arc::clone(&bench.revoker) as Arc<dyn Revoker>)]);
    let other = reaper(&bench.log, &bench.switch, revokers, &told);
    tokio::join!(bench.look(), look(&other, &bench.stop));
    for lease in &leases {
        assert_eq!(bench.state(lease), LeaseState::Revoked);
    }
    let ended = bench.server.ended();
    assert_eq!(ended.len(), 40, "each was there once");
    assert_eq!(ended.iter().collect::<BTreeSet<_>>().len(), 40);
    assert!(bench.reaper.troubles().is_empty() && other.troubles().is_empty());
    assert!(bench.server.most_at_once() <= AT_ONCE);
}

/// One of two could not end it; the other did: the first has nothing to complain of any more.
#[tokio::test]
async fn b09_what_another_reaper_ended_is_no_trouble_any_more() {
    let bench = Bench::new();
    let lease = bench.active(1).await;
    bench.pass(LIFETIME);
    bench.server.end_fails(Some(Fault::Refuses));
    bench.look().await;
    assert_eq!(bench.reaper.troubles().len(), 1);
    bench.server.end_fails(None);
    let revokers = Revokers::of([(ORDERS.into(), Arc::clone(&bench.revoker) as Arc<dyn Revoker>)]);
    let other = reaper(&bench.log, &bench.switch, revokers, &Arc::new(Told::default()));
    look(&other, &bench.stop).await;
    assert_eq!(bench.state(&lease), LeaseState::Revoked);
    bench.look().await;
    assert_eq!(bench.reaper.troubles(), Vec::new());
}

/// Counts for itself: the gate of a minter would hide what the reaper does.
#[derive(Debug)]
struct Counting {
    inner: Arc<FakeServer>,
    now_and_most: Mutex<(usize, usize)>,
}

#[async_trait]
impl Revoker for Counting {
    async fn revoke(&self, object: &str) -> Result<Gone, RevokeError> {
        {
            let mut counts = self.now_and_most.lock().unwrap();
            counts.0 += 1;
            counts.1 = counts.1.max(counts.0);
        }
        for _ in 0..5 {
            tokio::task::yield_now().await;
        }
        let gone = cambio::mint::login::Logins::end(&*self.inner, object).await;
        self.now_and_most.lock().unwrap().0 -= 1;
        gone.map_err(|error| RevokeError::Failed(error.to_string()))
    }

    async fn objects(&self) -> Result<Vec<String>, RevokeError> {
        Ok(Vec::new())
    }

    fn at_once(&self) -> usize {
        7
    }
}

#[tokio::test]
async fn v03_a_thousand_leases_that_end_in_one_second_never_use_more_calls_than_are_allowed() {
    let (log, server) = (Log::create(), FakeServer::new());
    let counting =
        Arc::new(Counting { inner: Arc::clone(&server), now_and_most: Mutex::default() });
    let revokers = Revokers::of([(ORDERS.into(), Arc::clone(&counting) as Arc<dyn Revoker>)]);
    let clock = Arc::clone(&log.clock) as Arc<dyn cambio::clock::Clock>;
    let minter = server.minter(("unused", ORDERS), 1, clock, super::bench::chance());
    let bench = Bench::with(log, server, minter, revokers);
    let opened = (0..1_000).map(|number| bench.active(number));
    futures_util::future::join_all(opened).await;
    bench.pass(LIFETIME);
    bench.look().await;
    assert_eq!(bench.server.names_there(), BTreeSet::new());
    assert_eq!(bench.server.ended().len(), 1_000);
    assert_eq!(bench.reader().leases(Leases::Live, 9).unwrap(), Vec::new());
    assert_eq!(counting.now_and_most.lock().unwrap().1, 7, "as many as are allowed, and no more");
}

#[tokio::test]
async fn drain_ends_nothing_more_and_waits_for_what_is_under_way() {
    let bench = Bench::new();
    for number in 0..20 {
        bench.active(number).await;
    }
    bench.pass(LIFETIME);
    let stop = CancellationToken::new();
    stop.cancel();
    look(&bench.reaper, &stop).await;
    assert_eq!(bench.server.ended(), Vec::<String>::new());
    bench.look().await;
    assert_eq!(bench.server.ended().len(), 20);
}
