//! One battery for each seam, run against every implementation that needs no service.

mod chance;
mod clock;
mod commit;
mod key_journal;
mod key_protector;
mod key_source;
mod minter;
mod revoker;
mod signer;
