//! What carries our mark and has no lease.

use cambio::chance::SeededChance;
use cambio::{ledger::LeaseState, mint::name::Names};
use tokio::sync::Semaphore;

use super::bench::{Bench, LIFETIME, ORDERS, seconds};
use crate::{ledger::log::ORIGIN, support::server::Fault};

fn name(origin: &str, target: &str, seed: u64) -> String {
    Names::of(origin, &target.into()).make(&SeededChance::of(seed)).unwrap()
}

#[tokio::test]
async fn b03_an_orphan_is_ended_and_recorded_and_nothing_of_others_is_touched() {
    let bench = Bench::new();
    let (active, opened) = (bench.active(1).await, bench.open(2).await);
    bench.server.put(&opened.object);
    let orphan = name(ORIGIN, ORDERS, 900);
    let theirs = [
        name("log.example/another", ORDERS, 901),
        name(ORIGIN, "fake/billing", 902),
        "postgres".to_owned(),
        "cambio_admin".to_owned(),
    ];
    bench.server.put(&orphan);
    for object in &theirs {
        bench.server.put(object);
    }
    bench.reaper.look_for_orphans().await;
    assert_eq!(bench.server.ended(), [orphan.clone()]);
    for object in theirs.iter().chain([&active.object, &opened.object]) {
        assert!(bench.server.has(object), "{object}");
    }
    let told = bench.entries("orphan");
    assert_eq!(told.len(), 1);
    assert_eq!((&told[0]["target"], &told[0]["object"]), (&ORDERS.into(), &orphan.into()));
    assert_eq!(*bench.told.failed.lock().unwrap(), ["orphan"]);
    bench.reaper.look_for_orphans().await;
    assert_eq!(bench.entries("orphan").len(), 1);
}

/// The store says that it is over, and there it is: a statement that came later than anything should, or a server that lied.
#[tokio::test]
async fn b03_what_is_there_after_its_lease_has_ended_is_an_orphan() {
    let bench = Bench::new();
    let (void, revoked) = (bench.open(1).await, bench.active(2).await);
    bench.conclude(1, &void, LeaseState::Void).await;
    bench.pass(LIFETIME);
    bench.look().await;
    assert_eq!(bench.state(&revoked), LeaseState::Revoked);
    bench.server.put(&void.object);
    bench.server.put(&revoked.object);
    bench.reaper.look_for_orphans().await;
    assert!(!bench.server.has(&void.object) && !bench.server.has(&revoked.object));
    assert_eq!(bench.entries("orphan").len(), 2);
}

#[tokio::test]
async fn b03_a_login_that_is_made_while_orphans_are_looked_for_is_none() {
    let bench = Bench::new();
    let orphan = name(ORIGIN, ORDERS, 900);
    bench.server.put(&orphan);
    for turn in 0..2 {
        bench.server.listing.forget_permits(Semaphore::MAX_PERMITS);
        bench.server.put(&orphan);
        let search = bench.reaper.look_for_orphans();
        tokio::pin!(search);
        // The first list, then the second: each time a login is made before it is read.
        for list in 0..2 {
            tokio::select! {
                biased;
                () = &mut search => panic!("over before list {list}"),
                asked = bench.server.listed.acquire() => asked.unwrap().forget(),
            }
            bench.active(10 * turn + list).await;
            bench.server.listing.add_permits(1);
        }
        search.await;
        bench.server.listing.add_permits(1_000);
    }
    assert_eq!(bench.server.ended(), [orphan.clone(), orphan]);
    assert_eq!(bench.server.names_there().len(), 4, "all logins with leases are there");
}

/// The list is read, and before the leases are, one ends: its login is no orphan, and the ledger does not say so.
#[tokio::test]
async fn b03_a_login_that_is_ended_while_orphans_are_looked_for_is_none() {
    let bench = Bench::new();
    let lease = bench.active(1).await;
    bench.server.handing.forget_permits(Semaphore::MAX_PERMITS);
    let ends = async {
        bench.server.read.acquire().await.unwrap().forget();
        bench.revoke(&lease).await;
        bench.look().await;
        assert_eq!(bench.state(&lease), LeaseState::Revoked);
        bench.server.handing.add_permits(1_000);
    };
    tokio::join!(bench.reaper.look_for_orphans(), ends);
    assert_eq!(bench.entries("orphan"), Vec::<serde_json::Value>::new());
    assert_eq!(bench.server.told_to_end().len(), 1);
}

/// Threat K07: a broker over yesterday's copy of the store is held, and everything that was made since looks like an orphan.
#[tokio::test]
async fn k07_a_ledger_that_can_not_write_ends_no_orphan() {
    let bench = Bench::new();
    let orphan = name(ORIGIN, ORDERS, 900);
    bench.server.put(&orphan);
    bench.log.writer.hold("behind its anchor".to_owned());
    bench.reaper.look_for_orphans().await;
    assert!(bench.server.has(&orphan));
    assert_eq!(bench.server.told_to_end(), Vec::<String>::new());
    bench.log.writer.fork(&[], &crate::support::broker::operator()).await.unwrap();
    bench.reaper.look_for_orphans().await;
    assert!(!bench.server.has(&orphan));
    assert_eq!(bench.entries("orphan").len(), 1);
}

#[tokio::test]
async fn b04_an_orphan_that_can_not_be_ended_is_recorded_once_and_tried_on() {
    let bench = Bench::new();
    let orphan = name(ORIGIN, ORDERS, 900);
    bench.server.put(&orphan);
    bench.server.end_fails(Some(Fault::Refuses));
    for _ in 0..5 {
        bench.reaper.look_for_orphans().await;
    }
    assert_eq!((bench.server.told_to_end().len(), bench.entries("orphan").len()), (5, 1));
    bench.server.end_fails(None);
    bench.reaper.look_for_orphans().await;
    assert!(!bench.server.has(&orphan));
    assert_eq!(bench.entries("orphan").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn b03_a_server_that_does_not_list_loses_nothing_and_is_asked_again() {
    let bench = Bench::new();
    let orphan = name(ORIGIN, ORDERS, 900);
    bench.server.put(&orphan);
    for fault in [Fault::Refuses, Fault::Unreachable, Fault::Hangs, Fault::LosesTheAnswer] {
        bench.server.names_fail(Some(fault));
        bench.reaper.look_for_orphans().await;
        assert!(bench.server.has(&orphan), "{fault:?}");
        bench.pass(seconds(60));
    }
    bench.server.names_fail(None);
    bench.reaper.look_for_orphans().await;
    assert!(!bench.server.has(&orphan));
}
