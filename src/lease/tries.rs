//! What was tried and did not work: pauses that grow, per target and per lease, and what to say of it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    chance::Chance,
    clock::{Clock, Instant},
    grant::TargetName,
    id::LeaseId,
    ledger::reader::StoredLease,
};

/// The first pause after a failure; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest: a target that is back is noticed within it.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// What the reaper was not able to do so far, at one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Where.
    pub target: TargetName,
    /// Since when it can't be reached; `None` where it can, and single leases can't be ended.
    pub since: Option<Instant>,
    /// How many leases failed of late.
    pub leases: usize,
    /// What the target said last.
    pub reason: String,
}

/// The memory of the reaper.
#[derive(Debug)]
pub(super) struct Tries {
    clock: Arc<dyn Clock>,
    chance: Arc<dyn Chance>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    sweeping: BTreeSet<TargetName>,
    leases: HashMap<LeaseId, Failure>,
    targets: BTreeMap<TargetName, Failure>,
}

#[derive(Clone, Debug)]
struct Failure {
    target: TargetName,
    since: Instant,
    count: u32,
    again: Instant,
    reason: String,
}

impl Tries {
    pub(super) fn of(clock: Arc<dyn Clock>, chance: Arc<dyn Chance>) -> Self {
        Self { clock, chance, state: Mutex::default() }
    }

    pub(super) fn forget_all(&self) {
        let mut state = self.state();
        state.leases.clear();
        state.targets.clear();
    }

    /// Whether a sweep of `target` may begin: it is not being swept, and does not rest.
    pub(super) fn begin(&self, target: &TargetName) -> bool {
        !self.rests(target) && self.state().sweeping.insert(target.clone())
    }

    pub(super) fn end(&self, target: &TargetName) {
        self.state().sweeping.remove(target);
    }

    pub(super) fn rests(&self, target: &TargetName) -> bool {
        let now = self.clock.now();
        self.state().targets.get(target).is_some_and(|failure| failure.rests(now))
    }

    pub(super) fn lease_rests(&self, id: LeaseId) -> bool {
        let now = self.clock.now();
        self.state().leases.get(&id).is_some_and(|failure| failure.rests(now))
    }

    pub(super) fn done(&self, id: LeaseId) {
        self.state().leases.remove(&id);
    }

    pub(super) fn reached(&self, target: &TargetName) {
        if self.state().targets.remove(target).is_some() {
            tracing::info!(target.name = %target, "`{target}` can be reached again");
        }
    }

    /// Nothing is wrong, it is only too early.
    pub(super) fn postpone(&self, lease: &StoredLease, until: Instant) {
        let (target, since) = (lease.target.clone(), self.clock.now());
        let rest = Failure { target, since, count: 0, again: until, reason: String::new() };
        self.state().leases.insert(lease.id, rest);
    }

    /// One more failure of a lease; tells how many there were.
    pub(super) fn failed(&self, lease: &StoredLease, reason: &str) -> u32 {
        let now = self.clock.now();
        let mut state = self.state();
        let failure =
            state.leases.entry(lease.id).or_insert_with(|| Failure::new(&lease.target, now));
        self.count(failure, now, reason)
    }

    /// One more failure to reach a target. The calls of one sweep that fail together are one.
    pub(super) fn unreachable(&self, target: &TargetName, reason: &str) {
        let now = self.clock.now();
        let mut state = self.state();
        let failure =
            state.targets.entry(target.clone()).or_insert_with(|| Failure::new(target, now));
        if failure.rests(now) {
            return;
        }
        let (count, since) = (self.count(failure, now, reason), failure.since);
        drop(state);
        tracing::warn!(target.name = %target, "leases of `{target}` can't be ended since {since}, try {count}: {reason}");
    }

    fn count(&self, failure: &mut Failure, now: Instant, reason: &str) -> u32 {
        failure.count = failure.count.saturating_add(1);
        failure.again = now.plus(self.pause(failure.count));
        reason.clone_into(&mut failure.reason);
        failure.count
    }

    /// Doubled each time, and up to a quarter shorter by chance, so that not all come back at once.
    fn pause(&self, failures: u32) -> Duration {
        let doubled = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(8));
        let pause = doubled.min(LONGEST_PAUSE);
        let mut byte = [0];
        // Without randomness they come back together, which is slower and not wrong.
        let _ = self.chance.fill(&mut byte);
        pause.saturating_sub(pause.mul_f64(f64::from(byte[0]) / 1_024.0))
    }

    pub(super) fn troubles(&self) -> Vec<Trouble> {
        let state = self.state();
        let down = state.targets.values().map(|failure| {
            (failure.target.clone(), Trouble { since: Some(failure.since), ..failure.trouble() })
        });
        let mut troubles: BTreeMap<TargetName, Trouble> = down.collect();
        for failure in state.leases.values().filter(|failure| failure.count > 0) {
            let trouble =
                troubles.entry(failure.target.clone()).or_insert_with(|| failure.trouble());
            trouble.leases = trouble.leases.saturating_add(1);
        }
        troubles.into_values().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Failure {
    fn new(target: &TargetName, now: Instant) -> Self {
        Self { target: target.clone(), since: now, count: 0, again: now, reason: String::new() }
    }

    fn rests(&self, now: Instant) -> bool {
        // A wall clock that was set back must not make a pause of hours; a postponed lease is due again when its time comes.
        now < self.again && self.since <= now
    }

    fn trouble(&self) -> Trouble {
        let (target, reason) = (self.target.clone(), self.reason.clone());
        Trouble { target, since: None, leases: 0, reason }
    }
}
