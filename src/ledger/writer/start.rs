//! What a writer checks before it writes: the end of the log is what was durable (threat A06).

use thiserror::Error;

use crate::{
    chance::ChanceError,
    clock::Instant,
    ledger::{
        checkpoint,
        entry::Entry,
        journal::JournalError,
        reader::{LedgerReader, ReadError},
        tree::{Frontier, leaf_hash},
    },
};

/// How many entries the start reads at once.
const STRIDE: u64 = 4_096;

/// Why the ledger did not open for writing.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum StartError {
    /// The store can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store failed.
    #[error("the store failed: {0}")]
    Journal(#[from] JournalError),
    /// What was durable once has changed since (threats A03, A06).
    #[error("the ledger is damaged at entry {index}: {reason}")]
    Damaged {
        /// The first entry that is not what it was.
        index: u64,
        /// What was found, and what was expected.
        reason: String,
    },
    /// No boot id without randomness.
    #[error(transparent)]
    Chance(#[from] ChanceError),
    /// The thread could not be started.
    #[error("the writer's thread can't start: {0}")]
    Thread(String),
}

/// The frontier over all entries and the newest entry's time, after re-hashing what no checkpoint vouches for.
pub(super) fn trusted_head(
    reader: &dyn LedgerReader,
    size: u64,
) -> Result<(Frontier, Instant), StartError> {
    let mut frontier = Frontier::default();
    if let Some(checkpoint) = reader.newest_checkpoint()? {
        let damaged = |reason: String| StartError::Damaged { index: checkpoint.size, reason };
        let signed = checkpoint::trusted(reader, &checkpoint).map_err(damaged)?;
        if signed.size > size {
            return Err(damaged(format!(
                "found {size} entries, its checkpoint covers {}",
                signed.size
            )));
        }
        frontier = Frontier::load(reader, signed.size)?;
        if frontier.root() != signed.root {
            return Err(damaged("the root is not that of its checkpoint".to_owned()));
        }
    }
    let mut time = Instant::default();
    let mut finished = Vec::new();
    // One entry before the tail, so that the newest time is known even if the tail is empty.
    let mut at = frontier.size().saturating_sub(1);
    while at < size {
        let entries = reader.entries(at..at.saturating_add(STRIDE).min(size))?;
        for stored in &entries {
            let damaged = |reason: String| StartError::Damaged { index: at, reason };
            let entry = Entry::decode(&stored.leaf).map_err(|error| damaged(error.to_string()))?;
            if stored.index != at || entry.index != at {
                return Err(damaged(format!(
                    "found index {} in row {}",
                    entry.index, stored.index
                )));
            }
            if leaf_hash(&stored.leaf) != stored.hash {
                return Err(damaged("the leaf does not have its hash".to_owned()));
            }
            if at >= frontier.size() {
                frontier.push(stored.hash, &mut finished);
            }
            time = time.max(entry.time);
            at = at.saturating_add(1);
        }
        if entries.is_empty() {
            return Err(StartError::Damaged { index: at, reason: "it is missing".to_owned() });
        }
    }
    for root in finished {
        let stored = reader.hashes(root.level, root.position, 1)?;
        if stored.first() != Some(&root.hash) {
            let reason = format!("the root of tile level {} is another", root.level);
            return Err(StartError::Damaged { index: frontier.size(), reason });
        }
    }
    Ok((frontier, time))
}
