//! `roles` of a target: scopes, mapped claims, and the closed roles of our own API.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    config::reader::{Reader, texts},
    grant::RoleName,
    target::Role,
    yaml::{Field, Fields, Node, Place, Shape, nearest},
};

/// The powers of our own API that have no argument.
const OUR_ROLES: &[&str] = &["revoke", "explain", "ledger.read", "admin"];
const INTROSPECT: &str = "introspect:";

/// Claims that mean something to every reader of a JWT, or to a cloud: only Cambio sets them (design section 6).
const RESERVED_CLAIMS: &[&str] = &[
    "iss",
    "sub",
    "aud",
    "exp",
    "nbf",
    "iat",
    "jti",
    "client_id",
    "scope",
    "act",
    "may_act",
    "azp",
    "cnf",
    "auth_time",
    "acr",
    "amr",
    "nonce",
    "at_hash",
    "c_hash",
    "typ",
    "sid",
    "events",
    "txn",
    // What the assertions for clouds say (`mint/google`, `mint/azure`): a provider's condition tells them from others by these.
    "role",
    "exchange_id",
];
/// Beginnings of cloud-tag claims: AWS and Google read session tags and identities from these.
const RESERVED_PREFIXES: &[&str] = &[
    "https://aws.amazon.com/",
    "https://sts.amazonaws.com/",
    "google",
    "https://cloud.google.com/",
];

static ROLE: Fields = Fields {
    what: "a role",
    fields: &[
        Field::optional(
            "scope",
            "OAuth scopes that a caller may ask for besides the role's own name; the token carries the name and what was asked for",
            Shape::List(&Shape::Text, 0),
        ),
        Field::optional(
            "claims",
            "Claim of the issued token: claim of the subject (a name its provider knows, or a JSON Pointer). No registered claim and no cloud tag can be set",
            Shape::Table { value: &Shape::Text, reserved: &[], least: 0 },
        ),
    ],
};

pub(super) static ROLE_SHAPE: Shape = Shape::Map(&ROLE);

pub(super) fn read(reader: &mut Reader<'_>, node: &Node) -> BTreeMap<RoleName, Role> {
    let mut roles = BTreeMap::new();
    for (name, place, role) in node.find("roles").map(Node::entries).unwrap_or_default() {
        check_name(reader, name, *place);
        let mut scope = BTreeSet::new();
        for (found, at) in texts(role, "scope") {
            if !is_scope_token(found) {
                let message = format!("`{}` is no scope", found.escape_debug());
                reader.refuse(
                    at.place,
                    message,
                    "visible ASCII without spaces, quotes and backslashes (RFC 6749 section 3.3)",
                );
            }
            scope.insert(found.to_owned());
        }
        let claims = claims(reader, role);
        roles.insert(RoleName::from(name.as_str()), Role { scope, claims });
    }
    roles
}

pub(super) fn check_name(reader: &mut Reader<'_>, name: &str, place: Place) {
    if !is_scope_token(name) {
        let message = format!("role `{}` can't be asked for as a `scope`", name.escape_debug());
        reader.refuse(
            place,
            message,
            "visible ASCII without spaces, quotes and backslashes (RFC 6749 section 3.3)",
        );
    }
}

fn claims(reader: &mut Reader<'_>, role: &Node) -> BTreeMap<String, String> {
    let mut claims = BTreeMap::new();
    for (name, place, from) in role.find("claims").map(Node::entries).unwrap_or_default() {
        let reserved = RESERVED_CLAIMS.contains(&name.as_str())
            || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        if reserved || name.is_empty() {
            let message = format!("claim `{}` can't be mapped", name.escape_debug());
            reader.refuse(
                *place,
                message,
                "registered claims and cloud tags are set by Cambio alone: choose another name",
            );
        }
        let Some(found) = from.text() else { continue };
        if found.starts_with('/') && found.len() < 2 {
            reader.refuse(
                from.place,
                "JSON Pointer `/` names no claim",
                "write `/name` or `/outer/inner`",
            );
        }
        claims.insert(name.clone(), found.to_owned());
    }
    claims
}

/// The roles of our own API are a closed set; `introspect` is per audience, and the audience must be one that we issue
/// (`None` where not all could be read).
pub(super) fn check_ours(reader: &mut Reader<'_>, node: &Node, audiences: Option<&BTreeSet<&str>>) {
    for (name, place, role) in node.find("roles").map(Node::entries).unwrap_or_default() {
        match name.strip_prefix(INTROSPECT) {
            Some(audience) if audiences.is_some_and(|known| !known.contains(audience)) => {
                let message = format!(
                    "role `{}`: no target of kind `jwt` has this audience",
                    name.escape_debug()
                );
                reader.refuse(
                    *place,
                    message,
                    "write `introspect:` and the `audience` of a target, byte for byte",
                );
            }
            None if !OUR_ROLES.contains(&name.as_str()) => {
                let message = format!("`{}` is no role of kind `cambio`", name.escape_debug());
                let hint = match nearest(name, OUR_ROLES.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "expected `introspect:<audience>`, `revoke`, `explain`, `ledger.read` or `admin`".to_owned(),
                };
                reader.refuse(*place, message, &hint);
            }
            Some(_) | None => {}
        }
        for key in ["scope", "claims"] {
            if let Some(place) = role.key_place(key) {
                reader.refuse(
                    place,
                    format!("`{key}` in a role of kind `cambio`"),
                    "leave it out: our own API reads the role's name alone",
                );
            }
        }
    }
}

/// RFC 6749 section 3.3 `scope-token`.
fn is_scope_token(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 255
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
}
