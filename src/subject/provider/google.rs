//! Google Cloud: ID tokens of service accounts, from the metadata server or `generateIdToken`.

use serde_json::Value;

use super::{
    BARE, ClaimError, ClaimSpec,
    ClaimType::{Any, Boolean, NumericText, Object, Text},
    Preset,
    Stability::{Immutable, Platform, Reusable},
    UrlShape,
    compound::error,
    platform,
};
use crate::{grant::Replay, subject::Claims};

/// One issuer signs for all of Google, people included. `sub` is the account's number, which never comes back; its address can. The
/// metadata server hands out one token for as long as it lasts, so tokens are reusable.
pub static GOOGLE: Preset = Preset {
    name: "google",
    claims: CLAIMS,
    pins: &[&["sub"]],
    stable_ids: &[&["sub"]],
    replay: Replay::Reusable,
    lifted: &[
        ("/google/compute_engine/project_id", "project_id"),
        ("/google/compute_engine/project_number", "project_number"),
        ("/google/compute_engine/zone", "zone"),
        ("/google/compute_engine/instance_id", "instance_id"),
        ("/google/compute_engine/instance_name", "instance_name"),
        ("/google/organization_number", "organization_number"),
    ],
    derive: |claims| refuse_people(claims),
    label: &["email"],
    platform: platform::Platform {
        urls: &[UrlShape {
            url: "https://accounts.google.com",
            jwks_uri: None,
            jwks_origin: Some("https://www.googleapis.com"),
        }],
        default_url: Some("https://accounts.google.com"),
        ..platform::UNKNOWN
    },
    ..BARE
};

const CLAIMS: &[ClaimSpec] = &[
    ClaimSpec::new("sub", NumericText, Immutable, "unique number of the service account"),
    ClaimSpec::new("azp", Text, Platform, "to whom the token was issued"),
    ClaimSpec::new(
        "email",
        Text,
        Reusable,
        "address of the service account; who creates a deleted one again has it",
    ),
    ClaimSpec::new("email_verified", Boolean, Platform, "whether Google vouches for the address"),
    ClaimSpec::new("google", Object, Platform, "the instance that asked, and its organization"),
    ClaimSpec::new("project_id", Text, Reusable, "derived: project of the instance"),
    ClaimSpec::new("project_number", Any, Immutable, "derived: number of the instance's project"),
    ClaimSpec::new("zone", Text, Platform, "derived: zone of the instance"),
    ClaimSpec::new("instance_id", Any, Immutable, "derived: id of the instance"),
    ClaimSpec::new("instance_name", Text, Reusable, "derived: name of the instance"),
    ClaimSpec::new("organization_number", Any, Immutable, "derived: number of the organization"),
];

/// Threat C01: the issuer of people's tokens is the same, and an application can ask them for one. Addresses of service accounts
/// lie in domains that nobody else has; only people's tokens have `hd`.
fn refuse_people(claims: &Claims) -> Result<(), ClaimError> {
    let of_machine = match claims.get("email") {
        None | Some(Value::Null) => true,
        Some(email) => email
            .as_str()
            .and_then(|email| email.rsplit_once('@'))
            .is_some_and(|(_, domain)| is_of_service_accounts(domain)),
    };
    if !of_machine || claims.contains_key("hd") {
        let reason = "found a person's token, expected a service account's".to_owned();
        return Err(error("email", reason));
    }
    if claims.get("email_verified") == Some(&Value::Bool(false)) {
        let reason = "Google does not vouch for `email`, expected `email_verified`".to_owned();
        return Err(error("email_verified", reason));
    }
    Ok(())
}

fn is_of_service_accounts(domain: &str) -> bool {
    domain == "gserviceaccount.com" || domain.ends_with(".gserviceaccount.com")
}
