//! Leases as the writer's transaction sees them: opened if there is room, and taken from state to state.

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::{
    clock::Instant,
    grant::TargetName,
    id::LeaseId,
    ledger::{Hash, LeaseIntent, LeaseState, journal::JournalError},
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

/// The instant before which `lease` has no room in its share beside what is live and what was `opened` before in this batch;
/// `None`: it has.
pub(super) fn no_room(
    connection: &Connection,
    lease: &LeaseIntent,
    opened: &[&LeaseIntent],
) -> Result<Option<Instant>, JournalError> {
    let Some(share) = &lease.share else { return Ok(None) };
    let there = |other: &&LeaseIntent| other.target == lease.target;
    let theirs = |other: &&LeaseIntent| {
        there(other) && other.share.is_some_and(|other| other.holder == share.holder)
    };
    let (of_holder, of_all) = (
        opened.iter().copied().filter(theirs).collect::<Vec<_>>(),
        opened.iter().copied().filter(there).collect::<Vec<_>>(),
    );
    let mine = Live { connection, target: &lease.target, holder: Some(&share.holder) };
    if let Some(until) = mine.full(&of_holder, share.of_holder)? {
        return Ok(Some(until));
    }
    let Some(most) = share.of_all else { return Ok(None) };
    Live { holder: None, ..mine }.full(&of_all, most)
}

/// The leases of a target that are live, of one holder or of all.
#[derive(Clone, Copy)]
struct Live<'a> {
    connection: &'a Connection,
    target: &'a TargetName,
    holder: Option<&'a Hash>,
}

impl Live<'_> {
    /// The first end of all, if with those that were `opened` there are `most` or more.
    fn full(self, opened: &[&LeaseIntent], most: u32) -> Result<Option<Instant>, JournalError> {
        let many = self.count(most)?.saturating_add(opened.len());
        if u32::try_from(many).is_ok_and(|many| many < most) {
            return Ok(None);
        }
        let ends = opened.iter().map(|lease| lease.worst_end);
        Ok(Some(ends.chain(self.first_end()?).min().unwrap_or_default()))
    }

    /// How many, counted no further than to `most`.
    fn count(self, most: u32) -> Result<usize, JournalError> {
        let sql = match self.holder {
            Some(_) => {
                "SELECT count(*) FROM (SELECT 1 FROM lease \
                 WHERE target = ?1 AND holder = ?2 AND due IS NOT NULL LIMIT ?3)"
            }
            None => {
                "SELECT count(*) FROM (SELECT 1 FROM lease \
                 WHERE target = ?1 AND ?2 IS NULL AND due IS NOT NULL LIMIT ?3)"
            }
        };
        let many: i64 = self
            .connection
            .prepare_cached(sql)?
            .query_row(params![self.target.as_str(), self.holder, most], |row| row.get(0))?;
        Ok(usize::try_from(many).unwrap_or(usize::MAX))
    }

    /// The first end: asked only where there is no room.
    fn first_end(self) -> Result<Option<Instant>, JournalError> {
        let sql = match self.holder {
            Some(_) => {
                "SELECT min(worst_end) FROM lease \
                 WHERE target = ?1 AND holder = ?2 AND due IS NOT NULL"
            }
            None => {
                "SELECT min(worst_end) FROM lease \
                 WHERE target = ?1 AND ?2 IS NULL AND due IS NOT NULL"
            }
        };
        let end: Option<i64> = self
            .connection
            .prepare_cached(sql)?
            .query_row(params![self.target.as_str(), self.holder], |row| row.get(0))?;
        Ok(end.map(|end| Instant::from_milliseconds(end.unsigned_abs())))
    }
}
