//! From a configuration to what exchanges decide by: at start, and again for each reload.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use serde_json::Value;
use thiserror::Error;
use tokio_util::task::TaskTracker;

use crate::{
    app::Mode,
    chance::{Chance, SystemChance},
    clock::{Clock, Instant},
    config::{Config, IssuerConfig, KeysFrom},
    exchange::Scene,
    grant::IssuerName,
    keys::{keyring::Keyring, own::OwnKeys},
    ledger::{Hash, entry::hex, reader::LedgerReader},
    mint::{Minters, github::held::HeldTokens},
    policy::{self, Context, LoadError, PolicySet, Source, load::Trust},
    sandbox,
    subject::{
        Issuer, Issuers, KeySource, TokenReview,
        key_source::{
            discovered::{Discovered, DiscoveredConfig, KnownKeys},
            fetch::Outbound,
            pinned::Pinned,
        },
        review::{ReviewTerms, ReviewWatch},
        verify::Verifier,
    },
};

/// Why a configuration makes no scene. Whatever serves goes on serving.
#[derive(Debug, Error)]
pub enum SceneError {
    /// An issuer can't be set up.
    #[error("issuer `{issuer}`: {reason}")]
    Issuer {
        /// Which.
        issuer: String,
        /// Why.
        reason: String,
    },
    /// A target can't be served.
    #[error("target: {0}")]
    Target(String),
    /// The policies do not load.
    #[error("{0}")]
    Policies(#[from] LoadError),
}

/// What a scene is made with, besides the configuration.
#[derive(Clone, Debug)]
pub struct Means {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub chance: Arc<dyn Chance>,
    /// Our signing keys.
    pub keyring: Arc<Keyring>,
    /// Background fetches run here.
    pub tasks: TaskTracker,
    /// Trust roots and resolver.
    pub outbound: Arc<Outbound>,
    /// The keys that issuers published, over reloads.
    pub known: KnownKeys,
    /// Tokens of GitHub that this process can still end, over reloads.
    pub held: Arc<HeldTokens>,
    /// Is told of every question to an API server about a token.
    pub reviews: Arc<dyn ReviewWatch>,
    /// Whether plain http on loopback and marked keys are allowed.
    pub mode: Mode,
}

/// A policy set, and where it came from.
#[derive(Debug)]
pub struct Adopted {
    /// The set.
    pub set: Arc<PolicySet>,
    /// The Git commit of the directory.
    pub commit: Option<String>,
    /// What is legal but unwise.
    pub warnings: Vec<String>,
}

/// Whatever of a configuration can be known to be wrong before a store is opened, or made: pinned keys, the CA of an API server.
///
/// # Errors
/// An issuer can't be set up.
pub fn preflight(config: &Config, mode: Mode, now: Instant) -> Result<(), SceneError> {
    for issuer in &config.issuers {
        token_review(issuer, Arc::new(SystemChance), Arc::new(Unwatched))?;
        let KeysFrom::Pinned { file } = &issuer.keys else { continue };
        let refused = |reason| SceneError::Issuer { issuer: issuer.name.to_string(), reason };
        pinned(file, mode, now).map_err(refused)?;
    }
    Ok(())
}

/// Who asks the API server of `issuer` about its tokens; none where the configuration does not want it.
///
/// # Errors
/// It can't be set up: the CA file holds no certificate.
pub fn token_review(
    issuer: &IssuerConfig,
    chance: Arc<dyn Chance>,
    watch: Arc<dyn ReviewWatch>,
) -> Result<Option<Arc<TokenReview>>, SceneError> {
    let Some(wanted) = &issuer.token_review else { return Ok(None) };
    let terms = ReviewTerms {
        issuer: issuer.name.clone(),
        audience: issuer.audience.clone(),
        api_server: wanted.api_server.clone(),
        ca_file: wanted.ca_file.clone(),
        token_file: wanted.token_file.clone(),
        timeout: wanted.timeout,
        max_in_flight: usize::try_from(wanted.max_in_flight).unwrap_or(usize::MAX),
    };
    let review = TokenReview::of(terms, chance, watch);
    let refused = |reason: String| SceneError::Issuer {
        issuer: issuer.name.to_string(),
        reason: format!("`token_review`: {reason}"),
    };
    review.map(|review| Some(Arc::new(review))).map_err(refused)
}

/// For whoever counts nothing.
#[derive(Debug)]
pub struct Unwatched;

impl ReviewWatch for Unwatched {
    fn reviewed(&self, _: &IssuerName, _: &'static str, _: Duration) {}
}

fn pinned(file: &PathBuf, mode: Mode, now: Instant) -> Result<Pinned, String> {
    if mode == Mode::Serve {
        refuse_sandbox_keys(file)?;
    }
    Pinned::load(file.clone(), now).map_err(text)
}

/// The verifier of the configured issuers. Nothing is fetched yet: one dead issuer neither stops the start nor slows another.
///
/// # Errors
/// An issuer can't be set up.
pub fn verifier(config: &Config, means: &Means) -> Result<Verifier, SceneError> {
    let now = means.clock.now();
    let mut issuers = Vec::new();
    for configured in &config.issuers {
        let keys = key_source(config, configured, means, now)
            .map_err(|reason| SceneError::Issuer { issuer: configured.name.to_string(), reason })?;
        issuers.push(Issuer {
            name: configured.name.clone(),
            url: configured.issuer.clone(),
            preset: configured.preset,
            audience: configured.audience.clone(),
            algorithms: configured.algorithms.clone(),
            leeway: configured.leeway,
            maximum_lifetime: configured.maximum_lifetime,
            maximum_age: configured.maximum_age,
            accepted_types: configured.accepted_types.clone(),
            keys,
            review: token_review(
                configured,
                Arc::clone(&means.chance),
                Arc::clone(&means.reviews),
            )?,
        });
    }
    let issuers = Issuers::of(issuers).map_err(|clash| SceneError::Issuer {
        issuer: clash.second.to_string(),
        reason: clash.to_string(),
    })?;
    Ok(Verifier::new(issuers, Arc::clone(&means.clock)))
}

fn key_source(
    config: &Config,
    issuer: &IssuerConfig,
    means: &Means,
    now: Instant,
) -> Result<Arc<dyn KeySource>, String> {
    // Tokens of ours verify with the ring itself: no call to ourselves.
    if issuer.issuer == config.issuer {
        return Ok(Arc::new(OwnKeys::of(Arc::clone(&means.keyring))));
    }
    match &issuer.keys {
        KeysFrom::Pinned { file } => Ok(Arc::new(pinned(file, means.mode, now)?)),
        KeysFrom::Discovered(wanted) => {
            let discovered = DiscoveredConfig {
                issuer: issuer.issuer.clone(),
                jwks_uri: wanted.jwks_uri.clone(),
                jwks_origin: wanted.jwks_origin.clone(),
                ca: wanted.ca_file.clone(),
                bearer_token_file: wanted.bearer_token_file.clone(),
                private: wanted.private,
                dangerously_loopback: means.mode == Mode::Dev,
                stale_after: wanted.stale_after,
            };
            let source =
                Discovered::renewed(discovered, &means.outbound, means.tasks.clone(), &means.known)
                    .map_err(text)?;
            source.warm(now);
            Ok(Arc::new(source))
        }
    }
}

/// Sandbox keys are made by `cambio dev` and marked by their `kid`: nobody may be let into production by them.
fn refuse_sandbox_keys(file: &PathBuf) -> Result<(), String> {
    let path = file.display();
    let set = std::fs::read_to_string(file).map_err(|error| format!("`{path}`: {error}"))?;
    let set: Value = serde_json::from_str(&set).map_err(|error| {
        format!("`{path}` is no JSON, expected a JWK Set of public keys (RFC 7517): {error}")
    })?;
    let kids = set.get("keys").and_then(Value::as_array).into_iter().flatten();
    let marked =
        |key: &&Value| key.get("kid").and_then(Value::as_str).is_some_and(sandbox::is_marked);
    if kids.into_iter().any(|key| marked(&key)) {
        return Err(format!(
            "`{}` holds a key of the sandbox issuer, expected keys of a real one",
            file.display()
        ));
    }
    Ok(())
}

/// What policies are compiled against.
///
/// # Errors
/// Two targets answer to one name.
pub fn context(config: &Config) -> Result<Context, SceneError> {
    let targets = config.targets().map_err(|clash| SceneError::Target(clash.to_string()))?;
    Ok(Context {
        targets: Arc::new(targets),
        issuers: config.policy_context(),
        environment: config.environment.clone(),
    })
}

/// Loads the policies on disk, runs their cases.
///
/// # Errors
/// They do not load: every problem at once.
pub fn policies(config: &Config, now: Instant) -> Result<Adopted, SceneError> {
    policies_for(config, Mode::Dev, now)
}

/// As [`policies`]; where they are served, nobody else may change their files.
///
/// # Errors
/// As [`policies`], and others may change a file or the directory.
pub fn policies_for(config: &Config, mode: Mode, now: Instant) -> Result<Adopted, SceneError> {
    let (directory, guardrails) =
        (&config.policies.directory, config.policies.guardrails.as_deref());
    let trust = match mode {
        Mode::Serve => Trust::Serve,
        Mode::Dev => Trust::Look,
    };
    let context = context(config)?;
    let loaded = policy::load::load_guarded(directory, guardrails, &context, now, trust)?;
    Ok(Adopted {
        set: Arc::new(loaded.set),
        commit: loaded.commit,
        warnings: loaded.warnings.iter().map(ToString::to_string).collect(),
    })
}

/// The last good set, from the store: what a start falls back to when the files on disk are bad.
///
/// # Errors
/// There is none, or it does not fit this configuration.
pub fn last_good(config: &Config, reader: &dyn LedgerReader) -> Result<Arc<PolicySet>, String> {
    let digest = reader.active_policy().map_err(text)?.ok_or("none was ever in force")?;
    stored(config, reader, &digest)
}

/// A policy set that the store keeps, compiled against today's configuration.
///
/// # Errors
/// There is none of that digest, or it no longer compiles.
pub fn stored(
    config: &Config,
    reader: &dyn LedgerReader,
    digest: &Hash,
) -> Result<Arc<PolicySet>, String> {
    let sources = reader.policy_set(digest).map_err(text)?;
    let sources =
        sources.ok_or_else(|| format!("policy set {} is not in the store", hex(digest)))?;
    let pairs: Vec<(String, String)> = serde_json::from_str(&sources).map_err(text)?;
    let sources: Vec<Source> =
        pairs.into_iter().map(|(name, text)| Source { name, text }).collect();
    let context = context(config).map_err(text)?;
    let (set, _) = PolicySet::compile(&sources, &context).map_err(|problems| {
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    })?;
    Ok(Arc::new(set))
}

/// The sources of a set, as the store keeps them.
#[must_use]
pub fn sources_json(set: &PolicySet) -> String {
    let pairs: Vec<(&str, &str)> =
        set.sources().iter().map(|source| (source.name.as_str(), source.text.as_str())).collect();
    serde_json::to_string(&pairs).unwrap_or_default()
}

/// The scene of a configuration under `policies`, with the minters of [`super::targets::makers`].
///
/// # Errors
/// An issuer can't be set up.
pub fn scene(
    config: &Config,
    means: &Means,
    policies: Arc<PolicySet>,
    minters: Minters,
) -> Result<Scene, SceneError> {
    Ok(Scene { verifier: Arc::new(verifier(config, means)?), policies, minters })
}

fn text(error: impl fmt::Display) -> String {
    error.to_string()
}
