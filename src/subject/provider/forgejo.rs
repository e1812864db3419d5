//! Forgejo Actions. Each instance has an issuer of its own.

use serde_json::Value;

use super::{
    BARE, ClaimError, ClaimSpec,
    ClaimType::Text,
    Preset,
    Stability::Reusable,
    actions::{
        ACTOR, BASE_REF, EVENT_NAME, HEAD_REF, REF, REF_PROTECTED, REF_TYPE, REPOSITORY,
        REPOSITORY_OWNER, RUN_ATTEMPT, RUN_ID, RUN_NUMBER, SHA, STRANGERS_EVENTS, WORKFLOW,
        WORKFLOW_FILE, WORKFLOW_REF,
    },
    compound::{refuse_signed, split_at_ref},
};
use crate::{grant::Replay, subject::Claims};

/// A job asks for a fresh token whenever it likes; there is no `jti`, and tokens are told apart by what is signed.
///
/// There are no ids: the pin is a name, and whoever gets a repository of that name on this instance gets what its rules grant. On an
/// instance that is open to strangers, rename and delete nothing that a rule names (threat C04).
pub static FORGEJO: Preset = Preset {
    name: "forgejo",
    claims: CLAIMS,
    pins: &[&["repository"], &["repository_owner"]],
    organizations: &["repository_owner"],
    stable_ids: &[&["repository"]],
    replay: Replay::Once,
    dangerous: &[("event_name", STRANGERS_EVENTS)],
    derive,
    narrowing: &["ref", "ref_protected", "event_name"],
    label: &["repository"],
    ..BARE
};

const CLAIMS: &[ClaimSpec] = &[
    ClaimSpec::new("sub", Text, Reusable, "subject; match on other claims"),
    REPOSITORY,
    REPOSITORY_OWNER,
    REF,
    REF_TYPE,
    REF_PROTECTED,
    SHA,
    HEAD_REF,
    BASE_REF,
    EVENT_NAME,
    WORKFLOW,
    WORKFLOW_REF,
    ACTOR,
    RUN_ID,
    RUN_NUMBER,
    RUN_ATTEMPT,
    WORKFLOW_FILE,
];

/// Folders of workflow files, in the order in which Forgejo looks for them.
const WORKFLOWS: [&str; 3] = ["/.forgejo/workflows/", "/.gitea/workflows/", "/.github/workflows/"];

fn derive(claims: &mut Claims) -> Result<(), ClaimError> {
    refuse_signed(claims, &["workflow_file"])?;
    let text = claims.get("workflow_ref").and_then(Value::as_str).unwrap_or_default();
    let split = WORKFLOWS.iter().find_map(|folder| split_at_ref(text, folder));
    if let Some(split) = split {
        claims.insert("workflow_file".to_owned(), split);
    }
    Ok(())
}
