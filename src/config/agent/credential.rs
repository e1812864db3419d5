//! `credentials`: what is kept, and where it goes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    super::reader::{self, Reader},
    Ports, ReadersConfig, on_loopback, owned, path,
    paths::Paths,
    readers, shape, trusted,
};
use crate::{
    client::{Format, endpoint::peer::overflow_user},
    yaml::Node,
};

/// One credential.
#[derive(Clone, Debug)]
pub struct KeptConfig {
    /// Its name here: in paths, logs and metrics.
    pub name: String,
    /// The target.
    pub audience: String,
    /// The role, and scopes.
    pub scope: Option<String>,
    /// A shorter lifetime than the rule's.
    pub lifetime: Option<Duration>,
    /// The files that it goes into.
    pub files: Vec<FileConfig>,
    /// The endpoint that serves it.
    pub endpoint: Option<EndpointConfig>,
    /// What runs after it changed.
    pub on_change: Option<CommandConfig>,
}

/// A file that a credential goes into.
#[derive(Clone, Debug)]
pub struct FileConfig {
    /// Where.
    pub path: PathBuf,
    /// As what.
    pub format: Format,
    /// The variable that a token goes into, for `env` and `dotenv`.
    pub variable: Option<String>,
    /// Who may read it.
    pub readers: ReadersConfig,
    /// Whether its directory may be one that everybody may write to.
    pub trusted: bool,
}

/// In whose words a credential is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointConfig {
    /// The container credentials of AWS SDKs, at [`super::AgentConfig::credentials_at`].
    Aws,
    /// A metadata server for Google's libraries.
    Google {
        /// On loopback, its own.
        address: SocketAddr,
        /// The service account's address.
        service_account: String,
        /// The project.
        project: Option<String>,
        /// The users whose programs may ask; empty: the agent's own user.
        users: BTreeSet<u32>,
    },
}

/// A command, as its argument list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandConfig {
    /// The program and its arguments: no shell looks at them.
    pub command: Vec<String>,
    /// How long it may take.
    pub deadline: Duration,
}

/// The list of them.
pub(super) fn credentials(
    reader: &mut Reader<'_>,
    aws: bool,
    ports: &mut Ports,
    paths: &mut Paths,
) -> Option<Vec<KeptConfig>> {
    let list = reader.section("credentials")?;
    let mut all = Vec::new();
    let mut names = BTreeMap::new();
    for node in list.elements() {
        if let Some((name, at)) = reader::text(node, "name") {
            if !reader::is_short_name(name) {
                let message = format!(
                    "`name` is `{}`, expected lower-case letters, digits and `-`",
                    name.escape_debug()
                );
                reader.refuse(at.place, message, "it stands in paths, logs and metrics");
            }
            if let Some(line) = names.insert(name.to_owned(), at.place.line) {
                let message = format!("`{name}` is the name of the credential in line {line} too");
                reader.refuse(at.place, message, "each credential needs a name of its own");
            }
        }
        all.push(credential(reader, node, aws, ports, paths));
    }
    all.into_iter().collect()
}

fn credential(
    reader: &mut Reader<'_>,
    node: &Node,
    aws: bool,
    ports: &mut Ports,
    paths: &mut Paths,
) -> Option<KeptConfig> {
    const SHORTEST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_hours(7 * 24);
    let lifetime = node.find("lifetime").and_then(Node::duration);
    if let (Some(found), Some(at)) = (lifetime, node.find("lifetime"))
        && !(SHORTEST..=LONGEST).contains(&found)
    {
        let message = format!(
            "`lifetime` is `{}`, expected from `{}` to `{}`",
            reader::length(found),
            reader::length(SHORTEST),
            reader::length(LONGEST)
        );
        reader.refuse(at.place, message, "the broker's rule bounds it too");
    }
    let list = node.find("files").map(Node::elements).unwrap_or_default();
    let files: Option<Vec<_>> = list.iter().map(|one| file(reader, one, paths)).collect();
    let endpoint = node.find("endpoint");
    let served = endpoint.map(|endpoint| self::endpoint(reader, endpoint, aws, ports));
    if list.is_empty() && endpoint.is_none() {
        let message = "this credential goes nowhere: it has neither `files` nor an `endpoint`";
        reader.refuse(node.place, message, "say where it is wanted, or remove it");
    }
    let on_change = node.find("on_change").and_then(|map| command(reader, map));
    if let Some((program, at)) =
        node.find("on_change").and_then(|map| reader::texts(map, "command").first().copied())
    {
        paths.reads(Path::new(program), Some(at.place), "command");
    }
    let served = match served {
        Some(read) => Some(read?),
        None => None,
    };
    Some(KeptConfig {
        name: owned(node, "name")?,
        audience: owned(node, "audience")?,
        scope: owned(node, "scope"),
        lifetime,
        files: files?,
        endpoint: served,
        on_change,
    })
}

fn file(reader: &mut Reader<'_>, node: &Node, paths: &mut Paths) -> Option<FileConfig> {
    let path = path(reader, node, "path", paths);
    let format = reader::text(node, "format").and_then(|(word, _)| shape::format(word));
    let variable = reader::text(node, "variable").map(|(name, at)| {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(fits) {
            let message = format!("`variable` is `{}`, expected a name", name.escape_debug());
            reader.refuse(at.place, message, "letters, digits and `_`, and no digit first");
        }
        if !matches!(format, Some(Format::Env | Format::Dotenv) | None) {
            let message = "`variable` goes with the formats `env` and `dotenv`";
            reader.refuse(at.place, message, "remove it");
        }
        name.to_owned()
    });
    let readers = readers(reader, node);
    Some(FileConfig { path: path?, format: format?, variable, readers, trusted: trusted(node) })
}

fn endpoint(
    reader: &mut Reader<'_>,
    node: &Node,
    aws: bool,
    ports: &mut Ports,
) -> Option<EndpointConfig> {
    if node.find("kind").and_then(Node::text)? == "aws" {
        if !aws && reader.section("listen").and_then(|map| map.find("aws")).is_none() {
            let message = "`endpoint` is of kind `aws`, and `listen.aws` is missing";
            let hint = "say where SDKs ask: `listen: { aws: { address: \"127.0.0.1:9980\", token_file: … } }`";
            reader.refuse(node.place, message, hint);
            return None;
        }
        return Some(EndpointConfig::Aws);
    }
    let address = on_loopback(reader, node, "address", ports);
    let users = node.find("users").map(Node::elements).unwrap_or_default();
    let overflow = overflow_user();
    for user in users.iter().filter(|user| user.integer() == Some(overflow.into())) {
        let message = format!(
            "`users` has {overflow}, which the kernel shows for every user that has no number in the agent's user namespace"
        );
        reader.refuse(
            user.place,
            message,
            "run the program as a user of its own, and name that one",
        );
    }
    let users = users.iter().filter_map(Node::integer);
    let users = users.filter_map(|user| u32::try_from(user).ok()).collect();
    Some(EndpointConfig::Google {
        address: address?,
        service_account: owned(node, "service_account")?,
        project: owned(node, "project"),
        users,
    })
}

fn command(reader: &mut Reader<'_>, map: &Node) -> Option<CommandConfig> {
    let words = reader::texts(map, "command");
    let deadline = reader.duration(
        Some(map),
        "deadline",
        Duration::from_secs(30),
        Duration::from_secs(1)..=Duration::from_hours(1),
        "a command that hangs keeps the next one waiting",
    );
    if let Some((program, at)) = words.first()
        && !program.starts_with('/')
    {
        let message =
            format!("`command` begins with `{}`, expected a whole path", program.escape_debug());
        reader.refuse(at.place, message, "no `PATH` is searched, and no shell looks at it");
        return None;
    }
    let command = words.into_iter().map(|(word, _)| word.to_owned()).collect();
    Some(CommandConfig { command, deadline })
}
