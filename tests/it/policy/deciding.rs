//! `decide` on subjects that were really verified.

use std::sync::Arc;

use cambio::{
    clock::ManualClock,
    grant::{Grant, Replay},
    policy::{Decision, DenialReason, Wants},
    subject::{Algorithm, Issuers, VerifiedSubject, provider, verify::Verifier},
};
use serde_json::json;

use super::shared::{NOW, ORDERS, compile, github, one, policy, rule, with};
use crate::support::issuer::FakeIssuer;

async fn verified(claims: serde_json::Value) -> VerifiedSubject {
    let fake =
        FakeIssuer::signing_with("https://token.actions.githubusercontent.com", Algorithm::ES256);
    let mut issuer = fake.configured_as("github");
    issuer.preset = provider::find("github").unwrap();
    let verifier = Verifier::new(Issuers::of([issuer]).unwrap(), Arc::new(ManualClock::at(NOW)));
    verifier.verify(&fake.token().claims(claims).token()).await.unwrap()
}

const PIN: &str = "{ repository_id: \"1296269\", ref: refs/heads/main }";

#[tokio::test]
async fn a_verified_subject_gets_the_grant_and_nothing_more() {
    let set = one(PIN);
    let subject = verified(github()).await;
    let Decision::Permit(permit) = set.decide(&subject, &Wants::default(), NOW) else {
        panic!("expected a permit");
    };
    let expected = Grant {
        target: "jwt/orders".into(),
        role: "deployer".into(),
        rules: vec!["p/a".into()],
        lifetime: std::time::Duration::from_mins(15),
        bounded_by_subject: false,
        replay: Replay::Once,
        subject: None,
        scope: Vec::new(),
        policy_digest: set.digest(),
        claims: [
            ("file".to_owned(), json!("acme/deploy/.github/workflows/ship.yml")),
            ("repo".to_owned(), json!("acme/site")),
        ]
        .into(),
    };
    assert_eq!(permit.grant, expected);
    assert!(permit.shadow.is_empty());
}

#[tokio::test]
async fn a_denial_tells_known_tenants_from_strangers() {
    let set = one(PIN);
    let near = verified(with(github(), json!({ "ref": "refs/heads/dev" }))).await;
    let Decision::Deny(denial) = set.decide(&near, &Wants::default(), NOW) else {
        panic!("expected a denial");
    };
    assert_eq!((&denial.reason, denial.known_tenant), (&DenialReason::Conditions, true));
    let near = denial.nearest.unwrap();
    assert_eq!((near.rule.as_str(), near.held), ("p/a", (2, 3)));
    assert_eq!(near.missed, "all held but `ref`: wanted `refs/heads/main`, got `refs/heads/dev`");
    let stranger = verified(with(github(), json!({ "repository_id": "2" }))).await;
    let Decision::Deny(denial) = set.decide(&stranger, &Wants::default(), NOW) else {
        panic!("expected a denial");
    };
    assert_eq!(
        (denial.reason, denial.known_tenant, denial.nearest),
        (DenialReason::NoRule, false, None)
    );
}

#[tokio::test]
async fn a_thousand_rules_of_one_organization_are_found_by_their_ids() {
    let rules: String = (0..1_000)
        .map(|id| {
            let when = format!(
                "{{ repository_owner_id: \"9919\", repository_id: \"{}\" }}",
                1_296_000 + id
            );
            rule(&format!("r{id}"), "github", &when, ORDERS, "")
        })
        .collect();
    let set = compile(&[("p.yaml", &policy(&rules))]);
    let Decision::Permit(permit) = set.decide(&verified(github()).await, &Wants::default(), NOW)
    else {
        panic!("expected a permit");
    };
    assert_eq!(permit.grant.rules, ["p/r269".into()]);
}
