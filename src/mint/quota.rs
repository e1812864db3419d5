//! How many logins one subject may hold at a server at once (threats V03, B05).
//!
//! A rate bounds how fast logins come, not how many there are: a tenant that takes one after another and keeps them open fills a
//! server, until nobody else gets in, the broker included, and then nothing can be ended there any more.
//!
//! Counted in memory, by target: a restart or a reload begins anew, so the bound is then twice as high until the older ones end.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::clock::{Clock, Instant};

/// Counts what is held.
#[derive(Debug)]
pub struct Quota {
    most: usize,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Subject → its logins, each with its end.
    held: HashMap<String, BTreeSet<(Instant, String)>>,
    /// Login → its subject.
    whose: HashMap<String, String>,
}

impl Quota {
    /// At most `most` for each subject.
    #[must_use]
    pub fn of(most: usize, clock: Arc<dyn Clock>) -> Self {
        Self { most, clock, state: Mutex::default() }
    }

    /// Whether `subject` may have one more, without counting it.
    ///
    /// # Errors
    /// Not before so long: then the first of those that it holds ends.
    pub fn has_room(&self, subject: &str) -> Result<(), Duration> {
        let now = self.clock.now();
        let mut state = self.state();
        state.forget_ended(subject, now);
        let Some(held) = state.held.get(subject).filter(|held| held.len() >= self.most) else {
            return Ok(());
        };
        let first = held.first().map_or(now, |(end, _)| *end);
        Err(first.since(now).max(Duration::from_secs(1)))
    }

    /// `subject` has the login called `name` until `end`.
    pub fn take(&self, subject: &str, name: &str, end: Instant) {
        let mut state = self.state();
        state.held.entry(subject.to_owned()).or_default().insert((end, name.to_owned()));
        state.whose.insert(name.to_owned(), subject.to_owned());
    }

    /// The login called `name` is gone.
    pub fn give_back(&self, name: &str) {
        let mut state = self.state();
        let Some(subject) = state.whose.remove(name) else { return };
        if let Some(held) = state.held.get_mut(&subject) {
            held.retain(|(_, held)| held != name);
            if held.is_empty() {
                state.held.remove(&subject);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What has ended by the clock is no longer held, even if its server was not reached yet: its lease goes on without us.
    fn forget_ended(&mut self, subject: &str, now: Instant) {
        let Some(held) = self.held.get_mut(subject) else { return };
        while let Some((end, name)) = held.pop_first() {
            if end > now {
                held.insert((end, name));
                break;
            }
            self.whose.remove(&name);
        }
        if held.is_empty() {
            self.held.remove(subject);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn v03_a_subject_that_holds_its_share_waits_and_nobody_else_does() {
        let clock = Arc::new(ManualClock::at(Instant::from_seconds(1_000)));
        let quota = Quota::of(2, Arc::clone(&clock) as Arc<dyn Clock>);
        quota.take("a", "first", Instant::from_seconds(1_060));
        assert_eq!(quota.has_room("a"), Ok(()));
        quota.take("a", "second", Instant::from_seconds(1_090));
        assert_eq!(quota.has_room("a"), Err(Duration::from_secs(60)));
        assert_eq!(quota.has_room("b"), Ok(()));
        quota.give_back("first");
        quota.give_back("nobody's");
        assert_eq!(quota.has_room("a"), Ok(()), "what was revoked makes room");
        quota.take("a", "third", Instant::from_seconds(1_120));
        assert_eq!(quota.has_room("a"), Err(Duration::from_secs(90)));
        clock.pass(Duration::from_secs(90));
        assert_eq!(quota.has_room("a"), Ok(()), "what has ended makes room");
        clock.pass(Duration::from_secs(30));
        assert_eq!(quota.has_room("a"), Ok(()));
        assert!(quota.state().held.is_empty() && quota.state().whose.is_empty(), "nothing is kept");
    }
}
