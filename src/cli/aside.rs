//! Words that hold nobody up: a thread of their own writes them. A pipe that is full, because nobody reads it any more, blocks whoever
//! writes to it, for ever; whoever has leases to end and signals to hand on must not be the one.

use std::{
    io::{self, Write},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    thread,
    time::Duration,
};

/// How long a line is waited for. Where stderr is read, it is there long before: then the order among us and others is as ever.
const PATIENCE: Duration = Duration::from_millis(500);
/// Lines that wait to be written. More are dropped: there is nobody to read them.
const LINES: usize = 64;

/// A writer that is never blocked for longer than a moment.
pub(super) struct Aside {
    lines: SyncSender<Vec<u8>>,
    written: Receiver<()>,
    line: Vec<u8>,
    /// Lines that were handed over and are not known to be written.
    open: usize,
    stuck: bool,
}

impl Aside {
    /// Writes to `to`, aside. Without a thread for that, nothing is written.
    pub(super) fn of(mut to: Box<dyn Write + Send>) -> Self {
        let (lines, inbox) = sync_channel::<Vec<u8>>(LINES);
        let (done, written) = sync_channel(LINES.saturating_mul(2));
        let _ = thread::Builder::new().name("stderr".to_owned()).spawn(move || {
            for line in inbox {
                // Nobody is left to be told that stderr is gone.
                let _ = to.write_all(&line).and_then(|()| to.flush());
                if done.send(()).is_err() {
                    break;
                }
            }
        });
        Self { lines, written, line: Vec::new(), open: 0, stuck: false }
    }

    fn pass_on(&mut self) {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            return;
        }
        match self.lines.try_send(line) {
            Ok(()) => self.open = self.open.saturating_add(1),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
        while self.written.try_recv().is_ok() {
            self.open = self.open.saturating_sub(1);
            self.stuck = false;
        }
        while self.open > 0 && !self.stuck {
            match self.written.recv_timeout(PATIENCE) {
                Ok(()) => self.open = self.open.saturating_sub(1),
                // Once: whoever does not read now is not waited for at each line.
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    self.stuck = true;
                }
            }
        }
    }
}

impl Write for Aside {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        if bytes.ends_with(b"\n") {
            self.pass_on();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pass_on();
        Ok(())
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        self.pass_on();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc, Mutex,
        mpsc::{Sender, channel},
    };

    use super::*;

    /// Tells each line, and is full after the first where it is `full`.
    struct Pipe {
        told: Sender<Vec<u8>>,
        full: Option<Arc<Mutex<()>>>,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _room = self.full.as_ref().map(|full| full.lock().unwrap());
            let _ = self.told.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn words_are_there_when_they_are_said_where_somebody_reads_them() {
        let (told, said) = channel();
        let mut aside = Aside::of(Box::new(Pipe { told, full: None }));
        for word in ["one", "two"] {
            writeln!(aside, "{word}").unwrap();
            assert_eq!(said.try_recv().unwrap(), format!("{word}\n").into_bytes());
        }
    }

    #[test]
    fn a_pipe_that_nobody_reads_holds_nobody_up() {
        let (told, said) = channel();
        let full = Arc::new(Mutex::new(()));
        let blocked = full.lock().unwrap();
        let mut aside = Aside::of(Box::new(Pipe { told, full: Some(Arc::clone(&full)) }));
        // If it waited, this test would never end; and nothing grows without a bound.
        for turn in 0..500 {
            writeln!(aside, "{turn}").unwrap();
        }
        assert!(said.try_recv().is_err());
        drop(blocked);
        assert_eq!(said.recv().unwrap(), b"0\n");
        drop(aside);
        assert!(said.iter().count() <= LINES + 1);
    }
}
