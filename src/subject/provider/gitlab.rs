//! GitLab CI/CD, on gitlab.com and self-managed.

use serde_json::Value;

use super::{
    BARE, ClaimError, ClaimSpec,
    ClaimType::{Any, BooleanText, Integer, NumericText, Object, Text, TextList},
    Preset,
    Stability::{ChosenByJob, Immutable, Platform, Reusable},
    compound::{agree, pairs, refuse_signed, split_at_ref},
    platform,
};
use crate::{grant::Replay, subject::Claims};

/// The token is a variable that lives as long as the job and can't be had anew, so it is reusable within the issuer's maximum age.
/// Paths come back in other hands, ids do not (threat C11).
pub static GITLAB: Preset = Preset {
    name: "gitlab",
    claims: CLAIMS,
    pins: &[&["project_id"], &["namespace_id"]],
    organizations: &["namespace_id"],
    stable_ids: &[&["project_id"]],
    replay: Replay::Reusable,
    folded: &["project_path", "namespace_path", "job_project_path", "job_namespace_path"],
    dangerous: &[("pipeline_source", FOREIGN_SOURCES)],
    derive,
    narrowing: &[
        "environment",
        "environment_protected",
        "ref",
        "ref_path",
        "ref_protected",
        "pipeline_source",
        "runner_environment",
    ],
    label: &["project_path"],
    platform: platform::Platform { default_url: Some("https://gitlab.com"), ..platform::UNKNOWN },
    ..BARE
};

/// Pipelines that run what a fork or a holder of some other token brings (threats C06, C11).
const FOREIGN_SOURCES: &[&str] = &[
    "api",
    "chat",
    "external_pull_request_event",
    "merge_request_event",
    "parent_pipeline",
    "pipeline",
    "trigger",
];

/// Booleans are texts, `runner_id` is a number, and what does not apply is `null`.
const CLAIMS: &[ClaimSpec] = &[
    ClaimSpec {
        name: "sub",
        kind: Text,
        stability: Reusable,
        meaning: "subject; its components are set per project, so match on other claims",
    },
    ClaimSpec { name: "jti", kind: Text, stability: Platform, meaning: "id of this token" },
    ClaimSpec {
        name: "namespace_id",
        kind: NumericText,
        stability: Immutable,
        meaning: "id of the group or user that owns the project",
    },
    ClaimSpec {
        name: "namespace_path",
        kind: Text,
        stability: Reusable,
        meaning: "path of the group or user",
    },
    ClaimSpec {
        name: "project_id",
        kind: NumericText,
        stability: Immutable,
        meaning: "id of the project; in fork merge requests that of the fork",
    },
    ClaimSpec {
        name: "project_path",
        kind: Text,
        stability: Reusable,
        meaning: "path of the project",
    },
    ClaimSpec {
        name: "job_namespace_id",
        kind: NumericText,
        stability: Immutable,
        meaning: "id of the group or user in whose project the job runs",
    },
    ClaimSpec {
        name: "job_namespace_path",
        kind: Text,
        stability: Reusable,
        meaning: "path of the group or user in whose project the job runs",
    },
    ClaimSpec {
        name: "job_project_id",
        kind: NumericText,
        stability: Immutable,
        meaning: "id of the project in which the job runs",
    },
    ClaimSpec {
        name: "job_project_path",
        kind: Text,
        stability: Reusable,
        meaning: "path of the project in which the job runs",
    },
    ClaimSpec {
        name: "project_visibility",
        kind: Text,
        stability: Platform,
        meaning: "public, internal or private",
    },
    ClaimSpec {
        name: "user_id",
        kind: NumericText,
        stability: Immutable,
        meaning: "id of who triggered or retried the job; do not authorise machines by it",
    },
    ClaimSpec {
        name: "user_login",
        kind: Text,
        stability: Reusable,
        meaning: "login of who triggered or retried the job",
    },
    ClaimSpec {
        name: "user_email",
        kind: Text,
        stability: Reusable,
        meaning: "address of who triggered or retried the job",
    },
    ClaimSpec {
        name: "user_access_level",
        kind: Text,
        stability: Platform,
        meaning: "role of who triggered or retried the job",
    },
    ClaimSpec {
        name: "user_identities",
        kind: Any,
        stability: Reusable,
        meaning: "identities that the user shows elsewhere",
    },
    ClaimSpec {
        name: "groups_direct",
        kind: TextList,
        stability: Reusable,
        meaning: "groups of the user",
    },
    ClaimSpec {
        name: "pipeline_id",
        kind: NumericText,
        stability: Platform,
        meaning: "id of the pipeline",
    },
    ClaimSpec {
        name: "pipeline_source",
        kind: Text,
        stability: Platform,
        meaning: "what began the pipeline",
    },
    ClaimSpec { name: "job_id", kind: NumericText, stability: Platform, meaning: "id of the job" },
    ClaimSpec {
        name: "ref",
        kind: Text,
        stability: ChosenByJob,
        meaning: "name of the branch or tag; a tag may be named like a branch, prefer ref_path",
    },
    ClaimSpec { name: "ref_type", kind: Text, stability: Platform, meaning: "branch or tag" },
    ClaimSpec {
        name: "ref_path",
        kind: Text,
        stability: ChosenByJob,
        meaning: "full name of the branch or tag",
    },
    ClaimSpec {
        name: "ref_protected",
        kind: BooleanText,
        stability: Platform,
        meaning: "whether the ref is protected",
    },
    ClaimSpec {
        name: "environment",
        kind: Text,
        stability: ChosenByJob,
        meaning: "environment of the job; free text unless environment_protected",
    },
    ClaimSpec {
        name: "environment_protected",
        kind: BooleanText,
        stability: Platform,
        meaning: "whether the environment is protected",
    },
    ClaimSpec {
        name: "deployment_tier",
        kind: Text,
        stability: ChosenByJob,
        meaning: "tier of the environment",
    },
    ClaimSpec {
        name: "environment_action",
        kind: Text,
        stability: ChosenByJob,
        meaning: "what the job does to the environment",
    },
    ClaimSpec {
        name: "runner_id",
        kind: Integer,
        stability: Platform,
        meaning: "id of the runner",
    },
    ClaimSpec {
        name: "runner_environment",
        kind: Text,
        stability: Platform,
        meaning: "gitlab-hosted or self-hosted",
    },
    ClaimSpec {
        name: "sha",
        kind: Text,
        stability: ChosenByJob,
        meaning: "commit that the job is for",
    },
    ClaimSpec {
        name: "ci_config_ref_uri",
        kind: Text,
        stability: ChosenByJob,
        meaning: "file and ref of the pipeline definition",
    },
    ClaimSpec {
        name: "ci_config_sha",
        kind: Text,
        stability: ChosenByJob,
        meaning: "commit of the pipeline definition",
    },
    ClaimSpec {
        name: "job_source",
        kind: Text,
        stability: Platform,
        meaning: "what began the job",
    },
    ClaimSpec {
        name: "job_config",
        kind: Any,
        stability: ChosenByJob,
        meaning: "definition of the job",
    },
    ClaimSpec {
        name: "target_audience",
        kind: Text,
        stability: ChosenByJob,
        meaning: "audience of a flow that has one",
    },
    ClaimSpec {
        name: "ci_config",
        kind: Object,
        stability: ChosenByJob,
        meaning: "derived from ci_config_ref_uri: path and ref",
    },
];

fn derive(claims: &mut Claims) -> Result<(), ClaimError> {
    refuse_signed(claims, &["ci_config"])?;
    let sub = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
    for (key, value) in pairs(sub, &[]) {
        if matches!(key, "project_path" | "project_id" | "namespace_path" | "namespace_id") {
            agree("sub", claims, key, &value)?;
        }
    }
    // `host/group/project//path/in/repository@ref`.
    let split = claims.get("ci_config_ref_uri").and_then(Value::as_str);
    if let Some(split) = split.and_then(|text| split_at_ref(text, "//")) {
        claims.insert("ci_config".to_owned(), split);
    }
    Ok(())
}
