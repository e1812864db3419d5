//! The composition root: the only module that names concrete adapters.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use thiserror::Error;
use tokio::{net::TcpListener, sync::Mutex};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};

use crate::{
    chance::{Chance, SystemChance},
    clock::{Clock, SystemClock},
    config::{Config, TlsConfig},
    edge::{
        self, OurIssuer, Proxies, Surface,
        listen::{self, Terms},
        operations::Operations,
        tls::{Tls, TlsError},
    },
    exchange::{Exchange, RateLimit, resolver::Resolver},
    keys::{KeysError, rotator::Rotator},
    lease::{ending::Ending, reaper::Reaper},
    ledger::{
        Commit,
        anchor::Anchor,
        checkpoint,
        reader::{LedgerReader, UnknownOutcomes},
        rollup::Rollup,
        writer::Writer,
    },
    subject::key_source::{KnownKeys, fetch::Outbound},
    telemetry::Metrics,
};

pub mod books;
pub mod journal;
mod leases;
pub mod loops;
pub mod powers;
pub mod reload;
pub mod restore;
pub mod scene;
pub mod sealed;
pub mod seams;
pub mod targets;

use scene::{Means, SceneError};

/// How strictly a configuration is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Production: https issuers, no sandbox keys.
    Serve,
    /// `cambio dev`: plain http on loopback and marked keys, in this process alone.
    Dev,
}

/// Whether a store may be made where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It must be there: a typo can't start a second ledger.
    Required,
    /// It is made, with a new ledger and new keys: `--create`, once.
    Created,
}

/// Why the broker does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The store, the ledger or an anchor.
    #[error("ledger: {0}")]
    Ledger(String),
    /// The key ring.
    #[error("keys: {0}")]
    Keys(#[from] KeysError),
    /// Issuers, targets or policies.
    #[error(transparent)]
    Scene(#[from] SceneError),
    /// The certificate.
    #[error("tls: {0}")]
    Tls(#[from] TlsError),
    /// An address can't be listened on.
    #[error("can't listen on `{at}`: {error}")]
    Listen {
        /// Where.
        at: String,
        /// Why not.
        error: io::Error,
    },
    /// Our own issuer URL.
    #[error("our issuer: {0}")]
    Issuer(String),
}

/// Everything that lives as long as the process.
#[derive(Debug)]
pub struct State {
    config: ArcSwap<Config>,
    config_file: Option<PathBuf>,
    means: Means,
    exchange: Arc<Exchange>,
    writer: Writer,
    reader: Arc<dyn LedgerReader>,
    anchors: Vec<Arc<dyn Anchor>>,
    rollup: Arc<Rollup>,
    rotator: Arc<Rotator>,
    ending: Arc<Ending>,
    metrics: Arc<Metrics>,
    tls: Option<Arc<Tls>>,
    /// Why the last reload failed, if it did: readiness detail.
    trouble: ArcSwapOption<String>,
    /// Which anchors are behind, if any: readiness detail.
    anchor_trouble: ArcSwapOption<String>,
    /// Grants whose outcome nobody knows, as they were counted last: readiness detail.
    unknown: ArcSwapOption<Vec<UnknownOutcomes>>,
    /// One reload at a time.
    reloading: Mutex<()>,
}

/// A broker that serves.
#[derive(Debug)]
pub struct Running {
    state: Arc<State>,
    public: SocketAddr,
    operations: SocketAddr,
    stop: CancellationToken,
    stop_ledger: CancellationToken,
    listeners: TaskTracker,
    loops: TaskTracker,
}

/// Starts a broker: store, ledger, keys, policies, then listeners. `config_file` is what a reload reads again.
///
/// # Errors
/// Anything that could make an answer wrong: nothing is served then (threat list 4.3, fail closed).
pub async fn start(
    config: Config,
    config_file: Option<PathBuf>,
    mode: Mode,
    existing: Existing,
) -> Result<Running, StartError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let chance: Arc<dyn Chance> = Arc::new(SystemChance);
    preflight(&config, mode, clock.now())?;
    let books = books::open(&config, existing, &clock, &chance).await?;
    let tasks = TaskTracker::new();
    let metrics = Arc::new(Metrics::new());
    let means = Means {
        clock: Arc::clone(&clock),
        chance: Arc::clone(&chance),
        keyring: Arc::clone(books.rotator.keyring()),
        tasks: tasks.clone(),
        outbound: Arc::new(Outbound::default()),
        known: KnownKeys::default(),
        held: Arc::default(),
        reviews: Arc::new(seams::ReviewMetrics(Arc::clone(&metrics))),
        mode,
    };
    let (adopted, trouble) = first_policies(&config, &means, &books)?;
    let rollup = Arc::new(Rollup::default());
    let makers = targets::makers(&config, &means).await?;
    let ledger: Arc<dyn Commit> = Arc::new(books.writer.clone());
    let reaper = Arc::new(Reaper::of(
        Arc::clone(&books.reader),
        Arc::clone(&ledger),
        makers.revokers,
        (Arc::clone(&clock), Arc::clone(&chance)),
        Arc::new(seams::LeaseMetrics(Arc::clone(&metrics))),
    ));
    let ending = Arc::new(Ending::of((Arc::clone(&books.reader), Arc::clone(&ledger)), reaper));
    let scene = scene::scene(&config, &means, Arc::clone(&adopted.set), makers.minters)?;
    let exchange = Arc::new(Exchange {
        scene: ArcSwap::from_pointee(scene),
        ledger,
        rollup: Arc::clone(&rollup),
        per_subject: RateLimit::of(
            config.limits.per_subject.per_second,
            config.limits.per_subject.burst,
        ),
        clock: Arc::clone(&clock),
        tasks,
    });
    let tls = match &config.tls {
        TlsConfig::None => None,
        TlsConfig::Files { certificate_file, key_file } => {
            Some(Arc::new(Tls::load(certificate_file.clone(), key_file.clone())?))
        }
    };
    let state = Arc::new(State {
        config: ArcSwap::from_pointee(config),
        config_file,
        means,
        exchange,
        writer: books.writer,
        reader: books.reader,
        anchors: books.anchors,
        rollup,
        rotator: books.rotator,
        metrics,
        ending,
        tls,
        trouble: ArcSwapOption::from_pointee(trouble),
        anchor_trouble: ArcSwapOption::empty(),
        unknown: ArcSwapOption::empty(),
        reloading: Mutex::new(()),
    });
    state.writer.watch(Arc::new(loops::Flushes(Arc::clone(&state.metrics))));
    state.put_in_force(&adopted).await?;
    let checkpointer =
        checkpoint::anchor_first(books.checkpointer, &state.anchors, state.means.clock.now()).await;
    listen(state, checkpointer.map_err(|error| StartError::Ledger(error.to_string()))?).await
}

/// Makes store, ledger and first keys of a new instance, and serves nothing; `false` where there is a store. Unlike
/// [`Existing::Created`] this may run at every start, and so is careful about what an absent store means.
///
/// # Errors
/// An anchor tells of a ledger: then the store is not new but lost, and another one would forget spent tokens and withdrawn
/// keys (threat K07). Or whatever keeps a broker from starting.
pub async fn create(config: &Config) -> Result<bool, StartError> {
    // A link that leads nowhere is a store that is lost.
    if std::fs::symlink_metadata(books::store_path(config)).is_ok() {
        return Ok(false);
    }
    books::no_anchor_tells_of_one(config)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let chance: Arc<dyn Chance> = Arc::new(SystemChance);
    preflight(config, Mode::Serve, clock.now())?;
    let books = books::open(config, Existing::Created, &clock, &chance).await?;
    let first = checkpoint::anchor_first(books.checkpointer, &books.anchors, clock.now()).await;
    books.writer.close();
    books.writer.wait_until_ended().await;
    first.map(|_| true).map_err(|error| StartError::Ledger(error.to_string()))
}

/// Whatever can be known to be wrong before a store is opened, or made: pinned keys and the key-encryption key.
///
/// # Errors
/// What was found.
pub fn preflight(
    config: &Config,
    mode: Mode,
    now: crate::clock::Instant,
) -> Result<(), StartError> {
    scene::preflight(config, mode, now)?;
    books::protector(config).map(drop)
}

/// The policies on disk; or, loudly, the last good set, when those are bad (design section 5, "Loading").
fn first_policies(
    config: &Config,
    means: &Means,
    books: &books::Books,
) -> Result<(scene::Adopted, Option<String>), StartError> {
    let error = match scene::policies_for(config, means.mode, means.clock.now()) {
        Ok(adopted) => return Ok((adopted, None)),
        Err(error) => error,
    };
    match scene::last_good(config, &*books.reader) {
        Ok(set) => {
            error!("the policies on disk do not load, the last good set is in force: {error}");
            let trouble = format!("the policies on disk do not load: {error}");
            Ok((scene::Adopted { set, commit: None, warnings: Vec::new() }, Some(trouble)))
        }
        Err(none) => {
            warn!("and there is no last good set: {none}");
            Err(error.into())
        }
    }
}

async fn listen(
    state: Arc<State>,
    checkpointer: crate::ledger::checkpoint::Checkpointer,
) -> Result<Running, StartError> {
    let config = state.config.load_full();
    // Before anything is served: every entry so far is of an earlier process.
    let resolver = Resolver::of(
        Arc::clone(&state.reader),
        Arc::clone(&state.exchange.ledger),
        Arc::clone(&state.means.clock),
    );
    let resolver = resolver.map_err(|error| StartError::Ledger(error.to_string()))?;
    let bound = async |at: SocketAddr| {
        let listener = TcpListener::bind(at).await;
        let listener =
            listener.map_err(|error| StartError::Listen { at: at.to_string(), error })?;
        let address = listener
            .local_addr()
            .map_err(|error| StartError::Listen { at: at.to_string(), error })?;
        Ok::<_, StartError>((listener, address))
    };
    let (public_listener, public) = bound(config.listen.public).await?;
    let (operations_listener, operations) = bound(config.listen.operations).await?;
    let socket = &config.listen.admin_socket;
    let admin_listener = edge::admin::bind(socket)
        .map_err(|error| StartError::Listen { at: socket.display().to_string(), error })?;

    let our_issuer = match state.means.mode {
        Mode::Serve => OurIssuer::of(config.issuer.as_str()),
        Mode::Dev => OurIssuer::dangerously_plain(config.issuer.as_str()),
    };
    let proxies = Proxies::of(config.listen.proxies.iter().copied());
    let own_tokens =
        || seams::OwnTokens::of(config.issuer.clone(), Arc::clone(&state.means.keyring));
    let surface = Surface {
        exchanges: Arc::clone(&state.exchange) as Arc<dyn edge::Exchanges>,
        published: Arc::new(seams::Keys(Arc::clone(&state.means.keyring), state.writer.clone())),
        log: Arc::new(seams::PublicLog(Arc::clone(&state.reader))),
        introspect: Arc::new(own_tokens()),
        revocations: Arc::new(seams::LeaseRevocations {
            tokens: own_tokens(),
            ending: Arc::clone(&state.ending),
        }),
        clock: Arc::clone(&state.means.clock),
        chance: Arc::clone(&state.means.chance),
        metrics: Arc::clone(&state.metrics),
        our_issuer: our_issuer.map_err(|error| StartError::Issuer(error.to_string()))?,
        proxies: proxies.clone(),
        per_address: RateLimit::of(
            config.limits.per_address.per_second,
            config.limits.per_address.burst,
        ),
        in_flight: usize::try_from(config.limits.in_flight).unwrap_or(usize::MAX),
        body_timeout: config.limits.body_timeout,
    };
    let connections = usize::try_from(config.limits.connections).unwrap_or(usize::MAX);
    let terms = Terms::public(connections, proxies, Arc::clone(&state.metrics));
    state.measure();
    let (stop, listeners) = (CancellationToken::new(), TaskTracker::new());
    listeners.spawn(listen::serve(
        public_listener,
        state.tls.clone(),
        edge::router(surface),
        terms,
        stop.clone(),
    ));
    let operations_router = edge::operations::router(Operations {
        health: Arc::clone(&state) as Arc<dyn edge::Health>,
        metrics: Arc::clone(&state.metrics),
        clock: Arc::clone(&state.means.clock),
    });
    let (loops, stop_ledger) = (TaskTracker::new(), CancellationToken::new());
    // Readiness must be told until the ledger is closed, so this listener ends after the public one.
    loops.spawn(listen::serve(
        operations_listener,
        None,
        operations_router,
        Terms::operations(Arc::clone(&state.metrics)),
        stop_ledger.clone(),
    ));
    listeners.spawn(edge::admin::serve(
        admin_listener,
        edge::admin::router(Arc::clone(&state) as Arc<dyn edge::Powers>),
        stop.clone(),
    ));
    loops.spawn(resolver.run(stop.clone()));
    loops::start(&state, checkpointer, &loops, (&stop, &stop_ledger));
    info!(
        listener.public = %public, listener.operations = %operations, config.environment = config.environment,
        "serving as `{}`", config.issuer
    );
    Ok(Running { state, public, operations, stop, stop_ledger, listeners, loops })
}

impl Running {
    /// Where the public listener listens.
    #[must_use]
    pub const fn public(&self) -> SocketAddr {
        self.public
    }

    /// Where the operations listener listens.
    #[must_use]
    pub const fn operations(&self) -> SocketAddr {
        self.operations
    }

    /// The admin socket.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.state.config.load().listen.admin_socket.clone()
    }

    /// The shared state, for `dev` and tests.
    #[must_use]
    pub const fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Reads configuration, policies, pinned keys and certificates again.
    ///
    /// # Errors
    /// Something is wrong with them; everything stays as it was.
    pub async fn reload(&self) -> Result<String, String> {
        self.state.reload().await
    }

    /// Waits until the ledger stops: then the process must end, because only a restart knows what is durable.
    pub async fn ended(&self) -> String {
        self.state.writer.wait_until_stopped().await
    }

    /// Drains: stops accepting, lets exchanges end, writes what waits, signs a last checkpoint.
    pub async fn drain(self) {
        const LONGEST: Duration = Duration::from_secs(20);
        self.stop.cancel();
        self.listeners.close();
        let _ = tokio::time::timeout(LONGEST, self.listeners.wait()).await;
        self.state.exchange.tasks.close();
        let _ = tokio::time::timeout(LONGEST, self.state.exchange.tasks.wait()).await;
        self.state.note_rollup(true);
        // The last checkpoint covers what nobody waited for, too.
        let _ = tokio::time::timeout(LONGEST, self.state.writer.settle()).await;
        self.stop_ledger.cancel();
        self.loops.close();
        let _ = tokio::time::timeout(LONGEST, self.loops.wait()).await;
        self.state.writer.close();
        // Only then is the store's lock free for the next start.
        let _ = tokio::time::timeout(LONGEST, self.state.writer.wait_until_ended()).await;
        info!("drained");
    }
}

impl State {
    /// The ledger's read side.
    #[must_use]
    pub fn reader(&self) -> &Arc<dyn LedgerReader> {
        &self.reader
    }

    /// Where the configuration was read from.
    #[must_use]
    pub fn config_file(&self) -> Option<&Path> {
        self.config_file.as_deref()
    }
}
