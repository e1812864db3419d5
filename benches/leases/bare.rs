//! The bare limit: the statements that make a login, sent by the same drivers over as many pooled connections, and nothing else.
//!
//! Each login has a password of its own, and its verifier is computed here as the broker does: somebody must. A transaction is one
//! round trip.

use std::{fmt::Write as _, num::NonZeroU32, sync::Arc};

use async_trait::async_trait;
use aws_lc_rs::{digest, hmac, pbkdf2, rand};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use deadpool_postgres::{Manager, ManagerConfig, Pool as PostgresPool, RecyclingMethod};
use mysql_async::{OptsBuilder, Pool as MysqlPool, PoolConstraints, PoolOpts, SslOpts, prelude::*};
use redis::{
    Client, Cmd, ConnectionAddr, IntoConnectionInfo as _, RedisConnectionInfo, TlsCertificates,
    aio::MultiplexedConnection,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    load::Caller,
    server::{Kind, Server},
};

/// What the bare logins' names begin with: no prefix that a broker has.
pub const PREFIX: &str = "cambio_bare_";

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// A server, reached without a broker.
#[derive(Clone)]
pub struct Bare {
    connections: Connections,
    group: Arc<str>,
}

#[derive(Clone)]
enum Connections {
    Postgres(PostgresPool),
    Mysql(MysqlPool),
    /// In turn: the driver's connections carry several commands at once, and have no pool.
    Redis(Vec<MultiplexedConnection>),
}

impl Bare {
    pub async fn of(server: &Server, connections: usize) -> Result<Self, Failed> {
        let connections = match server.kind {
            Kind::Postgres => Connections::Postgres(postgres(server, connections)?),
            Kind::Mariadb => Connections::Mysql(mysql(server, connections)?),
            Kind::Redis => {
                let client = redis(server)?;
                let mut all = Vec::new();
                for _ in 0..connections {
                    all.push(client.get_multiplexed_async_connection().await?);
                }
                Connections::Redis(all)
            }
        };
        Ok(Self { connections, group: server.group().into() })
    }

    /// Callers that make logins.
    pub fn makers(&self, count: usize) -> Vec<Box<dyn Caller>> {
        let maker = |_| Box::new(Maker(self.clone())) as Box<dyn Caller>;
        (0..count).map(maker).collect()
    }

    /// Callers that end those whose names are `names`.
    pub fn enders(&self, count: usize, names: &Arc<Vec<String>>) -> Vec<Box<dyn Caller>> {
        let ender = |_| Box::new(Ender(self.clone(), Arc::clone(names))) as Box<dyn Caller>;
        (0..count).map(ender).collect()
    }

    async fn make(&self, number: usize) -> Result<(), Failed> {
        let name = format!("{PREFIX}{number:020}");
        let mut password = [0; 24];
        rand::fill(&mut password)?;
        match &self.connections {
            Connections::Postgres(pool) => {
                let verifier = scram(&password);
                let statements = format!(
                    "BEGIN; CREATE ROLE \"{name}\" LOGIN PASSWORD '{verifier}' VALID UNTIL '2100-01-01T00:00:00Z' CONNECTION \
                     LIMIT 5 NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS INHERIT; GRANT \"{}\" TO \"{name}\"; \
                     COMMIT",
                    self.group
                );
                pool.get().await?.batch_execute(&statements).await?;
            }
            Connections::Mysql(pool) => {
                let mut conn = pool.get_conn().await?;
                let sha1 = &digest::SHA1_FOR_LEGACY_USE_ONLY;
                let hash = digest::digest(sha1, digest::digest(sha1, &password).as_ref());
                let hash = hex(hash.as_ref()).to_uppercase();
                let create = format!(
                    "CREATE USER '{name}'@'%' IDENTIFIED VIA mysql_native_password USING '*{hash}' REQUIRE SSL WITH \
                     MAX_USER_CONNECTIONS 5"
                );
                conn.query_drop(create).await?;
                let grant = format!("GRANT INSERT, SELECT ON `orders`.`entries` TO '{name}'@'%'");
                conn.query_drop(grant).await?;
            }
            Connections::Redis(all) => {
                let mut command = Cmd::new();
                let hash = digest::digest(&digest::SHA256, &password);
                let hash = format!("#{}", hex(hash.as_ref()));
                let words = ["ACL", "SETUSER", &name, "reset", "on", "sanitize-payload", &hash];
                let rules = ["resetkeys", "resetchannels", "-@all", "~app:*", "+@read", "+@write"];
                for word in words.into_iter().chain(rules) {
                    command.arg(word);
                }
                let mut connection = in_turn(all, number).ok_or("no connection")?;
                command.query_async::<()>(&mut connection).await?;
            }
        }
        Ok(())
    }

    async fn end(&self, name: &str, number: usize) -> Result<(), Failed> {
        match &self.connections {
            Connections::Postgres(pool) => {
                pool.get().await?.batch_execute(&format!("DROP ROLE \"{name}\"")).await?;
            }
            Connections::Mysql(pool) => {
                pool.get_conn().await?.query_drop(format!("DROP USER '{name}'@'%'")).await?;
            }
            Connections::Redis(all) => {
                let mut connection = in_turn(all, number).ok_or("no connection")?;
                let mut command = Cmd::new();
                command.arg("ACL").arg("DELUSER").arg(name);
                command.query_async::<()>(&mut connection).await?;
            }
        }
        Ok(())
    }

    /// The logins whose names begin with `prefix`.
    pub async fn names(&self, prefix: &str) -> Result<Vec<String>, Failed> {
        let names: Vec<String> = match &self.connections {
            Connections::Postgres(pool) => {
                let rows =
                    pool.get().await?.query("SELECT rolname::text FROM pg_roles", &[]).await?;
                rows.iter().map(|row| row.get(0)).collect()
            }
            Connections::Mysql(pool) => {
                pool.get_conn().await?.query("SELECT User FROM mysql.user").await?
            }
            Connections::Redis(all) => {
                let mut connection = in_turn(all, 0).ok_or("no connection")?;
                let mut command = Cmd::new();
                command.arg("ACL").arg("USERS");
                command.query_async(&mut connection).await?
            }
        };
        Ok(names.into_iter().filter(|name| name.starts_with(prefix)).collect())
    }

    /// Ends all logins whose names begin with `prefix`, and says how many there were.
    pub async fn clean(&self, prefix: &str) -> Result<usize, Failed> {
        let names = self.names(prefix).await?;
        for name in &names {
            self.end(name, 0).await?;
        }
        Ok(names.len())
    }

    pub async fn close(self) -> Result<(), Failed> {
        if let Connections::Mysql(pool) = self.connections {
            pool.disconnect().await?;
        }
        Ok(())
    }
}

/// What PostgreSQL keeps of a password (RFC 5802 section 3).
fn scram(password: &[u8]) -> String {
    const ITERATIONS: NonZeroU32 = NonZeroU32::MIN.saturating_add(4095);
    let (salt, mut salted) = ([7_u8; 16], [0_u8; 32]);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ITERATIONS, &salt, password, &mut salted);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &salted);
    let stored = digest::digest(&digest::SHA256, hmac::sign(&key, b"Client Key").as_ref());
    let server = hmac::sign(&key, b"Server Key");
    let [salt, stored, server] =
        [salt.as_slice(), stored.as_ref(), server.as_ref()].map(|bytes| STANDARD.encode(bytes));
    format!("SCRAM-SHA-256${ITERATIONS}:{salt}${stored}:{server}")
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn in_turn(all: &[MultiplexedConnection], number: usize) -> Option<MultiplexedConnection> {
    all.get(number % all.len().max(1)).cloned()
}

fn postgres(server: &Server, connections: usize) -> Result<PostgresPool, Failed> {
    let mut config = tokio_postgres::Config::new();
    config
        .host(&server.host)
        .port(server.port)
        .user(&server.admin.user)
        .password(server.admin.password())
        .dbname("postgres")
        .ssl_mode(SslMode::Require);
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&server.ca_file)? {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = Manager::from_config(config, MakeRustlsConnect::new(tls), recycling);
    Ok(PostgresPool::builder(manager).max_size(connections).build()?)
}

fn mysql(server: &Server, connections: usize) -> Result<MysqlPool, Failed> {
    let pem = std::fs::read(&server.ca_file)?;
    let tls =
        SslOpts::default().with_disable_built_in_roots(true).with_root_certs(vec![pem.into()]);
    let constraints = PoolConstraints::new(0, connections).ok_or("no pool")?;
    let options = OptsBuilder::default()
        .ip_or_hostname(server.host.as_str())
        .tcp_port(server.port)
        .user(Some(server.admin.user.as_str()))
        .pass(Some(server.admin.password()))
        .prefer_socket(false)
        .stmt_cache_size(0)
        .pool_opts(PoolOpts::new().with_constraints(constraints).with_reset_connection(false))
        .ssl_opts(tls);
    Ok(MysqlPool::new(options))
}

fn redis(server: &Server) -> Result<Client, Failed> {
    let address = ConnectionAddr::TcpTls {
        host: server.host.clone(),
        port: server.port,
        insecure: false,
        tls_params: None,
    };
    let who = RedisConnectionInfo::default()
        .set_username(&server.admin.user)
        .set_password(server.admin.password())
        .set_skip_set_lib_name();
    let info = address.into_connection_info()?.set_redis_settings(who);
    let root_cert = Some(std::fs::read(&server.ca_file)?);
    Ok(Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert })?)
}

struct Maker(Bare);

#[async_trait]
impl Caller for Maker {
    async fn one(&mut self, number: usize) -> Result<(), String> {
        self.0.make(number).await.map_err(|error| told(&*error))
    }
}

struct Ender(Bare, Arc<Vec<String>>);

#[async_trait]
impl Caller for Ender {
    async fn one(&mut self, number: usize) -> Result<(), String> {
        let name = self.1.get(number).ok_or("no such login")?;
        self.0.end(name, number).await.map_err(|error| told(&*error))
    }
}

/// With its causes: some of these errors only name their kind.
pub fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
