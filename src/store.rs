//! The store: opens a database, checks that it may be trusted with a ledger, hands out the ports.

use std::{path::PathBuf, sync::Arc};

use thiserror::Error;

use crate::ledger::{journal::Journal, reader::LedgerReader};

pub mod sqlite;

/// Why a store did not open, or was not created.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum StoreError {
    /// There is none. `create` is separate, so that a typo can't start a second log.
    #[error("found no store at `{0}`: `cambio serve --create` makes a new one, once")]
    Absent(PathBuf),
    /// There is one already.
    #[error("found a store at `{0}`, which is never overwritten: start without `--create`")]
    Exists(PathBuf),
    /// Another process has it open for writing (threats A07, K09).
    #[error("another process has `{0}` open")]
    Locked(PathBuf),
    /// Locks and flushes of network file systems can't be relied on (threat K09).
    #[error("`{path}` is on a network file system ({kind}): the embedded store needs a local disk")]
    Network {
        /// Where.
        path: PathBuf,
        /// Which kind.
        kind: &'static str,
    },
    /// The library is one with a known defect (threat K09).
    #[error("found SQLite {found}, expected at least 3.51.3")]
    Library {
        /// Its version.
        found: String,
    },
    /// A later version of Cambio wrote it (threat V08).
    #[error("found schema {found}, this version knows {known}: a store is not downgraded")]
    Newer {
        /// The store's schema.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// An earlier version of Cambio wrote it, and none of this version has opened it for writing yet.
    #[error(
        "found schema {found}, expected {known}: `cambio serve` of this version brings the store up to date"
    )]
    Older {
        /// The store's schema.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// What was durable has changed (threat A06).
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// The origin can't name a log.
    #[error("origin: {0}")]
    Origin(String),
    /// The log's key is fixed when the log is created.
    #[error("the log has a key already")]
    KeyExists,
    /// The disk, or SQLite.
    #[error("the store failed: {0}")]
    Failed(String),
}

/// An open store, owned by this process alone for as long as its journal lives.
#[derive(Debug)]
pub struct Store {
    /// The write side, for [`crate::ledger::writer::Writer::start`].
    pub journal: Box<dyn Journal>,
    /// The read side.
    pub reader: Arc<dyn LedgerReader>,
}
