//! The gate before a target: how much at once, and none at all while the target does not answer (threat V03).

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::Semaphore;

use crate::clock::{Clock, Instant};

/// So many failures in a row close the gate.
const FAILURES: u32 = 3;
/// The first pause of a closed gate; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause: a target that came back is noticed within it.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// How a call at a target ended, as far as the gate is concerned.
pub trait Answered {
    /// Whether the target was there: a refusal is an answer, too.
    fn answered(&self) -> bool;
}

/// One target's gate, shared by everything that calls it.
#[derive(Debug)]
pub struct Gate {
    places: Arc<Semaphore>,
    at_once: usize,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// Until when it is closed, and how long that was when it closed.
    closed: Option<(Instant, Duration)>,
    /// One caller is trying whether the target is back.
    trying: bool,
}

/// Why a call was not made, or has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotPassed {
    /// The gate is closed for so long.
    Closed(Duration),
    /// No place became free in time; nothing was begun.
    Full,
    /// It was begun, and did not end in time.
    TimedOut,
}

impl Gate {
    /// A gate with `at_once` places.
    #[must_use]
    pub fn of(at_once: usize, clock: Arc<dyn Clock>) -> Self {
        let at_once = at_once.max(1);
        Self { places: Arc::new(Semaphore::new(at_once)), at_once, clock, state: Mutex::default() }
    }

    /// How many calls may be under way at once.
    #[must_use]
    pub const fn at_once(&self) -> usize {
        self.at_once
    }

    /// Whether a call would be let in now, without counting as one.
    ///
    /// # Errors
    /// The gate is closed for so long.
    pub fn is_open(&self) -> Result<(), Duration> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        closed(&state, self.clock.now()).map_or(Ok(()), Err)
    }

    /// Makes one call, within `limit` from now on, waiting for a place included.
    ///
    /// # Errors
    /// It was not made, or did not end in time.
    pub async fn pass<T: Answered>(
        &self,
        limit: Duration,
        call: impl Future<Output = T> + Send,
    ) -> Result<T, NotPassed> {
        let deadline = tokio::time::Instant::now().checked_add(limit);
        let deadline = deadline.ok_or(NotPassed::Full)?;
        let place = tokio::time::timeout_at(deadline, self.places.acquire()).await;
        let _place = place.ok().and_then(Result::ok).ok_or(NotPassed::Full)?;
        let turn = self.enter().map_err(NotPassed::Closed)?;
        let done = tokio::time::timeout_at(deadline, call).await;
        turn.ended(done.as_ref().is_ok_and(Answered::answered));
        done.map_err(|_| NotPassed::TimedOut)
    }

    /// When the pause is over one caller tries; the others wait for what it finds.
    fn enter(&self) -> Result<Turn<'_>, Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(left) = closed(&state, self.clock.now()) {
            return Err(left);
        }
        state.trying = state.closed.is_some();
        Ok(Turn { gate: self, tries: state.trying })
    }
}

fn closed(state: &State, now: Instant) -> Option<Duration> {
    let (until, pause) = state.closed?;
    match until.since(now) {
        // More than the whole pause is left only after the wall clock was set back, by hours perhaps: then it is over, too.
        left if left.is_zero() || left > pause => state.trying.then_some(FIRST_PAUSE),
        left => Some(left),
    }
}

/// One call under way.
struct Turn<'a> {
    gate: &'a Gate,
    tries: bool,
}

impl Turn<'_> {
    fn ended(self, answered: bool) {
        let mut state = self.gate.state.lock().unwrap_or_else(PoisonError::into_inner);
        if answered {
            *state = State::default();
            return;
        }
        state.failures = state.failures.saturating_add(1);
        if state.failures >= FAILURES {
            let doubled = state.failures.saturating_sub(FAILURES).min(8);
            let pause = FIRST_PAUSE.saturating_mul(1 << doubled).min(LONGEST_PAUSE);
            state.closed = Some((self.gate.clock.now().plus(pause), pause));
        }
    }
}

/// A call that was dropped half-way says nothing of the target, and must not keep the gate closed.
impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.tries {
            self.gate.state.lock().unwrap_or_else(PoisonError::into_inner).trying = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    impl Answered for bool {
        fn answered(&self) -> bool {
            *self
        }
    }

    fn gate(at_once: usize) -> (Arc<ManualClock>, Gate) {
        let clock = Arc::new(ManualClock::at(Instant::from_seconds(1_000)));
        (Arc::clone(&clock), Gate::of(at_once, clock))
    }

    const LIMIT: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn v03_a_target_that_does_not_answer_is_left_alone_for_longer_and_longer() {
        let (clock, gate) = gate(4);
        for _ in 0..FAILURES {
            assert_eq!(gate.pass(LIMIT, async { false }).await, Ok(false));
        }
        assert_eq!(gate.is_open(), Err(FIRST_PAUSE));
        assert_eq!(gate.pass(LIMIT, async { true }).await, Err(NotPassed::Closed(FIRST_PAUSE)));
        clock.pass(FIRST_PAUSE);
        assert_eq!(gate.pass(LIMIT, async { false }).await, Ok(false));
        assert_eq!(gate.is_open(), Err(FIRST_PAUSE.saturating_mul(2)));
        clock.pass(Duration::from_secs(2));
        assert_eq!(gate.pass(LIMIT, async { true }).await, Ok(true));
        assert_eq!(gate.is_open(), Ok(()));
        assert_eq!(gate.pass(LIMIT, async { false }).await, Ok(false));
        assert_eq!(gate.is_open(), Ok(()), "one failure is none");
    }

    #[tokio::test]
    async fn v04_a_wall_clock_that_is_set_back_does_not_keep_a_gate_closed() {
        let (clock, gate) = gate(4);
        for _ in 0..FAILURES {
            let _ = gate.pass(LIMIT, async { false }).await;
        }
        clock.set(Instant::from_seconds(10));
        assert_eq!(gate.is_open(), Ok(()));
        assert_eq!(gate.pass(LIMIT, async { true }).await, Ok(true));
    }

    #[tokio::test]
    async fn one_caller_tries_whether_it_is_back() {
        let (clock, gate) = gate(4);
        for _ in 0..FAILURES {
            let _ = gate.pass(LIMIT, async { false }).await;
        }
        clock.pass(FIRST_PAUSE);
        let second =
            gate.pass(LIMIT, async { gate.pass(LIMIT, async { true }).await.is_err() }).await;
        assert_eq!(second, Ok(true), "the second was let in beside the first");
        assert_eq!(gate.is_open(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_in_time_and_so_does_waiting_for_a_place() {
        let (_, gate) = gate(1);
        let slow = async {
            tokio::time::sleep(LIMIT.saturating_mul(9)).await;
            true
        };
        let (slow, second) =
            tokio::join!(gate.pass(LIMIT, slow), gate.pass(LIMIT / 2, async { true }));
        assert_eq!((slow, second), (Err(NotPassed::TimedOut), Err(NotPassed::Full)));
        assert_eq!(gate.pass(LIMIT, async { true }).await, Ok(true), "the place is free again");
    }
}
