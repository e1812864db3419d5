//! `keys`: how our signing keys are protected, and how they rotate.

use std::{path::PathBuf, time::Duration};

use super::{
    files::Need,
    reader::{Reader, length, text},
    targets::TargetConfig,
};
use crate::{
    keys::{
        Purpose, authority,
        schedule::{Schedule, ScheduleError, Terms},
        schedules::Schedules,
    },
    subject::{Algorithm, MAXIMUM_LEEWAY},
    yaml::{Field, Fields, Node, Shape},
};

/// Our signing keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysConfig {
    /// What closes them at rest.
    pub protector: ProtectorConfig,
    /// How long one key signs.
    pub sign_for: Duration,
    /// How long a verifier may hold our key set, whatever its headers say.
    pub verifier_cache: Duration,
    /// The `max-age` of our published key set.
    pub jwks_max_age: Duration,
}

/// Where the key-encryption key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProtectorConfig {
    /// A file of random bytes.
    KeyFile(PathBuf),
    /// A file with a passphrase, from which the key is derived.
    PassphraseFile(PathBuf),
}

pub(super) static KEYS: Fields = Fields {
    what: "the signing keys",
    fields: &[
        Field::optional(
            "key_file",
            "The key-encryption key, in a file of mode 0600 or 0400. Either this or `passphrase_file`",
            Shape::Secret,
        ),
        Field::optional(
            "passphrase_file",
            "A passphrase to derive the key-encryption key from, in a file of mode 0600 or 0400",
            Shape::Secret,
        ),
        Field::optional(
            "sign_for",
            "How long one key signs before the next. From `1h` to `365d`; default: `30d`",
            Shape::Duration,
        ),
        Field::optional(
            "verifier_cache",
            "How long verifiers may hold our key set, whatever its headers say: a new key is published for at least so long before it signs. From `1m` to `30d`; default: `24h`",
            Shape::Duration,
        ),
        Field::optional(
            "jwks_max_age",
            "The `max-age` of our published key set. From `1m` to `24h`; default: `5m`",
            Shape::Duration,
        ),
    ],
};

pub(super) fn read(reader: &mut Reader<'_>) -> Option<KeysConfig> {
    let map = reader.section("keys")?;
    let day = Duration::from_hours(24);
    let sign_for = reader.duration(
        Some(map),
        "sign_for",
        day.saturating_mul(30),
        Duration::from_hours(1)..=day.saturating_mul(365),
        "rotate often enough to be sure that it works",
    );
    let verifier_cache = reader.duration(
        Some(map),
        "verifier_cache",
        day,
        Duration::from_mins(1)..=day.saturating_mul(30),
        "`24h` fits most verifiers",
    );
    let jwks_max_age = reader.duration(
        Some(map),
        "jwks_max_age",
        Duration::from_mins(5),
        Duration::from_mins(1)..=day,
        "verifiers hold a withdrawn key for as long",
    );
    let protector = protector(reader, map);
    Some(KeysConfig { protector: protector?, sign_for, verifier_cache, jwks_max_age })
}

fn protector(reader: &mut Reader<'_>, map: &Node) -> Option<ProtectorConfig> {
    let key = reader.path(map, "key_file", Need::Secret).map(ProtectorConfig::KeyFile);
    let passphrase =
        reader.path(map, "passphrase_file", Need::Secret).map(ProtectorConfig::PassphraseFile);
    if map.find("key_file").is_some() && map.find("passphrase_file").is_some() {
        reader.refuse(
            map.place,
            "`keys` has both `key_file` and `passphrase_file`, expected one of them",
            "remove the one that the key ring was not closed with",
        );
        return None;
    }
    // A key that is no setting has been told of: most likely it was meant as one of the two.
    let known = |name: &str| KEYS.fields.iter().any(|field| field.name == name);
    let none = map.find("key_file").is_none() && map.find("passphrase_file").is_none();
    if none && map.entries().iter().all(|(name, ..)| known(name)) {
        let message = "`keys` has neither `key_file` nor `passphrase_file`";
        let hint = "a key file: `cambio keys kek > FILE`, mode 0600";
        reader.refuse(map.place, message, hint);
    }
    key.or(passphrase)
}

/// INVARIANT(publish-before-sign): the waits that follow from the configuration must not contradict each other.
pub(super) fn rotates(reader: &mut Reader<'_>, keys: &KeysConfig, targets: &[TargetConfig]) {
    if targets.is_empty() {
        return;
    }
    authorities_rotate(reader, keys, targets);
    let Some(map) = reader.section("keys") else { return };
    let Err(error) = Schedule::derive(keys.terms(targets)) else { return };
    let place = map.find("sign_for").or_else(|| map.find("verifier_cache"));
    let place = place.map_or(map.place, |at| at.place);
    match error {
        ScheduleError::SignsTooShort { sign_for, publish_before } => {
            let (sign_for, before) = (length(sign_for), length(publish_before));
            let message = format!(
                "a key signs for `{sign_for}`, expected more than the `{before}` for which its successor is announced"
            );
            reader.refuse(
                place,
                message,
                "raise `sign_for`, or lower `verifier_cache` if no verifier caches for so long",
            );
        }
        error @ (ScheduleError::NoLifetime
        | ScheduleError::NoAlgorithm
        | ScheduleError::TooLong { .. }) => {
            reader.refuse(place, error.to_string(), "see docs/configuration.md");
        }
    }
}

/// The same for the CA of each target that gets certificates.
fn authorities_rotate(reader: &mut Reader<'_>, keys: &KeysConfig, targets: &[TargetConfig]) {
    let Some(section) = reader.section("targets") else { return };
    for target in targets {
        let Some((purpose, terms)) = keys.authority_terms(target) else { continue };
        let Err(error) = Schedule::of(purpose, terms) else { continue };
        let named =
            |node: &&Node| text(node, "name").is_some_and(|(it, _)| it == target.name.as_str());
        let Some(node) = section.elements().iter().find(named) else { continue };
        let place = node.find("sign_for").or_else(|| node.find("bundle_cache"));
        let place = place.map_or(node.place, |at| at.place);
        let hint =
            "raise `sign_for`, or let servers fetch the bundle more often and lower `bundle_cache`";
        reader.refuse(place, error.to_string(), hint);
    }
}

impl KeysConfig {
    /// The waits of all our keys, for `targets`.
    ///
    /// # Errors
    /// They contradict each other; a configuration that was read has none that do.
    pub fn schedules(&self, targets: &[TargetConfig]) -> Result<Schedules, ScheduleError> {
        let certificates = targets.iter().filter_map(|target| self.authority_terms(target));
        let certificates = certificates.map(|(purpose, terms)| Schedule::of(purpose, terms));
        let certificates: Vec<_> = certificates.collect::<Result<_, _>>()?;
        Ok(Schedules::of(Schedule::derive(self.terms(targets))?, certificates))
    }

    /// What the rotation of the CA of `target` is derived from, if it gets certificates.
    #[must_use]
    pub fn authority_terms(&self, target: &TargetConfig) -> Option<(Purpose, Terms)> {
        let x509 = target.kind.x509()?;
        let terms = Terms {
            algorithms: [authority::ALGORITHM].into(),
            sign_for: x509.sign_for,
            jwks_max_age: self.jwks_max_age,
            longest_lifetime: target.ceiling,
            leeway: MAXIMUM_LEEWAY,
            verifier_cache: x509.bundle_cache,
            replica_delay: Terms::REPLICA_DELAY,
        };
        Some((Purpose::Certificates(target.name.clone()), terms))
    }

    /// What the rotation is derived from: these settings, and what `targets` sign with and for how long.
    #[must_use]
    pub fn terms(&self, targets: &[TargetConfig]) -> Terms {
        let signed = || targets.iter().filter_map(|target| Some((target, target.kind.jwt()?)));
        let mut algorithms: Vec<_> = signed().map(|(_, jwt)| jwt.algorithm).collect();
        let longest = signed().map(|(target, _)| target.ceiling).max();
        // Without a target that is signed for there is one key all the same: the ring also holds the log's.
        if algorithms.is_empty() {
            algorithms.push(Algorithm::ES256);
        }
        Terms {
            algorithms: algorithms.into_iter().collect(),
            sign_for: self.sign_for,
            jwks_max_age: self.jwks_max_age,
            longest_lifetime: longest.unwrap_or(Duration::from_hours(1)),
            leeway: MAXIMUM_LEEWAY,
            verifier_cache: self.verifier_cache,
            replica_delay: Terms::REPLICA_DELAY,
        }
    }
}
