//! The bare path: HTTP, parse, verify RS256, sign ES256, answer. No policy, no ledger, no limits: the limit to compare with.

use std::sync::Arc;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    },
};
use axum::{Router, extract::State, http::StatusCode, response::IntoResponse, routing::post};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use serde_json::{Value, json};

struct Bare {
    verify: ParsedPublicKey,
    sign: EcdsaKeyPair,
    random: SystemRandom,
}

/// Verifies with `key`, a PKCS#1 `RSAPublicKey`.
pub fn router(key: &[u8]) -> Router {
    let pkcs8 =
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .expect("key");
    let bare = Bare {
        verify: ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key).expect("key"),
        sign: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref())
            .expect("key"),
        random: SystemRandom::new(),
    };
    Router::new().route("/token", post(token)).with_state(Arc::new(bare))
}

async fn token(State(bare): State<Arc<Bare>>, body: axum::body::Bytes) -> impl IntoResponse {
    match exchange(&bare, &body) {
        Some(answer) => (StatusCode::OK, [("content-type", "application/json")], answer),
        None => (StatusCode::BAD_REQUEST, [("content-type", "application/json")], "{}".to_owned()),
    }
}

fn exchange(bare: &Bare, body: &[u8]) -> Option<String> {
    let token =
        form_urlencoded::parse(body).find(|(name, _)| name == "subject_token")?.1.into_owned();
    let (input, signature) = token.rsplit_once('.')?;
    bare.verify.verify_sig(input.as_bytes(), &B64.decode(signature).ok()?).ok()?;
    let claims: Value = serde_json::from_str(
        std::str::from_utf8(&B64.decode(input.split_once('.')?.1).ok()?).ok()?,
    )
    .ok()?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?.as_secs();
    (claims.get("exp")?.as_u64()? > now).then_some(())?;
    let header = B64.encode(r#"{"alg":"ES256","typ":"at+jwt","kid":"bare"}"#);
    let issued = json!({
        "iss": "https://cambio.test", "sub": claims.get("repository_id")?, "aud": "https://orders.test",
        "iat": now, "exp": now + 900, "jti": "0", "client_id": "bench/rule", "scope": "reader",
    });
    let input = format!("{header}.{}", B64.encode(issued.to_string()));
    let signature = bare.sign.sign(&bare.random, input.as_bytes()).ok()?;
    let jwt = format!("{input}.{}", B64.encode(signature.as_ref()));
    Some(json!({ "access_token": jwt, "token_type": "Bearer", "expires_in": 900 }).to_string())
}
