//! The broker dies between commit and conclusion: whoever comes next tells that nobody knows, and later that it is over.

use std::{sync::Arc, time::Duration};

use cambio::{
    clock::Clock as _,
    exchange::resolver::Resolver,
    id::LeaseId,
    ledger::{
        Commit as _, Committed, Event, IntentStep, LeaseIntent, LeaseState, Proposal, entry::Entry,
        reader::Leases, show,
    },
};

use crate::ledger::log::{Disk, Log, NOW, durable, exchange, grant, intent};

fn resolver(log: &Log) -> Resolver {
    let ledger = Arc::new(log.writer.clone());
    Resolver::of(Arc::clone(&log.reader), ledger, Arc::clone(&log.clock) as _).unwrap()
}

/// What the ledger tells of exchange `number`.
fn story(log: &Log, number: u64) -> Vec<String> {
    let history = log.reader.history(exchange(number)).unwrap();
    let entries = history.iter().map(|stored| Entry::decode(&stored.leaf).unwrap());
    let told = entries.map(|entry| match entry.body.get("outcome") {
        Some(outcome) => outcome.as_str().unwrap().to_owned(),
        None => entry.kind.as_str().to_owned(),
    });
    told.collect()
}

fn shown(log: &Log, number: u64) -> String {
    let grant = log.reader.find(exchange(number)).unwrap().unwrap();
    show::outcome(&*log.reader, &grant).unwrap().unwrap_or_default()
}

/// A grant of which a process that is gone now told nothing more.
async fn died_after_the_commit(proposal: Proposal) -> Disk {
    let log = Log::create();
    durable(log.writer.commit(proposal).await);
    log.close().await
}

fn opened(number: u64) -> Proposal {
    Proposal { intent: Some(intent(number, None)), ..grant(number) }
}

#[tokio::test]
async fn b03_what_a_dead_broker_left_open_is_unknown_at_once_and_ended_at_its_worst_end() {
    let disk = died_after_the_commit(opened(1)).await;
    let mut log = Log::open(&disk.path);
    log.keep(disk);
    let mut resolver = resolver(&log);
    assert_eq!(resolver.look().await, Ok(1));
    assert_eq!(story(&log, 1), ["granted", "unknown"]);
    assert!(shown(&log, 1).starts_with("unknown: a credential may exist"), "{}", shown(&log, 1));
    let unknown = log.reader.unknown_outcomes().unwrap().pop().unwrap();
    let told = (unknown.target.as_str(), unknown.count, unknown.until);
    assert_eq!(told, ("aws/prod", 1, intent(1, None).worst_end));
    // The token stays spent: a credential may exist.
    let again = log.writer.commit(Proposal { spend: grant(1).spend, ..grant(2) }).await;
    assert!(matches!(again, Ok(Committed::AlreadySpent(_))), "{again:?}");
    log.clock.set(intent(1, None).worst_end.minus(Duration::from_millis(1)));
    assert_eq!(resolver.look().await, Ok(0), "not a moment before");
    log.clock.set(intent(1, None).worst_end);
    assert_eq!(resolver.look().await, Ok(1));
    assert_eq!(story(&log, 1), ["granted", "unknown", "ended"]);
    assert_eq!(log.reader.unknown_outcomes().unwrap(), []);
    assert_eq!(resolver.look().await, Ok(0), "told once");
}

#[tokio::test]
async fn b03_a_broker_that_was_away_beyond_the_worst_end_tells_that_it_is_over() {
    let disk = died_after_the_commit(opened(1)).await;
    let mut log = Log::open(&disk.path);
    log.keep(disk);
    log.clock.pass(Duration::from_hours(2));
    assert_eq!(resolver(&log).look().await, Ok(1));
    assert_eq!(story(&log, 1), ["granted", "ended"]);
}

/// A task that died, or a conclusion that could not be written, in a process that goes on.
#[tokio::test]
async fn v06_what_is_under_way_is_left_alone_and_what_has_no_task_any_more_is_told() {
    let log = Log::create();
    let mut resolver = resolver(&log);
    durable(log.writer.commit(opened(1)).await);
    assert_eq!(resolver.look().await, Ok(0), "it may be under way");
    // A wall clock that steps ahead says nothing of the task.
    log.clock.pass(Duration::from_mins(5));
    assert_eq!(resolver.look().await, Ok(0), "seen for the first time");
    assert_eq!(story(&log, 1), ["granted"]);
    assert_eq!(resolver.look().await, Ok(1));
    assert_eq!(story(&log, 1), ["granted", "unknown"]);
    // Its task was there after all: what it made does not leave, because another outcome was told.
    let change = cambio::ledger::Change::Concluded {
        release: grant(1).spend,
        lease: None,
        intent: Some(IntentStep::Settled),
    };
    let event = Event::Concluded { exchange_id: exchange(1), outcome: "minted" };
    let late = log.writer.commit(Proposal { change: Some(change), ..Proposal::of(event) }).await;
    assert!(matches!(late, Ok(Committed::Overtaken(_))), "{late:?}");
    assert_eq!(log.reader.unknown_outcomes().unwrap().len(), 1);
}

#[tokio::test]
async fn b03_what_has_a_lease_is_told_once_and_left_to_the_lease() {
    let id = LeaseId::from_bytes([1; 16]);
    let lease = LeaseIntent {
        id,
        target: "postgres/orders".into(),
        object: "cambio_1".into(),
        mint_deadline: NOW.plus(Duration::from_secs(30)),
        worst_end: NOW.plus(Duration::from_mins(15)),
        token: [7; 32],
        share: None,
    };
    let opened = Proposal { intent: Some(intent(1, Some(id))), lease: Some(lease), ..grant(1) };
    let disk = died_after_the_commit(opened).await;
    let mut log = Log::open(&disk.path);
    log.keep(disk);
    let mut resolver = resolver(&log);
    assert_eq!(resolver.look().await, Ok(1));
    assert_eq!(story(&log, 1), ["granted", "unknown"]);
    let stands = log.reader.leases(Leases::Of(id), 1).unwrap().pop().unwrap();
    assert_eq!(stands.state, LeaseState::Unknown, "the reaper looks for it");
    assert_eq!(log.reader.unknown_outcomes().unwrap(), [], "its lease tells of it");
    log.clock.pass(Duration::from_hours(1));
    assert_eq!(resolver.look().await, Ok(0));
}

#[tokio::test]
async fn what_cannot_be_written_now_is_told_at_the_next_look() {
    let disk = died_after_the_commit(opened(1)).await;
    let mut log = Log::open(&disk.path);
    log.keep(disk);
    let mut resolver = resolver(&log);
    log.writer.hold("a fork".to_owned());
    assert_eq!(resolver.look().await, Ok(0));
    assert_eq!(story(&log, 1), ["granted"]);
    log.writer.fork(&[], &crate::support::broker::operator()).await.unwrap();
    assert_eq!(resolver.look().await, Ok(1));
}

/// More than one reading takes.
#[tokio::test]
async fn a_thousand_are_told_in_one_look() {
    let log = Log::create();
    for number in 0..1_000 {
        durable(log.writer.commit(opened(number)).await);
    }
    let disk = log.close().await;
    let mut log = Log::open(&disk.path);
    log.keep(disk);
    assert_eq!(resolver(&log).look().await, Ok(1_000));
    assert_eq!(log.reader.unknown_outcomes().unwrap()[0].count, 1_000);
    assert_eq!(log.clock.now(), NOW);
}
