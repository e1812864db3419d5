//! Tokens of ours, read back: for introspection (RFC 7662), and as subject tokens where a rule allows delegation.

use std::sync::Arc;

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::keyring::{Keyring, TokenType};
use crate::{
    clock::Instant,
    subject::{
        Claims, KeySource, KeySourceError, KeySourceState, VerificationKey,
        issuers::IssuerUrl,
        json::{Limits, parse_object},
    },
};

/// More than a token of ours ever has (threat J10).
const MAXIMUM_TOKEN: usize = 16 * 1024;

/// Our own keys as an issuer's. Configured as an issuer's source they let our tokens in as subject tokens; without that our
/// `iss` is unknown, and a loop of exchanges ends at the first step (threat X06).
#[derive(Clone, Debug)]
pub struct OwnKeys(Arc<Keyring>);

impl OwnKeys {
    /// The keys of `keyring`.
    #[must_use]
    pub const fn of(keyring: Arc<Keyring>) -> Self {
        Self(keyring)
    }
}

#[async_trait]
impl KeySource for OwnKeys {
    /// Active and retired keys. A prepared one has signed nothing, a withdrawn one nothing that counts.
    async fn find(
        &self,
        kid: Option<&str>,
        _now: Instant,
    ) -> Result<Vec<Arc<VerificationKey>>, KeySourceError> {
        let found = self.0.verifying(kid);
        if found.is_empty() {
            let kid = kid.unwrap_or("-").chars().take(64).collect();
            let reason = "it is none of ours, not yet in use, pruned or withdrawn".to_owned();
            return Err(KeySourceError::NoSuchKey { kid, reason });
        }
        Ok(found)
    }

    fn state(&self) -> KeySourceState {
        KeySourceState { keys: self.0.verifying(None).len(), ..KeySourceState::default() }
    }
}

/// Answers RFC 7662 requests about access tokens of ours.
#[derive(Clone, Debug)]
pub struct Introspector {
    issuer: IssuerUrl,
    keyring: Arc<Keyring>,
}

impl Introspector {
    /// For tokens that `issuer`, which is us, signed with keys of `keyring`.
    #[must_use]
    pub const fn of(issuer: IssuerUrl, keyring: Arc<Keyring>) -> Self {
        Self { issuer, keyring }
    }

    /// The answer to a caller that may ask about tokens for `audience`: the claims and `active`, or `{"active":false}` for
    /// whatever is not a live access token of ours for that audience (RFC 7662 section 2.2: no reason is given).
    #[must_use]
    pub fn introspect(&self, token: &str, audience: &str, now: Instant) -> Value {
        match self.live(token, audience, now) {
            Some(mut claims) => {
                claims.insert("active".to_owned(), true.into());
                claims.insert("token_type".to_owned(), "Bearer".into());
                Value::Object(claims)
            }
            None => json!({ "active": false }),
        }
    }

    fn live(&self, token: &str, audience: &str, now: Instant) -> Option<Claims> {
        if token.len() > MAXIMUM_TOKEN {
            return None;
        }
        let (input, signature) = token.rsplit_once('.')?;
        let (header, payload) = input.split_once('.')?;
        // Not parsed but compared: a header that we did not write, byte for byte, is not ours. With it `alg`, `typ` and
        // `kid` are what we wrote, and the key is active or retired, never withdrawn.
        let known =
            self.keyring.known(header).filter(|known| known.typ == TokenType::AccessToken)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        if !known.key.verify(known.algorithm, input.as_bytes(), &signature) {
            return None;
        }
        let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
        let claims = parse_object(&payload, &Limits::CLAIMS).ok()?;
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let ours = text("iss") == Some(self.issuer.as_str()) && text("aud") == Some(audience);
        // `exp` is ours and so is the clock: no leeway.
        let lives = claims.get("exp").and_then(Value::as_u64)? > now.seconds();
        (ours && lives).then_some(claims)
    }
}
