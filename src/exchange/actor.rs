//! Delegation: whether the actor may act for the subject (RFC 8693 sections 4.1 and 4.4, threat X07).

use serde_json::Value;

use crate::{
    refusal::Refusal,
    subject::{Profile, VerifiedSubject},
};

/// Checks subject and actor against each other.
///
/// INVARIANT(closed-by-absence): an actor acts only where the subject token's `may_act` names it, and a subject token
/// that names one is of no use without it.
///
/// # Errors
/// They do not belong together. The chain itself is judged where it is made, in `mint`.
pub fn check(subject: &VerifiedSubject, actor: Option<&VerifiedSubject>) -> Result<(), Refusal> {
    let fail = |reason: String| Err(Refusal::Actor(reason));
    let named = subject.profile().claims.get("may_act");
    match (named, actor) {
        (None, None) => Ok(()),
        (None, Some(_)) => {
            fail("the subject token has no `may_act`, expected one that names the actor".into())
        }
        (Some(_), None) => {
            fail("the subject token's `may_act` names an actor, found no actor token".into())
        }
        (Some(named), Some(actor)) => {
            if !names(named, actor.profile()) {
                return fail("`may_act` names another actor".into());
            }
            Ok(())
        }
    }
}

/// Every member of `may_act` must equal the actor's claim of that name; `sub` must be among them.
fn names(may_act: &Value, actor: &Profile) -> bool {
    let Some(members) = may_act.as_object() else { return false };
    members.contains_key("sub")
        && members.iter().all(|(name, wanted)| actor.claims.get(name) == Some(wanted))
}
