//! The battery of `Revoker`.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use cambio::{
    chance::{Chance, SeededChance},
    clock::{Clock, ManualClock},
    grant::TargetName,
    lease::{Gone, RevokeError, Revoker},
    ledger::reader::Leases,
    mint::name::Names,
};

use crate::{
    clouds::{
        bench::{Bench, token},
        stand_in::Mood,
    },
    ledger::log::NOW,
    support::server::{FakeServer, Fault},
};

const ORIGIN: &str = "log.example/cambio";
const TARGET: &str = "fake/orders";

/// What a battery needs of a target: to make objects there, and to look.
trait Place {
    fn make(&self, object: &str);
    fn is_there(&self, object: &str) -> bool;
    fn fails(&self, fault: Option<Fault>);
}

/// Longer than any pause.
const PAUSE: Duration = Duration::from_mins(1);

impl Place for FakeServer {
    fn make(&self, object: &str) {
        self.put(object);
    }

    fn is_there(&self, object: &str) -> bool {
        self.has(object)
    }

    fn fails(&self, fault: Option<Fault>) {
        self.is(fault);
    }
}

fn name(origin: &str, target: &str, seed: u64) -> String {
    Names::of(origin, &TargetName::from(target)).make(&SeededChance::of(seed)).unwrap()
}

async fn holds(revoker: &dyn Revoker, place: &dyn Place, clock: &ManualClock) {
    let (one, other) = (name(ORIGIN, TARGET, 1), name(ORIGIN, TARGET, 2));
    // Duty 1: idempotent, and when it returns nothing is left of that one, and everything of the others.
    place.make(&one);
    place.make(&other);
    assert_eq!(revoker.revoke(&one).await, Ok(Gone::Ended), "duty 1");
    assert!(!place.is_there(&one) && place.is_there(&other), "duty 1");
    for _ in 0..3 {
        assert_eq!(revoker.revoke(&one).await, Ok(Gone::Absent), "duties 1 and 2");
    }
    // Duty 1: also after an answer was lost.
    place.make(&one);
    place.fails(Some(Fault::LosesTheAnswer));
    assert!(matches!(revoker.revoke(&one).await, Err(RevokeError::Lost(_))), "duty 1");
    place.fails(None);
    assert_eq!(revoker.revoke(&one).await, Ok(Gone::Absent), "duty 1");
    // Duty 2: only the target says that there is nothing.
    for fault in [Fault::Hangs, Fault::Unreachable, Fault::IsLate, Fault::Refuses] {
        place.fails(Some(fault));
        for object in [&one, &other] {
            let said = match revoker.revoke(object).await {
                Err(RevokeError::Unreachable(_)) => "unreachable",
                Err(RevokeError::Lost(_)) => "lost",
                Err(RevokeError::Failed(_)) => "failed",
                Ok(gone) => panic!("duty 2: {fault:?}: {gone:?}"),
            };
            let expected = match fault {
                Fault::Refuses => "failed",
                Fault::Unreachable => "unreachable",
                _ => "lost",
            };
            assert_eq!(said, expected, "duty 2: {fault:?}");
        }
        assert!(revoker.objects().await.is_err(), "duty 3: {fault:?} is not an empty list");
        assert!(place.is_there(&other), "{fault:?}");
        place.fails(None);
        clock.pass(PAUSE);
        assert_eq!(revoker.revoke(&one).await, Ok(Gone::Absent), "after {fault:?}");
    }
    // Duty 3: what carries our mark, whoever made it; nothing else.
    let theirs = [
        name("log.example/another", TARGET, 1),
        name(ORIGIN, "fake/billing", 1),
        "postgres".to_owned(),
        "cambio_".to_owned(),
        format!("{one}x"),
        one.to_uppercase(),
    ];
    for object in &theirs {
        place.make(object);
    }
    let found: BTreeSet<String> = revoker.objects().await.unwrap().into_iter().collect();
    assert_eq!(found, BTreeSet::from([other.clone()]), "duty 3");
    for object in &theirs {
        let outcome = revoker.revoke(object).await;
        assert!(matches!(outcome, Err(RevokeError::Failed(_))), "duty 3: {object}: {outcome:?}");
        assert!(place.is_there(object), "duty 3: {object}");
    }
    assert!(revoker.at_once() > 0);
}

#[tokio::test(start_paused = true)]
async fn b09_ending_a_login_is_idempotent_and_touches_nothing_of_others() {
    let server = FakeServer::new();
    let clock = Arc::new(ManualClock::at(NOW));
    let chance: Arc<dyn Chance> = Arc::new(SeededChance::of(9));
    let theirs = Arc::clone(&clock) as Arc<dyn Clock>;
    let revoker = server.minter((ORIGIN, TARGET), 4, theirs, chance);
    holds(&*revoker, &*server, &clock).await;
}

/// The duties on GitHub, which makes no token of a name that we choose and lists none: each is held on a token of its own.
#[tokio::test]
async fn b09_ending_an_installation_token_is_idempotent_and_touches_no_other() {
    let bench = Bench::start().await;
    let make = async || {
        let before: BTreeSet<String> = objects(&bench).into_iter().collect();
        let issued = token(&bench.ask("audience=github/acme&scope=release").await);
        let new = objects(&bench).into_iter().find(|object| !before.contains(object));
        (issued, new.unwrap())
    };
    let revoker = bench.broker.revoker("github/acme").await;
    let (one, ones) = make().await;
    let (other, others) = make().await;
    let (_, lost) = make().await;
    assert_eq!(revoker.revoke(&ones).await, Ok(Gone::Ended), "duty 1");
    assert!(bench.clouds.knows(&one).is_none() && bench.clouds.knows(&other).is_some(), "duty 1");
    for _ in 0..3 {
        assert_eq!(revoker.revoke(&ones).await, Ok(Gone::Absent), "duties 1 and 2");
    }
    // Duty 1: also after an answer was lost.
    bench.clouds.is(Mood::LosesTheAnswer);
    let outcome = revoker.revoke(&lost).await;
    assert!(matches!(outcome, Err(RevokeError::Lost(_))), "duty 1: {outcome:?}");
    bench.clouds.is(Mood::Well);
    assert_eq!(revoker.revoke(&lost).await, Ok(Gone::Absent), "duty 1");
    // Duty 2: only GitHub says that there is none.
    for (mood, expected) in [
        (Mood::Fails(500), "lost"),
        (Mood::Says("<html>"), "lost"),
        (Mood::Fails(403), "failed"),
        (Mood::Throttles("7"), "unreachable"),
    ] {
        bench.clouds.is(mood);
        let said = match revoker.revoke(&others).await {
            Err(RevokeError::Unreachable(_)) => "unreachable",
            Err(RevokeError::Lost(_)) => "lost",
            Err(RevokeError::Failed(_)) => "failed",
            Ok(gone) => panic!("duty 2: {mood:?}: {gone:?}"),
        };
        assert_eq!(said, expected, "duty 2: {mood:?}");
        assert!(bench.clouds.knows(&other).is_some(), "{mood:?}");
        bench.clouds.is(Mood::Well);
        bench.broker.pass(60);
    }
    assert_eq!(revoker.revoke(&others).await, Ok(Gone::Ended), "after all that");
    assert!(revoker.at_once() > 0);
}

fn objects(bench: &Bench) -> Vec<String> {
    let leases = bench.broker.reader.leases(Leases::Live, 10).unwrap();
    leases.into_iter().map(|lease| lease.object).collect()
}

/// Threat B01: the store is not believed either, and what it says is not repeated as it stands.
#[tokio::test]
async fn b01_a_name_that_is_not_ours_never_reaches_the_server() {
    let server = FakeServer::new();
    let chance: Arc<dyn Chance> = Arc::new(SeededChance::of(9));
    let clock = Arc::new(ManualClock::at(NOW)) as Arc<dyn Clock>;
    let revoker = server.minter((ORIGIN, TARGET), 4, clock, chance);
    let ours = name(ORIGIN, TARGET, 1);
    let long = "x".repeat(5_000);
    for object in ["", "\u{1b}[2J", "a\"; DROP ROLE x; --", "é", "\0", &long, &format!("{ours}\n")]
    {
        let Err(RevokeError::Failed(reason)) = revoker.revoke(object).await else {
            panic!("{object:?} was taken");
        };
        assert!(reason.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{reason:?}");
        assert!(!reason.contains('"') && !reason.contains(';'), "{reason:?}");
    }
    assert_eq!(server.told_to_end(), Vec::<String>::new());
}
