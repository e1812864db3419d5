//! The ring at rest: what a thief, a restorer and a log reader get.

use std::{fs, os::unix::fs::PermissionsExt, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use cambio::{
    keys::{keyring::Keyring, ring::Ring, schedule::Schedule, signing::SigningKey},
    protector::{
        KeyContext, KeyProtector,
        file::{KeyFile, PassphraseFile},
    },
    secret::Secret,
    subject::Algorithm,
};
use josekit::jwe;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::bench::{Bench, ENVIRONMENT, RING, key_file, private_file, terms};

fn context(epoch: u64) -> KeyContext {
    KeyContext { ring: RING.to_owned(), epoch, environment: ENVIRONMENT.to_owned() }
}

/// The private members of every key in the sealed ring, as text.
async fn private_members(bench: &Bench) -> Vec<String> {
    let (epoch, sealed) = bench.journal.sealed();
    let plain = bench.protector.unwrap(&sealed, &context(epoch)).await.unwrap();
    let set: Value = serde_json::from_str(plain.reveal_text().unwrap()).unwrap();
    let keys = set["keys"].as_array().unwrap();
    let names = ["d", "p", "q", "dp", "dq", "qi"];
    let members = keys.iter().flat_map(|key| names.iter().filter_map(|name| key[name].as_str()));
    members.map(str::to_owned).collect()
}

#[tokio::test]
async fn k01_a_stolen_database_holds_no_private_key() {
    let bench = Bench::signing_with([Algorithm::ES256, Algorithm::EdDSA, Algorithm::RS256]);
    bench.start().await;
    let members = private_members(&bench).await;
    assert_eq!(members.len(), 2 + 2 + 2 * 6 + 1, "two keys per algorithm, and the log key");
    let (_, sealed) = bench.journal.sealed();
    let header = sealed.split('.').next().unwrap();
    let header = String::from_utf8(URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    let header: Value = serde_json::from_str(&header).unwrap();
    assert_eq!(
        header,
        json!({
            "alg": "A256KW", "enc": "A256GCM", "cty": "jwk-set+json",
            "cambio_ring": RING, "cambio_epoch": 9, "cambio_environment": ENVIRONMENT,
        })
    );
    let bytes: Vec<u8> =
        sealed.split('.').flat_map(|part| URL_SAFE_NO_PAD.decode(part).unwrap()).collect();
    for member in members {
        let raw = URL_SAFE_NO_PAD.decode(&member).unwrap();
        assert!(!sealed.contains(&member));
        assert!(!bytes.windows(raw.len().min(16)).any(|window| raw.starts_with(window)));
    }
}

#[tokio::test]
async fn k02_a_sealed_ring_opens_nowhere_else() {
    let bench = Bench::new();
    bench.start().await;
    let (epoch, sealed) = bench.journal.sealed();
    assert_eq!(epoch, 3);
    let open = async |context: KeyContext| {
        let opened = Ring::open(&sealed, &context, &*bench.protector).await;
        opened.map(|ring| ring.epoch()).map_err(|error| error.to_string())
    };
    assert_eq!(open(context(3)).await, Ok(3));
    let fault = "the key ring does not open: ";
    assert_eq!(open(context(4)).await, Err(format!("{fault}`cambio_epoch` is 3, expected 4")));
    assert_eq!(
        open(KeyContext { environment: "prod".to_owned(), ..context(3) }).await,
        Err(format!("{fault}`cambio_environment` is \"test\", expected \"prod\""))
    );
    assert_eq!(
        open(KeyContext { ring: "other/signing".to_owned(), ..context(3) }).await,
        Err(format!("{fault}`cambio_ring` is \"log.example/signing\", expected \"other/signing\""))
    );
}

#[tokio::test]
async fn k02_a_header_can_not_be_rewritten() {
    let bench = Bench::new();
    bench.start().await;
    let (_, sealed) = bench.journal.sealed();
    let (header, rest) = sealed.split_once('.').unwrap();
    let header = String::from_utf8(URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    let rewritten = async |header: String| {
        let sealed = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header));
        let opened = Ring::open(&sealed, &context(4), &*bench.protector).await;
        opened.map(|ring| ring.epoch()).unwrap_err().to_string()
    };
    let newer = header.replace("\"cambio_epoch\":3", "\"cambio_epoch\":4");
    assert_ne!(newer, header);
    assert_eq!(
        rewritten(newer.clone()).await,
        "the key ring does not open: another key-encryption key, or a changed byte"
    );
    assert_eq!(
        rewritten(newer.replace('{', "{\"zip\":\"DEF\",")).await,
        "the key ring does not open: its header has `zip`"
    );
    assert_eq!(
        rewritten(newer.replace("A256KW", "dir")).await,
        "the key ring does not open: `alg` is \"dir\", expected \"A256KW\""
    );
    assert_eq!(
        rewritten("[]".to_owned()).await,
        "the key ring does not open: its header is not JSON"
    );
}

#[tokio::test]
async fn k03_without_its_kek_the_broker_does_not_start() {
    let bench = Bench::new();
    bench.start().await;
    let (_, sealed) = bench.journal.sealed();
    let told = bench.journal.told();
    let error = bench.start_with(Arc::new(key_file()), ENVIRONMENT).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the key ring does not open: another key-encryption key, or a changed byte"
    );
    assert_eq!(bench.journal.sealed().1, sealed, "a wrong KEK founds no second ring");
    assert_eq!(bench.journal.told(), told);
    let error = bench.start_with(Arc::clone(&bench.protector), "prod").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the key ring does not open: `cambio_environment` is \"test\", expected \"prod\""
    );
}

#[test]
fn k03_a_kek_that_others_can_read_is_none() {
    let folder = TempDir::new().unwrap();
    let good = URL_SAFE_NO_PAD.encode([7; 32]);
    let load = |name: &str, text: &str, mode: u32| {
        let path = private_file(&folder, name, text);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let loaded = KeyFile::load(&path).map(|_| ()).map_err(|error| error.to_string());
        fs::remove_file(&path).unwrap();
        let place = format!("the key-encryption key can't be had: `{}` ", path.display());
        loaded.map_err(|error| error.strip_prefix(&place).unwrap_or(&error).to_owned())
    };
    assert_eq!(load("kek", &good, 0o600), Ok(()));
    assert_eq!(load("kek", &format!("{good}\r\n"), 0o400), Ok(()));
    for mode in [0o640, 0o604, 0o660, 0o666, 0o644, 0o700, 0o610] {
        let expected = format!("has mode {mode:04o}, expected 0600 or 0400");
        assert_eq!(load("kek", &good, mode), Err(expected));
    }
    let not_base64 = Err("is not base64url without padding".to_owned());
    assert_eq!(load("kek", &format!("{good}="), 0o600), not_base64);
    assert_eq!(load("kek", &format!(" {good}"), 0o600), not_base64);
    assert_eq!(load("kek", "", 0o600), Err("does not hold 32 bytes".to_owned()));
    assert_eq!(load("kek", "c2hvcnQ", 0o600), Err("does not hold 32 bytes".to_owned()));
    assert_eq!(
        load("kek", &format!("{good}\n\n"), 0o600),
        Err("has more than one line".to_owned())
    );
    let long = "A".repeat(5_000);
    assert_eq!(load("kek", &long, 0o600), Err("has 5000 bytes, expected at most 4096".to_owned()));
    let absent = KeyFile::load(&folder.path().join("absent")).unwrap_err().to_string();
    assert!(absent.contains("can't be opened"), "{absent}");
    let directory = KeyFile::load(folder.path()).unwrap_err().to_string();
    assert!(directory.ends_with("is not a file"), "{directory}");
    let path = private_file(&folder, "passphrase", "fifteen letters");
    let short = PassphraseFile::load(&path).unwrap_err().to_string();
    assert!(short.ends_with("the passphrase has 15 bytes, expected at least 16"), "{short}");
}

#[tokio::test]
async fn k03_a_passphrase_is_stretched_and_no_header_stretches_it_otherwise() {
    let passphrase = "correct horse battery staple";
    let protector = PassphraseFile::of(Secret::from(passphrase.to_owned())).unwrap();
    let plain = Secret::from("a ring, for once".to_owned());
    let sealed = protector.wrap(&plain, &context(1)).await.unwrap();
    let header = jwe_header(&sealed);
    assert_eq!(header["alg"], "PBES2-HS512+A256KW");
    assert_eq!(header["p2c"], 600_000);
    let salt = URL_SAFE_NO_PAD.decode(header["p2s"].as_str().unwrap()).unwrap();
    assert_eq!(salt.len(), 16);
    // Refused before a round is made: this test would take hours otherwise.
    for (rounds, found) in [
        (json!(1), "1"),
        (json!(599_999), "599999"),
        (json!(1_000_001), "1000001"),
        (json!(u64::MAX), "18446744073709551615"),
        (json!("600000"), "0"),
        (json!(-1), "0"),
    ] {
        let mut header = header.clone();
        header["p2c"] = rounds;
        let (_, rest) = sealed.split_once('.').unwrap();
        let changed = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header.to_string()));
        let error = protector.unwrap(&changed, &context(1)).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("the key ring does not open: `p2c` is {found}, expected 600000 to 1000000")
        );
    }
    // Another implementation of JWE opens it (OpenSSL by way of josekit, told nothing of contexts).
    let decrypter = jwe::PBES2_HS512_A256KW.decrypter_from_bytes(passphrase).unwrap();
    let (opened, _) = jwe::deserialize_compact(&sealed, &decrypter).unwrap();
    assert_eq!(opened, plain.reveal());
}

fn jwe_header(sealed: &str) -> Value {
    let header = URL_SAFE_NO_PAD.decode(sealed.split('.').next().unwrap()).unwrap();
    serde_json::from_str(std::str::from_utf8(&header).unwrap()).unwrap()
}

#[tokio::test]
async fn k07_a_restored_ring_is_refused() {
    let bench = Bench::new();
    let rotator = bench.start().await;
    let old = bench.journal.sealed();
    bench.pass(3_600);
    rotator.rotate_now(Algorithm::ES256, false).await.unwrap();
    bench.journal.restore_row(Some(old));
    let found = "the stored key ring has epoch 3, the ledger's newest key entry has epoch 4";
    assert_eq!(bench.try_start().await.unwrap_err().to_string(), found);
    assert_eq!(
        rotator.turn().await.unwrap_err().to_string(),
        found,
        "nor does a running one follow"
    );
    assert_eq!(rotator.keyring().epoch(), 4);
    bench.journal.restore_row(None);
    assert_eq!(
        bench.try_start().await.unwrap_err().to_string(),
        "the stored key ring has epoch 0, the ledger's newest key entry has epoch 4"
    );
}

#[test]
fn k11_the_halves_of_a_key_are_kept_together() {
    for algorithm in [Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA, Algorithm::RS256] {
        let jwk = |seed: u8| {
            // Two keys of the independent implementation.
            let key = match algorithm {
                Algorithm::ES256 => josekit::jwk::Jwk::generate_ec_key(josekit::jwk::P_256),
                Algorithm::ES384 => josekit::jwk::Jwk::generate_ec_key(josekit::jwk::P_384),
                Algorithm::EdDSA => josekit::jwk::Jwk::generate_ed_key(josekit::jwk::Ed25519),
                _ => josekit::jwk::Jwk::generate_rsa_key(2048),
            };
            let mut members = key.unwrap().as_ref().clone();
            members.insert("kid".to_owned(), format!("{seed}").into());
            members
        };
        let (mut one, other) = (jwk(1), jwk(2));
        let fault = |jwk: &_| SigningKey::from_private_jwk(algorithm, jwk).unwrap_err().to_string();
        let told = |reason: &str| format!("key of algorithm `{algorithm}`: {reason}");
        assert_eq!(fault(&one), told("its `kid` is not its thumbprint"));
        one.insert("d".to_owned(), other["d"].clone());
        let found = fault(&one);
        let reasons =
            ["the private half does not fit the public one", "the numbers of the key do not parse"];
        assert!(reasons.iter().any(|reason| found == told(reason)), "{found}");
    }
}

#[tokio::test]
async fn k12_no_private_material_is_printed() {
    let bench = Bench::signing_with([Algorithm::ES256, Algorithm::EdDSA, Algorithm::RS256]);
    let rotator = bench.start().await;
    let (epoch, sealed) = bench.journal.sealed();
    let ring = Ring::open(&sealed, &context(epoch), &*bench.protector).await.unwrap();
    let schedule = Schedule::derive(terms([Algorithm::ES256])).unwrap();
    let mut printed = vec![
        format!("{rotator:?} {ring:?} {:?} {:?}", rotator.keyring(), bench.protector),
        format!("{:?} {:?}", Keyring::of(ring.clone(), schedule).unwrap(), ring.log_seed()),
        rotator.keyring().published(bench.clock_now()).document.to_string(),
    ];
    for record in ring.records() {
        printed.push(format!("{:?}", ring.key(&record.kid).unwrap()));
    }
    // An error about a damaged ring must not quote it.
    let plain = bench.protector.unwrap(&sealed, &context(epoch)).await.unwrap();
    let damaged = plain.reveal_text().unwrap().replace("\"first\"", "\"fist\"");
    let damaged = bench.protector.wrap(&Secret::from(damaged), &context(epoch)).await.unwrap();
    let error = Ring::open(&damaged, &context(epoch), &*bench.protector).await.unwrap_err();
    assert_eq!(error.to_string(), "the key ring is not sound: it is not our JWK Set");
    printed.push(format!("{error:?}"));
    let printed = printed.join("\n");
    let members = private_members(&bench).await;
    assert!(members.len() > 10);
    for member in members {
        assert!(!printed.contains(&member), "{member} is printed");
        let bytes = URL_SAFE_NO_PAD.decode(&member).unwrap();
        assert!(!printed.contains(&format!("{bytes:?}")), "{member} is printed as bytes");
    }
}

#[tokio::test]
async fn the_log_key_stays_the_same_and_is_never_published() {
    let bench = Bench::new();
    let rotator = bench.start().await;
    let seed = rotator.keyring().log_seed();
    assert_eq!(seed.reveal().len(), 32);
    bench.pass(3_600);
    rotator.rotate_now(Algorithm::ES256, false).await.unwrap();
    let again = bench.start().await;
    assert_eq!(again.keyring().log_seed(), seed);
    let document = again.keyring().published(bench.clock_now()).document;
    let set: Value = serde_json::from_str(&document).unwrap();
    for key in set["keys"].as_array().unwrap() {
        let names: Vec<_> = key.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, ["crv", "kty", "x", "y", "kid", "use", "alg"]);
        assert_eq!(key["use"], "sig");
    }
    assert_eq!(set["keys"].as_array().unwrap().len(), 3, "retired, active and prepared");
}

#[tokio::test]
async fn an_unsound_ring_does_not_open() {
    let bench = Bench::new();
    bench.start().await;
    let (epoch, sealed) = bench.journal.sealed();
    let plain = bench.protector.unwrap(&sealed, &context(epoch)).await.unwrap();
    let set: Value = serde_json::from_str(plain.reveal_text().unwrap()).unwrap();
    let fault = async |change: fn(&mut Value)| {
        let mut set = set.clone();
        change(&mut set);
        let sealed = bench.protector.wrap(&Secret::from(set.to_string()), &context(epoch)).await;
        let opened = Ring::open(&sealed.unwrap(), &context(epoch), &*bench.protector).await;
        let kid = set["cambio"]["records"][1]["kid"].as_str().unwrap_or("-").to_owned();
        opened.map(|ring| ring.epoch()).unwrap_err().to_string().replace(&kid, "K")
    };
    let not_sound = |reason: &str| format!("the key ring is not sound: {reason}");
    assert_eq!(
        fault(|set| set["cambio"]["records"][1]["phase"] = "active".into()).await,
        not_sound("key `K` is the second that signs with its algorithm")
    );
    assert_eq!(
        fault(|set| set["cambio"]["records"][1]["phase"] = "withdrawn".into()).await,
        not_sound("key `K` has a record and no private half, or is withdrawn and has one")
    );
    assert_eq!(
        fault(|set| set["keys"].as_array_mut().unwrap().truncate(2)).await,
        not_sound("it holds no log key")
    );
    assert_eq!(
        fault(|set| set["cambio"]["records"].as_array_mut().unwrap().truncate(1)).await,
        not_sound("a key has no record")
    );
    assert_eq!(
        fault(|set| set["cambio"]["version"] = 2.into()).await,
        not_sound("found version 2, expected 1")
    );
    assert_eq!(
        fault(|set| set["keys"][0]["crv"] = "P-384".into()).await,
        "key of algorithm `ES256`: found another key type or curve"
    );
}
