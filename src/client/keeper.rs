//! Keeps one credential fresh: renews it ahead of its end, goes on with the last good one while the broker is away, and says so
//! when that one is over.
//!
//! [`Pace`] decides, and is pure; [`Keeper::keep`] is the dull loop around it.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::{Notify, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Acquired, Answer, ClientError, Errand, Issued, Lease, Machine, Patience, Waiting,
    revoke::ENDING,
};
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
        /// What is left of the credential that is held, where one is.
        left: Option<Duration>,
    },
}

impl Pace {
    /// When to ask for the next one. `dice` (0 to 255) spreads those who began together.
    ///
    /// After a good one: at two thirds of its lifetime, or up to a tenth of it earlier. After a failure: waits that double, as
    /// [`Patience::pause`] has them, and what the broker asked for: up to five minutes, and to half of what is left of the
    /// credential. One mistaken `Retry-After` would end renewal for good.
    #[must_use]
    pub fn next(&self, last: Last, dice: u8) -> Instant {
        match last {
            Last::Good { asked_at, ends } => {
                let life = ends.map_or(self.endless, |ends| ends.since(asked_at));
                let early = part(part(life, 10).saturating_mul(u32::from(dice)), 255);
                let late = part(life.saturating_mul(2), 3).saturating_sub(early);
                asked_at.plus(late.max(self.least))
            }
            Last::Bad { at, failures, asked, left } => {
                let most = left.map_or(LONGEST_ASKED, |left| part(left, 2).min(LONGEST_ASKED));
                let asked = asked.map(|asked| asked.min(most));
                let turn = failures.saturating_sub(1);
                at.plus(self.retry.pause(turn, asked, dice).max(self.least))
            }
        }
    }
}

/// The longest wait that a broker can ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(300);

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

    /// The same, which begins no exchange once `stop` is cancelled. One that is under way goes on to its answer: that has to be
    /// ended.
    async fn fetch_until(&self, _stop: &CancellationToken) -> Result<Acquired, ClientError> {
        self.fetch().await
    }

    /// Ends `lease`, whose credential is of no use any more.
    ///
    /// # Errors
    /// It is not known to be ended.
    async fn end(&self, lease: &Lease) -> Result<(), ClientError> {
        Err(ClientError::unreachable(format!("lease `{}` is not ended here", lease.id)))
    }

    /// A refusal in words.
    fn refused(&self, refused: super::Refused) -> ClientError {
        refused.into()
    }

    /// The same, where the token had been taken before.
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
        self.fetch_until(&CancellationToken::new()).await
    }

    async fn fetch_until(&self, stop: &CancellationToken) -> Result<Acquired, ClientError> {
        // One try: the keeper itself tries again, after it has said why. The time that an answer may take stays as it is: one that
        // is cut off leaves a login that nobody knows.
        let never = self.patience.total.saturating_mul(2);
        let once = Patience { first: never, most: never, ..self.patience };
        let mut waiting = Waiting::begin(once, &*self.chance).until(stop.clone());
        let subject = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(ClientError::unreachable("told to stop")),
            subject = self.errand.subject(&self.machine, &mut waiting) => subject?,
        };
        let answer = self.errand.exchange(&subject, &mut waiting, &*self.clock).await?;
        Ok(Acquired { answer, fingerprint: subject.fingerprint(), place: subject.place })
    }

    async fn end(&self, lease: &Lease) -> Result<(), ClientError> {
        let mut waiting = Waiting::begin(ENDING, &*self.chance);
        lease.revoke(&self.errand.broker, &mut waiting).await
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
    /// Those that live, the oldest first, and when each is over by [`Clock::elapsed`].
    leases: Vec<(Lease, Option<Duration>)>,
    /// What is being ended, beside everything else.
    endings: TaskTracker,
    /// What could not be.
    unended: Arc<Mutex<Vec<Lease>>>,
    /// How often in a row one came that was over, or nearly.
    short: u32,
    /// When to ask again: by the wall clock, or by [`Clock::elapsed`], whichever comes first.
    next: (Instant, Duration),
}

fn locked(unended: &Mutex<Vec<Lease>>) -> MutexGuard<'_, Vec<Lease>> {
    unended.lock().unwrap_or_else(PoisonError::into_inner)
}

/// However long the wait is, the clock is looked at this often: it may have been set, and machines sleep.
const LOOK: Duration = Duration::from_secs(15);
/// How long an attempt that is under way may go on when we are to stop: what it brings has to be ended. More than any attempt
/// takes that keeps its duty.
const LAST_ANSWER: Duration = Duration::from_secs(60);
/// No more leases than this are held for the end: of more, the oldest are ended at once, and what can't be ended is forgotten.
const MOST_LEASES: usize = 64;

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

    /// Keeps it until `stop`. Returns the leases that were not ended, whatever the clock says of them: the caller ends them.
    pub async fn keep(mut self, stop: CancellationToken) -> Vec<Lease> {
        while self.rest(&stop).await {
            let supply = Arc::clone(&self.supply);
            let mut attempt = supply.fetch_until(&stop);
            let done = loop {
                tokio::select! {
                    done = &mut attempt => break done,
                    () = stop.cancelled() => {
                        let last = tokio::time::timeout(LAST_ANSWER, &mut attempt).await;
                        let silence = || ClientError::unreachable("no answer came").unsure();
                        break last.unwrap_or_else(|_| Err(silence()));
                    }
                    // The broker may be silent for longer than the credential lives.
                    () = tokio::time::sleep(self.until_end()) => self.drop_what_is_over(),
                }
            };
            drop(attempt);
            self.take(done);
        }
        self.state.endings.close();
        self.state.endings.wait().await;
        let mut leases = std::mem::take(&mut *locked(&self.state.unended));
        leases.extend(self.state.leases.into_iter().map(|(lease, _)| lease));
        leases
    }

    /// Ends it without waiting for that. What can't be ended is tried once more at the very end.
    fn end_now(&self, lease: Lease) {
        let (supply, unended) = (Arc::clone(&self.supply), Arc::clone(&self.state.unended));
        self.state.endings.spawn(async move {
            if supply.end(&lease).await.is_err() {
                let mut unended = locked(&unended);
                if unended.len() < MOST_LEASES {
                    unended.push(lease);
                }
            }
        });
    }

    /// Until the next attempt is due. `false`: we are to stop.
    async fn rest(&mut self, stop: &CancellationToken) -> bool {
        loop {
            self.drop_what_is_over();
            let (at, after) = self.state.next;
            let left = at.since(self.clock.now()).min(after.saturating_sub(self.clock.elapsed()));
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
        self.left().map_or(LOOK, |left| left.min(LOOK))
    }

    /// What is left of the credential, by whichever clock says less.
    fn left(&self) -> Option<Duration> {
        self.state.kept.issued.as_ref().and_then(|issued| issued.left(&*self.clock))
    }

    fn ask_at(&mut self, at: Instant) {
        let wait = at.since(self.clock.now());
        self.state.next = (at, self.clock.elapsed().saturating_add(wait));
    }

    fn drop_what_is_over(&mut self) {
        let now = self.clock.now();
        if self.left().is_some_and(|left| left.is_zero()) {
            self.state.kept.issued = None;
            // In the middle of the first attempt to renew it, or before there was one.
            let words = if self.state.short > 0 {
                "what the broker gives is over when it comes"
            } else {
                "no answer came yet"
            };
            self.state.kept.trouble.get_or_insert_with(|| Trouble {
                since: now,
                what: ClientError::unreachable(words),
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
            Err(mut error) => {
                self.state.leases.extend(error.lease.take().map(|lease| (lease, None)));
                self.end_superseded();
                (error, None)
            }
        };
        let now = self.clock.now();
        let before = self.state.kept.trouble.take();
        let since = before.as_ref().map_or(now, |trouble| trouble.since);
        let failures = before.map_or(0, |trouble| trouble.failures).saturating_add(1);
        let left = self.left().filter(|left| !left.is_zero());
        self.ask_at(self.pace.next(Last::Bad { at: now, failures, asked, left }, self.dice()));
        self.state.kept.trouble = Some(Trouble { since, what, failures });
        self.tell();
    }

    fn good(&mut self, issued: Issued, fingerprint: [u8; 32]) {
        let now = self.clock.now();
        let (asked_at, ends) = (issued.asked_at, issued.ends);
        let left = issued.left(&*self.clock);
        let over = left.map(|left| self.clock.elapsed().saturating_add(left));
        self.end_superseded();
        let state = &mut self.state;
        state.leases.extend(issued.lease().map(|lease| (lease, over)));
        let short = left.is_some_and(|left| left <= self.pace.least);
        state.short = if short { state.short.saturating_add(1) } else { 0 };
        state.taken = Some(fingerprint);
        state.kept = Kept {
            issued: Some(Arc::new(issued)),
            trouble: None,
            generation: state.kept.generation.saturating_add(1),
            newest: Some((asked_at, ends)),
        };
        let next = self.pace.next(Last::Good { asked_at, ends }, self.dice());
        let next = if self.state.short > 0 {
            // One that is over as it comes is as good as none: the waits double, or each of them would be a lease more.
            let failures = self.state.short;
            self.pace.next(Last::Bad { at: now, failures, asked: None, left: None }, self.dice())
        } else {
            next.max(now.plus(self.pace.least))
        };
        self.ask_at(next);
        self.tell();
    }

    /// Ends what is over, which is nothing to a broker whose clock is ours, and a login that stays where it is not; and the oldest,
    /// where there are too many.
    fn end_superseded(&mut self) {
        let now = self.clock.elapsed();
        let mut over = Vec::new();
        let crowd = self.state.leases.len().saturating_sub(MOST_LEASES);
        for (place, (lease, ends)) in std::mem::take(&mut self.state.leases).into_iter().enumerate()
        {
            if place < crowd || ends.is_some_and(|ends| ends <= now) {
                over.push(lease);
            } else {
                self.state.leases.push((lease, ends));
            }
        }
        for lease in over {
            self.end_now(lease);
        }
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
