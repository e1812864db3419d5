//! `keys` of an issuer: where they come from.

use std::{path::PathBuf, time::Duration};

use url::Url;

use super::parse_url;
use crate::{
    config::{
        files::Need,
        reader::{Reader, text},
    },
    subject::provider::UrlShape,
    yaml::{Field, Fields, Node, Shape},
};

/// Where an issuer's keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeysFrom {
    /// OIDC discovery and JWKS, over https.
    Discovered(Box<Discovered>),
    /// A JWK Set file of public keys.
    Pinned {
        /// The file.
        file: PathBuf,
    },
}

/// How to fetch keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovered {
    /// The key set itself; discovery is then not asked at all.
    pub jwks_uri: Option<Url>,
    /// The one other origin that a discovered `jwks_uri` may be on (threat D03).
    pub jwks_origin: Option<Url>,
    /// Certificates (PEM) to trust in place of the public ones.
    pub ca_file: Option<PathBuf>,
    /// A bearer token to fetch with, read anew for each fetch.
    pub bearer_token_file: Option<PathBuf>,
    /// Whether this issuer's host, and no other, may resolve to private addresses (threat D06).
    pub private: bool,
    /// How old the newest good set may be; then nothing is found.
    pub stale_after: Duration,
}

const DEFAULT_STALE_AFTER: Duration = Duration::from_hours(1);

static DISCOVERED: Fields = Fields {
    what: "discovered keys",
    fields: &[
        Field::optional(
            "jwks_uri",
            "The key set itself, https; discovery is then not asked. Default: what discovery at `issuer` names, or the place that the provider is known for",
            Shape::Text,
        ),
        Field::optional(
            "jwks_origin",
            "The one other origin (https, host, port) that a discovered key set may be on. Default: the issuer's own alone; for google `https://www.googleapis.com`",
            Shape::Text,
        ),
        Field::optional(
            "ca_file",
            "Certificates (PEM) to trust in place of the public ones",
            Shape::Text,
        ),
        Field::optional(
            "bearer_token_file",
            "A token to fetch with, read anew for each fetch; an API server may ask for one",
            Shape::Secret,
        ),
        Field::optional(
            "private",
            "Whether this issuer's host, and no other, may resolve to private addresses. Default: `false`",
            Shape::Boolean,
        ),
        Field::optional(
            "stale_after",
            "How old the newest good key set may be; after that nothing of the issuer verifies. From `5m` to `24h`; default: `1h`",
            Shape::Duration,
        ),
    ],
};

static PINNED: Fields = Fields {
    what: "pinned keys",
    fields: &[Field::required(
        "file",
        "A JWK Set of public keys (RFC 7517 section 5)",
        Shape::Text,
    )],
};

pub(super) static KEYS: Fields = Fields {
    what: "an issuer's keys",
    fields: &[
        Field::optional(
            "discovered",
            "Fetched from the issuer and kept fresh",
            Shape::Map(&DISCOVERED),
        ),
        Field::optional("pinned", "From a file, for issuers out of reach", Shape::Map(&PINNED)),
    ],
};

/// `known` is where the keys of such an issuer are, if elsewhere than discovery on its own origin says.
pub(super) fn read(
    reader: &mut Reader<'_>,
    node: &Node,
    known: Option<&'static UrlShape>,
) -> Option<KeysFrom> {
    let place = |text: Option<&str>| text.and_then(|text| Url::parse(text).ok());
    let absent = Discovered {
        jwks_uri: place(known.and_then(|known| known.jwks_uri)),
        jwks_origin: place(known.and_then(|known| known.jwks_origin)),
        ca_file: None,
        bearer_token_file: None,
        private: false,
        stale_after: DEFAULT_STALE_AFTER,
    };
    let Some(keys) = node.find("keys") else { return Some(KeysFrom::Discovered(Box::new(absent))) };
    match (keys.find("discovered"), keys.find("pinned")) {
        (Some(map), None) => {
            let mut found = discovered(reader, map);
            if found.jwks_uri.is_none() && found.jwks_origin.is_none() {
                found.jwks_uri = absent.jwks_uri;
                found.jwks_origin = absent.jwks_origin;
            }
            Some(KeysFrom::Discovered(Box::new(found)))
        }
        (None, Some(map)) => {
            reader.path(map, "file", Need::File).map(|file| KeysFrom::Pinned { file })
        }
        (None, None) => {
            reader.refuse(
                keys.place,
                "`keys` has neither `discovered` nor `pinned`",
                "leave `keys` out for plain discovery",
            );
            None
        }
        (Some(_), Some(_)) => {
            reader.refuse(
                keys.place,
                "`keys` has both `discovered` and `pinned`, expected one of them",
                "pinned keys are for issuers out of reach",
            );
            None
        }
    }
}

fn discovered(reader: &mut Reader<'_>, map: &Node) -> Discovered {
    let jwks_uri = https(reader, map, "jwks_uri");
    let jwks_origin = https(reader, map, "jwks_origin");
    if let (Some(_), Some(origin)) = (&jwks_uri, &jwks_origin)
        && let Some(at) = map.find("jwks_origin")
    {
        let message = format!("`jwks_origin` is `{origin}` beside a `jwks_uri`");
        reader.refuse(at.place, message, "remove it: with a `jwks_uri`, discovery is not asked");
    }
    if let Some(origin) = &jwks_origin
        && origin.path() != "/"
        && let Some(at) = map.find("jwks_origin")
    {
        reader.refuse(
            at.place,
            format!("`jwks_origin` is `{origin}`, expected no path"),
            "scheme, host and port alone",
        );
    }
    Discovered {
        jwks_uri,
        jwks_origin,
        ca_file: reader.path(map, "ca_file", Need::File),
        bearer_token_file: reader.path(map, "bearer_token_file", Need::PlatformToken),
        private: map.find("private").and_then(Node::boolean).unwrap_or(false),
        stale_after: reader.duration(
            Some(map),
            "stale_after",
            DEFAULT_STALE_AFTER,
            Duration::from_mins(5)..=Duration::from_hours(24),
            "a withdrawn key of the issuer verifies here for as long as it can't be reached",
        ),
    }
}

/// The https URL under `key`. It has the rules of an issuer, so that no password can hide in it.
pub(super) fn https(reader: &mut Reader<'_>, map: &Node, key: &str) -> Option<Url> {
    let (found, at) = text(map, key)?;
    let url = parse_url(reader, at, key, found, "https, host, path: no userinfo, no query")?;
    Url::parse(url.as_str()).ok()
}
