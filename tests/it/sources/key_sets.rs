//! Which listed keys may verify, and why the others may not.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use cambio::subject::{
    Algorithm, KeySourceError,
    jwk::{KeySet, KeySetError, MAXIMUM_KEYS},
};
use serde_json::{Value, json};

use crate::support::issuer::SigningKey;

fn parse(keys: &[Value]) -> Result<KeySet, KeySetError> {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes())
}

/// What is said of `key` when it stands beside a good one.
fn ignored(key: Value) -> String {
    let good = SigningKey::generate(Algorithm::ES256, "good").public_jwk();
    let set = parse(&[good, key]).expect("one usable key");
    let ignored: Vec<_> = set.ignored().iter().map(ToString::to_string).collect();
    assert_eq!((set.keys().len(), ignored.len()), (1, 1), "{set:?}");
    ignored[0].clone()
}

fn es256() -> Value {
    SigningKey::generate(Algorithm::ES256, "k").public_jwk()
}

fn with(mut key: Value, member: &str, value: Value) -> Value {
    key[member] = value;
    key
}

fn without(mut key: Value, member: &str) -> Value {
    key.as_object_mut().expect("an object").remove(member);
    key
}

fn rsa(n: &[u8], e: &[u8]) -> Value {
    let text = |bytes| URL_SAFE_NO_PAD.encode(bytes);
    json!({"kty": "RSA", "kid": "k", "n": text(n), "e": text(e)})
}

/// An odd number of `bits` bits that has no ROCA fingerprint: nothing says that it is a product of primes.
fn modulus(bits: usize) -> Vec<u8> {
    let mut n = vec![0x5b; bits / 8];
    n[0] = 0xc3;
    *n.last_mut().expect("bytes") = 0x4d;
    n
}

#[test]
fn j02_a_symmetric_key_is_left_out_and_reported() {
    let oct = json!({"kty": "oct", "kid": "k", "alg": "HS256", "k": "c2VjcmV0"});
    assert_eq!(ignored(oct.clone()), "key `k`: key type `oct` is symmetric");
    assert_eq!(
        parse(&[oct]).expect_err("nothing usable").to_string(),
        "key set has no usable key; key `k`: key type `oct` is symmetric"
    );
}

#[test]
fn j03_the_algorithm_is_the_keys_own() {
    for algorithm in Algorithm::ALL {
        let key = SigningKey::generate(algorithm, "k");
        let set = parse(&[key.public_jwk()]).expect("usable");
        let own = &set.keys()[0];
        let signature = key.sign(b"input");
        assert!(own.verify(algorithm, b"input", &signature), "{algorithm}");
        assert!(!own.verify(algorithm, b"other", &signature), "{algorithm}");
        for other in Algorithm::ALL.into_iter().filter(|other| *other != algorithm) {
            assert!(!own.allows(other), "{algorithm} key allows {other}");
            assert!(!own.verify(other, b"input", &signature), "{algorithm} key verifies {other}");
        }
    }
}

#[test]
fn j03_a_key_without_alg_allows_its_family_alone() {
    let allowed = |jwk: Value| -> Vec<&str> {
        let set = parse(&[without(jwk, "alg")]).expect("usable");
        let key = &set.keys()[0];
        Algorithm::ALL.into_iter().filter(|a| key.allows(*a)).map(Algorithm::as_str).collect()
    };
    assert_eq!(allowed(es256()), ["ES256"]);
    assert_eq!(
        allowed(SigningKey::generate(Algorithm::RS256, "k").public_jwk()),
        ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]
    );
}

#[test]
fn j03_an_alg_that_does_not_go_with_the_key_makes_it_unfit() {
    for alg in ["ES384", "RS256", "HS256", "none", "es256", "ES521", "EdDSA"] {
        assert_eq!(
            ignored(with(es256(), "alg", json!(alg))),
            format!("key `k`: `alg` `{alg}` does not go with such a key")
        );
    }
    assert_eq!(
        ignored(with(es256(), "alg", json!(7))),
        "key `k`: `alg` `(not text)` does not go with such a key"
    );
}

#[test]
fn j14_weak_rsa_keys_are_left_out() {
    const F4: &[u8] = &[1, 0, 1];
    assert!(parse(&[rsa(&modulus(2048), F4)]).is_ok());
    assert!(parse(&[rsa(&modulus(8192), &[3])]).is_ok());
    let size = |bits| format!("key `k`: RSA modulus has {bits} bits, expected 2048 to 8192");
    assert_eq!(ignored(rsa(&modulus(1024), F4)), size(1024));
    let mut short = modulus(2048);
    short[0] = 0x43;
    assert_eq!(ignored(rsa(&short, F4)), size(2047));
    assert_eq!(ignored(rsa(&modulus(8200), F4)), size(8200));
    for e in [&[1_u8][..], &[2], &[1, 0, 0], &[1, 0, 0, 0, 1]] {
        assert_eq!(
            ignored(rsa(&modulus(2048), e)),
            "key `k`: RSA exponent is not an odd number from 3 to 4294967295",
            "{e:?}"
        );
    }
    let mut even = modulus(2048);
    even[255] = 0x4c;
    assert_eq!(ignored(rsa(&even, F4)), "key `k`: not a valid public key: the RSA modulus is even");
    let mut padded = vec![0];
    padded.extend(modulus(2048));
    assert_eq!(ignored(rsa(&padded, F4)), "key `k`: `n` is empty or begins with a zero octet");
}

#[test]
fn j15_ed25519_points_of_small_order_or_odd_spelling_are_left_out() {
    let point = |hex: &str| -> Vec<u8> {
        (0..32).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
    };
    let zeros = "00".repeat(30);
    let ffs = "ff".repeat(30);
    let weak = [
        format!("01{zeros}00"),
        format!("01{zeros}80"),
        format!("ec{ffs}7f"),
        format!("ec{ffs}ff"),
        format!("00{zeros}00"),
        format!("00{zeros}80"),
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05".to_owned(),
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85".to_owned(),
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a".to_owned(),
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa".to_owned(),
        // p, p + 1 and 2^255 - 1: ordinates that have another, canonical spelling.
        format!("ed{ffs}7f"),
        format!("ee{ffs}7f"),
        format!("ff{ffs}7f"),
        format!("ee{ffs}ff"),
    ];
    for encoded in weak {
        let x = URL_SAFE_NO_PAD.encode(point(&encoded));
        assert_eq!(
            ignored(json!({"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": x})),
            "key `k`: Ed25519 point has a small order or a non-canonical encoding",
            "{encoded}"
        );
    }
}

#[test]
fn j16_a_key_for_another_purpose_is_left_out() {
    for purpose in
        [json!("enc"), json!("SIG"), json!(""), json!(["sig"]), json!(null), json!("x509-svid")]
    {
        assert_eq!(
            ignored(with(es256(), "use", purpose)),
            "key `k`: `use` does not let the key verify signatures"
        );
    }
    for operations in [json!([]), json!(["sign"]), json!("verify"), json!(null)] {
        assert_eq!(
            ignored(with(es256(), "key_ops", operations)),
            "key `k`: `key_ops` does not let the key verify signatures"
        );
    }
    assert!(parse(&[with(es256(), "use", json!("jwt-svid"))]).is_ok());
    assert!(parse(&[with(es256(), "key_ops", json!(["verify"]))]).is_ok());
}

#[test]
fn j16_a_published_private_key_is_left_out() {
    for member in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
        assert_eq!(
            ignored(with(es256(), member, json!("AQ"))),
            format!(
                "key `k`: private member `{member}` is published: the key must be taken as leaked"
            )
        );
    }
}

#[test]
fn j16_what_is_not_a_key_on_its_curve_is_left_out() {
    let off = "not a valid public key: the point is not on the curve";
    let key = es256();
    let (x, y) = (key["x"].clone(), key["y"].clone());
    assert_eq!(ignored(with(key.clone(), "y", x.clone())), format!("key `k`: {off}"));
    let zero = URL_SAFE_NO_PAD.encode([0; 32]);
    assert_eq!(
        ignored(with(with(key.clone(), "x", json!(zero)), "y", json!(zero))),
        format!("key `k`: {off}")
    );
    assert_eq!(
        ignored(with(key.clone(), "crv", json!("P-384"))),
        "key `k`: `x` is not of its curve's length"
    );
    assert_eq!(
        ignored(with(key.clone(), "crv", json!("secp256k1"))),
        "key `k`: found crv `secp256k1`, expected `P-256`, `P-384` or `P-521`"
    );
    assert_eq!(ignored(with(key.clone(), "kty", json!("RSA"))), "key `k`: `n` is missing");
    assert_eq!(
        ignored(with(key.clone(), "kty", json!("AKP"))),
        "key `k`: found kty `AKP`, expected `RSA`, `EC` or `OKP`"
    );
    assert_eq!(ignored(without(key.clone(), "kty")), "key `k`: `kty` is missing");
    assert_eq!(ignored(without(key.clone(), "y")), "key `k`: `y` is missing");
    assert_eq!(
        ignored(with(key.clone(), "y", json!(format!("{}=", y.as_str().unwrap())))),
        "key `k`: `y` is not base64url without padding"
    );
    assert_eq!(
        ignored(json!({"kty": "OKP", "crv": "Ed448", "kid": "k", "x": x})),
        "key `k`: found crv `Ed448`, expected `Ed25519`"
    );
    assert_eq!(ignored(json!("a text")), "key at position 1: entry is not an object");
    for kid in [json!(1), json!(""), json!("k".repeat(257)), json!(null)] {
        assert!(
            ignored(with(key.clone(), "kid", kid)).ends_with("`kid` is not text of 1 to 256 bytes")
        );
    }
}

#[test]
fn j17_two_keys_of_one_name_are_both_left_out() {
    let twice = [es256(), es256()];
    assert_eq!(
        parse(&twice).expect_err("nothing usable").to_string(),
        "key set has no usable key; key `k`: several keys of the set have this `kid`; key `k`: several keys of the set have this \
         `kid`"
    );
    let oct = json!({"kty": "oct", "kid": "k", "k": "c2VjcmV0"});
    let other = SigningKey::generate(Algorithm::ES256, "other").public_jwk();
    let set = parse(&[es256(), oct, other]).expect("one usable key");
    assert_eq!(set.find(Some("other")).map(|keys| keys.len()), Ok(1));
    assert_eq!(
        set.find(Some("k")).expect_err("ambiguous"),
        KeySourceError::NoSuchKey {
            kid: "k".to_owned(),
            reason: "it is listed, but several keys of the set have this `kid`".to_owned(),
        }
    );
}

#[test]
fn j20_a_kid_is_a_name_and_nothing_else() {
    let set = parse(&[es256()]).expect("usable");
    for kid in ["../k", "k\0", "K", "k ", "' or 1=1", "https://evil.example/jwks", ""] {
        assert!(set.find(Some(kid)).is_err(), "{kid}");
    }
    assert_eq!(set.find(None).map(|keys| keys.len()), Ok(1));
}

#[test]
fn d08_a_set_is_short() {
    let keys: Vec<_> =
        (0..=MAXIMUM_KEYS).map(|at| with(es256(), "kid", json!(format!("k{at}")))).collect();
    assert!(parse(&keys[..MAXIMUM_KEYS]).is_ok());
    assert_eq!(
        parse(&keys).expect_err("too many").to_string(),
        "key set lists 65 keys, expected at most 64"
    );
    for (document, expected) in [
        ("{}", "key set has no list `keys`"),
        (r#"{"keys":{}}"#, "key set has no list `keys`"),
        (r#"{"keys":[]}"#, "key set has no usable key"),
        ("[]", "key set is not acceptable JSON: found a list, expected an object"),
        (
            r#"{"keys":[],"keys":[]}"#,
            "key set is not acceptable JSON: found member `keys` twice in one object",
        ),
    ] {
        assert_eq!(KeySet::parse(document.as_bytes()).expect_err(document).to_string(), expected);
    }
}

#[test]
fn a_thumbprint_is_that_of_rfc_7638() {
    // RFC 7638 section 3.1.
    let set = parse(&[json!({
        "kty": "RSA",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn6\
              4tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n9\
              1CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
        "e": "AQAB",
        "alg": "RS256",
        "kid": "2011-04-29"
    })])
    .expect("usable");
    assert_eq!(set.keys()[0].thumbprint(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    assert_eq!(set.keys()[0].kid(), Some("2011-04-29"));
}
