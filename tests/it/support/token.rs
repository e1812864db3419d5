//! Tokens: everything valid, one thing broken.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use cambio::subject::{Claims, UnverifiedToken};
use serde_json::{Value, json};

use super::issuer::SigningKey;

/// The moment at which tests happen: 2027-01-15T08:00:00Z, seconds.
pub(crate) const NOW: u64 = 1_800_000_000;
/// Whom default tokens are for.
pub(crate) const AUDIENCE: &str = "https://cambio.example";

/// A token under construction. [`super::issuer::FakeIssuer::token`] begins one that is valid in every respect.
#[derive(Clone, Debug)]
pub(crate) struct TokenBuilder<'i> {
    key: &'i SigningKey,
    header: Claims,
    claims: Claims,
    raw_header: Option<Vec<u8>>,
    raw_claims: Option<Vec<u8>>,
}

impl<'i> TokenBuilder<'i> {
    /// A valid token of `issuer` signed by `key`, the `serial`th of its kind.
    pub(super) fn new(issuer: &str, key: &'i SigningKey, serial: u64) -> Self {
        let header =
            object(json!({"alg": key.algorithm().as_str(), "kid": key.kid(), "typ": "JWT"}));
        let claims = object(json!({
            "iss": issuer,
            "sub": "repo:acme/site:ref:refs/heads/main",
            "aud": AUDIENCE,
            "iat": NOW,
            "nbf": NOW,
            "exp": NOW + 300,
            "jti": format!("token-{serial}"),
        }));
        Self { key, header, claims, raw_header: None, raw_claims: None }
    }

    /// Sets `aud`.
    pub(crate) fn audience(self, audience: &str) -> Self {
        self.claim("aud", audience)
    }

    /// Sets `sub`.
    pub(crate) fn subject(self, subject: &str) -> Self {
        self.claim("sub", subject)
    }

    /// Moves `iat`, `nbf` and `exp` to a token of `lifetime` seconds that begins at `seconds`.
    pub(crate) fn issued_at(self, seconds: u64, lifetime: u64) -> Self {
        self.claim("iat", seconds).claim("nbf", seconds).claim("exp", seconds + lifetime)
    }

    /// Sets one claim.
    pub(crate) fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    /// Sets every member of `claims`, an object.
    pub(crate) fn claims(mut self, claims: Value) -> Self {
        self.claims.extend(object(claims));
        self
    }

    /// Leaves a claim out.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.claims.shift_remove(name);
        self
    }

    /// Sets one header member.
    pub(crate) fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header.insert(name.to_owned(), value.into());
        self
    }

    /// Leaves a header member out.
    pub(crate) fn without_header(mut self, name: &str) -> Self {
        self.header.shift_remove(name);
        self
    }

    /// These bytes as the header, whatever they are.
    pub(crate) fn raw_header(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.raw_header = Some(bytes.into());
        self
    }

    /// These bytes as the payload, whatever they are.
    pub(crate) fn raw_claims(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.raw_claims = Some(bytes.into());
        self
    }

    /// What a GitHub Actions job on the main branch of `acme/site` says. `iss`, `aud` and times stay as they are.
    pub(crate) fn github(self) -> Self {
        self.claims(json!({
            "sub": "repo:acme/site:ref:refs/heads/main",
            "actor": "octocat",
            "actor_id": "583231",
            "base_ref": "",
            "check_run_id": "30000000001",
            "event_name": "push",
            "head_ref": "",
            "job_workflow_ref": "acme/site/.github/workflows/deploy.yml@refs/heads/main",
            "job_workflow_sha": "1d2c3b4a5f6e7d8c9b0a1d2c3b4a5f6e7d8c9b0a",
            "ref": "refs/heads/main",
            "ref_protected": "true",
            "ref_type": "branch",
            "repository": "acme/site",
            "repository_id": "1296269",
            "repository_owner": "acme",
            "repository_owner_id": "9919",
            "repository_visibility": "private",
            "run_attempt": "1",
            "run_id": "20000000001",
            "run_number": "42",
            "runner_environment": "github-hosted",
            "sha": "1d2c3b4a5f6e7d8c9b0a1d2c3b4a5f6e7d8c9b0a",
            "workflow": "deploy",
            "workflow_ref": "acme/site/.github/workflows/deploy.yml@refs/heads/main",
            "workflow_sha": "1d2c3b4a5f6e7d8c9b0a1d2c3b4a5f6e7d8c9b0a",
        }))
    }

    /// The first two segments, which the signature is over.
    pub(crate) fn signing_input(&self) -> String {
        let bytes = |raw: &Option<Vec<u8>>, members: &Claims| {
            raw.clone().unwrap_or_else(|| Value::Object(members.clone()).to_string().into_bytes())
        };
        let header = URL_SAFE_NO_PAD.encode(bytes(&self.raw_header, &self.header));
        let claims = URL_SAFE_NO_PAD.encode(bytes(&self.raw_claims, &self.claims));
        format!("{header}.{claims}")
    }

    /// The signed token, in the compact serialisation.
    pub(crate) fn sign(&self) -> String {
        let input = self.signing_input();
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(input.as_bytes()));
        format!("{input}.{signature}")
    }

    /// The signed token, as the verifier takes it.
    pub(crate) fn token(&self) -> UnverifiedToken {
        UnverifiedToken::new(self.sign())
    }

    /// The claims as they stand.
    pub(crate) fn claim_set(&self) -> &Claims {
        &self.claims
    }
}

/// The members of `value`.
pub(crate) fn object(value: Value) -> Claims {
    let Value::Object(members) = value else { panic!("expected an object, found {value}") };
    members
}
