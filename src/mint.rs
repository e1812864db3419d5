//! Steps 4 and 6: `prepare(Grant)` fixes everything that will be true of a credential; `mint(Recorded<Prepared>)` makes it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use aws_lc_rs::digest;
use thiserror::Error;

use crate::{
    clock::Instant,
    grant::{Grant, Narrowing, TargetName},
    id::{ExchangeId, LeaseId},
    ledger::{Hash, Intent, LeaseIntent, Recorded},
    secret::Secret,
    subject::ConfirmedSubject,
    target::Expiry,
};

mod act;
pub mod aws;
pub mod azure;
pub mod cloud;
pub mod examine;
pub mod gate;
pub mod github;
pub mod google;
pub mod jwt;
mod lifetime;
pub mod login;
pub mod mysql;
pub mod name;
pub mod postgres;
pub mod rds;
pub mod reach;
pub mod redis;
mod signed;
pub mod sql;
pub mod x509;

pub use signed::JwtPlan;

/// From the instant of the exchange on: after it, nothing that a mint began can still take effect.
pub const MINT_DEADLINE: Duration = Duration::from_secs(30);
/// How much later than was fixed before the commit a credential of a cloud may end: it counts from its own answer, by its own
/// clock.
const LATE: Duration = Duration::from_secs(60);

/// Who stands behind a credential, and in which exchange.
#[derive(Clone, Copy, Debug)]
pub struct Behind<'a> {
    /// Names the exchange.
    pub exchange_id: ExchangeId,
    /// The verified workload, of which its issuer was asked where it has to be (threat C16).
    pub subject: ConfirmedSubject<'a>,
    /// The verified actor (RFC 8693 section 4.1, `act`), if one came along.
    pub actor: Option<ConfirmedSubject<'a>>,
    /// The instant of the exchange.
    pub now: Instant,
    /// The certificate request that the caller sent (`csr`), unread: only targets that take one look at it.
    pub csr: Option<&'a str>,
}

/// Everything that will be true of a credential, fixed before the commit.
#[derive(Debug)]
pub struct Prepared {
    /// For which target.
    pub target: TargetName,
    /// The granted role and scopes, for the answer.
    pub scope: Vec<String>,
    /// The true end.
    pub expires_at: Instant,
    /// What names the credential afterwards: `jti`, lease id.
    pub credential: String,
    /// The lease to open in the commit, for targets with outside effects.
    pub lease: Option<LeaseIntent>,
    /// What the minter needs to go on.
    pub plan: Plan,
}

/// What a minter fixed, by kind of target.
#[derive(Debug)]
pub enum Plan {
    /// A JWT of ours: header and claims are final, only the signature is missing.
    Jwt(JwtPlan),
    /// A session at AWS: every parameter is final.
    Aws(Box<aws::AwsPlan>),
    /// A token for a database of Amazon RDS: every parameter of the session that signs it is final.
    Rds(Box<rds::RdsPlan>),
    /// A login at a server: name and password are final, nothing of it exists yet.
    Login(Box<login::Login>),
    /// A token of a cloud: what is asked for is final, nothing was sent yet.
    Cloud(Box<cloud::CloudPlan>),
    /// A certificate of a CA of ours: every byte is final, only the signature is missing.
    X509(Box<x509::CertificatePlan>),
}

impl Plan {
    /// A closed label.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Jwt(_) => "jwt",
            Self::Aws(_) => "aws",
            Self::Rds(_) => "rds",
            Self::Login(login) => login.kind,
            Self::Cloud(plan) => plan.kind,
            Self::X509(_) => "x509",
        }
    }

    /// Whether the mint has an effect outside this process: then it is concluded, however it ends.
    #[must_use]
    pub const fn is_outside(&self) -> bool {
        match self {
            Self::Jwt(_) | Self::X509(_) => false,
            Self::Aws(_) | Self::Rds(_) | Self::Login(_) | Self::Cloud(_) => true,
        }
    }

    /// Narrows what will be made by what the caller asked for.
    ///
    /// # Errors
    /// It can't be: what narrows is never dropped.
    pub fn narrow(&mut self, by: &Narrowing) -> Result<(), MintError> {
        match self {
            Self::Aws(plan) => plan.narrow(by),
            Self::Jwt(_) | Self::Rds(_) | Self::Login(_) | Self::X509(_) | Self::Cloud(_) => {
                let reason = format!("a {} has no session policy", self.kind());
                Err(MintError::Unsuited(Unsuited::Narrowing, reason))
            }
        }
    }

    /// What will be signed, and by which key, where something is: SHA-256 and `kid`.
    #[must_use]
    pub fn signed(&self) -> Option<(Hash, &str)> {
        match self {
            Self::Jwt(plan) => Some((plan.digest, &plan.kid)),
            Self::Aws(plan) => plan.signed(),
            Self::Rds(plan) => plan.session.signed(),
            Self::Login(_) => None,
            Self::Cloud(plan) => plan.assertion.as_ref().map(|jwt| (jwt.digest, jwt.kid.as_str())),
            Self::X509(plan) => Some((plan.digest, &plan.kid)),
        }
    }
}

impl Prepared {
    /// What is to be remembered until somebody tells how the mint ended, where it has an effect outside.
    #[must_use]
    pub fn intent(&self, now: Instant) -> Option<Intent> {
        let lease = self.lease.as_ref();
        self.plan.is_outside().then(|| Intent {
            target: self.target.clone(),
            mint_deadline: lease.map_or_else(|| now.plus(MINT_DEADLINE), |it| it.mint_deadline),
            worst_end: self.expires_at.plus(LATE),
            lease: lease.map(|lease| lease.id),
        })
    }
}

/// What leaves.
#[derive(Debug)]
pub struct Credential {
    /// The token itself, or the credential as JSON.
    pub value: Secret,
    /// RFC 8693 section 2.2.1 `issued_token_type`.
    pub issued_token_type: &'static str,
    /// RFC 8693 section 2.2.1 `token_type`: `Bearer` or `N_A`.
    pub token_type: &'static str,
    /// The true end.
    pub expires_at: Instant,
    /// The granted role and scopes.
    pub scope: Vec<String>,
    /// What its holder ends it by, where it must end (RFC 7009).
    pub lease: Option<LeaseToken>,
}

/// What the holder of a leased credential gets beside it.
#[derive(Debug)]
pub struct LeaseToken {
    /// Names the lease.
    pub id: LeaseId,
    /// Random, known to the holder alone; we keep its SHA-256.
    pub token: Secret,
}

/// Why no credential was made.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum MintError {
    /// The grant leaves no lifetime that the target can keep (INVARIANT(honest-expiry), INVARIANT(never-outlive)).
    #[error("no lifetime is left: {0}")]
    NoLifetime(String),
    /// No key may sign now.
    #[error("no signing key: {0}")]
    NoKey(String),
    /// The chain of actors can't be carried on (RFC 8693 section 4.1, threats X06, X07).
    #[error("actors: {0}")]
    Actors(String),
    /// This request, or this token, can't have it, for certain; another one may.
    #[error("{0}: {1}")]
    Unsuited(Unsuited, String),
    /// What the caller sent for this target can't be used. The words are ours, and the caller sees them.
    #[error("{0}")]
    Request(String),
    /// The subject lacks what its name at the target is made of (INVARIANT(closed-by-absence)).
    #[error("no name at the target: {0}")]
    NoName(String),
    /// The target did not answer of late: nothing was tried. Try again after so long.
    #[error("the target does not answer: it is tried again in {} s", .0.as_secs())]
    Busy(Duration),
    /// The target refused, for certain: nothing was created.
    #[error("nothing was issued: {0}")]
    Refused(String),
    /// The target could not be reached or answered garbage; something may exist there.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// A defect of ours.
    #[error("{0}")]
    Internal(String),
}

impl MintError {
    /// How the target itself failed, as a word for metrics; nothing where the request or the instance is what failed.
    #[must_use]
    pub const fn at_the_target(&self) -> Option<&'static str> {
        if matches!(self, Self::Busy(_)) {
            return Some("busy");
        }
        if matches!(self, Self::Refused(_)) {
            return Some("refused");
        }
        if matches!(self, Self::Unknown(_)) { Some("unknown") } else { None }
    }
}

/// What of a request a target can't take.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Unsuited {
    /// The token lacks a claim that the credential must carry, or the target takes no such value.
    #[error("claims")]
    Claim,
    /// What the caller wants it narrowed to.
    #[error("narrowing")]
    Narrowing,
    /// What the credential would carry is more than the target takes.
    #[error("too large")]
    TooLarge,
}

/// Makes credentials of one target.
///
/// Duties, held by `tests/it/conformance/minter.rs`:
///
/// 1. never longer than the grant, the target's ceiling or what signs it (INVARIANT(never-outlive));
/// 2. `prepare` touches nothing outside the process;
/// 3. one `Recorded` makes at most one credential, and the one that was prepared;
/// 4. a claim of the subject never becomes a registered claim or a name at the target.
#[async_trait]
pub trait Minter: fmt::Debug + Send + Sync {
    /// How credentials of this target end.
    fn expiry(&self) -> Expiry;

    /// Whether it looks at a certificate request. Elsewhere one is refused: what is ignored looks like what was accepted.
    fn takes_csr(&self) -> bool {
        false
    }

    /// Fixes everything that will be true of the credential.
    ///
    /// # Errors
    /// It can't be made under this grant.
    fn prepare(&self, grant: &Grant, behind: Behind<'_>) -> Result<Prepared, MintError>;

    /// Makes it.
    ///
    /// # Errors
    /// It was not made, or it is not known whether it was.
    async fn mint(&self, recorded: Recorded<Prepared>) -> Result<Credential, MintError>;
}

/// The minters, by target.
#[derive(Clone, Debug, Default)]
pub struct Minters(BTreeMap<TargetName, Arc<dyn Minter>>);

impl Minters {
    /// The registry of `minters`.
    #[must_use]
    pub fn of(minters: impl IntoIterator<Item = (TargetName, Arc<dyn Minter>)>) -> Self {
        Self(minters.into_iter().collect())
    }

    /// The minter of `target`.
    #[must_use]
    pub fn find(&self, target: &TargetName) -> Option<&Arc<dyn Minter>> {
        self.0.get(target)
    }
}

/// The role, then what else was granted; each once.
fn scope(grant: &Grant) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let role = std::iter::once(grant.role.as_str());
    let all = role.chain(grant.scope.iter().map(String::as_str));
    all.filter(|scope| seen.insert(*scope)).map(str::to_owned).collect()
}

fn sha256(bytes: &[u8]) -> Hash {
    let mut hash = Hash::default();
    for (to, from) in hash.iter_mut().zip(digest::digest(&digest::SHA256, bytes).as_ref()) {
        *to = *from;
    }
    hash
}
