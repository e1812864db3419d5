//! Issuers' keys and what their claims mean: threats D01 to D18, J02, J03, J14 to J17, C03, C05, C07 to C18.

mod discovered;
mod fetch;
mod key_sets;
mod presets;
mod vectors;
