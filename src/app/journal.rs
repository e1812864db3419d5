//! The key journal over the ledger: ring and entry in one transaction.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use serde_json::Value;

use crate::{
    clock::Instant,
    keys::{JournalError, KeyJournal, Replaced, Signed, Stored},
    ledger::{
        Change, Commit, Committed, Event, Proposal,
        entry::{Entry, Kind},
        reader::LedgerReader,
    },
};

/// How many entries are looked at in one read.
const STRIDE: u64 = 4_096;

/// [`KeyJournal`] of the embedded store.
#[derive(Debug)]
pub struct Journal {
    ledger: Arc<dyn Commit>,
    reader: Arc<dyn LedgerReader>,
}

impl Journal {
    /// The journal of one ledger.
    #[must_use]
    pub fn of(ledger: Arc<dyn Commit>, reader: Arc<dyn LedgerReader>) -> Self {
        Self { ledger, reader }
    }
}

fn failed(error: impl fmt::Display) -> JournalError {
    JournalError(error.to_string())
}

#[async_trait]
impl KeyJournal for Journal {
    async fn load(&self) -> Result<Stored, JournalError> {
        let ring = self.reader.key_ring().map_err(failed)?;
        let newest = self.reader.newest_of(Kind::Keys).map_err(failed)?;
        let witnessed = match newest {
            None => 0,
            Some(stored) => {
                let entry = Entry::decode(&stored.leaf).map_err(failed)?;
                // Duty 3: what the ledger says, and a ledger that says nothing readable is no witness.
                entry.body.get("epoch").and_then(Value::as_u64).ok_or_else(|| {
                    JournalError(format!("entry {} of the ledger names no epoch", stored.index))
                })?
            }
        };
        Ok(Stored { ring, witnessed })
    }

    async fn replace(
        &self,
        from: u64,
        to: u64,
        sealed: String,
        event: Event,
    ) -> Result<Replaced, JournalError> {
        let change = Some(Change::KeyRing { from, to, sealed });
        let proposal = Proposal { change, ..Proposal::of(event) };
        match self.ledger.commit(proposal).await.map_err(failed)? {
            Committed::Durable(_) => Ok(Replaced::Durable),
            Committed::Stale { found } => Ok(Replaced::Stale { found }),
            Committed::AlreadySpent(_)
            | Committed::Blocked(..)
            | Committed::NoRoom(..)
            | Committed::Overtaken(_) => {
                Err(JournalError("a change of keys was taken for an exchange".to_owned()))
            }
        }
    }

    async fn signed_by(&self, kid: &str) -> Result<Vec<Signed>, JournalError> {
        let (reader, kid) = (Arc::clone(&self.reader), kid.to_owned());
        // Reads the whole log: seconds for millions of entries, and nothing that a runtime thread should do.
        let scan = tokio::task::spawn_blocking(move || signed_by(&*reader, &kid));
        scan.await.map_err(failed)?
    }
}

fn signed_by(reader: &dyn LedgerReader, kid: &str) -> Result<Vec<Signed>, JournalError> {
    let size = reader.size().map_err(failed)?;
    let (mut signed, mut at) = (Vec::new(), 0);
    while at < size {
        let next = at.saturating_add(STRIDE).min(size);
        for stored in reader.entries(at..next).map_err(failed)? {
            let entry = Entry::decode(&stored.leaf).map_err(failed)?;
            if entry.kind == Kind::Granted {
                signed.extend(grant_of(&entry, kid));
            }
        }
        at = next;
    }
    Ok(signed)
}

fn grant_of(entry: &Entry, kid: &str) -> Option<Signed> {
    let text = |name: &str| entry.body.get(name).and_then(Value::as_str).unwrap_or_default();
    (text("kid") == kid).then(|| Signed {
        exchange_id: text("exchange_id").to_owned(),
        credential: text("credential").to_owned(),
        subject: text("subject").to_owned(),
        target: text("target").to_owned(),
        expires_at: Instant::from_milliseconds(
            entry.body.get("expires_at").and_then(Value::as_u64).unwrap_or_default(),
        ),
    })
}
