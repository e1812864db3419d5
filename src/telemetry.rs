//! Logs, metrics, traces: what they are called, in one place. Logs tell, the ledger proves.

use std::{fmt, io, net::IpAddr, sync::Arc, time::Duration};

use thiserror::Error;
use tracing::info;
use tracing_subscriber::{
    EnvFilter, Layer, Registry, fmt::MakeWriter, layer::SubscriberExt as _, registry,
};
use url::Url;

pub mod metrics;
#[cfg(feature = "otel")]
pub mod otel;

pub use metrics::Metrics;

use crate::clock::Clock;

/// How log lines look. They go to stderr: stdout is data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON object a line, for machines.
    #[default]
    Json,
    /// For people at a terminal.
    People,
}

/// Logging could not be set up.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The filter is none.
    #[error("log filter `{found}`: {reason}")]
    Filter {
        /// What was configured.
        found: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Somebody was faster.
    #[error("logging is already set up")]
    AlreadySetUp,
    /// Traces can't be sent.
    #[error("traces: {0}")]
    Traces(String),
}

/// Where traces go.
#[derive(Clone, Debug)]
pub struct Collector {
    /// Takes OTLP over HTTP, protobuf: the whole URL, mostly with the path `/v1/traces`.
    pub url: Url,
    /// What an exchange's end is read from.
    pub clock: Arc<dyn Clock>,
}

/// What is on its way to the collector; nothing, where there is none.
#[derive(Debug, Default)]
pub struct Traces {
    #[cfg(feature = "otel")]
    sending: Option<otel::Sending>,
}

impl Traces {
    /// Sends what is not sent yet, for at most some seconds: a collector that hangs must not hold up the end.
    #[cfg_attr(
        not(feature = "otel"),
        expect(clippy::unused_async, reason = "there is nothing to send")
    )]
    pub async fn flush(self) {
        #[cfg(feature = "otel")]
        if let Some(sending) = self.sending {
            sending.flush().await;
        }
    }
}

/// Sends everything that `filter` (`info`, `info,cambio::policy=debug`) lets through to stderr; and every exchange, whatever
/// `filter` says, to `collector`. With a collector it wants a runtime of tokio around it.
///
/// # Errors
/// The filter is none, logging is set up already, or this build sends no traces and there is a collector.
pub fn start(
    format: Format,
    filter: &str,
    collector: Option<Collector>,
) -> Result<Traces, TelemetryError> {
    let Some(collector) = collector else {
        set_up(subscriber(format, filter, io::stderr)?)?;
        return Ok(Traces::default());
    };
    #[cfg(feature = "otel")]
    {
        let (spans, sending) = otel::open(collector)?;
        let lines = lines(format, io::stderr).with_filter(parse(filter)?);
        set_up(registry().with(lines).with(spans.with_filter(otel::exchanges())))?;
        Ok(Traces { sending: Some(sending) })
    }
    #[cfg(not(feature = "otel"))]
    Err(TelemetryError::Traces(format!("`{}` takes feature `otel`", collector.url)))
}

/// The subscriber behind [`start`] without a collector, writing to `writer`.
///
/// # Errors
/// The filter is none.
pub fn subscriber<W>(
    format: Format,
    filter: &str,
    writer: W,
) -> Result<impl tracing::Subscriber + Send + Sync, TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    Ok(registry().with(lines(format, writer)).with(parse(filter)?))
}

fn set_up(subscriber: impl tracing::Subscriber + Send + Sync) -> Result<(), TelemetryError> {
    tracing::subscriber::set_global_default(subscriber).map_err(|_| TelemetryError::AlreadySetUp)
}

fn parse(filter: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::try_new(filter).map_err(|error| TelemetryError::Filter {
        found: filter.to_owned(),
        reason: error.to_string(),
    })
}

fn lines<W>(format: Format, writer: W) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(writer);
    match format {
        Format::Json => layer.json().flatten_event(true).with_current_span(false).boxed(),
        Format::People => layer.with_target(false).compact().boxed(),
    }
}

/// Text that a stranger may have chosen, fit for a log line: controls, line separators and bidi marks are escaped, and
/// the end is cut off after 500 characters (threat A01).
pub struct Plain<'a, T: ?Sized>(pub &'a T);

impl<T: fmt::Display + ?Sized> fmt::Display for Plain<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (count, c) in self.0.to_string().chars().enumerate() {
            if count == 500 {
                return f.write_str("…");
            }
            let hidden = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
            if c.is_control() || hidden {
                write!(f, "{}", c.escape_unicode())?;
            } else {
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}

impl<T: ?Sized> fmt::Debug for Plain<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Plain(…)")
    }
}

/// What every line about an exchange tells.
#[derive(Clone, Copy)]
pub struct Ended<'a> {
    /// Which exchange.
    pub id: &'a dyn fmt::Display,
    /// [`crate::edge::answer::Front::label`].
    pub front: &'static str,
    /// The caller's address, where it is known.
    pub source: Option<IpAddr>,
    /// From the first byte of the request to the answer.
    pub took: Duration,
}

impl fmt::Debug for Ended<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ended({})", self.id)
    }
}

/// One line for an exchange that was granted. Which rule and which target: see the line of the exchange itself, and the
/// ledger under the same id.
pub fn log_granted(ended: &Ended<'_>, index: u64, lifetime: Duration) {
    info!(
        exchange.id = %ended.id,
        exchange.front = ended.front,
        exchange.outcome = "granted",
        exchange.source = %Source(ended.source),
        exchange.microseconds = microseconds(ended.took),
        ledger.index = index,
        credential.lifetime_seconds = lifetime.as_secs(),
        "granted exchange `{}`", ended.id,
    );
}

/// One line for an exchange that was refused, with the cause that the caller did not see. Never a token: no refusal
/// holds one.
pub fn log_refused(ended: &Ended<'_>, reason: &'static str, cause: &dyn fmt::Display, status: u16) {
    info!(
        exchange.id = %ended.id,
        exchange.front = ended.front,
        exchange.outcome = "refused",
        exchange.reason = reason,
        exchange.source = %Source(ended.source),
        exchange.microseconds = microseconds(ended.took),
        http.status = status,
        "refused exchange `{}`: {}", ended.id, Plain(cause),
    );
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

struct Source(Option<IpAddr>);

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => write!(f, "{address}"),
            None => f.write_str("unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn a01_what_a_stranger_chose_stays_on_its_line() {
        let hostile = "a\nb\u{1b}[31mred\u{2028}\u{202e}c";
        assert_eq!(Plain(hostile).to_string(), "a\\u{a}b\\u{1b}[31mred\\u{2028}\\u{202e}c");
        assert_eq!(Plain("x".repeat(501).as_str()).to_string().chars().count(), 501);
    }

    #[test]
    fn a_wrong_filter_is_said() {
        let error = subscriber(Format::Json, "cambio=loud", io::sink).err().map(|e| e.to_string());
        let said = error.unwrap_or_default();
        assert!(said.starts_with("log filter `cambio=loud`: "), "{said}");
    }

    /// Keeps what is written.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_line_of_a_refused_exchange_is_pinned() {
        let page = Page::default();
        let writer = page.clone();
        let lines = subscriber(Format::Json, "info", move || writer.clone()).unwrap();
        let ended = Ended {
            id: &"ex_1",
            front: "token_exchange",
            source: Some(IpAddr::from([203, 0, 113, 9])),
            took: Duration::from_micros(1_234),
        };
        tracing::subscriber::with_default(lines, || {
            log_refused(&ended, "unknown_issuer", &"issuer `a\nb` is not configured", 400);
        });
        let line = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        let mut fields: serde_json::Value = line.parse().unwrap();
        assert!(fields.as_object_mut().unwrap().remove("timestamp").is_some());
        assert_eq!(
            fields,
            serde_json::json!({
                "level": "INFO",
                "target": "cambio::telemetry",
                "message": "refused exchange `ex_1`: issuer `a\\u{a}b` is not configured",
                "exchange.id": "ex_1",
                "exchange.front": "token_exchange",
                "exchange.outcome": "refused",
                "exchange.reason": "unknown_issuer",
                "exchange.source": "203.0.113.9",
                "exchange.microseconds": 1_234,
                "http.status": 400,
            })
        );
        assert_eq!(line.matches('\n').count(), 1);
    }
}
