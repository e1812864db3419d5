//! Installation tokens that this process has handed out and can still end.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{clock::Instant, secret::Secret};

/// The tokens by their lease's object, in memory alone; wiped when they end, and when the process does.
///
/// One for all targets and all reloads of a process. An entry is forgotten when its hour is over: it never holds more than
/// what was issued within one.
#[derive(Debug, Default)]
pub struct HeldTokens(Mutex<HashMap<String, Held>>);

/// What is known of a token.
#[derive(Clone, Debug)]
pub(super) enum Held {
    /// It may be good.
    Live(Secret),
    /// GitHub has said that it is none, or no longer one.
    Ended,
}

impl HeldTokens {
    /// Keeps `token` until the object's end; and forgets what has ended by `now`.
    pub(super) fn keep(&self, object: &str, token: Secret, now: Instant) {
        let mut held = self.held();
        held.retain(|object, _| parts(object).is_some_and(|(_, ends)| now < ends));
        held.insert(object.to_owned(), Held::Live(token));
    }

    /// What is known of `object`; nothing, if another process made it.
    pub(super) fn find(&self, object: &str) -> Option<Held> {
        self.held().get(object).cloned()
    }

    /// GitHub has ended it: asked again, we say so again.
    pub(super) fn ended(&self, object: &str) {
        self.held().insert(object.to_owned(), Held::Ended);
    }

    fn held(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a lease calls the token: our name for it, and the instant by which GitHub has ended it in any case.
pub(super) fn object(name: &str, ends: Instant) -> String {
    format!("{name}@{}", ends.seconds().saturating_add(1))
}

/// Name and end of an [`object`].
pub(super) fn parts(object: &str) -> Option<(&str, Instant)> {
    let (name, ends) = object.split_once('@')?;
    Some((name, Instant::from_seconds(ends.parse().ok()?)))
}
