//! Issuers that sign anything: [`FakeIssuer`] needs no network, [`ServedIssuer`] serves its documents on loopback.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use cambio::{
    clock::Instant,
    grant::{IssuerName, Replay},
    subject::{
        Algorithm, Issuer, KeySource, KeySourceError, Preset, VerificationKey, issuers::IssuerUrl,
        jwk::KeySet, provider::BARE,
    },
};
use josekit::{
    jwk::{
        Jwk,
        alg::{ec::EcCurve, ed::EdCurve},
    },
    jws::{self, JwsSigner},
};
use serde_json::{Value, json};

use super::token::{AUDIENCE, TokenBuilder};

mod served;

pub(crate) use served::{Document, Reply, ServedIssuer};

/// A preset without opinions: `sub` is the stable id.
pub(crate) static PLAIN: Preset = Preset {
    name: "plain",
    claims: &[],
    pins: &[&["sub"]],
    organizations: &[],
    stable_ids: &[&["sub"]],
    replay: Replay::Once,
    folded: &[],
    dangerous: &[],
    ..BARE
};

/// A private key, made when the test runs.
#[derive(Debug)]
pub(crate) struct SigningKey {
    algorithm: Algorithm,
    jwk: Jwk,
    signer: Box<dyn JwsSigner>,
}

impl SigningKey {
    /// A new key for `algorithm`, called `kid`. RSA keys have 2048 bits.
    pub(crate) fn generate(algorithm: Algorithm, kid: &str) -> Self {
        use Algorithm::{ES256, ES384, ES512, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
        let jwk = match algorithm {
            RS256 | RS384 | RS512 | PS256 | PS384 | PS512 => Jwk::generate_rsa_key(2048),
            ES256 => Jwk::generate_ec_key(EcCurve::P256),
            ES384 => Jwk::generate_ec_key(EcCurve::P384),
            ES512 => Jwk::generate_ec_key(EcCurve::P521),
            EdDSA => Jwk::generate_ed_key(EdCurve::Ed25519),
        };
        let mut jwk = jwk.unwrap();
        jwk.set_key_id(kid);
        jwk.set_algorithm(algorithm.as_str());
        jwk.set_key_use("sig");
        let signer: Box<dyn JwsSigner> = match algorithm {
            RS256 => Box::new(jws::RS256.signer_from_jwk(&jwk).unwrap()),
            RS384 => Box::new(jws::RS384.signer_from_jwk(&jwk).unwrap()),
            RS512 => Box::new(jws::RS512.signer_from_jwk(&jwk).unwrap()),
            PS256 => Box::new(jws::PS256.signer_from_jwk(&jwk).unwrap()),
            PS384 => Box::new(jws::PS384.signer_from_jwk(&jwk).unwrap()),
            PS512 => Box::new(jws::PS512.signer_from_jwk(&jwk).unwrap()),
            ES256 => Box::new(jws::ES256.signer_from_jwk(&jwk).unwrap()),
            ES384 => Box::new(jws::ES384.signer_from_jwk(&jwk).unwrap()),
            ES512 => Box::new(jws::ES512.signer_from_jwk(&jwk).unwrap()),
            EdDSA => Box::new(jws::EdDSA.signer_from_jwk(&jwk).unwrap()),
        };
        Self { algorithm, jwk, signer }
    }

    /// What it signs with.
    pub(crate) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its name.
    pub(crate) fn kid(&self) -> &str {
        self.jwk.key_id().unwrap()
    }

    /// The JWS signature over `input`.
    pub(crate) fn sign(&self, input: &[u8]) -> Vec<u8> {
        self.signer.sign(input).unwrap()
    }

    /// The public half, with its `kid`, `alg` and `use`.
    pub(crate) fn public_jwk(&self) -> Value {
        let mut public = self.jwk.to_public_key().unwrap();
        public.set_key_id(self.kid());
        public.set_algorithm(self.algorithm.as_str());
        public.set_key_use("sig");
        Value::Object(public.as_ref().clone())
    }
}

/// An issuer that is known by its pinned keys: signs anything, serves nothing.
#[derive(Debug)]
pub(crate) struct FakeIssuer {
    url: String,
    keys: Vec<SigningKey>,
    issued: AtomicU64,
}

impl FakeIssuer {
    /// An issuer with one ES256 key, `key-1`: quick to make.
    pub(crate) fn at(url: &str) -> Self {
        Self::signing_with(url, Algorithm::ES256)
    }

    /// An issuer with one key for `algorithm`, `key-1`.
    pub(crate) fn signing_with(url: &str, algorithm: Algorithm) -> Self {
        let keys = vec![SigningKey::generate(algorithm, "key-1")];
        Self { url: url.to_owned(), keys, issued: AtomicU64::new(0) }
    }

    /// The exact `iss`.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Begins a valid token, signed by the newest key. Its `jti` is new.
    pub(crate) fn token(&self) -> TokenBuilder<'_> {
        self.token_by(self.newest_key())
    }

    /// Begins a valid token of this issuer, signed by any key.
    pub(crate) fn token_by<'i>(&self, key: &'i SigningKey) -> TokenBuilder<'i> {
        TokenBuilder::new(&self.url, key, self.issued.fetch_add(1, Ordering::SeqCst))
    }

    /// The key that signs.
    pub(crate) fn newest_key(&self) -> &SigningKey {
        self.keys.last().unwrap()
    }

    /// Publishes another key, `key-2`, `key-3` …, and signs with it. The old ones stay published.
    pub(crate) fn rotate(&mut self) {
        let kid = format!("key-{}", self.keys.len() + 1);
        self.keys.push(SigningKey::generate(self.newest_key().algorithm(), &kid));
    }

    /// The public key set.
    pub(crate) fn jwks(&self) -> Value {
        json!({"keys": self.keys.iter().map(SigningKey::public_jwk).collect::<Vec<_>>()})
    }

    /// The honest discovery document (OpenID Connect Discovery section 3).
    pub(crate) fn discovery(&self) -> Value {
        json!({
            "issuer": self.url,
            "jwks_uri": format!("{}/jwks", self.url),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [self.newest_key().algorithm().as_str()],
        })
    }

    /// The issuer as a configuration would have it: `name`, preset [`PLAIN`], all algorithms of its keys, audience
    /// [`AUDIENCE`], leeway 60 s, tokens of at most an hour, the present keys pinned. Change what the test is about.
    pub(crate) fn configured_as(&self, name: &str) -> Issuer {
        let url = IssuerUrl::dangerously_loopback(&self.url).or_else(|_| self.url.parse()).unwrap();
        Issuer {
            name: IssuerName::from(name),
            url,
            preset: &PLAIN,
            audience: AUDIENCE.to_owned(),
            algorithms: self.keys.iter().map(SigningKey::algorithm).collect(),
            leeway: Duration::from_mins(1),
            maximum_lifetime: Duration::from_hours(1),
            maximum_age: None,
            accepted_types: BTreeSet::new(),
            keys: Arc::new(FixedKeys::of(&self.jwks())),
            review: None,
        }
    }
}

/// A key source that holds one set for ever and counts the questions.
#[derive(Debug)]
pub(crate) struct FixedKeys {
    set: KeySet,
    asked: AtomicU64,
}

impl FixedKeys {
    /// The keys of `jwks`.
    pub(crate) fn of(jwks: &Value) -> Self {
        let set = KeySet::parse(jwks.to_string().as_bytes()).unwrap();
        Self { set, asked: AtomicU64::new(0) }
    }

    /// How often keys were looked for.
    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl KeySource for FixedKeys {
    async fn find(
        &self,
        kid: Option<&str>,
        _now: Instant,
    ) -> Result<Vec<Arc<VerificationKey>>, KeySourceError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.set.find(kid)
    }

    fn state(&self) -> cambio::subject::KeySourceState {
        cambio::subject::KeySourceState { keys: self.set.keys().len(), ..Default::default() }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn ask(url: &str, path: &str) -> String {
        let address = url.strip_prefix("http://").unwrap();
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_served_issuer_counts_fails_and_holds() {
        let served = ServedIssuer::start().await;
        let url = served.issuer.url().to_owned();
        let discovery = ask(&url, "/.well-known/openid-configuration").await;
        assert!(discovery.starts_with("HTTP/1.1 200 OK\r\n"), "{discovery}");
        assert!(discovery.contains(&served.jwks_url()), "{discovery}");

        served.serve(Document::Jwks, Reply::status(503).with_header("retry-after", "9"));
        let refused = ask(&url, "/jwks").await;
        assert!(refused.contains("503") && refused.contains("retry-after: 9"), "{refused}");

        served.serve(Document::Jwks, Reply::redirect("http://169.254.169.254/"));
        let away = ask(&url, "/jwks").await;
        assert!(
            away.contains("302") && away.contains("location: http://169.254.169.254/"),
            "{away}"
        );

        served.serve_honestly();
        served.hold();
        let waiting = ask(&url, "/jwks");
        tokio::pin!(waiting);
        tokio::select! {
            biased;
            answer = &mut waiting => panic!("answered while held: {answer}"),
            () = async { while served.fetches(Document::Jwks) < 3 { tokio::task::yield_now().await; } } => {}
        }
        served.release();
        assert!(waiting.await.contains("\"kid\":\"key-1\""));
        assert_eq!((served.fetches(Document::Discovery), served.fetches(Document::Jwks)), (1, 3));
    }
}
