//! Azure: one application, one subject, one scope for each role.

use cambio::mint::examine::Verdict;
use serde_json::json;

use super::{
    bench::{Bench, token},
    stand_in::{CLIENT, Mood, SUBJECT},
};
use crate::support::{broker::parts, site::ORDERS_YAML, token::NOW};

#[tokio::test]
async fn a_job_gets_the_token_of_its_roles_application_for_as_long_as_entra_says() {
    let bench = Bench::start().await;
    let answer = bench.ask("audience=azure/prod&scope=deploy").await;
    let known = bench.clouds.knows(&token(&answer)).unwrap();
    assert_eq!(known["client_id"], CLIENT);
    assert_eq!(known["scope"], "https://management.azure.com/.default");
    assert_eq!(
        answer.json()["expires_in"],
        4_242,
        "Entra's own number, not the most that it may be"
    );
    let assertion = bench.clouds.seen("/token")[0]["client_assertion"].as_str().unwrap().to_owned();
    let (header, claims) = parts(&assertion);
    assert_eq!((&header["alg"], &header["typ"]), (&json!("RS256"), &json!("JWT")));
    assert_eq!(claims["sub"], SUBJECT, "who it is for stands in the ledger, not in the subject");
    assert_eq!(claims["aud"], "api://AzureADTokenExchange");
    assert_eq!((&claims["iat"], &claims["exp"]), (&json!(NOW - 30), &json!(NOW + 120)));
    assert_eq!(claims["exchange_id"], answer.json()["exchange_id"]);
    let granted = bench.broker.exchanges().await.remove(0);
    assert_eq!(granted.text("credential"), claims["jti"].as_str().unwrap());
    assert_eq!(bench.conclusions().await, ["minted"]);
}

#[tokio::test]
async fn an_application_that_does_not_trust_us_is_a_refusal_with_entras_code() {
    let bench = Bench::start().await;
    let answer = bench.ask("audience=azure/prod&scope=stranger").await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "5"));
    assert!(!answer.body.contains("AADSTS"), "causes stay inside");
    let lines = bench.broker.lines().await;
    let told: Vec<String> =
        lines.iter().filter_map(|line| line.facts.as_ref()?.detail.clone()).collect();
    assert!(told[0].contains("AADSTS700016"), "{told:?}");
    assert_eq!(bench.conclusions().await, ["void"]);
}

#[tokio::test]
async fn never_outlive_a_tenant_that_gives_longer_tokens_than_was_said_is_found_out() {
    let bench = Bench::start().await;
    bench.clouds.is(Mood::Generous);
    let answer = bench.ask("audience=azure/prod&scope=deploy").await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, ""));
    assert_eq!(bench.conclusions().await, ["unknown"]);
}

#[tokio::test]
async fn a_rule_can_not_choose_the_subject_of_an_application() {
    let bench = Bench::start().await;
    let rules = "
version: 1
rules:
  - id: clouds
    issuer: github
    when: { repository_id: \"1296269\", event_name: push }
    grants: [{ target: azure/prod, role: deploy, lifetime: 90m, subject: cambio:prod:stranger }]
";
    bench.broker.site.write("policies/clouds.yaml", rules);
    bench.broker.adopt(ORDERS_YAML).await;
    assert_eq!(bench.ask("audience=azure/prod").await.status, 503);
    assert_eq!(bench.clouds.asked(), 0);
}

#[tokio::test]
async fn doctor_tells_a_tenant_that_does_not_exist_from_one_that_does() {
    let bench = Bench::start().await;
    let found = bench.broker.examine("azure/prod").await;
    // The stand-in has no discovery document: 404, as a wrong tenant gives 400.
    assert_eq!(found[0].verdict, Verdict::Bad);
    assert!(found[0].detail.contains("see `tenant`"), "{found:?}");
    bench.clouds.is(Mood::Says(r#"{"issuer":"x"}"#));
    assert_eq!(bench.broker.examine("azure/prod").await[0].verdict, Verdict::Good);
}
