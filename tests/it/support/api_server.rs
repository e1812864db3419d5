//! An API server of Kubernetes as far as a `TokenReview` goes: over TLS, as strict as the real one, and with its words. It looks its
//! pods and service accounts up by uid, as the real one does; signatures are the broker's affair.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, Response},
};
use cambio::{
    edge::{
        Proxies,
        listen::{self, Terms},
        tls::Tls,
    },
    telemetry::Metrics,
};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::broker::parts;

/// How the API server is today.
#[derive(Clone, Debug)]
pub(crate) enum Mood {
    Well,
    /// Takes the question, and answers once it is well again.
    Hangs,
    /// Says yes, with this changed: a JSON pointer, and what stands there then (nothing for `null`).
    Says(&'static str, Value),
    /// Answers this, whatever was asked: status, headers, body.
    Fails(u16, Vec<(&'static str, String)>, String),
}

#[derive(Debug)]
struct Desk {
    mood: watch::Sender<Mood>,
    /// The uids of what was deleted.
    gone: Mutex<Vec<String>>,
    /// Our own token, as it should be now.
    own: Mutex<String>,
    asked: Mutex<Vec<Value>>,
    /// To which questions it has said yes: it does not look again.
    kept: Mutex<Vec<Value>>,
    may_review: Mutex<bool>,
}

/// The server. Ends with its test.
#[derive(Debug)]
pub(crate) struct ApiServer {
    pub(crate) url: String,
    desk: Arc<Desk>,
    _stop: DropGuard,
}

impl ApiServer {
    /// Starts one on loopback; its certificate is in `folder`, as `ca.crt`, and `own` is whom it takes questions of.
    pub(crate) async fn start(folder: &Path, own: &str) -> Self {
        let pair = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let (certificate, key) = (folder.join("ca.crt"), folder.join("api-server.key"));
        fs::write(&certificate, pair.cert.pem()).unwrap();
        crate::support::write_private(&key, pair.signing_key.serialize_pem());
        let tls = Arc::new(Tls::load(certificate, key).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let desk = Arc::new(Desk {
            mood: watch::Sender::new(Mood::Well),
            gone: Mutex::default(),
            own: Mutex::new(own.to_owned()),
            asked: Mutex::default(),
            kept: Mutex::default(),
            may_review: Mutex::new(true),
        });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&desk));
        let terms = Terms::public(64, Proxies::default(), Arc::new(Metrics::new()));
        let stop = CancellationToken::new();
        TaskTracker::new().spawn(listen::serve(listener, Some(tls), router, terms, stop.clone()));
        Self { url, desk, _stop: stop.drop_guard() }
    }

    pub(crate) fn is(&self, mood: Mood) {
        self.desk.mood.send_replace(mood);
    }

    /// Deletes what has this uid: a pod, or a service account.
    pub(crate) fn delete(&self, uid: &str) {
        self.desk.gone.lock().unwrap().push(uid.to_owned());
    }

    /// From now on the broker's own token is this one, and no other.
    pub(crate) fn expects(&self, own: &str) {
        own.clone_into(&mut self.desk.own.lock().unwrap());
    }

    /// Whether our service account is bound to `system:auth-delegator`.
    pub(crate) fn lets_us_review(&self, may: bool) {
        *self.desk.may_review.lock().unwrap() = may;
    }

    /// The questions, in order; those that it did not understand are not among them.
    pub(crate) fn asked(&self) -> Vec<Value> {
        self.desk.asked.lock().unwrap().clone()
    }
}

async fn answer(State(desk): State<Arc<Desk>>, request: Request) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let line = format!("{} {}", head.method, head.uri);
    if line != "POST /apis/authentication.k8s.io/v1/tokenreviews" {
        return failure(404, "NotFound", "the server could not find the requested resource");
    }
    if header(&head.headers, "content-type") != "application/json" {
        let said = "the body of the request was in an unknown format";
        return failure(415, "UnsupportedMediaType", said);
    }
    if header(&head.headers, "authorization") != format!("Bearer {}", desk.own.lock().unwrap()) {
        return failure(401, "Unauthorized", "Unauthorized");
    }
    if !*desk.may_review.lock().unwrap() {
        return failure(
            403,
            "Forbidden",
            "tokenreviews.authentication.k8s.io is forbidden: User \"system:serviceaccount:cambio:cambio\" cannot create resource \"tokenreviews\" in API group \"authentication.k8s.io\" at the cluster scope",
        );
    }
    let asked: Value = std::str::from_utf8(&body).unwrap().parse().unwrap();
    let api = (asked["apiVersion"].as_str(), asked["kind"].as_str());
    if api != (Some("authentication.k8s.io/v1"), Some("TokenReview")) {
        return failure(400, "BadRequest", "the object provided is unrecognized");
    }
    let members = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(members(&asked), ["apiVersion", "kind", "spec"], "the real one is closed too");
    desk.asked.lock().unwrap().push(asked.clone());
    let mut mood = desk.mood.subscribe();
    let mood = mood.wait_for(|mood| !matches!(mood, Mood::Hangs)).await.unwrap().clone();
    let said = match &mood {
        Mood::Fails(status, headers, body) => {
            let mut response = Response::builder().status(*status);
            for (name, value) in headers {
                response = response.header(*name, value);
            }
            return response.body(Body::from(body.clone())).unwrap();
        }
        Mood::Says(pointer, value) => {
            let mut said = review(&asked, &yes(&asked));
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            let parent = said.pointer_mut(parent).unwrap().as_object_mut().unwrap();
            let name = name.replace("~1", "/");
            parent.remove(&name);
            if !value.is_null() {
                parent.insert(name, value.clone());
            }
            said
        }
        Mood::Well | Mood::Hangs => review(&asked, &judged(&desk, &asked)),
    };
    let response = Response::builder().status(201).header("content-type", "application/json");
    response.body(Body::from(said.to_string())).unwrap()
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers.get(name).map_or("", |value| value.to_str().unwrap())
}

fn judged(desk: &Desk, asked: &Value) -> Value {
    let own = asked["spec"]["token"].as_str() == Some(&*desk.own.lock().unwrap());
    if own {
        let name = "system:serviceaccount:cambio:cambio";
        return json!({ "authenticated": true, "user": { "username": name, "uid": "c0" }, "audiences": ["https://kubernetes.default.svc"] });
    }
    let yes = yes(asked);
    // The real one does so for ten seconds.
    if desk.kept.lock().unwrap().contains(&asked["spec"]) {
        return yes;
    }
    let extra = &yes["user"]["extra"];
    let bound = [&yes["user"]["uid"], &extra["authentication.kubernetes.io/pod-uid"][0]];
    let gone = desk.gone.lock().unwrap();
    if bound.iter().any(|uid| gone.iter().any(|gone| uid.as_str() == Some(gone))) {
        return json!({ "user": {}, "error": "[invalid bearer token, service account token has been invalidated]" });
    }
    desk.kept.lock().unwrap().push(asked["spec"].clone());
    yes
}

/// What is said of a token while everything that it is bound to is there.
fn yes(asked: &Value) -> Value {
    let (_, claims) = parts(asked["spec"]["token"].as_str().unwrap());
    let bound = &claims["kubernetes.io"];
    let namespace = bound["namespace"].as_str().unwrap();
    let mut extra = json!({
        "authentication.kubernetes.io/credential-id": [format!("JTI={}", claims["jti"].as_str().unwrap())],
    });
    for (kind, name) in [("pod", "pod"), ("node", "node")] {
        if let Some(object) = bound.get(kind) {
            extra[format!("authentication.kubernetes.io/{name}-name")] = json!([object["name"]]);
            extra[format!("authentication.kubernetes.io/{name}-uid")] = json!([object["uid"]]);
        }
    }
    let carried = |audience: &&Value| claims["aud"].as_array().unwrap().contains(audience);
    let audiences: Vec<_> =
        asked["spec"]["audiences"].as_array().unwrap().iter().filter(carried).collect();
    json!({
        "authenticated": true,
        "user": {
            "username": claims["sub"],
            "uid": bound["serviceaccount"]["uid"],
            "groups": ["system:serviceaccounts", format!("system:serviceaccounts:{namespace}"), "system:authenticated"],
            "extra": extra,
        },
        "audiences": audiences,
    })
}

fn review(asked: &Value, status: &Value) -> Value {
    json!({
        "kind": "TokenReview",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": { "managedFields": [{
            "manager": "cambio", "operation": "Update", "apiVersion": "authentication.k8s.io/v1", "time": "2027-01-15T08:00:00Z",
            "fieldsType": "FieldsV1", "fieldsV1": { "f:spec": { "f:audiences": {}, "f:token": {} } },
        }] },
        "spec": asked["spec"],
        "status": status,
    })
}

fn failure(code: u16, reason: &str, message: &str) -> Response<Body> {
    let said = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    });
    let response = Response::builder().status(code).header("content-type", "application/json");
    response.body(Body::from(said.to_string())).unwrap()
}
