//! `cambio doctor`: what is wrong, from the configuration to the running broker.

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use serde_json::{Value, json};

use super::{Exit, Failure, Talk, admin::Reach, policy, render, serve};
use crate::{
    app::{self, Mode, scene},
    chance::{Chance, SystemChance},
    clock::{Clock, SystemClock},
    config::{AnchorConfig, Config, TlsConfig},
    mint::examine::Verdict,
    store::Store,
};

/// Look at a configuration, its files and the running broker, and say what is wrong
///
/// Changes nothing. Ends with the exit code of the worst that was found.
#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = "cambio.yaml")]
    config: PathBuf,
}

/// What was looked at, and how it is.
#[derive(Debug)]
struct Finding {
    name: String,
    state: State,
    detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Good,
    /// Legal, but an operator should know.
    Unwise,
    Bad(Exit),
}

impl State {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Unwise => "warning",
            Self::Bad(_) => "FAIL",
        }
    }
}

pub(super) async fn run(doctor: Doctor, talk: &mut Talk) -> Result<(), Failure> {
    let mut findings = Findings(Vec::new());
    match Config::read(&doctor.config) {
        Ok((config, warnings)) => {
            if warnings.is_empty() {
                findings.good("configuration", format!("`{}`", doctor.config.display()));
            }
            for warning in warnings {
                findings.add("configuration", State::Unwise, warning.to_string());
            }
            // As `config check`: what would end `serve` before it begins.
            if let Err(error) = app::preflight(&config, Mode::Serve, SystemClock.now()) {
                findings.add("configuration", State::Bad(Exit::Usage), error.to_string());
            }
            files(&config, &mut findings);
            reviews(&config, &mut findings).await;
            targets(&config, &mut findings).await;
            let reach = Reach { socket: Some(config.listen.admin_socket), config: doctor.config };
            broker(&reach, &mut findings).await;
        }
        Err(problems) => {
            for problem in problems {
                findings.add("configuration", State::Bad(Exit::Usage), problem.to_string());
            }
        }
    }
    findings.tell(talk)
}

fn files(config: &Config, findings: &mut Findings) {
    match policy::examine(config) {
        Ok(detail) => findings.good("policies", detail),
        Err(failure) => findings.failed("policies", &failure),
    }
    let store = serve::store_of(config);
    match Store::read(&store).map_err(|error| error.to_string()).and_then(|reader| {
        let size = reader.size().map_err(|error| error.to_string())?;
        Ok(format!("`{}`: {size} entries, log `{}`", store.display(), reader.origin()))
    }) {
        Ok(detail) => findings.good("ledger", detail),
        Err(detail) => findings.add("ledger", State::Bad(Exit::Unreachable), detail),
    }
    // That there is none is a warning of the configuration, and told with its place.
    for AnchorConfig::File(file) in &config.ledger.anchors {
        let detail = format!("`{}`", file.display());
        if file.is_file() {
            findings.good("anchors", detail);
        } else {
            findings.add("anchors", State::Unwise, format!("{detail} is not there yet"));
        }
    }
    // Without a proxy that is named, it is a warning of the configuration.
    if config.tls == TlsConfig::None
        && !config.listen.public.ip().is_loopback()
        && !config.listen.proxies.is_empty()
    {
        let detail = format!("plain http on `{}`: a proxy must speak TLS", config.listen.public);
        findings.add("tls", State::Unwise, detail);
    }
}

/// What the API servers say of us that are asked about tokens: with the broker's own token, whether it runs or not.
async fn reviews(config: &Config, findings: &mut Findings) {
    for issuer in &config.issuers {
        // What can't be set up was told before: preflight does the same.
        let review =
            scene::token_review(issuer, Arc::new(SystemChance), Arc::new(scene::Unwatched));
        let Ok(Some(review)) = review else { continue };
        let name = format!("token_review:{}", issuer.name);
        match review.examine().await {
            Ok(who) => {
                let detail = format!("`{}` takes questions of `{who}`", review.api_server());
                findings.good(&name, detail);
            }
            Err(reason) => findings.add(&name, State::Bad(Exit::Refused), reason),
        }
    }
}

/// What the targets say of us. They are asked from here: with the broker's configuration, whether it runs or not.
async fn targets(config: &Config, findings: &mut Findings) {
    let chance: Arc<dyn Chance> = Arc::new(SystemChance);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let examiners = match app::targets::examiners(config, &clock, &chance).await {
        Ok(examiners) => examiners,
        Err(error) => {
            return findings.add("targets", State::Bad(Exit::Usage), error.to_string());
        }
    };
    for (target, examiner) in examiners {
        let name = format!("target:{target}");
        let Ok(found) = tokio::time::timeout(EXAMINED, examiner.examine()).await else {
            let detail = format!("no answer within {} s", EXAMINED.as_secs());
            findings.add(&name, State::Bad(Exit::Unreachable), detail);
            continue;
        };
        for finding in found {
            let state = match finding.verdict {
                Verdict::Good => State::Good,
                Verdict::Unwise => State::Unwise,
                Verdict::Bad => State::Bad(Exit::Refused),
            };
            findings.add(&name, state, finding.detail);
        }
    }
}

/// What the running broker says of itself.
async fn broker(reach: &Reach, findings: &mut Findings) {
    let status = match reach.call("status", json!({})).await {
        Ok(status) => status,
        Err(failure) => return findings.failed("broker", &failure),
    };
    let own = status.get("version").and_then(Value::as_str).unwrap_or("unknown");
    findings.good("broker", format!("running, version {own}"));
    if own != env!("CARGO_PKG_VERSION") {
        let detail = format!("this command line is {}", env!("CARGO_PKG_VERSION"));
        findings.add("broker", State::Unwise, detail);
    }
    for check in status.get("checks").and_then(Value::as_array).into_iter().flatten() {
        let is = |name| check.get(name).and_then(Value::as_bool).unwrap_or_default();
        // A check that does not say that it is well is not.
        let state = match (is("ok"), is("required")) {
            (true, _) => State::Good,
            (false, true) => State::Bad(Exit::Refused),
            (false, false) => State::Unwise,
        };
        // What it says of itself, beside what was found from here under the same name.
        let name = format!("broker:{}", render::cell(check.get("name")));
        findings.add(&name, state, render::cell(check.get("detail")));
    }
}

/// How long one target may take to be looked at.
const EXAMINED: Duration = Duration::from_secs(20);

#[derive(Debug)]
struct Findings(Vec<Finding>);

impl Findings {
    /// What is found twice is told once: by two roles of one target, or by two looks at one thing.
    fn add(&mut self, name: &str, state: State, detail: String) {
        let known = |it: &Finding| it.name == name && it.state == state && it.detail == detail;
        if self.0.iter().any(known) {
            return;
        }
        self.0.push(Finding { name: name.to_owned(), state, detail });
    }

    fn good(&mut self, name: &str, detail: String) {
        self.add(name, State::Good, detail);
    }

    fn failed(&mut self, name: &str, failure: &Failure) {
        self.add(name, State::Bad(failure.exit()), failure.message().to_owned());
    }

    fn tell(self, talk: &mut Talk) -> Result<(), Failure> {
        if talk.json() {
            let all: Value = self
                .0
                .iter()
                .map(|it| json!({ "check": it.name, "state": it.state.as_str(), "detail": it.detail }))
                .collect();
            talk.value(&all);
        } else {
            let mut table = render::Table::of(["check", "state", "detail"]);
            for it in &self.0 {
                let detail = it.detail.replace('\n', " ");
                table.row([it.name.clone(), it.state.as_str().to_owned(), detail]);
            }
            talk.line(table);
        }
        let bad = |it: &Finding| match it.state {
            State::Bad(exit) => Some(exit),
            State::Good | State::Unwise => None,
        };
        // The first is what the others follow from: configuration, files, broker.
        let count = self.0.iter().filter_map(bad).count();
        let message = format!("{} failed", render::count(count, "check"));
        match self.0.iter().find_map(bad) {
            None => Ok(()),
            Some(Exit::Usage) => Err(Failure::usage(message)),
            Some(Exit::Unreachable) => Err(Failure::unreachable(message)),
            Some(Exit::Refused | Exit::Done | Exit::Of(_)) => Err(Failure::refused(message)),
        }
    }
}
