//! What stands between the real parts in a test: it watches, fails, hangs or panics where it is told to.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use cambio::{
    grant::Grant,
    ledger::{
        Commit, CommitError, Committed, Event, InFlight, Proposal, Recorded, reader::LedgerReader,
    },
    mint::{Behind, Credential, MintError, Minter, Prepared},
    target::Expiry,
};
use tokio::sync::Semaphore;

/// Passes proposals on; for grants it can fail, and can wait on either side of the commit.
#[derive(Debug)]
pub(super) struct Gate {
    inner: Arc<dyn Commit>,
    /// What the next grants end with, instead of being passed on.
    pub(super) fails: Mutex<Option<CommitError>>,
    /// Whether proposals other than grants fail alike.
    pub(super) all: AtomicBool,
    /// Whether conclusions come too late: another outcome was told before.
    pub(super) late: AtomicBool,
    /// Held, grants wait here before they are passed on.
    pub(super) before: Semaphore,
    /// Held, grants wait here after they are durable.
    pub(super) after: Semaphore,
    /// How many grants have come.
    pub(super) arrived: Semaphore,
    /// How many grants are durable.
    pub(super) durable: Semaphore,
}

impl Gate {
    /// An open one before `inner`.
    pub(super) fn before(inner: Arc<dyn Commit>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            fails: Mutex::default(),
            all: AtomicBool::new(false),
            late: AtomicBool::new(false),
            before: Semaphore::new(Semaphore::MAX_PERMITS),
            after: Semaphore::new(Semaphore::MAX_PERMITS),
            arrived: Semaphore::new(0),
            durable: Semaphore::new(0),
        })
    }

    pub(super) fn fail_with(&self, error: CommitError) {
        *self.fails.lock().unwrap() = Some(error);
    }

    /// Closes one of the two gates.
    pub(super) fn close(gate: &Semaphore) {
        gate.forget_permits(Semaphore::MAX_PERMITS);
    }
}

#[async_trait]
impl Commit for Gate {
    async fn commit(&self, proposal: Proposal) -> Result<Committed, CommitError> {
        let grants = matches!(proposal.event, Event::Granted(_));
        if grants || self.all.load(Ordering::SeqCst) {
            let fails = self.fails.lock().unwrap().clone();
            if let Some(error) = fails {
                return Err(error);
            }
        }
        if !grants && self.late.load(Ordering::SeqCst) {
            let proposal = Proposal { change: None, ..proposal };
            let Committed::Durable(receipt) = self.inner.commit(proposal).await? else {
                panic!("an entry alone was not taken")
            };
            return Ok(Committed::Overtaken(receipt));
        }
        if !grants {
            return self.inner.commit(proposal).await;
        }
        self.arrived.add_permits(1);
        let _open = self.before.acquire().await.unwrap();
        let outcome = self.inner.commit(proposal).await;
        self.durable.add_permits(1);
        let _open = self.after.acquire().await.unwrap();
        outcome
    }

    fn note(&self, proposal: Proposal) {
        self.inner.note(proposal);
    }

    fn enter(&self) -> InFlight {
        self.inner.enter()
    }
}

/// How a watched minter ends.
#[derive(Clone, Debug, Default)]
pub(super) enum Mints {
    /// As the real one.
    #[default]
    Well,
    /// Without a credential.
    Fails(MintError),
    /// With a panic.
    Panics,
}

/// A minter that looks into the store, as another process would, whether its entry is there when it is asked to sign.
#[derive(Debug)]
pub(super) struct Watched {
    inner: Arc<dyn Minter>,
    elsewhere: Arc<dyn LedgerReader>,
    pub(super) mints: Mutex<Mints>,
    /// For each time it was asked to sign: whether the entry was there.
    pub(super) seen: Mutex<Vec<bool>>,
}

impl Watched {
    pub(super) fn over(inner: Arc<dyn Minter>, elsewhere: Arc<dyn LedgerReader>) -> Arc<Self> {
        Arc::new(Self { inner, elsewhere, mints: Mutex::default(), seen: Mutex::default() })
    }

    pub(super) fn mints(&self, how: Mints) {
        *self.mints.lock().unwrap() = how;
    }
}

#[async_trait]
impl Minter for Watched {
    fn expiry(&self) -> Expiry {
        self.inner.expiry()
    }

    fn prepare(&self, grant: &Grant, behind: Behind<'_>) -> Result<Prepared, MintError> {
        self.inner.prepare(grant, behind)
    }

    async fn mint(&self, recorded: Recorded<Prepared>) -> Result<Credential, MintError> {
        let receipt = recorded.receipt();
        let stored = self.elsewhere.entry(receipt.index()).unwrap();
        let there = stored.is_some_and(|stored| stored.hash == receipt.leaf());
        self.seen.lock().unwrap().push(there);
        let how = self.mints.lock().unwrap().clone();
        match how {
            Mints::Well => self.inner.mint(recorded).await,
            Mints::Fails(error) => Err(error),
            Mints::Panics => panic!("a minter's defect"),
        }
    }
}
