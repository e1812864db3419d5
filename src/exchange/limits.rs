//! Rate limits with a memory that is bounded by construction.

use std::{
    fmt,
    hash::{BuildHasher as _, Hash, RandomState},
    marker::PhantomData,
    num::NonZeroU32,
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::NoOpMiddleware,
    state::keyed::DashMapStateStore,
};

/// How many buckets a limit has.
const BUCKETS: u64 = 65_536;

/// So many per second, so many at once, for each key of type `K` (per replica: replicas do not share it).
///
/// Keys are thrown into 65,536 buckets by a hash with a secret seed: however many addresses an attacker has, memory does
/// not grow, and nobody can choose whose bucket to share. Time is monotonic (threat V04).
pub struct RateLimit<K, C: Clock = DefaultClock> {
    limiter: Limiter<C>,
    seed: RandomState,
    clock: C,
    key: PhantomData<fn(&K)>,
}

type Limiter<C> =
    RateLimiter<u64, DashMapStateStore<u64>, C, NoOpMiddleware<<C as Clock>::Instant>>;

impl<K: Hash> RateLimit<K> {
    /// At most `per_second` in the long run and `burst` at once.
    #[must_use]
    pub fn of(per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        Self::with_clock(per_second, burst, DefaultClock::default())
    }
}

impl<K: Hash, C: Clock + Clone> RateLimit<K, C> {
    /// The same under another clock: tests push it.
    #[must_use]
    pub fn with_clock(per_second: NonZeroU32, burst: NonZeroU32, clock: C) -> Self {
        let quota = Quota::per_second(per_second).allow_burst(burst);
        Self {
            limiter: RateLimiter::dashmap_with_clock(quota, clock.clone()),
            seed: RandomState::new(),
            clock,
            key: PhantomData,
        }
    }

    /// Counts one for `key`.
    ///
    /// # Errors
    /// It is one too many; the error says how long to wait.
    pub fn check(&self, key: &K) -> Result<(), Duration> {
        let bucket = self.seed.hash_one(key) % BUCKETS;
        self.limiter.check_key(&bucket).map_err(|until| until.wait_time_from(self.clock.now()))
    }
}

impl<K, C: Clock> fmt::Debug for RateLimit<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimit").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    const TWO: NonZeroU32 = NonZeroU32::new(2).unwrap();

    #[test]
    fn a_burst_is_let_through_and_then_one_per_slice_of_time() {
        let clock = FakeRelativeClock::default();
        let limit = RateLimit::<&str, _>::with_clock(TWO, TWO, clock.clone());
        assert_eq!([limit.check(&"a"), limit.check(&"a")], [Ok(()), Ok(())]);
        assert_eq!(limit.check(&"a"), Err(Duration::from_millis(500)));
        clock.advance(Duration::from_millis(500));
        assert_eq!(limit.check(&"a"), Ok(()));
        assert!(limit.check(&"a").is_err());
    }

    #[test]
    fn a_million_keys_take_no_more_memory_than_the_buckets() {
        let limit = RateLimit::<u32>::of(TWO, TWO);
        for key in 0..1_000_000 {
            let _ = limit.check(&key);
        }
        assert!(limit.limiter.len() <= 65_536);
    }
}
