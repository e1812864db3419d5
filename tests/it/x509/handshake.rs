//! What a server that believes a bundle makes of our certificates: rustls and webpki, which share no code with their maker.

use std::{sync::Arc, time::Duration};

use ::aws_lc_rs::digest;
use cambio::ledger::entry::Kind;
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};
use x509_cert::{
    der::Encode as _,
    ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages},
};

use super::bench::{ask, broker, bundle, held, request, shake, spki};
use crate::support::token::NOW;

#[tokio::test]
async fn a_certificate_opens_a_server_that_believes_the_targets_bundle() {
    let broker = broker().await;
    let bundle = bundle(&broker, "x509/orders").await;
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
    ] {
        let (pair, csr) = request(algorithm);
        let held = held(&ask(&broker, "x509/orders", "reader", Some(&csr)).await, Some(&pair));
        shake(&held, &bundle, broker.now()).await.unwrap();
        let certified = held.parsed().tbs_certificate.subject_public_key_info.to_der().unwrap();
        assert_eq!(certified, spki(&pair), "the caller's key and no other");
    }
    let made_here = held(&ask(&broker, "x509/orders", "reader", None).await, None);
    shake(&made_here, &bundle, broker.now()).await.unwrap();
}

#[tokio::test]
async fn the_certificate_of_one_target_is_nothing_to_another() {
    let broker = broker().await;
    let (orders, billing) =
        (bundle(&broker, "x509/orders").await, bundle(&broker, "x509/billing").await);
    let (pair, csr) = request(&rcgen::PKCS_ECDSA_P256_SHA256);
    let held = held(&ask(&broker, "x509/billing", "reader", Some(&csr)).await, Some(&pair));
    shake(&held, &billing, broker.now()).await.unwrap();
    let error = shake(&held, &orders, broker.now()).await.unwrap_err().to_string();
    assert!(error.contains("UnknownIssuer"), "{error}");
}

#[tokio::test]
async fn x10_never_outlive_a_certificate_is_refused_from_the_second_on_that_was_promised() {
    let broker = broker().await;
    let bundle = bundle(&broker, "x509/orders").await;
    let answer = ask(&broker, "x509/orders", "reader", None).await;
    assert_eq!(answer.json()["expires_in"], 900);
    let held = held(&answer, None);
    let end = broker.now().plus(Duration::from_secs(900));
    let second = Duration::from_secs(1);
    shake(&held, &bundle, end.minus(second)).await.unwrap();
    let error = shake(&held, &bundle, end).await.unwrap_err().to_string();
    assert!(error.contains("certificate expired"), "{error}");
    // A server whose clock is a minute behind believes it at once, and one that is further behind does not.
    let minute = Duration::from_secs(60);
    shake(&held, &bundle, broker.now().minus(minute)).await.unwrap();
    let early = shake(&held, &bundle, broker.now().minus(minute + second)).await;
    let early = early.unwrap_err().to_string();
    assert!(early.contains("not valid yet"), "{early}");
}

#[tokio::test]
async fn a_certificate_is_a_clients_and_its_ca_speaks_for_no_server() {
    let broker = broker().await;
    let bundle = bundle(&broker, "x509/orders").await;
    let held = held(&ask(&broker, "x509/orders", "job", None).await, None);
    let leaf = held.parsed().tbs_certificate;
    let (critical, constraints) = leaf.get::<BasicConstraints>().unwrap().unwrap();
    assert!(critical && !constraints.ca);
    let usage = leaf.get::<KeyUsage>().unwrap().unwrap();
    assert_eq!(usage, (true, KeyUsage(KeyUsages::DigitalSignature.into())));
    let extended = leaf.get::<ExtendedKeyUsage>().unwrap().unwrap().1;
    assert_eq!(
        extended.0.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["1.3.6.1.5.5.7.3.2"]
    );
    // Put among the roots of a machine by mistake, the CA still makes no server.
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(bundle.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let verdict = verifier.verify_server_cert(
        &CertificateDer::from_pem_slice(held.certificate.as_bytes()).unwrap(),
        &[],
        &ServerName::try_from("job.test.example").unwrap(),
        &[],
        UnixTime::since_unix_epoch(Duration::from_secs(NOW)),
    );
    assert!(format!("{verdict:?}").contains("InvalidPurpose"), "{verdict:?}");
}

#[tokio::test]
async fn the_authority_signs_clients_without_an_intermediate_and_for_no_address() {
    let broker = broker().await;
    let bundle = bundle(&broker, "x509/orders").await;
    let roots = x509_cert::Certificate::load_pem_chain(bundle.as_bytes()).unwrap();
    assert_eq!(roots.len(), 2, "the one that signs, and the announced one");
    for root in roots {
        let root = root.tbs_certificate;
        let (critical, constraints) = root.get::<BasicConstraints>().unwrap().unwrap();
        assert!(critical && constraints.ca);
        assert_eq!(constraints.path_len_constraint, Some(0));
        let usage = root.get::<KeyUsage>().unwrap().unwrap();
        assert_eq!(usage, (true, KeyUsage(KeyUsages::KeyCertSign.into())));
        let names = root.get::<x509_cert::ext::pkix::NameConstraints>().unwrap().unwrap();
        assert!(names.0 && names.1.excluded_subtrees.is_some_and(|all| all.len() == 2));
        assert_eq!(root.subject, root.issuer);
        assert!(root.get::<x509_cert::ext::pkix::SubjectAltName>().unwrap().is_none());
    }
}

#[tokio::test]
async fn no_answer_without_entry_the_ledger_holds_the_digest_of_the_signed_bytes_and_the_ca() {
    let broker = broker().await;
    let held = held(&ask(&broker, "x509/orders", "reader", None).await, None);
    let lines = broker.exchanges().await;
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    assert_eq!(line.kind, Kind::Granted);
    let certificate = held.parsed();
    let signed = certificate.tbs_certificate.to_der().unwrap();
    let digest = digest::digest(&digest::SHA256, &signed);
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(line.text("signing_input"), hex);
    assert_eq!(line.text("kid"), held.credential["issuer_key"]);
    assert_eq!(line.text("credential"), held.credential["serial"]);
    let serial = certificate.tbs_certificate.serial_number;
    let serial: String = serial.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(serial.trim_start_matches("00"), held.credential["serial"]);
}

#[tokio::test]
async fn secrets_do_not_print_the_private_key_is_nowhere_but_in_the_answer() {
    let broker = broker().await;
    let answer = ask(&broker, "x509/orders", "reader", None).await;
    assert_eq!(answer.header("cache-control"), "no-store");
    let held = held(&answer, None);
    let inside = held.key.lines().nth(1).unwrap().to_owned();
    let told = format!("{:?} {:?}", broker.lines().await, broker.rotator);
    assert!(!told.contains(&inside));
}

#[tokio::test]
async fn a_bundle_is_cached_like_the_key_set_and_only_targets_with_a_ca_have_one() {
    let broker = broker().await;
    let answer = broker.read("/ca/x509/orders.pem").await;
    assert_eq!(answer.header("content-type"), "application/pem-certificate-chain");
    assert_eq!(answer.header("cache-control"), "public, max-age=300");
    assert!(answer.header("etag").starts_with('"'));
    for none in
        ["/ca/jwt/orders.pem", "/ca/x509/orders", "/ca/x509/orders.pem/", "/ca/.pem", "/ca/"]
    {
        assert_eq!(broker.read(none).await.status, 404, "{none}");
    }
    let metadata = broker.read("/.well-known/oauth-authorization-server").await.json();
    assert_eq!(metadata["cambio_ca_bundle"], "https://cambio.example/ca/{target}.pem");
    let jwks = broker.read("/jwks").await.body;
    let key = ask(&broker, "x509/orders", "reader", None).await.json()["credential"]["issuer_key"]
        .clone();
    assert!(!jwks.contains(key.as_str().unwrap()), "a CA key is no token key");
}
