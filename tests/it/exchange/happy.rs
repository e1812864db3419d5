//! What platforms sign, what leaves for it, and what proves it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use cambio::ledger::{note::VerifierKey, receipt};
use josekit::jws;
use serde_json::{Value, json};

use crate::support::{
    broker::{Broker, form, issued, parts},
    site::{ORDERS, OURS},
    token::NOW,
};

/// What an OpenSSL-based second implementation reads from `token` with the keys that we publish.
async fn josekit_reads(broker: &Broker, token: &str) -> Value {
    let set = broker.read("/jwks").await.json();
    let kid = parts(token).0["kid"].clone();
    let jwk = set["keys"].as_array().unwrap().iter().find(|key| key["kid"] == kid).unwrap();
    let jwk = josekit::jwk::Jwk::from_map(jwk.as_object().unwrap().clone()).unwrap();
    let verifier = jws::ES256.verifier_from_jwk(&jwk).unwrap();
    let (payload, _) = jws::deserialize_compact(token, &verifier).unwrap();
    serde_json::from_str(std::str::from_utf8(&payload).unwrap()).unwrap()
}

/// The claims of the token in `answer`, as a second implementation verified them.
async fn claims_of(broker: &Broker, answer: &crate::edge::surface::Answered) -> Value {
    josekit_reads(broker, &issued(answer)).await
}

#[tokio::test]
async fn a_github_job_gets_what_its_rule_grants_and_nothing_else() {
    let broker = Broker::start().await;
    let answer = broker.ask(&broker.site.job().sign(), "scope=write+orders.read").await;
    let claims = claims_of(&broker, &answer).await;
    assert_eq!(
        claims,
        json!({
            "iss": OURS, "sub": "github:repository_id:1296269", "aud": ORDERS,
            "iat": NOW, "exp": NOW + 900, "jti": claims["jti"], "client_id": "orders/deploy",
            "scope": "write orders.read", "repository": "acme/site",
            "commit": "1d2c3b4a5f6e7d8c9b0a1d2c3b4a5f6e7d8c9b0a",
        })
    );
    let header = parts(&issued(&answer)).0;
    assert_eq!(header, json!({ "alg": "ES256", "typ": "at+jwt", "kid": header["kid"] }));
    let body = answer.json();
    assert_eq!(
        body,
        json!({
            "access_token": body["access_token"],
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "token_type": "Bearer",
            "expires_in": 900,
            "scope": "write orders.read",
            "exchange_id": body["exchange_id"],
            "ledger": body["ledger"],
        })
    );
    assert_eq!(answer.header("cache-control"), "no-store");
}

#[tokio::test]
async fn a_gitlab_job_gets_what_its_rule_grants() {
    let broker = Broker::start().await;
    let answer = broker.post_token(&form(&broker.site.gitlab_job().sign(), "")).await;
    let claims = claims_of(&broker, &answer).await;
    assert_eq!(
        claims,
        json!({
            "iss": OURS, "sub": "gitlab:project_id:20", "aud": ORDERS, "iat": NOW,
            "exp": NOW + 900, "jti": claims["jti"], "client_id": "orders/job",
            "scope": "read",
        })
    );
}

#[tokio::test]
async fn a_pod_gets_the_subject_that_its_rule_fixes_until_its_own_token_ends() {
    let broker = Broker::start().await;
    let token = broker.site.pod("shop", "worker").sign();
    let answer = broker.post_token(&form(&token, "resource=urn:example:orders")).await;
    let claims = claims_of(&broker, &answer).await;
    assert_eq!(
        claims,
        json!({
            "iss": OURS, "sub": "orders:worker", "aud": ORDERS, "iat": NOW,
            "exp": NOW + 300, "jti": claims["jti"], "client_id": "orders/worker",
            "scope": "read",
        })
    );
    assert_eq!(answer.json()["expires_in"], 300);
}

#[tokio::test]
async fn jwt_bearer_and_plain_jwts_are_served_too() {
    let broker = Broker::start().await;
    let token = broker.site.job().claim("repository_id", "777").sign();
    let form = format!(
        "grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer&assertion={token}\
         &audience=jwt/billing"
    );
    let answer = broker.post_token(&form).await;
    let body = answer.json();
    assert_eq!(body["issued_token_type"], "urn:ietf:params:oauth:token-type:jwt");
    assert_eq!((&body["token_type"], &body["scope"]), (&json!("N_A"), &json!("read")));
    assert_eq!(parts(&issued(&answer)).0["typ"], "JWT");
    assert_eq!(claims_of(&broker, &answer).await["aud"], "https://billing.example");
}

/// What a caller holds at once is enough to be proven by anybody later.
#[tokio::test]
async fn a_receipt_is_proven_against_a_signed_checkpoint() {
    let mut broker = Broker::start().await;
    let mut receipts = Vec::new();
    for _ in 0..5 {
        let answer = broker.exchange(&broker.site.job().sign()).await;
        receipts.push((issued(&answer), answer.json()["ledger"].clone()));
    }
    broker.checkpoint().unwrap();
    let key: VerifierKey = broker.reader.log_key().unwrap().unwrap().1.parse().unwrap();
    for (token, receipt) in receipts {
        let index = receipt["index"].as_u64().unwrap();
        let leaf = STANDARD.decode(receipt["leaf"].as_str().unwrap()).unwrap();
        let proof = receipt::prove(&*broker.reader, index).unwrap();
        let leaf = leaf.try_into().unwrap();
        assert_eq!(receipt::check_proof(&proof, &leaf, &key).unwrap().0, index);
        assert!(receipt::check_proof(&proof, &[0; 32], &key).is_err());
        // The entry commits to every byte that was signed.
        let (input, _) = token.rsplit_once('.').unwrap();
        let digest = cambio::ledger::entry::hex(&cambio::ledger::tree::sha256(input.as_bytes()));
        let lines = broker.lines().await;
        let entry = &lines[usize::try_from(index).unwrap()];
        assert_eq!(entry.text("signing_input"), digest);
        let (header, claims) = parts(&token);
        assert_eq!(
            (&entry.event["kid"], &entry.event["credential"]),
            (&header["kid"], &claims["jti"])
        );
    }
    let published = broker.read("/ledger/checkpoint").await.body;
    assert!(published.starts_with("cambio.example/test\n"), "{published}");
}

/// The whole entry of a grant, and what stands behind it.
#[tokio::test]
async fn the_entry_of_a_grant_says_who_what_where_and_by_which_rule() {
    let broker = Broker::start().await;
    let token = broker.site.job();
    let answer = broker.ask(&token.sign(), "scope=write&requested_lifetime=60").await;
    let (header, claims) = parts(&issued(&answer));
    let entries = broker.exchanges().await;
    let [entry] = entries.as_slice() else { panic!("expected one entry, found {entries:?}") };
    let digest =
        |text: &str| cambio::ledger::entry::hex(&cambio::ledger::tree::sha256(text.as_bytes()));
    let policy = cambio::ledger::entry::hex(&broker.exchange.scene.load().policies.digest());
    assert_eq!(
        entry.event,
        json!({
            "exchange_id": answer.json()["exchange_id"],
            "issuer": "github",
            "subject": "github:repository_id:1296269",
            "token": digest(&token.signing_input()),
            "target": "jwt/orders",
            "role": "write",
            "rules": ["orders/deploy"],
            "policy": policy,
            "expires_at": (NOW + 60) * 1_000,
            "credential": claims["jti"],
            "signing_input": digest(issued(&answer).rsplit_once('.').unwrap().0),
            "kid": header["kid"],
        })
    );
    let facts = entry.facts.as_ref().unwrap();
    assert_eq!(facts.exchange_id, answer.json()["exchange_id"]);
    assert_eq!((facts.now, facts.source.as_str()), (NOW * 1_000, "203.0.113.9"));
    assert_eq!(facts.claims["run_id"], "20000000001");
    assert_eq!(facts.wants.targets, [ORDERS]);
    assert_eq!((facts.policy.as_str(), facts.detail.as_deref()), (policy.as_str(), None));
}
