//! What holds and what does not.

use cambio::policy::Outcome;
use serde_json::json;

use super::shared::{
    NOW, ORDERS, compile, github, kubernetes, one, outcome, permits, policy, profile, rule, said,
    wants, with,
};
use cambio::{
    grant::IssuerName,
    policy::Wants,
    subject::{Profile, provider},
};

const PIN: &str = "repository_id: \"1296269\", repository_owner_id: \"9919\"";

/// Whether a rule with this line besides the pins permits the workload with these changes.
fn holds(line: &str, changes: serde_json::Value) -> bool {
    permits(&one(&format!("{{ {PIN}, {line} }}")), &with(github(), changes))
}

#[test]
fn exact_values_any_of_and_patterns_hold_on_the_whole_value() {
    assert!(holds("environment: production", json!({})));
    assert!(!holds("environment: prod", json!({})));
    assert!(holds("event_name: [push, workflow_dispatch]", json!({})));
    assert!(!holds("event_name: [workflow_dispatch]", json!({})));
    assert!(holds("ref: { glob: \"refs/heads/*\" }", json!({})));
    assert!(!holds("ref: { glob: \"refs/heads/*\" }", json!({ "ref": "refs/heads/a/b" })));
    assert!(holds(
        "ref: [refs/heads/main, { glob: \"refs/tags/*\" }]",
        json!({ "ref": "refs/tags/v1" })
    ));
    assert!(holds(
        "job_workflow: { path: { glob: \"acme/deploy/.github/workflows/*\" }, ref: refs/heads/main }",
        json!({})
    ));
    assert!(!holds("job_workflow: { ref: refs/heads/dev }", json!({})));
    assert!(holds("/job_workflow/ref: refs/heads/main", json!({})));
    assert!(holds("/custom/deep~1er: 7", json!({ "custom": { "deep/er": 7 } })));
}

#[test]
fn closed_by_absence_a_missing_empty_or_otherwise_typed_claim_never_holds() {
    for line in [
        "environment: production",
        "environment: { not: dev }",
        "environment: { glob: \"prod/*\" }",
    ] {
        assert!(!holds(line, json!({ "environment": null })), "{line}");
        assert!(!holds(line, json!({ "environment": "" })), "{line}");
    }
    assert!(holds("environment: { not: dev }", json!({})));
    assert!(!holds("environment: { not: [dev, production] }", json!({})));
    assert!(!holds("head_ref: { not: evil }", json!({})), "GitHub sends an empty text");
    // By pointer the types are not known at load: a scalar never matches a list, `not` never matches another type.
    for value in [json!(["x"]), json!({ "x": "x" }), json!(1), json!(true), json!([]), json!({})] {
        assert!(!holds("/custom: x", json!({ "custom": value })), "{value}");
        assert!(!holds("/custom: { not: y }", json!({ "custom": value })), "{value}");
        let is_list_with_x = value == json!(["x"]);
        assert_eq!(
            holds("/custom: { any: [x] }", json!({ "custom": value })),
            is_list_with_x,
            "{value}"
        );
        assert_eq!(
            holds("/custom: { none: [y] }", json!({ "custom": value })),
            is_list_with_x,
            "{value}"
        );
    }
    assert!(!holds("/custom: { any: [x] }", json!({ "custom": "x" })));
    assert!(!holds("/custom: { all: [x] }", json!({ "custom": "x" })));
    assert!(!holds("/custom: { none: [y] }", json!({ "custom": "x" })));
    assert!(!holds("/custom/member: x", json!({ "custom": ["x"] })));
    assert!(!holds("/custom/0: x", json!({ "custom": ["x"] })));
}

#[test]
fn list_operators_hold_on_lists() {
    let groups = json!({ "groups": ["a", "b/c"] });
    assert!(holds("/groups: { any: [z, a] }", groups.clone()));
    assert!(!holds("/groups: { any: [z] }", groups.clone()));
    assert!(holds("/groups: { all: [a, { glob: \"b/*\" }] }", groups.clone()));
    assert!(!holds("/groups: { all: [a, z] }", groups.clone()));
    assert!(holds("/groups: { none: [z] }", groups.clone()));
    assert!(!holds("/groups: { none: [z, { glob: \"b/*\" }] }", groups));
}

#[test]
fn integers_are_64_bit_safe() {
    assert!(holds("/n: 9007199254740993", json!({ "n": 9_007_199_254_740_993_u64 })));
    assert!(!holds("/n: 9007199254740993", json!({ "n": 9_007_199_254_740_992_u64 })));
    assert!(holds("/n: 18446744073709551615", json!({ "n": u64::MAX })));
    assert!(holds("/n: -9223372036854775808", json!({ "n": i64::MIN })));
    assert!(!holds("/n: 1", json!({ "n": 1.0 })));
    assert!(!holds("/n: 1", json!({ "n": "1" })));
    assert!(!holds("/n: \"1\"", json!({ "n": 1 })));
    assert!(!holds("/n: { not: 2 }", json!({ "n": 1.5 })));
}

#[test]
fn c04_a_recreated_repository_with_the_old_name_is_not_the_old_one() {
    let set = one(&format!("{{ {PIN} }}"));
    assert!(permits(&set, &github()));
    assert!(!permits(&set, &with(github(), json!({ "repository_id": "777" }))));
    assert!(!permits(&set, &with(github(), json!({ "repository_owner_id": "777" }))));
    assert!(permits(
        &set,
        &with(github(), json!({ "sub": "repo:acme/renamed:ref:x", "repository": "acme/renamed" }))
    ));
}

#[test]
fn c05_a_customised_sub_opens_nothing_and_a_dropped_claim_closes() {
    let set = one(&format!("{{ {PIN}, ref: refs/heads/main }}"));
    let sub = "repository_owner:acme:environment:production";
    assert!(permits(&set, &with(github(), json!({ "sub": sub }))));
    assert!(!permits(&set, &with(github(), json!({ "sub": sub, "ref": null }))));
}

#[test]
fn c06_events_that_strangers_cause_must_be_named() {
    let unnamed = one(&format!("{{ {PIN} }}"));
    let negated = one(&format!("{{ {PIN}, event_name: {{ not: push }} }}"));
    let named = one(&format!("{{ {PIN}, event_name: [push, pull_request] }}"));
    let one_named = one(&format!("{{ {PIN}, event_name: [{{ glob: \"x/*\" }}, pull_request] }}"));
    for event in ["pull_request", "pull_request_target", "workflow_run", "issue_comment"] {
        let token = with(github(), json!({ "event_name": event }));
        assert!(!permits(&unnamed, &token), "{event}");
        assert!(!permits(&negated, &token), "{event}");
        assert_eq!(permits(&named, &token), event == "pull_request", "{event}");
        assert_eq!(permits(&one_named, &token), event == "pull_request", "{event}");
    }
    let dispatch = with(github(), json!({ "event_name": "workflow_dispatch" }));
    assert!(permits(&unnamed, &dispatch) && permits(&negated, &dispatch));
    assert!(!permits(&unnamed, &with(github(), json!({ "event_name": null }))));
    let shouted = with(github(), json!({ "event_name": "PULL_REQUEST" }));
    assert!(!permits(&unnamed, &shouted));
    insta::assert_snapshot!(said(&unnamed, &with(github(), json!({ "event_name": "workflow_run" }))), @"deny: no rule's conditions hold; nearest is `p/a`: all held but `event_name`: wanted any value but those that a rule must name, got `workflow_run`");
}

#[test]
fn c09_names_fold_ascii_case_where_the_preset_says_so_and_ids_never() {
    assert!(holds("repository: ACME/Site", json!({})));
    assert!(holds("environment: Production", json!({})));
    assert!(holds("repository: { glob: \"ACME/*\" }", json!({})));
    assert!(!holds("ref: refs/heads/Main", json!({})), "refs are case-sensitive");
    assert!(!holds("repository: acme/ſite", json!({})), "only ASCII folds");
    assert!(!holds("environment: { not: PRODUCTION }", json!({})), "folding narrows `not` too");
}

#[test]
fn c10_claims_are_compared_with_their_type() {
    assert!(holds("ref_protected: \"true\", runner_environment: github-hosted", json!({})));
    assert!(!holds("ref_protected: \"true\"", json!({ "ref_protected": "false" })));
    assert!(!holds(
        "runner_environment: github-hosted",
        json!({ "runner_environment": "self-hosted" })
    ));
    assert!(!holds("/flag: \"true\"", json!({ "flag": true })));
    assert!(!holds("/flag: true", json!({ "flag": "true" })));
}

#[test]
fn c15_a_pinned_uid_outlives_no_recreation() {
    let when = "{ namespace: payments, service_account: worker, service_account_uid: 0a1b2c3d, /kubernetes.io/pod/name: worker-7d }";
    let set = compile(&[("p.yaml", &policy(&rule("a", "kubernetes", when, ORDERS, "")))]);
    let permits = |token: &serde_json::Value| {
        matches!(outcome(&set, "kubernetes", token, &Wants::default()), Outcome::Permit { .. })
    };
    assert!(permits(&kubernetes()));
    let mut recreated = kubernetes();
    recreated["kubernetes.io"]["serviceaccount"]["uid"] = json!("ffff");
    assert!(!permits(&recreated));
}

#[test]
fn c18_a_new_claim_changes_nothing_and_a_changed_type_closes() {
    let set = one(&format!("{{ {PIN}, /team: {{ not: x }} }}"));
    assert!(permits(&set, &with(github(), json!({ "team": "y", "brand_new": { "a": 1 } }))));
    assert!(!permits(&set, &with(github(), json!({ "team": 5 }))));
    assert!(!permits(&set, &with(github(), json!({ "team": ["y"] }))));
}

#[test]
fn a_rule_is_of_its_issuer_alone() {
    let set = one(&format!("{{ {PIN} }}"));
    let other = Profile::of(
        IssuerName::from("github-enterprise"),
        provider::find("github").unwrap(),
        super::shared::claims(&github()),
    )
    .unwrap();
    let explanation = set.explain(&other, &wants("", &[]), NOW);
    assert_eq!(explanation.outcome.to_string(), "deny: no rule is pinned to this workload");
    assert!(explanation.rules.is_empty());
    assert!(!set.explain(&profile("github", &github()), &wants("", &[]), NOW).rules.is_empty());
}
