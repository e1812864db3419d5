//! What waits for the writer. Many put in; the one thread takes out all of it at once.
//!
//! Not a channel: a channel wakes its receiver for every message, and while a batch gathers that is a context switch for
//! each exchange. Here the bell rings once: for the first job of an idle writer, and when as many have come as it waits for.

use std::{
    fmt, mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::Job;

/// The most jobs one batch takes.
const LARGEST_BATCH: usize = 1_024;

/// From this many expected jobs on, a batch waits for the others (performance.md B5: below, waiting costs more than it
/// saves).
const MANY: usize = 32;

/// How long a batch waits for the others at most.
const GATHER: Duration = Duration::from_millis(1);

/// A job was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// As many wait as may.
    Full,
    /// Nobody will write it.
    Closed,
}

/// A bounded queue with one reader.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    bell: Condvar,
    most: usize,
}

struct Waiting {
    jobs: Vec<Job>,
    /// With how many jobs the bell rings; never while the thread writes.
    ring_at: usize,
    /// No more comes: what is there is written, then the thread ends.
    ending: bool,
    /// Nothing is taken any more.
    closed: bool,
}

impl Queue {
    /// An empty queue that holds `most` jobs, and at least one.
    pub(super) fn of(most: usize) -> Self {
        let waiting =
            Waiting { jobs: Vec::new(), ring_at: usize::MAX, ending: false, closed: false };
        Self { waiting: Mutex::new(waiting), bell: Condvar::new(), most: most.max(1) }
    }

    /// Puts `job` in.
    ///
    /// # Errors
    /// It is full, or closed.
    pub(super) fn put(&self, job: Job) -> Result<(), Refused> {
        let mut waiting = self.lock();
        if waiting.closed || waiting.ending {
            return Err(Refused::Closed);
        }
        if waiting.jobs.len() >= self.most {
            return Err(Refused::Full);
        }
        waiting.jobs.push(job);
        if waiting.jobs.len() >= waiting.ring_at {
            waiting.ring_at = usize::MAX;
            drop(waiting);
            self.bell.notify_one();
        }
        Ok(())
    }

    /// Lets the thread write what is there, and then end.
    pub(super) fn end(&self) {
        self.lock().ending = true;
        self.bell.notify_one();
    }

    /// The next batch: what has queued, and, when many are expected, what still comes within a millisecond. `None`: no more
    /// will come.
    pub(super) fn take(&self, expected: impl FnOnce() -> usize) -> Option<Vec<Job>> {
        let mut waiting = self.lock();
        waiting.ring_at = 1;
        let idle = |waiting: &mut Waiting| waiting.jobs.is_empty() && !waiting.ending;
        waiting = self.bell.wait_while(waiting, idle).unwrap_or_else(PoisonError::into_inner);
        let expected = expected().min(LARGEST_BATCH);
        if expected >= MANY && waiting.jobs.len() < expected {
            waiting.ring_at = expected;
            let fewer = |waiting: &mut Waiting| waiting.jobs.len() < expected && !waiting.ending;
            // All who can come have come, or the millisecond is over.
            let waited = self.bell.wait_timeout_while(waiting, GATHER, fewer);
            waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        waiting.ring_at = usize::MAX;
        if waiting.jobs.is_empty() {
            return None;
        }
        if waiting.jobs.len() <= LARGEST_BATCH {
            let room = Vec::with_capacity(waiting.jobs.len());
            return Some(mem::replace(&mut waiting.jobs, room));
        }
        Some(waiting.jobs.drain(..LARGEST_BATCH).collect())
    }

    /// Takes nothing any more; what was left is the caller's to refuse.
    pub(super) fn close(&self) -> Vec<Job> {
        let mut waiting = self.lock();
        waiting.closed = true;
        mem::take(&mut waiting.jobs)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("most", &self.most).finish_non_exhaustive()
    }
}

/// The callers' end. When the last clone of a writer is gone, nobody can put anything in any more.
#[derive(Debug)]
pub(super) struct Mouth(pub(super) Arc<Queue>);

impl Drop for Mouth {
    fn drop(&mut self) {
        self.0.end();
    }
}
