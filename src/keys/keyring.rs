//! What serves: one snapshot of the ring, swapped whole. Readers never wait.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use super::{
    KeyRecord, KeysError, Phase, Purpose, Signer, authority::AuthorityKey, certificate, ring::Ring,
    schedule::Schedule, schedules::Schedules,
};
use crate::{
    clock::Instant,
    grant::TargetName,
    secret::Secret,
    subject::{Algorithm, VerificationKey, jwk::KeySet},
};

/// The `typ` of a token of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TokenType {
    /// `at+jwt`: an access token by RFC 9068 section 2.1.
    AccessToken,
    /// `JWT`: for targets that refuse any other (cloud STSs, package registries).
    Jwt,
}

impl TokenType {
    /// The header's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AccessToken => "at+jwt",
            Self::Jwt => "JWT",
        }
    }
}

/// The key that signs now.
#[derive(Clone, Debug)]
pub struct Active {
    signer: Arc<dyn Signer>,
    window: Duration,
    headers: Headers,
}

impl Active {
    /// Signs.
    #[must_use]
    pub fn signer(&self) -> &Arc<dyn Signer> {
        &self.signer
    }

    /// INVARIANT(never-outlive): the longest lifetime of a token signed now; its key stays published that much longer.
    #[must_use]
    pub const fn window(&self) -> Duration {
        self.window
    }

    /// The JWS header, encoded once per key: the first segment of every token.
    #[must_use]
    pub fn header(&self, typ: TokenType) -> &str {
        self.headers.of_type(typ)
    }
}

/// The CA key of a target that signs now.
#[derive(Clone, Debug)]
pub struct ActiveAuthority {
    /// Signs.
    pub key: Arc<AuthorityKey>,
    /// INVARIANT(never-outlive): the longest lifetime of a certificate signed now; its CA stays published that much longer.
    pub window: Duration,
}

/// Our JWKS document (RFC 7517 section 5), or the trust bundle of a target (RFC 7468).
#[derive(Clone, Debug)]
pub struct Published {
    /// The document.
    pub document: Arc<str>,
    /// `Cache-Control: max-age`; zero means that nothing may be cached.
    pub max_age: Duration,
}

/// A key that a token of ours may have been signed with.
#[derive(Clone, Debug)]
pub(in crate::keys) struct Known {
    pub(in crate::keys) typ: TokenType,
    pub(in crate::keys) algorithm: Algorithm,
    pub(in crate::keys) key: Arc<VerificationKey>,
}

/// Who signs and what is published.
#[derive(Debug)]
pub struct Keyring {
    schedules: Schedules,
    current: ArcSwap<Snapshot>,
}

#[derive(Debug)]
struct Snapshot {
    ring: Ring,
    active: BTreeMap<Algorithm, Active>,
    document: Arc<str>,
    // First segment of a token → the key that must have signed it. Whoever wrote another header is not us.
    known: HashMap<String, Known>,
    authorities: BTreeMap<TargetName, ActiveAuthority>,
    bundles: BTreeMap<TargetName, String>,
}

#[derive(Clone, Debug)]
struct Headers {
    access_token: Arc<str>,
    jwt: Arc<str>,
}

impl Keyring {
    /// What serves `ring`.
    ///
    /// # Errors
    /// Its public halves are not a JWK Set that we would accept from others.
    pub fn of(ring: Ring, schedules: impl Into<Schedules>) -> Result<Self, KeysError> {
        let schedules = schedules.into();
        Ok(Self { schedules, current: ArcSwap::from_pointee(Snapshot::of(ring)?) })
    }

    /// The key that signs with `algorithm` now; none while issuing with it is paused.
    #[must_use]
    pub fn active(&self, algorithm: Algorithm) -> Option<Active> {
        self.current.load().active.get(&algorithm).cloned()
    }

    /// The signer of what was prepared under `kid`, if it may still sign: active, or retired since. Never a withdrawn one.
    #[must_use]
    pub fn find(&self, kid: &str) -> Option<Arc<dyn Signer>> {
        let current = self.current.load();
        current.ring.record(kid).filter(|record| may_sign(record))?;
        current.ring.token_key(kid).map(|key| Arc::clone(key) as Arc<dyn Signer>)
    }

    /// The CA key that signs certificates of `target` now; none while issuing them is paused.
    #[must_use]
    pub fn authority(&self, target: &TargetName) -> Option<ActiveAuthority> {
        self.current.load().authorities.get(target).cloned()
    }

    /// The CA key `kid`, for what was prepared under it: active, or retired since. Never a withdrawn one.
    #[must_use]
    pub fn find_authority(&self, kid: &str) -> Option<Arc<AuthorityKey>> {
        let current = self.current.load();
        current.ring.record(kid).filter(|record| may_sign(record))?;
        current.ring.authority_key(kid).cloned()
    }

    /// INVARIANT(publish-before-sign): the trust bundle of `target`, every CA whose certificates it must accept now or soon,
    /// and for how long it may be cached. `None`: the target gets no certificates.
    #[must_use]
    pub fn bundle(&self, target: &TargetName, now: Instant) -> Option<Published> {
        let schedule = self.schedules.certificates().get(target)?;
        let current = self.current.load();
        let bundle = current.bundles.get(target).map(String::as_str).unwrap_or_default();
        Some(Published {
            document: bundle.into(),
            max_age: schedule.cache_for(current.ring.records(), now),
        })
    }

    /// Whether `kid` was withdrawn and something that it signed may still be about.
    #[must_use]
    pub fn withdrawn(&self, kid: &str) -> bool {
        let current = self.current.load();
        current.ring.record(kid).is_some_and(|record| record.phase == Phase::Withdrawn)
    }

    /// The JWKS document, and for how long it may be cached.
    #[must_use]
    pub fn published(&self, now: Instant) -> Published {
        let current = self.current.load();
        Published {
            document: Arc::clone(&current.document),
            max_age: self.schedules.tokens().cache_for(current.ring.records(), now),
        }
    }

    /// The waits of the keys for tokens.
    #[must_use]
    pub const fn schedule(&self) -> &Schedule {
        self.schedules.tokens()
    }

    /// The waits of all keys.
    #[must_use]
    pub const fn schedules(&self) -> &Schedules {
        &self.schedules
    }

    /// The instance's environment, to which its keys are bound.
    #[must_use]
    pub fn environment(&self) -> String {
        self.current.load().ring.context().environment
    }

    /// The epoch that serves.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.current.load().ring.epoch()
    }

    /// Every key's public record, for `cambio keys list`.
    #[must_use]
    pub fn records(&self) -> Vec<KeyRecord> {
        self.current.load().ring.records().to_vec()
    }

    /// Whether every algorithm in use has a key that signs tokens. A target whose CA pauses is its own trouble.
    #[must_use]
    pub fn ready(&self) -> bool {
        let current = self.current.load();
        self.schedule().algorithms().iter().all(|algorithm| current.active.contains_key(algorithm))
    }

    /// The seed of the ledger's log key.
    #[must_use]
    pub fn log_seed(&self) -> Secret {
        self.current.load().ring.log_seed().clone()
    }

    pub(in crate::keys) fn ring(&self) -> Ring {
        self.current.load().ring.clone()
    }

    pub(in crate::keys) fn serve(&self, ring: Ring) -> Result<(), KeysError> {
        self.current.store(Arc::new(Snapshot::of(ring)?));
        Ok(())
    }

    /// The key whose header is exactly `header`, if it is active or retired.
    pub(in crate::keys) fn known(&self, header: &str) -> Option<Known> {
        self.current.load().known.get(header).cloned()
    }

    /// The keys that tokens of ours may have been signed with, by `kid`.
    pub(in crate::keys) fn verifying(&self, kid: Option<&str>) -> Vec<Arc<VerificationKey>> {
        let current = self.current.load();
        let wanted = |known: &&Known| {
            known.typ == TokenType::AccessToken
                && kid.is_none_or(|kid| known.key.kid() == Some(kid))
        };
        current.known.values().filter(wanted).map(|known| Arc::clone(&known.key)).collect()
    }
}

impl Snapshot {
    fn of(ring: Ring) -> Result<Self, KeysError> {
        let mut active = BTreeMap::new();
        let mut known = HashMap::new();
        let mut published = Vec::new();
        let showing = |record: &&KeyRecord| record.phase != Phase::Withdrawn;
        for record in ring.records().iter().filter(showing) {
            // A CA key is never published as a JWK: nobody may take its signature for a token's.
            let Some(key) = ring.token_key(&record.kid) else { continue };
            published.push(Value::Object(key.public_jwk().clone()));
            if record.phase == Phase::Prepared {
                continue;
            }
            let headers = Headers::of(record);
            let verifies = verification_key(&record.kid, key.public_jwk())?;
            for typ in [TokenType::AccessToken, TokenType::Jwt] {
                let key = Arc::clone(&verifies);
                let algorithm = record.algorithm;
                known.insert(headers.of_type(typ).to_owned(), Known { typ, algorithm, key });
            }
            if record.phase == Phase::Active {
                let signer = Arc::clone(key) as Arc<dyn Signer>;
                active.insert(record.algorithm, Active { signer, window: record.window, headers });
            }
        }
        let document = json!({ "keys": published }).to_string().into();
        let (authorities, bundles) = (authorities(&ring), bundles(&ring)?);
        Ok(Self { ring, active, document, known, authorities, bundles })
    }
}

const fn may_sign(record: &KeyRecord) -> bool {
    matches!(record.phase, Phase::Active | Phase::Retired)
}

/// Every record that is for certificates and was not withdrawn, with its target and its key.
fn certifying(ring: &Ring) -> impl Iterator<Item = (&KeyRecord, &TargetName, &Arc<AuthorityKey>)> {
    ring.records().iter().filter_map(|record| match &record.purpose {
        Purpose::Tokens => None,
        Purpose::Certificates(target) => {
            ring.authority_key(&record.kid).map(|key| (record, target, key))
        }
    })
}

fn authorities(ring: &Ring) -> BTreeMap<TargetName, ActiveAuthority> {
    certifying(ring)
        .filter(|(record, ..)| record.phase == Phase::Active)
        .map(|(record, target, key)| {
            (target.clone(), ActiveAuthority { key: Arc::clone(key), window: record.window })
        })
        .collect()
}

fn bundles(ring: &Ring) -> Result<BTreeMap<TargetName, String>, KeysError> {
    let mut bundles: BTreeMap<TargetName, String> = BTreeMap::new();
    for (_, target, key) in certifying(ring) {
        let text = certificate::pem(key.certificate());
        let text = text.map_err(|error| KeysError::Unsound(error.to_string()))?;
        bundles.entry(target.clone()).or_default().push_str(&text);
    }
    Ok(bundles)
}

/// Our own key, read as strictly as a stranger's: what we publish must be what we would accept.
fn verification_key(
    kid: &str,
    public: &Map<String, Value>,
) -> Result<Arc<VerificationKey>, KeysError> {
    let unsound = |reason: String| KeysError::Unsound(format!("key `{kid}`: {reason}"));
    let set = KeySet::parse(json!({ "keys": [public] }).to_string().as_bytes());
    let set = set.map_err(|error| unsound(error.to_string()))?;
    let keys = set.find(Some(kid)).map_err(|error| unsound(error.to_string()))?;
    keys.into_iter().next().ok_or_else(|| unsound("it can't be read back".to_owned()))
}

impl Headers {
    fn of(record: &KeyRecord) -> Self {
        let header = |typ: TokenType| {
            let header = json!({
                "alg": record.algorithm.as_str(), "typ": typ.as_str(), "kid": record.kid,
            });
            URL_SAFE_NO_PAD.encode(header.to_string()).into()
        };
        Self { access_token: header(TokenType::AccessToken), jwt: header(TokenType::Jwt) }
    }

    fn of_type(&self, typ: TokenType) -> &str {
        match typ {
            TokenType::AccessToken => &self.access_token,
            TokenType::Jwt => &self.jwt,
        }
    }
}
