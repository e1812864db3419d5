//! AWS sessions: `AssumeRoleWithWebIdentity` with a JWT that we mint for it, or `AssumeRole` with the broker's own identity.
//!
//! AWS itself ends a session, and nobody can call one back: there is no lease. The entry holds the worst end, the answer the
//! true one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use serde_json::{Value, json};
use thiserror::Error;

use super::{
    Behind, Credential, JwtPlan, LATE, MintError, Minter, Plan, Prepared, Unsuited,
    gate::{Answered, Gate, NotPassed},
    lifetime,
};
use crate::{
    chance::Chance,
    clock::{Clock, Instant},
    grant::{Grant, Narrowing, RoleName, TargetName},
    keys::keyring::Keyring,
    ledger::{Hash, Recorded},
    secret::Secret,
    subject::{Algorithm, issuers::IssuerUrl},
    target::Expiry,
};

mod assertion;
pub mod examine;
pub mod naming;
pub mod sts;

use sts::{Session, Sts, StsError};

/// The `issued_token_type` of an AWS session: ours, because RFC 8693 section 3 names none.
pub const TOKEN_TYPE: &str = "urn:cambio:token-type:aws";

/// How long a call to STS may take, waiting for a place included.
pub const MINT_LIMIT: Duration = Duration::from_secs(10);
/// STS gives no shorter session (`DurationSeconds`, AWS STS API reference).
pub const FLOOR: Duration = Duration::from_mins(15);
/// STS gives no longer one.
pub const CEILING: Duration = Duration::from_hours(12);
/// Role chaining: credentials of a role that assume another role get no more (AWS STS API reference, `AssumeRole`).
pub const CHAINED_CEILING: Duration = Duration::from_hours(1);
/// The most characters of a session policy (AWS STS API reference, `Policy`).
pub const LONGEST_POLICY: usize = 2_048;
/// The most managed policies that narrow a session.
pub const MOST_POLICY_ARNS: usize = 10;
/// A session of exactly the floor begins when STS answers, which is a little after the exchange: so much is between them at most.
const ROOM: Duration = Duration::from_secs(30);
/// When to come back after STS said that it has too much to do, and after it could not be reached.
const AGAIN: Duration = Duration::from_secs(2);

/// Who assumes roles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Nobody: AWS trusts our issuer, and each call carries a JWT of ours.
    WebIdentity {
        /// The `aud` that the IAM OIDC provider lists.
        audience: String,
        /// RS256 or ES256: AWS takes no `EdDSA`.
        algorithm: Algorithm,
    },
    /// The broker's own identity in AWS, as its surroundings give it.
    Ambient,
}

/// Where a tag, a source identity or a part of a session's name comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A claim of the subject, resolved by policy into [`Grant::claims`] under this key.
    Claim(String),
    /// The first rule that permitted it.
    Rule,
    /// `<issuer name>:<stable id>`.
    Subject,
    /// The exchange.
    Exchange,
}

/// What one role of the target is in AWS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsRole {
    /// `arn:aws:iam::123456789012:role/deploy`.
    pub arn: String,
    /// The longest session, if the role has a shorter one than the target.
    pub ceiling: Option<Duration>,
    /// Narrows each session (JSON).
    pub session_policy: Option<String>,
    /// Managed policies that narrow each session.
    pub policy_arns: Vec<String>,
    /// What the role's trust policy wants as `sts:ExternalId`; with [`Identity::Ambient`] only.
    pub external_id: Option<String>,
    /// Session tags.
    pub tags: BTreeMap<String, Origin>,
    /// Those of the tags that stay when the session assumes a further role.
    pub transitive: BTreeSet<String>,
    /// `sts:SourceIdentity`: can't be changed by whoever gets the session.
    pub source_identity: Option<Origin>,
    /// What the readable part of the session's name is made of; the subject where it is empty.
    pub session_name: Vec<Origin>,
}

/// A target that gives AWS sessions.
#[derive(Clone, Debug)]
pub struct AwsTarget {
    /// Its name.
    pub name: TargetName,
    /// Our `iss`, which the IAM OIDC provider names.
    pub issuer: IssuerUrl,
    /// Who assumes its roles.
    pub identity: Identity,
    /// Its roles.
    pub roles: BTreeMap<RoleName, AwsRole>,
    /// The shortest session.
    pub floor: Duration,
    /// The longest.
    pub ceiling: Duration,
    /// For the caller's SDK.
    pub region: String,
    /// How many calls at once.
    pub at_once: usize,
}

/// A target that can't be served. Refused at start.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AwsTargetError {
    /// INVARIANT(honest-expiry): AWS keeps no such lifetime.
    #[error("target `{target}` has lifetimes from {} s to {} s, expected from 900 s to {} s", floor.as_secs(), ceiling.as_secs(), most.as_secs())]
    Lifetimes {
        /// Which target.
        target: TargetName,
        /// Its floor.
        floor: Duration,
        /// Its ceiling.
        ceiling: Duration,
        /// What AWS keeps.
        most: Duration,
    },
    /// No key for it.
    #[error(
        "target `{target}` wants `{algorithm}`, which we do not sign with, or which AWS does not take"
    )]
    Algorithm {
        /// Which target.
        target: TargetName,
        /// What it wants.
        algorithm: Algorithm,
    },
}

/// A session to be asked for: everything that will be true of it is final.
#[derive(Debug)]
pub struct AwsPlan {
    /// The role.
    pub arn: String,
    /// Ours, never the caller's (threat H11).
    pub session_name: String,
    /// How it is assumed.
    pub how: How,
    /// Narrows the session (JSON).
    pub policy: Option<String>,
    /// Managed policies that narrow the session.
    pub policy_arns: Vec<String>,
    /// INVARIANT(never-outlive): the longest session, counted by AWS from when it begins.
    length: Duration,
    /// INVARIANT(never-outlive): the latest end, by our clock.
    worst_end: Instant,
    floor: Duration,
}

/// How a role is assumed.
#[derive(Debug)]
pub enum How {
    /// With an assertion of ours: tags and source identity are in its claims.
    WebIdentity(JwtPlan),
    /// With our own identity: tags and source identity are parameters.
    Ambient {
        /// `sts:ExternalId`.
        external_id: Option<String>,
        /// Session tags.
        tags: BTreeMap<String, String>,
        /// Those that stay along a chain.
        transitive: BTreeSet<String>,
        /// `sts:SourceIdentity`.
        source_identity: Option<String>,
    },
}

impl AwsPlan {
    /// What we sign for it, where we do: SHA-256 and `kid`.
    pub(super) fn signed(&self) -> Option<(Hash, &str)> {
        match &self.how {
            How::WebIdentity(jwt) => Some((jwt.digest, &jwt.kid)),
            How::Ambient { .. } => None,
        }
    }

    /// Narrows the session by what the caller asked for. A session has one inline policy, and AWS adds up what several session
    /// policies allow: where the role has any, a further one could widen it.
    ///
    /// # Errors
    /// It can't be narrowed any further: nothing that narrows is ever dropped.
    pub fn narrow(&mut self, by: &Narrowing) -> Result<(), MintError> {
        if by.policy.is_none() && by.policy_arns.is_empty() {
            return Ok(());
        }
        if self.policy.is_some() || !self.policy_arns.is_empty() {
            let reason = "the role has session policies of its own";
            return Err(MintError::Unsuited(Unsuited::Narrowing, reason.to_owned()));
        }
        self.policy.clone_from(&by.policy);
        self.policy_arns.clone_from(&by.policy_arns);
        Ok(())
    }
}

/// Gets sessions for one target.
#[derive(Debug)]
pub struct AwsMinter {
    target: AwsTarget,
    sts: Arc<Sts>,
    gate: Gate,
    keyring: Arc<Keyring>,
    clock: Arc<dyn Clock>,
    chance: Arc<dyn Chance>,
}

impl AwsMinter {
    /// The minter of `target`, which asks `sts`.
    ///
    /// # Errors
    /// It can't be served.
    pub fn of(
        target: AwsTarget,
        sts: Arc<Sts>,
        keyring: Arc<Keyring>,
        clock: Arc<dyn Clock>,
        chance: Arc<dyn Chance>,
    ) -> Result<Self, AwsTargetError> {
        let most = match &target.identity {
            Identity::WebIdentity { algorithm, .. } => {
                let taken = matches!(algorithm, Algorithm::RS256 | Algorithm::ES256);
                if !taken || !keyring.schedule().algorithms().contains(algorithm) {
                    let algorithm = *algorithm;
                    return Err(AwsTargetError::Algorithm { target: target.name, algorithm });
                }
                CEILING
            }
            Identity::Ambient => CHAINED_CEILING,
        };
        let (floor, ceiling) = (target.floor, target.ceiling);
        if floor < FLOOR || ceiling > most || floor > ceiling {
            return Err(AwsTargetError::Lifetimes { target: target.name, floor, ceiling, most });
        }
        let gate = Gate::of(target.at_once, Arc::clone(&clock));
        Ok(Self { target, sts, gate, keyring, clock, chance })
    }

    /// INVARIANT(never-outlive): how long the session may be at most, and when it must have ended. Both bind: AWS counts the
    /// length from when it answers, and the end is that of the subject token, where it has one.
    fn bounds(
        &self,
        role: &AwsRole,
        grant: &Grant,
        behind: &Behind<'_>,
    ) -> Result<(Duration, Instant), MintError> {
        let ceiling = role.ceiling.unwrap_or(self.target.ceiling).min(self.target.ceiling);
        let length = grant.lifetime.min(ceiling);
        let length = Duration::from_secs(length.as_secs());
        let latest = lifetime::latest(grant, behind, self.target.issuer.as_str());
        let left = latest.map_or(Duration::MAX, |latest| latest.since(behind.now));
        if length.min(left) < self.target.floor {
            let (found, floor) = (length.min(left).as_secs(), self.target.floor.as_secs());
            return Err(MintError::NoLifetime(format!(
                "{found} s, and AWS keeps {floor} s or more"
            )));
        }
        let own = behind.now.plus(length.max(self.target.floor.saturating_add(ROOM)));
        let end = latest.map_or(own, |latest| own.min(latest));
        Ok((length, Instant::from_seconds(end.seconds())))
    }

    /// The text of a tag, a source identity or a part of a name. What must be there and is not is no session
    /// (INVARIANT(closed-by-absence)): a role whose permissions hang on a tag must not be had without it.
    fn text(from: &Origin, grant: &Grant, behind: &Behind<'_>) -> Result<String, MintError> {
        let unsuited = |reason: String| Err(MintError::Unsuited(Unsuited::Claim, reason));
        let key = match from {
            Origin::Rule => {
                return Ok(grant.rules.first().map(ToString::to_string).unwrap_or_default());
            }
            Origin::Subject => return Ok(behind.subject.profile().our_subject()),
            Origin::Exchange => return Ok(behind.exchange_id.to_string()),
            Origin::Claim(key) => key,
        };
        match grant.claims.get(key) {
            Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
            Some(Value::Number(number)) if number.is_i64() || number.is_u64() => {
                Ok(number.to_string())
            }
            Some(Value::Bool(yes)) => Ok(yes.to_string()),
            Some(_) => unsuited(format!(
                "the claim of `{key}` is empty, or no text, whole number or boolean"
            )),
            None => unsuited(format!("the token has no claim for `{key}`")),
        }
    }

    fn session_name(
        role: &AwsRole,
        grant: &Grant,
        behind: &Behind<'_>,
    ) -> Result<String, MintError> {
        let subject = behind.subject.profile().our_subject();
        let parts: Vec<String> = if role.session_name.is_empty() {
            vec![subject.clone()]
        } else {
            let part = |from| Self::text(from, grant, behind);
            role.session_name.iter().map(part).collect::<Result<_, _>>()?
        };
        Ok(naming::session_name(&subject, &parts))
    }
}

#[async_trait]
impl Minter for AwsMinter {
    fn expiry(&self) -> Expiry {
        Expiry::Exact { floor: self.target.floor, ceiling: self.target.ceiling }
    }

    fn prepare(&self, grant: &Grant, behind: Behind<'_>) -> Result<Prepared, MintError> {
        if grant.target != self.target.name {
            return Err(MintError::Internal(format!("a grant for `{}` came here", grant.target)));
        }
        let unknown = || MintError::Internal(format!("no role `{}` is there", grant.role));
        let role = self.target.roles.get(&grant.role).ok_or_else(unknown)?;
        self.gate.is_open().map_err(MintError::Busy)?;
        let (length, worst_end) = self.bounds(role, grant, &behind)?;
        let session_name = Self::session_name(role, grant, &behind)?;
        let tag = |(key, from): (&String, &Origin)| {
            let value = Self::text(from, grant, &behind)?;
            Ok((key.clone(), naming::tag_value(&value)))
        };
        let tags: BTreeMap<String, String> =
            role.tags.iter().map(tag).collect::<Result<_, MintError>>()?;
        let source_identity = match &role.source_identity {
            Some(from) => {
                let issuer = behind.subject.profile().issuer.to_string();
                Some(naming::session_name(&issuer, &[Self::text(from, grant, &behind)?]))
            }
            None => None,
        };
        let how = match &self.target.identity {
            Identity::WebIdentity { audience, algorithm } => How::WebIdentity(assertion::plan(
                &assertion::For {
                    issuer: self.target.issuer.as_str(),
                    audience,
                    tags: &tags,
                    transitive: &role.transitive,
                    source_identity: source_identity.as_deref(),
                },
                *algorithm,
                grant,
                &behind,
                (&self.keyring, &*self.chance),
            )?),
            Identity::Ambient => How::Ambient {
                external_id: role.external_id.clone(),
                tags,
                transitive: role.transitive.clone(),
                source_identity,
            },
        };
        let plan = AwsPlan {
            arn: role.arn.clone(),
            session_name: session_name.clone(),
            how,
            policy: role.session_policy.clone(),
            policy_arns: role.policy_arns.clone(),
            length,
            worst_end,
            floor: self.target.floor,
        };
        Ok(Prepared {
            target: self.target.name.clone(),
            scope: super::scope(grant),
            expires_at: worst_end,
            credential: session_name,
            lease: None,
            plan: Plan::Aws(Box::new(plan)),
        })
    }

    async fn mint(&self, recorded: Recorded<Prepared>) -> Result<Credential, MintError> {
        let (_, prepared) = recorded.redeem();
        let Plan::Aws(plan) = prepared.plan else {
            return Err(MintError::Internal(format!("a {} is no session", prepared.plan.kind())));
        };
        let session = self.session(&prepared.target, *plan).await?;
        Ok(Credential {
            value: credential(&session, &self.target.region)?,
            issued_token_type: TOKEN_TYPE,
            token_type: "N_A",
            expires_at: session.expires_at,
            scope: prepared.scope,
            lease: None,
        })
    }
}

impl AwsMinter {
    /// Asks for the session of `plan`, which was recorded.
    pub(super) async fn session(
        &self,
        target: &TargetName,
        plan: AwsPlan,
    ) -> Result<Session, MintError> {
        if *target != self.target.name {
            return Err(MintError::Internal(format!("prepared for `{target}`")));
        }
        let AwsPlan { arn, session_name, how, policy, policy_arns, length, worst_end, floor } =
            plan;
        let (assertion, ambient) = match how {
            How::WebIdentity(jwt) => (Some(jwt.sign(&self.keyring).await?), None),
            How::Ambient { external_id, tags, transitive, source_identity } => {
                (None, Some(sts::Ambient { external_id, tags, transitive, source_identity }))
            }
        };
        let asks_policy = policy.is_some() || !policy_arns.is_empty();
        let ask = sts::Ask { arn, session_name, assertion, ambient, policy, policy_arns };
        let call = Box::pin(async {
            // What is left when the call leaves here, a place at the gate included.
            let left = length.min(worst_end.since(self.clock.now())).as_secs();
            if left < floor.as_secs() {
                return Err(StsError::NotAsked(format!("{left} s were left when its turn came")));
            }
            self.sts.assume(&ask, i32::try_from(left).unwrap_or(i32::MAX)).await
        });
        let made = self.gate.pass(MINT_LIMIT, call).await.map_err(not_passed)?;
        let session = made.map_err(|error| mint_error(&error, asks_policy))?;
        // INVARIANT(honest-expiry): the end that AWS tells is the end that the caller is told. INVARIANT(never-outlive): a later
        // one than was granted, by more than two clocks may differ, is not what was recorded, and does not leave.
        let now = self.clock.now();
        if session.expires_at > worst_end.plus(LATE) || session.expires_at <= now {
            return Err(MintError::Unknown(format!(
                "STS told the end {}, expected one until {worst_end}: the session is withheld",
                session.expires_at
            )));
        }
        Ok(session)
    }
}

/// Too much to do is no answer, for the gate: whoever is throttled does best to ask less.
impl Answered for Result<Session, StsError> {
    fn answered(&self) -> bool {
        match self {
            Ok(_) => true,
            Err(error) => match error {
                StsError::NotAsked(_)
                | StsError::Refused(_)
                | StsError::BadPolicy(_)
                | StsError::PolicyTooLarge(_)
                | StsError::NoIdentity(_)
                | StsError::KeysOutOfReach(_) => true,
                StsError::Throttled(_) | StsError::Unreachable(_) | StsError::Lost(_) => false,
            },
        }
    }
}

fn not_passed(reason: NotPassed) -> MintError {
    match reason {
        NotPassed::Closed(wait) => MintError::Busy(wait),
        NotPassed::Full => MintError::Busy(AGAIN),
        NotPassed::TimedOut => {
            MintError::Unknown(format!("no answer within {} s", MINT_LIMIT.as_secs()))
        }
    }
}

fn mint_error(error: &StsError, asks_policy: bool) -> MintError {
    let text = error.to_string();
    match error {
        StsError::Throttled(wait) => MintError::Busy(wait.unwrap_or(AGAIN)),
        StsError::Unreachable(_) | StsError::KeysOutOfReach(_) => MintError::Busy(AGAIN),
        StsError::BadPolicy(_) if asks_policy => MintError::Unsuited(Unsuited::Narrowing, text),
        StsError::PolicyTooLarge(_) => MintError::Unsuited(Unsuited::TooLarge, text),
        StsError::NotAsked(_)
        | StsError::Refused(_)
        | StsError::BadPolicy(_)
        | StsError::NoIdentity(_) => MintError::Refused(text),
        StsError::Lost(_) => MintError::Unknown(text),
    }
}

/// The credential as JSON text.
fn credential(session: &Session, region: &str) -> Result<Secret, MintError> {
    let text = |secret: &Secret| {
        let text = secret.reveal_text().map(str::to_owned);
        text.ok_or_else(|| MintError::Internal("a secret is no text".to_owned()))
    };
    let mut members = json!({
        "kind": "aws",
        "access_key_id": session.access_key_id,
        "secret_access_key": text(&session.secret_access_key)?,
        "session_token": text(&session.session_token)?,
        "region": region,
        "expires_at": session.expires_at.to_string(),
    });
    if let (Some(map), Some(user)) = (members.as_object_mut(), &session.assumed) {
        map.insert("assumed_role_arn".to_owned(), json!(user.arn));
        map.insert("assumed_role_id".to_owned(), json!(user.id));
    }
    if let (Some(map), Some(percent)) = (members.as_object_mut(), session.packed_policy_size) {
        map.insert("packed_policy_size".to_owned(), json!(percent));
    }
    Ok(Secret::from(members.to_string()))
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Claim(key) => key,
            Self::Rule => "cambio.rule",
            Self::Subject => "cambio.subject",
            Self::Exchange => "cambio.exchange",
        })
    }
}
