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
    tries::{Tries, Trouble},
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
const BREATH: Duration = Duration::from_millis(5);
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
    reader: Arc<dyn LedgerReader>,
    ledger: Arc<dyn Commit>,
    /// Swapped by a reload.
    revokers: ArcSwap<Revokers>,
    clock: Arc<dyn Clock>,
    watch: Arc<dyn Watch>,
    wake: Notify,
    tries: Tries,
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
            tries: Tries::of(clock, chance),
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
            if let Err(error) = self.sweep_all(&tracker, &stop) {
                tracing::error!("leases can't be read: {error}");
            }
            if now >= orphans_at {
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

    /// Starts a sweep of each target that has something due and is not being swept.
    fn sweep_all(
        self: &Arc<Self>,
        tracker: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<(), ReadError> {
        let counts = self.reader.lease_counts(self.clock.now())?;
        let due: BTreeSet<TargetName> =
            counts.into_iter().filter(|count| count.due > 0).map(|count| count.target).collect();
        for target in due {
            if !self.tries.begin(&target) {
                continue;
            }
            let (this, stop) = (Arc::clone(self), stop.clone());
            tracker.spawn(async move {
                if let Err(error) = this.sweep(&target, &stop).await {
                    tracing::error!(target.name = %target, "leases can't be read: {error}");
                }
                this.tries.end(&target);
            });
        }
        Ok(())
    }

    /// Ends what is due at one target, until nothing is or the target can't be reached.
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
        while !stop.is_cancelled() {
            let due = self.due(target)?;
            if due.is_empty() {
                return Ok(());
            }
            let mut running = JoinSet::new();
            for lease in due {
                if running.len() >= revoker.at_once() {
                    running.join_next().await;
                }
                if stop.is_cancelled() || self.tries.rests(target) {
                    break;
                }
                let (this, revoker) = (Arc::clone(self), Arc::clone(&revoker));
                running.spawn(async move { this.end(&lease, &*revoker).await });
            }
            while running.join_next().await.is_some() {}
            if self.tries.rests(target) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// What is due at `target` and was not tried a moment ago.
    fn due(&self, target: &TargetName) -> Result<Vec<StoredLease>, ReadError> {
        let by = self.clock.now();
        let mut skip = 0;
        loop {
            let due = self.reader.leases(Leases::Due { target, by, skip }, STRIDE)?;
            let last = due.len() < STRIDE as usize;
            let free: Vec<_> =
                due.into_iter().filter(|lease| !self.tries.lease_rests(lease.id)).collect();
            if last || !free.is_empty() {
                return Ok(free);
            }
            skip = skip.saturating_add(STRIDE);
        }
    }

    async fn end(&self, lease: &StoredLease, revoker: &dyn Revoker) {
        match revoker.revoke(&lease.object).await {
            // What is not there before the mint deadline may still come (threat B03).
            Ok(Gone::Absent) if self.clock.now() < lease.mint_deadline => {
                self.tries.reached(&lease.target);
                self.tries.postpone(lease, lease.mint_deadline);
            }
            Ok(Gone::Ended | Gone::Absent) => {
                self.tries.reached(&lease.target);
                self.tries.done(lease.id);
                if self.write(lease, LeaseState::Revoked).await {
                    let now = self.clock.now();
                    let late = due_at(lease).map(|due| now.since(due)).unwrap_or_default();
                    self.watch.ended(&lease.target, late);
                }
            }
            Err(RevokeError::Unreachable(reason)) => {
                self.watch.failed(&lease.target, "unreachable");
                self.tries.unreachable(&lease.target, &reason);
            }
            Err(RevokeError::Failed(reason)) => {
                self.watch.failed(&lease.target, "failed");
                self.tries.reached(&lease.target);
                let failures = self.tries.failed(lease, &reason);
                tracing::warn!(
                    lease.id = %lease.id, target.name = %lease.target,
                    "lease `{}` can't be ended, try {failures}: {reason}", lease.id
                );
                if failures == IRREVOCABLE_AFTER && lease.state != LeaseState::Irrevocable {
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

    /// Whatever carries our mark and has no live lease is ended (threat B03): left by a lost store, or made by a hand.
    ///
    /// A lease is durable before its object exists, so what was listed first and has no lease afterwards never had one.
    pub async fn look_for_orphans(&self) {
        let revokers = self.revokers.load_full();
        for (target, revoker) in revokers.iter() {
            let found = match revoker.objects().await {
                Ok(found) if found.is_empty() => continue,
                Ok(found) => found,
                Err(error) => {
                    tracing::warn!(target.name = %target, "orphans can't be looked for: {error}");
                    continue;
                }
            };
            let known: BTreeSet<String> = match self.reader.leases(Leases::Live, u32::MAX) {
                Ok(live) => live.into_iter().map(|lease| lease.object).collect(),
                Err(error) => {
                    tracing::error!("leases can't be read: {error}");
                    return;
                }
            };
            for object in found.into_iter().filter(|object| !known.contains(object)) {
                self.end_orphan(target, &object, &**revoker).await;
            }
        }
    }

    async fn end_orphan(&self, target: &TargetName, object: &str, revoker: &dyn Revoker) {
        match revoker.revoke(object).await {
            // A lease that was ended in between.
            Ok(Gone::Absent) => {}
            Ok(Gone::Ended) => {
                self.watch.failed(target, "orphan");
                tracing::error!(target.name = %target, "`{object}` had no lease and was ended");
                let event = Event::Orphan { target: target.clone(), object: object.to_owned() };
                if let Err(error) = self.ledger.commit(Proposal::of(event)).await {
                    tracing::error!(target.name = %target, "an orphan was ended, and that was not recorded: {error}");
                }
            }
            Err(error) => {
                self.watch.failed(target, "orphan");
                tracing::error!(target.name = %target, "`{object}` has no lease and can't be ended: {error}");
            }
        }
    }
}

/// A lease that was revoked on request was due when it was asked for, which nobody wrote down.
fn due_at(lease: &StoredLease) -> Option<Instant> {
    let due = lease.state.due(lease.mint_deadline, lease.worst_end)?;
    (due > Instant::default()).then_some(due)
}
