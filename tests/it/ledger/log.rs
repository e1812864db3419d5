//! A log on a disk of its own, and proposals with valid defaults.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use cambio::{
    chance::SeededChance,
    clock::{Clock, Instant, ManualClock},
    id::{ExchangeId, LeaseId},
    ledger::{
        Commit as _, Committed, Event, Granted, Intent, Proposal, Receipt, Refused, Spend,
        checkpoint::{CheckpointError, Checkpointer},
        facts::Facts,
        note::{LogKey, VerifierKey},
        reader::LedgerReader,
        writer::Writer,
    },
    policy::Wants,
    secret::Secret,
    store::Store,
};
use serde_json::json;

pub(crate) const ORIGIN: &str = "log.example/cambio";
pub(crate) const NOW: Instant = Instant::from_seconds(1_800_000_000);

/// A running writer, and what its tests look at.
pub(crate) struct Log {
    pub(crate) writer: Writer,
    pub(crate) reader: Arc<dyn LedgerReader>,
    pub(crate) checkpointer: Checkpointer,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) path: PathBuf,
    folder: Option<tempfile::TempDir>,
}

/// What is left of a log when nobody runs it.
pub(crate) struct Disk {
    pub(crate) path: PathBuf,
    folder: Option<tempfile::TempDir>,
}

impl Log {
    pub(crate) fn create() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cambio.db");
        let store = Store::create(&path, ORIGIN).unwrap();
        Store::keep_log_key(&path, "sealed elsewhere", key().public()).unwrap();
        Self::run(store, &path, Some(folder))
    }

    /// The writer over an existing store, as a restart finds it.
    pub(crate) fn open(path: &Path) -> Self {
        Self::run(Store::open(path).unwrap(), path, None)
    }

    fn run(store: Store, path: &Path, folder: Option<tempfile::TempDir>) -> Self {
        let clock = Arc::new(ManualClock::at(NOW));
        let writer = start(store, &clock).unwrap();
        let reader = Store::read(path).unwrap();
        let checkpointer = Checkpointer::new(key(), Arc::clone(&reader), writer.clone()).unwrap();
        Self { writer, reader, checkpointer, clock, path: path.to_owned(), folder }
    }

    /// Commits `count` grants, each of a token of its own, counted from `from`.
    pub(crate) async fn grants(&self, from: u64, count: u64) {
        for number in (from..).take(usize::try_from(count).unwrap()) {
            durable(self.writer.commit(grant(number)).await);
        }
    }

    /// A checkpoint over everything. It blocks, so it has a thread of its own here too.
    pub(crate) fn try_checkpoint(&mut self) -> Result<Option<String>, CheckpointError> {
        let now = self.clock.now();
        let checkpointer = &mut self.checkpointer;
        std::thread::scope(|scope| scope.spawn(|| checkpointer.checkpoint_now(now)).join().unwrap())
    }

    #[track_caller]
    pub(crate) fn checkpoint(&mut self) -> String {
        self.try_checkpoint().unwrap().expect("entries without a checkpoint")
    }

    /// The database, for somebody who is not us.
    pub(crate) fn tamper(&self, sql: &str) {
        tamper(&self.path, sql);
    }

    /// Keeps the folder of `disk`, which this log runs on.
    pub(crate) fn keep(&mut self, disk: Disk) {
        self.folder = disk.folder;
    }

    /// Stops the writer, waits until its lock is gone, and leaves the disk.
    pub(crate) async fn close(self) -> Disk {
        self.writer.close();
        self.writer.wait_until_ended().await;
        let Self { path, folder, .. } = self;
        Disk { path, folder }
    }
}

pub(crate) fn start(
    store: Store,
    clock: &Arc<ManualClock>,
) -> Result<Writer, cambio::ledger::writer::StartError> {
    // Each start is a run of its own.
    static RUNS: AtomicU64 = AtomicU64::new(1);
    let chance = Arc::new(SeededChance::of(RUNS.fetch_add(1, Ordering::SeqCst)));
    Writer::start(store.journal, &*store.reader, Arc::clone(clock) as _, chance, 4_096)
}

pub(crate) fn tamper(path: &Path, sql: &str) {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection.execute_batch(&format!("PRAGMA synchronous = OFF; {sql}")).unwrap();
}

pub(crate) fn key() -> LogKey {
    LogKey::from_seed(ORIGIN, &Secret::new(vec![9; 32])).unwrap()
}

pub(crate) fn public() -> VerifierKey {
    key().public().clone()
}

pub(crate) fn exchange(number: u64) -> ExchangeId {
    ExchangeId::make(NOW, &SeededChance::of(number)).unwrap()
}

/// A grant of token `number`, to be used once.
pub(crate) fn grant(number: u64) -> Proposal {
    let token = cambio::ledger::tree::sha256(&number.to_be_bytes());
    let event = Event::Granted(Granted {
        exchange_id: exchange(number),
        issuer: "github".into(),
        subject: "github:repository_id:1296269".into(),
        token,
        target: "jwt/orders".into(),
        role: "deploy".into(),
        rules: vec!["site/deploy".into()],
        policy: [3; 32],
        expires_at: NOW.plus(Duration::from_mins(15)),
        credential: format!("jti-{number}"),
        signing_input: Some([4; 32]),
        kid: Some("kid-1".into()),
    });
    Proposal {
        facts: Some(facts(number)),
        spend: Some(Spend {
            issuer: "github".into(),
            token,
            target: "jwt/orders".into(),
            role: "deploy".into(),
            forget_at: NOW.plus(Duration::from_mins(10)),
        }),
        ..Proposal::of(event)
    }
}

/// What is remembered of grant `number` until its conclusion.
pub(crate) fn intent(number: u64, lease: Option<LeaseId>) -> Intent {
    Intent {
        target: "aws/prod".into(),
        mint_deadline: NOW.plus(Duration::from_secs(30)),
        worst_end: NOW.plus(Duration::from_secs(900 + number)),
        lease,
    }
}

pub(crate) fn refusal(number: u64) -> Proposal {
    Proposal::of(Event::Refused(Refused {
        exchange_id: exchange(number),
        issuer: "github".into(),
        subject: "github:repository_id:1296269".into(),
        token: [5; 32],
        reason: "denied".into(),
        policy: [3; 32],
    }))
}

pub(crate) fn facts(number: u64) -> Facts {
    let claims = json!({
        "sub": "repo:acme/site:ref:refs/heads/main",
        "repository_id": "1296269",
        "run_id": number,
        "iat": NOW.minus(Duration::from_secs(5)).seconds(),
        "kubernetes.io": { "namespace": "shop" },
        "groups": ["dev", "ops"],
    });
    Facts {
        version: 1,
        exchange_id: exchange(number).to_string(),
        issuer: "github".to_owned(),
        claims: Arc::new(claims.as_object().unwrap().clone()),
        actor: None,
        actor_issuer: None,
        wants: Wants::default(),
        narrowing: None,
        now: NOW.milliseconds(),
        source: "192.0.2.7".to_owned(),
        policy: "03".repeat(32),
        shadow: Vec::new(),
        detail: None,
    }
}

#[track_caller]
pub(crate) fn durable(outcome: Result<Committed, cambio::ledger::CommitError>) -> Receipt {
    match outcome {
        Ok(Committed::Durable(receipt)) => receipt,
        other => panic!("found {other:?}, expected a durable entry"),
    }
}
