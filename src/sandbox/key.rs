//! One RSA key of the sandbox, made at start and held in memory only.

use aws_lc_rs::{
    digest,
    rand::SystemRandom,
    rsa::{KeySize, PublicKeyComponents},
    signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use super::{KEY_MARK, Platform, SandboxError};
use crate::secret::Secret;

/// A key that signs RS256, as GitHub, GitLab and most clusters do.
#[derive(Debug)]
pub(super) struct SandboxKey {
    /// `sandbox-github-…`, the rest a piece of the RFC 7638 thumbprint.
    kid: String,
    pair: RsaKeyPair,
    modulus: String,
    exponent: String,
}

impl SandboxKey {
    /// A new key of 2048 bits.
    pub(super) fn generate(platform: Platform) -> Result<Self, SandboxError> {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048)
            .map_err(|_| SandboxError::Key("it could not be made"))?;
        let public: PublicKeyComponents<Vec<u8>> = pair.public_key().into();
        let modulus = URL_SAFE_NO_PAD.encode(&public.n);
        let exponent = URL_SAFE_NO_PAD.encode(&public.e);
        // RFC 7638 section 3: the required members, in this order, without white space.
        let canonical = format!(r#"{{"e":"{exponent}","kty":"RSA","n":"{modulus}"}}"#);
        let thumbprint = digest::digest(&digest::SHA256, canonical.as_bytes());
        let short: Vec<u8> = thumbprint.as_ref().iter().copied().take(9).collect();
        let kid = format!("{KEY_MARK}{platform}-{}", URL_SAFE_NO_PAD.encode(short));
        Ok(Self { kid, pair, modulus, exponent })
    }

    /// The key set of this key alone: its public half.
    pub(super) fn key_set(&self) -> Value {
        json!({ "keys": [{
            "kty": "RSA",
            "use": "sig",
            "alg": "RS256",
            "kid": self.kid,
            "n": self.modulus,
            "e": self.exponent,
        }] })
    }

    /// The compact JWS (RFC 7515 section 3.1) over `claims`, with the header that `platform` sends.
    pub(super) fn sign(
        &self,
        platform: Platform,
        claims: &Map<String, Value>,
    ) -> Result<Secret, SandboxError> {
        let header = match platform {
            Platform::GitHub | Platform::GitLab => {
                json!({ "typ": "JWT", "alg": "RS256", "kid": self.kid })
            }
            // A cluster's tokens carry no `typ`.
            Platform::Kubernetes => json!({ "alg": "RS256", "kid": self.kid }),
        };
        let claims = Value::Object(claims.clone());
        let mut token = format!("{}.{}", encode(&header), encode(&claims));
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), token.as_bytes(), &mut signature)
            .map_err(|_| SandboxError::Key("it did not sign"))?;
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(signature));
        Ok(Secret::from(token))
    }
}

fn encode(part: &Value) -> String {
    URL_SAFE_NO_PAD.encode(part.to_string())
}
