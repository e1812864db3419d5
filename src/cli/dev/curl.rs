//! How each platform hands out a token: as a request that `dev` makes, and as the line that makes it again.

use reqwest::Client;
use serde_json::{Value, json};

use super::stage::AUDIENCE;
use crate::{
    cli::{Failure, http},
    sandbox::{Platform, Sandbox},
    secret::Secret,
    subject::json,
};

/// A way to a fresh token.
#[derive(Clone, Debug)]
pub(super) struct Fetch {
    platform: Platform,
    url: String,
    bearer: Option<String>,
    body: Option<Value>,
}

impl Fetch {
    /// A token of `platform` with these claims.
    pub(super) fn of(sandbox: &Sandbox, platform: Platform, claims: &[(&str, &str)]) -> Self {
        let mut url = sandbox.token_url(platform);
        let mut query = form_urlencoded::Serializer::new(String::new());
        match platform {
            Platform::GitHub => query.append_pair("audience", AUDIENCE),
            Platform::GitLab => query.append_pair("aud", AUDIENCE),
            // There the audience stands in the body.
            Platform::Kubernetes => &mut query,
        };
        for (name, value) in claims {
            query.append_pair(&format!("claim.{name}"), value);
        }
        let query = query.finish();
        if !query.is_empty() {
            url.push(if url.contains('?') { '&' } else { '?' });
            url.push_str(&query);
        }
        let asks = matches!(platform, Platform::GitHub | Platform::Kubernetes);
        let body = (platform == Platform::Kubernetes).then(|| {
            json!({
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": { "audiences": [AUDIENCE], "expirationSeconds": 600 },
            })
        });
        Self { platform, url, bearer: asks.then(|| sandbox.request_token().to_owned()), body }
    }

    /// Fetches one.
    pub(super) async fn token(&self, client: &Client) -> Result<Secret, Failure> {
        let mut request = match &self.body {
            Some(body) => client
                .post(&self.url)
                .header("content-type", "application/json")
                .body(body.to_string()),
            None => client.get(&self.url),
        };
        if let Some(bearer) = &self.bearer {
            request = request.header("authorization", format!("bearer {bearer}"));
        }
        let (status, body) = http::send(request).await?;
        if !status.is_success() {
            return Err(Failure::unreachable(format!("the sandbox answered {status}")));
        }
        let none = || Failure::unreachable("the sandbox answered without a token");
        if self.platform == Platform::GitLab {
            return String::from_utf8(body).map(Secret::from).map_err(|_| none());
        }
        let answer = json::parse_object(&body, &json::Limits::DISCOVERY).map_err(|_| none())?;
        let place = if self.platform == Platform::GitHub { "/value" } else { "/status/token" };
        let answer = Value::Object(answer);
        let token = answer.pointer(place).and_then(Value::as_str).ok_or_else(none)?;
        Ok(Secret::from(token.to_owned()))
    }

    /// One pipe that fetches a token and exchanges it at `broker`. `curl -d @-` drops the line feed that some `sed`s add.
    pub(super) fn line(&self, broker: &str, audience: &str) -> String {
        let bearer = self.bearer.as_ref();
        let bearer = bearer.map(|bearer| format!(" -H 'Authorization: bearer {bearer}'"));
        let body = self.body.as_ref();
        let body =
            body.map(|body| format!(" -H 'Content-Type: application/json' \\\n    -d '{body}'"));
        let (bearer, body) = (bearer.unwrap_or_default(), body.unwrap_or_default());
        let script = match self.platform {
            Platform::GitHub => r#"s/.*"value":"\([^"]*\)".*/subject_token=\1/"#,
            Platform::GitLab => "s/^/subject_token=/",
            Platform::Kubernetes => r#"s/.*"token":"\([^"]*\)".*/subject_token=\1/"#,
        };
        let broker = broker.trim_end_matches('/');
        format!(
            "curl -s{bearer}{body} \\\n    '{url}' \\\n  | sed '{script}' \\\n  | curl -s -d @- \
             -d grant_type=urn:ietf:params:oauth:grant-type:token-exchange \\\n    \
             -d subject_token_type=urn:ietf:params:oauth:token-type:jwt -d audience={audience} {broker}/token",
            url = self.url,
        )
    }
}

/// The client in a shell that is a job of the sandbox's GitHub: the token is fetched, exchanged, and a command has the credential.
pub(super) fn exec_line(sandbox: &Sandbox, cambio: &str, broker: &str, target: &str) -> String {
    format!(
        "ACTIONS_ID_TOKEN_REQUEST_URL='{url}&claim.environment=production' ACTIONS_ID_TOKEN_REQUEST_TOKEN={bearer} \
         {cambio} exec --platform github --broker {broker} --token-audience {AUDIENCE} --audience {target} \
         -- sh -c 'echo \"$CAMBIO_TOKEN\"'",
        url = sandbox.token_url(Platform::GitHub),
        bearer = sandbox.request_token(),
        broker = broker.trim_end_matches('/'),
    )
}
