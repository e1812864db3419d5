//! Azure: access tokens that Entra issues to managed identities and applications, for an application of ours as resource.

use std::time::Duration;

use serde_json::Value;

use super::{
    BARE, ClaimError, ClaimSpec,
    ClaimType::{Any, Text, TextList},
    Preset,
    Stability::{Immutable, Platform, Reusable},
    UrlShape,
    compound::error,
    platform,
};
use crate::{grant::Replay, subject::Claims};

/// One key set signs for all tenants: the exact `iss` of one tenant is configured, `tid` agrees with it, and a rule names both it and
/// the principal (threat C01, CVE-2025-55241). Azure keeps a managed identity's token for as long as a day and hands out the same
/// one, so tokens are reusable and may be as old as they get.
pub static AZURE: Preset = Preset {
    name: "azure",
    claims: CLAIMS,
    pins: &[&["tid", "oid"], &["tid"]],
    organizations: &["tid"],
    stable_ids: &[&["oid"]],
    replay: Replay::Reusable,
    derive: |claims| refuse_people(claims),
    narrowing: &["idtyp"],
    label: &["xms_mirid"],
    platform: platform::Platform {
        urls: &[
            UrlShape::of("https://login.microsoftonline.com/{uuid:tid}/v2.0"),
            UrlShape {
                url: "https://sts.windows.net/{uuid:tid}/",
                // Discovery of the v1 issuer names a key set on another host.
                jwks_uri: Some("https://login.microsoftonline.com/common/discovery/keys"),
                jwks_origin: None,
            },
            UrlShape::of("https://login.microsoftonline.us/{uuid:tid}/v2.0"),
            UrlShape::of("https://login.partner.microsoftonline.cn/{uuid:tid}/v2.0"),
        ],
        maximum_lifetime: Duration::from_hours(25),
        maximum_age: Some(Duration::from_hours(25)),
        ..platform::UNKNOWN
    },
    ..BARE
};

const CLAIMS: &[ClaimSpec] = &[
    ClaimSpec::new("sub", Text, Immutable, "the same as oid, for what is no person"),
    ClaimSpec::new(
        "oid",
        Text,
        Immutable,
        "object id of the managed identity or service principal",
    ),
    ClaimSpec::new("tid", Text, Immutable, "id of the tenant"),
    ClaimSpec::new("appid", Text, Immutable, "v1: client id of the application that asked"),
    ClaimSpec::new("azp", Text, Immutable, "v2: client id of the application that asked"),
    ClaimSpec::new("appidacr", Text, Platform, "v1: how the application proved itself"),
    ClaimSpec::new("azpacr", Text, Platform, "v2: how the application proved itself"),
    ClaimSpec::new("idtyp", Text, Platform, "`app` for what is no person"),
    ClaimSpec::new("idp", Text, Platform, "who authenticated the principal"),
    ClaimSpec::new("roles", TextList, Platform, "application roles that were assigned"),
    ClaimSpec::new("xms_mirid", Text, Reusable, "Azure resource of the managed identity"),
    ClaimSpec::new("ver", Text, Platform, "1.0 or 2.0"),
    ClaimSpec::new("aio", Any, Platform, "Entra's own"),
    ClaimSpec::new("rh", Any, Platform, "Entra's own"),
    ClaimSpec::new("uti", Any, Platform, "Entra's own: id of this token"),
    ClaimSpec::new("xms_*", Any, Platform, "Entra's own"),
];

/// A person's token for our application has a scope, says so, or has a `sub` of its own; applications and managed identities are
/// their own subject.
fn refuse_people(claims: &Claims) -> Result<(), ClaimError> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let of_machine = match text("idtyp") {
        Some(kind) => kind == "app",
        None => text("oid").is_some() && text("sub") == text("oid"),
    };
    if !of_machine || claims.contains_key("scp") {
        let reason = "found a person's token, expected an application's".to_owned();
        return Err(error("idtyp", reason));
    }
    Ok(())
}
