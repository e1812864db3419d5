//! Targets of kind `google`: access tokens of Google Cloud.

use std::{collections::BTreeMap, time::Duration};

use url::Url;

use super::{
    ALIASES, CEILING, ENVIRONMENT, FLOOR, GRANTED_BY, NAME,
    cloud::{self, AT_ONCE, CA_FILE, CloudConfig, PRIVATE},
};
use crate::{
    config::reader::{Reader, texts},
    grant::RoleName,
    subject::Algorithm,
    target::Role,
    yaml::{Field, Fields, Node, Shape},
};

/// What only a target at Google has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoogleConfig {
    /// `//iam.googleapis.com/projects/…/workloadIdentityPools/…/providers/…`.
    pub provider: String,
    /// What signs our assertions.
    pub algorithm: Algorithm,
    /// Each role's account and scopes.
    pub roles: BTreeMap<RoleName, GoogleRoleConfig>,
    /// Google's STS.
    pub sts: Url,
    /// Google's service account credentials API.
    pub iam_credentials: Url,
    /// How both are reached.
    pub cloud: CloudConfig,
}

/// A role at Google.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoogleRoleConfig {
    /// The account to act as.
    pub service_account: Option<String>,
    /// The OAuth scopes of its tokens.
    pub scopes: Vec<String>,
}

impl GoogleConfig {
    /// Whether tokens are those of service accounts: then their lifetime can be chosen.
    #[must_use]
    pub fn impersonates(&self) -> bool {
        self.roles.values().all(|role| role.service_account.is_some())
    }

    /// A caller may ask for some of a role's scopes.
    pub(super) fn scope(&self, roles: &mut BTreeMap<RoleName, Role>) {
        for (name, role) in roles {
            let scopes = self.roles.get(name).map(|role| role.scopes.iter().cloned());
            role.scope.extend(scopes.into_iter().flatten());
        }
    }
}

/// The longest that an organisation's policy can allow (`iam.allowServiceAccountCredentialLifetimeExtension`).
const LONGEST: Duration = Duration::from_hours(12);

static ROLE: Fields = Fields {
    what: "a role at Google",
    fields: &[
        Field::optional(
            "service_account",
            "The service account to act as, by its email address. Default: the federated token itself; a target has roles of one sort alone",
            Shape::Text,
        ),
        Field::required(
            "scopes",
            "OAuth scopes of its tokens; a caller may ask for some of them",
            Shape::List(&Shape::Text, 1),
        ),
    ],
};

static ROLE_SHAPE: Shape = Shape::Map(&ROLE);

pub(super) static GOOGLE: Fields = Fields {
    what: "a target of kind `google`",
    fields: &[
        NAME,
        Field::required("kind", "Access tokens of Google Cloud", Shape::Text),
        Field::required(
            "provider",
            "The workload identity pool's provider: `//iam.googleapis.com/projects/<number>/locations/global/workloadIdentityPools/<pool>/providers/<provider>`",
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
        Field::optional(
            "algorithm",
            "What signs our assertions. Default: `ES256`",
            Shape::Choice(&[("ES256", "ECDSA on P-256"), ("RS256", "RSASSA-PKCS1-v1_5")]),
        ),
        CEILING,
        FLOOR,
        Field::optional("sts", "Google's STS. Default: `https://sts.googleapis.com`", Shape::Text),
        Field::optional(
            "iam_credentials",
            "Google's service account credentials API. Default: `https://iamcredentials.googleapis.com`",
            Shape::Text,
        ),
        CA_FILE,
        PRIVATE,
        AT_ONCE,
    ],
};

pub(super) fn read(
    reader: &mut Reader<'_>,
    node: &Node,
    ceiling: Duration,
) -> Option<GoogleConfig> {
    let provider = cloud::fitting(
        reader,
        node,
        "provider",
        is_provider,
        "`//iam.googleapis.com/projects/<number>/locations/global/workloadIdentityPools/<pool>/providers/<provider>`",
    );
    let mut roles = BTreeMap::new();
    for (name, _, role) in node.find("roles").map(Node::entries).unwrap_or_default() {
        let expected = "the email address of a service account";
        let service_account =
            cloud::fitting(reader, role, "service_account", is_service_account, expected);
        let scopes = texts(role, "scopes").into_iter().map(|(scope, _)| scope.to_owned());
        let scopes = scopes.collect();
        for (scope, at) in texts(role, "scopes") {
            if !scope.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\') {
                let message = format!("`{}` is no scope", scope.escape_debug());
                reader.refuse(
                    at.place,
                    message,
                    "https://developers.google.com/identity/protocols/oauth2/scopes",
                );
            }
        }
        let role = GoogleRoleConfig { service_account, scopes };
        roles.insert(RoleName::from(name.as_str()), role);
    }
    let algorithm = match node.find("algorithm").and_then(Node::text) {
        Some("RS256") => Algorithm::RS256,
        _ => Algorithm::ES256,
    };
    let sts = cloud::url(reader, node, "sts", "https://sts.googleapis.com");
    let api = "https://iamcredentials.googleapis.com";
    let iam_credentials = cloud::url(reader, node, "iam_credentials", api);
    let cloud = cloud::read(reader, node);
    let config = GoogleConfig {
        provider: provider?,
        algorithm,
        roles,
        sts: sts?,
        iam_credentials: iam_credentials?,
        cloud,
    };
    lifetimes(reader, node, &config, ceiling);
    Some(config)
}

/// INVARIANT(honest-expiry): a federated token lives for as long as Google says, and the two sorts end differently.
fn lifetimes(reader: &mut Reader<'_>, node: &Node, config: &GoogleConfig, ceiling: Duration) {
    let mixed = config.roles.values().any(|role| role.service_account.is_some());
    if config.impersonates() {
        if ceiling > LONGEST {
            let place = node.find("ceiling").map_or(node.place, |at| at.place);
            let message = "`ceiling` is above the `12h` that Google can keep";
            reader.refuse(place, message, "above `1h` an organisation policy must allow it");
        }
        return;
    }
    if mixed {
        let message = "some roles have a `service_account` and some have none";
        let hint = "their tokens end differently: make two targets";
        reader.refuse(node.find("roles").map_or(node.place, |at| at.place), message, hint);
    }
    for key in ["ceiling", "floor"] {
        if let Some(place) = node.key_place(key) {
            let message = format!("`{key}` at a target without service accounts");
            let hint = "leave it out: a federated token lives for `1h`, and rules must say so";
            reader.refuse(place, message, hint);
        }
    }
}

fn is_provider(text: &str) -> bool {
    let parts: Vec<&str> = text.split('/').collect();
    let [
        "",
        "",
        "iam.googleapis.com",
        "projects",
        number,
        "locations",
        "global",
        "workloadIdentityPools",
        pool,
        "providers",
        provider,
    ] = parts.as_slice()
    else {
        return false;
    };
    let id = |text: &str| {
        !text.is_empty()
            && text.len() <= 32
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) && id(pool) && id(provider)
}

fn is_service_account(text: &str) -> bool {
    let fits = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
    };
    text.split_once('@').is_some_and(|(name, domain)| {
        fits(name) && fits(domain) && domain.ends_with(".gserviceaccount.com")
    })
}
