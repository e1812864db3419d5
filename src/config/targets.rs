//! `targets`: what a workload can get, as what, for how long, and which trust policies may give it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

mod roles;

use super::reader::{Reader, is_audience, length, text, texts};
use crate::{
    grant::{RoleName, TargetName},
    subject::{Algorithm, issuers::IssuerUrl},
    target::{Expiry, Role, Target},
    yaml::{Field, Fields, Node, Place, Shape},
};

/// One target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetConfig {
    /// `jwt/orders`.
    pub name: TargetName,
    /// What it issues.
    pub kind: TargetKind,
    /// The `aud` of its tokens; `audience` and `resource` of a request may name it too.
    pub audience: String,
    /// Further URIs that name it.
    pub aliases: BTreeSet<String>,
    /// Its powers.
    pub roles: BTreeMap<RoleName, Role>,
    /// File names of the trust policies that may grant it.
    pub granted_by: BTreeSet<String>,
    /// What signs its tokens.
    pub algorithm: Algorithm,
    /// The `typ` of its tokens.
    pub token_type: JwtType,
    /// The shortest lifetime.
    pub floor: Duration,
    /// The longest lifetime.
    pub ceiling: Duration,
}

/// What a target issues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKind {
    /// Signed JWTs for a resource server.
    Jwt,
    /// Signed JWTs for our own API (design section 6).
    Cambio,
}

impl TargetKind {
    /// The word of the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Jwt => "jwt",
            Self::Cambio => "cambio",
        }
    }
}

/// The `typ` header of an issued JWT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwtType {
    /// `at+jwt` (RFC 9068 section 2.1).
    AccessToken,
    /// `JWT`, for resource servers that know no other.
    Jwt,
}

impl JwtType {
    /// The header's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AccessToken => "at+jwt",
            Self::Jwt => "JWT",
        }
    }
}

impl TargetConfig {
    /// What policy and minting know of it, in an instance of `environment`.
    #[must_use]
    pub fn target(&self, environment: &str) -> Target {
        let mut aliases = self.aliases.clone();
        if self.audience != self.name.as_str() {
            aliases.insert(self.audience.clone());
        }
        Target {
            name: self.name.clone(),
            kind: self.kind.as_str().to_owned(),
            aliases,
            environment: environment.to_owned(),
            roles: self.roles.clone(),
            granted_by: self.granted_by.clone(),
            expiry: Expiry::Exact { floor: self.floor, ceiling: self.ceiling },
        }
    }
}

const DEFAULT_CEILING: Duration = Duration::from_hours(1);
const LONGEST_CEILING: Duration = Duration::from_hours(24);
const DEFAULT_FLOOR: Duration = Duration::from_secs(1);

const ALGORITHM: &[(&str, &str)] = &[
    ("ES256", "ECDSA on P-256"),
    ("RS256", "RSASSA-PKCS1-v1_5, where a target insists on it"),
    ("EdDSA", "Ed25519"),
];

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
const ALIASES: Field = Field::optional(
    "aliases",
    "Further absolute URIs that `audience` or `resource` may name it by",
    Shape::List(&Shape::Text, 0),
);
const SIGNED_WITH: Field = Field::optional(
    "algorithm",
    "What signs its tokens. Default: `ES256`",
    Shape::Choice(ALGORITHM),
);

static JWT: Fields = Fields {
    what: "a target of kind `jwt`",
    fields: &[
        NAME,
        Field::required("kind", "Signed JWTs for a resource server", Shape::Text),
        Field::required(
            "audience",
            "The `aud` of its tokens: an absolute URI or a name, and never our own issuer URL",
            Shape::Text,
        ),
        ALIASES,
        ENVIRONMENT,
        ROLES,
        GRANTED_BY,
        SIGNED_WITH,
        Field::optional(
            "token_type",
            "The `typ` of its tokens. Default: `at+jwt`",
            Shape::Choice(&[
                ("at+jwt", "an access token (RFC 9068)"),
                ("JWT", "for resource servers that know no other"),
            ]),
        ),
        CEILING,
        FLOOR,
    ],
};

static CAMBIO: Fields = Fields {
    what: "a target of kind `cambio`",
    fields: &[
        NAME,
        Field::required(
            "kind",
            "Tokens for our own API; their `aud` is our issuer URL",
            Shape::Text,
        ),
        ALIASES,
        ENVIRONMENT,
        Field::required(
            "roles",
            "Which of `introspect:<audience of a jwt target>`, `revoke`, `explain`, `ledger.read` and `admin` can be granted",
            Shape::Table { value: &roles::ROLE_SHAPE, reserved: &[], least: 1 },
        ),
        GRANTED_BY,
        SIGNED_WITH,
        CEILING,
        FLOOR,
    ],
};

pub(super) static TARGET: Shape =
    Shape::Tagged { tag: "kind", cases: &[("jwt", &JWT), ("cambio", &CAMBIO)] };

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
    // Of all that are written down, so that one target that can't be read does not make a second problem here.
    let known = section.elements().iter().filter_map(|node| text(node, "audience"));
    let audiences: BTreeSet<&str> = known.map(|(found, _)| found).collect();
    let is_ours = |node: &Node| node.find("kind").and_then(Node::text) == Some("cambio");
    let complete =
        section.elements().iter().all(|node| node.find("audience").is_some() || is_ours(node));
    for (node, _) in targets.iter().filter(|(_, target)| target.kind == TargetKind::Cambio) {
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
    if target.audience != target.name.as_str() {
        own.push((&target.audience, place("audience")));
    }
    own.extend(texts(node, "aliases").into_iter().map(|(alias, at)| (alias, at.place)));
    for (name, place) in own {
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
    let kind = match node.find("kind").and_then(Node::text) {
        Some("jwt") => TargetKind::Jwt,
        Some("cambio") => TargetKind::Cambio,
        _ => return None,
    };
    let audience = match kind {
        TargetKind::Jwt => audience(reader, node, ours),
        TargetKind::Cambio => ours.map(|ours| ours.as_str().to_owned()),
    };
    let aliases = aliases(reader, node);
    let roles = roles::read(reader, node);
    let granted_by = granted_by(reader, node);
    let algorithm = text(node, "algorithm").and_then(|(found, _)| found.parse().ok());
    let token_type = match node.find("token_type").and_then(Node::text) {
        Some("JWT") => JwtType::Jwt,
        _ => JwtType::AccessToken,
    };
    let (floor, ceiling) = lifetimes(reader, node);
    Some(TargetConfig {
        name: text(node, "name")?.0.into(),
        kind,
        audience: audience?,
        aliases,
        roles,
        granted_by,
        algorithm: algorithm.unwrap_or(Algorithm::ES256),
        token_type,
        floor,
        ceiling,
    })
}

/// INVARIANT(honest-expiry): a JWT ends at any second between floor and ceiling, if there is one between them.
fn lifetimes(reader: &mut Reader<'_>, node: &Node) -> (Duration, Duration) {
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
    if floor > ceiling {
        let place = node.find("floor").map_or(node.place, |at| at.place);
        let message =
            format!("`floor` is `{}`, above the `ceiling` of `{}`", length(floor), length(ceiling));
        reader.refuse(place, message, "no lifetime is left: lower the floor or raise the ceiling");
    }
    (floor, ceiling)
}

fn audience(reader: &mut Reader<'_>, node: &Node, ours: Option<&IssuerUrl>) -> Option<String> {
    let (found, at) = text(node, "audience")?;
    if !is_audience(found) {
        let message = format!(
            "`audience` is `{}`, expected 1 to 255 visible ASCII characters",
            found.escape_debug()
        );
        reader.refuse(at.place, message, "write an absolute URI or a name");
        return None;
    }
    // Such a token would open our own API, past the closed roles of kind `cambio`.
    let alike = |text: &str| text.trim_end_matches('/').to_ascii_lowercase();
    if ours.is_some_and(|ours| alike(ours.as_str()) == alike(found)) {
        reader.refuse(
            at.place,
            "`audience` is our own issuer URL",
            "use a target of kind `cambio` for our own API",
        );
    }
    Some(found.to_owned())
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
