//! What a test hears of the log.

use std::{
    io,
    sync::{Arc, Mutex},
};

use tracing::{
    Dispatch, Subscriber,
    subscriber::{DefaultGuard, NoSubscriber},
};

/// Where log lines go in a test.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// What was written so far.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }

    /// The same as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.bytes()).unwrap()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// As long as it lives, the thread's subscriber hears what happens in the thread.
#[derive(Debug)]
pub(crate) struct Listening {
    _guard: DefaultGuard,
    _second: Dispatch,
}

/// Listens with `subscriber` in this thread.
///
/// Whether a line is of interest to anybody is judged once, by whichever thread comes to it first. Where there is one subscriber in
/// the process, `tracing-core` asks that thread's own; another test's thread has none, and the line is silent for ever. With a
/// second one alive it asks all of them.
pub(crate) fn listen(subscriber: impl Subscriber + Send + Sync) -> Listening {
    let second = Dispatch::new(NoSubscriber::new());
    let first = Dispatch::new(subscriber);
    Listening { _guard: tracing::dispatcher::set_default(&first), _second: second }
}
