//! Refusals of strangers: counted per minute and reason, so that a flood of bad tokens can't fill the ledger (threat A11).
//!
//! The newest of them are kept in memory with their details, for `policy explain`; they are gone after a restart.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{clock::Instant, id::ExchangeId, ledger::Event};

/// How many refusals are kept with details.
const KEPT: usize = 1_024;

/// How long a detail may be, in characters: a stranger chose its length.
const DETAIL: usize = 512;

/// How many different reasons are counted apart. Reasons are a closed set of ours; this is for the case that one is not.
const REASONS: usize = 128;

/// How long a rollup covers.
const MINUTE: Duration = Duration::from_mins(1);

/// A refusal that has no entry of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranger {
    /// What the caller was told.
    pub exchange_id: ExchangeId,
    /// When.
    pub at: Instant,
    /// [`crate::refusal::Refusal::reason`].
    pub reason: &'static str,
    /// The operator's words, at most 512 characters.
    pub detail: String,
}

/// Counts refusals of strangers.
#[derive(Debug, Default)]
pub struct Rollup(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    from: Option<Instant>,
    counts: BTreeMap<&'static str, u64>,
    kept: VecDeque<Stranger>,
}

impl Rollup {
    /// Counts one refusal and keeps its details for a while.
    pub fn count(&self, mut stranger: Stranger) {
        let mut state = self.state();
        state.from.get_or_insert(stranger.at);
        let known = state.counts.len() < REASONS || state.counts.contains_key(stranger.reason);
        let count = state.counts.entry(if known { stranger.reason } else { "other" }).or_default();
        *count = count.saturating_add(1);
        if let Some((end, _)) = stranger.detail.char_indices().nth(DETAIL) {
            stranger.detail.truncate(end);
        }
        if state.kept.len() >= KEPT {
            state.kept.pop_front();
        }
        state.kept.push_back(stranger);
    }

    /// The rollup of a minute that is over, to be noted in the ledger.
    pub fn due(&self, now: Instant) -> Option<Event> {
        let mut state = self.state();
        // A clock that was set back ends the minute too: what was counted must not wait for the clock to catch up.
        match state.from {
            Some(from) if now < from || now.since(from) >= MINUTE => state.flush(),
            _ => None,
        }
    }

    /// What was counted since: at shutdown.
    pub fn rest(&self) -> Option<Event> {
        self.state().flush()
    }

    /// A refusal that is still kept.
    #[must_use]
    pub fn recent(&self, exchange_id: ExchangeId) -> Option<Stranger> {
        self.state().kept.iter().rev().find(|it| it.exchange_id == exchange_id).cloned()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn flush(&mut self) -> Option<Event> {
        let from = self.from.take()?;
        let counts = mem::take(&mut self.counts);
        let counts = counts.into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect();
        Some(Event::RolledUp { from, counts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::SeededChance;

    fn stranger(seed: u64, at: Instant, reason: &'static str) -> Stranger {
        let exchange_id = ExchangeId::make(at, &SeededChance::of(seed)).unwrap();
        Stranger { exchange_id, at, reason, detail: "x".repeat(2_000) }
    }

    #[test]
    fn a11_a_flood_becomes_one_entry_a_minute_and_a_bounded_ring() {
        let rollup = Rollup::default();
        let start = Instant::from_seconds(1_800_000_000);
        for seed in 0..3_000 {
            rollup.count(stranger(
                seed,
                start,
                if seed % 3 == 0 { "expired" } else { "malformed" },
            ));
        }
        assert_eq!(rollup.due(start.plus(Duration::from_millis(59_999))), None);
        let counts = vec![("expired".to_owned(), 1_000), ("malformed".to_owned(), 2_000)];
        let event = Event::RolledUp { from: start, counts };
        assert_eq!(rollup.due(start.plus(MINUTE)), Some(event));
        assert_eq!(rollup.due(start.plus(MINUTE * 9)), None, "counted once");
        let id = |seed| stranger(seed, start, "expired").exchange_id;
        assert_eq!(rollup.recent(id(0)), None, "the ring is bounded");
        let kept = rollup.recent(id(2_999)).unwrap();
        assert_eq!((kept.reason, kept.detail.len()), ("malformed", 512));
    }

    #[test]
    fn a_clock_set_back_ends_the_minute() {
        let rollup = Rollup::default();
        let start = Instant::from_seconds(1_800_000_000);
        rollup.count(stranger(1, start, "expired"));
        assert!(rollup.due(start.minus(MINUTE)).is_some());
    }
}
