//! INVARIANT(no-answer-without-entry): the entry is durable first, and without it nothing is signed.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use cambio::{
    ledger::{CommitError, entry::Kind},
    mint::MintError,
    store::Store,
};

use super::seams::{Gate, Mints, Watched};
use crate::support::broker::Broker;

/// A broker whose commits go through a gate and whose minter is watched.
async fn watched() -> (Arc<Broker>, Arc<Gate>, Arc<Watched>) {
    let gate = Mutex::new(None);
    let broker = Broker::start_behind(&|inner| {
        let made = Gate::before(inner);
        *gate.lock().unwrap() = Some(Arc::clone(&made));
        made
    })
    .await;
    let minter = Mutex::new(None);
    let elsewhere = Store::read(&broker.site.store()).unwrap();
    broker.mint_with(|inner| {
        let made = Watched::over(inner, Arc::clone(&elsewhere));
        *minter.lock().unwrap() = Some(Arc::clone(&made));
        made
    });
    let gate = gate.into_inner().unwrap().unwrap();
    (Arc::new(broker), gate, minter.into_inner().unwrap().unwrap())
}

#[tokio::test]
async fn another_process_can_read_the_entry_when_the_minter_is_asked_to_sign() {
    let (broker, _, minter) = watched().await;
    for _ in 0..20 {
        assert_eq!(broker.exchange(&broker.site.job().sign()).await.status, 200);
    }
    assert_eq!(*minter.seen.lock().unwrap(), [true; 20]);
}

#[tokio::test]
async fn a05_a_ledger_that_can_not_write_issues_nothing_and_says_when_to_come_back() {
    let words = "the exchange could not be recorded";
    for (error, retry_after) in [
        (CommitError::Stopped("disk full".to_owned()), ""),
        (CommitError::Fork("behind its anchor".to_owned()), ""),
        (CommitError::Full, "1"),
        (CommitError::ClockBehind(Duration::from_secs(61)), "1"),
    ] {
        let (broker, gate, minter) = watched().await;
        gate.fail_with(error.clone());
        let token = broker.site.job().sign();
        let answer = broker.exchange(&token).await;
        let said = (503, "temporarily_unavailable".to_owned(), words.to_owned());
        assert_eq!((answer.error(), answer.header("retry-after")), (said, retry_after), "{error}");
        assert!(minter.seen.lock().unwrap().is_empty(), "{error}: nothing was signed");
        // What can be written again is: the refusal has its entry, and the token is still good.
        *gate.fails.lock().unwrap() = None;
        let entries = broker.exchanges().await;
        let told: Vec<_> = entries.iter().map(|line| (line.kind, line.text("reason"))).collect();
        assert_eq!(told, [(Kind::Refused, "ledger")]);
        assert_eq!(broker.exchange(&token).await.status, 200);
    }
}

#[tokio::test]
async fn v04_a_clock_behind_the_newest_entry_stops_issuing_until_it_is_right_again() {
    let broker = Broker::start().await;
    broker.pass(100);
    let now = broker.now();
    let job = || broker.site.job().issued_at(broker.now().seconds(), 300).sign();
    assert_eq!(broker.exchange(&job()).await.status, 200);
    broker.clock.set(now.minus(Duration::from_secs(61)));
    let answer = broker.exchange(&job()).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "1"));
    broker.clock.set(now.minus(Duration::from_secs(60)));
    assert_eq!(broker.exchange(&job()).await.status, 200);
}

/// The caller's connection is gone while its entry is being written: the exchange goes on, and drain waits for it.
#[tokio::test]
async fn a_dropped_connection_does_not_abort_what_was_committed_and_drain_waits_for_it() {
    let (broker, gate, minter) = watched().await;
    Gate::close(&gate.after);
    let token = broker.site.job().sign();
    {
        let asked = broker.exchange(&token);
        tokio::pin!(asked);
        tokio::select! {
            biased;
            answer = &mut asked => panic!("answered while the gate is closed: {answer:?}"),
            committed = gate.durable.acquire() => committed.unwrap().forget(),
        }
        // Here the connection is dropped, and with it the future of the handler.
    }
    let tasks = &broker.exchange.tasks;
    tasks.close();
    let drained = tasks.wait();
    tokio::pin!(drained);
    tokio::select! {
        biased;
        () = &mut drained => panic!("drain did not wait"),
        () = std::future::ready(()) => {}
    }
    assert!(minter.seen.lock().unwrap().is_empty());
    gate.after.add_permits(1);
    drained.await;
    assert_eq!(*minter.seen.lock().unwrap(), [true], "it was minted, though nobody waits");
    let again = broker.exchange(&token).await.error();
    assert_eq!(again.2, "the subject token was already used for this");
}

/// As long as a commit hangs there is no answer; when it fails after all, nothing was signed.
#[tokio::test]
async fn v02_a_commit_that_hangs_holds_the_answer_back() {
    let (broker, gate, minter) = watched().await;
    Gate::close(&gate.before);
    let token = broker.site.job().sign();
    let asked = broker.exchange(&token);
    tokio::pin!(asked);
    tokio::select! {
        biased;
        answer = &mut asked => panic!("answered without an entry: {answer:?}"),
        arrived = gate.arrived.acquire() => arrived.unwrap().forget(),
    }
    assert!(minter.seen.lock().unwrap().is_empty());
    broker.writer.close();
    broker.writer.wait_until_ended().await;
    gate.before.add_permits(1);
    assert_eq!(asked.await.status, 503);
    assert!(minter.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn v06_a_minter_that_panics_costs_one_exchange_and_nothing_else() {
    let (broker, _, minter) = watched().await;
    minter.mints(Mints::Panics);
    let answer = broker.exchange(&broker.site.job().sign()).await;
    let said = (500, "server_error".to_owned(), "internal error".to_owned());
    assert_eq!(answer.error(), said);
    assert!(!answer.body.contains("defect"));
    minter.mints(Mints::Well);
    assert_eq!(broker.exchange(&broker.site.job().sign()).await.status, 200);
    let entries = broker.exchanges().await;
    let told: Vec<_> =
        entries.iter().map(|line| (line.kind.as_str(), line.text("reason"))).collect();
    assert_eq!(told, [("granted", ""), ("refused", "internal"), ("granted", "")]);
}

/// The ledger says that the credential never came to be, and in the same transaction its token is good again.
#[tokio::test]
async fn a_mint_that_fails_for_certain_is_void_and_releases_its_spend() {
    let (broker, _, minter) = watched().await;
    let token = broker.site.job().sign();
    let no_key = MintError::NoKey("key `k` was withdrawn".to_owned());
    for error in [MintError::Refused("no".to_owned()), no_key] {
        minter.mints(Mints::Fails(error));
        let answer = broker.exchange(&token).await;
        assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "5"));
    }
    minter.mints(Mints::Well);
    assert_eq!(broker.exchange(&token).await.status, 200, "the token was not used up");
    let lines = broker.lines().await;
    let outcomes = lines.iter().map(|line| line.text("outcome")).filter(|it| !it.is_empty());
    assert_eq!(outcomes.collect::<Vec<_>>(), ["void", "void"]);
}

#[tokio::test]
async fn a_mint_of_unknown_outcome_stays_spent() {
    let (broker, _, minter) = watched().await;
    let token = broker.site.job().sign();
    minter.mints(Mints::Fails(MintError::Unknown("timed out".to_owned())));
    let answer = broker.exchange(&token).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, ""));
    minter.mints(Mints::Well);
    let again = broker.exchange(&token).await.error();
    assert_eq!(again.2, "the subject token was already used for this");
    let lines = broker.lines().await;
    assert_eq!(lines.iter().filter(|line| line.text("outcome") == "unknown").count(), 1);
}

/// What was told of a grant before stands: a failure that came too late has released nothing, and nobody is told to come back.
#[tokio::test]
async fn a_failure_that_was_overtaken_leaves_the_token_spent_and_does_not_say_otherwise() {
    for (late, retry_after) in [(false, "2"), (true, "")] {
        let (broker, gate, minter) = watched().await;
        gate.late.store(late, std::sync::atomic::Ordering::SeqCst);
        minter.mints(Mints::Fails(MintError::Busy(Duration::from_secs(2))));
        let token = broker.site.job().sign();
        let answer = broker.exchange(&token).await;
        assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, retry_after));
        minter.mints(Mints::Well);
        let again = broker.exchange(&token).await;
        assert_eq!(again.status.as_u16(), if late { 400 } else { 200 }, "{}", again.body);
    }
}
