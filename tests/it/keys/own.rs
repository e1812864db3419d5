//! Tokens of ours, read back.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use cambio::{
    clock::Instant,
    keys::{
        keyring::TokenType,
        own::{Introspector, OwnKeys},
    },
    mint::jwt::JwtTarget,
    subject::{Algorithm, KeySource},
};
use serde_json::{Value, json};

use super::minting::{Mint, ORDERS, OURS, grant, parts, text};
use crate::support::token::NOW;

fn introspector(mint: &Mint) -> Introspector {
    Introspector::of(OURS.parse().unwrap(), Arc::clone(mint.keyring()))
}

#[tokio::test]
async fn a_live_token_is_told_whole() {
    let mint = Mint::new().await;
    let subject = mint.subject().await;
    let minter = mint.minter(Mint::target());
    let credential = mint.mint(&minter, &grant(600), mint.behind(&subject)).await.unwrap();
    let (_, mut claims) = parts(text(&credential));
    claims["active"] = true.into();
    claims["token_type"] = "Bearer".into();
    let answer = introspector(&mint).introspect(text(&credential), ORDERS, mint.bench.clock_now());
    assert_eq!(answer, claims);
}

#[tokio::test]
async fn everything_else_is_inactive_without_a_reason() {
    let mint = Mint::new().await;
    let subject = mint.subject().await;
    let minter = mint.minter(Mint::target());
    let credential = mint.mint(&minter, &grant(600), mint.behind(&subject)).await.unwrap();
    let token = text(&credential).to_owned();
    let introspector = introspector(&mint);
    let inactive = json!({ "active": false });
    let ask = |token: &str, audience: &str, now: u64| {
        introspector.introspect(token, audience, Instant::from_seconds(now))
    };
    assert_eq!(ask(&token, ORDERS, NOW + 599)["active"], true);
    assert_eq!(ask(&token, ORDERS, NOW + 600), inactive, "at its end it is over");
    assert_eq!(ask(&token, "https://other.example", NOW), inactive);
    assert_eq!(ask(&token, "", NOW), inactive);
    let plain = mint.minter(JwtTarget { typ: TokenType::Jwt, ..Mint::target() });
    let plain = mint.mint(&plain, &grant(600), mint.behind(&subject)).await.unwrap();
    assert_eq!(ask(text(&plain), ORDERS, NOW), inactive, "not an access token");
    let foreign =
        Introspector::of("https://other.example".parse().unwrap(), Arc::clone(mint.keyring()));
    assert_eq!(foreign.introspect(&token, ORDERS, mint.bench.clock_now()), inactive);
    let (header, rest) = token.split_once('.').unwrap();
    let (payload, signature) = rest.split_once('.').unwrap();
    let spaced = URL_SAFE_NO_PAD.decode(header).unwrap();
    let spaced = String::from_utf8(spaced).unwrap().replace(',', ", ");
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"at+jwt"}"#);
    for hostile in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        format!("{token}."),
        format!(" {token}"),
        format!("{token}\n"),
        format!("{token}="),
        format!("{header}.{payload}."),
        format!("{none}.{payload}."),
        format!("{}.{payload}.{signature}", URL_SAFE_NO_PAD.encode(spaced)),
        format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode("{}")),
        format!("{header}.{payload}.{payload}.{signature}"),
        "a".repeat(20_000),
    ] {
        assert_eq!(ask(&hostile, ORDERS, NOW), inactive, "{hostile}");
    }
    for place in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
        let flipped = String::from_utf8(bytes).unwrap();
        assert_eq!(ask(&flipped, ORDERS, NOW), inactive, "{place}");
    }
}

#[tokio::test]
async fn k06_a_token_of_a_withdrawn_key_is_inactive_and_one_of_a_retired_key_is_not() {
    let mint = Mint::new().await;
    let minter = mint.minter(Mint::target());
    let subject = mint.subject().await;
    let credential = mint.mint(&minter, &grant(600), mint.behind(&subject)).await.unwrap();
    let active = |mint: &Mint| -> Value {
        let answer =
            introspector(mint).introspect(text(&credential), ORDERS, mint.bench.clock_now());
        answer["active"].clone()
    };
    let kid = parts(text(&credential)).0["kid"].as_str().unwrap().to_owned();
    mint.rotator.rotate_now(Algorithm::ES256, true).await.unwrap();
    assert_eq!(active(&mint), true);
    mint.rotator.withdraw(&kid, false).await.unwrap();
    assert_eq!(active(&mint), false);
}

#[tokio::test]
async fn a_key_that_has_signed_nothing_verifies_nothing() {
    let mint = Mint::new().await;
    let own = OwnKeys::of(Arc::clone(mint.keyring()));
    let now = mint.bench.clock_now();
    let prepared = mint.keyring().records()[1].kid.clone();
    assert_eq!(
        own.find(Some(&prepared), now).await.unwrap_err().to_string(),
        format!("no key `{prepared}`: it is none of ours, not yet in use, pruned or withdrawn")
    );
    assert_eq!(own.find(None, now).await.unwrap().len(), 1);
    assert_eq!(own.state().keys, 1);
}
