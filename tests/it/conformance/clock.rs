//! The battery of `Clock`.

use std::{sync::Arc, thread, time::Duration};

use cambio::clock::{Clock, Instant, ManualClock, SystemClock};

fn holds(clock: &Arc<dyn Clock>) {
    // Duty 1: many may ask at once, and each gets an answer.
    let askers: Vec<_> = (0..8)
        .map(|_| {
            let clock = Arc::clone(clock);
            thread::spawn(move || (0..1_000).map(|_| clock.now()).max())
        })
        .collect();
    for asker in askers {
        assert!(asker.join().unwrap().is_some(), "duty 1");
    }
    // Duty 2: a moment of our times, in milliseconds: a unit mixed up is off by a thousand.
    let year_2026 = Instant::from_seconds(1_767_225_600);
    let year_2100 = Instant::from_seconds(4_102_444_800);
    assert!((year_2026..year_2100).contains(&clock.now()), "duty 2");
    // Duty 3.
    let all: Vec<_> = (0..1_000).map(|_| clock.elapsed()).collect();
    assert!(all.is_sorted() && !all[0].is_zero(), "duty 3");
}

#[test]
fn the_wall_clock_tells_the_time() {
    holds(&(Arc::new(SystemClock) as Arc<dyn Clock>));
}

#[test]
fn a_manual_clock_tells_the_time_and_steps_either_way() {
    let begin = Instant::from_seconds(1_800_000_000);
    let clock = Arc::new(ManualClock::at(begin));
    holds(&(Arc::clone(&clock) as Arc<dyn Clock>));
    clock.pass(Duration::from_millis(1_500));
    assert_eq!(clock.now().since(begin), Duration::from_millis(1_500));
    clock.set(begin.minus(Duration::from_secs(60)));
    assert_eq!(begin.since(clock.now()), Duration::from_secs(60));
}
