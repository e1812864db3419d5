//! What each step of an exchange costs, and how the cost grows with rules, issuers and entries.
//!
//! `cargo bench --bench parts -- [--quick] [--only steps|rules|issuers|ledger] [--entries N]`
//!
//! `--entries 10000000` adds the longest ledger (some 22 GB of disk). Figures are medians of interleaved rounds on one thread,
//! but for `append`, which has the writer's thread and as many waiters as it says.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a measurement: it reads the clock, prints, and ends when something is wrong"
)]

#[expect(dead_code, reason = "whole requests are for the servers of `hot_path`")]
#[path = "../hot_path/fixture.rs"]
mod fixture;
mod ledger;
mod stage;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use cambio::policy::Decision;

use crate::{fixture::Signs, stage::Stage};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let only = value("--only");
    let wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
    let most = value("--entries").map_or(1_000_000, |text| text.parse().expect("a number"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        if wanted("steps") {
            steps(quick).await;
        }
        if wanted("rules") {
            let counts: &[usize] = if quick { &[10, 100] } else { &[10, 100, 1_000, 10_000] };
            growth("rules", counts, quick, |count| (count, 1)).await;
        }
        if wanted("issuers") {
            let counts: &[usize] = if quick { &[1, 10] } else { &[1, 10, 100, 1_000] };
            growth("issuers", counts, quick, |count| (10, count)).await;
        }
        if wanted("ledger") {
            ledger::growth(if quick { 1_000 } else { most }).await;
        }
    });
    eprintln!("1 passed, 0 failed");
}

/// The steps of one exchange, each alone.
async fn steps(quick: bool) {
    let stage = Stage::set(10, 1).await;
    let rounds = if quick { 1 } else { 7 };
    let during = Duration::from_millis(if quick { 10 } else { 100 });
    let [rsa, ec] = [Signs::Rs256, Signs::Es256].map(|signs| stage.token(signs));
    let subject = stage.subject(&rsa).await;
    let now = stage.clock.now();
    let grant = stage.grant(&subject);
    let behind = stage.behind(&subject, now);
    let input = [b'x'; 600];
    let rows = [
        (
            "verify RS256",
            time(rounds, during, async || drop(black_box(stage.subject(&rsa).await))).await,
        ),
        (
            "verify ES256",
            time(rounds, during, async || drop(black_box(stage.subject(&ec).await))).await,
        ),
        ("decide", time(rounds, during, async || drop(black_box(stage.decide(&subject)))).await),
        (
            "explain",
            time(rounds, during, async || {
                drop(black_box(stage.scene.policies.explain(subject.profile(), &stage.wants, now)));
            })
            .await,
        ),
        (
            "prepare",
            time(rounds, during, async || drop(black_box(stage.minter.prepare(&grant, behind))))
                .await,
        ),
        (
            "sign ES256",
            time(rounds, during, async || drop(black_box(stage.sign(&input).await))).await,
        ),
        (
            "draft of an entry",
            time(rounds, during, async || drop(black_box(stage.draft(&subject)))).await,
        ),
    ];
    println!("step                  us");
    for (name, took) in rows {
        println!("{name:<18}  {:>6.2}", took.as_secs_f64() * 1e6);
    }
    println!("\nwaiters  appends/s    p50 ms    p99 ms");
    for waiters in if quick { vec![1, 16] } else { vec![1, 64, 256] } {
        let during = Duration::from_millis(if quick { 100 } else { 2_000 });
        let seen = ledger::append(&stage, waiters, during).await;
        println!(
            "{waiters:>7}  {:>9.0}  {:>8.3}  {:>8.3}",
            seen.per_second,
            seen.quantile(0.5),
            seen.quantile(0.99)
        );
    }
}

/// Verify and decide, which are all that rules and issuers could slow down.
async fn growth(what: &str, counts: &[usize], quick: bool, of: impl Fn(usize) -> (usize, usize)) {
    println!("\n{what:<8}  verify + decide us   start ms");
    let during = Duration::from_millis(if quick { 10 } else { 60 });
    let mut stages = Vec::new();
    for count in counts {
        let (rules, issuers) = of(*count);
        let begun = Instant::now();
        let stage = Stage::set(rules, issuers).await;
        let started = begun.elapsed();
        let token = stage.token(Signs::Rs256);
        stages.push((*count, stage, token, started, Vec::new()));
    }
    // Interleaved: a machine that gets slower slows all sizes.
    for _ in 0..if quick { 1 } else { 15 } {
        for (_, stage, token, _, took) in &mut stages {
            took.push(
                time(1, during, async || {
                    let subject = stage.subject(token).await;
                    assert!(matches!(stage.decide(&subject), Decision::Permit(_)), "not permitted");
                })
                .await,
            );
        }
    }
    for (count, _, _, started, took) in &mut stages {
        took.sort();
        let median = took.get(took.len() / 2).copied().unwrap_or_default();
        println!(
            "{count:<8}  {:>18.2}   {:>8.1}",
            median.as_secs_f64() * 1e6,
            started.as_secs_f64() * 1e3
        );
    }
}

/// How long one run of `work` takes: the median of `rounds` means, each over `during`.
async fn time(rounds: usize, during: Duration, mut work: impl AsyncFnMut()) -> Duration {
    let mut means = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let (begun, mut runs) = (Instant::now(), 0_u32);
        while begun.elapsed() < during {
            work().await;
            runs += 1;
        }
        means.push(begun.elapsed() / runs.max(1));
    }
    means.sort();
    means.get(means.len() / 2).copied().unwrap_or_default()
}
