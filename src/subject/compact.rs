//! Splits and bounds a compact JWS (RFC 7515 section 7.1). Decides nothing: what comes out is unverified.
//!
//! Each token has exactly one spelling here, or one token would have many names in the replay log (threat J11):
//! base64url without padding, white space or unused bits, nothing trimmed (RFC 8725bis section 3.12, threat J12).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;
use thiserror::Error;

use super::{
    Algorithm,
    json::{self, JsonError, Limits, excerpt},
};

/// The longest token, bytes.
pub const MAXIMUM_TOKEN_BYTES: usize = 16 * 1024;
/// The longest header segment, bytes of base64url.
pub const MAXIMUM_HEADER_BYTES: usize = 2 * 1024;
/// The longest `kid`, bytes.
pub const MAXIMUM_KID_BYTES: usize = 256;

/// A compact JWS taken apart. Nothing of it is proven.
#[derive(Debug)]
pub struct UnverifiedJws<'t> {
    /// The protected header, all of it that we accept.
    pub header: UnverifiedHeader,
    /// What the signature is over: the first two segments and the dot between them, as they came.
    pub signing_input: &'t str,
    /// The payload, decoded.
    pub payload: Vec<u8>,
    /// The signature, decoded.
    pub signature: Vec<u8>,
}

/// The members of a protected header that mean something to us. Nothing of it is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnverifiedHeader {
    /// `alg`: what the token says; the key and the issuer's configuration decide (threat J03).
    pub algorithm: Algorithm,
    /// `kid`: looked up in a map, never in a path, a query or a URL (threat J20).
    pub kid: Option<String>,
    /// `typ`, as it came.
    pub media_type: Option<String>,
}

/// Why a text is not a compact JWS that we look at.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CompactError {
    /// Longer than [`MAXIMUM_TOKEN_BYTES`].
    #[error("found {found} bytes, expected at most {MAXIMUM_TOKEN_BYTES}")]
    TooLong {
        /// Its length, bytes.
        found: usize,
    },
    /// Not three segments: a JWE has five, the JSON serialisation none (threats J10, J18, J19).
    #[error("found {found} segments, expected the 3 of a compact JWS")]
    Segments {
        /// How many.
        found: usize,
    },
    /// The header segment is longer than [`MAXIMUM_HEADER_BYTES`].
    #[error("found a header segment of {found} bytes, expected at most {MAXIMUM_HEADER_BYTES}")]
    HeaderTooLong {
        /// Its length, bytes.
        found: usize,
    },
    /// A segment is not strict base64url (RFC 7515 section 2).
    #[error("the {segment} segment is not base64url without padding: {reason}")]
    Encoding {
        /// `header`, `payload` or `signature`.
        segment: &'static str,
        /// What the library says.
        reason: String,
    },
    /// The header is not an object that [`json::parse_object`] reads.
    #[error("the header: {0}")]
    HeaderJson(JsonError),
    /// A header member that is none of ours (RFC 7515 section 4.1.11 for `crit`; threats J05, J06, J07, J18).
    #[error(
        "found header member `{name}`, expected only `alg`, `kid`, `typ`, `x5t` and `x5t#S256`"
    )]
    RefusedMember {
        /// Which, shortened and escaped.
        name: String,
    },
    /// A header member of another type.
    #[error("header member `{name}`: found {found}, expected a string")]
    MemberType {
        /// Which.
        name: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// `kid` is longer than [`MAXIMUM_KID_BYTES`].
    #[error("found a `kid` of {found} bytes, expected at most {MAXIMUM_KID_BYTES}")]
    KidTooLong {
        /// Its length, bytes.
        found: usize,
    },
    /// `alg` is absent, `none`, symmetric, or unheard of (threats J01, J02).
    #[error("found algorithm `{found}`, expected an asymmetric one of RFC 7518 or `EdDSA`")]
    Algorithm {
        /// What the header says, shortened and escaped; `-` where it says nothing.
        found: String,
    },
}

impl CompactError {
    /// Whether the token has the shape of a JWS, and its header is what we refuse.
    #[must_use]
    pub const fn concerns_header(&self) -> bool {
        match self {
            Self::TooLong { .. }
            | Self::Segments { .. }
            | Self::HeaderTooLong { .. }
            | Self::Encoding { .. } => false,
            Self::HeaderJson(_)
            | Self::RefusedMember { .. }
            | Self::MemberType { .. }
            | Self::KidTooLong { .. }
            | Self::Algorithm { .. } => true,
        }
    }
}

impl<'t> UnverifiedJws<'t> {
    /// Takes `token` apart: caps first, then the count of the dots, then the pieces.
    ///
    /// # Errors
    /// It is too long, is not three strict base64url segments, or its header holds what we do not accept.
    pub fn parse(token: &'t str) -> Result<Self, CompactError> {
        if token.len() > MAXIMUM_TOKEN_BYTES {
            return Err(CompactError::TooLong { found: token.len() });
        }
        // Counted before anything is allocated: a token is short by now, so a step for each dot costs little (J10).
        let found = token.split('.').count();
        let wrong = CompactError::Segments { found };
        let (3, Some((signing_input, signature))) = (found, token.rsplit_once('.')) else {
            return Err(wrong);
        };
        let Some((header, payload)) = signing_input.split_once('.') else { return Err(wrong) };
        if header.len() > MAXIMUM_HEADER_BYTES {
            return Err(CompactError::HeaderTooLong { found: header.len() });
        }
        let header = UnverifiedHeader::parse(&decode("header", header)?)?;
        let payload = decode("payload", payload)?;
        let signature = decode("signature", signature)?;
        Ok(Self { header, signing_input, payload, signature })
    }
}

impl UnverifiedHeader {
    /// An allow-list. What asks to be understood (`crit`, `b64`), brings a key along (`jwk`, `jku`, `x5u`, `x5c`) or makes
    /// the token something else (`enc`, `zip`, `cty`) is refused like everything unknown, and not skipped.
    fn parse(bytes: &[u8]) -> Result<Self, CompactError> {
        let (mut algorithm, mut kid, mut media_type) = (None, None, None);
        let members =
            json::parse_object(bytes, &Limits::HEADER).map_err(CompactError::HeaderJson)?;
        for (name, value) in members {
            match name.as_str() {
                "alg" => algorithm = Some(text("alg", value)?),
                "kid" => kid = Some(text("kid", value)?),
                "typ" => media_type = Some(text("typ", value)?),
                // Certificate thumbprints: Entra sends them. They choose a key as `kid` does, and we choose by `kid`.
                "x5t" => drop(text("x5t", value)?),
                "x5t#S256" => drop(text("x5t#S256", value)?),
                _ => return Err(CompactError::RefusedMember { name: excerpt(&name) }),
            }
        }
        let algorithm = algorithm.as_deref().unwrap_or("-");
        let Ok(algorithm) = algorithm.parse() else {
            return Err(CompactError::Algorithm { found: excerpt(algorithm) });
        };
        match kid.as_ref().map(String::len) {
            Some(found) if found > MAXIMUM_KID_BYTES => Err(CompactError::KidTooLong { found }),
            _ => Ok(Self { algorithm, kid, media_type }),
        }
    }
}

fn text(name: &'static str, value: Value) -> Result<String, CompactError> {
    let found = json::kind(&value);
    let Value::String(text) = value else { return Err(CompactError::MemberType { name, found }) };
    Ok(text)
}

fn decode(segment: &'static str, text: &str) -> Result<Vec<u8>, CompactError> {
    URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|error| CompactError::Encoding { segment, reason: error.to_string() })
}
