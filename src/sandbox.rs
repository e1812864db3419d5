//! The sandbox issuer: one loopback server that speaks like GitHub Actions, GitLab CI and Kubernetes, for `cambio dev`
//! and for tests. Its keys live as long as its process, never touch a disk, and are marked: `serve` refuses them.

use std::{collections::BTreeMap, fmt, io, net::Ipv4Addr, sync::Arc, time::Duration};

use aws_lc_rs::digest;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    chance::{Chance, ChanceError},
    clock::{Clock, Instant},
    secret::Secret,
};

pub mod claims;
mod key;
mod server;

pub use claims::TokenWish;
use key::SandboxKey;

/// What the `kid` of every sandbox key begins with, and that of no other: `serve` refuses a key set that holds one.
pub const KEY_MARK: &str = "sandbox-";

/// Whether `kid` names a key of a sandbox issuer. A key set that holds one must not be used outside `cambio dev`.
#[must_use]
pub fn is_marked(kid: &str) -> bool {
    kid.starts_with(KEY_MARK)
}

/// Which platform the sandbox speaks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Platform {
    /// GitHub Actions: a token for each request.
    GitHub,
    /// GitLab CI: the token that a job finds in its variable.
    GitLab,
    /// Kubernetes: the `TokenRequest` API.
    Kubernetes,
}

impl Platform {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::GitHub, Self::GitLab, Self::Kubernetes];

    /// The name of its preset, and the first segment of its path.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::GitHub => "github",
            Self::GitLab => "gitlab",
            Self::Kubernetes => "kubernetes",
        }
    }

    /// Where the platform itself publishes its key set, below the issuer.
    const fn jwks_path(self) -> &'static str {
        match self {
            Self::GitHub => "/.well-known/jwks",
            Self::GitLab => "/oauth/discovery/keys",
            Self::Kubernetes => "/openid/v1/jwks",
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why there is no sandbox, or no token from it.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// No loopback port could be had.
    #[error("the sandbox issuer can't listen on loopback: {0}")]
    Listen(#[source] io::Error),
    /// No key could be made, or it did not sign.
    #[error("the sandbox issuer's key: {0}")]
    Key(&'static str),
    /// No randomness.
    #[error(transparent)]
    Chance(#[from] ChanceError),
}

/// A running sandbox issuer. Dropping it leaves the server to the end of the runtime; [`Sandbox::stop`] waits for it.
#[derive(Debug)]
pub struct Sandbox {
    desk: Arc<Desk>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Sandbox {
    /// Makes three keys and serves on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// There is no port, no randomness or no key to be had.
    pub async fn start(
        clock: Arc<dyn Clock>,
        chance: Arc<dyn Chance>,
    ) -> Result<Self, SandboxError> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(SandboxError::Listen)?;
        let authority = listener.local_addr().map_err(SandboxError::Listen)?.to_string();
        let mut keys = BTreeMap::new();
        for platform in Platform::ALL {
            keys.insert(platform, SandboxKey::generate(platform)?);
        }
        let request_token = random_hex(chance.as_ref())?;
        let desk = Arc::new(Desk { authority, keys, request_token, clock, chance });
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        let router = server::router(Arc::clone(&desk));
        let stopped = stop.clone().cancelled_owned();
        tasks.spawn(async move {
            // Serving ends by `stop` alone: errors of single connections are handled inside.
            let served = axum::serve(listener, router).with_graceful_shutdown(stopped).await;
            if let Err(error) = served {
                tracing::error!(%error, "the sandbox issuer ended");
            }
        });
        tasks.close();
        Ok(Self { desk, tasks, stop })
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn origin(&self) -> String {
        format!("http://{}", self.desk.authority)
    }

    /// The exact `iss` of `platform`'s tokens: `http://127.0.0.1:PORT/github`.
    #[must_use]
    pub fn issuer(&self, platform: Platform) -> String {
        self.desk.issuer(platform)
    }

    /// Where tokens of `platform` are handed out. GitHub's already has a query string, as the real one has.
    #[must_use]
    pub fn token_url(&self, platform: Platform) -> String {
        let issuer = self.issuer(platform);
        match platform {
            Platform::GitHub => format!("{issuer}/token?api-version=2.0"),
            Platform::GitLab => format!("{issuer}/token"),
            Platform::Kubernetes => {
                let (namespace, account) = (claims::NAMESPACE, claims::SERVICE_ACCOUNT);
                format!("{issuer}/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token")
            }
        }
    }

    /// What must come as `Authorization: bearer …` (GitHub's `ACTIONS_ID_TOKEN_REQUEST_TOKEN`, a Kubernetes client's own
    /// token). Good for this process's sandbox only, and printed by `cambio dev` on purpose.
    #[must_use]
    pub fn request_token(&self) -> &str {
        &self.desk.request_token
    }

    /// A signed token of `platform`, without HTTP.
    ///
    /// # Errors
    /// There is no randomness, or the key did not sign.
    pub fn token(&self, platform: Platform, wish: &TokenWish) -> Result<Secret, SandboxError> {
        self.desk.token(platform, wish).map(|handed_out| handed_out.token)
    }

    /// Stops accepting, and waits until the last answer is out.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

/// Everything that the request handlers need.
#[derive(Debug)]
struct Desk {
    /// `127.0.0.1:PORT`: the only `Host` that is served.
    authority: String,
    keys: BTreeMap<Platform, SandboxKey>,
    request_token: String,
    clock: Arc<dyn Clock>,
    chance: Arc<dyn Chance>,
}

/// A signed token and its end.
#[derive(Debug)]
struct HandedOut {
    token: Secret,
    expires_at: Instant,
}

impl Desk {
    fn issuer(&self, platform: Platform) -> String {
        format!("http://{}/{platform}", self.authority)
    }

    fn key(&self, platform: Platform) -> Result<&SandboxKey, SandboxError> {
        self.keys.get(&platform).ok_or(SandboxError::Key("there is none"))
    }

    fn token(&self, platform: Platform, wish: &TokenWish) -> Result<HandedOut, SandboxError> {
        let now = self.clock.now();
        let mut claims = claims::of(platform, wish, now);
        claims.entry("iss").or_insert_with(|| self.issuer(platform).into());
        claims.entry("jti").or_insert(Value::String(random_uuid(self.chance.as_ref())?));
        for name in &wish.without {
            claims.remove(name);
        }
        let token = self.key(platform)?.sign(platform, &claims)?;
        let end = claims.get("exp").and_then(Value::as_u64).unwrap_or_default();
        Ok(HandedOut { token, expires_at: Instant::from_seconds(end) })
    }

    /// OpenID Connect Discovery section 3, as these platforms publish it: without an authorization endpoint.
    fn discovery(&self, platform: Platform) -> Value {
        let issuer = self.issuer(platform);
        json!({
            "issuer": issuer,
            "jwks_uri": format!("{issuer}{}", platform.jwks_path()),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "scopes_supported": ["openid"],
        })
    }
}

/// How long a key set of the sandbox may be cached.
const JWKS_MAX_AGE: Duration = Duration::from_mins(1);

fn random_hex(chance: &dyn Chance) -> Result<String, ChanceError> {
    let mut bytes = [0_u8; 16];
    chance.fill(&mut bytes)?;
    Ok(hex(&bytes))
}

fn random_uuid(chance: &dyn Chance) -> Result<String, ChanceError> {
    let mut bytes = [0_u8; 16];
    chance.fill(&mut bytes)?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid().to_string())
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Compares in a time that tells nothing of where two texts differ.
fn same_secret(left: &str, right: &str) -> bool {
    let of = |text: &str| digest::digest(&digest::SHA256, text.as_bytes());
    aws_lc_rs::constant_time::verify_slices_are_equal(of(left).as_ref(), of(right).as_ref()).is_ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{chance::SeededChance, clock::ManualClock, subject::Claims};

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    async fn sandbox() -> Result<Sandbox, SandboxError> {
        let clock = ManualClock::at(Instant::from_seconds(1_800_000_000));
        Sandbox::start(Arc::new(clock), Arc::new(SeededChance::of(1))).await
    }

    fn claims_of(token: &Secret) -> Claims {
        use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
        let text = token.reveal_text().unwrap().to_owned();
        let body = URL_SAFE_NO_PAD.decode(text.split('.').nth(1).unwrap()).unwrap();
        serde_json::from_str(std::str::from_utf8(&body).unwrap()).unwrap()
    }

    async fn asked(platform: Platform, wish: TokenWish) -> Result<Claims, SandboxError> {
        let sandbox = sandbox().await?;
        let claims = claims_of(&sandbox.token(platform, &wish)?);
        sandbox.stop().await;
        Ok(claims)
    }

    fn wish() -> TokenWish {
        TokenWish::for_audience("https://cambio.example")
    }

    #[tokio::test]
    async fn a_github_token_is_all_strings_but_its_times() -> Outcome {
        let claims = asked(Platform::GitHub, wish()).await?;
        let others: BTreeSet<_> =
            claims.iter().filter(|(_, v)| !v.is_string()).map(|(k, _)| k.as_str()).collect();
        assert_eq!(others, BTreeSet::from(["exp", "iat", "nbf"]));
        assert_eq!(claims["exp"], 1_800_000_300);
        assert_eq!(claims["nbf"], 1_799_999_400);
        assert_eq!(claims["sub"], "repo:acme/shop:ref:refs/heads/main");
        assert_eq!(claims["aud"], "https://cambio.example");
        assert!(!claims.contains_key("environment"));
        Ok(())
    }

    #[tokio::test]
    async fn a_github_sub_follows_the_wished_claims_in_both_its_shapes() -> Outcome {
        let environment = wish().claim("environment", "prod:eu");
        let immutable = TokenWish { immutable_sub: true, ..environment.clone() };
        let pull_request = wish().claim("event_name", "pull_request");
        let mut subs = Vec::new();
        for wish in [environment, immutable, pull_request] {
            subs.push(asked(Platform::GitHub, wish).await?["sub"].clone());
        }
        assert_eq!(
            subs,
            [
                "repo:acme/shop:environment:prod%3Aeu",
                "repo:acme@9919/shop@1296269:environment:prod%3Aeu",
                "repo:acme/shop:pull_request",
            ]
        );
        Ok(())
    }

    #[tokio::test]
    async fn a_gitlab_token_has_string_booleans_and_a_number_for_its_runner() -> Outcome {
        let claims =
            asked(Platform::GitLab, wish().claim("ref", "v1").claim("ref_type", "tag")).await?;
        assert_eq!(claims["ref_protected"], "false");
        assert_eq!(claims["runner_id"], 1);
        assert_eq!(claims["ref_path"], "refs/tags/v1");
        assert_eq!(claims["sub"], "project_path:acme/shop:ref_type:tag:ref:v1");
        Ok(())
    }

    #[tokio::test]
    async fn a_kubernetes_token_is_bound_to_a_pod_and_stretched_as_the_api_server_stretches()
    -> Outcome {
        let claims = asked(Platform::Kubernetes, wish()).await?;
        assert_eq!(claims["aud"], json!(["https://cambio.example"]));
        assert_eq!(claims["sub"], "system:serviceaccount:shop:checkout");
        let stretched = TokenWish { lifetime: Some(Duration::from_secs(3607)), ..wish() };
        let claims = asked(Platform::Kubernetes, stretched).await?;
        assert_eq!(claims["kubernetes.io"]["warnafter"], 1_800_003_607);
        assert_eq!(claims["exp"], 1_831_536_000);
        Ok(())
    }

    #[tokio::test]
    async fn every_kid_is_marked_and_no_private_member_is_published() -> Outcome {
        let sandbox = sandbox().await?;
        for platform in Platform::ALL {
            let set = sandbox.desk.key(platform)?.key_set();
            let key = set["keys"][0].as_object().unwrap();
            let members: BTreeSet<_> = key.keys().map(String::as_str).collect();
            assert_eq!(members, BTreeSet::from(["alg", "e", "kid", "kty", "n", "use"]));
            let kid = key["kid"].as_str().unwrap();
            assert!(is_marked(kid) && kid.starts_with(&format!("sandbox-{platform}-")), "{kid}");
        }
        assert!(!is_marked("my-sandbox-key"));
        Ok(())
    }
}
