//! What the tests share: issuers that sign anything, builders with valid defaults, the real servers of ring 3.

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
};

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

/// The binary, with nothing in its environment but `variables`.
pub(crate) fn cambio(arguments: &[&str], variables: &[(&str, &str)], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_cambio"))
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Who does not read stdin has closed it by now, perhaps.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}
