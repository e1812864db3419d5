//! `log`: how much we tell on stderr, and in which form.

use url::{Host, Url};

use super::reader::{self, Reader};
use crate::yaml::{Field, Fields, Node, Shape};

/// The log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// In which form.
    pub format: LogFormat,
    /// How much.
    pub level: LogLevel,
    /// Where a span for each exchange goes, by OTLP over HTTP: https, or http to a loopback address. Takes feature `otel`.
    pub otlp: Option<Url>,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Json, level: LogLevel::Info, otlp: None }
    }
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// The least severe level that is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Somebody must act.
    Error,
    /// Somebody should look.
    Warn,
    /// What happened.
    Info,
    /// How it happened.
    Debug,
}

impl LogLevel {
    /// The word of the configuration, and of `tracing`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

const FORMAT: Field = Field::optional(
    "format",
    "The form of a line. Default: `json`",
    Shape::Choice(&[("json", "one object a line"), ("text", "for people")]),
);
const LEVEL: Field = Field::optional(
    "level",
    "The least severe level that is told. Default: `info`",
    Shape::Choice(&[
        ("error", "somebody must act"),
        ("warn", "somebody should look"),
        ("info", "what happened"),
        ("debug", "how it happened"),
    ]),
);

/// For those who have no spans to send.
pub(super) static LINES: Fields = Fields { what: "the log", fields: &[FORMAT, LEVEL] };

pub(super) static LOG: Fields = Fields {
    what: "the log",
    fields: &[
        FORMAT,
        LEVEL,
        Field::optional(
            "otlp",
            "Where a span for each exchange goes, by OTLP over HTTP, such as `http://127.0.0.1:4318/v1/traces`. Takes feature `otel`",
            Shape::Text,
        ),
    ],
};

pub(super) fn read(reader: &mut Reader<'_>) -> LogConfig {
    let word = |key| reader.section("log").and_then(|map| map.find(key)).and_then(Node::text);
    let format = if word("format") == Some("text") { LogFormat::Text } else { LogFormat::Json };
    let level = match word("level") {
        Some("error") => LogLevel::Error,
        Some("warn") => LogLevel::Warn,
        Some("debug") => LogLevel::Debug,
        _ => LogLevel::Info,
    };
    LogConfig { format, level, otlp: otlp(reader) }
}

/// The collector's URL. Its text is not repeated: it might hold a password.
fn otlp(reader: &mut Reader<'_>) -> Option<Url> {
    let (found, at) = reader::text(reader.section("log")?, "otlp")?;
    if !cfg!(feature = "otel") {
        let message = "`otlp` takes feature `otel`, which this build does not have";
        reader.refuse(at.place, message, "build with `cargo build --release --features otel`");
        return None;
    }
    let url = Url::parse(found).ok().filter(is_collector);
    if url.is_none() {
        let message = "`otlp` is no URL of a collector, expected https, or http to a loopback address, without user, query and fragment";
        reader.refuse(at.place, message, "such as `http://127.0.0.1:4318/v1/traces`");
    }
    url
}

/// Spans tell who does what, and from where: they are not for the wire in the clear.
fn is_collector(url: &Url) -> bool {
    let loopback = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(_)) | None => false,
    };
    let bare = url.username().is_empty() && url.password().is_none();
    let plain = url.query().is_none() && url.fragment().is_none();
    bare && plain && (url.scheme() == "https" || (url.scheme() == "http" && loopback))
}
