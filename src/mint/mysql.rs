//! Users of a MariaDB or MySQL. These servers know no end for a user: everything here is ended by us (INVARIANT(honest-expiry)).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use async_trait::async_trait;
use mysql_async::{
    Conn, OptsBuilder, Pool, PoolConstraints, PoolOpts, SslOpts, prelude::Queryable as _,
};
use tokio::{sync::Mutex, time};

mod examine;
mod statement;

use self::statement::{Account, Dialect, Making};
use super::{
    login::{Access, Login, LoginError, Logins, STATEMENT_LIMIT},
    name::Names,
    reach::{CONNECT_LIMIT, Reach},
};
use crate::{
    grant::RoleName,
    lease::Gone,
    secret::Secret,
    target::mysql::{HostPattern, Identifier, MysqlRole},
};

/// How long sessions of a locked user may take to go: a session that rolls back is slow to.
const SESSIONS_LIMIT: Duration = Duration::from_secs(20);
/// The first pause between two looks at the sessions; each is twice as long as the one before, up to a second.
const FIRST_LOOK: Duration = Duration::from_millis(10);

/// How long a connection may wait for its next use: fewer logins at the server for what comes in bursts.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// Errors of the servers that mean: there is no such user, or no such session (any more).
const NO_SUCH_USER: u16 = 1396;
const NO_SUCH_SESSION: u16 = 1094;
/// A statement that is none.
const SYNTAX: u16 = 1064;
/// Errors after which nobody knows what a statement did: the server goes down, or somebody killed our session or statement.
const CUT_SHORT: &[u16] = &[1053, 1077, 1080, 1317, 1927, 1969, 3024, 3169, 4031];

/// One server, and what its users get.
#[derive(Debug)]
pub struct Mysql {
    /// How it is reached.
    pub reach: Reach,
    /// Names that are ours.
    pub names: Names,
    /// The database that a login is told to use first.
    pub database: Option<Identifier>,
    /// From where logins may come.
    pub from: HostPattern,
    /// Whether a login is refused on a connection without TLS.
    pub require_tls: bool,
    /// How many sessions a login may have at once.
    pub sessions: u32,
    /// What each role may do.
    pub roles: BTreeMap<RoleName, MysqlRole>,
}

/// The version that a server greets with.
type Greeting = (u16, u16, u16);

/// Makes and ends users.
#[derive(Debug)]
pub struct MysqlLogins {
    server: Mysql,
    /// Made when it is first needed, and anew after a connection could not be made: password and CA are read again.
    pool: Mutex<Option<Pool>>,
    /// What a server that greets with this version speaks. MariaDB (10 and later) and MySQL (8, 9) share no version.
    known: Mutex<Option<(Greeting, Dialect)>>,
}

impl MysqlLogins {
    /// The logins of `server`. Nothing is connected to yet.
    #[must_use]
    pub fn of(server: Mysql) -> Self {
        Self { server, pool: Mutex::new(None), known: Mutex::new(None) }
    }

    /// A connection, and the language to speak on it. Nothing has been begun when this fails.
    async fn connect(&self) -> Result<(Conn, Dialect), LoginError> {
        let pool = self.pool().await?;
        let connect = async {
            let mut conn = pool.get_conn().await?;
            // The numbers in the greeting of this very connection; of the words beside them the driver tells nothing.
            let greeting = conn.server_version();
            let known = *self.known.lock().await;
            if let Some((_, dialect)) = known.filter(|(version, _)| *version == greeting) {
                return Ok((conn, Ok(dialect)));
            }
            let version: Option<String> = conn.query_first("SELECT VERSION()").await?;
            let dialect = Dialect::of(&version.unwrap_or_default());
            *self.known.lock().await = dialect.as_ref().ok().map(|dialect| (greeting, *dialect));
            Ok((conn, dialect))
        };
        let found: Result<_, mysql_async::Error> = time::timeout(CONNECT_LIMIT, connect)
            .await
            .unwrap_or_else(|_| Err(mysql_async::Error::Other("no answer within its time".into())));
        match found {
            Ok((conn, dialect)) => Ok((conn, dialect.map_err(LoginError::Refused)?)),
            Err(error) => {
                *self.pool.lock().await = None;
                // The driver says the kind of an error, once or twice, before the error.
                let said = error.to_string();
                let said = said.trim_start_matches("Input/output error: ");
                let said = said.trim_start_matches("Other error: ");
                Err(LoginError::Unreachable(said.to_owned()))
            }
        }
    }

    async fn pool(&self) -> Result<Pool, LoginError> {
        let mut held = self.pool.lock().await;
        if let Some(pool) = held.as_ref() {
            return Ok(pool.clone());
        }
        let reach = &self.server.reach;
        let password = reach.password().await?;
        let tls = reach.roots().await?.map(|roots| {
            let roots = roots.into_iter().map(Into::into).collect();
            SslOpts::default().with_disable_built_in_roots(true).with_root_certs(roots)
        });
        let most = usize::try_from(reach.connections).unwrap_or(1).max(1);
        let constraints = PoolConstraints::new(0, most).unwrap_or_default();
        let bounds = PoolOpts::new()
            .with_constraints(constraints)
            .with_inactive_connection_ttl(IDLE_LIMIT)
            .with_reset_connection(false);
        let options = OptsBuilder::default()
            .ip_or_hostname(reach.host.as_str())
            .tcp_port(reach.port)
            .user(Some(reach.user.as_str()))
            .pass(password.reveal_text())
            // Else a loopback server would be asked where its socket is, and then reached past TLS.
            .prefer_socket(false)
            .stmt_cache_size(0)
            .setup(vec![limits()])
            .pool_opts(bounds)
            .ssl_opts(tls);
        let pool = Pool::new(options);
        *held = Some(pool.clone());
        Ok(pool)
    }

    fn account(&self, name: &str, host: &HostPattern) -> Result<Account, LoginError> {
        // Threat B01.
        Account::of(&self.server.names, name, host)
            .ok_or_else(|| LoginError::Refused("this is no name of ours".to_owned()))
    }

    /// The accounts called `name`: whatever host was configured when they were made.
    async fn accounts(&self, conn: &mut Conn, name: &str) -> Result<Vec<Account>, LoginError> {
        let name = self.known(name)?;
        let hosts: Vec<String> = conn
            .query(format!("SELECT Host FROM mysql.user WHERE User = '{name}'"))
            .await
            .map_err(answer)?;
        let mut accounts = Vec::new();
        for host in hosts {
            let host = HostPattern::parse(&host).map_err(|unfit| {
                LoginError::Refused(format!("it is of the host `{}`, {unfit}", host.escape_debug()))
            })?;
            accounts.push(self.account(name, &host)?);
        }
        Ok(accounts)
    }

    /// `name`, if it may stand in a statement.
    fn known<'n>(&self, name: &'n str) -> Result<&'n str, LoginError> {
        let ours = self.server.names.is_ours(name);
        ours.then_some(name)
            .ok_or_else(|| LoginError::Refused("this is no name of ours".to_owned()))
    }

    /// Cuts the sessions of `name` until there are none.
    async fn cut(&self, conn: &mut Conn, name: &str) -> Result<Cut, LoginError> {
        let name = self.known(name)?;
        let look = format!("SELECT ID FROM information_schema.PROCESSLIST WHERE USER = '{name}'");
        let mut pause = FIRST_LOOK;
        let mut waited = Duration::ZERO;
        let mut cut = Cut::None;
        loop {
            let sessions: Vec<u64> = conn.query(look.as_str()).await.map_err(answer)?;
            if sessions.is_empty() {
                return Ok(cut);
            }
            if waited > SESSIONS_LIMIT {
                return Err(LoginError::Refused(format!("{} sessions do not end", sessions.len())));
            }
            cut = Cut::Some;
            for session in sessions {
                match conn.query_drop(format!("KILL CONNECTION {session}")).await {
                    Err(error) if says(&error, NO_SUCH_SESSION) => {}
                    Ok(()) => {}
                    Err(error) => return Err(answer(error)),
                }
            }
            time::sleep(pause).await;
            waited = waited.saturating_add(pause);
            pause = pause.saturating_mul(2).min(Duration::from_secs(1));
        }
    }

    /// Says why a user that was made is not given out. What can be taken back is.
    async fn undo(conn: &mut Conn, account: &Account, error: mysql_async::Error) -> LoginError {
        match answer(error) {
            LoginError::Refused(reason) => {
                match conn.query_drop(format!("DROP USER {account}")).await {
                    Ok(()) => LoginError::Refused(reason),
                    Err(_) => {
                        LoginError::Lost(format!("{reason}; and its user could not be dropped"))
                    }
                }
            }
            lost @ (LoginError::Lost(_) | LoginError::Unreachable(_)) => lost,
        }
    }
}

/// Whether there was a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    None,
    Some,
}

#[async_trait]
impl Logins for MysqlLogins {
    /// `lifetime` is not told to the server: it has no word for it. What a password's expiry knows are days, and then a session in
    /// which the password can be changed.
    async fn make(&self, login: &Login, _lifetime: Duration) -> Result<Access, LoginError> {
        let Mysql { reach, database, from, require_tls, sessions, roles, .. } = &self.server;
        let Some(role) = roles.get(&login.role) else {
            return Err(LoginError::Refused(format!("it has no role `{}`", login.role)));
        };
        let account = self.account(&login.name, from)?;
        let (mut conn, dialect) = self.connect().await?;
        if dialect == Dialect::MariaDb && role.member_of.len() > 1 {
            let reason = "a MariaDB has one default role for a user: name one role in `member_of`";
            return Err(LoginError::Refused(reason.to_owned()));
        }
        let making = Making {
            password: &login.password,
            attribution: &login.attribution,
            require_tls: *require_tls,
            sessions: *sessions,
            member_of: &role.member_of,
        };
        let create = statement::create(dialect, &account, &making);
        let Some(create) = create.as_ref().and_then(Secret::reveal_text) else {
            return Err(LoginError::Refused("its password is not of our alphabet".to_owned()));
        };
        conn.query_drop(create).await.map_err(said_of_create)?;
        for statement in statement::give(dialect, &account, &role.grants, &role.member_of) {
            if let Err(error) = conn.query_drop(statement).await {
                return Err(Self::undo(&mut conn, &account, error).await);
            }
        }
        let password = login.password.reveal_text().unwrap_or_default();
        let (host, name) = (reach.uri_host(), &login.name);
        let uri = format!(
            "mysql://{name}:{password}@{host}:{}/{}{}",
            reach.port,
            database.as_ref().map_or("", Identifier::as_str),
            if *require_tls { "?ssl-mode=VERIFY_IDENTITY" } else { "" }
        );
        Ok(Access {
            host: reach.host.clone(),
            port: reach.port,
            database: database.as_ref().map(|database| database.as_str().to_owned()),
            uri: Secret::from(uri),
            more: BTreeMap::new(),
        })
    }

    /// Locked, so that no session begins; cut, until there is none; dropped; and cut again, because a session that was logging in
    /// when the lock came may have come through.
    async fn end(&self, name: &str) -> Result<Gone, LoginError> {
        self.known(name)?;
        let (mut conn, _) = self.connect().await?;
        let accounts = self.accounts(&mut conn, name).await?;
        for account in &accounts {
            match conn.query_drop(format!("ALTER USER {account} ACCOUNT LOCK")).await {
                // Another reaper was faster (threat B09).
                Err(error) if says(&error, NO_SUCH_USER) => {}
                Ok(()) => {}
                Err(error) => return Err(answer(error)),
            }
        }
        let before = self.cut(&mut conn, name).await?;
        for account in &accounts {
            conn.query_drop(format!("DROP USER IF EXISTS {account}")).await.map_err(answer)?;
        }
        let after = self.cut(&mut conn, name).await?;
        let nothing = accounts.is_empty() && (before, after) == (Cut::None, Cut::None);
        Ok(if nothing { Gone::Absent } else { Gone::Ended })
    }

    /// Users, and sessions of users that are gone: one that logged in while its user was dropped has no power left, and still
    /// does not stay.
    async fn names(&self) -> Result<Vec<String>, LoginError> {
        let (mut conn, _) = self.connect().await?;
        let prefix = self.server.names.prefix();
        let length = prefix.len();
        let mut names = BTreeSet::new();
        for (column, table) in [("User", "mysql.user"), ("USER", "information_schema.PROCESSLIST")]
        {
            let query =
                format!("SELECT {column} FROM {table} WHERE LEFT({column}, {length}) = '{prefix}'");
            let found: Vec<String> = conn.query(query).await.map_err(answer)?;
            names.extend(found);
        }
        Ok(names.into_iter().filter(|name| name.starts_with(prefix)).collect())
    }
}

/// Said on each new connection: no statement of ours waits for long. MySQL takes the second half for a comment, and bounds only
/// the wait for locks.
fn limits() -> String {
    let seconds = STATEMENT_LIMIT.as_secs();
    format!(
        "SET SESSION lock_wait_timeout = {seconds} /*M!100100 , max_statement_time = {seconds} */"
    )
}

fn says(error: &mysql_async::Error, code: u16) -> bool {
    matches!(error, mysql_async::Error::Server(error) if error.code == code)
}

/// What an error says of the statement that it answers.
fn answer(error: mysql_async::Error) -> LoginError {
    match error {
        mysql_async::Error::Server(error) if !CUT_SHORT.contains(&error.code) => {
            LoginError::Refused(error.to_string())
        }
        mysql_async::Error::Server(_)
        | mysql_async::Error::Driver(_)
        | mysql_async::Error::Io(_)
        | mysql_async::Error::Other(_)
        | mysql_async::Error::Url(_) => LoginError::Lost(error.to_string()),
    }
}

/// As [`answer`], without the server's words where they could repeat the statement: the password may stand in it.
fn said_of_create(error: mysql_async::Error) -> LoginError {
    // A mistake of syntax is told with the text around it.
    if says(&error, SYNTAX) {
        return LoginError::Refused(format!("ERROR {SYNTAX}: it did not understand the statement"));
    }
    answer(error)
}
