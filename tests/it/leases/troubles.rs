//! What can't be ended: it is tried for ever, told of, and holds up nobody else.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use cambio::{
    lease::{RevokeError, Revoker, Revokers},
    ledger::LeaseState,
};

use super::bench::{AT_ONCE, Bench, LIFETIME, ORDERS, chance, seconds};
use crate::{
    ledger::log::{Log, NOW, ORIGIN},
    support::server::{FakeServer, Fault},
};

const BILLING: &str = "fake/billing";

/// Two targets, each at a server of its own.
fn two() -> (Bench, Arc<FakeServer>) {
    let (log, orders, billing) = (Log::create(), FakeServer::new(), FakeServer::new());
    let clock = || Arc::clone(&log.clock) as Arc<dyn cambio::clock::Clock>;
    let first = orders.minter((ORIGIN, ORDERS), AT_ONCE, clock(), chance());
    let second = billing.minter((ORIGIN, BILLING), AT_ONCE, clock(), chance());
    let revokers = Revokers::of([
        (ORDERS.into(), Arc::clone(&first) as Arc<dyn Revoker>),
        (BILLING.into(), second as Arc<dyn Revoker>),
    ]);
    (Bench::with(log, orders, first, revokers), billing)
}

#[tokio::test]
async fn a01_what_a_server_says_of_a_holders_names_stays_on_its_line() {
    let bench = Bench::new();
    let lease = bench.active(1).await;
    bench.server.end_fails(Some(Fault::Quotes));
    let Err(RevokeError::Failed(said)) = bench.revoker.revoke(&lease.object).await else {
        panic!("it says no")
    };
    let plain = r#"must be owner of "x\u{1b}[2J\u{a}INFO lease revoked\u{d}\u{202e}""#;
    assert_eq!(said, plain);
    bench.pass(LIFETIME);
    bench.look().await;
    assert_eq!(bench.reaper.troubles()[0].reason, plain);
}

#[tokio::test]
async fn v03_a_target_out_of_reach_backs_off_holds_up_nobody_else_and_comes_back() {
    let (bench, billing) = two();
    let here = bench.active(1).await;
    let there = bench.open_at(2, BILLING).await;
    billing.put(&there.object);
    bench.pass(LIFETIME);
    bench.server.is(Some(Fault::Unreachable));
    bench.look().await;
    assert!(!billing.has(&there.object), "the other target's lease was ended");
    assert_eq!(bench.state(&there), LeaseState::Revoked);
    let troubles = bench.reaper.troubles();
    assert_eq!(troubles.len(), 1);
    assert_eq!((troubles[0].target.as_str(), troubles[0].since), (ORDERS, Some(bench.now())));
    assert!(troubles[0].reason.contains("connection refused"), "{troubles:?}");
    // A hundred looks of 100 ms: not a hundred calls.
    for _ in 0..100 {
        bench.pass(Duration::from_millis(100));
        bench.look().await;
    }
    let calls = bench.server.told_to_end().len();
    assert!((2..=6).contains(&calls), "{calls} calls in 10 s");
    assert_eq!(
        bench.state(&here),
        LeaseState::Active,
        "unreachable is nothing wrong with the lease"
    );
    bench.pass(seconds(86_400));
    bench.look().await;
    bench.server.is(None);
    bench.pass(seconds(15));
    bench.look().await;
    assert!(!bench.server.has(&here.object), "back within the longest pause");
    assert_eq!(bench.reaper.troubles(), Vec::new());
}

#[tokio::test]
async fn b04_a_lease_that_fails_five_times_is_irrevocable_is_tried_on_and_ends_when_it_can() {
    let bench = Bench::new();
    let (stuck, fine) = (bench.active(1).await, bench.active(2).await);
    bench.server.is_stuck(&stuck.object, Some(Fault::Refuses));
    bench.pass(LIFETIME);
    for tries in 1..=5 {
        assert_ne!(bench.state(&stuck), LeaseState::Irrevocable, "after {} tries", tries - 1);
        bench.look().await;
        assert_eq!(bench.state(&fine), LeaseState::Revoked, "it holds up nobody");
        bench.pass(seconds(15));
    }
    assert_eq!(bench.state(&stuck), LeaseState::Irrevocable);
    let troubles = bench.reaper.troubles();
    assert_eq!((troubles.len(), troubles[0].since, troubles[0].leases), (1, None, 1));
    assert!(troubles[0].reason.contains("it is in use"), "{troubles:?}");
    for _ in 0..20 {
        bench.look().await;
        bench.pass(seconds(15));
    }
    let steps: Vec<_> = bench.entries("lease").iter().map(|it| it["step"].clone()).collect();
    assert_eq!(steps, ["revoked", "irrevocable"], "told once, however often it is tried");
    assert!(bench.server.told_to_end().len() > 20);
    bench.server.is_stuck(&stuck.object, None);
    bench.look().await;
    assert_eq!(bench.state(&stuck), LeaseState::Revoked);
    assert!(!bench.server.has(&stuck.object));
    assert_eq!(bench.reaper.troubles(), Vec::new());
}

/// The one write that raises the alarm fails: the next try raises it.
#[tokio::test]
async fn b04_an_alarm_that_could_not_be_recorded_is_recorded_later() {
    let bench = Bench::new();
    let stuck = bench.active(1).await;
    bench.server.end_fails(Some(Fault::Refuses));
    bench.pass(LIFETIME);
    bench.ledger_is_off(true);
    for _ in 0..7 {
        bench.look().await;
        bench.pass(seconds(15));
    }
    assert_eq!(bench.state(&stuck), LeaseState::Active);
    bench.ledger_is_off(false);
    bench.look().await;
    assert_eq!(bench.state(&stuck), LeaseState::Irrevocable);
}

/// Somebody holds a lock that the ending of four logins waits for: as many as may be ended at once.
#[tokio::test(start_paused = true)]
async fn b04_endings_that_hang_do_not_keep_the_others_from_being_ended() {
    let bench = Bench::new();
    let mut hang = Vec::new();
    for number in 0..AT_ONCE as u64 {
        hang.push(bench.active(number).await);
    }
    for lease in &hang {
        bench.server.is_stuck(&lease.object, Some(Fault::Hangs));
    }
    bench.pass(seconds(1));
    let mut later = Vec::new();
    for number in 10..20 {
        later.push(bench.active(number).await);
    }
    bench.pass(LIFETIME);
    bench.look().await;
    // The target rests first; then those that were not tried yet have their turn.
    for _ in 0..5 {
        bench.pass(seconds(3));
        bench.look().await;
    }
    assert!(later.iter().all(|lease| !bench.server.has(&lease.object)), "they starved");
    for lease in &hang {
        bench.server.is_stuck(&lease.object, None);
    }
    for _ in 0..3 {
        bench.pass(seconds(15));
        bench.look().await;
    }
    assert!(hang.iter().all(|lease| bench.state(lease) == LeaseState::Revoked));
}

/// One call hangs, and meanwhile another lease becomes due: it does not wait for the first.
#[tokio::test(start_paused = true)]
async fn v03_a_call_that_hangs_holds_up_its_own_place_alone() {
    let bench = Bench::new();
    let hangs = bench.active(1).await;
    bench.server.is_stuck(&hangs.object, Some(Fault::Hangs));
    bench.pass(seconds(2));
    let next = bench.active(2).await;
    bench.pass(LIFETIME.saturating_sub(seconds(1)));
    let began = tokio::time::Instant::now();
    let look = bench.look();
    tokio::pin!(look);
    tokio::select! {
        () = &mut look => panic!("over before it was given up"),
        () = tokio::time::sleep(seconds(1)) => bench.pass(seconds(2)),
    }
    tokio::select! {
        () = &mut look => panic!("over before it was given up"),
        () = tokio::time::sleep(seconds(2)) => {}
    }
    assert!(!bench.server.has(&next.object), "it waited for one that hangs");
    look.await;
    assert!(began.elapsed() >= seconds(30));
    assert!(bench.server.has(&hangs.object));
}

#[tokio::test]
async fn v06_a_defect_in_a_driver_costs_one_try_and_not_the_target() {
    let bench = Bench::new();
    let (lease, fine) = (bench.active(1).await, bench.active(2).await);
    bench.pass(LIFETIME);
    bench.server.is_stuck(&lease.object, Some(Fault::Panics));
    for _ in 0..3 {
        bench.look().await;
    }
    assert_eq!(bench.server.told_to_end().len(), 2, "not without a pause");
    assert_eq!(bench.state(&fine), LeaseState::Revoked);
    assert!(bench.reaper.troubles()[0].reason.contains("defect"));
    bench.server.is_stuck(&lease.object, None);
    bench.pass(seconds(15));
    bench.look().await;
    assert_eq!(bench.state(&lease), LeaseState::Revoked);
}

/// What was ended and could not be written down is asked for again, and not a thousand times a second.
#[tokio::test]
async fn a05_a_ledger_that_can_not_write_is_no_reason_to_storm_a_target() {
    let bench = Bench::new();
    let lease = bench.active(1).await;
    bench.pass(LIFETIME);
    bench.ledger_is_off(true);
    tokio::time::timeout(seconds(60), bench.look()).await.expect("one look ends");
    bench.look().await;
    assert!(!bench.server.has(&lease.object), "it is ended all the same");
    assert_eq!(bench.state(&lease), LeaseState::Active);
    assert_eq!((bench.server.told_to_end().len(), *bench.switch.tried.lock().unwrap()), (1, 1));
    bench.switch.off.store(false, Ordering::SeqCst);
    bench.pass(seconds(1));
    bench.look().await;
    assert_eq!(bench.state(&lease), LeaseState::Revoked);
    assert_eq!(bench.told.ended.lock().unwrap().len(), 1, "counted once");
}

#[tokio::test]
async fn b03_a_target_that_left_the_configuration_is_an_alarm_and_not_a_loss() {
    let (bench, _billing) = two();
    let lease = bench.active(1).await;
    bench.reaper.adopt(Revokers::default());
    bench.pass(LIFETIME);
    for _ in 0..3 {
        bench.look().await;
        bench.pass(seconds(15));
    }
    assert_eq!(bench.state(&lease), LeaseState::Active);
    let troubles = bench.reaper.troubles();
    assert_eq!((troubles.len(), troubles[0].target.as_str()), (1, ORDERS));
    assert!(troubles[0].reason.contains("not in the configuration"), "{troubles:?}");
    // It is put back: tried at once, without waiting for the pause to end.
    let again = Revokers::of([(ORDERS.into(), Arc::clone(&bench.revoker) as Arc<dyn Revoker>)]);
    bench.look().await;
    bench.reaper.adopt(again);
    bench.look().await;
    assert_eq!(bench.state(&lease), LeaseState::Revoked);
    assert_eq!(bench.reaper.troubles(), Vec::new());
}

/// A pause is counted in the wall clock; a clock set back by an hour must not make it an hour longer.
#[tokio::test]
async fn v04_a_wall_clock_that_is_set_back_makes_no_pause_longer() {
    let bench = Bench::new();
    let (down, stuck) = (bench.active(1).await, bench.active(2).await);
    bench.server.is_stuck(&stuck.object, Some(Fault::Refuses));
    bench.revoke(&down).await;
    bench.revoke(&stuck).await;
    bench.server.is_stuck(&down.object, Some(Fault::Unreachable));
    for _ in 0..100 {
        bench.look().await;
        bench.pass(seconds(60));
    }
    bench.look().await;
    bench.server.is_stuck(&down.object, None);
    bench.server.is_stuck(&stuck.object, None);
    // It has failed for longer than the clock is set back.
    bench.log.clock.set(bench.now().minus(seconds(3_600)));
    let calls = bench.server.told_to_end().len();
    bench.look().await;
    assert!(bench.server.told_to_end().len() > calls, "it rests for an hour");
    assert!(!bench.server.has(&down.object) && !bench.server.has(&stuck.object));
}

/// The end stands in wall-clock time; what was ended before the clock went back stays ended, and what was not is ended when
/// its time comes again.
#[tokio::test]
async fn v04_leases_live_through_a_clock_that_is_set_back() {
    let bench = Bench::new();
    let (first, second) = (bench.active(1).await, bench.active(2).await);
    bench.revoke(&first).await;
    bench.log.clock.set(NOW.minus(seconds(30)));
    bench.look().await;
    assert_eq!(bench.state(&first), LeaseState::Revoked, "revoked is due whatever the clock says");
    bench.look().await;
    assert_eq!(bench.state(&second), LeaseState::Active);
    bench.log.clock.set(NOW.plus(LIFETIME));
    bench.look().await;
    assert_eq!(bench.state(&second), LeaseState::Revoked);
}
