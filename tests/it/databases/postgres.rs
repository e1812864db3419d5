//! PostgreSQL 15 and 18: the battery, and what only PostgreSQL has.

use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use cambio::{
    chance::SystemChance,
    grant::RoleName,
    mint::{
        name::Names,
        postgres::{Postgres, PostgresRole, PostgresTarget, Protection},
    },
    target::Expiry,
};

use super::battery::{self, Bench, Holder, House, Stay};
use crate::support::services::{self, Services};

mod ending;
mod hostile;
mod making;
mod trouble;

pub(crate) const EXPIRY: Expiry =
    Expiry::Exact { floor: Duration::from_secs(1), ceiling: Duration::from_secs(3_600) };

/// A real server, seen from outside.
pub(crate) struct Place(pub(crate) services::Postgres);

impl Place {
    /// Those that are there.
    pub(crate) fn all() -> Vec<Self> {
        let Some(services) = Services::of_this_run() else { return Vec::new() };
        ["postgres15", "postgres18"]
            .iter()
            .filter_map(|name| services.postgres(name))
            .map(Self)
            .collect()
    }

    /// `read` reads `entries` in `orders`, `write` writes them, and may create.
    pub(crate) fn target(&self) -> PostgresTarget {
        let it = &self.0;
        let role = |group: &String| PostgresRole {
            member_of: vec![group.clone()],
            connection_limit: 5,
            database: "orders".to_owned(),
            create: Vec::new(),
            revoke: Vec::new(),
        };
        PostgresTarget {
            host: it.host.clone(),
            port: it.port,
            user: it.admin.user.clone(),
            password_file: it.admin.password_file.clone(),
            protection: Protection::VerifyFull { ca_file: Some(it.ca_file.clone()) },
            connections: 4,
            home: "postgres".to_owned(),
            databases: None,
            owner: Some(it.heir.clone()),
            roles: BTreeMap::from([
                (RoleName::from("read"), role(&it.groups.read)),
                (RoleName::from("write"), role(&it.groups.write)),
            ]),
        }
    }

    /// A bench at `target`, whose logins nobody else sees.
    pub(crate) async fn bench(&self, target: PostgresTarget) -> Bench {
        Bench::of("postgres", EXPIRY, |names| Arc::new(serve(target, names))).await
    }

    fn psql(&self, user: &str, password: &str, database: &str) -> Command {
        let it = &self.0;
        let mut command = Command::new(&it.client);
        command
            .env_clear()
            .env("PGPASSWORD", password)
            .env("PGSSLMODE", "verify-full")
            .env("PGSSLROOTCERT", &it.ca_file)
            .env("PGCHANNELBINDING", "require")
            .env("PGCONNECT_TIMEOUT", "10")
            .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--no-password"])
            .args(["--set", "ON_ERROR_STOP=1", "--host", &it.host])
            .args(["--port", &it.port.to_string(), "--username", user, "--dbname", database]);
        command
    }

    /// What `statement` says in `database`, to the superuser.
    pub(crate) fn ask(&self, database: &str, statement: &str) -> String {
        let it = &self.0.superuser;
        let command = self.psql(&it.user, &it.password(), database);
        said(command, statement).unwrap()
    }

    /// As [`House::run`], in another database.
    pub(crate) fn run_in(
        &self,
        database: &str,
        holder: &Holder,
        statement: &str,
    ) -> Result<String, String> {
        said(self.psql(&holder.user, &holder.password, database), statement)
    }
}

pub(crate) fn serve(target: PostgresTarget, names: Names) -> Postgres {
    Postgres::of(target, names, Arc::new(SystemChance)).unwrap()
}

fn said(mut command: Command, statement: &str) -> Result<String, String> {
    let done = command.args(["--command", statement]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
}

impl House for Place {
    fn role(&self) -> &'static str {
        "read"
    }

    fn allowed(&self) -> &'static str {
        "SELECT text FROM entries WHERE number = 1"
    }

    fn forbidden(&self) -> &'static str {
        "INSERT INTO entries VALUES (1000, 'no')"
    }

    fn run(&self, holder: &Holder, statement: &str) -> Result<String, String> {
        self.run_in(holder.database.as_deref().unwrap(), holder, statement)
    }

    fn stay(&self, holder: &Holder) -> Stay {
        let mut command = self.psql(&holder.user, &holder.password, "orders");
        command.args(["--command", "SELECT pg_sleep(60)"]);
        Stay(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn sessions(&self, user: &str) -> usize {
        let asked = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{user}'");
        self.ask("postgres", &asked).parse().unwrap()
    }

    fn knows(&self, user: &str) -> bool {
        let asked = format!("SELECT count(*) FROM pg_roles WHERE rolname = '{user}'");
        self.ask("postgres", &asked) == "1"
    }
}

#[tokio::test]
async fn the_logins_of_a_postgres_do_their_duties() {
    for place in Place::all() {
        let bench = place.bench(place.target()).await;
        battery::holds(&place, &bench).await;
    }
}
