//! The reaper: ends what is due, goes on until it has ended, and says so while it has not.
//!
//! One sweep per target at a time, with no more calls at once than the target takes; a target that can't be reached holds up
//! nobody else's leases. What was tried and failed stands in memory alone: a restart tries everything again at once.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Gone, RevokeError, Revoker, Revokers,
    tries::{Busy, Tries, Trouble, Work},
};
use crate::{
    chance::Chance,
    clock::{Clock, Instant},
    grant::TargetName,
    ledger::{
        Commit, Event, LeaseState, Proposal,
        reader::{Leases, LedgerReader, ReadError, StoredLease},
    },
};

/// How long the reaper sleeps at most: a wall clock that steps is noticed within it.
const LOOK: Duration = Duration::from_millis(500);
/// How long it sleeps at least.
const BREATH: Duration = Duration::from_millis(20);
/// How soon it looks again for what is not there yet, and may still come.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// How many leases are read at once.
const STRIDE: u32 = 256;
/// After so many failures a lease is `irrevocable`: alarmed, and tried for ever (threat B04).
const IRREVOCABLE_AFTER: u32 = 5;
/// How often targets are asked for what carries our mark and has no lease.
const LOOK_FOR_ORPHANS: Duration = Duration::from_secs(60);

/// Told of what the reaper does: metrics.
pub trait Watch: fmt::Debug + Send + Sync {
    /// A lease has ended, so long after it was due.
    fn ended(&self, target: &TargetName, late: Duration);

    /// One try failed; `kind` is a closed label.
    fn failed(&self, target: &TargetName, kind: &'static str);
}

/// Ends leases.
#[derive(Debug)]
pub struct Reaper {
    pub(super) reader: Arc<dyn LedgerReader>,
    pub(super) ledger: Arc<dyn Commit>,
    /// Swapped by a reload.
    pub(super) revokers: ArcSwap<Revokers>,
    clock: Arc<dyn Clock>,
    pub(super) watch: Arc<dyn Watch>,
    wake: Notify,
    pub(super) tries: Arc<Tries>,
}

impl Reaper {
    /// A reaper of the leases in `reader`, which writes down to `ledger` what it did.
    #[must_use]
    pub fn of(
        reader: Arc<dyn LedgerReader>,
        ledger: Arc<dyn Commit>,
        revokers: Revokers,
        (clock, chance): (Arc<dyn Clock>, Arc<dyn Chance>),
        watch: Arc<dyn Watch>,
    ) -> Self {
        Self {
            reader,
            ledger,
            revokers: ArcSwap::from_pointee(revokers),
            clock: Arc::clone(&clock),
            watch,
            wake: Notify::new(),
            tries: Arc::new(Tries::of(clock, chance)),
        }
    }

    /// Puts other revokers in force: after a reload. What failed before is tried at once.
    pub fn adopt(&self, revokers: Revokers) {
        self.revokers.store(Arc::new(revokers));
        self.tries.forget_all();
        self.wake();
    }

    /// Looks at once: something was revoked.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// What could not be done so far.
    #[must_use]
    pub fn troubles(&self) -> Vec<Trouble> {
        self.tries.troubles()
    }

    /// The loop; ends when `stop` is cancelled. What it starts runs on `tracker`.
    pub async fn run(self: Arc<Self>, tracker: TaskTracker, stop: CancellationToken) {
        let mut orphans_at = self.clock.now();
        while !stop.is_cancelled() {
            let now = self.clock.now();
            if let Err(error) = self.look(&tracker, &stop) {
                tracing::error!("leases can't be read: {error}");
            }
            // The second half: after the wall clock was set back.
            if now >= orphans_at || orphans_at.since(now) > LOOK_FOR_ORPHANS {
                orphans_at = now.plus(LOOK_FOR_ORPHANS);
                let (this, stop) = (Arc::clone(&self), stop.clone());
                tracker.spawn(async move {
                    tokio::select! {
                        () = this.look_for_orphans() => {}
                        () = stop.cancelled() => {}
                    }
                });
            }
            let until_due = match self.reader.next_due(now) {
                Ok(Some(next)) => next.since(now).clamp(BREATH, LOOK),
                Ok(None) | Err(_) => LOOK,
            };
            tokio::select! {
                () = tokio::time::sleep(until_due) => {}
                () = self.wake.notified() => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// One look: on `tracker`, starts a sweep of each target that has something due, does not rest and is not being swept.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn look(
        self: &Arc<Self>,
        tracker: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<(), ReadError> {
        let counts = self.reader.lease_counts(self.clock.now())?;
        let due: BTreeSet<TargetName> =
            counts.into_iter().filter(|count| count.due > 0).map(|count| count.target).collect();
        self.tries.keep(&due);
        for target in due {
            if self.tries.rests(&target) {
                continue;
            }
            let Some(busy) = self.tries.begin(Work::Sweep(target.clone())) else { continue };
            let (this, stop) = (Arc::clone(self), stop.clone());
            tracker.spawn(async move {
                let _busy = busy;
                if let Err(error) = this.sweep(&target, &stop).await {
                    tracing::error!(target.name = %target, "leases can't be read: {error}");
                }
            });
        }
        Ok(())
    }

    /// Ends what is due at one target, until nothing is or the target can't be reached. A call that hangs holds up its own
    /// place, and nothing else: what becomes due meanwhile is not kept waiting for it.
    async fn sweep(
        self: &Arc<Self>,
        target: &TargetName,
        stop: &CancellationToken,
    ) -> Result<(), ReadError> {
        let found = self.revokers.load().find(target).cloned();
        let Some(revoker) = found else {
            self.tries.unreachable(target, "the target is not in the configuration");
            return Ok(());
        };
        let goes_on = || !stop.is_cancelled() && !self.tries.rests(target);
        let mut running = JoinSet::new();
        let mut outcome = Ok(());
        loop {
            let due = if goes_on() && outcome.is_ok() { self.due(target) } else { Ok(Vec::new()) };
            let due = due.unwrap_or_else(|error| {
                outcome = Err(error);
                Vec::new()
            });
            let mut begun = false;
            for lease in due {
                while running.len() >= revoker.at_once() && running.join_next().await.is_some() {}
                if !goes_on() {
                    break;
                }
                let Some(busy) = self.place(&lease, revoker.at_once()) else { continue };
                begun = true;
                let (this, revoker) = (Arc::clone(self), Arc::clone(&revoker));
                running.spawn(async move {
                    let _busy = busy;
                    let _survived = Survived(&this.tries, &lease);
                    this.end(&lease, &*revoker).await;
                });
            }
            if begun {
                continue;
            }
            tokio::select! {
                ended = running.join_next() => if ended.is_none() {
                    return outcome;
                },
                () = tokio::time::sleep(LOOK), if goes_on() => {}
            }
        }
    }

    /// A place to end `lease` on. Those that were tried before have half of the places, so that a few that hang do not keep the
    /// others from being ended, nor new logins from being made (threat B04).
    fn place(&self, lease: &StoredLease, at_once: usize) -> Option<(Busy, Option<Busy>)> {
        let again = if self.tries.was_tried(lease.id) {
            let place = |number| self.tries.begin(Work::Again(lease.target.clone(), number));
            Some((0..at_once.div_ceil(2).max(1)).find_map(place)?)
        } else {
            None
        };
        Some((self.tries.begin(Work::End(lease.id))?, again))
    }

    /// What is due at `target` and was not tried a moment ago; first what was never tried.
    fn due(&self, target: &TargetName) -> Result<Vec<StoredLease>, ReadError> {
        let by = self.clock.now();
        let (mut skip, mut again) = (0, Vec::new());
        loop {
            let due = self.reader.leases(Leases::Due { target, by, skip }, STRIDE)?;
            let last = due.len() < STRIDE as usize;
            let free = due.into_iter().filter(|lease| !self.tries.lease_rests(lease.id));
            let (tried, mut fresh): (Vec<_>, Vec<_>) =
                free.partition(|lease| self.tries.was_tried(lease.id));
            again.extend(tried);
            if last || !fresh.is_empty() {
                fresh.append(&mut again);
                return Ok(fresh);
            }
            skip = skip.saturating_add(STRIDE);
        }
    }

    async fn end(&self, lease: &StoredLease, revoker: &dyn Revoker) {
        match revoker.revoke(&lease.object).await {
            // What is not there before the mint deadline may still come (threat B03).
            Ok(Gone::Absent) if self.clock.now() < lease.mint_deadline => {
                self.tries.reached(&lease.target);
                let soon = self.clock.now().plus(LOOK_AGAIN);
                self.tries.postpone(lease, soon.min(lease.mint_deadline));
            }
            Ok(Gone::Ended | Gone::Absent) => {
                self.tries.reached(&lease.target);
                if self.write(lease, LeaseState::Revoked).await {
                    self.tries.done(lease.id);
                    let now = self.clock.now();
                    let late = due_at(lease).map(|due| now.since(due)).unwrap_or_default();
                    self.watch.ended(&lease.target, late);
                } else {
                    // It is still due: a ledger that can't write must not have us ask the target a thousand times a second.
                    self.tries.rest(lease);
                }
            }
            Err(RevokeError::Unreachable(reason)) => {
                self.watch.failed(&lease.target, "unreachable");
                self.tries.unreachable(&lease.target, &reason);
            }
            Err(RevokeError::Lost(reason)) => {
                self.watch.failed(&lease.target, "unreachable");
                self.tries.unreachable(&lease.target, &reason);
                self.tries.rest(lease);
            }
            Err(RevokeError::Failed(reason)) => {
                self.watch.failed(&lease.target, "failed");
                self.tries.reached(&lease.target);
                let failures = self.tries.failed(lease, &reason);
                tracing::warn!(
                    lease.id = %lease.id, target.name = %lease.target,
                    "lease `{}` can't be ended, try {failures}: {reason}", lease.id
                );
                // Not only the fifth time: that it was not recorded then must not leave it without an alarm.
                if failures >= IRREVOCABLE_AFTER && lease.state != LeaseState::Irrevocable {
                    self.write(lease, LeaseState::Irrevocable).await;
                }
            }
        }
    }

    async fn write(&self, lease: &StoredLease, step: LeaseState) -> bool {
        let event = Event::Lease { id: lease.id, step, by: None };
        let written = self.ledger.commit(Proposal::of(event)).await;
        if let Err(error) = &written {
            // The next start looks again, which harms nobody: `revoke` is idempotent.
            let step = step.as_str();
            tracing::error!(lease.id = %lease.id, "lease `{}` is {step}, and that was not recorded: {error}", lease.id);
        }
        written.is_ok()
    }
}

/// A defect of ours is a failure of the lease that it met, so that it is not met again and again without a pause (threat V06).
struct Survived<'a>(&'a Tries, &'a StoredLease);

impl Drop for Survived<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.failed(self.1, "a defect: the ending died");
        }
    }
}

/// A lease that was revoked on request was due when it was asked for, which nobody wrote down.
fn due_at(lease: &StoredLease) -> Option<Instant> {
    let due = lease.state.due(lease.mint_deadline, lease.worst_end)?;
    (due > Instant::default()).then_some(due)
}
