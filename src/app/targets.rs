//! From configured targets to what makes and ends their credentials.

use std::sync::Arc;

use super::scene::{Means, SceneError};
use crate::{
    config::{
        Config, JwtConfig, JwtType, MysqlConfig, PostgresConfig, RedisConfig, ServerConfig,
        ServerTls, TargetConfig, TargetKind,
    },
    grant::TargetName,
    keys::keyring::TokenType,
    lease::{Revoker, Revokers},
    mint::{
        Minter, Minters,
        examine::Examine,
        jwt::{JwtMinter, JwtTarget},
        login::{LoginMinter, LoginTarget, Logins},
        mysql::{Mysql, MysqlLogins},
        name::Names,
        postgres::{self, Postgres, PostgresTarget},
        reach::{Protection, Reach},
        redis::{Redis, RedisLogins},
    },
};

/// What makes credentials, and what ends those that must end.
#[derive(Debug, Default)]
pub struct Makers {
    /// By target.
    pub minters: Minters,
    /// Those with leases, by target.
    pub revokers: Revokers,
    /// What `cambio doctor` asks.
    pub examiners: Vec<(TargetName, Arc<dyn Examine>)>,
}

/// What serves one target.
struct Made {
    minter: Arc<dyn Minter>,
    revoker: Option<Arc<dyn Revoker>>,
    examiner: Option<Arc<dyn Examine>>,
}

/// The minters and revokers of the configured targets. Nothing is connected to yet: one dead target neither stops the start nor
/// slows another (threat V03).
///
/// # Errors
/// A target can't be served.
pub fn makers(config: &Config, means: &Means) -> Result<Makers, SceneError> {
    let (mut minters, mut revokers, mut examiners) = (Vec::new(), Vec::new(), Vec::new());
    for target in &config.targets {
        let made = match &target.kind {
            TargetKind::Jwt(jwt) | TargetKind::Cambio(jwt) => {
                jwt_maker(config, target, jwt, means)?
            }
            TargetKind::Mysql(mysql) => mysql_maker(config, target, mysql, means),
            TargetKind::Redis(redis) => redis_maker(config, target, redis, means),
            TargetKind::Postgres(postgres) => postgres_maker(config, target, postgres, means)?,
        };
        minters.push((target.name.clone(), made.minter));
        revokers.extend(made.revoker.map(|revoker| (target.name.clone(), revoker)));
        examiners.extend(made.examiner.map(|examiner| (target.name.clone(), examiner)));
    }
    Ok(Makers { minters: Minters::of(minters), revokers: Revokers::of(revokers), examiners })
}

/// Both kinds end in a JWT of ours: `cambio` is our own API, with our issuer as its audience.
fn jwt_maker(
    config: &Config,
    target: &TargetConfig,
    jwt: &JwtConfig,
    means: &Means,
) -> Result<Made, SceneError> {
    let target = JwtTarget {
        name: target.name.clone(),
        issuer: config.issuer.clone(),
        audience: jwt.audience.clone(),
        algorithm: jwt.algorithm,
        typ: match jwt.token_type {
            JwtType::AccessToken => TokenType::AccessToken,
            JwtType::Jwt => TokenType::Jwt,
        },
        ceiling: target.ceiling,
        environment: config.environment.clone(),
    };
    let (keyring, chance) = (Arc::clone(&means.keyring), Arc::clone(&means.chance));
    let minter = JwtMinter::of(target, keyring, chance)
        .map_err(|error| SceneError::Target(error.to_string()))?;
    Ok(Made { minter: Arc::new(minter), revoker: None, examiner: None })
}

fn postgres_maker(
    config: &Config,
    target: &TargetConfig,
    postgres: &PostgresConfig,
    means: &Means,
) -> Result<Made, SceneError> {
    let server = &postgres.server;
    let names = Names::of(&config.ledger.origin, &target.name);
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
        connections: usize::try_from(server.connections).unwrap_or(1),
        home: postgres.maintenance_database.clone(),
        databases: postgres.databases.clone(),
        owner: postgres.owner.clone(),
        roles: postgres.roles.clone(),
    };
    let server = Postgres::of(wanted, names.clone(), Arc::clone(&means.chance))
        .map_err(|error| SceneError::Target(format!("`{}`: {error}", target.name)))?;
    let server = Arc::new(server);
    let at_once = postgres.server.connections;
    let examine = Arc::clone(&server) as Arc<dyn Examine>;
    Ok(login_maker(config, target, (at_once, names), (server, examine), means))
}

/// A target whose server has logins: `server` makes and ends them.
fn login_maker(
    config: &Config,
    target: &TargetConfig,
    (at_once, names): (u32, Names),
    server: (Arc<dyn Logins>, Arc<dyn Examine>),
    means: &Means,
) -> Made {
    let login = LoginTarget {
        name: target.name.clone(),
        kind: target.kind.as_str(),
        issuer: config.issuer.as_str().to_owned(),
        names,
        expiry: target.expiry(),
        at_once: usize::try_from(at_once).unwrap_or(1),
    };
    let (clock, chance) = (Arc::clone(&means.clock), Arc::clone(&means.chance));
    let minter = Arc::new(LoginMinter::of(login, server.0, clock, chance));
    Made {
        minter: Arc::clone(&minter) as Arc<dyn Minter>,
        revoker: Some(minter),
        examiner: Some(server.1),
    }
}

fn mysql_maker(config: &Config, target: &TargetConfig, mysql: &MysqlConfig, means: &Means) -> Made {
    let names = Names::of(&config.ledger.origin, &target.name);
    let server = Arc::new(MysqlLogins::of(Mysql {
        reach: reach(&mysql.server),
        names: names.clone(),
        database: mysql.database.clone(),
        from: mysql.from.clone(),
        require_tls: mysql.require_tls,
        sessions: mysql.sessions,
        roles: mysql.roles.clone(),
    }));
    let at_once = mysql.server.connections;
    login_maker(config, target, (at_once, names), (Arc::clone(&server) as _, server), means)
}

fn redis_maker(config: &Config, target: &TargetConfig, redis: &RedisConfig, means: &Means) -> Made {
    let names = Names::of(&config.ledger.origin, &target.name);
    let server = Arc::new(RedisLogins::of(Redis {
        reach: reach(&redis.server),
        names: names.clone(),
        database: redis.database,
        roles: redis.roles.clone(),
    }));
    let at_once = redis.server.connections;
    login_maker(config, target, (at_once, names), (Arc::clone(&server) as _, server), means)
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
        connections: server.connections,
    }
}
