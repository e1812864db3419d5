//! `cambio agent`: keeps credentials fresh for the programs of a pod or a machine.

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use self::crew::{Crew, destinations};
use super::{
    Failure,
    asking::ENDING,
    harden::ours_to_serve,
    render,
    serve::{Asked, Signals},
};
use crate::{
    chance::SystemChance,
    client::{
        Answer, Broker, Environment, Errand, Lease, Machine, Patience, TokenSource, Waiting,
        agent::{command, told},
        said,
    },
    clock::SystemClock,
    config::{
        AgentConfig, LogFormat,
        agent::{KeptConfig, TokenFrom},
    },
    telemetry::{self, Format},
    web::Reaching,
};

mod crew;

/// Keep credentials fresh: in files, and for SDKs on loopback
///
/// SIGTERM and Ctrl-C end it: leases are ended, and the files that it wrote are removed. SIGHUP renews everything now.
#[derive(Debug, Args)]
pub(super) struct Agent {
    /// The agent's configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// Write every file once and exit, without ending anything: for init containers
    #[arg(long)]
    once: bool,

    /// With `--once`: how long to go on trying, everything included
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = super::asking::duration)]
    deadline: Duration,
}

pub(super) async fn run(agent: Agent) -> Result<(), Failure> {
    // It names commands that we run, and the broker that our tokens go to.
    ours_to_serve(&agent.config)?;
    let (config, warnings) = AgentConfig::read(&agent.config).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        let count = render::count(problems.len(), "problem");
        Failure::usage(format!("{count} in `{}`\n{}", agent.config.display(), lines.join("\n")))
    })?;
    let format = match config.log_format {
        LogFormat::Json => Format::Json,
        LogFormat::Text => Format::People,
    };
    let traces = telemetry::start(format, config.log_level.as_str(), None);
    let traces = traces.map_err(Failure::usage)?;
    for warning in warnings {
        warn!("{warning}");
    }
    let reaching = Reaching {
        ca_file: config.ca_file.as_deref(),
        proxy: config.proxy.as_deref(),
        ..Reaching::default()
    };
    let broker = Broker::at(&config.broker, reaching)?;
    let work = Work {
        machine: Arc::new(Machine::of(Environment::of(std::env::vars_os()))),
        config,
        broker,
    };
    // Before any token is asked for, let alone spent.
    for credential in &work.config.credentials {
        for file in destinations(credential) {
            file.look()?;
        }
        // `--once` runs none, and its image may not have it.
        let command = credential.on_change.as_ref().filter(|_| !agent.once);
        if let Some(program) = command.and_then(|on_change| on_change.command.first()) {
            command::look(&credential.name, program)?;
        }
    }
    let done = if agent.once { work.once(agent.deadline).await } else { work.keep().await };
    traces.flush().await;
    done
}

/// What everything is made from.
struct Work {
    config: AgentConfig,
    broker: Broker,
    machine: Arc<Machine>,
}

impl Work {
    fn errand(&self, credential: &KeptConfig) -> Errand {
        Errand {
            broker: self.broker.clone(),
            source: match &self.config.token {
                TokenFrom::Platform(platform) => TokenSource::Platform(platform.clone()),
                TokenFrom::File(file) => TokenSource::File(file.clone()),
            },
            token_audience: self.config.token_audience.clone(),
            audience: Some(credential.audience.clone()),
            scope: credential.scope.clone(),
            lifetime: credential.lifetime,
            ca_file: self.config.ca_file.clone(),
            proxy: self.config.proxy.clone(),
        }
    }

    /// Every file once. What is written stays when a later one fails: init containers are run again as a whole.
    async fn once(&self, deadline: Duration) -> Result<(), Failure> {
        let patience = Patience { total: deadline, ..Patience::default() };
        let waiting = Waiting::begin(patience, &SystemChance);
        let mut waiting = waiting.telling(|words| warn!("{words}"));
        for credential in &self.config.credentials {
            let files = destinations(credential);
            if files.is_empty() {
                info!("credential `{}` has no file: it is left to the agent", credential.name);
                continue;
            }
            let errand = self.errand(credential);
            let acquired = errand.run(&self.machine, &mut waiting, &SystemClock).await?;
            let issued = match acquired.answer {
                Answer::Issued(issued) => issued,
                Answer::Refused(refused) => {
                    return Err(refused.of(Some(&credential.audience)).into());
                }
            };
            let written = files.iter().try_for_each(|file| file.write(&issued).map(drop));
            if let Err(error) = written {
                // It was made, and nobody can have it.
                end(issued.lease().into_iter().collect(), &self.broker).await;
                return Err(error.into());
            }
            info!(credential.name = credential.name, "credential `{}` is written", credential.name);
        }
        Ok(())
    }

    async fn keep(self) -> Result<(), Failure> {
        // Before anything starts: a signal that comes now must end it in order too.
        let mut signals = Signals::listen()?;
        let crew = Crew::start(&self).await?;
        let count = render::count(self.config.credentials.len(), "credential");
        info!("the agent keeps {count}");
        loop {
            match signals.next().await {
                Asked::End => break,
                Asked::Reload => {
                    info!("renewing everything now");
                    crew.renew.notify_waiters();
                }
            }
        }
        info!("ending: nothing more is served, and files are removed");
        let leases = crew.end().await;
        if self.config.revoke_on_exit {
            end(leases, &self.broker).await;
        }
        Ok(())
    }
}

/// Ends leases, all at once, and says which it could not.
async fn end(leases: Vec<Lease>, broker: &Broker) {
    let tasks = TaskTracker::new();
    for lease in leases {
        let broker = broker.clone();
        tasks.spawn(async move {
            let mut waiting = Waiting::begin(ENDING, &SystemChance);
            match lease.revoke(&broker, &mut waiting).await {
                Ok(()) => {
                    let id = said::tamed(&lease.id);
                    info!(lease.id = id, "lease `{id}` is ended");
                }
                Err(error) => warn!("{}; it ends by itself in the end", told(&error)),
            }
        });
    }
    tasks.close();
    tasks.wait().await;
}
