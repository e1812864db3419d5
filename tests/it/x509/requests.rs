//! Certificate requests: the key and the proof are taken, and nothing else.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose, SanType};
use x509_cert::{
    der::{Decode as _, DecodePem as _, Encode as _},
    ext::pkix::{self, SubjectAltName},
    request::CertReq,
};

use super::bench::{ask, broker, bundle, held, request, shake};
use crate::edge::surface::Answered;

/// A request for an RSA key of 1024 bits, as OpenSSL made it; its private half is gone.
const RSA_1024: &str = "MIIBTjCBuAIBADAPMQ0wCwYDVQQDDAR3ZWFrMIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC4saiDl_jzD4tgWNfkpe_8Bc2jjWkn2suS3K28prbKIrN_-Y-hvf_1lq9OYVNzDIjGGB5awCFWP3yXWCyWXnwf2HD3e1MStVOf1sGvakJXgmdOZUaK18HfHuD4czucFgg2WxLHGCZPxQtEZFLup2Rr0zL3xb984Tsem2wXM_y3AwIDAQABoAAwDQYJKoZIhvcNAQELBQADgYEABmmBzT69E_EThIXzBgB5afAkw09MkaStnr5tztVbKrTOoA6ZB724XQYhl24spn1AvBc5dMDaNS2qTwHbKRFeQ-X9MKbKFPxKqxR5oA2Gd14ICbpUyMpvciMmnU1H8qJxfgqGQaty6mOjG5JjLUVamWHXCbrnOFzQGsnYwmsYwOQ";
/// The same for a key on secp256k1.
const SECP256K1: &str = "MIHEMGwCAQAwDTELMAkGA1UEAwwCazEwVjAQBgcqhkjOPQIBBgUrgQQACgNCAAShz6zeJfwfbFd5rmvHDsOC22Zl3LQGkbDBIROHce7JvllNeDHUzA3vFrIJ78EeShX1DukNvApsjcP04zDktwjCoAAwCgYIKoZIzj0EAwIDSAAwRQIhAKhN82IkA7_RxntBa7NuYNVQYE_QU0FhZ66Q7LjF7aoAAiBjDyDFDKTOnDi87Xe3kPAvbUnLrkmd_w4Ga6_Z6a7KxQ";

fn der(pem: &str) -> Vec<u8> {
    CertReq::from_pem(pem).unwrap().to_der().unwrap()
}

#[track_caller]
fn refused(answer: &Answered) -> String {
    let (status, code, words) = answer.error();
    assert_eq!((status, code.as_str()), (400, "invalid_request"), "{words}");
    words
}

#[tokio::test]
async fn a_request_is_read_as_pem_and_as_base64url() {
    let broker = broker().await;
    let (pair, pem) = request(&rcgen::PKCS_ECDSA_P256_SHA256);
    let bundle = bundle(&broker, "x509/orders").await;
    for csr in [pem.clone(), pem.replace('\n', "\r\n"), URL_SAFE_NO_PAD.encode(der(&pem))] {
        let held = held(&ask(&broker, "x509/orders", "reader", Some(&csr)).await, Some(&pair));
        shake(&held, &bundle, broker.now()).await.unwrap();
    }
}

#[tokio::test]
async fn a_request_that_is_not_signed_by_its_own_key_is_refused() {
    let broker = broker().await;
    let (_, pem) = request(&rcgen::PKCS_ECDSA_P256_SHA256);
    let mine = CertReq::from_pem(&pem).unwrap();
    let (_, pem) = request(&rcgen::PKCS_ECDSA_P256_SHA256);
    let stranger = CertReq::from_pem(&pem).unwrap();
    // Somebody else's key, with a proof of mine.
    let grafted = CertReq { info: stranger.info.clone(), ..mine.clone() };
    let mut flipped = mine.to_der().unwrap();
    *flipped.last_mut().unwrap() ^= 1;
    for bad in [grafted.to_der().unwrap(), flipped] {
        let csr = URL_SAFE_NO_PAD.encode(bad);
        let words = refused(&ask(&broker, "x509/orders", "reader", Some(&csr)).await);
        assert_eq!(words, "the signature of `csr` is not by its own key");
    }
    assert!(broker.exchanges().await.iter().all(|line| line.text("credential").is_empty()));
}

#[tokio::test]
async fn j14_a_weak_key_or_one_of_another_kind_is_refused() {
    let broker = broker().await;
    let weak = refused(&ask(&broker, "x509/orders", "reader", Some(RSA_1024)).await);
    assert_eq!(weak, "the key of `csr` is too weak, or is none");
    let kind = refused(&ask(&broker, "x509/orders", "reader", Some(SECP256K1)).await);
    assert!(kind.starts_with("the key of `csr` is of a kind that is not taken"), "{kind}");
}

#[tokio::test]
async fn what_is_no_request_or_too_much_of_one_is_refused() {
    let broker = broker().await;
    let (pair, pem) = request(&rcgen::PKCS_ECDSA_P256_SHA256);
    let der = der(&pem);
    let certificate = CertificateParams::default().self_signed(&pair).unwrap();
    let mut longer = der.clone();
    longer.push(0);
    for (bad, words) in [
        ("x".to_owned(), "is no certificate request"),
        (certificate.pem(), "is no certificate request"),
        (pair.serialize_pem(), "is no certificate request"),
        (URL_SAFE_NO_PAD.encode(longer), "is no certificate request"),
        (URL_SAFE_NO_PAD.encode(&der[..der.len() - 1]), "is no certificate request"),
        (format!("{pem}{pem}"), "is no certificate request"),
        (format!("{}=", URL_SAFE_NO_PAD.encode(&der)), "is no certificate request"),
        ("A".repeat(8_193), "is too large"),
    ] {
        let found = refused(&ask(&broker, "x509/orders", "reader", Some(&bad)).await);
        assert!(found.contains(words), "{bad}: {found}");
        // A private key that came by mistake is not told on.
        assert!(!found.contains("PRIVATE"), "{found}");
    }
}

#[tokio::test]
async fn names_and_extensions_that_a_request_asks_for_are_not_in_the_certificate() {
    let broker = broker().await;
    let pair = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["postgres.example".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "postgres");
    params.distinguished_name.push(DnType::OrganizationName, "evil");
    params.subject_alt_names.push(SanType::URI("spiffe://test.example/admin".try_into().unwrap()));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    // rcgen writes no constraints into a request, so the wishes are what it does write: subject, names, usages.
    params.is_ca = IsCa::NoCa;
    let csr = params.serialize_request(&pair).unwrap().pem().unwrap();
    let asked = CertReq::from_pem(&csr).unwrap();
    assert!(asked.info.subject.to_string().contains("postgres"));
    assert!(!asked.info.attributes.is_empty());
    let held = held(&ask(&broker, "x509/orders", "reader", Some(&csr)).await, Some(&pair));
    let made = held.parsed().tbs_certificate;
    assert_eq!(made.subject.to_string(), "CN=orders_reader");
    assert!(made.get::<SubjectAltName>().unwrap().is_none());
    let usage = made.get::<pkix::KeyUsage>().unwrap().unwrap().1;
    assert!(!usage.key_cert_sign());
    let mut bytes = String::new();
    for byte in made.to_der().unwrap() {
        write!(bytes, "{}", char::from(byte)).unwrap();
    }
    assert!(!bytes.contains("postgres") && !bytes.contains("evil"));
}

#[tokio::test]
async fn a_target_that_makes_no_keys_wants_a_request_and_other_kinds_refuse_one() {
    let broker = broker().await;
    let words = refused(&ask(&broker, "x509/billing", "reader", None).await);
    assert_eq!(words, "`csr` is missing: this target makes no private keys");
    let (_, csr) = request(&rcgen::PKCS_ECDSA_P256_SHA256);
    let words = refused(&ask(&broker, "jwt/orders", "read", Some(&csr)).await);
    assert_eq!(words, "`csr` is for targets of kind `x509`");
}

#[test]
fn a_request_is_der_and_nothing_else() {
    let (_, pem) = request(&rcgen::PKCS_ECDSA_P256_SHA256);
    assert!(CertReq::from_der(&der(&pem)).is_ok());
}
