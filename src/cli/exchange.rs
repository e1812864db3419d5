//! `cambio exchange`: the token of this job for a credential, written as the next program wants it.

use std::{
    fs::OpenOptions,
    io::{self, Read as _, Write as _},
};

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser as _},
};
use serde_json::json;

use super::{
    Failure, Talk,
    asking::{Asking, ENDING, summary, variable},
    harden::hide,
};
use crate::{
    chance::SystemChance,
    client::{
        Answer, Broker, Environment, Format, Issued, Lease, Machine, Waiting, ambient,
        format::{
            self, Rendered, Style,
            helper::{self, Question},
        },
    },
    clock::SystemClock,
    secret::Secret,
};

/// Exchange this job's token for a credential (RFC 8693)
///
/// The token is the one that the platform hands out to this job, pod or machine; which one was found is told on stderr. The
/// credential goes to stdout: `TOKEN=$(cambio exchange --audience jwt/orders)`.
#[derive(Debug, Args)]
pub(super) struct Exchange {
    #[command(flatten)]
    asking: Asking,

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

    /// `docker`, `git`: what the program asks for: it appends this itself
    #[arg(value_name = "VERB")]
    verb: Option<String>,
}

fn format_parser() -> impl clap::builder::TypedValueParser<Value = Format> {
    PossibleValuesParser::new(Format::ALL.map(Format::as_str)).map(|name| {
        let named = Format::ALL.into_iter().find(|format| format.as_str() == name);
        named.unwrap_or(Format::Token)
    })
}

/// `Ok(None)`: asked for something that is not ours to give.
type Outcome = Result<Option<Rendered>, Failure>;

pub(super) async fn run(exchange: Exchange, talk: &mut Talk) -> Result<(), Failure> {
    hide()?;
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
        if helps && self.asking.reads_stdin() {
            return Err(Failure::usage(
                "stdin is where the server is named: the token can't come on it too",
            ));
        }
        Ok(())
    }

    async fn done(&self, format: Format, machine: &Machine, talk: &mut Talk) -> Outcome {
        let broker = self.asking.broker(machine)?;
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
        let errand = self.asking.errand(broker)?;
        let mut waiting = Waiting::begin(self.asking.patience(), &SystemChance);
        let quiet = format == Format::GcpExecutable;
        if !quiet {
            waiting = waiting.telling(talk.voice());
        }
        let subject = errand.subject(machine, &mut waiting).await?;
        if let (Some((title, place)), false) = (&subject.place, quiet) {
            talk.say(format_args!("found the token of {title}: {place}"));
        }
        let issued = match errand.exchange(&subject, &mut waiting, &SystemClock).await? {
            Answer::Issued(issued) => issued,
            Answer::Refused(refused) => {
                if format == Format::Json {
                    talk.value(&refused.as_json());
                }
                if let (false, Some(words)) =
                    (quiet || refused.is_outage(), ambient::unverified_words(&subject.token))
                {
                    talk.say(words);
                }
                return Err(errand.refused(refused, &subject).into());
            }
        };
        if !quiet {
            talk.say(summary(&issued));
        }
        let written = match github_env {
            Some(file) => self
                .set_in_github(&issued, &style, file, talk)
                .map(|()| Rendered::Text(Secret::from(String::new()))),
            None => format::render(format, &issued, &style).map_err(Failure::from),
        };
        match (written, issued.lease()) {
            (Ok(rendered), _) => Ok(Some(rendered)),
            (Err(failure), Some(lease)) => Err(unused(failure, &lease, &errand.broker).await),
            (Err(failure), None) => Err(failure),
        }
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

/// A credential that nobody will use is not left for its lifetime.
async fn unused(failure: Failure, lease: &Lease, broker: &Broker) -> Failure {
    let mut waiting = Waiting::begin(ENDING, &SystemChance);
    match lease.revoke(broker, &mut waiting).await {
        Ok(()) => failure.hint(format_args!("its lease `{}` is ended", lease.id)),
        Err(error) => failure.hint(format_args!("{error}; it ends by itself in the end")),
    }
}

/// What git or docker says, within a limit.
fn stdin() -> Result<String, Failure> {
    const LIMIT: u64 = 64 * 1024;
    let mut text = String::new();
    let read = io::stdin().lock().take(LIMIT).read_to_string(&mut text);
    read.map_err(|error| Failure::usage(format!("stdin: {error}")))?;
    Ok(text)
}
