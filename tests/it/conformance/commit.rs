//! The battery of `ledger::Commit`: its duties by number, run on SQLite.

use std::{sync::Arc, time::Duration};

use cambio::{
    clock::Clock as _,
    id::{BlockId, LeaseId},
    ledger::{
        Block, Change, Commit, CommitError, Committed, Event, IntentStep, LeaseIntent, LeaseState,
        Operator, Proposal, Share, Written,
        entry::Entry,
        reader::{Leases, LedgerReader},
    },
    store::Store,
};

use crate::ledger::log::{Log, NOW, durable, exchange, grant, intent, refusal};

fn by() -> Operator {
    Operator { who: "uid:0".into(), reason: "drill".into() }
}

fn ring(from: u64, to: u64) -> Proposal {
    let event = Event::Keys {
        step: "prepare",
        kid: format!("kid-{to}"),
        algorithm: "ES256".into(),
        epoch: to,
    };
    let change = Change::KeyRing { from, to, sealed: format!("sealed {to}") };
    Proposal { change: Some(change), ..Proposal::of(event) }
}

fn block(id: BlockId, block: Block) -> Proposal {
    let change = Change::BlockSet { id, block };
    Proposal { change: Some(change), ..Proposal::of(Event::Blocked { id, step: "set", by: by() }) }
}

fn block_id(number: u8) -> BlockId {
    BlockId::from_bytes([number; 16])
}

fn nothing() -> Block {
    Block { issuer: None, rule: None, claims: std::collections::BTreeMap::new(), until: None }
}

fn by_claim(name: &str, value: impl Into<serde_json::Value>) -> Block {
    Block { claims: [(name.to_owned(), value.into())].into(), ..nothing() }
}

/// Duty 1: what an answer covers, another process reads.
async fn everything_is_durable_before_the_answer(ledger: &dyn Commit, log: &Log) {
    let lease = LeaseIntent {
        id: LeaseId::from_bytes([1; 16]),
        target: "postgres/orders".into(),
        object: "cambio_1".into(),
        mint_deadline: NOW.plus(Duration::from_secs(10)),
        worst_end: NOW.plus(Duration::from_mins(15)),
        token: [7; 32],
        share: None,
    };
    let mut proposal = grant(1);
    proposal.lease = Some(lease);
    let receipt = durable(ledger.commit(proposal).await);
    let elsewhere = Store::read(&log.path).unwrap();
    let stored = elsewhere.find(exchange(1)).unwrap().unwrap();
    assert_eq!((stored.index, stored.hash), (receipt.index(), receipt.leaf()));
    assert_eq!(stored.time, receipt.time());
    assert_eq!(Entry::decode(&stored.leaf).unwrap().body["exchange_id"], exchange(1).to_string());
    assert!(stored.facts.is_some(), "duty 1: facts");
    assert_eq!(elsewhere.leases(Leases::In(LeaseState::Opened), 9).unwrap()[0].object, "cambio_1");
}

/// Duty 2.
async fn one_of_a_thousand_spenders_wins(ledger: Arc<dyn Commit>) {
    let spenders: Vec<_> = (2_000..3_000)
        .map(|number| {
            let ledger = Arc::clone(&ledger);
            let mut proposal = grant(number);
            proposal.spend = grant(2).spend;
            tokio_util::task::AbortOnDropHandle::new(
                tokio_util::task::TaskTracker::new()
                    .spawn(async move { ledger.commit(proposal).await }),
            )
        })
        .collect();
    let mut outcomes = Vec::new();
    for spender in spenders {
        outcomes.push(spender.await.unwrap().unwrap());
    }
    let won = outcomes.iter().filter(|it| matches!(it, Committed::Durable(_))).count();
    let lost = outcomes.iter().filter(|it| matches!(it, Committed::AlreadySpent(_))).count();
    assert_eq!((won, lost), (1, 999), "duty 2: exactly one");
}

/// Duty 3, over everything that the battery wrote.
fn the_log_has_no_gap_and_time_never_goes_back(reader: &dyn LedgerReader) {
    let size = reader.size().unwrap();
    let entries = reader.entries(0..size).unwrap();
    assert_eq!(entries.len() as u64, size);
    let mut newest = cambio::clock::Instant::default();
    for (place, stored) in entries.iter().enumerate() {
        let entry = Entry::decode(&stored.leaf).unwrap();
        assert_eq!((stored.index, entry.index), (place as u64, place as u64), "duty 3: no gap");
        assert!(entry.time >= newest, "duty 3: time");
        assert_eq!(entry.time, stored.time);
        newest = entry.time;
    }
}

/// Duty 4: a batch of a conflict, a stale ring, a block and good ones; the good ones do not notice.
async fn a_conflict_is_its_own(ledger: &dyn Commit) {
    durable(ledger.commit(grant(3)).await);
    let mut again = grant(3_000);
    again.spend = grant(3).spend;
    let (good, spent, stale, other) = tokio::join!(
        ledger.commit(grant(4)),
        ledger.commit(again),
        ledger.commit(ring(41, 42)),
        ledger.commit(grant(5)),
    );
    durable(good);
    durable(other);
    assert!(matches!(spent, Ok(Committed::AlreadySpent(_))), "duty 4: {spent:?}");
    assert_eq!(stale, Ok(Committed::Stale { found: 0 }), "duty 4");
}

/// Duty 9: its first half, for another process; what is asked of the disk is seen in `tests/it/ledger/writer.rs`.
async fn what_was_written_is_there_for_everybody(ledger: &dyn Commit, log: &Log) {
    durable(ledger.commit(grant(9)).await);
    let event = Event::Concluded { exchange_id: exchange(9), outcome: "minted" };
    assert_eq!(ledger.write(Proposal::of(event)).await, Ok(Written::Stands), "duty 9");
    let elsewhere = Store::read(&log.path).unwrap();
    assert_eq!(elsewhere.history(exchange(9)).unwrap().len(), 2, "duty 9");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_duties_hold_on_sqlite() {
    let log = Log::create();
    let ledger: Arc<dyn Commit> = Arc::new(log.writer.clone());
    everything_is_durable_before_the_answer(&*ledger, &log).await;
    one_of_a_thousand_spenders_wins(Arc::clone(&ledger)).await;
    a_conflict_is_its_own(&*ledger).await;
    a_step_that_comes_too_late_is_overtaken(&*ledger, &log).await;
    as_many_leases_open_as_there_is_room_for(Arc::clone(&ledger), &log).await;
    an_outcome_is_told_once(&*ledger, &log).await;
    what_was_written_is_there_for_everybody(&*ledger, &log).await;
    log.clock.pass(Duration::from_secs(5));
    durable(ledger.commit(grant(6)).await);
    log.clock.set(NOW);
    durable(ledger.commit(grant(7)).await);
    the_log_has_no_gap_and_time_never_goes_back(&*log.reader);
}

/// Duty 6: on the lease that [`everything_is_durable_before_the_answer`] opened.
async fn a_step_that_comes_too_late_is_overtaken(ledger: &dyn Commit, log: &Log) {
    let id = LeaseId::from_bytes([1; 16]);
    let revoking = Proposal::of(Event::Lease { id, step: LeaseState::Revoking, by: Some(by()) });
    let concluded = |state| Proposal {
        change: Some(Change::Concluded { release: None, lease: Some((id, state)), intent: None }),
        ..Proposal::of(Event::Concluded { exchange_id: exchange(1), outcome: "minted" })
    };
    durable(ledger.commit(revoking.clone()).await);
    for late in [concluded(LeaseState::Active), concluded(LeaseState::Void), revoking] {
        let outcome = ledger.commit(late).await;
        assert!(matches!(outcome, Ok(Committed::Overtaken(_))), "duty 6: {outcome:?}");
    }
    let stands = log.reader.leases(Leases::Of(id), 1).unwrap().pop().unwrap();
    assert_eq!(stands.state, LeaseState::Revoking, "duty 6");
}

/// A grant that opens a lease of `holder` at `target`, where it may have three, and all together five.
fn opening(number: u64, target: &str, holder: u8) -> Proposal {
    let mut id = [number.to_be_bytes(), [9; 8]].concat();
    id.resize(16, 0);
    let share = Share { holder: [holder; 32], of_holder: 3, of_all: Some(5) };
    let lease = LeaseIntent {
        id: LeaseId::from_bytes(id.try_into().unwrap()),
        target: target.into(),
        object: format!("cambio_{number}"),
        mint_deadline: NOW.plus(Duration::from_secs(10)),
        worst_end: NOW.plus(Duration::from_secs(1_000 + number)),
        token: cambio::ledger::tree::sha256(&number.to_be_bytes()),
        share: Some(share),
    };
    Proposal { lease: Some(lease), ..grant(number) }
}

/// Duty 8: all at once, and across batches; each end makes room for one.
async fn as_many_leases_open_as_there_is_room_for(ledger: Arc<dyn Commit>, log: &Log) {
    let target = "postgres/shared";
    let tasks = tokio_util::task::TaskTracker::new();
    let openings: Vec<_> = (5_000..5_020)
        .map(|number| {
            let ledger = Arc::clone(&ledger);
            tasks.spawn(async move { ledger.commit(opening(number, target, 1)).await })
        })
        .collect();
    let mut refused = 0;
    for it in openings {
        match it.await.unwrap().unwrap() {
            Committed::Durable(_) => {}
            Committed::NoRoom(_, until) => {
                refused += 1;
                assert!(until >= NOW.plus(Duration::from_secs(6_000)), "duty 8: the first end");
            }
            other => panic!("duty 8: {other:?}"),
        }
    }
    assert_eq!(refused, 17, "duty 8: three of twenty");
    let full = |outcome| assert!(matches!(outcome, Ok(Committed::NoRoom(..))), "{outcome:?}");
    durable(ledger.commit(opening(5_100, "postgres/other", 1)).await);
    durable(ledger.commit(opening(5_101, target, 2)).await);
    durable(ledger.commit(opening(5_102, target, 3)).await);
    full(ledger.commit(opening(5_103, target, 4)).await);
    // What is refused for want of room spends nothing: with room, the same token is good.
    full(ledger.commit(opening(5_104, target, 2)).await);
    let open = log.reader.leases(Leases::All, 99).unwrap();
    let one = open.iter().find(|lease| lease.object == "cambio_5101").unwrap();
    let step = |step| Proposal::of(Event::Lease { id: one.id, step, by: Some(by()) });
    durable(ledger.commit(step(LeaseState::Revoking)).await);
    full(ledger.commit(opening(5_105, target, 4)).await);
    durable(ledger.commit(step(LeaseState::Revoked)).await);
    let mut again = opening(5_106, target, 4);
    again.spend = opening(5_103, target, 4).spend;
    durable(ledger.commit(again).await);
}

/// Threat B04: what can't be ended is alarmed and tried for ever, and locks nobody out for ever.
#[tokio::test]
async fn b04_a_lease_that_could_not_be_ended_by_its_last_instant_takes_up_no_room() {
    let log = Log::create();
    for number in 1..=3 {
        durable(log.writer.commit(opening(number, "postgres/orders", 1)).await);
    }
    let leases = log.reader.leases(Leases::All, 9).unwrap();
    for lease in &leases {
        for step in [LeaseState::Revoking, LeaseState::Irrevocable] {
            let event = Event::Lease { id: lease.id, step, by: None };
            durable(log.writer.commit(Proposal::of(event)).await);
        }
    }
    let full = log.writer.commit(opening(4, "postgres/orders", 1)).await;
    assert!(matches!(full, Ok(Committed::NoRoom(..))), "before its end it may be used: {full:?}");
    log.clock.pass(Duration::from_secs(1_001));
    let later = |number| Proposal { spend: None, ..opening(number, "postgres/orders", 1) };
    durable(log.writer.commit(later(5)).await);
    let full = log.writer.commit(later(6)).await;
    assert!(matches!(full, Ok(Committed::NoRoom(..))), "one had ended: {full:?}");
}

#[tokio::test]
async fn a_lease_without_room_leaves_a_refusal_and_spends_nothing() {
    let log = Log::create();
    for number in 1..=3 {
        durable(log.writer.commit(opening(number, "postgres/orders", 1)).await);
    }
    let outcome = log.writer.commit(opening(4, "postgres/orders", 1)).await;
    assert!(
        matches!(outcome, Ok(Committed::NoRoom(_, until)) if until == NOW.plus(Duration::from_secs(1_001)))
    );
    let stored = log.reader.find(exchange(4)).unwrap().unwrap();
    let entry = Entry::decode(&stored.leaf).unwrap();
    assert_eq!((entry.kind.as_str(), &entry.body["reason"]), ("refused", &"no_room".into()));
    assert_eq!(log.reader.leases(Leases::All, 9).unwrap().len(), 3);
    let mut elsewhere = opening(5, "postgres/other", 1);
    elsewhere.spend = opening(4, "postgres/orders", 1).spend;
    durable(log.writer.commit(elsewhere).await);
}

/// Duty 7: in one batch, too.
async fn an_outcome_is_told_once(ledger: &dyn Commit, log: &Log) {
    let open = |number| Proposal { intent: Some(intent(number, None)), ..grant(number) };
    let told = |number, outcome, step, release| Proposal {
        change: Some(Change::Concluded { release, lease: None, intent: Some(step) }),
        ..Proposal::of(Event::Concluded { exchange_id: exchange(number), outcome })
    };
    let overtaken = |outcome: Result<Committed, CommitError>| {
        assert!(matches!(outcome, Ok(Committed::Overtaken(_))), "duty 7: {outcome:?}");
    };
    durable(ledger.commit(open(70)).await);
    durable(ledger.commit(told(70, "unknown", IntentStep::Unknown, None)).await);
    let late = told(70, "void", IntentStep::Settled, grant(70).spend);
    overtaken(ledger.commit(late).await);
    let again = ledger.commit(Proposal { event: grant(71).event, ..open(70) }).await;
    assert!(matches!(again, Ok(Committed::AlreadySpent(_))), "duty 7: {again:?}");
    durable(ledger.commit(told(70, "ended", IntentStep::Ended, None)).await);
    overtaken(ledger.commit(told(70, "ended", IntentStep::Ended, None)).await);
    durable(ledger.commit(open(72)).await);
    let (first, second) = tokio::join!(
        ledger.commit(told(72, "minted", IntentStep::Settled, None)),
        ledger.commit(told(72, "unknown", IntentStep::Unknown, None)),
    );
    durable(first);
    overtaken(second);
    assert_eq!(log.reader.unknown_outcomes().unwrap(), [], "duty 7: nothing is left of them");
}

#[tokio::test]
async fn a_spent_token_leaves_a_refusal_with_the_facts_of_the_grant() {
    let log = Log::create();
    durable(log.writer.commit(grant(1)).await);
    let mut again = grant(2);
    again.spend = grant(1).spend;
    again.lease = Some(LeaseIntent {
        id: LeaseId::from_bytes([1; 16]),
        target: "postgres/orders".into(),
        object: "never".into(),
        mint_deadline: NOW,
        worst_end: NOW,
        token: [7; 32],
        share: None,
    });
    let outcome = log.writer.commit(again).await;
    assert!(matches!(outcome, Ok(Committed::AlreadySpent(_))), "{outcome:?}");
    let stored = log.reader.find(exchange(2)).unwrap().unwrap();
    let entry = Entry::decode(&stored.leaf).unwrap();
    assert_eq!(entry.kind.as_str(), "refused");
    assert_eq!(entry.body["reason"], "already_spent");
    let facts = stored.facts.unwrap();
    assert_eq!(entry.commitment, Some(cambio::ledger::entry::commitment(&facts)));
    assert_eq!(log.reader.leases(Leases::All, 9).unwrap(), Vec::new(), "no lease of a refusal");
}

#[tokio::test]
async fn one_token_may_be_spent_on_another_target_and_role() {
    let log = Log::create();
    durable(log.writer.commit(grant(1)).await);
    for (number, (target, role)) in
        [("jwt/billing", "deploy"), ("jwt/orders", "read")].iter().enumerate()
    {
        let mut other = grant(10 + number as u64);
        other.spend = grant(1).spend.map(|spend| cambio::ledger::Spend {
            target: (*target).into(),
            role: (*role).into(),
            ..spend
        });
        durable(log.writer.commit(other).await);
    }
}

#[tokio::test]
async fn the_key_ring_changes_by_compare_and_swap() {
    let log = Log::create();
    durable(log.writer.commit(ring(0, 1)).await);
    assert_eq!(log.reader.key_ring().unwrap(), Some((1, "sealed 1".into())));
    let (one, two) = tokio::join!(log.writer.commit(ring(1, 2)), log.writer.commit(ring(1, 2)));
    let mut outcomes = [one.unwrap(), two.unwrap()];
    outcomes.sort_by_key(|outcome| matches!(outcome, Committed::Stale { .. }));
    assert!(
        matches!(outcomes, [Committed::Durable(_), Committed::Stale { found: 2 }]),
        "{outcomes:?}"
    );
    assert_eq!(log.reader.size().unwrap(), 2, "a stale change leaves no entry");
    let newest = log.reader.newest_of(cambio::ledger::entry::Kind::Keys).unwrap().unwrap();
    assert_eq!(Entry::decode(&newest.leaf).unwrap().body["epoch"], 2);
}

#[tokio::test]
async fn blocks_hit_issuer_rule_and_claims_and_nothing_else() {
    let cases = [
        (Block { issuer: Some("github".into()), ..nothing() }, true),
        (Block { issuer: Some("gitlab".into()), ..nothing() }, false),
        (Block { rule: Some("site/deploy".into()), ..nothing() }, true),
        (Block { rule: Some("site/read".into()), ..nothing() }, false),
        (by_claim("repository_id", "1296269"), true),
        // Written in haste: a block must not miss because of a type, a letter's case or a list.
        (by_claim("repository_id", 1_296_269), true),
        (by_claim("repository_id", 129_626), false),
        (by_claim("sub", "Repo:Acme/Site:ref:refs/heads/main"), true),
        (by_claim("/groups", "ops"), true),
        (by_claim("/groups", "op"), false),
        (by_claim("/kubernetes.io/namespace", "shop"), true),
        (by_claim("/kubernetes.io/namespace", "other"), false),
        (by_claim("absent", serde_json::Value::Null), false),
        (Block { until: Some(NOW.milliseconds()), ..nothing() }, false),
        (Block { until: Some(NOW.milliseconds() + 1), ..nothing() }, true),
    ];
    let log = Log::create();
    for (number, (rule, hits)) in cases.into_iter().enumerate() {
        let number = u8::try_from(number).unwrap();
        let id = block_id(number);
        durable(log.writer.commit(block(id, rule.clone())).await);
        let outcome = log.writer.commit(grant(u64::from(number))).await.unwrap();
        assert_eq!(
            matches!(outcome, Committed::Blocked(_, found) if found == id),
            hits,
            "{rule:?}"
        );
        if hits {
            let stored = log.reader.find(exchange(number.into())).unwrap().unwrap();
            assert_eq!(Entry::decode(&stored.leaf).unwrap().body["reason"], "blocked");
        }
        let lifted = Event::Blocked { id, step: "lifted", by: by() };
        let change = Some(Change::BlockLifted { id });
        durable(log.writer.commit(Proposal { change, ..Proposal::of(lifted) }).await);
        // A blocked exchange did not use its token up.
        if hits {
            durable(log.writer.commit(grant(number.into())).await);
        }
    }
}

#[tokio::test]
async fn a_block_by_claim_hits_a_grant_without_facts() {
    let log = Log::create();
    durable(log.writer.commit(block(block_id(1), by_claim("repository_id", "1"))).await);
    let outcome = log.writer.commit(Proposal { facts: None, ..grant(1) }).await;
    assert!(matches!(outcome, Ok(Committed::Blocked(_, _))), "{outcome:?}");
}

#[tokio::test]
async fn a_block_by_claim_hits_the_actor_too() {
    let log = Log::create();
    durable(log.writer.commit(block(block_id(1), by_claim("run", "7"))).await);
    let mut proposal = grant(1);
    let actor = serde_json::json!({ "run": "7" });
    proposal.facts.as_mut().unwrap().actor = actor.as_object().cloned().map(Arc::new);
    let outcome = log.writer.commit(proposal).await;
    assert!(matches!(outcome, Ok(Committed::Blocked(_, _))), "{outcome:?}");
}

/// An incident at one issuer: its tokens are of no use as actors either, and a subject of another issuer with the same
/// claims is left alone.
#[tokio::test]
async fn a_block_by_issuer_hits_the_actor_of_that_issuer() {
    let log = Log::create();
    let gitlab = Block { issuer: Some("gitlab".into()), ..by_claim("project_id", "20") };
    durable(log.writer.commit(block(block_id(1), gitlab)).await);
    let acting = |number: u64, issuer: &str, project: &str| {
        let mut proposal = grant(number);
        let facts = proposal.facts.as_mut().unwrap();
        facts.actor =
            serde_json::json!({ "project_id": project }).as_object().cloned().map(Into::into);
        facts.actor_issuer = Some(issuer.to_owned());
        log.writer.commit(proposal)
    };
    let outcome = acting(1, "gitlab", "20").await;
    assert!(matches!(outcome, Ok(Committed::Blocked(_, _))), "{outcome:?}");
    durable(acting(2, "gitlab", "21").await);
    durable(acting(3, "other", "20").await);
}

#[tokio::test]
async fn a_void_conclusion_makes_the_token_unspent_again() {
    let log = Log::create();
    durable(log.writer.commit(grant(1)).await);
    let event = Event::Concluded { exchange_id: exchange(1), outcome: "void" };
    let change = Some(Change::Concluded { release: grant(1).spend, lease: None, intent: None });
    durable(log.writer.commit(Proposal { change, ..Proposal::of(event) }).await);
    durable(log.writer.commit(grant(1)).await);
    let kinds: Vec<_> = log.reader.history(exchange(1)).unwrap();
    assert_eq!(kinds.len(), 3, "grant, conclusion, grant");
}

#[tokio::test]
async fn policy_sets_are_kept_by_digest_and_the_newest_is_known() {
    let log = Log::create();
    for number in [1_u8, 2, 1] {
        let event = Event::Policy { digest: [number; 32], rules: 3, commit: None };
        let sources = format!("[[\"a.yaml\",\"{number}\"]]");
        let change = Some(Change::PolicySet { digest: [number; 32], sources });
        durable(log.writer.commit(Proposal { change, ..Proposal::of(event) }).await);
    }
    assert_eq!(log.reader.active_policy().unwrap(), Some([1; 32]));
    let sources = log.reader.policy_set(&[2; 32]).unwrap();
    assert_eq!(sources.as_deref(), Some("[[\"a.yaml\",\"2\"]]"));
    assert_eq!(log.reader.policy_set(&[9; 32]).unwrap(), None);
}

#[tokio::test]
async fn replay_window_a_spend_is_remembered_until_no_clock_in_use_accepts_the_token() {
    let log = Log::create();
    let again = |number| {
        let mut proposal = grant(number);
        proposal.spend = grant(1).spend;
        proposal
    };
    durable(log.writer.commit(grant(1)).await);
    for (number, seconds) in [(10, 599), (11, 2), (12, 58)] {
        log.clock.pass(Duration::from_secs(seconds));
        // Forgetting happens beside other commits.
        durable(log.writer.commit(Proposal { spend: None, ..grant(100 + number) }).await);
        let outcome = log.writer.commit(again(number)).await;
        assert!(matches!(outcome, Ok(Committed::AlreadySpent(_))), "{number}: {outcome:?}");
    }
    // Past forget_at + 60 s it is forgotten, and still can't be spent: nobody would remember it.
    log.clock.pass(Duration::from_secs(100));
    durable(log.writer.commit(Proposal { spend: None, ..grant(200) }).await);
    let outcome = log.writer.commit(again(13)).await;
    assert!(matches!(outcome, Ok(Committed::AlreadySpent(_))), "{outcome:?}");
}

#[tokio::test]
async fn a13_a_clock_more_than_a_minute_behind_stops_the_commit_and_a_little_behind_does_not() {
    let log = Log::create();
    log.clock.pass(Duration::from_secs(100));
    let newest = durable(log.writer.commit(grant(1)).await).time();
    log.clock.set(newest.minus(Duration::from_mins(1)));
    let receipt = durable(log.writer.commit(grant(2)).await);
    assert_eq!(receipt.time(), newest, "time stands still, it does not go back");
    log.clock.set(newest.minus(Duration::from_millis(60_001)));
    let outcome = log.writer.commit(grant(3)).await;
    assert_eq!(outcome, Err(CommitError::ClockBehind(Duration::from_millis(60_001))));
    assert_eq!(log.reader.size().unwrap(), 2);
    log.clock.set(newest);
    durable(log.writer.commit(grant(3)).await);
    let counters: Vec<_> = log
        .reader
        .entries(0..3)
        .unwrap()
        .iter()
        .map(|stored| Entry::decode(&stored.leaf).unwrap().counter)
        .collect();
    assert_eq!(counters, [0, 1, 2], "ordered by counter, whatever the clock did");
    assert_eq!(log.clock.now(), newest);
}

#[tokio::test]
async fn a_noted_refusal_gets_its_entry_and_an_entry_too_large_gets_none() {
    let log = Log::create();
    log.writer.note(refusal(1));
    // The queue is in order: when this one is durable, the note is.
    durable(log.writer.commit(grant(2)).await);
    assert_eq!(log.reader.find(exchange(1)).unwrap().unwrap().index, 0);
    let counts = (0..400).map(|n| (format!("a-long-reason-{n}"), n)).collect();
    let large = Proposal::of(Event::RolledUp { from: NOW, counts });
    let outcome = log.writer.commit(large).await;
    assert!(matches!(outcome, Err(CommitError::TooLarge(size)) if size > 4_096), "{outcome:?}");
    assert_eq!((log.reader.size().unwrap(), log.writer.dropped()), (2, 0));
}
