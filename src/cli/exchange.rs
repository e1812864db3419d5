//! `cambio exchange`: the token of this job for a credential, written as the next program wants it.

use std::{
    fs::OpenOptions,
    io::{self, Read as _, Write as _},
    path::PathBuf,
    time::Duration,
};

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser as _},
};
use serde_json::json;

use super::{Failure, Talk, render::cell, token};
use crate::{
    chance::SystemChance,
    client::{
        Answer, Asked, Broker, ClientError, Environment, Fault, Format, Issued, Machine, Patience,
        Refused, Waiting,
        ambient::{self, PLATFORMS, Wanted},
        format::{
            self, Rendered, Style,
            helper::{self, Question},
        },
    },
    clock::SystemClock,
    secret::Secret,
    web::Reaching,
    yaml,
};

/// Exchange this job's token for a credential (RFC 8693)
///
/// The token is the one that the platform hands out to this job, pod or machine; which one was found is told on stderr. The
/// credential goes to stdout: `TOKEN=$(cambio exchange --audience jwt/orders)`.
#[derive(Debug, Args)]
pub(super) struct Exchange {
    /// The broker: its issuer URL; without it, `CAMBIO_URL`
    #[arg(long, alias = "url", value_name = "URL")]
    broker: Option<String>,

    /// The target: its name or an alias
    #[arg(long, value_name = "TARGET")]
    audience: Option<String>,

    /// The role of the target, and scopes
    #[arg(long, value_name = "SCOPE")]
    scope: Option<String>,

    /// A shorter lifetime than the rule's, such as `90s` or `10m`
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    lifetime: Option<Duration>,

    /// How the credential is written to stdout
    #[arg(long, value_name = "FORMAT", value_parser = format_parser())]
    format: Option<Format>,

    /// `env`, `dotenv`: the variable that a token goes into
    #[arg(long, value_name = "NAME", default_value = "CAMBIO_TOKEN", value_parser = variable)]
    name: String,

    /// `docker`, `git`: the server that the credential is for; no other gets it
    #[arg(long = "for", value_name = "SERVER")]
    server: Option<String>,

    /// `docker`, `git`: the user name that goes with it
    #[arg(long, value_name = "NAME", default_value = "cambio")]
    username: String,

    /// Set the variables of `env` for the next steps of this GitHub job, in place of printing them
    #[arg(long)]
    github_env: bool,

    /// With `--github-env`: have GitHub hide the secrets in the job's log
    #[arg(
        long,
        value_name = "WHEN",
        default_value = "auto",
        value_parser = ["auto", "never"],
        requires = "github_env"
    )]
    mask: String,

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

    /// `docker`, `git`: what the program asks for: it appends this itself
    #[arg(value_name = "VERB")]
    verb: Option<String>,
}

fn duration(text: &str) -> Result<Duration, String> {
    yaml::parse_duration(text).ok_or_else(|| "expected a duration such as `90s`, `15m`".to_owned())
}

fn variable(text: &str) -> Result<String, String> {
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let begins = text.chars().next().is_some_and(|c| !c.is_ascii_digit());
    if begins && text.chars().all(letter) {
        return Ok(text.to_owned());
    }
    Err("expected letters, digits and `_`, and no digit first".to_owned())
}

fn format_parser() -> impl clap::builder::TypedValueParser<Value = Format> {
    PossibleValuesParser::new(Format::ALL.map(Format::as_str)).map(|name| {
        let named = Format::ALL.into_iter().find(|format| format.as_str() == name);
        named.unwrap_or(Format::Token)
    })
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

/// `Ok(None)`: asked for something that is not ours to give.
type Outcome = Result<Option<Rendered>, Failure>;

pub(super) async fn run(exchange: Exchange, talk: &mut Talk) -> Result<(), Failure> {
    let format = exchange.format_for(talk)?;
    exchange.check(format)?;
    let machine = Machine::of(Environment::of(std::env::vars_os()));
    match exchange.done(format, &machine, talk).await {
        Ok(Some(rendered)) => {
            match rendered {
                Rendered::Json(value) => talk.value(&value),
                Rendered::Text(text) => talk.bytes(text.reveal()),
            }
            Ok(())
        }
        Ok(None) if format == Format::Docker => {
            talk.bytes(helper::DOCKER_NOTHING.as_bytes());
            Err(Failure::refused("nothing for this server").told())
        }
        Ok(None) => Ok(()),
        Err(failure) if format == Format::GcpExecutable => {
            // Google's libraries read stdout and stderr as one text: it has to be JSON, and nothing else.
            talk.value(&format::gcp_failure(failure.exit().code(), &failure.words()));
            Err(failure.told())
        }
        Err(failure) => Err(failure),
    }
}

impl Exchange {
    fn format_for(&self, talk: &Talk) -> Result<Format, Failure> {
        if self.github_env {
            return match (self.format, talk.json()) {
                (None | Some(Format::Env), false) => Ok(Format::Env),
                _ => Err(Failure::usage(
                    "`--github-env` sets variables: no other format goes with it",
                )),
            };
        }
        match (self.format, talk.json()) {
            (None | Some(Format::Json), true) => Ok(Format::Json),
            (Some(other), true) => {
                Err(Failure::usage(format!("`--json` is not format `{}`", other.as_str())))
            }
            (format, false) => Ok(format.unwrap_or(Format::Token)),
        }
    }

    /// What clap can't say: options that belong to a format.
    fn check(&self, format: Format) -> Result<(), Failure> {
        let helps = matches!(format, Format::Docker | Format::Git);
        match (helps, &self.verb, &self.server) {
            (true, Some(_), Some(_)) | (false, None, None) => {}
            (true, None, _) => {
                return Err(Failure::usage(format!(
                    "format `{}` answers what {0} asks, expected a verb such as `get`",
                    format.as_str()
                ))
                .hint("configure it as a credential helper: `docs/client.md` shows the lines"));
            }
            (true, Some(_), None) => {
                return Err(Failure::usage(format!(
                    "format `{}` needs `--for SERVER`",
                    format.as_str()
                ))
                .hint("helpers are asked about every server, and a credential is for one"));
            }
            (false, Some(verb), _) => {
                return Err(Failure::usage(format!(
                    "`{verb}` is more than is expected with format `{}`",
                    format.as_str()
                )));
            }
            (false, None, Some(_)) => {
                return Err(Failure::usage("`--for` goes with the formats `docker` and `git`"));
            }
        }
        if helps && self.reads_stdin() {
            return Err(Failure::usage(
                "stdin is where the server is named: the token can't come on it too",
            ));
        }
        Ok(())
    }

    fn reads_stdin(&self) -> bool {
        self.token_stdin || self.token_file.as_ref().is_some_and(|file| file.as_os_str() == "-")
    }

    async fn done(&self, format: Format, machine: &Machine, talk: &mut Talk) -> Outcome {
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
        let broker = Broker::at(url, reaching)?;
        let mut style =
            Style { name: self.name.clone(), user: self.username.clone(), server: None };
        if let (Some(verb), Some(server)) = (&self.verb, &self.server) {
            // Before any token is asked for, let alone spent.
            match helper::question(format, verb, &stdin()?, server)? {
                Question::Ours(server) => style.server = Some(server),
                Question::Foreign => return Ok(None),
                Question::Housekeeping if verb == "list" => {
                    return Ok(Some(Rendered::Json(json!({}))));
                }
                Question::Housekeeping => {
                    return Ok(Some(Rendered::Text(Secret::from(String::new()))));
                }
            }
        }
        // Looked for before a token is asked for, let alone spent.
        let github_env = self.github_env.then(|| github_env(machine)).transpose()?;
        let patience = Patience { total: self.deadline, ..Patience::default() };
        let mut waiting = Waiting::begin(patience, &SystemChance);
        let quiet = format == Format::GcpExecutable;
        let audience = self.token_audience.as_deref().unwrap_or(broker.issuer());
        let subject_token = if let Some(token) = self.named_token(machine)? {
            token
        } else {
            let wanted = Wanted { audience, platform: self.platform.as_deref() };
            let found = ambient::find(wanted, machine, reaching, &mut waiting).await?;
            if !quiet {
                let (title, place) = (found.platform.title, &found.place);
                talk.say(format_args!("found the token of {title}: {place}"));
            }
            found.token
        };
        let asked = Asked {
            subject_token: &subject_token,
            audience: self.audience.as_deref(),
            scope: self.scope.as_deref(),
            lifetime: self.lifetime,
        };
        let issued = match asked.of(&broker, &mut waiting, &SystemClock).await? {
            Answer::Issued(issued) => issued,
            Answer::Refused(refused) => {
                if format == Format::Json {
                    talk.value(&refused.as_json());
                }
                if let (false, Some(words)) =
                    (quiet || refused.is_outage(), ambient::unverified_words(&subject_token))
                {
                    talk.say(words);
                }
                return Err(refusal(refused));
            }
        };
        if !quiet {
            talk.say(summary(&issued));
        }
        if let Some(file) = github_env {
            self.set_in_github(&issued, &style, file, talk)?;
            return Ok(Some(Rendered::Text(Secret::from(String::new()))));
        }
        Ok(Some(format::render(format, &issued, &style)?))
    }

    /// The token that the command line names; `None`: the platform is asked.
    fn named_token(&self, machine: &Machine) -> Result<Option<Secret>, Failure> {
        if let Some(name) = &self.token_variable {
            let token = machine.environment.find(name).map(str::trim);
            let token =
                token.ok_or_else(|| Failure::usage(format!("`{name}` is not set, or is empty")))?;
            return Ok(Some(Secret::from(token.to_owned())));
        }
        let file = match (&self.token_file, self.token_stdin) {
            (Some(file), _) => file.clone(),
            (None, true) => PathBuf::from("-"),
            (None, false) => return Ok(None),
        };
        token::read(&file).map(Some)
    }

    /// The masks first: whatever a later step prints, the runner knows by then what to hide.
    fn set_in_github(
        &self,
        issued: &Issued,
        style: &Style,
        file: &str,
        talk: &mut Talk,
    ) -> Result<(), Failure> {
        let variables = format::variables(issued, style)?;
        let text = format::github_env(&variables, &SystemChance)?;
        if self.mask == "auto" {
            talk.bytes(format::masks(&variables)?.reveal());
        }
        // The runner made the file; one that is not there is somebody else's mistake.
        let written = OpenOptions::new()
            .append(true)
            .open(file)
            .and_then(|mut file| file.write_all(text.reveal()));
        written.map_err(|error| Failure::usage(format!("`GITHUB_ENV`, `{file}`: {error}")))
    }
}

/// The file through which a step sets variables for the next ones.
fn github_env(machine: &Machine) -> Result<&str, Failure> {
    machine.environment.find("GITHUB_ENV").ok_or_else(|| {
        Failure::usage("`GITHUB_ENV` is not set: this is no step of a GitHub Actions job")
    })
}

fn refusal(refused: Refused) -> Failure {
    ClientError::from(refused).into()
}

fn summary(issued: &Issued) -> String {
    let mut text = format!("issued {}", issued.credential);
    for (before, told) in [
        (" for `", issued.scope.clone()),
        (" until `", issued.expires_at.map(|ends| ends.to_string())),
        (", exchange `", issued.exchange_id.clone()),
        (", lease `", issued.lease_id.clone()),
    ] {
        if let Some(told) = told {
            text.push_str(before);
            text.push_str(&cell(Some(&told.into())));
            text.push('`');
        }
    }
    text
}

/// What git or docker says, within a limit.
fn stdin() -> Result<String, Failure> {
    const LIMIT: u64 = 64 * 1024;
    let mut text = String::new();
    let read = io::stdin().lock().take(LIMIT).read_to_string(&mut text);
    read.map_err(|error| Failure::usage(format!("stdin: {error}")))?;
    Ok(text)
}
