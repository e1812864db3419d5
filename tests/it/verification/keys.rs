//! Whose key, and for which algorithm.

use std::{collections::BTreeSet, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use cambio::{
    clock::{Instant, ManualClock},
    grant::IssuerName,
    subject::{
        Algorithm, Issuers, KeySource, KeySourceError, KeySourceState, Rejection, UnverifiedToken,
        VerificationKey, verify::Verifier,
    },
};
use serde_json::json;

use super::Bench;
use crate::support::{
    issuer::{FakeIssuer, FixedKeys, SigningKey},
    token::NOW,
};

const P256_ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";

#[tokio::test]
async fn a_valid_token_of_every_algorithm_names_its_subject() {
    for algorithm in Algorithm::ALL {
        let bench =
            Bench::of(FakeIssuer::signing_with("https://issuer.example", algorithm), |_| {});
        let subject = bench.verify(&bench.token().sign()).await.unwrap();
        assert_eq!(subject.profile().our_subject(), "ci:sub:repo:acme/site:ref:refs/heads/main");
        assert_eq!(subject.issued_at(), Instant::from_seconds(NOW));
        assert_eq!(subject.expires_at(), Instant::from_seconds(NOW + 300));
    }
}

#[tokio::test]
async fn j03_the_algorithm_comes_from_the_configuration_and_the_key() {
    let rsa = FakeIssuer::signing_with("https://issuer.example", Algorithm::RS256);

    let bench = Bench::of(rsa, |issuer| issuer.algorithms = Algorithm::ALL.into());
    for (name, reason) in [
        ("PS256", "key `key-1` is not for `PS256`"),
        ("RS512", "key `key-1` is not for `RS512`"),
        ("ES256", "key `key-1` is not for `ES256`"),
        ("EdDSA", "key `key-1` is not for `EdDSA`"),
    ] {
        assert_eq!(
            bench.verdict(bench.token().header("alg", name)).await,
            format!("no key of issuer `ci` fits: {reason}")
        );
    }

    let narrowed = Bench::with(|issuer| issuer.algorithms = BTreeSet::from([Algorithm::RS256]));
    assert_eq!(
        narrowed.verdict(narrowed.token()).await,
        "header refused: found algorithm `ES256`, expected one of RS256"
    );
    // INVARIANT(closed-by-absence): no list is no algorithm.
    let nothing = Bench::with(|issuer| issuer.algorithms = BTreeSet::new());
    assert_eq!(
        nothing.verdict(nothing.token()).await,
        "header refused: found algorithm `ES256`, expected one of "
    );
}

#[tokio::test]
async fn j03_a_key_of_another_curve_is_not_for_es256() {
    let issuer = FakeIssuer::signing_with("https://issuer.example", Algorithm::ES384);
    let bench = Bench::of(issuer, |issuer| issuer.algorithms = Algorithm::ALL.into());
    assert_eq!(
        bench.verdict(bench.token().header("alg", "ES256")).await,
        "no key of issuer `ci` fits: key `key-1` is not for `ES256`"
    );
}

#[tokio::test]
async fn j04_a_kid_is_looked_up_at_its_own_issuer_only() {
    let (ours, theirs) = (FakeIssuer::at("https://a.example"), FakeIssuer::at("https://b.example"));
    let issuers = Issuers::of([ours.configured_as("a"), theirs.configured_as("b")]).unwrap();
    let clock = Arc::new(ManualClock::at(Instant::from_seconds(NOW)));
    let verifier = Verifier::new(issuers, clock);

    // Both call their key `key-1`. B's signature under A's name:
    let forged = ours.token_by(theirs.newest_key());
    assert_eq!(
        verifier.verify(&forged.token()).await.unwrap_err(),
        Rejection::Signature { issuer: IssuerName::from("a"), kid: "key-1".to_owned() }
    );
    let honest = verifier.verify(&theirs.token().token()).await.unwrap();
    assert_eq!(honest.profile().issuer, IssuerName::from("b"));
}

#[tokio::test]
async fn j13_malformed_ecdsa_signatures_are_refused() {
    let bench = Bench::new();
    let token = bench.token();
    let input = token.signing_input();
    let good = bench.issuer.newest_key().sign(input.as_bytes());
    let order = hex(P256_ORDER);
    let zeros = [0_u8; 32];
    let der = {
        let mut der = vec![0x30, 0x44, 0x02, 0x20];
        der.extend(&good[..32]);
        der.extend([0x02, 0x20]);
        der.extend(&good[32..]);
        der
    };
    for signature in [
        Vec::new(),
        [zeros, zeros].concat(),
        [&good[..32], &zeros].concat(),
        [&zeros, &good[32..]].concat(),
        [&order, &good[32..]].concat(),
        [&good[..32], &order].concat(),
        [order.clone(), order.clone()].concat(),
        [&good[..], &[0]].concat(),
        [&[0], &good[..]].concat(),
        good[..63].to_vec(),
        der,
        vec![0xff; 64],
    ] {
        assert_eq!(
            bench.verdict_on(&format!("{input}.{}", URL_SAFE_NO_PAD.encode(&signature))).await,
            "signature does not verify with key `key-1` of issuer `ci`"
        );
    }
    assert_eq!(
        bench.verdict_on(&format!("{input}.{}", URL_SAFE_NO_PAD.encode(&good))).await,
        "accepted"
    );
}

#[tokio::test]
async fn j13_a_malleated_signature_makes_no_second_token() {
    // (r, n − s) also verifies. The token's name in the replay log must not change with it.
    let bench = Bench::new();
    let token = bench.token().sign();
    let (input, signature) = token.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let mirrored = [&signature[..32], &order_minus(&signature[32..])].concat();
    let malleated = format!("{input}.{}", URL_SAFE_NO_PAD.encode(mirrored));
    assert_ne!(token, malleated);

    let first = bench.verify(&token).await.unwrap();
    let second = bench.verify(&malleated).await.unwrap();
    assert_eq!(first.digest(), second.digest());
    let other = bench.verify(&bench.token().sign()).await.unwrap();
    assert_ne!(first.digest(), other.digest());
}

#[tokio::test]
async fn a_rotated_issuer_signs_with_the_new_key_and_the_old_one_still_counts() {
    let mut issuer = FakeIssuer::at("https://issuer.example");
    let before = issuer.token().sign();
    issuer.rotate();
    let bench = Bench::of(issuer, |_| {});
    assert_eq!(bench.issuer.newest_key().kid(), "key-2");
    assert_eq!(bench.verdict_on(&before).await, "accepted");
    assert_eq!(bench.verdict(bench.token()).await, "accepted");
    let mixed_up = bench.token().header("kid", "key-1");
    assert_eq!(
        bench.verdict(mixed_up).await,
        "signature does not verify with key `key-1` of issuer `ci`"
    );
}

#[tokio::test]
async fn a_token_without_kid_tries_few_keys() {
    let key = SigningKey::generate(Algorithm::ES256, "signs");
    let set = |others: usize| {
        let mut keys: Vec<_> = (0..others)
            .map(|number| SigningKey::generate(Algorithm::ES256, &number.to_string()).public_jwk())
            .collect();
        keys.push(key.public_jwk());
        json!({ "keys": keys })
    };
    for (others, verdict) in
        [(7, "accepted"), (8, "no key of issuer `ci` fits: 9 keys fit key `-`, expected at most 8")]
    {
        let bench = Bench::with(|issuer| issuer.keys = Arc::new(FixedKeys::of(&set(others))));
        let token = bench.issuer.token_by(&key);
        assert_eq!(bench.verdict(token.clone()).await, "accepted");
        assert_eq!(bench.verdict(token.without_header("kid")).await, verdict);
    }
}

#[tokio::test]
async fn d01_an_unknown_issuer_and_a_hopeless_token_ask_for_no_keys() {
    let issuer = FakeIssuer::at("https://issuer.example");
    let keys = Arc::new(FixedKeys::of(&issuer.jwks()));
    let source: Arc<dyn KeySource> = Arc::clone(&keys) as Arc<dyn KeySource>;
    let bench = Bench::of(issuer, |issuer| issuer.keys = source);

    let strange = bench.token().claim("iss", "https://evil.example");
    assert_eq!(bench.verdict(strange).await, "issuer `https://evil.example` is not configured");
    let disallowed = bench.token().header("alg", "RS256").header("kid", "unknown");
    assert_eq!(
        bench.verdict(disallowed).await,
        "header refused: found algorithm `RS256`, expected one of ES256"
    );
    assert_eq!(keys.asked(), 0);
    assert_eq!(bench.verdict(bench.token()).await, "accepted");
    assert_eq!(keys.asked(), 1);
}

#[derive(Debug)]
struct NoKeys;

#[async_trait::async_trait]
impl KeySource for NoKeys {
    async fn find(
        &self,
        _kid: Option<&str>,
        _now: Instant,
    ) -> Result<Vec<Arc<VerificationKey>>, KeySourceError> {
        Err(KeySourceError::Unavailable("connection refused".to_owned()))
    }

    fn state(&self) -> KeySourceState {
        KeySourceState::default()
    }
}

#[tokio::test]
async fn keys_that_can_not_be_had_are_an_outage_and_not_a_verdict() {
    let bench = Bench::with(|issuer| issuer.keys = Arc::new(NoKeys));
    let rejection = bench.verify(&bench.token().sign()).await.unwrap_err();
    assert_eq!(rejection.label(), "keys_unavailable");
    assert_eq!(rejection.to_string(), "keys of issuer `ci` are not available: connection refused");
}

#[tokio::test]
async fn j27_a_refusal_carries_no_part_of_a_subject() {
    let bench = Bench::new();
    let token = UnverifiedToken::new(bench.token().claim("exp", NOW - 3600).sign());
    let outcome = bench.verifier.verify(&token).await;
    assert!(
        matches!(outcome, Err(Rejection::Claim { ref claim, .. }) if claim == "exp"),
        "{outcome:?}"
    );
    assert!(!format!("{token:?}").contains("ey"), "{token:?}");
}

fn hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

/// The order of P-256 less `number`, both of 32 bytes.
fn order_minus(number: &[u8]) -> Vec<u8> {
    let mut borrow = 0_i16;
    let digits = hex(P256_ORDER).into_iter().zip(number).rev().map(|(order, digit)| {
        let difference = i16::from(order) - i16::from(*digit) - borrow;
        borrow = i16::from(difference < 0);
        u8::try_from(difference.rem_euclid(256)).unwrap()
    });
    let mut digits: Vec<u8> = digits.collect();
    digits.reverse();
    digits
}
