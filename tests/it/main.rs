//! Ring 1: one binary, no network but loopback; what needs a server is ring 3. `tests/README.md` tells of the other rings.
//!
//! `#[cfg(test)]` on each module is for clippy: it lets helpers, not only test functions, unwrap.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::disallowed_methods,
    clippy::format_collect,
    clippy::needless_pass_by_value,
    clippy::string_slice,
    clippy::too_many_lines,
    clippy::wildcard_enum_match_arm,
    reason = "a helper of a test may panic like the test, and says what it pins at length"
)]

#[cfg(test)]
mod support;

#[cfg(test)]
mod architecture;
#[cfg(test)]
mod aws;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod client;
#[cfg(test)]
mod clouds;
#[cfg(test)]
mod configuration;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod databases;
#[cfg(test)]
mod docs;
#[cfg(test)]
mod edge;
#[cfg(test)]
mod exchange;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod leases;
#[cfg(test)]
mod ledger;
#[cfg(test)]
mod platforms;
#[cfg(test)]
mod policy;
#[cfg(test)]
mod sources;
#[cfg(test)]
mod verification;
#[cfg(test)]
mod x509;
