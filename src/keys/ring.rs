//! The whole state of our keys as a value: records, private halves, the ledger's log key, the epoch. Rests only sealed.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use aws_lc_rs::{
    encoding::{AsBigEndian, Curve25519SeedBin},
    signature::{Ed25519KeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    KeyRecord, KeysError, Phase, Purpose, Signer,
    authority::{AUTHORITY_USE, AuthorityKey},
    schedule::{self, Schedule, Step},
    signing::SigningKey,
};
use crate::{
    clock::Instant,
    grant::TargetName,
    protector::{KeyContext, KeyProtector},
    secret::Secret,
    subject::Algorithm,
};

/// `use` of the log key's entry in the JWK Set (RFC 7517 section 4.2 allows others than `sig`): never published.
const LOG_KEY_USE: &str = "cambio-log";

/// Our keys at one epoch. A value: a change makes another one.
#[derive(Clone)]
pub struct Ring {
    name: String,
    environment: String,
    epoch: u64,
    records: Vec<KeyRecord>,
    keys: BTreeMap<String, Key>,
    log_seed: Secret,
}

/// A private key, by what it is able to sign.
#[derive(Clone, Debug)]
pub enum Key {
    /// Tokens.
    Token(Arc<SigningKey>),
    /// Certificates.
    Authority(Arc<AuthorityKey>),
}

impl Key {
    /// Its `kid`.
    #[must_use]
    pub fn key_id(&self) -> &str {
        match self {
            Self::Token(key) => key.key_id(),
            Self::Authority(key) => key.key_id(),
        }
    }

    fn to_private_jwk(&self) -> Result<Map<String, Value>, KeysError> {
        match self {
            Self::Token(key) => key.to_private_jwk(),
            Self::Authority(key) => key.to_private_jwk(),
        }
    }

    /// The key in `jwk`, which is for what `record` says.
    fn from_private_jwk(record: &KeyRecord, jwk: &Map<String, Value>) -> Result<Self, KeysError> {
        let is_authority = jwk.get("use").and_then(Value::as_str) == Some(AUTHORITY_USE);
        match (&record.purpose, is_authority) {
            (Purpose::Tokens, false) => {
                let key = SigningKey::from_private_jwk(record.algorithm, jwk)?;
                Ok(Self::Token(Arc::new(key)))
            }
            (Purpose::Certificates(_), true) => {
                Ok(Self::Authority(Arc::new(AuthorityKey::from_private_jwk(jwk)?)))
            }
            (Purpose::Tokens, true) | (Purpose::Certificates(_), false) => Err(KeysError::Unsound(
                format!("key `{}` is for another purpose than its record says", record.kid),
            )),
        }
    }
}

/// INVARIANT(secrets-do-not-print): names, phases and the epoch (threat K12).
impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("name", &self.name)
            .field("environment", &self.environment)
            .field("epoch", &self.epoch)
            .field("records", &self.records)
            .finish_non_exhaustive()
    }
}

impl Ring {
    /// A ring without signing keys, at epoch 0, with a new log key. `name` is the ledger's origin and `signing`.
    ///
    /// # Errors
    /// The library could not make the log key.
    pub fn found(name: &str, environment: &str) -> Result<Self, KeysError> {
        let fail =
            |_| KeysError::Key { algorithm: Algorithm::EdDSA, reason: "the library made none" };
        let seed = Ed25519KeyPair::generate().and_then(|pair| pair.seed()).map_err(fail)?;
        let seed: Curve25519SeedBin<'_> = seed.as_be_bytes().map_err(fail)?;
        Ok(Self {
            name: name.to_owned(),
            environment: environment.to_owned(),
            epoch: 0,
            records: Vec::new(),
            keys: BTreeMap::new(),
            log_seed: Secret::new(seed.as_ref().to_vec()),
        })
    }

    /// The ring after `step`, one epoch on. `fresh` is the key that a `Prepare` publishes.
    ///
    /// # Errors
    /// The step does not fit the ring; see [`schedule::after`].
    pub fn apply(
        &self,
        step: &Step,
        fresh: Option<Key>,
        schedule: &Schedule,
        now: Instant,
    ) -> Result<Self, KeysError> {
        let kid = fresh.as_ref().map(Key::key_id);
        let records = schedule::after(&self.records, step, kid, schedule, now)?;
        let mut keys = self.keys.clone();
        keys.extend(fresh.map(|key| (key.key_id().to_owned(), key)));
        let lives = |kid: &str| {
            records.iter().any(|record| record.kid == kid && record.phase != Phase::Withdrawn)
        };
        keys.retain(|kid, _| lives(kid));
        Ok(Self { epoch: self.epoch.saturating_add(1), records, keys, ..self.clone() })
    }

    /// The same, one epoch on: what was sealed of it before is the newest no more.
    #[must_use]
    pub fn again(&self) -> Self {
        Self { epoch: self.epoch.saturating_add(1), ..self.clone() }
    }

    /// The sealed form: an encrypted JWK Set (RFC 7517 section 7), bound to ring, epoch and environment.
    ///
    /// # Errors
    /// The protector does not close it.
    pub async fn seal(&self, protector: &dyn KeyProtector) -> Result<String, KeysError> {
        let plain = self.to_jwk_set()?;
        Ok(protector.wrap(&plain, &self.context()).await?)
    }

    /// The ring in `sealed`, which must have been sealed as `context`.
    ///
    /// # Errors
    /// It does not open in this context (threats K02, K03), or what is inside is not a sound ring.
    pub async fn open(
        sealed: &str,
        context: &KeyContext,
        protector: &dyn KeyProtector,
    ) -> Result<Self, KeysError> {
        let plain = protector.unwrap(sealed, context).await?;
        Self::from_jwk_set(&plain, context)
    }

    /// What the sealed form is bound to.
    #[must_use]
    pub fn context(&self) -> KeyContext {
        KeyContext {
            ring: self.name.clone(),
            epoch: self.epoch,
            environment: self.environment.clone(),
        }
    }

    /// How many changes made it. The newest key entry of the ledger has the same.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Every key's public record, withdrawn ones included, in the order of preparation.
    #[must_use]
    pub fn records(&self) -> &[KeyRecord] {
        &self.records
    }

    /// The record of `kid`.
    #[must_use]
    pub fn record(&self, kid: &str) -> Option<&KeyRecord> {
        self.records.iter().find(|record| record.kid == kid)
    }

    /// The key `kid`, unless it was withdrawn.
    #[must_use]
    pub fn key(&self, kid: &str) -> Option<&Key> {
        self.keys.get(kid)
    }

    /// The key `kid`, if it is one that signs tokens.
    #[must_use]
    pub fn token_key(&self, kid: &str) -> Option<&Arc<SigningKey>> {
        match self.keys.get(kid)? {
            Key::Token(key) => Some(key),
            Key::Authority(_) => None,
        }
    }

    /// The key `kid`, if it is one that signs certificates.
    #[must_use]
    pub fn authority_key(&self, kid: &str) -> Option<&Arc<AuthorityKey>> {
        match self.keys.get(kid)? {
            Key::Authority(key) => Some(key),
            Key::Token(_) => None,
        }
    }

    /// The seed of the ledger's log key: 32 bytes, Ed25519 (RFC 8032 section 5.1.5).
    #[must_use]
    pub const fn log_seed(&self) -> &Secret {
        &self.log_seed
    }

    fn to_jwk_set(&self) -> Result<Secret, KeysError> {
        let mut keys = Vec::with_capacity(self.keys.len().saturating_add(1));
        for key in self.keys.values() {
            keys.push(Value::Object(key.to_private_jwk()?));
        }
        keys.push(log_jwk(&self.log_seed)?);
        let records: Vec<_> = self.records.iter().map(StoredRecord::of).collect();
        let set = json!({ "keys": keys, "cambio": { "version": 1, "records": records } });
        Ok(Secret::from(set.to_string()))
    }

    fn from_jwk_set(plain: &Secret, context: &KeyContext) -> Result<Self, KeysError> {
        let unsound = |reason: &str| KeysError::Unsound(reason.to_owned());
        let text = plain.reveal_text().ok_or_else(|| unsound("it is not UTF-8"))?;
        // The text of serde's error would quote key material.
        let set: StoredSet =
            serde_json::from_str(text).map_err(|_| unsound("it is not our JWK Set"))?;
        if set.cambio.version != 1 {
            return Err(KeysError::Unsound(format!(
                "found version {}, expected 1",
                set.cambio.version
            )));
        }
        let records: Vec<_> = set.cambio.records.into_iter().map(StoredRecord::record).collect();
        let mut keys = BTreeMap::new();
        let mut log_seed = None;
        for jwk in set.keys {
            let member = |name: &str| jwk.get(name).and_then(Value::as_str).unwrap_or_default();
            if member("use") == LOG_KEY_USE {
                let seed = log_seed_of(member("d"), member("x"))?;
                if log_seed.replace(seed).is_some() {
                    return Err(unsound("it holds two log keys"));
                }
                continue;
            }
            let record = records.iter().find(|record| record.kid == member("kid"));
            let record = record.ok_or_else(|| unsound("a key has no record"))?;
            let key = Key::from_private_jwk(record, &jwk)?;
            if keys.insert(record.kid.clone(), key).is_some() {
                return Err(unsound("a key stands there twice"));
            }
        }
        check(&records, &keys)?;
        Ok(Self {
            name: context.ring.clone(),
            environment: context.environment.clone(),
            epoch: context.epoch,
            records,
            keys,
            log_seed: log_seed.ok_or_else(|| unsound("it holds no log key"))?,
        })
    }
}

/// Every record that is not withdrawn has its key, names are unique, and no algorithm has two signers for one purpose.
fn check(records: &[KeyRecord], keys: &BTreeMap<String, Key>) -> Result<(), KeysError> {
    for (place, record) in records.iter().enumerate() {
        let unsound = |reason| Err(KeysError::Unsound(format!("key `{}` {reason}", record.kid)));
        if keys.contains_key(&record.kid) == (record.phase == Phase::Withdrawn) {
            return unsound("has a record and no private half, or is withdrawn and has one");
        }
        for earlier in records.iter().take(place) {
            if earlier.kid == record.kid {
                return unsound("has two records");
            }
            let both_sign = earlier.phase == Phase::Active && record.phase == Phase::Active;
            let alike = earlier.purpose == record.purpose && earlier.algorithm == record.algorithm;
            if both_sign && alike {
                return unsound("is the second that signs with its algorithm");
            }
        }
    }
    Ok(())
}

fn log_jwk(seed: &Secret) -> Result<Value, KeysError> {
    let fail = |_| KeysError::Key { algorithm: Algorithm::EdDSA, reason: "the log seed is no key" };
    let pair = Ed25519KeyPair::from_seed_unchecked(seed.reveal()).map_err(fail)?;
    Ok(json!({
        "kty": "OKP", "crv": "Ed25519", "use": LOG_KEY_USE,
        "x": URL_SAFE_NO_PAD.encode(pair.public_key().as_ref()),
        "d": URL_SAFE_NO_PAD.encode(seed.reveal()),
    }))
}

fn log_seed_of(d: &str, x: &str) -> Result<Secret, KeysError> {
    let unsound = || KeysError::Unsound("the log key is no Ed25519 key".to_owned());
    let seed = URL_SAFE_NO_PAD.decode(d).map(Secret::new).map_err(|_| unsound())?;
    let public = URL_SAFE_NO_PAD.decode(x).map_err(|_| unsound())?;
    Ed25519KeyPair::from_seed_and_public_key(seed.reveal(), &public).map_err(|_| unsound())?;
    Ok(seed)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredSet {
    keys: Vec<Map<String, Value>>,
    cambio: StoredState,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredState {
    version: u32,
    records: Vec<StoredRecord>,
}

/// A record as it rests: instants and lifetimes in milliseconds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredRecord {
    kid: String,
    /// The target whose certificates it signs; absent for tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificates: Option<TargetName>,
    algorithm: Algorithm,
    phase: Phase,
    prepared_at: u64,
    promoted_at: Option<u64>,
    retired_at: Option<u64>,
    window: u64,
    first: bool,
}

impl StoredRecord {
    fn of(record: &KeyRecord) -> Self {
        Self {
            kid: record.kid.clone(),
            certificates: match &record.purpose {
                Purpose::Tokens => None,
                Purpose::Certificates(target) => Some(target.clone()),
            },
            algorithm: record.algorithm,
            phase: record.phase,
            prepared_at: record.prepared_at.milliseconds(),
            promoted_at: record.promoted_at.map(Instant::milliseconds),
            retired_at: record.retired_at.map(Instant::milliseconds),
            window: u64::try_from(record.window.as_millis()).unwrap_or(u64::MAX),
            first: record.first,
        }
    }

    fn record(self) -> KeyRecord {
        KeyRecord {
            kid: self.kid,
            purpose: self.certificates.map_or(Purpose::Tokens, Purpose::Certificates),
            algorithm: self.algorithm,
            phase: self.phase,
            prepared_at: Instant::from_milliseconds(self.prepared_at),
            promoted_at: self.promoted_at.map(Instant::from_milliseconds),
            retired_at: self.retired_at.map(Instant::from_milliseconds),
            window: Duration::from_millis(self.window),
            first: self.first,
        }
    }
}
