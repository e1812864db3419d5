//! One exchange (RFC 8693 section 2) with a broker, and what its answer says.

use std::{fmt, time::Duration};

use reqwest::{Client, RequestBuilder, StatusCode, header};
use serde_json::{Map, Value};
use url::Url;

use super::{
    ClientError, Credential, Waiting,
    revoke::{ENDING, Lease},
    said,
};
use crate::{
    clock::{Clock, Instant},
    json::{self, Limits},
    secret::Secret,
    web::{self, Reaching, WebError},
};

const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
/// More than any answer of a broker.
const LONGEST: usize = Limits::DISCOVERY.bytes;

/// A broker that a token may be brought to.
#[derive(Clone, Debug)]
pub struct Broker {
    base: String,
    client: Client,
}

impl Broker {
    /// The broker whose issuer URL is `url`: https, or http on loopback.
    ///
    /// # Errors
    /// The URL is none that a token may be sent to, or there is no HTTP client for it.
    pub fn at(url: &str, reaching: Reaching<'_>) -> Result<Self, ClientError> {
        let parsed = web::safe_url(url).map_err(|reason| {
            let error = ClientError::usage(reason);
            if url.contains("://") || url.contains('@') {
                return error.hint("a token that is sent in the clear is anybody's");
            }
            // A host and a port, as other programs take them.
            error.hint(format_args!("write `https://{url}`"))
        })?;
        if parsed.query().is_some() || parsed.fragment().is_some() {
            return Err(ClientError::usage(format!(
                "`{url}` has a query or a fragment, expected the broker's issuer URL"
            )));
        }
        let client = web::client(&parsed, reaching).map_err(ClientError::usage)?;
        Ok(Self::with(&parsed, client))
    }

    /// The same, over a client that is there already.
    #[must_use]
    pub fn with(url: &Url, client: Client) -> Self {
        Self { base: url.as_str().trim_end_matches('/').to_owned(), client }
    }

    /// Its issuer URL, without a slash at the end: what platforms are asked to put into `aud`, where nothing else is said.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.base
    }

    /// A form for the endpoint at `path` (which begins with `/`), still without its body.
    pub(super) fn post(&self, path: &str) -> RequestBuilder {
        self.client
            .post(format!("{}{path}", self.base))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json")
    }
}

/// What is asked of a broker.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The token of the platform.
    pub subject_token: &'a Secret,
    /// The target.
    pub audience: Option<&'a str>,
    /// The role, and scopes.
    pub scope: Option<&'a str>,
    /// A shorter lifetime than the rule's.
    pub lifetime: Option<Duration>,
}

/// What a broker answered.
#[derive(Debug)]
pub enum Answer {
    /// RFC 8693 section 2.2.1.
    Issued(Box<Issued>),
    /// RFC 8693 section 2.2.2.
    Refused(Refused),
}

/// What was issued.
pub struct Issued {
    /// `access_token` as it came.
    pub access_token: Secret,
    /// What it is.
    pub credential: Credential,
    /// When it ends, at the latest, as the credential says it.
    pub expires_at: Option<Instant>,
    /// When it was asked for, by this machine's clock.
    pub asked_at: Instant,
    /// The same moment by [`Clock::elapsed`], which nobody sets.
    pub asked_after: Duration,
    /// When it ends by this machine's clock, which may differ from the broker's: `expires_in` counted from [`Self::asked_at`],
    /// so never later than the true end. Without it, [`Self::expires_at`].
    pub ends: Option<Instant>,
    /// What was granted.
    pub scope: Option<String>,
    /// The exchange's name, for whoever runs the broker.
    pub exchange_id: Option<String>,
    /// The lease, where it has to be ended.
    pub lease_id: Option<String>,
    /// What ends the lease before its time.
    pub lease_token: Option<Secret>,
    members: Map<String, Value>,
}

impl Issued {
    /// The whole answer. Greppable, because it holds the credential.
    #[must_use]
    pub const fn reveal_answer(&self) -> &Map<String, Value> {
        &self.members
    }

    /// How long it is good for: until its end by the wall clock, or for as long as it lives, whichever is over first. Somebody
    /// may have set the one, and the other knows nothing of the broker's clock. `None`: nobody knows.
    #[must_use]
    pub fn left(&self, clock: &dyn Clock) -> Option<Duration> {
        let ends = self.ends?;
        let passed = clock.elapsed().saturating_sub(self.asked_after);
        let left = ends.since(self.asked_at).saturating_sub(passed);
        Some(left.min(ends.since(clock.now())))
    }

    /// The lease with what ends it, where there is one.
    #[must_use]
    pub fn lease(&self) -> Option<Lease> {
        let (id, token) = (self.lease_id.clone()?, self.lease_token.clone()?);
        Some(Lease { id, token })
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued")
            .field("credential", &self.credential)
            .field("expires_at", &self.expires_at)
            .field("scope", &self.scope)
            .field("exchange_id", &self.exchange_id)
            .finish_non_exhaustive()
    }
}

/// A refusal, or an outage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The HTTP status.
    pub status: u16,
    /// `error`
    pub code: String,
    /// `error_description`
    pub description: Option<String>,
    /// The exchange's name, for whoever runs the broker.
    pub exchange_id: Option<String>,
    /// When to come back: only while the token is unspent (RFC 9110 section 10.2.3, in seconds).
    pub retry_after: Option<Duration>,
}

impl Refused {
    /// Whether it is nobody's decision, but a state of the broker.
    #[must_use]
    pub const fn is_outage(&self) -> bool {
        self.status >= 500 || self.status == 429
    }

    /// What was answered, for machines.
    #[must_use]
    pub fn as_json(&self) -> Value {
        serde_json::json!({
            "error": self.code,
            "error_description": self.description,
            "exchange_id": self.exchange_id,
        })
    }
}

/// With the line to type (design section 5, two-tier errors).
impl From<Refused> for ClientError {
    fn from(refused: Refused) -> Self {
        let description = refused.description.as_deref().map(said::tamed);
        let description = description.as_deref().unwrap_or("without a description");
        let code = said::tamed(&refused.code);
        // Where it is no name, it is none to look for either: the hint goes into a shell.
        let id = refused.exchange_id.as_deref().and_then(said::name);
        let message = match id {
            Some(id) => format!("refused: `{code}`: {description} (exchange `{id}`)"),
            None => format!("refused: `{code}`: {description}"),
        };
        let error =
            if refused.is_outage() { Self::unreachable(message) } else { Self::refused(message) };
        match id {
            Some(id) => error
                .hint(format_args!("whoever runs the broker types `cambio policy explain {id}`")),
            None => error,
        }
    }
}

impl Refused {
    /// The same in words, with what was asked for. A broker does not tell whether a target exists: both are `invalid_target`
    /// (RFC 8693 section 2.2.2).
    #[must_use]
    pub fn of(self, audience: Option<&str>) -> ClientError {
        // Where a role is all that is missing, the broker says that, under the same code.
        let words = self.description.as_deref().unwrap_or_default();
        let unknown = self.code == "invalid_target" && !words.starts_with("more than one");
        let mut error = ClientError::from(self);
        if let (true, Some(target)) = (unknown, audience) {
            let target = target.escape_debug();
            let words = format!("`{target}`: no such target, or none for you");
            error.hint = Some(match error.hint {
                Some(hint) => format!("{words}; {hint}"),
                None => words,
            });
        }
        error
    }
}

impl Asked<'_> {
    /// Asks `broker`, and again while it is sure that the token was not spent: nobody listened, or the broker said
    /// `Retry-After`. An answer that was lost on its way is not asked for again: the token may be spent, and a credential
    /// may exist. A lease whose credential nobody can read is ended at once.
    ///
    /// # Errors
    /// No answer of a broker came, or none that can be read.
    pub async fn of(
        self,
        broker: &Broker,
        waiting: &mut Waiting<'_>,
        clock: &dyn Clock,
    ) -> Result<Answer, ClientError> {
        loop {
            let asked = (clock.now(), clock.elapsed());
            let unreachable = |error: &WebError| {
                ClientError::unreachable(format!("no answer from `{}`: {error}", broker.base))
            };
            match self.once(broker, waiting.left()).await {
                Err(error @ WebError::NotConnected(_)) => {
                    if !waiting.rest(None, &unreachable(&error)).await {
                        return Err(unreachable(&error)
                            .hint("does the broker run, and is that its address?"));
                    }
                }
                Err(error @ WebError::NoTls(_)) => {
                    let words = error.to_string();
                    let hint = if words.contains("InvalidContentType") {
                        "what listens there does not speak TLS: is it the port for plain http, or is TLS ended at another address?"
                    } else if words.contains("CaUsedAsEndEntity") {
                        "the broker shows the certificate of an authority: it needs one with `CA:FALSE`, as docs/operating.md makes it"
                    } else {
                        "if its certificate comes from a private authority, name that one with `--ca-file`"
                    };
                    return Err(unreachable(&error).hint(hint));
                }
                Err(error) => {
                    return Err(unreachable(&error).unsure().hint(
                        "the token may be used up: a new attempt needs a new one from the platform",
                    ));
                }
                Ok(answered) => match read(&broker.base, &answered, asked) {
                    Err(error) => return Err(unreadable(error, broker, waiting).await),
                    Ok(Answer::Refused(refused)) if refused.is_outage() => {
                        let again = match refused.retry_after {
                            Some(after) => {
                                let why = ClientError::from(refused.clone());
                                waiting.rest(Some(after), &why).await
                            }
                            None => false,
                        };
                        if !again {
                            return Ok(Answer::Refused(refused));
                        }
                    }
                    Ok(answer @ (Answer::Issued(_) | Answer::Refused(_))) => return Ok(answer),
                },
            }
        }
    }

    async fn once(self, broker: &Broker, left: Duration) -> Result<web::Answered, WebError> {
        let request = broker
            .post("/token")
            // Whatever the command waits for, it does not wait longer than it said.
            .timeout(left.min(LONGEST_WAIT))
            .body(self.form());
        web::send(request, LONGEST).await
    }

    fn form(self) -> String {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", TOKEN_EXCHANGE)
            .append_pair("subject_token_type", JWT)
            .append_pair("subject_token", self.subject_token.reveal_text().unwrap_or_default());
        for (name, value) in [("audience", self.audience), ("scope", self.scope)] {
            if let Some(value) = value {
                form.append_pair(name, value);
            }
        }
        if let Some(lifetime) = self.lifetime {
            form.append_pair("requested_lifetime", &lifetime.as_secs().to_string());
        }
        form.finish()
    }
}

/// How long one answer may take.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The credential can't be used, and the lease is there all the same: it is ended, or stays in the error for whoever tries again.
async fn unreadable(mut error: ClientError, broker: &Broker, waiting: &Waiting<'_>) -> ClientError {
    let Some(lease) = error.lease.take() else { return error };
    match lease.revoke(broker, &mut waiting.afresh(ENDING)).await {
        Ok(()) => error.message = format!("{}; its lease `{}` is ended", error.message, lease.id),
        Err(why) => {
            error.message = format!("{}; {why}", error.message);
            error.lease = Some(lease);
        }
    }
    error
}

/// The lease that an answer names, whatever else is in it.
fn lease(members: &Map<String, Value>) -> (Option<String>, Option<Secret>) {
    let of = |name: &str| {
        let text = members.get("lease").and_then(|lease| lease.get(name)).and_then(Value::as_str);
        text.map(str::to_owned)
    };
    (of("id"), of("token").map(Secret::from))
}

fn read(
    broker: &str,
    answered: &web::Answered,
    asked: (Instant, Duration),
) -> Result<Answer, ClientError> {
    let status = answered.status;
    let no_broker = |reason: &dyn fmt::Display| {
        let hint = if status.is_server_error() {
            "does something between here and the broker fail (an ingress, a proxy)? the token may be used up"
        } else {
            "is `--broker` the issuer URL of a Cambio broker?"
        };
        ClientError::unreachable(format!("`{broker}` answered {status} and {reason}")).hint(hint)
    };
    let members = json::parse_object(&answered.body.0, &Limits::DISCOVERY)
        .map_err(|error| no_broker(&format_args!("no JSON object: {error}")))
        // Something may have been made, and nobody can read what.
        .map_err(|error| if status == StatusCode::OK { error.unsure() } else { error })?;
    let said = |name: &str| members.get(name).and_then(Value::as_str).map(str::to_owned);
    if status != StatusCode::OK {
        let code = said("error").ok_or_else(|| no_broker(&"no `error` in it"))?;
        let after = answered.headers.get(header::RETRY_AFTER);
        let after = after.and_then(|value| value.to_str().ok()?.parse().ok());
        return Ok(Answer::Refused(Refused {
            status: status.as_u16(),
            code,
            description: said("error_description"),
            exchange_id: said("exchange_id"),
            retry_after: after.map(Duration::from_secs),
        }));
    }
    let (lease_id, lease_token) = lease(&members);
    let made = lease_id.clone().zip(lease_token.clone()).map(|(id, token)| Lease { id, token });
    issued(members, asked, (lease_id, lease_token), &no_broker).map_err(|error| ClientError {
        // Without a lease, there is nothing to end it by.
        unsure: made.is_none(),
        lease: made,
        ..error
    })
}

/// RFC 8693 section 2.2.1.
fn issued(
    members: Map<String, Value>,
    (asked_at, asked_after): (Instant, Duration),
    (lease_id, lease_token): (Option<String>, Option<Secret>),
    no_broker: &dyn Fn(&dyn fmt::Display) -> ClientError,
) -> Result<Answer, ClientError> {
    let said = |name: &str| members.get(name).and_then(Value::as_str).map(str::to_owned);
    let needed = |name: &'static str| {
        said(name)
            .filter(|text| !text.is_empty())
            .ok_or_else(|| no_broker(&format_args!("no `{name}` in it")))
    };
    let access_token = needed("access_token")?;
    // RFC 8693 section 2.2.1: REQUIRED. `N_A` is for what is no access token.
    let token_type = needed("token_type")?;
    if !["bearer", "n_a"].contains(&token_type.to_ascii_lowercase().as_str()) {
        return Err(no_broker(&format_args!(
            "`token_type` `{token_type}`, expected `Bearer` or `N_A`"
        )));
    }
    let kind = needed("issued_token_type")?;
    let (credential, ends) = Credential::read(&access_token, &kind).map_err(|mut error| {
        // It was made all the same: whoever looks for it must find it.
        if let Some(id) = said("exchange_id") {
            error.message = format!("{} (exchange `{id}`)", error.message);
        }
        error
    })?;
    // Counted from before the request: never later than the true end.
    let told = members.get("expires_in").and_then(Value::as_u64);
    let told = told.map(|seconds| asked_at.plus(Duration::from_secs(seconds)));
    Ok(Answer::Issued(Box::new(Issued {
        access_token: Secret::from(access_token),
        credential,
        // Whole seconds, rounded down: not every reader of RFC 3339 takes a fraction.
        expires_at: ends.or(told).map(|ends| Instant::from_seconds(ends.seconds())),
        scope: said("scope"),
        exchange_id: said("exchange_id"),
        asked_at,
        asked_after,
        ends: told.or(ends),
        lease_id,
        lease_token,
        members,
    })))
}

/// A token with a lease, for tests of what is done with one.
#[cfg(test)]
pub(super) fn sample(clock: &dyn Clock, lives: Duration) -> Issued {
    let asked_at = clock.now();
    let token = || Secret::from("hush".to_owned());
    let ends = Some(asked_at.plus(lives));
    Issued {
        access_token: token(),
        credential: Credential::Token(token()),
        expires_at: ends,
        asked_at,
        asked_after: clock.elapsed(),
        ends,
        scope: None,
        exchange_id: None,
        lease_id: Some("ls_1".to_owned()),
        lease_token: Some(Secret::from("hush-lease".to_owned())),
        members: Map::new(),
    }
}
