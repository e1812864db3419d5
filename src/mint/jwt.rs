//! JWTs of ours: access tokens by RFC 9068, or plain ones for targets that want them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

use super::{Behind, Credential, JwtPlan, MintError, Minter, Plan, Prepared, act, lifetime};
use crate::{
    chance::Chance,
    grant::{Grant, TargetName},
    keys::keyring::{Active, Keyring, TokenType},
    ledger::Recorded,
    subject::{Algorithm, issuers::IssuerUrl},
    target::Expiry,
};

/// Claims that only we set: those of RFC 7519, 8693 and 9068 that say who, for whom, until when and by whom; the proof of
/// possession; and what cloud STSs read as tags.
const RESERVED: [&str; 18] = [
    "iss",
    "sub",
    "aud",
    "exp",
    "nbf",
    "iat",
    "jti",
    "client_id",
    "azp",
    "scope",
    "scp",
    "act",
    "may_act",
    "cnf",
    "auth_time",
    "acr",
    "amr",
    "nonce",
];
const RESERVED_PREFIXES: [&str; 2] = ["https://aws.amazon.com/", "https://sts.amazonaws.com/"];
const JTI_BYTES: usize = 16;

/// Whether a mapped claim of this name would speak in our name, or in a cloud's.
#[must_use]
pub fn is_reserved(claim: &str) -> bool {
    RESERVED.contains(&claim) || RESERVED_PREFIXES.iter().any(|prefix| claim.starts_with(prefix))
}

/// A target that gets a JWT of ours.
#[derive(Clone, Debug)]
pub struct JwtTarget {
    /// Its name.
    pub name: TargetName,
    /// Our `iss`.
    pub issuer: IssuerUrl,
    /// The one `aud`.
    pub audience: String,
    /// What it can verify.
    pub algorithm: Algorithm,
    /// The `typ` it wants.
    pub typ: TokenType,
    /// The longest lifetime it may have.
    pub ceiling: Duration,
    /// Its environment; must be ours.
    pub environment: String,
}

/// A target that can't be served by this ring. Refused at start.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum JwtTargetError {
    /// Another environment.
    #[error("target `{target}` belongs to environment `{found}`, expected `{expected}`")]
    Environment {
        /// Which target.
        target: TargetName,
        /// Its environment.
        found: String,
        /// The ring's.
        expected: String,
    },
    /// No key for it.
    #[error("target `{target}` wants `{algorithm}`, which we do not sign with")]
    Algorithm {
        /// Which target.
        target: TargetName,
        /// What it wants.
        algorithm: Algorithm,
    },
    /// INVARIANT(never-outlive): longer than keys stay published.
    #[error("target `{target}` has a ceiling of {} s, expected 1 s to {} s", ceiling.as_secs(), window.as_secs())]
    Ceiling {
        /// Which target.
        target: TargetName,
        /// Its ceiling.
        ceiling: Duration,
        /// The longest lifetime of the schedule.
        window: Duration,
    },
    /// INVARIANT(closed-by-absence).
    #[error("target `{0}` has no audience")]
    NoAudience(TargetName),
}

/// Mints JWTs of ours for one target.
#[derive(Debug)]
pub struct JwtMinter {
    target: JwtTarget,
    keyring: Arc<Keyring>,
    chance: Arc<dyn Chance>,
}

/// The claims in the order in which they are read by people.
#[derive(Serialize)]
struct ClaimsOut<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    exp: u64,
    iat: u64,
    jti: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'a str>,
    scope: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    act: Option<Value>,
    #[serde(flatten)]
    mapped: &'a BTreeMap<String, Value>,
}

impl JwtMinter {
    /// The minter of `target`.
    ///
    /// # Errors
    /// The ring can't serve it.
    pub fn of(
        target: JwtTarget,
        keyring: Arc<Keyring>,
        chance: Arc<dyn Chance>,
    ) -> Result<Self, JwtTargetError> {
        let name = target.name.clone();
        let expected = keyring.environment();
        if target.environment != expected {
            let found = target.environment;
            return Err(JwtTargetError::Environment { target: name, found, expected });
        }
        if !keyring.schedule().algorithms().contains(&target.algorithm) {
            return Err(JwtTargetError::Algorithm { target: name, algorithm: target.algorithm });
        }
        let (ceiling, window) = (target.ceiling, keyring.schedule().window());
        if ceiling < Duration::from_secs(1) || ceiling > window {
            return Err(JwtTargetError::Ceiling { target: name, ceiling, window });
        }
        if target.audience.is_empty() {
            return Err(JwtTargetError::NoAudience(name));
        }
        Ok(Self { target, keyring, chance })
    }

    /// INVARIANT(never-outlive): also not longer than the key's window.
    fn lifetime(&self, grant: &Grant, behind: &Behind<'_>, active: &Active) -> Duration {
        let most = self.target.ceiling.min(active.window());
        lifetime::bounded(most, grant, behind, self.target.issuer.as_str())
    }

    fn jti(&self) -> Result<String, MintError> {
        let mut bytes = [0_u8; JTI_BYTES];
        self.chance.fill(&mut bytes).map_err(|error| MintError::Internal(error.to_string()))?;
        Ok(URL_SAFE_NO_PAD.encode(bytes))
    }
}

#[async_trait]
impl Minter for JwtMinter {
    fn expiry(&self) -> Expiry {
        Expiry::Exact { floor: Duration::from_secs(1), ceiling: self.target.ceiling }
    }

    fn prepare(&self, grant: &Grant, behind: Behind<'_>) -> Result<Prepared, MintError> {
        let algorithm = self.target.algorithm;
        if grant.target != self.target.name {
            return Err(MintError::Internal(format!("a grant for `{}` came here", grant.target)));
        }
        if let Some(claim) = grant.claims.keys().find(|claim| is_reserved(claim)) {
            return Err(MintError::Refused(format!("claim `{claim}` can't be mapped")));
        }
        let paused = || MintError::NoKey(format!("no {algorithm} key signs now"));
        let active = self.keyring.active(algorithm).ok_or_else(paused)?;
        let iat = behind.now.seconds();
        // Both ends round down: the token never outlives the grant by a part of a second.
        let expires_at = behind.now.plus(self.lifetime(grant, &behind, &active));
        let exp = expires_at.seconds();
        if exp <= iat {
            return Err(MintError::NoLifetime("less than a second".to_owned()));
        }
        let subject = match &grant.subject {
            Some(fixed) => fixed.clone(),
            None => behind.subject.profile().our_subject(),
        };
        let scope = super::scope(grant);
        let jti = self.jti()?;
        let claims = ClaimsOut {
            iss: self.target.issuer.as_str(),
            sub: &subject,
            aud: &self.target.audience,
            exp,
            iat,
            jti: &jti,
            client_id: grant.rules.first().map(crate::grant::RuleId::as_str),
            scope: &scope.join(" "),
            act: act::chain(&behind, self.target.issuer.as_str())?,
            mapped: &grant.claims,
        };
        let plan = JwtPlan::of(&active, self.target.typ, &claims)?;
        Ok(Prepared {
            target: self.target.name.clone(),
            scope,
            expires_at: crate::clock::Instant::from_seconds(exp),
            credential: jti,
            lease: None,
            plan: Plan::Jwt(plan),
        })
    }

    async fn mint(&self, recorded: Recorded<Prepared>) -> Result<Credential, MintError> {
        let (_, prepared) = recorded.redeem();
        if prepared.target != self.target.name {
            return Err(MintError::Internal(format!("prepared for `{}`", prepared.target)));
        }
        let Plan::Jwt(plan) = prepared.plan else {
            return Err(MintError::Internal(format!("a {} is no JWT", prepared.plan.kind())));
        };
        let token = plan.sign(&self.keyring).await?;
        let (issued_token_type, token_type) = match self.target.typ {
            TokenType::AccessToken => ("urn:ietf:params:oauth:token-type:access_token", "Bearer"),
            // RFC 8693 section 2.2.1: not usable as an access token here.
            TokenType::Jwt => ("urn:ietf:params:oauth:token-type:jwt", "N_A"),
        };
        Ok(Credential {
            value: token,
            issued_token_type,
            token_type,
            expires_at: prepared.expires_at,
            scope: prepared.scope,
            lease: None,
        })
    }
}
