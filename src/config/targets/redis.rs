//! Targets of kind `redis`: users of a Redis or Valkey.

use std::collections::BTreeMap;

use super::{
    ALIASES, CEILING, ENDS, ENVIRONMENT, GRANTED_BY, NAME,
    server::{
        self, CONNECTIONS, HOST, IN_ALL, PASSWORD_FILE, PER_SUBJECT, PORT, ServerConfig, TLS, USER,
    },
};
use crate::{
    config::reader::{Reader, number, texts},
    grant::RoleName,
    target::redis::{CommandRule, Pattern, RedisRole},
    yaml::{Field, Fields, Node, Shape},
};

/// What only a Redis or Valkey has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisConfig {
    /// The server, and who we are there.
    pub server: ServerConfig,
    /// The database that a login is told to use. No bound: ACLs know no databases.
    pub database: u32,
    /// What each role may do.
    pub roles: BTreeMap<RoleName, RedisRole>,
}

const USUAL_PORT: u16 = 6379;

static ROLE: Fields = Fields {
    what: "a role of a Redis or Valkey",
    fields: &[
        Field::optional(
            "keys",
            "Patterns of keys that its logins may read and write; `[\"*\"]` is all. Default: none",
            Shape::List(&Shape::Text, 1),
        ),
        Field::optional(
            "read_keys",
            "Patterns of keys that they may only read. Default: none",
            Shape::List(&Shape::Text, 1),
        ),
        Field::optional(
            "write_keys",
            "Patterns of keys that they may only write. Default: none",
            Shape::List(&Shape::Text, 1),
        ),
        Field::optional(
            "channels",
            "Patterns of channels. Default: none",
            Shape::List(&Shape::Text, 1),
        ),
        Field::required(
            "commands",
            "`+@category`, `-@category`, `+command`, `-command`, `+command|subcommand`. Categories count first, then `-@dangerous`, then single commands",
            Shape::List(&Shape::Text, 1),
        ),
    ],
};

static ROLE_SHAPE: Shape = Shape::Map(&ROLE);

pub(super) static REDIS: Fields = Fields {
    what: "a target of kind `redis`",
    fields: &[
        NAME,
        Field::required(
            "kind",
            "Users of a Redis (7.0 or newer) or Valkey, not in a cluster",
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
            "The number of the database that the credential names; not a bound, ACLs know none. Default: 0",
            Shape::Integer(0, 65_535),
        ),
        CEILING,
    ],
};

pub(super) fn read(reader: &mut Reader<'_>, node: &Node) -> Option<RedisConfig> {
    let server = server::read(reader, node, USUAL_PORT);
    let mut roles = BTreeMap::new();
    for (name, _, role) in node.find("roles").map(Node::entries).unwrap_or_default() {
        roles.insert(RoleName::from(name.as_str()), self::role(reader, role));
    }
    Some(RedisConfig { server: server?, database: number(Some(node), "database", 0), roles })
}

fn role(reader: &mut Reader<'_>, node: &Node) -> RedisRole {
    let role = RedisRole {
        keys: patterns(reader, node, "keys"),
        read_keys: patterns(reader, node, "read_keys"),
        write_keys: patterns(reader, node, "write_keys"),
        channels: patterns(reader, node, "channels"),
        commands: commands(reader, node),
    };
    if role.commands.iter().any(CommandRule::empties_a_database) && !role.has_all_keys() {
        reader.refuse(
            node.place,
            "`+flushdb` in a role that may not write every key",
            "`FLUSHDB` heeds no pattern: leave it out, or say `keys: [\"*\"]`",
        );
    }
    role
}

fn patterns(reader: &mut Reader<'_>, node: &Node, key: &str) -> Vec<Pattern> {
    let mut patterns = Vec::new();
    for (found, at) in texts(node, key) {
        match Pattern::parse(found) {
            Ok(pattern) => patterns.push(pattern),
            Err(unfit) => {
                let message = format!("`{key}` has `{}`, {unfit}", found.escape_debug());
                reader.refuse(at.place, message, "`?` stands for any one character");
            }
        }
    }
    patterns
}

fn commands(reader: &mut Reader<'_>, node: &Node) -> Vec<CommandRule> {
    let mut commands = Vec::new();
    for (found, at) in texts(node, "commands") {
        match CommandRule::parse(found) {
            Ok(rule) => commands.push(rule),
            Err(unfit) => {
                let message = format!("`commands` has `{}`, {unfit}", found.escape_debug());
                reader.refuse(at.place, message, "see docs/targets/redis.md for what can be given");
            }
        }
    }
    commands
}
