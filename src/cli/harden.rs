//! What a process that holds signing keys gives up at its start (threat K12).

use rustix::{
    fs::Mode,
    process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit, umask},
    thread::set_no_new_privs,
};

use super::Failure;

/// No core dumps, no other process of the same user that looks into our memory, no new privileges, and files that nobody else
/// can read. One key is thought to have left its owner through a crash dump (Storm-0558).
///
/// # Errors
/// The system refuses: then it is not a place for keys.
pub(super) fn harden() -> Result<(), Failure> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(refused("core dumps can't be forbidden"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(refused("the process stays dumpable"))?;
    set_no_new_privs(true).map_err(refused("new privileges can't be forbidden"))?;
    umask(Mode::RWXG | Mode::RWXO);
    Ok(())
}

/// What a process gives up that holds credentials and runs a command: no core dump of it, and no other process of the same user
/// looks into its memory or its environment. Only what `execve` gives back: the command begins as it would without us.
///
/// # Errors
/// The system refuses.
pub(super) fn hide() -> Result<(), Failure> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(refused("the process stays dumpable"))
}

fn refused(what: &'static str) -> impl Fn(rustix::io::Errno) -> Failure {
    move |error| Failure::refused(format!("{what}: {error}"))
}
