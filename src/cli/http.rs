//! The command line's HTTP client: bounded, without redirects, and never a token over plain http but on loopback.

use std::{fs, path::Path, time::Duration};

use reqwest::{Certificate, Client, RequestBuilder, StatusCode, redirect};
use url::{Host, Url};

use super::Failure;

/// More than any answer of a broker or of the sandbox.
const LIMIT: usize = 1024 * 1024;

/// A client that trusts the machine's roots, and those of `ca_file` besides.
pub(super) fn client(ca_file: Option<&Path>) -> Result<Client, Failure> {
    let mut builder = Client::builder()
        .connect_timeout(Duration::from_secs(5))
        .timeout(Duration::from_secs(30))
        .redirect(redirect::Policy::none())
        .user_agent(concat!("cambio/", env!("CARGO_PKG_VERSION")));
    if let Some(file) = ca_file {
        let fail = |error: String| Failure::usage(format!("`{}`: {error}", file.display()));
        let pem = fs::read(file).map_err(|error| fail(error.to_string()))?;
        let roots = Certificate::from_pem_bundle(&pem).map_err(|error| fail(error.to_string()))?;
        if roots.is_empty() {
            return Err(fail("holds no certificate".to_owned()));
        }
        builder = roots.into_iter().fold(builder, reqwest::ClientBuilder::add_root_certificate);
    }
    builder.build().map_err(|error| Failure::usage(format!("no HTTP client: {}", causes(&error))))
}

/// `text` as a URL that a token may be sent to: https, or http to this machine.
pub(super) fn safe_url(text: &str) -> Result<Url, Failure> {
    let url = Url::parse(text).map_err(|error| Failure::usage(format!("`{text}`: {error}")))?;
    let loopback = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if loopback => Ok(url),
        _ => Err(Failure::usage(format!("`{text}` is neither https nor http on loopback"))
            .hint("a token that is sent in the clear is anybody's")),
    }
}

/// Sends, and reads at most [`LIMIT`] bytes of the answer.
pub(super) async fn send(request: RequestBuilder) -> Result<(StatusCode, Vec<u8>), Failure> {
    let fail = |error: reqwest::Error| Failure::unreachable(causes(&error));
    let mut answer = request.send().await.map_err(fail)?;
    let status = answer.status();
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(fail)? {
        body.extend_from_slice(&chunk);
        if body.len() > LIMIT {
            return Err(Failure::unreachable(format!("the answer has more than {LIMIT} bytes")));
        }
    }
    Ok((status, body))
}

/// An error and its causes, joined by colons.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_over_tls_or_stays_on_this_machine() {
        for good in
            ["https://cambio.example", "http://127.0.0.1:1/x", "http://[::1]:2", "http://localhost"]
        {
            assert!(safe_url(good).is_ok(), "{good}");
        }
        for bad in
            ["http://cambio.example", "http://127.0.0.1.evil.example", "ftp://localhost", "cambio"]
        {
            assert!(safe_url(bad).is_err(), "{bad}");
        }
    }
}
