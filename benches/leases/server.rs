//! The servers of `CAMBIO_SERVICES`, and the configuration of a broker that has a target at each.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use serde::Deserialize;

use super::fixture::{AUDIENCE, ISSUER, Issuer};

/// What `tests/services/up` tells.
#[derive(Debug, Deserialize)]
pub struct Services {
    pub services: BTreeMap<String, Server>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Server {
    pub kind: Kind,
    pub version: String,
    pub host: String,
    pub port: u16,
    pub ca_file: PathBuf,
    pub admin: Login,
    #[serde(default)]
    pub groups: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Postgres,
    Mariadb,
    Redis,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Login {
    pub user: String,
    pub password_file: PathBuf,
}

impl Login {
    pub fn password(&self) -> String {
        fs::read_to_string(&self.password_file).expect("our password").trim_end().to_owned()
    }
}

impl Server {
    /// The group role that logins are members of, or write as.
    pub fn group(&self) -> &str {
        self.groups.get("write").map_or("", String::as_str)
    }

    fn target(&self, name: &str, connections: usize) -> String {
        let (kind, more) = match self.kind {
            Kind::Postgres => (
                "postgres",
                format!(
                    "    roles: {{ writer: {{ member_of: [{}], database: orders }} }}\n",
                    self.group()
                ),
            ),
            Kind::Mariadb => (
                "mysql",
                "    ends: by_broker\n    database: orders\n    roles: { writer: { grants: [{ database: orders, table: entries, \
                 privileges: [select, insert] }] } }\n"
                    .to_owned(),
            ),
            Kind::Redis => (
                "redis",
                "    ends: by_broker\n    roles: { writer: { keys: [\"app:*\"], commands: [\"+@read\", \"+@write\"] } }\n"
                    .to_owned(),
            ),
        };
        format!(
            "  - name: {name}\n    kind: {kind}\n    environment: bench\n    host: {}\n    port: {}\n    tls: {{ ca_file: {} }}\n    \
             user: {}\n    password_file: {}\n    connections: {connections}\n    logins_per_subject: 10000\n    ceiling: 1h\n    granted_by: [bench.yaml]\n{more}",
            self.host,
            self.port,
            self.ca_file.display(),
            self.admin.user,
            self.admin.password_file.display(),
        )
    }
}

/// The log's name. Always the same: what a run that was killed has left, the next one's broker finds.
pub const ORIGIN: &str = "cambio.test/bench-leases";

/// The target at the server `name` with so many connections.
pub fn target(name: &str, connections: usize) -> String {
    format!("bench/{name}-{connections}")
}

/// Writes the configuration of a broker with targets at `servers` into `folder`.
pub fn configuration(
    folder: &Path,
    issuer: &Issuer,
    servers: &BTreeMap<String, Server>,
    connections: &[usize],
) {
    for name in ["policies", "state"] {
        fs::create_dir_all(folder.join(name)).expect("folder");
    }
    fs::write(folder.join("issuer.json"), issuer.jwks()).expect("jwks");
    fs::write(folder.join("kek"), B64.encode([7_u8; 32])).expect("kek");
    fs::set_permissions(folder.join("kek"), fs::Permissions::from_mode(0o600)).expect("mode");
    let (mut targets, mut grants) = (String::new(), String::new());
    for (name, server) in servers {
        for connections in connections {
            let target = target(name, *connections);
            targets.push_str(&server.target(&target, *connections));
            writeln!(grants, "      - {{ target: {target}, role: writer, lifetime: 50m }}")
                .expect("write");
        }
    }
    let config = format!(
        "version: 1\nenvironment: bench\nissuer: https://cambio.test\ndata: state\nissuers:\n  - {{ name: github, provider: github, \
         issuer: \"{ISSUER}\", audience: {AUDIENCE}, maximum_lifetime: 1h, keys: {{ pinned: {{ file: issuer.json }} }} }}\n\
         targets:\n{targets}policies: {{ directory: policies, watch: false }}\nstore: {{ sqlite: {{ path: state/cambio.db }} }}\n\
         ledger: {{ origin: {ORIGIN}, anchors: none }}\nkeys: {{ key_file: kek }}\nlisten: {{ public: \"127.0.0.1:0\", operations: \
         \"127.0.0.1:0\", admin_socket: state/admin.sock }}\ntls: none\nlimits: {{ per_address: {{ per_second: 1000000, burst: \
         1000000 }}, per_subject: {{ per_second: 1000000, burst: 1000000 }} }}\nlog: {{ format: json, level: warn }}\n"
    );
    fs::write(folder.join("cambio.yaml"), config).expect("config");
    let policy = format!(
        "version: 1\nrules:\n  - id: logins\n    issuer: github\n    when:\n      repository_id: \"{REPOSITORY}\"\n      \
         repository_owner_id: \"9919\"\n      environment: production\n      event_name: push\n    grants:\n{grants}    \
         replay: reusable\n"
    );
    fs::write(folder.join("policies/bench.yaml"), policy).expect("policy");
}

/// Whose token it is.
pub const REPOSITORY: u64 = 1_296_269;
