//! Logins at real servers (ring 3): the duties of `Logins` on each of them, and what only one of them has.

pub(crate) mod battery;
mod mysql;
mod postgres;
mod redis;
mod whole;
mod wire;
