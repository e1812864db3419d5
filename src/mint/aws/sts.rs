//! The client of AWS STS: one call, no retries, and a truthful word about how it ended.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sts::{
    Client,
    config::{
        ConfigBag, Intercept, RuntimeComponents, SharedCredentialsProvider, SharedHttpClient,
        StalledStreamProtectionConfig, http::HttpResponse,
        interceptors::BeforeDeserializationInterceptorContextMut, retry::RetryConfig,
        timeout::TimeoutConfig,
    },
    error::{BoxError, ProvideErrorMetadata, SdkError},
    types::{AssumedRoleUser, Credentials, PolicyDescriptorType, Tag},
};
use aws_smithy_http_client::{
    Builder,
    tls::{self, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use aws_smithy_types::body::SdkBody;
use http_body_util::Limited;
use hyper_util::client::legacy;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use thiserror::Error;
use tokio::sync::OnceCell;

use crate::{clock::Instant, secret::Secret};

/// How long a connection may take: what fails here was never sent.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// The most characters of STS's own words that are kept.
const LONGEST_REASON: usize = 300;

/// The most bytes of an answer: those of STS have two or three kilobytes.
pub const LONGEST_ANSWER: usize = 64 * 1024;

/// Reads no more of an answer than [`LONGEST_ANSWER`]: what is longer is not of STS, and must not fill our memory (threat V02).
#[derive(Debug)]
struct Bounded;

impl Intercept for Bounded {
    fn name(&self) -> &'static str {
        "Bounded"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _runtime: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let body = context.response_mut().body_mut();
        let whole = std::mem::replace(body, SdkBody::taken());
        *body = SdkBody::from_body_1_x(Limited::new(whole, LONGEST_ANSWER));
        Ok(())
    }
}

/// Where STS is.
#[derive(Clone, Debug)]
pub struct StsAddress {
    /// `eu-central-1`.
    pub region: String,
    /// In place of the region's own endpoint.
    pub endpoint: Option<String>,
    /// PEM: these roots, in place of the machine's.
    pub roots: Option<Vec<u8>>,
    /// Whether calls are signed with the broker's own identity.
    pub ambient: bool,
}

/// There is no way to ask STS. A start-up error.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum StsSetupError {
    /// The configured roots are none.
    #[error("the CA file holds no certificate that can be read: {0}")]
    Roots(String),
    /// The machine has none.
    #[error(
        "this machine has no trust roots to check the certificate of STS with: install a CA bundle, or name one as `ca_file`"
    )]
    NoRoots,
}

/// What is asked of STS.
#[derive(Debug)]
pub struct Ask {
    /// The role.
    pub arn: String,
    /// Its session's name.
    pub session_name: String,
    /// Our assertion, for `AssumeRoleWithWebIdentity`.
    pub assertion: Option<Secret>,
    /// Parameters of `AssumeRole`, which is called where there is no assertion.
    pub ambient: Option<Ambient>,
    /// The session policy.
    pub policy: Option<String>,
    /// Managed session policies.
    pub policy_arns: Vec<String>,
}

/// What only `AssumeRole` takes as parameters.
#[derive(Debug)]
pub struct Ambient {
    /// `sts:ExternalId`.
    pub external_id: Option<String>,
    /// Session tags.
    pub tags: BTreeMap<String, String>,
    /// Those that stay along a chain.
    pub transitive: BTreeSet<String>,
    /// `sts:SourceIdentity`.
    pub source_identity: Option<String>,
}

/// A session, as STS gave it.
#[derive(Debug)]
pub struct Session {
    /// No secret.
    pub access_key_id: String,
    /// The secret.
    pub secret_access_key: Secret,
    /// The other one.
    pub session_token: Secret,
    /// The true end.
    pub expires_at: Instant,
    /// Who the session is.
    pub assumed: Option<Assumed>,
    /// How much of the room for policies and tags is used, in percent.
    pub packed_policy_size: Option<i32>,
}

/// `AssumedRoleUser`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assumed {
    /// `arn:aws:sts::123456789012:assumed-role/deploy/name`.
    pub arn: String,
    /// `AROA…:name`.
    pub id: String,
}

/// STS gave no session.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum StsError {
    /// We did not ask it.
    #[error("not asked: {0}")]
    NotAsked(String),
    /// The broker has no identity of its own to ask with.
    #[error("the broker has no AWS identity of its own: {0}")]
    NoIdentity(String),
    /// No connection came about: nothing was sent.
    #[error("can't be reached: {0}")]
    Unreachable(String),
    /// It has too much to do; nothing was made.
    #[error("throttled")]
    Throttled(Option<Duration>),
    /// It could not fetch our key set; nothing was made.
    #[error("STS can't reach our issuer: {0}")]
    KeysOutOfReach(String),
    /// It said no; nothing was made.
    #[error("{0}")]
    Refused(String),
    /// A session policy is malformed; nothing was made.
    #[error("session policy: {0}")]
    BadPolicy(String),
    /// Session policies and tags are too large together; nothing was made.
    #[error("session policies and tags: {0}")]
    PolicyTooLarge(String),
    /// It was asked, and what it answered makes no sense, or it answered nothing.
    #[error("lost: {0}")]
    Lost(String),
}

/// Asks one STS.
pub struct Sts {
    address: StsAddress,
    http: SharedHttpClient,
    /// The broker's own identity is looked for when it is first needed: a metadata service that hangs must not stop the start.
    client: OnceCell<Client>,
}

impl fmt::Debug for Sts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sts")
            .field("region", &self.address.region)
            .field("endpoint", &self.address.endpoint)
            .finish_non_exhaustive()
    }
}

impl Sts {
    /// The client of the STS at `address`. Nothing is connected to yet.
    ///
    /// # Errors
    /// Its certificate could never be checked.
    pub fn of(address: StsAddress) -> Result<Self, StsSetupError> {
        let roots = trust(address.roots.as_deref())?;
        let context = TlsContext::builder().with_trust_store(roots).build();
        let context = context.map_err(|error| StsSetupError::Roots(error.to_string()))?;
        let http = Builder::new()
            .tls_provider(tls::Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(context)
            .build_https();
        Ok(Self { address, http, client: OnceCell::new() })
    }

    /// Asks for a session of so many seconds.
    ///
    /// # Errors
    /// There is none, or nobody knows.
    pub async fn assume(&self, ask: &Ask, seconds: i32) -> Result<Session, StsError> {
        let client = self.client.get_or_init(|| self.connect()).await;
        match (&ask.assertion, &ask.ambient) {
            (Some(assertion), None) => with_web_identity(client, ask, assertion, seconds).await,
            (None, Some(ambient)) => with_own_identity(client, ask, ambient, seconds).await,
            (Some(_), Some(_)) | (None, None) => {
                Err(StsError::NotAsked("neither one way nor the other".to_owned()))
            }
        }
    }

    /// Who the broker itself is in AWS: its ARN.
    ///
    /// # Errors
    /// It has no identity, or STS does not answer.
    pub async fn own_identity(&self) -> Result<String, StsError> {
        let client = self.client.get_or_init(|| self.connect()).await;
        let told = client.get_caller_identity().send().await.map_err(error)?;
        told.arn.ok_or_else(|| StsError::Lost("an identity without an ARN".to_owned()))
    }

    /// Neither the environment nor a profile says where STS is or how it is asked: both could name ourselves, or somebody else.
    async fn connect(&self) -> Client {
        let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT_LIMIT).build();
        let mut config = aws_sdk_sts::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(self.address.region.clone()))
            .http_client(self.http.clone())
            .timeout_config(timeouts)
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .interceptor(Bounded);
        config.set_endpoint_url(self.address.endpoint.clone());
        if self.address.ambient {
            config.set_credentials_provider(self.own_credentials().await);
        } else {
            config = config.allow_no_auth();
        }
        Client::from_conf(config.build())
    }

    async fn own_credentials(&self) -> Option<SharedCredentialsProvider> {
        let surroundings = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(self.address.region.clone()))
            .http_client(self.http.clone())
            .load()
            .await;
        surroundings.credentials_provider()
    }
}

/// The library panics on a certificate that it can't read: whatever is given to it was read here before.
fn trust(pem: Option<&[u8]>) -> Result<TrustStore, StsSetupError> {
    let Some(pem) = pem else {
        let found = rustls_native_certs::load_native_certs().certs;
        let mut roots = rustls::RootCertStore::empty();
        let (good, _) = roots.add_parsable_certificates(found);
        return if good > 0 { Ok(TrustStore::default()) } else { Err(StsSetupError::NoRoots) };
    };
    let unreadable = |error: &dyn fmt::Display| StsSetupError::Roots(error.to_string());
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| unreadable(&error))?;
        roots.add(certificate).map_err(|error| unreadable(&error))?;
    }
    if roots.is_empty() {
        return Err(StsSetupError::Roots("none is in it".to_owned()));
    }
    Ok(TrustStore::empty().with_pem_certificate(pem))
}

async fn with_web_identity(
    client: &Client,
    ask: &Ask,
    assertion: &Secret,
    seconds: i32,
) -> Result<Session, StsError> {
    let token = assertion
        .reveal_text()
        .ok_or_else(|| StsError::NotAsked("the assertion is no text".to_owned()))?;
    let made = client
        .assume_role_with_web_identity()
        .role_arn(&ask.arn)
        .role_session_name(&ask.session_name)
        .web_identity_token(token)
        .duration_seconds(seconds)
        .set_policy(ask.policy.clone())
        .set_policy_arns(managed(&ask.policy_arns))
        .send()
        .await
        .map_err(error)?;
    session(made.credentials, made.assumed_role_user, made.packed_policy_size)
}

async fn with_own_identity(
    client: &Client,
    ask: &Ask,
    own: &Ambient,
    seconds: i32,
) -> Result<Session, StsError> {
    let mut tags = Vec::new();
    for (key, value) in &own.tags {
        let tag = Tag::builder().key(key).value(value).build();
        tags.push(tag.map_err(|error| StsError::NotAsked(error.to_string()))?);
    }
    let transitive: Vec<String> = own.transitive.iter().cloned().collect();
    let made = client
        .assume_role()
        .role_arn(&ask.arn)
        .role_session_name(&ask.session_name)
        .duration_seconds(seconds)
        .set_policy(ask.policy.clone())
        .set_policy_arns(managed(&ask.policy_arns))
        .set_external_id(own.external_id.clone())
        .set_source_identity(own.source_identity.clone())
        .set_tags((!tags.is_empty()).then_some(tags))
        .set_transitive_tag_keys((!transitive.is_empty()).then_some(transitive))
        .send()
        .await
        .map_err(error)?;
    session(made.credentials, made.assumed_role_user, made.packed_policy_size)
}

fn managed(arns: &[String]) -> Option<Vec<PolicyDescriptorType>> {
    let one = |arn: &String| PolicyDescriptorType::builder().arn(arn).build();
    (!arns.is_empty()).then(|| arns.iter().map(one).collect())
}

/// INVARIANT(closed-by-absence): a session that lacks a part is none.
fn session(
    credentials: Option<Credentials>,
    user: Option<AssumedRoleUser>,
    packed_policy_size: Option<i32>,
) -> Result<Session, StsError> {
    let lost = |what: &str| StsError::Lost(format!("the answer has {what}"));
    let credentials = credentials.ok_or_else(|| lost("no credentials"))?;
    let texts =
        [&credentials.access_key_id, &credentials.secret_access_key, &credentials.session_token];
    if texts.iter().any(|text| text.is_empty()) {
        return Err(lost("credentials with an empty part"));
    }
    let seconds =
        u64::try_from(credentials.expiration.secs()).map_err(|_| lost("an end before 1970"))?;
    Ok(Session {
        access_key_id: credentials.access_key_id,
        secret_access_key: Secret::from(credentials.secret_access_key),
        session_token: Secret::from(credentials.session_token),
        expires_at: Instant::from_seconds(seconds),
        assumed: user.map(|user| Assumed { arn: user.arn, id: user.assumed_role_id }),
        packed_policy_size,
    })
}

/// How a call ended: only what is certain counts as "nothing was made".
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's list may grow: what is not known is not certain"
)]
fn error<E>(error: SdkError<E, HttpResponse>) -> StsError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    match error {
        SdkError::ConstructionFailure(_) => StsError::NotAsked(chain(&error)),
        SdkError::DispatchFailure(failure) => {
            let Some(cause) = failure.as_connector_error() else {
                return StsError::Lost("no answer".to_owned());
            };
            let told = chain(cause);
            // What can't be signed is not sent; and the limits of a metadata service are not those of STS.
            if causes(cause).any(<dyn std::error::Error>::is::<CredentialsError>) {
                return StsError::NoIdentity(told);
            }
            let unconnected = |cause: &(dyn std::error::Error + 'static)| {
                cause.downcast_ref::<legacy::Error>().is_some_and(legacy::Error::is_connect)
            };
            // The only limit that the connector has is the one of the connection.
            if failure.is_timeout() || causes(cause).any(unconnected) {
                return StsError::Unreachable(told);
            }
            if failure.is_user() {
                return StsError::NotAsked(told);
            }
            StsError::Lost(told)
        }
        SdkError::ServiceError(answer) => {
            let (raw, said) = (answer.raw(), answer.err());
            let wait = raw.headers().get("retry-after").and_then(|text| text.parse().ok());
            of_service(raw.status().as_u16(), said.code(), said.message(), wait)
        }
        other => StsError::Lost(chain(&other)),
    }
}

/// The codes of the AWS STS API reference, "Errors" and "Common errors".
fn of_service(
    status: u16,
    code: Option<&str>,
    message: Option<&str>,
    wait: Option<u64>,
) -> StsError {
    const THROTTLED: [&str; 5] = [
        "Throttling",
        "ThrottlingException",
        "RequestLimitExceeded",
        "TooManyRequestsException",
        "SlowDown",
    ];
    let code = code.unwrap_or_default();
    let words = message.unwrap_or("no message");
    let told: String = format!("{code}: {words}").chars().take(LONGEST_REASON).collect();
    match code {
        code if THROTTLED.contains(&code) => StsError::Throttled(wait.map(Duration::from_secs)),
        // Somebody who is not STS: a proxy, a page.
        "" => StsError::Lost(format!("status {status} without an error code")),
        _ if !(400..500).contains(&status) => StsError::Lost(format!("status {status}, {told}")),
        "IDPCommunicationError" => StsError::KeysOutOfReach(told),
        "MalformedPolicyDocument" => StsError::BadPolicy(told),
        "PackedPolicyTooLarge" => StsError::PolicyTooLarge(told),
        _ => StsError::Refused(told),
    }
}

/// An error and everything behind it.
fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

/// An error and what is behind it, in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let told = causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ");
    told.chars().take(LONGEST_REASON).collect()
}
