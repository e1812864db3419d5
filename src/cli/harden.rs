//! What a process that holds signing keys gives up at its start (threat K12), and what it says of it.

use std::{fmt, path::Path};

use rustix::{
    fs::Mode,
    mm::{MlockAllFlags, mlockall},
    process::{
        DumpableBehavior, Resource, Rlimit, dumpable_behavior, geteuid, getrlimit,
        set_dumpable_behavior, setrlimit, umask,
    },
    thread::{
        CapabilitySet, SecureComputingMode, capabilities, no_new_privs, secure_computing_mode,
        set_no_new_privs,
    },
};
use tracing::{info, warn};

use super::Failure;
use crate::owner;

/// No core dumps, no other process of the same user that looks into our memory, no new privileges, files that nobody else can
/// read, and, where the machine lets us, no page of ours on a swap disk. One key is thought to have left its owner through a
/// crash dump (Storm-0558).
///
/// Says whether the memory is locked: that alone may fail, because many machines do not swap at all.
///
/// # Errors
/// The system refuses: then it is not a place for keys.
pub(super) fn harden() -> Result<bool, Failure> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(refused("core dumps can't be forbidden"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(refused("the process stays dumpable"))?;
    set_no_new_privs(true).map_err(refused("new privileges can't be forbidden"))?;
    umask(Mode::RWXG | Mode::RWXO);
    // Only without a limit: under one, a page more than it allows would be memory that can't be had. As pages are touched, so
    // that reserved memory (stacks, arenas) costs nothing.
    let all = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    Ok(getrlimit(Resource::Memlock).current.is_none() && mlockall(all).is_ok())
}

/// Others than its owner may write to the configuration: then they say who gets what. `config check` only warns of the group,
/// because a checkout may be so.
///
/// # Errors
/// They may, or it can't be told.
pub(super) fn ours_to_serve(config: &Path) -> Result<(), Failure> {
    let name = config.display();
    let shared = owner::others_may_write(config)
        .map_err(|error| Failure::usage(format!("`{name}` can't be examined: {error}")))?;
    if shared {
        return Err(Failure::usage(format!(
            "others than its owner may write to `{name}`: chmod go-w {name}"
        )));
    }
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

/// What holds: asked of the system rather than remembered, but for the lock.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, told as one line")]
struct Held {
    core_dumps: bool,
    dumpable: bool,
    new_privileges: bool,
    memory_locked: bool,
    system_calls_filtered: bool,
    capabilities: bool,
    root: bool,
}

impl Held {
    fn now(memory_locked: bool) -> Self {
        let may = capabilities(None).map(|held| held.effective | held.permitted);
        Self {
            core_dumps: getrlimit(Resource::Core).current != Some(0),
            dumpable: dumpable_behavior() != Ok(DumpableBehavior::NotDumpable),
            new_privileges: !no_new_privs().unwrap_or(false),
            memory_locked,
            system_calls_filtered: secure_computing_mode()
                .is_ok_and(|found| found == SecureComputingMode::Filter),
            capabilities: may.map_or(true, |may| may != CapabilitySet::empty()),
            root: geteuid().is_root(),
        }
    }
}

/// `no core dumps, not dumpable, …`; what does not hold says so.
impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = [
            if self.core_dumps { "CORE DUMPS" } else { "no core dumps" },
            if self.dumpable { "DUMPABLE" } else { "not dumpable" },
            if self.new_privileges { "NEW PRIVILEGES" } else { "no new privileges" },
            "umask 0077",
            if self.memory_locked {
                "memory never swapped"
            } else {
                "memory may be swapped (`ulimit -l unlimited` forbids it)"
            },
            if self.system_calls_filtered {
                "system calls filtered"
            } else {
                "system calls not filtered"
            },
            if self.capabilities { "with capabilities" } else { "no capabilities" },
        ];
        f.write_str(&said.join(", "))
    }
}

/// One line that says what holds, and a loud one if we are root.
pub(super) fn tell(memory_locked: bool) {
    let held = Held::now(memory_locked);
    info!(process.root = held.root, "this process: {held}");
    if held.root {
        warn!(
            "runs as root: whoever takes this process over has the machine. Run it as a user of its own, as \
             deploy/systemd/cambio.service and the container image do"
        );
    }
}

fn refused(what: &'static str) -> impl Fn(rustix::io::Errno) -> Failure {
    move |error| Failure::refused(format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn k12_a_configuration_that_others_may_write_to_is_not_served() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cambio.yaml");
        fs::write(&file, "version: 1").unwrap();
        let served = |mode| {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            ours_to_serve(&file).is_ok()
        };
        assert_eq!([0o600, 0o644, 0o444, 0o640].map(served), [true; 4]);
        assert_eq!([0o660, 0o664, 0o646, 0o666, 0o620].map(served), [false; 5]);
        fs::remove_file(&file).unwrap();
        assert!(ours_to_serve(&file).is_err());
    }

    #[test]
    fn what_does_not_hold_is_loud() {
        let all = Held {
            core_dumps: false,
            dumpable: false,
            new_privileges: false,
            memory_locked: true,
            system_calls_filtered: true,
            capabilities: false,
            root: false,
        };
        assert_eq!(
            all.to_string(),
            "no core dumps, not dumpable, no new privileges, umask 0077, memory never swapped, system calls filtered, \
             no capabilities"
        );
        let none = Held {
            core_dumps: true,
            dumpable: true,
            new_privileges: true,
            memory_locked: false,
            system_calls_filtered: false,
            capabilities: true,
            root: true,
        };
        assert_eq!(
            none.to_string(),
            "CORE DUMPS, DUMPABLE, NEW PRIVILEGES, umask 0077, memory may be swapped (`ulimit -l unlimited` forbids it), \
             system calls not filtered, with capabilities"
        );
    }
}
