//! Buddy. One issuer per region; ids of pipelines are never used again within one.

use super::{
    BARE, ClaimSpec,
    ClaimType::{Any, Integer, Text},
    Preset,
    Stability::{ChosenByJob, Immutable, Platform, Reusable},
    Subject, UrlShape, platform,
};
use crate::grant::Replay;

/// Whether a pipeline can have a fresh token is not known, so tokens are reusable.
pub static BUDDY: Preset = Preset {
    name: "buddy",
    claims: CLAIMS,
    pins: &[&["pipeline_id"]],
    stable_ids: &[&["pipeline_id"]],
    replay: Replay::Reusable,
    subject: Subject::OneOf(&["https://{}/{workspace_domain}/{}/pipelines/pipeline/{pipeline_id}"]),
    narrowing: &["workspace_domain", "ref"],
    label: &["pipeline_name"],
    platform: platform::Platform {
        urls: &[
            UrlShape::of("https://oidc.buddyusercontent.com"),
            UrlShape::of("https://eu-oidc.buddyusercontent.com"),
            UrlShape::of("https://asia-oidc.buddyusercontent.com"),
        ],
        ..platform::UNKNOWN
    },
    ..BARE
};

const CLAIMS: &[ClaimSpec] = &[
    ClaimSpec::new("sub", Text, Reusable, "address of the pipeline"),
    ClaimSpec::new("jti", Text, Platform, "id of this token"),
    ClaimSpec::new("workspace_domain", Text, Reusable, "name of the workspace"),
    ClaimSpec::new("project_name", Text, Reusable, "name of the project"),
    ClaimSpec::new("pipeline_id", Integer, Immutable, "id of the pipeline"),
    ClaimSpec::new("pipeline_name", Text, ChosenByJob, "name of the pipeline"),
    ClaimSpec::new("execution_id", Any, Platform, "id of the run"),
    ClaimSpec::new("triggered_on", Any, Platform, "when or by what the run began"),
    ClaimSpec::new("runner_environment", Text, Platform, "whose machine it runs on"),
    ClaimSpec::new("base_url", Text, Platform, "address of the installation"),
    ClaimSpec::new("revision", Text, ChosenByJob, "commit that the run is for"),
    ClaimSpec::new("ref", Text, ChosenByJob, "branch or tag that the run is for"),
];
