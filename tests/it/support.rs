//! What the tests share: issuers that sign anything, builders with valid defaults, the real servers of ring 3.

pub(crate) mod api_server;
pub(crate) mod broker;
pub(crate) mod issuer;
pub(crate) mod lines;
pub(crate) mod server;
pub(crate) mod services;
pub(crate) mod serving;
pub(crate) mod site;
pub(crate) mod stand_in;
pub(crate) mod token;
pub(crate) mod workload_api;

/// Writes a file that only its owner may read: a key of a server is one.
#[track_caller]
pub(crate) fn write_private(path: &std::path::Path, text: impl AsRef<[u8]>) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
