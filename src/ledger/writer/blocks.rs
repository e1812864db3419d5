//! Blocks as the writer keeps them: a durable deny needs no reload and no second look-up.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    clock::Instant,
    grant::IssuerName,
    id::BlockId,
    ledger::{Block, Granted, facts::Facts},
    subject::Claims,
};

/// The blocks that hold.
#[derive(Debug, Default)]
pub(super) struct Blocks(BTreeMap<BlockId, Block>);

impl Blocks {
    pub(super) fn of(blocks: Vec<(BlockId, Block)>) -> Self {
        Self(blocks.into_iter().collect())
    }

    pub(super) fn set(&mut self, id: BlockId, block: Block) {
        self.0.insert(id, block);
    }

    pub(super) fn lift(&mut self, id: BlockId) {
        self.0.remove(&id);
    }

    /// The first block that applies to a grant at ledger time `time`.
    pub(super) fn hits(
        &self,
        granted: &Granted,
        facts: Option<&Facts>,
        time: Instant,
    ) -> Option<BlockId> {
        let hit = self.0.iter().find(|(_, block)| applies(block, granted, facts, time));
        hit.map(|(id, _)| *id)
    }
}

/// Every line of a block must fit; a block without lines fits every grant. Issuer and claims must fit one and the same of
/// those who stand behind the grant: who acts through somebody else is not out of reach for that.
fn applies(block: &Block, granted: &Granted, facts: Option<&Facts>, time: Instant) -> bool {
    let over = block.until.is_some_and(|until| Instant::from_milliseconds(until) <= time);
    let rule = block.rule.as_ref().is_none_or(|rule| granted.rules.contains(rule));
    let subject = || {
        let claims = facts.map(|facts| &*facts.claims);
        fits(block, Some(granted.issuer.as_str()), claims)
    };
    let actor = || {
        let facts = facts.filter(|facts| facts.actor.is_some());
        facts
            .is_some_and(|facts| fits(block, facts.actor_issuer.as_deref(), facts.actor.as_deref()))
    };
    !over && rule && (subject() || actor())
}

/// INVARIANT(closed-by-absence): a party whose issuer or claims nobody knows can't be shown to be another than the blocked.
fn fits(block: &Block, issuer: Option<&str>, claims: Option<&Claims>) -> bool {
    let named = |wanted: &IssuerName| issuer.is_none_or(|found| found == wanted.as_str());
    let says = |claims: &Claims| {
        block
            .claims
            .iter()
            .all(|(name, wanted)| claim(claims, name).is_some_and(|found| is(found, wanted)))
    };
    block.issuer.as_ref().is_none_or(named) && claims.is_none_or(says)
}

/// Whether a claim is what a block names. A block is written in haste: letter case, a number for a text of digits, or one
/// element of a list must not make it miss. So it is wider than a rule's condition, and never narrower.
fn is(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Array(list), Value::String(_) | Value::Number(_) | Value::Bool(_)) => {
            list.iter().any(|found| is(found, wanted))
        }
        (Value::String(found), Value::String(wanted)) => found.eq_ignore_ascii_case(wanted),
        (Value::String(text), other @ (Value::Number(_) | Value::Bool(_)))
        | (other @ (Value::Number(_) | Value::Bool(_)), Value::String(text)) => {
            let other = other.to_string();
            *text == other
        }
        _ => found == wanted,
    }
}

/// A claim by its name or, beginning with `/`, by JSON Pointer (RFC 6901).
fn claim<'a>(claims: &'a Claims, name: &str) -> Option<&'a Value> {
    let by_name = claims.get(name);
    let Some(pointer) = name.strip_prefix('/') else { return by_name };
    let unescape = |part: &str| part.replace("~1", "/").replace("~0", "~");
    let mut parts = pointer.split('/').map(unescape);
    let first = claims.get(&parts.next()?)?;
    let found = parts.try_fold(first, |value, part| match value {
        Value::Object(members) => members.get(&part),
        Value::Array(items) => items.get(part.parse::<usize>().ok()?),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    });
    found.or(by_name)
}
