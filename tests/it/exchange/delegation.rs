//! Tokens of ours as subject tokens, and actors: only where somebody said so, and never for longer.

use std::{collections::BTreeSet, time::Duration};

use cambio::{
    config::{IssuerConfig, KeysFrom},
    subject::{Algorithm, provider::CAMBIO},
};
use serde_json::{Value, json};

use crate::support::{
    broker::{Broker, form, issued, parts},
    site::{ORDERS, OURS, Site},
    token::NOW,
};

const DELEGATIONS: &str = r#"
  - id: onward
    issuer: cambio
    when: { sub: "github:repository_id:1296269" }
    grants: [{ target: jwt/orders, role: read, lifetime: 15m }]
"#;

/// A broker that takes tokens of its own for `jwt/orders` as subject tokens. No configuration file can say so yet.
async fn delegating() -> Broker {
    let site = Site::new();
    let rules = format!("{}{DELEGATIONS}", crate::support::site::ORDERS_YAML);
    site.write("policies/orders.yaml", &rules);
    Broker::start_at(site, |config| {
        config.issuers.push(IssuerConfig {
            name: "cambio".into(),
            preset: &CAMBIO,
            issuer: OURS.parse().unwrap(),
            audience: ORDERS.to_owned(),
            keys: KeysFrom::Pinned { file: "not-read".into() },
            algorithms: BTreeSet::from([Algorithm::ES256]),
            leeway: Duration::from_secs(1),
            maximum_lifetime: Duration::from_hours(1),
            maximum_age: None,
            accepted_types: BTreeSet::from(["at+jwt".to_owned()]),
            token_review: None,
        });
    })
    .await
}

fn form_of(token: &str, kind: &str) -> String {
    form(token, "audience=jwt/orders&scope=read")
        .replace("token-type:jwt", &format!("token-type:{kind}"))
}

#[tokio::test]
async fn x06_a_token_of_ours_is_no_subject_token_unless_somebody_said_so() {
    let broker = Broker::start().await;
    let ours = issued(&broker.exchange(&broker.site.job().sign()).await);
    for kind in ["jwt", "access_token", "id_token"] {
        let answer = broker.post_token(&form_of(&ours, kind)).await;
        assert_eq!(answer.error().2, "the subject token was not accepted");
    }
    let broker = delegating().await;
    // Configured, but this workload is in no rule.
    let token = broker.site.gitlab_job().sign();
    let ours = issued(&broker.exchange(&token).await);
    let answer = broker.post_token(&form_of(&ours, "access_token")).await;
    assert_eq!(answer.error().2, "no trust policy permits this exchange");
}

#[tokio::test]
async fn x06_a_chain_of_exchanges_never_gains_a_second() {
    let broker = delegating().await;
    let mut token = issued(&broker.exchange(&broker.site.job().sign()).await);
    let end = parts(&token).1["exp"].as_u64().unwrap();
    assert_eq!(end, NOW + 300);
    for step in 1..5 {
        broker.pass(60);
        let answer = broker.post_token(&form_of(&token, "access_token")).await;
        if step == 1 {
            // A second link: what we named it must be named again by a rule.
            let claims = parts(&issued(&answer)).1;
            assert_eq!(claims["sub"], "cambio:sub:github:repository_id:1296269");
            assert_eq!(claims["client_id"], "orders/onward");
        }
        if answer.status != 200 {
            assert_eq!(answer.error().2, "no trust policy permits this exchange");
            assert_eq!(step, 2, "the second link is in no rule");
            return;
        }
        token = issued(&answer);
        assert!(parts(&token).1["exp"].as_u64().unwrap() <= end, "link {step}");
    }
    panic!("a chain without end");
}

#[tokio::test]
async fn x06_a_token_of_ours_is_spent_like_any_other() {
    let broker = delegating().await;
    let ours = issued(&broker.exchange(&broker.site.job().sign()).await);
    assert_eq!(broker.post_token(&form_of(&ours, "access_token")).await.status, 200);
    let again = broker.post_token(&form_of(&ours, "access_token")).await;
    assert_eq!(again.error().2, "the subject token was already used for this");
}

#[tokio::test]
async fn x08_a_token_of_ours_is_no_id_token() {
    let broker = delegating().await;
    let ours = issued(&broker.exchange(&broker.site.job().sign()).await);
    let answer = broker.post_token(&form_of(&ours, "id_token")).await;
    assert_eq!((answer.status.as_u16(), answer.error().1.as_str()), (400, "invalid_request"));
    assert_eq!(broker.post_token(&form_of(&ours, "access_token")).await.status, 200);
}

/// Exchanges a job's token with `may_act` and `act` as they are given, beside a GitLab job as actor.
async fn with_actor(
    broker: &Broker,
    more: Value,
    actor: Option<&str>,
) -> crate::edge::surface::Answered {
    let token = broker.site.job().claims(more).sign();
    let actor = actor.map_or_else(String::new, |actor| {
        format!("&actor_token={actor}&actor_token_type=urn:ietf:params:oauth:token-type:jwt")
    });
    broker.ask(&token, &format!("scope=read{actor}")).await
}

#[tokio::test]
async fn x07_an_actor_acts_only_where_the_subject_token_names_it() {
    let broker = Broker::start().await;
    let gitlab = broker.site.gitlab_job().sign();
    let sub = "project_path:acme/orders:ref_type:branch:ref:main";
    let named = json!({ "iss": "https://gitlab.com", "sub": sub });
    let refused = "the actor may not act for this subject";
    for (case, may_act, actor) in [
        ("nobody is named", json!({}), Some(&gitlab)),
        ("the named one is absent", json!({ "may_act": named }), None),
        ("somebody else", json!({ "may_act": { "sub": "somebody" } }), Some(&gitlab)),
        (
            "of another issuer",
            json!({ "may_act": { "iss": "https://cluster.example", "sub": sub } }),
            Some(&gitlab),
        ),
        ("without a name", json!({ "may_act": { "iss": "https://gitlab.com" } }), Some(&gitlab)),
        ("nothing at all", json!({ "may_act": {} }), Some(&gitlab)),
        ("a bare name", json!({ "may_act": sub }), Some(&gitlab)),
        ("a list", json!({ "may_act": [named] }), Some(&gitlab)),
        ("null", json!({ "may_act": null }), Some(&gitlab)),
        ("a claim it lacks", json!({ "may_act": { "sub": sub, "admin": true } }), Some(&gitlab)),
    ] {
        let answer = with_actor(&broker, may_act, actor.map(String::as_str)).await;
        assert_eq!(answer.error().2, refused, "{case}");
    }
    let answer = with_actor(&broker, json!({ "may_act": named }), Some(&gitlab)).await;
    let claims = parts(&issued(&answer)).1;
    assert_eq!(claims["act"], json!({ "sub": "gitlab:project_id:20" }));
    assert_eq!(claims["sub"], "github:repository_id:1296269");
    let entry = broker.exchanges().await.pop().unwrap();
    assert_eq!(entry.facts.unwrap().actor.unwrap()["project_id"], "20");
}

#[tokio::test]
async fn x07_subject_and_actor_can_not_be_swapped_and_a_bad_actor_is_none() {
    let broker = Broker::start().await;
    let actor = broker.site.gitlab_job();
    let sub = "project_path:acme/orders:ref_type:branch:ref:main";
    let subject = broker.site.job().claim("may_act", json!({ "sub": sub }));
    let kind = "urn:ietf:params:oauth:token-type:jwt";
    let ask = async |subject: &str, actor: &str| {
        let more = format!("scope=read&actor_token={actor}&actor_token_type={kind}");
        broker.ask(subject, &more).await.error().2
    };
    assert_eq!(ask(&actor.sign(), &subject.sign()).await, "the actor may not act for this subject");
    let words = "the actor token was not accepted";
    let late = actor.clone().issued_at(NOW - 900, 300).sign();
    assert_eq!(ask(&subject.sign(), &late).await, words);
    let elsewhere = actor.clone().audience("https://elsewhere.example").sign();
    assert_eq!(ask(&subject.sign(), &elsewhere).await, words);
    assert_eq!(ask(&subject.sign(), "a.b.c").await, words);
    // RFC 8693 section 2.1: both or neither.
    let lonely = broker.ask(&subject.sign(), &format!("scope=read&actor_token_type={kind}")).await;
    assert_eq!(lonely.error().1, "invalid_request");
}

#[tokio::test]
async fn x07_a_chain_keeps_its_links_and_names_only() {
    let broker = Broker::start().await;
    let hostile = json!({ "act": {
        "sub": "first", "exp": 1, "aud": "https://elsewhere.example", "scope": "admin",
        "act": { "iss": "https://elsewhere.example", "sub": "second", "admin": true },
    } });
    let claims = parts(&issued(&with_actor(&broker, hostile, None).await)).1;
    assert_eq!(
        claims["act"],
        json!({
            "iss": "https://token.actions.githubusercontent.com", "sub": "first",
            "act": { "iss": "https://elsewhere.example", "sub": "second" },
        })
    );
}

#[tokio::test]
async fn x06_a_chain_is_at_most_three_deep_and_has_no_circle() {
    let broker = Broker::start().await;
    let chain = |names: &[&str]| {
        names.iter().rev().fold(Value::Null, |inner, name| match inner {
            Value::Null => json!({ "sub": name }),
            inner => json!({ "sub": name, "act": inner }),
        })
    };
    let three = with_actor(&broker, json!({ "act": chain(&["a", "b", "c"]) }), None).await;
    assert_eq!(three.status, 200);
    let gitlab = broker.site.gitlab_job().sign();
    let sub = "project_path:acme/orders:ref_type:branch:ref:main";
    let mut refusals = Vec::new();
    for (act, actor) in [
        (chain(&["a", "b", "c", "d"]), None),
        (chain(&["a", "b", "a"]), None),
        (json!({ "sub": "a", "act": { "iss": "x" } }), None),
        (json!("a"), None),
        (chain(&["a", "b", "c"]), Some(gitlab.as_str())),
    ] {
        let mut more = json!({ "act": act });
        if actor.is_some() {
            more["may_act"] = json!({ "sub": sub });
        }
        let answer = with_actor(&broker, more, actor).await;
        assert_eq!(answer.status.as_u16(), 400, "{act}: {}", answer.body);
        refusals.push(answer.error().2);
    }
    refusals.dedup();
    assert_eq!(refusals, ["the actor may not act for this subject"]);
}
