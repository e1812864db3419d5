//! Google: by `POST /token`, and by Google's own front.

use cambio::ledger::entry::Kind;
use serde_json::json;

use super::{
    bench::{Bench, token},
    stand_in::{ACCOUNT, Mood},
};
use crate::support::{
    broker::{form, parts},
    token::NOW,
};

const PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";

#[tokio::test]
async fn a_job_acts_as_the_service_account_of_its_role_for_as_long_as_its_rule_says() {
    let bench = Bench::start().await;
    let answer = bench.ask("audience=google/prod&scope=deploy").await;
    let issued = token(&answer);
    let known = bench.clouds.knows(&issued).unwrap();
    assert_eq!(known["account"], ACCOUNT);
    assert_eq!(known["sub"], "github:repository_id:1296269");
    let body = answer.json();
    assert_eq!(
        (&body["token_type"], &body["expires_in"], &body["scope"]),
        (&json!("Bearer"), &json!(900), &json!("deploy"))
    );
    assert_eq!(body["issued_token_type"], "urn:ietf:params:oauth:token-type:access_token");
    assert_eq!(bench.clouds.seen(":generateAccessToken")[0]["lifetime"], "900s");
    // What Google's log can show: run by rule, role and exchange.
    let assertion = bench.clouds.seen("/v1/token")[0]["subject_token"].as_str().unwrap().to_owned();
    let claims = parts(&assertion).1;
    assert_eq!(claims["client_id"], "clouds/clouds");
    assert_eq!((&claims["role"], &claims["exchange_id"]), (&json!("deploy"), &body["exchange_id"]));
    assert_eq!((&claims["iat"], &claims["exp"]), (&json!(NOW - 30), &json!(NOW + 120)));
    // The ledger: the grant names the assertion byte for byte, and is concluded.
    let granted = bench.broker.exchanges().await.remove(0);
    assert_eq!(
        (granted.kind, granted.text("credential")),
        (Kind::Granted, claims["jti"].as_str().unwrap())
    );
    assert_eq!(granted.text("kid"), parts(&assertion).0["kid"]);
    assert_eq!(bench.conclusions().await, ["minted"]);
}

#[tokio::test]
async fn honest_expiry_what_is_told_is_what_google_said_and_never_later_than_what_was_recorded() {
    let bench = Bench::start().await;
    let direct = bench.ask("audience=google/direct").await;
    assert_eq!(direct.json()["expires_in"], 3_599, "the federated token's own");
    let less = bench.ask("audience=google/prod&scope=deploy&requested_lifetime=60").await;
    assert_eq!(less.json()["expires_in"], 60);
    let shorter = bench.ask("audience=google/direct&requested_lifetime=60").await;
    assert_eq!(shorter.status, 400, "a federated token can't be shortened: {}", shorter.body);
    assert_eq!(bench.clouds.seen("/v1/token").len(), 2, "and nobody was asked for one");
}

#[tokio::test]
async fn never_outlive_a_token_that_lives_longer_than_was_granted_is_withheld_and_stays_unknown() {
    let bench = Bench::start().await;
    bench.clouds.is(Mood::Generous);
    let answer = bench.ask("audience=google/prod&scope=deploy").await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert_eq!(answer.header("retry-after"), "", "something exists: the token stays spent");
    assert!(!answer.body.contains("ya29"));
    assert_eq!(bench.conclusions().await, ["unknown"]);
}

#[tokio::test]
async fn a_caller_may_ask_for_some_of_the_roles_scopes_and_for_no_others() {
    let bench = Bench::start().await;
    let read = "https://www.googleapis.com/auth/devstorage.read_only";
    let answer = bench.ask(&format!("audience=google/prod&scope=deploy+{read}")).await;
    assert_eq!(bench.clouds.knows(&token(&answer)).unwrap()["scope"], json!([read]));
    let all = bench.ask("audience=google/prod&scope=deploy").await;
    assert_eq!(bench.clouds.knows(&token(&all)).unwrap()["scope"], json!([PLATFORM, read]));
    let more = "https://www.googleapis.com/auth/drive";
    let refused = bench.ask(&format!("audience=google/prod&scope=deploy+{more}")).await;
    assert_eq!((refused.status.as_u16(), refused.error().1.as_str()), (400, "invalid_scope"));
}

#[tokio::test]
async fn a_refusal_of_google_is_told_as_503_gives_the_token_back_and_explains_itself() {
    let bench = Bench::start().await;
    let job = bench.job();
    let denied = bench.broker.post_token(&form(&job, "audience=google/prod&scope=audit")).await;
    assert_eq!((denied.status.as_u16(), denied.header("retry-after")), (503, "5"));
    assert_eq!(bench.conclusions().await, ["void"]);
    let lines = bench.broker.lines().await;
    let facts = lines.iter().filter_map(|line| line.facts.as_ref()?.detail.clone());
    let told: Vec<String> = facts.collect();
    assert!(
        told[0].contains("403: PERMISSION_DENIED: Permission 'iam.serviceAccounts"),
        "{told:?}"
    );
    // Void: the same token buys the other role, and the same one again.
    let again = bench.broker.post_token(&form(&job, "audience=google/prod&scope=audit")).await;
    assert_eq!(again.status, 503, "not `already used`");
}

#[tokio::test]
async fn h11_a_long_subject_reaches_google_in_127_bytes_and_two_never_share_one() {
    let bench = Bench::start().await;
    let long = |tail: &str| format!("{}{tail}", "s".repeat(200));
    let mut subjects = Vec::new();
    for tail in ["a", "b"] {
        let rules = format!(
            "\nversion: 1\nrules:\n  - id: clouds\n    issuer: github\n    when: {{ repository_id: \"1296269\", event_name: push }}\n    grants: [{{ target: google/direct, role: read, lifetime: 1h, subject: {} }}]\n",
            long(tail)
        );
        bench.broker.site.write("policies/clouds.yaml", &rules);
        bench.broker.adopt(crate::support::site::ORDERS_YAML).await;
        let issued = token(&bench.ask("audience=google/direct").await);
        subjects.push(bench.clouds.knows(&issued).unwrap()["sub"].as_str().unwrap().to_owned());
    }
    assert!(subjects.iter().all(|subject| subject.len() == 127), "{subjects:?}");
    assert_ne!(subjects[0], subjects[1]);
}

#[tokio::test]
async fn googles_front_takes_what_google_auth_sends() {
    let bench = Bench::start().await;
    let body = form(
        &bench.job(),
        "audience=google/prod%23deploy&requested_token_type=urn:ietf:params:oauth:token-type:access_token",
    ) + &format!("&scope={PLATFORM}");
    // A token's file ends in a newline, and the libraries send it along.
    let body = body.replace("&subject_token_type", "%0A&subject_token_type");
    let answer = bench.google_form(body).await;
    assert_eq!(bench.clouds.knows(&token(&answer)).unwrap()["scope"], json!([PLATFORM]));
    let asked = json!({
        "grantType": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subjectToken": bench.job(),
        "subjectTokenType": "urn:ietf:params:oauth:token-type:jwt",
        "audience": "google/prod#deploy",
        "scope": PLATFORM,
    });
    let answer = bench.google(asked.to_string(), "application/json").await;
    assert_eq!(answer.json()["expires_in"], 900, "{}", answer.body);
}

#[tokio::test]
async fn googles_front_refuses_in_googles_words_and_drops_nothing() {
    let bench = Bench::start().await;
    let job = bench.job();
    let ask = async |more: &str| bench.google_form(form(&job, more)).await.error();
    let denied = ask("audience=google/prod%23nothing").await;
    assert_eq!((denied.0, denied.1.as_str()), (400, "invalid_scope"));
    let (status, code, words) = ask("audience=google/prod%23deploy&options=%7B%7D").await;
    assert_eq!((status, code.as_str()), (400, "invalid_request"));
    assert!(words.contains("can't be honoured") || words.contains("honoured"), "{words}");
    assert_eq!(ask("scope=deploy").await.1, "invalid_request", "no audience");
    let bad = bench.google_form(form("a.b.c", "audience=google/prod%23deploy")).await.error();
    assert_eq!((bad.0, bad.1.as_str()), (400, "invalid_grant"));
    for twice in [
        r#"{"audience":"a","audience":"b"}"#,
        r#"{"audience":["a"]}"#,
        r#"{"audience":"a","unknown":"b"}"#,
        "[]",
    ] {
        let answer = bench.google(twice.to_owned(), "application/json").await;
        assert_eq!(answer.error().1, "invalid_request", "{twice}");
    }
    assert_eq!(bench.google("a=b".to_owned(), "text/plain").await.status, 415);
    assert_eq!(bench.clouds.asked(), 0);
}

#[tokio::test]
async fn only_members_that_google_takes_are_published() {
    let bench = Bench::start().await;
    let set = bench.broker.read("/jwks").await.json();
    let keys = set["keys"].as_array().unwrap();
    assert!(keys.len() >= 2, "ES256 and RS256");
    for key in keys {
        for member in key.as_object().unwrap().keys() {
            let taken = ["kty", "alg", "use", "kid", "n", "e", "x", "y", "crv"];
            assert!(taken.contains(&member.as_str()), "{member}");
        }
    }
}
