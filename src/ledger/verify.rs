//! `cambio ledger verify`: recomputes everything from the stored bytes, and names the first entry that is not what it was.
//!
//! A log alone can't show that its end was cut off (threat A02): only a head that was kept elsewhere can. So a report says
//! against which heads it compared.

use std::fmt;

use thiserror::Error;

use crate::{
    clock::Instant,
    ledger::{
        Hash,
        checkpoint::Checkpoint,
        entry::{Entry, commitment},
        note::VerifierKey,
        reader::{LedgerReader, ReadError, StoredCheckpoint, StoredEntry},
        tree::{Frontier, TileRoot, leaf_hash},
    },
};

/// How many entries are held in memory at once.
const STRIDE: u64 = 1_024;

/// What was found to be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The log's name.
    pub origin: String,
    /// How many entries there are.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
    /// How many signed checkpoints of the store were recomputed.
    pub checkpoints: u64,
    /// How many entries no signature covers yet: the newest ones.
    pub unsigned: u64,
    /// How many facts agree with their commitments.
    pub facts: u64,
    /// How many commitments have no facts any more: erased, or taken away.
    pub erased: u64,
    /// How many heads from outside the store were found in it. With 0, a cut tail would not have been seen.
    pub anchored: u64,
}

/// The first thing that is wrong.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Fault {
    /// An entry is not what it was.
    #[error("entry {index}: {reason}")]
    Entry {
        /// Its index.
        index: u64,
        /// What was found, and what was expected.
        reason: String,
    },
    /// A checkpoint does not fit the entries before it. The change is between the checkpoint before and this one.
    #[error("checkpoint over {size} entries: {reason} (entries from {from} on)")]
    Checkpoint {
        /// How many entries it covers.
        size: u64,
        /// How many entries the newest good checkpoint covers.
        from: u64,
        /// What was found, and what was expected.
        reason: String,
    },
    /// A head from outside is not in this log: its end was cut off, or its history is another one.
    #[error("the head that was kept elsewhere ({size} entries): {reason}")]
    Outside {
        /// How many entries it covers.
        size: u64,
        /// What was found, and what was expected.
        reason: String,
    },
    /// The store can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Recomputes the log. `key` signs its checkpoints; `outside` are heads from anchors, already opened with that key;
/// `progress` is told how many entries are done and how many there are.
///
/// Memory does not grow with the log.
///
/// # Errors
/// The first fault.
pub fn verify(
    reader: &dyn LedgerReader,
    key: &VerifierKey,
    outside: &[Checkpoint],
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Report, Fault> {
    let size = reader.size()?;
    let mut walk = Walk::new(reader, key, outside)?;
    walk.heads_at(0)?;
    while walk.frontier.size() < size {
        let at = walk.frontier.size();
        let entries = reader.entries(at..at.saturating_add(STRIDE).min(size))?;
        if entries.is_empty() {
            return Err(fault(at, "it is missing"));
        }
        for stored in &entries {
            walk.entry(stored)?;
        }
        walk.tile_roots()?;
        progress(walk.frontier.size(), size);
    }
    walk.finish()
}

struct Walk<'a> {
    reader: &'a dyn LedgerReader,
    key: &'a VerifierKey,
    outside: &'a [Checkpoint],
    frontier: Frontier,
    finished: Vec<TileRoot>,
    next: Option<StoredCheckpoint>,
    time: Instant,
    /// The run that wrote the entry before, and what its counter must be next.
    run: Option<([u8; 16], u64)>,
    signed: u64,
    report: Report,
}

impl<'a> Walk<'a> {
    fn new(
        reader: &'a dyn LedgerReader,
        key: &'a VerifierKey,
        outside: &'a [Checkpoint],
    ) -> Result<Self, Fault> {
        let report = Report {
            origin: reader.origin().to_owned(),
            size: 0,
            root: Frontier::default().root(),
            checkpoints: 0,
            unsigned: 0,
            facts: 0,
            erased: 0,
            anchored: 0,
        };
        Ok(Self {
            reader,
            key,
            outside,
            frontier: Frontier::default(),
            finished: Vec::new(),
            next: reader.checkpoint_at_least(0)?,
            time: Instant::default(),
            run: None,
            signed: 0,
            report,
        })
    }

    fn entry(&mut self, stored: &StoredEntry) -> Result<(), Fault> {
        let index = self.frontier.size();
        if stored.index != index {
            return Err(fault(index, "it is missing"));
        }
        if leaf_hash(&stored.leaf) != stored.hash {
            return Err(fault(index, "the leaf does not have its hash"));
        }
        let entry = Entry::decode(&stored.leaf).map_err(|error| fault(index, error))?;
        if entry.index != index {
            return Err(fault(index, format_args!("found the leaf of entry {}", entry.index)));
        }
        self.order(index, &entry)?;
        if entry.time != stored.time {
            return Err(fault(index, "the row tells another time than the leaf"));
        }
        self.facts(index, &entry, stored)?;
        self.frontier.push(stored.hash, &mut self.finished);
        self.heads_at(self.frontier.size())
    }

    /// Time never goes back; the counter of a run has no gap, whatever the clock did (threat A13).
    fn order(&mut self, index: u64, entry: &Entry) -> Result<(), Fault> {
        if entry.time < self.time {
            return Err(fault(index, "its time is before that of the entry before it"));
        }
        self.time = entry.time;
        let expected = match self.run {
            Some((boot, next)) if boot == entry.boot => next,
            _ => 0,
        };
        if entry.counter != expected {
            let found = entry.counter;
            return Err(fault(index, format_args!("found counter {found}, expected {expected}")));
        }
        self.run = Some((entry.boot, expected.saturating_add(1)));
        Ok(())
    }

    fn facts(&mut self, index: u64, entry: &Entry, stored: &StoredEntry) -> Result<(), Fault> {
        let count = match (&stored.facts, entry.commitment) {
            (None, None) => return Ok(()),
            (Some(facts), Some(committed)) if commitment(facts) == committed => {
                &mut self.report.facts
            }
            (Some(_), Some(_)) => return Err(fault(index, "its facts are not those committed to")),
            (Some(_), None) => return Err(fault(index, "found facts, and no commitment to any")),
            (None, Some(_)) => &mut self.report.erased,
        };
        *count = count.saturating_add(1);
        Ok(())
    }

    /// Compares every signed head of this size with what was recomputed.
    fn heads_at(&mut self, size: u64) -> Result<(), Fault> {
        for head in self.outside.iter().filter(|head| head.size == size) {
            if head.origin != self.reader.origin() || head.root != self.frontier.root() {
                let reason = "this log had another root then".to_owned();
                return Err(Fault::Outside { size, reason });
            }
            self.report.anchored = self.report.anchored.saturating_add(1);
        }
        while let Some(stored) = self.next.take_if(|next| next.size == size) {
            self.checkpoint(&stored)?;
            self.next = self.reader.checkpoint_at_least(size.saturating_add(1))?;
        }
        Ok(())
    }

    fn checkpoint(&mut self, stored: &StoredCheckpoint) -> Result<(), Fault> {
        let wrong =
            |reason: String| Fault::Checkpoint { size: stored.size, from: self.signed, reason };
        let signed =
            Checkpoint::open(&stored.note, self.key).map_err(|error| wrong(error.to_string()))?;
        if signed.size != stored.size || signed.origin != self.reader.origin() {
            return Err(wrong("it is not that of its row".to_owned()));
        }
        if signed.root != self.frontier.root() {
            return Err(wrong("the entries have another root".to_owned()));
        }
        self.signed = stored.size;
        self.report.checkpoints = self.report.checkpoints.saturating_add(1);
        Ok(())
    }

    /// Derived hashes are no record, but proofs and tiles are made of them.
    fn tile_roots(&mut self) -> Result<(), Fault> {
        for root in std::mem::take(&mut self.finished) {
            let found = self.reader.hashes(root.level, root.position, 1);
            if !found.is_ok_and(|found| found.first() == Some(&root.hash)) {
                let place = format_args!("{} of level {}", root.position, root.level);
                let last = self.frontier.size().saturating_sub(1);
                return Err(fault(last, format_args!("tile root {place} is another")));
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Report, Fault> {
        let size = self.frontier.size();
        if let Some(beyond) = self.next {
            let reason = format!("found {size} entries only");
            return Err(Fault::Checkpoint { size: beyond.size, from: self.signed, reason });
        }
        if let Some(beyond) = self.outside.iter().find(|head| head.size > size) {
            let reason = format!("found {size} entries only");
            return Err(Fault::Outside { size: beyond.size, reason });
        }
        self.report.size = size;
        self.report.root = self.frontier.root();
        self.report.unsigned = size.saturating_sub(self.signed);
        Ok(self.report)
    }
}

fn fault(index: u64, reason: impl fmt::Display) -> Fault {
    Fault::Entry { index, reason: reason.to_string() }
}
