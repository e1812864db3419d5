//! Leases as the writer's transaction sees them: opened if there is room, and taken from state to state.

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::{
    clock::Instant,
    id::LeaseId,
    ledger::{LeaseIntent, LeaseState, journal::JournalError},
    store::sqlite::journal::at,
};

/// Opens a lease, with the entry at `index`.
pub(super) fn open(
    connection: &Connection,
    index: i64,
    lease: &LeaseIntent,
) -> Result<(), JournalError> {
    connection
        .prepare_cached(
            "INSERT INTO lease \
             (id, idx, target, object, mint_deadline, worst_end, token, state, due, holder) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            lease.id.as_bytes(),
            index,
            lease.target.as_str(),
            lease.object,
            at(lease.mint_deadline),
            at(lease.worst_end),
            lease.token,
            LeaseState::Opened.as_str(),
            LeaseState::Opened.due(lease.mint_deadline, lease.worst_end).map(at),
            lease.share.map(|share| share.holder),
        ])?;
    Ok(())
}

/// Where a lease stands, its mint deadline and its worst end.
pub(super) fn state_of(
    connection: &Connection,
    id: LeaseId,
) -> Result<Option<(LeaseState, Instant, Instant)>, JournalError> {
    let found: Option<(String, i64, i64)> = connection
        .prepare_cached("SELECT state, mint_deadline, worst_end FROM lease WHERE id = ?1")?
        .query_row([id.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((word, deadline, end)) = found else { return Ok(None) };
    let state = LeaseState::of(&word)
        .ok_or_else(|| JournalError(format!("`{word}` is no state of a lease")))?;
    let instant = |at: i64| Instant::from_milliseconds(at.unsigned_abs());
    Ok(Some((state, instant(deadline), instant(end))))
}

/// A step that may not follow the state that stands is left out: the entry tells of it, the state does not go back.
pub(super) fn step(
    connection: &Connection,
    id: LeaseId,
    step: LeaseState,
) -> Result<(), JournalError> {
    let Some((from, deadline, end)) = state_of(connection, id)? else { return Ok(()) };
    if !step.may_follow(from) {
        return Ok(());
    }
    let due = step.due(deadline, end).map(at);
    connection
        .prepare_cached("UPDATE lease SET state = ?2, due = ?3 WHERE id = ?1")?
        .execute(params![id.as_bytes(), step.as_str(), due])?;
    Ok(())
}
