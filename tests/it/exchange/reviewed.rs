//! Tokens about which their cluster is asked (`token_review`): what it says counts, and what it does not say is no.

use std::{fs, sync::Arc};

use cambio::{
    app::scene::{self, Unwatched},
    chance::SystemChance,
    edge::{
        Power,
        admin::{About, ExplainRequest},
    },
    ledger::entry::Kind,
};
use serde_json::{Value, json};

use crate::{
    edge::surface::Answered,
    support::{
        api_server::{ApiServer, Mood},
        broker::{Broker, Line, bytes_below, form},
        serving::{Serving, serve},
        site::{ORDERS_YAML, Site},
    },
};

/// The broker's own token, for the API server.
const OWN: &str = "eyJhbGciOiJub25lIn0.own-token-of-the-broker.c2ln";
const POD: &str = "9d0e7a6b-51c9-4d0e-9a6b-511c9d0e7a6b";
const ACCOUNT: &str = "3f2b8c1e-55d4-4a0e-9f57-7e1c0d9a6b42";
const PODS: &str = "/status/user/extra/authentication.kubernetes.io~1pod-uid";

/// A site whose cluster is asked, and the cluster. The worker's tokens count once: what is spent can be seen.
async fn site(more: &str) -> (Site, ApiServer) {
    let site = Site::new();
    let api = ApiServer::start(&site.path(""), OWN).await;
    site.write("own-token", OWN);
    let review = format!(
        "token_review: {{ api_server: \"{}\", ca_file: ca.crt, token_file: own-token{more} }}",
        api.url
    );
    let pinned = "keys: { pinned: { file: cluster.json } }";
    site.edit("cambio.yaml", pinned, &format!("{pinned}\n    {review}"));
    let worker = "    bounded_by_subject: true\n";
    let once = ORDERS_YAML.replace(worker, &format!("{worker}    replay: once\n"));
    site.write("policies/orders.yaml", &once);
    (site, api)
}

async fn reviewed(more: &str) -> (Broker, ApiServer) {
    let (site, api) = site(more).await;
    (Broker::start_at(site, |_| {}).await, api)
}

fn worker(broker: &Broker) -> String {
    broker.site.pod("shop", "worker").sign()
}

/// Status, error and words of the one answer to a bad token.
fn bad_token() -> (u16, String, String) {
    (400, "invalid_request".to_owned(), "the subject token was not accepted".to_owned())
}

#[track_caller]
fn refused_as<'l>(line: &'l Line, reason: &str) -> &'l str {
    assert_eq!((line.kind, line.text("reason")), (Kind::Refused, reason), "{line:?}");
    line.facts.as_ref().unwrap().detail.as_deref().unwrap()
}

fn outcomes(broker: &Broker) -> Vec<String> {
    let text = broker.metrics.text().unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("cambio_token_reviews_total"));
    let mut lines: Vec<_> = lines.map(str::to_owned).collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn c16_the_token_of_a_deleted_pod_is_refused_at_once() {
    let (broker, api) = reviewed("").await;
    let token = worker(&broker);
    assert_eq!(broker.exchange(&token).await.status, 200);
    api.delete(POD);
    // Before anybody looks whether it is spent.
    let answer = broker.exchange(&token).await;
    assert_eq!(answer.error(), bad_token());
    assert!(!answer.body.contains("invalidated"), "what the API server said stays inside");
    let asked = api.asked();
    assert_eq!(asked.len(), 2, "a yes is not kept by us");
    assert_eq!(asked[0]["spec"]["token"], asked[1]["spec"]["token"]);
    let audiences = [0, 1].map(|at: usize| asked[at]["spec"]["audiences"].as_array().unwrap());
    assert_eq!(audiences.map(|named| named[0].as_str().unwrap()), ["https://cambio.example"; 2]);
    assert_ne!(audiences[0], audiences[1], "nor by the API server: no question is asked twice");
    let lines = broker.exchanges().await;
    assert_eq!((lines.len(), lines[0].kind), (2, Kind::Granted));
    assert_eq!(
        refused_as(&lines[1], "token_review"),
        "subject token: issuer `cluster` says that the token does not stand: not authenticated: [invalid bearer token, service account token has been invalidated]"
    );
    assert_eq!(
        outcomes(&broker),
        ["{issuer=\"cluster\",outcome=\"refused\"} 1", "{issuer=\"cluster\",outcome=\"stands\"} 1"]
    );
}

#[tokio::test]
async fn c15_the_token_of_a_service_account_that_was_made_again_is_refused() {
    let (broker, api) = reviewed("").await;
    api.delete(ACCOUNT);
    assert_eq!(broker.exchange(&worker(&broker)).await.error(), bad_token());
    api.is(Mood::Says("/status/user/uid", json!("00000000-0000-4000-8000-000000000000")));
    assert_eq!(broker.exchange(&worker(&broker)).await.error(), bad_token());
    let lines = broker.exchanges().await;
    let detail = refused_as(&lines[1], "token_review");
    assert!(detail.ends_with(&format!("expected `{ACCOUNT}`")), "{detail}");
}

#[tokio::test]
async fn c16_what_the_api_server_does_not_say_is_no() {
    let (broker, api) = reviewed("").await;
    let says = [
        ("/status/authenticated", json!(null), "not authenticated, and no reason is told"),
        ("/status/authenticated", json!(false), "not authenticated, and no reason is told"),
        (
            "/status/audiences",
            json!(null),
            "good for audiences [], expected `https://cambio.example` among them",
        ),
        (
            "/status/audiences",
            json!(["https://kubernetes.default.svc"]),
            "good for audiences [https://kubernetes.default.svc], expected `https://cambio.example` among them",
        ),
        (
            "/status/audiences",
            json!("https://cambio.example"),
            "good for audiences [], expected `https://cambio.example` among them",
        ),
        (
            "/status/user",
            json!(null),
            "the user is none, expected `system:serviceaccount:shop:worker`",
        ),
        (
            "/status/user/username",
            json!("system:serviceaccount:shop:worker2"),
            "the user is `system:serviceaccount:shop:worker2`, expected `system:serviceaccount:shop:worker`",
        ),
        ("/status/user/uid", json!(null), "the service account's uid is none, expected `3f2b8c1e"),
        ("/status/user/uid", json!(""), "the service account's uid is ``, expected `3f2b8c1e"),
        ("/status/user/extra", json!(null), "the pod's uid is none, expected `9d0e7a6b"),
        (PODS, json!(null), "the pod's uid is none, expected `9d0e7a6b"),
        (PODS, json!([]), "the pod's uid is none, expected `9d0e7a6b"),
        (PODS, json!(POD), "the pod's uid is ``, expected `9d0e7a6b"),
        (PODS, json!(["another"]), "the pod's uid is `another`, expected `9d0e7a6b"),
        (PODS, json!([POD, "another"]), "the pod's uid is `9d0e7a6b"),
        // A yes and an error at once is no yes.
        (
            "/status/error",
            json!("webhook: connection refused"),
            "authenticated, and an error all the same: webhook: connection refused",
        ),
        ("/status/error", json!({ "code": 1 }), "and an error all the same: told in no words"),
    ];
    for (pointer, value, _) in &says {
        api.is(Mood::Says(pointer, value.clone()));
        assert_eq!(
            broker.exchange(&worker(&broker)).await.error(),
            bad_token(),
            "{pointer} {value}"
        );
    }
    let lines = broker.exchanges().await;
    assert_eq!(lines.len(), says.len());
    for (line, (pointer, value, expected)) in lines.iter().zip(&says) {
        let detail = refused_as(line, "token_review");
        assert!(detail.contains(expected), "{pointer} {value}: {detail}");
    }
    // A token that is bound to no pod is not one of some pod.
    let unbound = broker.site.pod("shop", "worker");
    let mut bound = unbound.claim_set()["kubernetes.io"].clone();
    bound.as_object_mut().unwrap().remove("pod");
    let unbound = unbound.claim("kubernetes.io", bound).sign();
    api.is(Mood::Says(PODS, json!([POD])));
    assert_eq!(broker.exchange(&unbound).await.error(), bad_token());
    api.is(Mood::Well);
    assert_eq!(broker.exchange(&unbound).await.status, 200);
}

#[tokio::test]
async fn a01_what_an_api_server_says_stays_on_its_line() {
    let (broker, api) = reviewed("").await;
    let hostile = format!("a\nINFO granted\u{1b}[2J\u{202e}{}", "x".repeat(4_000));
    api.is(Mood::Fails(201, vec![], no(&hostile).to_string()));
    let answer = broker.exchange(&worker(&broker)).await;
    assert_eq!(answer.error(), bad_token());
    let lines = broker.exchanges().await;
    let detail = refused_as(&lines[0], "token_review");
    assert!(detail.contains(r"a\nINFO granted\u{1b}[2J\u{202e}xxx"), "{detail}");
    assert!(detail.len() < 400 && !detail.contains(char::is_control), "{detail}");
}

fn no(error: &str) -> Value {
    json!({
        "kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "metadata": {},
        "spec": {}, "status": { "user": {}, "error": error },
    })
}

/// Nothing of this is a verdict: the token stays unspent, and the reason says what to mend.
#[tokio::test]
async fn v03_an_api_server_that_gives_no_verdict_is_503_and_the_token_stays_unspent() {
    let (broker, api) = reviewed(", timeout: 1s").await;
    let token = worker(&broker);
    let fails = |status, body: &str| Mood::Fails(status, vec![], body.to_owned());
    let encoded = vec![("content-encoding", "gzip".to_owned())];
    let elsewhere = vec![("location", format!("{}/elsewhere", api.url))];
    let twice = r#"{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","status":{"authenticated":false,"authenticated":true}}"#;
    let moods = [
        (fails(500, "oops"), "the API server answered 500: expected 201"),
        (fails(429, "slow down"), "the API server answered 429: it has too much to do"),
        (fails(404, "{}"), "`api_server` must be the URL of a Kubernetes API server"),
        (Mood::Fails(307, elsewhere, String::new()), "answered 307: redirects are not followed"),
        (fails(204, ""), "answered 204: expected 201"),
        (fails(201, ""), "can't be read"),
        (fails(201, "<html>"), "can't be read"),
        (fails(201, twice), "can't be read"),
        (
            fails(201, r#"{"kind":"Status","apiVersion":"v1","status":"Success"}"#),
            "it is no `TokenReview`",
        ),
        (
            fails(201, &no("").to_string().replace("k8s.io/v1", "k8s.io/v1beta1")),
            "it is no `TokenReview`",
        ),
        (fails(201, &no("").to_string().replace("status", "spectacle")), "it has no `status`"),
        (Mood::Says("/status/authenticated", json!("true")), "`authenticated` is no boolean"),
        (fails(201, &no(&"x".repeat(65_536)).to_string()), "the answer has more than 65536 bytes"),
        (Mood::Fails(201, encoded, no("").to_string()), "content encoding"),
        (Mood::Hangs, "within 1 s"),
    ];
    for (mood, expected) in &moods {
        api.is(mood.clone());
        let answer = broker.exchange(&token).await;
        unavailable(&answer);
        let lines = broker.exchanges().await;
        let detail = refused_as(lines.last().unwrap(), "token_review_unavailable");
        assert!(detail.contains(expected), "{mood:?}: {detail}");
    }
    assert_eq!(api.asked().len(), moods.len(), "asked once each: no redirect, no second try");
    api.is(Mood::Well);
    api.lets_us_review(false);
    unavailable(&broker.exchange(&token).await);
    api.lets_us_review(true);
    broker.site.write("own-token", "another.one.sig");
    unavailable(&broker.exchange(&token).await);
    broker.site.write("own-token", "\n");
    unavailable(&broker.exchange(&token).await);
    fs::remove_file(broker.site.path("own-token")).unwrap();
    unavailable(&broker.exchange(&token).await);
    let lines = broker.exchanges().await;
    let details =
        lines.iter().rev().take(4).map(|line| refused_as(line, "token_review_unavailable"));
    let expected =
        ["No such file", "is empty", "`token_file` must hold", "`system:auth-delegator`"];
    for (detail, expected) in details.zip(expected) {
        assert!(detail.contains(expected), "{detail}");
    }
    broker.site.write("own-token", OWN);
    assert_eq!(broker.exchange(&token).await.status, 200, "it was never spent");
    assert_eq!(
        broker.exchange(&token).await.error().2,
        "the subject token was already used for this"
    );
}

#[track_caller]
fn unavailable(answer: &Answered) {
    let words = "the token's issuer can't be asked about it now";
    assert_eq!(answer.error(), (503, "temporarily_unavailable".to_owned(), words.to_owned()));
    assert_eq!(answer.header("retry-after"), "5");
}

#[tokio::test]
async fn d07_tokens_are_shown_to_the_cluster_alone_and_only_over_its_own_ca() {
    let (site, api) = site("").await;
    // The real API server, and somebody else's CA in its place: nothing arrives there.
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let own = fs::read_to_string(site.path("ca.crt")).unwrap();
    site.write("ca.crt", &other.cert.pem());
    let broker = Broker::start_at(site, |_| {}).await;
    let token = worker(&broker);
    unavailable(&broker.exchange(&token).await);
    assert_eq!(api.asked(), [] as [Value; 0]);
    broker.site.write("ca.crt", &own);
    let broker = broker.restart().await;
    assert_eq!(broker.exchange(&token).await.status, 200);
    // The kubelet has renewed our own token.
    api.expects("the.new.one");
    broker.site.write("own-token", "the.new.one\n");
    assert_eq!(broker.exchange(&worker(&broker)).await.status, 200);
    assert_eq!(api.asked().len(), 2);
    for (path, bytes) in bytes_below(&broker.site.path("data")) {
        for secret in [OWN, "the.new.one", &token] {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "`{}` holds a token", path.display());
        }
    }
}

#[tokio::test]
async fn c16_whoever_is_refused_anyway_makes_us_ask_nothing() {
    let (broker, api) = reviewed("").await;
    let pod = broker.site.pod("shop", "worker");
    let strangers = [
        pod.clone().audience("https://elsewhere.example").sign(),
        pod.clone().claim("exp", 1).sign(),
        format!("{}A", pod.signing_input()),
        broker.site.pod("shop", "stranger").sign(),
        broker.site.pod("elsewhere", "worker").sign(),
    ];
    for token in &strangers {
        assert_eq!(broker.exchange(token).await.status, 400);
    }
    let wrong_role = broker.ask(&worker(&broker), "scope=write").await;
    assert_eq!(wrong_role.status, 400);
    assert_eq!(broker.exchange(&broker.site.job().sign()).await.status, 200, "of another issuer");
    assert_eq!(api.asked(), [] as [Value; 0]);
}

#[tokio::test]
async fn c16_an_actor_is_asked_about_as_well() {
    let (broker, api) = reviewed("").await;
    let acted = async || {
        let job = broker.site.job();
        let named = json!({ "sub": "system:serviceaccount:shop:worker" });
        let job = job.claim("may_act", named).sign();
        let kind = "urn:ietf:params:oauth:token-type:jwt";
        let actor = format!("actor_token={}&actor_token_type={kind}", worker(&broker));
        broker.post_token(&form(&job, &format!("audience=jwt/orders&scope=read&{actor}"))).await
    };
    let answer = acted().await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    api.delete(POD);
    assert_eq!(acted().await.error().2, "the actor token was not accepted");
    assert_eq!(api.asked().len(), 2);
}

#[tokio::test]
async fn v07_nobody_queues_for_an_api_server_that_is_slow() {
    let (broker, api) = reviewed(", max_in_flight: 1, timeout: 10s").await;
    api.is(Mood::Hangs);
    let (first, second) = (worker(&broker), worker(&broker));
    let slow = broker.exchange(&first);
    let turned_away = async {
        while api.asked().is_empty() {
            tokio::task::yield_now().await;
        }
        let answer = broker.exchange(&second).await;
        let other = broker.exchange(&broker.site.job().sign()).await;
        assert_eq!(other.status, 200, "other issuers go on");
        api.is(Mood::Well);
        answer
    };
    let (slow, turned_away) = tokio::join!(slow, turned_away);
    unavailable(&turned_away);
    assert_eq!(slow.status, 200);
    assert_eq!(broker.exchange(&second).await.status, 200);
    assert!(outcomes(&broker).contains(&"{issuer=\"cluster\",outcome=\"shed\"} 1".to_owned()));
}

#[tokio::test]
async fn c16_a_refused_token_is_explained_and_an_outage_is_told_by_readiness() {
    let (site, api) = site("").await;
    let serving = serve(site).await;
    let token = || serving.site.pod("shop", "worker").issued_at(Serving::now(), 300).sign();
    let explain = async |about| {
        let request = ExplainRequest { about, audience: vec![], scope: vec![] };
        let told = serving.power(Power::Explain(request)).await.unwrap();
        told["text"].as_str().unwrap().to_owned()
    };
    let about = |token: String| About::Token(token.into());
    assert!(explain(about(token())).await.starts_with("permit: "));
    api.delete(POD);
    let answer = serving.exchange(&token()).await;
    assert_eq!(answer.error(), bad_token());
    let id = answer.json()["exchange_id"].as_str().unwrap().to_owned();
    for text in [explain(About::Exchange(id)).await, explain(about(token())).await] {
        assert!(text.starts_with("refused as `token_review`: "), "{text}");
        assert!(text.contains("service account token has been invalidated"), "{text}");
        assert!(text.contains("permit: "), "what policy says stands below: {text}");
    }
    assert_eq!(serving.check("token_review:cluster"), format!("ok: `{}/`", api.url));
    api.lets_us_review(false);
    unavailable(&serving.exchange(&token()).await);
    let check = serving.check("token_review:cluster");
    assert!(check.starts_with("not ok: ") && check.contains("system:auth-delegator"), "{check}");
    serving.drain().await;
}

/// What `cambio doctor` says of it.
#[tokio::test]
async fn the_doctor_asks_about_the_brokers_own_token() {
    let (site, api) = site("").await;
    let examine = async || {
        let config = site.config();
        let cluster = config.issuers.iter().find(|issuer| issuer.name.as_str() == "cluster");
        let (chance, nobody) = (Arc::new(SystemChance), Arc::new(Unwatched));
        let review = scene::token_review(cluster.unwrap(), chance, nobody).unwrap().unwrap();
        review.examine().await
    };
    assert_eq!(examine().await, Ok("system:serviceaccount:cambio:cambio".to_owned()));
    assert_eq!(api.asked()[0]["spec"], json!({ "token": OWN }), "not for our audience");
    api.lets_us_review(false);
    let said = examine().await.unwrap_err();
    assert!(said.contains("`system:auth-delegator`") && said.contains("is forbidden"), "{said}");
    api.lets_us_review(true);
    api.is(Mood::Fails(201, vec![], no("expired").to_string()));
    assert_eq!(examine().await, Err("our own token: not authenticated: expired".to_owned()));
    api.is(Mood::Well);
    api.expects("another");
    let said = examine().await.unwrap_err();
    assert!(said.contains("it does not take our own token"), "{said}");
    site.write("ca.crt", "no certificate");
    let config = site.config();
    let refused = scene::preflight(
        &config,
        cambio::app::Mode::Serve,
        cambio::clock::Instant::from_seconds(0),
    );
    let said = refused.unwrap_err().to_string();
    assert!(said.starts_with("issuer `cluster`: `token_review`: CA file"), "{said}");
}
