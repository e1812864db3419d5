//! Tests of ledger.

#[cfg(test)]
pub(crate) mod log;

#[cfg(test)]
mod anchor;
#[cfg(test)]
mod restart;
#[cfg(test)]
mod verify;
#[cfg(test)]
mod writer;
