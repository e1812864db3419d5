//! How a target at a cloud is reached: shared by the kinds `google`, `azure` and `github`.

use std::path::PathBuf;

use url::Url;

use crate::{
    config::{
        files::Need,
        reader::{Reader, number, text},
    },
    yaml::{Field, Node, Shape},
};

/// How a cloud is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudConfig {
    /// The roots that its certificate must lead to, in place of the machine's.
    pub ca_file: Option<PathBuf>,
    /// Whether its addresses may be private ones.
    pub private: bool,
    /// How many calls at once.
    pub at_once: u32,
}

pub(super) const CA_FILE: Field = Field::optional(
    "ca_file",
    "The roots that its certificate must lead to, as PEM, in place of the machine's",
    Shape::Text,
);
pub(super) const PRIVATE: Field = Field::optional(
    "private",
    "Whether its addresses may be private ones (RFC 1918 …): a private endpoint. Default: `false`",
    Shape::Boolean,
);
pub(super) const AT_ONCE: Field = Field::optional(
    "at_once",
    "How many calls at once; what comes beyond waits, and is told to come back. Default: 32",
    Shape::Integer(1, 1_024),
);

pub(super) fn read(reader: &mut Reader<'_>, node: &Node) -> CloudConfig {
    let ca_file = reader.path(node, "ca_file", Need::File);
    let private = node.find("private").and_then(Node::boolean).unwrap_or(false);
    CloudConfig { ca_file, private, at_once: number(Some(node), "at_once", 32) }
}

/// The https URL under `key`, or `default`.
pub(super) fn url(
    reader: &mut Reader<'_>,
    node: &Node,
    key: &'static str,
    default: &str,
) -> Option<Url> {
    let Some((found, at)) = text(node, key) else { return Url::parse(default).ok() };
    let plain = |url: &Url| {
        url.scheme() == "https"
            && url.host_str().is_some()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    };
    let url = Url::parse(found).ok().filter(plain);
    if url.is_none() {
        // Not repeated: it may carry a password.
        let message = format!("`{key}` is no https URL of a host and a path alone");
        reader.refuse(at.place, message, &format!("such as `{default}`, which is the default"));
    }
    url
}

/// Refuses the text under `key` unless it `fits`.
pub(super) fn fitting(
    reader: &mut Reader<'_>,
    node: &Node,
    key: &str,
    fits: fn(&str) -> bool,
    expected: &str,
) -> Option<String> {
    let (found, at) = text(node, key)?;
    if !fits(found) {
        let message = format!("`{key}` is `{}`, expected {expected}", found.escape_debug());
        reader.refuse(at.place, message, "see the page of the target kind under docs/targets/");
        return None;
    }
    Some(found.to_owned())
}

/// A UUID with its hyphens, as Entra writes ids.
pub(super) fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}
