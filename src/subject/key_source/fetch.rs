//! The one HTTP client towards issuers: https, no redirects, no proxy, no decompression, a few seconds, a few kilobytes, and
//! only to origins that the configuration names.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use reqwest::{
    Client, StatusCode,
    header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, HeaderMap, HeaderValue},
    redirect,
};
use rustls::ClientConfig;
use thiserror::Error;
use url::{Origin, Url};

use super::{
    bearer,
    guard::{Guard, GuardError, Lookup, Reach, SystemLookup},
};
use crate::web::{self, Roots, WebError, causes};

/// How long a peer may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// Until the connection stands.
    pub connect: Duration,
    /// Until the last byte of the body.
    pub total: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { connect: Duration::from_secs(2), total: Duration::from_secs(5) }
    }
}

/// Why a document was not had. Never holds a credential of ours.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FetchError {
    /// The client can't be built: no roots, a bad CA file. A start-up error.
    #[error("{0}")]
    Setup(String),
    /// The URL is not on an origin that the configuration names (threats D03, D07).
    #[error("`{url}` is not on a configured origin")]
    ForeignOrigin {
        /// The URL.
        url: String,
    },
    /// The host is an address that we do not connect to.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// The bearer-token file can't be read, or does not hold a token.
    #[error("bearer token file {0}")]
    Bearer(String),
    /// No answer, a broken one, or none in time.
    #[error("no answer from `{url}`: {reason}")]
    NoAnswer {
        /// The URL.
        url: String,
        /// The causes, joined with colons.
        reason: String,
    },
    /// Anything but 200: redirects are not followed (threat D05), and a 304 without a body is no key set (threat D16).
    #[error("`{url}` answered {status}, expected 200")]
    Status {
        /// The URL.
        url: String,
        /// What came.
        status: u16,
    },
    /// A compressed body would grow past every cap (threat D08).
    #[error("`{url}` answered with a content encoding, expected none")]
    Encoded {
        /// The URL.
        url: String,
    },
    /// More than the cap.
    #[error("`{url}` answered with more than {limit} bytes")]
    TooLong {
        /// The URL.
        url: String,
        /// The cap.
        limit: usize,
    },
}

/// A document, and how long its sender says it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The bytes.
    pub body: Vec<u8>,
    /// `Cache-Control: max-age`; zero for `no-store` and `no-cache`; `None` if nothing is said.
    pub max_age: Option<Duration>,
}

/// What all outbound connections of the process share: the platform's trust roots, read once, and the resolver.
#[derive(Debug)]
pub struct Outbound {
    lookup: Arc<dyn Lookup>,
    deadlines: Deadlines,
    public: OnceLock<Result<Client, FetchError>>,
}

impl Default for Outbound {
    fn default() -> Self {
        Self::new(Arc::new(SystemLookup), Deadlines::default())
    }
}

impl Outbound {
    /// With another resolver or other deadlines than the default: for tests.
    #[must_use]
    pub const fn new(lookup: Arc<dyn Lookup>, deadlines: Deadlines) -> Self {
        Self { lookup, deadlines, public: OnceLock::new() }
    }

    /// How long a peer may take.
    #[must_use]
    pub const fn deadlines(&self) -> Deadlines {
        self.deadlines
    }

    /// A fetcher for `origins` alone.
    ///
    /// # Errors
    /// There is no trust root to check certificates with, or `ca` is not a PEM file with certificates.
    pub fn fetcher(&self, bounds: Bounds) -> Result<Fetcher, FetchError> {
        let client = match (&bounds.ca, bounds.reach) {
            // One client, and one copy of the platform's roots, for the many issuers that need nothing special.
            (None, Reach::Public) => self.public.get_or_init(|| self.client(&bounds)).clone()?,
            _ => self.client(&bounds)?,
        };
        let guard = Guard::new(bounds.reach, Arc::clone(&self.lookup));
        Ok(Fetcher { client, guard, bounds })
    }

    fn client(&self, bounds: &Bounds) -> Result<Client, FetchError> {
        let setup = |error: reqwest::Error| FetchError::Setup(causes(&error));
        Client::builder()
            .tls_backend_preconfigured(tls(bounds)?)
            .https_only(bounds.reach != Reach::DangerouslyLoopback)
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .referer(false)
            .user_agent(concat!("cambio/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(Arc::new(Guard::new(bounds.reach, Arc::clone(&self.lookup))))
            .connect_timeout(self.deadlines.connect)
            .timeout(self.deadlines.total)
            // A kept connection would outlive the check of its address.
            .pool_max_idle_per_host(0)
            .build()
            .map_err(setup)
    }
}

/// What one issuer's fetches may touch.
#[derive(Debug)]
pub struct Bounds {
    /// Scheme, host and port that may be dialled; nothing else is.
    pub origins: Vec<Origin>,
    /// How near the addresses may be.
    pub reach: Reach,
    /// A PEM file: these roots, in place of the platform's.
    pub ca: Option<PathBuf>,
    /// A file with a token, and the only origin that is shown it (threat D07).
    pub bearer: Option<(PathBuf, Origin)>,
}

/// Fetches one issuer's documents.
pub struct Fetcher {
    client: Client,
    guard: Guard,
    bounds: Bounds,
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher").field("bounds", &self.bounds).finish_non_exhaustive()
    }
}

impl Fetcher {
    /// The document at `url`, of at most `limit` bytes.
    ///
    /// # Errors
    /// [`FetchError`]: out of bounds, unreachable, late, too long, or not a plain 200.
    pub async fn fetch(&self, url: &Url, limit: usize) -> Result<Fetched, FetchError> {
        if !self.bounds.origins.contains(&url.origin()) {
            return Err(FetchError::ForeignOrigin { url: url.to_string() });
        }
        self.guard.check_literal(url)?;
        let mut request = self.client.get(url.clone());
        if let Some(bearer) = self.bearer_for(url).await? {
            request = request.header(AUTHORIZATION, bearer);
        }
        let no_answer = |error: reqwest::Error| FetchError::NoAnswer {
            url: url.to_string(),
            reason: causes(&error.without_url()),
        };
        let mut response = request.send().await.map_err(no_answer)?;
        if response.status() != StatusCode::OK {
            let status = response.status().as_u16();
            return Err(FetchError::Status { url: url.to_string(), status });
        }
        if response.headers().get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
            return Err(FetchError::Encoded { url: url.to_string() });
        }
        let max_age = max_age(response.headers());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(no_answer)? {
            if body.len().saturating_add(chunk.len()) > limit {
                return Err(FetchError::TooLong { url: url.to_string(), limit });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Fetched { body, max_age })
    }

    /// Read anew each time: the kubelet rotates the file.
    async fn bearer_for(&self, url: &Url) -> Result<Option<HeaderValue>, FetchError> {
        let Some((path, origin)) = &self.bounds.bearer else { return Ok(None) };
        if url.origin() != *origin {
            return Ok(None);
        }
        let token = bearer::read(path).await.map_err(FetchError::Bearer)?;
        bearer::header(&token, path).map(Some).map_err(FetchError::Bearer)
    }
}

fn tls(bounds: &Bounds) -> Result<ClientConfig, FetchError> {
    let roots = match (&bounds.ca, bounds.reach) {
        (Some(path), _) => Roots::Only(path),
        // Plain http: no certificate will be accepted from anybody.
        (None, Reach::DangerouslyLoopback) => Roots::Nobody,
        (None, Reach::Public | Reach::Private) => Roots::Platform,
    };
    web::tls(roots).map_err(|error| {
        let way_out = if matches!(error, WebError::NoRoots(_)) {
            ", or name one in the issuer's `ca`"
        } else {
            ""
        };
        FetchError::Setup(format!("{error}{way_out}"))
    })
}

/// RFC 9111 section 5.2.2.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(CACHE_CONTROL);
    let directives =
        values.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let mut shortest = None;
    for directive in directives {
        let directive = directive.trim().to_ascii_lowercase();
        let seconds = match directive.as_str() {
            "no-store" | "no-cache" => Some(0),
            other => other
                .strip_prefix("max-age=")
                .map(|seconds| seconds.trim_matches('"').parse().unwrap_or(0)),
        };
        shortest = match (shortest, seconds) {
            (Some(known), Some(found)) => Some(u64::min(known, found)),
            (known, found) => known.or(found),
        };
    }
    shortest.map(Duration::from_secs)
}
