//! The signature: which key, which algorithm, and does it verify (RFC 7515 section 5.2). Knows nothing of claims.

use std::{collections::BTreeSet, sync::Arc};

use aws_lc_rs::digest;
use thiserror::Error;

use super::{
    Algorithm, KeySourceError, TokenDigest, VerificationKey,
    compact::{CompactError, UnverifiedHeader, UnverifiedJws},
    json::excerpt,
    jwk::KeySet,
};

/// How many keys are tried on a token that names none: a large set must not buy CPU with one request.
pub const MAXIMUM_ATTEMPTS: usize = 8;

/// The payload of a JWS whose signature is good. What it says may still be anything.
#[derive(Debug)]
pub struct SignedPayload {
    /// The bytes that were signed.
    pub bytes: Vec<u8>,
    /// SHA-256 of the signing input.
    pub digest: TokenDigest,
}

/// Why a JWS does not verify.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum JwsError {
    /// It is not one.
    #[error("{0}")]
    Compact(#[from] CompactError),
    /// Its algorithm is not allowed to whoever signed it.
    #[error("found algorithm `{found}`, expected one of {allowed}")]
    Algorithm {
        /// The header's.
        found: Algorithm,
        /// The allowed ones.
        allowed: String,
    },
    /// No key is known under its `kid`.
    #[error("{0}")]
    Key(#[from] KeySourceError),
    /// The keys found are not for its algorithm, or are too many to try.
    #[error("{0}")]
    NoKeyFits(String),
    /// The signature is not one of the key's.
    #[error("the signature does not verify with key `{kid}`")]
    Signature {
        /// The key, shortened and escaped; `-` where the token names none.
        kid: String,
    },
}

/// Verifies the signature of `token` with `keys` and gives its payload: the entry point for test vectors and for tokens
/// that are not a workload's. Subject tokens go through [`super::verify::Verifier`].
///
/// # Errors
/// It is no acceptable compact JWS, or no allowed key made its signature.
pub fn verify_jws(
    token: &str,
    keys: &KeySet,
    allowed: &BTreeSet<Algorithm>,
) -> Result<SignedPayload, JwsError> {
    let jws = UnverifiedJws::parse(token)?;
    admit(&jws.header, allowed)?;
    let candidates = keys.find(jws.header.kid.as_deref())?;
    let digest = prove(&jws, &candidates)?;
    Ok(SignedPayload { bytes: jws.payload, digest })
}

/// The first half of the choice of algorithm: the header names one that the configuration allows.
///
/// Before any key is looked for, so that a token which can't verify never makes us fetch.
pub(in crate::subject) fn admit(
    header: &UnverifiedHeader,
    allowed: &BTreeSet<Algorithm>,
) -> Result<(), JwsError> {
    if allowed.contains(&header.algorithm) {
        return Ok(());
    }
    let names: Vec<_> = allowed.iter().map(|algorithm| algorithm.as_str()).collect();
    Err(JwsError::Algorithm { found: header.algorithm, allowed: names.join(", ") })
}

/// The second half: a key that is for this very algorithm made the signature (RFC 8725bis section 3.1, threat J03).
pub(in crate::subject) fn prove(
    jws: &UnverifiedJws<'_>,
    candidates: &[Arc<VerificationKey>],
) -> Result<TokenDigest, JwsError> {
    let algorithm = jws.header.algorithm;
    let kid = || jws.header.kid.as_deref().map_or_else(|| "-".to_owned(), excerpt);
    let fitting: Vec<_> = candidates.iter().filter(|key| key.allows(algorithm)).collect();
    if fitting.is_empty() {
        return Err(JwsError::NoKeyFits(format!("key `{}` is not for `{algorithm}`", kid())));
    }
    if fitting.len() > MAXIMUM_ATTEMPTS {
        let found = fitting.len();
        return Err(JwsError::NoKeyFits(format!(
            "{found} keys fit key `{}`, expected at most {MAXIMUM_ATTEMPTS}",
            kid()
        )));
    }
    let input = jws.signing_input.as_bytes();
    if !fitting.iter().any(|key| key.verify(algorithm, input, &jws.signature)) {
        return Err(JwsError::Signature { kid: kid() });
    }
    Ok(digest_of(input))
}

fn digest_of(signing_input: &[u8]) -> TokenDigest {
    let mut bytes = [0_u8; 32];
    for (to, from) in bytes.iter_mut().zip(digest::digest(&digest::SHA256, signing_input).as_ref())
    {
        *to = *from;
    }
    TokenDigest(bytes)
}
