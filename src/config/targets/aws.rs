//! Targets that give AWS sessions: kind `aws`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use url::Url;

use super::roles;
use crate::{
    config::{
        files::Need,
        reader::{Reader, is_audience, length, number, text, texts},
    },
    grant::RoleName,
    json::{Limits, parse_object},
    subject::Algorithm,
    target::Role,
    yaml::{Node, Place},
};

mod fields;

pub(super) use fields::{
    ASSERT, AWS, CA_FILE, CALLS, ENDPOINT, EXTERNAL_ID, IDENTITY, NAME_PARTS, ROLE_ARN, SOURCE,
    TAGS, TRANSITIVE_TAGS,
};

/// What only a target of kind `aws` has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsConfig {
    /// `eu-central-1`.
    pub region: String,
    /// In place of the region's STS.
    pub endpoint: Option<Url>,
    /// Roots for it.
    pub ca_file: Option<PathBuf>,
    /// Who assumes the roles.
    pub identity: AwsIdentity,
    /// How many calls at once.
    pub calls: u32,
    /// What its roles are in AWS.
    pub roles: BTreeMap<RoleName, AwsRoleConfig>,
}

impl AwsConfig {
    /// What signs the JWTs by which AWS knows us, where it does.
    #[must_use]
    pub const fn signed_with(&self) -> Option<Algorithm> {
        match &self.identity {
            AwsIdentity::WebIdentity { algorithm, .. } => Some(*algorithm),
            AwsIdentity::Ambient => None,
        }
    }
}

/// Who assumes roles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AwsIdentity {
    /// A JWT of ours, for each session its own.
    WebIdentity {
        /// Its `aud`.
        audience: String,
        /// What signs it.
        algorithm: Algorithm,
    },
    /// The broker's own identity.
    Ambient,
}

/// One role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsRoleConfig {
    /// Its ARN.
    pub arn: String,
    /// The longest session.
    pub duration: Option<Duration>,
    /// Narrows each session.
    pub session_policy: Option<SessionPolicy>,
    /// Managed policies that narrow each session.
    pub policy_arns: Vec<String>,
    /// `sts:ExternalId`.
    pub external_id: Option<String>,
    /// Tag → what it is taken from, a claim or one of [`OF_OURS`].
    pub tags: BTreeMap<String, String>,
    /// Tags that stay along a chain.
    pub transitive_tags: BTreeSet<String>,
    /// What `sts:SourceIdentity` is taken from.
    pub source_identity: Option<String>,
    /// What the readable part of a session's name is taken from.
    pub session_name: Vec<String>,
}

/// A session policy, written out or in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionPolicy {
    /// JSON.
    Inline(String),
    /// A file of it.
    File(PathBuf),
}

/// What is no claim of the token, but known of the exchange.
pub const OF_OURS: [&str; 3] = ["cambio.rule", "cambio.subject", "cambio.exchange"];

/// In [`Role::claims`], before the key of a tag: no name of a tag can be that of a registered claim.
pub const TAG: &str = "tag:";
/// In [`Role::claims`], the source identity.
pub const SOURCE_IDENTITY: &str = "source_identity";
/// In [`Role::claims`], before the position of a part of the session's name.
pub const SESSION_NAME: &str = "session_name:";

const DEFAULT_AUDIENCE: &str = "sts.amazonaws.com";
/// AWS STS API reference, `DurationSeconds`.
const FLOOR: Duration = Duration::from_mins(15);
const CEILING: Duration = Duration::from_hours(12);
/// Role chaining has one hour, and an identity of surroundings is most often a role's.
const AMBIENT_CEILING: Duration = Duration::from_hours(1);
const LONGEST_POLICY: usize = 2_048;
const POLICY_LIMITS: Limits = Limits { bytes: 8_192, depth: 12, members: 256, elements: 512 };
const MOST_TAGS: usize = 50;

pub(super) fn read(reader: &mut Reader<'_>, node: &Node) -> Option<AwsConfig> {
    let config = read_sessions(reader, node)?;
    let mut arns: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, place, _) in node.find("roles").map(Node::entries).unwrap_or_default() {
        let Some(role) = config.roles.get(&RoleName::from(name.as_str())) else { continue };
        if let Some(first) = arns.insert(&role.arn, name) {
            let message = format!("roles `{first}` and `{name}` are one role in AWS");
            let hint = "callers of the AWS front name it by its ARN, which names neither: they get none of the two";
            reader.warn(*place, message, hint);
        }
    }
    Some(config)
}

/// What is read alike wherever sessions are asked for.
pub(super) fn read_sessions(reader: &mut Reader<'_>, node: &Node) -> Option<AwsConfig> {
    let region = region(reader, node);
    let endpoint = endpoint(reader, node);
    let ca_file = reader.path(node, "ca_file", Need::File);
    let identity = identity(reader, node);
    let ambient = identity == AwsIdentity::Ambient;
    let mut found = BTreeMap::new();
    for (name, place, role) in node.find("roles").map(Node::entries).unwrap_or_default() {
        roles::check_name(reader, name, *place);
        let Some(role) = self::role(reader, role, ambient) else { continue };
        found.insert(RoleName::from(name.as_str()), role);
    }
    Some(AwsConfig {
        region: region?,
        endpoint: endpoint.ok()?,
        ca_file,
        identity,
        calls: number(Some(node), "calls", 32),
        roles: found,
    })
}

/// Floor and ceiling: what AWS keeps (INVARIANT(honest-expiry)).
pub(super) fn lifetimes(reader: &mut Reader<'_>, node: &Node) -> (Duration, Duration) {
    let ambient = node.find("identity").and_then(Node::text) == Some("ambient");
    let (most, why) = if ambient {
        (
            AMBIENT_CEILING,
            "AWS gives a role that assumes another one (role chaining) no more than an hour",
        )
    } else {
        (CEILING, "AWS gives sessions of 15 minutes to 12 hours")
    };
    let ceiling = reader.duration(Some(node), "ceiling", AMBIENT_CEILING, FLOOR..=most, why);
    let floor = reader.duration(Some(node), "floor", FLOOR, FLOOR..=most, why);
    (floor, ceiling)
}

/// What policy must resolve for these roles.
pub(super) fn roles(config: &AwsConfig) -> BTreeMap<RoleName, Role> {
    let of = |(name, role): (&RoleName, &AwsRoleConfig)| {
        let tags = role.tags.iter().map(|(key, from)| (format!("{TAG}{key}"), from));
        let source = role.source_identity.iter().map(|from| (SOURCE_IDENTITY.to_owned(), from));
        let parts = role.session_name.iter().enumerate();
        let parts = parts.map(|(at, from)| (format!("{SESSION_NAME}{at}"), from));
        let all = tags.chain(source).chain(parts);
        let claims = all.filter(|(_, from)| !OF_OURS.contains(&from.as_str()));
        let claims = claims.map(|(key, from)| (key, from.clone())).collect();
        (name.clone(), Role { claims, ..Role::default() })
    };
    config.roles.iter().map(of).collect()
}

/// Whether `text` may be a session policy: one JSON object, without names that come twice, within AWS's length.
///
/// # Errors
/// It may not, and why.
pub fn session_policy(text: &str) -> Result<(), String> {
    let characters = text.chars().count();
    if characters > LONGEST_POLICY {
        return Err(format!("it has {characters} characters, expected at most {LONGEST_POLICY}"));
    }
    parse_object(text.as_bytes(), &POLICY_LIMITS).map(drop).map_err(|error| error.to_string())
}

/// Whether `text` may be the ARN of a managed policy.
#[must_use]
pub fn is_policy_arn(text: &str) -> bool {
    is_arn(text, "policy/", true)
}

fn region(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let (found, at) = text(node, "region")?;
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if found.len() > 32 || !found.bytes().all(fits) {
        let message =
            format!("`region` is `{}`, expected one such as `eu-central-1`", found.escape_debug());
        reader.refuse(at.place, message, "the code of a region, not its name");
        return None;
    }
    Some(found.to_owned())
}

/// `Err(())`: there is one, and it is none.
fn endpoint(reader: &mut Reader<'_>, node: &Node) -> Result<Option<Url>, ()> {
    let Some((found, at)) = text(node, "endpoint") else { return Ok(None) };
    let parsed = Url::parse(found).ok().filter(|url| {
        let plain = url.username().is_empty() && url.password().is_none();
        plain && url.query().is_none() && url.fragment().is_none() && url.host().is_some()
    });
    let Some(url) = parsed.filter(|url| url.scheme() == "https" || is_loopback(url)) else {
        let message = format!("`endpoint` is `{}`, expected an `https` URL", found.escape_debug());
        reader.refuse(
            at.place,
            message,
            "without user, query and fragment: sessions come back this way",
        );
        return Err(());
    };
    Ok(Some(url))
}

/// Plain http to this machine: whether it may be used is told when the target is made.
fn is_loopback(url: &Url) -> bool {
    let here = match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    url.scheme() == "http" && here
}

fn identity(reader: &mut Reader<'_>, node: &Node) -> AwsIdentity {
    let assertion = node.find("assertion");
    if node.find("identity").and_then(Node::text) == Some("ambient") {
        if let Some(place) = node.key_place("assertion") {
            let hint = "leave it out: with `identity: ambient` there is none";
            reader.refuse(place, "`assertion` beside `identity: ambient`", hint);
        }
        return AwsIdentity::Ambient;
    }
    let mut audience = DEFAULT_AUDIENCE;
    if let Some((found, at)) = assertion.and_then(|map| text(map, "audience")) {
        if !is_audience(found) {
            let message = format!(
                "`audience` is `{}`, expected 1 to 255 visible ASCII characters",
                found.escape_debug()
            );
            reader.refuse(
                at.place,
                message,
                "as the client id list of the IAM OIDC provider has it",
            );
        }
        audience = found;
    }
    let named = assertion.and_then(|map| text(map, "algorithm"));
    let algorithm = named.and_then(|(found, _)| found.parse().ok()).unwrap_or(Algorithm::ES256);
    AwsIdentity::WebIdentity { audience: audience.to_owned(), algorithm }
}

fn role(reader: &mut Reader<'_>, node: &Node, ambient: bool) -> Option<AwsRoleConfig> {
    let (arn, at) = text(node, "role_arn")?;
    if !is_role_arn(arn) {
        let message = format!(
            "`role_arn` is `{}`, expected `arn:aws:iam::<account>:role/<name>`",
            arn.escape_debug()
        );
        reader.refuse(
            at.place,
            message,
            "the account has 12 digits; `aws iam get-role` tells the ARN",
        );
    }
    let tags = tags(reader, node);
    let mut transitive_tags = BTreeSet::new();
    for (tag, at) in texts(node, "transitive_tags") {
        if !tags.contains_key(tag) {
            let message = format!(
                "`transitive_tags` names `{}`, which is none of `tags`",
                tag.escape_debug()
            );
            reader.refuse(at.place, message, "only a tag that the session has can stay");
        }
        transitive_tags.insert(tag.to_owned());
    }
    let most = if ambient { AMBIENT_CEILING } else { CEILING };
    let why =
        "AWS gives sessions of 15 minutes to 12 hours, with `identity: ambient` of at most one";
    let duration = node
        .find("duration")
        .map(|_| reader.duration(Some(node), "duration", most, FLOOR..=most, why));
    Some(AwsRoleConfig {
        arn: arn.to_owned(),
        duration,
        session_policy: narrowing(reader, node),
        policy_arns: policy_arns(reader, node),
        external_id: external_id(reader, node, ambient),
        tags,
        transitive_tags,
        source_identity: text(node, "source_identity").map(|(from, at)| source(reader, from, at)),
        session_name: texts(node, "session_name")
            .into_iter()
            .map(|(from, at)| source(reader, from, at))
            .collect(),
    })
}

fn narrowing(reader: &mut Reader<'_>, node: &Node) -> Option<SessionPolicy> {
    let file = reader.path(node, "session_policy_file", Need::File);
    let Some((inline, at)) = text(node, "session_policy") else {
        return file.map(SessionPolicy::File);
    };
    if file.is_some() {
        reader.refuse(
            at.place,
            "`session_policy` beside `session_policy_file`",
            "keep one of the two",
        );
    }
    if let Err(reason) = session_policy(inline) {
        let hint = "one JSON object of the IAM policy language: in YAML write it after `|`";
        reader.refuse(at.place, format!("`session_policy` is none: {reason}"), hint);
    }
    Some(SessionPolicy::Inline(inline.to_owned()))
}

fn policy_arns(reader: &mut Reader<'_>, node: &Node) -> Vec<String> {
    let found = texts(node, "policy_arns");
    for (arn, at) in &found {
        if !is_policy_arn(arn) {
            let message = format!(
                "`policy_arns` names `{}`, expected `arn:aws:iam::aws:policy/<name>` or one of an account",
                arn.escape_debug()
            );
            reader.refuse(at.place, message, "the ARN of a managed policy");
        }
    }
    if found.len() > 10
        && let Some(place) = node.key_place("policy_arns")
    {
        reader.refuse(
            place,
            format!("`policy_arns` has {} elements, expected at most 10", found.len()),
            "AWS takes no more",
        );
    }
    found.into_iter().map(|(arn, _)| arn.to_owned()).collect()
}

/// `[\w+=,.@:\/-]`, 2 to 1224 (AWS STS API reference, `ExternalId`).
fn external_id(reader: &mut Reader<'_>, node: &Node, ambient: bool) -> Option<String> {
    let (found, at) = text(node, "external_id")?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@:/-".contains(&byte);
    if !(2..=1_224).contains(&found.len()) || !found.bytes().all(fits) {
        let message = "`external_id` has a character or a length that AWS does not take";
        reader.refuse(at.place, message, "2 to 1224 letters, digits and `_+=,.@:/-`");
    }
    if !ambient {
        let hint = "leave it out: `AssumeRoleWithWebIdentity` takes none, the trust policy names our issuer";
        reader.refuse(at.place, "`external_id` without `identity: ambient`", hint);
    }
    Some(found.to_owned())
}

fn tags(reader: &mut Reader<'_>, node: &Node) -> BTreeMap<String, String> {
    let mut tags = BTreeMap::new();
    let mut folded = BTreeSet::new();
    for (key, place, from) in node.find("tags").map(Node::entries).unwrap_or_default() {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b" _.:/=+-@".contains(&byte);
        let reserved = key.to_ascii_lowercase().starts_with("aws:");
        if key.is_empty()
            || key.len() > 128
            || !key.bytes().all(fits)
            || key.trim() != key
            || reserved
        {
            let message = format!("tag `{}` has a name that AWS does not take", key.escape_debug());
            reader.refuse(
                *place,
                message,
                "1 to 128 letters, digits, spaces and `_.:/=+-@`, not beginning with `aws:`",
            );
        }
        if !folded.insert(key.to_ascii_lowercase()) {
            let message = format!("tag `{}` differs from another only in case", key.escape_debug());
            reader.refuse(*place, message, "AWS takes the two for one");
        }
        if let Some(found) = from.text() {
            tags.insert(key.clone(), source(reader, found, from));
        }
    }
    if tags.len() > MOST_TAGS
        && let Some(place) = node.key_place("tags")
    {
        reader.refuse(
            place,
            format!("`tags` has {} entries, expected at most 50", tags.len()),
            "AWS takes no more",
        );
    }
    tags
}

fn source(reader: &mut Reader<'_>, from: &str, at: &Node) -> String {
    let unknown = from.starts_with("cambio.") && !OF_OURS.contains(&from);
    if unknown || from == "/" {
        let message = format!("`{}` is no claim and nothing of ours", from.escape_debug());
        reader.refuse(at.place, message, "a claim of the subject, a JSON Pointer, `cambio.rule`, `cambio.subject` or `cambio.exchange`");
    }
    from.to_owned()
}

/// `arn:aws:iam::<account>:role/<name>`, of any partition.
pub(super) fn is_role_arn(text: &str) -> bool {
    is_arn(text, "role/", false)
}

fn is_arn(text: &str, resource: &str, of_aws: bool) -> bool {
    let mut parts = text.splitn(6, ':');
    let mut next = || parts.next().unwrap_or_default();
    let (arn, partition, service, region, account, rest) =
        (next(), next(), next(), next(), next(), next());
    let digits = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    let name = rest.strip_prefix(resource).unwrap_or_default();
    text.len() <= 2_048
        && arn == "arn"
        && ["aws", "aws-cn", "aws-us-gov", "aws-eusc", "aws-iso", "aws-iso-b"].contains(&partition)
        && service == "iam"
        && region.is_empty()
        && (digits || (of_aws && account == "aws"))
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+=,.@/-".contains(&byte))
}

/// For messages about what is too long for its role.
pub(super) fn check_durations(
    reader: &mut Reader<'_>,
    node: &Node,
    config: &AwsConfig,
    floor: Duration,
) {
    for (name, place, _) in node.find("roles").map(Node::entries).unwrap_or_default() {
        let role = config.roles.get(&RoleName::from(name.as_str()));
        if let Some(duration) =
            role.and_then(|role| role.duration).filter(|found| (FLOOR..floor).contains(found))
        {
            refuse_duration(reader, *place, name, duration, floor);
        }
    }
}

fn refuse_duration(
    reader: &mut Reader<'_>,
    place: Place,
    name: &str,
    duration: Duration,
    floor: Duration,
) {
    let message = format!(
        "`duration` of role `{name}` is `{}`, below the `floor` of `{}`",
        length(duration),
        length(floor)
    );
    reader.refuse(place, message, "no session is left: lower the floor or raise the duration");
}
