//! What a certificate says of its holder. Names come from the configuration; a claim gets into one only where a role says so,
//! as one whole segment of a SPIFFE ID, in an alphabet that can't end the segment (threats B01, H11).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write as _},
};

use aws_lc_rs::digest;
use serde_json::Value;
use thiserror::Error;

/// The most bytes of a SPIFFE ID (SPIFFE-ID section 2.3).
const LONGEST_SPIFFE_ID: usize = 2_048;
/// The most bytes of a trust domain (SPIFFE-ID section 2.1).
const LONGEST_TRUST_DOMAIN: usize = 255;
/// The most bytes that a claim may take up in a segment, with its mark.
const LONGEST_SEGMENT: usize = 128;
/// Hexadecimal characters of the mark of a mapped claim: 128 bits, so that no two values can be made to meet.
const MARK: usize = 32;
/// What mapped claims of a role are called on their way from policy to minting: no claim of a token has such a name.
const PREFIX: &str = "x509:";

/// A text that can't be a name in a certificate.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("found `{found}`, expected {expected}")]
pub struct NotAName {
    found: String,
    expected: &'static str,
}

/// A claim that a name needs is not there, or is nothing that a name can be made of.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("claim `{claim}` is needed for the SPIFFE ID: {found}")]
pub struct NoSegment {
    /// Which.
    pub claim: String,
    /// What was found; never its value.
    pub found: &'static str,
}

/// The names of everyone who gets one role of one target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateNames {
    /// The common name, which PostgreSQL compares with a role or a map.
    pub common_name: Option<CommonName>,
    /// The SPIFFE ID.
    pub spiffe_id: Option<SpiffeId>,
    /// DNS names.
    pub dns: BTreeSet<DnsName>,
    /// Other URIs.
    pub uri: BTreeSet<UriName>,
}

impl CertificateNames {
    /// Whether nobody could tell whose certificate it is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The claims that policy must hand over: what they are called there, and which of the subject.
    #[must_use]
    pub fn claims(&self) -> BTreeMap<String, String> {
        let claims = self.spiffe_id.iter().flat_map(SpiffeId::claims);
        claims.map(|claim| (format!("{PREFIX}{claim}"), claim.to_owned())).collect()
    }
}

macro_rules! literal {
    ($(#[$doc:meta])* $name:ident, $fits:expr, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// The name in `text`, as the configuration says it.
            ///
            /// # Errors
            /// It is none.
            pub fn parse(text: &str) -> Result<Self, NotAName> {
                let fits: fn(&str) -> bool = $fits;
                if fits(text) {
                    return Ok(Self(text.to_owned()));
                }
                Err(NotAName { found: text.escape_debug().to_string(), expected: $expected })
            }

            /// The name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
    };
}

literal! {
    /// A literal common name. PostgreSQL takes it for a role's name, or looks it up in `pg_ident.conf`.
    CommonName,
    |text| {
        (1..=63).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.@".contains(&byte))
    },
    "1 to 63 letters, digits, `_`, `-`, `.` and `@`: a name that no server cuts or quotes"
}
literal! {
    /// A literal DNS name, without a star: a certificate is for one holder.
    DnsName,
    |text| text.len() <= 253 && text.split('.').all(is_label),
    "a DNS name in lower case, without a star"
}
literal! {
    /// A literal URI.
    UriName,
    |text| {
        let scheme = text.split_once(':').map(|(scheme, rest)| (scheme, !rest.is_empty()));
        scheme.is_some_and(|(scheme, rest)| {
            rest && !scheme.eq_ignore_ascii_case("spiffe")
                && scheme.starts_with(|first: char| first.is_ascii_alphabetic())
                && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        }) && text.len() <= 1_024
            && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"{}\"\\<>".contains(&byte))
    },
    "an absolute URI; a SPIFFE ID is configured as `spiffe_id`, and no claim stands in any other"
}

/// A SPIFFE ID with places for claims: `spiffe://prod.example/github/{repository_id}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpiffeId {
    trust_domain: String,
    segments: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Claim(String),
}

impl SpiffeId {
    /// The SPIFFE ID in `text` (SPIFFE-ID section 2): `spiffe://`, a trust domain, one or more segments. A segment is a literal,
    /// or `{claim}`: a claim by the name that its provider knows, or by JSON Pointer.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, NotAName> {
        let refuse = |expected| NotAName { found: text.escape_debug().to_string(), expected };
        let rest = text.strip_prefix("spiffe://").ok_or_else(|| refuse("`spiffe://…`"))?;
        let (trust_domain, mut path) = rest
            .split_once('/')
            .ok_or_else(|| refuse("a path after the trust domain: the bare domain names no one"))?;
        let domain =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
        let length = 1..=LONGEST_TRUST_DOMAIN;
        if !length.contains(&trust_domain.len()) || !trust_domain.bytes().all(domain) {
            return Err(refuse("a trust domain of lower-case letters, digits, `.`, `-` and `_`"));
        }
        let mut segments = Vec::new();
        loop {
            // A JSON Pointer has slashes of its own.
            let (segment, rest) = if let Some(inside) = path.strip_prefix('{') {
                let (claim, rest) = inside.split_once('}').ok_or_else(|| refuse("a `}`"))?;
                if claim.is_empty() || !claim.bytes().all(|byte| byte.is_ascii_graphic()) {
                    return Err(refuse("a claim between `{` and `}`"));
                }
                (Segment::Claim(claim.to_owned()), rest)
            } else {
                let (literal, rest) = path.split_at(path.find('/').unwrap_or(path.len()));
                if !is_segment(literal) {
                    return Err(refuse(
                        "segments of letters, digits, `.`, `-` and `_`, or whole ones such as `{repository_id}`",
                    ));
                }
                (Segment::Literal(literal.to_owned()), rest)
            };
            segments.push(segment);
            match rest.strip_prefix('/') {
                Some(next) => path = next,
                None if rest.is_empty() => break,
                None => return Err(refuse("a claim to be a whole segment")),
            }
        }
        let longest = |segment: &Segment| match segment {
            Segment::Literal(literal) => literal.len(),
            Segment::Claim(_) => LONGEST_SEGMENT,
        };
        let slashes = segments.len().saturating_add("spiffe://".len());
        let all = segments.iter().map(longest).fold(slashes, usize::saturating_add);
        if all.saturating_add(trust_domain.len()) > LONGEST_SPIFFE_ID {
            return Err(refuse("at most 2048 bytes, whatever the claims are"));
        }
        Ok(Self { trust_domain: trust_domain.to_owned(), segments })
    }

    /// The SPIFFE ID of the subject whose mapped claims are `claims`.
    ///
    /// # Errors
    /// INVARIANT(closed-by-absence): a claim is not there, is empty, or is neither a text nor a whole number.
    pub fn of(&self, claims: &BTreeMap<String, Value>) -> Result<String, NoSegment> {
        let mut id = format!("spiffe://{}", self.trust_domain);
        for segment in &self.segments {
            id.push('/');
            match segment {
                Segment::Literal(literal) => id.push_str(literal),
                Segment::Claim(claim) => {
                    let refuse = |found| NoSegment { claim: claim.clone(), found };
                    let value = match claims.get(&format!("{PREFIX}{claim}")) {
                        Some(Value::String(text)) if text.is_empty() => {
                            return Err(refuse("it is empty"));
                        }
                        Some(Value::String(text)) => text.clone(),
                        Some(Value::Number(number)) if number.is_i64() || number.is_u64() => {
                            number.to_string()
                        }
                        Some(_) => return Err(refuse("it is neither a text nor a whole number")),
                        None => return Err(refuse("the subject has none")),
                    };
                    id.push_str(&mapped(&value));
                }
            }
        }
        Ok(id)
    }

    fn claims(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Claim(claim) => Some(claim.as_str()),
            Segment::Literal(_) => None,
        })
    }
}

/// As the configuration says it.
impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}", self.trust_domain)?;
        for segment in &self.segments {
            match segment {
                Segment::Literal(literal) => write!(f, "/{literal}")?,
                Segment::Claim(claim) => write!(f, "/{{{claim}}}")?,
            }
        }
        Ok(())
    }
}

/// `value` as one segment: itself, if every character may stand in one; else with `-` in place of what may not, cut, and marked
/// with `-` and 32 hexadecimal characters of its SHA-256 (threat H11: two subjects never share a name).
///
/// A value that already ends like a mark is marked as well, so that nobody can choose a name that another one is mapped to.
fn mapped(value: &str) -> String {
    if is_segment(value) && value.len() <= LONGEST_SEGMENT && !looks_marked(value) {
        return value.to_owned();
    }
    let fits = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let room = LONGEST_SEGMENT.saturating_sub(MARK).saturating_sub(1);
    let kept = value.chars().map(|c| if fits(&c) { c } else { '-' }).take(room);
    let mut segment: String = kept.collect();
    segment.push('-');
    for byte in digest::digest(&digest::SHA256, value.as_bytes()).as_ref().iter().take(MARK / 2) {
        // Writing to a `String` can't fail.
        let _ = write!(segment, "{byte:02x}");
    }
    segment
}

fn looks_marked(value: &str) -> bool {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let mark = value.rsplit_once('-').map(|(_, mark)| mark);
    mark.is_some_and(|mark| mark.len() == MARK && mark.bytes().all(is_hex))
}

/// SPIFFE-ID section 2.2.
fn is_segment(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    !matches!(text, "" | "." | "..") && text.bytes().all(fits)
}

fn is_label(label: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&label.len())
        && label.bytes().all(fits)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spiffe_id_is_read_as_the_configuration_says_it() {
        for good in [
            "spiffe://prod.example/orders",
            "spiffe://prod.example/github/{repository_id}/x",
            "spiffe://prod_1.example/ns/{/kubernetes.io/namespace}",
        ] {
            assert_eq!(SpiffeId::parse(good).map(|id| id.to_string()), Ok(good.to_owned()));
        }
        for bad in [
            "https://prod.example/x",
            "spiffe://prod.example",
            "spiffe://prod.example/",
            "spiffe:///x",
            "spiffe://Prod.example/x",
            "spiffe://prod.example:8443/x",
            "spiffe://user@prod.example/x",
            "spiffe://prod.example/a//b",
            "spiffe://prod.example/a/",
            "spiffe://prod.example/../b",
            "spiffe://prod.example/a%2fb",
            "spiffe://prod.example/a?b",
            "spiffe://prod.example/repo-{repository_id}",
            "spiffe://prod.example/{repository_id}-x",
            "spiffe://prod.example/{repository_id",
            "spiffe://prod.example/{}",
        ] {
            assert!(SpiffeId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn h11_a_claim_is_one_segment_and_two_values_never_share_one() {
        assert_eq!(mapped("1296269"), "1296269");
        let slashed = mapped("acme/site");
        assert!(slashed.starts_with("acme-site-"), "{slashed}");
        assert_ne!(slashed, mapped("acme:site"));
        assert_ne!(mapped(&slashed), slashed, "nobody can be called what another is mapped to");
        assert_ne!(mapped(".."), "..");
        assert!(mapped(&"a".repeat(4_000)).len() <= LONGEST_SEGMENT);
    }

    #[test]
    fn b01_literal_names_hold_nothing_that_a_server_would_read_twice() {
        for bad in ["", "a b", "a,CN=postgres", "a\0", "o\"r", "é", "a/b", "{sub}", &"a".repeat(64)]
        {
            assert!(CommonName::parse(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "*.example", "Example", "-a.example", "a..example", "a.example."] {
            assert!(DnsName::parse(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "orders", "spiffe://a/b", "SPIFFE://a/b", "urn:a b", "urn:{sub}"] {
            assert!(UriName::parse(bad).is_err(), "{bad:?}");
        }
        assert!(UriName::parse("urn:orders:reader").is_ok());
    }
}
