//! Users of a Redis or Valkey. It knows no end for a user: everything here is ended by us (INVARIANT(honest-expiry)), or forgotten
//! by the server when it restarts.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    time::Duration,
};

use async_trait::async_trait;
use aws_lc_rs::digest;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, FromRedisValue, IntoConnectionInfo as _,
    RedisConnectionInfo, RedisError, TlsCertificates, Value, aio::MultiplexedConnection,
};
use tokio::{sync::Mutex, time};

mod examine;

use super::{
    login::{Access, Login, LoginError, Logins, STATEMENT_LIMIT},
    name::Names,
    reach::{CONNECT_LIMIT, Protection, Reach},
};
use crate::{grant::RoleName, lease::Gone, secret::Secret, target::redis::RedisRole};

/// Since it, subcommands have rules of their own, and keys can be for reading alone.
const OLDEST: u32 = 7;
/// What a server without an ACL file says to `ACL SAVE`: then there is nothing that a restart could bring back.
const NO_FILE: &str = "not configured to use an ACL file";
/// Answers that say: not now. Nothing was begun.
const NOT_NOW: &[&str] = &["LOADING", "BUSY", "MASTERDOWN", "TRYAGAIN"];

/// One server, and what its users get.
#[derive(Debug)]
pub struct Redis {
    /// How it is reached.
    pub reach: Reach,
    /// Names that are ours.
    pub names: Names,
    /// The database that a login is told to use.
    pub database: u32,
    /// What each role may do.
    pub roles: BTreeMap<RoleName, RedisRole>,
}

/// Makes and ends users.
pub struct RedisLogins {
    server: Redis,
    /// One connection carries many commands at once; made anew when it does not answer.
    held: Mutex<Option<MultiplexedConnection>>,
}

impl std::fmt::Debug for RedisLogins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisLogins").field("server", &self.server).finish_non_exhaustive()
    }
}

impl RedisLogins {
    /// The logins of `server`. Nothing is connected to yet.
    #[must_use]
    pub fn of(server: Redis) -> Self {
        Self { server, held: Mutex::new(None) }
    }

    /// A connection that answers. Nothing has been begun when this fails.
    async fn connect(&self) -> Result<MultiplexedConnection, LoginError> {
        // Asked without the lock: one connection carries the questions of many at once.
        let held = self.held.lock().await.clone();
        if let Some(mut connection) = held
            && ask::<String>(&mut connection, &["PING"]).await.is_ok()
        {
            return Ok(connection);
        }
        // Whoever comes first makes a new one; the others find it here.
        let mut held = self.held.lock().await;
        if let Some(connection) = held.as_ref() {
            let mut connection = connection.clone();
            if ask::<String>(&mut connection, &["PING"]).await.is_ok() {
                return Ok(connection);
            }
            *held = None;
        }
        let connecting = time::timeout(CONNECT_LIMIT, self.connect_anew()).await;
        let connection = connecting.unwrap_or_else(|_| {
            Err(LoginError::Unreachable("no answer within its time".to_owned()))
        })?;
        *held = Some(connection.clone());
        Ok(connection)
    }

    async fn connect_anew(&self) -> Result<MultiplexedConnection, LoginError> {
        let reach = &self.server.reach;
        let unreachable = |error: RedisError| LoginError::Unreachable(error.to_string());
        let password = reach.password().await?;
        let who = RedisConnectionInfo::default()
            .set_username(&reach.user)
            .set_password(password.reveal_text().unwrap_or_default())
            .set_skip_set_lib_name();
        let client = match &reach.tls {
            Protection::DangerouslyPlain => {
                let address = ConnectionAddr::Tcp(reach.host.clone(), reach.port);
                let info = address.into_connection_info().map_err(unreachable)?;
                Client::open(info.set_redis_settings(who))
            }
            Protection::VerifyFull(ca) => {
                let address = ConnectionAddr::TcpTls {
                    host: reach.host.clone(),
                    port: reach.port,
                    insecure: false,
                    tls_params: None,
                };
                let info = address.into_connection_info().map_err(unreachable)?;
                // Without roots of our own the driver takes the machine's.
                let root_cert = match ca {
                    Some(_) => reach.roots().await?.map(|roots| roots.concat()),
                    None => None,
                };
                let trust = TlsCertificates { client_tls: None, root_cert };
                Client::build_with_tls(info.set_redis_settings(who), trust)
            }
        }
        .map_err(unreachable)?;
        let limits = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_LIMIT))
            .set_response_timeout(Some(STATEMENT_LIMIT));
        let mut connection = client
            .get_multiplexed_async_connection_with_config(&limits)
            .await
            .map_err(unreachable)?;
        let server = hello(&mut connection).await.map_err(unreachable)?;
        server.fits().map_err(LoginError::Refused)?;
        Ok(connection)
    }

    /// Threat B01: nothing else is ever the user of a command.
    fn known<'n>(&self, name: &'n str) -> Result<&'n str, LoginError> {
        let ours = self.server.names.is_ours(name);
        ours.then_some(name)
            .ok_or_else(|| LoginError::Refused("this is no name of ours".to_owned()))
    }
}

#[async_trait]
impl Logins for RedisLogins {
    /// `lifetime` is not told to the server: it has no word for it. The user is in memory alone: a restart forgets it, and does not
    /// bring it back after its end.
    async fn make(&self, login: &Login, _lifetime: Duration) -> Result<Access, LoginError> {
        let Redis { reach, database, roles, .. } = &self.server;
        let name = self.known(&login.name)?;
        let Some(role) = roles.get(&login.role) else {
            return Err(LoginError::Refused(format!("it has no role `{}`", login.role)));
        };
        let hash = format!("#{}", sha256_hex(&login.password));
        let rules = role.rules(*database != 0);
        let mut command = vec!["ACL", "SETUSER", name, "reset", "on", "sanitize-payload", &hash];
        command.extend(rules.iter().map(String::as_str));
        let mut connection = self.connect().await?;
        // A name that is taken would be overwritten. Two random ones of 90 bits never meet; a defect of ours could.
        let there: Value = ask(&mut connection, &["ACL", "GETUSER", name])
            .await
            .map_err(|error| answer(&error))?;
        if there != Value::Nil {
            return Err(LoginError::Refused("there is a user of this name".to_owned()));
        }
        // One command: all of it is taken, or none.
        ask::<()>(&mut connection, &command).await.map_err(|error| answer(&error))?;
        let password = login.password.reveal_text().unwrap_or_default();
        let scheme = match reach.tls {
            Protection::VerifyFull(_) => "rediss",
            Protection::DangerouslyPlain => "redis",
        };
        let (host, port) = (reach.uri_host(), reach.port);
        let uri = format!("{scheme}://{name}:{password}@{host}:{port}/{database}");
        Ok(Access {
            host: reach.host.clone(),
            port,
            database: Some(database.to_string()),
            uri: Secret::from(uri),
            more: BTreeMap::new(),
        })
    }

    /// `ACL DELUSER` cuts the user's sessions, those that wait included. Somebody may have saved the users while this one was
    /// there: saved again, so that no restart brings it back.
    async fn end(&self, name: &str) -> Result<Gone, LoginError> {
        let name = self.known(name)?;
        let mut connection = self.connect().await?;
        let ended: u64 = ask(&mut connection, &["ACL", "DELUSER", name])
            .await
            .map_err(|error| answer(&error))?;
        match ask::<()>(&mut connection, &["ACL", "SAVE"]).await {
            Err(error) if error.to_string().contains(NO_FILE) => {}
            Err(error) => {
                let error = answer(&error);
                let LoginError::Refused(reason) = error else { return Err(error) };
                return Err(LoginError::Refused(format!(
                    "it is ended, but a restart could bring it back, because users can't be saved: {reason}"
                )));
            }
            Ok(()) => {}
        }
        Ok(if ended == 0 { Gone::Absent } else { Gone::Ended })
    }

    async fn names(&self) -> Result<Vec<String>, LoginError> {
        let mut connection = self.connect().await?;
        let users: Vec<String> =
            ask(&mut connection, &["ACL", "USERS"]).await.map_err(|error| answer(&error))?;
        let prefix = self.server.names.prefix();
        Ok(users.into_iter().filter(|user| user.starts_with(prefix)).collect())
    }
}

/// What a server says of itself.
#[derive(Debug)]
struct Hello {
    version: String,
    mode: String,
}

impl Hello {
    fn fits(&self) -> Result<(), String> {
        let Self { version, mode } = self;
        let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        if major.is_none_or(|major| major < OLDEST) {
            let found = version.escape_debug();
            return Err(format!(
                "its version is `{found}`, expected Redis 7.0 or newer, or Valkey"
            ));
        }
        if mode != "standalone" {
            let found = mode.escape_debug();
            return Err(format!(
                "its mode is `{found}`, expected `standalone`: in a cluster each node has users of its own, and a login would not end on all of them"
            ));
        }
        Ok(())
    }
}

async fn hello(connection: &mut MultiplexedConnection) -> Result<Hello, RedisError> {
    let members: HashMap<String, Value> = ask(connection, &["HELLO"]).await?;
    let text = |name: &str| {
        let value = members.get(name).cloned();
        value.and_then(|value| String::from_redis_value(value).ok()).unwrap_or_default()
    };
    Ok(Hello { version: text("version"), mode: text("mode") })
}

async fn ask<T: FromRedisValue>(
    connection: &mut MultiplexedConnection,
    words: &[&str],
) -> Result<T, RedisError> {
    let mut command = Cmd::new();
    for word in words {
        command.arg(*word);
    }
    command.query_async(connection).await
}

/// What an error says of the command that it answers.
fn answer(error: &RedisError) -> LoginError {
    match error.code() {
        Some(code) if NOT_NOW.contains(&code) => LoginError::Unreachable(error.to_string()),
        Some(_) => LoginError::Refused(error.to_string()),
        None => LoginError::Lost(error.to_string()),
    }
}

fn sha256_hex(password: &Secret) -> String {
    let mut text = String::new();
    for byte in digest::digest(&digest::SHA256, password.reveal()).as_ref() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
