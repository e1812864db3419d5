//! The admin API on a Unix socket: break-glass, for who owns the process. JSON over HTTP/1.1; every verb is
//! `POST /v1/<verb>` with a JSON object.
//!
//! A verb that changes something wants a `reason`; the peer's uid and that reason are what the ledger records.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::Path,
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    extract::{Request, State},
    http::StatusCode,
    middleware,
    response::Response,
    routing::post,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use super::{
    PowerError, Powers, form,
    listen::{End, converse},
};
use crate::{
    ledger::Operator,
    secret::Secret,
    subject::json::{self, Limits},
    telemetry::Plain,
};

/// What an operator can ask of a running broker.
#[derive(Clone, Debug)]
pub enum Power {
    /// How things are: checks, version, policy digest, ledger head.
    Status,
    /// Load policies, pinned keys and certificates again.
    Reload,
    /// Our signing keys and their phases.
    ListKeys,
    /// Promote the announced keys now.
    RotateKeys {
        /// The CA of this target; none means the keys for tokens.
        target: Option<String>,
    },
    /// Remove a leaked key at once.
    WithdrawKey {
        /// Which.
        kid: String,
        /// Even without an announced successor.
        force: bool,
    },
    /// The ring as an encrypted JWK Set (RFC 7517 section 7).
    ExportKeys {
        /// What to encrypt it with.
        passphrase: Secret,
    },
    /// The blocks that hold.
    ListBlocks,
    /// Deny what matches everything that is named.
    SetBlock(BlockRequest),
    /// End a block.
    LiftBlock {
        /// `bl_…`
        id: String,
    },
    /// The leases that fit.
    ListLeases(LeaseRequest),
    /// One lease, with who stands behind it.
    ShowLease {
        /// `ls_…`
        id: String,
    },
    /// End every live lease that fits.
    RevokeLeases(LeaseRequest),
    /// Tell why an exchange ended as it did, or how one would end.
    Explain(ExplainRequest),
    /// An entry and the facts behind it.
    ShowEntry {
        /// Its index, or `ex_…`.
        entry: String,
    },
    /// The inclusion proof of an entry.
    ProveEntry {
        /// Its index, or `ex_…`.
        entry: String,
    },
    /// Go on from a head that the anchor does not know (threat K07).
    Fork,
    /// Sign a checkpoint now.
    Checkpoint,
}

/// What a block matches; at least one member must be there.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct BlockRequest {
    /// Only tokens of this issuer.
    #[serde(default)]
    pub issuer: Option<String>,
    /// Only grants by this rule.
    #[serde(default)]
    pub rule: Option<String>,
    /// Only subjects with all these claims.
    #[serde(default)]
    pub claims: BTreeMap<String, Value>,
    /// Until when, in milliseconds since 1970; none means until lifted.
    #[serde(default)]
    pub until: Option<u64>,
}

/// Which leases are meant: every member that is there must fit.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct LeaseRequest {
    /// `ls_…`
    pub id: Option<String>,
    /// `ex_…`: the exchange that opened it.
    pub exchange: Option<String>,
    /// At this target.
    pub target: Option<String>,
    /// By subject or actor tokens of this issuer.
    pub issuer: Option<String>,
    /// Granted by this rule.
    pub rule: Option<String>,
    /// For a subject or an actor with all these claims.
    pub claims: BTreeMap<String, Value>,
    /// In this state: only for a list.
    pub state: Option<String>,
    /// Those that have ended, too: only for a list.
    pub all: bool,
}

/// What to explain: exactly one of `exchange`, `token` and `claims`.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "ExplainText")]
pub struct ExplainRequest {
    /// The subject of the question.
    pub about: About,
    /// `audience` values to explain for.
    pub audience: Vec<String>,
    /// `scope` to explain for.
    pub scope: Vec<String>,
}

/// The subject of an explanation.
#[derive(Clone, Debug)]
pub enum About {
    /// A recorded exchange: `ex_…`.
    Exchange(String),
    /// A token; it is verified, and not spent.
    Token(Secret),
    /// Invented claims of a configured issuer.
    Claims {
        /// What the configuration calls it.
        issuer: String,
        /// The claims.
        claims: Map<String, Value>,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExplainText {
    exchange: Option<String>,
    token: Option<String>,
    issuer: Option<String>,
    claims: Option<Map<String, Value>>,
    #[serde(default)]
    audience: Vec<String>,
    #[serde(default)]
    scope: Vec<String>,
}

impl TryFrom<ExplainText> for ExplainRequest {
    type Error = &'static str;

    fn try_from(text: ExplainText) -> Result<Self, Self::Error> {
        let about = match (text.exchange, text.token, text.issuer, text.claims) {
            (Some(id), None, None, None) => About::Exchange(id),
            (None, Some(token), None, None) => About::Token(Secret::from(token)),
            (None, None, Some(issuer), Some(claims)) => About::Claims { issuer, claims },
            _ => return Err("expected one of `exchange`, `token`, or `issuer` with `claims`"),
        };
        Ok(Self { about, audience: text.audience, scope: text.scope })
    }
}

/// One line of the route table.
struct Verb {
    /// `keys/rotate`
    name: &'static str,
    /// Whether it wants a reason.
    changes: bool,
    /// Arguments → power.
    read: fn(Value) -> Result<Power, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Withdrawal {
    kid: String,
    #[serde(default)]
    force: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Passphrase {
    passphrase: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Id {
    id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotation {
    #[serde(default)]
    target: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    entry: String,
}

/// Everything that the socket can do. `docs/openapi.yaml` is compared with it.
static VERBS: &[Verb] = &[
    looks("status", |value| of(value, |Nothing {}| Power::Status)),
    changes("reload", |value| of(value, |Nothing {}| Power::Reload)),
    looks("keys/list", |value| of(value, |Nothing {}| Power::ListKeys)),
    changes("keys/rotate", |value| of(value, |Rotation { target }| Power::RotateKeys { target })),
    changes("keys/withdraw", |value| {
        of(value, |Withdrawal { kid, force }| Power::WithdrawKey { kid, force })
    }),
    changes("keys/export", |value| {
        of(value, |it: Passphrase| Power::ExportKeys { passphrase: Secret::from(it.passphrase) })
    }),
    looks("blocks/list", |value| of(value, |Nothing {}| Power::ListBlocks)),
    changes("blocks/set", |value| of(value, Power::SetBlock)),
    changes("blocks/lift", |value| of(value, |Id { id }| Power::LiftBlock { id })),
    looks("leases/list", |value| of(value, Power::ListLeases)),
    looks("leases/show", |value| of(value, |Id { id }| Power::ShowLease { id })),
    changes("leases/revoke", |value| of(value, Power::RevokeLeases)),
    looks("explain", |value| of(value, Power::Explain)),
    looks("ledger/show", |value| of(value, |Entry { entry }| Power::ShowEntry { entry })),
    looks("ledger/prove", |value| of(value, |Entry { entry }| Power::ProveEntry { entry })),
    changes("ledger/fork", |value| of(value, |Nothing {}| Power::Fork)),
    changes("ledger/checkpoint", |value| of(value, |Nothing {}| Power::Checkpoint)),
];

const fn looks(name: &'static str, read: fn(Value) -> Result<Power, String>) -> Verb {
    Verb { name, changes: false, read }
}

const fn changes(name: &'static str, read: fn(Value) -> Result<Power, String>) -> Verb {
    Verb { name, changes: true, read }
}

fn of<T: DeserializeOwned>(value: Value, make: impl FnOnce(T) -> Power) -> Result<Power, String> {
    serde_json::from_value(value).map(make).map_err(|error| error.to_string())
}

/// The names of all verbs, and whether each wants a reason.
pub fn verbs() -> impl Iterator<Item = (&'static str, bool)> {
    VERBS.iter().map(|verb| (verb.name, verb.changes))
}

/// Who is at the other end of the socket, as the kernel says (`SO_PEERCRED`).
#[derive(Clone, Copy, Debug)]
pub struct PeerUid(pub u32);

/// The routes of the admin socket.
pub fn router(powers: Arc<dyn Powers>) -> Router {
    let mut router = Router::new();
    for verb in VERBS {
        let serve = move |State(powers): State<Arc<dyn Powers>>, request: Request| async move {
            exercise(verb, &*powers, request).await
        };
        router = router.route(&format!("/v1/{}", verb.name), post(serve));
    }
    router
        .fallback(super::nothing_here)
        .layer(middleware::map_response(super::guard))
        .with_state(powers)
}

async fn exercise(verb: &Verb, powers: &dyn Powers, request: Request) -> Response {
    let Some(PeerUid(uid)) = request.extensions().get::<PeerUid>().copied() else {
        return failed(&PowerError::Failed("the listener did not say who connected".to_owned()));
    };
    let ended = match read(verb, request).await {
        Ok((power, reason)) => {
            let by = Operator { who: format!("uid:{uid}"), reason };
            if verb.changes {
                info!(
                    admin.verb = verb.name,
                    admin.who = by.who,
                    "`{}` is asked for by `{}`: {}",
                    verb.name,
                    by.who,
                    Plain(&by.reason),
                );
            }
            powers.exercise(power, &by).await
        }
        Err(words) => Err(PowerError::BadRequest(words)),
    };
    match ended {
        Ok(value) => super::no_store(super::json(StatusCode::OK, &value)),
        Err(error) => {
            warn!(admin.verb = verb.name, "`{}` failed: {}", verb.name, Plain(&error));
            failed(&error)
        }
    }
}

/// How long the body may take.
const BODY: Duration = Duration::from_secs(10);
/// The most that a reason may have, in characters: it stands in an entry of at most 4 KiB.
const LONGEST_REASON: usize = 500;

async fn read(verb: &Verb, request: Request) -> Result<(Power, String), String> {
    const BODY_LIMITS: Limits =
        Limits { bytes: form::MOST_BYTES, depth: 16, members: 256, elements: 1024 };
    let (parts, body) = request.into_parts();
    let body = form::read_body(&parts.headers, body, BODY).await.map_err(|e| e.to_string())?;
    let mut arguments =
        json::parse_object(&body, &BODY_LIMITS).map_err(|error| error.to_string())?;
    let reason = match arguments.remove("reason") {
        Some(Value::String(reason)) => reason.trim().to_owned(),
        Some(_) => return Err("`reason` must be a string".to_owned()),
        None => String::new(),
    };
    if verb.changes && reason.is_empty() {
        return Err(format!("`{}` changes something: say why with `reason`", verb.name));
    }
    if reason.chars().count() > LONGEST_REASON || reason.chars().any(char::is_control) {
        return Err(format!("`reason` must be one line of at most {LONGEST_REASON} characters"));
    }
    Ok(((verb.read)(Value::Object(arguments))?, reason))
}

fn failed(error: &PowerError) -> Response {
    let (status, code) = match error {
        PowerError::BadRequest(_) => (StatusCode::BAD_REQUEST, "bad_request"),
        PowerError::NotFound(_) => (StatusCode::NOT_FOUND, "not_found"),
        PowerError::Conflict(_) => (StatusCode::CONFLICT, "conflict"),
        PowerError::Failed(_) => (StatusCode::INTERNAL_SERVER_ERROR, "failed"),
    };
    // The operator is on this machine and owns the process: causes are told.
    super::no_store(super::json(status, &json!({ "error": code, "message": error.to_string() })))
}

/// Makes the socket at `path`, mode 0600, in a folder that nobody else can write to.
///
/// # Errors
/// The folder is open to others, another broker listens there, or `path` is something else than a socket.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.ok_or_else(|| io::Error::other("the admin socket needs a folder"))?;
    let found = fs::metadata(folder)?;
    let own = rustix::process::geteuid().as_raw();
    // Whoever can write to the folder can put a socket of their own there, and collect reasons and passphrases.
    if found.mode() & 0o022 != 0 || (found.uid() != own && found.uid() != 0) {
        return Err(io::Error::other(format!(
            "`{}` is writable by others: expected mode 0700 or 0755, owned by this user",
            folder.display()
        )));
    }
    clear(path)?;
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Removes what a killed process left behind, and nothing else.
fn clear(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        return Err(io::Error::other(format!("`{}` is there and is no socket", path.display())));
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::Error::other(format!("a broker listens on `{}` already", path.display())));
    }
    fs::remove_file(path)
}

/// Serves `router` on the socket until `stop`.
pub async fn serve(listener: UnixListener, router: Router, stop: CancellationToken) {
    let path = listener.local_addr().ok().and_then(|at| at.as_pathname().map(Path::to_owned));
    let end = End { kill: stop.clone(), stop };
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = end.stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted.and_then(|(stream, _)| Ok((owner(&stream)?, stream))) {
            Ok((uid, stream)) => {
                let (router, end) = (router.clone(), end.clone());
                connections.spawn(converse(stream, uid, router, Duration::from_secs(5), end));
            }
            Err(error) => {
                warn!("an admin connection was refused: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    connections.close();
    connections.wait().await;
    // Whoever finds a socket expects a broker behind it.
    drop(listener);
    let _ = path.map(fs::remove_file);
}

/// The mode of the socket keeps others out; between `bind` and `chmod` this does.
fn owner(stream: &UnixStream) -> io::Result<PeerUid> {
    let uid = stream.peer_cred()?.uid();
    if uid == 0 || uid == rustix::process::geteuid().as_raw() {
        return Ok(PeerUid(uid));
    }
    Err(io::Error::other(format!("uid {uid} does not own this process")))
}
