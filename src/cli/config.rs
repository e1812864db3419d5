//! `cambio config`: what is wrong with a configuration, all of it at once.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;

use super::{Failure, Talk, render};
use crate::{
    app::{self, Mode},
    clock::{Clock as _, SystemClock},
    config,
};

/// The configuration.
#[derive(Debug, Subcommand)]
pub(super) enum Config {
    /// Check a configuration and the files that it names: all problems at once, with line and column
    Check {
        /// The configuration
        file: PathBuf,
    },
    /// Write the JSON Schema of the configuration to stdout
    Schema,
}

pub(super) fn run(config: &Config, talk: &mut Talk) -> Result<(), Failure> {
    match config {
        Config::Check { file } => check(file, talk),
        Config::Schema => {
            talk.line(format_args!("{:#}", config::Config::schema()));
            Ok(())
        }
    }
}

fn check(file: &Path, talk: &mut Talk) -> Result<(), Failure> {
    let (problems, warnings) = match config::Config::read(file) {
        Ok((_, warnings)) => (Vec::new(), warnings),
        Err(problems) => (problems, Vec::new()),
    };
    render::report(talk, &problems, &warnings, json!({}));
    let name = file.display();
    if let Ok((config, _)) = config::Config::read(file) {
        app::preflight(&config, Mode::Serve, SystemClock.now())
            .map_err(|error| Failure::usage(format!("`{name}`: {error}")))?;
    }
    if problems.is_empty() {
        talk.say(format_args!(
            "No problem in `{name}`: `cambio doctor` looks at policies, ledger and broker."
        ));
        return Ok(());
    }
    Err(Failure::usage(format!("{} in `{name}`", render::count(problems.len(), "problem"))))
}

/// The configuration in `file`, for verbs that need one.
pub(super) fn load(file: &Path) -> Result<config::Config, Failure> {
    told(file, config::Config::read(file))
}

/// The configuration in `file`, for an instance that serves by it.
pub(super) fn load_to_serve(file: &Path) -> Result<config::Config, Failure> {
    told(file, config::Config::read_to_serve(file))
}

/// The configuration in `file`, for who makes the folders that it names and then serves by it.
pub(super) fn load_to_make(file: &Path) -> Result<config::Config, Failure> {
    told(file, config::Config::read_to_make(file))
}

fn told(file: &Path, judged: config::Judged) -> Result<config::Config, Failure> {
    judged.map(|(config, _)| config).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        let count = render::count(problems.len(), "problem");
        Failure::usage(format!("{count} in `{}`\n{}", file.display(), lines.join("\n")))
    })
}
