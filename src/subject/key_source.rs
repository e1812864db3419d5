//! Where issuers' keys come from: [`discovered`] over the network, [`pinned`] from a file. Both are leaves: only `app` names them.

pub(in crate::subject) mod bearer;
pub mod discovered;
pub mod fetch;
pub mod guard;
pub mod pinned;

pub use discovered::{Discovered, DiscoveredConfig, KnownKeys};
pub use fetch::Outbound;
pub use pinned::Pinned;
