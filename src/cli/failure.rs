//! Why a verb did not do what it was asked for.

use std::fmt;

use super::Exit;

/// Words for stderr, and the exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    exit: Exit,
    message: String,
    hint: Option<String>,
    told: bool,
}

impl Failure {
    /// It was refused, or a check failed: exit code 1.
    pub fn refused(message: impl fmt::Display) -> Self {
        Self { exit: Exit::Refused, message: message.to_string(), hint: None, told: false }
    }

    /// Wrong usage or a wrong configuration: exit code 2.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self { exit: Exit::Usage, message: message.to_string(), hint: None, told: false }
    }

    /// Somebody who is needed could not be reached: exit code 3.
    pub fn unreachable(message: impl fmt::Display) -> Self {
        Self { exit: Exit::Unreachable, message: message.to_string(), hint: None, told: false }
    }

    /// The same, with what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// The same, with what it is about in front.
    #[must_use]
    pub fn about(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// The same, with what follows from it at the end.
    #[must_use]
    pub fn also(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{}; {what}", self.message);
        self
    }

    /// The same, where stdout has said already what there is to say, to a program that reads stderr too.
    #[must_use]
    pub const fn told(mut self) -> Self {
        self.told = true;
        self
    }

    /// Whether nothing is left to say.
    #[must_use]
    pub const fn is_told(&self) -> bool {
        self.told
    }

    /// The words, and what to do about it, on one line.
    #[must_use]
    pub fn words(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{}; {hint}", self.message),
            None => self.message.clone(),
        }
    }

    /// The words, without the hint.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The exit code that it leads to.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}
