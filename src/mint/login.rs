//! Logins at servers that have users of their own: PostgreSQL, MariaDB and MySQL, Redis. What they share stands here; what a
//! server wants to be told stands in its own file, behind [`Logins`].

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{
    Behind, Credential, LeaseToken, MintError, Minter, Plan, Prepared,
    gate::{Answered, Gate, NotPassed},
    lifetime,
    name::Names,
};
use crate::{
    chance::Chance,
    clock::{Clock, Instant},
    grant::{Grant, RoleName, TargetName},
    id::LeaseId,
    lease::{Gone, RevokeError, Revoker},
    ledger::{Hash, LeaseIntent, Recorded, Share},
    secret::Secret,
    target::Expiry,
    telemetry::Plain,
};

/// The `issued_token_type` of a login: ours, because RFC 8693 section 3 names none.
pub const TOKEN_TYPE: &str = "urn:cambio:token-type:database";

/// How long the making of a login may take, waiting for a connection included.
pub const MINT_LIMIT: Duration = Duration::from_secs(10);
/// How long one statement may run at a server: told to the server, where it takes it.
pub const STATEMENT_LIMIT: Duration = Duration::from_secs(5);
/// From the instant of the exchange on: after it, nothing that the mint began can still take effect. The commit may take a
/// moment before the mint begins, so there is room above the two limits.
const MINT_DEADLINE: Duration = Duration::from_secs(30);
/// How long the ending of one login may take: several statements in several databases.
pub const REVOKE_LIMIT: Duration = Duration::from_secs(30);

/// What no login is shorter than.
const SHORTEST: Duration = Duration::from_secs(1);
const PASSWORD_BYTES: usize = 24;
const TOKEN_BYTES: usize = 32;
/// What the holder's token begins with: secret scanners find it.
const TOKEN_PREFIX: &str = "cambio_lt_";
/// The most bytes of [`Login::attribution`].
const ATTRIBUTION_BYTES: usize = 400;

/// A login to be made: everything final, nothing of it there yet.
#[derive(Debug)]
pub struct Login {
    /// The target kind: `postgres`, `mysql`, `redis`.
    pub kind: &'static str,
    /// The user's name: one of [`Names`], so letters, digits and `_` only, 32 bytes.
    pub name: String,
    /// The password: 32 characters of base64url.
    pub password: Secret,
    /// As what.
    pub role: RoleName,
    /// When it ends.
    pub expires_at: Instant,
    /// Who it is for, for the server's own records: exchange, lease, rule, subject. Only letters, digits and ` ._:/@=-`, at
    /// most 400 bytes: what stands in it cannot end a literal anywhere (threat B01).
    pub attribution: String,
    /// What was granted. A wall clock that is set back on the way must not make it longer (threats B08, B10).
    lifetime: Duration,
    /// What [`Logins::derive`] made of the password.
    pub(super) derived: OnceLock<Secret>,
    lease: LeaseToken,
}

/// Where a login is good.
#[derive(Debug)]
pub struct Access {
    /// As clients name it, and as its certificate does.
    pub host: String,
    /// TCP.
    pub port: u16,
    /// The database to connect to, where the server has several.
    pub database: Option<String>,
    /// All of it in one line, password included.
    pub uri: Secret,
    /// Further members of the credential.
    pub more: BTreeMap<&'static str, Value>,
}

/// A server did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum LoginError {
    /// It said no, or there was nothing to say: nothing of a new login is there, an old one is as it was.
    #[error("{0}")]
    Refused(String),
    /// It could not be reached, or was lost so early that nothing of what was begun is left.
    #[error("no connection: {0}")]
    Unreachable(String),
    /// The connection was lost, or the answer makes no sense, after something was begun.
    #[error("lost: {0}")]
    Lost(String),
}

/// Makes and ends the logins of one server.
///
/// Duties, held by `tests/it/databases/battery.rs` on every kind of server:
///
/// 1. when `make` returns, the login works and has the power of its role, no other; a failed `make` says truly whether anything
///    may be left, and never retries by itself; what it does after the login is there fails if it is gone, and does not bring
///    it back;
/// 2. `end` is idempotent: afterwards the login is refused, its sessions are cut and nothing of it is left, or it is an error;
///    [`Gone::Absent`] only if the server said that there is none;
/// 3. only names of [`Names`] are put into statements (threat B01): `end` refuses any other one;
/// 4. `names` tells all logins that carry our prefix, whoever made them.
#[async_trait]
pub trait Logins: fmt::Debug + Send + Sync {
    /// Computes what `make` wants to have of the password, before the login has its turn: no connection is kept waiting for it.
    /// `make` does without, too.
    ///
    /// # Errors
    /// There is no randomness to be had.
    fn derive(&self, _login: &Login) -> Result<(), LoginError> {
        Ok(())
    }

    /// Makes `login`, good for `lifetime` by the server's own clock, where the server has an end for logins (threat B08).
    ///
    /// # Errors
    /// It was not made, or nobody knows.
    async fn make(&self, login: &Login, lifetime: Duration) -> Result<Access, LoginError>;

    /// Ends the login called `name`, its sessions and what it owns.
    ///
    /// # Errors
    /// Something of it is left, or nobody knows.
    async fn end(&self, name: &str) -> Result<Gone, LoginError>;

    /// The names of all logins that begin with our prefix.
    ///
    /// # Errors
    /// The server can't be asked.
    async fn names(&self) -> Result<Vec<String>, LoginError>;
}

/// What a minter of logins is made of.
#[derive(Debug)]
pub struct LoginTarget {
    /// Its name.
    pub name: TargetName,
    /// The target kind: `postgres`, `mysql`, `redis`.
    pub kind: &'static str,
    /// Our issuer URL: a token of ours bounds what is made from it.
    pub issuer: String,
    /// Names for it.
    pub names: Names,
    /// How its logins end.
    pub expiry: Expiry,
    /// How many connections at once.
    pub at_once: usize,
    /// How many logins one subject may hold at once.
    pub per_subject: u32,
    /// How many logins all subjects together may hold at once.
    pub in_all: Option<u32>,
}

/// Makes logins at one server, and ends them.
#[derive(Debug)]
pub struct LoginMinter {
    target: LoginTarget,
    server: Arc<dyn Logins>,
    gate: Gate,
    clock: Arc<dyn Clock>,
    chance: Arc<dyn Chance>,
}

impl LoginMinter {
    /// The minter of `target` at `server`.
    #[must_use]
    pub fn of(
        target: LoginTarget,
        server: Arc<dyn Logins>,
        clock: Arc<dyn Clock>,
        chance: Arc<dyn Chance>,
    ) -> Self {
        let gate = Gate::of(target.at_once, Arc::clone(&clock));
        Self { target, server, gate, clock, chance }
    }

    fn ceiling(&self) -> Duration {
        match self.target.expiry {
            Expiry::Exact { ceiling, .. } | Expiry::ByBroker { ceiling } => ceiling,
            Expiry::Fixed(length) => length,
        }
    }

    fn random<const N: usize>(&self) -> Result<String, MintError> {
        let mut bytes = zeroize::Zeroizing::new([0_u8; N]);
        self.chance.fill(&mut *bytes).map_err(|error| MintError::Internal(error.to_string()))?;
        Ok(URL_SAFE_NO_PAD.encode(*bytes))
    }
}

#[async_trait]
impl Minter for LoginMinter {
    fn expiry(&self) -> Expiry {
        self.target.expiry
    }

    fn prepare(&self, grant: &Grant, behind: Behind<'_>) -> Result<Prepared, MintError> {
        if grant.target != self.target.name {
            return Err(MintError::Internal(format!("a grant for `{}` came here", grant.target)));
        }
        self.gate.is_open().map_err(MintError::Busy)?;
        let lifetime = lifetime::bounded(self.ceiling(), grant, &behind, &self.target.issuer);
        let expires_at = Instant::from_seconds(behind.now.plus(lifetime).seconds());
        if expires_at.since(behind.now) < SHORTEST {
            return Err(MintError::NoLifetime("less than a second".to_owned()));
        }
        let internal = |error: crate::chance::ChanceError| MintError::Internal(error.to_string());
        let id = LeaseId::make(behind.now, &*self.chance).map_err(internal)?;
        let name = self.target.names.make(&*self.chance).map_err(internal)?;
        let token = format!("{TOKEN_PREFIX}{}", self.random::<TOKEN_BYTES>()?);
        let intent = LeaseIntent {
            id,
            target: self.target.name.clone(),
            object: name.clone(),
            mint_deadline: behind.now.plus(MINT_DEADLINE),
            worst_end: expires_at,
            token: token_hash(&token),
            share: Some(Share {
                holder: super::sha256(behind.subject.profile().our_subject().as_bytes()),
                of_holder: self.target.per_subject,
                of_all: self.target.in_all,
            }),
        };
        let login = Login {
            kind: self.target.kind,
            name,
            password: Secret::from(self.random::<PASSWORD_BYTES>()?),
            role: grant.role.clone(),
            expires_at,
            attribution: attribution(grant, &behind, id),
            derived: OnceLock::new(),
            lifetime: expires_at.since(behind.now),
            lease: LeaseToken { id, token: Secret::from(token) },
        };
        Ok(Prepared {
            target: self.target.name.clone(),
            scope: super::scope(grant),
            expires_at,
            credential: id.to_string(),
            lease: Some(intent),
            plan: Plan::Login(Box::new(login)),
        })
    }

    async fn mint(&self, recorded: Recorded<Prepared>) -> Result<Credential, MintError> {
        let (_, prepared) = recorded.redeem();
        let Plan::Login(login) = prepared.plan else {
            return Err(MintError::Internal(format!("a {} is no login", prepared.plan.kind())));
        };
        // INVARIANT(intent-before-effect): without a lease nobody would end it.
        let Some(deadline) = prepared.lease.as_ref().map(|lease| lease.mint_deadline) else {
            return Err(MintError::Internal("a login without a lease".to_owned()));
        };
        // What begins too late could take effect after the reaper looked. Judged once before it waits for a place, and once
        // when it has one: a machine may have slept in between.
        let begin_by = deadline.minus(MINT_LIMIT).minus(STATEMENT_LIMIT);
        let too_late = "its time was over before it began";
        if self.clock.now() > begin_by {
            return Err(MintError::Refused(too_late.to_owned()));
        }
        self.server.derive(&login).map_err(|error| MintError::Refused(error.to_string()))?;
        let begin = async || {
            let now = self.clock.now();
            if now > deadline.minus(STATEMENT_LIMIT) {
                return Err(LoginError::Refused(too_late.to_owned()));
            }
            // The end is told as a length, for the server's own clock to count; what is left when the statement leaves here.
            // Less than a second is nothing: a server that counts in whole ones may read zero as unlimited (threat B10).
            let left = login.expires_at.since(now).min(login.lifetime);
            if left < SHORTEST {
                return Err(LoginError::Refused("no lifetime is left".to_owned()));
            }
            self.server.make(&login, left).await
        };
        let made = self.gate.pass(MINT_LIMIT, begin()).await;
        let access = made.map_err(not_passed)?.map_err(|error| match error {
            LoginError::Refused(_) | LoginError::Unreachable(_) => MintError::Refused(line(&error)),
            LoginError::Lost(_) => MintError::Unknown(line(&error)),
        })?;
        Ok(Credential {
            value: credential(&login, &access)?,
            issued_token_type: TOKEN_TYPE,
            token_type: "N_A",
            expires_at: prepared.expires_at,
            scope: prepared.scope,
            lease: Some(login.lease),
        })
    }
}

#[async_trait]
impl Revoker for LoginMinter {
    async fn revoke(&self, object: &str) -> Result<Gone, RevokeError> {
        // Threat B01: what the store says is not believed either.
        if !self.target.names.is_ours(object) {
            return Err(RevokeError::Failed(format!("`{}` is no name of ours", plain(object))));
        }
        let done = self.gate.pass(REVOKE_LIMIT, self.server.end(object)).await;
        done.map_err(unreached)?.map_err(revoke_error)
    }

    async fn objects(&self) -> Result<Vec<String>, RevokeError> {
        let done = self.gate.pass(REVOKE_LIMIT, self.server.names()).await;
        let names = done.map_err(unreached)?.map_err(revoke_error)?;
        Ok(names.into_iter().filter(|name| self.target.names.is_ours(name)).collect())
    }

    fn at_once(&self) -> usize {
        self.gate.at_once()
    }
}

impl<T> Answered for Result<T, LoginError> {
    fn answered(&self) -> bool {
        !matches!(self, Err(LoginError::Unreachable(_) | LoginError::Lost(_)))
    }
}

/// The SHA-256 by which a holder's token is known.
#[must_use]
pub fn token_hash(token: &str) -> Hash {
    super::sha256(token.as_bytes())
}

fn not_passed(reason: NotPassed) -> MintError {
    match reason {
        NotPassed::Closed(wait) => MintError::Busy(wait),
        NotPassed::Full => MintError::Refused("all connections were in use".to_owned()),
        NotPassed::TimedOut => {
            MintError::Unknown(format!("no answer within {} s", MINT_LIMIT.as_secs()))
        }
    }
}

fn unreached(reason: NotPassed) -> RevokeError {
    match reason {
        NotPassed::Closed(_) => RevokeError::Unreachable("it did not answer of late".to_owned()),
        NotPassed::Full => RevokeError::Unreachable("all connections were in use".to_owned()),
        NotPassed::TimedOut => {
            RevokeError::Lost(format!("none within {} s", REVOKE_LIMIT.as_secs()))
        }
    }
}

fn revoke_error(error: LoginError) -> RevokeError {
    match error {
        LoginError::Refused(reason) => RevokeError::Failed(line(&reason)),
        LoginError::Unreachable(reason) => RevokeError::Unreachable(line(&reason)),
        LoginError::Lost(reason) => RevokeError::Lost(line(&reason)),
    }
}

/// A server's words name what holders have made, as they named it: a table's name may be a line of a log (threat A01).
fn line(said: &impl fmt::Display) -> String {
    Plain(said).to_string()
}

fn attribution(grant: &Grant, behind: &Behind<'_>, lease: LeaseId) -> String {
    let rule = grant.rules.first().map_or("", |rule| rule.as_str());
    let subject = behind.subject.profile().our_subject();
    let text = format!(
        "cambio exchange={} lease={lease} rule={} subject={}",
        behind.exchange_id,
        plain(rule),
        plain(&subject)
    );
    text.chars().take(ATTRIBUTION_BYTES).collect()
}

/// Threat B01: one character for each, and none that means anything to any server.
fn plain(text: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._:/@-".contains(c);
    text.chars().map(|c| if fits(c) { c } else { '_' }).collect()
}

/// The credential as JSON text.
fn credential(login: &Login, access: &Access) -> Result<Secret, MintError> {
    let text = |secret: &Secret| {
        let text = secret.reveal_text().map(str::to_owned);
        text.ok_or_else(|| MintError::Internal("a secret is no text".to_owned()))
    };
    let mut members = json!({
        "kind": login.kind,
        "user": login.name,
        "password": text(&login.password)?,
        "host": access.host,
        "port": access.port,
        "uri": text(&access.uri)?,
        "expires_at": login.expires_at.to_string(),
        "lease_id": login.lease.id.to_string(),
    });
    if let Some(map) = members.as_object_mut() {
        if let Some(database) = &access.database {
            map.insert("database".to_owned(), json!(database));
        }
        for (name, value) in &access.more {
            map.insert((*name).to_owned(), value.clone());
        }
    }
    Ok(Secret::from(members.to_string()))
}
