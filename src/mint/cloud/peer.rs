//! The client of one cloud: https to hosts that the configuration names, no redirects, a few seconds, a few kilobytes of JSON.

use std::{
    fmt::{self, Write as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use reqwest::{
    Client, Method, RequestBuilder, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER},
    redirect,
};
use serde_json::{Map, Value};
use thiserror::Error;
use url::Url;

use super::CallError;
use crate::{
    json::{self, Limits},
    secret::Secret,
    subject::key_source::guard::{Guard, Reach, SystemLookup},
    web::{self, Roots, WebError},
};

/// How long a connection may take to stand.
const CONNECT: Duration = Duration::from_secs(2);
/// How long one call may take.
const CALL: Duration = Duration::from_secs(5);
/// Kept connections save a TLS handshake per credential; who is at the other end was verified when they were made.
const IDLE: Duration = Duration::from_secs(60);
/// What an answer may have: GitHub describes every repository in it.
const ANSWER: Limits = Limits { bytes: 512 * 1024, depth: 16, members: 20_000, elements: 20_000 };
/// How much of a cloud's own words is kept.
const LONGEST_WORDS: usize = 200;
/// When a cloud that throttles does not say when to come back; and the longest that it is believed.
const THROTTLED: Duration = Duration::from_secs(5);
const LONGEST_THROTTLE: Duration = Duration::from_secs(120);

/// How a cloud is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reaching {
    /// How near its addresses may be.
    pub reach: Reach,
    /// A PEM file: these roots, in place of the platform's.
    pub ca_file: Option<PathBuf>,
}

/// The client can't be built: no trust roots, a bad CA file. A start-up error.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct PeerError(String);

/// Talks to one cloud.
pub struct Peer {
    client: Client,
    guard: Guard,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("guard", &self.guard).finish_non_exhaustive()
    }
}

/// What a cloud said, well-formed.
pub struct Answer {
    /// 200 or 201.
    pub status: StatusCode,
    /// The members of the object in its body.
    pub members: Map<String, Value>,
}

/// Names only: the values are tokens.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.members.keys()).finish()
    }
}

impl Peer {
    /// The client for a cloud that is reached like this.
    ///
    /// # Errors
    /// There is no trust root to check certificates with, or the CA file holds none.
    pub fn of(reaching: &Reaching) -> Result<Self, PeerError> {
        let guard = Guard::new(reaching.reach, Arc::new(SystemLookup));
        let roots = match (&reaching.ca_file, reaching.reach) {
            (Some(file), _) => Roots::Only(file),
            // Plain http to this machine: no certificate will be accepted from anybody.
            (None, Reach::DangerouslyLoopback) => Roots::Nobody,
            (None, Reach::Public | Reach::Private) => Roots::Platform,
        };
        let fail = |error: &dyn fmt::Display| PeerError(error.to_string());
        let client = Client::builder()
            .tls_backend_preconfigured(web::tls(roots).map_err(|error| fail(&error))?)
            .https_only(reaching.reach != Reach::DangerouslyLoopback)
            .redirect(redirect::Policy::none())
            // A second request could make a second credential: whoever asks again does it on purpose.
            .retry(reqwest::retry::never())
            .no_proxy()
            .referer(false)
            .user_agent(concat!("cambio/", env!("CARGO_PKG_VERSION")))
            // Threat D06: connected is to an address that was checked.
            .dns_resolver(Arc::new(guard.clone()))
            .connect_timeout(CONNECT)
            .timeout(CALL)
            .pool_idle_timeout(IDLE)
            .build()
            .map_err(|error| fail(&error))?;
        Ok(Self { client, guard })
    }

    /// Posts a form.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn post_form(&self, url: &Url, form: &[(&str, &str)]) -> Result<Answer, CallError> {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        let request = self.request(Method::POST, url)?.header(CONTENT_TYPE, form).body(body);
        answered(request, url).await
    }

    /// Posts JSON under a bearer token.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn post_json(
        &self,
        url: &Url,
        bearer: &Secret,
        headers: HeaderMap,
        body: String,
    ) -> Result<Answer, CallError> {
        let json = HeaderValue::from_static("application/json");
        let request = self.request(Method::POST, url)?.headers(headers);
        let request = request.header(CONTENT_TYPE, json).body(body);
        answered(request.header(AUTHORIZATION, authorization(bearer)?), url).await
    }

    /// Reads, or deletes, under a bearer token: the status alone where there is nothing to read.
    ///
    /// # Errors
    /// [`CallError`]; a 204 is an [`Answer`] without members.
    pub async fn bare(
        &self,
        method: Method,
        url: &Url,
        bearer: Option<&Secret>,
        headers: HeaderMap,
    ) -> Result<Answer, CallError> {
        let mut request = self.request(method, url)?.headers(headers);
        if let Some(bearer) = bearer {
            request = request.header(AUTHORIZATION, authorization(bearer)?);
        }
        answered(request, url).await
    }

    fn request(&self, method: Method, url: &Url) -> Result<RequestBuilder, CallError> {
        // The HTTP client asks no resolver for a host that is an address already.
        let checked = self.guard.check_literal(url);
        checked.map_err(|error| CallError::Refused(error.to_string()))?;
        let json = HeaderValue::from_static("application/json");
        Ok(self.client.request(method, url.clone()).header(ACCEPT, json))
    }
}

fn authorization(bearer: &Secret) -> Result<HeaderValue, CallError> {
    let text = bearer.reveal_text().map(|text| zeroize::Zeroizing::new(format!("Bearer {text}")));
    let value = text.and_then(|text| HeaderValue::from_str(&text).ok());
    let mut value = value.ok_or_else(|| CallError::NotAsked("a token is no text".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

async fn answered(request: RequestBuilder, url: &Url) -> Result<Answer, CallError> {
    let host = url.host_str().unwrap_or_default();
    let answer = web::send(request, ANSWER.bytes).await.map_err(|error| match error {
        WebError::NotConnected(_) | WebError::NoTls(_) => {
            CallError::NotAsked(format!("`{host}` can't be reached: {error}"))
        }
        WebError::NoRoots(_)
        | WebError::Setup(_)
        | WebError::NoAnswer(_)
        | WebError::TooLong { .. }
        | WebError::Encoded => CallError::Lost(format!("no answer from `{host}`: {error}")),
    })?;
    let (status, body) = (answer.status, zeroize::Zeroizing::new(answer.body.0));
    if status == StatusCode::NO_CONTENT {
        return Ok(Answer { status, members: Map::new() });
    }
    let members = json::parse_object(&body, &ANSWER);
    if status == StatusCode::OK || status == StatusCode::CREATED {
        let members =
            members.map_err(|error| CallError::Lost(format!("garbage from `{host}`: {error}")))?;
        return Ok(Answer { status, members });
    }
    let words = words(&members.unwrap_or_default());
    let said = format!("`{host}` answered {}{words}", status.as_u16());
    // GitHub throttles by 403 with the same header.
    let after = answer.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let throttled = status == StatusCode::TOO_MANY_REQUESTS
        || (status == StatusCode::FORBIDDEN && after.is_some());
    if throttled {
        let seconds = after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
        let wait = seconds.unwrap_or(THROTTLED).clamp(Duration::from_secs(1), LONGEST_THROTTLE);
        return Err(CallError::Throttled(wait));
    }
    if status.is_client_error() || status.is_redirection() {
        return Err(CallError::Refused(said));
    }
    Err(CallError::Lost(said))
}

/// A cloud's own words on why not, for the log and for `explain`: `error`, `error_description`, `error.message`, `message`.
/// Shortened, and only characters that mean nothing anywhere: they come from outside.
fn words(members: &Map<String, Value>) -> String {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let error = members.get("error");
    let parts = [
        text(error).or_else(|| text(error?.get("status"))),
        text(members.get("error_description")),
        error.and_then(|error| text(error.get("message"))),
        text(members.get("message")),
    ];
    let mut words = String::new();
    for part in parts.into_iter().flatten() {
        let plain = |c: char| if matches!(c, ' '..='~') && c != '`' { c } else { ' ' };
        let part: String = part.chars().take(LONGEST_WORDS).map(plain).collect();
        let _ = write!(words, ": {part}");
    }
    words
}
