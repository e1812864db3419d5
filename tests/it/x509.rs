//! Targets of kind `x509`: who gets a certificate, what stands in it, and who believes it.

mod bench;
mod configuration;
mod handshake;
mod names;
mod postgres;
mod requests;
mod ring;
mod rotation;
