//! What Google's libraries ask of the metadata server of a machine, when `GCE_METADATA_HOST` names this address.
//!
//! They can't send a token of ours, and `GCE_METADATA_HOST` has no room for a path that nobody guesses. So it is opened only where
//! it is asked for, on a port of its own, and the listener answers programs of the named users alone
//! ([`super::Whom::Users`]). The header `Metadata-Flavor` keeps browsers and simple request forgery away, as it does on the real
//! server, and so does the refusal of `X-Forwarded-For`.

use std::{fmt, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderValue, Request, StatusCode},
    response::Response,
};
use serde_json::json;

use super::{Desk, Served, answer, only};
use crate::client::{Credential, Issued};

const ACCOUNTS: &str = "/computeMetadata/v1/instance/service-accounts/";
const PROJECT: &str = "/computeMetadata/v1/project/project-id";
const FLAVOR: &str = "metadata-flavor";
const GOOGLE: &str = "Google";
/// What the real server calls its texts.
const TEXT: &str = "application/text";
const JSON: &str = "application/json";

/// Whose token it is, as Google's libraries want to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The service account's address.
    pub email: String,
    /// The project, where libraries shall find one.
    pub project: Option<String>,
}

struct Face {
    desk: Desk,
    served: Served,
    account: Account,
}

impl fmt::Debug for Face {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Face").field("account", &self.account).finish_non_exhaustive()
    }
}

/// The metadata server of `account`, whose tokens are `served`.
pub fn router(desk: Desk, served: Served, account: Account) -> Router {
    Router::new().fallback(ask).with_state(Arc::new(Face { desk, served, account }))
}

async fn ask(State(face): State<Arc<Face>>, request: Request<Body>) -> Response {
    let mut response = match face.found(&request) {
        Ok((kind, body)) => answer(StatusCode::OK, kind, body),
        Err((status, words)) => answer(status, "text/plain", format!("{words}\n")),
    };
    response.headers_mut().insert(FLAVOR, HeaderValue::from_static(GOOGLE));
    response
}

type Found = Result<(&'static str, String), (StatusCode, String)>;

impl Face {
    fn found(&self, request: &Request<Body>) -> Found {
        self.desk.stops(request).map_err(|(status, words)| (status, words.to_owned()))?;
        let forbidden = |words: &str| Err((StatusCode::FORBIDDEN, words.to_owned()));
        if only(request.headers(), FLAVOR) != Some(GOOGLE) {
            return forbidden("expected the header `Metadata-Flavor: Google`");
        }
        if request.headers().contains_key("x-forwarded-for") {
            return forbidden("`X-Forwarded-For`: what came through a proxy is not answered");
        }
        let text = |words: &str| Ok((TEXT, words.to_owned()));
        let path = request.uri().path();
        match path {
            "/" => return text("computeMetadata/\n"),
            PROJECT => {
                if let Some(project) = &self.account.project {
                    return text(project);
                }
            }
            _ => {}
        }
        let email = &self.account.email;
        let below = path.strip_prefix(ACCOUNTS).and_then(|rest| rest.split_once('/'));
        match below.filter(|(account, _)| *account == "default" || account == email) {
            Some((_, "")) if is_recursive(request.uri().query()) => {
                let account = json!({
                    "aliases": ["default"], "email": email, "scopes": self.scopes(),
                });
                Ok((JSON, account.to_string()))
            }
            Some((_, "")) => text("aliases\nemail\nscopes\ntoken\n"),
            Some((_, "aliases")) => text("default\n"),
            Some((_, "email")) => text(email),
            Some((_, "scopes")) => Ok((TEXT, self.scopes().join("\n"))),
            Some((_, "token")) => self.token(),
            Some(_) | None => Err((
                StatusCode::NOT_FOUND,
                format!("`{}` is not served here", path.escape_debug()),
            )),
        }
    }

    /// The token has the scopes of its role, whatever a library asks for in `?scopes=`: Google enforces them where it is used.
    fn token(&self) -> Found {
        let now = self.desk.clock.now();
        let unavailable = |words: String| (StatusCode::SERVICE_UNAVAILABLE, words);
        let (issued, ends) = self.served.good_at(now).map_err(unavailable)?;
        let Credential::Token(token) = &issued.credential else {
            let words = format!("`{}` is {}, and no token", self.served.name, issued.credential);
            return Err((StatusCode::INTERNAL_SERVER_ERROR, words));
        };
        let body = json!({
            "access_token": token.reveal_text().unwrap_or_default(),
            // Whole seconds, rounded down: never later than the true end.
            "expires_in": ends.since(now).as_secs(),
            "token_type": "Bearer",
        });
        Ok((JSON, body.to_string()))
    }

    fn scopes(&self) -> Vec<String> {
        let now = self.desk.clock.now();
        self.served.good_at(now).map(|(issued, _)| scopes_of(&issued)).unwrap_or_default()
    }
}

/// Google's scopes are URLs; the role's name is none.
fn scopes_of(issued: &Issued) -> Vec<String> {
    let all = issued.scope.as_deref().unwrap_or_default().split(' ');
    all.filter(|scope| scope.starts_with("https://")).map(str::to_owned).collect()
}

/// `?recursive=true`, wherever it stands in the query.
fn is_recursive(query: Option<&str>) -> bool {
    let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    pairs.into_iter().any(|(name, value)| name == "recursive" && value.eq_ignore_ascii_case("true"))
}
