//! Servers that have logins of their own: found in the configuration, not connected to yet.

use std::sync::Arc;

use crate::{
    app::scene::SceneError,
    chance::Chance,
    config::{
        Bounds, Config, MysqlConfig, PostgresConfig, RedisConfig, ServerConfig, ServerTls,
        TargetConfig, TargetKind,
    },
    mint::{
        examine::Examine,
        login::Logins,
        mysql::{Mysql, MysqlLogins},
        name::Names,
        postgres::{self, Postgres, PostgresTarget},
        reach::{Protection, Reach},
        redis::{Redis, RedisLogins},
    },
};

/// One server, as makers and `cambio doctor` see it.
pub(super) struct Server {
    /// Makes and ends its logins.
    pub(super) logins: Arc<dyn Logins>,
    /// Looks at it.
    pub(super) examiner: Arc<dyn Examine>,
    /// The names of its logins.
    pub(super) names: Names,
    /// How much of it may be taken up.
    pub(super) bounds: Bounds,
}

/// The server of `target`; `None` for a kind without one.
///
/// # Errors
/// It can't be set up.
pub(super) fn server(
    config: &Config,
    target: &TargetConfig,
    chance: &Arc<dyn Chance>,
) -> Result<Option<Server>, SceneError> {
    let names = Names::of(&config.ledger.origin, &target.name);
    let found = match &target.kind {
        TargetKind::Jwt(_)
        | TargetKind::Cambio(_)
        | TargetKind::X509(_)
        | TargetKind::Google(_)
        | TargetKind::Azure(_)
        | TargetKind::Github(_)
        | TargetKind::Aws(_)
        | TargetKind::Rds(_) => return Ok(None),
        TargetKind::Postgres(configured) => postgres(configured, names, chance)
            .map_err(|error| SceneError::Target(format!("`{}`: {error}", target.name)))?,
        TargetKind::Mysql(configured) => mysql(configured, names),
        TargetKind::Redis(configured) => redis(configured, names),
    };
    Ok(Some(found))
}

fn postgres(
    configured: &PostgresConfig,
    names: Names,
    chance: &Arc<dyn Chance>,
) -> Result<Server, String> {
    let server = &configured.server;
    let wanted = PostgresTarget {
        host: server.host.clone(),
        port: server.port,
        user: server.user.clone(),
        password_file: server.password_file.clone(),
        protection: match &server.tls {
            ServerTls::VerifyFull { ca_file } => {
                postgres::Protection::VerifyFull { ca_file: ca_file.clone() }
            }
            ServerTls::DangerouslyPlain => postgres::Protection::DangerouslyPlain,
        },
        connections: usize::try_from(server.bounds.connections).unwrap_or(1),
        home: configured.maintenance_database.clone(),
        databases: configured.databases.clone(),
        owner: configured.owner.clone(),
        roles: configured.roles.clone(),
    };
    let bounds = server.bounds;
    let server = Arc::new(Postgres::of(wanted, names.clone(), Arc::clone(chance))?);
    Ok(Server { logins: Arc::clone(&server) as _, examiner: server, names, bounds })
}

fn mysql(configured: &MysqlConfig, names: Names) -> Server {
    let server = Arc::new(MysqlLogins::of(Mysql {
        reach: reach(&configured.server),
        names: names.clone(),
        database: configured.database.clone(),
        from: configured.from.clone(),
        require_tls: configured.require_tls,
        sessions: configured.sessions,
        roles: configured.roles.clone(),
    }));
    let bounds = configured.server.bounds;
    Server { logins: Arc::clone(&server) as _, examiner: server, names, bounds }
}

fn redis(configured: &RedisConfig, names: Names) -> Server {
    let server = Arc::new(RedisLogins::of(Redis {
        reach: reach(&configured.server),
        names: names.clone(),
        database: configured.database,
        roles: configured.roles.clone(),
    }));
    let bounds = configured.server.bounds;
    Server { logins: Arc::clone(&server) as _, examiner: server, names, bounds }
}

fn reach(server: &ServerConfig) -> Reach {
    Reach {
        host: server.host.clone(),
        port: server.port,
        tls: match &server.tls {
            ServerTls::VerifyFull { ca_file } => Protection::VerifyFull(ca_file.clone()),
            ServerTls::DangerouslyPlain => Protection::DangerouslyPlain,
        },
        user: server.user.clone(),
        password_file: server.password_file.clone(),
        connections: server.bounds.connections,
    }
}
