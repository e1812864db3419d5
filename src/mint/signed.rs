//! What we sign: fixed before the commit, signed after it, and by the same key.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;

use super::{MintError, sha256};
use crate::{
    keys::{
        Signer,
        keyring::{Active, Keyring, TokenType},
    },
    ledger::Hash,
    secret::Secret,
};

/// The signing input of a JWT (RFC 7515 section 2) and the key that will sign it: every byte is final.
#[derive(Debug)]
pub struct JwtPlan {
    /// `base64url(header).base64url(claims)`.
    pub signing_input: String,
    /// Its SHA-256, which the entry holds.
    pub digest: Hash,
    /// The key.
    pub kid: String,
}

impl JwtPlan {
    /// The plan of a JWT with these claims, for the key `active`.
    ///
    /// # Errors
    /// The claims do not serialise: a defect of ours.
    pub(super) fn of(
        active: &Active,
        typ: TokenType,
        claims: &impl Serialize,
    ) -> Result<Self, MintError> {
        let claims = serde_json::to_vec(claims)
            .map_err(|error| MintError::Internal(format!("claims do not serialise: {error}")))?;
        let header = active.header(typ);
        let room = claims.len().saturating_mul(4).div_ceil(3).saturating_add(header.len());
        let mut signing_input = String::with_capacity(room.saturating_add(4));
        signing_input.push_str(header);
        signing_input.push('.');
        URL_SAFE_NO_PAD.encode_string(&claims, &mut signing_input);
        let digest = sha256(signing_input.as_bytes());
        Ok(Self { signing_input, digest, kid: active.signer().key_id().to_owned() })
    }

    /// The JWT, compact. The proof that it may be signed is that the caller redeemed a [`crate::ledger::Recorded`].
    ///
    /// # Errors
    /// The key was withdrawn meanwhile (threat K06), or can't sign.
    pub(super) async fn sign(self, keyring: &Keyring) -> Result<Secret, MintError> {
        let signer = signer(keyring, &self.kid)?;
        let signature = signer.sign(self.signing_input.as_bytes()).await;
        let signature = signature.map_err(|error| MintError::Refused(error.to_string()))?;
        // Once more: an RSA key may have been withdrawn while it waited for its turn.
        self::signer(keyring, &self.kid)?;
        let mut token = self.signing_input;
        token.reserve_exact(signature.len().saturating_mul(2));
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(&signature, &mut token);
        Ok(Secret::from(token))
    }
}

/// The signer of what was prepared under `kid`: never a key that leaked meanwhile.
fn signer(keyring: &Keyring, kid: &str) -> Result<Arc<dyn Signer>, MintError> {
    let gone = || {
        let how = if keyring.withdrawn(kid) { "was withdrawn" } else { "may not sign" };
        MintError::NoKey(format!("key `{kid}` {how}"))
    };
    keyring.find(kid).ok_or_else(gone)
}
