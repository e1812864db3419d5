//! Trying again: with jitter, so that a thousand jobs that were cut off together do not come back together, and never past one
//! deadline for the whole command.

use std::{fmt, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::chance::Chance;

/// How long to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// From the first step to the last, waits included.
    pub total: Duration,
    /// The longest first wait; each further one may be twice as long.
    pub first: Duration,
    /// The longest wait of our own choice. Who says `Retry-After` may ask for a longer one.
    pub most: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            total: Duration::from_secs(60),
            first: Duration::from_millis(250),
            most: Duration::from_secs(8),
        }
    }
}

impl Patience {
    /// How long to wait before try number `turn` (from 0), with `dice` between 0 and 255.
    ///
    /// Of our own choice: between half and all of `first × 2^turn`, at most `most`. When a server asked for a wait: never
    /// less than that, and up to a quarter more, or `first`, whichever is longer.
    #[must_use]
    pub fn pause(&self, turn: u32, asked: Option<Duration>, dice: u8) -> Duration {
        let share = |of: Duration| part(of.saturating_mul(u32::from(dice)), 255);
        if let Some(asked) = asked {
            return asked.saturating_add(share(part(asked, 4).max(self.first)));
        }
        let factor = 2_u32.checked_pow(turn).unwrap_or(u32::MAX);
        let whole = self.first.saturating_mul(factor).min(self.most);
        let half = part(whole, 2);
        half.saturating_add(share(whole.saturating_sub(half)))
    }
}

fn part(of: Duration, parts: u32) -> Duration {
    of.checked_div(parts).unwrap_or_default()
}

/// A try must have at least this part of the whole time left for itself.
const LEAST: u32 = 20;

/// Who is told that we try again.
struct Told<'a>(Box<dyn Fn(&str) + Send + Sync + 'a>);

impl fmt::Debug for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Told(…)")
    }
}

/// One command's patience, as it runs out.
#[derive(Debug)]
pub struct Waiting<'a> {
    patience: Patience,
    chance: &'a dyn Chance,
    end: Instant,
    turn: u32,
    stop: CancellationToken,
    told: Option<Told<'a>>,
}

impl<'a> Waiting<'a> {
    /// Begins now.
    #[must_use]
    pub fn begin(patience: Patience, chance: &'a dyn Chance) -> Self {
        let now = tokio::time::Instant::now();
        let end = now.checked_add(patience.total).unwrap_or(now);
        Self { patience, chance, end, turn: 0, stop: CancellationToken::new(), told: None }
    }

    /// The same, that makes no further try once `stop` is cancelled. What is under way goes on: its answer may be a credential.
    #[must_use]
    pub fn until(mut self, stop: CancellationToken) -> Self {
        self.stop = stop;
        self
    }

    /// The same, that tells `told` once, at the first wait, what it is that we try again: whoever looks at a command that says
    /// nothing for a minute takes it for one that hangs.
    #[must_use]
    pub fn telling(mut self, told: impl Fn(&str) + Send + Sync + 'a) -> Self {
        self.told = Some(Told(Box::new(told)));
        self
    }

    /// Another one that begins now, whatever is left of this one: to end what was made.
    #[must_use]
    pub fn afresh(&self, patience: Patience) -> Self {
        Self::begin(patience, self.chance)
    }

    /// What is left.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// Waits before the next try; `why` is what came of the one before, as its error would say it. `false`, at once, where the wait
    /// would leave no time for that try, or where we are to stop: then there is no next try.
    #[must_use]
    pub async fn rest(&mut self, asked: Option<Duration>, why: &(dyn fmt::Display + Sync)) -> bool {
        let mut dice = [u8::MAX];
        // Without chance: the longest wait. Nothing secret depends on it.
        let _ = self.chance.fill(&mut dice);
        let pause = self.patience.pause(self.turn, asked, dice[0]);
        // A try with next to no time would end in a time-out, which hides what was wrong before, and may spend a token.
        let least = part(self.patience.total, LEAST);
        if pause.saturating_add(least) >= self.left() {
            return false;
        }
        self.turn = self.turn.saturating_add(1);
        if let Some(Told(told)) = self.told.take()
            && !self.stop.is_cancelled()
        {
            told(&format!("{why}: trying again, for {:?} at most", self.patience.total));
        }
        tokio::select! {
            biased;
            () = self.stop.cancelled() => false,
            () = tokio::time::sleep(pause) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::SeededChance;

    const PATIENCE: Patience = Patience {
        total: Duration::from_secs(60),
        first: Duration::from_millis(200),
        most: Duration::from_secs(1),
    };

    #[test]
    fn waits_double_up_to_a_cap_and_are_spread_over_their_upper_half() {
        let range = |turn| [0, 255].map(|dice| PATIENCE.pause(turn, None, dice).as_millis());
        assert_eq!(
            [0, 1, 2, 3, 40].map(range),
            [[100, 200], [200, 400], [400, 800], [500, 1000], [500, 1000]]
        );
    }

    #[test]
    fn what_a_server_asks_for_is_kept_and_spread_behind() {
        let range = |seconds| {
            let asked = Some(Duration::from_secs(seconds));
            [0, 255].map(|dice| PATIENCE.pause(9, asked, dice).as_millis())
        };
        assert_eq!([0, 1, 20].map(range), [[0, 200], [1000, 1250], [20_000, 25_000]]);
    }

    #[tokio::test]
    async fn nobody_waits_for_what_comes_after_the_deadline() {
        let chance = SeededChance::of(1);
        let mut waiting = Waiting::begin(PATIENCE, &chance);
        // If it waited, this test would take a minute.
        assert!(!waiting.rest(Some(Duration::from_secs(60)), &"away").await);
        // Nor for what would have no time to be answered.
        assert!(!waiting.rest(Some(Duration::from_millis(57_500)), &"away").await);
        let short = Patience { total: Duration::from_millis(20), ..PATIENCE };
        assert!(!Waiting::begin(short, &chance).rest(None, &"away").await);
        // Nor once it is told to stop, in the middle of a wait too.
        let stop = CancellationToken::new();
        let mut stopped = Waiting::begin(PATIENCE, &chance).until(stop.clone());
        let (rested, ()) =
            tokio::join!(stopped.rest(Some(Duration::from_secs(50)), &"away"), async {
                stop.cancel();
            });
        assert!(!rested);
        let quick = Patience { first: Duration::from_millis(1), ..PATIENCE };
        assert!(Waiting::begin(quick, &chance).rest(None, &"away").await);
    }

    #[tokio::test(start_paused = true)]
    async fn that_we_try_again_is_told_once_and_only_where_we_do() {
        let (chance, said) = (SeededChance::of(1), std::sync::Mutex::new(Vec::new()));
        let telling = |patience| {
            let told = |words: &str| said.lock().unwrap().push(words.to_owned());
            Waiting::begin(patience, &chance).telling(told)
        };
        let short = Patience { total: Duration::from_millis(20), ..PATIENCE };
        assert!(!telling(short).rest(None, &"away").await);
        let stop = CancellationToken::new();
        stop.cancel();
        assert!(!telling(PATIENCE).until(stop).rest(None, &"away").await);
        assert_eq!(*said.lock().unwrap(), [""; 0]);
        let mut waiting = telling(PATIENCE);
        for why in ["`URL` is away", "and still"] {
            assert!(waiting.rest(None, &why).await);
        }
        assert_eq!(*said.lock().unwrap(), ["`URL` is away: trying again, for 60s at most"]);
    }
}
