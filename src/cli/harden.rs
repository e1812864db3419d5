//! What a process that holds signing keys gives up at its start (threat K12), and what it says of it.

use std::{fmt, fs, path::Path};

use rustix::{
    fs::Mode,
    mm::{MlockAllFlags, mlockall},
    process::{
        DumpableBehavior, Resource, Rlimit, dumpable_behavior, geteuid, getrlimit,
        set_dumpable_behavior, setrlimit, umask,
    },
    thread::set_no_new_privs,
};
use tracing::{info, warn};

use super::Failure;
use crate::owner;

/// No core dumps, no other process of the same user that looks into our memory, no new privileges, files that nobody else can
/// read, and, where the machine lets us, no page of ours on a swap disk. One key is thought to have left its owner through a
/// crash dump (Storm-0558).
///
/// Privileges are given up thread by thread, and a new thread has those of the one that began it: so this comes before there is a
/// second one. Locking the memory alone may fail, because many machines do not swap at all.
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
    // Only without a limit: under one, a page more than it allows would be memory that can't be had. As pages are touched, so
    // that reserved memory (stacks, arenas) costs nothing.
    let all = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    if getrlimit(Resource::Memlock).current.is_none() {
        // What came of it is asked of the system, and told.
        let _ = mlockall(all);
    }
    Ok(())
}

/// Whether `config` may be believed: it names commands that are run, and who is trusted.
///
/// # Errors
/// Others than its owner may write to it, it is a stranger's, or it can't be examined.
pub(super) fn ours_to_serve(config: &Path) -> Result<(), Failure> {
    let name = config.display();
    let about = fs::metadata(config)
        .map_err(|error| Failure::usage(format!("`{name}` can't be examined: {error}")))?;
    owner::believable(config, &about)
        .map_err(|not| Failure::usage(format!("`{name}` {not}")).hint(not.remedy()))
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

/// What holds, of every thread: asked of the system rather than remembered.
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
    fn now() -> Self {
        let threads = statuses();
        let all = |name, wanted: &str| {
            !threads.is_empty() && threads.iter().all(|thread| field(thread, name) == Some(wanted))
        };
        let nothing = "0000000000000000";
        Self {
            core_dumps: getrlimit(Resource::Core).current != Some(0),
            dumpable: dumpable_behavior() != Ok(DumpableBehavior::NotDumpable),
            new_privileges: !all("NoNewPrivs", "1"),
            memory_locked: threads
                .iter()
                .any(|thread| field(thread, "VmLck").is_some_and(|locked| locked != "0 kB")),
            system_calls_filtered: all("Seccomp", "2"),
            capabilities: !(all("CapPrm", nothing) && all("CapEff", nothing)),
            root: geteuid().is_root(),
        }
    }
}

/// `status` of proc(5), of each thread. None where that can't be read: then nothing is told to hold.
fn statuses() -> Vec<String> {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    // A thread that ended meanwhile is not there any more.
    threads.filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok()).collect()
}

/// The value of `name`.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.map(str::trim)
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
pub(super) fn tell() {
    let held = Held::now();
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
    use super::*;

    #[test]
    fn a_field_of_a_status_is_found_by_its_whole_name() {
        let status = "Name:\tNoNewPrivs\nSeccomp:\t2\nSeccomp_filters:\t1\nVmLck:\t       0 kB\nNoNewPrivs:\t1\n";
        assert_eq!(field(status, "NoNewPrivs"), Some("1"));
        assert_eq!(field(status, "Seccomp"), Some("2"));
        assert_eq!(field(status, "VmLck"), Some("0 kB"));
        assert_eq!(field(status, "CapEff"), None);
        assert!(!statuses().is_empty(), "this process has threads");
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
