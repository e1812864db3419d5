//! A child process in our place: it has our terminal, our streams and our process group, gets the signals that were meant for it,
//! and its end is ours.

use std::{fs, io, os::unix::process::ExitStatusExt as _, process::ExitStatus};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::Child,
    signal::unix::{self, SignalKind},
    sync::mpsc,
};
use tokio_util::task::TaskTracker;

/// What is handed on: the name, the signal, whether a terminal sends it to the whole foreground group, and whether it asks to end.
const FORWARDED: [(&str, Signal, bool, bool); 7] = [
    ("SIGTERM", Signal::TERM, false, true),
    ("SIGINT", Signal::INT, true, true),
    ("SIGQUIT", Signal::QUIT, true, true),
    ("SIGHUP", Signal::HUP, false, true),
    ("SIGUSR1", Signal::USR1, false, false),
    ("SIGUSR2", Signal::USR2, false, false),
    ("SIGWINCH", Signal::WINCH, true, false),
];

/// A signal that came to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Came {
    /// Its name.
    pub name: &'static str,
    signal: Signal,
    by_terminal: bool,
    /// Whether it asks to end.
    pub ends: bool,
}

impl Came {
    /// The exit code of who ends by it, as shells have it.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        u8::try_from(self.signal.as_raw()).unwrap_or(0).saturating_add(128)
    }

    /// Hands it on to the child with this id, which must not be reaped yet.
    ///
    /// A terminal sends Ctrl-C to every process of its foreground group: the child has it already, and many programs take a
    /// second one as "at once, without cleaning up". So those are not handed on while we are in the foreground of a terminal.
    pub fn hand_on(self, child: u32) {
        if self.by_terminal && in_foreground() {
            return;
        }
        let pid = i32::try_from(child).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // Gone meanwhile: there is nobody to tell.
            let _ = kill_process(pid, self.signal);
        }
    }
}

/// The signals that came, in order. One that was ignored when we began stays ignored, for the child too: `nohup` means it.
#[derive(Debug)]
pub struct Signals(mpsc::UnboundedReceiver<Came>);

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// The system refuses.
    pub fn listen(tracker: &TaskTracker) -> io::Result<Self> {
        let ignored = ignored();
        let (sender, receiver) = mpsc::unbounded_channel();
        for (name, signal, by_terminal, ends) in FORWARDED {
            if is_in(ignored, signal) {
                continue;
            }
            let mut stream = unix::signal(SignalKind::from_raw(signal.as_raw()))?;
            let sender = sender.clone();
            tracker.spawn(async move {
                while stream.recv().await.is_some() {
                    if sender.send(Came { name, signal, by_terminal, ends }).is_err() {
                        break;
                    }
                }
            });
        }
        Ok(Self(receiver))
    }

    /// The next one.
    pub async fn next(&mut self) -> Came {
        match self.0.recv().await {
            Some(came) => came,
            // All of them are ignored.
            None => std::future::pending().await,
        }
    }

    /// The next one that asks to end.
    pub async fn end(&mut self) -> Came {
        loop {
            let came = self.next().await;
            if came.ends {
                return came;
            }
        }
    }
}

/// `SigIgn` of proc(5): a bit for each signal, from 1. Without proc: none.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

fn is_in(mask: u64, signal: Signal) -> bool {
    let bit = u32::try_from(signal.as_raw()).unwrap_or(0).saturating_sub(1);
    mask.checked_shr(bit).is_some_and(|rest| rest & 1 == 1)
}

/// Whether our group is the one that a terminal sends Ctrl-C to: fields `pgrp` and `tpgid` of proc(5).
fn in_foreground() -> bool {
    fs::read_to_string("/proc/self/stat").is_ok_and(|stat| is_foreground(&stat))
}

fn is_foreground(stat: &str) -> bool {
    // The name, in brackets, may hold anything, brackets and blanks too.
    let Some((_, rest)) = stat.rsplit_once(')') else { return false };
    let mut fields = rest.split_ascii_whitespace();
    let group = fields.nth(2);
    group.is_some() && group == fields.nth(2)
}

/// Waits for `child`, and hands on every signal that comes.
///
/// # Errors
/// The system does not tell how it ended.
pub async fn wait(child: &mut Child, signals: &mut Signals) -> io::Result<ExitStatus> {
    loop {
        let came = tokio::select! {
            status = child.wait() => return status,
            came = signals.next() => came,
        };
        // `None` once it is reaped: its id may be another process's by then.
        if let Some(id) = child.id() {
            came.hand_on(id);
        }
    }
}

/// Its exit code; 128 and the number for one that a signal ended, as shells have it.
#[must_use]
pub fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| signal.saturating_add(128)));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// The exit code for a command that can't be started, as shells have it.
#[must_use]
pub fn not_started(error: &io::Error) -> u8 {
    if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_in_the_foreground_when_its_terminal_says_so() {
        let stat = |group, terminal, foreground| {
            format!("17 (a) b (c)) S 1 {group} 9 {terminal} {foreground} 4194560 1 2")
        };
        assert!(is_foreground(&stat(17, 34_816, 17)));
        assert!(!is_foreground(&stat(17, 34_816, 21)));
        // No terminal.
        assert!(!is_foreground(&stat(17, 0, -1)));
        assert!(!is_foreground(""));
    }

    #[test]
    fn a_mask_has_a_bit_for_each_signal() {
        // What `nohup` leaves.
        assert!(is_in(1, Signal::HUP) && !is_in(1, Signal::INT));
        assert!(is_in(0x4000, Signal::TERM));
    }

    #[test]
    fn an_end_is_told_as_shells_tell_it() {
        let of = |raw| exit_code(ExitStatus::from_raw(raw));
        assert_eq!([of(0), of(7 << 8), of(9), of(15)], [0, 7, 137, 143]);
        let error = |kind| not_started(&io::Error::from(kind));
        assert_eq!(error(io::ErrorKind::NotFound), 127);
        assert_eq!(error(io::ErrorKind::PermissionDenied), 126);
    }
}
