//! Whether there is room for one more lease (threats V03, B05): judged on the writer's thread, with everybody behind it waiting. So
//! each count is one walk over an index that holds all it asks for, once for a batch, and only a refusal asks when there is room.

use std::collections::HashMap;

use rusqlite::{Connection, params};

use crate::{
    clock::Instant,
    grant::TargetName,
    ledger::{Hash, LeaseIntent, journal::JournalError},
    store::sqlite::journal::at,
};

/// What takes up room: everything that is live, but for what could not be ended by its last instant. That is alarmed and tried
/// for ever, and a subject must not be locked out by it for ever, nor lock out others.
const HELD: &str = "due IS NOT NULL AND (due > 0 OR worst_end > ?3)";

/// A share: of one holder at a target, or of all.
type Part<'a> = (&'a TargetName, Option<&'a Hash>);

/// The room that a batch finds, as its claims take it up.
#[derive(Debug)]
pub(super) struct Room<'a> {
    connection: &'a Connection,
    now: Instant,
    parts: HashMap<Part<'a>, Taken>,
}

/// How much of a part is taken.
#[derive(Clone, Copy, Debug)]
struct Taken {
    many: u32,
    /// The first end of what this batch opened.
    first_end: Option<Instant>,
}

impl<'a> Room<'a> {
    /// The room at ledger time `now`.
    pub(super) fn of(connection: &'a Connection, now: Instant) -> Self {
        Self { connection, now, parts: HashMap::new() }
    }

    /// The instant before which `lease` has no room; `None`: it has.
    pub(super) fn lacks(
        &mut self,
        lease: &'a LeaseIntent,
    ) -> Result<Option<Instant>, JournalError> {
        for (part, most) in parts(lease) {
            let taken = self.taken(part)?;
            if taken.many >= most {
                let first = self.first_end(part)?.into_iter().chain(taken.first_end).min();
                return Ok(Some(first.unwrap_or(self.now)));
            }
        }
        Ok(None)
    }

    /// `lease` is opened, if the batch is.
    pub(super) fn take(&mut self, lease: &'a LeaseIntent) {
        for (part, _) in parts(lease) {
            if let Some(taken) = self.parts.get_mut(&part) {
                taken.many = taken.many.saturating_add(1);
                taken.first_end = taken.first_end.into_iter().chain([lease.worst_end]).min();
            }
        }
    }

    fn taken(&mut self, part: Part<'a>) -> Result<Taken, JournalError> {
        if let Some(taken) = self.parts.get(&part) {
            return Ok(*taken);
        }
        let many: i64 = self.ask(part, "count(*)")?;
        let taken = Taken { many: u32::try_from(many).unwrap_or(u32::MAX), first_end: None };
        self.parts.insert(part, taken);
        Ok(taken)
    }

    fn first_end(&self, part: Part<'a>) -> Result<Option<Instant>, JournalError> {
        let end: Option<i64> = self.ask(part, "min(worst_end)")?;
        Ok(end.map(|end| Instant::from_milliseconds(end.unsigned_abs())))
    }

    fn ask<T: rusqlite::types::FromSql>(
        &self,
        (target, holder): Part<'a>,
        what: &str,
    ) -> Result<T, JournalError> {
        let mut statement = self.connection.prepare_cached(&question(what, holder.is_some()))?;
        let row = params![target.as_str(), holder, at(self.now)];
        Ok(statement.query_row(row, |row| row.get(0))?)
    }
}

/// Named, because the planner takes `due IS NOT NULL` for a range of another index, and then looks every lease up.
fn question(what: &str, of_holder: bool) -> String {
    let holder = if of_holder { "holder = ?2" } else { "?2 IS NULL" };
    format!(
        "SELECT {what} FROM lease INDEXED BY lease_held WHERE target = ?1 AND {holder} AND {HELD}"
    )
}

/// The parts that `lease` counts in, each with what it may hold.
fn parts(lease: &LeaseIntent) -> impl Iterator<Item = (Part<'_>, u32)> {
    let share = lease.share.as_ref();
    let own = share.map(|share| ((&lease.target, Some(&share.holder)), share.of_holder));
    let all = share.and_then(|share| Some(((&lease.target, None), share.of_all?)));
    own.into_iter().chain(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::schema;

    #[test]
    fn v03_a_question_about_room_walks_one_index_and_looks_nothing_up() {
        let mut connection = Connection::open_in_memory().unwrap();
        schema::create(&mut connection, "log.example").unwrap();
        for of_holder in [true, false] {
            for what in ["count(*)", "min(worst_end)"] {
                let sql = format!("EXPLAIN QUERY PLAN {}", question(what, of_holder));
                let row = params!["postgres/orders", of_holder.then_some([1_u8; 32]), 0];
                let plan: String =
                    connection.query_row(&sql, row, |row| row.get("detail")).unwrap();
                let wanted = if of_holder { "(target=? AND holder=?)" } else { "(target=?)" };
                assert_eq!(
                    plan,
                    format!("SEARCH lease USING COVERING INDEX lease_held {wanted}"),
                    "{what}"
                );
            }
        }
    }
}
