//! What GitHub Actions and what speaks its language (Forgejo) share: claims, and the events that strangers cause.

use super::{
    ClaimSpec,
    ClaimType::{BooleanText, NumericText, Object, Text},
    Stability::{ChosenByJob, Platform, Reusable},
};

/// Events that a stranger can cause, or that run with the trust of the default branch on a stranger's input (threat C06).
pub(super) const STRANGERS_EVENTS: &[&str] = &[
    "commit_comment",
    "discussion",
    "discussion_comment",
    "fork",
    "gollum",
    "issue_comment",
    "issues",
    "pull_request",
    "pull_request_comment",
    "pull_request_review",
    "pull_request_review_comment",
    "pull_request_target",
    "watch",
    "workflow_run",
];

pub(super) const REPOSITORY: ClaimSpec =
    ClaimSpec::new("repository", Text, Reusable, "owner and name of the repository");
pub(super) const REPOSITORY_OWNER: ClaimSpec =
    ClaimSpec::new("repository_owner", Text, Reusable, "name of the repository's owner");
pub(super) const REF: ClaimSpec =
    ClaimSpec::new("ref", Text, ChosenByJob, "full name of the branch or tag that the run is for");
pub(super) const REF_TYPE: ClaimSpec = ClaimSpec::new("ref_type", Text, Platform, "branch or tag");
pub(super) const REF_PROTECTED: ClaimSpec =
    ClaimSpec::new("ref_protected", BooleanText, Platform, "whether rules protect the ref");
pub(super) const SHA: ClaimSpec =
    ClaimSpec::new("sha", Text, ChosenByJob, "commit that the run is for");
pub(super) const HEAD_REF: ClaimSpec = ClaimSpec::new(
    "head_ref",
    Text,
    ChosenByJob,
    "source branch of a pull request; a fork chooses it",
);
pub(super) const BASE_REF: ClaimSpec =
    ClaimSpec::new("base_ref", Text, ChosenByJob, "target branch of a pull request");
pub(super) const EVENT_NAME: ClaimSpec =
    ClaimSpec::new("event_name", Text, Platform, "event that began the run");
pub(super) const WORKFLOW: ClaimSpec =
    ClaimSpec::new("workflow", Text, ChosenByJob, "free-text name of the workflow");
pub(super) const WORKFLOW_REF: ClaimSpec =
    ClaimSpec::new("workflow_ref", Text, ChosenByJob, "file and ref of the workflow");
pub(super) const ACTOR: ClaimSpec =
    ClaimSpec::new("actor", Text, Reusable, "login of who began the run");
pub(super) const RUN_ID: ClaimSpec =
    ClaimSpec::new("run_id", NumericText, Platform, "id of the run");
pub(super) const RUN_NUMBER: ClaimSpec =
    ClaimSpec::new("run_number", NumericText, Platform, "number of the run within its workflow");
pub(super) const RUN_ATTEMPT: ClaimSpec =
    ClaimSpec::new("run_attempt", NumericText, Platform, "which attempt of the run this is");
pub(super) const WORKFLOW_FILE: ClaimSpec =
    ClaimSpec::new("workflow_file", Object, ChosenByJob, "derived from workflow_ref: path and ref");
