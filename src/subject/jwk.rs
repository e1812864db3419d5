//! JSON Web Key Sets (RFC 7517) read by a sceptic: every key that is not plainly fit to verify is left out, by name and
//! reason; a set without one fit key is an error.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use serde_json::Value;
use thiserror::Error;

use super::{
    Claims, KeySourceError,
    json::{Limits, parse_object},
};

mod curve25519;
mod key;
mod rsa;

pub use key::{Unusable, VerificationKey};

/// The most keys a set may list (threat D08). More is refused whole: nobody needs them.
pub const MAXIMUM_KEYS: usize = 64;

/// The keys of one issuer that may verify, and the ones that may not.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    keys: Vec<Arc<VerificationKey>>,
    ignored: Vec<IgnoredKey>,
}

/// A listed key that is not used, for the operator's eyes: log, `cambio doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IgnoredKey {
    /// Which entry of `keys`, counted from 0.
    pub position: usize,
    /// Its `kid`, where it has one that is text of at most 256 bytes.
    pub kid: Option<String>,
    /// What is wrong with it.
    pub reason: Unusable,
}

impl fmt::Display for IgnoredKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kid {
            Some(kid) => write!(f, "key `{}`: {}", kid.escape_debug(), self.reason),
            None => write!(f, "key at position {}: {}", self.position, self.reason),
        }
    }
}

/// Why a document is not a key set that can verify anything.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum KeySetError {
    /// Not strict JSON, or beyond its limits.
    #[error("key set is not acceptable JSON: {0}")]
    Json(String),
    /// `keys` is absent or not a list (RFC 7517 section 5.1).
    #[error("key set has no list `keys`")]
    NoKeys,
    /// Too long a list.
    #[error("key set lists {found} keys, expected at most {MAXIMUM_KEYS}")]
    TooMany {
        /// How many.
        found: usize,
    },
    /// Nothing in it can verify.
    #[error("key set has no usable key{}", listed(.ignored))]
    NoneUsable {
        /// Why each of them is not.
        ignored: Vec<IgnoredKey>,
    },
}

fn listed(ignored: &[IgnoredKey]) -> String {
    ignored.iter().fold(String::new(), |text, key| text + "; " + &key.to_string())
}

impl KeySet {
    /// Reads a JWKS document. Keys are parsed all or none: a caller that swaps sets can't end up with half of one
    /// (threat D11).
    ///
    /// # Errors
    /// The document is not a key set, or holds no usable key.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeySetError> {
        let document = parse_object(bytes, &Limits::JWKS)
            .map_err(|error| KeySetError::Json(error.to_string()))?;
        let Some(Value::Array(entries)) = document.get("keys") else {
            return Err(KeySetError::NoKeys);
        };
        if entries.len() > MAXIMUM_KEYS {
            return Err(KeySetError::TooMany { found: entries.len() });
        }
        let ambiguous = ambiguous_kids(entries);
        let mut set = Self::default();
        for (position, entry) in entries.iter().enumerate() {
            match read(entry, &ambiguous) {
                Ok(key) => set.keys.push(Arc::new(key)),
                Err(reason) => {
                    set.ignored.push(IgnoredKey { position, kid: kid_of(entry), reason });
                }
            }
        }
        if set.keys.is_empty() {
            return Err(KeySetError::NoneUsable { ignored: set.ignored });
        }
        Ok(set)
    }

    /// The keys that may have made a signature under `kid`: the one of that name, or all usable ones where the token names
    /// none. `kid` is compared byte for byte and is never a path, a URL or a query (threat J20).
    ///
    /// # Errors
    /// [`KeySourceError::NoSuchKey`], saying whether the set lists the key as unusable.
    pub fn find(&self, kid: Option<&str>) -> Result<Vec<Arc<VerificationKey>>, KeySourceError> {
        let Some(wanted) = kid else { return Ok(self.keys.clone()) };
        let found: Vec<_> =
            self.keys.iter().filter(|key| key.kid() == Some(wanted)).cloned().collect();
        if found.is_empty() {
            return Err(self.missing(wanted));
        }
        Ok(found)
    }

    /// The usable keys.
    #[must_use]
    pub fn keys(&self) -> &[Arc<VerificationKey>] {
        &self.keys
    }

    /// The listed keys that are not used, and why (threats J02, J14, J16, J17: reported, not silently dropped).
    #[must_use]
    pub fn ignored(&self) -> &[IgnoredKey] {
        &self.ignored
    }

    /// `kid` → RFC 7638 thumbprints: what tells a changed key under an old name (threat D13).
    #[must_use]
    pub fn thumbprints(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut by_kid: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for key in &self.keys {
            by_kid.entry(key.kid().unwrap_or_default()).or_default().insert(key.thumbprint());
        }
        by_kid
    }

    fn missing(&self, wanted: &str) -> KeySourceError {
        let unusable = self.ignored.iter().find(|key| key.kid.as_deref() == Some(wanted));
        let reason = unusable.map_or_else(
            || format!("the set has {} usable keys, none of that name", self.keys.len()),
            |key| format!("it is listed, but {}", key.reason),
        );
        KeySourceError::NoSuchKey { kid: wanted.chars().take(64).collect(), reason }
    }
}

/// Names that more than one entry claims, usable or not (threat J17): "first wins" would let a second publisher of the set
/// choose which key a name means, and a symmetric key beside an asymmetric one is the classic confusion (J02).
fn ambiguous_kids(entries: &[Value]) -> BTreeSet<&str> {
    let mut seen = BTreeSet::new();
    let named = entries.iter().filter_map(|entry| entry.get("kid").and_then(Value::as_str));
    named.filter(|kid| !seen.insert(*kid)).collect()
}

fn read(entry: &Value, ambiguous: &BTreeSet<&str>) -> Result<VerificationKey, Unusable> {
    let members: &Claims = entry.as_object().ok_or(Unusable::NotAnObject)?;
    let kid = members.get("kid").and_then(Value::as_str);
    if kid.is_some_and(|kid| ambiguous.contains(kid)) {
        return Err(Unusable::AmbiguousKid);
    }
    VerificationKey::read(members)
}

fn kid_of(entry: &Value) -> Option<String> {
    let kid = entry.get("kid").and_then(Value::as_str)?;
    (kid.len() <= key::MAXIMUM_KID).then(|| kid.to_owned())
}
