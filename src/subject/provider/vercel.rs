//! Vercel: functions and builds. One key set signs for all teams.

use super::{
    Audience, BARE, ClaimSpec,
    ClaimType::Text,
    Preset,
    Stability::{Immutable, Platform, Reusable},
    Subject, UrlShape, platform,
};
use crate::grant::Replay;

/// A function has the token that came with its request, so it is reusable. A rule names team, project and environment: `preview` is
/// every pull request, and `development` is somebody's laptop. Tokens of development live for half a day, and are refused unless the
/// issuer's `maximum_lifetime` admits them.
pub static VERCEL: Preset = Preset {
    name: "vercel",
    claims: CLAIMS,
    pins: &[&["owner_id", "project_id", "environment"]],
    stable_ids: &[&["project_id", "environment"]],
    replay: Replay::Reusable,
    dangerous: &[("environment", &["development", "preview"])],
    subject: Subject::OneOf(&["owner:{owner}:project:{project}:environment:{environment}"]),
    label: &["project"],
    platform: platform::Platform {
        urls: &[
            UrlShape {
                url: "https://oidc.vercel.com/{name:owner}",
                jwks_uri: Some("https://oidc.vercel.com/.well-known/jwks"),
                jwks_origin: None,
            },
            UrlShape {
                url: "https://oidc.vercel.com",
                jwks_uri: Some("https://oidc.vercel.com/.well-known/jwks"),
                jwks_origin: None,
            },
        ],
        audience: Audience::Chosen { unasked: &["https://vercel.com/**"] },
        ..platform::UNKNOWN
    },
    ..BARE
};

const CLAIMS: &[ClaimSpec] = &[
    ClaimSpec::new("sub", Text, Reusable, "names of team and project, and environment"),
    ClaimSpec::new("jti", Text, Platform, "id of this token"),
    ClaimSpec::new("owner", Text, Reusable, "slug of the team"),
    ClaimSpec::new("owner_id", Text, Immutable, "id of the team"),
    ClaimSpec::new("project", Text, Reusable, "name of the project"),
    ClaimSpec::new("project_id", Text, Immutable, "id of the project"),
    ClaimSpec::new("environment", Text, Platform, "production, preview or development"),
    ClaimSpec::new("scope", Text, Reusable, "the same as sub"),
    ClaimSpec::new("external_sub", Text, Reusable, "subject elsewhere, where there is one"),
];
