//! The App's own key: what we are to GitHub. The one long-lived secret of this target kind, read from a file of mode 0600.

use std::{fmt, sync::Arc, time::Duration};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{RSA_PKCS1_SHA256, RsaKeyPair},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::{clock::Instant, secret::Secret};

/// GitHub takes at most ten minutes, counted by its own clock.
const LIFETIME: Duration = Duration::from_mins(5);
/// A clock that is a little ahead must not make tokens from the future.
const BACKDATED: Duration = Duration::from_secs(60);
/// RS256 with less is refused (RFC 7518 section 3.3).
const LEAST_BYTES: usize = 256;

/// An App's RSA key, parsed once and held open.
#[derive(Clone)]
pub struct AppKey {
    pair: Arc<RsaKeyPair>,
    // A signature takes half a millisecond: made on the blocking pool, by a few threads at a time.
    benches: Arc<Semaphore>,
}

/// INVARIANT(secrets-do-not-print).
impl fmt::Debug for AppKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AppKey(RSA)")
    }
}

impl AppKey {
    /// The key of a PEM file, `RSA PRIVATE KEY` (PKCS#1, as GitHub hands it out) or `PRIVATE KEY` (PKCS#8).
    ///
    /// # Errors
    /// It is no such file, or the key is too short; never with any of its bytes.
    pub fn from_pem(pem: &Secret) -> Result<Self, String> {
        let der = PrivateKeyDer::from_pem_slice(pem.reveal());
        let der = der.map_err(|_| "it is no private key in PEM".to_owned())?;
        let pair = match &der {
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
            PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
            // SEC 1 is elliptic; what else may come to be is no RSA key either.
            PrivateKeyDer::Sec1(_) | _ => {
                return Err("it is no RSA key, as Apps of GitHub have".to_owned());
            }
        };
        let pair = pair.map_err(|_| "it is no RSA key, as Apps of GitHub have".to_owned())?;
        if pair.public_modulus_len() < LEAST_BYTES {
            return Err("it has fewer than 2048 bits".to_owned());
        }
        let benches = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Self { pair: Arc::new(pair), benches: Arc::new(Semaphore::new(benches)) })
    }

    /// A JWT that says we are `app`.
    pub(super) async fn sign(&self, app: &str, now: Instant) -> Result<Secret, String> {
        let claims = json!({
            "iss": app,
            "iat": now.minus(BACKDATED).seconds(),
            "exp": now.plus(LIFETIME).seconds(),
        });
        let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
        let header = part(r#"{"alg":"RS256","typ":"JWT"}"#);
        let input = format!("{header}.{}", part(&claims.to_string()));
        let (pair, bytes) = (Arc::clone(&self.pair), input.clone());
        let gone = "the signing threads are gone";
        let bench = Arc::clone(&self.benches).acquire_owned().await.map_err(|_| gone)?;
        let signed = tokio::task::spawn_blocking(move || {
            let _bench = bench;
            let mut signature = vec![0; pair.public_modulus_len()];
            pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), bytes.as_bytes(), &mut signature)
                .map(|()| signature)
        });
        let signed = signed.await.map_err(|_| gone)?;
        let signature = signed.map_err(|_| "the App's key did not sign".to_owned())?;
        Ok(Secret::from(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))))
    }
}
