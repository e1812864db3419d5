//! The battery of `Signer`.

use cambio::{
    keys::{Signer, signing::SigningKey},
    subject::{Algorithm, jwk::KeySet},
};
use josekit::jwk::Jwk;
use serde_json::{Map, Value, json};

async fn holds(signer: &dyn Signer, published: &Map<String, Value>) {
    let kid = signer.key_id();
    let set = json!({ "keys": [published] }).to_string();
    let keys = KeySet::parse(set.as_bytes()).unwrap();
    let [key] = keys.find(Some(kid)).unwrap().try_into().unwrap();
    for input in [b"".as_slice(), b"eyJ.eyJ", &[7; 10_000]] {
        let signature = signer.sign(input).await.unwrap();
        assert!(key.verify(signer.algorithm(), input, &signature), "duty 1");
        let mut other = signature.clone();
        other[0] ^= 1;
        assert!(!key.verify(signer.algorithm(), input, &other), "duty 1: and no other signature");
        assert!(!key.verify(signer.algorithm(), b"other", &signature), "duty 1: nor other bytes");
    }
    assert_eq!(kid, key.thumbprint(), "duty 2: RFC 7638");
}

#[tokio::test]
async fn every_algorithm_signs_what_its_public_half_verifies() {
    for algorithm in Algorithm::ALL {
        let key = SigningKey::generate(algorithm).unwrap();
        assert_eq!(key.algorithm(), algorithm);
        holds(&key, key.public_jwk()).await;
        let members: Vec<_> = key.public_jwk().keys().map(String::as_str).collect();
        let wanted = match key.public_jwk()["kty"].as_str().unwrap() {
            "EC" => vec!["crv", "kty", "x", "y", "kid", "use", "alg"],
            "OKP" => vec!["crv", "kty", "x", "kid", "use", "alg"],
            _ => vec!["e", "kty", "n", "kid", "use", "alg"],
        };
        assert_eq!(members, wanted, "nothing private, nothing else");
    }
}

#[tokio::test]
async fn a_key_that_openssl_made_signs_as_well() {
    let make = |algorithm: Algorithm| match algorithm {
        Algorithm::ES256 => Jwk::generate_ec_key(josekit::jwk::P_256),
        Algorithm::ES384 => Jwk::generate_ec_key(josekit::jwk::P_384),
        Algorithm::EdDSA => Jwk::generate_ed_key(josekit::jwk::Ed25519),
        _ => Jwk::generate_rsa_key(2048),
    };
    for algorithm in [Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA, Algorithm::RS256] {
        let mut jwk = make(algorithm).unwrap().as_ref().clone();
        let public = Jwk::from_map(jwk.clone()).unwrap().to_public_key().unwrap();
        let set = json!({ "keys": [public.as_ref()] }).to_string();
        let set = KeySet::parse(set.as_bytes()).unwrap();
        jwk.insert("kid".to_owned(), set.keys()[0].thumbprint().into());
        let key = SigningKey::from_private_jwk(algorithm, &jwk).unwrap();
        holds(&key, key.public_jwk()).await;
    }
}

#[test]
fn the_thumbprint_is_that_of_rfc_8037() {
    // RFC 8037 appendix A.1 and A.3.
    let jwk = json!({
        "kty": "OKP", "crv": "Ed25519",
        "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
    });
    let key = SigningKey::from_private_jwk(Algorithm::EdDSA, jwk.as_object().unwrap()).unwrap();
    assert_eq!(key.key_id(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
}
