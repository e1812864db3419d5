//! The command line. stdout is data, stderr is talk; exit codes 0 done, 1 refused, 2 usage or configuration, 3 not reachable.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod admin;
mod agent;
mod aside;
mod asking;
mod block;
mod config;
mod dev;
mod doctor;
mod exchange;
mod exec;
mod failure;
mod google;
mod harden;
mod http;
mod keys;
mod leases;
mod ledger;
mod notify;
mod policy;
mod render;
mod serve;
mod talk;
mod token;

pub use failure::Failure;
pub use talk::Talk;

/// An OIDC workload-identity federation broker: a secretless STS.
///
/// Bring the identity token you were born with, leave with exactly the short-lived credential that a policy grants you, and
/// a receipt that proves it. New here? `cambio dev` shows all of it on one machine.
#[derive(Debug, Parser)]
#[command(
    name = "cambio",
    version,
    max_term_width = 100,
    after_help = "Exit codes: 0 done, 1 refused, 2 usage or configuration, 3 not reachable."
)]
pub struct Arguments {
    /// Data as JSON, for machines
    #[arg(long, global = true)]
    pub json: bool,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show everything on one machine: broker, ledger and a sandbox issuer, on loopback
    Dev(dev::Dev),
    /// Run the broker
    Serve(serve::Serve),
    /// Check a configuration
    #[command(subcommand)]
    Config(config::Config),
    /// Write, check, test and explain trust policies
    #[command(subcommand)]
    Policy(policy::Policy),
    /// Set, list and lift blocks: durable denies that need no file
    #[command(subcommand)]
    Block(block::Block),
    /// List and end leases: credentials that the broker ends
    #[command(subcommand)]
    Leases(leases::Leases),
    /// List, rotate, withdraw, export and import our signing keys
    #[command(subcommand)]
    Keys(keys::Keys),
    /// Verify, prove, show and export the ledger
    #[command(subcommand)]
    Ledger(ledger::Ledger),
    /// Exchange this job's token for a credential (RFC 8693)
    Exchange(Box<exchange::Exchange>),
    /// Run a command with credentials: renewed while it runs, ended when it ends
    Exec(Box<exec::Exec>),
    /// Ask a command to end when `exec`, which began it, was killed
    #[command(name = exec::VERB, hide = true)]
    ExecWatch,
    /// Keep credentials fresh: in files, and for SDKs on loopback
    Agent(agent::Agent),
    /// Write files for Google's libraries
    #[command(subcommand)]
    Google(google::Google),
    /// Look at a configuration, its files and the running broker, and say what is wrong
    Doctor(doctor::Doctor),
    /// Print the version
    Version,
}

/// How a run of the command line ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything was done.
    Done,
    /// It was refused, or a check failed.
    Refused,
    /// Wrong usage or a wrong configuration.
    Usage,
    /// Somebody who is needed could not be reached.
    Unreachable,
    /// As a command ended that ran in our place.
    Of(u8),
}

impl Exit {
    /// The process's exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Refused => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Of(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

impl Arguments {
    /// Gives up what a command that holds keys or credentials does without. Before a second thread begins.
    ///
    /// # Errors
    /// The system refuses.
    pub fn harden(&self) -> Result<(), Failure> {
        match &self.verb {
            Verb::Serve(_) | Verb::Agent(_) => harden::harden(),
            Verb::Dev(_)
            | Verb::Config(_)
            | Verb::Policy(_)
            | Verb::Block(_)
            | Verb::Leases(_)
            | Verb::Keys(_)
            | Verb::Ledger(_)
            | Verb::Exchange(_)
            | Verb::Exec(_)
            | Verb::ExecWatch
            | Verb::Google(_)
            | Verb::Doctor(_)
            | Verb::Version => Ok(()),
        }
    }
}

/// Does what `arguments` ask for where that needs no runtime, or `None`: who looks after a command is there for as long as it runs, and a
/// runtime would be threads and memory for nothing.
pub fn run_alone(arguments: &Arguments, talk: &mut Talk) -> Option<Exit> {
    if !matches!(arguments.verb, Verb::ExecWatch) {
        return None;
    }
    Some(ended(exec::watch().map_err(Failure::refused), talk))
}

/// Does what `arguments` ask for, after [`Arguments::harden`] and [`run_alone`].
pub async fn run(arguments: Arguments, talk: &mut Talk) -> Exit {
    // One TLS stack for the whole process. `Err` means that it is already chosen.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let done = match arguments.verb {
        Verb::Dev(dev) => dev::run(dev, talk).await,
        Verb::Serve(serve) => serve::run(serve).await,
        Verb::Config(config) => config::run(&config, talk),
        Verb::Policy(policy) => policy::run(policy, talk).await,
        Verb::Block(block) => block::run(block, talk).await,
        Verb::Leases(leases) => leases::run(leases, talk).await,
        Verb::Keys(keys) => keys::run(keys, talk).await,
        Verb::Ledger(ledger) => ledger::run(ledger, talk).await,
        Verb::Exchange(exchange) => exchange::run(*exchange, talk).await,
        Verb::Exec(exec) => match exec::run(*exec, talk).await {
            Ok(exit) => return exit,
            Err(failure) => Err(failure),
        },
        Verb::ExecWatch => exec::watch().map_err(Failure::refused),
        Verb::Agent(agent) => agent::run(agent).await,
        Verb::Google(google) => google::run(&google, talk),
        Verb::Doctor(doctor) => doctor::run(doctor, talk).await,
        Verb::Version => {
            version(talk);
            Ok(())
        }
    };
    ended(done, talk)
}

fn ended(done: Result<(), Failure>, talk: &mut Talk) -> Exit {
    match done {
        Ok(()) => Exit::Done,
        Err(failure) => {
            if !failure.is_told() {
                talk.say(&failure);
            }
            failure.exit()
        }
    }
}

fn version(talk: &mut Talk) {
    let version = env!("CARGO_PKG_VERSION");
    if talk.json() {
        talk.value(&serde_json::json!({ "name": "cambio", "version": version }));
    } else {
        talk.line(format_args!("cambio {version}"));
    }
}
