//! Wycheproof, through [`KeySet`] and [`VerificationKey`].

use std::{collections::BTreeSet, fs, path::PathBuf};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use cambio::subject::{Algorithm, jwk::KeySet};
use serde_json::{Value, json};

fn vectors(file: &str) -> Value {
    let folder = std::env::var_os("CAMBIO_VECTORS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/vectors"),
        PathBuf::from,
    );
    let path = folder.join(file);
    let bytes = fs::read(&path).unwrap_or_else(|error| {
        panic!("no test vectors at `{}` ({error}): set CAMBIO_VECTORS", path.display())
    });
    serde_json::from_slice(&bytes).expect("vectors are JSON")
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex"))
        .collect()
}

fn base64url_of_hex(text: &str) -> String {
    let bytes = hex(text);
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    URL_SAFE_NO_PAD.encode(&bytes[start..])
}

/// The key of a test group as a JWK; Wycheproof writes it in a different form in each file.
fn jwk_of(group: &Value, crv: Option<&str>) -> Value {
    let public = &group["publicKey"];
    let text = |member: &str| public[member].as_str().expect("a text member");
    match crv {
        None => json!({
            "kty": "RSA",
            "n": base64url_of_hex(text("modulus")),
            "e": base64url_of_hex(text("publicExponent")),
        }),
        Some("Ed25519") => {
            json!({"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(hex(text("pk")))})
        }
        Some(crv) => {
            let point = hex(text("uncompressed"));
            let (x, y) = point[1..].split_at((point.len() - 1) / 2);
            json!({
                "kty": "EC", "crv": crv,
                "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
            })
        }
    }
}

/// Runs one file; gives (accepted, refused), and panics with every verdict that is not the stated one.
fn run(file: &str, algorithm: Algorithm, crv: Option<&str>) -> (usize, usize) {
    let vectors = vectors(&format!("wycheproof/{file}"));
    let (mut accepted, mut refused, mut wrong) = (0, 0, Vec::new());
    for group in vectors["testGroups"].as_array().expect("groups") {
        let set = json!({ "keys": [jwk_of(group, crv)] }).to_string();
        let keys = KeySet::parse(set.as_bytes()).map(|set| set.keys().to_vec()).unwrap_or_default();
        for test in group["tests"].as_array().expect("tests") {
            let (message, signature) =
                (hex(test["msg"].as_str().unwrap()), hex(test["sig"].as_str().unwrap()));
            let verified = keys.iter().any(|key| key.verify(algorithm, &message, &signature));
            // `acceptable` is a PKCS #1 encoding without its NULL: a strict verifier refuses it.
            if verified != (test["result"] == "valid") {
                wrong.push(format!("{} {}", test["tcId"], test["comment"]));
            }
            if verified { accepted += 1 } else { refused += 1 }
        }
    }
    assert_eq!(wrong, Vec::<String>::new(), "{file}");
    (accepted, refused)
}

#[test]
fn j13_ecdsa_verdicts_are_those_of_wycheproof() {
    let p256 = "ecdsa_secp256r1_sha256_p1363_test.json";
    let p384 = "ecdsa_secp384r1_sha384_p1363_test.json";
    let p521 = "ecdsa_secp521r1_sha512_p1363_test.json";
    assert_eq!(run(p256, Algorithm::ES256, Some("P-256")), (173, 89));
    assert_eq!(run(p384, Algorithm::ES384, Some("P-384")), (193, 87));
    assert_eq!(run(p521, Algorithm::ES512, Some("P-521")), (231, 87));
}

#[test]
fn j15_ed25519_verdicts_are_those_of_wycheproof() {
    assert_eq!(run("ed25519_test.json", Algorithm::EdDSA, Some("Ed25519")), (88, 63));
}

#[test]
fn rsa_pkcs1_verdicts_are_those_of_wycheproof() {
    let file = |name: &str| format!("rsa_signature_{name}_test.json");
    assert_eq!(run(&file("2048_sha256"), Algorithm::RS256, None), (9, 250));
    assert_eq!(run(&file("2048_sha384"), Algorithm::RS384, None), (7, 251));
    assert_eq!(run(&file("2048_sha512"), Algorithm::RS512, None), (8, 251));
    assert_eq!(run(&file("3072_sha256"), Algorithm::RS256, None), (8, 251));
    assert_eq!(run(&file("4096_sha256"), Algorithm::RS256, None), (7, 251));
}

#[test]
fn rsa_pss_verdicts_are_those_of_wycheproof() {
    let file = |name: &str| format!("rsa_pss_{name}_test.json");
    assert_eq!(run(&file("2048_sha256_mgf1_32"), Algorithm::PS256, None), (63, 45));
    assert_eq!(run(&file("3072_sha256_mgf1_32"), Algorithm::PS256, None), (63, 45));
    assert_eq!(run(&file("4096_sha384_mgf1_48"), Algorithm::PS384, None), (95, 46));
    assert_eq!(run(&file("4096_sha512_mgf1_64"), Algorithm::PS512, None), (132, 47));
}

#[test]
fn j14_a_roca_modulus_is_recognised() {
    let vectors = vectors("wycheproof/json_web_key_test.json");
    let groups = vectors["testGroups"].as_array().expect("groups");
    let roca = groups.iter().find(|group| group["comment"] == "jws_rsa_roca_key").expect("a group");
    assert_eq!(
        KeySet::parse(roca["public"].to_string().as_bytes()).expect_err("unusable").to_string(),
        "key set has no usable key; key `kid-rsa-roca-sign`: RSA modulus has the ROCA fingerprint (CVE-2017-15361)"
    );
}

#[test]
fn g05_unusable_key_sets_verify_nothing() {
    let expected = vectors("expected-strict-asymmetric.json");
    let ids = |list: &str| -> BTreeSet<u64> {
        let list = &expected["json_web_key_test.json"][list];
        list.as_array().expect("a list").iter().filter_map(Value::as_u64).collect()
    };
    let (mut accepted, mut refused) = (BTreeSet::new(), BTreeSet::new());
    let vectors = vectors("wycheproof/json_web_key_test.json");
    for group in vectors["testGroups"].as_array().expect("groups") {
        // A group without `public` is of symmetric keys.
        let set = group.get("public").unwrap_or(&group["private"]).to_string();
        for test in group["tests"].as_array().expect("tests") {
            let id = test["tcId"].as_u64().expect("an id");
            let jws = test["jws"].as_str().expect("a JWS");
            if verifies(&set, jws) {
                accepted.insert(id)
            } else {
                refused.insert(id)
            };
        }
    }
    assert_eq!(accepted, ids("accept_at_jws_layer"));
    assert_eq!(refused, ids("reject"));
    assert_eq!((accepted.len(), refused.len()), (1, 25));
}

fn verifies(set: &str, jws: &str) -> bool {
    let Ok(set) = KeySet::parse(set.as_bytes()) else { return false };
    let (signing_input, signature) = jws.rsplit_once('.').expect("three segments");
    let header = signing_input.split('.').next().expect("a header");
    let header = URL_SAFE_NO_PAD.decode(header).expect("base64url");
    let header: Value = serde_json::from_slice(&header).expect("JSON");
    let Ok(algorithm) = header["alg"].as_str().expect("`alg`").parse() else { return false };
    let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else { return false };
    set.find(header["kid"].as_str()).is_ok_and(|keys| {
        keys.iter().any(|key| {
            key.allows(algorithm) && key.verify(algorithm, signing_input.as_bytes(), &signature)
        })
    })
}
