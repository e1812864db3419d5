//! Keeps one credential fresh: renews it ahead of its end, goes on with the last good one while the broker is away, and says so
//! when that one is over.
//!
//! [`Pace`] decides, and is pure; [`Keeper::keep`] is the dull loop around it.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::{Acquired, Answer, ClientError, Errand, Issued, Lease, Machine, Patience, Waiting};
use crate::{
    chance::Chance,
    clock::{Clock, Instant},
};

/// When to renew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The waits after failures.
    pub retry: Patience,
    /// How long a credential whose end nobody told is used before there is a new one. It is not thought to be over then: nobody
    /// knows.
    pub endless: Duration,
    /// Never sooner than this after the last time, whatever clocks say.
    pub least: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            retry: Patience {
                // How long one attempt may take.
                total: Duration::from_secs(40),
                first: Duration::from_secs(1),
                most: Duration::from_secs(60),
            },
            endless: Duration::from_secs(300),
            least: Duration::from_millis(500),
        }
    }
}

/// How it went last time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// A credential came: when it was asked for, and when it ends.
    Good {
        /// When it was asked for.
        asked_at: Instant,
        /// When it ends, by this machine's clock.
        ends: Option<Instant>,
    },
    /// None came, for the n-th time in a row (from 1).
    Bad {
        /// When that was known.
        at: Instant,
        /// How often in a row.
        failures: u32,
        /// How long the broker asked us to stay away.
        asked: Option<Duration>,
    },
}

impl Pace {
    /// When to ask for the next one. `dice` (0 to 255) spreads those who began together.
    ///
    /// After a good one: at two thirds of its lifetime, or up to a tenth of it earlier. After a failure: waits that double, as
    /// [`Patience::pause`] has them, and what the broker asked for.
    #[must_use]
    pub fn next(&self, last: Last, dice: u8) -> Instant {
        match last {
            Last::Good { asked_at, ends } => {
                let life = ends.map_or(self.endless, |ends| ends.since(asked_at));
                let early = part(part(life, 10).saturating_mul(u32::from(dice)), 255);
                let late = part(life.saturating_mul(2), 3).saturating_sub(early);
                asked_at.plus(late.max(self.least))
            }
            Last::Bad { at, failures, asked } => {
                let turn = failures.saturating_sub(1);
                at.plus(self.retry.pause(turn, asked, dice).max(self.least))
            }
        }
    }
}

fn part(of: Duration, parts: u32) -> Duration {
    of.checked_div(parts).unwrap_or_default()
}

/// What is wrong at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Since when.
    pub since: Instant,
    /// The newest reason.
    pub what: ClientError,
    /// How often in a row; 0: nothing failed yet, and no answer came either.
    pub failures: u32,
}

/// What a keeper has.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// The credential, until its true end; then `None`, and `trouble` says why there is no other.
    pub issued: Option<Arc<Issued>>,
    /// Why the newest attempt brought nothing. The credential may be good all the same.
    pub trouble: Option<Trouble>,
    /// Counts the credentials: another number is another credential.
    pub generation: u64,
    /// When the newest credential was asked for, and when it ended, or will end. Both stay when it is over.
    pub newest: Option<(Instant, Option<Instant>)>,
}

impl Kept {
    /// When the newest credential was asked for, also after its end.
    #[must_use]
    pub fn obtained_at(&self) -> Option<Instant> {
        self.newest.map(|(asked_at, _)| asked_at)
    }

    /// When the newest credential ended, or will end, by this machine's clock.
    #[must_use]
    pub fn ends_at(&self) -> Option<Instant> {
        self.newest.and_then(|(_, ends)| ends)
    }

    /// Whether it is over at `now`.
    #[must_use]
    pub fn is_over(&self, now: Instant) -> bool {
        self.issued.as_ref().and_then(|issued| issued.ends).is_some_and(|ends| now >= ends)
    }
}

/// Where credentials come from. Duty: `fetch` ends by itself, in bounded time, and never asks twice with a token that may be spent.
#[async_trait]
pub trait Supply: fmt::Debug + Send + Sync {
    /// One attempt.
    ///
    /// # Errors
    /// There is no token, or no answer of a broker came.
    async fn fetch(&self) -> Result<Acquired, ClientError>;

    /// A refusal in words.
    fn refused(&self, refused: super::Refused) -> ClientError {
        refused.into()
    }

    /// A refusal in words, where the token had been taken before.
    fn refused_again(&self, refused: super::Refused) -> ClientError {
        refused.into()
    }
}

/// An errand, run on this machine.
#[derive(Debug)]
pub struct Runner {
    /// The errand.
    pub errand: Errand,
    /// Where the token is looked for.
    pub machine: Arc<Machine>,
    /// How long one attempt may go on.
    pub patience: Patience,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Chance, for the waits.
    pub chance: Arc<dyn Chance>,
}

#[async_trait]
impl Supply for Runner {
    async fn fetch(&self) -> Result<Acquired, ClientError> {
        // One try: the keeper itself tries again, after it has said why. The time that an answer may take stays as it is: one that
        // is cut off leaves a login that nobody knows.
        let never = self.patience.total.saturating_mul(2);
        let once = Patience { first: never, most: never, ..self.patience };
        let mut waiting = Waiting::begin(once, &*self.chance);
        self.errand.run(&self.machine, &mut waiting, &*self.clock).await
    }

    fn refused(&self, refused: super::Refused) -> ClientError {
        refused.of(self.errand.audience.as_deref())
    }

    fn refused_again(&self, refused: super::Refused) -> ClientError {
        self.errand.refused_again(refused)
    }
}

/// Keeps one credential.
#[derive(Debug)]
pub struct Keeper {
    supply: Arc<dyn Supply>,
    pace: Pace,
    clock: Arc<dyn Clock>,
    chance: Arc<dyn Chance>,
    publish: watch::Sender<Arc<Kept>>,
    renew: Arc<Notify>,
    state: State,
}

/// What is known between two attempts.
#[derive(Debug, Default)]
struct State {
    kept: Kept,
    /// Which token brought the newest good answer.
    taken: Option<[u8; 32]>,
    leases: Vec<(Lease, Option<Instant>)>,
    next: Instant,
}

/// However long the wait is, the clock is looked at this often: it may have been set, and machines sleep.
const LOOK: Duration = Duration::from_secs(15);
/// How long an attempt that is under way may go on when we are to stop: what it brings has to be ended.
const LAST_ANSWER: Duration = Duration::from_secs(5);

impl Keeper {
    /// A keeper that has nothing yet, or `first`; and what tells about its credential.
    #[must_use]
    pub fn new(
        supply: Arc<dyn Supply>,
        pace: Pace,
        clock: Arc<dyn Clock>,
        chance: Arc<dyn Chance>,
        first: Option<(Issued, [u8; 32])>,
    ) -> (Self, watch::Receiver<Arc<Kept>>) {
        let (publish, receiver) = watch::channel(Arc::new(Kept::default()));
        let (renew, state) = (Arc::default(), State::default());
        let mut keeper = Self { supply, pace, clock, chance, publish, renew, state };
        if let Some((issued, fingerprint)) = first {
            keeper.good(issued, fingerprint);
        }
        (keeper, receiver)
    }

    /// The same, that does not wait any longer when `renew` is notified.
    #[must_use]
    pub fn renewed_by(mut self, renew: Arc<Notify>) -> Self {
        self.renew = renew;
        self
    }

    /// Keeps it until `stop`. Returns the leases that are still alive then: the caller ends them.
    pub async fn keep(mut self, stop: CancellationToken) -> Vec<Lease> {
        while self.rest(&stop).await {
            let supply = Arc::clone(&self.supply);
            let mut attempt = supply.fetch();
            let done = loop {
                tokio::select! {
                    done = &mut attempt => break Some(done),
                    () = stop.cancelled() => {
                        break tokio::time::timeout(LAST_ANSWER, &mut attempt).await.ok();
                    }
                    // The broker may be silent for longer than the credential lives.
                    () = tokio::time::sleep(self.until_end()) => self.drop_what_is_over(),
                }
            };
            drop(attempt);
            match done {
                Some(done) => self.take(done),
                None => break,
            }
        }
        let now = self.clock.now();
        let alive = |(lease, ends): (Lease, Option<Instant>)| {
            ends.is_none_or(|ends| now < ends).then_some(lease)
        };
        self.state.leases.into_iter().filter_map(alive).collect()
    }

    /// Until the next attempt is due. `false`: we are to stop.
    async fn rest(&mut self, stop: &CancellationToken) -> bool {
        loop {
            self.drop_what_is_over();
            let left = self.state.next.since(self.clock.now());
            if stop.is_cancelled() {
                return false;
            }
            if left.is_zero() {
                return true;
            }
            tokio::select! {
                () = stop.cancelled() => return false,
                () = self.renew.notified() => return true,
                () = tokio::time::sleep(left.min(self.until_end()).min(LOOK)) => {}
            }
        }
    }

    /// How long until the credential is over, if that is worth waking up for.
    fn until_end(&self) -> Duration {
        let ends = self.state.kept.issued.as_ref().and_then(|issued| issued.ends);
        ends.map_or(LOOK, |ends| ends.since(self.clock.now()).min(LOOK))
    }

    fn drop_what_is_over(&mut self) {
        let now = self.clock.now();
        if self.state.kept.is_over(now) {
            self.state.kept.issued = None;
            // In the middle of the first attempt to renew it.
            self.state.kept.trouble.get_or_insert_with(|| Trouble {
                since: now,
                what: ClientError::unreachable("no answer came yet"),
                failures: 0,
            });
            self.tell();
        }
    }

    fn take(&mut self, done: Result<Acquired, ClientError>) {
        let (what, asked) = match done {
            Ok(Acquired { answer: Answer::Issued(issued), fingerprint, .. }) => {
                return self.good(*issued, fingerprint);
            }
            Ok(Acquired { answer: Answer::Refused(refused), fingerprint, .. }) => {
                let asked = refused.retry_after;
                let again = self.state.taken == Some(fingerprint);
                let what = if again {
                    self.supply.refused_again(refused)
                } else {
                    self.supply.refused(refused)
                };
                (what, asked)
            }
            Err(error) => (error, None),
        };
        let now = self.clock.now();
        let before = self.state.kept.trouble.take();
        let since = before.as_ref().map_or(now, |trouble| trouble.since);
        let failures = before.map_or(0, |trouble| trouble.failures).saturating_add(1);
        self.state.next = self.pace.next(Last::Bad { at: now, failures, asked }, self.dice());
        self.state.kept.trouble = Some(Trouble { since, what, failures });
        self.tell();
    }

    fn good(&mut self, issued: Issued, fingerprint: [u8; 32]) {
        let now = self.clock.now();
        let (asked_at, ends) = (issued.asked_at, issued.ends);
        let state = &mut self.state;
        state.leases.retain(|(_, ends)| ends.is_none_or(|ends| now < ends));
        state.leases.extend(issued.lease().map(|lease| (lease, ends)));
        state.taken = Some(fingerprint);
        state.kept = Kept {
            issued: Some(Arc::new(issued)),
            trouble: None,
            generation: state.kept.generation.saturating_add(1),
            newest: Some((asked_at, ends)),
        };
        self.state.next = self.pace.next(Last::Good { asked_at, ends }, self.dice());
        // One that came over its end already is no reason to ask without a pause.
        self.state.next = self.state.next.max(now.plus(self.pace.least));
        self.tell();
    }

    /// Without chance: the same for all. Nothing secret depends on it.
    fn dice(&self) -> u8 {
        let mut dice = [u8::MAX];
        let _ = self.chance.fill(&mut dice);
        dice[0]
    }

    fn tell(&self) {
        self.publish.send_replace(Arc::new(self.state.kept.clone()));
    }
}

#[cfg(test)]
mod tests;
