//! `cambio agent`: keeps credentials fresh for the programs of a pod or a machine.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use tokio::{
    net::TcpListener,
    sync::{Mutex, Notify},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use super::{
    Failure,
    asking::ENDING,
    harden::harden,
    render,
    serve::{Asked, Signals},
};
use crate::{
    chance::SystemChance,
    client::{
        Answer, Broker, ClientError, Environment, Errand, Keeper, Lease, Machine, Patience,
        TokenSource, Waiting,
        agent::{Board, OnChange, Ward, board::Counters, told},
        endpoint::{self, Desk, Served, Whom, aws, google},
        files::{self, Destination, Readers, Written},
        format::Style,
        keeper::{Pace, Runner},
    },
    clock::SystemClock,
    config::{
        AgentConfig, LogFormat,
        agent::{CommandConfig, EndpointConfig, FileConfig, KeptConfig, ReadersConfig, TokenFrom},
    },
    telemetry::{self, Format},
    web::Reaching,
};

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
    harden()?;
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
        unix_socket: None,
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
        let mut waiting = Waiting::begin(patience, &SystemChance);
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
                Answer::Refused(refused) => return Err(ClientError::from(refused).into()),
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
        info!("the agent keeps {} credentials", self.config.credentials.len());
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
                Ok(()) => info!(lease.id = lease.id, "lease `{}` is ended", lease.id),
                Err(error) => warn!("{}; it ends by itself in the end", told(&error)),
            }
        });
    }
    tasks.close();
    tasks.wait().await;
}

/// Everything that runs.
struct Crew {
    keepers: Vec<JoinHandle<Vec<Lease>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
    renew: Arc<Notify>,
    token_file: Option<Written>,
}

impl Crew {
    async fn start(work: &Work) -> Result<Self, Failure> {
        let config = &work.config;
        // Whoever can't listen asks for no credential.
        let doors = Doors::open(config).await?;
        let mut crew = Self {
            keepers: Vec::new(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            renew: Arc::new(Notify::new()),
            token_file: None,
        };
        let counters = Arc::new(Counters::default());
        let turn = Arc::new(Mutex::new(()));
        let mut board = Vec::new();
        for credential in &config.credentials {
            let runner = Runner {
                errand: work.errand(credential),
                machine: Arc::clone(&work.machine),
                patience: Pace::default().retry,
                clock: Arc::new(SystemClock),
                chance: Arc::new(SystemChance),
            };
            let (clock, chance) = (Arc::new(SystemClock), Arc::new(SystemChance));
            let (keeper, kept) =
                Keeper::new(Arc::new(runner), Pace::default(), clock, chance, None);
            let keeper = keeper.renewed_by(Arc::clone(&crew.renew));
            crew.keepers.push(crew.tasks.spawn(keeper.keep(crew.stop.clone())));
            board.push(Served { name: credential.name.clone(), kept: kept.clone() });
            let ward = Ward {
                name: credential.name.clone(),
                files: destinations(credential),
                on_change: credential.on_change.as_ref().map(|on| command(on, &work.machine)),
                kept,
                counters: Arc::clone(&counters),
                turn: Arc::clone(&turn),
            };
            crew.tasks.spawn(ward.tend(crew.stop.clone()));
        }
        if let Err(error) = crew.serve(doors, config, &board, counters) {
            // Nothing was handed out, but something may be on its way.
            end(crew.end().await, &work.broker).await;
            return Err(error.into());
        }
        Ok(crew)
    }

    fn serve(
        &mut self,
        doors: Doors,
        config: &AgentConfig,
        board: &[Served],
        counters: Arc<Counters>,
    ) -> Result<(), ClientError> {
        let desk = |listener: &TcpListener| {
            let at = listener.local_addr().map_err(ClientError::unreachable)?;
            Ok::<_, ClientError>(Desk { at, clock: Arc::new(SystemClock) })
        };
        if let (Some(listener), Some(listen)) = (doors.aws, &config.credentials_at) {
            let token = aws::draw_token(&SystemChance)?;
            let readers = readers(listen.readers);
            let written = files::place(&listen.token_file, &token, readers, listen.trusted)?;
            self.token_file = Some(written);
            let with = config.credentials.iter().zip(board);
            let served =
                with.filter(|(one, _)| one.endpoint == Some(EndpointConfig::Aws)).map(|(_, b)| b);
            let router = aws::router(desk(&listener)?, token, served.cloned());
            self.listen(listener, router, Whom::Anybody);
        }
        for (listener, name) in doors.google {
            let mut with = config.credentials.iter().zip(board);
            let Some((credential, served)) = with.find(|(one, _)| one.name == name) else {
                continue;
            };
            let Some(EndpointConfig::Google { service_account, project, users, .. }) =
                &credential.endpoint
            else {
                continue;
            };
            let account =
                google::Account { email: service_account.clone(), project: project.clone() };
            let own = rustix::process::geteuid().as_raw();
            let users = if users.is_empty() { BTreeSet::from([own]) } else { users.clone() };
            let router = google::router(desk(&listener)?, served.clone(), account);
            self.listen(listener, router, Whom::Users(Arc::new(users)));
        }
        if let Some(listener) = doors.operations {
            let entries = board.to_vec();
            let board = Board { entries, counters, clock: Arc::new(SystemClock) };
            self.listen(listener, board.router(), Whom::Anybody);
        }
        Ok(())
    }

    fn listen(&self, listener: TcpListener, router: axum::Router, whom: Whom) {
        self.tasks.spawn(endpoint::serve(listener, router, whom, self.stop.clone()));
    }

    /// Stops everything. Returns the leases that are still alive.
    async fn end(self) -> Vec<Lease> {
        self.stop.cancel();
        let mut leases = Vec::new();
        for keeper in self.keepers {
            match keeper.await {
                Ok(alive) => leases.extend(alive),
                Err(error) => {
                    warn!("a keeper ended badly, and its leases end by themselves: {error}")
                }
            }
        }
        self.tasks.close();
        self.tasks.wait().await;
        if let Some(Err(error)) = self.token_file.map(Written::remove) {
            warn!("{}", told(&error));
        }
        leases
    }
}

/// What listens, before anybody is answered.
struct Doors {
    aws: Option<TcpListener>,
    /// With the name of its credential.
    google: Vec<(TcpListener, String)>,
    operations: Option<TcpListener>,
}

impl Doors {
    async fn open(config: &AgentConfig) -> Result<Self, ClientError> {
        let mut doors = Self { aws: None, google: Vec::new(), operations: None };
        if let Some(listen) = &config.credentials_at {
            doors.aws = Some(endpoint::bind(listen.address).await?);
        }
        for credential in &config.credentials {
            if let Some(EndpointConfig::Google { address, .. }) = &credential.endpoint {
                let listener = endpoint::bind(*address).await?;
                doors.google.push((listener, credential.name.clone()));
            }
        }
        if let Some(at) = config.operations {
            doors.operations = Some(endpoint::listen(at).await?);
        }
        Ok(doors)
    }
}

fn destinations(credential: &KeptConfig) -> Vec<Destination> {
    let of = |file: &FileConfig| {
        let mut style = Style::default();
        if let Some(variable) = &file.variable {
            style.name.clone_from(variable);
        }
        Destination {
            path: file.path.clone(),
            format: file.format,
            style,
            readers: readers(file.readers),
            trusted: file.trusted,
        }
    };
    credential.files.iter().map(of).collect()
}

const fn readers(readers: ReadersConfig) -> Readers {
    match readers {
        ReadersConfig::Owner => Readers::Owner,
        ReadersConfig::Group(group) => Readers::Group(group),
    }
}

/// Nothing of our environment goes on but what programs can't do without: it may hold what subject tokens are asked for with.
fn command(on_change: &CommandConfig, machine: &Machine) -> OnChange {
    let mut words = on_change.command.iter().cloned();
    let kept = ["PATH", "HOME", "LANG", "TZ"].into_iter();
    let environment =
        kept.filter_map(|name| Some((name.to_owned(), machine.environment.find(name)?.to_owned())));
    OnChange {
        program: words.next().unwrap_or_default(),
        arguments: words.collect(),
        deadline: on_change.deadline,
        environment: environment.collect(),
    }
}
