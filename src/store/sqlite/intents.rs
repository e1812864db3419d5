//! Intents as the writer's transaction sees them: a row for each outside effect whose outcome is not told, or not known.

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::{
    id::{ExchangeId, LeaseId},
    ledger::{Intent, IntentState, IntentStep, journal::JournalError},
    store::sqlite::journal::at,
};

/// Keeps the intent of the exchange whose entry is at `index`, until its outcome is told.
pub(super) fn open(
    connection: &Connection,
    index: i64,
    exchange: &[u8; 16],
    intent: &Intent,
) -> Result<(), JournalError> {
    connection
        .prepare_cached(
            "INSERT INTO intent (exchange, idx, target, mint_deadline, worst_end, lease, unknown) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0)",
        )?
        .execute(params![
            exchange,
            index,
            intent.target.as_str(),
            at(intent.mint_deadline),
            at(intent.worst_end),
            intent.lease.as_ref().map(LeaseId::as_bytes),
        ])?;
    Ok(())
}

pub(super) fn state_of(
    connection: &Connection,
    id: ExchangeId,
) -> Result<IntentState, JournalError> {
    let unknown: Option<bool> = connection
        .prepare_cached("SELECT unknown FROM intent WHERE exchange = ?1")?
        .query_row([id.as_bytes()], |row| row.get(0))
        .optional()?;
    Ok(match unknown {
        Some(true) => IntentState::Unknown,
        Some(false) => IntentState::Open,
        None => IntentState::Gone,
    })
}

/// Whether the intent took the step. One that may not follow is left out: the entry tells of it, what was told stands.
pub(super) fn step(
    connection: &Connection,
    id: ExchangeId,
    step: IntentStep,
) -> Result<bool, JournalError> {
    if !step.may_follow(state_of(connection, id)?) {
        return Ok(false);
    }
    let sql = match step {
        IntentStep::Settled | IntentStep::Ended => "DELETE FROM intent WHERE exchange = ?1",
        IntentStep::Unknown => "UPDATE intent SET unknown = 1 WHERE exchange = ?1",
    };
    connection.prepare_cached(sql)?.execute([id.as_bytes()])?;
    Ok(true)
}
