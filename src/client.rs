//! The other side of the exchange: what runs in a job, a pod or on a laptop. It finds the token that the platform hands out,
//! brings it to a broker, and writes what came back as the next program wants it.
//!
//! It knows nothing of the server's stages: what it knows of a broker is RFC 8693.

use std::fmt;

pub mod agent;
pub mod ambient;
pub mod child;
pub mod credential;
pub mod endpoint;
pub mod environment;
pub mod errand;
pub mod exchange;
pub mod files;
pub mod folder;
pub mod format;
pub mod handover;
pub mod keeper;
pub mod retry;
pub mod revoke;
pub mod said;

pub use credential::Credential;
pub use environment::{Environment, Machine};
pub use errand::{Acquired, Errand, Subject, TokenSource};
pub use exchange::{Answer, Asked, Broker, Issued, Refused};
pub use format::Format;
pub use keeper::{Keeper, Kept};
pub use retry::{Patience, Waiting};
pub use revoke::Lease;

/// Whose move it is when the client could not do what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Somebody said no: the platform, or the broker.
    Refused,
    /// The command line, the job's definition or a file is not as it must be.
    Usage,
    /// Somebody who is needed did not answer, or asked to come back later than there was time for.
    Unreachable,
}

/// Why there is no credential. Never holds a token or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientError {
    /// Whose move it is.
    pub fault: Fault,
    /// What was found and what was expected.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Whether a credential may have been made that nobody has: the request may have arrived, and its answer did not.
    pub unsure: bool,
    /// A lease that was made all the same, and that is not ended.
    pub lease: Option<Lease>,
}

impl ClientError {
    /// Somebody said no.
    pub fn refused(message: impl fmt::Display) -> Self {
        Self::of(Fault::Refused, &message)
    }

    /// The caller has to change something.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::of(Fault::Usage, &message)
    }

    /// Somebody who is needed did not answer.
    pub fn unreachable(message: impl fmt::Display) -> Self {
        Self::of(Fault::Unreachable, &message)
    }

    fn of(fault: Fault, message: &impl fmt::Display) -> Self {
        Self { fault, message: message.to_string(), hint: None, unsure: false, lease: None }
    }

    /// The same, where a credential may have been made that nobody has.
    #[must_use]
    pub const fn unsure(mut self) -> Self {
        self.unsure = true;
        self
    }

    /// The same, with what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ClientError {}
