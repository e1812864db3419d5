//! AWS STS as its API reference and the IAM user guide describe it: it verifies our assertion with the key set that we publish,
//! judges tags, names, lengths and the role's conditions, and refuses in its own words. It can also misbehave.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use cambio::clock::{Clock as _, Instant, SystemClock};
use josekit::jws;
use serde_json::Value;

/// The account of the tests.
pub(crate) const DEPLOY: &str = "arn:aws:iam::123456789012:role/deploy";
/// A role whose trust policy wants another workload.
pub(crate) const STRANGERS: &str = "arn:aws:iam::123456789012:role/strangers";
const TAGS: &str = "https://aws.amazon.com/tags";
const SOURCE: &str = "https://aws.amazon.com/source_identity";

/// How it behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Honest,
    Hangs,
    Garbage,
    Fails,
    Throttles,
    CantReachIssuer,
    /// Tells an end that is far later than what was asked for.
    Generous,
    /// Answers a session without its secret.
    Incomplete,
    /// Answers a session, and a megabyte of nothing after it.
    Padded,
}

/// What it saw of one call that it granted.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) form: BTreeMap<String, String>,
    pub(crate) claims: Value,
}

#[derive(Debug)]
pub(crate) struct StandIn {
    pub(crate) url: String,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    manner: Mutex<Manner>,
    granted: Mutex<Vec<Seen>>,
    asked: Mutex<u64>,
    issuer: OnceLock<(String, Value)>,
}

impl StandIn {
    pub(crate) async fn start() -> Self {
        let shared = Arc::new(Shared {
            manner: Mutex::new(Manner::Honest),
            granted: Mutex::default(),
            asked: Mutex::default(),
            issuer: OnceLock::new(),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let app = Router::new().route("/", post(serve)).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, shared }
    }

    /// The IAM OIDC provider: whose tokens it takes, and the keys that stand at their `jwks_uri`.
    pub(crate) fn trusts(&self, issuer: &str, jwks: Value) {
        self.shared.issuer.set((issuer.to_owned(), jwks)).unwrap();
    }

    pub(crate) fn behaves(&self, manner: Manner) {
        *self.shared.manner.lock().unwrap() = manner;
    }

    pub(crate) fn granted(&self) -> Vec<Seen> {
        self.shared.granted.lock().unwrap().clone()
    }

    pub(crate) fn asked(&self) -> u64 {
        *self.shared.asked.lock().unwrap()
    }
}

type Refused = (StatusCode, &'static str, String);

async fn serve(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    *shared.asked.lock().unwrap() += 1;
    let manner = *shared.manner.lock().unwrap();
    let error = |status: u16, code: &str, words: &str| {
        let body = format!(
            "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
             <Code>{code}</Code><Message>{words}</Message></Error><RequestId>r</RequestId></ErrorResponse>"
        );
        let status = StatusCode::from_u16(status).unwrap();
        (status, [(header::CONTENT_TYPE, "text/xml")], body).into_response()
    };
    match manner {
        Manner::Hangs => {
            tokio::time::sleep(std::time::Duration::from_secs(3_600)).await;
        }
        Manner::Garbage => return "<html>welcome</html>".into_response(),
        Manner::Fails => return error(500, "InternalFailure", "oops"),
        Manner::Throttles => return error(400, "Throttling", "Rate exceeded"),
        Manner::CantReachIssuer => {
            return error(400, "IDPCommunicationError", "the IdP could not be reached");
        }
        Manner::Honest | Manner::Generous | Manner::Incomplete | Manner::Padded => {}
    }
    match judge(&shared, &headers, &body) {
        Ok((seen, seconds)) => {
            let mut answer = session(&seen, seconds, manner);
            if manner == Manner::Padded {
                answer.push_str(&" ".repeat(1 << 20));
            }
            shared.granted.lock().unwrap().push(seen);
            ([(header::CONTENT_TYPE, "text/xml")], answer).into_response()
        }
        Err((status, code, words)) => error(status.as_u16(), code, &words),
    }
}

fn judge(shared: &Shared, headers: &HeaderMap, body: &[u8]) -> Result<(Seen, u64), Refused> {
    let bad = |words: &str| (StatusCode::BAD_REQUEST, "ValidationError", words.to_owned());
    let token = |words: &str| (StatusCode::BAD_REQUEST, "InvalidIdentityToken", words.to_owned());
    let denied = || {
        let words = "Not authorized to perform sts:AssumeRoleWithWebIdentity";
        (StatusCode::FORBIDDEN, "AccessDenied", words.to_owned())
    };
    if headers.contains_key(header::AUTHORIZATION) {
        return Err(bad("this action is not signed"));
    }
    let form: BTreeMap<String, String> =
        url::form_urlencoded::parse(body).map(|(k, v)| (k.into_owned(), v.into_owned())).collect();
    let text = |name: &str| form.get(name).map_or("", String::as_str);
    if text("Action") != "AssumeRoleWithWebIdentity" || text("Version") != "2011-06-15" {
        return Err(bad("action or version"));
    }
    let name = text("RoleSessionName");
    let named = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
    if !(2..=64).contains(&name.len()) || !name.chars().all(named) {
        return Err(bad("RoleSessionName"));
    }
    let seconds: u64 = text("DurationSeconds").parse().map_err(|_| bad("DurationSeconds"))?;
    if !(900..=3_600).contains(&seconds) {
        return Err(bad(
            "The requested DurationSeconds exceeds the MaxSessionDuration set for this role",
        ));
    }
    let claims = verify(shared, text("WebIdentityToken")).map_err(|words| token(&words))?;
    // The trust policy of each role: a condition on `sub`, and the session's tags and source identity allowed.
    let sub = claims["sub"].as_str().unwrap_or_default();
    match text("RoleArn") {
        DEPLOY if sub.starts_with("github:repository_id:") || sub.starts_with("cluster:") => {}
        _ => return Err(denied()),
    }
    let mut packed = text("Policy").len();
    if form.contains_key("Policy") {
        let policy: Value = serde_json::from_str(text("Policy")).unwrap_or_default();
        if packed > 2_048 || policy["Statement"].is_null() {
            let words = "The policy is not in the valid JSON format".to_owned();
            return Err((StatusCode::BAD_REQUEST, "MalformedPolicyDocument", words));
        }
    }
    packed += tags(&claims).map_err(|words| token(&words))?;
    if packed > 1_500 {
        let words = "Packed size of policies and tags is 120 percent".to_owned();
        return Err((StatusCode::BAD_REQUEST, "PackedPolicyTooLarge", words));
    }
    Ok((Seen { form, claims }, seconds))
}

/// "Creating OIDC identity providers": `iss`, `aud`, times that are integers, RS or ES of 256 bits and more, a key that is there.
fn verify(shared: &Shared, token: &str) -> Result<Value, String> {
    if !(4..=20_000).contains(&token.len()) || token.trim() != token {
        return Err("no token".to_owned());
    }
    let (issuer, jwks) =
        shared.issuer.get().ok_or("no OpenIDConnect provider found in your account")?;
    let head = crate::support::broker::parts(token).0;
    let (kid, alg) =
        (head["kid"].as_str().unwrap_or_default(), head["alg"].as_str().unwrap_or_default());
    let keys = jwks["keys"].as_array().unwrap();
    let key = keys.iter().find(|key| key["kid"] == kid).ok_or("no key of this kid")?;
    let jwk = josekit::jwk::Jwk::from_map(key.as_object().unwrap().clone()).unwrap();
    let payload = match alg {
        "ES256" => jws::deserialize_compact(token, &jws::ES256.verifier_from_jwk(&jwk).unwrap()),
        "RS256" => jws::deserialize_compact(token, &jws::RS256.verifier_from_jwk(&jwk).unwrap()),
        _ => return Err("algorithm".to_owned()),
    };
    let payload = payload.map_err(|_| "the signature does not verify")?.0;
    let claims: Value = serde_json::from_slice(&payload).map_err(|_| "claims")?;
    if claims["iss"] != issuer.as_str() {
        return Err("no provider of this issuer".to_owned());
    }
    if claims["aud"] != "sts.amazonaws.com" {
        return Err("Incorrect token audience".to_owned());
    }
    let now = SystemClock.now().seconds();
    let (exp, iat) = (claims["exp"].as_u64().ok_or("exp")?, claims["iat"].as_u64().ok_or("iat")?);
    if exp <= now || iat > now + 300 || exp <= iat || exp - iat > 86_400 {
        return Err("Token must be issued within the last 24 hours, and be live".to_owned());
    }
    let sub = claims["sub"].as_str().ok_or("sub")?;
    if !(6..=255).contains(&sub.chars().count()) {
        return Err("sub".to_owned());
    }
    if let Some(source) = claims[SOURCE].as_str() {
        let named = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
        if !(2..=64).contains(&source.len()) || !source.chars().all(named) {
            return Err("source identity".to_owned());
        }
    }
    Ok(claims)
}

/// "Passing session tags in AWS STS": at most 50, keys of 128 and values of 256 characters, each value a list of one text.
fn tags(claims: &Value) -> Result<usize, String> {
    let tags = &claims[TAGS];
    if tags.is_null() {
        return Ok(0);
    }
    let all = tags["principal_tags"].as_object().ok_or("principal_tags")?;
    let fits = |text: &str| text.chars().all(|c| c.is_alphanumeric() || " _.:/=+-@".contains(c));
    let mut size = 0;
    for (key, value) in all {
        let [only] = value.as_array().ok_or("a tag is no list")?.as_slice() else {
            return Err("a tag has several values".to_owned());
        };
        let only = only.as_str().ok_or("a tag is no text")?;
        if all.len() > 50 || key.len() > 128 || only.len() > 256 || !fits(key) || !fits(only) {
            return Err(format!("tag {key}"));
        }
        size += key.len() + only.len();
    }
    let transitive = tags["transitive_tag_keys"].as_array().cloned().unwrap_or_default();
    if transitive.iter().any(|key| !key.as_str().is_some_and(|key| all.contains_key(key))) {
        return Err("a transitive tag is none of the tags".to_owned());
    }
    Ok(size)
}

fn session(seen: &Seen, seconds: u64, manner: Manner) -> String {
    let extra = if manner == Manner::Generous { 7_200 } else { 0 };
    let end = Instant::from_seconds(SystemClock.now().seconds() + seconds + extra);
    let name = &seen.form["RoleSessionName"];
    let secret = if manner == Manner::Incomplete { "" } else { "wJalrXUtnFEMI" };
    format!(
        "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
         <AssumeRoleWithWebIdentityResult><SubjectFromWebIdentityToken>{sub}</SubjectFromWebIdentityToken>\
         <Audience>sts.amazonaws.com</Audience><AssumedRoleUser>\
         <Arn>arn:aws:sts::123456789012:assumed-role/deploy/{name}</Arn>\
         <AssumedRoleId>AROACLKWSDQRAOEXAMPLE:{name}</AssumedRoleId></AssumedRoleUser>\
         <Credentials><AccessKeyId>ASIAIOSFODNN7EXAMPLE</AccessKeyId>\
         <SecretAccessKey>{secret}</SecretAccessKey><SessionToken>AQoDYXdzEE0a8ANXXXXXXXX/+=</SessionToken>\
         <Expiration>{end}</Expiration></Credentials><PackedPolicySize>6</PackedPolicySize>\
         </AssumeRoleWithWebIdentityResult><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata>\
         </AssumeRoleWithWebIdentityResponse>",
        sub = seen.claims["sub"].as_str().unwrap(),
    )
}
