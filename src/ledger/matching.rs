//! Whether a grant is one that a block names, or a bulk revocation.

use serde_json::Value;

use crate::{
    grant::IssuerName,
    ledger::{Block, facts::Facts},
    subject::Claims,
};

/// Who stands behind a grant.
#[derive(Clone, Copy, Debug)]
pub struct Behind<'a> {
    /// Who signed the subject token, if that is known.
    pub issuer: Option<&'a str>,
    /// The verified claims, of the actor too; none once they were erased.
    pub facts: Option<&'a Facts>,
}

impl Behind<'_> {
    /// Whether a grant by `rules` is one that `block` names: every line must fit, and a block without lines fits every grant.
    /// Issuer and claims must fit one and the same of those who stand behind the grant: who acts through somebody else is not
    /// out of reach for that. `until` is not looked at.
    #[must_use]
    pub fn fits<'r>(&self, block: &Block, mut rules: impl Iterator<Item = &'r str>) -> bool {
        let rule = block.rule.as_ref().is_none_or(|rule| rules.any(|found| found == rule.as_str()));
        let subject = || fits(block, self.issuer, self.facts.map(|facts| &*facts.claims));
        let actor = || {
            let facts = self.facts.filter(|facts| facts.actor.is_some());
            facts.is_some_and(|facts| {
                fits(block, facts.actor_issuer.as_deref(), facts.actor.as_deref())
            })
        };
        rule && (subject() || actor())
    }
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
