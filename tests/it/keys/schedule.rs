//! The pure schedule.

use std::{collections::BTreeMap, time::Duration};

use cambio::{
    clock::Instant,
    keys::{
        KeyRecord, Phase,
        schedule::{Announcement, Schedule, Step, Terms, after, next_step},
    },
    subject::Algorithm,
};
use proptest::prelude::*;

use super::bench::terms;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn refusal(change: impl FnOnce(&mut Terms)) -> String {
    let mut terms = terms([Algorithm::ES256]);
    change(&mut terms);
    Schedule::derive(terms).unwrap_err().to_string()
}

#[test]
fn waits_are_derived_from_each_other() {
    let mut terms = terms([Algorithm::ES256]);
    let schedule = Schedule::derive(terms.clone()).unwrap();
    assert_eq!(schedule.publish_before(), seconds(3_600), "the verifier cache is longer");
    assert_eq!(schedule.keep_after(), seconds(900 + 60 + 5));
    terms.jwks_max_age = seconds(3_600);
    let schedule = Schedule::derive(terms).unwrap();
    assert_eq!(schedule.publish_before(), seconds(3_600 + 60 + 5), "max-age is longer");
    assert_eq!(Terms::VERIFIER_CACHE, seconds(86_400));
}

#[test]
fn what_is_impossible_is_refused_at_start() {
    assert_eq!(
        refusal(|terms| terms.sign_for = seconds(3_600)),
        "a key must sign for longer than its successor is announced: found 3600 s, expected more than 3600 s"
    );
    assert_eq!(
        refusal(|terms| terms.longest_lifetime = Duration::ZERO),
        "the longest lifetime of a token is 0 s, expected at least 1 s"
    );
    assert_eq!(
        refusal(|terms| terms.algorithms.clear()),
        "no algorithm to sign with, expected at least one"
    );
    assert_eq!(
        refusal(|terms| terms.verifier_cache = Duration::MAX),
        "the verifier cache is 18446744073709551615 s, expected at most ten years"
    );
}

/// A node that crashes, sleeps too long, and gets another configuration; and every token it ever signed.
struct World {
    schedule: Schedule,
    records: Vec<KeyRecord>,
    now: Instant,
    made: u32,
    // (kid, end of the token)
    tokens: Vec<(String, Instant)>,
    // kid → the first instant at which the document showed it
    shown: BTreeMap<String, Instant>,
    began: bool,
}

impl World {
    fn turn(&mut self, dies_before_the_journal: bool) -> bool {
        let Some(step) = next_step(&self.records, &self.schedule, self.now) else { return false };
        if dies_before_the_journal {
            return false;
        }
        let fresh = matches!(step, Step::Prepare(_)).then(|| {
            self.made += 1;
            format!("key-{}", self.made)
        });
        if let Step::Promote { kid, announcement } = &step {
            let first = *announcement == Announcement::First;
            assert!(!(first && self.began && !self.first_of(kid)), "only the first are exempt");
            let shown = self.shown[kid];
            let announced = self.now.since(shown) >= self.schedule.publish_before();
            assert!(announced || first, "INVARIANT(publish-before-sign): {kid}");
        }
        self.records =
            after(&self.records, &step, fresh.as_deref(), &self.schedule, self.now).unwrap();
        for record in &self.records {
            self.shown.entry(record.kid.clone()).or_insert(self.now);
        }
        true
    }

    fn first_of(&self, kid: &str) -> bool {
        self.records.iter().any(|record| record.kid == kid && record.first)
    }

    fn sign(&mut self) {
        let active: Vec<_> =
            self.records.iter().filter(|record| record.phase == Phase::Active).cloned().collect();
        for record in active {
            self.began = true;
            self.tokens.push((record.kid, self.now.plus(record.window)));
        }
    }

    fn check(&self) {
        for algorithm in Algorithm::ALL {
            let signers = self
                .records
                .iter()
                .filter(|record| record.algorithm == algorithm && record.phase == Phase::Active);
            assert!(signers.count() <= 1, "two keys sign with {algorithm}");
        }
        let published = |kid: &str| self.records.iter().any(|record| record.kid == kid);
        for (kid, end) in self.tokens.iter().filter(|(_, end)| *end > self.now) {
            assert!(published(kid), "a token of {kid} lives until {end}, its key is gone");
        }
    }
}

#[derive(Clone, Debug)]
enum Happens {
    Turn,
    Crash,
    Sign,
    Pass(u64),
    Configure { lifetime: u64, two: bool },
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        4 => Just(Happens::Turn),
        1 => Just(Happens::Crash),
        4 => Just(Happens::Sign),
        4 => (1_u64..20_000).prop_map(Happens::Pass),
        1 => (1_u64..10_000, any::<bool>()).prop_map(|(lifetime, two)| Happens::Configure { lifetime, two }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn k05_at_most_one_signs_and_no_living_token_loses_its_key(
        sign_extra in 1_u64..50_000, max_age in 0_u64..5_000, lifetime in 1_u64..10_000,
        leeway in 0_u64..120, cache in 0_u64..10_000,
        story in proptest::collection::vec(happens(), 1..400),
    ) {
        let configured = |lifetime: u64, two: bool| {
            let mut terms = Terms {
                sign_for: seconds(0),
                jwks_max_age: seconds(max_age),
                longest_lifetime: seconds(lifetime),
                leeway: seconds(leeway),
                verifier_cache: seconds(cache),
                ..terms([Algorithm::ES256])
            };
            terms.algorithms.extend(two.then_some(Algorithm::RS256));
            terms.sign_for = (terms.jwks_max_age + terms.leeway + terms.replica_delay)
                .max(terms.verifier_cache) + seconds(sign_extra);
            Schedule::derive(terms).unwrap()
        };
        let mut world = World {
            schedule: configured(lifetime, false),
            records: Vec::new(),
            now: Instant::from_seconds(1_800_000_000),
            made: 0,
            tokens: Vec::new(),
            shown: BTreeMap::new(),
            began: false,
        };
        for happens in story {
            match happens {
                Happens::Turn => { world.turn(false); }
                Happens::Crash => { world.turn(true); }
                Happens::Sign => world.sign(),
                Happens::Pass(passed) => world.now = world.now.plus(seconds(passed)),
                Happens::Configure { lifetime, two } => world.schedule = configured(lifetime, two),
            }
            world.check();
        }
        // Left alone it comes to rest, with one key that signs or is announced and one behind it.
        let mut turns = 0;
        while world.turn(false) {
            turns += 1;
            prop_assert!(turns < 100, "the schedule does not come to rest");
        }
        for algorithm in world.schedule.algorithms() {
            let live = world.records.iter().filter(|record| record.algorithm == *algorithm);
            prop_assert!(live.clone().any(|record| record.phase == Phase::Prepared));
        }
    }
}

#[test]
fn the_first_keys_are_exempt_and_say_so_and_later_ones_wait() {
    let schedule = Schedule::derive(terms([Algorithm::ES256, Algorithm::RS256])).unwrap();
    let now = Instant::from_seconds(0);
    let mut records = Vec::new();
    let mut told = Vec::new();
    while let Some(step) = next_step(&records, &schedule, now) {
        let fresh = format!("k{}", told.len());
        records = after(&records, &step, Some(&fresh), &schedule, now).unwrap();
        told.push(step.label());
    }
    assert_eq!(
        told,
        ["prepare", "prepare", "promote-first", "promote-first", "prepare", "prepare"]
    );
    // An algorithm that comes later is announced like any key: somebody may hold a set without it.
    let schedule =
        Schedule::derive(terms([Algorithm::ES256, Algorithm::RS256, Algorithm::EdDSA])).unwrap();
    let step = next_step(&records, &schedule, now).unwrap();
    assert_eq!(step, Step::Prepare(Algorithm::EdDSA));
    records = after(&records, &step, Some("late"), &schedule, now).unwrap();
    assert_eq!(next_step(&records, &schedule, now), None);
    let later = now.plus(schedule.publish_before());
    let promote = Step::Promote { kid: "late".to_owned(), announcement: Announcement::Kept };
    assert_eq!(next_step(&records, &schedule, later), Some(promote));
}

#[test]
fn nothing_may_be_cached_before_a_key_has_signed() {
    let schedule = Schedule::derive(terms([Algorithm::ES256])).unwrap();
    let now = Instant::from_seconds(100);
    assert_eq!(schedule.cache_for(&[], now), Duration::ZERO);
    let prepare = Step::Prepare(Algorithm::ES256);
    let records = after(&[], &prepare, Some("a"), &schedule, now).unwrap();
    assert_eq!(schedule.cache_for(&records, now), Duration::ZERO);
    let promote = Step::Promote { kid: "a".to_owned(), announcement: Announcement::First };
    let records = after(&records, &promote, None, &schedule, now).unwrap();
    assert_eq!(schedule.cache_for(&records, now), seconds(300));
}

#[test]
fn a_step_that_does_not_fit_is_refused() {
    let schedule = Schedule::derive(terms([Algorithm::ES256])).unwrap();
    let now = Instant::from_seconds(100);
    let prepare = Step::Prepare(Algorithm::ES256);
    let records = after(&[], &prepare, Some("a"), &schedule, now).unwrap();
    let fault = |step| after(&records, &step, Some("a"), &schedule, now).unwrap_err().to_string();
    assert_eq!(fault(prepare), "the key ring is not sound: key `a` is there already");
    assert_eq!(fault(Step::Retire("a".to_owned())), "key `a` is prepared, expected active");
    assert_eq!(fault(Step::Withdraw("b".to_owned())), "no key `b` in the ring");
}
