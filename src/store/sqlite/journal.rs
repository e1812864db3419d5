//! The write side: batches in, one transaction and one flush each.

use std::{collections::HashMap, fs::File, path::PathBuf};

use rusqlite::{CachedStatement, Connection, params};

use crate::{
    clock::Instant,
    id::{ExchangeId, LeaseId},
    ledger::{
        Change, Hash, IntentState, LeaseState, Spend,
        journal::{Batch, Claim, Flush, Journal, JournalError, Row, Standing, Torn, Verdict},
        tree::sha256,
    },
    store::sqlite::{
        intents, leases, read,
        room::Room,
        schema::{self, TORN},
    },
};

/// From this size on the WAL is moved into the database, after the answers are out.
const WAL_BYTES: u64 = 8 * 1_024 * 1_024;

/// The most spends that one batch forgets.
const FORGET_AT_ONCE: i64 = 256;

/// The one writing connection. The lock file is held as long as it lives.
#[derive(Debug)]
pub(super) struct SqliteJournal {
    connection: Connection,
    wal: PathBuf,
    _lock: File,
    /// Bytes written since the WAL was looked at: a look is a system call.
    unlooked: u64,
    /// The next instant at which forgetting can find something.
    forget_from: Instant,
    /// After a failure nothing is written any more, not even at the end (threat K10).
    failed: bool,
    /// What the connection's commits do: `synchronous=FULL` or, without a flush, `NORMAL`.
    flush: Flush,
}

impl SqliteJournal {
    pub(super) const fn new(connection: Connection, wal: PathBuf, lock: File) -> Self {
        let forget_from = Instant::from_seconds(0);
        Self {
            connection,
            wal,
            _lock: lock,
            unlooked: 0,
            forget_from,
            failed: false,
            flush: Flush::Now,
        }
    }

    /// Before the transaction begins: inside of one SQLite refuses it. And not as a cached statement: this one takes effect when
    /// it is prepared.
    fn set_flush(&mut self, flush: Flush) -> Result<(), JournalError> {
        if self.flush != flush {
            let level = match flush {
                Flush::Now => "FULL",
                Flush::WithNext => "NORMAL",
            };
            self.connection.pragma_update(None, "synchronous", level)?;
            self.flush = flush;
        }
        Ok(())
    }

    /// Remembers a failure.
    fn done<T>(&mut self, outcome: Result<T, JournalError>) -> Result<T, JournalError> {
        self.failed |= outcome.is_err();
        outcome
    }
}

/// An orderly end leaves everything in the database file itself. The connection does not do that on its own, because it
/// would do it after a failure, too.
impl Drop for SqliteJournal {
    fn drop(&mut self) {
        if !self.failed {
            let moved =
                self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            if let Err(error) = moved {
                tracing::warn!("the write-ahead log stays for the next start: {error}");
            }
        }
    }
}

impl From<rusqlite::Error> for JournalError {
    fn from(error: rusqlite::Error) -> Self {
        Self(error.to_string())
    }
}

impl Journal for SqliteJournal {
    fn standing(&mut self) -> Result<Standing, JournalError> {
        Ok(Standing {
            size: read::size(&self.connection)?,
            blocks: read::blocks(&self.connection)?,
            torn: match schema::meta(&self.connection, TORN)? {
                None => Torn::No,
                Some(at) => {
                    at.parse().map_or(Torn::Now, |at| Torn::Before(Instant::from_milliseconds(at)))
                }
            },
        })
    }

    fn torn(&mut self, at: Instant) -> Result<(), JournalError> {
        let at = at.milliseconds().to_string();
        let written = self
            .connection
            .execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)", params![TORN, at])
            .map(|_| ())
            .map_err(JournalError::from);
        self.done(written)
    }

    fn claim(
        &mut self,
        claims: &[Claim<'_>],
        now: Instant,
        flush: Flush,
    ) -> Result<Vec<Verdict>, JournalError> {
        let outcome = self.set_flush(flush);
        self.done(outcome)?;
        let outcome = claim(&self.connection, claims, now);
        self.done(outcome)
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), JournalError> {
        let outcome = write(&self.connection, batch, &mut self.forget_from);
        self.done(outcome)?;
        let written = batch.rows.iter().map(bytes_of).fold(0, u64::saturating_add);
        self.unlooked = self.unlooked.saturating_add(written);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), JournalError> {
        let outcome = self.set_flush(Flush::Now).and_then(|()| settle(&self.connection));
        self.done(outcome)
    }

    fn tidy(&mut self) -> Result<(), JournalError> {
        if self.unlooked < WAL_BYTES / 8 {
            return Ok(());
        }
        self.unlooked = 0;
        let size = std::fs::metadata(&self.wal).map_or(0, |found| found.len());
        if size < WAL_BYTES {
            return Ok(());
        }
        let outcome = checkpoint(&self.connection);
        self.done(outcome)
    }
}

fn claim(
    connection: &Connection,
    claims: &[Claim<'_>],
    now: Instant,
) -> Result<Vec<Verdict>, JournalError> {
    // IMMEDIATE: the write lock now, so that nothing which we judge by can change before the commit.
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let mut earlier = Earlier {
        epoch: None,
        leases: HashMap::new(),
        intents: HashMap::new(),
        room: Room::of(connection, now),
    };
    claims.iter().map(|claim| judge(connection, claim, &mut earlier)).collect()
}

fn write(
    connection: &Connection,
    batch: &Batch,
    forget_from: &mut Instant,
) -> Result<(), JournalError> {
    let mut statements = RowStatements::of(connection)?;
    for row in &batch.rows {
        insert(connection, &mut statements, row)?;
    }
    for root in &batch.tile_roots {
        connection
            .prepare_cached("INSERT INTO tile_root (level, position, hash) VALUES (?1, ?2, ?3)")?
            .execute(params![root.level, signed(root.position)?, root.hash])?;
    }
    for checkpoint in &batch.checkpoints {
        connection
            .prepare_cached("INSERT INTO checkpoint (size, time, note) VALUES (?1, ?2, ?3)")?
            .execute(params![signed(checkpoint.size)?, at(checkpoint.time), checkpoint.note])?;
    }
    if let Some(before) = batch.forget_before.filter(|before| *before >= *forget_from)
        && forget(connection, before)? < FORGET_AT_ONCE
    {
        // All gone: look again in a second of ledger time.
        *forget_from = before.plus(std::time::Duration::from_secs(1));
    }
    connection.prepare_cached("COMMIT")?.execute([])?;
    Ok(())
}

/// A commit flushes the log with all that stands in it before, if it writes anything; and SQLite writes no page that would stay
/// as it is, so this is something new each time.
fn settle(connection: &Connection) -> Result<(), JournalError> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO meta (name, value) VALUES ('settled', (SELECT max(idx) FROM entry))",
        )?
        .execute([])?;
    Ok(())
}

/// PASSIVE waits for nobody. What a reader still needs stays for the next time; a failed flush is an error.
fn checkpoint(connection: &Connection) -> Result<(), JournalError> {
    connection.prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")?.query_row([], |_| Ok(()))?;
    Ok(())
}

/// What the claims of a batch that were judged before this one will have changed.
struct Earlier<'a> {
    epoch: Option<u64>,
    leases: HashMap<LeaseId, LeaseState>,
    intents: HashMap<ExchangeId, IntentState>,
    room: Room<'a>,
}

/// One verdict. Nothing is used up by a claim that does not hold as a whole.
fn judge<'a>(
    connection: &Connection,
    claim: &Claim<'a>,
    earlier: &mut Earlier<'a>,
) -> Result<Verdict, JournalError> {
    if let Some((wanted, _)) = claim.epoch {
        let found = match earlier.epoch {
            Some(found) => found,
            None => read::key_ring(connection)?.map_or(0, |(epoch, _)| epoch),
        };
        if found != wanted {
            return Ok(Verdict::Stale { found });
        }
    }
    if let Some(lease) = claim.opens
        && let Some(until) = earlier.room.lacks(lease)?
    {
        return Ok(Verdict::NoRoom(until));
    }
    if let Some(spend) = claim.spend
        && !redeem(connection, spend)?
    {
        return Ok(Verdict::AlreadySpent);
    }
    if let Some(lease) = claim.opens {
        earlier.room.take(lease);
    }
    if let Some((_, next)) = claim.epoch {
        // Whoever comes later in this batch from the same epoch is too late.
        earlier.epoch = Some(next);
    }
    if let Some((id, step)) = claim.intent {
        let from = match earlier.intents.get(&id) {
            Some(from) => *from,
            None => intents::state_of(connection, id)?,
        };
        if !step.may_follow(from) {
            return Ok(Verdict::Overtaken);
        }
        earlier.intents.insert(id, step.leads_to());
    }
    let Some((id, step)) = claim.lease else { return Ok(Verdict::Holds) };
    let from = match earlier.leases.get(&id) {
        Some(from) => Some(*from),
        None => leases::state_of(connection, id)?.map(|(from, ..)| from),
    };
    if from.is_some_and(|from| !step.may_follow(from)) {
        return Ok(Verdict::Overtaken);
    }
    earlier.leases.insert(id, step);
    Ok(Verdict::Holds)
}

/// Spends a token; `false` if that was done before.
fn redeem(connection: &Connection, spend: &Spend) -> Result<bool, JournalError> {
    let inserted = connection
        .prepare_cached("INSERT OR IGNORE INTO spend (key, forget_at) VALUES (?1, ?2)")?
        .execute(params![spend_key(spend), at(spend.forget_at)])?;
    Ok(inserted == 1)
}

/// INVARIANT(replay-window): issuer's name and hash of the signing input, for one target and role. Each part with its length, so
/// that no two different spends have one key.
fn spend_key(spend: &Spend) -> Hash {
    let mut bytes = Vec::with_capacity(160);
    for part in [
        spend.issuer.as_str().as_bytes(),
        &spend.token,
        spend.target.as_str().as_bytes(),
        spend.role.as_str().as_bytes(),
    ] {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    sha256(&bytes)
}

fn forget(connection: &Connection, before: Instant) -> Result<i64, JournalError> {
    let forgotten = connection
        .prepare_cached(
            "DELETE FROM spend WHERE key IN (SELECT key FROM spend WHERE forget_at < ?1 LIMIT ?2)",
        )?
        .execute(params![at(before), FORGET_AT_ONCE])?;
    Ok(i64::try_from(forgotten).unwrap_or(i64::MAX))
}

/// What each row needs: looked up once for a batch.
struct RowStatements<'c> {
    entry: CachedStatement<'c>,
    facts: CachedStatement<'c>,
}

impl<'c> RowStatements<'c> {
    fn of(connection: &'c Connection) -> Result<Self, JournalError> {
        Ok(Self {
            entry: connection.prepare_cached(
                "INSERT INTO entry (idx, kind, time, hash, leaf, exchange) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?,
            facts: connection
                .prepare_cached("INSERT INTO facts (idx, salt, json) VALUES (?1, ?2, ?3)")?,
        })
    }
}

fn insert(
    connection: &Connection,
    statements: &mut RowStatements<'_>,
    row: &Row,
) -> Result<(), JournalError> {
    let index = signed(row.index)?;
    let exchange = row.exchange.as_ref().map(crate::id::ExchangeId::as_bytes);
    statements.entry.execute(params![
        index,
        row.kind.code(),
        at(row.time),
        row.hash,
        row.leaf,
        exchange
    ])?;
    if let Some(facts) = &row.facts {
        statements.facts.execute(params![index, facts.salt, facts.json])?;
    }
    if let Some(lease) = &row.lease {
        leases::open(connection, index, lease)?;
    }
    if let (Some(intent), Some(exchange)) = (&row.intent, exchange) {
        intents::open(connection, index, exchange, intent)?;
    }
    if let Some((id, step)) = &row.lease_step {
        leases::step(connection, *id, *step)?;
    }
    if let Some(digest) = &row.policy {
        connection
            .prepare_cached("INSERT OR REPLACE INTO meta (name, value) VALUES ('policy', ?1)")?
            .execute(params![crate::ledger::entry::hex(digest)])?;
    }
    if let Some((size, root)) = &row.fork {
        connection
            .prepare_cached("INSERT INTO fork (idx, size, root) VALUES (?1, ?2, ?3)")?
            .execute(params![index, signed(*size)?, root])?;
    }
    row.change.as_ref().map_or(Ok(()), |change| apply(connection, index, row.exchange, change))
}

fn apply(
    connection: &Connection,
    index: i64,
    exchange: Option<ExchangeId>,
    change: &Change,
) -> Result<(), JournalError> {
    match change {
        Change::KeyRing { to, sealed, .. } => {
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO key_ring (one, epoch, sealed) VALUES (1, ?1, ?2)",
                )?
                .execute(params![signed(*to)?, sealed])?;
        }
        Change::PolicySet { digest, sources } => {
            connection
                .prepare_cached(
                    "INSERT OR IGNORE INTO policy_set (digest, sources) VALUES (?1, ?2)",
                )?
                .execute(params![digest, sources])?;
        }
        Change::BlockSet { id, block } => {
            let block =
                serde_json::to_string(block).map_err(|error| JournalError(error.to_string()))?;
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO block (id, idx, block) VALUES (?1, ?2, ?3)",
                )?
                .execute(params![id.as_bytes(), index, block])?;
        }
        Change::BlockLifted { id } => {
            connection
                .prepare_cached("DELETE FROM block WHERE id = ?1")?
                .execute([id.as_bytes()])?;
        }
        Change::Concluded { release, lease, intent } => {
            let taken = match (exchange, intent) {
                (Some(exchange), Some(step)) => intents::step(connection, exchange, *step)?,
                _ => true,
            };
            // An outcome that was told before, if only as unknown, keeps its spend.
            if let Some(spend) = release.as_ref().filter(|_| taken) {
                connection
                    .prepare_cached("DELETE FROM spend WHERE key = ?1")?
                    .execute([spend_key(spend)])?;
            }
            if let Some((id, state)) = lease {
                leases::step(connection, *id, *state)?;
            }
        }
    }
    Ok(())
}

fn bytes_of(row: &Row) -> u64 {
    let facts = row.facts.as_ref().map_or(0, |facts| facts.json.len());
    u64::try_from(row.leaf.len().saturating_add(facts)).unwrap_or(u64::MAX)
}

/// An instant beyond what SQLite's integers hold is its end of time.
pub(super) fn at(instant: Instant) -> i64 {
    i64::try_from(instant.milliseconds()).unwrap_or(i64::MAX)
}

/// SQLite's integers are signed; a log of more than 2⁶³ entries is a defect.
fn signed(number: u64) -> Result<i64, JournalError> {
    i64::try_from(number).map_err(|_| JournalError(format!("found the number {number}")))
}
