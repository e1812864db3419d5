//! Buildkite. One issuer for all organizations.

use std::time::Duration;

use super::{
    Audience, BARE, ClaimSpec,
    ClaimType::{Integer, Object, Text},
    Preset,
    Stability::{ChosenByJob, Immutable, Platform, Reusable},
    Subject, UrlShape, platform,
};
use crate::grant::Replay;

/// A job asks for a fresh token whenever it likes. Slugs can be renamed and taken; the ids come only to a job that asks for them:
/// `buildkite-agent oidc request-token --claim organization_id,pipeline_id`.
pub static BUILDKITE: Preset = Preset {
    name: "buildkite",
    claims: CLAIMS,
    pins: &[&["organization_id", "pipeline_id"], &["organization_id"]],
    organizations: &["organization_id"],
    stable_ids: &[&["pipeline_id"]],
    replay: Replay::Once,
    // What runs on somebody's word, with a branch name that is only said (threat C06).
    dangerous: &[("build_source", &["api", "trigger_job", "ui"])],
    subject: Subject::OneOf(&[
        "organization:{organization_slug}:pipeline:{pipeline_slug}:ref:**",
        // `--subject-claim`: one bare id, which does not say of what.
        "{=pipeline_id}",
        "{=organization_id}",
        "{=cluster_id}",
        "{=queue_id}",
        "{=build_id}",
        "{=job_id}",
        "{=agent_id}",
    ]),
    narrowing: &["build_branch", "build_source", "runner_environment"],
    label: &["pipeline_slug"],
    platform: platform::Platform {
        urls: &[UrlShape::of("https://agent.buildkite.com")],
        default_url: Some("https://agent.buildkite.com"),
        maximum_lifetime: Duration::from_mins(15),
        audience: Audience::Chosen { unasked: &["https://buildkite.com/**"] },
        ..platform::UNKNOWN
    },
    ..BARE
};

const CLAIMS: &[ClaimSpec] = &[
    ClaimSpec::new(
        "sub",
        Text,
        Reusable,
        "slugs, ref, commit and step; or one id, if the job says so",
    ),
    ClaimSpec::new("jti", Text, Platform, "id of this token"),
    ClaimSpec::new("organization_slug", Text, Reusable, "name of the organization"),
    ClaimSpec::new("organization_id", Text, Immutable, "id of the organization; only if asked for"),
    ClaimSpec::new("pipeline_slug", Text, Reusable, "name of the pipeline"),
    ClaimSpec::new("pipeline_id", Text, Immutable, "id of the pipeline; only if asked for"),
    ClaimSpec::new("cluster_name", Text, Reusable, "name of the cluster; only if asked for"),
    ClaimSpec::new("cluster_id", Text, Immutable, "id of the cluster; only if asked for"),
    ClaimSpec::new("queue_key", Text, Reusable, "name of the queue; only if asked for"),
    ClaimSpec::new("queue_id", Text, Immutable, "id of the queue; only if asked for"),
    ClaimSpec::new("build_number", Integer, Platform, "number of the build in its pipeline"),
    ClaimSpec::new("build_id", Text, Platform, "id of the build; only if asked for"),
    ClaimSpec::new(
        "build_branch",
        Text,
        ChosenByJob,
        "branch that the build is for; any text, where API or UI began the build",
    ),
    ClaimSpec::new("build_tag", Text, ChosenByJob, "tag that the build is for"),
    ClaimSpec::new("build_commit", Text, ChosenByJob, "commit that the build is for"),
    ClaimSpec::new("build_source", Text, Platform, "what began the build"),
    ClaimSpec::new("step_key", Text, ChosenByJob, "key of the step, as the pipeline's file says"),
    ClaimSpec::new("job_id", Text, Platform, "id of the job"),
    ClaimSpec::new("agent_id", Text, Platform, "id of the agent"),
    ClaimSpec::new("agent_tag:*", Text, ChosenByJob, "tag that the agent was started with"),
    ClaimSpec::new("runner_environment", Text, Platform, "buildkite-hosted or self-hosted"),
    ClaimSpec::new(
        "https://aws.amazon.com/tags",
        Object,
        ChosenByJob,
        "session tags for AWS that the job asked for",
    ),
];
