//! The environment and the files of the machine we run on, handed in: nothing here reads a variable of the process.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fmt,
    path::{Path, PathBuf},
};

/// The variables of a process, captured once. Their values may be tokens: they do not print.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    /// These variables.
    #[must_use]
    pub fn of(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        Self(variables.into_iter().collect())
    }

    /// The value of `name`. A variable that is empty, or not UTF-8, is as good as none: platforms set unused ones to "".
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&str> {
        let value = self.0.get(OsStr::new(name))?.to_str()?;
        (!value.trim_ascii().is_empty()).then_some(value)
    }

    /// All of them, for a child process.
    pub fn all(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.0.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Environment({} variables)", self.0.len())
    }
}

/// Where the client runs: its variables, and the root below which it looks for the files of platforms.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The variables.
    pub environment: Environment,
    root: PathBuf,
}

impl Machine {
    /// This machine.
    #[must_use]
    pub fn of(environment: Environment) -> Self {
        Self { environment, root: PathBuf::from("/") }
    }

    /// A machine whose files lie below `root`: for tests.
    #[must_use]
    pub const fn below(environment: Environment, root: PathBuf) -> Self {
        Self { environment, root }
    }

    /// Where an absolute `path` of a platform lies here.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(Path::new(path).strip_prefix("/").unwrap_or_else(|_| Path::new(path)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_is_none_and_no_value_prints() {
        let variables = [("FULL", "hush"), ("EMPTY", ""), ("BLANK", " ")];
        let environment = Environment::of(variables.map(|(n, v)| (n.into(), v.into())));
        assert_eq!(environment.find("FULL"), Some("hush"));
        assert_eq!(environment.find("EMPTY").or(environment.find("BLANK")), None);
        assert_eq!(format!("{environment:?}"), "Environment(3 variables)");
    }
}
