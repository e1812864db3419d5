//! The configuration: one YAML file, closed, typed, judged whole before anything starts.
//!
//! INVARIANT(closed-by-absence): what has no safe default has none. Secrets are named by file, never written here and
//! never taken from the environment; no message repeats one, nor a path where one may have been pasted.

use std::{
    collections::BTreeMap,
    fs::{File, Metadata},
    io::{self, ErrorKind, Read},
    path::{Path, PathBuf},
};

pub mod agent;
mod files;
mod issuers;
mod keys;
mod ledger;
mod limits;
mod listen;
mod log;
mod planned;
mod policies;
mod reader;
mod reference;
mod store;
mod targets;

pub use agent::AgentConfig;
pub use issuers::{Discovered, IssuerConfig, KeysFrom, TokenReviewConfig};
pub use keys::{KeysConfig, ProtectorConfig};
pub use ledger::{AnchorConfig, LedgerConfig};
pub use limits::{LimitsConfig, Rate};
pub use listen::{ListenConfig, TlsConfig};
pub use log::{LogConfig, LogFormat, LogLevel};
pub use policies::PoliciesConfig;
pub use store::StoreConfig;
pub use targets::{
    AzureConfig, AzureRoleConfig, Bounds, CloudConfig, GithubConfig, GithubRoleConfig,
    GoogleConfig, GoogleRoleConfig, JwtConfig, JwtType, MysqlConfig, PostgresConfig, RdsConfig,
    RdsEngine, RedisConfig, ServerConfig, ServerTls, TargetConfig, TargetKind, X509Config, aws,
};

use self::{files::Need, reader::Reader};
use crate::{
    grant::IssuerName,
    keys::schedule::Terms,
    owner::{self, NotOurs},
    subject::{Preset, issuers::IssuerUrl},
    target::{TargetClash, Targets},
    yaml::{self, Field, Fields, Place, Problem, Shape},
};

/// Everything that an instance needs to know. Paths are resolved, lengths of time are bounded, names are unique.
///
/// `cambio dev` builds one in code; [`Config::read`] is the only other way to one.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the instance's keys, key-encryption context and targets belong to.
    pub environment: String,
    /// Our own issuer.
    pub issuer: IssuerUrl,
    /// The directory of the instance's state.
    pub data: PathBuf,
    /// Whose tokens are verified.
    pub issuers: Vec<IssuerConfig>,
    /// What workloads can get.
    pub targets: Vec<TargetConfig>,
    /// Where the trust policies lie.
    pub policies: PoliciesConfig,
    /// The database.
    pub store: StoreConfig,
    /// The ledger.
    pub ledger: LedgerConfig,
    /// Our signing keys.
    pub keys: KeysConfig,
    /// Where we are reached.
    pub listen: ListenConfig,
    /// What speaks TLS there.
    pub tls: TlsConfig,
    /// How much may be asked of us.
    pub limits: LimitsConfig,
    /// How much we tell.
    pub log: LogConfig,
}

/// A good configuration and what an operator should know of it, or all that is wrong with it.
pub type Judged = Result<(Config, Vec<Problem>), Vec<Problem>>;

static CONFIG: Fields = Fields {
    what: "the configuration",
    fields: &[
        Field::required("version", "The version of this format: `1`", Shape::Constant(1)),
        Field::required(
            "environment",
            "What keys, key-encryption context and targets of this instance belong to: `prod`, `dev` …",
            Shape::Name,
        ),
        Field::required(
            "issuer",
            "Our own issuer URL, https: the `iss` of what we sign, and where callers find us",
            Shape::Text,
        ),
        Field::required(
            "data",
            "The directory of the instance's state. It must exist: a typo can't start a second ledger",
            Shape::Text,
        ),
        Field::required(
            "issuers",
            "Whose tokens are verified",
            Shape::List(&Shape::Map(&issuers::ISSUER), 1),
        ),
        Field::required("targets", "What workloads can get", Shape::List(&targets::TARGET, 1)),
        Field::required(
            "policies",
            "Where the trust policies lie",
            Shape::Map(&policies::POLICIES),
        ),
        Field::optional(
            "store",
            "The database. Default: SQLite, `cambio.db` in `data`",
            Shape::Map(&store::STORE),
        ),
        Field::required("ledger", "The ledger and its anchors", Shape::Map(&ledger::LEDGER)),
        Field::required(
            "keys",
            "How our signing keys are protected, and how they rotate",
            Shape::Map(&keys::KEYS),
        ),
        Field::required("listen", "Where we are reached", Shape::Map(&listen::LISTEN)),
        Field::required(
            "tls",
            "Certificate and key of the public listener, or the word `none`: then a proxy speaks TLS for us",
            Shape::Named("tls", &listen::TLS),
        ),
        Field::optional("limits", "How much may be asked of us", Shape::Map(&limits::LIMITS)),
        Field::optional("log", "How much we tell, on stderr", Shape::Map(&log::LOG)),
    ],
};

static SHAPE: Shape = Shape::Map(&CONFIG);

impl Config {
    /// Reads the file at `path` and looks at every file that it names. Warnings come beside a good configuration.
    ///
    /// # Errors
    /// Every problem at once, in the order of their places; nothing may be served with it.
    pub fn read(path: &Path) -> Judged {
        Self::from_disk(path, Purpose::Look)
    }

    /// As [`Config::read`], for an instance that serves: what others may write to is no configuration, nor are keys, roots and
    /// session policies that they may change (threat K12). A checkout may be so, where nothing is served: there it is a warning.
    ///
    /// # Errors
    /// As [`Config::read`], and what others may change.
    pub fn read_to_serve(path: &Path) -> Judged {
        Self::from_disk(path, Purpose::Serve)
    }

    /// As [`Config::read_to_serve`], for who makes the folders that an instance writes to: those alone are not looked at yet.
    ///
    /// # Errors
    /// As [`Config::read_to_serve`].
    pub fn read_to_make(path: &Path) -> Judged {
        Self::from_disk(path, Purpose::Make)
    }

    fn from_disk(path: &Path, purpose: Purpose) -> Judged {
        let file = path.display().to_string();
        let (text, about) = load(path).map_err(|message| vec![at_the_top(&file, message)])?;
        let base = path.parent().unwrap_or(Path::new(""));
        judge(&file, &text, base, Some(&OnDisk { path, about, purpose }))
    }

    /// Judges `text` without looking at the disk; relative paths start at `base`. `file` only names it in messages.
    ///
    /// # Errors
    /// As [`Config::read`], but for what only the disk can tell.
    pub fn parse(file: &str, text: &str, base: &Path) -> Judged {
        judge(file, text, base, None)
    }

    /// The JSON Schema of the file, for editors: `deploy/cambio.schema.json`.
    #[must_use]
    pub fn schema() -> serde_json::Value {
        yaml::schema("The configuration of a Cambio instance", &SHAPE)
    }

    /// All settings as Markdown: `docs/configuration.md`.
    #[must_use]
    pub fn reference() -> String {
        reference::of(&CONFIG)
    }

    /// The registry of targets.
    ///
    /// # Errors
    /// Two answer to one name; a configuration that was read has no such two.
    pub fn targets(&self) -> Result<Targets, TargetClash> {
        let targets =
            Targets::of(self.targets.iter().map(|target| target.target(&self.environment)))?;
        let arns = self.targets.iter().filter_map(|target| {
            let TargetKind::Aws(aws) = &target.kind else { return None };
            Some((target, aws))
        });
        let named = arns.flat_map(|(target, aws)| {
            let roles = aws.roles.iter();
            roles.map(|(name, role)| (role.arn.clone(), (target.name.clone(), name.clone())))
        });
        Ok(targets.naming_roles(named))
    }

    /// What the policy compiler must know of the issuers: of which kind each is.
    #[must_use]
    pub fn policy_context(&self) -> BTreeMap<IssuerName, &'static Preset> {
        self.issuers.iter().map(|issuer| (issuer.name.clone(), issuer.preset)).collect()
    }

    /// What the rotation of our signing keys is derived from ([`crate::keys::schedule::Schedule::derive`]).
    #[must_use]
    pub fn terms(&self) -> Terms {
        self.keys.terms(&self.targets)
    }
}

/// The text of the file at `path`, up to a byte more than the reader accepts.
fn load(path: &Path) -> Result<(String, Metadata), String> {
    const MOST_BYTES: u64 = 4 * 1024 * 1024 + 1;
    let failed = |error: io::Error| {
        if error.kind() == ErrorKind::NotFound {
            return "the configuration does not exist".to_owned();
        }
        if error.kind() == ErrorKind::InvalidData {
            return "the configuration is not UTF-8".to_owned();
        }
        format!("the configuration can't be read: {error}")
    };
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    // Of the open file: it is the one that is read.
    let about = file.metadata().map_err(failed)?;
    file.take(MOST_BYTES).read_to_string(&mut text).map_err(failed)?;
    Ok((text, about))
}

/// Where a configuration came from.
struct OnDisk<'a> {
    path: &'a Path,
    about: Metadata,
    purpose: Purpose,
}

/// What a configuration is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// To say what is wrong with it.
    Look,
    /// To serve by it.
    Serve,
    /// To make the folders that it names, and then serve by it.
    Make,
}

impl Purpose {
    /// Whether what others may change is no configuration, or only told of.
    const fn served(self) -> bool {
        matches!(self, Self::Serve | Self::Make)
    }
}

/// Whether others than us may say what the configuration says.
fn ours(reader: &mut Reader<'_>, file: &str, found: &OnDisk<'_>) {
    let Err(why) = owner::believable(found.path, &found.about) else { return };
    match why {
        NotOurs::Anyone(_) => {
            let problem = at_the_top(file, "anyone may write to the configuration");
            reader.problems.push(problem.hint("chmod o-w it"));
        }
        _ if found.purpose.served() => {
            let problem = at_the_top(file, format!("the configuration {why}"));
            reader.problems.push(problem.hint(why.remedy()));
        }
        NotOurs::Group(_) => {
            // A checkout may be so, where nothing is served: `cambio serve` refuses it.
            let problem = at_the_top(file, "its group may write to the configuration");
            reader.warnings.push(problem.hint("`cambio serve` refuses it so: chmod go-w it"));
        }
        NotOurs::Owner(_) | NotOurs::Folder(_) | NotOurs::FolderOwner(_) => {
            let problem = at_the_top(file, format!("the configuration {why}"));
            let hint = format!("`cambio serve` refuses it so: {}", why.remedy());
            reader.warnings.push(problem.hint(hint));
        }
    }
}

fn at_the_top(file: &str, message: impl Into<String>) -> Problem {
    Problem::at(file, Place { line: 1, column: 1 }, message)
}

/// Reads the tree once as it is and once by its shape, so that what its sections say is judged even where some shape is
/// wrong: all problems at once.
fn judge(file: &str, text: &str, base: &Path, on_disk: Option<&OnDisk<'_>>) -> Judged {
    let document = yaml::read(file, text, &Shape::Any)?;
    let shape = yaml::read(file, text, &SHAPE).err().unwrap_or_default();
    let mut reader = Reader::of(&document, base);
    reader.problems.extend(shape);
    planned::replace(&mut reader);
    let config = sections(&mut reader);
    if let Some(found) = on_disk {
        ours(&mut reader, file, found);
        if found.purpose == Purpose::Make {
            reader.files.retain(|wanted| !wanted.need.is_written());
        }
        files::check(&mut reader, found.purpose.served());
        if let Some(config) = &config {
            policies::grantors(&mut reader, &config.policies);
        }
    }
    let Reader { mut problems, mut warnings, .. } = reader;
    problems.sort();
    problems.dedup();
    warnings.sort();
    match config {
        Some(config) if problems.is_empty() => Ok((config, warnings)),
        None if problems.is_empty() => {
            // A section that is missing without a problem is a defect of ours; it must not start an instance.
            Err(vec![at_the_top(file, "the configuration is not complete")])
        }
        Some(_) | None => Err(problems),
    }
}

fn sections(reader: &mut Reader<'_>) -> Option<Config> {
    let environment = environment(reader);
    let issuer = our_issuer(reader);
    let data = reader.path(reader.root(), "data", Need::Kept);
    let issuers = issuers::read(reader, issuer.as_ref());
    let targets = targets::read(reader, environment.as_deref(), issuer.as_ref());
    let policies = policies::read(reader);
    let store = store::read(reader, data.as_deref());
    let ledger = ledger::read(reader, data.as_deref());
    let keys = keys::read(reader);
    let listen = listen::read(reader, data.as_deref());
    let tls = listen::tls(reader, listen.as_ref());
    let limits = limits::read(reader);
    let log = log::read(reader);
    if let Some(keys) = &keys {
        keys::rotates(reader, keys, &targets);
    }
    Some(Config {
        environment: environment?,
        issuer: issuer?,
        data: data?,
        issuers,
        targets,
        policies: policies?,
        store: store?,
        ledger: ledger?,
        keys: keys?,
        listen: listen?,
        tls: tls?,
        limits,
        log,
    })
}

fn environment(reader: &mut Reader<'_>) -> Option<String> {
    let (found, at) = reader::text(reader.root(), "environment")?;
    if !reader::is_short_name(found) {
        let message = format!(
            "`environment` is `{}`, expected lower-case letters, digits and `-`",
            found.escape_debug()
        );
        reader.refuse(at.place, message, "such as `prod`");
        return None;
    }
    Some(found.to_owned())
}

fn our_issuer(reader: &mut Reader<'_>) -> Option<IssuerUrl> {
    let (found, at) = reader::text(reader.root(), "issuer")?;
    let hint = "plain http and loopback exist in `cambio dev` alone";
    let url = issuers::parse_url(reader, at, "issuer", found, hint)?;
    if url.as_str().ends_with('/') {
        reader.refuse(at.place, "`issuer` ends in `/`", "remove it: our paths begin with one");
    }
    Some(url)
}
