//! Traces by OTLP over HTTP (feature `otel`): one span for each exchange, with the fields of its log line.
//!
//! A span is made of the finished line's fields and of nothing else: what no log line can hold, a token above all, no span
//! can. The line's message stays here too, because it repeats what a stranger chose. A caller's `traceparent` is not read:
//! a stranger would write into our traces. Spans that can't be sent are dropped; the ledger proves, traces tell.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use opentelemetry::{
    KeyValue, Value,
    trace::{Span as _, SpanBuilder, SpanKind, Status, TracerProvider as _},
};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{
        BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, SpanLimits,
    },
};
use reqwest::{Client, header, redirect};
use tokio::runtime::Handle;
use tokio_util::context::TokioContext;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    info, warn,
};
use tracing_subscriber::{
    Layer,
    filter::{FilterFn, filter_fn},
    layer::Context,
};
use url::Url;

use super::{Collector, TelemetryError};
use crate::clock::{Clock, Instant};

/// How long one request to the collector may take, and how long the last one may hold up the end of the process.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many spans wait for the next request; more are dropped.
const QUEUE: usize = 4_096;
/// The field that only the line of an ended exchange has.
const TOOK: &str = "exchange.microseconds";

/// Opens the way to `collector`. Nothing is sent yet: a collector that is not there is no reason not to start.
///
/// # Errors
/// There is no runtime, or no client can be made: no trust roots.
pub fn open(collector: Collector) -> Result<(Spans, Sending), TelemetryError> {
    let failed = |error: &dyn fmt::Display| TelemetryError::Traces(error.to_string());
    let post = Post {
        client: client().map_err(|error| failed(&error))?,
        runtime: Handle::try_current().map_err(|error| failed(&error))?,
        url: collector.url.clone(),
        failing: AtomicBool::new(false),
    };
    // Whatever the library would take from the environment is said here, or not taken from it by `Post`.
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(collector.url)
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(PATIENCE)
        .with_http_client(post)
        .build()
        .map_err(|error| failed(&error))?;
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE)
        .with_max_export_batch_size(512)
        .with_scheduled_delay(Duration::from_secs(5))
        .build();
    let us = [
        KeyValue::new("service.name", "cambio"),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
    ];
    let provider = SdkTracerProvider::builder()
        .with_span_processor(
            BatchSpanProcessor::builder(exporter).with_batch_config(batches).build(),
        )
        .with_resource(Resource::builder_empty().with_attributes(us).build())
        .with_sampler(Sampler::AlwaysOn)
        .with_span_limits(SpanLimits::default())
        .build();
    let spans = Spans { tracer: provider.tracer("cambio"), clock: collector.clock };
    Ok((spans, Sending(provider)))
}

/// Lets through the lines of ended exchanges alone.
pub fn exchanges() -> FilterFn {
    filter_fn(is_exchange)
}

fn is_exchange(line: &Metadata<'_>) -> bool {
    line.is_event() && line.fields().field(TOOK).is_some()
}

/// Makes a span of the line of an ended exchange.
#[derive(Debug)]
pub struct Spans {
    tracer: SdkTracer,
    clock: Arc<dyn Clock>,
}

impl<S: Subscriber> Layer<S> for Spans {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        let end = self.clock.now();
        let mut span = SpanBuilder::from_name("exchange")
            .with_kind(SpanKind::Server)
            .with_start_time(on_the_wall(end).checked_sub(line.took).unwrap_or(UNIX_EPOCH))
            .with_attributes(line.fields)
            .start_with_context(&self.tracer, &opentelemetry::Context::new());
        // A refusal is an answer, not an error of ours.
        if line.status >= 500 {
            span.set_status(Status::error(""));
        }
        span.end_with_timestamp(on_the_wall(end));
    }
}

fn on_the_wall(instant: Instant) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(instant.milliseconds())).unwrap_or(UNIX_EPOCH)
}

/// The fields of a line, without its message.
#[derive(Debug, Default)]
struct Line {
    fields: Vec<KeyValue>,
    took: Duration,
    status: u64,
}

impl Line {
    fn push(&mut self, field: &Field, value: impl Into<Value>) {
        if field.name() != "message" {
            self.fields.push(KeyValue::new(field.name(), value));
        }
    }
}

impl Visit for Line {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            TOOK => self.took = Duration::from_micros(value),
            "http.status" => self.status = value,
            _ => {}
        }
        self.push(field, i64::try_from(value).unwrap_or(i64::MAX));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field, format!("{value:?}"));
    }
}

/// Spans that are on their way.
#[derive(Debug)]
pub struct Sending(SdkTracerProvider);

impl Sending {
    /// Sends what waits, for at most some seconds, and ends.
    pub async fn flush(self) {
        // It blocks until the library's own thread is done, which sends with the help of this runtime.
        let ended = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(PATIENCE));
        if let Ok(Err(error)) = ended.await {
            warn!("the last spans were not sent: {error}");
        }
    }
}

fn client() -> Result<Client, reqwest::Error> {
    Client::builder()
        .redirect(redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .user_agent(concat!("cambio/", env!("CARGO_PKG_VERSION")))
        .timeout(PATIENCE)
        .build()
}

/// Posts batches to one URL, with no header of the environment's and no credential, and reads nothing but the status.
#[derive(Debug)]
struct Post {
    client: Client,
    /// The library calls us from a thread of its own, which is not one of tokio's.
    runtime: Handle,
    url: Url,
    failing: AtomicBool,
}

#[async_trait]
impl HttpClient for Post {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let post = self
            .client
            .post(self.url.clone())
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .body(request.into_body());
        // `send` wants the runtime when it is called, not only when it is polled.
        let answer = async move { post.send().await };
        let answer = TokioContext::new(answer, self.runtime.clone()).await;
        self.tell(answer.as_ref().map_or_else(
            |error| Some(error.to_string()),
            |answer| (!answer.status().is_success()).then(|| answer.status().to_string()),
        ));
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = answer?.status();
        Ok(response)
    }
}

impl Post {
    /// Says so once when the collector is lost, and once when it is back.
    fn tell(&self, failure: Option<String>) {
        let failed_before = self.failing.swap(failure.is_some(), Ordering::Relaxed);
        match failure {
            Some(failure) if !failed_before => warn!("spans are not sent and dropped: {failure}"),
            None if failed_before => info!("spans are sent again"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use axum::{Router, extract::Request as Asked, routing::post};
    use http_body_util::BodyExt as _;
    use tokio::{net::TcpListener, sync::mpsc};
    use tracing_subscriber::{layer::SubscriberExt as _, registry};

    use super::{
        super::{Ended, log_granted, log_refused},
        *,
    };
    use crate::clock::ManualClock;

    /// A collector on loopback; what it is sent: path, content type, body.
    async fn collector() -> (Url, mpsc::UnboundedReceiver<(String, String, Vec<u8>)>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let take = move |asked: Asked| async move {
            let (parts, body) = asked.into_parts();
            let kind = parts.headers[header::CONTENT_TYPE].to_str().unwrap().to_owned();
            let body = body.collect().await.unwrap().to_bytes().to_vec();
            sender.send((parts.uri.path().to_owned(), kind, body)).unwrap();
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        let router = Router::new().route("/v1/traces", post(take));
        tokio::task::spawn(axum::serve(listener, router).into_future());
        (url.parse().unwrap(), receiver)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn each_exchange_is_one_span_with_the_fields_of_its_line_and_no_free_text() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (url, mut sent) = collector().await;
        let clock = Arc::new(ManualClock::at(Instant::from_seconds(1_800_000_000)));
        let (spans, sending) = open(Collector { url, clock }).unwrap();
        let subscriber = registry().with(spans.with_filter(exchanges()));
        tracing::subscriber::with_default(subscriber, || {
            let ended = |id| Ended {
                id,
                front: "token_exchange",
                source: Some(IpAddr::from([203, 0, 113, 9])),
                took: Duration::from_micros(1_234),
            };
            log_granted(&ended(&"ex_1"), 7, Duration::from_secs(300));
            log_refused(&ended(&"ex_2"), "unknown_issuer", &"issuer `chosen-by-a-stranger`", 400);
            info!(exchange.id = "ex_3", "no ended exchange");
        });
        sending.flush().await;
        let (path, kind, body) = sent.try_recv().expect("the flush waits for the collector");
        assert_eq!((path.as_str(), kind.as_str()), ("/v1/traces", "application/x-protobuf"));
        let times = |text: &[u8]| body.windows(text.len()).filter(|bytes| *bytes == text).count();
        for (text, wanted) in [
            ("ex_1", 1),
            ("ex_2", 1),
            ("ex_3", 0),
            ("granted", 1),
            ("refused", 1),
            ("unknown_issuer", 1),
            ("203.0.113.9", 2),
            ("ledger.index", 1),
            ("credential.lifetime_seconds", 1),
            ("exchange.front", 2),
            ("service.name", 1),
            ("message", 0),
            ("chosen-by-a-stranger", 0),
        ] {
            assert_eq!(times(text.as_bytes()), wanted, "{text}");
        }
        // fixed64, little-endian: both spans begin 1.234 ms before the clock's now, and end at it.
        assert_eq!(times(&(1_800_000_000_000_000_000_u64 - 1_234_000).to_le_bytes()), 2);
        assert_eq!(times(&1_800_000_000_000_000_000_u64.to_le_bytes()), 2);
        assert!(sent.try_recv().is_err(), "one batch");
    }
}
