//! Connections to a server: pooled ones to the database that we are at home in, and one at a time to another.

use std::{path::PathBuf, pin::Pin, time::Duration};

use deadpool_postgres::{
    Connect, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Timeouts,
};
use tokio::task::JoinHandle;
use tokio_postgres::{
    Client, Config, Error, NoTls,
    config::{ChannelBinding, SslMode},
};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};
use zeroize::Zeroizing;

use super::{PostgresTarget, Protection, failure, tls};
use crate::mint::{
    login::{LoginError, MINT_LIMIT, STATEMENT_LIMIT},
    reach::read_private,
};

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const RECYCLE_LIMIT: Duration = Duration::from_secs(2);
/// How long a statement waits for a lock that somebody else has: shorter than it may run, so that the reason is told.
const LOCK_LIMIT: Duration = Duration::from_secs(2);

/// The connections of one target.
#[derive(Debug)]
pub(super) struct Hands {
    home: String,
    config: Config,
    connector: Connector,
    pool: Pool,
}

impl Hands {
    /// Nothing is connected to yet.
    ///
    /// # Errors
    /// There are no trust roots.
    pub(super) fn of(target: &PostgresTarget) -> Result<Self, String> {
        let mut config = Config::new();
        config
            .host(&target.host)
            .port(target.port)
            .user(&target.user)
            .dbname(&target.home)
            .application_name("cambio")
            .options(options())
            .connect_timeout(CONNECT_LIMIT)
            .tcp_user_timeout(MINT_LIMIT)
            .channel_binding(ChannelBinding::Prefer)
            .ssl_mode(SslMode::Require);
        let tls = match &target.protection {
            Protection::VerifyFull { ca_file } => {
                Some(MakeRustlsConnect::new(tls::client(ca_file.as_deref())?))
            }
            Protection::DangerouslyPlain => {
                config.ssl_mode(SslMode::Disable);
                None
            }
        };
        let connector = Connector {
            tls,
            password_file: target.password_file.clone(),
            tasks: TaskTracker::new(),
        };
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Verified };
        let manager = Manager::from_connect(config.clone(), connector.clone(), recycling);
        let pool = Pool::builder(manager)
            .max_size(target.connections.max(1))
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts {
                wait: Some(MINT_LIMIT),
                create: Some(CONNECT_LIMIT),
                recycle: Some(RECYCLE_LIMIT),
            })
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { home: target.home.clone(), config, connector, pool })
    }

    /// A hand that holds nothing yet.
    pub(super) const fn hand(&self) -> Hand<'_> {
        Hand { hands: self, held: None }
    }

    /// The database that we are at home in.
    pub(super) fn home(&self) -> &str {
        &self.home
    }
}

/// What every session of ours is told before its first statement. `search_path` holds nothing that others can write to
/// (CVE-2018-1058); an ending that the server forgot in a crash would be one that never was, whatever its default says.
fn options() -> String {
    let settings = [
        ("statement_timeout", STATEMENT_LIMIT.as_millis().to_string()),
        ("lock_timeout", LOCK_LIMIT.as_millis().to_string()),
        ("idle_in_transaction_session_timeout", STATEMENT_LIMIT.as_millis().to_string()),
        ("search_path", "pg_catalog".to_owned()),
        ("standard_conforming_strings", "on".to_owned()),
        ("synchronous_commit", "on".to_owned()),
        ("default_transaction_read_only", "off".to_owned()),
        ("client_min_messages", "error".to_owned()),
    ];
    let one = |(name, value): &(&str, String)| format!("-c {name}={value}");
    settings.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[derive(Clone)]
struct Connector {
    tls: Option<MakeRustlsConnect>,
    password_file: PathBuf,
    /// Of the connections: nobody waits for them, they end with their clients.
    tasks: TaskTracker,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

type Connected = Result<(Client, JoinHandle<()>), Error>;

impl Connector {
    async fn open(self, mut config: Config) -> Connected {
        // Read each time, so that a password that was replaced is used. Without one the server will refuse.
        let password = read_private(&self.password_file).await.unwrap_or_else(|error| {
            warn!("our password can't be used: {error}");
            Zeroizing::default()
        });
        config.password(password.trim_ascii_end());
        // What happens to a connection is told to whoever waits for an answer on it.
        if let Some(tls) = self.tls {
            let (client, connection) = config.connect(tls).await?;
            return Ok((client, self.tasks.spawn(async { note(connection.await) })));
        }
        let (client, connection) = config.connect(NoTls).await?;
        Ok((client, self.tasks.spawn(async { note(connection.await) })))
    }
}

fn note(ended: Result<(), Error>) {
    if let Err(error) = ended {
        debug!("a connection to a database ended: {}", failure::text(&error));
    }
}

impl Connect for Connector {
    fn connect(&self, config: &Config) -> Pin<Box<dyn Future<Output = Connected> + Send + '_>> {
        Box::pin(self.clone().open(config.clone()))
    }
}

/// At most one connection at a time: however many databases there are, a target never has more than `connections`.
///
/// A connection goes back to the pool only from [`Hand::rest`]. What is dropped before, because of an error or because
/// nobody waits any longer, is closed, and the server undoes what it has begun: no half of a transaction is ever committed
/// by whoever comes next.
#[derive(Debug)]
pub(super) struct Hand<'h> {
    hands: &'h Hands,
    held: Option<Held>,
}

#[derive(Debug)]
enum Held {
    Pooled(Object),
    Own { database: String, client: Client },
}

impl Hand<'_> {
    /// A connection to the database that we are at home in.
    ///
    /// # Errors
    /// None can be had.
    pub(super) async fn at_home(&mut self) -> Result<&Client, LoginError> {
        if !matches!(self.held, Some(Held::Pooled(_))) {
            self.let_go();
            let object = self.hands.pool.get().await.map_err(failure::of_pool)?;
            self.held = Some(Held::Pooled(object));
        }
        self.client()
    }

    /// A connection to `database`. The one that was held goes first.
    ///
    /// # Errors
    /// It refuses: by its name.
    pub(super) async fn at(&mut self, database: &str) -> Result<&Client, LoginError> {
        if database == self.hands.home {
            return self.at_home().await;
        }
        if !matches!(&self.held, Some(Held::Own { database: held, .. }) if held == database) {
            self.let_go();
            let mut config = self.hands.config.clone();
            config.dbname(database);
            let opened = self.hands.connector.clone().open(config);
            let (client, _) = match tokio::time::timeout(CONNECT_LIMIT, opened).await {
                Ok(Ok(opened)) => opened,
                Ok(Err(error)) => return Err(closed(database, &error)),
                Err(_) => {
                    let reason = format!("no connection to database `{database}` in time");
                    return Err(LoginError::Unreachable(reason));
                }
            };
            self.held = Some(Held::Own { database: database.to_owned(), client });
        }
        self.client()
    }

    /// Done, and nothing is under way: a pooled connection goes back.
    pub(super) fn rest(mut self) {
        self.held = None;
    }

    fn client(&self) -> Result<&Client, LoginError> {
        match &self.held {
            Some(Held::Pooled(object)) => Ok(object),
            Some(Held::Own { client, .. }) => Ok(client),
            None => Err(LoginError::Unreachable("no connection is held".to_owned())),
        }
    }

    /// Takes what is held out of the pool, if it came from there, and closes it.
    fn let_go(&mut self) {
        if let Some(Held::Pooled(object)) = self.held.take() {
            drop(Object::take(object));
        }
    }
}

impl Drop for Hand<'_> {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// A server that does not answer may do so later; a database that says no has to be told of by name.
fn closed(database: &str, error: &Error) -> LoginError {
    let reason = format!("database `{database}` lets us not in: {}", failure::text(error));
    match error.as_db_error() {
        Some(said) if !failure::is_server_trouble(said) => LoginError::Refused(reason),
        Some(_) | None => LoginError::Unreachable(reason),
    }
}
