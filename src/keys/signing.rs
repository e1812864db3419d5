//! One private key, parsed once and held open: makes signatures, never leaves but sealed.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use aws_lc_rs::{
    digest,
    encoding::{AsBigEndian, AsDer, Curve25519SeedBin, EcPrivateKeyBin, Pkcs8V1Der},
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RsaEncoding, RsaKeyPair,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use josekit::jwk::{Jwk, KeyPair as _, alg::rsa::RsaKeyPair as JoseRsaKeyPair};
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::{KeysError, SignError, Signer};
use crate::subject::Algorithm;

/// A signing key of ours. Both halves are kept together and are checked against each other (threat K11, RUSTSEC-2022-0093).
pub struct SigningKey {
    kid: String,
    algorithm: Algorithm,
    public: Map<String, Value>,
    pair: Pair,
}

enum Pair {
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    // An RSA signature takes 288 µs, so it is made on the blocking pool, by a few threads at a time.
    Rsa(Arc<RsaKeyPair>, &'static dyn RsaEncoding, Arc<Semaphore>),
}

/// INVARIANT(secrets-do-not-print): the name of the key and no more (threat K12).
impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({} {})", self.algorithm, self.kid)
    }
}

impl SigningKey {
    /// A new key for `algorithm`. Slow for RSA (some 300 ms): not for the runtime's threads.
    ///
    /// The library draws from its own generator, not from a [`crate::chance::Chance`]: no seed of a test may ever be able to
    /// make a key that signs.
    ///
    /// # Errors
    /// The library could not make one.
    pub fn generate(algorithm: Algorithm) -> Result<Self, KeysError> {
        let fail = |_| KeysError::Key { algorithm, reason: "the library made none" };
        match Kind::of(algorithm) {
            Kind::Ec(curve) => {
                Self::ec(algorithm, &curve, EcdsaKeyPair::generate(curve.signs).map_err(fail)?)
            }
            Kind::Ed => Ok(Self::ed(algorithm, Ed25519KeyPair::generate().map_err(fail)?)),
            Kind::Rsa(padding) => {
                let pair = RsaKeyPair::generate(rsa_size(algorithm)).map_err(fail)?;
                let der: Pkcs8V1Der<'_> = pair.as_der().map_err(fail)?;
                Self::rsa(algorithm, padding, pair, &rsa_jwk(algorithm, der.as_ref())?)
            }
        }
    }

    /// The key of a private JWK (RFC 7518 section 6) that the sealed ring held.
    ///
    /// # Errors
    /// It is not one of `algorithm`, its halves do not fit each other, or its `kid` is not its thumbprint.
    pub fn from_private_jwk(
        algorithm: Algorithm,
        jwk: &Map<String, Value>,
    ) -> Result<Self, KeysError> {
        let fail = |reason| KeysError::Key { algorithm, reason };
        let member = |name| member(algorithm, jwk, name);
        let key = match Kind::of(algorithm) {
            Kind::Ec(curve) => {
                if text(jwk, "kty") != "EC" || text(jwk, "crv") != curve.name {
                    return Err(fail("found another key type or curve"));
                }
                let point = [&[4_u8], member("x")?.as_slice(), member("y")?.as_slice()].concat();
                let pair = EcdsaKeyPair::from_private_key_and_public_key(
                    curve.signs,
                    &member("d")?,
                    &point,
                )
                .map_err(|_| fail("the private half does not fit the public one"))?;
                Self::ec(algorithm, &curve, pair)
            }
            Kind::Ed => {
                if text(jwk, "kty") != "OKP" || text(jwk, "crv") != "Ed25519" {
                    return Err(fail("found another key type or curve"));
                }
                let pair = Ed25519KeyPair::from_seed_and_public_key(&member("d")?, &member("x")?)
                    .map_err(|_| fail("the private half does not fit the public one"))?;
                Ok(Self::ed(algorithm, pair))
            }
            Kind::Rsa(padding) => {
                if text(jwk, "kty") != "RSA" {
                    return Err(fail("found another key type"));
                }
                let jose =
                    Jwk::from_map(numbers_only(jwk)).and_then(|jwk| JoseRsaKeyPair::from_jwk(&jwk));
                let jose = jose.map_err(|_| fail("the numbers of the key do not parse"))?;
                let der = Zeroizing::new(jose.to_der_private_key());
                let pair = RsaKeyPair::from_pkcs8(&der)
                    .map_err(|_| fail("the private half does not fit the public one"))?;
                Self::rsa(algorithm, padding, pair, &rsa_jwk(algorithm, &der)?)
            }
        }?;
        if text(jwk, "kid") != key.kid {
            return Err(fail("its `kid` is not its thumbprint"));
        }
        Ok(key)
    }

    /// The private JWK, for the sealed ring and for nothing else.
    ///
    /// # Errors
    /// The library does not give the private half.
    pub(in crate::keys) fn to_private_jwk(&self) -> Result<Map<String, Value>, KeysError> {
        let fail = |_| KeysError::Key { algorithm: self.algorithm, reason: "the library keeps it" };
        let mut jwk = self.public.clone();
        match &self.pair {
            Pair::Ec(pair) => {
                let d: EcPrivateKeyBin<'_> = pair.private_key().as_be_bytes().map_err(fail)?;
                jwk.insert("d".to_owned(), URL_SAFE_NO_PAD.encode(d.as_ref()).into());
            }
            Pair::Ed(pair) => {
                let seed = pair.seed().map_err(fail)?;
                let d: Curve25519SeedBin<'_> = seed.as_be_bytes().map_err(fail)?;
                jwk.insert("d".to_owned(), URL_SAFE_NO_PAD.encode(d.as_ref()).into());
            }
            Pair::Rsa(pair, ..) => {
                let der: Pkcs8V1Der<'_> = pair.as_der().map_err(fail)?;
                jwk.extend(rsa_jwk(self.algorithm, der.as_ref())?);
            }
        }
        Ok(jwk)
    }

    /// The public JWK: `kty`, its numbers, `kid`, `use`, `alg`, and nothing else.
    #[must_use]
    pub const fn public_jwk(&self) -> &Map<String, Value> {
        &self.public
    }

    fn ec(algorithm: Algorithm, curve: &Curve, pair: EcdsaKeyPair) -> Result<Self, KeysError> {
        let numbers = ec_numbers(algorithm, curve.name, pair.public_key().as_ref())?;
        Ok(Self::of(algorithm, numbers, Pair::Ec(pair)))
    }

    fn ed(algorithm: Algorithm, pair: Ed25519KeyPair) -> Self {
        let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        Self::of(algorithm, json!({ "crv": "Ed25519", "kty": "OKP", "x": x }), Pair::Ed(pair))
    }

    fn rsa(
        algorithm: Algorithm,
        padding: &'static dyn RsaEncoding,
        pair: RsaKeyPair,
        jwk: &Map<String, Value>,
    ) -> Result<Self, KeysError> {
        if pair.public_modulus_len() < 256 {
            return Err(KeysError::Key { algorithm, reason: "found a modulus below 2048 bits" });
        }
        let benches = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let pair = Pair::Rsa(Arc::new(pair), padding, Arc::new(Semaphore::new(benches)));
        let numbers = json!({ "e": text(jwk, "e"), "kty": "RSA", "n": text(jwk, "n") });
        Ok(Self::of(algorithm, numbers, pair))
    }

    /// `numbers` holds the members that RFC 7638 section 3.2 hashes, and no others.
    fn of(algorithm: Algorithm, numbers: Value, pair: Pair) -> Self {
        let kid = thumbprint(&numbers);
        let mut public = match numbers {
            Value::Object(members) => members,
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => Map::new(),
        };
        public.insert("kid".to_owned(), kid.as_str().into());
        public.insert("use".to_owned(), "sig".into());
        public.insert("alg".to_owned(), algorithm.as_str().into());
        Self { kid, algorithm, public, pair }
    }
}

#[async_trait]
impl Signer for SigningKey {
    fn key_id(&self) -> &str {
        &self.kid
    }

    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    async fn sign(&self, input: &[u8]) -> Result<Vec<u8>, SignError> {
        let fail = |reason: &str| SignError { kid: self.kid.clone(), reason: reason.to_owned() };
        match &self.pair {
            Pair::Ec(pair) => pair
                .sign(&SystemRandom::new(), input)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| fail("the library refused")),
            Pair::Ed(pair) => pair
                .try_sign(input)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| fail("the library refused")),
            Pair::Rsa(pair, padding, benches) => {
                let (pair, padding, input) = (Arc::clone(pair), *padding, input.to_vec());
                let bench = Arc::clone(benches).acquire_owned().await;
                let bench = bench.map_err(|_| fail("the signing threads are gone"))?;
                let signed = tokio::task::spawn_blocking(move || {
                    let _bench = bench;
                    let mut signature = vec![0; pair.public_modulus_len()];
                    pair.sign(padding, &SystemRandom::new(), &input, &mut signature)
                        .map(|()| signature)
                });
                let signed = signed.await.map_err(|_| fail("the signing thread ended"))?;
                signed.map_err(|_| fail("the library refused"))
            }
        }
    }
}

/// The members of an EC key that RFC 7638 section 3.2 hashes, in its order.
pub(in crate::keys) fn ec_numbers(
    algorithm: Algorithm,
    curve: &str,
    point: &[u8],
) -> Result<Value, KeysError> {
    let halves = point.strip_prefix(&[4]).and_then(|rest| rest.split_at_checked(rest.len() / 2));
    let (x, y) = halves.ok_or(KeysError::Key { algorithm, reason: "the point is compressed" })?;
    Ok(json!({
        "crv": curve, "kty": "EC",
        "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
    }))
}

/// RFC 7638. The callers write the members in the order of its section 3.3, and no member needs escaping.
pub(in crate::keys) fn thumbprint(numbers: &Value) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, numbers.to_string().as_bytes()))
}

enum Kind {
    Ec(Curve),
    Ed,
    Rsa(&'static dyn RsaEncoding),
}

struct Curve {
    name: &'static str,
    signs: &'static EcdsaSigningAlgorithm,
}

impl Kind {
    /// RFC 7518 section 3.1: one curve, one hash and one padding per algorithm.
    fn of(algorithm: Algorithm) -> Self {
        let ec = |name, signs| Self::Ec(Curve { name, signs });
        match algorithm {
            Algorithm::ES256 => ec("P-256", &signature::ECDSA_P256_SHA256_FIXED_SIGNING),
            Algorithm::ES384 => ec("P-384", &signature::ECDSA_P384_SHA384_FIXED_SIGNING),
            Algorithm::ES512 => ec("P-521", &signature::ECDSA_P521_SHA512_FIXED_SIGNING),
            Algorithm::EdDSA => Self::Ed,
            Algorithm::RS256 => Self::Rsa(&signature::RSA_PKCS1_SHA256),
            Algorithm::RS384 => Self::Rsa(&signature::RSA_PKCS1_SHA384),
            Algorithm::RS512 => Self::Rsa(&signature::RSA_PKCS1_SHA512),
            Algorithm::PS256 => Self::Rsa(&signature::RSA_PSS_SHA256),
            Algorithm::PS384 => Self::Rsa(&signature::RSA_PSS_SHA384),
            Algorithm::PS512 => Self::Rsa(&signature::RSA_PSS_SHA512),
        }
    }
}

/// 2048 bits where a target insists on RSA (288 µs); whoever asks for the longer hashes gets 3072.
const fn rsa_size(algorithm: Algorithm) -> KeySize {
    match algorithm {
        Algorithm::RS384 | Algorithm::RS512 | Algorithm::PS384 | Algorithm::PS512 => {
            KeySize::Rsa3072
        }
        Algorithm::RS256
        | Algorithm::PS256
        | Algorithm::ES256
        | Algorithm::ES384
        | Algorithm::ES512
        | Algorithm::EdDSA => KeySize::Rsa2048,
    }
}

fn rsa_jwk(algorithm: Algorithm, pkcs8: &[u8]) -> Result<Map<String, Value>, KeysError> {
    let fail = |_| KeysError::Key { algorithm, reason: "the numbers of the key do not parse" };
    let jose = JoseRsaKeyPair::from_der(pkcs8).map_err(fail)?;
    Ok(numbers_only(jose.to_jwk_private_key().as_ref()))
}

/// The numbers of an RSA key (RFC 7518 section 6.3), without what josekit would interpret.
fn numbers_only(jwk: &Map<String, Value>) -> Map<String, Value> {
    const NUMBERS: [&str; 9] = ["kty", "n", "e", "d", "p", "q", "dp", "dq", "qi"];
    let members = jwk.iter().filter(|(name, _)| NUMBERS.contains(&name.as_str()));
    members.map(|(name, value)| (name.clone(), value.clone())).collect()
}

pub(in crate::keys) fn text<'a>(jwk: &'a Map<String, Value>, name: &str) -> &'a str {
    jwk.get(name).and_then(Value::as_str).unwrap_or_default()
}

pub(in crate::keys) fn member(
    algorithm: Algorithm,
    jwk: &Map<String, Value>,
    name: &str,
) -> Result<Zeroizing<Vec<u8>>, KeysError> {
    let fail = |_| KeysError::Key { algorithm, reason: "a member is not base64url" };
    URL_SAFE_NO_PAD.decode(text(jwk, name)).map(Zeroizing::new).map_err(fail)
}
