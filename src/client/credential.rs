//! What a broker's answer carries: a token, or a structured credential as JSON text in `access_token`.

use std::fmt;

use serde_json::{Map, Value};

use super::ClientError;
use crate::{
    clock::Instant,
    json::{self, Limits},
    secret::Secret,
};

/// `issued_token_type` of what is no token begins with this.
pub const STRUCTURED: &str = "urn:cambio:token-type:";

/// What was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A JWT, or another opaque text that is sent as it is.
    Token(Secret),
    /// A login of a database or another server.
    Login(Login),
    /// A session of AWS.
    Aws(AwsSession),
    /// Of a kind that this version does not know: it can be handed on as JSON, and as nothing else.
    Other(String),
}

/// A login of a database or another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// `postgres`, `mysql`, `redis` …
    pub kind: String,
    /// The user, made for this exchange.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// The host's name or address.
    pub host: Option<String>,
    /// The port.
    pub port: Option<u16>,
    /// The database, where there is one.
    pub database: Option<String>,
    /// How PostgreSQL's clients protect the connection: `verify-full`.
    pub sslmode: Option<String>,
    /// All of it as a connection URI.
    pub uri: Option<Secret>,
}

/// A session of AWS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsSession {
    /// `AWS_ACCESS_KEY_ID`: names the key, and is no secret.
    pub access_key_id: String,
    /// `AWS_SECRET_ACCESS_KEY`
    pub secret_access_key: Secret,
    /// `AWS_SESSION_TOKEN`
    pub session_token: Secret,
    /// `AWS_REGION`, where the target has one.
    pub region: Option<String>,
}

/// In a reader's words: `a token`, `a postgres login`.
impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(_) => f.write_str("a token"),
            Self::Login(login) => write!(f, "a {} login", login.kind),
            Self::Aws(_) => f.write_str("an aws session"),
            Self::Other(kind) => write!(f, "a credential of kind `{kind}`"),
        }
    }
}

impl Credential {
    /// What `access_token`, of type `issued_token_type`, holds, and when it ends where that is said in it.
    ///
    /// # Errors
    /// The type says that it is structured, and it is not, or lacks a member.
    pub fn read(
        access_token: &str,
        issued_token_type: &str,
    ) -> Result<(Self, Option<Instant>), ClientError> {
        let Some(family) = issued_token_type.strip_prefix(STRUCTURED) else {
            return Ok((Self::Token(Secret::from(access_token.to_owned())), None));
        };
        // The reason never quotes the document: it holds a password.
        let members =
            json::parse_object(access_token.as_bytes(), &Limits::CLAIMS).map_err(|_| {
                bad(format!("the credential of type `{issued_token_type}` is no JSON object"))
            })?;
        let ends = match members.get("expires_at") {
            None => None,
            Some(value) => Some(instant(value).ok_or_else(|| {
                bad("the credential's `expires_at` is no RFC 3339 instant".to_owned())
            })?),
        };
        let credential = match family {
            "database" => Self::Login(login(&members)?),
            "aws" => Self::Aws(AwsSession {
                access_key_id: needed(&members, "access_key_id")?.to_owned(),
                secret_access_key: secret(needed(&members, "secret_access_key")?),
                session_token: secret(needed(&members, "session_token")?),
                region: text(&members, "region").map(str::to_owned),
            }),
            other => Self::Other(text(&members, "kind").unwrap_or(other).to_owned()),
        };
        Ok((credential, ends))
    }
}

fn login(members: &Map<String, Value>) -> Result<Login, ClientError> {
    let port = match members.get("port") {
        None | Some(Value::Null) => None,
        Some(value) => {
            let port = value.as_u64().and_then(|port| u16::try_from(port).ok());
            Some(port.ok_or_else(|| bad("the credential's `port` is no port".to_owned()))?)
        }
    };
    Ok(Login {
        kind: needed(members, "kind")?.to_owned(),
        user: needed(members, "user")?.to_owned(),
        password: secret(needed(members, "password")?),
        host: text(members, "host").map(str::to_owned),
        port,
        database: text(members, "database").map(str::to_owned),
        sslmode: text(members, "sslmode").map(str::to_owned),
        uri: text(members, "uri").map(secret),
    })
}

fn text<'a>(members: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    members.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
}

fn needed<'a>(members: &'a Map<String, Value>, name: &str) -> Result<&'a str, ClientError> {
    text(members, name).ok_or_else(|| bad(format!("the credential lacks a text `{name}`")))
}

fn secret(text: &str) -> Secret {
    Secret::from(text.to_owned())
}

fn instant(value: &Value) -> Option<Instant> {
    let timestamp: jiff::Timestamp = value.as_str()?.parse().ok()?;
    u64::try_from(timestamp.as_millisecond()).ok().map(Instant::from_milliseconds)
}

fn bad(message: String) -> ClientError {
    ClientError::unreachable(message).hint("is this client older than the broker?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_structured_credential_is_read_from_its_text_and_does_not_print() {
        let text = r#"{"kind":"postgres","user":"u","password":"hush","host":"db","port":5432,
            "database":"orders","uri":"postgresql://u:hush@db:5432/orders","expires_at":"2027-01-15T08:15:00Z"}"#;
        let (credential, ends) = Credential::read(text, "urn:cambio:token-type:database").unwrap();
        assert_eq!(credential.to_string(), "a postgres login");
        assert_eq!(ends, Some(Instant::from_seconds(1_800_000_900)));
        assert!(!format!("{credential:?}").contains("hush"), "{credential:?}");
    }

    #[test]
    fn what_is_missing_is_named_and_what_is_there_is_not_quoted() {
        let said = |text: &str, kind: &str| Credential::read(text, kind).unwrap_err().message;
        assert_eq!(
            said(r#"{"kind":"postgres","user":"u"}"#, "urn:cambio:token-type:database"),
            "the credential lacks a text `password`"
        );
        assert_eq!(
            said("hush", "urn:cambio:token-type:aws"),
            "the credential of type `urn:cambio:token-type:aws` is no JSON object"
        );
        assert_eq!(
            said(
                r#"{"kind":"x","user":"u","password":"p","port":70000}"#,
                "urn:cambio:token-type:database"
            ),
            "the credential's `port` is no port"
        );
    }
}
