//! Google, Azure and GitHub against stand-ins that verify what we sign and refuse as they do.

mod azure;
pub(crate) mod bench;
mod github;
mod google;
mod outages;
mod settings;
pub(crate) mod stand_in;
