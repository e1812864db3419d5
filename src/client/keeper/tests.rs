//! A supply that is told what to bring, and a clock that runs with tokio's paused time.

use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio_util::task::TaskTracker;

use super::*;
use crate::{
    chance::SeededChance,
    client::{Refused, exchange},
    secret::Secret,
};

const START: u64 = 1_800_000_000;

/// Runs with tokio's time, so that a paused test pushes both; and its wall clock can be set, in seconds.
#[derive(Debug)]
struct Paused(tokio::time::Instant, AtomicU64);

impl Paused {
    fn begin() -> Self {
        Self(tokio::time::Instant::now(), AtomicU64::new(START))
    }
}

impl Clock for Paused {
    fn now(&self) -> Instant {
        Instant::from_seconds(self.1.load(Ordering::SeqCst)).plus(self.0.elapsed())
    }
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// What one attempt brings.
#[derive(Debug)]
enum Brings {
    /// A credential that lives so long.
    Life(u64),
    /// A refusal, shown the token of this number.
    No { token: u8, retry_after: Option<u64> },
    /// Nothing, after so many seconds.
    Silence(u64),
    /// Nothing, and a lease that could not be ended.
    Orphan,
}

#[derive(Debug)]
struct Script {
    brings: Mutex<VecDeque<Brings>>,
    /// When each attempt was made, from the start.
    seen: Mutex<Vec<Duration>>,
    /// The leases that were ended while it ran.
    ended: Mutex<Vec<String>>,
    clock: Arc<Paused>,
}

#[async_trait]
impl Supply for Script {
    async fn fetch(&self) -> Result<Acquired, ClientError> {
        self.seen.lock().unwrap().push(self.clock.elapsed());
        let next = self.brings.lock().unwrap().pop_front();
        let (answer, token) = match next.unwrap_or(Brings::Life(3_600)) {
            Brings::Life(seconds) => {
                let issued = exchange::sample(&*self.clock, Duration::from_secs(seconds));
                (Answer::Issued(Box::new(issued)), 1)
            }
            Brings::No { token, retry_after } => {
                let refused = Refused {
                    status: 400,
                    code: "invalid_grant".to_owned(),
                    description: None,
                    exchange_id: None,
                    retry_after: retry_after.map(Duration::from_secs),
                };
                (Answer::Refused(refused), token)
            }
            Brings::Orphan => {
                let lease = exchange::sample(&*self.clock, Duration::ZERO).lease();
                return Err(ClientError { lease, ..ClientError::unreachable("unreadable") });
            }
            Brings::Silence(seconds) => {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                return Err(ClientError::unreachable("nobody is there"));
            }
        };
        Ok(Acquired { answer, fingerprint: [token; 32], place: None })
    }

    async fn end(&self, lease: &Lease) -> Result<(), ClientError> {
        self.ended.lock().unwrap().push(lease.id.clone());
        Ok(())
    }

    fn refused_again(&self, _: Refused) -> ClientError {
        ClientError::refused("again")
    }
}

struct Stage {
    script: Arc<Script>,
    kept: watch::Receiver<Arc<Kept>>,
    stop: CancellationToken,
    leases: tokio::task::JoinHandle<Vec<Lease>>,
}

fn stage(brings: impl IntoIterator<Item = Brings>) -> Stage {
    let clock = Arc::new(Paused::begin());
    let script = Arc::new(Script {
        brings: Mutex::new(brings.into_iter().collect()),
        seen: Mutex::default(),
        ended: Mutex::default(),
        clock: Arc::clone(&clock),
    });
    let supply: Arc<dyn Supply> = Arc::<Script>::clone(&script);
    let chance = Arc::new(SeededChance::of(7));
    let (keeper, kept) = Keeper::new(supply, Pace::default(), clock, chance, None);
    let stop = CancellationToken::new();
    let leases = TaskTracker::new().spawn(keeper.keep(stop.clone()));
    Stage { script, kept, stop, leases }
}

fn at(seconds: u64) -> Instant {
    Instant::from_seconds(seconds)
}

#[test]
fn a_credential_is_renewed_around_two_thirds_of_its_life_and_not_by_all_at_once() {
    let pace = Pace::default();
    let range = |ends: Option<u64>| {
        let last = Last::Good { asked_at: at(1_000), ends: ends.map(at) };
        [255, 0].map(|dice| pace.next(last, dice).milliseconds() - 1_000_000)
    };
    assert_eq!(range(Some(1_900)), [510_000, 600_000]);
    assert_eq!(range(Some(1_003)), [1_700, 2_000]);
    // Nobody says when it ends: a new one every five minutes at the latest.
    assert_eq!(range(None), [170_000, 200_000]);
    // Over before it came: clocks differ, and that is no reason to ask without a pause.
    assert_eq!(range(Some(900)), [500, 500]);
}

#[test]
fn failures_are_followed_by_waits_that_double_and_by_what_the_broker_asked_for() {
    let pace = Pace::default();
    let range = |failures, asked: Option<u64>| {
        let asked = asked.map(Duration::from_secs);
        let last = Last::Bad { at: at(1_000), failures, asked, left: None };
        [0, 255].map(|dice| pace.next(last, dice).milliseconds() - 1_000_000)
    };
    assert_eq!(range(1, None), [500, 1_000]);
    assert_eq!(range(2, None), [1_000, 2_000]);
    assert_eq!(range(30, None), [30_000, 60_000]);
    assert_eq!(range(1, Some(20)), [20_000, 25_000]);
    // And that has an end: five minutes, and half of what the credential lives.
    assert_eq!(range(1, Some(4_000_000_000)), [300_000, 375_000]);
    let asked = Some(Duration::from_secs(4_000_000_000));
    let left = Some(Duration::from_secs(60));
    let next = pace.next(Last::Bad { at: at(1_000), failures: 1, asked, left }, 255);
    assert_eq!(next.milliseconds() - 1_000_000, 37_500);
}

#[tokio::test(start_paused = true)]
async fn a_kept_credential_is_never_an_expired_one_while_the_broker_is_there() {
    let mut stage = stage((0..30).map(|_| Brings::Life(3)));
    let began = tokio::time::Instant::now();
    let mut generation = 0;
    while began.elapsed() < Duration::from_secs(30) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let kept = stage.kept.borrow_and_update().clone();
        assert!(kept.issued.is_some() && !kept.is_over(stage.script.clock.now()));
        generation = kept.generation;
    }
    assert!((15..=18).contains(&generation), "{generation}");
    stage.stop.cancel();
    // The newest, and the one before it, which lives on beside it for a third of its life; those before are ended.
    let ended = u64::try_from(stage.script.ended.lock().unwrap().len()).unwrap();
    let left = stage.leases.await.unwrap().len();
    assert!((1..=2).contains(&left) && ended + 2 >= generation, "{left} {ended} {generation}");
}

#[tokio::test(start_paused = true)]
async fn the_last_good_one_is_kept_until_its_true_end_and_then_it_is_gone_and_that_is_said() {
    let silence = (0..50).map(|_| Brings::Silence(7));
    let mut stage = stage([Brings::Life(30)].into_iter().chain(silence));
    let began = tokio::time::Instant::now();
    let (mut troubled, mut gone) = (None, None);
    while gone.is_none() {
        stage.kept.changed().await.unwrap();
        let kept = stage.kept.borrow_and_update().clone();
        let passed = began.elapsed();
        if let Some(trouble) = &kept.trouble {
            assert_eq!(trouble.what.message, "nobody is there");
            troubled.get_or_insert(passed);
        }
        if kept.issued.is_none() {
            assert!(kept.trouble.is_some());
            gone = Some(passed);
        }
    }
    // In the middle of an attempt that would have gone on for longer.
    assert_eq!(gone.unwrap().as_secs(), 30);
    assert!(troubled.unwrap() < Duration::from_secs(28), "{troubled:?}");
    stage.stop.cancel();
    // It is over by our clock, and may not be by the broker's: it is ended now, or handed over to be.
    let left = stage.leases.await.unwrap().len();
    assert_eq!(left + stage.script.ended.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_that_ends_while_nobody_answers_is_gone_at_its_end_with_words() {
    let mut stage = stage([Brings::Life(9), Brings::Silence(100)]);
    let began = tokio::time::Instant::now();
    let kept = stage.kept.wait_for(|kept| kept.generation == 1 && kept.issued.is_none());
    let kept = kept.await.unwrap().clone();
    assert_eq!(began.elapsed().as_secs(), 9);
    assert_eq!(kept.trouble.as_ref().unwrap().what.message, "no answer came yet");
    stage.stop.cancel();
    // It is over by our clock, and may not be by the broker's: it is ended now, or handed over to be.
    let left = stage.leases.await.unwrap().len();
    assert_eq!(left + stage.script.ended.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_taken_before_is_named_as_the_cause() {
    let brings = [Brings::Life(300), Brings::No { token: 1, retry_after: None }];
    let mut stage = stage(
        brings
            .into_iter()
            .chain([Brings::No { token: 2, retry_after: Some(40) }, Brings::Life(60)]),
    );
    let mut said = Vec::new();
    while said.len() < 2 {
        stage.kept.changed().await.unwrap();
        let trouble = stage.kept.borrow_and_update().trouble.clone();
        if let Some(trouble) = trouble.filter(|trouble| said.len() < trouble.failures as usize) {
            said.push(trouble.what.message);
        }
    }
    assert_eq!(said, ["again", "refused: `invalid_grant`: without a description"]);
    // Healed, and not before the time that the broker asked for.
    while stage.kept.borrow_and_update().trouble.is_some() {
        stage.kept.changed().await.unwrap();
    }
    let seen = stage.script.seen.lock().unwrap().clone();
    let [.., before, healed] = seen[..] else { panic!("{seen:?}") };
    assert!((40_000..=50_000).contains(&healed.saturating_sub(before).as_millis()), "{seen:?}");
}

/// Brings one that was asked for before the end was.
#[derive(Debug)]
struct Slow(Arc<Paused>);
#[async_trait]
impl Supply for Slow {
    async fn fetch(&self) -> Result<Acquired, ClientError> {
        tokio::time::sleep(Duration::from_secs(20)).await;
        let issued = exchange::sample(&*self.0, Duration::from_secs(60));
        Ok(Acquired { answer: Answer::Issued(Box::new(issued)), fingerprint: [0; 32], place: None })
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_attempt_brings_while_we_stop_is_handed_over_to_be_ended() {
    let clock = Arc::new(Paused::begin());
    let supply = Arc::new(Slow(Arc::clone(&clock)));
    let chance = Arc::new(SeededChance::of(1));
    let (keeper, _kept) = Keeper::new(supply, Pace::default(), clock, chance, None);
    let stop = CancellationToken::new();
    let leases = TaskTracker::new().spawn(keeper.keep(stop.clone()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.cancel();
    let leases = leases.await.unwrap();
    assert_eq!(leases.iter().map(|lease| lease.id.as_str()).collect::<Vec<_>>(), ["ls_1"]);
    assert_eq!(leases[0].token, Secret::from("hush-lease".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_is_set_back_keeps_nothing_alive_and_stops_no_renewal() {
    let mut stage = stage([Brings::Life(60), Brings::Life(60), Brings::Silence(500)]);
    stage.kept.wait_for(|kept| kept.generation == 1).await.unwrap();
    stage.script.clock.1.fetch_sub(3_600, Ordering::SeqCst);
    stage.kept.wait_for(|kept| kept.generation == 2).await.unwrap();
    let seen = stage.script.seen.lock().unwrap().clone();
    assert!((34..=40).contains(&seen[1].as_secs()), "{seen:?}");
    // The second one ends in the middle of an attempt, while the clock is set back again.
    stage.script.clock.1.fetch_sub(3_600, Ordering::SeqCst);
    stage.kept.wait_for(|kept| kept.issued.is_none()).await.unwrap();
    let (ended, began) = (stage.script.clock.elapsed(), seen[1]);
    assert_eq!(ended.saturating_sub(began).as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn leases_are_ended_although_the_clock_says_that_they_are_over() {
    let mut stage = stage([Brings::Life(600), Brings::Life(600)]);
    stage.kept.wait_for(|kept| kept.generation == 1).await.unwrap();
    stage.script.clock.1.fetch_add(3_600, Ordering::SeqCst);
    stage.kept.wait_for(|kept| kept.generation == 2).await.unwrap();
    stage.script.clock.1.fetch_add(3_600, Ordering::SeqCst);
    stage.stop.cancel();
    assert_eq!(stage.leases.await.unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_over_when_it_comes_is_asked_for_ever_more_slowly_and_ended() {
    let mut stage = stage((0..99).map(|_| Brings::Life(0)));
    tokio::time::sleep(Duration::from_secs(300)).await;
    let attempts = stage.script.seen.lock().unwrap().len();
    assert!((8..20).contains(&attempts), "{attempts}");
    let kept = stage.kept.borrow_and_update().clone();
    assert!(kept.issued.is_none());
    let words = &kept.trouble.as_ref().unwrap().what.message;
    assert_eq!(words, "what the broker gives is over when it comes");
    stage.stop.cancel();
    let left = stage.leases.await.unwrap().len();
    let ended = stage.script.ended.lock().unwrap().len();
    assert_eq!((left, ended + left), (1, attempts));
}

#[tokio::test(start_paused = true)]
async fn a_lease_without_a_credential_is_kept_for_the_end() {
    let mut stage = stage([Brings::Life(60), Brings::Orphan, Brings::Silence(5)]);
    stage.kept.wait_for(|kept| kept.trouble.is_some()).await.unwrap();
    stage.stop.cancel();
    assert_eq!(stage.leases.await.unwrap().len(), 2);
}
