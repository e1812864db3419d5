//! Everything that runs in an agent: a keeper and a ward for each credential, and what listens.

use std::{collections::BTreeSet, sync::Arc};

use tokio::{net::TcpListener, sync::Notify, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

use super::{Work, end};
use crate::{
    chance::SystemChance,
    cli::Failure,
    client::{
        ClientError, Keeper, Lease, Machine,
        agent::{Board, OnChange, Ward, board::Counters, told},
        endpoint::{self, Desk, Served, Whom, aws, google},
        files::{self, Destination, Readers, Written},
        format::Style,
        keeper::{Pace, Runner},
    },
    clock::SystemClock,
    config::{
        AgentConfig,
        agent::{CommandConfig, EndpointConfig, FileConfig, KeptConfig, ReadersConfig},
    },
    secret::Secret,
};

/// Everything that runs.
pub(super) struct Crew {
    keepers: Vec<JoinHandle<Vec<Lease>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Has everything renewed now.
    pub(super) renew: Arc<Notify>,
    token_file: Option<Written>,
}

impl Crew {
    /// Listens first: whoever can't asks for no credential.
    pub(super) async fn start(work: &Work) -> Result<Self, Failure> {
        let config = &work.config;
        let doors = Doors::open(config).await?;
        let mut crew = Self {
            keepers: Vec::new(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            renew: Arc::new(Notify::new()),
            token_file: None,
        };
        // Nor does whoever can't write down what SDKs must show.
        let token = match &config.credentials_at {
            Some(listen) => {
                let token = aws::draw_token(&SystemChance)?;
                let readers = readers(listen.readers);
                let written = files::place(&listen.token_file, &token, readers, listen.trusted)?;
                crew.token_file = Some(written);
                Some(token)
            }
            None => None,
        };
        let counters = Arc::new(Counters::default());
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
            };
            crew.tasks.spawn(ward.tend(crew.stop.clone()));
        }
        if let Err(error) = crew.serve(doors, token, config, &board, counters) {
            // Nothing was handed out, but something may be on its way.
            end(crew.end().await, &work.broker).await;
            return Err(error.into());
        }
        Ok(crew)
    }

    fn serve(
        &self,
        doors: Doors,
        token: Option<Secret>,
        config: &AgentConfig,
        board: &[Served],
        counters: Arc<Counters>,
    ) -> Result<(), ClientError> {
        let desk = |listener: &TcpListener| {
            let at = listener.local_addr().map_err(ClientError::unreachable)?;
            Ok::<_, ClientError>(Desk { at, clock: Arc::new(SystemClock) })
        };
        if let (Some(listener), Some(token)) = (doors.aws, token) {
            let with = config.credentials.iter().zip(board);
            let served =
                with.filter(|(one, _)| one.endpoint == Some(EndpointConfig::Aws)).map(|(_, b)| b);
            let router = aws::router(desk(&listener)?, token, served.cloned());
            self.listen(listener, router, Whom::Anybody);
        }
        for (listener, name, users) in doors.google {
            let mut with = config.credentials.iter().zip(board);
            let Some((credential, served)) = with.find(|(one, _)| one.name == name) else {
                continue;
            };
            let Some(EndpointConfig::Google { service_account, project, .. }) =
                &credential.endpoint
            else {
                continue;
            };
            let account =
                google::Account { email: service_account.clone(), project: project.clone() };
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
    pub(super) async fn end(self) -> Vec<Lease> {
        self.stop.cancel();
        let mut leases = Vec::new();
        for keeper in self.keepers {
            match keeper.await {
                Ok(alive) => leases.extend(alive),
                Err(error) => {
                    warn!("a keeper ended badly, and its leases end by themselves: {error}");
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
    /// With the name of its credential, and whose programs may ask.
    google: Vec<(TcpListener, String, BTreeSet<u32>)>,
    operations: Option<TcpListener>,
}

impl Doors {
    async fn open(config: &AgentConfig) -> Result<Self, ClientError> {
        let mut doors = Self { aws: None, google: Vec::new(), operations: None };
        if let Some(listen) = &config.credentials_at {
            doors.aws = Some(endpoint::bind(listen.address).await?);
        }
        for credential in &config.credentials {
            if let Some(EndpointConfig::Google { address, users, .. }) = &credential.endpoint {
                let own = rustix::process::geteuid().as_raw();
                let users = endpoint::askers(users, own)?;
                let listener = endpoint::bind(*address).await?;
                doors.google.push((listener, credential.name.clone(), users));
            }
        }
        if let Some(at) = config.operations {
            doors.operations = Some(endpoint::listen(at).await?);
        }
        Ok(doors)
    }
}

/// Its files.
pub(super) fn destinations(credential: &KeptConfig) -> Vec<Destination> {
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
