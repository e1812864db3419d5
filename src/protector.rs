//! The key-encryption key: closes and opens what must rest encrypted.

use std::fmt;

use async_trait::async_trait;
use thiserror::Error;

use crate::secret::Secret;

pub mod file;
mod jwe;

/// What a sealed thing belongs to; bound into its protected header, so that it opens nowhere else (threats K01, K02).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyContext {
    /// Which ring: the ledger's origin and `signing` or `log`.
    pub ring: String,
    /// The ring's epoch.
    pub epoch: u64,
    /// The environment of the instance.
    pub environment: String,
}

/// Why a sealed thing did not open, or could not be sealed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ProtectError {
    /// Another KEK, another context, or a changed byte.
    #[error("the key ring does not open: {0}")]
    DoesNotOpen(String),
    /// The KEK can't be had.
    #[error("the key-encryption key can't be had: {0}")]
    NoKek(String),
    /// It could not be sealed.
    #[error("the key ring can't be sealed: {0}")]
    DoesNotClose(String),
}

/// The epoch that `sealed` says it belongs to. Nothing of it is verified before it is opened: for words, and to refuse.
///
/// # Errors
/// It has not the shape of a sealed ring.
pub fn unverified_epoch(sealed: &str) -> Result<u64, ProtectError> {
    let header = jwe::header_of(sealed)?;
    jwe::epoch_in(&header).ok_or_else(|| jwe::not_opened("it names no epoch"))
}

/// Closes and opens with a key-encryption key. The sealed form is a compact JWE of an encrypted JWK Set (RFC 7517 section 7).
///
/// Duties, held by `tests/it/conformance/key_protector.rs`:
///
/// 1. what was wrapped in one context opens in that context and in no other;
/// 2. a changed byte is [`ProtectError::DoesNotOpen`], never a different key;
/// 3. wrapping the same thing twice gives different bytes.
#[async_trait]
pub trait KeyProtector: fmt::Debug + Send + Sync {
    /// Closes `plain` for use as `context`.
    ///
    /// # Errors
    /// The KEK can't be had, or the library refused.
    async fn wrap(&self, plain: &Secret, context: &KeyContext) -> Result<String, ProtectError>;

    /// Opens `sealed`.
    ///
    /// # Errors
    /// It was closed for something else, by another KEK, or was changed.
    async fn unwrap(&self, sealed: &str, context: &KeyContext) -> Result<Secret, ProtectError>;
}
