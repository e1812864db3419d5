//! What an agent does with a credential that a [`super::Keeper`] keeps fresh: into its files, on with its command, and out of the way when
//! it is over. One [`Ward`] for each credential; nothing here asks a broker.

use std::{pin::Pin, sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    ClientError, Kept,
    files::{Destination, Written},
    keeper::Trouble,
};

pub mod board;
pub mod command;
pub mod missing;

pub use board::{Board, Entry};
pub use command::OnChange;

use board::Counters;

/// How long after a file could not be written it is tried again: a volume that is full, or not there yet.
const AGAIN: Duration = Duration::from_secs(5);

/// One credential, and where it goes.
#[derive(Debug)]
pub struct Ward {
    /// Its name.
    pub name: String,
    /// The files that it is written to.
    pub files: Vec<Destination>,
    /// What runs after it changed.
    pub on_change: Option<OnChange>,
    /// Its state.
    pub kept: watch::Receiver<Arc<Kept>>,
    /// What is counted.
    pub counters: Arc<Counters>,
}

/// What was done with which state.
#[derive(Debug, Default)]
struct Done {
    generation: u64,
    /// Whether everything of this generation is where it belongs.
    placed: bool,
    written: Vec<Written>,
    failures: u32,
    ended: bool,
    /// Whether the command has to run.
    due: bool,
}

/// The command, while it runs.
type Running = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

impl Ward {
    /// Goes with the credential until `stop`, then removes the files that it wrote: nobody would renew them any more.
    ///
    /// The command runs meanwhile: one that hangs keeps neither this credential's files nor another one's. What comes while it runs
    /// has it run once more.
    pub async fn tend(mut self, stop: CancellationToken) {
        let mut running: Option<Running> = None;
        for file in &self.files {
            self.counters.files.is_missing(&self.name, &file.path);
        }
        let mut done = Done { placed: true, ..Done::default() };
        loop {
            let kept = Arc::clone(&self.kept.borrow_and_update());
            self.told(&kept, &mut done);
            if kept.issued.is_some() {
                if kept.generation != done.generation || !done.placed {
                    self.arrived(&kept, &mut done);
                }
            } else if done.generation > 0 && !done.ended {
                done.ended = true;
                // An expired secret helps nobody but whoever finds it; and a program that finds no file says what is wrong.
                let at = kept.ends_at().map(|at| format!(" at `{at}`")).unwrap_or_default();
                warn!(
                    credential.name = self.name,
                    "credential `{}` ended{at}, and there is no new one: its files are removed",
                    self.name
                );
                for written in &done.written {
                    self.counters.files.is_missing(&self.name, written.path());
                }
                removed(&mut done.written);
                // It would find nothing.
                done.due = false;
            }
            if done.due && running.is_none() {
                done.due = false;
                running = self.command();
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                ended = end_of(&mut running) => {
                    running = None;
                    self.ran(ended);
                }
                changed = self.kept.changed() => if changed.is_err() { break },
                () = tokio::time::sleep(AGAIN), if !done.placed => {}
            }
        }
        // It is killed before its files go.
        drop(running);
        removed(&mut done.written);
    }

    /// Puts what came into its files, and has the command run.
    fn arrived(&self, kept: &Kept, done: &mut Done) {
        let Some(issued) = &kept.issued else { return };
        let new = kept.generation != done.generation;
        if new {
            self.counters.renewed(&self.name);
            let ends = issued.ends.map(|ends| ends.to_string());
            info!(
                credential.name = self.name,
                exchange.id = issued.exchange_id,
                "credential `{}` is new, until `{}`",
                self.name,
                ends.as_deref().unwrap_or("an unknown end"),
            );
        }
        *done = Done {
            generation: kept.generation,
            placed: true,
            ended: false,
            written: std::mem::take(&mut done.written),
            failures: done.failures,
            due: done.due,
        };
        for file in &self.files {
            match file.write(issued) {
                Ok(written) => {
                    self.counters.files.is_there(&self.name, &file.path);
                    done.written.retain(|old| old.path() != written.path());
                    done.written.push(written);
                }
                Err(error) => {
                    done.placed = false;
                    self.counters.unwritten(&self.name);
                    self.counters.files.is_missing(&self.name, &file.path);
                    // Once for each credential: what is tried every few seconds must not fill the log.
                    if new {
                        let (name, why) = (&self.name, told(&error));
                        warn!(
                            credential.name = name,
                            "credential `{name}` can't be written: {why}"
                        );
                    }
                }
            }
        }
        done.due = done.placed;
    }

    /// The command, begun.
    fn command(&self) -> Option<Running> {
        let (on_change, name) = (self.on_change.clone()?, self.name.clone());
        Some(Box::pin(async move { on_change.run(&name).await }))
    }

    fn ran(&self, ended: Result<(), String>) {
        self.counters.ran(&self.name, ended.is_ok());
        let name = &self.name;
        match ended {
            Ok(()) => info!(credential.name = name, "the command of `{name}` is done"),
            // Tried again with the next credential: a reload that fails must not keep this one from those who can use it.
            Err(why) => warn!(credential.name = name, "the command of `{name}` failed: {why}"),
        }
    }

    /// One line when it begins, and one when it is over; the rest is counted.
    fn told(&self, kept: &Kept, done: &mut Done) {
        let Some(Trouble { what, failures, .. }) = &kept.trouble else {
            if std::mem::take(&mut done.failures) > 0 {
                info!(credential.name = self.name, "credential `{}` is renewed again", self.name);
            }
            return;
        };
        if done.failures == 0 {
            let until = kept.issued.as_ref().map(|issued| issued.ends.map(|ends| ends.to_string()));
            let until = match until {
                Some(Some(ends)) => format!("the last one is good until `{ends}`"),
                Some(None) => "the last one is used".to_owned(),
                None => "there is none".to_owned(),
            };
            warn!(
                credential.name = self.name,
                "credential `{}` could not be had, {until}: {}",
                self.name,
                told(what),
            );
        }
        self.counters.failed(&self.name, what.fault, failures.saturating_sub(done.failures));
        done.failures = *failures;
    }
}

/// The end of what runs; never, where nothing does.
async fn end_of(running: &mut Option<Running>) -> Result<(), String> {
    match running {
        Some(running) => running.await,
        None => std::future::pending().await,
    }
}

fn removed(all: &mut Vec<Written>) {
    for written in all.drain(..) {
        if let Err(error) = written.remove() {
            warn!("a file of a credential is still there: {}", told(&error));
        }
    }
}

/// One line, with the way out.
#[must_use]
pub fn told(error: &ClientError) -> String {
    let text = match &error.hint {
        Some(hint) => format!("{}; {hint}", error.message),
        None => error.message.clone(),
    };
    // The broker's words are in it, and a log has one line for each.
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
