//! Dangerous rules are refused at load: what would admit strangers (threats C01 to C20, `providers` section 1.20).

use std::collections::BTreeSet;

use super::{
    claim::{Known, twin},
    condition::{Condition, Item, Test},
    document::RuleText,
};
use crate::{grant::Replay, subject::Preset, yaml::Problem};

/// Refuses a rule that would admit strangers.
pub(in crate::policy) fn rule(
    file: &str,
    text: &RuleText,
    conditions: &[Condition],
    known: &Known<'_>,
    problems: &mut Vec<Problem>,
) {
    let (id, issuer, preset) = (&text.id.value, known.issuer, known.preset);
    let pinned = |set: &&&[&str]| set.iter().all(|claim| equality(conditions, claim).is_some());
    let ways: Vec<String> = preset.pins.iter().map(|set| ways_of(set)).collect();
    if !preset.pins.iter().any(|set| pinned(&set)) {
        let only_sub =
            conditions.iter().all(|condition| condition.label.trim_start_matches('/') == "sub");
        let message = if only_sub {
            format!(
                "rule `{id}` rests on `sub` alone, whose shape the workload's admins can choose"
            )
        } else {
            format!(
                "rule `{id}` is pinned to no tenant: strangers of issuer `{issuer}` could fit it"
            )
        };
        let hint = format!(
            "add an equality on {}; `cambio policy init` writes the rule that fits a token",
            ways.join(", or ")
        );
        problems.push(Problem::at(file, text.when_place, message).hint(hint));
        return;
    }
    if !is_narrow(conditions, preset) && text.allow_organization.is_none() {
        let message = format!("rule `{id}` admits every workload of the pinned organization");
        let hint = format!(
            "add an equality on {}, or say `allow_organization: true`",
            missing(conditions, preset)
        );
        problems.push(Problem::at(file, text.when_place, message).hint(hint));
    }
    reused(file, text, known, problems);
    let workloads = conditions
        .iter()
        .filter(|condition| is_key(preset, condition))
        .filter_map(Condition::equals)
        .fold(1_usize, |product, items| product.saturating_mul(items.len()));
    if workloads > MOST_WORKLOADS {
        let message = format!(
            "rule `{id}` pins {workloads} combinations of ids, expected at most {MOST_WORKLOADS}"
        );
        problems
            .push(Problem::at(file, text.when_place, message).hint("split it into several rules"));
    }
}

/// Where every token of a platform has one audience, at us and at everybody else, whoever receives one could bring it here: one use
/// each, if the platform can hand out fresh ones (threats J24, C01).
fn reused(file: &str, text: &RuleText, known: &Known<'_>, problems: &mut Vec<Problem>) {
    let preset = known.preset;
    let can_be_had_anew = preset.replay == Replay::Once;
    if preset.platform.has_fixed_audience()
        && can_be_had_anew
        && text.replay.as_deref() == Some("reusable")
    {
        let message = format!(
            "rule `{}` says `replay: reusable`, but tokens of `{}` have one audience for everybody",
            text.id.value, preset.name
        );
        let hint = "remove the line: a job can have a fresh token for each exchange";
        problems.push(Problem::at(file, text.when_place, message).hint(hint));
    }
}

/// The most combinations of ids that one rule may name: bounds the index.
const MOST_WORKLOADS: usize = 256;

/// What is legal but unwise.
pub(in crate::policy) fn unwise(
    file: &str,
    text: &RuleText,
    conditions: &[Condition],
    known: &Known<'_>,
    warnings: &mut Vec<Problem>,
) {
    for condition in conditions {
        let Some(id) = twin(&condition.label, known.preset) else { continue };
        // A `not` on a name opens nothing to whoever takes the name over.
        if !matches!(condition.test, Test::OneOf(_)) || equality(conditions, id).is_some() {
            continue;
        }
        let message =
            format!("`{}` is a name that can come to mean somebody else", condition.label);
        let hint = format!("add `{id}`, which survives renames");
        warnings.push(Problem::at(file, text.when_place, message).hint(hint));
    }
    if let (true, Some(place)) = (is_narrow(conditions, known.preset), text.allow_organization) {
        let message = "`allow_organization` says more than the rule admits";
        warnings.push(Problem::at(file, place, message).hint("remove the line"));
    }
}

/// The default against dangerous values: each stands against the rule unless the rule names it (threat C06). A `not` or a
/// pattern names nothing.
pub(in crate::policy) fn implied(conditions: &[Condition], preset: &Preset) -> Vec<Condition> {
    let mut implied = Vec::new();
    for (claim, values) in preset.dangerous {
        if conditions
            .iter()
            .any(|condition| is_claim(condition, claim) && condition.equals().is_some())
        {
            continue;
        }
        let named: BTreeSet<&str> = conditions
            .iter()
            .filter(|condition| is_claim(condition, claim))
            .filter_map(|condition| match &condition.test {
                Test::OneOf(items) => Some(items),
                Test::NoneOf(_) | Test::Any(_) | Test::All(_) | Test::Without(_) => None,
            })
            .flatten()
            .filter_map(|item| if let Item::Text(text) = item { Some(text.as_str()) } else { None })
            .collect();
        let against: Vec<Item> = values
            .iter()
            .filter(|value| !named.contains(**value))
            .map(|value| Item::Text((*value).to_owned()))
            .collect();
        implied.push(Condition {
            label: (*claim).to_owned(),
            path: claim.split('.').map(ToOwned::to_owned).collect(),
            test: Test::NoneOf(against),
            folded: true,
            implied: true,
        });
    }
    implied
}

/// Why `text` can't be a literal value: it was written for a template engine, a regular expression or another matcher.
pub(in crate::policy) fn literal(text: &str) -> Option<String> {
    let templates = ["{{", "}}", "${", "$(", "<%", "%{", "#{"];
    if let Some(template) = templates.iter().find(|template| text.contains(**template)) {
        return Some(format!("has `{template}`: nothing is ever expanded"));
    }
    if text.chars().any(char::is_control) {
        return Some("has a line break or another control character".to_owned());
    }
    if text.contains('*') {
        return Some(format!("is `{text}`, in which a star means nothing"));
    }
    if text.starts_with('^') || text.ends_with('$') || text.contains("(?") || text.contains(".+") {
        return Some(format!("is `{text}`, a regular expression: values are compared as they are"));
    }
    if text.trim() != text {
        return Some("begins or ends with white space".to_owned());
    }
    None
}

/// The guardrail's condition that a rule's own equality contradicts.
pub(in crate::policy) fn contradiction<'a>(
    conditions: &[Condition],
    guardrail: &'a [Condition],
) -> Option<&'a Condition> {
    guardrail.iter().find(|guard| {
        let rule = conditions.iter().find(|condition| condition.path == guard.path);
        match (rule.and_then(Condition::equals), guard.equals()) {
            (Some(of_rule), Some(of_guard)) => !of_rule.iter().any(|item| of_guard.contains(item)),
            _ => false,
        }
    })
}

/// Whether some pin of the rule is one that a whole organization does not share.
fn is_narrow(conditions: &[Condition], preset: &Preset) -> bool {
    let shared = |set: &&[&str]| set.iter().all(|claim| preset.organizations.contains(claim));
    preset
        .pins
        .iter()
        .filter(|set| !shared(set))
        .any(|set| set.iter().all(|claim| equality(conditions, claim).is_some()))
}

/// What makes the rule narrow: of each set of pins that one organization alone has, the claims that the rule pins not yet.
fn missing(conditions: &[Condition], preset: &Preset) -> String {
    let shared = |set: &&&[&str]| set.iter().all(|claim| preset.organizations.contains(claim));
    let ways = preset.pins.iter().filter(|set| !shared(set)).map(|set| {
        let open: Vec<&str> =
            set.iter().copied().filter(|claim| equality(conditions, claim).is_none()).collect();
        ways_of(&open)
    });
    ways.collect::<Vec<_>>().join(", or ")
}

/// Whether the condition's equality goes into the index.
pub(in crate::policy) fn is_key(preset: &Preset, condition: &Condition) -> bool {
    let [claim] = condition.path.as_slice() else { return false };
    let keyed = |sets: &[&[&str]]| sets.iter().any(|set| set.contains(&claim.as_str()));
    !condition.folded
        && condition.equals().is_some()
        && (keyed(preset.pins) || keyed(preset.stable_ids))
}

/// The values that `claim` must equal one of, if the conditions say so.
pub(in crate::policy) fn equality<'a>(
    conditions: &'a [Condition],
    claim: &str,
) -> Option<&'a [Item]> {
    conditions.iter().find(|condition| is_claim(condition, claim)).and_then(Condition::equals)
}

fn is_claim(condition: &Condition, claim: &str) -> bool {
    condition.path.join(".") == claim
}

fn ways_of(set: &[&str]) -> String {
    set.iter().map(|claim| format!("`{claim}`")).collect::<Vec<_>>().join(" and ")
}
