//! Tables, settings, version and integrity.

use rusqlite::{Connection, OptionalExtension as _, config::DbConfig, params};

use crate::store::{StoreError, sqlite::failed};

/// The version of the schema below, in `PRAGMA user_version`. A store of an earlier one is brought up when it is opened for
/// writing ([`upgrade`]).
pub(super) const VERSION: i64 = 3;

/// Which program's file it is, in `PRAGMA application_id`: "Cmb1".
const APPLICATION: i64 = 0x436d_6231;

/// The size of a page of a new store.
const PAGE_BYTES: i64 = 8_192;

/// `entry.leaf` is the record; `hash`, `time`, `kind` and `exchange` are copies for finding, `tile_root` is derived.
/// Columns: instants in milliseconds since 1970, hashes and ids as bytes.
const TABLES: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE entry (
    idx INTEGER PRIMARY KEY, kind INTEGER NOT NULL, time INTEGER NOT NULL,
    hash BLOB NOT NULL, leaf BLOB NOT NULL, exchange BLOB
) STRICT;
CREATE INDEX entry_exchange ON entry (exchange) WHERE exchange IS NOT NULL;
CREATE INDEX entry_kind ON entry (kind) WHERE kind > 2;
CREATE TABLE facts (idx INTEGER PRIMARY KEY, salt BLOB NOT NULL, json BLOB NOT NULL) STRICT;
CREATE TABLE tile_root (
    level INTEGER NOT NULL, position INTEGER NOT NULL, hash BLOB NOT NULL, PRIMARY KEY (level, position)
) STRICT, WITHOUT ROWID;
CREATE TABLE spend (key BLOB PRIMARY KEY, forget_at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX spend_end ON spend (forget_at);
CREATE TABLE lease (
    id BLOB PRIMARY KEY, idx INTEGER NOT NULL, target TEXT NOT NULL, object TEXT NOT NULL,
    mint_deadline INTEGER NOT NULL, worst_end INTEGER NOT NULL, token BLOB NOT NULL,
    state TEXT NOT NULL, due INTEGER, holder BLOB
) STRICT, WITHOUT ROWID;
CREATE INDEX lease_held ON lease (target, holder, worst_end, due) WHERE due IS NOT NULL;
CREATE INDEX lease_due ON lease (target, due, state) WHERE due IS NOT NULL;
CREATE UNIQUE INDEX lease_token ON lease (token);
CREATE TABLE block (id BLOB PRIMARY KEY, idx INTEGER NOT NULL, block TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE policy_set (digest BLOB PRIMARY KEY, sources TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE key_ring (one INTEGER PRIMARY KEY CHECK (one = 1), epoch INTEGER NOT NULL, sealed TEXT NOT NULL) STRICT;
CREATE TABLE checkpoint (size INTEGER PRIMARY KEY, time INTEGER NOT NULL, note TEXT NOT NULL) STRICT;
CREATE TABLE fork (idx INTEGER PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL) STRICT;
";

/// What is new in version 3: outside effects whose outcome is not told, or not known. A row for as long as that is so, so the
/// table stays as small as what is under way.
const INTENT: &str = "
CREATE TABLE intent (
    exchange BLOB PRIMARY KEY, idx INTEGER NOT NULL, target TEXT NOT NULL, mint_deadline INTEGER NOT NULL,
    worst_end INTEGER NOT NULL, lease BLOB, unknown INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

/// What brings an older store to the next version; the first one to version 2. A lease from before has no holder: it counts among
/// all, and in nobody's share.
const UPGRADES: [&str; 2] = [
    "
ALTER TABLE lease ADD COLUMN holder BLOB;
CREATE INDEX lease_held ON lease (target, holder, worst_end, due) WHERE due IS NOT NULL;
",
    INTENT,
];

/// Small tables on whose pages everything depends, in a store that is too large to check whole at each start; each
/// with the version that brought it.
const ALWAYS_CHECKED: [(&str, i64); 6] =
    [("meta", 1), ("key_ring", 1), ("block", 1), ("fork", 1), ("tile_root", 1), ("intent", 3)];

pub(super) fn create(connection: &mut Connection, origin: &str) -> Result<(), StoreError> {
    let transaction = connection.transaction().map_err(failed)?;
    transaction.execute_batch(TABLES).map_err(failed)?;
    transaction.execute_batch(INTENT).map_err(failed)?;
    transaction
        .execute("INSERT INTO meta (name, value) VALUES ('origin', ?1)", params![origin])
        .map_err(failed)?;
    transaction.pragma_update(None, "application_id", APPLICATION).map_err(failed)?;
    transaction.pragma_update(None, "user_version", VERSION).map_err(failed)?;
    transaction.commit().map_err(failed)
}

/// WAL, one flush per commit, no surprises: no trusted schema, no checkpoint inside a commit (the writer does it when the
/// answers are out).
pub(super) fn configure_writer(connection: &Connection) -> Result<(), StoreError> {
    // Before the first page is written, and ignored ever after. Facts are some 1.7 KB: four of them fit
    // here, two into a page of the usual size, and each page is two system calls (docs/performance.md).
    connection.pragma_update(None, "page_size", PAGE_BYTES).map_err(failed)?;
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map_err(failed)?;
    if mode != "wal" {
        return Err(StoreError::Failed(format!("found journal mode `{mode}`, expected `wal`")));
    }
    for (name, value) in [
        ("synchronous", "FULL"),
        ("wal_autocheckpoint", "0"),
        ("trusted_schema", "OFF"),
        ("cell_size_check", "ON"),
        ("cache_size", "-8192"),
        ("temp_store", "MEMORY"),
        ("foreign_keys", "OFF"),
    ] {
        connection.pragma_update(None, name, value).map_err(failed)?;
    }
    // The journal does this itself, and only if nothing failed before (threat K10).
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(64);
    let synchronous: i64 = pragma(connection, "synchronous")?;
    if synchronous == 2 {
        return Ok(());
    }
    Err(StoreError::Failed(format!("found synchronous={synchronous}, expected FULL")))
}

/// Moves the write-ahead log into the database. Readers of another process may hold it up; then it stays.
pub(super) fn empty_wal(connection: &Connection) -> Result<(), StoreError> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(failed)
}

/// Brings a store of an older version to this one, step by step, each in a transaction of its own. It can't be taken back: an
/// older program refuses the store from then on.
pub(super) fn upgrade(connection: &mut Connection) -> Result<(), StoreError> {
    let found = version(connection)?;
    let done = usize::try_from(found.saturating_sub(1)).unwrap_or(usize::MAX);
    for (step, version) in UPGRADES.iter().zip(2_i64..).skip(done) {
        let transaction = connection.transaction().map_err(failed)?;
        transaction.execute_batch(step).map_err(failed)?;
        transaction.pragma_update(None, "user_version", version).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        tracing::info!("the store is of version {version} now");
    }
    Ok(())
}

/// What a reader wants: this version, no other.
pub(super) fn check_version(connection: &Connection) -> Result<(), StoreError> {
    match version(connection)? {
        VERSION => Ok(()),
        found => Err(StoreError::Older { found, known: VERSION }),
    }
}

/// The version of a store that this program can read, or bring to its own.
pub(super) fn version(connection: &Connection) -> Result<i64, StoreError> {
    let application: i64 = pragma(connection, "application_id")?;
    if application != APPLICATION {
        return Err(StoreError::Damaged(format!("found application id {application}")));
    }
    match pragma(connection, "user_version")? {
        found if found > VERSION => Err(StoreError::Newer { found, known: VERSION }),
        found if found < 1 => {
            Err(StoreError::Damaged(format!("found schema {found}, expected {VERSION}")))
        }
        found => Ok(found),
    }
}

/// `PRAGMA quick_check`, whole or of the small tables. What it can't see, a changed byte inside a leaf, the hashes do.
pub(super) fn check_integrity(
    connection: &Connection,
    version: i64,
    whole: bool,
) -> Result<(), StoreError> {
    if whole {
        return quick_check(connection, None);
    }
    let there = ALWAYS_CHECKED.iter().filter(|(_, since)| *since <= version);
    there.map(|(table, _)| table).try_for_each(|table| quick_check(connection, Some(table)))
}

fn quick_check(connection: &Connection, table: Option<&str>) -> Result<(), StoreError> {
    let sql = table.map_or_else(
        || "PRAGMA quick_check(1)".to_owned(),
        |table| format!("PRAGMA quick_check({table})"),
    );
    let found: String =
        connection.query_row(&sql, [], |row| row.get(0)).map_err(|error| damaged(&error))?;
    if found == "ok" { Ok(()) } else { Err(StoreError::Damaged(found)) }
}

fn damaged(error: &rusqlite::Error) -> StoreError {
    StoreError::Damaged(error.to_string())
}

pub(super) fn keep_log_key(
    connection: &mut Connection,
    sealed: &str,
    public: &str,
) -> Result<(), StoreError> {
    let transaction = connection.transaction().map_err(failed)?;
    let exists = meta(&transaction, "log_key").map_err(failed)?.is_some();
    if exists {
        return Err(StoreError::KeyExists);
    }
    for (name, value) in [("log_key", sealed), ("log_public", public)] {
        transaction
            .execute("INSERT INTO meta (name, value) VALUES (?1, ?2)", params![name, value])
            .map_err(failed)?;
    }
    transaction.commit().map_err(failed)
}

pub(super) fn meta(connection: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached("SELECT value FROM meta WHERE name = ?1")?
        .query_row(params![name], |row| row.get(0))
        .optional()
}

fn pragma(connection: &Connection, name: &str) -> Result<i64, StoreError> {
    connection.pragma_query_value(None, name, |row| row.get(0)).map_err(|error| damaged(&error))
}

/// In `meta`: when the end of the log was found torn, in milliseconds since 1970; empty until a writer has said when.
pub(super) const TORN: &str = "torn";

/// Remembers that the end of the log was torn, for the writer that starts next.
pub(super) fn note_torn(connection: &Connection) -> Result<(), StoreError> {
    let note = "INSERT OR REPLACE INTO meta (name, value) VALUES (?1, '')";
    connection.execute(note, [TORN]).map_err(failed).map(|_| ())
}
