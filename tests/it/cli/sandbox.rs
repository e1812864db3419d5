//! The sandbox issuer over HTTP: what a job, a pod and a verifier see.

use std::sync::Arc;

use cambio::{
    chance::SystemChance,
    clock::SystemClock,
    sandbox::{Platform, Sandbox},
};
use jsonwebtoken::{DecodingKey, Validation, jwk::JwkSet};
use reqwest::{Client, StatusCode, header::HOST};
use serde_json::{Value, json};

type Outcome = Result<(), Box<dyn std::error::Error>>;

async fn sandbox() -> Result<(Sandbox, Client), Box<dyn std::error::Error>> {
    // Another test may have been first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let sandbox = Sandbox::start(Arc::new(SystemClock), Arc::new(SystemChance)).await?;
    Ok((sandbox, Client::builder().no_proxy().build()?))
}

/// Discovery → key set → signature, as a verifier does, with a library that is not ours.
async fn verified(
    client: &Client,
    issuer: &str,
    token: &str,
) -> Result<Value, Box<dyn std::error::Error>> {
    let discovery = client.get(format!("{issuer}/.well-known/openid-configuration"));
    let metadata: Value = discovery.send().await?.text().await?.parse()?;
    assert_eq!(metadata["issuer"], issuer);
    let answer = client.get(metadata["jwks_uri"].as_str().unwrap_or_default()).send().await?;
    assert_eq!(answer.headers()["cache-control"], "public, max-age=60");
    let set: JwkSet = serde_json::from_str(&answer.text().await?)?;
    let kid = jsonwebtoken::decode_header(token)?.kid.ok_or("no kid")?;
    let key = DecodingKey::from_jwk(set.find(&kid).ok_or("no such key")?)?;
    let mut validation = Validation::new(jsonwebtoken::Algorithm::RS256);
    validation.set_issuer(&[issuer]);
    validation.set_audience(&["cambio"]);
    Ok(jsonwebtoken::decode::<Value>(token, &key, &validation)?.claims)
}

#[tokio::test]
async fn github_hands_out_a_token_for_each_request() -> Outcome {
    let (sandbox, client) = sandbox().await?;
    let url = format!(
        "{}&audience=cambio&claim.environment=production",
        sandbox.token_url(Platform::GitHub)
    );
    let answer = client
        .get(&url)
        .header("authorization", format!("bearer {}", sandbox.request_token()))
        .send()
        .await?;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let body: Value = answer.text().await?.parse()?;
    let token = body["value"].as_str().ok_or("no value")?;
    let claims = verified(&client, &sandbox.issuer(Platform::GitHub), token).await?;
    assert_eq!(claims["sub"], "repo:acme/shop:environment:production");

    let refused = client.get(&url).header("authorization", "bearer guess").send().await?;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(
        refused.text().await?,
        r#"{"message":"expected `Authorization: bearer` and the request token"}"#
    );
    sandbox.stop().await;
    Ok(())
}

#[tokio::test]
async fn gitlab_answers_with_what_would_stand_in_the_variable() -> Outcome {
    let (sandbox, client) = sandbox().await?;
    let url = format!("{}?aud=cambio", sandbox.token_url(Platform::GitLab));
    let token = client.get(url).send().await?.text().await?;
    let claims = verified(&client, &sandbox.issuer(Platform::GitLab), &token).await?;
    assert_eq!(claims["sub"], "project_path:acme/shop:ref_type:branch:ref:main");
    sandbox.stop().await;
    Ok(())
}

#[tokio::test]
async fn kubernetes_answers_a_token_request() -> Outcome {
    let (sandbox, client) = sandbox().await?;
    let ask = async |body: Value| {
        let request = client
            .post(sandbox.token_url(Platform::Kubernetes))
            .header("authorization", format!("Bearer {}", sandbox.request_token()))
            .header("content-type", "application/json");
        request.body(body.to_string()).send().await
    };
    let spec = json!({ "audiences": ["cambio"], "expirationSeconds": 600 });
    let answer = ask(json!({ "spec": spec })).await?;
    assert_eq!(answer.status(), StatusCode::CREATED);
    let body: Value = answer.text().await?.parse()?;
    assert_eq!(body["spec"], spec);
    let token = body["status"]["token"].as_str().ok_or("no token")?;
    let claims = verified(&client, &sandbox.issuer(Platform::Kubernetes), token).await?;
    assert_eq!(claims["exp"].as_u64().zip(claims["iat"].as_u64()).map(|(e, i)| e - i), Some(600));

    let short = ask(json!({ "spec": { "expirationSeconds": 60 } })).await?;
    assert_eq!(short.status(), StatusCode::BAD_REQUEST);
    sandbox.stop().await;
    Ok(())
}

#[tokio::test]
async fn every_claim_can_be_played_with() -> Outcome {
    let (sandbox, client) = sandbox().await?;
    let base = sandbox.token_url(Platform::GitLab);
    let url =
        format!("{base}?aud=cambio&claim.ref=next&json.runner_id=7&without=user_email&lifetime=60");
    let token = client.get(url).send().await?.text().await?;
    let claims = verified(&client, &sandbox.issuer(Platform::GitLab), &token).await?;
    assert_eq!((&claims["ref"], &claims["ref_protected"]), (&json!("next"), &json!("false")));
    assert_eq!((&claims["runner_id"], claims.get("user_email")), (&json!(7), None));
    let bad = client.get(format!("{base}?json.runner_id=seven")).send().await?;
    assert_eq!(bad.text().await?, r#"{"message":"parameter `json.runner_id` is not JSON"}"#);
    sandbox.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_web_page_under_another_name_gets_nothing() -> Outcome {
    let (sandbox, client) = sandbox().await?;
    let url = format!("{}?aud=cambio", sandbox.token_url(Platform::GitLab));
    let answer = client.get(url).header(HOST, "rebound.example").send().await?;
    assert_eq!(answer.status(), StatusCode::MISDIRECTED_REQUEST);
    sandbox.stop().await;
    Ok(())
}
