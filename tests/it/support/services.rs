//! The real servers of ring 3, as `tests/services/up` describes them. `tests/README.md` has the shape of the file.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, Write as _},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    thread,
};

use serde::Deserialize;

const NAMES: [&str; 5] = ["postgres15", "postgres18", "mariadb", "redis", "redis-aclfile"];

/// One set of throw-away servers, and the reasons for those that could not be had.
#[derive(Debug, Deserialize)]
pub(crate) struct Services {
    /// Signs the certificates that `cert` logins are made with, until a test puts another in its place.
    pub(crate) client_authority: Pair,
    #[serde(rename = "services")]
    running: BTreeMap<String, Service>,
    missing: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Service {
    Postgres(Postgres),
    Mariadb(Mariadb),
    Redis(Redis),
}

/// A certificate and its private key, both PEM.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Pair {
    pub(crate) certificate_file: PathBuf,
    pub(crate) key_file: PathBuf,
}

/// A user name, and the file of mode 0600 that holds its password.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password_file: PathBuf,
}

impl Login {
    pub(crate) fn password(&self) -> String {
        fs::read_to_string(&self.password_file).unwrap()
    }
}

/// Group roles that the broker's login may hand out: both may use schema `public`, one reads `entries`, one writes.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Groups {
    pub(crate) read: String,
    pub(crate) write: String,
}

/// PostgreSQL 15 or 18: TLS for everyone, SCRAM, and `cert` for members of `certificates.group`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Postgres {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Vouches for the server, which is `localhost`, `127.0.0.1` and `::1`.
    pub(crate) ca_file: PathBuf,
    pub(crate) version: String,
    /// The server's own log, every statement included.
    pub(crate) log: PathBuf,
    /// `psql`.
    pub(crate) client: PathBuf,
    pub(crate) superuser: Login,
    /// The broker's login: just enough.
    pub(crate) admin: Login,
    pub(crate) databases: Vec<String>,
    pub(crate) groups: Groups,
    /// The role that gets what leases leave behind.
    pub(crate) heir: String,
    pub(crate) hba_file: PathBuf,
    pub(crate) certificates: CertificateLogins,
}

/// How a PostgreSQL takes certificates for logins.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct CertificateLogins {
    /// Its members, and from 16 on all whose name begins with `cert_`, log in by certificate and in no other way.
    pub(crate) group: String,
    /// Whom the server believes about clients: write over it in place, then `SELECT pg_reload_conf()`.
    pub(crate) client_ca_file: PathBuf,
    /// A user that is there from the start, whose certificate `own` is.
    pub(crate) user: String,
    #[serde(flatten)]
    pub(crate) own: Pair,
}

/// MariaDB: TLS is offered, `REQUIRE SSL` asks for it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Mariadb {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) ca_file: PathBuf,
    pub(crate) version: String,
    /// The general log: every statement.
    pub(crate) log: PathBuf,
    /// `mariadb`.
    pub(crate) client: PathBuf,
    pub(crate) superuser: Login,
    pub(crate) admin: Login,
    pub(crate) databases: Vec<String>,
    pub(crate) groups: Groups,
}

/// Redis: TLS only; keys `orders:1`, `orders:2`, `billing:1`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Redis {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) ca_file: PathBuf,
    pub(crate) version: String,
    pub(crate) log: PathBuf,
    /// `redis-cli`.
    pub(crate) client: PathBuf,
    pub(crate) superuser: Login,
    pub(crate) admin: Login,
    /// Where users are saved, if anywhere.
    pub(crate) acl_file: Option<PathBuf>,
}

impl Services {
    /// The servers of this run; without `CAMBIO_SERVICES` it says so, and the test that asked returns.
    pub(crate) fn of_this_run() -> Option<Self> {
        let Some(path) = env::var_os("CAMBIO_SERVICES") else {
            say("CAMBIO_SERVICES is not set");
            return None;
        };
        Some(Self::read(Path::new(&path)))
    }

    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path)
            .unwrap_or_else(|error| panic!("CAMBIO_SERVICES is `{}`: {error}", path.display()));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// `postgres15` or `postgres18`.
    pub(crate) fn postgres(&self, name: &str) -> Option<Postgres> {
        self.find(name).map(|found| match found {
            Service::Postgres(server) => server.clone(),
            other => panic!("`{name}` is no PostgreSQL: {other:?}"),
        })
    }

    pub(crate) fn mariadb(&self) -> Option<Mariadb> {
        self.find("mariadb").map(|found| match found {
            Service::Mariadb(server) => server.clone(),
            other => panic!("`mariadb` is no MariaDB: {other:?}"),
        })
    }

    /// `redis`, which forgets its users with a restart, or `redis-aclfile`.
    pub(crate) fn redis(&self, name: &str) -> Option<Redis> {
        self.find(name).map(|found| match found {
            Service::Redis(server) => server.clone(),
            other => panic!("`{name}` is no Redis: {other:?}"),
        })
    }

    /// What could not be had says why; a name that nobody knows is a mistake of the test.
    fn find(&self, name: &str) -> Option<&Service> {
        assert!(NAMES.contains(&name), "`{name}` is none of {NAMES:?}");
        let found = self.running.get(name);
        if found.is_none() {
            let reason = self.missing.get(name).map_or("it was not asked for", String::as_str);
            say(&format!("{name}: {reason}"));
        }
        found
    }
}

/// Straight to standard error: what a test that passes prints is hidden, and a skipped one must not look like one that ran.
fn say(reason: &str) {
    let test = thread::current().name().unwrap_or("a test").to_owned();
    writeln!(io::stderr(), "\nskipped: {reason} ({test})").unwrap();
}

fn connects(host: &str, port: u16, files: &[&Path], logins: [&Login; 2]) {
    assert!(TcpStream::connect((host, port)).is_ok(), "{host}:{port}");
    for file in files {
        assert!(file.exists(), "{}", file.display());
    }
    for login in logins {
        let mode = fs::metadata(&login.password_file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", login.password_file.display());
        assert!(login.password().len() >= 32, "the password of `{}`", login.user);
    }
}

#[test]
fn a_postgres_takes_connections_and_its_passwords_are_for_their_owner_alone() {
    let Some(services) = Services::of_this_run() else { return };
    let authority = &services.client_authority;
    for (name, major) in [("postgres15", "15."), ("postgres18", "18.")] {
        let Some(it) = services.postgres(name) else { continue };
        let CertificateLogins { client_ca_file, group, user, own } = &it.certificates;
        let pairs =
            [authority, own].map(|pair| [&*pair.certificate_file, &*pair.key_file]).concat();
        let files = [&*it.ca_file, &*it.log, &*it.client, &*it.hba_file, &**client_ca_file];
        connects(
            &it.host,
            it.port,
            &[pairs.as_slice(), &files].concat(),
            [&it.admin, &it.superuser],
        );
        assert!(it.version.starts_with(major), "{}", it.version);
        assert_eq!(it.databases, ["orders", "billing"]);
        assert_eq!(
            [&it.groups.read, &it.groups.write, &it.heir],
            ["app_read", "app_write", "app_heir"]
        );
        assert_eq!([group, user], ["cert_logins", "cert_orders"]);
    }
}

#[test]
fn the_mariadb_takes_connections_and_its_passwords_are_for_their_owner_alone() {
    let Some(services) = Services::of_this_run() else { return };
    let Some(it) = services.mariadb() else { return };
    connects(&it.host, it.port, &[&it.ca_file, &it.log, &it.client], [&it.admin, &it.superuser]);
    assert!(it.version.starts_with("10.") || it.version.starts_with("11."), "{}", it.version);
    assert_eq!(it.databases, ["orders", "billing"]);
    assert_eq!([&it.groups.read, &it.groups.write], ["app_read", "app_write"]);
}

#[test]
fn a_redis_takes_connections_and_its_passwords_are_for_their_owner_alone() {
    let Some(services) = Services::of_this_run() else { return };
    for (name, saves) in [("redis", false), ("redis-aclfile", true)] {
        let Some(it) = services.redis(name) else { continue };
        connects(
            &it.host,
            it.port,
            &[&it.ca_file, &it.log, &it.client],
            [&it.admin, &it.superuser],
        );
        assert!(it.version.starts_with("7."), "{}", it.version);
        assert_eq!(it.acl_file.is_some_and(|file| file.exists()), saves, "{name}");
    }
}

/// Writes `password` into a file that is for us alone, as the broker wants it.
pub(crate) fn write_password(file: &Path, password: &str) {
    fs::write(file, format!("{password}\n")).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
}
