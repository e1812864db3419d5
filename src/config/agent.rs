//! The configuration of `cambio agent`: which credentials are kept, and where they go. Another file than the broker's, read by the
//! same rules: closed, every problem at once, each with its place.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use self::paths::Paths;
use super::{
    at_the_top, files,
    files::Need,
    load, log,
    log::{LogFormat, LogLevel},
    reader::{self, Reader},
    reference,
};
use crate::{
    web,
    yaml::{self, Node, Place, Problem, Shape},
};

mod credential;
mod paths;
mod shape;

pub use credential::{CommandConfig, EndpointConfig, FileConfig, KeptConfig};

const HEAD: &str = "\
# The agent's configuration

<!-- Generated from the field tables of `src/config/agent/`; a test compares. Regenerate: CAMBIO_BLESS=1 cargo test --test it agents_schema -->

One YAML file, read by the rules of the broker's own (`docs/configuration.md`): closed, and all problems are told at once. Nobody but
its owner may write to it: it names commands. Relative paths start in its directory. `deploy/agent.example.yaml` is a whole one,
`deploy/agent.schema.json` serves editors, and `docs/agent.md` tells what it does.
";

/// Everything that an agent needs to know. Paths are resolved, names are unique, endpoints are on loopback.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// The broker's issuer URL: https, or http on loopback.
    pub broker: String,
    /// Root certificates (PEM) to trust besides the machine's.
    pub ca_file: Option<PathBuf>,
    /// An HTTP proxy for https.
    pub proxy: Option<String>,
    /// Where the subject token comes from.
    pub token: TokenFrom,
    /// Whom the subject token shall be for.
    pub token_audience: Option<String>,
    /// What is kept.
    pub credentials: Vec<KeptConfig>,
    /// Where AWS SDKs ask.
    pub credentials_at: Option<AwsListen>,
    /// Health and metrics.
    pub operations: Option<SocketAddr>,
    /// Whether leases are ended when the agent ends.
    pub revoke_on_exit: bool,
    /// The form of a log line.
    pub log_format: LogFormat,
    /// The least severe level that is told.
    pub log_level: LogLevel,
}

/// Where the subject token comes from. No variable: it never changes, and an agent lives longer than a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenFrom {
    /// What the platform hands out: this one, or the first that shows.
    Platform(Option<String>),
    /// This file, read at each exchange.
    File(PathBuf),
}

/// The endpoint of AWS SDKs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsListen {
    /// On loopback.
    pub address: SocketAddr,
    /// What `AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE` names: made at start, mode 0600.
    pub token_file: PathBuf,
    /// Whether the file is for a group too.
    pub readers: ReadersConfig,
    /// Whether its directory may be one that everybody may write to.
    pub trusted: bool,
}

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadersConfig {
    /// Its owner.
    Owner,
    /// A group besides: this one, or the one that a new file has by itself.
    Group(Option<u32>),
}

/// A good configuration and what an operator should know of it, or all that is wrong with it.
pub type AgentJudged = Result<(AgentConfig, Vec<Problem>), Vec<Problem>>;

impl AgentConfig {
    /// Reads the file at `path` and looks at every file that it names.
    ///
    /// # Errors
    /// Every problem at once, in the order of their places.
    pub fn read(path: &Path) -> AgentJudged {
        let file = path.display().to_string();
        let (text, _) = load(path).map_err(|message| vec![at_the_top(&file, message)])?;
        let base = path.parent().unwrap_or(Path::new(""));
        judge(&file, &text, base, Some(path))
    }

    /// Judges `text` without looking at the disk; relative paths start at `base`. `file` only names it in messages.
    ///
    /// # Errors
    /// As [`AgentConfig::read`], but for what only the disk can tell.
    pub fn parse(file: &str, text: &str, base: &Path) -> AgentJudged {
        judge(file, text, base, None)
    }

    /// The JSON Schema of the file, for editors: `deploy/agent.schema.json`.
    #[must_use]
    pub fn schema() -> serde_json::Value {
        yaml::schema("The configuration of a Cambio agent", &shape::SHAPE)
    }

    /// All settings as Markdown: `docs/agent-configuration.md`.
    #[must_use]
    pub fn reference() -> String {
        format!("{HEAD}{}", reference::tables(&shape::AGENT))
    }
}

fn judge(file: &str, text: &str, base: &Path, on_disk: Option<&Path>) -> AgentJudged {
    let document = yaml::read(file, text, &Shape::Any)?;
    let shape = yaml::read(file, text, &shape::SHAPE).err().unwrap_or_default();
    let mut reader = Reader::of(&document, base);
    reader.problems.extend(shape);
    let config = sections(&mut reader, on_disk);
    if let Some(path) = on_disk {
        if files::anyone_may_write(path) {
            // It names commands that we run, and the broker that our tokens go to.
            let problem = at_the_top(file, "anyone may write to the configuration");
            reader.problems.push(problem.hint("chmod o-w it"));
        }
        files::check(&mut reader, false);
    }
    let Reader { mut problems, mut warnings, .. } = reader;
    problems.sort();
    problems.dedup();
    warnings.sort();
    match config {
        Some(config) if problems.is_empty() => Ok((config, warnings)),
        None if problems.is_empty() => {
            Err(vec![at_the_top(file, "the configuration is not complete")])
        }
        Some(_) | None => Err(problems),
    }
}

fn sections(reader: &mut Reader<'_>, file: Option<&Path>) -> Option<AgentConfig> {
    let mut paths = Paths::default();
    if let Some(file) = file {
        paths.reads(file, None, "the configuration itself");
    }
    let broker = broker(reader);
    let ca_file = reader.path(reader.root(), "ca_file", Need::File);
    let proxy = owned(reader.root(), "proxy");
    paths.reads_at(reader.root(), "ca_file", ca_file.as_deref());
    let token = token(reader);
    if let (Some(TokenFrom::File(file)), Some(map)) = (&token, reader.section("token")) {
        paths.reads_at(map, "file", Some(file));
    }
    let token_audience = reader.section("token").and_then(|map| owned(map, "audience"));
    let mut ports = Ports::default();
    let credentials_at = aws_listen(reader, &mut ports, &mut paths);
    let credentials =
        credential::credentials(reader, credentials_at.is_some(), &mut ports, &mut paths);
    paths.judge(reader);
    let operations = reader.section("listen").filter(|map| map.find("operations").is_some());
    let operations = operations.and_then(|map| {
        let (address, at) = address(reader, map, "operations")?;
        ports.take(reader, address, at, "operations");
        Some(address)
    });
    let revoke = reader.root().find("revoke_on_exit").and_then(Node::boolean);
    let log = log::read(reader);
    Some(AgentConfig {
        broker: broker?,
        ca_file,
        proxy,
        token: token?,
        token_audience,
        credentials: credentials?,
        credentials_at,
        operations,
        revoke_on_exit: revoke.unwrap_or(true),
        log_format: log.format,
        log_level: log.level,
    })
}

fn owned(map: &Node, key: &str) -> Option<String> {
    reader::text(map, key).map(|(text, _)| text.to_owned())
}

fn broker(reader: &mut Reader<'_>) -> Option<String> {
    let (found, at) = reader::text(reader.root(), "broker")?;
    match web::safe_url(found) {
        Ok(url) if url.query().is_none() && url.fragment().is_none() => Some(found.to_owned()),
        Ok(_) => {
            let message = "`broker` has a query or a fragment, expected the broker's issuer URL";
            reader.refuse(at.place, message, "such as `https://cambio.example.com`");
            None
        }
        Err(reason) => {
            let message = format!("`broker`: {reason}");
            reader.refuse(at.place, message, "a token that is sent in the clear is anybody's");
            None
        }
    }
}

fn token(reader: &mut Reader<'_>) -> Option<TokenFrom> {
    let Some(map) = reader.section("token") else { return Some(TokenFrom::Platform(None)) };
    let file = reader.path(map, "file", Need::PlatformToken);
    let platform = owned(map, "platform");
    match (file, platform) {
        (Some(_), Some(_)) => {
            let message = "`token` names a file and a platform, expected one of them";
            reader.refuse(map.place, message, "two identities are two agents");
            None
        }
        (Some(file), None) => Some(TokenFrom::File(file)),
        (None, platform) => Some(TokenFrom::Platform(platform)),
    }
}

/// Listeners have ports of their own.
#[derive(Debug, Default)]
struct Ports(BTreeMap<u16, usize>);

impl Ports {
    fn take(&mut self, reader: &mut Reader<'_>, at: SocketAddr, place: Place, what: &'static str) {
        if at.port() == 0 {
            let message = format!("`{what}` has port 0, expected one that programs can be told");
            reader.refuse(place, message, "such as `127.0.0.1:9980`");
            return;
        }
        if let Some(line) = self.0.insert(at.port(), place.line) {
            let message = format!("`{what}` has port {}, as line {line} has", at.port());
            reader.refuse(place, message, "each listener needs a port of its own");
        }
    }
}

fn address(reader: &mut Reader<'_>, map: &Node, key: &str) -> Option<(SocketAddr, Place)> {
    let (found, at) = reader::text(map, key)?;
    if let Ok(address) = found.parse() {
        return Some((address, at.place));
    }
    let message = format!("`{key}` is `{}`, expected an address and a port", found.escape_debug());
    reader.refuse(at.place, message, "such as `127.0.0.1:9980`: no host names");
    None
}

fn on_loopback(
    reader: &mut Reader<'_>,
    map: &Node,
    key: &'static str,
    ports: &mut Ports,
) -> Option<SocketAddr> {
    let (address, place) = address(reader, map, key)?;
    if !address.ip().is_loopback() {
        let message = format!("`{key}` is `{address}`, which can be reached from elsewhere");
        let hint = "credentials are handed out on loopback alone, such as `127.0.0.1:9980`";
        reader.refuse(place, message, hint);
        return None;
    }
    ports.take(reader, address, place, key);
    Some(address)
}

fn aws_listen(reader: &mut Reader<'_>, ports: &mut Ports, paths: &mut Paths) -> Option<AwsListen> {
    let map = reader.section("listen")?.find("aws")?;
    let address = on_loopback(reader, map, "address", ports);
    let token_file = path(reader, map, "token_file", paths);
    let readers = readers(reader, map);
    Some(AwsListen { address: address?, token_file: token_file?, readers, trusted: trusted(map) })
}

/// A file that we make. Its directory is looked at when the agent starts, by the one that writes.
fn path(reader: &Reader<'_>, map: &Node, key: &'static str, paths: &mut Paths) -> Option<PathBuf> {
    let (text, at) = reader::text(map, key)?;
    let path = reader.based(text);
    paths.makes(&path, at.place, key);
    Some(path)
}

fn trusted(map: &Node) -> bool {
    map.find("trust_directory").and_then(Node::boolean).unwrap_or(false)
}

fn readers(reader: &mut Reader<'_>, map: &Node) -> ReadersConfig {
    let group = map.find("group");
    let number = group.and_then(Node::integer).and_then(|number| u32::try_from(number).ok());
    if map.find("readers").and_then(Node::text) == Some("group") {
        return ReadersConfig::Group(number);
    }
    if let Some(node) = group {
        let message = "`group` stands beside `readers: owner`";
        reader.refuse(node.place, message, "write `readers: group`");
    }
    ReadersConfig::Owner
}
