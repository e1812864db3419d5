//! How fast an exchange is, against a bare path that is measured in the same run.
//!
//! `cargo bench --bench hot_path -- [--quick] [--json] [--pinned] [--rounds N] [--seconds N] [--rules N] [--issuers N]`
//! `cargo bench --bench hot_path -- --count [--connections N]`
//!
//! Each server runs in a process of its own (this binary, started again with a role); this process only makes load, in turn
//! against the one and the other, so that a machine that gets slower meanwhile slows both. `docs/performance.md` says how to
//! read the figures.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a measurement: it reads the clock, prints, and ends when something is wrong"
)]

mod bare;
mod count;
#[expect(dead_code, reason = "the smaller key is for `parts`")]
mod fixture;
mod load;
mod server;

use std::{path::Path, time::Duration};

use serde_json::json;

use crate::{
    fixture::Issuer,
    server::{Launch, Role, Server},
};

/// How much is measured.
struct Plan {
    quick: bool,
    json: bool,
    pinned: bool,
    rounds: usize,
    during: Duration,
    connections: Vec<usize>,
    rules: usize,
    issuers: usize,
}

impl Plan {
    fn of(arguments: &[String]) -> Self {
        let has = |name: &str| arguments.iter().any(|argument| argument == name);
        let number = |name: &str, default: f64| {
            let at = arguments.iter().position(|argument| argument == name);
            let value = at.and_then(|at| arguments.get(at + 1));
            value.map_or(default, |text| text.parse().expect("a number"))
        };
        let quick = has("--quick");
        let seconds = number("--seconds", if quick { 0.4 } else { 2.0 });
        let all = match (has("--count"), quick) {
            (true, _) => vec![64],
            (false, true) => vec![1, 16],
            (false, false) => vec![1, 8, 64, 256],
        };
        let only = number("--connections", 0.0) as usize;
        Self {
            quick,
            json: has("--json"),
            pinned: has("--pinned"),
            rounds: number("--rounds", if quick { 1.0 } else { 5.0 }) as usize,
            during: Duration::from_secs_f64(seconds),
            connections: if only == 0 { all } else { vec![only] },
            rules: number("--rules", 10.0) as usize,
            issuers: number("--issuers", 1.0) as usize,
        }
    }
}

/// One server's figures at one number of connections: medians over the rounds.
struct Row {
    role: Role,
    connections: usize,
    per_second: f64,
    p50: f64,
    p99: f64,
    cpu: f64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [role, folder, ..] = arguments.as_slice()
        && let Some(role) = Role::of(role)
    {
        return server::serve(role, Path::new(folder));
    }
    let plan = Plan::of(&arguments);
    let folder = tempfile::tempdir().expect("a folder");
    let issuer = Issuer::generate();
    fixture::configuration(folder.path(), &issuer, plan.rules, plan.issuers);
    server::create(folder.path());

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let failed = runtime.expect("a runtime").block_on(async {
        if arguments.iter().any(|argument| argument == "--count") {
            return count::measure(&plan, folder.path(), &issuer).await;
        }
        measure(&plan, folder.path(), &issuer).await
    });
    if failed > 0 {
        std::process::exit(1);
    }
}

async fn measure(plan: &Plan, folder: &Path, issuer: &Issuer) -> usize {
    let launch = if plan.pinned { Launch::Pinned } else { Launch::Free };
    let mut ready: Vec<f64> = Vec::new();
    for _ in 0..if plan.quick { 1 } else { 5 } {
        let server = Server::start(Role::Broker, folder, launch);
        ready.push(server.ready.as_secs_f64() * 1_000.0);
        server.stop();
    }
    let mut servers = [Role::Bare, Role::Broker].map(|role| Server::start(role, folder, launch));
    if plan.pinned {
        server::pin(std::process::id(), 1);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let idle = servers.each_ref().map(|server| server.memory("VmRSS:"));
    let request = issuer.request(fixture::last_repository(plan.rules));

    let mut checks = Checks::default();
    for server in &servers {
        let answer = load::once(server.address, &request).await;
        checks.answer(server.role, &answer);
        load::run(server.address, &request, 16, plan.during / 2).await;
    }
    let mut rows = Vec::new();
    for connections in &plan.connections {
        let mut rounds = servers.each_ref().map(|_| Vec::new());
        for _ in 0..plan.rounds {
            for (server, rounds) in servers.iter_mut().zip(&mut rounds) {
                let before = server.cpu();
                let seen = load::run(server.address, &request, *connections, plan.during).await;
                let cpu = server.cpu().saturating_sub(before).as_secs_f64() * 1e6
                    / seen.latencies.len().max(1) as f64;
                checks.seen(server.role, *connections, &seen);
                server.answered += seen.latencies.len() as u64;
                rounds.push((seen, cpu));
            }
        }
        for (server, rounds) in servers.iter().zip(rounds) {
            let of = |figure: &dyn Fn(&load::Seen, f64) -> f64| {
                median(rounds.iter().map(|(seen, cpu)| figure(seen, *cpu)).collect())
            };
            rows.push(Row {
                role: server.role,
                connections: *connections,
                per_second: of(&|seen, _| seen.per_second),
                p50: of(&|seen, _| seen.quantile(0.5)),
                p99: of(&|seen, _| seen.quantile(0.99)),
                cpu: of(&|_, cpu| cpu),
            });
        }
    }
    let most = servers.each_ref().map(|server| server.memory("VmHWM:"));
    let [bare, broker] = servers;
    let answered = broker.answered;
    bare.stop();
    broker.stop();
    checks.ledger(folder, answered);
    report(plan, &rows, median(ready), (idle, most));
    checks.tell()
}

fn report(plan: &Plan, rows: &[Row], ready: f64, (idle, most): ([f64; 2], [f64; 2])) {
    let ratio = |row: &Row| {
        let bare =
            rows.iter().find(|bare| bare.role == Role::Bare && bare.connections == row.connections);
        row.per_second / bare.map_or(f64::NAN, |bare| bare.per_second)
    };
    if plan.json {
        let rows: Vec<_> = rows
            .iter()
            .map(|row| {
                json!({
                    "server": row.role.name(), "connections": row.connections, "per_second": row.per_second,
                    "ratio": ratio(row), "p50_ms": row.p50, "p99_ms": row.p99, "cpu_us": row.cpu,
                })
            })
            .collect();
        let whole = json!({
            "pinned": plan.pinned, "rules": plan.rules, "issuers": plan.issuers, "rows": rows, "ready_ms": ready,
            "idle_mib": { "bare": idle[0], "broker": idle[1] }, "most_mib": { "bare": most[0], "broker": most[1] },
        });
        println!("{whole:#}");
        return;
    }
    println!("connections  server  exchanges/s  ratio   p50 ms   p99 ms  CPU us each");
    for row in rows {
        println!(
            "{:>11}  {:<6}  {:>11.0}  {:>5.2}  {:>7.3}  {:>7.3}  {:>11.1}",
            row.connections,
            row.role.name(),
            row.per_second,
            ratio(row),
            row.p50,
            row.p99,
            row.cpu
        );
    }
    println!("bare:   {:.1} MiB idle, {:.1} MiB at most", idle[0], most[0]);
    println!("broker: {:.1} MiB idle, {:.1} MiB at most, ready in {ready:.0} ms", idle[1], most[1]);
}

/// A benchmark that measures refusals measures nothing.
#[derive(Default)]
struct Checks {
    passed: usize,
    failed: Vec<String>,
}

impl Checks {
    fn that(&mut self, good: bool, what: impl FnOnce() -> String) {
        if good {
            self.passed += 1;
        } else {
            self.failed.push(what());
        }
    }

    fn answer(&mut self, role: Role, answer: &str) {
        let body: serde_json::Value = answer
            .split_once("\r\n\r\n")
            .and_then(|(_, body)| serde_json::from_str(body).ok())
            .unwrap_or_default();
        let segments = body["access_token"].as_str().unwrap_or_default().split('.').count();
        self.that(segments == 3, || format!("{}: no token in the answer: {answer}", role.name()));
        if role == Role::Broker {
            self.that(body["ledger"]["leaf"].is_string(), || {
                format!("no receipt in the answer: {answer}")
            });
        }
    }

    fn seen(&mut self, role: Role, connections: usize, seen: &load::Seen) {
        let (good, refused) = (seen.latencies.len(), seen.refused);
        self.that(good > 0 && refused == 0, || {
            format!(
                "{} with {connections} connections: {good} granted, {refused} refused",
                role.name()
            )
        });
    }

    /// INVARIANT(no-answer-without-entry), seen from outside: there are at least as many entries as answers.
    fn ledger(&mut self, folder: &Path, answered: u64) {
        let size = cambio::store::Store::read(&folder.join("state/cambio.db"))
            .ok()
            .and_then(|reader| reader.size().ok())
            .unwrap_or(0);
        self.that(size > answered, || {
            format!("{answered} answers, and {size} entries in the ledger")
        });
    }

    fn tell(self) -> usize {
        for failure in &self.failed {
            eprintln!("{failure}");
        }
        eprintln!("{} passed, {} failed", self.passed, self.failed.len());
        self.failed.len()
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
