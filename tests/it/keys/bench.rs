//! A ring in memory, with a clock that is pushed.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use cambio::{
    chance::{Chance, SystemChance},
    clock::{Clock, Instant, ManualClock},
    keys::{
        JournalError, KeyJournal, KeysError, Replaced, Signed, Stored,
        rotator::Rotator,
        schedule::{Schedule, Terms},
    },
    ledger::Event,
    protector::{KeyProtector, file::KeyFile},
    subject::Algorithm,
};
use tempfile::TempDir;

use crate::support::token::NOW;

pub(crate) const RING: &str = "log.example/signing";
pub(crate) const ENVIRONMENT: &str = "test";

/// Ring and ledger in memory; passes the battery of `KeyJournal`.
#[derive(Debug, Default)]
pub(crate) struct MemoryJournal {
    state: Mutex<State>,
    broken: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    ring: Option<(u64, String)>,
    entries: Vec<Event>,
    signed: Vec<(String, Signed)>,
}

impl MemoryJournal {
    /// Every key entry as `step kid`.
    pub(crate) fn told(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let tell = |event: &Event| match event {
            Event::Keys { step, kid, .. } => format!("{step} {kid}"),
            other => panic!("expected a key entry, found {other:?}"),
        };
        state.entries.iter().map(tell).collect()
    }

    /// The sealed ring that stands.
    pub(crate) fn sealed(&self) -> (u64, String) {
        self.state.lock().unwrap().ring.clone().unwrap()
    }

    /// Puts the row of the ring in the place of the newest one, as a restored backup would; entries stay.
    pub(crate) fn restore_row(&self, ring: Option<(u64, String)>) {
        self.state.lock().unwrap().ring = ring;
    }

    /// Notes a grant whose entry names `kid`.
    pub(crate) fn granted(&self, kid: &str, credential: &str) -> Signed {
        let signed = Signed {
            exchange_id: "ex_01".to_owned(),
            credential: credential.to_owned(),
            subject: "ci:sub:repo:acme/site".to_owned(),
            target: "jwt/orders".to_owned(),
            expires_at: Instant::from_seconds(NOW + 600),
        };
        self.state.lock().unwrap().signed.push((kid.to_owned(), signed.clone()));
        signed
    }

    /// Lets every write fail from now on, or no longer.
    pub(crate) fn break_writes(&self, broken: bool) {
        self.broken.store(broken, Ordering::SeqCst);
    }
}

#[async_trait]
impl KeyJournal for MemoryJournal {
    async fn load(&self) -> Result<Stored, JournalError> {
        let state = self.state.lock().unwrap();
        let witnessed = state.entries.last().map_or(0, |event| match event {
            Event::Keys { epoch, .. } => *epoch,
            other => panic!("expected a key entry, found {other:?}"),
        });
        Ok(Stored { ring: state.ring.clone(), witnessed })
    }

    async fn replace(
        &self,
        from: u64,
        to: u64,
        sealed: String,
        event: Event,
    ) -> Result<Replaced, JournalError> {
        // Let others in between load and replace, as a database would.
        tokio::task::yield_now().await;
        if self.broken.load(Ordering::SeqCst) {
            return Err(JournalError("disk full".to_owned()));
        }
        let mut state = self.state.lock().unwrap();
        let found = state.ring.as_ref().map_or(0, |(epoch, _)| *epoch);
        if found != from {
            return Ok(Replaced::Stale { found });
        }
        state.ring = Some((to, sealed));
        state.entries.push(event);
        Ok(Replaced::Durable)
    }

    async fn signed_by(&self, kid: &str) -> Result<Vec<Signed>, JournalError> {
        let state = self.state.lock().unwrap();
        let of_key = state.signed.iter().filter(|(by, _)| by == kid);
        Ok(of_key.map(|(_, signed)| signed.clone()).collect())
    }
}

/// Everything a rotator needs.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) journal: Arc<MemoryJournal>,
    pub(crate) protector: Arc<dyn KeyProtector>,
    pub(crate) terms: Terms,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::signing_with([Algorithm::ES256])
    }

    pub(crate) fn signing_with(algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        Self {
            clock: Arc::new(ManualClock::at(Instant::from_seconds(NOW))),
            journal: Arc::default(),
            protector: Arc::new(key_file()),
            terms: terms(algorithms),
        }
    }

    pub(crate) async fn start(&self) -> Rotator {
        self.try_start().await.unwrap()
    }

    pub(crate) async fn try_start(&self) -> Result<Rotator, KeysError> {
        self.start_with(Arc::clone(&self.protector), ENVIRONMENT).await
    }

    pub(crate) async fn start_with(
        &self,
        protector: Arc<dyn KeyProtector>,
        environment: &str,
    ) -> Result<Rotator, KeysError> {
        let journal = Arc::clone(&self.journal) as Arc<dyn KeyJournal>;
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let schedule = Schedule::derive(self.terms.clone())?;
        Rotator::start((RING, environment), schedule, journal, protector, clock).await
    }

    pub(crate) fn clock_now(&self) -> Instant {
        self.clock.now()
    }

    pub(crate) fn pass(&self, seconds: u64) {
        self.clock.pass(Duration::from_secs(seconds));
    }
}

/// Keys that sign for two hours and are announced for one.
pub(crate) fn terms(algorithms: impl IntoIterator<Item = Algorithm>) -> Terms {
    Terms {
        algorithms: algorithms.into_iter().collect::<BTreeSet<_>>(),
        sign_for: Duration::from_secs(7_200),
        jwks_max_age: Duration::from_secs(300),
        longest_lifetime: Duration::from_secs(900),
        leeway: Duration::from_secs(60),
        verifier_cache: Duration::from_secs(3_600),
        replica_delay: Duration::from_secs(5),
    }
}

/// A key file of 32 random bytes, read as in production.
pub(crate) fn key_file() -> KeyFile {
    let folder = TempDir::new().unwrap();
    let mut key = [0; 32];
    SystemChance.fill(&mut key).unwrap();
    let path = private_file(&folder, "kek", &format!("{}\n", URL_SAFE_NO_PAD.encode(key)));
    KeyFile::load(&path).unwrap()
}

/// A file of mode 0600.
pub(crate) fn private_file(folder: &TempDir, name: &str, text: &str) -> std::path::PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}
