//! The read side: connections of its own, beside a running writer (WAL readers do not block it).

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, params};

use crate::{
    clock::Instant,
    id::{BlockId, ExchangeId, LeaseId},
    ledger::{
        Block, Hash, Intent, LeaseState,
        entry::Kind,
        reader::{
            LeaseCount, Leases, LedgerReader, ReadError, StoredCheckpoint, StoredEntry,
            StoredFacts, StoredIntent, StoredLease, UnknownOutcomes,
        },
        tree::Nodes,
    },
    store::{
        StoreError,
        sqlite::{BUSY, failed, schema},
    },
};

/// How many idle connections are kept.
const IDLE: usize = 4;

const ENTRY: &str = "SELECT entry.idx, leaf, hash, time, salt, json FROM entry LEFT JOIN facts ON facts.idx = entry.idx";

/// Reads a database; opens connections as they are needed.
pub(super) struct SqliteReader {
    path: PathBuf,
    origin: String,
    idle: Mutex<Vec<Connection>>,
}

impl SqliteReader {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let connection = reading(path).map_err(failed)?;
        schema::check_version(&connection)?;
        let origin = schema::meta(&connection, "origin")
            .map_err(failed)?
            .ok_or_else(|| StoreError::Damaged("found no origin".to_owned()))?;
        Ok(Self { path: path.to_owned(), origin, idle: Mutex::new(vec![connection]) })
    }

    fn with<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, ReadError> {
        let idle = self.idle().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => reading(&self.path).map_err(unread)?,
        };
        // A connection on which something failed is closed, not put back.
        let found = read(&connection).map_err(unread)?;
        let mut idle = self.idle();
        if idle.len() < IDLE {
            idle.push(connection);
        }
        Ok(found)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SqliteReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteReader").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Nodes for SqliteReader {
    fn hashes(&self, level: u8, from: u64, count: u64) -> Result<Vec<Hash>, ReadError> {
        let sql = if level == 0 {
            "SELECT hash FROM entry WHERE ?3 = 0 AND idx >= ?1 ORDER BY idx LIMIT ?2"
        } else {
            "SELECT hash FROM tile_root WHERE level = ?3 AND position >= ?1 ORDER BY position LIMIT ?2"
        };
        let hashes = self.with(|connection| {
            connection
                .prepare_cached(sql)?
                .query_map(params![signed(from), signed(count), level], |row| fixed(row, 0))?
                .collect::<rusqlite::Result<Vec<Hash>>>()
        })?;
        if u64::try_from(hashes.len()).ok() == Some(count) {
            return Ok(hashes);
        }
        Err(ReadError::Absent(from))
    }
}

impl LedgerReader for SqliteReader {
    fn origin(&self) -> &str {
        &self.origin
    }

    fn size(&self) -> Result<u64, ReadError> {
        self.with(size)
    }

    fn entries(&self, range: Range<u64>) -> Result<Vec<StoredEntry>, ReadError> {
        self.with(|connection| {
            connection
                .prepare_cached(&format!(
                    "{ENTRY} WHERE entry.idx >= ?1 AND entry.idx < ?2 ORDER BY entry.idx"
                ))?
                .query_map(params![signed(range.start), signed(range.end)], entry)?
                .collect()
        })
    }

    fn history(&self, id: ExchangeId) -> Result<Vec<StoredEntry>, ReadError> {
        self.with(|connection| {
            connection
                .prepare_cached(&format!(
                    "{ENTRY} WHERE exchange = ?1 ORDER BY entry.idx LIMIT 64"
                ))?
                .query_map(params![id.as_bytes()], entry)?
                .collect()
        })
    }

    fn newest_of(&self, kind: Kind) -> Result<Option<StoredEntry>, ReadError> {
        self.with(|connection| {
            connection
                .prepare_cached(&format!(
                    "{ENTRY} WHERE kind > 2 AND kind = ?1 ORDER BY entry.idx DESC LIMIT 1"
                ))?
                .query_row(params![kind.code()], entry)
                .optional()
        })
    }

    fn checkpoint_at_most(&self, size: u64) -> Result<Option<StoredCheckpoint>, ReadError> {
        self.with(|connection| {
            connection
                .prepare_cached(
                    "SELECT size, time, note FROM checkpoint WHERE size <= ?1 \
                     ORDER BY size DESC LIMIT 1",
                )?
                .query_row(params![signed(size)], checkpoint)
                .optional()
        })
    }

    fn checkpoint_at_least(&self, size: u64) -> Result<Option<StoredCheckpoint>, ReadError> {
        self.with(|connection| {
            connection
                .prepare_cached(
                    "SELECT size, time, note FROM checkpoint WHERE size >= ?1 ORDER BY size LIMIT 1",
                )?
                .query_row(params![signed(size)], checkpoint)
                .optional()
        })
    }

    fn forks(&self) -> Result<Vec<(u64, Hash)>, ReadError> {
        self.with(|connection| {
            connection
                .prepare_cached("SELECT size, root FROM fork ORDER BY idx DESC LIMIT 64")?
                .query_map([], |row| Ok((number(row, 0)?, fixed(row, 1)?)))?
                .collect()
        })
    }

    fn policy_set(&self, digest: &Hash) -> Result<Option<String>, ReadError> {
        self.with(|connection| {
            connection
                .prepare_cached("SELECT sources FROM policy_set WHERE digest = ?1")?
                .query_row(params![digest], |row| row.get(0))
                .optional()
        })
    }

    fn active_policy(&self) -> Result<Option<Hash>, ReadError> {
        self.with(|connection| {
            connection
                .prepare_cached("SELECT unhex(value) FROM meta WHERE name = 'policy'")?
                .query_row([], |row| fixed(row, 0))
                .optional()
        })
    }

    fn key_ring(&self) -> Result<Option<(u64, String)>, ReadError> {
        self.with(key_ring)
    }

    fn log_key(&self) -> Result<Option<(String, String)>, ReadError> {
        self.with(|connection| {
            let sealed = schema::meta(connection, "log_key")?;
            Ok(sealed.zip(schema::meta(connection, "log_public")?))
        })
    }

    fn blocks(&self) -> Result<Vec<(BlockId, Block)>, ReadError> {
        self.with(blocks)
    }

    fn leases(&self, which: Leases<'_>, limit: u32) -> Result<Vec<StoredLease>, ReadError> {
        use rusqlite::types::Value;
        let (condition, value) = match which {
            Leases::All => ("?1 IS NULL", Value::Null),
            Leases::Live => ("?1 IS NULL AND due IS NOT NULL", Value::Null),
            Leases::In(state) => ("state = ?1", Value::from(state.as_str().to_owned())),
            Leases::Due { by, .. } => {
                ("due <= ?1 AND due IS NOT NULL AND target = ?3", Value::from(milliseconds(by)))
            }
            Leases::Of(id) => ("id = ?1", Value::from(id.as_bytes().to_vec())),
            Leases::Held(token) => ("token = ?1", Value::from(token.to_vec())),
        };
        let (target, skip) = match which {
            Leases::Due { target, skip, .. } => (Some(target.as_str()), skip),
            Leases::All | Leases::Live | Leases::In(_) | Leases::Of(_) | Leases::Held(_) => {
                (None, 0)
            }
        };
        let sql = format!(
            "SELECT id, idx, target, object, mint_deadline, worst_end, state FROM lease \
             WHERE {condition} AND (?3 IS NULL OR target = ?3) \
             ORDER BY due IS NULL, due, worst_end, id LIMIT ?2 OFFSET ?4"
        );
        self.with(|connection| {
            connection
                .prepare_cached(&sql)?
                .query_map(params![value, limit, target, skip], lease)?
                .collect()
        })
    }

    fn lease_counts(&self, now: Instant) -> Result<Vec<LeaseCount>, ReadError> {
        self.with(|connection| {
            connection
                .prepare_cached(
                    "SELECT target, state, count(*), sum(due <= ?1) FROM lease \
                     WHERE due IS NOT NULL GROUP BY target, state",
                )?
                .query_map([milliseconds(now)], |row| {
                    let (target, state): (String, String) = (row.get(0)?, row.get(1)?);
                    let state = LeaseState::of(&state);
                    Ok(LeaseCount {
                        target: target.into(),
                        state: state.ok_or_else(|| unreadable(1, StateError(String::new())))?,
                        live: number(row, 2)?,
                        due: number(row, 3)?,
                    })
                })?
                .collect()
        })
    }

    fn next_due(&self, now: Instant) -> Result<Option<Instant>, ReadError> {
        self.with(|connection| {
            let next: Option<i64> = connection
                .prepare_cached("SELECT min(due) FROM lease WHERE due > ?1")?
                .query_row([milliseconds(now)], |row| row.get(0))?;
            Ok(next.map(|at| Instant::from_milliseconds(at.unsigned_abs())))
        })
    }

    fn intents_due(
        &self,
        by: Instant,
        before: u64,
        limit: u32,
    ) -> Result<Vec<StoredIntent>, ReadError> {
        self.with(|connection| {
            connection
                .prepare_cached(
                    "SELECT exchange, idx, target, mint_deadline, worst_end, lease, unknown FROM intent \
                     WHERE CASE WHEN unknown THEN worst_end <= ?1 ELSE mint_deadline <= ?1 OR idx < ?2 END \
                     ORDER BY idx LIMIT ?3",
                )?
                .query_map(params![milliseconds(by), signed(before), limit], intent)?
                .collect()
        })
    }

    fn unknown_outcomes(&self) -> Result<Vec<UnknownOutcomes>, ReadError> {
        self.with(|connection| {
            connection
                .prepare_cached(
                    "SELECT target, count(*), max(worst_end) FROM intent WHERE unknown GROUP BY target",
                )?
                .query_map([], |row| {
                    let target: String = row.get(0)?;
                    let (count, until) = (number(row, 1)?, instant(row, 2)?);
                    Ok(UnknownOutcomes { target: target.into(), count, until })
                })?
                .collect()
        })
    }
}

fn reading(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "trusted_schema", "OFF")?;
    connection.pragma_update(None, "cell_size_check", "ON")?;
    connection.pragma_update(None, "cache_size", "-2048")?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

pub(super) fn size(connection: &Connection) -> rusqlite::Result<u64> {
    // The greatest index, not the number of rows: a gap must not go unseen because another row took its place.
    connection
        .prepare_cached("SELECT coalesce(max(idx) + 1, 0) FROM entry")?
        .query_row([], |row| number(row, 0))
}

pub(super) fn key_ring(connection: &Connection) -> rusqlite::Result<Option<(u64, String)>> {
    connection
        .prepare_cached("SELECT epoch, sealed FROM key_ring")?
        .query_row([], |row| Ok((number(row, 0)?, row.get(1)?)))
        .optional()
}

pub(super) fn blocks(connection: &Connection) -> rusqlite::Result<Vec<(BlockId, Block)>> {
    connection
        .prepare_cached("SELECT id, block FROM block ORDER BY id")?
        .query_map([], |row| {
            let text: String = row.get(1)?;
            let block = serde_json::from_str(&text).map_err(|error| unreadable(1, error))?;
            Ok((BlockId::from_bytes(fixed(row, 0)?), block))
        })?
        .collect()
}

fn entry(row: &Row<'_>) -> rusqlite::Result<StoredEntry> {
    let json: Option<Vec<u8>> = row.get(5)?;
    let facts = match json {
        Some(json) => Some(StoredFacts { salt: fixed(row, 4)?, json }),
        None => None,
    };
    Ok(StoredEntry {
        index: number(row, 0)?,
        leaf: row.get(1)?,
        hash: fixed(row, 2)?,
        time: instant(row, 3)?,
        facts,
    })
}

fn intent(row: &Row<'_>) -> rusqlite::Result<StoredIntent> {
    let (target, lease): (String, Option<[u8; 16]>) = (row.get(2)?, row.get(5)?);
    Ok(StoredIntent {
        exchange_id: ExchangeId::from_bytes(fixed(row, 0)?),
        index: number(row, 1)?,
        intent: Intent {
            target: target.into(),
            mint_deadline: instant(row, 3)?,
            worst_end: instant(row, 4)?,
            lease: lease.map(LeaseId::from_bytes),
        },
        unknown: row.get(6)?,
    })
}

fn checkpoint(row: &Row<'_>) -> rusqlite::Result<StoredCheckpoint> {
    Ok(StoredCheckpoint { size: number(row, 0)?, time: instant(row, 1)?, note: row.get(2)? })
}

fn lease(row: &Row<'_>) -> rusqlite::Result<StoredLease> {
    let (target, state): (String, String) = (row.get(2)?, row.get(6)?);
    Ok(StoredLease {
        id: LeaseId::from_bytes(fixed(row, 0)?),
        index: number(row, 1)?,
        target: target.into(),
        object: row.get(3)?,
        mint_deadline: instant(row, 4)?,
        worst_end: instant(row, 5)?,
        state: LeaseState::of(&state).ok_or_else(|| unreadable(6, StateError(state)))?,
    })
}

/// A word in the place of a lease's state that is none.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no state of a lease")]
struct StateError(String);

fn milliseconds(at: Instant) -> i64 {
    i64::try_from(at.milliseconds()).unwrap_or(i64::MAX)
}

fn instant(row: &Row<'_>, column: usize) -> rusqlite::Result<Instant> {
    number(row, column).map(Instant::from_milliseconds)
}

fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|error| unreadable(column, error))
}

fn fixed<const N: usize>(row: &Row<'_>, column: usize) -> rusqlite::Result<[u8; N]> {
    row.get(column)
}

fn unreadable(
    column: usize,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    let kind = rusqlite::types::Type::Null;
    rusqlite::Error::FromSqlConversionFailure(column, kind, Box::new(error))
}

fn unread(error: impl fmt::Display) -> ReadError {
    ReadError::Store(error.to_string())
}

/// What no index of ours reaches finds nothing.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
