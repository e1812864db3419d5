//! Asks a platform over HTTP, again where it is busy or away: handing out a token has no effect, so nothing is lost by it.

use std::path::PathBuf;

use reqwest::{
    Method, StatusCode,
    header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER},
};
use serde_json::Value;
use url::Url;

use super::{LONGEST, Means, Platform};
use crate::{
    client::{ClientError, Waiting, said},
    json::{self, Limits},
    web::{self, Answered, Reaching, WebError},
};

/// One question.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<String>,
    /// In place of the network.
    pub(super) unix_socket: Option<PathBuf>,
}

impl Ask {
    pub(super) fn get(url: Url) -> Self {
        let (headers, body, unix_socket) = (HeaderMap::new(), None, None);
        Self { method: Method::GET, url, headers, body, unix_socket }
    }

    pub(super) fn post(url: Url, body: String) -> Self {
        // A server that wants a length wants it for nothing too.
        let length = HeaderValue::from(body.len());
        let mut ask = Self { method: Method::POST, body: Some(body), ..Self::get(url) };
        ask.headers.insert(CONTENT_LENGTH, length);
        ask.header("content-type", "application/json")
    }

    pub(super) fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.insert(name, HeaderValue::from_static(value));
        self
    }

    /// A header that nobody may print.
    pub(super) fn secret(
        mut self,
        name: &'static str,
        value: &str,
        from: &str,
    ) -> Result<Self, ClientError> {
        let mut value = HeaderValue::try_from(value)
            .map_err(|_| ClientError::usage(format!("{from} does not fit into a header")))?;
        value.set_sensitive(true);
        self.headers.insert(HeaderName::from_static(name), value);
        Ok(self)
    }

    /// The answer's bytes: 200, and nothing else.
    pub(super) async fn of(
        self,
        platform: &Platform,
        means: &Means<'_>,
        waiting: &mut Waiting<'_>,
    ) -> Result<Answered, ClientError> {
        let reaching = Reaching { unix_socket: self.unix_socket.as_deref(), ..means.reaching };
        let client = web::client(&self.url, reaching).map_err(ClientError::usage)?;
        let whom = format!("{}: `{}`", platform.title, self.url.origin().ascii_serialization());
        let mut before = None;
        loop {
            let mut request = client
                .request(self.method.clone(), self.url.clone())
                .headers(self.headers.clone())
                .timeout(waiting.left().min(PATIENCE));
            if let Some(body) = &self.body {
                request = request.body(body.clone());
            }
            let (error, after) = match web::send(request, LONGEST).await {
                Ok(answered) if answered.status == StatusCode::OK => return Ok(answered),
                Ok(answered) => {
                    let status = answered.status;
                    let message = format!("{whom} answered {status}{}", reason(&answered));
                    if !status.is_server_error() && status != StatusCode::TOO_MANY_REQUESTS {
                        return Err(ClientError::refused(message).hint(platform.remedy));
                    }
                    (message, retry_after(&answered))
                }
                // Cut off by our own deadline: what was said before it tells more.
                Err(WebError::NoAnswer(_)) if before.is_some() && waiting.left().is_zero() => {
                    (before.take().unwrap_or_default(), None)
                }
                Err(error @ (WebError::NotConnected(_) | WebError::NoAnswer(_))) => {
                    (format!("{whom} did not answer: {error}"), None)
                }
                Err(error) => return Err(ClientError::unreachable(format!("{whom}: {error}"))),
            };
            if !waiting.rest(after, &error).await {
                return Err(ClientError::unreachable(error));
            }
            before = Some(error);
        }
    }

    /// The text `member` of the JSON object that is answered.
    pub(super) async fn member_of(
        self,
        member: &str,
        platform: &Platform,
        means: &Means<'_>,
        waiting: &mut Waiting<'_>,
    ) -> Result<String, ClientError> {
        let answered = self.of(platform, means, waiting).await?;
        let none = || {
            ClientError::unreachable(format!("{} answered without a `{member}`", platform.title))
        };
        let limits = Limits { bytes: LONGEST, ..Limits::DISCOVERY };
        let members = json::parse_object(&answered.body.0, &limits).map_err(|_| none())?;
        members.get(member).and_then(Value::as_str).map(str::to_owned).ok_or_else(none)
    }

    /// The whole answer, as text.
    pub(super) async fn text_of(
        self,
        platform: &Platform,
        means: &Means<'_>,
        waiting: &mut Waiting<'_>,
    ) -> Result<String, ClientError> {
        let answered = self.of(platform, means, waiting).await?;
        String::from_utf8(answered.body.0).map_err(|_| {
            ClientError::unreachable(format!("{} answered with no text", platform.title))
        })
    }
}

/// How long one answer may take: they are next door.
pub(super) const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

fn retry_after(answered: &Answered) -> Option<std::time::Duration> {
    let value = answered.headers.get(RETRY_AFTER)?;
    value.to_str().ok()?.parse().ok().map(std::time::Duration::from_secs)
}

/// What a platform says about its no, in the members that they use for it; the rest of the answer is not shown.
fn reason(answered: &Answered) -> String {
    let Ok(members) = json::parse_object(&answered.body.0, &Limits::DISCOVERY) else {
        return String::new();
    };
    let told = ["message", "error_description", "error"]
        .iter()
        .find_map(|name| members.get(*name).and_then(Value::as_str));
    let told = told.map(|told| said::tamed(told).chars().take(200).collect::<String>());
    told.map(|told| format!(": {told}")).unwrap_or_default()
}

/// The URL in variable `name`, as one that a secret may be sent to.
pub(super) fn safe_url_in(name: &str, text: &str) -> Result<Url, ClientError> {
    web::safe_url(text).map_err(|reason| ClientError::usage(format!("`{name}`: {reason}")))
}
