//! `cambio exchange`: RFC 8693 from the command line.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use reqwest::{Client, StatusCode};
use serde_json::{Map, Value};
use url::Url;

use super::{Failure, Talk, http, render::cell, token};
use crate::{exchange::TokenType, secret::Secret, subject::json, yaml};

/// Exchange a token for a credential (RFC 8693)
///
/// The credential goes to stdout, what is to be said about it to stderr: `TOKEN=$(cambio exchange …)`.
#[derive(Debug, Args)]
pub(super) struct Exchange {
    /// The broker: its issuer URL
    #[arg(long, value_name = "URL")]
    url: String,

    /// The subject token; `-` is stdin
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,

    /// The target: its name or an alias
    #[arg(long, value_name = "TARGET")]
    audience: Option<String>,

    /// The role of the target, and scopes
    #[arg(long, value_name = "SCOPE")]
    scope: Option<String>,

    /// A shorter lifetime than the rule's, such as `90s` or `10m`
    #[arg(long, value_name = "DURATION", value_parser = lifetime)]
    lifetime: Option<Duration>,

    /// Root certificates (PEM) to trust besides the machine's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

fn lifetime(text: &str) -> Result<Duration, String> {
    yaml::parse_duration(text).ok_or_else(|| "expected a duration such as `90s`, `15m`".to_owned())
}

pub(super) async fn run(exchange: Exchange, talk: &mut Talk) -> Result<(), Failure> {
    let url = http::safe_url(&exchange.url)?;
    let subject_token = token::read(&exchange.token_file)?;
    let client = http::client(exchange.ca_file.as_deref())?;
    let asked = Asked {
        subject_token: &subject_token,
        audience: exchange.audience.as_deref(),
        scope: exchange.scope.as_deref(),
        lifetime: exchange.lifetime,
    };
    match asked.of(&client, &url).await? {
        Answer::Issued(members) => {
            if talk.json() {
                talk.value(&Value::Object(members));
                return Ok(());
            }
            let said = |name| cell(members.get(name));
            talk.say(format_args!(
                "issued `{}` for {} s, exchange `{}`",
                said("scope"),
                said("expires_in"),
                said("exchange_id"),
            ));
            talk.line(said("access_token"));
            Ok(())
        }
        Answer::Refused(status, members) => {
            if talk.json() {
                talk.value(&Value::Object(members.clone()));
            }
            Err(refusal(status, &members))
        }
    }
}

/// What is asked of a broker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) subject_token: &'a Secret,
    pub(super) audience: Option<&'a str>,
    pub(super) scope: Option<&'a str>,
    pub(super) lifetime: Option<Duration>,
}

/// What it answered.
#[derive(Debug)]
pub(super) enum Answer {
    /// RFC 8693 section 2.2.1.
    Issued(Map<String, Value>),
    /// RFC 8693 section 2.2.2.
    Refused(StatusCode, Map<String, Value>),
}

impl Asked<'_> {
    /// Asks the broker whose issuer URL is `broker`.
    pub(super) async fn of(self, client: &Client, broker: &Url) -> Result<Answer, Failure> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange")
            .append_pair("subject_token_type", TokenType::Jwt.as_str())
            .append_pair("subject_token", self.subject_token.reveal_text().unwrap_or_default());
        for (name, value) in [("audience", self.audience), ("scope", self.scope)] {
            if let Some(value) = value {
                form.append_pair(name, value);
            }
        }
        if let Some(lifetime) = self.lifetime {
            form.append_pair("requested_lifetime", &lifetime.as_secs().to_string());
        }
        let endpoint = format!("{}/token", broker.as_str().trim_end_matches('/'));
        let request = client
            .post(endpoint)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", "application/json")
            .body(form.finish());
        let (status, body) = http::send(request).await?;
        let members = json::parse_object(&body, &json::Limits::DISCOVERY).map_err(|error| {
            Failure::unreachable(format!(
                "`{broker}` answered {status} and no JSON object: {error}"
            ))
            .hint("is `--url` the broker's issuer URL?")
        })?;
        Ok(if status.is_success() {
            Answer::Issued(members)
        } else {
            Answer::Refused(status, members)
        })
    }
}

/// An outage (5xx, 429) can be tried again and is exit code 3; everything else is a refusal.
fn refusal(status: StatusCode, members: &Map<String, Value>) -> Failure {
    let said = |name| cell(members.get(name));
    let message = format!("refused: `{}`: {}", said("error"), said("error_description"));
    let failure = if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        Failure::unreachable(message)
    } else {
        Failure::refused(message)
    };
    match members.get("exchange_id").and_then(Value::as_str) {
        Some(id) => {
            failure.hint(format_args!("whoever runs the broker types `cambio policy explain {id}`"))
        }
        None => failure,
    }
}
