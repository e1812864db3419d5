//! Which grant: targets, roles, scopes, lifetimes, several rules, shadow mode, guardrails.

use std::time::Duration;

use cambio::{
    clock::Instant,
    policy::{Outcome, PolicySet, Wants},
};
use insta::assert_snapshot;
use serde_json::json;

use super::shared::{
    NOW, ORDERS, compile, github, one, outcome, policy, profile, rule, said, wants, with,
};

const PIN: &str = "{ repository_id: \"1296269\" }";
const BOTH: &str = "[{ target: jwt/orders, role: deployer, lifetime: 15m }, { target: jwt/orders, role: reader, lifetime: 30m }, { target: jwt/billing, role: reader, lifetime: 5m }]";

fn several() -> PolicySet {
    compile(&[("p.yaml", &policy(&rule("a", "github", PIN, BOTH, "")))])
}

fn asked(set: &PolicySet, target: &str, scope: &[&str]) -> String {
    outcome(set, "github", &github(), &wants(target, scope)).to_string()
}

#[test]
fn more_than_one_permitted_is_never_a_choice_of_ours() {
    let set = several();
    assert_snapshot!(asked(&set, "", &[]), @"ambiguous: `jwt/billing` as `reader`, `jwt/orders` as `deployer`, `jwt/orders` as `reader`; name one by `audience` and `scope`");
    assert_snapshot!(asked(&set, "jwt/orders", &[]), @"ambiguous: `jwt/orders` as `deployer`, `jwt/orders` as `reader`; name one by `audience` and `scope`");
    assert_snapshot!(asked(&set, "", &["reader"]), @"ambiguous: `jwt/billing` as `reader`, `jwt/orders` as `reader`; name one by `audience` and `scope`");
    assert_snapshot!(asked(&set, "jwt/orders", &["deployer"]), @"permit: `jwt/orders` as `deployer` for 900 s, once, by `p/a`");
    assert_snapshot!(asked(&set, "https://jwt/billing.example", &[]), @"permit: `jwt/billing` as `reader` for 300 s, once, by `p/a`");
    assert_snapshot!(asked(&set, "", &["deployer"]), @"permit: `jwt/orders` as `deployer` for 900 s, once, by `p/a`");
}

#[test]
fn x02_a_target_that_is_not_granted_is_a_target_that_does_not_exist() {
    let set = several();
    assert_snapshot!(asked(&set, "fixed/hour", &[]), @"deny: target `fixed/hour` is not granted");
    assert_snapshot!(asked(&set, "jwt/nowhere", &[]), @"deny: target `jwt/nowhere` is not granted");
    assert_snapshot!(asked(&set, "JWT/orders", &[]), @"deny: target `JWT/orders` is not granted");
    let two =
        Wants { targets: vec!["jwt/orders".into(), "jwt/billing".into()], ..Wants::default() };
    assert_snapshot!(outcome(&set, "github", &github(), &two).to_string(), @"deny: target `jwt/billing` is not granted");
    let twice = Wants {
        targets: vec!["jwt/billing".into(), "https://jwt/billing.example".into()],
        ..Wants::default()
    };
    assert_snapshot!(outcome(&set, "github", &github(), &twice).to_string(), @"permit: `jwt/billing` as `reader` for 300 s, once, by `p/a`");
    let stranger = with(github(), json!({ "repository_id": "2" }));
    assert_snapshot!(outcome(&set, "github", &stranger, &wants("jwt/nowhere", &[])).to_string(), @"deny: no rule is pinned to this workload");
}

#[test]
fn x05_a_scope_beyond_the_role_is_refused_and_never_dropped() {
    let set = several();
    assert_snapshot!(asked(&set, "jwt/orders", &["admin"]), @"deny: scope `admin` is not granted");
    assert_snapshot!(asked(&set, "jwt/orders", &["deployer", "orders:read"]), @"deny: scope `orders:read` is not granted");
    assert_snapshot!(asked(&set, "jwt/orders", &["deployer", "reader"]), @"deny: scope `reader` is not granted");
    let Outcome::Permit { role, scope, .. } = outcome(
        &set,
        "github",
        &github(),
        &wants("jwt/orders", &["orders:list", "reader", "orders:read", "orders:list", "reader"]),
    ) else {
        panic!("expected a permit");
    };
    assert_eq!(role.as_str(), "reader");
    assert_eq!(scope, ["orders:list", "orders:read"]);
    let billing = compile(&[(
        "p.yaml",
        &policy(&rule(
            "a",
            "github",
            PIN,
            "[{ target: jwt/billing, role: reader, lifetime: 5m }]",
            "",
        )),
    )]);
    assert_snapshot!(asked(&billing, "jwt/billing", &["writer"]), @"deny: scope `writer` is not granted");
}

#[test]
fn never_outlive_a_request_only_shortens() {
    let set = one(PIN);
    let seconds = |asked: u64| {
        let wants = Wants { lifetime: Some(Duration::from_secs(asked)), ..Wants::default() };
        match outcome(&set, "github", &github(), &wants) {
            Outcome::Permit { lifetime_seconds, .. } => Ok(lifetime_seconds),
            other => Err(other.to_string()),
        }
    };
    assert_eq!(seconds(300), Ok(300));
    assert_eq!(seconds(60), Ok(60));
    assert_eq!(seconds(315_360_000), Ok(900));
    assert_snapshot!(seconds(59).unwrap_err(), @"deny: lifetime of 59 s is shorter than the target can keep, which is 60 s");
    assert_snapshot!(seconds(0).unwrap_err(), @"deny: lifetime of 0 s is shorter than the target can keep, which is 60 s");
    let fixed = compile(&[(
        "p.yaml",
        &policy(&rule("a", "github", PIN, "[{ target: fixed/hour, role: all, lifetime: 1h }]", "")),
    )]);
    let wants = Wants { lifetime: Some(Duration::from_mins(5)), ..Wants::default() };
    assert_snapshot!(outcome(&fixed, "github", &github(), &wants).to_string(), @"deny: lifetime of 300 s is shorter than the target can keep, which is 3600 s");
}

#[test]
fn of_several_rules_the_shortest_lifetime_and_the_strictest_replay_count() {
    let long = rule(
        "long",
        "github",
        PIN,
        "[{ target: jwt/orders, role: deployer, lifetime: 1h }]",
        "    replay: reusable\n    bounded_by_subject: true\n",
    );
    let short = rule(
        "short",
        "github",
        "{ repository_owner_id: \"9919\" }",
        "[{ target: jwt/orders, role: deployer, lifetime: 5m }]",
        "    allow_organization: true\n    replay: once\n",
    );
    let set = compile(&[("q.yaml", &policy(&long)), ("p.yaml", &policy(&short))]);
    let Outcome::Permit { rules, lifetime_seconds, replay, bounded_by_subject, claims, .. } =
        outcome(&set, "github", &github(), &Wants::default())
    else {
        panic!("expected a permit");
    };
    assert_eq!(rules, ["p/short".into(), "q/long".into()]);
    assert_eq!(
        (lifetime_seconds, replay, bounded_by_subject),
        (300, cambio::grant::Replay::Once, true)
    );
    assert_eq!(
        json!(claims),
        json!({ "file": "acme/deploy/.github/workflows/ship.yml", "repo": "acme/site" })
    );
    let other = rule(
        "other",
        "github",
        PIN,
        "[{ target: jwt/orders, role: deployer, lifetime: 5m, subject: \"team:payments\" }]",
        "",
    );
    assert_snapshot!(said(&compile(&[("p.yaml", &policy(&other))]), &github()), @"permit: `jwt/orders` as `deployer` for 300 s, once, by `p/other`, as subject `team:payments`");
    let set = compile(&[("q.yaml", &policy(&long)), ("p.yaml", &policy(&other))]);
    assert_snapshot!(said(&set, &github()), @"deny: rules `p/other`, `q/long` fix different subjects");
}

#[test]
fn a_mapped_claim_that_the_subject_lacks_is_left_out() {
    let token = with(github(), json!({ "job_workflow_ref": null }));
    let Outcome::Permit { claims, .. } = outcome(&one(PIN), "github", &token, &Wants::default())
    else {
        panic!("expected a permit");
    };
    assert_eq!(json!(claims), json!({ "repo": "acme/site" }));
}

#[test]
fn a_rule_in_shadow_mode_is_recorded_and_grants_nothing() {
    let shadow = rule("s", "github", PIN, ORDERS, "    mode: shadow\n");
    let set = compile(&[("p.yaml", &policy(&shadow))]);
    assert_snapshot!(said(&set, &github()), @r"
    deny: no rule's conditions hold
      in shadow mode it would also be permitted by `p/s`
    ");
    let enforced = rule("e", "github", PIN, ORDERS, "");
    let set = compile(&[("p.yaml", &policy(&format!("{shadow}{enforced}")))]);
    assert_snapshot!(said(&set, &github()), @r"
    permit: `jwt/orders` as `deployer` for 900 s, once, by `p/e`
      in shadow mode it would also be permitted by `p/s`
    ");
}

#[test]
fn a_guardrail_stands_over_every_permit_until_an_exception_and_after_it() {
    let guardrail = "version: 1\nguardrails:\n  - id: protected-only\n    for: { environment: prod, kind: jwt }\n    when: { ref_protected: \"true\" }\n    exceptions:\n      - { rule: p/b, owner: ann, expires: 2027-01-31 }\n";
    let rules = format!(
        "{}{}",
        rule("a", "github", PIN, ORDERS, ""),
        rule("b", "github", PIN, "[{ target: jwt/billing, role: writer, lifetime: 15m }]", "")
    );
    let set = compile(&[("p.yaml", &policy(&rules)), ("q.yaml", guardrail)]);
    let unprotected = profile("github", &with(github(), json!({ "ref_protected": "false" })));
    let at = |target: &str, now: Instant| {
        set.explain(&unprotected, &wants(target, &[]), now).outcome.to_string()
    };
    let expiry = cambio::yaml::parse_date("2027-01-31").unwrap();
    let before = expiry.minus(Duration::from_millis(1));
    assert_snapshot!(at("jwt/orders", before), @"deny: guardrail `protected-only` stands against it");
    assert_snapshot!(at("jwt/billing", before), @"permit: `jwt/billing` as `writer` for 900 s, once, by `p/b`");
    assert_snapshot!(at("jwt/billing", expiry), @"deny: guardrail `protected-only` stands against it");
    assert_snapshot!(at("", before), @"permit: `jwt/billing` as `writer` for 900 s, once, by `p/b`");
    let protected = profile("github", &github());
    assert_snapshot!(set.explain(&protected, &wants("jwt/orders", &[]), NOW).outcome.to_string(), @"permit: `jwt/orders` as `deployer` for 900 s, once, by `p/a`");
    // A claim that an issuer does not send never holds: the guardrail closes that issuer.
    let pods =
        rule("pods", "kubernetes", "{ namespace: payments, service_account: worker }", ORDERS, "");
    let set = compile(&[("p.yaml", &policy(&format!("{rules}{pods}"))), ("q.yaml", guardrail)]);
    let pod = super::shared::kubernetes();
    assert_snapshot!(outcome(&set, "kubernetes", &pod, &Wants::default()).to_string(), @"deny: guardrail `protected-only` stands against it");
}
