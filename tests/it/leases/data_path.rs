//! A login through the whole broker: from a job's token to the answer, the entry and the end.

use std::{
    fmt::Debug,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use cambio::{
    chance::SystemChance,
    clock::{Clock, Instant, ManualClock},
    grant::Grant,
    lease::{
        Revoker, Revokers,
        reaper::{Reaper, Watch},
    },
    ledger::{
        Block, Change, Commit, CommitError, Committed, Event, InFlight, LeaseState, Proposal,
        Recorded,
        reader::{Leases, StoredLease},
    },
    mint::{
        Behind, Credential, MintError, Minter, Prepared,
        login::{LoginMinter, token_hash},
    },
    target::Expiry,
    telemetry::{Format, subscriber},
};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::bench::{AT_ONCE, Told, look, seconds};
use crate::{
    edge::surface::Answered,
    support::{
        broker::{Broker, Wrap, bytes_below, operator},
        lines::{Lines, listen},
        server::{FakeServer, Fault, PER_SUBJECT},
        token::NOW,
    },
};

const TARGET: &str = "jwt/orders";
/// What the policy grants for role `read`.
const LIFETIME: u64 = 300;

/// A broker whose target `jwt/orders` is the fake server.
struct World {
    broker: Broker,
    server: Arc<FakeServer>,
    reaper: Arc<Reaper>,
    debugged: Arc<Mutex<String>>,
}

/// Looks at everything that passes, as a careless log line would.
#[derive(Debug)]
struct Careless {
    inner: Arc<LoginMinter>,
    debugged: Arc<Mutex<String>>,
}

impl Careless {
    fn tell(&self, what: &dyn Debug) {
        use std::fmt::Write as _;
        write!(self.debugged.lock().unwrap(), "{what:?} {what:#?}").unwrap();
    }
}

#[async_trait]
impl Minter for Careless {
    fn expiry(&self) -> Expiry {
        self.inner.expiry()
    }

    fn prepare(&self, grant: &Grant, behind: Behind<'_>) -> Result<Prepared, MintError> {
        let prepared = self.inner.prepare(grant, behind);
        self.tell(&prepared);
        prepared
    }

    async fn mint(&self, recorded: Recorded<Prepared>) -> Result<Credential, MintError> {
        self.tell(&recorded);
        let credential = self.inner.mint(recorded).await;
        self.tell(&credential);
        self.tell(&self.inner);
        credential
    }
}

impl World {
    async fn new() -> Self {
        Self::behind(&|ledger| ledger).await
    }

    async fn behind(wrap: Wrap<'_>) -> Self {
        let broker = Broker::start_behind(wrap).await;
        let (server, debugged) = (FakeServer::new(), Arc::default());
        let clock = || Arc::clone(&broker.clock) as Arc<dyn Clock>;
        let origin = broker.reader.origin().to_owned();
        let minter = server.minter((&origin, TARGET), AT_ONCE, clock(), Arc::new(SystemChance));
        broker.mint_with(|_| {
            let (inner, debugged) = (Arc::clone(&minter), Arc::clone(&debugged));
            Arc::new(Careless { inner, debugged })
        });
        let reaper = Arc::new(Reaper::of(
            Arc::clone(&broker.reader),
            Arc::new(broker.writer.clone()),
            Revokers::of([(TARGET.into(), minter as Arc<dyn Revoker>)]),
            (clock(), Arc::new(SystemChance)),
            Arc::new(Told::default()) as Arc<dyn Watch>,
        ));
        Self { broker, server, reaper, debugged }
    }

    async fn ask(&self) -> Answered {
        self.broker.exchange(&self.broker.site.job().sign()).await
    }

    fn leases(&self) -> Vec<StoredLease> {
        self.broker.reader.leases(Leases::All, 99).unwrap()
    }

    #[track_caller]
    fn only_lease(&self) -> StoredLease {
        let leases = self.leases();
        assert_eq!(leases.len(), 1);
        leases[0].clone()
    }

    async fn look(&self) {
        look(&self.reaper, &CancellationToken::new()).await;
    }

    /// Kind and outcome of all entries that an exchange leaves.
    async fn story(&self) -> Vec<String> {
        let lines = self.broker.lines().await;
        let told = lines.iter().map(|line| {
            let word = ["outcome", "reason", "step"].map(|name| line.text(name).to_owned());
            format!("{} {}", line.kind.as_str(), word.concat()).trim().to_owned()
        });
        told.filter(|told| !told.starts_with("policy") && !told.starts_with("keys")).collect()
    }
}

#[tokio::test]
async fn b12_a_login_is_answered_with_everything_that_its_holder_needs() {
    let world = World::new().await;
    let answer = world.ask().await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.header("cache-control"), "no-store");
    let body = answer.json();
    let lease = world.only_lease();
    let logins = world.server.logins();
    let (name, has) = logins.first_key_value().unwrap();
    let password = has.password.reveal_text().unwrap();
    let credential = json!({
        "kind": "fake",
        "user": name,
        "password": password,
        "host": "db.example",
        "port": 5_432,
        "database": "orders",
        "uri": format!("fake://{name}:{password}@db.example:5432/orders"),
        "sslmode": "verify-full",
        "expires_at": "2027-01-15T08:05:00Z",
        "lease_id": lease.id.to_string(),
    });
    assert_eq!(
        body,
        json!({
            "access_token": body["access_token"],
            "issued_token_type": "urn:cambio:token-type:database",
            "token_type": "N_A",
            "expires_in": LIFETIME,
            "scope": "read",
            "credential": credential,
            "lease": { "id": lease.id.to_string(), "token": body["lease"]["token"] },
            "exchange_id": body["exchange_id"],
            "ledger": body["ledger"],
        })
    );
    let text: Value = serde_json::from_str(body["access_token"].as_str().unwrap()).unwrap();
    assert_eq!(text, credential, "RFC 8693 section 2.2.1: a string, which is the same JSON");
    // The lease.
    assert_eq!((&lease.object, lease.state), (name, LeaseState::Active));
    assert_eq!(lease.worst_end, Instant::from_seconds(NOW + LIFETIME));
    let token = body["lease"]["token"].as_str().unwrap();
    assert!(token.starts_with("cambio_lt_") && token.len() == 53, "{} bytes", token.len());
    let held = world.broker.reader.leases(Leases::Held(&token_hash(token)), 9).unwrap();
    assert_eq!(held, std::slice::from_ref(&lease));
    // What the server knows of it.
    assert_eq!((has.role.as_str(), has.lifetime), ("read", seconds(LIFETIME)));
    assert_eq!(password.len(), 32);
    let exchange = body["exchange_id"].as_str().unwrap();
    assert_eq!(
        has.attribution,
        format!(
            "cambio exchange={exchange} lease={} rule=orders/check subject=github:repository_id:1296269",
            lease.id
        )
    );
    assert_eq!(world.story().await, ["granted", "concluded minted"]);
    // And its end.
    world.broker.pass(LIFETIME);
    world.look().await;
    assert!(world.server.logins().is_empty());
    assert_eq!(world.story().await, ["granted", "concluded minted", "lease revoked"]);
}

#[tokio::test]
async fn a08_no_password_and_no_lease_token_in_ledger_store_logs_debug_and_metrics() {
    let logs = Lines::default();
    let writer = logs.clone();
    let lines = subscriber(Format::Json, "trace", move || writer.clone()).unwrap();
    let _logging = listen(lines);
    let world = World::new().await;
    let mut needles = Vec::new();
    for fault in [None, Some(Fault::LosesTheAnswer), Some(Fault::Refuses), None] {
        world.server.make_fails(fault);
        let answer = world.ask().await;
        if answer.status == 200 {
            let body = answer.json();
            needles.push(body["lease"]["token"].as_str().unwrap().to_owned());
        }
        let logins = world.server.logins();
        needles.extend(logins.values().map(|has| has.password.reveal_text().unwrap().to_owned()));
        // What failed says nothing of the login that may be there.
        if answer.status != 200 {
            assert!(!needles.iter().any(|needle| answer.body.contains(needle)));
            assert!(!answer.body.contains("cambio_"), "{}", answer.body);
        }
    }
    world.server.end_fails(Some(Fault::Refuses));
    world.broker.pass(LIFETIME);
    world.look().await;
    world.broker.lines().await;
    assert!(needles.len() >= 5);
    let mut heaps = vec![
        ("logs".to_owned(), logs.bytes()),
        ("debug".to_owned(), world.debugged.lock().unwrap().clone().into_bytes()),
        ("reaper".to_owned(), format!("{:?}", world.reaper).into_bytes()),
        ("metrics".to_owned(), world.broker.metrics.text().unwrap().into_bytes()),
    ];
    let stored = bytes_below(&world.broker.site.path("data"));
    heaps.extend(stored.into_iter().map(|(path, bytes)| (path.display().to_string(), bytes)));
    for (place, heap) in &heaps {
        assert!(
            !heap.is_empty() || std::path::Path::new(place).extension() != Some("db".as_ref()),
            "{place} is empty"
        );
        for needle in &needles {
            let there = heap.windows(needle.len()).any(|window| window == needle.as_bytes());
            assert!(!there, "{place} holds a secret");
        }
    }
    let debug = String::from_utf8(heaps[1].1.clone()).unwrap();
    assert!(debug.contains("Secret(32 bytes)") && debug.contains("Login"), "the search looks");
}

#[tokio::test(start_paused = true)]
async fn b03_how_a_mint_ended_is_what_the_ledger_says_and_what_the_reaper_goes_by() {
    let cases = [
        (Fault::Refuses, "void", LeaseState::Void, "5"),
        (Fault::Unreachable, "void", LeaseState::Void, "5"),
        (Fault::LosesTheAnswer, "unknown", LeaseState::Unknown, ""),
        (Fault::Hangs, "unknown", LeaseState::Unknown, ""),
        (Fault::IsLate, "unknown", LeaseState::Unknown, ""),
    ];
    for (fault, outcome, state, retry_after) in cases {
        let world = World::new().await;
        world.server.make_fails(Some(fault));
        let token = world.broker.site.job().sign();
        let answer = world.broker.exchange(&token).await;
        assert_eq!(answer.error().0, 503, "{fault:?}");
        assert_eq!(answer.header("retry-after"), retry_after, "{fault:?}");
        assert_eq!(world.only_lease().state, state, "{fault:?}");
        let story = world.story().await;
        assert_eq!(story[..2], ["granted".to_owned(), format!("concluded {outcome}")], "{fault:?}");
        // A void one releases its spend.
        world.server.make_fails(None);
        let again = world.broker.exchange(&token).await;
        assert_eq!(again.status == 200, outcome == "void", "{fault:?}: {}", again.body);
        world.broker.pass(29);
        world.look().await;
        world.server.arrive();
        world.broker.pass(1);
        world.look().await;
        let left = world.server.logins().len();
        assert_eq!(left, usize::from(outcome == "void"), "{fault:?}");
    }
}

#[tokio::test]
async fn v06_a_minter_that_dies_leaves_a_lease_that_is_ended() {
    let world = World::new().await;
    world.server.make_fails(Some(Fault::Panics));
    assert_eq!(world.ask().await.status, 500);
    let lease = world.only_lease();
    assert_eq!(lease.state, LeaseState::Opened);
    world.server.put(&lease.object);
    world.broker.pass(30);
    world.look().await;
    assert!(world.server.logins().is_empty());
    assert_eq!(world.only_lease().state, LeaseState::Revoked);
}

#[tokio::test]
async fn intent_before_effect_what_is_blocked_spent_or_denied_creates_nothing() {
    let world = World::new().await;
    let spent = world.broker.site.job().sign();
    assert_eq!(world.broker.exchange(&spent).await.status, 200);
    assert_eq!(world.broker.exchange(&spent).await.status, 400);
    let denied = world.broker.site.job().claim("event_name", "schedule").sign();
    assert_eq!(world.broker.exchange(&denied).await.status, 400);
    let id = cambio::id::BlockId::from_bytes([1; 16]);
    let claims = [("run_id".to_owned(), json!("20000000001"))].into();
    let block = Block { issuer: None, rule: None, claims, until: None };
    let event = Event::Blocked { id, step: "set", by: operator() };
    let change = Some(Change::BlockSet { id, block });
    world.broker.writer.commit(Proposal { change, ..Proposal::of(event) }).await.unwrap();
    assert_eq!(world.ask().await.status, 400);
    assert_eq!((world.server.made(), world.leases().len()), (1, 1));
}

/// What the commits of an exchange meet: the first is the intent, the second the conclusion.
#[derive(Debug)]
struct Meets {
    inner: Arc<dyn Commit>,
    fails: Mutex<Option<&'static str>>,
    /// Where the wall clock stands after the intent is durable.
    step: Mutex<Option<(Arc<ManualClock>, Instant)>>,
}

#[async_trait]
impl Commit for Meets {
    async fn commit(&self, proposal: Proposal) -> Result<Committed, CommitError> {
        let kind = match proposal.event {
            Event::Granted(_) => "granted",
            Event::Concluded { .. } => "concluded",
            _ => "",
        };
        if *self.fails.lock().unwrap() == Some(kind) {
            return Err(CommitError::Full);
        }
        let done = self.inner.commit(proposal).await;
        if kind == "granted" {
            self.step.lock().unwrap().iter().for_each(|(clock, to)| clock.set(*to));
        }
        done
    }

    fn note(&self, proposal: Proposal) {
        self.inner.note(proposal);
    }

    fn enter(&self) -> InFlight {
        self.inner.enter()
    }
}

async fn meeting() -> (World, Arc<Meets>) {
    let made = Mutex::new(None);
    let world = World::behind(&|inner| {
        let meets = Arc::new(Meets { inner, fails: Mutex::default(), step: Mutex::default() });
        *made.lock().unwrap() = Some(Arc::clone(&meets));
        meets
    })
    .await;
    let meets = made.into_inner().unwrap().unwrap();
    (world, meets)
}

#[tokio::test]
async fn intent_before_effect_a_commit_that_fails_creates_nothing() {
    let (world, meets) = meeting().await;
    *meets.fails.lock().unwrap() = Some("granted");
    assert_eq!(world.ask().await.status, 503);
    assert_eq!((world.server.made(), world.leases()), (0, Vec::new()));
}

#[tokio::test]
async fn b12_a_login_whose_conclusion_can_not_be_written_is_withheld_and_ended() {
    let (world, meets) = meeting().await;
    *meets.fails.lock().unwrap() = Some("concluded");
    let answer = world.ask().await;
    assert_eq!(answer.status, 503);
    let login = world.server.names_there().pop_first().unwrap();
    assert!(!answer.body.contains(&login), "nobody gets it");
    world.broker.pass(30);
    world.look().await;
    assert!(world.server.logins().is_empty());
    assert_eq!(world.only_lease().state, LeaseState::Revoked);
}

/// The wall clock steps between the commit and the mint.
#[tokio::test]
async fn b10_a_clock_that_steps_after_the_commit_makes_no_login_longer_and_none_too_late() {
    for (step, made) in [
        (-3_600_i64, Some(LIFETIME)),
        (-30, Some(LIFETIME)),
        (0, Some(LIFETIME)),
        (15, Some(LIFETIME - 15)),
        (16, None),
        (3_600, None),
    ] {
        let (world, meets) = meeting().await;
        let clock = Arc::clone(&world.broker.clock);
        let to = Instant::from_seconds(NOW.checked_add_signed(step).unwrap());
        *meets.step.lock().unwrap() = Some((clock, to));
        let _ = world.ask().await;
        let lifetime = world.server.logins().values().next().map(|has| has.lifetime);
        assert_eq!(lifetime, made.map(seconds), "{step} s");
        assert_eq!(world.server.made(), usize::from(made.is_some()), "{step} s");
    }
}

#[tokio::test]
async fn b10_never_outlive_no_login_lasts_longer_than_was_granted_and_none_for_no_time() {
    for (asked, lasts) in [("1", 1), ("60", 60), ("300", 300), ("301", 300), ("9999999999", 300)] {
        let world = World::new().await;
        let wants = format!("scope=read&requested_lifetime={asked}");
        let answer = world.broker.ask(&world.broker.site.job().sign(), &wants).await;
        assert_eq!(answer.json()["expires_in"], lasts, "{asked}");
        let has = world.server.logins().into_values().next().unwrap();
        assert_eq!(has.lifetime, seconds(lasts), "{asked}");
    }
    // In the middle of a second, one second has no whole one in it.
    let world = World::new().await;
    world.broker.clock.pass(Duration::from_millis(500));
    let wants = "scope=read&requested_lifetime=1";
    let answer = world.broker.ask(&world.broker.site.job().sign(), wants).await;
    assert_ne!(answer.status, 200);
    assert_eq!((world.server.made(), world.leases()), (0, Vec::new()));
}

/// The caller goes away while its login is being made: it is concluded, and ended on schedule. What it gets when it comes
/// again is another login.
#[tokio::test]
async fn b12_a_connection_that_drops_while_a_login_is_made_leaves_no_open_end() {
    let world = World::new().await;
    world.server.making.forget_permits(Semaphore::MAX_PERMITS);
    let token = world.broker.site.job().claim("repository_id", "4242").sign();
    {
        let asked = world.broker.exchange(&token);
        tokio::pin!(asked);
        tokio::select! {
            biased;
            answer = &mut asked => panic!("answered too soon: {answer:?}"),
            begun = world.server.asked.acquire() => begun.unwrap().forget(),
        }
    }
    assert_eq!(world.only_lease().state, LeaseState::Opened);
    world.server.making.add_permits(2);
    let tasks = &world.broker.exchange.tasks;
    tasks.close();
    tasks.wait().await;
    tasks.reopen();
    let first = world.only_lease();
    assert_eq!(first.state, LeaseState::Active);
    assert!(world.server.has(&first.object));
    let again = world.broker.exchange(&token).await.json();
    assert_ne!(again["credential"]["user"], first.object.as_str());
    world.broker.pass(LIFETIME);
    world.look().await;
    assert!(world.server.logins().is_empty());
}

/// One tenant takes login after login and keeps them: it waits for its own, and nobody else does.
#[tokio::test]
async fn v03_a_subject_that_holds_as_many_logins_as_it_may_gets_no_more_until_one_ends() {
    let world = World::new().await;
    for _ in 0..PER_SUBJECT {
        assert_eq!(world.ask().await.status, 200);
    }
    let answer = world.ask().await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (429, "300"));
    assert_eq!(world.server.made(), PER_SUBJECT, "nothing was asked of the server");
    assert_eq!(world.leases().len(), PER_SUBJECT, "and no lease was opened");
    let own = world.leases().remove(0);
    let other = world.broker.site.job().claim("repository_id", "4242").sign();
    assert_eq!(world.broker.exchange(&other).await.status, 200);
    let step = LeaseState::Revoking;
    let event = Event::Lease { id: own.id, step, by: Some(operator()) };
    world.broker.writer.commit(Proposal::of(event)).await.unwrap();
    world.look().await;
    assert_eq!(world.ask().await.status, 200, "what was revoked makes room");
    assert_eq!(world.ask().await.status, 429);
}

/// "Everything that this run got" is revoked while one more login is being made: it is withheld, and ended.
#[tokio::test]
async fn b05_a_login_whose_lease_is_revoked_while_it_is_made_is_withheld() {
    let world = World::new().await;
    world.server.making.forget_permits(Semaphore::MAX_PERMITS);
    let token = world.broker.site.job().sign();
    let asked = world.broker.exchange(&token);
    let revoked = async {
        world.server.asked.acquire().await.unwrap().forget();
        let step = LeaseState::Revoking;
        let event = Event::Lease { id: world.only_lease().id, step, by: Some(operator()) };
        world.broker.writer.commit(Proposal::of(event)).await.unwrap();
        world.server.making.add_permits(1);
    };
    let (answer, ()) = tokio::join!(asked, revoked);
    assert_eq!(answer.status, 503, "{}", answer.body);
    let login = world.server.names_there().pop_first().unwrap();
    assert!(!answer.body.contains(&login), "nobody gets it");
    world.look().await;
    assert!(world.server.logins().is_empty());
    assert_eq!(world.only_lease().state, LeaseState::Revoked);
}

/// A target that does not answer is not waited for, and nothing is written down for it.
#[tokio::test]
async fn v03_after_some_failures_a_dead_target_is_refused_before_the_commit() {
    let world = World::new().await;
    world.server.is(Some(Fault::Unreachable));
    for _ in 0..3 {
        assert_eq!(world.ask().await.status, 503);
    }
    let leases = world.leases().len();
    let token = world.broker.site.job().sign();
    let answer = world.broker.exchange(&token).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after").is_empty()), (503, false));
    assert_eq!((world.server.made(), world.leases().len()), (3, leases));
    world.server.is(None);
    world.broker.pass(1);
    assert_eq!(world.broker.exchange(&token).await.status, 200, "the token is still good");
}
