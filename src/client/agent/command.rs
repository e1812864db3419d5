//! What runs after a credential changed: a reload, mostly.

use std::{process::Stdio, time::Duration};

use rustix::{
    fs::{Access, access},
    process::{Pid, Signal, kill_process_group},
};
use tokio::process::Command;

use crate::client::ClientError;

/// A command, as its argument list: no shell looks at it, and no secret is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnChange {
    /// The program, by its whole path.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// How long it may take; then it is killed, with everything that it started in its process group.
    pub deadline: Duration,
    /// Its environment. Not that of the agent, where platforms put what subject tokens are asked for with.
    pub environment: Vec<(String, String)>,
}

/// Whether `program` of the credential called `name` is there and ours to run: before anything is asked for, not after the first
/// renewal.
///
/// # Errors
/// It is not there, is no file, or may not be executed by us.
pub fn look(name: &str, program: &str) -> Result<(), ClientError> {
    let found = std::fs::metadata(program).and_then(|found| {
        if !found.is_file() {
            return Err(std::io::Error::other("is no file, expected a program"));
        }
        Ok(access(program, Access::EXEC_OK)?)
    });
    found.map_err(|error| {
        ClientError::usage(format!("`on_change` of `{name}`: `{program}`: {error}"))
            .hint("name a program that the agent's user can run, by its whole path")
    })
}

impl OnChange {
    /// Runs it to its end, for the credential called `name`: `CAMBIO_CREDENTIAL` in its environment.
    ///
    /// # Errors
    /// It could not be started, did not end in time, or said by its exit code that it failed.
    pub async fn run(&self, name: &str) -> Result<(), String> {
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env("CAMBIO_CREDENTIAL", name)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("`{}`: {error}", self.program))?;
        // Declared behind the child, and so dropped before it is waited for: its number is still its own.
        let mut group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
        let ended = tokio::time::timeout(self.deadline, child.wait()).await;
        let Ok(ended) = ended else {
            return Err(format!(
                "`{}` did not end in {} s, and was killed",
                self.program,
                self.deadline.as_secs()
            ));
        };
        group.0 = None;
        match ended {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("`{}` ended with {status}", self.program)),
            Err(error) => Err(format!("`{}`: {error}", self.program)),
        }
    }
}

/// What is killed where the command is not waited for to its end: it took too long, or the agent ends.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Whoever left the group is on its own.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}
