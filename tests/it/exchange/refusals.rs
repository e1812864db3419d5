//! What ends without a credential, as the caller sees it.

use std::sync::{Arc, Mutex};

use cambio::ledger::entry::hex;

use super::seams::Gate;
use crate::{
    edge::surface::Answered,
    support::{
        broker::{Broker, form, issued, parts},
        issuer::FakeIssuer,
        site::ORDERS_YAML,
        token::NOW,
    },
};

fn said(status: u16, code: &str, words: &str) -> (u16, String, String) {
    (status, code.to_owned(), words.to_owned())
}

/// A refusal without its name, which is new each time.
fn anonymous(answer: &Answered) -> (u16, String, Vec<String>) {
    let body = answer.json();
    let id = body["exchange_id"].as_str().unwrap();
    let headers = answer
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap().replace(id, "ex_")));
    (answer.status.as_u16(), answer.body.replace(id, "ex_"), headers.collect())
}

/// The token with another letter in the middle of its signature.
fn flipped(token: &str) -> String {
    let at = token.len() - 40;
    let other = if token.as_bytes()[at] == b'A' { "B" } else { "A" };
    format!("{}{other}{}", &token[..at], &token[at + 1..])
}

#[tokio::test]
async fn j28_whatever_is_wrong_with_a_token_the_answer_is_one() {
    let broker = Broker::start().await;
    let (job, stranger) = (broker.site.job(), FakeIssuer::at("https://stranger.example"));
    let other_key = FakeIssuer::at("https://token.actions.githubusercontent.com");
    let good = job.sign();
    let bad = [
        job.clone().issued_at(NOW - 600, 300).sign(),
        job.clone().issued_at(NOW + 600, 300).sign(),
        job.clone().audience("https://elsewhere.example").sign(),
        job.clone().audience("sts.amazonaws.com").sign(),
        job.clone().without("exp").sign(),
        job.clone().claim("repository_id", 1).sign(),
        job.clone().claim("iss", "https://gitlab.com").sign(),
        job.clone().header("alg", "none").sign(),
        job.clone().header("kid", "key-9").sign(),
        job.clone().header("jku", "https://stranger.example/jwks").sign(),
        stranger.token().github().sign(),
        other_key.token().github().sign(),
        broker.site.gitlab.token().github().sign(),
        flipped(&good),
        "not-a-token".to_owned(),
        "a.b.c".to_owned(),
    ];
    let expected = anonymous(&broker.exchange("x").await);
    assert_eq!(expected.0, 400);
    for token in &bad {
        assert_eq!(anonymous(&broker.exchange(token).await), expected, "{token}");
    }
    let answer = broker.exchange("x").await;
    assert_eq!(answer.error(), said(400, "invalid_request", "the subject token was not accepted"));
    assert_eq!(broker.exchange(&good).await.status, 200, "and the good one is");
}

#[tokio::test]
async fn x01_a_token_for_another_service_is_none_for_us() {
    let broker = Broker::start().await;
    for audience in ["sts.amazonaws.com", "sigstore", "https://cambio.example/", ""] {
        let token = broker.site.job().audience(audience).sign();
        assert_eq!(broker.exchange(&token).await.status, 400, "{audience}");
    }
}

#[tokio::test]
async fn x02_what_is_not_granted_can_not_be_told_from_what_does_not_exist() {
    let broker = Broker::start().await;
    let token = broker.site.job().sign();
    let words = "the target can't be had: see `audience` and `resource`";
    let mut answers = Vec::new();
    for wants in [
        "audience=https://billing.example",
        "resource=https://billing.example",
        "audience=jwt/billing",
        "audience=https://nowhere.example",
        "audience=https://orders.example/",
        "audience=HTTPS://orders.example",
        "audience=cambio",
        "audience=https://cambio.example",
        "audience=https://orders.example&resource=https://billing.example",
    ] {
        let answer = broker.post_token(&form(&token, &format!("{wants}&scope=read"))).await;
        assert_eq!(answer.error(), said(400, "invalid_target", words), "{wants}");
        answers.push(anonymous(&answer));
    }
    answers.dedup();
    assert_eq!(answers.len(), 1);
}

#[tokio::test]
async fn x05_a_scope_beyond_the_grant_is_refused_and_one_within_is_returned() {
    let broker = Broker::start().await;
    let token = broker.site.job().sign();
    for scope in ["admin", "read+admin", "read+orders.write", "*", "write+read+billing"] {
        let answer = broker.ask(&token, &format!("scope={scope}")).await;
        assert_eq!(
            answer.error(),
            said(400, "invalid_scope", "the scope is not permitted"),
            "{scope}"
        );
    }
    let answer = broker.ask(&token, "scope=write+orders.read").await;
    assert_eq!(answer.json()["scope"], "write orders.read");
    assert_eq!(parts(&issued(&answer)).1["scope"], "write orders.read");
}

#[tokio::test]
async fn x08_a_token_is_of_the_type_that_is_stated() {
    let broker = Broker::start().await;
    let token = broker.site.job().sign();
    let stated = async |kind: &str| {
        let form = form(&token, "audience=jwt/orders&scope=read");
        broker.post_token(&form.replace("token-type:jwt", &format!("token-type:{kind}"))).await
    };
    for kind in ["access_token", "refresh_token", "saml1", "saml2", "JWT", ""] {
        let answer = stated(kind).await;
        assert_eq!(
            (answer.status.as_u16(), answer.error().1.as_str()),
            (400, "invalid_request"),
            "{kind}"
        );
    }
    assert_eq!(stated("id_token").await.status, 200);
}

#[tokio::test]
async fn x09_there_are_no_refresh_tokens() {
    let broker = Broker::start().await;
    let token = broker.site.job().sign();
    for kind in ["refresh_token", "id_token", "saml2"] {
        let wants =
            format!("scope=read&requested_token_type=urn:ietf:params:oauth:token-type:{kind}");
        let answer = broker.ask(&token, &wants).await;
        assert_eq!(
            (answer.status.as_u16(), answer.error().1.as_str()),
            (400, "invalid_request"),
            "{kind}"
        );
    }
    let answer = broker.exchange(&token).await;
    assert_eq!(answer.json().get("refresh_token"), None);
}

#[tokio::test]
async fn x10_a_lifetime_is_cut_to_what_is_granted_and_nonsense_is_refused() {
    let broker = Broker::start().await;
    let asked = async |lifetime: &str| {
        let token = broker.site.job().sign();
        broker.ask(&token, &format!("scope=read&requested_lifetime={lifetime}")).await
    };
    for (lifetime, left) in
        [("315360000", 300), ("9999999999", 300), ("301", 300), ("299", 299), ("1", 1)]
    {
        let answer = asked(lifetime).await;
        assert_eq!(answer.json()["expires_in"], left, "{lifetime}");
        let claims = parts(&issued(&answer)).1;
        assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), left);
    }
    for lifetime in ["0", "-1", "1.5", "1e3", "0x10", "+5", "18446744073709551616", "NaN", "%2060"]
    {
        let answer = asked(lifetime).await;
        assert_eq!(
            (answer.status.as_u16(), answer.error().1.as_str()),
            (400, "invalid_request"),
            "{lifetime}"
        );
    }
    // A pod's rule is bounded by the pod's own token: in its last seconds there is little left, then nothing.
    let pod = broker.site.pod("shop", "worker").sign();
    broker.pass(290);
    assert_eq!(broker.exchange(&pod).await.json()["expires_in"], 10);
    broker.pass(15);
    let answer = broker.exchange(&pod).await;
    let words = "no lifetime is left that the target can keep";
    assert_eq!(answer.error(), said(400, "invalid_request", words));
}

/// The rule is removed while the entry of its grant is on the way to the disk: what decided is what is recorded.
#[tokio::test]
async fn x11_one_policy_set_from_the_decision_to_the_entry() {
    let gate = Mutex::new(None);
    let broker = Broker::start_behind(&|inner| {
        let made = Gate::before(inner);
        *gate.lock().unwrap() = Some(Arc::clone(&made));
        made
    })
    .await;
    let gate: Arc<Gate> = gate.into_inner().unwrap().unwrap();
    let old = broker.exchange.scene.load().policies.digest();
    Gate::close(&gate.before);
    let token = broker.site.job().sign();
    let asked = broker.exchange(&token);
    tokio::pin!(asked);
    tokio::select! {
        biased;
        answer = &mut asked => panic!("answered while the gate is closed: {answer:?}"),
        arrived = gate.arrived.acquire() => arrived.unwrap().forget(),
    }
    let new = broker.adopt("version: 1\nrules: []\n").await.digest();
    assert_ne!(old, new);
    gate.before.add_permits(1_000);
    assert_eq!(asked.await.status, 200);
    let after = broker.exchange(&broker.site.job().sign()).await;
    assert_eq!(
        after.error(),
        said(400, "invalid_request", "no trust policy permits this exchange")
    );
    let entries = broker.exchanges().await;
    let told: Vec<_> =
        entries.iter().map(|line| (line.kind.as_str(), line.text("policy"))).collect();
    // Nobody's tenant is known to an empty set: the second one is counted, not written down.
    assert_eq!(told, [("granted", hex(&old).as_str())]);
    assert!(broker.reader.policy_set(&old).unwrap().unwrap().contains("deploy"));
    broker.adopt(ORDERS_YAML).await;
    assert_eq!(broker.exchange(&broker.site.job().sign()).await.status, 200);
}

#[tokio::test]
async fn one_subject_that_comes_too_often_is_told_to_wait_and_others_are_not() {
    let site = crate::support::site::Site::new();
    site.edit(
        "cambio.yaml",
        "per_subject: { per_second: 100000, burst: 1000000 }",
        "per_subject: { per_second: 1, burst: 2 }",
    );
    let broker = Broker::start_at(site, |_| {}).await;
    for _ in 0..2 {
        assert_eq!(broker.exchange(&broker.site.job().sign()).await.status, 200);
    }
    let answer = broker.exchange(&broker.site.job().sign()).await;
    assert_eq!(answer.error(), said(429, "temporarily_unavailable", "too many requests"));
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(broker.exchange(&broker.site.gitlab_job().sign()).await.status, 200);
    // Without a good signature nobody uses up another's share.
    for _ in 0..5 {
        let forged = FakeIssuer::at("https://gitlab.com");
        let token = forged
            .token()
            .claims(serde_json::Value::Object(broker.site.gitlab_job().claim_set().clone()));
        assert_eq!(broker.exchange(&token.sign()).await.status, 400);
    }
    assert_eq!(broker.exchange(&broker.site.gitlab_job().sign()).await.status, 200);
}
