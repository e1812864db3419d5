//! Who we are and with which keys we sign: OpenID Connect Discovery 1.0, RFC 8414, RFC 7517.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::digest;
use axum::{
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;
use thiserror::Error;
use url::Url;

use super::Surface;

/// Our issuer identifier: what stands in `iss` of our tokens, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OurIssuer {
    url: String,
    path: String,
}

/// A text that can't be our issuer identifier.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("found `{found}`, expected {expected}")]
pub struct OurIssuerError {
    found: String,
    expected: &'static str,
}

impl OurIssuer {
    /// The issuer `url`: https, no query, fragment or user, no slash at the end (OpenID Connect Discovery 1.0 section 3).
    ///
    /// # Errors
    /// It is none.
    pub fn of(url: &str) -> Result<Self, OurIssuerError> {
        Self::with_scheme(url, "https")
    }

    /// The same with plain http: for `cambio dev` on loopback alone.
    ///
    /// # Errors
    /// It is none.
    pub fn dangerously_plain(url: &str) -> Result<Self, OurIssuerError> {
        Self::with_scheme(url, "http")
    }

    fn with_scheme(text: &str, scheme: &str) -> Result<Self, OurIssuerError> {
        let refuse = |expected| OurIssuerError { found: text.to_owned(), expected };
        let url = Url::parse(text).map_err(|_| refuse("an absolute URL"))?;
        if url.scheme() != scheme {
            return Err(refuse("an https URL (plain http is for `cambio dev` alone)"));
        }
        if url.query().is_some() || url.fragment().is_some() || text.contains('@') {
            return Err(refuse("a URL without query, fragment and user"));
        }
        let path = url.path().trim_end_matches('/').to_owned();
        // Compared byte for byte by every verifier: what a parser would rewrite (case, default port, `..`, a last slash)
        // would not match what the token says.
        if url.as_str().trim_end_matches('/') != text {
            return Err(refuse("a URL in normal form, without a slash at the end"));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.' | '~');
        if !path.chars().all(plain) || path.contains("//") {
            return Err(refuse("a path of letters, digits, `-`, `_`, `.` and `~`"));
        }
        Ok(Self { url: text.to_owned(), path })
    }

    /// The identifier.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.url
    }

    /// Its path: empty, or `/team`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The URL of one of our endpoints.
    #[must_use]
    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }
}

/// The metadata document, the same for OpenID Connect and for RFC 8414. Nothing in it comes from the request (threat H08).
pub(super) async fn metadata(State(surface): State<Arc<Surface>>) -> Response {
    let issuer = &surface.our_issuer;
    let mut document = json!({
        "issuer": issuer.as_str(),
        "token_endpoint": issuer.at("/token"),
        "jwks_uri": issuer.at("/jwks"),
        "introspection_endpoint": issuer.at("/introspect"),
        "revocation_endpoint": issuer.at("/revoke"),
        // OpenID Connect Discovery 1.0 requires the member, though nobody logs in here: it answers with an OAuth error.
        "authorization_endpoint": issuer.at("/authorize"),
        "grant_types_supported": [
            "urn:ietf:params:oauth:grant-type:token-exchange",
            "urn:ietf:params:oauth:grant-type:jwt-bearer",
        ],
        "token_endpoint_auth_methods_supported": ["none"],
        "introspection_endpoint_auth_methods_supported": ["Bearer"],
        "revocation_endpoint_auth_methods_supported": ["none", "Bearer"],
        // Required and not empty (OpenID Connect Discovery 1.0 section 3), as other workload issuers fill it.
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": surface.published.algorithms(),
        "claims_supported":
            ["iss", "sub", "aud", "exp", "iat", "nbf", "jti", "client_id", "scope", "act"],
    });
    // The pattern and not the list: which targets there are is nobody's business (threat X02).
    if surface.published.has_bundles()
        && let Some(members) = document.as_object_mut()
    {
        members.insert("cambio_ca_bundle".to_owned(), issuer.at("/ca/{target}.pem").into());
    }
    let mut response = super::json(StatusCode::OK, &document);
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
    response
}

/// The JWK Set, cached for as long as the rotation schedule allows (INVARIANT(publish-before-sign)).
pub(super) async fn jwks(State(surface): State<Arc<Surface>>, headers: HeaderMap) -> Response {
    if surface.published.withheld() {
        return super::no_store(StatusCode::SERVICE_UNAVAILABLE.into_response());
    }
    let (set, max_age) = surface.published.jwks(surface.clock.now());
    cached(&headers, set, max_age, "application/jwk-set+json")
}

/// The trust bundle of a target, as PEM: what its servers believe about clients. Cached like the key set.
pub(super) async fn bundle(
    State(surface): State<Arc<Surface>>,
    Path(file): Path<String>,
    headers: HeaderMap,
) -> Response {
    if surface.published.withheld() {
        return super::no_store(StatusCode::SERVICE_UNAVAILABLE.into_response());
    }
    let found = file
        .strip_suffix(".pem")
        .and_then(|target| surface.published.bundle(target, surface.clock.now()));
    match found {
        // RFC 8555 section 9.1 registers the media type of certificates in PEM.
        Some((text, max_age)) => {
            cached(&headers, text, max_age, "application/pem-certificate-chain")
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn cached(headers: &HeaderMap, body: Bytes, max_age: Duration, kind: &'static str) -> Response {
    let hash = digest::digest(&digest::SHA256, &body);
    let tag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(hash));
    let known = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|one| one.trim().trim_start_matches("W/"))
        .any(|one| one == tag || one == "*");
    let cache = [
        (header::CACHE_CONTROL, format!("public, max-age={}", max_age.as_secs())),
        (header::ETAG, tag),
    ];
    if known {
        return (StatusCode::NOT_MODIFIED, cache).into_response();
    }
    (cache, [(header::CONTENT_TYPE, kind)], body).into_response()
}

/// Nobody logs in here. Never a redirect: there is no client to send anyone back to.
pub(super) async fn no_authorization() -> Response {
    let body = json!({
        "error": "unsupported_response_type",
        "error_description": "this issuer exchanges tokens of workloads: see `token_endpoint`",
    });
    super::no_store(super::json(StatusCode::BAD_REQUEST, &body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_issuer_is_taken_in_normal_form_only() {
        for good in ["https://broker.example", "https://broker.example:8443/team/a"] {
            assert_eq!(OurIssuer::of(good).unwrap().as_str(), good);
        }
        for bad in [
            "http://broker.example",
            "https://broker.example/",
            "https://broker.example:443",
            "https://Broker.example",
            "https://broker.example/a/../b",
            "https://broker.example/team?x",
            "https://broker.example/team#x",
            "https://user@broker.example",
            "https://broker.example/{*all}",
            "https://broker.example//a",
            "broker.example",
        ] {
            assert!(OurIssuer::of(bad).is_err(), "{bad}");
        }
        assert_eq!(OurIssuer::of("https://broker.example/team").unwrap().path(), "/team");
    }
}
