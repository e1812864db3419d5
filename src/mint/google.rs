//! Google: our JWT buys a federated token at Google's STS, and that one, where the role names a service account, an access
//! token of the account. No key of any account exists anywhere.

use std::{collections::BTreeMap, fmt, sync::Arc};

use async_trait::async_trait;
use reqwest::{Method, header::HeaderMap};
use serde_json::json;
use url::Url;

use super::{
    Behind, Credential, MintError, Minter, Prepared,
    cloud::{
        self, Answer, Ask, Assertion, CallError, CloudPlan, Peer, PeerError, Reaching, subject,
    },
    examine::{Examine, Finding, Verdict},
    gate::Gate,
};
use crate::{
    chance::Chance,
    clock::{Clock, Instant},
    grant::{Grant, RoleName, TargetName},
    keys::keyring::Keyring,
    ledger::Recorded,
    secret::Secret,
    subject::Algorithm,
    target::Expiry,
};

const KIND: &str = "google";
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// What a federated token needs in order to act as a service account, and no more.
const IMPERSONATE: &str = "https://www.googleapis.com/auth/iam";

/// A power of a Google target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoogleRole {
    /// The account to act as, by its email address; none for the federated token itself.
    pub service_account: Option<String>,
    /// The OAuth scopes of the token; a caller may ask for fewer.
    pub scopes: Vec<String>,
}

/// A target that gives tokens of Google.
#[derive(Clone, Debug)]
pub struct GoogleTarget {
    /// Its name.
    pub name: TargetName,
    /// Our `iss`.
    pub issuer: String,
    /// `//iam.googleapis.com/projects/…/workloadIdentityPools/…/providers/…`.
    pub provider: String,
    /// What signs: `RS256` or `ES256`, Google takes no other.
    pub algorithm: Algorithm,
    /// Its powers.
    pub roles: BTreeMap<RoleName, GoogleRole>,
    /// How its tokens end: exact where all roles name service accounts, else fixed.
    pub expiry: Expiry,
    /// `https://sts.googleapis.com`.
    pub sts: Url,
    /// `https://iamcredentials.googleapis.com`.
    pub iam_credentials: Url,
    /// How both are reached.
    pub reaching: Reaching,
    /// How many calls at once.
    pub at_once: usize,
}

/// Asks Google.
pub struct GoogleApi {
    target: GoogleTarget,
    peer: Peer,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for GoogleApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GoogleApi").field("target", &self.target).finish_non_exhaustive()
    }
}

impl GoogleApi {
    /// What asks for `target`.
    ///
    /// # Errors
    /// There is no client to be had.
    pub fn of(target: GoogleTarget, clock: Arc<dyn Clock>) -> Result<Self, PeerError> {
        let peer = Peer::of(&target.reaching)?;
        Ok(Self { target, peer, clock })
    }

    /// Step 1: the federated token, and when it ends.
    async fn federate(
        &self,
        assertion: &Secret,
        scope: &str,
    ) -> Result<(Secret, Instant), CallError> {
        let url = below(&self.target.sts, &["v1", "token"])?;
        let assertion = assertion.reveal_text().unwrap_or_default();
        let form = [
            ("grant_type", EXCHANGE),
            ("audience", self.target.provider.as_str()),
            ("scope", scope),
            ("requested_token_type", ACCESS_TOKEN),
            ("subject_token_type", JWT),
            ("subject_token", assertion),
        ];
        cloud::token(&self.peer, &url, &form, self.clock.now()).await
    }

    /// Step 2: the account's token, for what is left of the lifetime now.
    async fn impersonate(
        &self,
        federated: &Secret,
        account: &str,
        scopes: &[String],
        fixed: Instant,
    ) -> Result<(Secret, Instant), CallError> {
        let method = format!("{account}:generateAccessToken");
        let path = ["v1", "projects", "-", "serviceAccounts", &method];
        let url = below(&self.target.iam_credentials, &path)?;
        let left = fixed.since(self.clock.now()).as_secs();
        if left == 0 {
            return Err(CallError::Refused("no lifetime is left".to_owned()));
        }
        let body = json!({ "scope": scopes, "lifetime": format!("{left}s") }).to_string();
        let mut answer = self.peer.post_json(&url, federated, HeaderMap::new(), body).await?;
        let ends = cloud::instant(&answer, "expireTime")?;
        Ok((cloud::bearer(&mut answer, "accessToken")?, ends))
    }
}

/// Makes tokens of Google.
#[derive(Debug)]
pub struct GoogleMinter {
    api: GoogleApi,
    gate: Gate,
    keyring: Arc<Keyring>,
    chance: Arc<dyn Chance>,
}

impl GoogleMinter {
    /// The minter that asks by `api`.
    #[must_use]
    pub fn of(api: GoogleApi, keyring: Arc<Keyring>, chance: Arc<dyn Chance>) -> Self {
        let gate = Gate::of(api.target.at_once, Arc::clone(&api.clock));
        Self { api, gate, keyring, chance }
    }
}

#[async_trait]
impl Minter for GoogleMinter {
    fn expiry(&self) -> Expiry {
        self.api.target.expiry
    }

    fn prepare(&self, grant: &Grant, behind: Behind<'_>) -> Result<Prepared, MintError> {
        let target = &self.api.target;
        let role = cloud::role(&self.gate, (&target.name, &target.roles), grant)?;
        let expires_at = cloud::end(target.expiry, grant, &behind, &target.issuer)?;
        let named = grant.subject.clone();
        let named = named.unwrap_or_else(|| behind.subject.profile().our_subject());
        let assertion = Assertion {
            issuer: &self.api.target.issuer,
            subject: &subject::bounded(&named, subject::GOOGLE),
            // What a provider without `allowed_audiences` expects.
            audience: &format!("https:{}", self.api.target.provider),
            algorithm: self.api.target.algorithm,
            // For attribute mappings and conditions: `assertion.role`.
            more: [
                ("role", grant.role.as_str().into()),
                ("exchange_id", behind.exchange_id.to_string().into()),
            ]
            .into(),
        };
        let (assertion, jti) = assertion.fix(grant, &behind, &self.keyring, &*self.chance)?;
        // What was asked for beside the role is a part of the role's: policy has seen to it (threat X05).
        let asked = grant.scope.iter().filter(|scope| role.scopes.contains(scope));
        let asked: Vec<String> = asked.cloned().collect();
        let scopes = if asked.is_empty() { role.scopes.clone() } else { asked };
        let ask = Ask::Google { scopes, service_account: role.service_account.clone() };
        let plan = CloudPlan { kind: KIND, assertion: Some(assertion), ask, lease: None };
        Ok(cloud::unleased(grant, expires_at, jti, plan))
    }

    async fn mint(&self, recorded: Recorded<Prepared>) -> Result<Credential, MintError> {
        let (_, prepared) = recorded.redeem();
        let (assertion, ask, fixed, parts) = cloud::planned(prepared, KIND)?;
        let (Some(assertion), Ask::Google { scopes, service_account }) = (assertion, ask) else {
            return Err(MintError::Internal("a plan of another kind".to_owned()));
        };
        let assertion = assertion.sign(&self.keyring).await?;
        let made = cloud::pass(&self.gate, async {
            let (token, ends) = match service_account {
                None => self.api.federate(&assertion, &scopes.join(" ")).await?,
                Some(account) => {
                    let federated = self.api.federate(&assertion, IMPERSONATE).await;
                    // What was not used is no credential: only a lost answer to the second call leaves one.
                    let (federated, _) = federated.map_err(CallError::before)?;
                    self.api.impersonate(&federated, &account, &scopes, fixed).await?
                }
            };
            Ok((token, cloud::told(fixed, ends, self.api.clock.now())?))
        });
        Ok(cloud::credential(parts, made.await?))
    }
}

#[async_trait]
impl Examine for GoogleApi {
    async fn examine(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for url in [&self.target.sts, &self.target.iam_credentials] {
            findings
                .push(reached(url, self.peer.bare(Method::GET, url, None, HeaderMap::new()).await));
        }
        findings
    }
}

/// `base` with these segments behind it, each escaped: none of them can reach another path (threat H12).
pub(super) fn below(base: &Url, segments: &[&str]) -> Result<Url, CallError> {
    let mut url = base.clone();
    match url.path_segments_mut() {
        Ok(mut path) => path.pop_if_empty().extend(segments),
        Err(()) => return Err(CallError::Refused("the configured URL has no path".to_owned())),
    };
    Ok(url)
}

/// Whether somebody with a good certificate answers there; what is answered does not matter.
pub(super) fn reached(url: &Url, answer: Result<Answer, CallError>) -> Finding {
    match answer {
        Ok(_) | Err(CallError::Refused(_) | CallError::Withheld(_) | CallError::Ours(_)) => {
            Finding { verdict: Verdict::Good, detail: format!("`{url}` answers") }
        }
        Err(error @ CallError::Throttled(_)) => {
            Finding { verdict: Verdict::Unwise, detail: format!("`{url}`: {error}") }
        }
        Err(CallError::Lost(reason)) if reason.starts_with("garbage") => {
            Finding { verdict: Verdict::Good, detail: format!("`{url}` answers") }
        }
        Err(error @ (CallError::NotAsked(_) | CallError::Lost(_))) => Finding {
            verdict: Verdict::Bad,
            detail: format!("{error}: look at egress, DNS and `ca_file`"),
        },
    }
}
