//! What operators do to a running broker, and what they are told: over the powers behind the admin socket.

use cambio::{
    app::{Existing, restore::restore_keys},
    edge::{
        Power, PowerError,
        admin::{About, BlockRequest, ExplainRequest},
        admin_client::call,
    },
    ledger::Operator,
};
use serde_json::{Value, json};

use crate::{
    edge::surface::Answered,
    support::{
        broker::{bytes_below, form, issued, parts},
        serving::{Serving, serve, serve_existing, try_serve},
        site::Site,
    },
};

async fn explain(serving: &Serving, answer: &Answered) -> Value {
    let about = About::Exchange(answer.json()["exchange_id"].as_str().unwrap().to_owned());
    let request = ExplainRequest { about, audience: Vec::new(), scope: Vec::new() };
    serving.power(Power::Explain(request)).await.unwrap()
}

#[tokio::test]
async fn a09_every_exchange_is_explained_by_its_name() {
    let serving = serve(Site::new()).await;
    let token = serving.job().sign();
    let permit = explain(&serving, &serving.exchange(&token).await).await;
    let text = permit["text"].as_str().unwrap();
    assert!(text.starts_with("permit: ") && text.contains("orders/check"), "{text}");
    assert_eq!(permit["recorded"]["kind"], "granted");

    let spent = explain(&serving, &serving.exchange(&token).await).await;
    let text = spent["text"].as_str().unwrap();
    assert!(text.starts_with("refused as `already_spent`: "), "{text}");

    let nightly = serving.job().claim("event_name", "schedule").sign();
    let denial = explain(&serving, &serving.exchange(&nightly).await).await;
    let text = denial["text"].as_str().unwrap();
    assert!(text.starts_with("refused as `conditions`: denied: "), "{text}");
    assert!(text.contains("event_name") && text.contains("schedule"), "the near miss: {text}");

    let fork = serving.job().claim("repository_id", "666").sign();
    let stranger = explain(&serving, &serving.exchange(&fork).await).await;
    assert_eq!(stranger["reason"], "no_rule");
    let garbage = explain(&serving, &serving.exchange("a.b.c").await).await;
    assert_eq!(garbage["reason"], "malformed_token");

    let about = About::Exchange("ex_00000000000000000000000000000000".to_owned());
    let request = ExplainRequest { about, audience: Vec::new(), scope: Vec::new() };
    let unknown = serving.power(Power::Explain(request)).await;
    assert!(matches!(unknown, Err(PowerError::NotFound(_))), "{unknown:?}");
    serving.drain().await;
}

/// What policy permits and the target does not give is explained by how it ended, with the target's words.
#[tokio::test]
async fn an_exchange_that_its_target_failed_is_not_explained_as_permitted_alone() {
    let site = Site::new();
    // Nobody listens there: the port was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let target = format!(
        "targets:\n  - name: redis/orders\n    kind: redis\n    environment: test\n    host: 127.0.0.1\n    port: {port}\n    \
         tls: dangerously_plain\n    user: cambio\n    password_file: password\n    ends: by_broker\n    \
         roles: {{ read: {{ read_keys: [a], commands: [+get] }} }}\n    granted_by: [cache.yaml]\n"
    );
    site.write("password", "hush");
    site.edit("cambio.yaml", "targets:\n", &target);
    let rule = "version: 1\nrules:\n  - id: cache\n    issuer: github\n    when: { repository_id: \"1296269\", event_name: push }\n    \
                grants: [{ target: redis/orders, role: read, lifetime: 5m }]\n";
    site.write("policies/cache.yaml", rule);
    let serving = serve(site).await;
    let answer = serving.post_token(&form(&serving.job().sign(), "audience=redis/orders")).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    let told = explain(&serving, &answer).await;
    let text = told["text"].as_str().unwrap();
    assert!(text.starts_with("refused as `mint`: target `redis/orders`: "), "{text}");
    assert!(text.contains("Connection refused") && text.contains("permit: "), "{text}");
    assert_eq!(told["recorded"]["kind"], "refused");
    serving.drain().await;
}

/// A recorded exchange is explained under the set that decided it, not under today's.
#[tokio::test]
async fn a_past_decision_is_explained_by_the_policies_of_then() {
    let serving = serve(Site::new()).await;
    let granted = serving.exchange(&serving.job().sign()).await;
    serving.site.write("policies/orders.yaml", "version: 1\nrules: []\n");
    serving.running.reload().await.unwrap();
    let text = explain(&serving, &granted).await["text"].as_str().unwrap().to_owned();
    assert!(text.starts_with("permit: "), "{text}");
    serving.drain().await;
}

#[tokio::test]
async fn a_block_stops_the_next_commit_is_recorded_and_can_be_lifted() {
    let serving = serve(Site::new()).await;
    let claims = [("run_id".to_owned(), json!("20000000001"))].into();
    let token = serving.job().sign();
    for request in [
        BlockRequest { claims, ..BlockRequest::default() },
        BlockRequest { issuer: Some("github".to_owned()), ..BlockRequest::default() },
        BlockRequest { rule: Some("orders/check".to_owned()), ..BlockRequest::default() },
    ] {
        let set = serving.power(Power::SetBlock(request.clone())).await.unwrap();
        let id = set["id"].as_str().unwrap().to_owned();
        let answer = serving.exchange(&token).await;
        assert_eq!(answer.error().2, "no trust policy permits this exchange", "{request:?}");
        let text = explain(&serving, &answer).await["text"].as_str().unwrap().to_owned();
        assert!(text.starts_with("refused as `blocked`: "), "{text}");
        let other = serving.site.gitlab_job().issued_at(Serving::now(), 300).sign();
        assert_eq!(serving.exchange(&other).await.status, 200, "others go on: {request:?}");
        serving.power(Power::LiftBlock { id: id.clone() }).await.unwrap();
        let again = serving.power(Power::LiftBlock { id }).await;
        assert!(matches!(again, Err(PowerError::NotFound(_))), "{again:?}");
    }
    assert_eq!(serving.exchange(&token).await.status, 200, "a blocked attempt burns no token");
    let lines = serving.lines();
    let steps: Vec<_> = lines
        .iter()
        .map(|line| line.text("step"))
        .filter(|step| ["set", "lifted"].contains(step))
        .collect();
    assert_eq!(steps, ["set", "lifted", "set", "lifted", "set", "lifted"]);
    let refused = lines.iter().filter(|line| line.text("reason") == "blocked").count();
    assert_eq!(refused, 3);
    serving.drain().await;
}

/// A typo in an incident must not look like a block that holds.
#[tokio::test]
async fn a_block_that_could_never_apply_or_would_hit_everybody_is_refused() {
    let serving = serve(Site::new()).await;
    let claim = |name: &str| BlockRequest {
        claims: [(name.to_owned(), json!("17"))].into(),
        ..BlockRequest::default()
    };
    for (request, said) in [
        (BlockRequest::default(), "found nothing to block, expected `issuer`, `rule` or `claims`"),
        (BlockRequest { until: Some(1), ..claim("run_id") }, "`until` is over already"),
        (
            BlockRequest { issuer: Some("gihub".to_owned()), ..BlockRequest::default() },
            "no issuer `gihub` is configured",
        ),
        (
            BlockRequest { rule: Some("orders/chek".to_owned()), ..BlockRequest::default() },
            "no rule `orders/chek` is in force",
        ),
        (
            claim("runid"),
            "claim `runid` is not one that a configured issuer is known to send; if it is right, write `/runid`",
        ),
    ] {
        let refused = serving.power(Power::SetBlock(request)).await;
        assert_eq!(refused, Err(PowerError::BadRequest(said.to_owned())));
    }
    for fine in ["run_id", "sub", "/runid", "namespace"] {
        serving.power(Power::SetBlock(claim(fine))).await.unwrap();
    }
    assert_eq!(serving.exchange(&serving.job().sign()).await.status, 200);
    serving.drain().await;
}

#[tokio::test]
async fn k06_a_key_is_withdrawn_over_the_socket_while_the_broker_issues() {
    let serving = serve(Site::new()).await;
    let token = issued(&serving.exchange(&serving.job().sign()).await);
    let kid = parts(&token).0["kid"].as_str().unwrap().to_owned();
    let arguments = json!({ "kid": kid, "force": true, "reason": "INC-7" });
    let socket = serving.running.admin_socket();
    let withdraw = call(&socket, "keys/withdraw", arguments.as_object().unwrap().clone());
    let job = serving.job().sign();
    let (done, _) = tokio::join!(withdraw, serving.exchange(&job));
    let done = done.unwrap();
    assert!(
        done["signed"]
            .as_array()
            .unwrap()
            .iter()
            .any(|it| it["credential"] == parts(&token).1["jti"])
    );
    assert!(!serving.public("/jwks").await.body.contains(&kid));
    let next = issued(&serving.exchange(&serving.job().sign()).await);
    assert_eq!(parts(&next).0["kid"], done["successor"]);
    let lines = serving.lines();
    let admin = lines.iter().find(|line| line.text("action") == format!("withdraw key {kid}"));
    assert_eq!(admin.unwrap().event["reason"], "INC-7");
    serving.drain().await;
}

#[tokio::test]
async fn a08_a_passphrase_and_a_token_to_explain_stay_out_of_the_books() {
    let serving = serve(Site::new()).await;
    let passphrase = "CANARY-correct-horse-battery";
    let export = Power::ExportKeys { passphrase: passphrase.to_owned().into() };
    let exported = serving.power(export).await.unwrap();
    assert_eq!(exported["jwe"].as_str().unwrap().split('.').count(), 5);
    let token = serving.job().sign();
    let about = About::Token(token.clone().into());
    let request = ExplainRequest {
        about,
        audience: vec!["jwt/orders".to_owned()],
        scope: vec!["read".to_owned()],
    };
    let told = serving.power(Power::Explain(request)).await.unwrap();
    assert!(told["text"].as_str().unwrap().starts_with("permit: "), "{told}");
    assert_eq!(serving.exchange(&token).await.status, 200, "explaining does not spend");
    let signature = token.rsplit_once('.').unwrap().1.to_owned();
    let site = serving.drain().await;
    for (path, bytes) in bytes_below(&site.path("data")) {
        let text = String::from_utf8_lossy(&bytes);
        for needle in [passphrase, &signature, exported["jwe"].as_str().unwrap()] {
            assert!(!text.contains(needle), "{} holds {needle}", path.display());
        }
    }
}

#[tokio::test]
async fn k07_an_export_comes_back_under_a_new_kek_once_and_no_older_one_does() {
    let serving = serve(Site::new()).await;
    let passphrase = "correct horse battery".to_owned().into();
    let exported = serving.power(Power::ExportKeys { passphrase }).await.unwrap();
    let exported = exported["jwe"].as_str().unwrap().to_owned();
    let kid = parts(&issued(&serving.exchange(&serving.job().sign()).await)).0["kid"].clone();
    let config = serving.site.config();
    let restore = async |passphrase: &str| {
        let by = Operator { who: "uid:0".to_owned(), reason: "a new KEK".to_owned() };
        restore_keys(&config, &exported, passphrase.to_owned().into(), by).await
    };
    let told = restore("correct horse battery").await.unwrap_err().to_string();
    assert!(told.contains("another process"), "{told}");
    let site = serving.drain().await;
    site.write("kek", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    assert!(try_serve(&site, Existing::Required).await.is_err(), "the old KEK is lost");
    assert!(restore("another passphrase").await.is_err());
    restore("correct horse battery").await.unwrap();
    // Epochs went on: what was exported before may hold a key that was withdrawn since.
    assert!(restore("correct horse battery").await.is_err());
    let serving = serve_existing(site, Existing::Required).await;
    let again = parts(&issued(&serving.exchange(&serving.job().sign()).await)).0["kid"].clone();
    assert_eq!(again, kid);
    let lines = serving.lines();
    let admin = lines.iter().find(|line| line.text("action") == "restore keys").unwrap();
    assert_eq!(
        (&admin.event["who"], &admin.event["reason"]),
        (&json!("uid:0"), &json!("a new KEK"))
    );
    assert_eq!(serving.check("ledger").split(':').next(), Some("ok"));
    serving.drain().await;
}
