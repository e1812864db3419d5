//! Azure: our JWT is the client assertion of an application (RFC 7523 section 2.2), and buys its access token at Entra.
//!
//! Entra compares issuer, subject and audience byte for byte, so each application has one fixed subject: who stands behind a
//! token is told by our ledger, and by the `jti` and `exchange_id` of the assertion.

use std::{collections::BTreeMap, fmt, sync::Arc};

use async_trait::async_trait;
use reqwest::{Method, header::HeaderMap};
use url::Url;

use super::{
    Behind, Credential, MintError, Minter, Prepared,
    cloud::{self, Ask, Assertion, CallError, CloudPlan, Peer, PeerError, Reaching},
    examine::{Examine, Finding},
    gate::Gate,
    google::{below, reached},
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

const KIND: &str = "azure";
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A power of an Azure target: an application, and what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AzureRole {
    /// The application (or user-assigned identity).
    pub client_id: String,
    /// The `subject` of its federated credential.
    pub subject: String,
    /// `<resource>/.default`.
    pub scope: String,
}

/// A target that gives tokens of Entra.
#[derive(Clone, Debug)]
pub struct AzureTarget {
    /// Its name.
    pub name: TargetName,
    /// Our `iss`.
    pub issuer: String,
    /// The directory's id.
    pub tenant: String,
    /// `api://AzureADTokenExchange`, or that of a sovereign cloud.
    pub audience: String,
    /// Its powers.
    pub roles: BTreeMap<RoleName, AzureRole>,
    /// How its tokens end: fixed, by the tenant's token lifetime policy.
    pub expiry: Expiry,
    /// `https://login.microsoftonline.com`.
    pub authority: Url,
    /// How it is reached.
    pub reaching: Reaching,
    /// How many calls at once.
    pub at_once: usize,
}

/// Asks Entra.
pub struct AzureApi {
    target: AzureTarget,
    peer: Peer,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for AzureApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AzureApi").field("target", &self.target).finish_non_exhaustive()
    }
}

impl AzureApi {
    /// What asks for `target`.
    ///
    /// # Errors
    /// There is no client to be had.
    pub fn of(target: AzureTarget, clock: Arc<dyn Clock>) -> Result<Self, PeerError> {
        let peer = Peer::of(&target.reaching)?;
        Ok(Self { target, peer, clock })
    }

    async fn token(
        &self,
        assertion: &Secret,
        client_id: &str,
        scope: &str,
    ) -> Result<(Secret, Instant), CallError> {
        let path = [self.target.tenant.as_str(), "oauth2", "v2.0", "token"];
        let url = below(&self.target.authority, &path)?;
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", client_id),
            ("scope", scope),
            ("client_assertion_type", ASSERTION_TYPE),
            ("client_assertion", assertion.reveal_text().unwrap_or_default()),
        ];
        cloud::token(&self.peer, &url, &form, self.clock.now()).await
    }
}

/// Makes tokens of Entra.
#[derive(Debug)]
pub struct AzureMinter {
    api: AzureApi,
    gate: Gate,
    keyring: Arc<Keyring>,
    chance: Arc<dyn Chance>,
}

impl AzureMinter {
    /// The minter that asks by `api`.
    #[must_use]
    pub fn of(api: AzureApi, keyring: Arc<Keyring>, chance: Arc<dyn Chance>) -> Self {
        let gate = Gate::of(api.target.at_once, Arc::clone(&api.clock));
        Self { api, gate, keyring, chance }
    }
}

#[async_trait]
impl Minter for AzureMinter {
    fn expiry(&self) -> Expiry {
        self.api.target.expiry
    }

    fn prepare(&self, grant: &Grant, behind: Behind<'_>) -> Result<Prepared, MintError> {
        let target = &self.api.target;
        let role = cloud::role(&self.gate, (&target.name, &target.roles), grant)?;
        if grant.subject.is_some() {
            let reason = "the rule fixes a `subject`: at this target each application has its own";
            return Err(MintError::Refused(reason.to_owned()));
        }
        let expires_at = cloud::end(target.expiry, grant, &behind, &target.issuer)?;
        let assertion = Assertion {
            issuer: &self.api.target.issuer,
            subject: &role.subject,
            audience: &self.api.target.audience,
            // Entra verifies no other.
            algorithm: Algorithm::RS256,
            more: [("exchange_id", behind.exchange_id.to_string().into())].into(),
        };
        let (assertion, jti) = assertion.fix(grant, &behind, &self.keyring, &*self.chance)?;
        let ask = Ask::Azure { client_id: role.client_id.clone(), scope: role.scope.clone() };
        let plan = CloudPlan { kind: KIND, assertion: Some(assertion), ask, lease: None };
        Ok(cloud::unleased(grant, expires_at, jti, plan))
    }

    async fn mint(&self, recorded: Recorded<Prepared>) -> Result<Credential, MintError> {
        let (_, prepared) = recorded.redeem();
        let (assertion, ask, fixed, parts) = cloud::planned(prepared, KIND)?;
        let (Some(assertion), Ask::Azure { client_id, scope }) = (assertion, ask) else {
            return Err(MintError::Internal("a plan of another kind".to_owned()));
        };
        let assertion = assertion.sign(&self.keyring).await?;
        let made = cloud::pass(&self.gate, async {
            let (token, ends) = self.api.token(&assertion, &client_id, &scope).await?;
            Ok((token, cloud::told(fixed, ends, self.api.clock.now())?))
        });
        Ok(cloud::credential(parts, made.await?))
    }
}

#[async_trait]
impl Examine for AzureApi {
    async fn examine(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        // Public, and there for every tenant that exists: another id answers 400.
        let path = [self.target.tenant.as_str(), "v2.0", ".well-known", "openid-configuration"];
        if let Ok(url) = below(&self.target.authority, &path) {
            let answer = self.peer.bare(Method::GET, &url, None, HeaderMap::new()).await;
            findings.push(match answer {
                Err(CallError::Refused(said)) => Finding {
                    verdict: super::examine::Verdict::Bad,
                    detail: format!("tenant `{}`: {said}: see `tenant`", self.target.tenant),
                },
                answer => reached(&url, answer),
            });
        }
        findings
    }
}
