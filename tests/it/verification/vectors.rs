//! Public vectors: Wycheproof, the JOSE cookbook, `JSONTestSuite`. Read from the folder that `CAMBIO_VECTORS` names (default
//! `../shared/vectors`), never copied here; where the folder is absent these tests fail, and say so.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use cambio::subject::{
    Algorithm,
    json::{JsonError, Limits, parse_value},
    jwk::KeySet,
    jws::verify_jws,
};
use serde_json::{Value, json};

use super::Bench;

fn folder() -> PathBuf {
    let named = std::env::var_os("CAMBIO_VECTORS").unwrap_or_else(|| "../shared/vectors".into());
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(named);
    assert!(
        folder.join("wycheproof").is_dir(),
        "no test vectors in `{}`: set CAMBIO_VECTORS to the folder that holds `wycheproof`",
        folder.display()
    );
    folder
}

fn document(path: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(folder().join(path)).unwrap()).unwrap()
}

/// The JSON files of a folder, by name.
fn files(path: &str) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder().join(path)).unwrap().map(Result::unwrap);
    entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read(path).unwrap())
        })
        .collect()
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().unwrap()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap()
}

/// What a set of one key says of `token`, all algorithms allowed; the private members of the key are left out.
fn accepts(key: &Value, token: &str) -> bool {
    let mut key = key.clone();
    for private in ["d", "p", "q", "dp", "dq", "qi"] {
        key.as_object_mut().unwrap().shift_remove(private);
    }
    let Ok(keys) = KeySet::parse(json!({"keys": [key]}).to_string().as_bytes()) else {
        return false;
    };
    verify_jws(token, &keys, &BTreeSet::from(Algorithm::ALL)).is_ok()
}

/// The numbers of the accepted and of the refused cases of a Wycheproof file.
fn judge(path: &str) -> (BTreeSet<u64>, BTreeSet<u64>) {
    let (mut accepted, mut refused) = (BTreeSet::new(), BTreeSet::new());
    for group in list(&document(path), "testGroups") {
        // HMAC groups have a secret only: given as a key set, it must not become a key.
        let key = group.get("public").unwrap_or(&group["private"]);
        for case in list(group, "tests") {
            let number = case["tcId"].as_u64().unwrap();
            let token = case.get("jws").or_else(|| case.get("jwe")).unwrap();
            let token = token.as_str().map_or_else(|| token.to_string(), str::to_owned);
            let verdict = accepts(key, &token);
            if verdict { &mut accepted } else { &mut refused }.insert(number);
        }
    }
    (accepted, refused)
}

fn numbers(value: &Value) -> BTreeSet<u64> {
    value.as_array().unwrap().iter().map(|number| number.as_u64().unwrap()).collect()
}

#[test]
fn wycheproof_jws_32_accepted_361_refused() {
    let expected = &document("expected-strict-asymmetric.json")["json_web_signature_test.json"];
    let (accepted, refused) = judge("wycheproof/json_web_signature_test.json");
    let excluded: BTreeSet<u64> =
        expected["excluded"].as_object().unwrap().keys().map(|key| key.parse().unwrap()).collect();
    let (accept, refuse) =
        (numbers(&expected["accept_at_jws_layer"]), numbers(&expected["reject"]));
    assert_eq!((accept.len(), refuse.len(), excluded.len()), (32, 361, 8));
    assert_eq!(&accepted - &excluded, accept);
    assert_eq!(&refused - &excluded, refuse);
    // The eight are faulty upstream; a strict verifier refuses them as well.
    assert_eq!(&accepted & &excluded, BTreeSet::new());
}

#[test]
fn wycheproof_jws_older_file_two_accepted() {
    let (accepted, refused) = judge("wycheproof/json_web_crypto_test.json");
    assert_eq!((accepted, refused.len()), (BTreeSet::from([18, 33]), 81));
}

#[tokio::test]
async fn j18_wycheproof_jwe_139_refused() {
    let bench = Bench::new();
    let mut refused = 0;
    for group in list(&document("wycheproof/json_web_encryption_test.json"), "testGroups") {
        for case in list(group, "tests") {
            let verdict = bench.verdict_on(text(case, "jwe")).await;
            assert!(
                verdict.starts_with("malformed token: ") || verdict.starts_with("header refused: "),
                "{}: {verdict}",
                case["tcId"]
            );
            refused += 1;
        }
    }
    assert_eq!(refused, 139);
}

/// One file of signatures as JOSE makes them: (file, algorithm, cases, refused ones among them).
const SIGNATURES: [(&str, Algorithm, usize, usize); 13] = [
    ("ecdsa_secp256r1_sha256_p1363_test", Algorithm::ES256, 262, 89),
    ("ecdsa_secp384r1_sha384_p1363_test", Algorithm::ES384, 280, 87),
    ("ecdsa_secp521r1_sha512_p1363_test", Algorithm::ES512, 318, 87),
    ("ed25519_test", Algorithm::EdDSA, 151, 63),
    ("rsa_signature_2048_sha256_test", Algorithm::RS256, 259, 249),
    ("rsa_signature_2048_sha384_test", Algorithm::RS384, 258, 250),
    ("rsa_signature_2048_sha512_test", Algorithm::RS512, 259, 250),
    ("rsa_signature_3072_sha256_test", Algorithm::RS256, 259, 250),
    ("rsa_signature_4096_sha256_test", Algorithm::RS256, 258, 250),
    ("rsa_pss_2048_sha256_mgf1_32_test", Algorithm::PS256, 108, 45),
    ("rsa_pss_3072_sha256_mgf1_32_test", Algorithm::PS256, 108, 45),
    ("rsa_pss_4096_sha384_mgf1_48_test", Algorithm::PS384, 141, 46),
    ("rsa_pss_4096_sha512_mgf1_64_test", Algorithm::PS512, 179, 47),
];

#[test]
fn j13_j15_wycheproof_signatures_have_their_verdicts() {
    for (file, algorithm, cases, wrong) in SIGNATURES {
        let (mut seen, mut refused) = (0, 0);
        for group in list(&document(&format!("wycheproof/{file}.json")), "testGroups") {
            let keys = json!({"keys": [public_key(group)]}).to_string();
            let keys = KeySet::parse(keys.as_bytes());
            for case in list(group, "tests") {
                let (message, signature) = (hex(text(case, "msg")), hex(text(case, "sig")));
                // A key that the set leaves out refuses all of its signatures.
                let verifies = keys
                    .as_ref()
                    .is_ok_and(|keys| keys.keys()[0].verify(algorithm, &message, &signature));
                seen += 1;
                refused += usize::from(text(case, "result") == "invalid");
                match text(case, "result") {
                    "valid" => assert!(verifies, "{file} {}: {case}", case["tcId"]),
                    "invalid" => assert!(!verifies, "{file} {}: {case}", case["tcId"]),
                    // PKCS #1 v1.5 without the NULL parameter: either verdict is sound.
                    other => assert_eq!(other, "acceptable"),
                }
            }
        }
        assert_eq!((seen, refused), (cases, wrong), "{file}");
    }
}

/// The key of a group: its JWK where it has one, else one made of the numbers.
fn public_key(group: &Value) -> Value {
    if let Some(jwk) = group.get("publicKeyJwk") {
        return jwk.clone();
    }
    let key = &group["publicKey"];
    let number = |name: &str, length: usize| {
        let digits: Vec<_> =
            hex(text(key, name)).into_iter().skip_while(|byte| *byte == 0).collect();
        let padding = vec![0; length.saturating_sub(digits.len())];
        URL_SAFE_NO_PAD.encode([padding, digits].concat())
    };
    match key.get("curve").and_then(Value::as_str) {
        None => json!({"kty": "RSA", "n": number("modulus", 0), "e": number("publicExponent", 0)}),
        Some(curve) => {
            let (curve, length) = match curve {
                "secp256r1" => ("P-256", 32),
                "secp384r1" => ("P-384", 48),
                "secp521r1" => ("P-521", 66),
                other => panic!("unexpected curve {other}"),
            };
            json!({"kty": "EC", "crv": curve, "x": number("wx", length), "y": number("wy", length)})
        }
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

#[test]
fn the_cookbook_s_signatures_have_our_verdicts() {
    let mut verdicts = BTreeMap::new();
    for folder in ["jws", "curve25519", "rfc7797"] {
        for (name, bytes) in files(&format!("jose-cookbook/{folder}")) {
            let example: Value =
                serde_json::from_str(std::str::from_utf8(&bytes).unwrap()).unwrap();
            let compact = example["output"].get("compact").and_then(Value::as_str);
            // What has no compact form is tried in its JSON form.
            let token =
                compact.map_or_else(|| example["output"]["json"].to_string(), str::to_owned);
            let key = &example["input"]["key"];
            let verdict = key.is_object() && accepts(key, &token);
            verdicts.insert(format!("{folder}/{name}"), verdict);
        }
    }
    let accepted: Vec<_> =
        verdicts.iter().filter(|(_, accepted)| **accepted).map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        accepted,
        [
            "curve25519/jws.json",
            "jws/4_1.rsa_v15_signature.json",
            "jws/4_2.rsa-pss_signature.json",
            "jws/4_3.ecdsa_signature.json",
        ]
    );
    assert_eq!(verdicts.len(), 12);
}

#[test]
fn json_test_suite_188_refused_and_95_read() {
    let files = files("json-test-suite/test_parsing");
    let (mut refused, mut read, mut twice) = (0, 0, Vec::new());
    for (name, bytes) in &files {
        let verdict = parse_value(bytes, &Limits::JWKS);
        match (&name[..2], verdict) {
            ("n_", Err(_)) => refused += 1,
            ("n_", Ok(value)) => panic!("{name} was read as {value}"),
            // Names that come twice are the one thing that others read and we refuse.
            ("y_", Err(JsonError::Duplicate { .. })) => twice.push(name.as_str()),
            ("y_", Err(error)) => panic!("{name}: {error}"),
            ("y_", Ok(_)) => read += 1,
            // Free to either; that it ends, and without a panic, is what is asked.
            _ => {}
        }
    }
    assert_eq!((refused, read), (188, 93));
    assert_eq!(twice, ["y_object_duplicated_key.json", "y_object_duplicated_key_and_value.json"]);
}

#[test]
fn j08_json_test_suite_transforms_keep_integers_and_refuse_what_comes_twice() {
    let files = files("json-test-suite/test_transform");
    assert_eq!(files.len(), 22);
    for (name, bytes) in files {
        let verdict = parse_value(&bytes, &Limits::CLAIMS);
        if name.starts_with("object_same_key") {
            assert!(matches!(verdict, Err(JsonError::Duplicate { .. })), "{name}: {verdict:?}");
        }
        if name.contains("invalid_codepoint") || name.contains("surrogate") {
            assert!(verdict.is_err(), "{name}: {verdict:?}");
        }
        if name == "number_9223372036854775807.json" {
            assert_eq!(verdict, Ok(json!([i64::MAX])));
        }
        if name == "number_-9223372036854775808.json" {
            assert_eq!(verdict, Ok(json!([i64::MIN])));
        }
    }
}
