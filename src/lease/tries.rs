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
    busy: BTreeSet<Work>,
    leases: HashMap<LeaseId, Failure>,
    targets: BTreeMap<TargetName, Failure>,
    orphans: BTreeSet<(TargetName, String)>,
}

/// What is done by one task at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Work {
    /// Ending what is due at a target.
    Sweep(TargetName),
    /// Looking for orphans at a target.
    Search(TargetName),
    /// Ending a lease.
    End(LeaseId),
    /// Ending one at a target that was tried before, on one of a few places for those.
    Again(TargetName, usize),
}

/// Work under way: over when this drops, however it ended. A defect must not keep a target from being swept ever again.
#[derive(Debug)]
pub(super) struct Busy {
    tries: Arc<Tries>,
    work: Work,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.tries.state().busy.remove(&self.work);
    }
}

#[derive(Clone, Debug)]
struct Failure {
    target: TargetName,
    since: Instant,
    /// How often it failed in a way that means something is wrong with it.
    count: u32,
    /// How many pauses there were: what its next one is counted by.
    pauses: u32,
    again: Instant,
    pause: Duration,
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

    /// Begins `work`, unless it is under way.
    pub(super) fn begin(self: &Arc<Self>, work: Work) -> Option<Busy> {
        let free = self.state().busy.insert(work.clone());
        free.then(|| Busy { tries: Arc::clone(self), work })
    }

    /// Forgets what failed at targets where nothing is due any more: somebody else ended it.
    pub(super) fn keep(&self, due: &BTreeSet<TargetName>) {
        let mut state = self.state();
        state.leases.retain(|_, failure| due.contains(&failure.target));
        state.targets.retain(|target, _| due.contains(target));
    }

    /// Whether the ledger tells of this orphan already.
    pub(super) fn is_told(&self, target: &TargetName, object: &str) -> bool {
        self.state().orphans.contains(&(target.clone(), object.to_owned()))
    }

    /// The ledger tells of this orphan now; or it is gone, and would be told of again.
    pub(super) fn told(&self, target: &TargetName, object: &str, told: bool) {
        let orphan = (target.clone(), object.to_owned());
        let mut state = self.state();
        if told {
            state.orphans.insert(orphan);
        } else {
            state.orphans.remove(&orphan);
        }
    }

    pub(super) fn rests(&self, target: &TargetName) -> bool {
        let now = self.clock.now();
        self.state().targets.get(target).is_some_and(|failure| failure.rests(now))
    }

    /// Whether a lease is being ended just now, or was tried a moment ago.
    pub(super) fn lease_rests(&self, id: LeaseId) -> bool {
        let now = self.clock.now();
        let state = self.state();
        state.busy.contains(&Work::End(id))
            || state.leases.get(&id).is_some_and(|failure| failure.rests(now))
    }

    /// Whether it was tried before, and was not ended.
    pub(super) fn was_tried(&self, id: LeaseId) -> bool {
        self.state().leases.get(&id).is_some_and(|failure| failure.pauses > 0)
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
        let now = self.clock.now();
        let rest =
            Failure { again: until, pause: until.since(now), ..Failure::new(&lease.target, now) };
        self.state().leases.insert(lease.id, rest);
    }

    /// Nobody knows whether anything is wrong with this lease; the others go first, so that a few that hang do not keep all
    /// the others from being ended (threat B04).
    pub(super) fn rest(&self, lease: &StoredLease) {
        let now = self.clock.now();
        let mut state = self.state();
        let failure =
            state.leases.entry(lease.id).or_insert_with(|| Failure::new(&lease.target, now));
        self.pause(failure, now);
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
        reason.clone_into(&mut failure.reason);
        self.pause(failure, now);
        failure.count
    }

    /// Doubled each time, and up to a quarter shorter by chance, so that not all come back at once.
    fn pause(&self, failure: &mut Failure, now: Instant) {
        let doubled = FIRST_PAUSE.saturating_mul(1 << failure.pauses.min(8));
        let pause = doubled.min(LONGEST_PAUSE);
        let mut byte = [0];
        // Without randomness they come back together, which is slower and not wrong.
        let _ = self.chance.fill(&mut byte);
        failure.pauses = failure.pauses.saturating_add(1);
        failure.pause = pause.saturating_sub(pause.mul_f64(f64::from(byte[0]) / 1_024.0));
        failure.again = now.plus(failure.pause);
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
        let (target, pause) = (target.clone(), Duration::ZERO);
        let reason = String::new();
        Self { target, since: now, count: 0, pauses: 0, again: now, pause, reason }
    }

    fn rests(&self, now: Instant) -> bool {
        // More than the whole pause is left only after the wall clock was set back: that must not make a pause of hours.
        let left = self.again.since(now);
        !left.is_zero() && left <= self.pause
    }

    fn trouble(&self) -> Trouble {
        let (target, reason) = (self.target.clone(), self.reason.clone());
        Trouble { target, since: None, leases: 0, reason }
    }
}
