//! Targets of kind `github`: installation tokens of a GitHub App.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use url::Url;

use super::{
    ALIASES, CEILING, ENVIRONMENT, GRANTED_BY, NAME,
    cloud::{self, AT_ONCE, CA_FILE, CloudConfig, PRIVATE},
};
use crate::{
    config::{
        files::Need,
        reader::{Reader, length, texts},
    },
    grant::RoleName,
    yaml::{Field, Fields, Node, Shape},
};

/// What only a target at GitHub has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GithubConfig {
    /// The App's client id, or its number.
    pub app: String,
    /// The App's private key, PEM.
    pub private_key_file: PathBuf,
    /// The installation's number.
    pub installation: u64,
    /// Each role's repositories and permissions.
    pub roles: BTreeMap<RoleName, GithubRoleConfig>,
    /// Whether tokens end at their lease's end, by us; else at GitHub's hour.
    pub by_broker: bool,
    /// GitHub's API.
    pub api: Url,
    /// How it is reached.
    pub cloud: CloudConfig,
}

/// A role at GitHub.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GithubRoleConfig {
    /// Repositories by id.
    pub repository_ids: BTreeSet<u64>,
    /// Repositories by name, without their owner.
    pub repositories: BTreeSet<String>,
    /// Permission: level.
    pub permissions: BTreeMap<String, String>,
}

const HOUR: Duration = Duration::from_hours(1);
const LEVELS: &[(&str, &str)] = &[("read", ""), ("write", ""), ("admin", "")];
static LEVEL: Shape = Shape::Choice(LEVELS);
static ID: Shape = Shape::Integer(1, i64::MAX);

static ROLE: Fields = Fields {
    what: "a role at GitHub",
    fields: &[
        Field::optional(
            "repository_ids",
            "Repositories by id: names can be recreated by strangers",
            Shape::List(&ID, 1),
        ),
        Field::optional(
            "repositories",
            "Repositories by name, without their owner, where no id is at hand",
            Shape::List(&Shape::Text, 1),
        ),
        Field::required(
            "permissions",
            "Permission: level, such as `contents: read`; nothing else is asked for",
            Shape::Table { value: &LEVEL, reserved: &[], least: 1 },
        ),
    ],
};

static ROLE_SHAPE: Shape = Shape::Map(&ROLE);

pub(super) static GITHUB: Fields = Fields {
    what: "a target of kind `github`",
    fields: &[
        NAME,
        Field::required("kind", "Installation tokens of a GitHub App", Shape::Text),
        Field::required("app", "The App's client id (or its number)", Shape::Text),
        Field::required(
            "private_key_file",
            "The App's private key as PEM, or what `cambio keys seal` made of it, in a file of mode 0600 or 0400",
            Shape::Secret,
        ),
        Field::required("installation", "The installation's number", ID_SHAPE),
        ALIASES,
        ENVIRONMENT,
        Field::required(
            "roles",
            "Its powers by name; a name is also the `scope` that a caller asks for",
            Shape::Table { value: &ROLE_SHAPE, reserved: &[], least: 1 },
        ),
        GRANTED_BY,
        Field::optional(
            "ends",
            "`by_broker`: tokens end with their lease, at any second up to `1h`, for as long as the process that made them runs. Default: after `1h`, by GitHub, and rules must say so",
            Shape::Choice(&[(
                "by_broker",
                "a token outlives its end, up to its hour, where the broker does not run",
            )]),
        ),
        CEILING,
        Field::optional(
            "api",
            "GitHub's API. Default: `https://api.github.com`; of a server `https://HOST/api/v3`",
            Shape::Text,
        ),
        CA_FILE,
        PRIVATE,
        AT_ONCE,
    ],
};

const ID_SHAPE: Shape = Shape::Integer(1, i64::MAX);

pub(super) fn read(
    reader: &mut Reader<'_>,
    node: &Node,
    ceiling: Duration,
) -> Option<GithubConfig> {
    let app = cloud::fitting(reader, node, "app", is_app, "a client id such as `Iv23li…`");
    let private_key_file = reader.path(node, "private_key_file", Need::Secret);
    let mut roles = BTreeMap::new();
    for (name, _, role) in node.find("roles").map(Node::entries).unwrap_or_default() {
        roles.insert(RoleName::from(name.as_str()), self::role(reader, role));
    }
    let by_broker = node.find("ends").is_some();
    if let Some(place) = node.key_place("ceiling") {
        if !by_broker {
            let hint = "leave it out, or say `ends: by_broker`";
            reader.refuse(place, "`ceiling` at a target whose tokens always live for `1h`", hint);
        } else if ceiling > HOUR {
            let message = format!("`ceiling` is `{}`, expected at most `1h`", length(ceiling));
            reader.refuse(place, message, "GitHub ends a token after an hour");
        }
    }
    let api = cloud::url(reader, node, "api", "https://api.github.com");
    let cloud = cloud::read(reader, node);
    let installation = node.find("installation").and_then(Node::integer);
    Some(GithubConfig {
        app: app?,
        private_key_file: private_key_file?,
        installation: installation.and_then(|number| u64::try_from(number).ok())?,
        roles,
        by_broker,
        api: api?,
        cloud,
    })
}

fn role(reader: &mut Reader<'_>, node: &Node) -> GithubRoleConfig {
    let ids = node.find("repository_ids").map(Node::elements).unwrap_or_default();
    let ids = ids.iter().filter_map(Node::integer).filter_map(|id| u64::try_from(id).ok());
    let mut role =
        GithubRoleConfig { repository_ids: ids.collect(), ..GithubRoleConfig::default() };
    for (name, at) in texts(node, "repositories") {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !name.bytes().all(fits) {
            let message = format!("`{}` is no repository's name", name.escape_debug());
            reader.refuse(at.place, message, "without its owner: the installation has one");
        }
        role.repositories.insert(name.to_owned());
    }
    for (permission, place, level) in
        node.find("permissions").map(Node::entries).unwrap_or_default()
    {
        if !permission.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
            let message = format!("`{}` is no permission", permission.escape_debug());
            reader.refuse(*place, message, "such as `contents`, `pull_requests`");
        }
        if let Some(level) = level.text() {
            role.permissions.insert(permission.clone(), level.to_owned());
        }
    }
    // INVARIANT(closed-by-absence): GitHub takes a missing list for all repositories.
    let one = role.repository_ids.is_empty() != role.repositories.is_empty();
    if !one {
        let message = "a role names its repositories by `repository_ids` or by `repositories`, found both or neither";
        reader.refuse(node.place, message, "ids are better: names can be recreated by strangers");
    }
    role
}

fn is_app(text: &str) -> bool {
    text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.')
}
