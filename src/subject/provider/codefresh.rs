//! Codefresh. One issuer for all accounts.

use std::time::Duration;

use super::{
    Audience, BARE, ClaimSpec,
    ClaimType::Text,
    Preset,
    Stability::{ChosenByJob, Immutable, Platform, Reusable},
    Subject, UrlShape, platform,
};
use crate::grant::Replay;

/// The step `obtain-oidc-id-token` makes a fresh token each time.
pub static CODEFRESH: Preset = Preset {
    name: "codefresh",
    claims: CLAIMS,
    pins: &[&["account_id", "pipeline_id"], &["account_id"]],
    organizations: &["account_id"],
    stable_ids: &[&["pipeline_id"]],
    replay: Replay::Once,
    subject: Subject::Perhaps(&["account:{account_id}:pipeline:{pipeline_id}:**"]),
    narrowing: &["scm_repo_url", "scm_ref", "runner_environment"],
    label: &["pipeline_name"],
    platform: platform::Platform {
        urls: &[UrlShape::of("https://oidc.codefresh.io")],
        default_url: Some("https://oidc.codefresh.io"),
        maximum_lifetime: Duration::from_mins(15),
        audience: Audience::Chosen { unasked: &["https://g.codefresh.io"] },
        ..platform::UNKNOWN
    },
    ..BARE
};

const CLAIMS: &[ClaimSpec] = &[
    ClaimSpec::new("sub", Text, Reusable, "account, pipeline, and what began the run"),
    ClaimSpec::new("jti", Text, Platform, "id of this token"),
    ClaimSpec::new("account_id", Text, Immutable, "id of the account"),
    ClaimSpec::new("account_name", Text, Reusable, "name of the account"),
    ClaimSpec::new("pipeline_id", Text, Immutable, "id of the pipeline"),
    ClaimSpec::new("pipeline_name", Text, Reusable, "name of the pipeline"),
    ClaimSpec::new("workflow_id", Text, Platform, "id of the run"),
    ClaimSpec::new("platform_url", Text, Platform, "address of the installation"),
    ClaimSpec::new("scm_repo_url", Text, Reusable, "address of the repository"),
    ClaimSpec::new("scm_ref", Text, ChosenByJob, "branch or tag that the run is for"),
    ClaimSpec::new("scm_*", Text, ChosenByJob, "what began the run"),
    ClaimSpec::new("runner_environment", Text, Platform, "hybrid or hosted"),
];
