//! Explanations and `init`, pinned whole.

use cambio::policy::{Outcome, PolicySet, Wants, init::init};
use insta::assert_snapshot;
use serde_json::json;

use super::shared::{
    NOW, ORDERS, claims, compile, context, github, kubernetes, lines, policy, profile, rule,
    source, wants, with,
};

#[test]
fn a_denial_explains_itself_with_the_nearest_rule_first() {
    let far = rule(
        "far",
        "github",
        "{ repository_owner_id: \"9919\", environment: staging, ref: refs/heads/dev }",
        ORDERS,
        "    allow_organization: true\n",
    );
    let near = rule(
        "near",
        "github",
        "{ repository_id: \"1296269\", ref: refs/heads/main, event_name: [push, workflow_dispatch] }",
        ORDERS,
        "    owner: team-payments\n",
    );
    let guardrail = "version: 1\nguardrails:\n  - id: hosted\n    for: {}\n    when: { runner_environment: github-hosted }\n";
    let set = compile(&[("p.yaml", &policy(&format!("{far}{near}"))), ("q.yaml", guardrail)]);
    let token = with(
        github(),
        json!({ "ref": "refs/heads/x\u{202e}\n", "runner_environment": "self-hosted" }),
    );
    let explanation = set.explain(&profile("github", &token), &wants("jwt/orders", &[]), NOW);
    assert_snapshot!(explanation.to_string().replace(&explanation.policy[..12], "[policy]"), @r"
    deny: no rule's conditions hold; nearest is `p/near`: all held but `ref`: wanted `refs/heads/main`, got `refs/heads/x\u{202e}\n`
      subject `github:repository_id:1296269`, policy [policy]
    rule `p/near` (p.yaml:8): nearest
      held    `repository_id`: is `1296269`
      missed  `ref`: wanted `refs/heads/main`, got `refs/heads/x\u{202e}\n`
      held    `event_name`: is `push`
      grants `jwt/orders` as `deployer` for 900 s
        guardrail `hosted`: stands against it
          missed  `runner_environment`: wanted `github-hosted`, got `self-hosted`
    rule `p/far` (p.yaml:3): does not fit
      held    `repository_owner_id`: is `9919`
      missed  `environment`: wanted `staging`, got `production`
      missed  `ref`: wanted `refs/heads/dev`, got `refs/heads/x\u{202e}\n`
      held    `event_name`: is `push`
      grants `jwt/orders` as `deployer` for 900 s
        guardrail `hosted`: stands against it
          missed  `runner_environment`: wanted `github-hosted`, got `self-hosted`
    ");
    assert_snapshot!(serde_json::to_string_pretty(&explanation.outcome).unwrap(), @r#"
    {
      "decision": "deny",
      "reason": "no rule's conditions hold; nearest is `p/near`: all held but `ref`: wanted `refs/heads/main`, got `refs/heads/x\\u{202e}\\n`",
      "shadow": []
    }
    "#);
}

#[test]
fn a_permit_explains_itself_too() {
    let set = super::shared::one("{ repository_id: \"1296269\" }");
    let explanation = set.explain(&profile("github", &github()), &Wants::default(), NOW);
    assert_snapshot!(explanation.to_string().replace(&explanation.policy[..12], "[policy]"), @r"
    permit: `jwt/orders` as `deployer` for 900 s, once, by `p/a`
      subject `github:repository_id:1296269`, policy [policy]
    rule `p/a` (p.yaml:3): fits
      held    `repository_id`: is `1296269`
      held    `event_name`: is `push`
      grants `jwt/orders` as `deployer` for 900 s
    ");
    assert_snapshot!(serde_json::to_string_pretty(&explanation.rules[0].grants).unwrap(), @r#"
    [
      {
        "target": "jwt/orders",
        "role": "deployer",
        "lifetime_seconds": 900,
        "guardrails": []
      }
    ]
    "#);
}

#[test]
fn unwise_rules_are_warned_of() {
    let rules = rule(
        "a",
        "github",
        "{ repository_owner_id: \"9919\", repository: acme/site }",
        ORDERS,
        "    allow_organization: true\n",
    ) + &rule(
        "b",
        "github",
        "{ repository_id: \"1\", environment: dev }",
        ORDERS,
        "    allow_organization: true\n",
    );
    let guardrail = "version: 1\nguardrails:\n  - { id: g, for: { issuer: github }, when: { environment: production } }\n";
    let (_, warnings) = PolicySet::compile(
        &[source("p.yaml", &policy(&rules)), source("q.yaml", guardrail)],
        &context(),
    )
    .unwrap();
    assert_snapshot!(lines(&warnings), @r"
    p.yaml:5:5: `repository` is a name that can come to mean somebody else
      hint: add `repository_id`, which survives renames
    p.yaml:8:9: rule `p/b` can never grant `jwt/orders`: guardrail `g` wants `environment` to be `production`
    p.yaml:12:5: `allow_organization` says more than the rule admits
      hint: remove the line
    ");
}

/// What `init` writes loads as it is, permits the token it was made of, and passes its own case.
fn fits(issuer: &str, signed: &serde_json::Value) -> String {
    let profile = profile(issuer, signed);
    let text = init(&profile, &claims(signed), Some("jwt/orders"), Some("deployer"));
    let set = compile(&[("p.yaml", &text)]);
    let explanation = set.explain(&profile, &Wants::default(), NOW);
    assert!(matches!(explanation.outcome, Outcome::Permit { .. }), "{text}\n{explanation}");
    let results = set.run_cases(&std::collections::BTreeMap::new(), NOW);
    assert!(results.len() == 1 && results[0].passed, "{text}\n{}", lines(&results));
    text
}

#[test]
fn init_writes_the_rule_that_fits_a_token() {
    assert_snapshot!(fits("github", &github()), @r#"
    # yaml-language-server: $schema=schema.json
    version: 1
    rules:
      - id: site
        issuer: github
        when:
          repository_id: "1296269"   # acme/site
          repository_owner_id: "9919"   # acme
          environment: "production"
          ref: "refs/heads/main"
          ref_protected: "true"
          event_name: "push"
          runner_environment: "github-hosted"
        grants:
          - { target: jwt/orders, role: deployer, lifetime: 15m }
    cases:
      - permit: site
        claims:
          "sub": "repo:acme/site:environment:production"
          "repository": "acme/site"
          "repository_id": "1296269"
          "repository_owner": "acme"
          "repository_owner_id": "9919"
          "environment": "production"
          "event_name": "push"
          "ref": "refs/heads/main"
          "ref_protected": "true"
          "runner_environment": "github-hosted"
    "#);
    assert_snapshot!(fits("kubernetes", &kubernetes()), @r#"
    # yaml-language-server: $schema=schema.json
    version: 1
    rules:
      - id: worker
        issuer: kubernetes
        when:
          service_account_uid: "0a1b2c3d"   # worker
          namespace: "payments"
          service_account: "worker"
        grants:
          - { target: jwt/orders, role: deployer, lifetime: 15m }
    cases:
      - permit: worker
        claims:
          "sub": "system:serviceaccount:payments:worker"
          "kubernetes.io": {"namespace":"payments","serviceaccount":{"name":"worker","uid":"0a1b2c3d"},"pod":{"name":"worker-7d","uid":"4e5f"}}
    "#);
    fits(
        "github",
        &with(
            github(),
            json!({ "event_name": "pull_request_target", "repository": "acme/site", "environment": "é \"quoted\" 😀" }),
        ),
    );
    fits("generic", &json!({ "sub": "spiffe://acme.example/ns/a/sa/b" }));
    fits(
        "gitlab",
        &json!({
            "sub": "project_path:acme/site:ref_type:branch:ref:main", "project_id": "20", "project_path": "acme/site",
            "namespace_id": "72", "namespace_path": "acme", "ref": "main", "ref_path": "refs/heads/main", "ref_type": "branch",
            "ref_protected": "true", "pipeline_source": "push", "runner_id": 1, "user_login": "ann",
        }),
    );
}
