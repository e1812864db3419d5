//! Fly.io: machines. Each organization has an issuer of its own.

use std::time::Duration;

use super::{
    Audience, BARE, ClaimSpec,
    ClaimType::Text,
    Preset,
    Stability::{ChosenByJob, Immutable, Platform, Reusable},
    Subject, UrlShape, platform,
};
use crate::grant::Replay;

/// A machine asks for a fresh token over its own socket. Names can be renamed and taken; ids can't.
pub static FLY: Preset = Preset {
    name: "fly",
    claims: CLAIMS,
    pins: &[&["org_id", "app_id"], &["org_id"]],
    organizations: &["org_id"],
    stable_ids: &[&["app_id"]],
    replay: Replay::Once,
    subject: Subject::OneOf(&["{org_name}:{app_name}:{machine_name}"]),
    narrowing: &[],
    label: &["app_name"],
    platform: platform::Platform {
        urls: &[UrlShape::of("https://oidc.fly.io/{name:org_name}")],
        maximum_lifetime: Duration::from_mins(15),
        audience: Audience::Chosen { unasked: &["https://fly.io/**"] },
        ..platform::UNKNOWN
    },
    ..BARE
};

const CLAIMS: &[ClaimSpec] = &[
    ClaimSpec::new("sub", Text, Reusable, "names of organization, app and machine"),
    ClaimSpec::new("jti", Text, Platform, "id of this token"),
    ClaimSpec::new("org_id", Text, Immutable, "id of the organization"),
    ClaimSpec::new("org_name", Text, Reusable, "slug of the organization"),
    ClaimSpec::new("app_id", Text, Immutable, "id of the app"),
    ClaimSpec::new("app_name", Text, Reusable, "name of the app"),
    ClaimSpec::new("machine_id", Text, Immutable, "id of the machine"),
    ClaimSpec::new("machine_name", Text, Reusable, "name of the machine"),
    ClaimSpec::new("machine_version", Text, Platform, "version of the machine's configuration"),
    ClaimSpec::new("image", Text, ChosenByJob, "image that the machine runs; its tag can move"),
    ClaimSpec::new("image_digest", Text, ChosenByJob, "digest of the image"),
    ClaimSpec::new("region", Text, Platform, "where the machine runs"),
];
