//! A certificate request (PKCS#10, RFC 2986): its public key and the proof that the caller holds the private one. Nothing else
//! of it is looked at: names and extensions that it asks for are not ours to believe.

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use thiserror::Error;
use x509_cert::{
    der::{
        Decode as _, DecodePem as _, Encode as _, Reader as _, SliceReader,
        asn1::{AnyRef, ObjectIdentifier, UintRef},
    },
    request::CertReq,
    spki::AlgorithmIdentifierOwned,
};

use crate::subject::jwk::KeySet;

/// The most bytes of a request, in whatever encoding: the largest key that we take needs 2,400 as PEM.
pub const MOST_BYTES: usize = 8 * 1024;
/// RSA keys above it cost every server that meets them.
const LONGEST_RSA: usize = 4_096 / 8;

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ECDSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const ECDSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const RSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const RSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12");
const RSA_SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13");

/// Why a request is none. The words are ours alone, and the caller sees them.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RequestError {
    /// Over [`MOST_BYTES`].
    #[error("`csr` is too large: at most 8192 bytes")]
    TooLarge,
    /// Neither encoding.
    #[error(
        "`csr` is no certificate request: PKCS#10 as PEM, or as base64url of its DER without padding"
    )]
    Malformed,
    /// Another kind of key.
    #[error(
        "the key of `csr` is of a kind that is not taken: P-256, P-384, Ed25519, or RSA of 2048 to 4096 bits"
    )]
    Kind,
    /// A key that is known to be weak, or that is none.
    #[error("the key of `csr` is too weak, or is none")]
    Weak,
    /// Another signature algorithm.
    #[error(
        "`csr` is signed with an algorithm that is not taken: SHA-256 or longer, by the key itself"
    )]
    Algorithm,
    /// The caller has not shown that it holds the private half.
    #[error("the signature of `csr` is not by its own key")]
    Proof,
}

/// A public key whose private half the caller holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    spki: Vec<u8>,
}

impl Proven {
    /// The key in `text`, which is PEM or base64url of DER.
    ///
    /// # Errors
    /// It is no request, its key is unfit, or the signature is not by that key.
    pub fn read(text: &str) -> Result<Self, RequestError> {
        if text.len() > MOST_BYTES {
            return Err(RequestError::TooLarge);
        }
        let request = decode(text)?;
        let key = &request.info.public_key;
        let bits = key.subject_public_key.as_bytes().ok_or(RequestError::Malformed)?;
        let jwk = jwk(&key.algorithm, bits)?;
        // The same checks as for keys of issuers (threats J14 to J16): size, exponent, ROCA, curve, small order.
        let set = KeySet::parse(json!({ "keys": [jwk] }).to_string().as_bytes());
        let sound = set.is_ok_and(|set| set.keys().len() == 1 && set.ignored().is_empty());
        if !sound {
            return Err(RequestError::Weak);
        }
        let algorithm = algorithm(&key.algorithm, &request.algorithm)?;
        let signed = request.info.to_der().map_err(|_| RequestError::Malformed)?;
        let signature = request.signature.as_bytes().ok_or(RequestError::Malformed)?;
        UnparsedPublicKey::new(algorithm, bits)
            .verify(&signed, signature)
            .map_err(|_| RequestError::Proof)?;
        let spki = key.to_der().map_err(|_| RequestError::Malformed)?;
        Ok(Self { spki })
    }

    /// DER of its `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }
}

/// One request and nothing after it, in DER: what was signed is what we encode again.
fn decode(text: &str) -> Result<CertReq, RequestError> {
    let malformed = |_| RequestError::Malformed;
    if text.trim_ascii_start().starts_with("-----BEGIN") {
        return CertReq::from_pem(text.trim_ascii()).map_err(malformed);
    }
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| RequestError::Malformed)?;
    CertReq::from_der(&bytes).map_err(malformed)
}

/// The key as a JWK (RFC 7518 section 6, RFC 8037 section 2). Parameters must be exactly what the kind of key wants.
fn jwk(algorithm: &AlgorithmIdentifierOwned, bits: &[u8]) -> Result<Value, RequestError> {
    let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    if algorithm.oid == EC_PUBLIC_KEY {
        let curve = algorithm.parameters.as_ref();
        let curve = curve.and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
        let (name, length) = match curve {
            Some(P256) => ("P-256", 32),
            Some(P384) => ("P-384", 48),
            Some(_) | None => return Err(RequestError::Kind),
        };
        let point = bits.strip_prefix(&[4]).ok_or(RequestError::Kind)?;
        let (x, y) = point.split_at_checked(length).ok_or(RequestError::Weak)?;
        return Ok(json!({ "kty": "EC", "crv": name, "x": b64(x), "y": b64(y) }));
    }
    if algorithm.oid == ED25519 && algorithm.parameters.is_none() {
        return Ok(json!({ "kty": "OKP", "crv": "Ed25519", "x": b64(bits) }));
    }
    if algorithm.oid == RSA && is_null(algorithm) {
        let (n, e) = rsa_numbers(bits).ok_or(RequestError::Weak)?;
        if n.len() > LONGEST_RSA {
            return Err(RequestError::Kind);
        }
        return Ok(json!({ "kty": "RSA", "n": b64(&n), "e": b64(&e), "alg": "RS256" }));
    }
    Err(RequestError::Kind)
}

/// RFC 8017 appendix A.1.1 `RSAPublicKey`.
fn rsa_numbers(bits: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut reader = SliceReader::new(bits).ok()?;
    let numbers = reader.sequence(|inner| {
        let n = UintRef::decode(inner)?.as_bytes().to_vec();
        Ok((n, UintRef::decode(inner)?.as_bytes().to_vec()))
    });
    let numbers = numbers.ok()?;
    reader.finish(numbers).ok()
}

/// What verifies the signature: one that goes with the key, with parameters as RFC 5758, RFC 4055 and RFC 8410 say.
fn algorithm(
    key: &AlgorithmIdentifierOwned,
    signed: &AlgorithmIdentifierOwned,
) -> Result<&'static dyn VerificationAlgorithm, RequestError> {
    let p256 = key.parameters.as_ref().and_then(|any| any.decode_as().ok()) == Some(P256);
    let bare = signed.parameters.is_none();
    let found: Option<&'static dyn VerificationAlgorithm> = match (key.oid, signed.oid) {
        (EC_PUBLIC_KEY, ECDSA_SHA256) if bare && p256 => Some(&signature::ECDSA_P256_SHA256_ASN1),
        (EC_PUBLIC_KEY, ECDSA_SHA384) if bare && p256 => Some(&signature::ECDSA_P256_SHA384_ASN1),
        (EC_PUBLIC_KEY, ECDSA_SHA256) if bare => Some(&signature::ECDSA_P384_SHA256_ASN1),
        (EC_PUBLIC_KEY, ECDSA_SHA384) if bare => Some(&signature::ECDSA_P384_SHA384_ASN1),
        (ED25519, ED25519) if bare => Some(&signature::ED25519),
        (RSA, RSA_SHA256) if is_null(signed) => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
        (RSA, RSA_SHA384) if is_null(signed) => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
        (RSA, RSA_SHA512) if is_null(signed) => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
        _ => None,
    };
    found.ok_or(RequestError::Algorithm)
}

fn is_null(algorithm: &AlgorithmIdentifierOwned) -> bool {
    algorithm.parameters.as_ref().is_some_and(|any| AnyRef::from(any).is_null())
}
