//! The dull loops beside the listeners: checkpoints, roll-up, rotation, watching, gauges.

use std::{collections::BTreeSet, os::unix::fs::MetadataExt as _, sync::Arc, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use crate::{
    app::State,
    config::Config,
    grant::IssuerName,
    ledger::{Commit, Proposal, checkpoint, facts::Facts, writer::Watch},
    telemetry::Metrics,
};

/// How often the files of policies, certificates and issuers' states are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// How many unknown claims are told of in the log: a hostile issuer must not fill it.
const MOST_DRIFT: usize = 64;

/// Starts them all on `tracker`. Those that write end with `stop_ledger`, the others with `stop`.
pub fn start(
    state: &Arc<State>,
    checkpointer: checkpoint::Checkpointer,
    tracker: &TaskTracker,
    (stop, stop_ledger): (&CancellationToken, &CancellationToken),
) {
    checkpoint::keep_checkpointing(
        checkpointer,
        state.anchors.clone(),
        Arc::clone(&state.means.clock),
        stop_ledger.clone(),
        tracker,
    );
    Arc::clone(&state.rotator).run(tracker, stop.clone());
    tracker.spawn(Arc::clone(state.ending.reaper()).run(tracker.clone(), stop.clone()));
    if let Some(tls) = &state.tls {
        tracker.spawn(Arc::clone(tls).watch(LOOK, stop.clone()));
    }
    let (here, stop_here) = (Arc::clone(state), stop.clone());
    tracker.spawn(async move {
        let mut drift = BTreeSet::new();
        let mut seen = fingerprint(&here.config.load());
        loop {
            tokio::select! {
                () = stop_here.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            here.note_rollup(false);
            here.measure();
            here.tell_of_drift(&mut drift);
            here.look_at_anchors().await;
            let config = here.config.load_full();
            if !config.policies.watch {
                continue;
            }
            let now = fingerprint(&config);
            if now != seen {
                seen = now;
                info!("the policy directory changed");
                // Its failure is told where it is handled; the set in force stays.
                let _told = here.reload().await;
            }
        }
    });
}

/// What a change of the policy directory changes: names, sizes, times of its files (of what they say, and of whose they are), and of what it links to (a Kubernetes
/// volume swaps a symbolic link). Looking is enough: a change is in force within seconds, and nothing is missed as with
/// notifications on network or overlay mounts.
fn fingerprint(config: &Config) -> Vec<(String, u64, [i64; 4])> {
    let directories =
        std::iter::once(&config.policies.directory).chain(&config.policies.guardrails);
    let mut files = Vec::new();
    for directory in directories {
        let Ok(entries) = std::fs::read_dir(directory) else {
            files.push((format!("{} is gone", directory.display()), 0, [0; 4]));
            continue;
        };
        for entry in entries.flatten() {
            if let Ok(metadata) = std::fs::metadata(entry.path()) {
                let name = entry.path().display().to_string();
                // A file that others may change from now on is told of, not only once it was changed (threat K12).
                let (written, changed) = (metadata.mtime(), metadata.ctime());
                let times = [written, metadata.mtime_nsec(), changed, metadata.ctime_nsec()];
                files.push((name, metadata.len(), times));
            }
        }
    }
    files.sort();
    files
}

/// Flushes as metrics.
#[derive(Debug)]
pub struct Flushes(pub Arc<Metrics>);

impl Watch for Flushes {
    fn flushed(&self, entries: u64, took: Duration, size: u64) {
        self.0.committed(u32::try_from(entries).unwrap_or(u32::MAX), took, size);
    }
}

impl State {
    /// Notes the roll-up of strangers' refusals, if its minute is over or `all` is wanted.
    pub(in crate::app) fn note_rollup(&self, all: bool) {
        let event = if all { self.rollup.rest() } else { self.rollup.due(self.means.clock.now()) };
        if let Some(event) = event {
            self.writer.note(Proposal::of(event));
        }
    }

    /// Sets the gauges that nobody else sets, and what readiness tells of them: first before anybody can ask, and then by the loop.
    pub(in crate::app) fn measure(&self) {
        for issuer in self.exchange.scene.load().verifier.issuers().iter() {
            let state = issuer.keys.state();
            self.metrics.issuer_keys(&issuer.name, state.fetched_at, state.fetches);
        }
        let records = self.rotator.keyring().records();
        for phase in ["prepared", "active", "retired", "withdrawn"] {
            let count = records.iter().filter(|record| record.phase.to_string() == phase).count();
            self.metrics.keys(phase, count);
        }
        match self.reader.lease_counts(self.means.clock.now()) {
            Ok(counts) => {
                let told = counts.iter().map(|it| (&it.target, it.state.as_str(), it.live, it.due));
                let troubles = self.ending.reaper().troubles();
                self.metrics.leases(told, troubles.iter().map(|trouble| &trouble.target));
            }
            Err(error) => tracing::error!("leases can't be counted: {error}"),
        }
        if let Some(tls) = &self.tls {
            self.metrics.certificate_ends(tls.ends());
        }
        match self.reader.unknown_outcomes() {
            Ok(unknown) => {
                self.metrics.unknown_outcomes(unknown.iter().map(|it| (&it.target, it.count)));
                self.unknown.store(Some(Arc::new(unknown)));
            }
            Err(error) => tracing::error!("unknown outcomes can't be counted: {error}"),
        }
        self.metrics.queued(u64::try_from(self.writer.waiting()).unwrap_or(u64::MAX));
        self.metrics.notes_dropped(self.writer.dropped());
    }

    /// Claims that a platform sends and its preset does not know (threat C18): told once each, counted always. Looked for in the
    /// newest entry's facts, so that exchanges do not pay for it.
    fn tell_of_drift(&self, known: &mut BTreeSet<(IssuerName, String)>) {
        let newest = self.writer.head().size.checked_sub(1);
        let entry = newest.and_then(|index| self.reader.entry(index).ok().flatten());
        let facts = entry.and_then(|entry| entry.facts).and_then(|kept| Facts::read(&kept.json));
        let Some(facts) = facts else { return };
        let issuer = IssuerName::from(facts.issuer.as_str());
        let scene = self.exchange.scene.load();
        let issuers = scene.verifier.issuers();
        let Some(preset) = issuers.named(&issuer).map(|found| found.preset) else { return };
        // A preset that knows no claims but `sub` can't tell what is new.
        if preset.name == "generic" {
            return;
        }
        for claim in preset.unaccounted(&facts.claims) {
            self.metrics.unaccounted_claim(&issuer);
            if known.len() < MOST_DRIFT && known.insert((issuer.clone(), claim.to_owned())) {
                warn!(subject.issuer = %issuer, "`{issuer}` sends a claim that we do not know: `{}`", claim.escape_debug());
            }
        }
    }

    /// Whether every anchor holds the newest checkpoint: a gauge, and a detail of readiness.
    async fn look_at_anchors(&self) {
        let Ok(Some(newest)) = self.reader.newest_checkpoint() else { return };
        self.metrics.checkpointed(newest.time);
        let mut behind = Vec::new();
        for anchor in &self.anchors {
            let current = match anchor.newest().await {
                Ok(Some(anchored)) if anchored.size >= newest.size => true,
                Ok(_) => {
                    behind.push(format!("{} is behind", anchor.name()));
                    false
                }
                Err(error) => {
                    behind.push(error.to_string());
                    false
                }
            };
            self.metrics.anchored(anchor.name(), current);
        }
        let behind = (!behind.is_empty()).then(|| Arc::new(behind.join("; ")));
        self.anchor_trouble.store(behind);
    }
}
