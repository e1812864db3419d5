//! The broker dies between any two steps: afterwards there is no login without a lease, and no lease without an end.

use std::collections::BTreeSet;

use cambio::ledger::{LeaseIntent, LeaseState, reader::Leases};

use super::bench::{Bench, DEADLINE, LIFETIME, seconds};

/// Where the broker died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Died {
    /// The intent is durable, nothing was asked of the server.
    AfterTheCommit,
    /// The server was asked, and has not got round to it.
    BeforeTheLoginIsMade,
    /// It is made, and nobody wrote that down.
    AfterTheLoginIsMade,
    /// Concluded as unknown.
    AfterUnknown,
    /// Concluded as void.
    AfterVoid,
    /// Concluded; the answer may have left.
    AfterTheConclusion,
    /// An operator asked for its end.
    AfterItWasRevoked,
    /// The server ended it, and nobody wrote that down.
    AfterItWasEnded,
    /// It could not be ended so far.
    AfterItFailed,
}

const ALL: [Died; 9] = [
    Died::AfterTheCommit,
    Died::BeforeTheLoginIsMade,
    Died::AfterTheLoginIsMade,
    Died::AfterUnknown,
    Died::AfterVoid,
    Died::AfterTheConclusion,
    Died::AfterItWasRevoked,
    Died::AfterItWasEnded,
    Died::AfterItFailed,
];

async fn lived_until(bench: &Bench, died: Died, number: u64) -> LeaseIntent {
    match died {
        Died::AfterTheCommit | Died::BeforeTheLoginIsMade => bench.open(number).await,
        Died::AfterTheLoginIsMade => {
            let lease = bench.open(number).await;
            bench.server.put(&lease.object);
            lease
        }
        Died::AfterUnknown | Died::AfterVoid => {
            let lease = bench.open(number).await;
            let unknown = died == Died::AfterUnknown;
            let state = if unknown { LeaseState::Unknown } else { LeaseState::Void };
            bench.conclude(number, &lease, state).await;
            lease
        }
        Died::AfterTheConclusion => bench.active(number).await,
        Died::AfterItWasRevoked | Died::AfterItWasEnded | Died::AfterItFailed => {
            let lease = bench.active(number).await;
            bench.revoke(&lease).await;
            if died == Died::AfterItWasEnded {
                cambio::mint::login::Logins::end(&*bench.server, &lease.object).await.unwrap();
            }
            if died == Died::AfterItFailed {
                let (id, step) = (lease.id, LeaseState::Irrevocable);
                let event = cambio::ledger::Event::Lease { id, step, by: None };
                bench.commit(cambio::ledger::Proposal::of(event)).await;
            }
            lease
        }
    }
}

#[tokio::test]
async fn b03_wherever_it_died_a_minute_after_a_restart_nothing_is_left_of_what_nobody_got() {
    for died in ALL {
        let bench = Bench::new();
        let lease = lived_until(&bench, died, 1).await;
        let bench = bench.restart().await;
        if died == Died::BeforeTheLoginIsMade {
            // The server comes round to it while nobody is there.
            bench.pass(seconds(10));
            bench.server.put(&lease.object);
        }
        for _ in 0..60 {
            bench.look().await;
            bench.pass(seconds(1));
        }
        bench.reaper.look_for_orphans().await;
        let live = bench.reader().leases(Leases::Live, 9).unwrap();
        if died == Died::AfterTheConclusion {
            assert!(bench.server.has(&lease.object), "it was handed out, and is good");
            assert_eq!(live.len(), 1);
            bench.pass(LIFETIME);
            bench.look().await;
        } else {
            assert_eq!(live, Vec::new(), "{died:?}");
        }
        assert_eq!(bench.server.names_there(), BTreeSet::new(), "{died:?}");
        assert_eq!(bench.entries("orphan"), Vec::<serde_json::Value>::new(), "{died:?}");
        let expected = if died == Died::AfterVoid { LeaseState::Void } else { LeaseState::Revoked };
        assert_eq!(bench.state(&lease), expected, "{died:?}");
    }
}

/// It dies again and again, each time after one more look: what was under way is begun anew, and ends.
#[tokio::test]
async fn b03_a_broker_that_dies_all_the_time_comes_to_an_end_too() {
    let mut bench = Bench::new();
    let mut leases = Vec::new();
    for (number, died) in (0..).zip(ALL) {
        leases.push(lived_until(&bench, died, number).await);
    }
    bench.ledger_is_off(true);
    bench.pass(DEADLINE);
    bench.look().await;
    bench = bench.restart().await;
    bench.pass(LIFETIME);
    let stop = bench.stop.clone();
    tokio::select! {
        biased;
        () = tokio::task::yield_now() => {}
        () = super::bench::look(&bench.reaper, &stop) => {}
    }
    bench = bench.restart().await;
    bench.look().await;
    assert_eq!(bench.server.names_there(), BTreeSet::new());
    assert_eq!(bench.reader().leases(Leases::Live, 9).unwrap(), Vec::new());
    assert!(leases.iter().all(|lease| !bench.state(lease).is_live()));
    assert!(bench.path().exists());
}
