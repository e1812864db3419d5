//! Tells how grants with outside effects ended where nobody else did: the broker died between commit and conclusion, or the
//! conclusion could not be written.
//!
//! What it tells is only ever `unknown`, and later `ended`: it knows nothing of the target, and never releases a spend. A lease
//! is the reaper's to end.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    id::ExchangeId,
    ledger::{
        Change, Commit, Event, IntentStep, LeaseState, Proposal,
        reader::{LedgerReader, ReadError, StoredIntent},
    },
};

/// How often it looks. Longer than any mint takes, by a clock that nobody can set: what is still open at the second look has no
/// task any more.
const LOOK: Duration = Duration::from_secs(30);
/// How many intents are read at once.
const STRIDE: u32 = 256;

/// The dull loop over intents without an outcome.
#[derive(Debug)]
pub struct Resolver {
    reader: Arc<dyn LedgerReader>,
    ledger: Arc<dyn Commit>,
    clock: Arc<dyn Clock>,
    /// Entries before this one are of a process that has ended: the store has one writer.
    began: u64,
    /// Open past their deadline at the last look. A wall clock that steps ahead must not conclude what is under way.
    seen: BTreeSet<ExchangeId>,
}

impl Resolver {
    /// The resolver of a process that begins now: entries of `reader` so far are of earlier ones.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn of(
        reader: Arc<dyn LedgerReader>,
        ledger: Arc<dyn Commit>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ReadError> {
        let began = reader.size()?;
        Ok(Self { reader, ledger, clock, began, seen: BTreeSet::new() })
    }

    /// Looks at once, and then again and again until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            if let Err(error) = self.look().await {
                tracing::error!("unresolved grants can't be read: {error}");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// One look: tells what there is to tell; how many outcomes that were.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn look(&mut self) -> Result<usize, ReadError> {
        let (now, mut told) = (self.clock.now(), 0_usize);
        let earlier = std::mem::take(&mut self.seen);
        loop {
            let due = self.reader.intents_due(now, self.began, STRIDE)?;
            let (ready, waiting): (Vec<_>, Vec<_>) = due.into_iter().partition(|due| {
                due.unknown || due.index < self.began || earlier.contains(&due.exchange_id)
            });
            self.seen.extend(waiting.iter().map(|due| due.exchange_id));
            // At once, so that one flush covers them.
            let mut proposed = JoinSet::new();
            for due in &ready {
                let (ledger, proposal) = (Arc::clone(&self.ledger), self.outcome_of(due));
                proposed.spawn(async move { ledger.commit(proposal).await });
            }
            let mut written = 0_usize;
            while let Some(outcome) = proposed.join_next().await {
                match outcome {
                    Ok(Ok(_)) => written = written.saturating_add(1),
                    Ok(Err(error)) => tracing::error!("an outcome was not recorded: {error}"),
                    Err(error) => tracing::error!("an outcome was not recorded: {error}"),
                }
            }
            told = told.saturating_add(written);
            // More than are read at once only while all of them are written; the next look goes on.
            let more = ready.len() >= STRIDE as usize && written == ready.len();
            if !more {
                return Ok(told);
            }
        }
    }

    fn outcome_of(&self, due: &StoredIntent) -> Proposal {
        let over = due.intent.worst_end <= self.clock.now();
        let lease = due.intent.lease;
        let (outcome, step) = match (over, lease) {
            (true, None) => ("ended", IntentStep::Ended),
            (false, None) => ("unknown", IntentStep::Unknown),
            // From here on its lease tells of it.
            (_, Some(_)) => ("unknown", IntentStep::Settled),
        };
        let change = Change::Concluded {
            release: None,
            lease: lease.map(|id| (id, LeaseState::Unknown)),
            intent: Some(step),
        };
        let event = Event::Concluded { exchange_id: due.exchange_id, outcome };
        if !due.unknown {
            tracing::warn!(
                exchange.id = %due.exchange_id, target.name = %due.intent.target,
                "exchange `{}` had no conclusion: it is `{outcome}`", due.exchange_id
            );
        }
        Proposal { change: Some(change), ..Proposal::of(event) }
    }
}
