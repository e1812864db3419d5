//! `cambio dev`: broker, ledger and sandbox issuer in one process on loopback, and a tour of what they do.

use std::{path::PathBuf, sync::Arc};

use clap::Args;
use serde_json::json;

use super::{Failure, Talk, http, serve};
use crate::{
    app::{self, Existing, Mode},
    chance::SystemChance,
    clock::SystemClock,
    sandbox::Sandbox,
    telemetry::{self, Format},
};

mod curl;
mod stage;
mod tour;

use stage::Stage;
use tour::{Seen, Tour, Visit};

/// Show everything on one machine: broker, ledger and a sandbox issuer, on loopback
///
/// Exchanges one token of each kind, shows the rule that permitted it, what came out and the ledger's proof; then one refusal
/// with its explanation; and prints the lines to do it yourself. Keys and tokens never touch the disk; Ctrl-C ends it.
#[derive(Debug, Args)]
pub(super) struct Dev {
    /// Exit after the tour: with 0 if everything was as it should be
    #[arg(long)]
    once: bool,

    /// Keep the state (ledger, key ring and the key that opens it) in this folder; without it, nothing is left
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

pub(super) async fn run(dev: Dev, talk: &mut Talk) -> Result<(), Failure> {
    let (clock, chance) = (Arc::new(SystemClock), Arc::new(SystemChance));
    // From here on every way out goes through `stage`'s end, which leaves nothing: not through the signal's default.
    let mut ended = serve::Signals::listen()?;
    let stage = Stage::set(dev.data, chance.as_ref())?;
    let sandbox = Sandbox::start(clock, chance).await.map_err(Failure::unreachable)?;
    let config = stage.config(&sandbox)?;
    let store = serve::store_of(&config);
    let existing = if store.exists() { Existing::Required } else { Existing::Created };
    let broker = http::safe_url(config.issuer.as_str())?;
    let running = app::start(config, None, Mode::Dev, existing).await;
    let running = running.map_err(|error| serve::not_started(&error))?;
    stage.forget_key()?;
    let tour = Tour {
        client: http::client(&broker, None)?,
        sandbox: &sandbox,
        broker,
        socket: running.admin_socket(),
        store,
    };
    if !talk.json() {
        talk.line(welcome(&tour, &stage));
    }
    let shown = tokio::select! {
        shown = show(&tour, dev.once, talk) => shown,
        _ = ended.next() => Err(Failure::refused("interrupted before the end of the tour")),
    };
    if !dev.once && shown.is_ok() {
        // From here on a changed policy, and each exchange, is told as `serve` tells it.
        telemetry::start(Format::People, "info", None).map_err(Failure::usage)?;
        talk.say("Serving until Ctrl-C.");
        tokio::select! {
            _ = ended.next() => talk.say(farewell(&stage)),
            reason = running.ended() => talk.say(format_args!("error: the broker ended: {reason}")),
        }
    }
    running.drain().await;
    sandbox.stop().await;
    shown
}

/// The tour; a failure if anything was not as it should be.
async fn show(tour: &Tour<'_>, once: bool, talk: &mut Talk) -> Result<(), Failure> {
    let mut visits = Vec::new();
    for (number, visit) in (1..).zip(Visit::all()) {
        let seen = tour.see(visit).await?;
        if !talk.json() {
            talk.line(format_args!("\n{number}. {seen}"));
        }
        visits.push(seen);
    }
    let wrong: Vec<String> = visits.iter().filter_map(Seen::fault).collect();
    if talk.json() {
        let visits: Vec<_> = visits.iter().map(Seen::as_json).collect();
        talk.value(&json!({
            "broker": tour.broker.as_str().trim_end_matches('/'),
            "sandbox": tour.sandbox.origin(),
            "admin_socket": tour.socket,
            "store": tour.store,
            "visits": visits,
            "as_expected": wrong.is_empty(),
        }));
    } else if wrong.is_empty() {
        talk.line(format_args!("\n{}", invitation(tour, &visits, once)));
    }
    if wrong.is_empty() { Ok(()) } else { Err(Failure::refused(wrong.join("\nerror: "))) }
}

fn welcome(tour: &Tour<'_>, stage: &Stage) -> String {
    let folder = stage.folder().display();
    format!(
        "\
Cambio gives workloads short-lived credentials for the identity token that their platform gave them. Nobody stores a
secret; a trust policy decides; every exchange is in a tamper-evident ledger before its credential leaves.

This is all of it on one machine, for playing. In earnest: `cambio serve`.

  broker   {broker}  exchanges tokens (RFC 8693)
  sandbox  {sandbox}  issues tokens like GitHub Actions, GitLab CI and Kubernetes
  policy   {folder}/policies/shop.yaml  says who gets what; change it, and it is in force
  ledger   {store}",
        broker = tour.broker.as_str().trim_end_matches('/'),
        sandbox = tour.sandbox.origin(),
        store = tour.store.display(),
    )
}

/// What to try next, each line as it can be pasted.
fn invitation(tour: &Tour<'_>, visits: &[Seen], once: bool) -> String {
    if once {
        return "All of this has ended. Without `--once` it goes on serving, and the lines above work.".to_owned();
    }
    let socket = tour.socket.display();
    let refused = visits.iter().find_map(Seen::refused).unwrap_or("ex_…");
    let cambio = std::env::args().next().unwrap_or_else(|| "cambio".to_owned());
    format!(
        "\
As a job does it, with the client:
       {line}
Play: add `&claim.ref=refs/heads/next` (any claim), `&json.exp=1`, `&without=jti`, `&sub=immutable` to a token's URL.
Look:  {cambio} policy explain {refused} --socket {socket}
       {cambio} keys list --socket {socket}
       {cambio} block list --socket {socket}
       {cambio} ledger verify --store {store}",
        line = curl::exec_line(tour.sandbox, &cambio, tour.broker.as_str(), tour::TARGET),
        store = tour.store.display(),
    )
}

fn farewell(stage: &Stage) -> String {
    if stage.is_temporary() {
        return "Ending: nothing of this stays.".to_owned();
    }
    format!("Ending: ledger and keys stay in `{}`.", stage.folder().display())
}
