//! What every verb of the client is told alike: which broker, which target, and where the subject token is.

use std::{path::PathBuf, time::Duration};

use clap::{Args, builder::PossibleValuesParser};

use super::{Failure, token};
pub(super) use crate::client::revoke::ENDING;
use crate::{
    client::{
        Broker, ClientError, Errand, Fault, Issued, Machine, Patience, TokenSource,
        ambient::PLATFORMS,
    },
    web::Reaching,
    yaml,
};

/// Options of `exchange`, `exec` and `agent`.
#[derive(Debug, Args)]
pub(super) struct Asking {
    /// The broker: its issuer URL; without it, `CAMBIO_URL`
    #[arg(long, alias = "url", value_name = "URL")]
    broker: Option<String>,

    /// The target: its name or an alias
    #[arg(long, value_name = "TARGET")]
    pub(super) audience: Option<String>,

    /// The role of the target, and scopes
    #[arg(long, value_name = "SCOPE")]
    pub(super) scope: Option<String>,

    /// A shorter lifetime than the rule's, such as `90s` or `10m`
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    lifetime: Option<Duration>,

    /// The subject token is in this file; `-` is stdin
    #[arg(long, value_name = "FILE", group = "token")]
    token_file: Option<PathBuf>,

    /// The subject token comes on stdin
    #[arg(long, group = "token")]
    token_stdin: bool,

    /// The subject token is in this variable
    #[arg(long, value_name = "NAME", group = "token", value_parser = variable)]
    token_variable: Option<String>,

    /// Ask this platform for the subject token, and look for no other
    #[arg(long, value_name = "NAME", group = "token", value_parser = platform_parser())]
    platform: Option<String>,

    /// Whom the subject token shall be for; without it, the broker's issuer URL
    #[arg(long, value_name = "AUDIENCE")]
    token_audience: Option<String>,

    /// Root certificates (PEM) to trust besides the machine's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,

    /// An HTTP proxy for https
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,

    /// How long to go on trying, everything included
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    deadline: Duration,
}

/// A length of time, as the configuration spells it.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    yaml::parse_duration(text).ok_or_else(|| "expected a duration such as `90s`, `15m`".to_owned())
}

/// The name of a variable.
pub(super) fn variable(text: &str) -> Result<String, String> {
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let begins = text.chars().next().is_some_and(|c| !c.is_ascii_digit());
    if begins && text.chars().all(letter) {
        return Ok(text.to_owned());
    }
    Err("expected letters, digits and `_`, and no digit first".to_owned())
}

fn platform_parser() -> PossibleValuesParser {
    PossibleValuesParser::new(PLATFORMS.iter().map(|platform| platform.name))
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let failure = match error.fault {
            Fault::Refused => Self::refused(error.message),
            Fault::Usage => Self::usage(error.message),
            Fault::Unreachable => Self::unreachable(error.message),
        };
        match error.hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl Asking {
    /// The broker that is named.
    pub(super) fn broker(&self, machine: &Machine) -> Result<Broker, Failure> {
        let url = self.broker.as_deref().or_else(|| machine.environment.find("CAMBIO_URL"));
        let url = url.ok_or_else(|| {
            Failure::usage("no broker is named")
                .hint("give its issuer URL with `--broker`, or in `CAMBIO_URL`")
        })?;
        let reaching = Reaching {
            ca_file: self.ca_file.as_deref(),
            proxy: self.proxy.as_deref(),
            ..Reaching::default()
        };
        Ok(Broker::at(url, reaching)?)
    }

    /// All of it as one errand. Reads stdin where that is where the token is.
    pub(super) fn errand(&self, broker: Broker) -> Result<Errand, Failure> {
        let source = if self.reads_stdin() {
            TokenSource::Given(token::read("-".as_ref())?)
        } else if let Some(file) = &self.token_file {
            TokenSource::File(file.clone())
        } else if let Some(name) = &self.token_variable {
            TokenSource::Variable(name.clone())
        } else {
            TokenSource::Platform(self.platform.clone())
        };
        Ok(Errand {
            broker,
            source,
            token_audience: self.token_audience.clone(),
            audience: self.audience.clone(),
            scope: self.scope.clone(),
            lifetime: self.lifetime,
            ca_file: self.ca_file.clone(),
            proxy: self.proxy.clone(),
        })
    }

    /// Whether the subject token comes on stdin.
    pub(super) fn reads_stdin(&self) -> bool {
        self.token_stdin || self.token_file.as_ref().is_some_and(|file| file.as_os_str() == "-")
    }

    /// The variable that holds the subject token, where one is named.
    pub(super) fn token_variable(&self) -> Option<&str> {
        self.token_variable.as_deref()
    }

    /// How long to go on.
    pub(super) fn patience(&self) -> Patience {
        Patience { total: self.deadline, ..Patience::default() }
    }
}

/// What was issued, on one line. Nothing secret is in it.
pub(super) fn summary(issued: &Issued) -> String {
    let mut text = format!("issued {}", issued.credential);
    for (before, told) in [
        (" for `", issued.scope.clone()),
        (" until `", issued.expires_at.map(|ends| ends.to_string())),
        (", exchange `", issued.exchange_id.clone()),
        (", lease `", issued.lease_id.clone()),
    ] {
        if let Some(told) = told {
            text.push_str(before);
            text.push_str(&super::render::cell(Some(&told.into())));
            text.push('`');
        }
    }
    text
}
