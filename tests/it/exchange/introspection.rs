//! Introspection, end to end: who may ask is granted by an ordinary rule (design section 6).

use axum::{body::Body, http::Request};
use serde_json::{Value, json};

use crate::{
    edge::surface::{Answered, FORM, send},
    support::{
        broker::{Broker, form, issued, parts},
        site::{ORDERS, OURS},
        token::NOW,
    },
};

async fn ask(broker: &Broker, caller: &str, token: &str) -> Answered {
    let request = Request::post("/introspect")
        .header("content-type", FORM)
        .header("authorization", format!("Bearer {caller}"))
        .body(Body::from(format!("token={token}")));
    send(&broker.router, request.unwrap()).await
}

/// A token for our own API, of a service account of namespace `platform`.
async fn caller(broker: &Broker, account: &str) -> String {
    let token = broker.site.pod("platform", account).sign();
    issued(&broker.post_token(&form(&token, "audience=cambio")).await)
}

#[tokio::test]
async fn a_caller_with_the_role_is_told_about_tokens_of_its_audience_and_of_no_other() {
    let broker = Broker::start().await;
    let gateway = caller(&broker, "gateway").await;
    let claims = parts(&gateway).1;
    assert_eq!(
        (&claims["aud"], &claims["scope"]),
        (&json!(OURS), &json!("introspect:https://orders.example"))
    );
    let token = issued(&broker.exchange(&broker.site.job().sign()).await);
    let (_, own) = parts(&token);
    let answer = ask(&broker, &gateway, &token).await;
    assert_eq!(
        answer.json(),
        json!({
            "active": true, "token_type": "Bearer", "iss": OURS, "aud": ORDERS,
            "sub": "github:repository_id:1296269", "iat": NOW, "exp": NOW + 300,
            "jti": own["jti"], "client_id": "orders/check", "scope": "read",
        })
    );
    let billing = broker.site.job().claim("repository_id", "777").sign();
    let billing = issued(&broker.post_token(&form(&billing, "audience=jwt/billing")).await);
    let mut forged = token.clone();
    forged.pop();
    let inactive = |body: Value| assert_eq!(body, json!({ "active": false }));
    for other in [billing, gateway.clone(), forged, broker.site.job().sign(), "x".to_owned()] {
        inactive(ask(&broker, &gateway, &other).await.json());
    }
    broker.pass(300);
    inactive(ask(&broker, &gateway, &token).await.json());
    broker.pass(300);
    assert_eq!(ask(&broker, &gateway, &token).await.status.as_u16(), 401, "the caller's ended too");
}

#[tokio::test]
async fn others_are_told_nothing() {
    let broker = Broker::start().await;
    let token = issued(&broker.exchange(&broker.site.job().sign()).await);
    let auditor = caller(&broker, "auditor").await;
    let answer = ask(&broker, &auditor, &token).await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (403, ""));
    // A token for another audience is no key to our own API, and neither is a platform's.
    for caller in [&token, &broker.site.pod("platform", "gateway").sign()] {
        let answer = ask(&broker, caller, &token).await;
        assert_eq!((answer.status.as_u16(), answer.body.as_str()), (401, ""));
    }
    let gateway = caller(&broker, "gateway").await;
    let kid = parts(&gateway).0["kid"].as_str().unwrap().to_owned();
    broker.rotator.withdraw(&kid, true).await.unwrap();
    let answer = ask(&broker, &gateway, &token).await;
    assert_eq!(answer.status.as_u16(), 401, "signed by a key that leaked (threat K06)");
}
