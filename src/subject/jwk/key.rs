//! One public key: what it is, what it may verify, and everything that makes it unfit.

use std::fmt;

use aws_lc_rs::{
    digest,
    signature::{self, ParsedPublicKey, RsaParameters, RsaPublicKeyComponents},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;
use thiserror::Error;

use super::{curve25519, rsa};
use crate::subject::{Algorithm, Claims};

/// The longest `kid`, in bytes.
pub(super) const MAXIMUM_KID: usize = 256;

/// Members of a private or symmetric key (RFC 7518 section 6). A set that shows one of them has lost that key.
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// Why a listed key is not used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Unusable {
    /// The list entry is something else.
    #[error("entry is not an object")]
    NotAnObject,
    /// `kid` is not text of 1 to 256 bytes.
    #[error("`kid` is not text of 1 to {MAXIMUM_KID} bytes")]
    BadKid,
    /// Threat J17.
    #[error("several keys of the set have this `kid`")]
    AmbiguousKid,
    /// Threat J02: whoever can read the set could sign.
    #[error("key type `oct` is symmetric")]
    Symmetric,
    /// The private half was published: whoever can read the set could sign.
    #[error("private member `{0}` is published: the key must be taken as leaked")]
    Private(&'static str),
    /// `kty`, or `crv`, is none that we verify with.
    #[error("found {member} `{found}`, expected {expected}")]
    Unsupported {
        /// `kty` or `crv`.
        member: &'static str,
        /// What it says, shortened.
        found: String,
        /// What we know.
        expected: &'static str,
    },
    /// RFC 7517 sections 4.2 and 4.3.
    #[error("`{member}` does not let the key verify signatures")]
    Purpose {
        /// `use` or `key_ops`.
        member: &'static str,
    },
    /// `alg` is unknown, or not one that such a key can have (threat J03).
    #[error("`alg` `{found}` does not go with such a key")]
    AlgorithmMismatch {
        /// What it says, shortened.
        found: String,
    },
    /// A member is missing, not base64url without padding, or of the wrong length.
    #[error("`{member}` is {reason}")]
    BadMember {
        /// Which.
        member: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The point is not on the curve, or the library refuses the key for a reason of its own.
    #[error("not a valid public key: {0}")]
    Invalid(&'static str),
    /// Threat J14.
    #[error("RSA modulus has {bits} bits, expected {} to {}", rsa::MINIMUM_BITS, rsa::MAXIMUM_BITS)]
    ModulusSize {
        /// How many.
        bits: usize,
    },
    /// Threat J14: even, 1, or so large that verifying becomes a burden.
    #[error("RSA exponent is not an odd number from 3 to 4294967295")]
    Exponent,
    /// Threat J14, CVE-2017-15361.
    #[error("RSA modulus has the ROCA fingerprint (CVE-2017-15361)")]
    Roca,
    /// Threat J15.
    #[error("Ed25519 point has a small order or a non-canonical encoding")]
    WeakPoint,
}

/// A public key that may verify, parsed once (reparsing costs RS256 a tenth of each verification).
pub struct VerificationKey {
    kid: Option<String>,
    thumbprint: String,
    /// INVARIANT(one key, one family): the algorithm is fixed by the key, and narrowed to one by its `alg` (threat J03).
    verifiers: Vec<(Algorithm, ParsedPublicKey)>,
}

impl VerificationKey {
    /// Reads one entry of a key set.
    pub(super) fn read(members: &Claims) -> Result<Self, Unusable> {
        let kid = kid(members)?;
        check_purpose(members)?;
        let (thumbprint, verifiers) = match text(members, "kty")? {
            "RSA" => read_rsa(members)?,
            "EC" => read_ec(members)?,
            "OKP" => read_okp(members)?,
            found => {
                return Err(Unusable::Unsupported {
                    member: "kty",
                    found: shortened(found),
                    expected: "`RSA`, `EC` or `OKP`",
                });
            }
        };
        let verifiers = narrowed_to_alg(members, verifiers)?;
        Ok(Self { kid, thumbprint, verifiers })
    }

    /// Its name in the set.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Whether a signature by `algorithm` can be this key's at all.
    #[must_use]
    pub fn allows(&self, algorithm: Algorithm) -> bool {
        self.verifiers.iter().any(|(own, _)| *own == algorithm)
    }

    /// Whether `signature` (JWS form: R‖S for ECDSA, RFC 7518 section 3.4) is this key's over `signing_input`. An algorithm
    /// that the key does not allow is *no*.
    #[must_use]
    pub fn verify(&self, algorithm: Algorithm, signing_input: &[u8], signature: &[u8]) -> bool {
        if algorithm == Algorithm::EdDSA && !curve25519::is_strict_signature(signature) {
            return false;
        }
        self.verifiers
            .iter()
            .find(|(own, _)| *own == algorithm)
            .is_some_and(|(_, key)| key.verify_sig(signing_input, signature).is_ok())
    }

    /// The RFC 7638 thumbprint, SHA-256, base64url.
    #[must_use]
    pub fn thumbprint(&self) -> &str {
        &self.thumbprint
    }
}

impl fmt::Debug for VerificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let algorithms: Vec<_> = self.verifiers.iter().map(|(own, _)| own.as_str()).collect();
        f.debug_struct("VerificationKey")
            .field("kid", &self.kid)
            .field("thumbprint", &self.thumbprint)
            .field("algorithms", &algorithms)
            .finish()
    }
}

type Material = (String, Vec<(Algorithm, ParsedPublicKey)>);

fn kid(members: &Claims) -> Result<Option<String>, Unusable> {
    match members.get("kid") {
        None => Ok(None),
        Some(Value::String(kid)) if !kid.is_empty() && kid.len() <= MAXIMUM_KID => {
            Ok(Some(kid.clone()))
        }
        Some(_) => Err(Unusable::BadKid),
    }
}

fn check_purpose(members: &Claims) -> Result<(), Unusable> {
    if members.get("kty").and_then(Value::as_str) == Some("oct") {
        return Err(Unusable::Symmetric);
    }
    if let Some(private) = PRIVATE_MEMBERS.into_iter().find(|name| members.contains_key(*name)) {
        return Err(Unusable::Private(private));
    }
    // RFC 7517 section 4.2; in the bundle of a SPIFFE trust domain, JWT-SVID section 6.1 has a word of its own.
    let signs = |purpose: &Value| matches!(purpose.as_str(), Some("sig" | "jwt-svid"));
    if members.get("use").is_some_and(|purpose| !signs(purpose)) {
        return Err(Unusable::Purpose { member: "use" });
    }
    let verifies = |operations: &Value| {
        operations.as_array().is_some_and(|all| all.iter().any(|one| one == "verify"))
    };
    if members.get("key_ops").is_some_and(|operations| !verifies(operations)) {
        return Err(Unusable::Purpose { member: "key_ops" });
    }
    Ok(())
}

fn read_rsa(members: &Claims) -> Result<Material, Unusable> {
    let (n, e) = (octets(members, "n")?, octets(members, "e")?);
    rsa::check(&n, &e)?;
    let components = RsaPublicKeyComponents { n, e };
    let verifiers = RSA_ALGORITHMS
        .into_iter()
        .map(|(algorithm, parameters)| {
            let parsed = components.to_parsed_public_key(parameters);
            parsed.map(|key| (algorithm, key)).map_err(|_| Unusable::Invalid("RSA"))
        })
        .collect::<Result<_, _>>()?;
    Ok((thumbprint(members, &["e", "kty", "n"])?, verifiers))
}

const RSA_ALGORITHMS: [(Algorithm, &RsaParameters); 6] = [
    (Algorithm::RS256, &signature::RSA_PKCS1_2048_8192_SHA256),
    (Algorithm::RS384, &signature::RSA_PKCS1_2048_8192_SHA384),
    (Algorithm::RS512, &signature::RSA_PKCS1_2048_8192_SHA512),
    (Algorithm::PS256, &signature::RSA_PSS_2048_8192_SHA256),
    (Algorithm::PS384, &signature::RSA_PSS_2048_8192_SHA384),
    (Algorithm::PS512, &signature::RSA_PSS_2048_8192_SHA512),
];

fn read_ec(members: &Claims) -> Result<Material, Unusable> {
    let (algorithm, verification, size) = match text(members, "crv")? {
        "P-256" => (Algorithm::ES256, &signature::ECDSA_P256_SHA256_FIXED, 32),
        "P-384" => (Algorithm::ES384, &signature::ECDSA_P384_SHA384_FIXED, 48),
        "P-521" => (Algorithm::ES512, &signature::ECDSA_P521_SHA512_FIXED, 66),
        found => {
            return Err(Unusable::Unsupported {
                member: "crv",
                found: shortened(found),
                expected: "`P-256`, `P-384` or `P-521`",
            });
        }
    };
    // SEC 1 section 2.3.3: the uncompressed form. The library checks that the point is on the curve.
    let mut point = vec![0x04];
    point.extend(coordinate(members, "x", size)?);
    point.extend(coordinate(members, "y", size)?);
    let key = ParsedPublicKey::new(verification, &point)
        .map_err(|_| Unusable::Invalid("the point is not on the curve"))?;
    Ok((thumbprint(members, &["crv", "kty", "x", "y"])?, vec![(algorithm, key)]))
}

fn read_okp(members: &Claims) -> Result<Material, Unusable> {
    let crv = text(members, "crv")?;
    if crv != "Ed25519" {
        let found = shortened(crv);
        return Err(Unusable::Unsupported { member: "crv", found, expected: "`Ed25519`" });
    }
    let point = coordinate(members, "x", 32)?;
    if !curve25519::is_strict_point(&point) {
        return Err(Unusable::WeakPoint);
    }
    let key = ParsedPublicKey::new(&signature::ED25519, &point)
        .map_err(|_| Unusable::Invalid("Ed25519"))?;
    // The library decompresses the point at each verification, not here: 32 bytes off the curve are a key that verifies nothing.
    Ok((thumbprint(members, &["crv", "kty", "x"])?, vec![(Algorithm::EdDSA, key)]))
}

fn narrowed_to_alg(
    members: &Claims,
    mut verifiers: Vec<(Algorithm, ParsedPublicKey)>,
) -> Result<Vec<(Algorithm, ParsedPublicKey)>, Unusable> {
    let Some(alg) = members.get("alg") else { return Ok(verifiers) };
    let found = alg.as_str().unwrap_or("(not text)");
    verifiers.retain(|(own, _)| found.parse() == Ok(*own));
    if verifiers.is_empty() {
        return Err(Unusable::AlgorithmMismatch { found: shortened(found) });
    }
    Ok(verifiers)
}

/// RFC 7638 section 3: the required members in the order of their names, without white space. Their values are base64url or
/// registered names by now, so that nothing needs escaping.
fn thumbprint(members: &Claims, names: &[&'static str]) -> Result<String, Unusable> {
    let mut parts = Vec::with_capacity(names.len());
    for name in names {
        parts.push(format!("\"{name}\":\"{}\"", text(members, name)?));
    }
    let canonical = format!("{{{}}}", parts.join(","));
    Ok(URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, canonical.as_bytes())))
}

fn coordinate(members: &Claims, member: &'static str, size: usize) -> Result<Vec<u8>, Unusable> {
    let octets = octets(members, member)?;
    if octets.len() != size {
        return Err(Unusable::BadMember { member, reason: "not of its curve's length" });
    }
    Ok(octets)
}

/// Base64url without padding, white space or stray bits (RFC 7515 section 2).
fn octets(members: &Claims, member: &'static str) -> Result<Vec<u8>, Unusable> {
    URL_SAFE_NO_PAD
        .decode(text(members, member)?)
        .map_err(|_| Unusable::BadMember { member, reason: "not base64url without padding" })
}

fn text<'a>(members: &'a Claims, member: &'static str) -> Result<&'a str, Unusable> {
    match members.get(member) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(Unusable::BadMember { member, reason: "not text" }),
        None => Err(Unusable::BadMember { member, reason: "missing" }),
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(32).flat_map(char::escape_debug).collect()
}
