//! Orphans: what carries our mark at a target and has no live lease (threat B03). Left by a lost store, or made by a hand.

use std::{collections::BTreeSet, sync::Arc};

use tokio::task::JoinSet;

use super::{Gone, RevokeError, Revoker, reaper::Reaper, tries::Work};
use crate::{
    grant::TargetName,
    ledger::{Event, Proposal, reader::Leases},
};

impl Reaper {
    /// Ends every orphan, at all targets at once: one that hangs holds up nobody else.
    pub async fn look_for_orphans(self: &Arc<Self>) {
        let mut searches = JoinSet::new();
        for (target, revoker) in self.revokers.load().iter() {
            let Some(busy) = self.tries.begin(Work::Search(target.clone())) else { continue };
            let (this, target, revoker) = (Arc::clone(self), target.clone(), Arc::clone(revoker));
            searches.spawn(async move {
                let _busy = busy;
                this.search(&target, &*revoker).await;
            });
        }
        while searches.join_next().await.is_some() {}
    }

    /// A lease is durable before its object exists: what was listed first, and has no lease afterwards, has none now or never
    /// had one. What is there still when it is listed again was not ended with its lease in between.
    async fn search(&self, target: &TargetName, revoker: &dyn Revoker) {
        let strange = match revoker.objects().await {
            Ok(found) if found.is_empty() => return,
            Ok(found) => self.without_lease(target, found),
            Err(error) => return not_listed(target, &error),
        };
        if strange.is_empty() {
            return;
        }
        let still: BTreeSet<String> = match revoker.objects().await {
            Ok(found) => found.into_iter().collect(),
            Err(error) => return not_listed(target, &error),
        };
        for object in strange.iter().filter(|object| still.contains(*object)) {
            self.end_orphan(target, object, revoker).await;
        }
    }

    /// What of `found` has no live lease. Nothing, if nobody knows.
    fn without_lease(&self, target: &TargetName, found: Vec<String>) -> Vec<String> {
        let live = match self.reader.leases(Leases::Live, u32::MAX) {
            Ok(live) => live,
            Err(error) => {
                tracing::error!("leases can't be read: {error}");
                return Vec::new();
            }
        };
        let here = live.into_iter().filter(|lease| lease.target == *target);
        let known: BTreeSet<String> = here.map(|lease| lease.object).collect();
        found.into_iter().filter(|object| !known.contains(object)).collect()
    }

    /// The entry first. A ledger that can't write ends no orphan: a broker that was started over yesterday's copy of the store
    /// is held until somebody says why (threat K07), and to it everything that was made since looks like one.
    async fn end_orphan(&self, target: &TargetName, object: &str, revoker: &dyn Revoker) {
        self.watch.failed(target, "orphan");
        if !self.tries.is_told(target, object) {
            let event = Event::Orphan { target: target.clone(), object: object.to_owned() };
            if let Err(error) = self.ledger.commit(Proposal::of(event)).await {
                tracing::error!(target.name = %target, "`{object}` has no lease, and is left alone because that can't be recorded: {error}");
                return;
            }
            self.tries.told(target, object, true);
        }
        match revoker.revoke(object).await {
            Ok(Gone::Ended | Gone::Absent) => {
                self.tries.told(target, object, false);
                tracing::error!(target.name = %target, "`{object}` had no lease and was ended");
            }
            Err(error) => {
                tracing::error!(target.name = %target, "`{object}` has no lease and can't be ended: {error}");
            }
        }
    }
}

fn not_listed(target: &TargetName, error: &RevokeError) {
    tracing::warn!(target.name = %target, "orphans can't be looked for: {error}");
}
