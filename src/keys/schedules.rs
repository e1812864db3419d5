//! One schedule for tokens, and one for the certificates of each target: the same pure function, asked for each of them.

use std::collections::BTreeMap;

use super::{
    KeyRecord, Purpose,
    schedule::{Schedule, Step, next_step},
};
use crate::{clock::Instant, grant::TargetName};

/// The schedules of everything that we sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedules {
    tokens: Schedule,
    certificates: BTreeMap<TargetName, Schedule>,
}

impl Schedules {
    /// The schedule of `tokens`, and those of the targets that get certificates.
    #[must_use]
    pub fn of(tokens: Schedule, certificates: impl IntoIterator<Item = Schedule>) -> Self {
        let by_target = |schedule: Schedule| match schedule.purpose() {
            Purpose::Tokens => None,
            Purpose::Certificates(target) => Some((target.clone(), schedule)),
        };
        Self { tokens, certificates: certificates.into_iter().filter_map(by_target).collect() }
    }

    /// That of tokens.
    #[must_use]
    pub const fn tokens(&self) -> &Schedule {
        &self.tokens
    }

    /// Those of certificates, by target.
    #[must_use]
    pub const fn certificates(&self) -> &BTreeMap<TargetName, Schedule> {
        &self.certificates
    }

    /// That of `purpose`. A target that is no longer there has the one by which its keys leave.
    #[must_use]
    pub fn find(&self, purpose: &Purpose) -> Schedule {
        match purpose {
            Purpose::Tokens => self.tokens.clone(),
            Purpose::Certificates(target) => match self.certificates.get(target) {
                Some(schedule) => schedule.clone(),
                None => self.tokens.closing(purpose.clone()),
            },
        }
    }

    /// What is to be done with `records` at `now`, and by which schedule. Tokens come first.
    #[must_use]
    pub fn next_step(&self, records: &[KeyRecord], now: Instant) -> Option<(Schedule, Step)> {
        let configured = std::iter::once(&self.tokens).chain(self.certificates.values()).cloned();
        let left = records.iter().map(|record| self.find(&record.purpose));
        configured
            .chain(left)
            .find_map(|schedule| next_step(records, &schedule, now).map(|step| (schedule, step)))
    }
}

impl From<Schedule> for Schedules {
    fn from(tokens: Schedule) -> Self {
        Self::of(tokens, [])
    }
}
