//! How fast logins are made and ended, against the bare statements that are measured in the same run.
//!
//! `cargo bench --bench leases -- [--quick] [--json] [--rounds N] [--count N] [--only SERVER]`
//!
//! Needs the servers that `CAMBIO_SERVICES` names (tests/README.md). The bare statements go over N pooled connections, without a
//! broker; then whole exchanges go over HTTP to a broker whose target has N connections, in turn, so that a machine that gets
//! slower meanwhile slows both. Every exchange must be answered by a login, and every lease must end. What was made is ended
//! whatever happens.

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
mod broker;
#[expect(dead_code, reason = "smaller keys and JWT targets are for the other benchmarks")]
#[path = "../hot_path/fixture.rs"]
mod fixture;
mod load;
mod server;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::Arc,
    time::Instant,
};

use cambio::mint::name::Names;
use serde_json::json;

use crate::{
    bare::{Bare, PREFIX, told},
    broker::Broker,
    fixture::Issuer,
    load::{Seen, median},
    server::{ORIGIN, Server, Services},
};

/// In the order of the report. `redis-aclfile` adds nothing: users are saved when they end, not when they are made.
const SERVERS: [&str; 4] = ["postgres15", "postgres18", "mariadb", "redis"];
/// How many call at once, and over how many connections their calls go.
const SHAPES: [(usize, usize); 3] = [(1, 1), (4, 4), (16, 4)];

struct Plan {
    json: bool,
    rounds: usize,
    /// Logins of each server and shape, over all rounds.
    count: usize,
    only: Option<String>,
}

impl Plan {
    fn of(arguments: &[String]) -> Self {
        let has = |name: &str| arguments.iter().any(|argument| argument == name);
        let value = |name: &str| {
            let at = arguments.iter().position(|argument| argument == name)?;
            arguments.get(at + 1).cloned()
        };
        let number = |name: &str, default: usize| {
            value(name).map_or(default, |text| text.parse().expect("a number"))
        };
        let quick = has("--quick");
        Self {
            json: has("--json"),
            rounds: number("--rounds", if quick { 1 } else { 5 }).max(1),
            count: number("--count", if quick { 50 } else { 1_000 }).min(5_000),
            only: value("--only"),
        }
    }
}

/// The figures of one server and shape.
#[derive(Default)]
struct Row {
    server: String,
    callers: usize,
    connections: usize,
    bare: Seen,
    broker: Seen,
    /// Of each round, because bare and broker of one round are close in time.
    ratios: Vec<f64>,
    bare_end: Seen,
    end: Seen,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let plan = Plan::of(&arguments);
    let Some(path) = std::env::var_os("CAMBIO_SERVICES") else {
        println!("skipped: CAMBIO_SERVICES is not set (tests/README.md)");
        eprintln!("0 passed, 0 failed, 1 skipped");
        return;
    };
    let services = fs::read(path).expect("CAMBIO_SERVICES names a file");
    let mut services: Services = serde_json::from_slice(&services).expect("as `up` writes it");
    let wanted = |name: &str| {
        SERVERS.contains(&name) && plan.only.as_deref().is_none_or(|only| only == name)
    };
    services.services.retain(|name, _| wanted(name));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let failed = runtime.expect("a runtime").block_on(measure(&plan, &services.services));
    let skipped = SERVERS.iter().filter(|name| !services.services.contains_key(**name));
    let (skipped, failures) = (skipped.count(), failed.len());
    for failure in failed {
        eprintln!("{failure}");
    }
    eprintln!(
        "{} passed, {failures} failed, {skipped} skipped",
        SERVERS.len() - skipped - failures
    );
    if failures > 0 {
        std::process::exit(1);
    }
}

async fn measure(plan: &Plan, servers: &BTreeMap<String, Server>) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let issuer = Issuer::generate();
    let sizes: Vec<usize> = BTreeSet::from(SHAPES.map(|(_, size)| size)).into_iter().collect();
    server::configuration(folder.path(), &issuer, servers, &sizes);
    let broker = Arc::new(Broker::start(folder.path()).await);
    let issuer = Arc::new(issuer);
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    for name in SERVERS {
        let Some(server) = servers.get(name) else { continue };
        // A task of its own: what panics there leaves us to clean up.
        let (one, theirs, issuer) = (server.clone(), Arc::clone(&broker), Arc::clone(&issuer));
        let (rounds, count) = (plan.rounds, plan.count);
        let task =
            tokio::spawn(
                async move { of_server(name, &one, &theirs, &issuer, (rounds, count)).await },
            );
        match task.await.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(found) => rows.extend(found),
            Err(error) => failed.push(format!("{name}: {error}")),
        }
        for size in &sizes {
            let target = server::target(name, *size);
            if broker.live(&target) > 0
                && let Err(error) = broker.end_all(&target).await
            {
                eprintln!("{name}: {error}");
            }
        }
        match left(name, server, &sizes).await {
            Ok(0) => {}
            Ok(count) => failed.push(format!("{name}: {count} logins had to be ended by hand")),
            Err(error) => failed.push(format!("{name}: {error}")),
        }
    }
    if let Some(broker) = Arc::into_inner(broker) {
        broker.drain().await;
    }
    report(plan, &rows, servers);
    failed
}

/// Ends what is left of the run, bare logins included, and says how many there were.
async fn left(name: &str, server: &Server, sizes: &[usize]) -> Result<usize, String> {
    let bare = Bare::of(server, 1).await.map_err(|error| told(&*error))?;
    let mut prefixes = vec![PREFIX.to_owned()];
    for size in sizes {
        let names = Names::of(ORIGIN, &server::target(name, *size).as_str().into());
        prefixes.push(names.prefix().to_owned());
    }
    let mut count = 0;
    for prefix in prefixes {
        count += bare.clean(&prefix).await.map_err(|error| told(&*error))?;
    }
    bare.close().await.map_err(|error| told(&*error))?;
    Ok(count)
}

async fn of_server(
    name: &str,
    server: &Server,
    broker: &Broker,
    issuer: &Issuer,
    (rounds, count): (usize, usize),
) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    for (callers, connections) in SHAPES {
        let text = |error: Box<dyn std::error::Error + Send + Sync>| told(&*error);
        let target = server::target(name, connections);
        let bare = Bare::of(server, connections).await.map_err(text)?;
        bare.clean(PREFIX).await.map_err(text)?;
        let mut row = Row { server: name.to_owned(), callers, connections, ..Row::default() };
        let each = count.div_ceil(rounds);
        // Connections are made, and caches filled.
        Seen::default().run(bare.makers(callers), 0, callers * 4).await?;
        let mut warm = Seen::default();
        warm.run(broker.callers(issuer, &target, callers).await, 0, callers * 4).await?;
        bare.clean(PREFIX).await.map_err(text)?;
        broker.end_all(&target).await?;
        for _ in 0..rounds {
            row.bare.run(bare.makers(callers), 0, each).await?;
            let names = Arc::new(bare.names(PREFIX).await.map_err(text)?);
            if names.len() != each {
                return Err(format!("{} bare logins of {each}", names.len()));
            }
            row.bare_end.run(bare.enders(connections, &names), 0, each).await?;

            let http = broker.callers(issuer, &target, callers).await;
            row.broker.run(http, 0, each).await?;
            row.ratios.extend(row.broker.last().zip(row.bare.last()).map(|(a, b)| a / b));
            let names = Names::of(ORIGIN, &target.as_str().into());
            let there = bare.names(names.prefix()).await.map_err(text)?.len();
            if (there, broker.live(&target)) != (each, each) {
                let live = broker.live(&target);
                return Err(format!("{each} answers, {there} logins, {live} live leases"));
            }
            let begun = Instant::now();
            broker.end_all(&target).await?;
            row.end.rate(each, begun);
            let (revoked, all) = broker.revoked(&target);
            let there = bare.names(names.prefix()).await.map_err(text)?.len();
            if there > 0 || revoked != all {
                return Err(format!("{there} logins are left, {revoked} of {all} are revoked"));
            }
        }
        bare.close().await.map_err(text)?;
        rows.push(row);
    }
    Ok(rows)
}

fn report(plan: &Plan, rows: &[Row], servers: &BTreeMap<String, Server>) {
    if plan.json {
        let told = |seen: &Seen| json!({ "per_second": seen.per_second(), "p50_ms": seen.quantile(0.5), "p99_ms": seen.quantile(0.99) });
        let rows: Vec<_> = rows
            .iter()
            .map(|row| {
                json!({
                    "server": row.server, "version": servers.get(&row.server).map(|it| &it.version),
                    "callers": row.callers, "connections": row.connections, "bare": told(&row.bare),
                    "broker": told(&row.broker), "ratio": median(row.ratios.clone()),
                    "bare_ended_per_second": row.bare_end.per_second(), "ended_per_second": row.end.per_second(),
                })
            })
            .collect();
        println!("{:#}", json!({ "rounds": plan.rounds, "count": plan.count, "rows": rows }));
        return;
    }
    println!(
        "                               made/s         ratio     p50 ms          p99 ms        ended/s"
    );
    println!(
        "server      callers over    bare  broker            bare  broker    bare  broker    bare  broker"
    );
    for row in rows {
        println!(
            "{:<11} {:>7} {:>4}  {:>6.0}  {:>6.0}  {:>6.2}  {:>6.2}  {:>6.2}  {:>6.2}  {:>6.2}  {:>6.0}  {:>6.0}",
            row.server,
            row.callers,
            row.connections,
            row.bare.per_second(),
            row.broker.per_second(),
            median(row.ratios.clone()),
            row.bare.quantile(0.5),
            row.broker.quantile(0.5),
            row.bare.quantile(0.99),
            row.broker.quantile(0.99),
            row.bare_end.per_second(),
            row.end.per_second(),
        );
    }
}
