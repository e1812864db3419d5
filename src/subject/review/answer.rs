//! What an API server's answer to a `TokenReview` means. INVARIANT(closed-by-absence): what it does not say is no.

use serde_json::Value;

use super::{API_VERSION, KIND, MAXIMUM_ANSWER};
use crate::subject::{
    Claims, Profile,
    json::{self, Limits, excerpt, excerpt_of},
};

/// Room for an answer with the groups of a user that is in many.
const LIMITS: Limits = Limits { bytes: MAXIMUM_ANSWER, depth: 16, members: 512, elements: 2048 };
/// How much of a sentence of the API server is kept.
const SENTENCE: usize = 200;
/// Where Kubernetes tells which pod a token is bound to (`k8s.io/apiserver`, package `authentication/serviceaccount`).
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// What the API server must say of a token, from the token's own claims.
#[derive(Debug)]
pub(super) struct Expected<'a> {
    audience: &'a str,
    user: &'a str,
    uid: &'a str,
    pod_uid: Option<&'a str>,
}

impl<'a> Expected<'a> {
    pub(super) fn of(profile: &'a Profile, audience: &'a str) -> Self {
        let claim = |name: &str| profile.claims.get(name).and_then(Value::as_str);
        Self {
            audience,
            user: profile.token_subject(),
            uid: claim("service_account_uid").unwrap_or_default(),
            pod_uid: claim("pod_uid"),
        }
    }
}

/// The API server's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Stands,
    /// Why not, fit for a log line.
    Refused(String),
}

/// Judges an answer.
///
/// # Errors
/// It is none: an outage, or something to mend, in words for a log line.
pub(super) fn judge(
    http_status: u16,
    body: &[u8],
    expected: &Expected<'_>,
) -> Result<Verdict, String> {
    let status = status_of(http_status, body)?;
    let refusal = refusal(&Review::of(&status)?, expected);
    Ok(refusal.map_or(Verdict::Stands, Verdict::Refused))
}

/// The name of whom the API server took our own token for.
///
/// # Errors
/// It took it for nobody, or this is no answer.
pub(super) fn who(http_status: u16, body: &[u8]) -> Result<String, String> {
    let status = status_of(http_status, body)?;
    let review = Review::of(&status)?;
    let name = review.user.and_then(|user| text(user, "username")).filter(|_| review.authenticated);
    let name = name.ok_or_else(|| format!("our own token: {}", review.not_authenticated()))?;
    Ok(excerpt_of(name, SENTENCE))
}

/// The parts of a `TokenReviewStatus` that we look at.
struct Review<'a> {
    authenticated: bool,
    error: &'a str,
    audiences: Vec<&'a str>,
    user: Option<&'a Claims>,
}

impl<'a> Review<'a> {
    fn of(status: &'a Claims) -> Result<Self, String> {
        // `false` is left out on the wire; anything but a boolean is no answer.
        let authenticated = match status.get("authenticated") {
            None => false,
            Some(Value::Bool(authenticated)) => *authenticated,
            Some(_) => return Err(garbage("`authenticated` is no boolean")),
        };
        let audiences = status.get("audiences").and_then(Value::as_array);
        Ok(Self {
            authenticated,
            // What is no text is an error that can't be read; an empty one is left out on the wire.
            error: match status.get("error") {
                None => "",
                Some(error) => error.as_str().unwrap_or("told in no words"),
            },
            audiences: audiences.into_iter().flatten().filter_map(Value::as_str).collect(),
            user: status.get("user").and_then(Value::as_object),
        })
    }

    fn not_authenticated(&self) -> String {
        if self.error.is_empty() {
            return "not authenticated, and no reason is told".to_owned();
        }
        format!("not authenticated: {}", excerpt_of(self.error, SENTENCE))
    }
}

/// Why the token does not stand; `None`: it does.
fn refusal(review: &Review<'_>, expected: &Expected<'_>) -> Option<String> {
    if !review.authenticated {
        return Some(review.not_authenticated());
    }
    // It contradicts itself: some authenticator could not look, and another, or a proxy between us, said yes for it.
    if !review.error.is_empty() {
        let said = excerpt_of(review.error, SENTENCE);
        return Some(format!("authenticated, and an error all the same: {said}"));
    }
    // An authenticator that knows nothing of audiences leaves the list out: then nobody has looked at ours.
    if !review.audiences.contains(&expected.audience) {
        let found = review.audiences.iter().map(|found| excerpt(found)).collect::<Vec<_>>();
        return Some(format!(
            "good for audiences [{}], expected `{}` among them",
            excerpt_of(&found.join(", "), SENTENCE),
            expected.audience
        ));
    }
    let name = review.user.and_then(|user| text(user, "username"));
    let uid = review.user.and_then(|user| text(user, "uid"));
    let pods = review.user.map(pods).unwrap_or_default();
    let differ = |what, found: Option<&str>, wanted: &str| {
        let found =
            found.map_or_else(|| "none".to_owned(), |found| format!("`{}`", excerpt(found)));
        Some(format!("{what} is {found}, expected `{wanted}`"))
    };
    if name != Some(expected.user) {
        return differ("the user", name, expected.user);
    }
    if uid != Some(expected.uid) || expected.uid.is_empty() {
        return differ("the service account's uid", uid, expected.uid);
    }
    if pods != expected.pod_uid.into_iter().collect::<Vec<_>>() {
        return differ("the pod's uid", pods.first().copied(), expected.pod_uid.unwrap_or("none"));
    }
    None
}

/// The uids of pods that the token is bound to: one at most. What is no list of texts counts as one that fits nowhere.
fn pods(user: &Claims) -> Vec<&str> {
    match user.get("extra").and_then(|extra| extra.get(POD_UID)) {
        None => Vec::new(),
        Some(Value::Array(found)) => {
            found.iter().map(|uid| uid.as_str().unwrap_or_default()).collect()
        }
        Some(_) => vec![""],
    }
}

fn text<'a>(map: &'a Claims, name: &str) -> Option<&'a str> {
    map.get(name).and_then(Value::as_str)
}

/// The member `status` of a `TokenReview`.
fn status_of(http_status: u16, body: &[u8]) -> Result<Claims, String> {
    if !matches!(http_status, 200 | 201) {
        return Err(no_review(http_status, body));
    }
    let mut members =
        json::parse_object(body, &LIMITS).map_err(|error| garbage(&error.to_string()))?;
    if text(&members, "kind") != Some(KIND) || text(&members, "apiVersion") != Some(API_VERSION) {
        return Err(garbage(&format!("it is no `{KIND}` of `{API_VERSION}`")));
    }
    match members.remove("status") {
        Some(Value::Object(status)) => Ok(status),
        _ => Err(garbage("it has no `status`")),
    }
}

fn garbage(what: &str) -> String {
    format!("the API server's answer can't be read: {what}")
}

/// The API server did not look at the token, but at us.
fn no_review(http_status: u16, body: &[u8]) -> String {
    let said = json::parse_object(body, &LIMITS).ok();
    let said = said.as_ref().and_then(|members| text(members, "message"));
    let said = said.map_or_else(String::new, |said| format!(" ({})", excerpt_of(said, SENTENCE)));
    let mend = match http_status {
        401 => {
            "it does not take our own token: `token_file` must hold one of the broker's service account for the API server's audience"
        }
        403 => {
            "our service account may not create `tokenreviews`: bind it to a ClusterRole that may do that alone (docs/issuers.md), or to `system:auth-delegator`"
        }
        404 => {
            "there is no `TokenReview` here: `api_server` must be the URL of a Kubernetes API server"
        }
        429 => "it has too much to do",
        300..=399 => "redirects are not followed: `api_server` must be where it really is",
        _ => "expected 201",
    };
    format!("the API server answered {http_status}: {mend}{said}")
}
