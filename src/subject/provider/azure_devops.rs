//! Azure DevOps: pipelines, and service connections of the old and of the new kind.

use std::time::Duration;

use serde_json::Value;

use super::{
    Audience, BARE, ClaimError, ClaimSpec,
    ClaimType::{Any, Text},
    Preset,
    Stability::{ChosenByJob, Immutable, Platform, Reusable},
    UrlShape,
    compound::{error, refuse_signed},
    platform,
};
use crate::{grant::Replay, subject::Claims};

/// A job can ask for as many tokens as it likes, but all have the audience that is meant for Azure: what a pipeline gives to Azure
/// could be brought here. So tokens are good for one exchange, and for ten minutes.
///
/// `p://` tokens of pipelines have ids. Those of service connections have none: their pin is the connection as their issuer names
/// it, `organization/project/connection` of `vstoken`, the generated subject of Entra. Both serve side by side until `vstoken` ends
/// (2027-07-01 for service connections).
pub static AZURE_DEVOPS: Preset = Preset {
    name: "azure_devops",
    claims: CLAIMS,
    pins: &[&["org_id", "prj_id", "def_id"], &["service_connection"], &["org_id"]],
    organizations: &["org_id"],
    stable_ids: &[&["org_id", "prj_id", "def_id"], &["service_connection"]],
    replay: Replay::Once,
    derive,
    narrowing: &["rpo_ref"],
    platform: platform::Platform {
        urls: &[
            UrlShape::of("https://vstoken.dev.azure.com/{uuid:org_id}"),
            UrlShape::of("https://login.microsoftonline.com/{uuid}/v2.0"),
        ],
        maximum_lifetime: Duration::from_mins(15),
        maximum_age: Some(Duration::from_mins(10)),
        audience: Audience::Fixed(&["api://AzureADTokenExchange"]),
        ..platform::UNKNOWN
    },
    ..BARE
};

const CLAIMS: &[ClaimSpec] = &[
    ClaimSpec::new(
        "sub",
        Text,
        Reusable,
        "p://organization/project/pipeline, sc://organization/project/connection, or /eid1/…",
    ),
    ClaimSpec::new("jti", Text, Platform, "id of this token"),
    ClaimSpec::new("org_id", Text, Immutable, "id of the organization"),
    ClaimSpec::new("prj_id", Text, Immutable, "id of the project"),
    ClaimSpec::new("def_id", Text, Immutable, "id of the pipeline, within the project"),
    ClaimSpec::new("rpo_id", Text, Immutable, "id of the repository"),
    ClaimSpec::new("rpo_uri", Text, Reusable, "address of the repository"),
    ClaimSpec::new("rpo_ver", Text, ChosenByJob, "commit that the run is for"),
    ClaimSpec::new("rpo_ref", Text, ChosenByJob, "full name of the branch or tag"),
    ClaimSpec::new("run_id", Any, Platform, "id of the run"),
    ClaimSpec::new(
        "service_connection",
        Text,
        Reusable,
        "derived: the service connection that the token is for; no pipeline's own token has it",
    ),
];

fn derive(claims: &mut Claims) -> Result<(), ClaimError> {
    refuse_signed(claims, &["service_connection"])?;
    let sub = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
    if is_three_names(sub.strip_prefix("p://")) {
        return Ok(());
    }
    let old = sub.strip_prefix("sc://").filter(|names| is_three_names(Some(names)));
    let new = Some(sub).filter(|sub| sub.starts_with("/eid1/"));
    let Some(connection) = old.or(new).map(ToOwned::to_owned) else {
        let shown: String = sub.chars().take(128).flat_map(char::escape_debug).collect();
        let expected = "`p://organization/project/pipeline`, `sc://organization/project/connection` or `/eid1/…`";
        return Err(error("sub", format!("found `{shown}`, expected {expected}")));
    };
    if claims.contains_key("def_id") {
        // Nobody's rule for a pipeline is to fit what a service connection's token says.
        let reason = "`sub` is of a service connection, and `def_id` of a pipeline".to_owned();
        return Err(error("def_id", reason));
    }
    claims.insert("service_connection".to_owned(), Value::String(connection));
    Ok(())
}

/// `organization/project/name`: neither an organization nor a project has a `/` in its name.
fn is_three_names(names: Option<&str>) -> bool {
    names.is_some_and(|names| {
        let mut parts = names.splitn(3, '/');
        (0..3).all(|_| parts.next().is_some_and(|part| !part.is_empty()))
    })
}
