//! The admin socket: who may, what it wants to know, what it hands on.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use cambio::{
    edge::{
        Power, PowerError, Powers,
        admin::{self, About},
        admin_client::{CallError, call},
    },
    ledger::Operator,
};
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

#[derive(Debug, Default)]
struct FakePowers(Mutex<Vec<(Power, Operator)>>);

#[async_trait]
impl Powers for FakePowers {
    async fn exercise(&self, power: Power, by: &Operator) -> Result<Value, PowerError> {
        self.0.lock().unwrap().push((power.clone(), by.clone()));
        match power {
            Power::LiftBlock { id } => Err(PowerError::NotFound(format!("no block `{id}`"))),
            Power::RotateKeys { .. } => Err(PowerError::Conflict("no announced key".to_owned())),
            Power::Fork => Err(PowerError::Failed("disk".to_owned())),
            _ => Ok(json!({ "done": true })),
        }
    }
}

struct Admin {
    powers: Arc<FakePowers>,
    socket: PathBuf,
    _stop: DropGuard,
    _folder: TempDir,
}

fn folder(mode: u32) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
    folder
}

fn admin() -> Admin {
    let folder = folder(0o700);
    let socket = folder.path().join("admin.sock");
    let powers = Arc::new(FakePowers::default());
    let stop = CancellationToken::new();
    let listener = admin::bind(&socket).unwrap();
    #[expect(clippy::disallowed_methods, reason = "a test's own task")]
    tokio::spawn(admin::serve(listener, admin::router(powers.clone()), stop.clone()));
    Admin { powers, socket, _stop: stop.drop_guard(), _folder: folder }
}

impl Admin {
    async fn ask(&self, verb: &str, arguments: Value) -> Result<Value, String> {
        let arguments: Map<String, Value> = arguments.as_object().unwrap().clone();
        call(&self.socket, verb, arguments).await.map_err(|error| match error {
            CallError::Refused { code, message } => format!("{code}: {message}"),
            other => other.to_string(),
        })
    }

    fn last(&self) -> (Power, Operator) {
        self.powers.0.lock().unwrap().pop().unwrap()
    }
}

/// Arguments with which each verb is understood.
fn arguments(verb: &str) -> Value {
    match verb {
        "keys/withdraw" => json!({ "kid": "k" }),
        "keys/export" => json!({ "passphrase": "sixteen bytes or more" }),
        "blocks/set" => json!({ "issuer": "github" }),
        "leases/show" => json!({ "id": "ls_1" }),
        "leases/revoke" => json!({ "rule": "orders/deploy" }),
        "blocks/lift" => json!({ "id": "bl_1" }),
        "explain" => json!({ "exchange": "ex_1" }),
        "ledger/show" | "ledger/prove" => json!({ "entry": "7" }),
        _ => json!({}),
    }
}

#[tokio::test]
async fn every_verb_that_changes_something_wants_a_reason_and_is_told_who_asks() {
    let admin = admin();
    let own = rustix::process::geteuid().as_raw();
    for (verb, changes) in admin::verbs() {
        let mut arguments = arguments(verb);
        if changes {
            for reason in [None, Some(""), Some(" \t "), Some("two\nlines")] {
                let mut arguments = arguments.clone();
                if let Some(reason) = reason {
                    arguments["reason"] = reason.into();
                }
                let said = admin.ask(verb, arguments).await.unwrap_err();
                assert!(
                    said.starts_with("bad_request: ") && said.contains("reason"),
                    "{verb}: {said}"
                );
            }
            assert!(admin.powers.0.lock().unwrap().is_empty(), "{verb}");
            arguments["reason"] = "INC-7".into();
        }
        let _ = admin.ask(verb, arguments).await;
        let (_, by) = admin.last();
        let reason = if changes { "INC-7" } else { "" };
        assert_eq!((by.who, by.reason.as_str()), (format!("uid:{own}"), reason), "{verb}");
    }
}

#[tokio::test]
async fn arguments_are_closed_and_typed() {
    let admin = admin();
    let said =
        admin.ask("keys/withdraw", json!({ "kid": "k", "froce": true, "reason": "x" })).await;
    assert_eq!(
        said,
        Err("bad_request: unknown field `froce`, expected `kid` or `force`".to_owned())
    );
    let said = admin.ask("keys/withdraw", json!({ "reason": "x" })).await;
    assert_eq!(said, Err("bad_request: missing field `kid`".to_owned()));
    let said = admin.ask("explain", json!({ "exchange": "ex_1", "token": "a.b.c" })).await;
    assert_eq!(
        said,
        Err("bad_request: expected one of `exchange`, `token`, or `issuer` with `claims`"
            .to_owned())
    );
    admin.ask("explain", json!({ "token": "a.b.c", "scope": ["deploy"] })).await.unwrap();
    let (Power::Explain(request), _) = admin.last() else { panic!("another power") };
    assert!(matches!(request.about, About::Token(_)));
    assert_eq!(format!("{:?}", request.about), "Token(Secret(5 bytes))");
    admin.ask("keys/withdraw", json!({ "kid": "k", "force": true, "reason": "x" })).await.unwrap();
    assert!(matches!(admin.last().0, Power::WithdrawKey { kid, force: true } if kid == "k"));
}

#[tokio::test]
async fn the_operator_is_told_what_went_wrong() {
    let admin = admin();
    let why = |mut arguments: Value| {
        arguments["reason"] = "x".into();
        arguments
    };
    for (verb, arguments, said) in [
        ("blocks/lift", json!({ "id": "bl_1" }), "not_found: no block `bl_1`"),
        ("keys/rotate", json!({}), "conflict: no announced key"),
        ("ledger/fork", json!({}), "failed: disk"),
    ] {
        assert_eq!(admin.ask(verb, why(arguments)).await, Err(said.to_owned()));
    }
    assert_eq!(admin.ask("status", json!({})).await, Ok(json!({ "done": true })));
    assert_eq!(
        admin.ask("nothing", json!({})).await,
        Err("the broker's answer makes no sense: it does not know `nothing`".to_owned())
    );
}

#[tokio::test]
async fn the_socket_is_for_its_owner_in_a_folder_that_nobody_else_writes_to() {
    let admin = admin();
    let mode = fs::metadata(&admin.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let again = admin::bind(&admin.socket).unwrap_err().to_string();
    assert!(again.contains("listens on"), "{again}");

    for open in [0o777, 0o1777, 0o770] {
        let folder = folder(open);
        let said = admin::bind(&folder.path().join("admin.sock")).unwrap_err().to_string();
        assert!(said.contains("is writable by others"), "{open:o}: {said}");
    }
    assert!(admin::bind(Path::new("admin.sock")).is_err());
}

#[tokio::test]
async fn what_a_killed_broker_left_is_cleared_and_nothing_else() {
    let folder = folder(0o755);
    let socket = folder.path().join("admin.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    admin::bind(&socket).unwrap();

    let file = folder.path().join("a-file");
    fs::write(&file, "kept").unwrap();
    assert!(admin::bind(&file).unwrap_err().to_string().contains("is no socket"));
    assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
}

#[tokio::test]
async fn nobody_there_is_not_reachable() {
    let gone = call(Path::new("/nonexistent/admin.sock"), "status", Map::new()).await;
    assert!(matches!(gone, Err(CallError::NotReachable(_))), "{gone:?}");
}
