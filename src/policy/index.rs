//! Which rules could fit a workload: by issuer and by the ids that rules pin, so that their number does not matter.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write as _,
};

use serde_json::Value;

use super::{
    compile::{Context, Rule},
    condition::{Item, integer},
    lint,
};
use crate::{
    grant::IssuerName,
    subject::{Claims, Profile},
};

/// Claims whose values make a key, sorted.
type Signature = Vec<String>;

/// Rules by what they pin.
#[derive(Debug, Default)]
pub(in crate::policy) struct Index {
    /// For each issuer the few sets of claims that its rules pin: as many as a preset has ids, not as there are rules.
    signatures: BTreeMap<IssuerName, BTreeSet<Signature>>,
    /// (issuer, claims, values) → rules.
    rules: HashMap<String, Vec<usize>>,
    /// The tenant pins alone: whose refusals get an entry of their own.
    tenants: HashMap<String, Vec<usize>>,
    tenant_signatures: BTreeMap<IssuerName, BTreeSet<Signature>>,
}

impl Index {
    pub(in crate::policy) fn of(rules: &[Rule], context: &Context) -> Self {
        let mut index = Self::default();
        for (position, rule) in rules.iter().enumerate() {
            let Some(preset) = context.issuers.get(&rule.issuer) else { continue };
            let keys: BTreeSet<&str> = rule
                .conditions
                .iter()
                .filter(|condition| lint::is_key(preset, condition))
                .filter_map(|condition| condition.path.first().map(String::as_str))
                .collect();
            let signature: Signature = keys.into_iter().map(ToOwned::to_owned).collect();
            for key in keys_of(rule, &signature) {
                index.rules.entry(key).or_default().push(position);
            }
            index.signatures.entry(rule.issuer.clone()).or_default().insert(signature);
            for pin in preset.pins {
                if pin.iter().any(|claim| lint::equality(&rule.conditions, claim).is_none()) {
                    continue;
                }
                let signature: Signature = pin.iter().map(|claim| (*claim).to_owned()).collect();
                for key in keys_of(rule, &signature) {
                    index.tenants.entry(key).or_default().push(position);
                }
                index.tenant_signatures.entry(rule.issuer.clone()).or_default().insert(signature);
            }
        }
        index
    }

    /// Positions of the rules whose pins are all the workload's own, in the order of files and lines.
    pub(in crate::policy) fn candidates(&self, profile: &Profile) -> Vec<usize> {
        find(profile, &self.signatures, &self.rules)
    }

    /// Positions of the rules that are pinned to the workload's tenant, whatever else they ask.
    pub(in crate::policy) fn of_tenant(&self, profile: &Profile) -> Vec<usize> {
        find(profile, &self.tenant_signatures, &self.tenants)
    }
}

fn find(
    profile: &Profile,
    signatures: &BTreeMap<IssuerName, BTreeSet<Signature>>,
    rules: &HashMap<String, Vec<usize>>,
) -> Vec<usize> {
    let mut found = Vec::new();
    for signature in signatures.get(&profile.issuer).into_iter().flatten() {
        let key = key_of(&profile.issuer, signature, &profile.claims);
        if let Some(positions) = key.and_then(|key| rules.get(&key)) {
            found.extend_from_slice(positions);
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// The key of a workload; `None` if one of the claims is not there. Lengths keep values apart.
fn key_of(issuer: &IssuerName, signature: &Signature, claims: &Claims) -> Option<String> {
    let mut key = issuer.to_string();
    for claim in signature {
        match claims.get(claim)? {
            Value::String(text) => push(&mut key, claim, text),
            value @ Value::Number(_) => push(&mut key, claim, &format!("#{}", integer(value)?)),
            Value::Bool(boolean) => push(&mut key, claim, &format!("?{boolean}")),
            Value::Null | Value::Array(_) | Value::Object(_) => return None,
        }
    }
    Some(key)
}

/// The keys of a rule: one for each combination of the values that it names.
fn keys_of(rule: &Rule, signature: &Signature) -> Vec<String> {
    let mut keys = vec![rule.issuer.to_string()];
    for claim in signature {
        let items = lint::equality(&rule.conditions, claim).unwrap_or_default();
        let mut longer = Vec::new();
        for key in &keys {
            for item in items {
                let mut key = key.clone();
                match item {
                    Item::Text(text) => push(&mut key, claim, text),
                    Item::Integer(integer) => push(&mut key, claim, &format!("#{integer}")),
                    Item::Boolean(boolean) => push(&mut key, claim, &format!("?{boolean}")),
                    Item::Glob(_) => continue,
                }
                longer.push(key);
            }
        }
        keys = longer;
    }
    keys.sort();
    keys.dedup();
    keys
}

fn push(key: &mut String, claim: &str, value: &str) {
    // Writing to a `String` can't fail.
    let _infallible = write!(key, "\0{claim}\0{}\0{value}", value.len());
}
