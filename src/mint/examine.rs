//! What `cambio doctor` asks a target: can it be reached, and has our user there just enough rights?

use std::fmt;

use async_trait::async_trait;

use super::login::LoginError;

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

/// That there was nothing to look at: where we wanted to go, as whom, and where to look for the mistake.
pub(super) fn no_connection(user: &str, host: &str, port: u16, error: &LoginError) -> Finding {
    let said = error.to_string();
    let mentions = |words: &[&str]| words.iter().any(|word| said.contains(word));
    let advice = if mentions(&["can't be read", "no line of text", "trust roots"]) {
        "mend that file"
    } else if mentions(&["certificate", "UnknownIssuer"]) {
        "see `tls.ca_file`, and whether its certificate carries `host`"
    } else if mentions(&["authentication", "Access denied", "WRONGPASS"]) {
        "see `user` and `password_file`, and from where the server lets it in"
    } else if mentions(&["lookup"]) {
        "see `host`"
    } else {
        "see `host`, `port` and `kind`, and whether the server runs"
    };
    let detail = format!("{said}; tried as `{user}` at `{host}:{port}`: {advice}");
    Finding { verdict: Verdict::Bad, detail }
}
