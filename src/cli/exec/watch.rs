//! Who looks after the command when `cambio exec` is killed outright (a runner's last resort, a machine without memory): nobody renews
//! what it holds then, and nobody would end it. So it is asked to end, as by any other end of ours.
//!
//! That takes a process that outlives ours. It waits for the end of a socket whose other end is ours alone, and then sends SIGTERM, once:
//! the kernel's own way (`PR_SET_PDEATHSIG`) sends it again for each thread of ours that dies, and programs take a second one as "at
//! once, without cleaning up". It is there before the command, and is given a descriptor of it: by its number, another process could be
//! meant.

use std::{
    io::{self, IoSlice, IoSliceMut, Read as _},
    mem::MaybeUninit,
    net::Shutdown,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{net::UnixStream, process::CommandExt as _},
    },
    process::{self, Command, Stdio},
    time::Duration,
};

use rustix::{
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
    thread::set_name,
};
use tokio::process::Child;

/// How it is called on the command line.
pub(in crate::cli) const VERB: &str = "exec-watch";

/// Room for one descriptor beside a message.
const ROOM: usize = rustix::cmsg_space!(ScmRights(1));

/// How long a watcher that hears of our end may take to ask the command: one that is stopped would have us wait for ever.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The watcher, and our end of the socket: it hears of our end by the end of this.
///
/// When this goes, the watcher is gone too. What of ours it was born with (a lock or a pipe that the shell opened at 3 and above; the
/// standard library closes none, and closing by number is `unsafe`) is held no longer than by us, and nobody else has to collect it: in
/// many a container the first process collects nobody.
#[derive(Debug)]
pub(super) struct Watcher {
    ours: UnixStream,
    process: process::Child,
}

impl Watcher {
    /// Starts one that has nobody to look after yet.
    ///
    /// # Errors
    /// There is no /proc to find this program in, or the system gives us no process.
    pub(super) fn start() -> io::Result<Self> {
        let (ours, its) = UnixStream::pair()?;
        // The link, and not where it leads: it is this program even where the file was replaced meanwhile.
        let process = Command::new("/proc/self/exe")
            .arg0("cambio")
            .arg(VERB)
            // It has nothing that is secret, and is in no way of a terminal's signals.
            .env_clear()
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(its)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { ours, process })
    }

    /// Gives it `command`, which nobody has waited for yet.
    ///
    /// # Errors
    /// The system has no descriptors of processes (Linux before 5.3), or the watcher is gone.
    pub(super) fn look_after(&self, command: &Child) -> io::Result<()> {
        let pid = command.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("the command has no process"))?;
        let process = pidfd_open(pid, PidfdFlags::empty())?;
        let (mut room, given) = ([MaybeUninit::uninit(); ROOM], [process.as_fd()]);
        let mut beside = SendAncillaryBuffer::new(&mut room);
        if !beside.push(SendAncillaryMessage::ScmRights(&given)) {
            return Err(io::Error::other("no room for a descriptor"));
        }
        sendmsg(&self.ours, &[IoSlice::new(&[0])], &mut beside, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // Where the command is left running, it is asked to end as if we were killed; then the watcher's end closes, and we read that.
        let _ = self.ours.shutdown(Shutdown::Write);
        if self.ours.set_read_timeout(Some(LAST_WORDS)).is_ok() {
            let _ = self.ours.read(&mut [0]);
        }
        // Mostly it is gone already, and there is nothing to kill; a process that is not waited for keeps its number, so no other is meant.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the watcher does: stdin is its end of the socket.
///
/// # Errors
/// Nobody was given, or could be asked: it ended by itself, mostly.
pub(in crate::cli) fn run() -> io::Result<()> {
    // Else it would be called `exe`, as the link that it was begun by. Only people see it.
    let _ = set_name(c"cambio");
    let (mut room, mut byte) = ([MaybeUninit::uninit(); ROOM], [0]);
    let mut beside = RecvAncillaryBuffer::new(&mut room);
    let mut stdin = io::stdin().lock();
    let flags = RecvFlags::CMSG_CLOEXEC;
    recvmsg(stdin.as_fd(), &mut [IoSliceMut::new(&mut byte)], &mut beside, flags)?;
    let given = beside.drain().find_map(|message| {
        let RecvAncillaryMessage::ScmRights(mut all) = message else { return None };
        all.next()
    });
    let command = given.ok_or(io::ErrorKind::NotFound)?;
    // Nothing more comes but the end, in whatever way; a signal is none.
    let goes_on = |read: io::Result<usize>| match read {
        Ok(count) => count > 0,
        Err(error) => error.kind() == io::ErrorKind::Interrupted,
    };
    while goes_on(stdin.read(&mut byte)) {}
    pidfd_send_signal(command, Signal::TERM)?;
    Ok(())
}
