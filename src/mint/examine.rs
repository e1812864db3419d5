//! What `cambio doctor` asks a target: can it be reached, and has our user there just enough rights?

use std::fmt;

use async_trait::async_trait;

/// How something was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It works, and is more than is needed, or less safe than it could be.
    Unwise,
    /// Credentials can't be made or ended like this.
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How it was found.
    pub verdict: Verdict,
    /// What was found, what was expected, what to do; never a secret.
    pub detail: String,
}

/// Looks at a target without changing anything there.
///
/// Duties, held by `tests/it/databases/`:
///
/// 1. nothing is created, changed or ended;
/// 2. a right that is missing is [`Verdict::Bad`], one too many is [`Verdict::Unwise`]; each names the statement that mends it.
#[async_trait]
pub trait Examine: fmt::Debug + Send + Sync {
    /// Everything that was looked at, in the order in which a person would.
    async fn examine(&self) -> Vec<Finding>;
}
