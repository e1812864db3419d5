//! Targets that give IAM tokens for databases of Amazon RDS and Aurora: kind `rds`.

use std::{collections::BTreeMap, time::Duration};

use super::{
    ALIASES, ENVIRONMENT, GRANTED_BY, NAME,
    aws::{self, AwsConfig},
};
use crate::{
    config::reader::{Reader, number, text},
    grant::RoleName,
    yaml::{Field, Fields, Node, Shape},
};

/// What only a target of kind `rds` has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RdsConfig {
    /// How the sessions are had that sign its tokens.
    pub sessions: AwsConfig,
    /// What answers at the endpoint.
    pub engine: RdsEngine,
    /// The endpoint's own name.
    pub host: String,
    /// Its TCP port.
    pub port: u16,
    /// What callers are told to connect to.
    pub database: Option<String>,
    /// The database's user of each role.
    pub users: BTreeMap<RoleName, String>,
}

/// What answers at an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RdsEngine {
    /// `PostgreSQL`.
    Postgres,
    /// `MySQL` or `MariaDB`.
    Mysql,
}

/// How long a token opens connections, always.
pub(super) const LIVES: Duration = Duration::from_mins(15);
/// `PostgreSQL` keeps 63 bytes of a name; `MySQL` takes fewer, and says so itself.
const LONGEST_NAME: usize = 63;

static ROLE: Fields = Fields {
    what: "a role of a target of kind `rds`",
    fields: &[
        aws::ROLE_ARN,
        Field::required(
            "user",
            "The database's user, which must be one of IAM (`rds_iam`, `AWSAuthenticationPlugin`) and for which the IAM role has `rds-db:connect`: letters, digits and `_-.`",
            Shape::Text,
        ),
        aws::EXTERNAL_ID,
        aws::TAGS,
        aws::TRANSITIVE_TAGS,
        aws::SOURCE,
        aws::NAME_PARTS,
    ],
};
static ROLE_SHAPE: Shape = Shape::Map(&ROLE);

pub(super) static RDS: Fields = Fields {
    what: "a target of kind `rds`",
    fields: &[
        NAME,
        Field::required("kind", "IAM tokens for a database of Amazon RDS or Aurora", Shape::Text),
        ALIASES,
        ENVIRONMENT,
        Field::required(
            "engine",
            "What answers there",
            Shape::Choice(&[
                ("postgres", "PostgreSQL"),
                ("mysql", "MySQL or MariaDB: clients need `mysql_clear_password`, over TLS"),
            ]),
        ),
        Field::required(
            "host",
            "The endpoint's own name, in small letters: the signature covers it, so no alias (CNAME) of it will do",
            Shape::Text,
        ),
        Field::optional(
            "port",
            "Its TCP port. Default: 5432 or 3306, by `engine`",
            Shape::Integer(1, 65_535),
        ),
        Field::optional(
            "database",
            "The database that the credential names. Default: none",
            Shape::Text,
        ),
        Field::required("region", "The database's region, whose STS is asked, too", Shape::Text),
        aws::ENDPOINT,
        aws::CA_FILE,
        aws::IDENTITY,
        aws::ASSERT,
        Field::required(
            "roles",
            "Its powers by name; a name is also the `scope` that a caller asks for",
            Shape::Table { value: &ROLE_SHAPE, reserved: &[], least: 1 },
        ),
        GRANTED_BY,
        aws::CALLS,
    ],
};

pub(super) fn read(reader: &mut Reader<'_>, node: &Node) -> Option<RdsConfig> {
    let sessions = aws::read_sessions(reader, node);
    let (engine, port) = match text(node, "engine")?.0 {
        "postgres" => (RdsEngine::Postgres, 5_432),
        _ => (RdsEngine::Mysql, 3_306),
    };
    let found = number(Some(node), "port", u32::from(port));
    let host = host(reader, node);
    let database = text(node, "database").map(|(found, at)| {
        if found.is_empty() || found.len() > LONGEST_NAME || found.chars().any(char::is_control) {
            let message = format!("`database` is `{}`", found.escape_debug());
            reader.refuse(at.place, message, "expected a name of at most 63 bytes");
        }
        found.to_owned()
    });
    let mut users = BTreeMap::new();
    for (name, _, role) in node.find("roles").map(Node::entries).unwrap_or_default() {
        let Some((user, at)) = text(role, "user") else { continue };
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if user.is_empty() || user.len() > LONGEST_NAME || !user.bytes().all(fits) {
            let message = format!("`user` is `{}`", user.escape_debug());
            let hint = "expected 1 to 63 letters, digits and `_-.`: `*` would be every user";
            reader.refuse(at.place, message, hint);
        }
        users.insert(RoleName::from(name.as_str()), user.to_owned());
    }
    Some(RdsConfig {
        sessions: sessions?,
        engine,
        host: host?,
        port: u16::try_from(found).unwrap_or(port),
        database,
        users,
    })
}

/// A DNS name in small letters, as the signature and the certificate have it; never an address.
fn host(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let (found, at) = text(node, "host")?;
    let label = |label: &str| {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        (1..=63).contains(&label.len()) && label.bytes().all(fits)
    };
    let name = found.split('.').all(label) && found.len() <= 253;
    let address = found.rsplit('.').next().is_some_and(|last| last.parse::<u64>().is_ok());
    if !name || address {
        let message = format!("`host` is `{}`, expected a name", found.escape_debug());
        let hint =
            "as the console shows the endpoint: `orders.c9akciq32.eu-central-1.rds.amazonaws.com`";
        reader.refuse(at.place, message, hint);
        return None;
    }
    Some(found.to_owned())
}
