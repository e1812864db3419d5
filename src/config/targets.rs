//! `targets`: what a workload can get, as what, for how long, and which trust policies may give it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

pub mod aws;
mod azure;
mod cloud;
mod deputy;
mod github;
mod google;
mod jwt;
mod mysql;
mod postgres;
mod rds;
mod redis;
mod roles;
mod server;
mod x509;

pub use azure::{AzureConfig, AzureRoleConfig};
pub use cloud::CloudConfig;
pub use github::{GithubConfig, GithubRoleConfig};
pub use google::{GoogleConfig, GoogleRoleConfig};
pub use jwt::{JwtConfig, JwtType};
pub use mysql::MysqlConfig;
pub use postgres::PostgresConfig;
pub use rds::{RdsConfig, RdsEngine};
pub use redis::RedisConfig;
pub use server::{Bounds, ServerConfig, ServerTls};
pub use x509::X509Config;

use super::reader::{Reader, is_audience, length, text, texts};
use crate::{
    grant::{RoleName, TargetName},
    holder::CertificateNames,
    subject::{Algorithm, issuers::IssuerUrl},
    target::{Expiry, Role, Target},
    yaml::{Field, Node, Place, Shape},
};

/// One target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetConfig {
    /// `jwt/orders`.
    pub name: TargetName,
    /// What it issues, with what only that kind has.
    pub kind: TargetKind,
    /// Further URIs that name it.
    pub aliases: BTreeSet<String>,
    /// Its powers.
    pub roles: BTreeMap<RoleName, Role>,
    /// File names of the trust policies that may grant it.
    pub granted_by: BTreeSet<String>,
    /// The shortest lifetime.
    pub floor: Duration,
    /// The longest lifetime.
    pub ceiling: Duration,
}

/// What a target issues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetKind {
    /// Signed JWTs for a resource server.
    Jwt(JwtConfig),
    /// Signed JWTs for our own API (design section 6); their audience is our issuer URL.
    Cambio(JwtConfig),
    /// Access tokens of Google Cloud.
    Google(GoogleConfig),
    /// Access tokens of Entra.
    Azure(AzureConfig),
    /// Installation tokens of a GitHub App.
    Github(GithubConfig),
    /// AWS sessions.
    Aws(Box<aws::AwsConfig>),
    /// IAM tokens for a database of Amazon RDS.
    Rds(Box<RdsConfig>),
    /// Users of a MariaDB or MySQL.
    Mysql(MysqlConfig),
    /// Users of a Redis or Valkey.
    Redis(RedisConfig),
    /// Logins at a PostgreSQL server.
    Postgres(Box<PostgresConfig>),
    /// Client certificates of a CA that is the target's own.
    X509(X509Config),
}

impl TargetKind {
    /// The word of the configuration.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Jwt(_) => "jwt",
            Self::Cambio(_) => "cambio",
            Self::Google(_) => "google",
            Self::Azure(_) => "azure",
            Self::Github(_) => "github",
            Self::Aws(_) => "aws",
            Self::Rds(_) => "rds",
            Self::Mysql(_) => "mysql",
            Self::Redis(_) => "redis",
            Self::Postgres(_) => "postgres",
            Self::X509(_) => "x509",
        }
    }

    /// The JWTs that it issues, where it issues any.
    #[must_use]
    pub const fn jwt(&self) -> Option<&JwtConfig> {
        match self {
            Self::Jwt(jwt) | Self::Cambio(jwt) => Some(jwt),
            Self::Postgres(_)
            | Self::Mysql(_)
            | Self::Redis(_)
            | Self::X509(_)
            | Self::Google(_)
            | Self::Azure(_)
            | Self::Github(_)
            | Self::Aws(_)
            | Self::Rds(_) => None,
        }
    }

    /// What signs JWTs for it, where a key of ours does.
    #[must_use]
    pub const fn signed_with(&self) -> Option<Algorithm> {
        match self {
            Self::Jwt(jwt) | Self::Cambio(jwt) => Some(jwt.algorithm),
            Self::Google(google) => Some(google.algorithm),
            // Entra verifies no other.
            Self::Azure(_) => Some(Algorithm::RS256),
            Self::Aws(aws) => aws.signed_with(),
            Self::Rds(rds) => rds.sessions.signed_with(),
            Self::Github(_)
            | Self::Postgres(_)
            | Self::Mysql(_)
            | Self::Redis(_)
            | Self::X509(_) => None,
        }
    }

    /// The certificates that it issues, where it issues any.
    #[must_use]
    pub const fn x509(&self) -> Option<&X509Config> {
        match self {
            Self::X509(x509) => Some(x509),
            Self::Jwt(_)
            | Self::Cambio(_)
            | Self::Postgres(_)
            | Self::Mysql(_)
            | Self::Redis(_)
            | Self::Google(_)
            | Self::Azure(_)
            | Self::Github(_)
            | Self::Aws(_)
            | Self::Rds(_) => None,
        }
    }
}

impl TargetConfig {
    /// What policy and minting know of it, in an instance of `environment`.
    #[must_use]
    pub fn target(&self, environment: &str) -> Target {
        let mut aliases = self.aliases.clone();
        let audience = self.kind.jwt().map(|jwt| jwt.audience.clone());
        aliases.extend(audience.filter(|audience| audience != self.name.as_str()));
        Target {
            name: self.name.clone(),
            kind: self.kind.as_str().to_owned(),
            aliases,
            environment: environment.to_owned(),
            roles: self.roles.clone(),
            granted_by: self.granted_by.clone(),
            expiry: self.expiry(),
        }
    }

    /// INVARIANT(honest-expiry): how its credentials end.
    #[must_use]
    pub fn expiry(&self) -> Expiry {
        let exact = Expiry::Exact { floor: self.floor, ceiling: self.ceiling };
        match &self.kind {
            TargetKind::Jwt(_)
            | TargetKind::Cambio(_)
            | TargetKind::Postgres(_)
            | TargetKind::X509(_)
            | TargetKind::Aws(_) => exact,
            TargetKind::Mysql(_) | TargetKind::Redis(_) => {
                Expiry::ByBroker { ceiling: self.ceiling }
            }
            TargetKind::Google(google) if google.impersonates() => exact,
            TargetKind::Azure(azure) => Expiry::Fixed(azure.lives),
            TargetKind::Rds(_) => Expiry::Fixed(rds::LIVES),
            TargetKind::Github(github) if github.by_broker => {
                Expiry::ByBroker { ceiling: self.ceiling }
            }
            TargetKind::Google(_) | TargetKind::Github(_) => Expiry::Fixed(Duration::from_hours(1)),
        }
    }
}

const DEFAULT_CEILING: Duration = Duration::from_hours(1);
const LONGEST_CEILING: Duration = Duration::from_hours(24);
const DEFAULT_FLOOR: Duration = Duration::from_secs(1);

const NAME: Field =
    Field::required("name", "What trust policies and callers call it: `jwt/orders`", Shape::Name);
const ENVIRONMENT: Field = Field::required(
    "environment",
    "Must be the environment of the instance: a copied file can't open another one's targets",
    Shape::Name,
);
const ROLES: Field = Field::required(
    "roles",
    "Its powers by name; a name is also the `scope` that a caller asks for",
    Shape::Table { value: &roles::ROLE_SHAPE, reserved: &[], least: 1 },
);
const GRANTED_BY: Field = Field::optional(
    "granted_by",
    "File names of the trust policies that may grant it. Default: none, and then nobody gets it",
    Shape::List(&Shape::Text, 0),
);
const CEILING: Field = Field::optional(
    "ceiling",
    "The longest lifetime. At most `1d`; default: `1h`",
    Shape::Duration,
);
const FLOOR: Field = Field::optional(
    "floor",
    "The shortest lifetime that is worth issuing; a shorter one is refused, not stretched. Default: `1s`",
    Shape::Duration,
);
/// INVARIANT(honest-expiry): who takes a target whose logins have no end of their own says that they know it.
const ENDS: Field = Field::required(
    "ends",
    "`by_broker`: the server knows no end for a user, so that its logins end only while Cambio runs and reaches it",
    Shape::Choice(&[("by_broker", "a login outlives its end for as long as no broker runs")]),
);
const ALIASES: Field = Field::optional(
    "aliases",
    "Further absolute URIs that `audience` or `resource` may name it by",
    Shape::List(&Shape::Text, 0),
);
pub(super) static TARGET: Shape = Shape::Tagged {
    tag: "kind",
    cases: &[
        ("jwt", &jwt::JWT),
        ("cambio", &jwt::CAMBIO),
        ("postgres", &postgres::POSTGRES),
        ("mysql", &mysql::MYSQL),
        ("redis", &redis::REDIS),
        ("x509", &x509::X509),
        ("google", &google::GOOGLE),
        ("azure", &azure::AZURE),
        ("github", &github::GITHUB),
        ("aws", &aws::AWS),
        ("rds", &rds::RDS),
    ],
};

/// All targets that could be read. `instance` is the environment, `ours` the issuer URL.
pub(super) fn read(
    reader: &mut Reader<'_>,
    instance: Option<&str>,
    ours: Option<&IssuerUrl>,
) -> Vec<TargetConfig> {
    let Some(section) = reader.section("targets") else { return Vec::new() };
    let mut targets: Vec<(&Node, TargetConfig)> = Vec::new();
    let mut names: BTreeMap<String, Place> = BTreeMap::new();
    for node in section.elements() {
        environment(reader, node, instance);
        let Some(target) = target(reader, node, ours) else { continue };
        unique(reader, node, &target, &mut names);
        targets.push((node, target));
    }
    deputy::check(reader, &targets);
    // Of all that are written down, so that one target that can't be read does not make a second problem here.
    let kind = |node: &Node| node.find("kind").and_then(Node::text).map(str::to_owned);
    let is_jwt = |node: &&Node| kind(node).as_deref() == Some("jwt");
    // The `audience` of kind `azure` is Entra's.
    let may_be_jwt = |node: &&Node| kind(node).as_deref() != Some("azure");
    let known = section.elements().iter().filter(may_be_jwt);
    let known = known.filter_map(|node| text(node, "audience"));
    let audiences: BTreeSet<&str> = known.map(|(found, _)| found).collect();
    let complete =
        section.elements().iter().filter(is_jwt).all(|node| node.find("audience").is_some());
    for (node, _) in
        targets.iter().filter(|(_, target)| matches!(target.kind, TargetKind::Cambio(_)))
    {
        roles::check_ours(reader, node, complete.then_some(&audiences));
    }
    targets.into_iter().map(|(_, target)| target).collect()
}

/// A request names exactly one target: no name, audience or alias may stand for two.
fn unique(
    reader: &mut Reader<'_>,
    node: &Node,
    target: &TargetConfig,
    names: &mut BTreeMap<String, Place>,
) {
    let place = |key: &str| node.find(key).map_or(node.place, |found| found.place);
    let mut own = vec![(target.name.as_str(), place("name"))];
    if let Some(jwt) = target.kind.jwt().filter(|jwt| jwt.audience != target.name.as_str()) {
        own.push((&jwt.audience, place("audience")));
    }
    own.extend(texts(node, "aliases").into_iter().map(|(alias, at)| (alias, at.place)));
    for (name, place) in own {
        // Whoever asks for a role in AWS by its ARN gets that role, and nothing else under its name.
        if aws::is_role_arn(name) {
            let message = format!("`{name}` names a role in AWS, expected a name of this target");
            let hint = "leave it out: the roles of a target of kind `aws` are found by their ARN";
            reader.refuse(place, message, hint);
        }
        if let Some(first) = names.insert(name.to_owned(), place) {
            let message = format!("`{name}` already names a target on line {}", first.line);
            reader.refuse(place, message, "a request must resolve to exactly one target");
        }
    }
}

fn environment(reader: &mut Reader<'_>, node: &Node, instance: Option<&str>) {
    let (Some((found, at)), Some(instance)) = (text(node, "environment"), instance) else { return };
    if found != instance {
        let message = format!("target of environment `{found}` in an instance of `{instance}`");
        reader.refuse(at.place, message, "run one instance for each environment");
    }
}

fn target(reader: &mut Reader<'_>, node: &Node, ours: Option<&IssuerUrl>) -> Option<TargetConfig> {
    let (floor, ceiling) = lifetimes(reader, node);
    let kind = match node.find("kind").and_then(Node::text)? {
        "jwt" => jwt::read(reader, node, ours).map(TargetKind::Jwt),
        "cambio" => jwt::read_ours(node, ours).map(TargetKind::Cambio),
        "google" => google::read(reader, node, ceiling).map(TargetKind::Google),
        "azure" => azure::read(reader, node).map(TargetKind::Azure),
        "github" => github::read(reader, node, ceiling).map(TargetKind::Github),
        "aws" => aws::read(reader, node).map(|aws| TargetKind::Aws(Box::new(aws))),
        "rds" => rds::read(reader, node).map(|rds| TargetKind::Rds(Box::new(rds))),
        "mysql" => mysql::read(reader, node).map(TargetKind::Mysql),
        "redis" => redis::read(reader, node).map(TargetKind::Redis),
        "postgres" => postgres::read(reader, node).map(Box::new).map(TargetKind::Postgres),
        "x509" => Some(TargetKind::X509(x509::read(reader, node))),
        _ => return None,
    };
    let aliases = aliases(reader, node);
    let mut roles = match &kind {
        Some(TargetKind::Aws(aws)) => aws::roles(aws),
        Some(TargetKind::Rds(rds)) => aws::roles(&rds.sessions),
        _ => roles::read(reader, node),
    };
    if let Some(TargetKind::Google(google)) = &kind {
        google.scope(&mut roles);
    }
    if let Some(x509) = kind.as_ref().and_then(TargetKind::x509) {
        for (name, role) in &mut roles {
            role.claims = x509.names.get(name).map(CertificateNames::claims).unwrap_or_default();
        }
    }
    let granted_by = granted_by(reader, node);
    if let Some(TargetKind::Aws(aws)) = &kind {
        aws::check_durations(reader, node, aws, floor);
    }
    Some(TargetConfig {
        name: text(node, "name")?.0.into(),
        kind: kind?,
        aliases,
        roles,
        granted_by,
        floor,
        ceiling,
    })
}

/// INVARIANT(honest-expiry): a JWT or a certificate ends at any second between floor and ceiling, if there is one between them.
fn lifetimes(reader: &mut Reader<'_>, node: &Node) -> (Duration, Duration) {
    let (floor, ceiling) = match node.find("kind").and_then(Node::text) {
        Some("aws") => aws::lifetimes(reader, node),
        // INVARIANT(honest-expiry): AWS knows no other.
        Some("rds") => (rds::LIVES, rds::LIVES),
        _ => own_lifetimes(reader, node),
    };
    if floor > ceiling {
        let place = node.find("floor").map_or(node.place, |at| at.place);
        let message =
            format!("`floor` is `{}`, above the `ceiling` of `{}`", length(floor), length(ceiling));
        reader.refuse(place, message, "no lifetime is left: lower the floor or raise the ceiling");
    }
    (floor, ceiling)
}

fn own_lifetimes(reader: &mut Reader<'_>, node: &Node) -> (Duration, Duration) {
    let one = Duration::from_secs(1);
    let ceiling = reader.duration(
        Some(node),
        "ceiling",
        DEFAULT_CEILING,
        one..=LONGEST_CEILING,
        "what lives longer than a day is a stored secret",
    );
    let floor = reader.duration(
        Some(node),
        "floor",
        DEFAULT_FLOOR,
        one..=LONGEST_CEILING,
        "leave it out: the default is `1s`",
    );
    (floor, ceiling)
}

fn aliases(reader: &mut Reader<'_>, node: &Node) -> BTreeSet<String> {
    let mut aliases = BTreeSet::new();
    for (alias, at) in texts(node, "aliases") {
        let absolute = url::Url::parse(alias).is_ok();
        if !(absolute && is_audience(alias)) || alias.contains('#') {
            let message =
                format!("alias `{}` is no absolute URI without a fragment", alias.escape_debug());
            reader.refuse(at.place, message, "RFC 8707 section 2: `https://…` or `urn:…`");
        }
        aliases.insert(alias.to_owned());
    }
    aliases
}

fn granted_by(reader: &mut Reader<'_>, node: &Node) -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    for (file, at) in texts(node, "granted_by") {
        let plain = !file.contains(['/', '\\', '*']) && !file.starts_with('.');
        if !plain || file.strip_suffix(".yaml").is_none_or(str::is_empty) {
            let message = format!(
                "`granted_by` names `{}`, expected a file name such as `orders.yaml`",
                file.escape_debug()
            );
            reader.refuse(
                at.place,
                message,
                "name each file of the policy directory by itself: no path, no pattern",
            );
        }
        files.insert(file.to_owned());
    }
    // INVARIANT(closed-by-absence): legal, and seldom what was meant.
    if files.is_empty()
        && let Some((name, at)) = text(node, "name")
    {
        reader.warn(
            at.place,
            format!("nobody may have target `{name}`: no trust policy may grant it"),
            "name files in `granted_by`",
        );
    }
    files
}
