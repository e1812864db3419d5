//! GitHub: an App's installation token, for the repositories and permissions of the role and no others.
//!
//! GitHub ends a token after an hour, always; a token can be ended sooner by whoever has it, and by nobody else. So we keep it
//! ([`held`]) until its lease ends, in memory alone: written down, sealed or not, it would be the stored secret that this
//! broker is there to avoid. Where the process ends before the lease does, the hour is the end (threats B03, B06).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use reqwest::{
    Method,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use serde_json::{Value, json};
use url::Url;

use super::{
    Behind, Credential, LeaseToken, MINT_DEADLINE, MintError, Minter, Plan, Prepared,
    cloud::{self, Answer, Ask, CallError, CloudPlan, MINT_LIMIT, Peer, PeerError, Reaching},
    examine::{Examine, Finding, Verdict},
    gate::{Gate, NotPassed},
    google::{below, reached},
    login::token_hash,
    name::Names,
};
use crate::{
    chance::Chance,
    clock::{Clock, Instant},
    grant::{Grant, RoleName, TargetName},
    id::LeaseId,
    lease::{Gone, RevokeError, Revoker},
    ledger::{LeaseIntent, Recorded},
    secret::Secret,
    target::Expiry,
};

pub mod app;
pub mod held;

use app::AppKey;
use held::{Held, HeldTokens};

const KIND: &str = "github";
/// How long an installation token lives, whatever is asked.
pub const HOUR: Duration = Duration::from_hours(1);
const LEASE_TOKEN_BYTES: usize = 32;
/// How long the ending of one token may take.
const REVOKE_LIMIT: Duration = Duration::from_secs(10);
/// For how long an App's JWT is used again: well within the five minutes that it is good for.
const SAID_AGAIN: Duration = Duration::from_mins(2);
/// The one permission that GitHub adds to every token.
const ALWAYS: &str = "metadata";

/// A power of a GitHub target: closed lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GithubRole {
    /// Repositories by id: names can be recreated by strangers.
    pub repository_ids: BTreeSet<u64>,
    /// Repositories by name, without their owner.
    pub repositories: BTreeSet<String>,
    /// `contents: read`.
    pub permissions: BTreeMap<String, String>,
}

/// A target that gives installation tokens.
#[derive(Clone, Debug)]
pub struct GithubTarget {
    /// Its name.
    pub name: TargetName,
    /// Our issuer URL: a token of ours bounds what is made from it.
    pub issuer: String,
    /// The App's client id, or its number.
    pub app: String,
    /// The installation's number.
    pub installation: u64,
    /// Names for leases' objects.
    pub names: Names,
    /// Its powers.
    pub roles: BTreeMap<RoleName, GithubRole>,
    /// How its tokens end: fixed at an hour, or by the broker before that.
    pub expiry: Expiry,
    /// `https://api.github.com`, or `https://HOST/api/v3`.
    pub api: Url,
    /// How it is reached.
    pub reaching: Reaching,
    /// How many calls at once.
    pub at_once: usize,
}

/// Asks GitHub, as the App.
pub struct GithubApi {
    target: GithubTarget,
    key: AppKey,
    peer: Peer,
    clock: Arc<dyn Clock>,
    /// What we said of ourselves last, and when.
    said: ArcSwapOption<(Instant, Secret)>,
}

impl fmt::Debug for GithubApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GithubApi").field("target", &self.target).finish_non_exhaustive()
    }
}

impl GithubApi {
    /// What asks for `target`, whose App has `key`.
    ///
    /// # Errors
    /// There is no client to be had.
    pub fn of(target: GithubTarget, key: AppKey, clock: Arc<dyn Clock>) -> Result<Self, PeerError> {
        let peer = Peer::of(&target.reaching)?;
        Ok(Self { target, key, peer, clock, said: ArcSwapOption::empty() })
    }

    /// A JWT that says we are the App. It says nothing of a caller, so that one serves several calls: signing each would cost
    /// each half a millisecond.
    async fn app_token(&self) -> Result<Secret, CallError> {
        let now = self.clock.now();
        if let Some(said) = &*self.said.load() {
            let (at, token) = &**said;
            // A clock that was set back must not keep it for longer.
            if *at <= now && now.since(*at) < SAID_AGAIN {
                return Ok(token.clone());
            }
        }
        let signed = self.key.sign(&self.target.app, now).await;
        let token = signed.map_err(|reason| CallError::Ours(MintError::Refused(reason)))?;
        self.said.store(Some(Arc::new((now, token.clone()))));
        Ok(token)
    }

    /// The token, and when GitHub ends it.
    async fn token(&self, body: String) -> Result<(Secret, Instant), CallError> {
        let installation = self.target.installation.to_string();
        let path = ["app", "installations", &installation, "access_tokens"];
        let url = below(&self.target.api, &path)?;
        let asked: Value = serde_json::from_str(&body).unwrap_or_default();
        let app = self.app_token().await?;
        let mut answer = self.peer.post_json(&url, &app, headers(), body).await?;
        let token = cloud::bearer(&mut answer, "token")?;
        // Classic and stateless tokens alike: `ghs_` and 36 or more of these characters.
        if !token.reveal().starts_with(b"ghs_") {
            return Err(CallError::Lost("`token` is no installation token".to_owned()));
        }
        let ends = cloud::instant(&answer, "expires_at")?;
        if let Err(reason) = narrow(&asked, &answer) {
            // More than was granted: ended at once, and not handed on.
            return match self.delete(&token).await {
                Ok(_) => Err(CallError::Refused(reason)),
                Err(error) => Err(CallError::Withheld(format!("{reason}, and not ended: {error}"))),
            };
        }
        Ok((token, ends))
    }

    async fn delete(&self, token: &Secret) -> Result<Gone, CallError> {
        let url = below(&self.target.api, &["installation", "token"])?;
        match self.peer.bare(Method::DELETE, &url, Some(token), headers()).await {
            Ok(_) => Ok(Gone::Ended),
            // 401 Bad credentials: it does not know the token, or no longer.
            Err(CallError::Refused(said)) if said.contains("answered 401") => Ok(Gone::Absent),
            Err(error) => Err(error),
        }
    }
}

/// Makes installation tokens, and ends them.
#[derive(Debug)]
pub struct GithubMinter {
    api: GithubApi,
    held: Arc<HeldTokens>,
    gate: Gate,
    chance: Arc<dyn Chance>,
}

#[async_trait]
impl Minter for GithubMinter {
    fn expiry(&self) -> Expiry {
        self.api.target.expiry
    }

    fn prepare(&self, grant: &Grant, behind: Behind<'_>) -> Result<Prepared, MintError> {
        let target = &self.api.target;
        let role = cloud::role(&self.gate, (&target.name, &target.roles), grant)?;
        let expires_at = cloud::end(target.expiry, grant, &behind, &target.issuer)?;
        let internal = |error: crate::chance::ChanceError| MintError::Internal(error.to_string());
        let id = LeaseId::make(behind.now, &*self.chance).map_err(internal)?;
        let name = self.api.target.names.make(&*self.chance).map_err(internal)?;
        let mint_deadline = behind.now.plus(MINT_DEADLINE);
        let token = format!("cambio_lt_{}", cloud::random::<LEASE_TOKEN_BYTES>(&*self.chance)?);
        let lease = LeaseIntent {
            id,
            target: self.api.target.name.clone(),
            // The hour is counted from the last instant at which the token can be made.
            object: held::object(&name, mint_deadline.plus(HOUR)),
            mint_deadline,
            worst_end: expires_at,
            token: token_hash(&token),
            share: None,
        };
        let lease_token = LeaseToken { id, token: Secret::from(token) };
        let ask = Ask::Github { body: request(role) };
        let plan = CloudPlan { kind: KIND, assertion: None, ask, lease: Some(lease_token) };
        Ok(Prepared {
            target: self.api.target.name.clone(),
            scope: super::scope(grant),
            expires_at,
            credential: id.to_string(),
            lease: Some(lease),
            plan: Plan::Cloud(Box::new(plan)),
        })
    }

    async fn mint(&self, recorded: Recorded<Prepared>) -> Result<Credential, MintError> {
        let (_, prepared) = recorded.redeem();
        let lease = prepared.lease.clone();
        let (_, ask, fixed, parts) = cloud::planned(prepared, KIND)?;
        let (Some(lease), Ask::Github { body }) = (lease, ask) else {
            return Err(MintError::Internal("a plan of another kind".to_owned()));
        };
        // INVARIANT(intent-before-effect): what begins too late could take effect after the reaper looked.
        if self.api.clock.now() > lease.mint_deadline.minus(MINT_LIMIT) {
            return Err(MintError::Refused("its time was over before it began".to_owned()));
        }
        let made = cloud::pass(&self.gate, async {
            let (token, ends) = self.api.token(body).await?;
            // Before anything else can fail: from here on it can be ended.
            self.held.keep(&lease.object, token.clone(), self.api.clock.now());
            // By the broker it ends sooner than GitHub says; never later.
            let ends = if self.broker_ends() { ends.min(fixed) } else { ends };
            Ok((token, cloud::told(fixed, ends, self.api.clock.now())?))
        });
        Ok(cloud::credential(parts, made.await?))
    }
}

impl GithubMinter {
    /// The minter that asks by `api`, and keeps what it can end in `held`.
    #[must_use]
    pub fn of(api: GithubApi, held: Arc<HeldTokens>, chance: Arc<dyn Chance>) -> Self {
        let gate = Gate::of(api.target.at_once, Arc::clone(&api.clock));
        Self { api, held, gate, chance }
    }

    const fn broker_ends(&self) -> bool {
        matches!(self.api.target.expiry, Expiry::ByBroker { .. })
    }
}

#[async_trait]
impl Revoker for GithubMinter {
    async fn revoke(&self, object: &str) -> Result<Gone, RevokeError> {
        let now = self.api.clock.now();
        let (name, ends) = held::parts(object)
            .ok_or_else(|| RevokeError::Failed("the lease names no token of GitHub".to_owned()))?;
        if !self.api.target.names.is_ours(name) {
            return Err(RevokeError::Failed("the lease is of another target".to_owned()));
        }
        // GitHub itself has ended it: the hour is over, counted from the latest instant that it can be from.
        if now >= ends {
            return Ok(Gone::Ended);
        }
        let token = match self.held.find(object) {
            Some(Held::Live(token)) => token,
            Some(Held::Ended) => return Ok(Gone::Absent),
            None => {
                return Err(RevokeError::Failed(format!(
                    "only who has a token of GitHub can end it, and it was made by a process that ended: it is dead by {ends}"
                )));
            }
        };
        let done = self.gate.pass(REVOKE_LIMIT, self.api.delete(&token)).await;
        let done = done.map_err(|reason| match reason {
            NotPassed::Closed(_) => {
                RevokeError::Unreachable("it did not answer of late".to_owned())
            }
            NotPassed::Full => RevokeError::Unreachable("all places were taken".to_owned()),
            NotPassed::TimedOut => {
                RevokeError::Lost(format!("none within {} s", REVOKE_LIMIT.as_secs()))
            }
        })?;
        match done {
            Ok(gone) => {
                self.held.ended(object);
                Ok(gone)
            }
            Err(CallError::Refused(said)) => Err(RevokeError::Failed(said)),
            Err(CallError::Lost(said)) => Err(RevokeError::Lost(said)),
            Err(error) => Err(RevokeError::Unreachable(error.to_string())),
        }
    }

    /// GitHub lists no tokens: nobody can find one that nobody has.
    async fn objects(&self) -> Result<Vec<String>, RevokeError> {
        Ok(Vec::new())
    }

    fn at_once(&self) -> usize {
        self.gate.at_once()
    }
}

#[async_trait]
impl Examine for GithubApi {
    /// Asks who the App is and what its installation may do; the permissions of every role must be among that.
    async fn examine(&self) -> Vec<Finding> {
        let installation = self.target.installation.to_string();
        let Ok(url) = below(&self.target.api, &["app", "installations", &installation]) else {
            return Vec::new();
        };
        let answer = async {
            let app = self.app_token().await?;
            self.peer.bare(Method::GET, &url, Some(&app), headers()).await
        };
        let answer = match answer.await {
            Ok(answer) => answer,
            Err(CallError::Refused(said)) => {
                let detail = format!("{said}: see `app`, `private_key_file` and `installation`");
                return vec![Finding { verdict: Verdict::Bad, detail }];
            }
            Err(error) => return vec![reached(&url, Err(error))],
        };
        let has = answer.members.get("permissions").cloned().unwrap_or_default();
        let mut findings = vec![reached(&url, Ok(answer))];
        let mut needed = BTreeSet::new();
        for (name, role) in &self.target.roles {
            for (permission, level) in &role.permissions {
                needed.insert(permission.as_str());
                let given = has.get(permission).and_then(Value::as_str).unwrap_or("none");
                if rank(given) < rank(level) {
                    let detail = format!(
                        "role `{name}` wants `{permission}: {level}`, the installation has `{given}`: give it to the App, and accept it"
                    );
                    findings.push(Finding { verdict: Verdict::Bad, detail });
                }
            }
        }
        for permission in has.as_object().into_iter().flat_map(serde_json::Map::keys) {
            if permission != ALWAYS && !needed.contains(permission.as_str()) {
                let detail = format!("the installation has `{permission}`, which no role needs");
                findings.push(Finding { verdict: Verdict::Unwise, detail });
            }
        }
        findings
    }
}

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    let version = HeaderName::from_static("x-github-api-version");
    headers.insert(version, HeaderValue::from_static("2022-11-28"));
    headers
}

/// The body of the request: the closed lists of the role.
fn request(role: &GithubRole) -> String {
    let mut body = json!({ "permissions": role.permissions });
    if let Some(body) = body.as_object_mut() {
        if !role.repository_ids.is_empty() {
            body.insert("repository_ids".to_owned(), json!(role.repository_ids));
        }
        if !role.repositories.is_empty() {
            body.insert("repositories".to_owned(), json!(role.repositories));
        }
    }
    body.to_string()
}

/// Whether what came is no more than what was asked for: INVARIANT(closed-by-absence), a list that is missing is none.
fn narrow(asked: &Value, answer: &Answer) -> Result<(), String> {
    if answer.members.get("repository_selection").and_then(Value::as_str) != Some("selected") {
        return Err("the token is for all repositories".to_owned());
    }
    let given = answer.members.get("permissions").and_then(Value::as_object);
    let given = given.ok_or("the answer names no permissions")?;
    for (permission, level) in given {
        let wanted = asked.get("permissions").and_then(|all| all.get(permission));
        let wanted = wanted.and_then(Value::as_str).unwrap_or("none");
        let free = permission == ALWAYS && level.as_str() == Some("read");
        if !free && rank(level.as_str().unwrap_or("?")) > rank(wanted) {
            return Err("the token has permissions that were not asked for".to_owned());
        }
    }
    let repositories = answer.members.get("repositories").and_then(Value::as_array);
    let repositories = repositories.ok_or("the answer names no repositories")?;
    let among = |list: &str, value: Option<&Value>| {
        let list = asked.get(list).and_then(Value::as_array);
        list.zip(value).is_some_and(|(list, value)| list.contains(value))
    };
    let wanted = |repository: &Value| {
        among("repository_ids", repository.get("id"))
            || among("repositories", repository.get("name"))
    };
    if repositories.is_empty() || !repositories.iter().all(wanted) {
        return Err("the token is for repositories that were not asked for".to_owned());
    }
    Ok(())
}

/// How much a level allows; what is not known allows everything.
fn rank(level: &str) -> u8 {
    match level {
        "none" => 0,
        "read" => 1,
        "write" => 2,
        "admin" => 3,
        _ => u8::MAX,
    }
}
