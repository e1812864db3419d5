//! TLS: the versions, and the certificate that is replaced while we run.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};

use cambio::{
    edge::{
        Proxies,
        listen::{self, Terms},
        router,
        tls::Tls,
    },
    telemetry::Metrics,
};
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::surface::{FakeExchanges, surface};

fn pair() -> CertifiedKey<KeyPair> {
    generate_simple_self_signed(["broker.example".to_owned()]).unwrap()
}

fn write(folder: &Path, pair: &CertifiedKey<KeyPair>) {
    fs::write(folder.join("chain.pem"), pair.cert.pem()).unwrap();
    crate::support::write_private(&folder.join("key.pem"), pair.signing_key.serialize_pem());
}

fn load(folder: &Path) -> Result<Tls, cambio::edge::tls::TlsError> {
    Tls::load(folder.join("chain.pem"), folder.join("key.pem"))
}

/// `GET /jwks` by a client that trusts `certificate` alone: the status line, and the ALPN protocol that was agreed.
async fn ask(
    tls: &Arc<Tls>,
    certificate: &CertificateDer<'static>,
    version: &'static SupportedProtocolVersion,
) -> Result<(String, Option<Vec<u8>>), std::io::Error> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let stop = CancellationToken::new();
    let app = router(surface(&Arc::new(FakeExchanges::default())));
    let terms = Terms::public(10, Proxies::default(), Arc::new(Metrics::new()));
    #[expect(clippy::disallowed_methods, reason = "a test's own task")]
    tokio::spawn(listen::serve(listener, Some(tls.clone()), app, terms, stop.clone()));
    let _stop = stop.drop_guard();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = ServerName::try_from("broker.example").unwrap();
    let tcp = TcpStream::connect(address).await?;
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
    stream.write_all(b"GET /jwks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
    let mut said = Vec::new();
    stream.read_to_end(&mut said).await?;
    let said = String::from_utf8_lossy(&said);
    let agreed = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    Ok((said.lines().next().unwrap_or_default().to_owned(), agreed))
}

#[test]
fn when_the_certificate_ends_is_told_and_told_anew_after_a_reload() {
    let folder = tempfile::tempdir().unwrap();
    let until = |year| {
        let mut params = rcgen::CertificateParams::new(["broker.example".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let signing_key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&signing_key).unwrap();
        write(folder.path(), &CertifiedKey { cert, signing_key });
    };
    until(2030);
    let tls = load(folder.path()).unwrap();
    assert_eq!(tls.ends().seconds(), 1_893_456_000);
    until(2031);
    tls.reload().unwrap();
    assert_eq!(tls.ends().seconds(), 1_924_992_000);
}

#[tokio::test]
async fn tls_1_2_and_1_3_are_spoken_and_http_2_is_not_offered() {
    let folder = tempfile::tempdir().unwrap();
    let pair = pair();
    write(folder.path(), &pair);
    let tls = Arc::new(load(folder.path()).unwrap());
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let (line, protocol) = ask(&tls, pair.cert.der(), version).await.unwrap();
        assert_eq!(
            (line.as_str(), protocol.as_deref()),
            ("HTTP/1.1 200 OK", Some(&b"http/1.1"[..]))
        );
    }
}

#[tokio::test]
async fn a_new_pair_is_taken_up_and_a_bad_one_keeps_the_old() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (pair(), pair());
    write(folder.path(), &old);
    let tls = Arc::new(load(folder.path()).unwrap());
    assert!(!tls.reload_if_changed().unwrap());

    // Half a replacement: the certificate is there, its key not yet.
    fs::write(folder.path().join("chain.pem"), new.cert.pem()).unwrap();
    let error = tls.reload().unwrap_err().to_string();
    assert!(error.contains("can't be used together"), "{error}");
    assert!(ask(&tls, old.cert.der(), &rustls::version::TLS13).await.is_ok());

    write(folder.path(), &new);
    tls.reload().unwrap();
    assert!(ask(&tls, new.cert.der(), &rustls::version::TLS13).await.is_ok());
    assert!(ask(&tls, old.cert.der(), &rustls::version::TLS13).await.is_err());
}

/// A renewal by a tool with a loose umask: the old pair goes on, loudly, until the new one is nobody else's.
#[test]
fn k12_a_renewed_pair_that_others_may_read_or_change_is_not_taken_up() {
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let folder = tempfile::tempdir().unwrap();
    let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
    write(folder.path(), &pair());
    let tls = load(folder.path()).unwrap();
    write(folder.path(), &pair());
    let before = tls.current();
    for (path, loose, strict, expected) in [
        (&key, 0o666, 0o600, "key.pem` can't be read: it has mode 0666, expected 0600 or 0400"),
        (&key, 0o644, 0o600, "key.pem` can't be read: it has mode 0644"),
        (
            &chain,
            0o646,
            0o644,
            "chain.pem` can't be read: it has mode 0646: anyone may write to it",
        ),
    ] {
        mode(path, loose);
        let told = tls.reload().unwrap_err().to_string();
        assert!(told.contains(expected), "{told}");
        assert!(Arc::ptr_eq(&before, &tls.current()));
        mode(path, strict);
    }
    tls.reload().unwrap();
    assert!(!Arc::ptr_eq(&before, &tls.current()));
}

#[test]
fn files_that_hold_nothing_useful_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = load(folder.path()).unwrap_err().to_string();
    assert!(missing.contains("chain.pem` can't be read"), "{missing}");
    let pair = pair();
    write(folder.path(), &pair);
    crate::support::write_private(&folder.path().join("key.pem"), pair.cert.pem());
    let no_key = load(folder.path()).unwrap_err().to_string();
    assert!(no_key.contains("key.pem` holds no private key"), "{no_key}");
    fs::write(folder.path().join("chain.pem"), "").unwrap();
    let no_chain = load(folder.path()).unwrap_err().to_string();
    assert!(no_chain.contains("chain.pem` holds no certificate"), "{no_chain}");
}
