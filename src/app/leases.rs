//! Powers over leases: list them, and end them by whatever they have in common.

use serde_json::{Value, json};

use super::State;
use crate::{
    edge::{PowerError, admin::LeaseRequest},
    grant::TargetName,
    lease::select::{Found, Selection},
    ledger::{Block, LeaseState, Operator, reader::StoredLease},
};

type Done = Result<Value, PowerError>;

/// How many leases a list shows, and how many one revocation may end.
const MOST: usize = 10_000;

impl State {
    pub(super) fn list_leases(&self, request: LeaseRequest) -> Done {
        let (state, all) = (request.state.clone(), request.all);
        let mut selection = selection(request)?;
        let state = state.map(|word| {
            let expected = || LeaseState::ALL.map(LeaseState::as_str).join("`, `");
            LeaseState::of(&word).ok_or_else(|| {
                PowerError::BadRequest(format!("`{word}` is no state, expected `{}`", expected()))
            })
        });
        let state = state.transpose()?;
        selection.live = !all && state.is_none_or(LeaseState::is_live);
        let found = selection.find(&*self.reader, MOST).map_err(failed)?;
        let wanted = |found: &&Found| state.is_none_or(|state| found.lease.state == state);
        let list: Vec<Value> = found.iter().filter(wanted).map(told).collect();
        Ok(json!({ "leases": list }))
    }

    pub(super) fn show_lease(&self, id: &str) -> Done {
        let request = LeaseRequest { id: Some(id.to_owned()), ..LeaseRequest::default() };
        let selection = selection(request)?;
        let found = selection.find(&*self.reader, 1).map_err(failed)?.pop();
        let found =
            found.ok_or_else(|| PowerError::NotFound(format!("there is no lease `{id}`")))?;
        let mut shown = told(&found);
        if let Some(members) = shown.as_object_mut() {
            members.insert("entry".to_owned(), json!(found.lease.index));
            members
                .insert("mint_deadline".to_owned(), json!(found.lease.mint_deadline.to_string()));
            let claims = found.facts.map(|facts| facts.claims);
            members.insert("claims".to_owned(), json!(claims.as_deref()));
        }
        Ok(shown)
    }

    /// Ends everything that is selected, in one go over all targets; says what has ended and what is still being tried.
    pub(super) async fn revoke_leases(&self, request: LeaseRequest, by: &Operator) -> Done {
        let selection = selection(request)?;
        let block = &selection.block;
        // A typo must not look like "nothing to revoke".
        if block.issuer.is_some() || block.rule.is_some() || !block.claims.is_empty() {
            self.must_apply(block, self.means.clock.now()).map_err(PowerError::BadRequest)?;
        }
        if selection.is_everything() {
            let expected = "`id`, `exchange`, `target`, `issuer`, `rule` or `claims`";
            return Err(PowerError::BadRequest(format!(
                "found nothing to revoke by, expected {expected}"
            )));
        }
        let found = selection.find(&*self.reader, MOST).map_err(failed)?;
        if found.is_empty() {
            return Err(PowerError::NotFound(
                "no live lease fits: `cambio leases list --all` shows those that have ended, too"
                    .to_owned(),
            ));
        }
        let leases: Vec<StoredLease> = found.into_iter().map(|found| found.lease).collect();
        let pending = self.ending.end(&leases, by).await.map_err(failed)?;
        let troubles = self.ending.reaper().troubles();
        let reason = |target: &TargetName| {
            troubles.iter().find(|trouble| trouble.target == *target).map(|it| it.reason.clone())
        };
        let row = |lease: &StoredLease| {
            let mut row = json!({ "id": lease.id.to_string(), "target": lease.target });
            if let Some(members) = row.as_object_mut() {
                let ended = !pending.contains(&lease.id);
                members.insert("ended".to_owned(), ended.into());
                let reason = reason(&lease.target).filter(|_| !ended);
                members.extend(reason.map(|reason| ("reason".to_owned(), reason.into())));
            }
            row
        };
        let rows: Vec<Value> = leases.iter().map(row).collect();
        Ok(json!({
            "revoked": leases.len().saturating_sub(pending.len()),
            "pending": pending.len(),
            "leases": rows,
        }))
    }
}

fn selection(request: LeaseRequest) -> Result<Selection, PowerError> {
    let bad = |error: crate::id::IdError| PowerError::BadRequest(error.to_string());
    Ok(Selection {
        live: request.id.is_none() && !request.all,
        id: request.id.map(|id| id.parse()).transpose().map_err(bad)?,
        exchange: request.exchange.map(|id| id.parse()).transpose().map_err(bad)?,
        target: request.target.map(Into::into),
        block: Block {
            issuer: request.issuer.map(Into::into),
            rule: request.rule.map(Into::into),
            claims: request.claims,
            until: None,
        },
    })
}

/// A lease for people and machines: never its token, never a password.
fn told(found: &Found) -> Value {
    let body = &found.entry.body;
    let of = |name: &str| body.get(name).cloned().unwrap_or_default();
    json!({
        "id": found.lease.id.to_string(),
        "state": found.lease.state.as_str(),
        "target": found.lease.target,
        "role": of("role"),
        "subject": of("subject"),
        "rules": of("rules"),
        "object": found.lease.object,
        "exchange_id": of("exchange_id"),
        "opened_at": found.entry.time.to_string(),
        "expires_at": found.lease.worst_end.to_string(),
    })
}

fn failed(error: impl std::fmt::Display) -> PowerError {
    PowerError::Failed(error.to_string())
}
