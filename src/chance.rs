//! The one source of randomness. Everything that needs chance takes a [`Chance`].

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use aws_lc_rs::{digest, rand};
use thiserror::Error;

/// The system could not give random bytes. Nothing may be issued without them.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the system's random number generator failed")]
pub struct ChanceError;

/// Gives unpredictable bytes.
///
/// Duties, held by `tests/it/conformance/chance.rs`:
///
/// 1. every byte of the buffer is filled, or an error is returned;
/// 2. two calls never give the same 16 bytes.
pub trait Chance: fmt::Debug + Send + Sync {
    /// Fills `buffer`.
    ///
    /// # Errors
    /// The system has no randomness to give.
    fn fill(&self, buffer: &mut [u8]) -> Result<(), ChanceError>;
}

/// The operating system's generator, by way of aws-lc.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemChance;

impl Chance for SystemChance {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the system for chance")]
    fn fill(&self, buffer: &mut [u8]) -> Result<(), ChanceError> {
        rand::fill(buffer).map_err(|_| ChanceError)
    }
}

/// A reproducible sequence for tests: SHA-256 of a seed and a counter. Never for production.
#[derive(Debug)]
pub struct SeededChance {
    seed: u64,
    counter: AtomicU64,
}

impl SeededChance {
    /// The sequence of `seed`.
    #[must_use]
    pub const fn of(seed: u64) -> Self {
        Self { seed, counter: AtomicU64::new(0) }
    }
}

impl Chance for SeededChance {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), ChanceError> {
        for chunk in buffer.chunks_mut(32) {
            let count = self.counter.fetch_add(1, Ordering::SeqCst);
            let mut input = self.seed.to_be_bytes().to_vec();
            input.extend_from_slice(&count.to_be_bytes());
            let block = digest::digest(&digest::SHA256, &input);
            for (to, from) in chunk.iter_mut().zip(block.as_ref()) {
                *to = *from;
            }
        }
        Ok(())
    }
}
