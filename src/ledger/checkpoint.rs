//! Checkpoints: what the log said it was, signed (C2SP tlog-checkpoint), after reading back what was written.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use thiserror::Error;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    clock::{Clock, Instant},
    ledger::{
        CommitError, Hash,
        anchor::{Anchor, publish_everywhere},
        journal::KeptCheckpoint,
        note::{self, LogKey, VerifierKey},
        reader::{LedgerReader, ReadError, StoredCheckpoint},
        tree::{Frontier, leaf_hash},
        writer::Writer,
    },
};

/// How long entries may stand without a checkpoint.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// How often the loop looks.
const LOOK: Duration = Duration::from_millis(250);

/// How many leaves are read back at once.
const STRIDE: u64 = 1_024;

/// The head of a log: origin, size, root; and, after a fork, the heads of anchors that it does not go on from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name.
    pub origin: String,
    /// How many entries it covers.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
    /// Acknowledged forks (threat K07), as extension lines `fork <size> <root>`: an anchor goes back for no other reason.
    pub forks: Vec<(u64, Hash)>,
}

/// A text that is no checkpoint.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("not a checkpoint: {0}")]
pub struct CheckpointTextError(String);

/// The text that gets signed.
impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.size, STANDARD.encode(self.root))?;
        for (size, root) in &self.forks {
            writeln!(f, "fork {size} {}", STANDARD.encode(root))?;
        }
        Ok(())
    }
}

impl FromStr for Checkpoint {
    type Err = CheckpointTextError;

    fn from_str(text: &str) -> Result<Self, CheckpointTextError> {
        let error = |reason: &str| CheckpointTextError(reason.to_owned());
        let body =
            text.strip_suffix('\n').ok_or_else(|| error("expected a line feed at the end"))?;
        let mut lines = body.split('\n');
        let origin = lines.next().filter(|line| note::check_name(line).is_ok());
        let size = lines.next().and_then(decimal);
        let root = lines.next().and_then(hash);
        let (Some(origin), Some(size), Some(root)) = (origin, size, root) else {
            return Err(error("expected origin, size and root, each on its line"));
        };
        let mut forks = Vec::new();
        for line in lines {
            // Extension lines of others are theirs; the format says to skip them.
            let Some(rest) = line.strip_prefix("fork ") else { continue };
            let (size, root) = rest.split_once(' ').ok_or_else(|| error("bad fork line"))?;
            let fork = decimal(size).zip(hash(root)).ok_or_else(|| error("bad fork line"))?;
            forks.push(fork);
        }
        Ok(Self { origin: origin.to_owned(), size, root, forks })
    }
}

impl Checkpoint {
    /// The checkpoint in a note that `key` signed for the log of its name.
    ///
    /// # Errors
    /// The note is not by `key`, holds no checkpoint, or one of another log.
    pub fn open(note: &str, key: &VerifierKey) -> Result<Self, CheckpointTextError> {
        let text = key.open(note).map_err(|error| CheckpointTextError(error.to_string()))?;
        let checkpoint: Self = text.parse()?;
        if checkpoint.origin == key.name() {
            return Ok(checkpoint);
        }
        let (found, expected) = (&checkpoint.origin, key.name());
        Err(CheckpointTextError(format!("found origin `{found}`, expected `{expected}`")))
    }
}

/// A number without sign, leading zero or anything else.
fn decimal(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

fn hash(text: &str) -> Option<Hash> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

/// Reads a stored checkpoint: signed by the log's key, of our origin, of the row's size.
pub(in crate::ledger) fn trusted(
    reader: &dyn LedgerReader,
    stored: &StoredCheckpoint,
) -> Result<Checkpoint, String> {
    // INVARIANT(closed-by-absence): a checkpoint without the key that it could be checked with is no checkpoint.
    let (_, public) = reader
        .log_key()
        .map_err(|error| error.to_string())?
        .ok_or_else(|| "found a checkpoint, and no key of the log".to_owned())?;
    let key: VerifierKey = public.parse().map_err(|error: note::NoteError| error.to_string())?;
    let checkpoint = Checkpoint::open(&stored.note, &key).map_err(|error| error.to_string())?;
    if checkpoint.origin != reader.origin() || checkpoint.size != stored.size {
        return Err("a checkpoint is not that of its row".to_owned());
    }
    Ok(checkpoint)
}

/// Why no checkpoint was made.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CheckpointError {
    /// What stands in the store is not what was hashed: the log has ended (threat A04).
    #[error("entry {0} is not what was written")]
    Changed(u64),
    /// The store can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The checkpoint could not be kept, so it does not exist.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The store keeps another public key, or none: [`crate::store::Store::keep_log_key`] goes before.
    #[error("the log's store does not keep the key `{0}`")]
    OtherKey(String),
    /// The newest checkpoint is not by this key.
    #[error("the newest checkpoint is not ours: {0}")]
    Foreign(String),
    /// The key is not this log's.
    #[error("the key is named `{found}`, the log `{expected}`")]
    OtherLog {
        /// The key's name.
        found: String,
        /// The log's origin.
        expected: String,
    },
}

/// Signs heads. There is one beside each writer; what it signs is in the store before anybody sees it.
#[derive(Debug)]
pub struct Checkpointer {
    key: LogKey,
    reader: Arc<dyn LedgerReader>,
    writer: Writer,
    seen: Frontier,
    last: Option<Instant>,
    every: Duration,
}

impl Checkpointer {
    /// Takes up where the newest checkpoint of the store stands.
    ///
    /// # Errors
    /// The store can't be read, or `key` is another log's.
    pub fn new(
        key: LogKey,
        reader: Arc<dyn LedgerReader>,
        writer: Writer,
    ) -> Result<Self, CheckpointError> {
        if key.public().name() != reader.origin() {
            let (found, expected) = (key.public().name().to_owned(), reader.origin().to_owned());
            return Err(CheckpointError::OtherLog { found, expected });
        }
        let public = key.public().to_string();
        if reader.log_key()?.is_none_or(|(_, kept)| kept != public) {
            return Err(CheckpointError::OtherKey(public));
        }
        let size = match reader.newest_checkpoint()? {
            Some(newest) => {
                // Not by the public half in the store alone: who can write there could have replaced it.
                Checkpoint::open(&newest.note, key.public())
                    .map_err(|error| CheckpointError::Foreign(error.to_string()))?
                    .size
            }
            None => 0,
        };
        // The writer's start compared the root at this size with the signed one.
        let seen = Frontier::load(&*reader, size)?;
        Ok(Self { key, reader, writer, seen, last: None, every: INTERVAL })
    }

    /// The same, with another pause between two checkpoints than [`INTERVAL`].
    #[must_use]
    pub fn every(self, pause: Duration) -> Self {
        Self { every: pause, ..self }
    }

    /// A checkpoint, if there are entries without one and the last was made a pause ago. Blocks on the disk.
    ///
    /// # Errors
    /// The batch is not what was written, or the store failed.
    pub fn checkpoint_due(&mut self, now: Instant) -> Result<Option<String>, CheckpointError> {
        // A clock that was set back must not postpone checkpoints.
        let waits = self.last.is_some_and(|last| last <= now && now.since(last) < self.every);
        if waits { Ok(None) } else { self.checkpoint_now(now) }
    }

    /// A checkpoint, if there are entries without one: at shutdown. Blocks on the disk.
    ///
    /// # Errors
    /// The batch is not what was written, or the store failed.
    pub fn checkpoint_now(&mut self, now: Instant) -> Result<Option<String>, CheckpointError> {
        let head = self.writer.head();
        // While the log disagrees with an anchor, a signature could make two histories of it (threat A12).
        if head.size <= self.seen.size() || self.writer.is_held().is_some() {
            return Ok(None);
        }
        let read_back = self.read_back(head.size)?;
        if read_back.root() != head.root {
            return Err(self.ends(self.seen.size()));
        }
        let mut forks = self.reader.forks()?;
        forks.retain(|(size, _)| *size >= head.size);
        let origin = self.reader.origin().to_owned();
        let checkpoint = Checkpoint { origin, size: head.size, root: head.root, forks };
        let note = self.key.sign(&checkpoint.to_string());
        self.writer.keep(KeptCheckpoint { size: head.size, time: now, note: note.clone() })?;
        self.seen = read_back;
        self.last = Some(now);
        Ok(Some(note))
    }

    /// Hashes what stands in the store between the last checkpoint and `size` (threat A04).
    fn read_back(&self, size: u64) -> Result<Frontier, CheckpointError> {
        let mut frontier = self.seen.clone();
        let mut finished = Vec::new();
        while frontier.size() < size {
            let at = frontier.size();
            let entries = self.reader.entries(at..at.saturating_add(STRIDE).min(size))?;
            if entries.is_empty() {
                return Err(self.ends(at));
            }
            for stored in entries {
                let hash = leaf_hash(&stored.leaf);
                if stored.index != frontier.size() || hash != stored.hash {
                    return Err(self.ends(frontier.size()));
                }
                frontier.push(hash, &mut finished);
            }
        }
        for root in finished {
            if self.reader.hashes(root.level, root.position, 1)?.first() != Some(&root.hash) {
                return Err(self.ends(self.seen.size()));
            }
        }
        Ok(frontier)
    }

    fn ends(&self, index: u64) -> CheckpointError {
        let error = CheckpointError::Changed(index);
        self.writer.stop(&error.to_string());
        error
    }
}

/// Gives every anchor a head before the first exchange, so that there is no instant at which a cut tail would not be seen.
///
/// # Errors
/// The batch is not what was written, or the store failed. An anchor that can't be written is logged and shows in readiness.
pub async fn anchor_first(
    mut checkpointer: Checkpointer,
    anchors: &[Arc<dyn Anchor>],
    now: Instant,
) -> Result<Checkpointer, CheckpointError> {
    let work = tokio::task::spawn_blocking(move || {
        let note = match checkpointer.checkpoint_now(now)? {
            None if checkpointer.writer.is_held().is_none() => {
                checkpointer.reader.newest_checkpoint()?.map(|newest| newest.note)
            }
            made => made,
        };
        Ok::<_, CheckpointError>((checkpointer, note))
    });
    let ended = |error: tokio::task::JoinError| CommitError::Stopped(error.to_string());
    let (checkpointer, note) = work.await.map_err(ended)??;
    if let Some(note) = note {
        publish_everywhere(anchors, &note).await;
    }
    Ok(checkpointer)
}

/// Starts the loop: checkpoints while there is traffic, one more when `stop` is cancelled, each published to `anchors`.
///
/// Cancel `stop` after the last exchange has ended, then wait for `tracker`.
pub fn keep_checkpointing(
    mut checkpointer: Checkpointer,
    anchors: Vec<Arc<dyn Anchor>>,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    tracker: &TaskTracker,
) {
    let blocking = tracker.clone();
    tracker.spawn(async move {
        loop {
            let last = tokio::select! {
                () = tokio::time::sleep(LOOK) => false,
                () = stop.cancelled() => true,
            };
            let now = clock.now();
            let made = blocking.spawn_blocking(move || {
                let made = if last {
                    checkpointer.checkpoint_now(now)
                } else {
                    checkpointer.checkpoint_due(now)
                };
                (checkpointer, made)
            });
            let Ok((back, made)) = made.await else { return };
            checkpointer = back;
            match made {
                Ok(Some(note)) => publish_everywhere(&anchors, &note).await,
                Ok(None) => {}
                Err(error) => tracing::error!("no checkpoint: {error}"),
            }
            if last || checkpointer.writer.stopped().is_some() {
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_reads_back_what_it_prints() {
        let plain = Checkpoint {
            origin: "log.example/a".into(),
            size: 12,
            root: [7; 32],
            forks: Vec::new(),
        };
        assert_eq!(
            plain.to_string(),
            "log.example/a\n12\nBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n"
        );
        let forked = Checkpoint { forks: vec![(13, [8; 32])], ..plain.clone() };
        for checkpoint in [plain, forked] {
            assert_eq!(checkpoint.to_string().parse(), Ok(checkpoint));
        }
    }

    #[test]
    fn sizes_with_signs_and_leading_zeros_are_refused() {
        for size in ["+1", "01", "-1", " 1", "1 ", "", "18446744073709551616"] {
            let text = format!("log\n{size}\nBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n");
            assert!(text.parse::<Checkpoint>().is_err(), "{size:?}");
        }
    }
}
