//! What AWS SDKs ask by `AWS_CONTAINER_CREDENTIALS_FULL_URI`: their container credentials provider.
//!
//! `GET /v1/credentials/<name>` with the token in `Authorization`, as it stands in the file that
//! `AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE` names. Errors are `{"code", "message"}`: SDKs show them, do not ask again after 4xx, and
//! do after 5xx.

use std::{collections::BTreeMap, fmt, sync::Arc};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::{
    Router,
    body::Body,
    extract::State,
    http::{Request, StatusCode, header},
    response::Response,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;

use super::{Desk, Served, answer, only};
use crate::{
    chance::Chance,
    client::{ClientError, Credential},
    clock::Instant,
    secret::Secret,
};

/// Where each credential has its path.
pub const PATH: &str = "/v1/credentials/";

/// What a program must show: 256 bits that nobody guesses, drawn at each start.
///
/// # Errors
/// The machine has no randomness.
pub fn draw_token(chance: &dyn Chance) -> Result<Secret, ClientError> {
    let mut bytes = [0; 32];
    chance.fill(&mut bytes).map_err(ClientError::unreachable)?;
    // One word: SDKs refuse a line feed, and send the file's text as it is.
    Ok(Secret::from(URL_SAFE_NO_PAD.encode(bytes)))
}

struct Face {
    desk: Desk,
    token: Secret,
    served: BTreeMap<String, Served>,
}

impl fmt::Debug for Face {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Face").field("desk", &self.desk).finish_non_exhaustive()
    }
}

/// The endpoint of `served`, for whoever shows `token`.
pub fn router(desk: Desk, token: Secret, served: impl IntoIterator<Item = Served>) -> Router {
    let served = served.into_iter().map(|one| (one.name.clone(), one)).collect();
    Router::new().fallback(ask).with_state(Arc::new(Face { desk, token, served }))
}

/// The URL of the credential called `name`: `AWS_CONTAINER_CREDENTIALS_FULL_URI`.
#[must_use]
pub fn url(at: std::net::SocketAddr, name: &str) -> String {
    format!("http://{at}{PATH}{name}")
}

async fn ask(State(face): State<Arc<Face>>, request: Request<Body>) -> Response {
    match face.found(&request) {
        Ok(body) => answer(StatusCode::OK, "application/json", body),
        Err((status, code, message)) => {
            let body = json!({ "code": code, "message": message }).to_string();
            answer(status, "application/json", body)
        }
    }
}

type Refused = (StatusCode, &'static str, String);

impl Face {
    fn found(&self, request: &Request<Body>) -> Result<String, Refused> {
        self.desk
            .stops(request)
            .map_err(|(status, words)| (status, "InvalidRequest", words.to_owned()))?;
        // Before the path is looked at: whoever has no token does not learn which credentials there are.
        let shown = only(request.headers(), header::AUTHORIZATION).unwrap_or_default();
        if verify_slices_are_equal(shown.as_bytes(), self.token.reveal()).is_err() {
            return Err((
                StatusCode::UNAUTHORIZED,
                "Unauthorized",
                "`Authorization` is not the token of this endpoint: is it that of an earlier start?"
                    .to_owned(),
            ));
        }
        // Names need no escapes, so an escape names nothing.
        let name = request.uri().path().strip_prefix(PATH);
        let served = name.and_then(|name| self.served.get(name)).ok_or_else(|| {
            let words = "no credential has this path".to_owned();
            (StatusCode::NOT_FOUND, "NotFound", words)
        })?;
        let now = self.desk.clock.now();
        let (issued, ends) = served
            .good_at(now)
            .map_err(|words| (StatusCode::SERVICE_UNAVAILABLE, "CredentialsUnavailable", words))?;
        body(&issued.credential, ends).ok_or_else(|| {
            let words = format!("`{}` is {}, and no AWS session", served.name, issued.credential);
            (StatusCode::INTERNAL_SERVER_ERROR, "WrongCredential", words)
        })
    }
}

fn body(credential: &Credential, ends: Instant) -> Option<String> {
    let Credential::Aws(session) = credential else { return None };
    let body = json!({
        "AccessKeyId": session.access_key_id,
        "SecretAccessKey": session.secret_access_key.reveal_text()?,
        "Token": session.session_token.reveal_text()?,
        // Whole seconds, rounded down: not every reader of RFC 3339 takes a fraction.
        "Expiration": Instant::from_seconds(ends.seconds()).to_string(),
    });
    Some(body.to_string())
}
