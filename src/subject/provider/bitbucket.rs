//! Bitbucket Pipelines. Each workspace has an issuer of its own.

use super::{
    Audience, BARE, ClaimSpec,
    ClaimType::Text,
    Preset,
    Stability::{ChosenByJob, Immutable, Platform, Reusable},
    Subject, UrlShape, platform,
};
use crate::grant::Replay;

/// A step has one token, in a variable, so it is reusable. UUIDs stand in braces, and the braces are part of the value.
pub static BITBUCKET: Preset = Preset {
    name: "bitbucket",
    claims: CLAIMS,
    pins: &[&["workspaceUuid", "repositoryUuid"], &["workspaceUuid"]],
    organizations: &["workspaceUuid"],
    stable_ids: &[&["repositoryUuid"]],
    replay: Replay::Reusable,
    subject: Subject::OneOf(&["{repositoryUuid}:**"]),
    narrowing: &["deploymentEnvironmentUuid", "branchName"],
    platform: platform::Platform {
        urls: &[UrlShape::of(
            "https://api.bitbucket.org/2.0/workspaces/{any}/pipelines-config/identity/oidc",
        )],
        audience: Audience::Chosen { unasked: &["ari:cloud:bitbucket::workspace/**"] },
        ..platform::UNKNOWN
    },
    ..BARE
};

const CLAIMS: &[ClaimSpec] = &[
    ClaimSpec::new("sub", Text, Reusable, "repository, environment if there is one, and step"),
    ClaimSpec::new("jti", Text, Platform, "id of this token"),
    ClaimSpec::new("workspaceUuid", Text, Immutable, "id of the workspace, in braces"),
    ClaimSpec::new("repositoryUuid", Text, Immutable, "id of the repository, in braces"),
    ClaimSpec::new("pipelineUuid", Text, Platform, "id of the run, in braces"),
    ClaimSpec::new("stepUuid", Text, Platform, "id of the step's run, in braces"),
    ClaimSpec::new(
        "deploymentEnvironmentUuid",
        Text,
        Immutable,
        "id of the deployment environment, in braces; permissions of the environment protect it",
    ),
    ClaimSpec::new(
        "branchName",
        Text,
        ChosenByJob,
        "name of the branch; whoever can push chooses it",
    ),
];
