//! What Google, Azure and GitHub have in common: an assertion of ours, a call or two over https, a bearer token in the answer.
//!
//! Void is what was refused, throttled, or never asked for: what can't be reached, and what stands before the call that makes
//! the credential. From when that call was sent, an answer that did not come, or came as garbage, is of unknown outcome: a
//! token may exist, in the cloud's own log too, that nobody is known to have. Its spend stays until its end.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use serde_json::Value;
use url::Url;

use super::{
    Behind, Credential, JwtPlan, LATE, LeaseToken, MintError, Plan, Prepared, act,
    gate::{Answered, Gate, NotPassed},
    lifetime,
};
use crate::{
    chance::Chance,
    clock::Instant,
    grant::{Grant, RoleName, RuleId, TargetName},
    keys::keyring::{Keyring, TokenType},
    secret::Secret,
    subject::Algorithm,
    target::Expiry,
};

pub mod peer;
pub mod subject;

pub use peer::{Answer, Peer, PeerError, Reaching};

/// How long making one credential may take, all its calls and the wait for a place included.
pub const MINT_LIMIT: Duration = Duration::from_secs(10);
/// When to come back where nothing was asked.
const AGAIN: Duration = Duration::from_secs(2);
/// How long an assertion of ours verifies: it is used within seconds, and by us.
const ASSERTION: Duration = Duration::from_secs(120);
/// How far an assertion's `iat` lies back: Google refuses one from its future, and no two clocks agree.
const BACKDATED: Duration = Duration::from_secs(30);
const JTI_BYTES: usize = 16;
/// The longest bearer token that is taken: Google says up to 12 KB.
const LONGEST_TOKEN: usize = 16 * 1024;

/// A call or two to be made: everything final, nothing of it sent yet.
#[derive(Debug)]
pub struct CloudPlan {
    /// The target kind: `google`, `azure`, `github`.
    pub kind: &'static str,
    /// What we sign with a key of ours, where the cloud trusts our issuer.
    pub assertion: Option<JwtPlan>,
    /// What is asked for.
    pub ask: Ask,
    /// What its holder ends it by, where it can be ended.
    pub(super) lease: Option<LeaseToken>,
}

/// What is asked for, by kind.
#[derive(Debug)]
pub enum Ask {
    /// Google: scopes, and the service account to act as.
    Google {
        /// OAuth scopes.
        scopes: Vec<String>,
        /// Its email address; none for the federated token itself.
        service_account: Option<String>,
    },
    /// Azure: an application, and what it asks for.
    Azure {
        /// The application.
        client_id: String,
        /// `<resource>/.default`.
        scope: String,
    },
    /// GitHub: the body of the request, JSON.
    Github {
        /// Repositories and permissions.
        body: String,
    },
}

/// A cloud did not give what it was asked for.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum CallError {
    /// It said no.
    #[error("{0}")]
    Refused(String),
    /// It said *later*, and when.
    #[error("it is throttling for {} s", .0.as_secs())]
    Throttled(Duration),
    /// It could not be reached, or a step before the one that makes the credential got no answer: there is none.
    #[error("{0}")]
    NotAsked(String),
    /// It was asked, and failed, was silent or talked garbage: there may be a credential, which nobody has.
    #[error("{0}")]
    Lost(String),
    /// What came may not be handed on, and lives until it ends.
    #[error("withheld: {0}")]
    Withheld(String),
    /// We could not ask: a defect or a withdrawn key of ours.
    #[error(transparent)]
    Ours(MintError),
}

impl CallError {
    /// Of a call whose result alone is no credential.
    pub(super) fn before(self) -> Self {
        match self {
            Self::Lost(reason) => Self::NotAsked(reason),
            Self::Refused(_)
            | Self::Throttled(_)
            | Self::NotAsked(_)
            | Self::Withheld(_)
            | Self::Ours(_) => self,
        }
    }
}

impl<T> Answered for Result<T, CallError> {
    fn answered(&self) -> bool {
        !matches!(self, Err(CallError::NotAsked(_) | CallError::Lost(_) | CallError::Throttled(_)))
    }
}

/// Makes the calls within [`MINT_LIMIT`], through the target's gate.
pub(super) async fn pass<T: Send>(
    gate: &Gate,
    calls: impl Future<Output = Result<T, CallError>> + Send,
) -> Result<T, MintError> {
    let done = gate.pass(MINT_LIMIT, calls).await.map_err(|reason| match reason {
        NotPassed::Closed(wait) => MintError::Busy(wait),
        NotPassed::Full => MintError::Busy(AGAIN),
        NotPassed::TimedOut => {
            MintError::Unknown(format!("no answer within {} s", MINT_LIMIT.as_secs()))
        }
    })?;
    done.map_err(|error| match error {
        CallError::Refused(reason) => MintError::Refused(reason),
        CallError::Throttled(wait) => MintError::Busy(wait),
        CallError::NotAsked(ref reason) => {
            tracing::warn!("{reason}");
            MintError::Busy(AGAIN)
        }
        CallError::Lost(_) | CallError::Withheld(_) => MintError::Unknown(error.to_string()),
        CallError::Ours(error) => error,
    })
}

/// The role of a grant for this target, if anybody may be asked for it now.
pub(super) fn role<'a, R>(
    gate: &Gate,
    (name, roles): (&TargetName, &'a BTreeMap<RoleName, R>),
    grant: &Grant,
) -> Result<&'a R, MintError> {
    if grant.target != *name {
        return Err(MintError::Internal(format!("a grant for `{}` came here", grant.target)));
    }
    gate.is_open().map_err(MintError::Busy)?;
    let role = roles.get(&grant.role);
    role.ok_or_else(|| MintError::Internal(format!("no role `{}`", grant.role)))
}

/// What is prepared where nothing can be ended: `jti` names it, as the cloud's own log may.
pub(super) fn unleased(
    grant: &Grant,
    expires_at: Instant,
    jti: String,
    plan: CloudPlan,
) -> Prepared {
    Prepared {
        target: grant.target.clone(),
        scope: super::scope(grant),
        expires_at,
        credential: jti,
        lease: None,
        plan: Plan::Cloud(Box::new(plan)),
    }
}

/// A token endpoint's answer (RFC 6749 section 5.1): the token, and its end counted from `asked_at`, which is never too late.
pub(super) async fn token(
    peer: &Peer,
    url: &Url,
    form: &[(&str, &str)],
    asked_at: Instant,
) -> Result<(Secret, Instant), CallError> {
    let mut answer = peer.post_form(url, form).await?;
    let ends = asked_at.plus(seconds(&answer, "expires_in")?);
    Ok((bearer(&mut answer, "access_token")?, ends))
}

/// INVARIANT(honest-expiry): the end that is fixed before the commit, or none where the target can't keep it.
pub(super) fn end(
    expiry: Expiry,
    grant: &Grant,
    behind: &Behind<'_>,
    ours: &str,
) -> Result<Instant, MintError> {
    let (floor, most) = match expiry {
        Expiry::Exact { floor, ceiling } => (floor, ceiling),
        Expiry::Fixed(length) => (length, length),
        Expiry::ByBroker { ceiling } => (Duration::from_secs(1), ceiling),
    };
    let lifetime = lifetime::bounded(most, grant, behind, ours);
    let ends = Instant::from_seconds(behind.now.plus(lifetime).seconds());
    if lifetime < floor || ends <= behind.now {
        let (left, floor) = (lifetime.as_secs(), floor.as_secs());
        return Err(MintError::NoLifetime(format!("{left} s, expected at least {floor} s")));
    }
    Ok(ends)
}

/// INVARIANT(never-outlive): what the caller may be told of a token that ends at `end`, when `fixed` stands in the ledger.
///
/// Never later than what was recorded: by seconds a token may outlast it, because it was made after the commit.
pub(super) fn told(fixed: Instant, end: Instant, now: Instant) -> Result<Instant, CallError> {
    if end > fixed.plus(LATE) {
        return Err(CallError::Withheld(format!("it lives until {end}, expected {fixed}")));
    }
    if end <= now {
        return Err(CallError::Refused(format!("what came had ended at {end}")));
    }
    Ok(end.min(fixed))
}

/// What an assertion of ours says.
pub(super) struct Assertion<'a> {
    pub(super) issuer: &'a str,
    pub(super) subject: &'a str,
    pub(super) audience: &'a str,
    pub(super) algorithm: Algorithm,
    /// Further claims; never registered ones.
    pub(super) more: BTreeMap<&'static str, Value>,
}

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
    #[serde(skip_serializing_if = "Option::is_none")]
    act: Option<Value>,
    #[serde(flatten)]
    more: BTreeMap<&'static str, Value>,
}

impl Assertion<'_> {
    /// Every byte of it, and its `jti`. It names the rule and the actors: what the cloud's own log can show.
    pub(super) fn fix(
        self,
        grant: &Grant,
        behind: &Behind<'_>,
        keyring: &Keyring,
        chance: &dyn Chance,
    ) -> Result<(JwtPlan, String), MintError> {
        let algorithm = self.algorithm;
        let active = keyring
            .active(algorithm)
            .ok_or_else(|| MintError::NoKey(format!("no {algorithm} key signs now")))?;
        let jti = random::<JTI_BYTES>(chance)?;
        let claims = ClaimsOut {
            iss: self.issuer,
            sub: self.subject,
            aud: self.audience,
            // INVARIANT(never-outlive): not longer than the key stays published.
            exp: behind.now.plus(ASSERTION.min(active.window())).seconds(),
            iat: behind.now.minus(BACKDATED).seconds(),
            jti: &jti,
            client_id: grant.rules.first().map(RuleId::as_str),
            act: act::chain(behind, self.issuer)?,
            more: self.more,
        };
        Ok((JwtPlan::of(&active, TokenType::Jwt, &claims)?, jti))
    }
}

/// Base64url of `N` random bytes.
pub(super) fn random<const N: usize>(chance: &dyn Chance) -> Result<String, MintError> {
    let mut bytes = zeroize::Zeroizing::new([0_u8; N]);
    chance.fill(&mut *bytes).map_err(|error| MintError::Internal(error.to_string()))?;
    Ok(URL_SAFE_NO_PAD.encode(*bytes))
}

/// The token under `name`: what can stand in an `Authorization` header (RFC 6750 section 2.1) and nothing else.
pub(super) fn bearer(answer: &mut Answer, name: &str) -> Result<Secret, CallError> {
    let garbage = |what: &str| CallError::Lost(format!("`{name}` {what}"));
    let Some(Value::String(token)) = answer.members.remove(name) else {
        return Err(garbage("is not there, or no text"));
    };
    let token = Secret::from(token);
    let text = token.reveal();
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
    if text.is_empty() || text.len() > LONGEST_TOKEN || !text.iter().all(fits) {
        return Err(garbage("is no bearer token"));
    }
    Ok(token)
}

/// Seconds under `name`, as a number or as digits.
pub(super) fn seconds(answer: &Answer, name: &str) -> Result<Duration, CallError> {
    let found = answer.members.get(name);
    let number = found.and_then(Value::as_u64);
    let number = number.or_else(|| found.and_then(Value::as_str)?.parse().ok());
    match number {
        Some(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        _ => Err(CallError::Lost(format!("`{name}` is no number of seconds"))),
    }
}

/// The instant under `name` (RFC 3339).
pub(super) fn instant(answer: &Answer, name: &str) -> Result<Instant, CallError> {
    let found = answer.members.get(name).and_then(Value::as_str);
    let stamp = found.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let seconds = stamp.and_then(|stamp| u64::try_from(stamp.as_second()).ok());
    seconds
        .map(Instant::from_seconds)
        .ok_or_else(|| CallError::Lost(format!("`{name}` is no time")))
}

/// The credential: for a client it is an access token like any other.
pub(super) fn credential(
    prepared: PreparedParts,
    (value, expires_at): (Secret, Instant),
) -> Credential {
    Credential {
        value,
        issued_token_type: "urn:ietf:params:oauth:token-type:access_token",
        token_type: "Bearer",
        expires_at,
        scope: prepared.scope,
        lease: prepared.lease,
    }
}

/// What of a [`Prepared`] its credential repeats.
pub(super) struct PreparedParts {
    pub(super) scope: Vec<String>,
    pub(super) lease: Option<LeaseToken>,
}

/// The plan of `prepared`, which must be one of `kind`, and the rest of it.
pub(super) fn planned(
    prepared: Prepared,
    kind: &str,
) -> Result<(Option<JwtPlan>, Ask, Instant, PreparedParts), MintError> {
    let found = prepared.plan.kind();
    let Plan::Cloud(plan) = prepared.plan else {
        return Err(MintError::Internal(format!("a {found} is no {kind}")));
    };
    if plan.kind != kind {
        return Err(MintError::Internal(format!("a {found} is no {kind}")));
    }
    let parts = PreparedParts { scope: prepared.scope, lease: plan.lease };
    Ok((plan.assertion, plan.ask, prepared.expires_at, parts))
}
