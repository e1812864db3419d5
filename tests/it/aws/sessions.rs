//! A session, from the workload's token to what AWS saw of it.

use cambio::{config::Config, ledger::entry::Kind, subject::issuers::IssuerUrl};
use serde_json::{Value, json};

use super::stand_in::{DEPLOY, STRANGERS, Seen, StandIn};
use crate::{
    edge::surface::Answered,
    support::{
        broker::form,
        serving::{Serving, serve_dev},
        site::Site,
    },
};

/// Our issuer URL where the stand-in may use plain http.
const OURS: &str = "http://127.0.0.1:1";
pub(super) const TYPE: &str = "urn:cambio:token-type:aws";

const TARGET: &str = r#"
  - name: aws/prod
    kind: aws
    region: eu-central-1
    endpoint: ENDPOINT
    environment: test
    granted_by: [orders.yaml]
    ceiling: 2h
    roles:
      deploy:
        role_arn: arn:aws:iam::123456789012:role/deploy
        duration: 1h
        tags: { repository: repository_id, run: run_id, branch: ref, rule: cambio.rule }
        transitive_tags: [repository]
        source_identity: run_id
        session_name: [repository, run_id, cambio.rule]
      narrow:
        role_arn: arn:aws:iam::123456789012:role/narrow
        session_policy: |
          { "Version": "2012-10-17",
            "Statement": [{ "Effect": "Allow", "Action": "s3:GetObject", "Resource": "*" }] }
      strangers: { role_arn: 'arn:aws:iam::123456789012:role/strangers' }
      pod: { role_arn: 'arn:aws:iam::123456789012:role/pod' }
"#;
const RULES: &str = r#"
  - id: release
    issuer: github
    when: { repository_id: "1296269", event_name: push }
    grants:
      - { target: aws/prod, role: deploy, lifetime: 15m }
      - { target: aws/prod, role: narrow, lifetime: 15m }
      - { target: aws/prod, role: strangers, lifetime: 15m }
  - id: pods
    issuer: cluster
    when: { namespace: shop, service_account: worker }
    grants: [{ target: aws/prod, role: pod, lifetime: 2h }]
"#;

/// A broker whose target `aws/prod` is at `sts`, which trusts it.
pub(super) async fn broker(sts: &StandIn) -> Serving {
    changed(sts, |_| {}).await
}

pub(super) async fn changed(sts: &StandIn, change: impl FnOnce(&mut Config)) -> Serving {
    let site = Site::new();
    let target = TARGET.replace("ENDPOINT", &sts.url).replace("role/pod", "role/deploy-pod");
    site.edit(
        "cambio.yaml",
        "policies: { directory",
        &format!("{}policies: {{ directory", target.trim_start_matches('\n')),
    );
    let rules = crate::support::site::ORDERS_YAML.to_owned() + RULES.trim_start_matches('\n');
    site.write("policies/orders.yaml", &rules);
    let serving = serve_dev(site, |config| {
        config.issuer = IssuerUrl::dangerously_loopback(OURS).unwrap();
        change(config);
    })
    .await;
    sts.trusts(OURS, serving.public("/jwks").await.json());
    serving
}

pub(super) async fn ask(broker: &Serving, role: &str) -> Answered {
    let token = broker.job().sign();
    broker.post_token(&form(&token, &format!("audience=aws/prod&scope={role}"))).await
}

fn only(sts: &StandIn) -> Seen {
    let granted = sts.granted();
    assert_eq!(granted.len(), 1);
    granted[0].clone()
}

#[tokio::test]
async fn a_job_gets_a_session_whose_name_tags_and_source_identity_tell_run_repository_and_rule() {
    let sts = StandIn::start().await;
    let broker = broker(&sts).await;
    let answer = ask(&broker, "deploy").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let body = answer.json();
    assert_eq!(body["issued_token_type"], TYPE);
    assert_eq!(body["token_type"], "N_A");
    let credential: Value = serde_json::from_str(body["access_token"].as_str().unwrap()).unwrap();
    assert_eq!(credential, body["credential"]);
    let seen = only(&sts);
    let name = seen.form["RoleSessionName"].clone();
    assert_eq!(
        credential,
        json!({
            "kind": "aws", "access_key_id": "ASIAIOSFODNN7EXAMPLE", "secret_access_key": "wJalrXUtnFEMI",
            "session_token": "AQoDYXdzEE0a8ANXXXXXXXX/+=", "region": "eu-central-1",
            "expires_at": credential["expires_at"], "packed_policy_size": 6,
            "assumed_role_arn": format!("arn:aws:sts::123456789012:assumed-role/deploy/{name}"),
            "assumed_role_id": format!("AROACLKWSDQRAOEXAMPLE:{name}"),
        })
    );
    assert!(name.starts_with("acme-site-20000000001-orders-release-"), "{name}");
    assert_eq!(seen.form["RoleArn"], DEPLOY);
    assert_eq!(seen.form["DurationSeconds"], "900");
    let claims = &seen.claims;
    assert_eq!(claims["sub"], "github:repository_id:1296269");
    assert_eq!(claims["client_id"], "orders/release");
    assert_eq!(
        claims["https://aws.amazon.com/tags"],
        json!({
            "principal_tags": {
                "branch": ["refs/heads/main"], "repository": ["1296269"],
                "rule": ["orders/release"], "run": ["20000000001"],
            },
            "transitive_tag_keys": ["repository"],
        })
    );
    let source = claims["https://aws.amazon.com/source_identity"].as_str().unwrap();
    assert!(source.starts_with("20000000001-"), "{source}");
    // INVARIANT(no-answer-without-entry): what was signed for AWS, and how it ended, stand in the ledger.
    let lines = broker.lines();
    let granted = lines.iter().find(|line| line.kind == Kind::Granted).unwrap();
    assert_eq!(granted.text("credential"), name);
    let concluded = lines.iter().find(|line| line.kind == Kind::Concluded).unwrap();
    assert_eq!(concluded.text("outcome"), "minted");
    drop(broker.drain().await);
}

#[tokio::test]
async fn the_end_that_aws_tells_is_the_end_that_the_caller_is_told() {
    let sts = StandIn::start().await;
    let broker = broker(&sts).await;
    let now = Serving::now();
    let body = ask(&broker, "deploy").await.json();
    let seconds = body["expires_in"].as_u64().unwrap();
    assert!((890..=901).contains(&seconds), "{seconds}");
    let told = body["credential"]["expires_at"].as_str().unwrap().to_owned();
    let granted =
        (0..30).map(|later| cambio::clock::Instant::from_seconds(now + 900 + later).to_string());
    assert!(granted.into_iter().any(|end| end == told), "{told}");
    drop(broker.drain().await);
}

#[tokio::test]
async fn never_outlive_a_session_that_ends_later_than_was_granted_does_not_leave() {
    let sts = StandIn::start().await;
    let broker = broker(&sts).await;
    sts.behaves(super::stand_in::Manner::Generous);
    let answer = ask(&broker, "deploy").await;
    assert_eq!(answer.error().0, 503);
    assert!(!answer.body.contains("ASIA"), "{}", answer.body);
    let lines = broker.lines();
    let concluded = lines.iter().find(|line| line.kind == Kind::Concluded).unwrap();
    assert_eq!(concluded.text("outcome"), "unknown");
    drop(broker.drain().await);
}

#[tokio::test]
async fn a_session_below_the_floor_of_aws_is_refused_and_not_stretched() {
    let sts = StandIn::start().await;
    let broker = broker(&sts).await;
    let wants = "audience=aws/prod&scope=deploy&requested_lifetime=899";
    let answer = broker.post_token(&form(&broker.job().sign(), wants)).await;
    let refused = (
        400,
        "invalid_request".to_owned(),
        "no lifetime is left that the target can keep".to_owned(),
    );
    assert_eq!(answer.error(), refused);
    assert_eq!(sts.asked(), 0);
    drop(broker.drain().await);
}

#[tokio::test]
async fn what_aws_refuses_is_void_and_leaves_the_token_unspent() {
    let sts = StandIn::start().await;
    let broker = broker(&sts).await;
    let token = broker.job().sign();
    let wants = |role: &str| form(&token, &format!("audience=aws/prod&scope={role}"));
    for _ in 0..2 {
        let answer = broker.post_token(&wants("strangers")).await;
        let words = "the target did not issue a credential".to_owned();
        assert_eq!(answer.error(), (503, "temporarily_unavailable".to_owned(), words));
        assert_eq!(answer.header("retry-after"), "5");
        assert!(!answer.body.contains(STRANGERS));
    }
    let lines = broker.lines();
    let outcomes: Vec<&str> = lines
        .iter()
        .filter(|line| line.kind == Kind::Concluded)
        .map(|line| line.text("outcome"))
        .collect();
    assert_eq!(outcomes, ["void", "void"]);
    drop(broker.drain().await);
}

#[tokio::test]
async fn a_token_without_the_claim_of_a_tag_gets_no_session_and_aws_is_not_asked() {
    let sts = StandIn::start().await;
    let broker = broker(&sts).await;
    let token = broker.job().without("run_id").sign();
    let answer = broker.post_token(&form(&token, "audience=aws/prod&scope=deploy")).await;
    let words = "the token lacks a claim that the target needs".to_owned();
    assert_eq!(answer.error(), (400, "invalid_request".to_owned(), words));
    assert_eq!(sts.asked(), 0);
    drop(broker.drain().await);
}

#[tokio::test]
async fn another_token_type_than_what_the_target_makes_is_refused() {
    let sts = StandIn::start().await;
    let broker = broker(&sts).await;
    let wants =
        "audience=aws/prod&scope=deploy&requested_token_type=urn:ietf:params:oauth:token-type:jwt";
    let answer = broker.post_token(&form(&broker.job().sign(), wants)).await;
    assert_eq!(answer.error().1, "invalid_request");
    let wants = format!("resource={DEPLOY}&requested_token_type={TYPE}");
    let answer = broker.post_token(&form(&broker.job().sign(), &wants)).await;
    assert_eq!(answer.status, 200, "the ARN names target and role: {}", answer.body);
    drop(broker.drain().await);
}
