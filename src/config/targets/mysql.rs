//! Targets of kind `mysql`: users of a MariaDB or MySQL.

use std::collections::BTreeMap;

use super::{
    ALIASES, CEILING, ENDS, ENVIRONMENT, GRANTED_BY, NAME,
    server::{
        self, CONNECTIONS, HOST, IN_ALL, PASSWORD_FILE, PER_SUBJECT, PORT, ServerConfig, TLS, USER,
    },
};
use crate::{
    config::reader::{Reader, number, text, texts},
    grant::RoleName,
    target::mysql::{HostPattern, Identifier, MysqlGrant, MysqlRole, PRIVILEGE_WORDS, Privilege},
    yaml::{Field, Fields, Node, Shape},
};

/// What only a MariaDB or MySQL has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MysqlConfig {
    /// The server, and who we are there.
    pub server: ServerConfig,
    /// The database that a login is told to use first.
    pub database: Option<Identifier>,
    /// From where logins may come.
    pub from: HostPattern,
    /// Whether a login is refused on a connection without TLS (`REQUIRE SSL`).
    pub require_tls: bool,
    /// How many sessions a login may have at once.
    pub sessions: u32,
    /// What each role may do.
    pub roles: BTreeMap<RoleName, MysqlRole>,
}

const USUAL_PORT: u16 = 3306;
const SESSIONS: u32 = 5;

static GRANT: Fields = Fields {
    what: "a grant",
    fields: &[
        Field::required("database", "The database", Shape::Text),
        Field::optional(
            "table",
            "One table of it. Default: all, those to come included",
            Shape::Text,
        ),
        Field::required(
            "privileges",
            "What may be done there",
            Shape::List(&Shape::Choice(PRIVILEGE_WORDS), 1),
        ),
    ],
};

static ROLE: Fields = Fields {
    what: "a role of a MariaDB or MySQL",
    fields: &[
        Field::optional(
            "grants",
            "What its logins may do. Our user needs the same, `WITH GRANT OPTION`",
            Shape::List(&Shape::Map(&GRANT), 1),
        ),
        Field::optional(
            "member_of",
            "Roles of the server that its logins have by default; one on MariaDB, where our user needs `UPDATE ON mysql.*` for it",
            Shape::List(&Shape::Text, 1),
        ),
    ],
};

static ROLE_SHAPE: Shape = Shape::Map(&ROLE);

pub(super) static MYSQL: Fields = Fields {
    what: "a target of kind `mysql`",
    fields: &[
        NAME,
        Field::required(
            "kind",
            "Users of a MariaDB (10.4 or newer) or MySQL (8.0 or newer)",
            Shape::Text,
        ),
        ALIASES,
        ENVIRONMENT,
        Field::required(
            "roles",
            "Its powers by name; a name is also the `scope` that a caller asks for",
            Shape::Table { value: &ROLE_SHAPE, reserved: &[], least: 1 },
        ),
        GRANTED_BY,
        HOST,
        PORT,
        TLS,
        USER,
        PASSWORD_FILE,
        CONNECTIONS,
        PER_SUBJECT,
        IN_ALL,
        ENDS,
        Field::optional(
            "database",
            "The database that the credential names. Default: none",
            Shape::Text,
        ),
        Field::optional(
            "logins_from",
            "From where logins may come, as the server writes it: `10.1.%`, `10.0.0.0/255.0.0.0`. Default: `%`, anywhere",
            Shape::Text,
        ),
        Field::optional(
            "logins_need",
            "What a login needs beside its password. Default: `tls`",
            Shape::Choice(&[
                ("tls", "an encrypted connection (`REQUIRE SSL`)"),
                (
                    "dangerously_nothing",
                    "nothing: who listens on the way reads and changes what it does",
                ),
            ]),
        ),
        Field::optional(
            "sessions",
            "How many sessions one login may have at once. Default: 5",
            Shape::Integer(1, 1_000),
        ),
        CEILING,
    ],
};

pub(super) fn read(reader: &mut Reader<'_>, node: &Node) -> Option<MysqlConfig> {
    let server = server::read(reader, node, USUAL_PORT);
    let database = identifier(reader, node, "database", Identifier::database);
    let from =
        match text(node, "logins_from").map(|(found, at)| (HostPattern::parse(found), found, at)) {
            None => HostPattern::any(),
            Some((Ok(from), ..)) => from,
            Some((Err(unfit), found, at)) => {
                let message = format!("`logins_from` is `{}`, {unfit}", found.escape_debug());
                reader.refuse(
                    at.place,
                    message,
                    "write `%`, an address with `%`, or a network and its mask",
                );
                HostPattern::any()
            }
        };
    let require_tls = text(node, "logins_need").is_none_or(|(found, _)| found == "tls");
    if let (false, Some(place)) = (require_tls, node.key_place("logins_need")) {
        reader.warn(
            place,
            "logins work without TLS",
            "only for a server whose whole network is trusted: leave `logins_need` out",
        );
    }
    let mut roles = BTreeMap::new();
    for (name, _, role) in node.find("roles").map(Node::entries).unwrap_or_default() {
        roles.insert(RoleName::from(name.as_str()), self::role(reader, name, role));
    }
    let sessions = number(Some(node), "sessions", SESSIONS);
    Some(MysqlConfig { server: server?, database, from, require_tls, sessions, roles })
}

fn role(reader: &mut Reader<'_>, name: &str, node: &Node) -> MysqlRole {
    let mut role = MysqlRole::default();
    for (found, at) in texts(node, "member_of") {
        match Identifier::parse(found) {
            Ok(server_role) => role.member_of.push(server_role),
            Err(unfit) => {
                let message = format!("`member_of` names `{}`, {unfit}", found.escape_debug());
                reader.refuse(at.place, message, "name a role of the server");
            }
        }
    }
    for grant in node.find("grants").map(Node::elements).unwrap_or_default() {
        role.grants.extend(self::grant(reader, grant));
    }
    // INVARIANT(closed-by-absence): such a login could do nothing, which is never what was meant.
    if node.find("grants").is_none() && node.find("member_of").is_none() {
        let message =
            format!("role `{}` has neither `grants` nor `member_of`", name.escape_debug());
        reader.refuse(node.place, message, "say what its logins may do");
    }
    role
}

fn grant(reader: &mut Reader<'_>, node: &Node) -> Option<MysqlGrant> {
    let database = identifier(reader, node, "database", Identifier::database);
    let table = identifier(reader, node, "table", Identifier::parse);
    let words = texts(node, "privileges");
    let privileges = words.iter().filter_map(|(word, _)| Privilege::find(word)).collect();
    if table.is_some() {
        for (word, at) in &words {
            if Privilege::find(word).is_some_and(|privilege| privilege.of_databases) {
                let message = format!("`{word}` on a table");
                reader.refuse(at.place, message, "the server knows it for whole databases only: a grant of its own, without `table`");
            }
        }
    }
    Some(MysqlGrant { database: database?, table, privileges })
}

fn identifier(
    reader: &mut Reader<'_>,
    node: &Node,
    key: &str,
    parse: fn(&str) -> Result<Identifier, crate::target::Unfit>,
) -> Option<Identifier> {
    let (found, at) = text(node, key)?;
    match parse(found) {
        Ok(identifier) => Some(identifier),
        Err(unfit) => {
            let message = format!("`{key}` is `{}`, {unfit}", found.escape_debug());
            reader.refuse(at.place, message, "names are put into statements: only such are");
            None
        }
    }
}
