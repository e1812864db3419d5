//! One server that is Google's STS and credentials API, Entra, and GitHub: as strict as they are, where what they say is
//! documented. It fetches our key set for every assertion, as if it had never seen us.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, Response},
};
use cambio::clock::{Clock as _, Instant, ManualClock};
use http_body_util::BodyExt as _;
use josekit::{jwk::Jwk, jws};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    edge::surface::read,
    support::{broker::parts, site::OURS},
};

pub(crate) const PROVIDER: &str = "//iam.googleapis.com/projects/123456/locations/global/workloadIdentityPools/cambio/providers/cambio";
pub(crate) const ACCOUNT: &str = "deployer@acme-prod.iam.gserviceaccount.com";
pub(crate) const TENANT: &str = "0b1f6a52-7c1d-4f0e-9a51-2f6f0c7f2a11";
pub(crate) const CLIENT: &str = "5d0c4a7b-8f2e-4c9d-8e7a-6b511c9d0e7a";
pub(crate) const SUBJECT: &str = "cambio:prod:deploy";
pub(crate) const APP: &str = "Iv23liCambioTest";
pub(crate) const INSTALLATION: u64 = 4_711;
pub(crate) const REPOSITORIES: [u64; 2] = [1_296_269, 777];

/// How the stand-in is today.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Well,
    /// Takes the request, and never answers.
    Hangs,
    /// Answers this, with status 200.
    Says(&'static str),
    Fails(u16),
    Throttles(&'static str),
    /// Does what it is asked, and its answer is lost on the way.
    LosesTheAnswer,
    /// Gives tokens that live a day.
    Generous,
    /// Gives tokens with more power than was asked for.
    Broader,
}

#[derive(Debug)]
pub(crate) struct Desk {
    mood: Mutex<Mood>,
    pub(crate) seen: Mutex<Vec<(String, Value)>>,
    /// Tokens that are good, and what is known of each.
    pub(crate) tokens: Mutex<BTreeMap<String, Value>>,
    broker: OnceLock<Router>,
    clock: OnceLock<Arc<ManualClock>>,
    app: Mutex<Option<Jwk>>,
    /// The App's JWTs that were shown.
    pub(crate) shown: Mutex<Vec<String>>,
}

#[derive(Debug)]
pub(crate) struct StandIn {
    pub(crate) url: url::Url,
    pub(crate) desk: Arc<Desk>,
}

impl StandIn {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let desk = Arc::new(Desk {
            mood: Mutex::new(Mood::Well),
            seen: Mutex::default(),
            tokens: Mutex::default(),
            broker: OnceLock::new(),
            clock: OnceLock::new(),
            app: Mutex::default(),
            shown: Mutex::default(),
        });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&desk));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, desk }
    }

    /// Whose key set is fetched, and by which clock.
    pub(crate) fn trust(&self, router: &Router, clock: &Arc<ManualClock>) {
        let _ = self.desk.broker.set(router.clone());
        let _ = self.desk.clock.set(Arc::clone(clock));
    }

    pub(crate) fn know_app(&self, key: Jwk) {
        *self.desk.app.lock().unwrap() = Some(key);
    }

    pub(crate) fn is(&self, mood: Mood) {
        *self.desk.mood.lock().unwrap() = mood;
    }

    /// How often it was asked.
    pub(crate) fn asked(&self) -> usize {
        self.desk.seen.lock().unwrap().len()
    }

    /// The form or JSON of each request to a path that ends like this.
    pub(crate) fn seen(&self, path: &str) -> Vec<Value> {
        let seen = self.desk.seen.lock().unwrap();
        seen.iter().filter(|(line, _)| line.ends_with(path)).map(|(_, body)| body.clone()).collect()
    }

    pub(crate) fn knows(&self, token: &str) -> Option<Value> {
        self.desk.tokens.lock().unwrap().get(token).cloned()
    }
}

type Said = Result<(u16, Value), (u16, Value)>;

async fn answer(State(desk): State<Arc<Desk>>, request: Request) -> Response<Body> {
    let (head, body) = request.into_parts();
    let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    let line = format!("{} {}", head.method, head.uri);
    let kind = head.headers.get("content-type").map_or("", |value| value.to_str().unwrap());
    let asked = if kind == "application/x-www-form-urlencoded" {
        let pairs = url::form_urlencoded::parse(text.as_bytes());
        Value::Object(pairs.map(|(name, value)| (name.into_owned(), value.into())).collect())
    } else {
        text.parse().unwrap_or(Value::Null)
    };
    desk.seen.lock().unwrap().push((line.clone(), asked.clone()));
    let mood = *desk.mood.lock().unwrap();
    let plain = |status: u16, body: &str| {
        Response::builder().status(status).body(Body::from(body.to_owned())).unwrap()
    };
    match mood {
        Mood::Hangs => std::future::pending().await,
        Mood::Says(text) => return plain(200, text),
        Mood::Fails(status) => return plain(status, "<html>oops</html>"),
        Mood::Throttles(after) => {
            let slow = Response::builder().status(429).header("retry-after", after);
            return slow.body(Body::empty()).unwrap();
        }
        Mood::Well | Mood::Generous | Mood::Broader | Mood::LosesTheAnswer => {}
    }
    let path = head.uri.path().to_owned();
    let said = if path == "/v1/token" {
        google_sts(&desk, &asked).await
    } else if path.ends_with(":generateAccessToken") {
        google_account(&desk, &path, &head.headers, &asked, mood)
    } else if path.ends_with("/oauth2/v2.0/token") {
        entra(&desk, &path, &asked, mood).await
    } else if path.starts_with("/app/installations/") {
        github_app(&desk, &line, &head.headers, &asked, mood)
    } else if line == "DELETE /installation/token" {
        let token = bearer(&head.headers);
        let known = desk.tokens.lock().unwrap().remove(&token).is_some();
        if known {
            Ok((204, Value::Null))
        } else {
            Err((401, json!({ "message": "Bad credentials" })))
        }
    } else {
        Err((404, json!({ "error": "not_found" })))
    };
    if mood == Mood::LosesTheAnswer {
        return plain(502, "<html>bad gateway</html>");
    }
    let (Ok((status, body)) | Err((status, body))) = said;
    let response = Response::builder().status(status).header("content-type", "application/json");
    let body = if status == 204 { Body::empty() } else { Body::from(body.to_string()) };
    response.body(body).unwrap()
}

impl Desk {
    fn now(&self) -> Instant {
        self.clock.get().unwrap().now()
    }

    fn give(&self, prefix: &str, what: Value) -> String {
        let mut tokens = self.tokens.lock().unwrap();
        let token = format!("{prefix}{:036}", tokens.len());
        tokens.insert(token.clone(), what);
        token
    }

    /// The claims of an assertion of ours: signature by our published keys, issuer, times.
    async fn verify(&self, token: &str, algorithms: &[&str]) -> Result<Value, String> {
        let (header, claims) = parts(token);
        let alg = header["alg"].as_str().unwrap_or_default();
        if !algorithms.contains(&alg) {
            return Err(format!("algorithm {alg}"));
        }
        let set = read(self.broker.get().unwrap(), "/jwks").await.json();
        let keys = set["keys"].as_array().unwrap();
        let kid = header["kid"].as_str().ok_or("no kid")?;
        let key = keys.iter().find(|key| key["kid"] == kid).ok_or("no such key")?;
        let jwk = Jwk::from_map(key.as_object().unwrap().clone()).unwrap();
        match alg {
            "ES256" => {
                jws::deserialize_compact(token, &jws::ES256.verifier_from_jwk(&jwk).unwrap())
            }
            _ => jws::deserialize_compact(token, &jws::RS256.verifier_from_jwk(&jwk).unwrap()),
        }
        .map_err(|error| error.to_string())?;
        let (now, second) = (self.now().seconds(), |name: &str| claims[name].as_u64().unwrap_or(0));
        if claims["iss"] != OURS {
            return Err("issuer".to_owned());
        }
        if second("iat") > now || second("iat") + 86_400 < now || second("exp") <= now {
            return Err("times".to_owned());
        }
        if second("exp") - second("iat") > 600 {
            return Err("an assertion that lives for long".to_owned());
        }
        Ok(claims)
    }
}

fn text<'v>(asked: &'v Value, name: &str) -> &'v str {
    asked[name].as_str().unwrap_or_default()
}

fn bearer(headers: &HeaderMap) -> String {
    let value = headers.get("authorization").map_or("", |value| value.to_str().unwrap());
    value.strip_prefix("Bearer ").unwrap_or_default().to_owned()
}

fn oauth(code: &str, words: &str) -> (u16, Value) {
    (400, json!({ "error": code, "error_description": words }))
}

async fn google_sts(desk: &Desk, asked: &Value) -> Said {
    let wanted = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        ("audience", PROVIDER),
    ];
    for (name, value) in wanted {
        if asked[name] != value {
            return Err(oauth("invalid_request", &format!("Invalid value for \"{name}\".")));
        }
    }
    if text(asked, "scope").is_empty() {
        return Err(oauth("invalid_scope", "scope is required"));
    }
    let token = text(asked, "subject_token");
    let claims = desk.verify(token, &["RS256", "ES256"]).await;
    let claims = claims.map_err(|reason| oauth("invalid_grant", &reason))?;
    let subject = text(&claims, "sub");
    if claims["aud"] != format!("https:{PROVIDER}") {
        return Err(oauth(
            "invalid_grant",
            "The audience in ID Token does not match the expected audience.",
        ));
    }
    if subject.is_empty() || subject.len() > 127 {
        return Err(oauth(
            "invalid_grant",
            "The size of mapped attribute google.subject exceeds the 127 bytes limit.",
        ));
    }
    let scope = asked["scope"].clone();
    let what = json!({ "sub": subject, "role": claims["role"], "scope": scope });
    let token = desk.give("ya29.d.", what);
    Ok((
        200,
        json!({
            "access_token": token, "expires_in": 3_599, "token_type": "Bearer",
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        }),
    ))
}

fn google_account(desk: &Desk, path: &str, headers: &HeaderMap, asked: &Value, mood: Mood) -> Said {
    let no = |code: u16, status: &str, words: &str| {
        (code, json!({ "error": { "code": code, "message": words, "status": status } }))
    };
    let federated = desk.tokens.lock().unwrap().get(&bearer(headers)).cloned();
    let federated = federated.ok_or_else(|| no(401, "UNAUTHENTICATED", "invalid credentials"))?;
    if federated["scope"] != "https://www.googleapis.com/auth/iam" {
        return Err(no(403, "PERMISSION_DENIED", "insufficient scopes"));
    }
    let account = path.strip_prefix("/v1/projects/-/serviceAccounts/").unwrap_or_default();
    if account != format!("{ACCOUNT}:generateAccessToken") {
        return Err(no(
            403,
            "PERMISSION_DENIED",
            "Permission 'iam.serviceAccounts.getAccessToken' denied",
        ));
    }
    let seconds = text(asked, "lifetime").strip_suffix('s').and_then(|text| text.parse().ok());
    let seconds: u64 = seconds
        .filter(|seconds| (1..=3_600).contains(seconds))
        .ok_or_else(|| no(400, "INVALID_ARGUMENT", "lifetime out of range"))?;
    if asked["scope"].as_array().is_none_or(Vec::is_empty) {
        return Err(no(400, "INVALID_ARGUMENT", "scope is required"));
    }
    let seconds = if mood == Mood::Generous { 86_400 } else { seconds };
    let what = json!({ "sub": federated["sub"], "account": ACCOUNT, "scope": asked["scope"] });
    let token = desk.give("ya29.c.", what);
    let ends = desk.now().plus(Duration::from_secs(seconds));
    Ok((200, json!({ "accessToken": token, "expireTime": ends.to_string() })))
}

async fn entra(desk: &Desk, path: &str, asked: &Value, mood: Mood) -> Said {
    let no = |code: u32, error: &str, words: &str| {
        (
            400,
            json!({
                "error": error, "error_description": format!("AADSTS{code}: {words}"),
                "error_codes": [code], "timestamp": "2027-01-15 08:00:00Z", "trace_id": "t", "correlation_id": "c",
            }),
        )
    };
    if path != format!("/{TENANT}/oauth2/v2.0/token") {
        return Err(no(90_002, "invalid_request", "Tenant not found."));
    }
    let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    if asked["grant_type"] != "client_credentials" || asked["client_assertion_type"] != kind {
        return Err(no(900_144, "invalid_request", "a parameter is missing"));
    }
    if asked["client_id"] != CLIENT {
        return Err(no(700_016, "unauthorized_client", "Application not found in the directory."));
    }
    if !text(asked, "scope").ends_with("/.default") {
        return Err(no(
            1_002_012,
            "invalid_scope",
            "client credential flows must have a scope value with /.default",
        ));
    }
    let claims = desk.verify(text(asked, "client_assertion"), &["RS256"]).await;
    let claims = claims.map_err(|reason| no(700_027, "invalid_client", &reason))?;
    if claims["aud"] != "api://AzureADTokenExchange" {
        return Err(no(
            700_212,
            "invalid_client",
            "No matching federated identity record found for presented assertion audience.",
        ));
    }
    if claims["sub"] != SUBJECT {
        return Err(no(
            700_213,
            "invalid_client",
            "No matching federated identity record found for presented assertion subject.",
        ));
    }
    let token = desk.give("eyJ0.azure.", json!({ "client_id": CLIENT, "scope": asked["scope"] }));
    let lives = if mood == Mood::Generous { 86_400 } else { 4_242 };
    Ok((
        200,
        json!({
            "token_type": "Bearer", "expires_in": lives, "ext_expires_in": lives, "access_token": token,
        }),
    ))
}

fn github_app(desk: &Desk, line: &str, headers: &HeaderMap, asked: &Value, mood: Mood) -> Said {
    let no = |status: u16, words: &str| (status, json!({ "message": words }));
    let jwt = bearer(headers);
    desk.shown.lock().unwrap().push(jwt.clone());
    let key = desk.app.lock().unwrap().clone().unwrap();
    let verifier = jws::RS256.verifier_from_jwk(&key).unwrap();
    jws::deserialize_compact(&jwt, &verifier)
        .map_err(|_| no(401, "A JSON web token could not be decoded"))?;
    let (claims, now) = (parts(&jwt).1, desk.now().seconds());
    let (iat, exp) = (claims["iat"].as_u64().unwrap(), claims["exp"].as_u64().unwrap());
    if iat > now || exp <= now || exp > now + 600 {
        return Err(no(401, "'Expiration time' claim ('exp') is too far in the future"));
    }
    if claims["iss"] != APP {
        return Err(no(404, "Integration not found"));
    }
    let has = json!({ "contents": "write", "metadata": "read", "issues": "read" });
    if line == format!("GET /app/installations/{INSTALLATION}") {
        return Ok((200, json!({ "id": INSTALLATION, "permissions": has })));
    }
    if line != format!("POST /app/installations/{INSTALLATION}/access_tokens") {
        return Err(no(404, "Not Found"));
    }
    let rank = |level: &Value| ["read", "write", "admin"].iter().position(|known| level == known);
    for (name, level) in asked["permissions"].as_object().unwrap() {
        if rank(level) > rank(&has[name]) {
            return Err(no(422, "The permissions requested are not granted to this installation."));
        }
    }
    let ids = asked["repository_ids"].as_array().unwrap();
    if !ids.iter().all(|id| REPOSITORIES.iter().any(|known| id == known)) {
        return Err(no(
            422,
            "There is at least one repository that does not exist or is not accessible.",
        ));
    }
    let mut permissions = asked["permissions"].clone();
    permissions["metadata"] = json!("read");
    let mut repositories: Vec<Value> =
        ids.iter().map(|id| json!({ "id": id, "name": format!("repo-{id}") })).collect();
    if mood == Mood::Broader {
        repositories.push(json!({ "id": 9, "name": "secrets" }));
    }
    let what = json!({ "permissions": permissions, "repositories": repositories });
    let token = desk.give("ghs_4711_eyJhbGciOiJFUzI1NiJ9.", what);
    let ends =
        desk.now().plus(Duration::from_secs(if mood == Mood::Generous { 86_400 } else { 3_600 }));
    Ok((
        201,
        json!({
            "token": token, "expires_at": ends.to_string(), "permissions": permissions,
            "repository_selection": "selected", "repositories": repositories,
        }),
    ))
}
