//! How the credentials are: for the one who runs the agent. Names, times and reasons; nothing secret.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use serde_json::json;

use super::{super::endpoint::Served, missing::Missing, told};
use crate::{client::Fault, clock::Clock};

/// Credentials are named by the configuration: as many as it has.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Label {
    credential: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failure {
    credential: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ran {
    credential: String,
    outcome: &'static str,
}

/// The metrics. Their names and labels stand here and nowhere else; `docs/agent.md` lists them.
pub struct Counters {
    registry: Registry,
    expiry: Family<Label, Gauge<f64, AtomicU64>>,
    obtained: Family<Label, Gauge<f64, AtomicU64>>,
    renewals: Family<Label, Counter>,
    failures: Family<Failure, Counter>,
    commands: Family<Ran, Counter>,
    unwritten: Family<Label, Counter>,
    /// What `/readyz` says of files.
    pub(super) files: Missing,
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counters").finish_non_exhaustive()
    }
}

impl Default for Counters {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("cambio_agent");
        let (expiry, obtained) = (Family::default(), Family::default());
        let (renewals, unwritten) = (Family::default(), Family::default());
        let (failures, commands) = (Family::default(), Family::default());
        let help = "Until the credential ends; 0 where there is none";
        registry.register_with_unit("credential_expiry", help, Unit::Seconds, expiry.clone());
        let help = "When the newest credential was asked for, also after its end";
        let name = "credential_obtained_timestamp";
        registry.register_with_unit(name, help, Unit::Seconds, obtained.clone());
        registry.register("renewals", "Credentials that came", renewals.clone());
        let help = "Attempts that brought none: `refused`, `usage`, `unreachable`";
        registry.register("failures", help, failures.clone());
        registry.register("commands", "Commands that ran after a change", commands.clone());
        let help = "Files that could not be written";
        registry.register("file_failures", help, unwritten.clone());
        let files = Missing::default();
        Self { registry, expiry, obtained, renewals, failures, commands, unwritten, files }
    }
}

impl Counters {
    pub(super) fn renewed(&self, name: &str) {
        self.renewals.get_or_create(&Label { credential: name.to_owned() }).inc();
    }

    pub(super) fn unwritten(&self, name: &str) {
        self.unwritten.get_or_create(&Label { credential: name.to_owned() }).inc();
    }

    pub(super) fn ran(&self, name: &str, well: bool) {
        let outcome = if well { "done" } else { "failed" };
        self.commands.get_or_create(&Ran { credential: name.to_owned(), outcome }).inc();
    }

    pub(super) fn failed(&self, name: &str, fault: Fault, times: u32) {
        let reason = match fault {
            Fault::Refused => "refused",
            Fault::Usage => "usage",
            Fault::Unreachable => "unreachable",
        };
        let label = Failure { credential: name.to_owned(), reason };
        self.failures.get_or_create(&label).inc_by(u64::from(times));
    }
}

/// One credential on the board.
pub type Entry = Served;

/// What health and metrics are told from.
#[derive(Clone, Debug)]
pub struct Board {
    /// Every credential.
    pub entries: Vec<Entry>,
    /// What was counted.
    pub counters: Arc<Counters>,
    /// Now.
    pub clock: Arc<dyn Clock>,
}

impl Board {
    /// `/livez`, `/readyz`, `/metrics`.
    pub fn router(self) -> Router {
        Router::new()
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .with_state(Arc::new(self))
    }
}

/// Ready is who has every credential, good at this moment, and in each of its files.
async fn ready(State(board): State<Arc<Board>>) -> Response {
    let now = board.clock.now();
    let mut ready = true;
    let mut credentials = Vec::new();
    for entry in &board.entries {
        let kept = Arc::clone(&entry.kept.borrow());
        let unwritten = board.counters.files.of(&entry.name);
        let good = kept.issued.is_some() && !kept.is_over(now) && unwritten.is_empty();
        ready &= good;
        let ends = kept.issued.as_ref().and_then(|issued| issued.ends);
        let trouble = kept.trouble.as_ref().map(|trouble| {
            json!({
                "since": trouble.since.to_string(), "failures": trouble.failures, "reason": told(&trouble.what),
            })
        });
        credentials.push(json!({
            "name": entry.name,
            "ok": good,
            "until": ends.map(|ends| ends.to_string()),
            "unwritten": unwritten,
            "trouble": trouble,
        }));
    }
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({ "ready": ready, "credentials": credentials }).to_string();
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers, body).into_response()
}

/// `OpenMetrics` 1.0.
async fn metrics(State(board): State<Arc<Board>>) -> Response {
    let now = board.clock.now();
    for entry in &board.entries {
        let label = Label { credential: entry.name.clone() };
        let kept = Arc::clone(&entry.kept.borrow());
        let ends = kept.issued.as_ref().and_then(|issued| issued.ends);
        let left = ends.map(|ends| ends.since(now).as_secs_f64());
        board.counters.expiry.get_or_create(&label).set(left.unwrap_or_default());
        if let Some(at) = kept.obtained_at() {
            let since = at.since(crate::clock::Instant::default()).as_secs_f64();
            board.counters.obtained.get_or_create(&label).set(since);
        }
    }
    let mut text = String::new();
    if encode(&mut text, &board.counters.registry).is_err() {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, HeaderValue::from_static(kind))], text).into_response()
}
