//! `CircleCI`. An issuer per organization, and one for all of them.

use serde_json::Value;

use super::{
    Audience, BARE, ClaimError, ClaimSpec,
    ClaimType::{Any, BooleanText, Text, TextList},
    Preset,
    Stability::{ChosenByJob, Immutable, Platform, Reusable},
    Subject, UrlShape,
    compound::{error, refuse_signed},
    platform,
};
use crate::{grant::Replay, subject::Claims};

/// `circleci run oidc get` makes a fresh token with an audience of ours. The variables hold one for the organization's id, which is
/// the audience of every other relying party too.
pub static CIRCLECI: Preset = Preset {
    name: "circleci",
    claims: CLAIMS,
    pins: &[&["org_id", "project_id"], &["org_id"]],
    organizations: &["org_id"],
    stable_ids: &[&["project_id"]],
    replay: Replay::Once,
    // A person's shell in the job (threat C06).
    dangerous: &[("ssh_rerun", &["true"])],
    lifted: &[
        ("/oidc.circleci.com~1org-id", "org_id"),
        ("/oidc.circleci.com~1project-id", "project_id"),
        ("/oidc.circleci.com~1pipeline-id", "pipeline_id"),
        ("/oidc.circleci.com~1pipeline-definition-id", "pipeline_definition_id"),
        ("/oidc.circleci.com~1workflow-id", "workflow_id"),
        ("/oidc.circleci.com~1job-id", "job_id"),
        ("/oidc.circleci.com~1context-ids", "context_ids"),
        ("/oidc.circleci.com~1vcs-origin", "vcs_origin"),
        ("/oidc.circleci.com~1vcs-ref", "vcs_ref"),
    ],
    derive,
    taken_apart: &[SSH_RERUN],
    // Version 2 goes on: `/vcs-origin/…/vcs-ref/…`.
    subject: Subject::OneOf(&["org/{org_id}/project/{project_id}/user/**"]),
    narrowing: &["vcs_origin", "vcs_ref", "ssh_rerun"],
    label: &["vcs_origin"],
    platform: platform::Platform {
        urls: &[
            UrlShape::of("https://oidc.circleci.com/org/{uuid:org_id}"),
            UrlShape::of("https://oidc.circleci.com"),
        ],
        audience: Audience::Chosen { unasked: &["{uuid}"] },
        ..platform::UNKNOWN
    },
    ..BARE
};

const CLAIMS: &[ClaimSpec] = &[
    ClaimSpec::new(
        "sub",
        Text,
        Reusable,
        "organization, project, user; version 2 adds origin and ref",
    ),
    ClaimSpec::new("jti", Text, Platform, "id of this token"),
    ClaimSpec::new("oidc.circleci.com/*", Any, Platform, "the same under its signed name"),
    ClaimSpec::new("org_id", Text, Immutable, "derived: id of the organization"),
    ClaimSpec::new("project_id", Text, Immutable, "derived: id of the project"),
    ClaimSpec::new("pipeline_id", Text, Platform, "derived: id of the run of the pipeline"),
    ClaimSpec::new(
        "pipeline_definition_id",
        Text,
        Immutable,
        "derived: id of the pipeline's definition",
    ),
    ClaimSpec::new("workflow_id", Text, Platform, "derived: id of the workflow's run"),
    ClaimSpec::new("job_id", Text, Platform, "derived: id of the job"),
    ClaimSpec::new(
        "context_ids",
        TextList,
        Immutable,
        "derived: ids of the contexts that the job may use",
    ),
    ClaimSpec::new(
        "vcs_origin",
        Text,
        Reusable,
        "derived: repository that the code comes from; a fork's, if forks get secrets",
    ),
    ClaimSpec::new("vcs_ref", Text, ChosenByJob, "derived: full name of the branch or tag"),
    ClaimSpec::new(
        "ssh_rerun",
        BooleanText,
        Platform,
        "derived: `true` if a person has a shell in the job",
    ),
];

const SSH_RERUN: &str = "oidc.circleci.com/ssh-rerun";

/// `ssh-rerun` is a boolean that some have seen as a text: one text for both. Anything else must not pass for `false`.
fn derive(claims: &mut Claims) -> Result<(), ClaimError> {
    refuse_signed(claims, &["ssh_rerun"])?;
    let said = match claims.get(SSH_RERUN) {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Bool(said)) => said.to_string(),
        Some(Value::String(said)) if said == "true" || said == "false" => said.clone(),
        Some(_) => {
            let reason = format!("claim `{SSH_RERUN}`: expected `true` or `false`");
            return Err(error(SSH_RERUN, reason));
        }
    };
    claims.insert("ssh_rerun".to_owned(), Value::String(said));
    Ok(())
}
