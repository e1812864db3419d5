//! The JWT that AWS gets from us: who, for which session, with which tags.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use serde_json::Value;

use super::super::{Behind, JwtPlan, MintError, Unsuited, act};
use crate::{
    chance::Chance,
    grant::{Grant, RuleId},
    keys::keyring::{Keyring, TokenType},
    subject::Algorithm,
};

/// How long the assertion is good: for one call, with room for two clocks that differ. The session's length is its own.
const LIFETIME: Duration = Duration::from_mins(5);
const JTI_BYTES: usize = 16;
/// `SubjectFromWebIdentityToken` has 6 to 255 characters (AWS STS API reference).
const LONGEST_SUBJECT: usize = 255;

/// What the assertion says beside who it is about.
pub(super) struct For<'a> {
    /// Our `iss`.
    pub(super) issuer: &'a str,
    /// The `aud` that the IAM OIDC provider lists.
    pub(super) audience: &'a str,
    /// Session tags, in the alphabet of AWS.
    pub(super) tags: &'a BTreeMap<String, String>,
    /// Those that stay along a chain.
    pub(super) transitive: &'a BTreeSet<String>,
    /// `sts:SourceIdentity`.
    pub(super) source_identity: Option<&'a str>,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    exp: u64,
    iat: u64,
    jti: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    act: Option<Value>,
    #[serde(rename = "https://aws.amazon.com/tags", skip_serializing_if = "Option::is_none")]
    tags: Option<Tags<'a>>,
    #[serde(
        rename = "https://aws.amazon.com/source_identity",
        skip_serializing_if = "Option::is_none"
    )]
    source_identity: Option<&'a str>,
}

/// Values are lists of one text (IAM user guide, "Passing session tags using `AssumeRoleWithWebIdentity`").
#[derive(Serialize)]
struct Tags<'a> {
    principal_tags: BTreeMap<&'a str, [&'a str; 1]>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    transitive_tag_keys: &'a BTreeSet<String>,
}

/// Fixes every byte of the assertion.
///
/// # Errors
/// No key signs, there is no randomness, or the subject has a name that AWS does not take.
pub(super) fn plan(
    says: &For<'_>,
    algorithm: Algorithm,
    grant: &Grant,
    behind: &Behind<'_>,
    (keyring, chance): (&Keyring, &dyn Chance),
) -> Result<JwtPlan, MintError> {
    let paused = || MintError::NoKey(format!("no {algorithm} key signs now"));
    let active = keyring.active(algorithm).ok_or_else(paused)?;
    let subject = grant.subject.clone().unwrap_or_else(|| behind.subject.profile().our_subject());
    let length = subject.chars().count();
    if !(6..=LONGEST_SUBJECT).contains(&length) {
        let reason = format!("`sub` has {length} characters, and AWS takes 6 to 255");
        return Err(MintError::Unsuited(Unsuited::Claim, reason));
    }
    let mut random = [0_u8; JTI_BYTES];
    chance.fill(&mut random).map_err(|error| MintError::Internal(error.to_string()))?;
    let exp = behind.now.plus(LIFETIME.min(active.window())).seconds();
    let tags = (!says.tags.is_empty()).then(|| Tags {
        principal_tags: says
            .tags
            .iter()
            .map(|(key, value)| (key.as_str(), [value.as_str()]))
            .collect(),
        transitive_tag_keys: says.transitive,
    });
    let claims = Claims {
        iss: says.issuer,
        sub: &subject,
        aud: says.audience,
        exp,
        iat: behind.now.seconds(),
        jti: URL_SAFE_NO_PAD.encode(random),
        client_id: grant.rules.first().map(RuleId::as_str),
        act: act::chain(behind, says.issuer)?,
        tags,
        source_identity: says.source_identity,
    };
    JwtPlan::of(&active, TokenType::Jwt, &claims)
}
