//! When a key is prepared, promoted, retired and pruned: derived waits and a pure next step. Nothing here reads a clock.

use std::{collections::BTreeSet, time::Duration};

use thiserror::Error;

use super::{KeyRecord, KeysError, Phase, Purpose};
use crate::{clock::Instant, subject::Algorithm};

/// What is configured, or follows from the targets; the waits are derived from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// What we sign with: one active key each.
    pub algorithms: BTreeSet<Algorithm>,
    /// How long a key signs before its successor takes over.
    pub sign_for: Duration,
    /// The `max-age` of our JWKS document.
    pub jwks_max_age: Duration,
    /// The longest lifetime of a token of ours: the highest ceiling of the targets that we sign for.
    pub longest_lifetime: Duration,
    /// How far the clocks of verifiers may be off.
    pub leeway: Duration,
    /// How long verifiers cache our keys that do not heed `max-age`.
    pub verifier_cache: Duration,
    /// Until every replica serves a changed ring.
    pub replica_delay: Duration,
}

impl Terms {
    /// How long verifiers are taken to cache when the configuration does not say: a day.
    pub const VERIFIER_CACHE: Duration = Duration::from_hours(24);
    /// Design section 8: a change of the store reaches every replica within 5 s.
    pub const REPLICA_DELAY: Duration = Duration::from_secs(5);
}

/// Waits that contradict each other. The broker does not start with them.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ScheduleError {
    /// The successor of a key could never be announced in time.
    #[error(
        "a key must sign for longer than its successor is announced: found {} s, expected more than {} s",
        sign_for.as_secs(), publish_before.as_secs()
    )]
    SignsTooShort {
        /// What is configured.
        sign_for: Duration,
        /// What follows from the caches.
        publish_before: Duration,
    },
    /// A token of no lifetime.
    #[error("the longest lifetime of a token is 0 s, expected at least 1 s")]
    NoLifetime,
    /// Nothing to sign with.
    #[error("no algorithm to sign with, expected at least one")]
    NoAlgorithm,
    /// A wait beyond ten years is a slip of the unit.
    #[error("{what} is {} s, expected at most ten years", .found.as_secs())]
    TooLong {
        /// Which term.
        what: &'static str,
        /// What is configured.
        found: Duration,
    },
}

/// The waits that keep INVARIANT(publish-before-sign).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    purpose: Purpose,
    algorithms: BTreeSet<Algorithm>,
    sign_for: Duration,
    publish_before: Duration,
    keep_beyond_window: Duration,
    window: Duration,
    jwks_max_age: Duration,
    replica_delay: Duration,
}

/// No target has a higher ceiling.
const LONGEST_WINDOW: Duration = Duration::from_hours(24);
const TEN_YEARS: Duration = Duration::from_hours(10 * 366 * 24);

impl Schedule {
    /// The waits of the keys for tokens that follow from `terms`.
    ///
    /// # Errors
    /// They contradict each other: refused at start, not found out at the first rotation.
    pub fn derive(terms: Terms) -> Result<Self, ScheduleError> {
        Self::of(Purpose::Tokens, terms)
    }

    /// The waits of the keys for `purpose` that follow from `terms`.
    ///
    /// # Errors
    /// They contradict each other.
    pub fn of(purpose: Purpose, terms: Terms) -> Result<Self, ScheduleError> {
        for (what, found) in [
            ("the time a key signs", terms.sign_for),
            ("the JWKS max-age", terms.jwks_max_age),
            ("the longest lifetime", terms.longest_lifetime),
            ("the leeway", terms.leeway),
            ("the verifier cache", terms.verifier_cache),
            ("the replica delay", terms.replica_delay),
        ] {
            if found > TEN_YEARS {
                return Err(ScheduleError::TooLong { what, found });
            }
        }
        if terms.longest_lifetime < Duration::from_secs(1) {
            return Err(ScheduleError::NoLifetime);
        }
        if terms.algorithms.is_empty() {
            return Err(ScheduleError::NoAlgorithm);
        }
        let slack = terms.leeway.saturating_add(terms.replica_delay);
        // A verifier may fetch the set one second before we add a key, then trust it for max-age; and a replica may serve
        // the old set a little longer than we do.
        let publish_before = terms.jwks_max_age.saturating_add(slack).max(terms.verifier_cache);
        if terms.sign_for <= publish_before {
            return Err(ScheduleError::SignsTooShort { sign_for: terms.sign_for, publish_before });
        }
        Ok(Self {
            purpose,
            algorithms: terms.algorithms,
            sign_for: terms.sign_for,
            publish_before,
            // The last token is prepared in the last active second, on the replica that hears of it last.
            keep_beyond_window: slack,
            window: terms.longest_lifetime,
            jwks_max_age: terms.jwks_max_age,
            replica_delay: terms.replica_delay,
        })
    }

    /// The schedule by which keys of `purpose` leave, now that nothing wants them any more: nothing is made, nothing is
    /// promoted, and what is there stays published for as long as what it signed may live.
    #[must_use]
    pub fn closing(&self, purpose: Purpose) -> Self {
        Self { purpose, algorithms: BTreeSet::new(), ..self.clone() }
    }

    /// What its keys are for.
    #[must_use]
    pub const fn purpose(&self) -> &Purpose {
        &self.purpose
    }

    /// When the certificate of a CA key ends that is prepared at `now`: after everything that the key may sign, even if it
    /// waits for its turn twice as long as planned.
    ///
    /// INVARIANT(never-outlive): no certificate is issued beyond it. It bounds a bundle that nobody refreshes.
    #[must_use]
    pub fn certified_until(&self, now: Instant) -> Instant {
        // Prepared while its predecessor signs, then signing itself: two terms. A third for a broker that was away.
        let terms = self.sign_for.saturating_mul(3).saturating_add(self.publish_before);
        // Whatever ceiling the configuration will have by then: none is above a day.
        now.plus(terms.saturating_add(LONGEST_WINDOW).saturating_add(self.keep_beyond_window))
    }

    /// What we sign with.
    #[must_use]
    pub const fn algorithms(&self) -> &BTreeSet<Algorithm> {
        &self.algorithms
    }

    /// How long a key is announced before it signs.
    #[must_use]
    pub const fn publish_before(&self) -> Duration {
        self.publish_before
    }

    /// How long a key of the present `window` stays published after it stopped signing.
    #[must_use]
    pub const fn keep_after(&self) -> Duration {
        self.window.saturating_add(self.keep_beyond_window)
    }

    /// The longest lifetime of a token of ours.
    #[must_use]
    pub const fn window(&self) -> Duration {
        self.window
    }

    /// Until every replica serves a changed ring; the loop looks at the store this often.
    #[must_use]
    pub const fn replica_delay(&self) -> Duration {
        self.replica_delay
    }

    /// For how long a verifier may cache the JWKS document that shows `records` at `now`.
    ///
    /// A key that is not in it yet signs `publish_before` from now at the soonest, which is longer than this. Before any
    /// key has signed, the first one may come at any moment, so that nothing may be cached.
    #[must_use]
    pub fn cache_for(&self, records: &[KeyRecord], now: Instant) -> Duration {
        let begun = |record: &KeyRecord| {
            record.purpose == self.purpose && record.promoted_at.is_some_and(|began| began <= now)
        };
        if records.iter().any(begun) { self.jwks_max_age } else { Duration::ZERO }
    }

    /// From when `record` may sign.
    #[must_use]
    pub fn announced_at(&self, record: &KeyRecord) -> Instant {
        record.prepared_at.plus(self.publish_before)
    }

    fn forgotten_at(&self, record: &KeyRecord) -> Option<Instant> {
        let stopped = record.retired_at?;
        Some(stopped.plus(record.window.saturating_add(self.keep_beyond_window)))
    }
}

/// Why a key may begin to sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announcement {
    /// Every verifier that caches as agreed has it.
    Kept,
    /// Exempt: the ring had never signed when the key was published, so nobody can hold a set without it that matters.
    First,
    /// An operator said so: verifiers that cache may refuse its tokens for a while.
    Forced,
}

/// One change of the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make a key and publish it.
    Prepare(Algorithm),
    /// Let a prepared key sign. The one that signed before retires in the same step, so that there is never a second.
    Promote {
        /// Which.
        kid: String,
        /// Why it may.
        announcement: Announcement,
    },
    /// Stop signing with an algorithm that no target wants any more.
    Retire(String),
    /// Let a key sign for longer lifetimes than it was prepared for, because the configuration now has some.
    Widen(String),
    /// Forget a key that nothing alive was signed with.
    Prune(String),
    /// Remove a leaked key at once. Was it the one that signs, then issuing with its algorithm pauses.
    Withdraw(String),
}

impl Step {
    /// The word for it in the ledger. A first or forced promotion says so.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Prepare(_) => "prepare",
            Self::Promote { announcement: Announcement::Kept, .. } => "promote",
            Self::Promote { announcement: Announcement::First, .. } => "promote-first",
            Self::Promote { announcement: Announcement::Forced, .. } => "promote-forced",
            Self::Retire(_) => "retire",
            Self::Widen(_) => "widen",
            Self::Prune(_) => "prune",
            Self::Withdraw(_) => "withdraw",
        }
    }
}

/// What is to be done with `records` at `now`; nothing if all is well. Apply it, and ask again.
///
/// The order matters: keys are published before anything else is done, so that the first ones of a new ring share one
/// exemption; signing comes before tidying.
#[must_use]
pub fn next_step(records: &[KeyRecord], schedule: &Schedule, now: Instant) -> Option<Step> {
    let algorithms = || schedule.algorithms.iter().copied();
    algorithms()
        .find(|algorithm| none_is_coming(records, &schedule.purpose, *algorithm))
        .map(Step::Prepare)
        .or_else(|| algorithms().find_map(|algorithm| promote(records, schedule, algorithm, now)))
        .or_else(|| {
            algorithms()
                .find(|a| in_phase(records, &schedule.purpose, *a, Phase::Prepared).is_none())
                .map(Step::Prepare)
        })
        .or_else(|| {
            let ours = |record: &&KeyRecord| record.purpose == schedule.purpose;
            records.iter().filter(ours).find_map(|record| tidy(record, schedule, now))
        })
}

/// `records` after `step`, made at `now`; `fresh` is the `kid` of the key that a `Prepare` publishes.
///
/// # Errors
/// The step does not fit the records: no such key, another phase, or two keys that sign.
pub fn after(
    records: &[KeyRecord],
    step: &Step,
    fresh: Option<&str>,
    schedule: &Schedule,
    now: Instant,
) -> Result<Vec<KeyRecord>, KeysError> {
    let mut records = records.to_vec();
    match step {
        Step::Prepare(algorithm) => {
            let kid = fresh.ok_or(KeysError::NoKey(*algorithm))?.to_owned();
            if records.iter().any(|record| record.kid == kid) {
                return Err(KeysError::Unsound(format!("key `{kid}` is there already")));
            }
            // A withdrawn key counts as well: its successor has to be announced like any other.
            let alike = |record: &&KeyRecord| record.purpose == schedule.purpose;
            let first = records.iter().filter(alike).all(|record| record.promoted_at.is_none());
            records.push(KeyRecord {
                kid,
                purpose: schedule.purpose.clone(),
                algorithm: *algorithm,
                phase: Phase::Prepared,
                prepared_at: now,
                promoted_at: None,
                retired_at: None,
                window: schedule.window,
                first,
            });
        }
        Step::Promote { kid, .. } => start_signing(&mut records, kid, now)?,
        Step::Retire(kid) => {
            let record = the(&mut records, kid, &[Phase::Active], "active")?;
            record.phase = Phase::Retired;
            record.retired_at = Some(now);
        }
        Step::Widen(kid) => {
            let live = [Phase::Prepared, Phase::Active];
            let record = the(&mut records, kid, &live, "prepared or active")?;
            record.window = record.window.max(schedule.window);
        }
        Step::Prune(kid) => {
            let idle = [Phase::Prepared, Phase::Retired, Phase::Withdrawn];
            the(&mut records, kid, &idle, "not active")?;
            records.retain(|record| record.kid != *kid);
        }
        Step::Withdraw(kid) => {
            let here = [Phase::Prepared, Phase::Active, Phase::Retired];
            let record = the(&mut records, kid, &here, "not withdrawn")?;
            record.phase = Phase::Withdrawn;
            record.retired_at = Some(now);
        }
    }
    Ok(records)
}

fn none_is_coming(records: &[KeyRecord], purpose: &Purpose, algorithm: Algorithm) -> bool {
    in_phase(records, purpose, algorithm, Phase::Active).is_none()
        && in_phase(records, purpose, algorithm, Phase::Prepared).is_none()
}

fn promote(
    records: &[KeyRecord],
    schedule: &Schedule,
    algorithm: Algorithm,
    now: Instant,
) -> Option<Step> {
    let next = in_phase(records, &schedule.purpose, algorithm, Phase::Prepared)?;
    let active = in_phase(records, &schedule.purpose, algorithm, Phase::Active);
    let due = active
        .and_then(|record| record.promoted_at)
        .is_none_or(|began| began.plus(schedule.sign_for) <= now);
    let announcement = if schedule.announced_at(next) <= now {
        Announcement::Kept
    } else if active.is_none() && next.first {
        Announcement::First
    } else {
        return None;
    };
    due.then(|| Step::Promote { kid: next.kid.clone(), announcement })
}

fn tidy(record: &KeyRecord, schedule: &Schedule, now: Instant) -> Option<Step> {
    let kid = || record.kid.clone();
    let wanted = schedule.algorithms.contains(&record.algorithm);
    match record.phase {
        Phase::Prepared if !wanted => Some(Step::Prune(kid())),
        Phase::Active if !wanted => Some(Step::Retire(kid())),
        Phase::Prepared | Phase::Active => {
            (record.window < schedule.window).then(|| Step::Widen(kid()))
        }
        Phase::Retired | Phase::Withdrawn => {
            let forgotten = schedule.forgotten_at(record).is_some_and(|end| end <= now);
            forgotten.then(|| Step::Prune(kid()))
        }
    }
}

/// The one for `purpose` with `algorithm` in `phase`; of several prepared ones the longest announced.
#[must_use]
pub fn in_phase<'a>(
    records: &'a [KeyRecord],
    purpose: &Purpose,
    algorithm: Algorithm,
    phase: Phase,
) -> Option<&'a KeyRecord> {
    records
        .iter()
        .filter(|record| record.purpose == *purpose)
        .filter(|record| record.algorithm == algorithm && record.phase == phase)
        .min_by_key(|record| record.prepared_at)
}

fn start_signing(records: &mut [KeyRecord], kid: &str, now: Instant) -> Result<(), KeysError> {
    let next = the(records, kid, &[Phase::Prepared], "prepared")?;
    let (purpose, algorithm) = (next.purpose.clone(), next.algorithm);
    let alike =
        |record: &&mut KeyRecord| record.purpose == purpose && record.algorithm == algorithm;
    for record in records.iter_mut().filter(alike) {
        if record.kid == kid {
            record.phase = Phase::Active;
            record.promoted_at = Some(now);
        } else if record.phase == Phase::Active {
            record.phase = Phase::Retired;
            record.retired_at = Some(now);
        }
    }
    Ok(())
}

fn the<'a>(
    records: &'a mut [KeyRecord],
    kid: &str,
    phases: &[Phase],
    expected: &'static str,
) -> Result<&'a mut KeyRecord, KeysError> {
    let record = records
        .iter_mut()
        .find(|record| record.kid == kid)
        .ok_or_else(|| KeysError::NoSuchKey(kid.to_owned()))?;
    if phases.contains(&record.phase) {
        return Ok(record);
    }
    Err(KeysError::Phase { kid: kid.to_owned(), found: record.phase, expected })
}
