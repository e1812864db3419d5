//! What all outbound HTTP of ours has in common: one TLS stack with named roots, no redirects, bodies with an end, and no
//! token in the clear.

use std::{fs, io, path::Path, sync::Arc, time::Duration};

use reqwest::{
    Client, ClientBuilder, Proxy, RequestBuilder, Response, StatusCode,
    header::{CONTENT_ENCODING, HeaderMap},
    redirect,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use rustls_platform_verifier::Verifier;
use thiserror::Error;
use url::{Host, Url};

/// Why there is no client, or no answer. Never holds a credential.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum WebError {
    /// The platform has not one trust root.
    #[error(
        "this machine has no trust roots to check certificates with ({0}): install a CA bundle"
    )]
    NoRoots(String),
    /// The client can't be built: a bad CA file, a bad proxy.
    #[error("{0}")]
    Setup(String),
    /// Nobody listens, the name is unknown: nothing was sent.
    #[error("{0}")]
    NotConnected(String),
    /// TLS was refused, by us or by them: nothing was sent, and trying again does not heal it.
    #[error("{0}")]
    NoTls(String),
    /// The request may have arrived; no whole answer came back, or none in time.
    #[error("{0}")]
    NoAnswer(String),
    /// More than the cap.
    #[error("the answer has more than {limit} bytes")]
    TooLong {
        /// The cap.
        limit: usize,
    },
    /// A compressed body would grow past every cap (threat D08).
    #[error("the answer has a content encoding, expected none")]
    Encoded,
}

/// Who may vouch for a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Roots<'a> {
    /// The machine's trust roots.
    Platform,
    /// Those, and the ones in this PEM file.
    Also(&'a Path),
    /// The roots in this PEM file, in place of the machine's.
    Only(&'a Path),
    /// Nobody: for plain http, where no certificate is ever looked at.
    Nobody,
}

/// TLS 1.2 and 1.3 by aws-lc-rs, named here rather than taken from a process-wide default that somebody else may set.
///
/// # Errors
/// There is no trust root to check certificates with, or a PEM file holds none.
pub fn tls(roots: Roots<'_>) -> Result<ClientConfig, WebError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| WebError::Setup(format!("TLS client: {error}")))?;
    let extra = match roots {
        Roots::Nobody => {
            return Ok(builder
                .with_root_certificates(RootCertStore::empty())
                .with_no_client_auth());
        }
        Roots::Only(path) => {
            let mut store = RootCertStore::empty();
            for certificate in certificates(path)? {
                store.add(certificate).map_err(|error| {
                    ca_file(path, &format!("holds a certificate that is not a root: {error}"))
                })?;
            }
            return Ok(builder.with_root_certificates(store).with_no_client_auth());
        }
        Roots::Also(path) => certificates(path)?,
        Roots::Platform => Vec::new(),
    };
    // Without a single root this is an error here, not a panic or a failure of every later fetch.
    let verifier = Verifier::new_with_extra_roots(extra, provider)
        .map_err(|error| WebError::NoRoots(error.to_string()))?;
    Ok(builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, WebError> {
    let pem = fs::read(path).map_err(|error| ca_file(path, &format!("can't be read: {error}")))?;
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        found.push(certificate.map_err(|error| ca_file(path, &format!("is not PEM: {error}")))?);
    }
    if found.is_empty() {
        return Err(ca_file(path, "holds no certificate"));
    }
    Ok(found)
}

fn ca_file(path: &Path, reason: &str) -> WebError {
    WebError::Setup(format!("CA file `{}` {reason}", path.display()))
}

/// What a client may be told: nothing of this comes from the environment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reaching<'a> {
    /// Root certificates (PEM) to trust besides the machine's.
    pub ca_file: Option<&'a Path>,
    /// Root certificates (PEM) to trust in place of the machine's, and of `ca_file`.
    pub only_ca_file: Option<&'a Path>,
    /// An HTTP proxy for https, which is tunnelled through it (`CONNECT`). Plain http never takes it.
    pub proxy: Option<&'a str>,
    /// A Unix socket to speak through, in place of the network.
    pub unix_socket: Option<&'a Path>,
}

/// How long a server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a server may take until the last byte of its answer.
const TOTAL: Duration = Duration::from_secs(30);
/// How long an unused connection is kept: shorter than servers do (an API server of Kubernetes: 90 s), so that no request meets one that
/// is just being closed.
const IDLE: Duration = Duration::from_secs(30);

/// A client for requests to `url`'s origin: no redirects, no retries of its own, no proxy but a named one.
///
/// # Errors
/// The CA file or the proxy is none, or there are no trust roots.
pub fn client(url: &Url, reaching: Reaching<'_>) -> Result<Client, WebError> {
    let setup =
        |error: reqwest::Error| WebError::Setup(format!("no HTTP client: {}", causes(&error)));
    let plain = url.scheme() == "http";
    let roots = match (reaching.only_ca_file, reaching.ca_file) {
        // Said at once, and not on the day on which the URL becomes https.
        (Some(path), _) | (None, Some(path)) if plain => {
            certificates(path)?;
            Roots::Nobody
        }
        (Some(path), _) => Roots::Only(path),
        (None, Some(path)) => Roots::Also(path),
        (None, None) if plain => Roots::Nobody,
        (None, None) => Roots::Platform,
    };
    let mut builder: ClientBuilder = Client::builder()
        .tls_backend_preconfigured(tls(roots)?)
        .https_only(!plain)
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .referer(false)
        .connect_timeout(CONNECT)
        .timeout(TOTAL)
        .pool_idle_timeout(IDLE)
        .user_agent(concat!("cambio/", env!("CARGO_PKG_VERSION")));
    if let (Some(proxy), false) = (reaching.proxy, plain) {
        builder = builder.proxy(Proxy::https(proxy).map_err(setup)?);
    }
    if let Some(path) = reaching.unix_socket {
        builder = builder.unix_socket(path);
    }
    builder.build().map_err(setup)
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answered {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Body,
}

/// Bytes that may be a credential: they do not print.
pub struct Body(pub Vec<u8>);

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Body({} bytes)", self.0.len())
    }
}

/// Sends, and reads at most `limit` bytes of the answer.
///
/// # Errors
/// No whole answer of at most `limit` bytes came.
pub async fn send(request: RequestBuilder, limit: usize) -> Result<Answered, WebError> {
    let response = request.send().await.map_err(|error| {
        let (unsent, tls) = (error.is_connect() || error.is_builder(), is_tls(&error));
        // The URL may carry what is asked for; the caller knows whom it asked.
        let reason = causes(&error.without_url());
        match (unsent, tls) {
            (true, true) => WebError::NoTls(reason),
            (true, false) => WebError::NotConnected(reason),
            (false, _) => WebError::NoAnswer(reason),
        }
    })?;
    let (status, headers) = (response.status(), response.headers().clone());
    if headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(WebError::Encoded);
    }
    Ok(Answered { status, headers, body: Body(body(response, limit).await?) })
}

/// Whether TLS is to blame. An `io::Error` hides what is in it from `source`.
fn is_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<rustls::Error>() {
            return true;
        }
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inside) => Some(inside),
            None => error.source(),
        };
    }
    false
}

async fn body(mut response: Response, limit: usize) -> Result<Vec<u8>, WebError> {
    let mut body = Vec::new();
    loop {
        let chunk = response.chunk().await;
        match chunk.map_err(|error| WebError::NoAnswer(causes(&error.without_url())))? {
            None => return Ok(body),
            Some(chunk) if body.len().saturating_add(chunk.len()) > limit => {
                return Err(WebError::TooLong { limit });
            }
            Some(chunk) => body.extend_from_slice(&chunk),
        }
    }
}

/// `text` as a URL that a secret may be sent to: https, or http to this machine; nothing in it but origin and path.
///
/// # Errors
/// It is no such URL, with the reason in words that begin with the text.
pub fn safe_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("`{text}`: {error}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        // Not repeated: whoever writes one there means a password.
        return Err("the URL carries a user name or a password, expected none".to_owned());
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        _ => Err(format!("`{text}` is neither https nor http on loopback")),
    }
}

/// Whether `url` stays on this machine.
#[must_use]
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// An error and what caused it, joined with colons.
#[must_use]
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_goes_over_tls_or_stays_on_this_machine() {
        for good in
            ["https://cambio.example", "http://127.0.0.1:1/x", "http://[::1]:2", "http://localhost"]
        {
            assert!(safe_url(good).is_ok(), "{good}");
        }
        for bad in [
            "http://cambio.example",
            "http://127.0.0.1.evil.example",
            "http://localhost@evil.example",
            "https://user:word@cambio.example",
            "ftp://localhost",
            "cambio",
        ] {
            assert!(safe_url(bad).is_err(), "{bad}");
        }
    }
}
