//! Semaphore. Each organization has an issuer of its own.

use super::{
    Audience, BARE, ClaimSpec,
    ClaimType::{Any, Text},
    Preset,
    Stability::{ChosenByJob, Immutable, Platform, Reusable},
    Subject, UrlShape, platform,
};
use crate::grant::Replay;

/// A job has one token, in a variable, whose audience is the issuer, so it is reusable.
pub static SEMAPHORE: Preset = Preset {
    name: "semaphore",
    claims: CLAIMS,
    pins: &[&["org_id", "prj_id"], &["org_id"]],
    organizations: &["org_id"],
    stable_ids: &[&["prj_id"]],
    replay: Replay::Reusable,
    // In a pull request `branch` is the target's; a debug job is a person's shell (threat C06).
    dangerous: &[
        ("ref_type", &["pr", "pull-request"]),
        ("job_type", &["debug_job", "project_debug_job"]),
    ],
    subject: Subject::OneOf(&["org:{org}:project:{prj_id}:repo:**"]),
    narrowing: &["ref", "ref_type", "job_type"],
    label: &["prj"],
    platform: platform::Platform {
        urls: &[UrlShape::of("https://{name:org}.semaphoreci.com")],
        audience: Audience::Fixed(&["https://{name}.semaphoreci.com"]),
        ..platform::UNKNOWN
    },
    ..BARE
};

const CLAIMS: &[ClaimSpec] = &[
    ClaimSpec::new("sub", Text, Reusable, "organization, project, repository and ref"),
    ClaimSpec::new("jti", Text, Platform, "id of this token"),
    ClaimSpec::new("org", Text, Reusable, "name of the organization"),
    ClaimSpec::new("org_id", Text, Immutable, "id of the organization"),
    ClaimSpec::new("prj", Text, Reusable, "name of the project"),
    ClaimSpec::new("prj_id", Text, Immutable, "id of the project"),
    ClaimSpec::new("repo", Text, Reusable, "name of the repository"),
    ClaimSpec::new("repo_slug", Text, Reusable, "owner and name of the repository"),
    ClaimSpec::new("ref", Text, ChosenByJob, "full name of the branch or tag"),
    ClaimSpec::new("ref_type", Text, Platform, "branch, tag or pull-request"),
    ClaimSpec::new(
        "branch",
        Text,
        ChosenByJob,
        "branch; in a pull request its target, so ask for ref_type too",
    ),
    ClaimSpec::new("pr_branch", Text, ChosenByJob, "source branch of a pull request"),
    ClaimSpec::new("pr", Any, ChosenByJob, "number of the pull request"),
    ClaimSpec::new("tag", Text, ChosenByJob, "tag"),
    ClaimSpec::new("wf_id", Text, Platform, "id of the workflow's run"),
    ClaimSpec::new("ppl_id", Text, Platform, "id of the pipeline's run"),
    ClaimSpec::new("job_id", Text, Platform, "id of the job"),
    ClaimSpec::new("job_type", Text, Platform, "pipeline_job, or a person's shell"),
    ClaimSpec::new("trg", Any, Platform, "what began the run"),
];
