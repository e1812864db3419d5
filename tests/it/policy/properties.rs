//! Properties, and a naive evaluator of fifty lines beside the compiled one (goal G08).

use std::collections::{BTreeMap, BTreeSet};

use cambio::policy::{Outcome, PolicySet, Wants};
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Map, Value};

use super::shared::{NOW, context, policy, profile, rule, source, wants};

const CLAIMS: [&str; 4] = ["environment", "ref", "runner_environment", "event_name"];
const VALUES: [&str; 9] = ["", "a", "A", "b", "a/b", "a:b", "a/b/c", "push", "pull_request"];
const PATTERNS: [&str; 4] = ["a/*", "a:*", "a/*/c", "A/*"];
const GRANTS: [(&str, &str); 3] =
    [("jwt/billing", "reader"), ("jwt/orders", "deployer"), ("jwt/orders", "reader")];

#[derive(Clone, Debug)]
enum Line {
    Is(Vec<&'static str>),
    Not(Vec<&'static str>),
    Fits(&'static str),
}

#[derive(Clone, Debug)]
struct Rule {
    repositories: Vec<u8>,
    owner: Option<u8>,
    lines: BTreeMap<&'static str, Line>,
    grants: BTreeMap<(&'static str, &'static str), u64>,
    shadow: bool,
}

type Token = BTreeMap<&'static str, String>;

// The reference: no index, no compiled form, nothing shared with the crate.

fn pieces(text: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    for letter in text.chars() {
        if "/:@".contains(letter) {
            pieces.extend([letter.to_string(), String::new()]);
        } else {
            pieces.last_mut().unwrap().push(letter);
        }
    }
    pieces
}

fn reference_fits(pattern: &str, value: &str, folded: bool) -> bool {
    let fold = |text: &str| if folded { text.to_ascii_lowercase() } else { text.to_owned() };
    let (wanted, given) = (pieces(&fold(pattern)), pieces(&fold(value)));
    wanted.len() == given.len()
        && wanted
            .iter()
            .zip(&given)
            .all(|(want, got)| if want == "*" { !got.is_empty() } else { want == got })
}

fn reference_holds(rule: &Rule, token: &Token) -> bool {
    let pin = |claim: &str, wanted: &[u8]| {
        wanted.iter().any(|id| token.get(claim) == Some(&id.to_string()))
    };
    let pinned = (rule.repositories.is_empty() || pin("repository_id", &rule.repositories))
        && rule.owner.is_none_or(|owner| pin("repository_owner_id", &[owner]));
    let lines = rule.lines.iter().all(|(claim, line)| {
        let folded = *claim == "environment";
        let same =
            |want: &&str, got: &str| *want == got || (folded && want.eq_ignore_ascii_case(got));
        match (token.get(claim).filter(|value| !value.is_empty()), line) {
            (None, _) => false,
            (Some(got), Line::Is(values)) => values.iter().any(|want| same(want, got)),
            (Some(got), Line::Not(values)) => !values.iter().any(|want| same(want, got)),
            (Some(got), Line::Fits(pattern)) => reference_fits(pattern, got, folded),
        }
    });
    let event = token.get("event_name").map_or("", String::as_str);
    let named =
        matches!(rule.lines.get("event_name"), Some(Line::Is(values)) if values.contains(&event));
    pinned && lines && !event.is_empty() && (event != "pull_request" || named)
}

/// What is granted: (target, role) → (shortest lifetime, rules).
fn reference(
    rules: &[Rule],
    token: &Token,
) -> BTreeMap<(&'static str, &'static str), (u64, BTreeSet<String>)> {
    let mut granted: BTreeMap<_, (u64, BTreeSet<String>)> = BTreeMap::new();
    for (index, rule) in rules.iter().enumerate() {
        if rule.shadow || !reference_holds(rule, token) {
            continue;
        }
        for (grant, minutes) in &rule.grants {
            let found = granted.entry(*grant).or_insert((*minutes, BTreeSet::new()));
            found.0 = found.0.min(*minutes);
            found.1.insert(format!("p/r{index}"));
        }
    }
    granted
}

// What the generators make, as the crate reads it.

fn quoted(values: &[&str]) -> String {
    format!(
        "[{}]",
        values.iter().map(|value| format!("\"{value}\"")).collect::<Vec<_>>().join(", ")
    )
}

fn text_of(index: usize, written: &Rule) -> String {
    let mut when = Vec::new();
    let ids: Vec<String> = written.repositories.iter().map(ToString::to_string).collect();
    if !ids.is_empty() {
        when.push(format!(
            "repository_id: {}",
            quoted(&ids.iter().map(String::as_str).collect::<Vec<_>>())
        ));
    }
    when.extend(written.owner.map(|owner| format!("repository_owner_id: \"{owner}\"")));
    for (claim, line) in &written.lines {
        when.push(match line {
            Line::Is(values) => format!("{claim}: {}", quoted(values)),
            Line::Not(values) => format!("{claim}: {{ not: {} }}", quoted(values)),
            Line::Fits(pattern) => format!("{claim}: {{ glob: \"{pattern}\" }}"),
        });
    }
    let grants: Vec<String> = written
        .grants
        .iter()
        .map(|((target, role), minutes)| {
            format!("{{ target: {target}, role: {role}, lifetime: {minutes}m }}")
        })
        .collect();
    let mode = if written.shadow { "shadow" } else { "enforce" };
    rule(
        &format!("r{index}"),
        "github",
        &format!("{{ {} }}", when.join(", ")),
        &format!("[{}]", grants.join(", ")),
        &format!("    mode: {mode}\n    allow_organization: true\n"),
    )
}

fn set_of(rules: &[Rule]) -> PolicySet {
    let text: String = rules.iter().enumerate().map(|(index, rule)| text_of(index, rule)).collect();
    let text = if rules.is_empty() { "version: 1\nrules: []\n".to_owned() } else { policy(&text) };
    PolicySet::compile(&[source("p.yaml", &text)], &context()).unwrap().0
}

fn outcome(set: &PolicySet, token: &Token, wants: &Wants) -> Outcome {
    let claims: Map<String, Value> =
        token.iter().map(|(name, value)| ((*name).to_owned(), value.as_str().into())).collect();
    set.explain(&profile("github", &Value::Object(claims)), wants, NOW).outcome
}

fn a_line() -> impl Strategy<Value = Line> {
    let values = || vec(select(&VALUES[1..]), 1..4);
    prop_oneof![
        3 => values().prop_map(Line::Is),
        1 => values().prop_map(Line::Not),
        1 => select(&PATTERNS[..]).prop_map(Line::Fits),
    ]
}

fn a_rule() -> impl Strategy<Value = Rule> {
    let lines = proptest::collection::btree_map(select(&CLAIMS[..]), a_line(), 0..3);
    let grants = proptest::collection::btree_map(select(&GRANTS[..]), 1_u64..30, 1..3);
    (vec(1_u8..4, 0..3), option::of(1_u8..3), lines, grants, prop::bool::weighted(0.1)).prop_map(
        |(mut repositories, owner, lines, grants, shadow)| {
            if repositories.is_empty() && owner.is_none() {
                repositories.push(1);
            }
            Rule { repositories, owner, lines, grants, shadow }
        },
    )
}

fn a_token() -> impl Strategy<Value = Token> {
    let claims = vec(option::weighted(0.8, select(&VALUES[..])), CLAIMS.len());
    (1_u8..4, 1_u8..3, claims, prop::bool::weighted(0.5)).prop_map(
        |(repository, owner, claims, push)| {
            let mut token: Token = CLAIMS
                .into_iter()
                .zip(claims)
                .filter_map(|(claim, value)| Some((claim, value?.to_owned())))
                .collect();
            if push {
                token.insert("event_name", "push".to_owned());
            }
            token.insert("repository_id", repository.to_string());
            token.insert("repository_owner_id", owner.to_string());
            token
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_compiled_evaluator_agrees_with_a_naive_one(rules in vec(a_rule(), 0..8), tokens in vec(a_token(), 1..8)) {
        let set = set_of(&rules);
        for token in &tokens {
            let expected = reference(&rules, token);
            match outcome(&set, token, &Wants::default()) {
                Outcome::Deny { .. } => prop_assert!(expected.is_empty(), "{expected:?} {token:?}"),
                Outcome::Ambiguous { choices } => {
                    let choices: Vec<_> = choices.iter().map(|(target, role)| (target.as_str(), role.as_str())).collect();
                    prop_assert_eq!(choices, expected.into_keys().collect::<Vec<_>>());
                }
                Outcome::Permit { target, role, rules, lifetime_seconds, .. } => {
                    let rules = rules.iter().map(ToString::to_string).collect();
                    let found = BTreeMap::from([((target.as_str(), role.as_str()), (lifetime_seconds / 60, rules))]);
                    prop_assert_eq!(found, expected);
                }
            }
            for (target, role) in GRANTS {
                let particular = outcome(&set, token, &wants(target, &[role]));
                let permitted = matches!(particular, Outcome::Permit { .. });
                prop_assert_eq!(permitted, reference(&rules, token).contains_key(&(target, role)));
            }
        }
    }

    #[test]
    fn adding_a_rule_changes_no_permit_of_another_target(rules in vec(a_rule(), 0..6), mut added in a_rule(), token in a_token()) {
        added.grants = BTreeMap::from([(("jwt/billing", "writer"), 5)]);
        let before = outcome(&set_of(&rules), &token, &wants("jwt/orders", &["reader"]));
        let more: Vec<Rule> = rules.iter().cloned().chain([added]).collect();
        let after = outcome(&set_of(&more), &token, &wants("jwt/orders", &["reader"]));
        let rules_of = |outcome: &Outcome| match outcome {
            Outcome::Permit { rules, lifetime_seconds, .. } => Some((rules.clone(), *lifetime_seconds)),
            Outcome::Deny { .. } | Outcome::Ambiguous { .. } => None,
        };
        prop_assert_eq!(rules_of(&before), rules_of(&after));
    }

    #[test]
    fn removing_a_claim_turns_no_deny_into_a_permit(rules in vec(a_rule(), 0..8), token in a_token()) {
        let set = set_of(&rules);
        for (target, role) in GRANTS {
            let wants = wants(target, &[role]);
            if matches!(outcome(&set, &token, &wants), Outcome::Permit { .. }) {
                continue;
            }
            for claim in CLAIMS {
                let mut less = token.clone();
                less.remove(claim);
                prop_assert!(!matches!(outcome(&set, &less, &wants), Outcome::Permit { .. }), "without {}", claim);
            }
        }
    }

    #[test]
    fn the_order_of_files_and_rules_decides_nothing(rules in vec(a_rule(), 1..6), token in a_token()) {
        let context = context();
        let text = |rules: Vec<(usize, &Rule)>| policy(&rules.into_iter().map(|(index, rule)| text_of(index, rule)).collect::<String>());
        let forward = source("p.yaml", &text(rules.iter().enumerate().collect()));
        let backward = source("p.yaml", &text(rules.iter().enumerate().rev().collect()));
        let other = source("q.yaml", &text(rules.iter().enumerate().take(1).collect()));
        let (one, _) = PolicySet::compile(&[forward, other.clone()], &context).unwrap();
        let (two, _) = PolicySet::compile(&[other, backward], &context).unwrap();
        let forward = outcome(&one, &token, &Wants::default());
        let backward = outcome(&two, &token, &Wants::default());
        let both_deny = matches!((&forward, &backward), (Outcome::Deny { .. }, Outcome::Deny { .. }));
        prop_assert!(both_deny || forward == backward, "{} {}", forward, backward);
    }

    #[test]
    fn a_permit_is_explained_by_a_rule_that_it_names(rules in vec(a_rule(), 1..8), token in a_token()) {
        let set = set_of(&rules);
        let claims: Map<String, Value> = token.iter().map(|(name, value)| ((*name).to_owned(), value.as_str().into())).collect();
        let explanation = set.explain(&profile("github", &Value::Object(claims)), &Wants::default(), NOW);
        if let Outcome::Permit { rules, .. } = &explanation.outcome {
            for rule in rules {
                prop_assert!(explanation.rules.iter().any(|found| found.rule == *rule && found.fits));
                let named = format!("rule `{rule}` ");
                prop_assert!(explanation.to_string().contains(&named));
            }
        }
    }

    #[test]
    fn changing_a_pinned_claim_closes(written in a_rule(), mut token in a_token()) {
        let mut rule = written;
        rule.repositories = vec![1];
        rule.owner = Some(1);
        rule.shadow = false;
        let set = set_of(std::slice::from_ref(&rule));
        for (repository, owner) in [("9", "1"), ("1", "9"), ("9", "9")] {
            token.insert("repository_id", repository.to_owned());
            token.insert("repository_owner_id", owner.to_owned());
            let closed = matches!(outcome(&set, &token, &Wants::default()), Outcome::Deny { .. });
            prop_assert!(closed);
        }
    }

    #[test]
    fn compiling_never_panics(text in "[ -~\n]{0,200}", cut in 0_usize..400, rules in vec(a_rule(), 0..3)) {
        let context = context();
        drop(PolicySet::compile(&[source("p.yaml", &text)], &context));
        let mut whole = policy(&rules.iter().enumerate().map(|(index, rule)| text_of(index, rule)).collect::<String>());
        let cut = cut.min(whole.len());
        whole.insert_str(cut, &text);
        drop(PolicySet::compile(&[source("p.yaml", &whole)], &context));
        whole.truncate(cut);
        drop(PolicySet::compile(&[source("p.yaml", &whole)], &context));
    }
}
