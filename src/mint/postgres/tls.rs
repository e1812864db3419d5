//! TLS towards a server: 1.2 and 1.3 by aws-lc-rs, chain and name always verified.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use rustls_platform_verifier::Verifier;

/// A client that believes the roots in `ca_file`, or else those of the machine.
///
/// # Errors
/// There are no roots.
pub(super) fn client(ca_file: Option<&Path>) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS client: {error}"))?;
    if let Some(path) = ca_file {
        return Ok(builder.with_root_certificates(roots(path)?).with_no_client_auth());
    }
    let verifier = Verifier::new(provider).map_err(|error| {
        format!(
            "this machine has no trust roots to check the server's certificate with ({error}): install a CA bundle, or name \
             one in `tls.ca_file`"
        )
    })?;
    Ok(builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

fn roots(path: &Path) -> Result<RootCertStore, String> {
    let fail = |reason: String| format!("CA file `{}` {reason}", path.display());
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path)
        .map_err(|error| fail(format!("can't be read: {error}")))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| fail(format!("is not PEM: {error}")))?;
        let added = roots.add(certificate);
        added.map_err(|error| fail(format!("holds a certificate that is no root: {error}")))?;
    }
    if roots.is_empty() {
        return Err(fail("holds no certificate".to_owned()));
    }
    Ok(roots)
}
