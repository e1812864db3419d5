//! Amazon RDS and Aurora: an IAM authentication token, which a database takes as the password of a user.
//!
//! No call makes it: it is a presigned request (AWS Signature Version 4), signed with a session of the role that may connect.
//! The session is asked for as those of kind `aws` are, used once, and never leaves.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign},
    sign::v4::SigningParams,
};
use serde_json::json;
use url::Url;

use super::{
    Behind, Credential, MintError, Minter, Plan, Prepared,
    aws::{AwsMinter, AwsPlan, sts::Session},
    login::TOKEN_TYPE,
};
use crate::{
    clock::{Clock, Instant},
    grant::{Grant, RoleName},
    ledger::Recorded,
    secret::Secret,
    target::Expiry,
};

/// How long a token opens connections, always (Amazon RDS user guide, "IAM database authentication"). It is the shortest
/// session of STS, too: one is asked for that does not outlive its token.
pub const LIVES: Duration = Duration::from_mins(15);
/// The service that the signature is for.
const SERVICE: &str = "rds-db";

/// What answers at the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// `PostgreSQL`.
    Postgres,
    /// `MySQL` or `MariaDB`: their clients must send the password as it is (`mysql_clear_password`), over TLS.
    Mysql,
}

impl Engine {
    /// The credential's `kind`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Mysql => "mysql",
        }
    }
}

/// A database, as the signature and the caller must name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// What it is.
    pub engine: Engine,
    /// The endpoint's own name: the signature covers it, so no alias of it will do.
    pub host: String,
    /// Its TCP port; signed, too.
    pub port: u16,
    /// What a caller is told to connect to.
    pub name: Option<String>,
    /// Its region.
    pub region: String,
    /// The database's user of each role: letters, digits and `_-.`, which need no encoding.
    pub users: BTreeMap<RoleName, String>,
}

/// A token to be signed: the session that signs it is not there yet.
#[derive(Debug)]
pub struct RdsPlan {
    /// The session.
    pub session: AwsPlan,
    /// The database's user.
    user: String,
}

/// Makes tokens for one database.
#[derive(Debug)]
pub struct RdsMinter {
    sessions: AwsMinter,
    database: Database,
    clock: Arc<dyn Clock>,
}

impl RdsMinter {
    /// The minter of tokens for `database`, signed with sessions that `sessions` gets.
    #[must_use]
    pub const fn of(sessions: AwsMinter, database: Database, clock: Arc<dyn Clock>) -> Self {
        Self { sessions, database, clock }
    }
}

#[async_trait]
impl Minter for RdsMinter {
    fn expiry(&self) -> Expiry {
        Expiry::Fixed(LIVES)
    }

    fn prepare(&self, grant: &Grant, behind: Behind<'_>) -> Result<Prepared, MintError> {
        let user = self.database.users.get(&grant.role).cloned();
        let user =
            user.ok_or_else(|| MintError::Internal(format!("no user for role `{}`", grant.role)))?;
        // What may be told of the session binds the token: it opens nothing after the session's end.
        let prepared = self.sessions.prepare(grant, behind)?;
        let Plan::Aws(session) = prepared.plan else {
            return Err(MintError::Internal("a plan that is no session".to_owned()));
        };
        let plan = Plan::Rds(Box::new(RdsPlan { session: *session, user }));
        Ok(Prepared { plan, ..prepared })
    }

    async fn mint(&self, recorded: Recorded<Prepared>) -> Result<Credential, MintError> {
        let (_, prepared) = recorded.redeem();
        let Plan::Rds(plan) = prepared.plan else {
            return Err(MintError::Internal(format!("a {} is no token", prepared.plan.kind())));
        };
        let session = self.sessions.session(&prepared.target, plan.session).await?;
        let now = Instant::from_seconds(self.clock.now().seconds());
        let token = token(&self.database, &plan.user, &session, now)?;
        // INVARIANT(honest-expiry): whichever ends first, the signature or what signed it.
        let expires_at = now.plus(LIVES).min(session.expires_at);
        Ok(Credential {
            value: credential(&self.database, &plan.user, &token, expires_at)?,
            issued_token_type: TOKEN_TYPE,
            token_type: "N_A",
            expires_at,
            scope: prepared.scope,
            lease: None,
        })
    }
}

/// The request `connect`, signed in its query, without its scheme: what AWS calls an authentication token.
///
/// # Errors
/// The library can't sign it: a defect of ours.
pub fn token(
    database: &Database,
    user: &str,
    session: &Session,
    now: Instant,
) -> Result<Secret, MintError> {
    let defect = |error: &dyn std::fmt::Display| MintError::Internal(error.to_string());
    let text = |secret: &Secret| secret.reveal_text().unwrap_or_default().to_owned();
    let identity = Credentials::new(
        session.access_key_id.clone(),
        text(&session.secret_access_key),
        Some(text(&session.session_token)),
        None,
        "cambio",
    )
    .into();
    let mut settings = SigningSettings::default();
    settings.expires_in = Some(LIVES);
    settings.signature_location = SignatureLocation::QueryParams;
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(now.seconds()));
    let parameters = SigningParams::builder()
        .identity(&identity)
        .region(&database.region)
        .name(SERVICE)
        .time(time.ok_or_else(|| MintError::Internal("no such time".to_owned()))?)
        .settings(settings)
        .build()
        .map_err(|error| defect(&error))?;
    let (host, port) = (&database.host, database.port);
    let url = format!("https://{host}:{port}/?Action=connect&DBUser={user}");
    let empty = SignableBody::Bytes(&[]);
    let request = SignableRequest::new("GET", url.as_str(), std::iter::empty(), empty);
    let signed = sign(request.map_err(|error| defect(&error))?, &parameters.into());
    let (instructions, _) = signed.map_err(|error| defect(&error))?.into_parts();
    let mut request = hyper::Request::get(&url).body(()).map_err(|error| defect(&error))?;
    instructions.apply_to_request_http1x(&mut request);
    let signed = request.uri().to_string();
    let bare = signed.strip_prefix("https://").map(str::to_owned);
    bare.map(Secret::from).ok_or_else(|| MintError::Internal("the scheme is gone".to_owned()))
}

/// The credential as JSON text: a login like any other, so that every format of the client has it.
fn credential(
    database: &Database,
    user: &str,
    token: &Secret,
    expires_at: Instant,
) -> Result<Secret, MintError> {
    let defect = || MintError::Internal("its host and port make no URI".to_owned());
    let (scheme, mode, full) = match database.engine {
        Engine::Postgres => ("postgresql://host", "sslmode", "verify-full"),
        Engine::Mysql => ("mysql://host", "ssl-mode", "VERIFY_IDENTITY"),
    };
    let password = token.reveal_text().unwrap_or_default();
    let mut uri = Url::parse(scheme).map_err(|_| defect())?;
    uri.set_host(Some(&database.host)).map_err(|_| defect())?;
    uri.set_port(Some(database.port)).map_err(|()| defect())?;
    uri.set_username(user).map_err(|()| defect())?;
    // `set_password` takes what follows a percent sign for encoded already, and the token has such signs of its own.
    uri.set_password(Some(&password.replace('%', "%25"))).map_err(|()| defect())?;
    if let Some(name) = &database.name {
        uri.path_segments_mut().map_err(|()| defect())?.push(name);
    }
    uri.query_pairs_mut().append_pair(mode, full);
    let mut members = json!({
        "kind": database.engine.as_str(),
        "user": user,
        "password": password,
        "host": database.host,
        "port": database.port,
        "uri": String::from(uri),
        "sslmode": "verify-full",
        "expires_at": expires_at.to_string(),
    });
    if let (Some(map), Some(name)) = (members.as_object_mut(), &database.name) {
        map.insert("database".to_owned(), json!(name));
    }
    Ok(Secret::from(members.to_string()))
}
