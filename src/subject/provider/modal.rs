//! Modal: functions. One issuer and one audience for everybody.

use std::time::Duration;

use super::{
    Audience, BARE, ClaimSpec,
    ClaimType::Text,
    Preset,
    Stability::{Immutable, Platform, Reusable},
    Subject, UrlShape, platform,
};
use crate::grant::Replay;

/// A container has one token for two days, with the audience of every relying party: whoever receives it could bring it here. So it
/// is good for one exchange per target and role, and for ten minutes from its making.
pub static MODAL: Preset = Preset {
    name: "modal",
    claims: CLAIMS,
    pins: &[
        &["workspace_id", "environment_id", "app_name"],
        &["workspace_id", "app_id"],
        &["workspace_id"],
    ],
    organizations: &["workspace_id"],
    // The id of an app is another one after each deployment from nothing; within one's own workspace names are one's own.
    stable_ids: &[&["workspace_id", "environment_id", "app_name"]],
    replay: Replay::Once,
    subject: Subject::OneOf(&[
        "modal:workspace_id:{workspace_id}:environment_name:{environment_name}:app_name:{app_name}:function_name:**",
    ]),
    narrowing: &["function_name"],
    label: &["app_name"],
    platform: platform::Platform {
        urls: &[UrlShape::of("https://oidc.modal.com")],
        default_url: Some("https://oidc.modal.com"),
        maximum_lifetime: Duration::from_hours(48),
        maximum_age: Some(Duration::from_mins(10)),
        audience: Audience::Fixed(&["oidc.modal.com"]),
        ..platform::UNKNOWN
    },
    ..BARE
};

const CLAIMS: &[ClaimSpec] = &[
    ClaimSpec::new("sub", Text, Reusable, "workspace, and names of environment, app and function"),
    ClaimSpec::new("jti", Text, Platform, "id of this token"),
    ClaimSpec::new("workspace_id", Text, Immutable, "id of the workspace"),
    ClaimSpec::new("environment_id", Text, Immutable, "id of the environment"),
    ClaimSpec::new("environment_name", Text, Reusable, "name of the environment"),
    ClaimSpec::new("app_id", Text, Immutable, "id of the app"),
    ClaimSpec::new("app_name", Text, Reusable, "name of the app"),
    ClaimSpec::new("function_id", Text, Immutable, "id of the function"),
    ClaimSpec::new("function_name", Text, Reusable, "name of the function"),
    ClaimSpec::new("container_id", Text, Platform, "id of the container"),
];
