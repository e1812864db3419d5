//! Our signing keys: the schedule, the ring at rest and in use, operators' powers, what is signed with them.

pub(crate) mod bench;

pub(crate) mod minting;
mod operations;
mod own;
mod ring;
mod rotation;
mod schedule;
