//! Targets that get client certificates of a CA of ours: kind `x509`.

use std::{collections::BTreeMap, time::Duration};

use super::{ALIASES, CEILING, ENVIRONMENT, FLOOR, GRANTED_BY, NAME};
use crate::{
    config::reader::{Reader, text, texts},
    grant::RoleName,
    holder::{CertificateNames, CommonName, DnsName, NotAName, SpiffeId, UriName},
    yaml::{Field, Fields, Node, Shape},
};

/// What only a target with certificates has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct X509Config {
    /// Who a role's holder is, to the servers.
    pub names: BTreeMap<RoleName, CertificateNames>,
    /// Whether a caller must send a certificate request, so that no private key ever travels.
    pub require_csr: bool,
    /// How long one CA key signs.
    pub sign_for: Duration,
    /// How long servers may go on with a trust bundle before they fetch it anew.
    pub bundle_cache: Duration,
}

static ROLE: Fields = Fields {
    what: "a role of a target of kind `x509`",
    fields: &[
        Field::optional(
            "common_name",
            "The common name of its certificates, literally: what PostgreSQL compares with the role that logs in. 1 to 63 letters, digits, `_`, `-`, `.` and `@`",
            Shape::Text,
        ),
        Field::optional(
            "spiffe_id",
            "The SPIFFE ID of its certificates: `spiffe://prod.example/github/{repository_id}`. A segment is literal or one whole claim; characters that a segment can't have become `-`, and then a hash of the claim is added",
            Shape::Text,
        ),
        Field::optional("dns", "DNS names, literally", Shape::List(&Shape::Text, 0)),
        Field::optional(
            "uri",
            "Other URIs, literally. Not beside `spiffe_id`: an SVID has one URI",
            Shape::List(&Shape::Text, 0),
        ),
    ],
};

static ROLE_SHAPE: Shape = Shape::Map(&ROLE);

pub(super) static X509: Fields = Fields {
    what: "a target of kind `x509`",
    fields: &[
        NAME,
        Field::required(
            "kind",
            "Client certificates of a CA that is this target's own: PostgreSQL `cert` logins, mTLS",
            Shape::Text,
        ),
        ALIASES,
        ENVIRONMENT,
        Field::required(
            "roles",
            "Its powers by name, with the names that their certificates carry: at least one each",
            Shape::Table { value: &ROLE_SHAPE, reserved: &[], least: 1 },
        ),
        GRANTED_BY,
        Field::optional(
            "require_csr",
            "`true`: callers must send a certificate request, and no private key is ever made here. Default: a caller without one gets its key with the certificate",
            Shape::True,
        ),
        Field::optional(
            "sign_for",
            "How long one CA key signs before the next. From `1h` to `365d`; default: `90d`",
            Shape::Duration,
        ),
        Field::optional(
            "bundle_cache",
            "How long servers may go on with a trust bundle before they fetch it anew: a new CA is published for at least so long before it signs. From `1m` to `90d`; default: `7d`",
            Shape::Duration,
        ),
        CEILING,
        FLOOR,
    ],
};

pub(super) fn read(reader: &mut Reader<'_>, node: &Node) -> X509Config {
    let day = Duration::from_hours(24);
    let names = names(reader, node);
    let sign_for = reader.duration(
        Some(node),
        "sign_for",
        day.saturating_mul(90),
        Duration::from_hours(1)..=day.saturating_mul(365),
        "rotate often enough to be sure that every server fetches its bundle",
    );
    let bundle_cache = reader.duration(
        Some(node),
        "bundle_cache",
        day.saturating_mul(7),
        Duration::from_mins(1)..=day.saturating_mul(90),
        "fetch the bundle every day or so, and leave room for a failed run",
    );
    let require_csr = node.find("require_csr").is_some();
    X509Config { names, require_csr, sign_for, bundle_cache }
}

fn names(reader: &mut Reader<'_>, node: &Node) -> BTreeMap<RoleName, CertificateNames> {
    let mut roles = BTreeMap::new();
    for (name, place, role) in node.find("roles").map(Node::entries).unwrap_or_default() {
        let mut names = CertificateNames::default();
        if let Some(found) = text(role, "common_name") {
            names.common_name = literal(reader, "common_name", found, CommonName::parse);
        }
        if let Some(found) = text(role, "spiffe_id") {
            names.spiffe_id = literal(reader, "spiffe_id", found, SpiffeId::parse);
        }
        for found in texts(role, "dns") {
            names.dns.extend(literal(reader, "dns", found, DnsName::parse));
        }
        for found in texts(role, "uri") {
            names.uri.extend(literal(reader, "uri", found, UriName::parse));
        }
        let said = ["common_name", "spiffe_id", "dns", "uri"].map(|key| role.find(key).is_some());
        // INVARIANT(closed-by-absence): a certificate without a name would be anybody's.
        if !said.contains(&true) || (names.is_empty() && role.find("dns").is_some()) {
            let message = format!("role `{}` gives its certificates no name", name.escape_debug());
            reader.refuse(*place, message, "`common_name` for PostgreSQL, `spiffe_id` for mTLS");
        }
        if role.find("spiffe_id").is_some()
            && let Some(place) = role.key_place("uri")
        {
            reader.refuse(
                place,
                "`uri` beside `spiffe_id`",
                "an SVID has exactly one URI (X509-SVID section 2): leave `uri` out",
            );
        }
        roles.insert(RoleName::from(name.as_str()), names);
    }
    roles
}

fn literal<T>(
    reader: &mut Reader<'_>,
    key: &str,
    (found, at): (&str, &Node),
    parse: impl Fn(&str) -> Result<T, NotAName>,
) -> Option<T> {
    match parse(found) {
        Ok(name) => Some(name),
        Err(error) => {
            let hint = "names come from here, and from a claim only in a segment of `spiffe_id`";
            reader.refuse(at.place, format!("`{key}`: {error}"), hint);
            None
        }
    }
}
