//! A ledger on a disk, a server in memory, a reaper between them. Time is pushed.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use cambio::{
    chance::{Chance, SeededChance},
    clock::{Clock, Instant},
    grant::TargetName,
    id::LeaseId,
    lease::{
        Revoker, Revokers,
        reaper::{Reaper, Watch},
    },
    ledger::{
        Change, Commit, CommitError, Committed, Event, InFlight, LeaseIntent, LeaseState, Proposal,
        entry::Entry,
        reader::{Leases, LedgerReader, StoredLease},
        tree::sha256,
    },
    mint::{login::LoginMinter, name::Names},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    ledger::log::{self, Disk, Log, NOW, ORIGIN, durable, exchange},
    support::server::FakeServer,
};

pub(crate) const ORDERS: &str = "fake/orders";
pub(crate) const AT_ONCE: usize = 4;
/// How long the credentials of these tests live.
pub(crate) const LIFETIME: Duration = Duration::from_mins(5);
/// How long their mints may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What a reaper said of what it did.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) ended: Mutex<Vec<Duration>>,
    pub(crate) failed: Mutex<Vec<&'static str>>,
}

impl Watch for Told {
    fn ended(&self, _: &TargetName, late: Duration) {
        self.ended.lock().unwrap().push(late);
    }

    fn failed(&self, _: &TargetName, kind: &'static str) {
        self.failed.lock().unwrap().push(kind);
    }
}

/// A ledger that can refuse to write.
#[derive(Debug)]
pub(crate) struct Switch {
    inner: Arc<dyn Commit>,
    pub(crate) off: AtomicBool,
    pub(crate) tried: Mutex<u32>,
}

#[async_trait]
impl Commit for Switch {
    async fn commit(&self, proposal: Proposal) -> Result<Committed, CommitError> {
        if self.off.load(Ordering::SeqCst) {
            *self.tried.lock().unwrap() += 1;
            return Err(CommitError::Full);
        }
        self.inner.commit(proposal).await
    }

    fn note(&self, proposal: Proposal) {
        self.inner.note(proposal);
    }

    fn enter(&self) -> InFlight {
        self.inner.enter()
    }
}

pub(crate) struct Bench {
    pub(crate) log: Log,
    pub(crate) server: Arc<FakeServer>,
    pub(crate) revoker: Arc<LoginMinter>,
    pub(crate) switch: Arc<Switch>,
    pub(crate) reaper: Arc<Reaper>,
    pub(crate) told: Arc<Told>,
    pub(crate) stop: CancellationToken,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::over(Log::create(), FakeServer::new())
    }

    pub(crate) fn over(log: Log, server: Arc<FakeServer>) -> Self {
        let clock = Arc::clone(&log.clock) as Arc<dyn Clock>;
        let revoker = server.minter((ORIGIN, ORDERS), AT_ONCE, clock, chance());
        let revokers = Revokers::of([(ORDERS.into(), Arc::clone(&revoker) as Arc<dyn Revoker>)]);
        Self::with(log, server, revoker, revokers)
    }

    pub(crate) fn with(
        log: Log,
        server: Arc<FakeServer>,
        revoker: Arc<LoginMinter>,
        revokers: Revokers,
    ) -> Self {
        let inner = Arc::new(log.writer.clone()) as Arc<dyn Commit>;
        let switch =
            Arc::new(Switch { inner, off: AtomicBool::new(false), tried: Mutex::default() });
        let told = Arc::new(Told::default());
        let reaper = reaper(&log, &switch, revokers, &told);
        let stop = CancellationToken::new();
        Self { log, server, revoker, switch, reaper, told, stop }
    }

    /// The broker dies, and another one starts over the same disk at the same time of day.
    pub(crate) async fn restart(self) -> Self {
        let (now, server) = (self.now(), Arc::clone(&self.server));
        let Self { log, reaper, switch, .. } = self;
        drop((reaper, switch));
        let disk = log.close().await;
        let bench = Self::over(Log::open(&disk.path), server);
        bench.log.clock.set(now);
        bench.keeping(disk)
    }

    fn keeping(mut self, disk: Disk) -> Self {
        self.log.keep(disk);
        self
    }

    pub(crate) fn reader(&self) -> &dyn LedgerReader {
        &*self.log.reader
    }

    pub(crate) fn now(&self) -> Instant {
        self.log.clock.now()
    }

    pub(crate) fn pass(&self, duration: Duration) {
        self.log.clock.pass(duration);
    }

    pub(crate) fn ledger_is_off(&self, off: bool) {
        self.switch.off.store(off, Ordering::SeqCst);
    }

    /// The intent of exchange `number` at `target`, made now.
    pub(crate) fn intent(&self, number: u64, target: &str) -> LeaseIntent {
        let names = Names::of(ORIGIN, &target.into());
        LeaseIntent {
            id: LeaseId::make(NOW, &SeededChance::of(number)).unwrap(),
            target: target.into(),
            object: names.make(&SeededChance::of(number)).unwrap(),
            mint_deadline: self.now().plus(DEADLINE),
            worst_end: self.now().plus(LIFETIME),
            token: sha256(&number.to_le_bytes()),
            share: None,
        }
    }

    /// Opens a lease: nothing is made.
    pub(crate) async fn open(&self, number: u64) -> LeaseIntent {
        self.open_at(number, ORDERS).await
    }

    pub(crate) async fn open_at(&self, number: u64, target: &str) -> LeaseIntent {
        let intent = self.intent(number, target);
        self.commit(Proposal { lease: Some(intent.clone()), ..log::grant(number) }).await;
        intent
    }

    /// Opens a lease, makes its object and concludes.
    pub(crate) async fn active(&self, number: u64) -> LeaseIntent {
        self.active_at(number, ORDERS).await
    }

    pub(crate) async fn active_at(&self, number: u64, target: &str) -> LeaseIntent {
        let intent = self.open_at(number, target).await;
        self.server.put(&intent.object);
        self.conclude(number, &intent, LeaseState::Active).await;
        intent
    }

    pub(crate) async fn conclude(&self, number: u64, intent: &LeaseIntent, state: LeaseState) {
        let outcome = match state {
            LeaseState::Active => "minted",
            LeaseState::Void => "void",
            _ => "unknown",
        };
        let release = log::grant(number).spend.filter(|_| state == LeaseState::Void);
        let change = Change::Concluded { release, lease: Some((intent.id, state)), intent: None };
        let event = Event::Concluded { exchange_id: exchange(number), outcome };
        self.commit(Proposal { change: Some(change), ..Proposal::of(event) }).await;
    }

    /// Somebody asks for its end.
    pub(crate) async fn revoke(&self, intent: &LeaseIntent) {
        let by = Some(crate::support::broker::operator());
        let step = LeaseState::Revoking;
        self.commit(Proposal::of(Event::Lease { id: intent.id, step, by })).await;
    }

    /// What is durable; a step that came too late is left out.
    pub(crate) async fn commit(&self, proposal: Proposal) {
        match self.log.writer.commit(proposal).await {
            Ok(Committed::Overtaken(_)) => {}
            other => drop(durable(other)),
        }
    }

    /// One look of the reaper, and everything that it starts.
    pub(crate) async fn look(&self) {
        look(&self.reaper, &self.stop).await;
    }

    pub(crate) fn lease(&self, intent: &LeaseIntent) -> StoredLease {
        self.reader().leases(Leases::Of(intent.id), 9).unwrap().remove(0)
    }

    pub(crate) fn state(&self, intent: &LeaseIntent) -> LeaseState {
        self.lease(intent).state
    }

    /// Bodies of the entries of one kind, as text.
    pub(crate) fn entries(&self, kind: &str) -> Vec<serde_json::Value> {
        let stored = self.reader().entries(0..self.reader().size().unwrap()).unwrap();
        let read = stored.iter().map(|stored| Entry::decode(&stored.leaf).unwrap());
        let of_kind = read.filter(|entry| entry.kind.as_str() == kind);
        of_kind.map(|entry| serde_json::Value::Object(entry.body)).collect()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.log.path
    }
}

pub(crate) fn chance() -> Arc<dyn Chance> {
    Arc::new(SeededChance::of(77))
}

/// Another reaper over the same ledger.
pub(crate) fn reaper(
    log: &Log,
    switch: &Arc<Switch>,
    revokers: Revokers,
    told: &Arc<Told>,
) -> Arc<Reaper> {
    Arc::new(Reaper::of(
        Arc::clone(&log.reader),
        Arc::clone(switch) as Arc<dyn Commit>,
        revokers,
        (Arc::clone(&log.clock) as Arc<dyn Clock>, chance()),
        Arc::clone(told) as Arc<dyn Watch>,
    ))
}

pub(crate) async fn look(reaper: &Arc<Reaper>, stop: &CancellationToken) {
    let tracker = TaskTracker::new();
    reaper.look(&tracker, stop).unwrap();
    tracker.close();
    tracker.wait().await;
}
