//! Targets that get JWTs of ours: kinds `jwt` and `cambio`.

use super::{ALIASES, CEILING, ENVIRONMENT, FLOOR, GRANTED_BY, NAME, ROLES, roles};
use crate::{
    config::reader::{Reader, is_audience, text},
    subject::{Algorithm, issuers::IssuerUrl},
    yaml::{Field, Fields, Node, Shape},
};

/// What only a target with JWTs has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtConfig {
    /// The `aud` of its tokens; `audience` and `resource` of a request may name it too.
    pub audience: String,
    /// What signs its tokens.
    pub algorithm: Algorithm,
    /// The `typ` of its tokens.
    pub token_type: JwtType,
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

const ALGORITHM: &[(&str, &str)] = &[
    ("ES256", "ECDSA on P-256"),
    ("RS256", "RSASSA-PKCS1-v1_5, where a target insists on it"),
    ("EdDSA", "Ed25519"),
];

const SIGNED_WITH: Field = Field::optional(
    "algorithm",
    "What signs its tokens. Default: `ES256`",
    Shape::Choice(ALGORITHM),
);

pub(super) static JWT: Fields = Fields {
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

pub(super) static CAMBIO: Fields = Fields {
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

pub(super) fn read(
    reader: &mut Reader<'_>,
    node: &Node,
    ours: Option<&IssuerUrl>,
) -> Option<JwtConfig> {
    let token_type = match node.find("token_type").and_then(Node::text) {
        Some("JWT") => JwtType::Jwt,
        _ => JwtType::AccessToken,
    };
    let audience = audience(reader, node, ours)?;
    Some(JwtConfig { audience, algorithm: algorithm(node), token_type })
}

pub(super) fn read_ours(node: &Node, ours: Option<&IssuerUrl>) -> Option<JwtConfig> {
    let audience = ours?.as_str().to_owned();
    Some(JwtConfig { audience, algorithm: algorithm(node), token_type: JwtType::AccessToken })
}

fn algorithm(node: &Node) -> Algorithm {
    let named = text(node, "algorithm").and_then(|(found, _)| found.parse().ok());
    named.unwrap_or(Algorithm::ES256)
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
