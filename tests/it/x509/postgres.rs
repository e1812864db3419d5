//! A real PostgreSQL that takes our certificates for logins: `psql` through the whole broker.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
    thread,
    time::Duration,
};

use cambio::{
    chance::{Chance as _, SystemChance},
    clock::{Clock as _, SystemClock},
};

use super::bench::{self, Held, ask, bundle, held, request};
use crate::support::{
    broker::Broker,
    services::{Postgres, Services},
};

/// Puts back whom the server believes about clients, and takes the test's role away.
struct Tidy<'a> {
    server: &'a Postgres,
    believed: String,
    role: String,
}

impl Drop for Tidy<'_> {
    fn drop(&mut self) {
        let _ = fs::write(&self.server.certificates.client_ca_file, &self.believed);
        let role = &self.role;
        let _ = ruled(
            self.server,
            &format!("DROP OWNED BY {role}; DROP ROLE {role}; SELECT pg_reload_conf()"),
        );
    }
}

fn psql(server: &Postgres, user: &str, more: &str) -> Command {
    let (host, port, ca) = (&server.host, server.port, server.ca_file.display());
    let mut command = Command::new(&server.client);
    command.env_clear().args(["-X", "-A", "-t", "-w", "-v", "ON_ERROR_STOP=1", "-d"]).arg(format!(
        "host={host} port={port} user={user} dbname=orders sslmode=verify-full sslrootcert={ca} {more}"
    ));
    command
}

/// As the superuser.
fn ruled(server: &Postgres, statement: &str) -> Output {
    let login = &server.superuser;
    let mut command = psql(server, &login.user, "");
    command.env("PGPASSWORD", login.password().trim()).args(["-c", statement]).output().unwrap()
}

/// Asks who one is, as `user` with a certificate.
fn log_in(server: &Postgres, user: &str, folder: &Path, held: &Held) -> Result<String, String> {
    let private = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    };
    let certificate = private("client.crt", &held.certificate);
    let key = private("client.key", &held.key);
    let more = format!("sslcert={} sslkey={}", certificate.display(), key.display());
    let who = "SELECT current_user, client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let done = psql(server, user, &more).args(["-c", who]).output().unwrap();
    if done.status.success() {
        return Ok(String::from_utf8(done.stdout).unwrap().trim().to_owned());
    }
    Err(String::from_utf8_lossy(&done.stderr).into_owned())
}

/// The server rereads its files a moment after it was told to.
fn until_believed(log_in: impl Fn() -> Result<String, String>) -> Result<String, String> {
    let mut found = log_in();
    for _ in 0..50 {
        if found.is_ok() {
            break;
        }
        thread::sleep(Duration::from_millis(100));
        found = log_in();
    }
    found
}

#[tokio::test]
async fn psql_logs_in_by_certificate_and_by_no_other_than_the_targets_own() {
    let Some(server) = Services::of_this_run().and_then(|it| it.postgres("postgres18")) else {
        return;
    };
    let mut random = [0; 6];
    SystemChance.fill(&mut random).unwrap();
    let role = random.iter().fold("cert_x509_".to_owned(), |it, byte| format!("{it}{byte:02x}"));
    let site = bench::site();
    site.edit("cambio.yaml", "common_name: orders_reader", &format!("common_name: {role}"));
    // Two hours ago, so that there is a certificate that has ended without anybody having waited for it.
    let ago = Duration::from_secs(2 * 3_600);
    let broker = Broker::start_when(site, SystemClock.now().minus(ago)).await;
    let (pair, csr) = request(&rcgen::PKCS_ECDSA_P256_SHA256);
    let ended = held(&ask(&broker, "x509/orders", "reader", Some(&csr)).await, Some(&pair));
    broker.clock.pass(ago);
    let good = held(&ask(&broker, "x509/orders", "reader", Some(&csr)).await, Some(&pair));
    let made_here = held(&ask(&broker, "x509/orders", "reader", None).await, None);
    let other = held(&ask(&broker, "x509/billing", "reader", Some(&csr)).await, Some(&pair));
    let tool = held(&ask(&broker, "x509/orders", "tool", Some(&csr)).await, Some(&pair));

    let believed = fs::read_to_string(&server.certificates.client_ca_file).unwrap();
    let tidy = Tidy { server: &server, believed: believed.clone(), role: role.clone() };
    let bundle = bundle(&broker, "x509/orders").await;
    fs::write(&server.certificates.client_ca_file, format!("{believed}{bundle}")).unwrap();
    let statement =
        format!("CREATE ROLE {role} LOGIN; GRANT app_read TO {role}; SELECT pg_reload_conf()");
    let done = ruled(&server, &statement);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));

    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let found = until_believed(|| log_in(&server, &role, folder, &good));
    assert_eq!(found, Ok(format!("{role}|/CN={role}")));
    assert!(log_in(&server, &role, folder, &made_here).is_ok());

    let refused = |user: &str, held: &Held| log_in(&server, user, folder, held).unwrap_err();
    let expired = refused(&role, &ended);
    assert!(expired.contains("certificate expired"), "{expired}");
    let unknown = refused(&role, &other);
    assert!(unknown.contains("unknown ca"), "{unknown}");
    let another_name = refused(&role, &tool);
    assert!(another_name.contains("certificate authentication failed"), "{another_name}");
    let another_user = refused(&server.certificates.user, &good);
    assert!(another_user.contains("certificate authentication failed"), "{another_user}");
    drop(tidy);
}
