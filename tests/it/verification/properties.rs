//! Over many tokens: no changed bit is accepted, and two other implementations accept all that we accept.

use std::sync::LazyLock;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use cambio::subject::{Algorithm, json};
use josekit::{jwk::Jwk, jws as other};
use proptest::{prelude::*, sample::Index};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use super::Bench;
use crate::support::{issuer::FakeIssuer, token::NOW};

/// One bench for each kind of signature, and a good token of it.
static GOOD: LazyLock<Vec<(Bench, String)>> = LazyLock::new(|| {
    [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA]
        .into_iter()
        .map(|algorithm| {
            let issuer = FakeIssuer::signing_with("https://issuer.example", algorithm);
            let bench = Bench::of(issuer, |issuer| issuer.algorithms = Algorithm::ALL.into());
            let token = bench.token().github().sign();
            (bench, token)
        })
        .collect()
});

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().build().unwrap());

fn verdict(bench: &Bench, token: &str) -> String {
    RUNTIME.block_on(bench.verdict_on(token))
}

/// How many cases: 2,000 here; `PROPTEST_CASES=1000000` for the long run that threat J29 asks for.
fn many() -> ProptestConfig {
    let cases = std::env::var_os("PROPTEST_CASES")
        .map_or(2_000, |cases| cases.to_str().unwrap().parse().unwrap());
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(many())]

    #[test]
    fn j29_a_flipped_bit_of_the_text_is_never_accepted(
        which in any::<Index>(), place in any::<Index>(), bit in 0..8_u8,
    ) {
        let (bench, token) = which.get(&GOOD);
        let mut bytes = token.clone().into_bytes();
        bytes[place.index(token.len())] ^= 1 << bit;
        // What is not UTF-8 any more can't even become an unverified token.
        if let Ok(text) = String::from_utf8(bytes) {
            prop_assert_ne!(verdict(bench, &text), "accepted", "{}", text);
        }
    }

    #[test]
    fn j29_a_flipped_bit_below_the_base64_is_never_accepted(
        which in any::<Index>(), segment in 0..3_usize, place in any::<Index>(), bit in 0..8_u8,
    ) {
        let (bench, token) = which.get(&GOOD);
        let mut segments: Vec<String> = token.split('.').map(str::to_owned).collect();
        let mut bytes = URL_SAFE_NO_PAD.decode(&segments[segment]).unwrap();
        let length = bytes.len();
        bytes[place.index(length)] ^= 1 << bit;
        segments[segment] = URL_SAFE_NO_PAD.encode(bytes);
        prop_assert_ne!(verdict(bench, &segments.join(".")), "accepted");
    }

    #[test]
    fn no_text_makes_the_verifier_panic(text in "[A-Za-z0-9._=-]{0,64}|\\PC{0,64}") {
        let (bench, _) = &GOOD[0];
        prop_assert_ne!(verdict(bench, &text), "accepted");
    }

    #[test]
    fn what_is_read_as_json_is_what_the_library_reads(value in any_json()) {
        let text = value.to_string();
        prop_assert_eq!(json::parse_value(text.as_bytes(), &json::Limits::CLAIMS), Ok(value));
    }

    #[test]
    fn what_we_accept_two_others_accept_too(change in any_change(), which in any::<Index>()) {
        let (bench, _) = which.get(&GOOD);
        let (name, value) = change;
        let token = match name.strip_prefix("header:") {
            Some(member) => bench.token().header(member, value),
            None => bench.token().claim(name, value),
        };
        let token = token.sign();
        if verdict(bench, &token) == "accepted" {
            prop_assert!(josekit_accepts(bench, &token), "josekit refuses {}", token);
            prop_assert!(jsonwebtoken_accepts(bench, &token), "jsonwebtoken refuses {}", token);
        }
    }
}

#[test]
fn two_others_accept_a_plain_token() {
    for (bench, token) in GOOD.iter() {
        assert_eq!(verdict(bench, token), "accepted");
        assert!(josekit_accepts(bench, token) && jsonwebtoken_accepts(bench, token));
    }
}

/// Objects and lists, at most four deep, each name once.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inside| {
        prop_oneof![
            prop::collection::vec(inside.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z\"\\\\é]{0,4}", inside, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// One claim or header member set to something that may or may not be legal. Not `x5t`: josekit wants base64 there, and we
/// do not read it.
fn any_change() -> impl Strategy<Value = (&'static str, Value)> {
    let names = prop::sample::select(vec![
        "iss",
        "sub",
        "aud",
        "exp",
        "iat",
        "nbf",
        "jti",
        "x",
        "header:alg",
        "header:kid",
        "header:typ",
        "header:crit",
        "header:jku",
    ]);
    let values = prop_oneof![
        any_json(),
        (NOW - 400..NOW + 4_000).prop_map(Value::from),
        prop::sample::select(vec![
            json!("https://issuer.example"),
            json!("https://cambio.example"),
            json!(["https://cambio.example"]),
            json!("ES256"),
            json!("RS256"),
            json!("PS256"),
            json!("EdDSA"),
            json!("JWT"),
            json!("key-1"),
        ]),
    ];
    (names, values)
}

/// The signature alone, by OpenSSL.
fn josekit_accepts(bench: &Bench, token: &str) -> bool {
    let members = bench.issuer.newest_key().public_jwk();
    let jwk = Jwk::from_map(members.as_object().unwrap().clone()).unwrap();
    let verifier: Box<dyn other::JwsVerifier> = match bench.issuer.newest_key().algorithm().as_str()
    {
        "RS256" => Box::new(other::RS256.verifier_from_jwk(&jwk).unwrap()),
        "PS256" => Box::new(other::PS256.verifier_from_jwk(&jwk).unwrap()),
        "ES256" => Box::new(other::ES256.verifier_from_jwk(&jwk).unwrap()),
        "EdDSA" => Box::new(other::EdDSA.verifier_from_jwk(&jwk).unwrap()),
        unexpected => panic!("no verifier for {unexpected}"),
    };
    other::deserialize_compact(token, verifier.as_ref()).is_ok()
}

/// Signature and claims, as strict as its settings go.
fn jsonwebtoken_accepts(bench: &Bench, token: &str) -> bool {
    let jwk = serde_json::from_value(bench.issuer.newest_key().public_jwk()).unwrap();
    let key = jsonwebtoken::DecodingKey::from_jwk(&jwk).unwrap();
    let algorithm = bench.issuer.newest_key().algorithm().as_str().parse().unwrap();
    let mut validation = jsonwebtoken::Validation::new(algorithm);
    validation.set_issuer(&["https://issuer.example"]);
    validation.set_audience(&["https://cambio.example"]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    // Its clock is the wall clock, which these tests do not have.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    jsonwebtoken::decode::<Value>(token, &key, &validation).is_ok()
}
