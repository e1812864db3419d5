//! Targets of kind `x509`: who gets a certificate, what stands in it, and who believes it.

mod bench;
mod handshake;
mod names;
mod postgres;
mod requests;
mod rotation;
