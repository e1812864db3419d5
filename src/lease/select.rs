//! Which leases somebody means: "everything that run 4711 got".

use serde_json::Value;

use crate::{
    grant::TargetName,
    id::{ExchangeId, LeaseId},
    ledger::{
        Block,
        entry::Entry,
        facts::Facts,
        matching::Behind,
        reader::{Leases, LedgerReader, ReadError, StoredLease},
    },
};

/// What a lease must be, line by line; what is absent fits all.
#[derive(Clone, Debug)]
pub struct Selection {
    /// This one.
    pub id: Option<LeaseId>,
    /// That of this exchange.
    pub exchange: Option<ExchangeId>,
    /// Those of this target.
    pub target: Option<TargetName>,
    /// Those that a block of these lines would have refused: by issuer, rule, claims of the subject or of the actor.
    pub block: Block,
    /// Only those whose object may still exist.
    pub live: bool,
}

impl Selection {
    /// Whether nothing at all is named.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        let block = &self.block;
        self.id.is_none()
            && self.exchange.is_none()
            && self.target.is_none()
            && block.issuer.is_none()
            && block.rule.is_none()
            && block.claims.is_empty()
    }

    /// The leases that are meant, with what their entries say, in the order in which they are due; `limit` at most.
    ///
    /// # Errors
    /// The store can't be read, or an entry is damaged: then nobody knows whether it is meant.
    pub fn find(&self, reader: &dyn LedgerReader, limit: usize) -> Result<Vec<Found>, ReadError> {
        let which = match self.id {
            Some(id) => Leases::Of(id),
            None if self.live => Leases::Live,
            None => Leases::All,
        };
        let mut found = Vec::new();
        for lease in reader.leases(which, u32::MAX)? {
            if found.len() >= limit {
                break;
            }
            let elsewhere = self.target.as_ref().is_some_and(|target| *target != lease.target);
            if elsewhere || (self.live && !lease.state.is_live()) {
                continue;
            }
            let opened = opened(reader, lease)?;
            if self.fits(&opened) {
                found.push(opened);
            }
        }
        Ok(found)
    }

    fn fits(&self, found: &Found) -> bool {
        let body = &found.entry.body;
        let text = |name: &str| body.get(name).and_then(Value::as_str);
        let exchange = |id: &ExchangeId| text("exchange_id") == Some(id.to_string().as_str());
        let rules = body.get("rules").and_then(Value::as_array);
        let rules = rules.into_iter().flatten().filter_map(Value::as_str);
        let behind = Behind { issuer: text("issuer"), facts: found.facts.as_ref() };
        self.exchange.as_ref().is_none_or(exchange) && behind.fits(&self.block, rules)
    }
}

/// A lease and the grant that opened it.
#[derive(Debug)]
pub struct Found {
    /// The lease.
    pub lease: StoredLease,
    /// The entry of its grant.
    pub entry: Entry,
    /// The facts of its grant, unless they were erased.
    pub facts: Option<Facts>,
}

fn opened(reader: &dyn LedgerReader, lease: StoredLease) -> Result<Found, ReadError> {
    let index = lease.index;
    let damaged = |reason: String| ReadError::Damaged { index, reason };
    let stored = reader.entry(index)?.ok_or(ReadError::Absent(index))?;
    let entry = Entry::decode(&stored.leaf).map_err(|error| damaged(error.to_string()))?;
    let not_ours = || damaged("its facts are not ours".to_owned());
    let facts = match stored.facts {
        Some(facts) => Some(Facts::read(&facts.json).ok_or_else(not_ours)?),
        None => None,
    };
    Ok(Found { lease, entry, facts })
}
