//! Targets of kind `postgres`: logins that end by themselves.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    ALIASES, CEILING, ENVIRONMENT, FLOOR, GRANTED_BY, NAME,
    server::{
        self, CONNECTIONS, HOST, IN_ALL, PASSWORD_FILE, PER_SUBJECT, PORT, ServerConfig, TLS, USER,
    },
};
use crate::{
    config::reader::{Reader, number, text, texts},
    grant::RoleName,
    mint::{
        postgres::{MOST_NAME_BYTES, PostgresRole, is_name},
        sql::{Dialect, Placeholder, Statement},
    },
    yaml::{Field, Fields, Node, Place, Shape},
};

/// What only a target with PostgreSQL logins has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresConfig {
    /// The server, and who we are there.
    pub server: ServerConfig,
    /// The database that we connect to, when no other one is meant.
    pub maintenance_database: String,
    /// The databases in which logins may leave something; `None` means all that take connections.
    pub databases: Option<BTreeSet<String>>,
    /// Who gets what logins own when they end.
    pub owner: Option<String>,
    /// What logins get, by role.
    pub roles: BTreeMap<RoleName, PostgresRole>,
}

const USUAL_PORT: u16 = 5432;
const CONNECTION_LIMIT: u32 = 5;

static STATEMENTS: Fields = Fields {
    what: "statements in place of ours",
    fields: &[
        Field::optional(
            "create",
            "In place of our `CREATE ROLE`, in one transaction in `database`; `{{name}}`, `{{password}}` and `{{expires_at}}` are filled in, quoted by their types. Password, end and connection limit are set after them all the same",
            Shape::List(&Shape::Text, 1),
        ),
        Field::optional(
            "revoke",
            "Before the login ends, in one transaction in `database`; only `{{name}}` is filled in. They may run more than once",
            Shape::List(&Shape::Text, 1),
        ),
    ],
};

static ROLE: Fields = Fields {
    what: "a role of a login",
    fields: &[
        Field::required("database", "The database of its connection URI", Shape::Text),
        Field::optional(
            "member_of",
            "Group roles whose rights it inherits. At least one, unless `statements.create` says what it gets",
            Shape::List(&Shape::Text, 1),
        ),
        Field::optional(
            "connection_limit",
            "How many sessions at once. Default: 5",
            Shape::Integer(1, 1000),
        ),
        Field::optional(
            "statements",
            "Statements in place of ours, or before ours",
            Shape::Map(&STATEMENTS),
        ),
    ],
};

static ROLE_SHAPE: Shape = Shape::Map(&ROLE);

pub(super) static POSTGRES: Fields = Fields {
    what: "a target of kind `postgres`",
    fields: &[
        NAME,
        Field::required("kind", "Logins at a PostgreSQL server, 13 to 18", Shape::Text),
        ALIASES,
        ENVIRONMENT,
        HOST,
        PORT,
        TLS,
        USER,
        PASSWORD_FILE,
        CONNECTIONS,
        PER_SUBJECT,
        IN_ALL,
        Field::optional(
            "maintenance_database",
            "The database that we connect to ourselves. Default: `postgres`",
            Shape::Text,
        ),
        Field::optional(
            "databases",
            "Where logins may leave something that we clean up when they end. Default: every database that takes connections",
            Shape::List(&Shape::Text, 1),
        ),
        Field::optional(
            "owner",
            "The role that gets what a login owns when it ends; our user must be a member of it. Default: none, and then a login that owns something is shut, and stays until there is one",
            Shape::Text,
        ),
        Field::required(
            "roles",
            "Its powers by name; a name is also the `scope` that a caller asks for",
            Shape::Table { value: &ROLE_SHAPE, reserved: &[], least: 1 },
        ),
        GRANTED_BY,
        CEILING,
        FLOOR,
    ],
};

pub(super) fn read(reader: &mut Reader<'_>, node: &Node) -> Option<PostgresConfig> {
    let server = server::read(reader, node, USUAL_PORT);
    let maintenance_database = name(reader, node, "maintenance_database");
    let owner = name(reader, node, "owner");
    let databases = names(reader, node, "databases");
    let mut roles = BTreeMap::new();
    for (named, place, entry) in node.find("roles").map(Node::entries).unwrap_or_default() {
        if let Some(role) = role(reader, *place, entry) {
            roles.insert(RoleName::from(named.as_str()), role);
        }
    }
    Some(PostgresConfig {
        server: server?,
        maintenance_database: maintenance_database.unwrap_or_else(|| "postgres".to_owned()),
        databases: (!databases.is_empty()).then(|| databases.into_iter().collect()),
        owner,
        roles,
    })
}

fn role(reader: &mut Reader<'_>, place: Place, node: &Node) -> Option<PostgresRole> {
    let member_of = names(reader, node, "member_of");
    let statements = node.find("statements");
    let create = statements.map(|map| parsed(reader, map, "create")).unwrap_or_default();
    let revoke = statements.map(|map| parsed(reader, map, "revoke")).unwrap_or_default();
    let wants_create = statements.is_some_and(|map| map.find("create").is_some());
    if node.find("member_of").is_none() && !wants_create {
        reader.refuse(
            place,
            "the role has no `member_of`, expected a group role",
            "name the group roles whose rights it is to have: a login of its own has none",
        );
    }
    let makes = |statement: &(Statement, Place)| statement.0.has(Placeholder::Name);
    if let Some((_, at)) = create.first().filter(|_| !create.iter().any(makes)) {
        reader.refuse(
            *at,
            "no statement of `create` has `{{name}}`",
            "begin with `CREATE ROLE {{name}} …`",
        );
    }
    for (statement, at) in &revoke {
        for word in [Placeholder::Password, Placeholder::ExpiresAt] {
            if statement.has(word) {
                let message = format!("`{{{{{}}}}}` in a `revoke`", word.as_str());
                reader.refuse(*at, message, "only `{{name}}` is known when a login ends");
            }
        }
    }
    Some(PostgresRole {
        member_of,
        connection_limit: number(Some(node), "connection_limit", CONNECTION_LIMIT),
        database: name(reader, node, "database")?,
        create: create.into_iter().map(|(statement, _)| statement).collect(),
        revoke: revoke.into_iter().map(|(statement, _)| statement).collect(),
    })
}

fn parsed(reader: &mut Reader<'_>, map: &Node, key: &str) -> Vec<(Statement, Place)> {
    let mut statements = Vec::new();
    for (found, at) in texts(map, key) {
        match Statement::parse(found, Dialect::Postgres) {
            Ok(statement) => statements.push((statement, at.place)),
            Err(error) => reader.refuse(at.place, format!("`{key}`: {error}"), error.hint),
        }
    }
    statements
}

fn name(reader: &mut Reader<'_>, map: &Node, key: &str) -> Option<String> {
    let (found, at) = text(map, key)?;
    checked(reader, found, at.place, key)
}

fn names(reader: &mut Reader<'_>, map: &Node, key: &str) -> Vec<String> {
    let found = texts(map, key);
    found.iter().filter_map(|(found, at)| checked(reader, found, at.place, key)).collect()
}

/// Threat B01: a longer name would be cut by the server without a word, and be another's.
fn checked(reader: &mut Reader<'_>, found: &str, place: Place, key: &str) -> Option<String> {
    if is_name(found) {
        return Some(found.to_owned());
    }
    let message = format!(
        "`{key}` is `{}`, expected 1 to {MOST_NAME_BYTES} bytes without control characters",
        found.escape_debug()
    );
    reader.refuse(place, message, "write the name as the server has it, without quotes");
    None
}
