//! Group commit: one thread drains what waits, makes it durable with one flush, wakes the waiters.
//!
//! INVARIANT(no-answer-without-entry): a receipt leaves this module after the flush that covers it, and after a failed flush
//! no `Durable` leaves it again. What nobody wants a receipt of is written without a flush of its own: the next one covers it.

use std::{
    fmt,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant as Stopwatch},
};

use async_trait::async_trait;
use tokio::sync::{oneshot, watch};

use crate::{
    chance::Chance,
    clock::{Clock, Instant},
    ledger::{
        Change, Commit, CommitError, Committed, Event, Hash, InFlight, Operator, Proposal, Written,
        entry::{Draft, DraftError, Kind},
        journal::{Journal, KeptCheckpoint, Torn},
        reader::LedgerReader,
        writer::{
            batch::Scribe,
            queue::{Mouth, Queue, Refused},
        },
    },
};

mod batch;
mod blocks;
mod queue;
mod start;

pub use start::StartError;

/// INVARIANT(ledger-time): how far the wall clock may run behind the newest entry.
pub const CLOCK_TOLERANCE: Duration = Duration::from_mins(1);

/// Is told of every durable flush: for metrics. Called on the writer's thread, so it must not wait for anything.
pub trait Watch: fmt::Debug + Send + Sync {
    /// `entries` were written in `took`, with their flush unless they wait for the next; the log has `size` now.
    fn flushed(&self, entries: u64, took: Duration, size: u64);
}

/// The newest state of the log. It is durable but for the last batch, which may wait for its flush: a checkpoint's own
/// flush goes before its signature leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// How many entries there are.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
    /// The newest entry's ledger time; the epoch if there is none.
    pub time: Instant,
}

/// The handle to the one writer. Clones share it.
#[derive(Clone)]
pub struct Writer {
    mouth: Arc<Mouth>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    chance: Arc<dyn Chance>,
    waiting: AtomicUsize,
    in_flight: Arc<AtomicUsize>,
    dropped: AtomicU64,
    head: Mutex<Head>,
    held: Mutex<Option<String>>,
    stopped: watch::Sender<Option<String>>,
    ended: watch::Sender<bool>,
    watched: OnceLock<Arc<dyn Watch>>,
}

enum Job {
    Propose { draft: Draft, proposal: Box<Proposal>, answer: Option<Answer>, until: Until },
    Keep { checkpoint: KeptCheckpoint, answer: oneshot::Sender<Result<(), CommitError>> },
    Settle { answer: oneshot::Sender<()> },
}

/// What must have happened before the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    /// It would survive a power cut.
    Flushed,
    /// It would survive the end of this process.
    Written,
}

/// The outcome, and what the proposal was made of: that is freed by whoever asked. Some seventy texts are the claims alone, and
/// memory that one thread frees for another is neither cheap to free nor cheap to get again (docs/performance.md).
type Told = (Result<Committed, CommitError>, Option<(Draft, Box<Proposal>)>);

type Answer = oneshot::Sender<Told>;

impl Writer {
    /// Checks the end of the log, then starts the thread. `queue` bounds how many proposals may wait for the disk.
    ///
    /// Entries after the newest checkpoint are hashed anew; earlier ones are vouched for by that checkpoint's root, and
    /// re-read by [`crate::ledger::verify`]. So a start costs the same at 10³ and at 10⁸ entries.
    ///
    /// # Errors
    /// The store can't be read, or what was durable has changed (threat A06).
    pub fn start(
        mut journal: Box<dyn Journal>,
        reader: &dyn LedgerReader,
        clock: Arc<dyn Clock>,
        chance: Arc<dyn Chance>,
        queue: usize,
    ) -> Result<Self, StartError> {
        let standing = journal.standing()?;
        let (frontier, newest) = start::trusted_head(reader, standing.size)?;
        let fork = reader.newest_of(Kind::Forked)?.map(|entry| entry.time);
        let torn = match standing.torn {
            Torn::No => None,
            Torn::Now => {
                let now = clock.now();
                journal.torn(now)?;
                Some(now)
            }
            Torn::Before(at) => Some(at),
        };
        let lost = fork.max(torn);
        let mut boot = [0; 16];
        chance.fill(&mut boot)?;
        let head = Head { size: frontier.size(), root: frontier.root(), time: newest };
        let shared = Arc::new(Shared {
            chance,
            waiting: AtomicUsize::new(0),
            in_flight: Arc::default(),
            dropped: AtomicU64::new(0),
            head: Mutex::new(head),
            held: Mutex::new(None),
            stopped: watch::Sender::new(None),
            ended: watch::Sender::new(false),
            watched: OnceLock::new(),
        });
        let queue = Arc::new(Queue::of(queue));
        let scribe = Scribe::new(journal, clock, frontier, newest, boot, standing.blocks, lost);
        let (theirs, mouth) = (Arc::clone(&shared), Arc::new(Mouth(Arc::clone(&queue))));
        std::thread::Builder::new()
            .name("ledger".into())
            .spawn(move || {
                let _ending = Ending(Arc::clone(&theirs), Arc::clone(&queue));
                run(scribe, &queue, &theirs);
            })
            .map_err(|error| StartError::Thread(error.to_string()))?;
        Ok(Self { mouth, shared })
    }

    /// The newest durable head.
    #[must_use]
    pub fn head(&self) -> Head {
        *self.shared.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many noted refusals were dropped because the queue was full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Why the writer stopped, if it did.
    #[must_use]
    pub fn stopped(&self) -> Option<String> {
        self.shared.stopped.borrow().clone()
    }

    /// Waits until the writer stops, and says why. The process must end then: only a restart knows what is durable.
    pub async fn wait_until_stopped(&self) -> String {
        let mut stopped = self.shared.stopped.subscribe();
        match stopped.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "the ledger's writer is gone".to_owned(),
        }
    }

    /// Tells `watch` of every flush from now on. The first one to be set is kept.
    pub fn watch(&self, watch: Arc<dyn Watch>) {
        let _first = self.shared.watched.set(watch);
    }

    /// How many proposals wait for the disk now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.waiting.load(Ordering::Relaxed)
    }

    /// Stops issuing until [`Self::fork`]: the head does not agree with an anchor (threat K07).
    pub fn hold(&self, reason: String) {
        *self.held() = Some(reason);
    }

    /// Why issuing is held, if it is.
    #[must_use]
    pub fn is_held(&self) -> Option<String> {
        self.held().clone()
    }

    /// Records why the log goes on from a head that an anchor does not know, and lets issuing begin.
    ///
    /// Every head in `anchored` (size and root) gets an entry of its own and is remembered in the store.
    ///
    /// # Errors
    /// An entry could not be written: issuing stays stopped.
    pub async fn fork(&self, anchored: &[(u64, Hash)], by: &Operator) -> Result<(), CommitError> {
        for head in anchored {
            let event = Event::Forked { anchored: *head, by: by.clone() };
            self.propose(Proposal::of(event), Until::Flushed).await?;
        }
        *self.held() = None;
        Ok(())
    }

    /// Keeps a signed checkpoint. Blocks until it is durable.
    ///
    /// # Errors
    /// The writer stopped, or its queue is full.
    pub(in crate::ledger) fn keep(&self, checkpoint: KeptCheckpoint) -> Result<(), CommitError> {
        let (answer, answered) = oneshot::channel();
        self.enqueue(Job::Keep { checkpoint, answer })?;
        answered.blocking_recv().unwrap_or_else(|_| Err(self.gone()))
    }

    /// Stops for good: something is wrong with what was written (threat A04).
    pub(in crate::ledger) fn stop(&self, reason: &str) {
        self.shared.stop(reason);
    }

    /// Waits until everything that was handed over before is durable, notes included, or the writer has stopped.
    pub async fn settle(&self) {
        let (answer, answered) = oneshot::channel();
        if self.enqueue(Job::Settle { answer }).is_ok() {
            // An error says that the writer stopped: nothing more will become durable.
            let _ = answered.await;
        }
    }

    /// Lets the thread write what waits, then end. Later commits are refused.
    pub fn close(&self) {
        self.mouth.0.end();
    }

    /// Waits until the thread has ended and given its store back: after [`Self::close`], or a failure.
    pub async fn wait_until_ended(&self) {
        let mut ended = self.shared.ended.subscribe();
        let _ = ended.wait_for(|ended| *ended).await;
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.shared.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gone(&self) -> CommitError {
        CommitError::Stopped(self.stopped().unwrap_or_else(|| "closed".to_owned()))
    }

    fn enqueue(&self, job: Job) -> Result<(), CommitError> {
        if let Some(reason) = self.stopped() {
            return Err(CommitError::Stopped(reason));
        }
        self.mouth.0.put(job).map_err(|refused| match refused {
            Refused::Full => CommitError::Full,
            Refused::Closed => self.gone(),
        })
    }

    /// The caller's share of the work: everything that does not depend on the entry's place.
    fn job(
        &self,
        proposal: Proposal,
        answer: Option<Answer>,
        until: Until,
    ) -> Result<Job, CommitError> {
        let grants = matches!(proposal.event, Event::Granted(_));
        if proposal.spend.is_some() && !grants {
            // It could not become a refusal's entry; nobody builds such a proposal.
            return Err(CommitError::Stopped("a spend belongs to a grant".to_owned()));
        }
        if let Some(Change::KeyRing { from, to, .. }) = &proposal.change
            && to <= from
        {
            return Err(CommitError::Stopped(format!("found epoch {to} after {from}")));
        }
        let draft = Draft::of(&proposal.event, proposal.facts.as_ref(), &*self.shared.chance)
            .map_err(refused_draft)?;
        Ok(Job::Propose { draft, proposal: Box::new(proposal), answer, until })
    }

    async fn propose(&self, proposal: Proposal, until: Until) -> Result<Committed, CommitError> {
        let (answer, answered) = oneshot::channel();
        let job = self.job(proposal, Some(answer), until)?;
        // Counted before it queues, and uncounted by the writer before it answers.
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = self.enqueue(job) {
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(error);
        }
        match answered.await {
            Ok((outcome, _made_of)) => outcome,
            Err(_) => Err(self.gone()),
        }
    }
}

fn refused_draft(error: DraftError) -> CommitError {
    match error {
        DraftError::TooLarge(size) => CommitError::TooLarge(size),
        other @ (DraftError::Chance(_) | DraftError::Facts(_)) => {
            CommitError::Stopped(other.to_string())
        }
    }
}

#[async_trait]
impl Commit for Writer {
    async fn commit(&self, proposal: Proposal) -> Result<Committed, CommitError> {
        if let Some(reason) = self.is_held() {
            return Err(CommitError::Fork(reason));
        }
        self.propose(proposal, Until::Flushed).await
    }

    async fn write(&self, proposal: Proposal) -> Result<Written, CommitError> {
        if let Some(reason) = self.is_held() {
            return Err(CommitError::Fork(reason));
        }
        self.propose(proposal, Until::Written).await.and_then(Written::of)
    }

    fn enter(&self) -> InFlight {
        InFlight::count(&self.shared.in_flight)
    }

    fn note(&self, proposal: Proposal) {
        let taken = self.is_held().is_none()
            && self.job(proposal, None, Until::Written).and_then(|job| self.enqueue(job)).is_ok();
        if !taken {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("head", &self.head()).finish_non_exhaustive()
    }
}

impl Shared {
    fn stop(&self, reason: &str) {
        if self.set_stopped(reason) {
            tracing::error!(ledger.reason = reason, "the ledger stopped: {reason}");
        }
    }

    fn set_stopped(&self, reason: &str) -> bool {
        self.stopped.send_if_modified(|stopped| {
            let first = stopped.is_none();
            if first {
                *stopped = Some(reason.to_owned());
            }
            first
        })
    }

    fn size(&self) -> u64 {
        self.head.lock().unwrap_or_else(PoisonError::into_inner).size
    }
}

/// Says that the thread has ended, however it did: a defect of ours must not leave callers waiting.
struct Ending(Arc<Shared>, Arc<Queue>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.stop("the writer's thread ended");
        // Whoever still waits learns it by the end of its answer.
        drop(self.1.close());
        self.0.ended.send_replace(true);
    }
}

/// The thread: takes what waits, writes it, answers. Ends after a failure, or when told to.
#[expect(clippy::disallowed_methods, reason = "measures a flush; nothing is judged by it")]
fn run(mut scribe: Scribe, queue: &Queue, shared: &Arc<Shared>) {
    while let Some(jobs) = queue.take(|| expected(shared)) {
        let stopped = shared.stopped.borrow().clone();
        let (before, began) = (shared.size(), Stopwatch::now());
        let outcome = match stopped {
            Some(reason) => Err((jobs, reason)),
            None => scribe.write(jobs, shared),
        };
        if let (Ok(()), Some(watch)) = (&outcome, shared.watched.get()) {
            let size = shared.size();
            watch.flushed(size.saturating_sub(before), began.elapsed(), size);
        }
        if let Err((jobs, reason)) = outcome {
            shared.stop(&reason);
            refuse(jobs, shared, &reason);
            break;
        }
    }
    // Nothing is wrong: whoever comes now comes too late.
    shared.set_stopped("closed");
    // Whoever got into the queue before the flag was up.
    refuse(queue.close(), shared, &shared.stopped.borrow().clone().unwrap_or_default());
}

/// How many jobs can come soon.
fn expected(shared: &Shared) -> usize {
    shared.waiting.load(Ordering::Relaxed).max(shared.in_flight.load(Ordering::Relaxed))
}

fn refuse(jobs: Vec<Job>, shared: &Shared, reason: &str) {
    for job in jobs {
        match job {
            Job::Propose { answer: Some(answer), .. } => {
                shared.waiting.fetch_sub(1, Ordering::Relaxed);
                let _ = answer.send((Err(CommitError::Stopped(reason.to_owned())), None));
            }
            Job::Keep { answer, .. } => {
                let _ = answer.send(Err(CommitError::Stopped(reason.to_owned())));
            }
            Job::Propose { answer: None, .. } | Job::Settle { .. } => {}
        }
    }
}
