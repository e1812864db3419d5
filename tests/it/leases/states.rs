//! The life of a lease: as a pure table, and as the store keeps it.

use cambio::ledger::{Event, LeaseState, LeaseState as S, Proposal, reader::Leases};
use proptest::{collection::vec, prelude::*, sample::select};

use super::bench::{Bench, DEADLINE, LIFETIME};
use crate::ledger::log::NOW;

/// How far on a lease is. Written down a second time, from the drawing.
fn rank(state: S) -> u8 {
    match state {
        S::Opened => 0,
        S::Active | S::Unknown => 1,
        S::Revoking => 2,
        S::Irrevocable => 3,
        S::Void | S::Revoked => 4,
    }
}

fn follow(states: &[S]) -> Vec<S> {
    let mut life = vec![S::Opened];
    for step in states {
        let now = life[life.len() - 1];
        if step.may_follow(now) {
            life.push(*step);
        }
    }
    life
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn b10_a_lease_never_goes_back_and_what_has_ended_stays_ended(steps in vec(select(&S::ALL[..]), 0..40)) {
        let life = follow(&steps);
        for pair in life.windows(2) {
            let again = pair == [S::Irrevocable, S::Irrevocable];
            prop_assert!(rank(pair[0]) < rank(pair[1]) || again, "{pair:?}");
            prop_assert!(pair[0].is_live(), "{pair:?}");
        }
        let being_ended = life.iter().position(|state| rank(*state) > 1).unwrap_or(life.len());
        let after = life.get(being_ended + 1..).unwrap_or_default();
        prop_assert!(after.iter().all(|state| rank(*state) > 1), "woken: {life:?}");
        prop_assert!(life.iter().skip(1).all(|state| *state != S::Opened));
    }

    #[test]
    fn b10_what_may_exist_is_due_at_some_time_and_nothing_is_due_never(
        state in select(&S::ALL[..]), deadline in 0_u64..4_000_000_000_000, end in 0_u64..4_000_000_000_000,
    ) {
        let (deadline, end) = (
            cambio::clock::Instant::from_milliseconds(deadline),
            cambio::clock::Instant::from_milliseconds(end),
        );
        let due = state.due(deadline, end);
        prop_assert_eq!(due.is_some(), state.is_live());
        let expected = match state {
            S::Opened | S::Unknown => Some(deadline),
            S::Active => Some(end),
            S::Revoking | S::Irrevocable => Some(cambio::clock::Instant::default()),
            S::Void | S::Revoked => None,
        };
        prop_assert_eq!(due, expected);
    }
}

#[test]
fn every_state_has_one_word_and_is_found_by_it() {
    for state in S::ALL {
        assert_eq!(S::of(state.as_str()), Some(state));
    }
    assert_eq!(S::of("Active"), None);
    assert_eq!(S::of(""), None);
}

/// Every state that a lease can be in, and the way there.
const WAYS: [(&[S], S); 7] = [
    (&[], S::Opened),
    (&[S::Active], S::Active),
    (&[S::Unknown], S::Unknown),
    (&[S::Void], S::Void),
    (&[S::Active, S::Revoking], S::Revoking),
    (&[S::Active, S::Revoking, S::Irrevocable], S::Irrevocable),
    (&[S::Active, S::Revoked], S::Revoked),
];

/// All 49 pairs twice: as a step of the reaper or an operator, and as the conclusion of a mint.
#[tokio::test]
async fn the_store_keeps_leases_as_the_table_says() {
    let bench = Bench::new();
    let mut number = 0;
    for (way, from) in WAYS {
        for to in S::ALL {
            for concluded in [false, true] {
                number += 1;
                let intent = bench.open(number).await;
                let step = async |step: LeaseState| {
                    let event = Event::Lease { id: intent.id, step, by: None };
                    bench.commit(Proposal::of(event)).await;
                };
                for state in way {
                    step(*state).await;
                }
                assert_eq!(bench.state(&intent), from);
                if concluded {
                    bench.conclude(number, &intent, to).await;
                } else {
                    step(to).await;
                }
                let expected = if to.may_follow(from) { to } else { from };
                assert_eq!(bench.state(&intent), expected, "{from:?} → {to:?}");
                let due = expected.due(NOW.plus(DEADLINE), NOW.plus(LIFETIME));
                let is_due_by = |by| {
                    let target = &intent.target;
                    let due = Leases::Due { target, by, skip: 0 };
                    let due = bench.reader().leases(due, 9_999).unwrap();
                    due.iter().any(|lease| lease.id == intent.id)
                };
                match due {
                    Some(due) => {
                        assert!(is_due_by(due), "{expected:?}");
                        let before = due.minus(std::time::Duration::from_millis(1));
                        assert_eq!(is_due_by(before), before == due, "{expected:?}");
                    }
                    None => {
                        assert!(!is_due_by(cambio::clock::Instant::from_milliseconds(u64::MAX)))
                    }
                }
            }
        }
    }
}
