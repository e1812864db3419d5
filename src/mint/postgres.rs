//! Logins at PostgreSQL, 13 to 18: a role of its own for each, whose password the server itself stops believing in time.
//!
//! INVARIANT(honest-expiry): `exact`. `VALID UNTIL` is computed by the server's clock from a length (threats B06, B08), so new
//! logins end with the broker dead or alive. It bounds passwords, not sessions: those are cut when the lease ends (B05).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::Instant;
use url::Url;

use super::{
    login::{Access, Login, LoginError, Logins},
    name::Names,
    sql::Statement,
};
use crate::{chance::Chance, grant::RoleName, lease::Gone, secret::Secret};

mod create;
mod end;
mod examine;
mod failure;
mod hand;
mod quote;
mod scram;
mod tls;

use hand::Hands;
pub use quote::{MOST_NAME_BYTES, is_name};

/// A server, who we are there, and what logins get.
#[derive(Clone, Debug)]
pub struct PostgresTarget {
    /// The name that clients use, and that its certificate carries.
    pub host: String,
    /// TCP.
    pub port: u16,
    /// Our role there: `CREATEROLE`, and `ADMIN` on what it hands out.
    pub user: String,
    /// Its password. Read for each connection.
    pub password_file: PathBuf,
    /// How the connection is protected.
    pub protection: Protection,
    /// The most connections at once.
    pub connections: usize,
    /// The database that we connect to, when no other one is meant.
    pub home: String,
    /// The databases in which logins may leave something; `None` means all.
    pub databases: Option<BTreeSet<String>>,
    /// Who gets what logins own when they end. Without one, a login that owns something is shut, and stays.
    pub owner: Option<String>,
    /// What logins get, by role of the target.
    pub roles: BTreeMap<RoleName, PostgresRole>,
}

/// How the connection is protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Chain and name are verified (`verify-full`).
    VerifyFull {
        /// The roots as PEM; `None` means those of the machine.
        ca_file: Option<PathBuf>,
    },
    /// No TLS: for a server on this machine.
    DangerouslyPlain,
}

/// What a login gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresRole {
    /// Group roles that it is a member of. It inherits what they have, and may hand none of it on.
    pub member_of: Vec<String>,
    /// `CONNECTION LIMIT`.
    pub connection_limit: u32,
    /// The database of its connection URI.
    pub database: String,
    /// In place of our `CREATE ROLE`, in `database`. What keeps it honest (password, end, limit) is set after them all the same.
    pub create: Vec<Statement>,
    /// Before a login of this role ends, in `database`.
    pub revoke: Vec<Statement>,
}

/// The logins of one PostgreSQL server.
#[derive(Debug)]
pub struct Postgres {
    target: PostgresTarget,
    names: Names,
    chance: Arc<dyn Chance>,
    hands: Hands,
}

impl Postgres {
    /// The server of `target`; nothing is connected to yet.
    ///
    /// # Errors
    /// There are no trust roots, or the CA file holds none.
    pub fn of(
        target: PostgresTarget,
        names: Names,
        chance: Arc<dyn Chance>,
    ) -> Result<Self, String> {
        let hands = Hands::of(&target)?;
        Ok(Self { target, names, chance, hands })
    }

    fn access(&self, login: &Login, role: &PostgresRole) -> Result<Access, LoginError> {
        let sslmode = match self.target.protection {
            Protection::VerifyFull { .. } => "verify-full",
            Protection::DangerouslyPlain => "disable",
        };
        let defect = || LoginError::Refused("its host and port make no URI".to_owned());
        let mut uri = Url::parse("postgresql://host").map_err(|_| defect())?;
        let host = &self.target.host;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        uri.set_host(Some(&host)).map_err(|_| defect())?;
        uri.set_port(Some(self.target.port)).map_err(|()| defect())?;
        uri.set_username(&login.name).map_err(|()| defect())?;
        uri.set_password(login.password.reveal_text()).map_err(|()| defect())?;
        uri.path_segments_mut().map_err(|()| defect())?.push(&role.database);
        uri.query_pairs_mut().append_pair("sslmode", sslmode);
        Ok(Access {
            host: self.target.host.clone(),
            port: self.target.port,
            database: Some(role.database.clone()),
            uri: Secret::from(String::from(uri)),
            more: BTreeMap::from([("sslmode", sslmode.into())]),
        })
    }
}

#[async_trait]
impl Logins for Postgres {
    fn derive(&self, login: &Login) -> Result<(), LoginError> {
        create::verifier(login, &*self.chance).map(drop)
    }

    async fn make(&self, login: &Login, lifetime: Duration) -> Result<Access, LoginError> {
        let begun = Instant::now();
        let Some(role) = self.target.roles.get(&login.role) else {
            return Err(LoginError::Refused(format!("no role `{}` is configured", login.role)));
        };
        if !self.names.is_ours(&login.name) {
            return Err(LoginError::Refused("the name is none of ours".to_owned()));
        }
        // Before anything exists that only a failure could take back.
        let access = self.access(login, role)?;
        let new = create::New::of(login, role, &*self.chance)?;
        let mut hand = self.hands.hand();
        // An operator's statements name what only one database has.
        let database = if role.create.is_empty() { self.hands.home() } else { &role.database };
        let client = hand.at(database).await?;
        // INVARIANT(never-outlive): what waiting for the connection took is no part of the lifetime.
        let left = lifetime.saturating_sub(begun.elapsed());
        new.make(client, left).await?;
        hand.rest();
        Ok(access)
    }

    async fn end(&self, name: &str) -> Result<Gone, LoginError> {
        if !self.names.is_ours(name) {
            return Err(LoginError::Refused("the name is none of ours".to_owned()));
        }
        end::end(&self.target, &self.names, &self.hands, name).await
    }

    async fn names(&self) -> Result<Vec<String>, LoginError> {
        let mut hand = self.hands.hand();
        let client = hand.at_home().await?;
        let names = end::names(client, self.names.prefix()).await?;
        hand.rest();
        Ok(names)
    }
}
