//! `POST /google/token`: what Google's libraries send to the `token_url` of an `external_account` file, so that they work with
//! us as they are. RFC 8693 in Google's words: the target, and the role behind a `#`, come as `audience`; `scope` holds
//! Google's scopes, which must be among those of the role.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, header},
    response::Response,
};
use serde_json::Value;

use super::{
    Surface,
    form::{Form, read_body, refuse},
    token::{self, Wire},
};
use crate::{
    json::{self, Limits},
    policy::Wants,
    refusal::Refusal,
};

/// The JSON route of this front, in the names of Google's discovery document.
const JSON_NAMES: [(&str, &str); 9] = [
    ("grantType", "grant_type"),
    ("audience", "audience"),
    ("scope", "scope"),
    ("requestedTokenType", "requested_token_type"),
    ("subjectToken", "subject_token"),
    ("subjectTokenType", "subject_token_type"),
    ("actorToken", "actor_token"),
    ("actorTokenType", "actor_token_type"),
    ("options", "options"),
];
/// The parameters of a request are flat.
const FLAT: Limits = Limits { bytes: super::form::MOST_BYTES, depth: 1, members: 16, elements: 0 };
/// What separates target and role in `audience`: no name and no alias of a target has one.
const ROLE: char = '#';

/// Serves one exchange of a Google library.
pub(super) async fn token(State(surface): State<Arc<Surface>>, request: Request) -> Response {
    token::serve(surface, request, Wire::Google).await
}

/// Reads the parameters, from a form or from JSON.
pub(super) async fn form(
    headers: &HeaderMap,
    body: Body,
    deadline: Duration,
) -> Result<Form, Refusal> {
    if is_json(headers) {
        let members = json::parse_object(&read_body(headers, body, deadline).await?, &FLAT);
        let members = members.map_err(|_| refuse("the body is not one flat JSON object"))?;
        let mut form = form_urlencoded::Serializer::new(String::new());
        for (name, value) in &members {
            let known = JSON_NAMES.iter().find(|(json, form)| json == name || form == name);
            let (Some((_, name)), Value::String(value)) = (known, value) else {
                return Err(refuse("the JSON has a member that is not known, or no text"));
            };
            form.append_pair(name, value.trim_ascii_end());
        }
        return Form::parse(form.finish().as_bytes());
    }
    super::form::is_form(headers)?;
    Form::parse(&trimmed(&read_body(headers, body, deadline).await?))
}

fn is_json(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let only = types.next().filter(|_| types.next().is_none());
    let text = only.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
        && !headers.contains_key(header::CONTENT_ENCODING)
}

/// The libraries send a token's file byte for byte, with the newline at its end. Only that is taken away, and only there; what
/// is left is read as strictly as everywhere.
fn trimmed(body: &[u8]) -> Vec<u8> {
    const SPACES: [&[u8]; 8] = [b"%0A", b"%0a", b"%0D", b"%0d", b"%09", b"%20", b"+", b"\n"];
    let parts = body.split(|byte| *byte == b'&').map(|part| {
        let mut part = part;
        while part.starts_with(b"subject_token=") {
            match SPACES.iter().find_map(|space| part.strip_suffix(*space)) {
                Some(shorter) => part = shorter,
                None => break,
            }
        }
        part
    });
    parts.collect::<Vec<_>>().join(&b'&')
}

/// Takes the role out of `audience`, and refuses what we can't honour: it is never dropped.
pub(super) fn wants(form: &Form, mut wants: Wants) -> Result<Wants, Refusal> {
    // `options` narrows a token (`accessBoundary`) or binds it: a token without that is not what was asked for.
    if form.find("options").is_some() {
        return Err(refuse("`options` can't be honoured: leave it out"));
    }
    let [audience] = wants.targets.as_mut_slice() else {
        return Err(refuse("`audience` must name one target, such as `google/prod#deploy`"));
    };
    if let Some((target, role)) = audience.split_once(ROLE) {
        let (target, role) = (target.to_owned(), role.to_owned());
        *audience = target;
        if !wants.scope.contains(&role) {
            wants.scope.insert(0, role);
        }
    }
    Ok(wants)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Form, Refusal> {
        Form::parse(&trimmed(body.as_bytes()))
    }

    #[test]
    fn the_newline_of_a_token_file_is_taken_away_and_nothing_else() {
        let form = read("subject_token=a.b.c%0A&audience=x").unwrap();
        assert_eq!(form.find("subject_token"), Some("a.b.c"));
        assert_eq!(read("subject_token=a.b.c%0D%0A").unwrap().find("subject_token"), Some("a.b.c"));
        for body in ["audience=x%0A", "subject_token=a%0A.b.c", "subject_token=%0Aa.b.c"] {
            assert!(read(body).is_err(), "{body}");
        }
    }

    #[test]
    fn x05_the_role_stands_behind_the_target_and_options_are_refused() {
        let asked = |audience: &str| Wants {
            targets: vec![audience.to_owned()],
            scope: vec!["https://www.googleapis.com/auth/cloud-platform".to_owned()],
            lifetime: None,
        };
        let form = read("audience=x").unwrap();
        let found = wants(&form, asked("google/prod#deploy")).unwrap();
        assert_eq!(found.targets, ["google/prod"]);
        assert_eq!(
            found.scope,
            ["deploy", "https://www.googleapis.com/auth/cloud-platform"],
            "Google's scopes stay, and are judged"
        );
        assert_eq!(wants(&form, asked("google/prod")).unwrap().scope.len(), 1);
        let with_options = read("options=%7B%22userProject%22%3A%22p%22%7D").unwrap();
        assert!(wants(&with_options, asked("google/prod")).is_err());
        assert!(wants(&form, Wants { targets: Vec::new(), ..asked("x") }).is_err());
    }
}
