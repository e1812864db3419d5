//! What was issued, as the next program wants it.
//!
//! Which format carries which credential is one table, [`Format::carries`]; a pair that is not in it is an error, and never
//! half of a credential.

use serde_json::{Map, Value};

use super::{ClientError, Credential, Issued};
use crate::secret::Secret;

mod cloud;
mod database;
pub mod helper;
mod variables;

pub use variables::{Variable, github_env, masks, region};

/// How a credential is written to stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `access_token` as it is.
    Token,
    /// The broker's whole answer.
    Json,
    /// `export NAME='value'` for a shell.
    Env,
    /// `NAME=value`
    Dotenv,
    /// The answer of a `credential_process` of the AWS SDKs.
    AwsProcess,
    /// The answer of an executable-sourced credential of Google's libraries.
    GcpExecutable,
    /// An `ExecCredential` of kubectl and client-go.
    Kubernetes,
    /// A docker credential helper.
    Docker,
    /// A git credential helper.
    Git,
    /// A line of `~/.pgpass`.
    Pgpass,
    /// A connection URI.
    Uri,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Token,
        Self::Json,
        Self::Env,
        Self::Dotenv,
        Self::AwsProcess,
        Self::GcpExecutable,
        Self::Kubernetes,
        Self::Docker,
        Self::Git,
        Self::Pgpass,
        Self::Uri,
    ];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Json => "json",
            Self::Env => "env",
            Self::Dotenv => "dotenv",
            Self::AwsProcess => "aws-process",
            Self::GcpExecutable => "gcp-executable",
            Self::Kubernetes => "kubernetes",
            Self::Docker => "docker",
            Self::Git => "git",
            Self::Pgpass => "pgpass",
            Self::Uri => "uri",
        }
    }

    /// Whether `credential` can be written like this.
    #[must_use]
    pub fn carries(self, credential: &Credential) -> bool {
        match self {
            Self::Token | Self::Json => true,
            Self::Env | Self::Dotenv => !matches!(credential, Credential::Other(_)),
            Self::AwsProcess => matches!(credential, Credential::Aws(_)),
            Self::GcpExecutable | Self::Kubernetes | Self::Docker | Self::Git => {
                matches!(credential, Credential::Token(_))
            }
            Self::Pgpass => {
                matches!(credential, Credential::Login(login) if login.kind == "postgres")
            }
            Self::Uri => matches!(credential, Credential::Login(login) if login.uri.is_some()),
        }
    }
}

/// What a format needs besides the credential.
#[derive(Clone, Debug)]
pub struct Style {
    /// The variable that a token goes into, for `env` and `dotenv`.
    pub name: String,
    /// The user name that goes with a token, for `docker` and `git`.
    pub user: String,
    /// Whom the calling program asked for, for `docker` and `git`.
    pub server: Option<String>,
}

impl Default for Style {
    fn default() -> Self {
        Self { name: "CAMBIO_TOKEN".to_owned(), user: "cambio".to_owned(), server: None }
    }
}

/// What goes to stdout.
#[derive(Clone, PartialEq, Eq)]
pub enum Rendered {
    /// One JSON text on one line.
    Json(Value),
    /// These bytes.
    Text(Secret),
}

/// Nothing of it prints.
impl std::fmt::Debug for Rendered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Json(_) => f.write_str("Json"),
            Self::Text(text) => f.debug_tuple("Text").field(text).finish(),
        }
    }
}

/// Writes `issued` as `format`.
///
/// # Errors
/// The format does not carry this kind of credential, or a value has no spelling in it.
pub fn render(format: Format, issued: &Issued, style: &Style) -> Result<Rendered, ClientError> {
    if !format.carries(&issued.credential) {
        return Err(misfit(format, issued));
    }
    let text = |text: String| Ok(Rendered::Text(Secret::from(text)));
    let json = |value: Map<String, Value>| Ok(Rendered::Json(Value::Object(value)));
    match format {
        Format::Token => text(format!("{}\n", revealed(&issued.access_token)?)),
        Format::Json => json(issued.reveal_answer().clone()),
        Format::Env => text(variables::shell(&variables::of(issued, &style.name))?),
        Format::Dotenv => text(variables::dotenv(&variables::of(issued, &style.name))?),
        Format::AwsProcess => json(cloud::aws_process(issued)?),
        Format::GcpExecutable => json(cloud::gcp_executable(issued)?),
        Format::Kubernetes => json(cloud::exec_credential(issued)?),
        Format::Docker => json(helper::docker(issued, style)?),
        Format::Git => text(helper::git(issued, style)?),
        Format::Pgpass => text(database::pgpass(issued)?),
        Format::Uri => text(database::uri(issued)?),
    }
}

/// The variables of `env`, for who writes them elsewhere.
///
/// # Errors
/// The credential has none.
pub fn variables(issued: &Issued, style: &Style) -> Result<Vec<Variable>, ClientError> {
    if !Format::Env.carries(&issued.credential) {
        return Err(misfit(Format::Env, issued));
    }
    Ok(variables::of(issued, &style.name))
}

/// The answer of `gcp-executable` where there is no credential: Google's libraries show `message`.
#[must_use]
pub fn gcp_failure(exit: u8, message: &str) -> Value {
    let code = match exit {
        1 => "403",
        2 => "400",
        _ => "503",
    };
    serde_json::json!({ "version": 1, "success": false, "code": code, "message": message })
}

fn misfit(format: Format, issued: &Issued) -> ClientError {
    let credential = &issued.credential;
    let fit: Vec<&str> = Format::ALL
        .into_iter()
        .filter(|format| format.carries(credential))
        .map(Format::as_str)
        .collect();
    // It was made all the same: whoever looks for it must find it, and whoever called us ends its lease.
    let done = issued.exchange_id.as_ref();
    let done = done.map(|id| format!("; exchange `{id}` is done, and its credential is dropped"));
    ClientError::usage(format!(
        "format `{}` can't carry {credential}; what can: {}{}",
        format.as_str(),
        fit.join(", "),
        done.unwrap_or_default()
    ))
}

/// A secret as text: what was JSON text on the wire is text.
fn revealed(secret: &Secret) -> Result<&str, ClientError> {
    secret.reveal_text().ok_or_else(|| ClientError::unreachable("the credential is no text"))
}

/// RFC 3339, for whoever reads it as such.
fn expiry(issued: &Issued) -> Option<Value> {
    issued.expires_at.map(|instant| Value::from(instant.to_string()))
}

fn object<const N: usize>(members: [(&str, Option<Value>); N]) -> Map<String, Value> {
    let there = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    there.collect()
}
