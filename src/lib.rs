//! Cambio: bring the identity token you were born with, leave with exactly the short-lived credential that a policy
//! grants you, and a receipt that proves it.
//!
//! The modules in the order in which an exchange meets them. `ARCHITECTURE.md` walks through it.

pub mod chance;
pub mod clock;
pub mod id;
pub mod json;
pub mod owner;
pub mod secret;
pub mod web;

pub mod edge;
pub mod exchange;
pub mod grant;
pub mod holder;
pub mod lease;
pub mod ledger;
pub mod mint;
pub mod policy;
pub mod refusal;
pub mod subject;
pub mod target;

pub mod keys;
pub mod protector;
pub mod store;

pub mod app;
pub mod cli;
pub mod client;
pub mod config;
pub mod sandbox;
pub mod telemetry;
pub mod yaml;
