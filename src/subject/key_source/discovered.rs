//! Keys found by OpenID Connect Discovery, kept fresh, and never fetched more often than an attacker could use.
//!
//! Everything is counted in the `now` that callers bring; only the network's own deadlines run on tokio's timer. A fetch runs on a
//! tracked task of its own: whoever asked may go away, and nobody holds a lock while it runs (threat D09).

use std::{
    cmp,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};
use url::{Origin, Url};

use self::document::Locations;
use super::{
    fetch::{Bounds, FetchError, Fetcher, Outbound},
    guard::Reach,
};
use crate::{
    clock::Instant,
    subject::{
        KeySource, KeySourceError, KeySourceState, VerificationKey, issuers::IssuerUrl,
        json::Limits, jwk::KeySet,
    },
};

mod document;

/// Unknown `kid`s make us fetch at most once in this time, whoever asks (threat D10).
pub const UNKNOWN_KID_INTERVAL: Duration = Duration::from_secs(30);
/// After a failed fetch the next one waits this long.
pub const RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// The bounds of `Cache-Control: max-age` (threat D16): a withdrawn key is gone within the longer one.
pub const REFRESH_BOUNDS: (Duration, Duration) = (Duration::from_mins(1), Duration::from_hours(1));
/// How long a set holds whose sender says nothing.
const DEFAULT_REFRESH: Duration = Duration::from_mins(5);
/// How long an issuer may be down before its keys are no longer believed (threat D14).
pub const DEFAULT_STALE_AFTER: Duration = Duration::from_hours(1);
/// The most that [`DiscoveredConfig::stale_after`] may be, and the most that any key's age may come to.
pub const MAXIMUM_STALE_AFTER: Duration = Duration::from_hours(24);

/// Where an issuer's keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoveredConfig {
    /// The exact issuer.
    pub issuer: IssuerUrl,
    /// Where the key set is, if it can't be discovered. Discovery is then not asked at all.
    pub jwks_uri: Option<Url>,
    /// The one other origin that a discovered `jwks_uri` may be on (threat D03).
    pub jwks_origin: Option<Url>,
    /// A PEM file: the roots for this issuer, in place of the platform's.
    pub ca: Option<PathBuf>,
    /// A file with a token for this issuer's own origin (Kubernetes API servers want one), read anew for each fetch.
    pub bearer_token_file: Option<PathBuf>,
    /// Whether this issuer may have private addresses (RFC 1918, CGNAT, ULA).
    pub private: bool,
    /// Plain http on loopback: `cambio dev` alone.
    pub dangerously_loopback: bool,
    /// How long keys are still believed after they were due for a refresh that fails: at most
    /// [`MAXIMUM_STALE_AFTER`] (RFC 5861 `stale-if-error`).
    pub stale_after: Duration,
}

impl DiscoveredConfig {
    /// The safe defaults: public, platform roots, keys on the issuer's own origin, an hour of patience.
    #[must_use]
    pub const fn of(issuer: IssuerUrl) -> Self {
        Self {
            issuer,
            jwks_uri: None,
            jwks_origin: None,
            ca: None,
            bearer_token_file: None,
            private: false,
            dangerously_loopback: false,
            stale_after: DEFAULT_STALE_AFTER,
        }
    }
}

/// A configuration that can't be served. A start-up error.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DiscoveredError {
    /// A URL that we would never fetch (threats D04, D17).
    #[error("`{key}` of issuer `{issuer}`: `{found}` {reason}")]
    Url {
        /// Whose.
        issuer: IssuerUrl,
        /// `jwks_uri`, `jwks_origin` or `issuer`.
        key: &'static str,
        /// The URL.
        found: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Beyond the cap.
    #[error(
        "`stale_after` of issuer `{issuer}` is {} s, expected at most {} s", found.as_secs(), MAXIMUM_STALE_AFTER.as_secs()
    )]
    StaleAfter {
        /// Whose.
        issuer: IssuerUrl,
        /// What it says.
        found: Duration,
    },
    /// The client can't be built.
    #[error("issuer `{issuer}`: {error}")]
    Client {
        /// Whose.
        issuer: IssuerUrl,
        /// Why.
        error: FetchError,
    },
}

/// The keys of one issuer, by way of its discovery document.
#[derive(Clone, Debug)]
pub struct Discovered(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    issuer: IssuerUrl,
    locations: Locations,
    fetcher: Fetcher,
    deadline: Duration,
    stale_after: Duration,
    tasks: TaskTracker,
    known: Arc<Known>,
}

/// What is known of an issuer's keys, and when they were last asked for.
#[derive(Debug)]
struct Known {
    config: DiscoveredConfig,
    loaded: ArcSwapOption<Loaded>,
    /// Held for a few instructions, never across an await.
    attempts: Mutex<Attempts>,
}

/// What the sources of this process know, for those that come after them: a reload makes sources anew, and must neither
/// forget the keys of an issuer that is down just then (threat D14), nor begin to count fetches anew (threat D10).
#[derive(Clone, Debug, Default)]
pub struct KnownKeys(Arc<Mutex<Vec<Weak<Known>>>>);

impl KnownKeys {
    /// What a source of the same configuration knows, as long as one lives; else nothing yet.
    fn of(&self, config: &DiscoveredConfig) -> Arc<Known> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|known| known.strong_count() > 0);
        let same = all.iter().filter_map(Weak::upgrade).find(|known| known.config == *config);
        same.unwrap_or_else(|| {
            let known = Arc::new(Known {
                config: config.clone(),
                loaded: ArcSwapOption::empty(),
                attempts: Mutex::default(),
            });
            all.push(Arc::downgrade(&known));
            known
        })
    }
}

#[derive(Debug)]
struct Loaded {
    set: KeySet,
    fetched_at: Instant,
    refresh_after: Duration,
}

#[derive(Debug, Default)]
struct Attempts {
    /// Closes when the running fetch ends. The single flight: there is no second one while this is there.
    running: Option<watch::Receiver<()>>,
    last_start: Option<Instant>,
    last_error: Option<String>,
    count: u64,
}

/// How old the set in use is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Freshness {
    /// Nothing to do.
    Fresh,
    /// Past four fifths of its time: fetch, but wait for nothing.
    Ageing,
    /// Past its time: a key may have been withdrawn.
    Due,
    /// Never had, or no longer believed.
    Unusable,
}

impl Discovered {
    /// A source that has fetched nothing yet: it does so when first asked, or when [`Self::warm`] is called.
    ///
    /// # Errors
    /// The configuration asks for what we don't fetch, or the client can't be built.
    pub fn new(
        config: DiscoveredConfig,
        outbound: &Outbound,
        tasks: TaskTracker,
    ) -> Result<Self, DiscoveredError> {
        Self::renewed(config, outbound, tasks, &KnownKeys::default())
    }

    /// A source that knows what those before it knew, if they had the same configuration. CA file and client are new.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn renewed(
        config: DiscoveredConfig,
        outbound: &Outbound,
        tasks: TaskTracker,
        before: &KnownKeys,
    ) -> Result<Self, DiscoveredError> {
        if config.stale_after > MAXIMUM_STALE_AFTER {
            let found = config.stale_after;
            return Err(DiscoveredError::StaleAfter { issuer: config.issuer, found });
        }
        let locations = Locations::of(&config)?;
        let fetcher = outbound
            .fetcher(bounds(&config, &locations))
            .map_err(|error| DiscoveredError::Client { issuer: config.issuer.clone(), error })?;
        let known = before.of(&config);
        Ok(Self(Arc::new(Inner {
            issuer: config.issuer,
            locations,
            fetcher,
            deadline: outbound.deadlines().total,
            stale_after: config.stale_after,
            tasks,
            known,
        })))
    }

    /// Starts a fetch without waiting for it, so that the first exchange need not: at a start, and at a reload. A storm of
    /// reloads is one fetch in 30 s (threat D10).
    pub fn warm(&self, now: Instant) {
        drop(self.fetch_unless_tried(UNKNOWN_KID_INTERVAL, now));
    }

    /// Joins the running fetch, or starts one if the last began at least `interval` ago.
    fn fetch_unless_tried(&self, interval: Duration, now: Instant) -> Option<watch::Receiver<()>> {
        let mut attempts = self.0.attempts();
        if let Some(running) = &attempts.running {
            return Some(running.clone());
        }
        // A clock that was stepped back must not forbid fetching until it has caught up.
        let too_soon = |last: Instant| last <= now && now.since(last) < interval;
        if attempts.last_start.is_some_and(too_soon) {
            return None;
        }
        let (done, running) = watch::channel(());
        attempts.running = Some(running.clone());
        attempts.last_start = Some(now);
        attempts.count = attempts.count.saturating_add(1);
        drop(attempts);
        let flight = Flight { source: Arc::clone(&self.0), outcome: None, _done: done };
        self.0.tasks.spawn(flight.fly(now));
        Some(running)
    }
}

/// What one source may dial, and to whom it shows its token: the origins of the configuration, exactly.
fn bounds(config: &DiscoveredConfig, locations: &Locations) -> Bounds {
    let reach = match (config.dangerously_loopback, config.private) {
        (true, _) => Reach::DangerouslyLoopback,
        (false, true) => Reach::Private,
        (false, false) => Reach::Public,
    };
    let home: Origin = locations.home().origin();
    let bearer = config.bearer_token_file.clone().map(|path| (path, home));
    Bounds { origins: locations.origins(), reach, ca: config.ca.clone(), bearer }
}

/// A running fetch. However it ends, also by a panic or a dropped runtime, the next one may start.
struct Flight {
    source: Arc<Inner>,
    outcome: Option<Result<Loaded, String>>,
    /// Dropped last: waiters wake when the outcome is in place.
    _done: watch::Sender<()>,
}

impl Flight {
    async fn fly(mut self, now: Instant) {
        let late = || format!("no keys within {} ms", self.source.deadline.as_millis());
        let fetched = tokio::time::timeout(self.source.deadline, self.source.fetch(now)).await;
        self.outcome = Some(fetched.unwrap_or_else(|_| Err(late())));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let outcome =
            self.outcome.take().unwrap_or_else(|| Err("the fetch was abandoned".to_owned()));
        self.source.land(outcome);
    }
}

impl Inner {
    fn attempts(&self) -> MutexGuard<'_, Attempts> {
        self.known.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fetch(&self, now: Instant) -> Result<Loaded, String> {
        let jwks_uri = match &self.locations {
            Locations::Configured { jwks_uri } => jwks_uri.clone(),
            Locations::Discovered { document, .. } => {
                let fetched = self.fetcher.fetch(document, Limits::DISCOVERY.bytes).await;
                let fetched = fetched.map_err(|error| error.to_string())?;
                self.locations.jwks_uri_in(&fetched.body, &self.issuer)?
            }
        };
        let fetched = self.fetcher.fetch(&jwks_uri, Limits::JWKS.bytes).await;
        let fetched = fetched.map_err(|error| error.to_string())?;
        let set = KeySet::parse(&fetched.body).map_err(|error| format!("`{jwks_uri}`: {error}"))?;
        let (shortest, longest) = REFRESH_BOUNDS;
        let refresh_after = fetched.max_age.unwrap_or(DEFAULT_REFRESH).clamp(shortest, longest);
        // `now` is when the fetch began: the set is at least as young as we say.
        Ok(Loaded { set, fetched_at: now, refresh_after })
    }

    /// Puts a whole set in place of the old one, or changes nothing (threats D11, D12).
    fn land(&self, outcome: Result<Loaded, String>) {
        let mut attempts = self.attempts();
        attempts.running = None;
        match outcome {
            Ok(loaded) => {
                self.report(&loaded.set);
                attempts.last_error = None;
                self.known.loaded.store(Some(Arc::new(loaded)));
            }
            Err(reason) => {
                warn!(subject.issuer = %self.issuer, "keys of `{}` not refreshed: {reason}", self.issuer);
                attempts.last_error = Some(reason);
            }
        }
    }

    fn report(&self, new: &KeySet) {
        let old = self.known.loaded.load();
        let old_ignored = old.as_ref().map_or(&[][..], |old| old.set.ignored());
        for key in new.ignored().iter().filter(|key| !old_ignored.contains(key)) {
            warn!(subject.issuer = %self.issuer, "issuer `{}` publishes a key that is not used: {key}", self.issuer);
        }
        let Some(old) = old.as_ref() else {
            info!(subject.issuer = %self.issuer, "issuer `{}` has {} usable keys", self.issuer, new.keys().len());
            return;
        };
        let now = new.thumbprints();
        for (kid, was) in old.set.thumbprints() {
            match now.get(kid) {
                // Threat D13. Legal, and what a taken-over issuer looks like.
                Some(is) if *is != was && !kid.is_empty() => warn!(
                    subject.issuer = %self.issuer, key.id = kid,
                    "issuer `{}` has other key material under the same `kid` `{}`: was {was:?}, is {is:?}",
                    self.issuer, kid.escape_debug()
                ),
                Some(_) => {}
                None => info!(
                    subject.issuer = %self.issuer, key.id = kid,
                    "issuer `{}` no longer has key `{}`", self.issuer, kid.escape_debug()
                ),
            }
        }
    }

    fn freshness(&self, now: Instant) -> Freshness {
        let loaded = self.known.loaded.load();
        let Some(loaded) = loaded.as_ref() else { return Freshness::Unusable };
        if loaded.fetched_at > now {
            // The clock was stepped back: the age is not known.
            return Freshness::Due;
        }
        let age = now.since(loaded.fetched_at);
        let ageing = loaded.refresh_after.saturating_mul(4).checked_div(5).unwrap_or_default();
        if age > self.limit(loaded) {
            Freshness::Unusable
        } else if age >= loaded.refresh_after {
            Freshness::Due
        } else if age >= ageing {
            Freshness::Ageing
        } else {
            Freshness::Fresh
        }
    }

    fn limit(&self, loaded: &Loaded) -> Duration {
        cmp::min(loaded.refresh_after.saturating_add(self.stale_after), MAXIMUM_STALE_AFTER)
    }

    /// INVARIANT(closed-by-absence): no set, or one too old, finds nothing.
    fn look_up(
        &self,
        kid: Option<&str>,
        now: Instant,
    ) -> Result<Vec<Arc<VerificationKey>>, KeySourceError> {
        let loaded = self.known.loaded.load();
        let why = || {
            let error = self.attempts().last_error.clone();
            error.unwrap_or_else(|| "not fetched yet".to_owned())
        };
        let Some(loaded) = loaded.as_ref() else {
            return Err(KeySourceError::Unavailable(format!("no keys were had: {}", why())));
        };
        let age = now.since(loaded.fetched_at);
        if age > self.limit(loaded) {
            return Err(KeySourceError::Unavailable(format!(
                "the keys are {} s old, expected at most {} s: {}",
                age.as_secs(),
                self.limit(loaded).as_secs(),
                why()
            )));
        }
        loaded.set.find(kid)
    }
}

#[async_trait]
impl KeySource for Discovered {
    async fn find(
        &self,
        kid: Option<&str>,
        now: Instant,
    ) -> Result<Vec<Arc<VerificationKey>>, KeySourceError> {
        match self.0.freshness(now) {
            Freshness::Fresh => {}
            Freshness::Ageing => drop(self.fetch_unless_tried(RETRY_INTERVAL, now)),
            Freshness::Due => {
                let down = self.0.attempts().last_error.is_some();
                let running = self.fetch_unless_tried(RETRY_INTERVAL, now);
                // An issuer that is known to be down is asked again, but nobody waits for it.
                if !down {
                    wait_for(running).await;
                }
            }
            Freshness::Unusable => wait_for(self.fetch_unless_tried(RETRY_INTERVAL, now)).await,
        }
        let found = self.0.look_up(kid, now);
        if !matches!(found, Err(KeySourceError::NoSuchKey { .. })) {
            return found;
        }
        // No memory of unknown names is kept: nothing to fill, and nothing that hides a key which appears later.
        wait_for(self.fetch_unless_tried(UNKNOWN_KID_INTERVAL, now)).await;
        self.0.look_up(kid, now)
    }

    fn state(&self) -> KeySourceState {
        let loaded = self.0.known.loaded.load();
        let attempts = self.0.attempts();
        KeySourceState {
            fetched_at: loaded.as_ref().map(|loaded| loaded.fetched_at),
            keys: loaded.as_ref().map_or(0, |loaded| loaded.set.keys().len()),
            last_error: attempts.last_error.clone(),
            fetches: attempts.count,
        }
    }
}

/// Waits until the fetch has ended, which its deadline makes sure of; at once if there is none.
async fn wait_for(running: Option<watch::Receiver<()>>) {
    if let Some(mut running) = running {
        // Nothing is ever sent: the channel closes when the outcome is in place.
        let _closed = running.changed().await;
    }
}
