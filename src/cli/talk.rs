//! Where words go: data to stdout, talk to stderr, and nothing that a stranger chose reaches the terminal as a control.

use std::{
    borrow::Cow,
    fmt,
    io::{self, IsTerminal as _, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::Value;

use super::{Exit, aside::Aside};

type Stderr = Box<dyn Write + Send>;

/// The one place that writes to the terminal.
pub struct Talk {
    out: Box<dyn Write + Send>,
    err: Arc<Mutex<Stderr>>,
    json: bool,
    err_is_terminal: bool,
    failed: Option<io::Error>,
}

impl fmt::Debug for Talk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Talk").field("json", &self.json).finish_non_exhaustive()
    }
}

impl Talk {
    /// stdout and stderr of the process.
    #[must_use]
    pub fn of_the_process(json: bool) -> Self {
        let err_is_terminal = io::stderr().is_terminal();
        let err: Stderr = Box::new(io::stderr());
        Self {
            out: Box::new(io::stdout()),
            err: Arc::new(Mutex::new(err)),
            json,
            err_is_terminal,
            failed: None,
        }
    }

    /// From now on, a stderr that nobody reads holds nobody up.
    pub(super) fn never_blocked(&mut self) {
        let mut held = locked(&self.err);
        let err = std::mem::replace(&mut *held, Box::new(io::sink()));
        *held = Box::new(Aside::of(err));
    }

    /// Whether data is wanted as JSON.
    #[must_use]
    pub const fn json(&self) -> bool {
        self.json
    }

    /// Lines of data for people, on stdout.
    pub fn line(&mut self, text: impl fmt::Display) {
        let written = writeln!(self.out, "{}", no_order(&harmless(&text.to_string())));
        self.note(written);
    }

    /// Data for machines, on stdout: one JSON text on one line.
    pub fn value(&mut self, value: &Value) {
        let written = writeln!(self.out, "{}", harmless_json(&value.to_string()));
        self.note(written);
    }

    /// Bytes as they are, on stdout: for exports and credentials, which nobody may change.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let written = self.out.write_all(bytes);
        self.note(written);
    }

    /// Lines for people, on stderr.
    pub fn say(&mut self, text: impl fmt::Display) {
        say(&self.err, &text);
    }

    /// What says lines for people, too, and may be kept by whoever has to while others talk.
    pub(super) fn voice(&self) -> impl Fn(&str) + Send + Sync + use<> {
        let err = Arc::clone(&self.err);
        move |text| say(&err, &text)
    }

    /// How far long work is: overwrites its own line, and says nothing where stderr is no terminal.
    pub fn progress(&mut self, text: impl fmt::Display) {
        if self.err_is_terminal {
            let mut err = locked(&self.err);
            let _ = write!(err, "\r\u{1b}[K{}", harmless(&text.to_string()));
            let _ = err.flush();
        }
    }

    /// Ends the line of [`Talk::progress`].
    pub fn progress_ended(&mut self) {
        if self.err_is_terminal {
            let _ = write!(locked(&self.err), "\r\u{1b}[K");
        }
    }

    /// Flushes. Data that was lost (a full disk) is not `Done`; a reader that had enough (`| head`) is.
    #[must_use]
    pub fn finish(mut self, exit: Exit) -> Exit {
        let flushed = self.out.flush();
        self.note(flushed);
        match self.failed.take() {
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                self.say(format_args!("error: stdout: {error}"));
                if exit == Exit::Done { Exit::Unreachable } else { exit }
            }
            Some(_) | None => exit,
        }
    }

    fn note(&mut self, written: io::Result<()>) {
        if let Err(error) = written {
            self.failed.get_or_insert(error);
        }
    }
}

fn locked(err: &Mutex<Stderr>) -> MutexGuard<'_, Stderr> {
    err.lock().unwrap_or_else(PoisonError::into_inner)
}

fn say(err: &Mutex<Stderr>, text: &dyn fmt::Display) {
    // Nobody is left to be told that stderr is gone.
    let _ = writeln!(locked(err), "{}", no_order(&harmless(&text.to_string())));
}

/// `text` with every control character but the line feed, and every character that reorders or hides text, spelled out:
/// claims are chosen by strangers, and a terminal obeys (threat A01).
#[must_use]
pub(super) fn harmless(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, character| {
        if character != '\n' && is_harmful(character) {
            out.extend(character.escape_unicode());
        } else {
            out.push(character);
        }
        out
    })
}

/// `text` without a line that a runner takes for an order of ours: whatever got into a message with a line feed (threat A01). We
/// begin no line so ourselves.
fn no_order(text: &str) -> Cow<'_, str> {
    let is_order = |line: &str| {
        let line = line.trim_start();
        line.starts_with("::") || line.starts_with("##[") || line.starts_with("##vso[")
    };
    if !text.lines().any(is_order) {
        return Cow::Borrowed(text);
    }
    let lines = text.split('\n').map(|line| match line {
        order if is_order(order) => format!("| {order}"),
        line => line.to_owned(),
    });
    // GitHub looks for `##[` anywhere in a line.
    Cow::Owned(lines.collect::<Vec<_>>().join("\n").replace("##", "# #"))
}

/// The same for JSON, where such characters stand in strings only and have an escape of their own (RFC 8259 section 7).
fn harmless_json(text: &str) -> String {
    use fmt::Write as _;
    text.chars().fold(String::with_capacity(text.len()), |mut out, character| {
        if is_harmful(character) {
            let mut units = [0_u16; 2];
            for unit in character.encode_utf16(&mut units) {
                // Writing to a String can't fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(character);
        }
        out
    })
}

fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            // Zero width, line and paragraph separators, bidirectional controls, the byte order mark, tags.
            '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{2069}'
                | '\u{feff}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a01_a_claim_cannot_move_the_cursor_or_reorder_the_line() {
        assert_eq!(
            harmless("ref \u{1b}[2K\r\u{202e}niam\u{9b}31m\tx\ny"),
            "ref \\u{1b}[2K\\u{d}\\u{202e}niam\\u{9b}31m\\u{9}x\ny"
        );
        let value = serde_json::json!({ "ref": "\u{1b}\u{9b}\u{202e}\u{e0041}\n" });
        let text = harmless_json(&value.to_string());
        assert_eq!(text, r#"{"ref":"\u001b\u009b\u202e\udb40\udc41\n"}"#);
        assert_eq!(text.parse::<Value>().ok(), Some(value));
    }

    #[test]
    fn a01_no_line_is_an_order_to_the_runner_that_reads_it() {
        assert_eq!(no_order("a\n::stop-commands::x\n b::c"), "a\n| ::stop-commands::x\n b::c");
        assert_eq!(no_order(" ##[error]x"), "|  # #[error]x");
        assert!(matches!(no_order("arn:aws:iam::1\n# a\n## b"), Cow::Borrowed(_)));
    }

    /// A sink that is full after so many bytes.
    struct Full(io::ErrorKind);

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn ended(kind: io::ErrorKind) -> Exit {
        let err: Stderr = Box::new(io::sink());
        let (out, err) = (Box::new(Full(kind)), Arc::new(Mutex::new(err)));
        let mut talk = Talk { out, err, json: false, err_is_terminal: false, failed: None };
        talk.line("data");
        talk.finish(Exit::Done)
    }

    #[test]
    fn data_lost_on_a_full_disk_is_not_done_and_a_reader_that_had_enough_is() {
        assert_eq!(ended(io::ErrorKind::StorageFull), Exit::Unreachable);
        assert_eq!(ended(io::ErrorKind::BrokenPipe), Exit::Done);
    }
}
