//! One CA key: signs certificates of clients for one target, and nothing else. It comes with its own certificate.

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    encoding::{AsBigEndian, EcPrivateKeyBin},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Map, Value, json};

use super::{
    KeysError, SignError,
    certificate::{self, CertificateError, Issuer, SERIAL_BYTES},
    signing::{ec_numbers, member, text, thumbprint},
};
use crate::{clock::Instant, subject::Algorithm};

/// `use` of a CA key's entry in the sealed JWK Set (RFC 7517 section 4.2 allows others than `sig`): never published.
pub(in crate::keys) const AUTHORITY_USE: &str = "cambio-ca";
/// What CA keys are. Every TLS library verifies it, and its certificates are short.
pub const ALGORITHM: Algorithm = Algorithm::ES256;

/// A CA key. It has no way to make a JWS signature, and a [`super::signing::SigningKey`] none to sign a certificate: a
/// signature of one kind can't be passed off as the other.
pub struct AuthorityKey {
    kid: String,
    numbers: Map<String, Value>,
    issuer: Issuer,
    pair: EcdsaKeyPair,
    certificate: Arc<[u8]>,
    ends_at: Instant,
}

/// INVARIANT(secrets-do-not-print): the name of the key and no more (threat K12).
impl fmt::Debug for AuthorityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthorityKey({})", self.kid)
    }
}

impl AuthorityKey {
    /// A new key, with a certificate that is good between the two instants, in whole seconds.
    ///
    /// The certificate is signed here, once, and rests beside the key: every replica and every start publishes the same bytes.
    ///
    /// # Errors
    /// The library could not make one.
    pub fn generate(between: (Instant, Instant)) -> Result<Self, KeysError> {
        let fail = |reason| KeysError::Key { algorithm: ALGORITHM, reason };
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)
            .map_err(|_| fail("the library made none"))?;
        let (kid, numbers, issuer) = describe(&pair)?;
        // The name is unique to the key, and the key signs this one certificate for itself: its thumbprint will do.
        let serial = serial_of(&kid);
        let unfit = |_: CertificateError| fail("no certificate can be made for it");
        let bytes = certificate::authority(&issuer, &serial, between).map_err(unfit)?;
        let signature = pair.sign(&SystemRandom::new(), &bytes);
        let signature = signature.map_err(|_| fail("the library refused"))?;
        let certificate = certificate::assemble(&bytes, signature.as_ref()).map_err(unfit)?;
        let ends_at = Instant::from_seconds(between.1.seconds());
        Ok(Self { kid, numbers, issuer, pair, certificate: certificate.into(), ends_at })
    }

    /// The key of a private JWK that the sealed ring held; `x5c` (RFC 7517 section 4.7) is its certificate.
    ///
    /// # Errors
    /// It is not one of ours: other type, halves or certificate that do not fit, `kid` that is not its thumbprint.
    pub(in crate::keys) fn from_private_jwk(jwk: &Map<String, Value>) -> Result<Self, KeysError> {
        let fail = |reason| KeysError::Key { algorithm: ALGORITHM, reason };
        let member = |name| member(ALGORITHM, jwk, name);
        if [text(jwk, "kty"), text(jwk, "crv"), text(jwk, "use")] != ["EC", "P-256", AUTHORITY_USE]
        {
            return Err(fail("found another key type, curve or use"));
        }
        let point = [&[4_u8], member("x")?.as_slice(), member("y")?.as_slice()].concat();
        let pair = EcdsaKeyPair::from_private_key_and_public_key(
            &ECDSA_P256_SHA256_ASN1_SIGNING,
            &member("d")?,
            &point,
        )
        .map_err(|_| fail("the private half does not fit the public one"))?;
        let (kid, numbers, issuer) = describe(&pair)?;
        if text(jwk, "kid") != kid {
            return Err(fail("its `kid` is not its thumbprint"));
        }
        let chain = jwk.get("x5c").and_then(Value::as_array).map(Vec::as_slice);
        let Some([Value::String(own)]) = chain else {
            return Err(fail("`x5c` does not hold one certificate"));
        };
        let certificate =
            STANDARD.decode(own).map_err(|_| fail("its certificate is not base64"))?;
        let read = certificate::read_authority(&certificate);
        let (certified, ends_at) = read.map_err(|_| fail("its certificate does not parse"))?;
        if certified != issuer.point {
            return Err(fail("its certificate is another key's"));
        }
        Ok(Self { kid, numbers, issuer, pair, certificate: certificate.into(), ends_at })
    }

    /// The private JWK, for the sealed ring and for nothing else.
    ///
    /// # Errors
    /// The library does not give the private half.
    pub(in crate::keys) fn to_private_jwk(&self) -> Result<Map<String, Value>, KeysError> {
        let fail = |_| KeysError::Key { algorithm: ALGORITHM, reason: "the library keeps it" };
        let d: EcPrivateKeyBin<'_> = self.pair.private_key().as_be_bytes().map_err(fail)?;
        let mut jwk = self.numbers.clone();
        jwk.insert("kid".to_owned(), self.kid.as_str().into());
        jwk.insert("use".to_owned(), AUTHORITY_USE.into());
        jwk.insert("alg".to_owned(), ALGORITHM.as_str().into());
        jwk.insert("x5c".to_owned(), json!([STANDARD.encode(&self.certificate)]));
        jwk.insert("d".to_owned(), URL_SAFE_NO_PAD.encode(d.as_ref()).into());
        Ok(jwk)
    }

    /// RFC 7638 thumbprint, which is also its common name.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.kid
    }

    /// Its name as an issuer.
    #[must_use]
    pub const fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// Its self-signed certificate, DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// INVARIANT(never-outlive): the last second of its certificate.
    #[must_use]
    pub const fn ends_at(&self) -> Instant {
        self.ends_at
    }

    /// The signature (ECDSA with SHA-256, DER) over the bytes of a certificate that were written down.
    ///
    /// # Errors
    /// The library failed.
    pub fn sign(&self, to_be_signed: &[u8]) -> Result<Vec<u8>, SignError> {
        let signature = self.pair.sign(&SystemRandom::new(), to_be_signed);
        let fail =
            |_| SignError { kid: self.kid.clone(), reason: "the library refused".to_owned() };
        signature.map(|signature| signature.as_ref().to_vec()).map_err(fail)
    }
}

fn describe(pair: &EcdsaKeyPair) -> Result<(String, Map<String, Value>, Issuer), KeysError> {
    let point = pair.public_key().as_ref();
    let numbers = ec_numbers(ALGORITHM, "P-256", point)?;
    let kid = thumbprint(&numbers);
    let Value::Object(numbers) = numbers else {
        return Err(KeysError::Key { algorithm: ALGORITHM, reason: "its numbers are no object" });
    };
    let issuer = Issuer { kid: kid.clone(), point: point.to_vec() };
    Ok((kid, numbers, issuer))
}

/// The first 128 bits of the thumbprint.
fn serial_of(kid: &str) -> [u8; SERIAL_BYTES] {
    let mut serial = [0; SERIAL_BYTES];
    let hash = URL_SAFE_NO_PAD.decode(kid).unwrap_or_default();
    for (to, from) in serial.iter_mut().zip(hash) {
        *to = from;
    }
    serial
}
