//! A broker with two targets that get certificates, and a TLS server that believes a bundle at a time of the test's choice.

use std::{io, sync::Arc, time::Duration};

use cambio::clock::Instant;
use rcgen::{
    CertificateParams, KeyPair, PublicKeyData, SignatureAlgorithm, generate_simple_self_signed,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    server::WebPkiClientVerifier,
    time_provider::TimeProvider,
};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use x509_cert::{Certificate, der::DecodePem as _};

use crate::{
    edge::surface::Answered,
    support::{
        broker::{Broker, form},
        site::Site,
    },
};

pub(crate) const TARGETS: &str = r#"targets:
  - name: x509/orders
    kind: x509
    environment: test
    roles:
      reader: { common_name: orders_reader }
      job: { spiffe_id: "spiffe://test.example/github/{repository_id}/{ref}", dns: [job.test.example] }
      tool: { common_name: tool, uri: ["urn:example:tool"] }
    granted_by: [orders.yaml]
    ceiling: 30m
    sign_for: 2h
    bundle_cache: 1h
  - name: x509/billing
    kind: x509
    environment: test
    roles: { reader: { common_name: orders_reader } }
    granted_by: [orders.yaml]
    require_csr: true
    sign_for: 2h
    bundle_cache: 1h
"#;

const RULES: &str = r#"
version: 1
rules:
  - id: certificates
    issuer: github
    when: { repository_id: "1296269", event_name: push }
    grants:
      - { target: x509/orders, role: reader, lifetime: 15m }
      - { target: x509/orders, role: job, lifetime: 15m }
      - { target: x509/orders, role: tool, lifetime: 15m }
      - { target: x509/billing, role: reader, lifetime: 15m }
      - { target: jwt/orders, role: read, lifetime: 5m }
    replay: reusable
"#;

/// A site whose configuration has both targets.
pub(crate) fn site() -> Site {
    let site = Site::new();
    site.edit("cambio.yaml", "targets:\n", TARGETS);
    site.write("policies/orders.yaml", RULES);
    site
}

pub(crate) async fn broker() -> Broker {
    Broker::start_at(site(), |_| {}).await
}

/// Asks for role `role` of `target`, as a job of now.
pub(crate) async fn ask(broker: &Broker, target: &str, role: &str, csr: Option<&str>) -> Answered {
    let token = broker.site.job().issued_at(broker.now().seconds(), 300).sign();
    ask_with(broker, &token, &format!("audience={target}&scope={role}"), csr).await
}

pub(crate) async fn ask_with(
    broker: &Broker,
    token: &str,
    wants: &str,
    csr: Option<&str>,
) -> Answered {
    let csr = csr.map(|csr| {
        let escaped: String = form_urlencoded::byte_serialize(csr.as_bytes()).collect();
        format!("&csr={escaped}")
    });
    broker.post_token(&form(token, &format!("{wants}{}", csr.unwrap_or_default()))).await
}

/// A certificate and the private key that goes with it.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) certificate: String,
    pub(crate) key: String,
    pub(crate) credential: Value,
}

impl Held {
    pub(crate) fn parsed(&self) -> Certificate {
        Certificate::from_pem(&self.certificate).unwrap()
    }
}

/// What `answer` gave; the key is the caller's own, or came along.
#[track_caller]
pub(crate) fn held(answer: &Answered, own: Option<&KeyPair>) -> Held {
    assert_eq!(answer.status, 200, "{}", answer.body);
    let body = answer.json();
    assert_eq!(body["issued_token_type"], "urn:cambio:token-type:x509");
    let credential: Value = serde_json::from_str(body["access_token"].as_str().unwrap()).unwrap();
    assert_eq!(credential, body["credential"]);
    let came = credential["private_key"].as_str().map(str::to_owned);
    assert_eq!(came.is_some(), own.is_none(), "a key travels only if the caller brought none");
    Held {
        certificate: credential["certificate"].as_str().unwrap().to_owned(),
        key: came.unwrap_or_else(|| own.unwrap().serialize_pem()),
        credential,
    }
}

/// A pair and its certificate request, as PEM.
pub(crate) fn request(algorithm: &'static SignatureAlgorithm) -> (KeyPair, String) {
    let pair = KeyPair::generate_for(algorithm).unwrap();
    let request = CertificateParams::default().serialize_request(&pair).unwrap();
    (pair, request.pem().unwrap())
}

pub(crate) async fn bundle(broker: &Broker, target: &str) -> String {
    let answer = broker.read(&format!("/ca/{target}.pem")).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

/// One time, for whoever asks.
#[derive(Debug)]
struct At(Instant);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.seconds())))
    }
}

/// Shakes hands as a client with `held`, with a server that believes `bundle` and whose clock shows `at`; says what the server
/// made of it.
pub(crate) async fn shake(held: &Held, bundle: &str, at: Instant) -> Result<(), io::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut believed = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        believed.add(root.unwrap()).unwrap();
    }
    let own = generate_simple_self_signed(["server.example".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(believed), Arc::clone(&provider));
    let server = ServerConfig::builder_with_details(Arc::clone(&provider), Arc::new(At(at)))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(own.cert.der().clone()).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(held.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(held.key.as_bytes()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    let (here, there) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from("server.example").unwrap();
    let accepting = async {
        let mut stream = TlsAcceptor::from(Arc::new(server)).accept(there).await?;
        stream.write_all(b"welcome").await?;
        stream.shutdown().await
    };
    let connecting = async {
        let mut said = Vec::new();
        let mut stream = TlsConnector::from(Arc::new(client)).connect(name, here).await?;
        stream.read_to_end(&mut said).await.map(|_| said)
    };
    let (accepted, said) = tokio::join!(accepting, connecting);
    accepted?;
    assert_eq!(said?, b"welcome");
    Ok(())
}

/// The `SubjectPublicKeyInfo` of `pair`.
pub(crate) fn spki(pair: &KeyPair) -> Vec<u8> {
    pair.subject_public_key_info()
}
