//! Targets of kind `azure`: access tokens of Entra.

use std::{collections::BTreeMap, time::Duration};

use url::Url;

use super::{
    ALIASES, ENVIRONMENT, GRANTED_BY, NAME,
    cloud::{self, AT_ONCE, CA_FILE, CloudConfig, PRIVATE, is_uuid},
};
use crate::{
    config::reader::Reader,
    grant::RoleName,
    yaml::{Field, Fields, Node, Shape},
};

/// What only a target at Entra has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AzureConfig {
    /// The directory's id.
    pub tenant: String,
    /// The `aud` of our assertions.
    pub audience: String,
    /// Each role's application.
    pub roles: BTreeMap<RoleName, AzureRoleConfig>,
    /// How long its tokens live at most.
    pub lives: Duration,
    /// Where tokens are had.
    pub authority: Url,
    /// How it is reached.
    pub cloud: CloudConfig,
}

/// A role at Entra: an application, and what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AzureRoleConfig {
    /// The application's id.
    pub client_id: String,
    /// The `subject` of its federated credential.
    pub subject: String,
    /// `<resource>/.default`.
    pub scope: String,
}

/// Entra draws 60 to 90 minutes where no token lifetime policy says otherwise.
const USUAL: Duration = Duration::from_mins(90);
/// By convention, and the default of every tool that makes federated credentials.
const AUDIENCE: &str = "api://AzureADTokenExchange";

static ROLE: Fields = Fields {
    what: "a role at Entra",
    fields: &[
        Field::required("client_id", "The application (or user-assigned identity)", Shape::Text),
        Field::required(
            "subject",
            "The `subject` of its federated credential, byte for byte; each application has its own",
            Shape::Text,
        ),
        Field::required(
            "scope",
            "What its tokens are for: `<resource>/.default`, such as `https://management.azure.com/.default`",
            Shape::Text,
        ),
    ],
};

static ROLE_SHAPE: Shape = Shape::Map(&ROLE);

pub(super) static AZURE: Fields = Fields {
    what: "a target of kind `azure`",
    fields: &[
        NAME,
        Field::required("kind", "Access tokens of Entra", Shape::Text),
        Field::required("tenant", "The directory's id, a UUID: names can change", Shape::Text),
        ALIASES,
        ENVIRONMENT,
        Field::required(
            "roles",
            "Its powers by name; a name is also the `scope` that a caller asks for",
            Shape::Table { value: &ROLE_SHAPE, reserved: &[], least: 1 },
        ),
        GRANTED_BY,
        Field::optional(
            "lives",
            "How long its tokens live at most, as the tenant's token lifetime policy says; rules must say the same. Default: `90m`",
            Shape::Duration,
        ),
        Field::optional(
            "audience",
            "The `aud` of our assertions. Default: `api://AzureADTokenExchange`",
            Shape::Text,
        ),
        Field::optional(
            "authority",
            "Where tokens are had. Default: `https://login.microsoftonline.com`",
            Shape::Text,
        ),
        CA_FILE,
        PRIVATE,
        AT_ONCE,
    ],
};

pub(super) fn read(reader: &mut Reader<'_>, node: &Node) -> Option<AzureConfig> {
    let tenant = cloud::fitting(reader, node, "tenant", is_uuid, "the directory's id, a UUID");
    let mut roles: BTreeMap<RoleName, AzureRoleConfig> = BTreeMap::new();
    for (name, place, node) in node.find("roles").map(Node::entries).unwrap_or_default() {
        let client_id = cloud::fitting(reader, node, "client_id", is_uuid, "a UUID");
        let subject = cloud::fitting(
            reader,
            node,
            "subject",
            is_subject,
            "1 to 600 visible ASCII characters",
        );
        let expected = "`<resource>/.default`: Entra gives a client no other";
        let scope = cloud::fitting(reader, node, "scope", is_scope, expected);
        let (Some(client_id), Some(subject), Some(scope)) = (client_id, subject, scope) else {
            continue;
        };
        // A federated credential is the application's own: one that copies another's subject is a mistake of somebody.
        let shared =
            |other: &AzureRoleConfig| (other.client_id == client_id) != (other.subject == subject);
        if let Some((other, _)) = roles.iter().find(|(_, other)| shared(other)) {
            let message = format!(
                "role `{name}` shares an application or a subject with `{other}`, expected both or neither"
            );
            reader.refuse(*place, message, "give each application one subject of its own");
        }
        let role = AzureRoleConfig { client_id, subject, scope };
        roles.insert(RoleName::from(name.as_str()), role);
    }
    let lives = reader.duration(
        Some(node),
        "lives",
        USUAL,
        Duration::from_mins(10)..=Duration::from_hours(24),
        "a token lifetime policy gives from ten minutes to a day",
    );
    let audience = cloud::fitting(reader, node, "audience", is_subject, "an audience");
    let authority = cloud::url(reader, node, "authority", "https://login.microsoftonline.com");
    let cloud = cloud::read(reader, node);
    Some(AzureConfig {
        tenant: tenant?,
        audience: audience.unwrap_or_else(|| AUDIENCE.to_owned()),
        roles,
        lives,
        authority: authority?,
        cloud,
    })
}

fn is_subject(text: &str) -> bool {
    text.len() <= 600 && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn is_scope(text: &str) -> bool {
    let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
    visible
        && text.len() <= 600
        && text.strip_suffix("/.default").is_some_and(|left| !left.is_empty())
}
