//! GitHub Actions, on GitHub.com, GHE.com and GitHub Enterprise Server.

use std::time::Duration;

use serde_json::Value;

use super::{
    Audience, BARE, ClaimError, ClaimSpec,
    ClaimType::{NumericText, Object, Text},
    Preset,
    Stability::{ChosenByJob, Immutable, Platform, Reusable},
    actions::{
        ACTOR, BASE_REF, EVENT_NAME, HEAD_REF, REF, REF_PROTECTED, REF_TYPE, REPOSITORY,
        REPOSITORY_OWNER, RUN_ATTEMPT, RUN_ID, RUN_NUMBER, SHA, STRANGERS_EVENTS, WORKFLOW,
        WORKFLOW_FILE, WORKFLOW_REF,
    },
    compound::{agree, error, pairs, refuse_signed, split_at_ref},
    platform,
};
use crate::{grant::Replay, subject::Claims};

/// A job can ask for a fresh token whenever it likes, so one is good for one exchange. Both pins are ids: names come back in other
/// hands (threat C04).
pub static GITHUB: Preset = Preset {
    name: "github",
    claims: CLAIMS,
    pins: &[&["repository_id"], &["repository_owner_id"]],
    organizations: &["repository_owner_id"],
    stable_ids: &[&["repository_id"]],
    replay: Replay::Once,
    folded: &["repository", "repository_owner", "enterprise", "environment"],
    dangerous: &[("event_name", STRANGERS_EVENTS)],
    derive,
    narrowing: &["environment", "ref", "ref_protected", "event_name", "runner_environment"],
    label: &["repository"],
    platform: platform::Platform {
        default_url: Some("https://token.actions.githubusercontent.com"),
        maximum_lifetime: Duration::from_mins(15),
        audience: Audience::Chosen { unasked: &["https://github.com/**"] },
        ..platform::UNKNOWN
    },
    ..BARE
};

/// GitHub sends texts only: numbers and booleans too.
const CLAIMS: &[ClaimSpec] = &[
    ClaimSpec {
        name: "sub",
        kind: Text,
        stability: Reusable,
        meaning: "subject; its shape is set by repository and organisation administrators, so match on other claims",
    },
    ClaimSpec { name: "jti", kind: Text, stability: Platform, meaning: "id of this token" },
    REPOSITORY,
    ClaimSpec {
        name: "repository_id",
        kind: NumericText,
        stability: Immutable,
        meaning: "id of the repository",
    },
    REPOSITORY_OWNER,
    ClaimSpec {
        name: "repository_owner_id",
        kind: NumericText,
        stability: Immutable,
        meaning: "id of the repository's owner",
    },
    ClaimSpec {
        name: "repository_visibility",
        kind: Text,
        stability: Platform,
        meaning: "public, internal or private",
    },
    ClaimSpec {
        name: "enterprise",
        kind: Text,
        stability: Reusable,
        meaning: "slug of the enterprise",
    },
    ClaimSpec {
        name: "enterprise_id",
        kind: NumericText,
        stability: Immutable,
        meaning: "id of the enterprise",
    },
    REF,
    REF_TYPE,
    REF_PROTECTED,
    SHA,
    HEAD_REF,
    BASE_REF,
    EVENT_NAME,
    ClaimSpec {
        name: "environment",
        kind: Text,
        stability: ChosenByJob,
        meaning: "environment of the job; means something only if the environment has protection rules",
    },
    ClaimSpec {
        name: "environment_node_id",
        kind: Text,
        stability: Immutable,
        meaning: "id of the environment",
    },
    WORKFLOW,
    WORKFLOW_REF,
    ClaimSpec {
        name: "workflow_sha",
        kind: Text,
        stability: ChosenByJob,
        meaning: "commit of the workflow's file",
    },
    ClaimSpec {
        name: "job_workflow_ref",
        kind: Text,
        stability: ChosenByJob,
        meaning: "file and ref of the workflow that defines the job, for reusable workflows the called one",
    },
    ClaimSpec {
        name: "job_workflow_sha",
        kind: Text,
        stability: ChosenByJob,
        meaning: "commit of the file that defines the job",
    },
    ClaimSpec {
        name: "runner_environment",
        kind: Text,
        stability: Platform,
        meaning: "github-hosted or self-hosted",
    },
    ACTOR,
    ClaimSpec {
        name: "actor_id",
        kind: NumericText,
        stability: Immutable,
        meaning: "id of who began the run",
    },
    RUN_ID,
    RUN_NUMBER,
    RUN_ATTEMPT,
    ClaimSpec {
        name: "check_run_id",
        kind: NumericText,
        stability: Platform,
        meaning: "id of the job's check run",
    },
    ClaimSpec {
        name: "issuer_scope",
        kind: Text,
        stability: Platform,
        meaning: "scope of the issuer",
    },
    ClaimSpec {
        name: "repo_property_*",
        kind: Text,
        stability: Platform,
        meaning: "custom property of the repository that an administrator exposes",
    },
    ClaimSpec {
        name: "job_workflow",
        kind: Object,
        stability: ChosenByJob,
        meaning: "derived from job_workflow_ref: path and ref; anyone may call a public workflow, so pin the repository too",
    },
    WORKFLOW_FILE,
];

/// Folder of workflow files: where the file name begins.
const WORKFLOWS: &str = "/.github/workflows/";

fn derive(claims: &mut Claims) -> Result<(), ClaimError> {
    refuse_signed(claims, &["job_workflow", "workflow_file"])?;
    check_subject(claims)?;
    for (from, to) in [("job_workflow_ref", "job_workflow"), ("workflow_ref", "workflow_file")] {
        let split = claims.get(from).and_then(Value::as_str);
        if let Some(split) = split.and_then(|text| split_at_ref(text, WORKFLOWS)) {
            claims.insert(to.to_owned(), split);
        }
    }
    Ok(())
}

/// Nothing is authorised by `sub`, but it must not contradict the claims that are (threats C03, C05). Custom templates replace all of
/// it by `key:value:…`; what they hold besides owner and repository is not our business.
fn check_subject(claims: &Claims) -> Result<(), ClaimError> {
    let sub = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
    for (key, value) in pairs(sub, &["pull_request"]) {
        match key {
            "repo" => check_repo(claims, &value)?,
            "repository" | "repository_id" | "repository_owner" | "repository_owner_id" => {
                agree("sub", claims, key, &value)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// `owner/repo`, or since 2026-07-15 `owner@owner_id/repo@repo_id`. Neither name can hold `@` or `/`.
fn check_repo(claims: &Claims, repo: &str) -> Result<(), ClaimError> {
    let malformed = || {
        let shown: String = repo.chars().take(128).flat_map(char::escape_debug).collect();
        error(
            "sub",
            format!(
                "found repository `{shown}` in `sub`, expected `owner/name` or `owner@id/name@id`"
            ),
        )
    };
    let (owner, name) = repo.split_once('/').ok_or_else(malformed)?;
    let (owner, name, ids) = match (owner.split_once('@'), name.split_once('@')) {
        (None, None) => (owner, name, None),
        (Some((owner, owner_id)), Some((name, id))) => (owner, name, Some((owner_id, id))),
        (Some(_), None) | (None, Some(_)) => return Err(malformed()),
    };
    if owner.is_empty() || name.is_empty() || name.contains('/') {
        return Err(malformed());
    }
    agree("sub", claims, "repository_owner", owner)?;
    agree("sub", claims, "repository", &[owner, "/", name].concat())?;
    let Some((owner_id, id)) = ids else { return Ok(()) };
    let is_id = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !(is_id(owner_id) && is_id(id)) {
        return Err(malformed());
    }
    for (claim, value) in [("repository_owner_id", owner_id), ("repository_id", id)] {
        if !claims.get(claim).is_some_and(Value::is_string) {
            return Err(error(claim, format!("`sub` has an id, but `{claim}` is missing")));
        }
        agree("sub", claims, claim, value)?;
    }
    Ok(())
}
