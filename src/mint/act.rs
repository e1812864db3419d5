//! The `act` claim (RFC 8693 section 4.1): who acts, and who acted before. Identity members only (threat X07).

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{Behind, MintError};
use crate::subject::{Profile, VerifiedSubject};

/// Actors inside each other (threat X06).
const MAXIMUM_DEPTH: usize = 3;

/// One actor: `sub`, and `iss` where it is not ours to name.
type Identity = (Option<String>, String);

/// The chain of `behind`, outermost first: the actor of this exchange, then those that the subject token (or the actor's
/// own) names already. A chain is never dropped on the way, and never spliced from two tokens.
///
/// # Errors
/// Deeper than three, circular, without a name, or two chains at once.
pub(super) fn chain(behind: &Behind<'_>, ours: &str) -> Result<Option<Value>, MintError> {
    let of_subject = prior(behind.subject.profile(), ours)?;
    let (current, of_actor) = match behind.actor {
        Some(actor) => (Some(actor), prior(actor.verified().profile(), ours)?),
        None => (None, Vec::new()),
    };
    if !of_subject.is_empty() && !of_actor.is_empty() {
        return refuse("subject token and actor token have a chain of actors each");
    }
    let named = current.map(|actor| (None, actor.profile().our_subject()));
    let identities: Vec<Identity> = named.into_iter().chain(of_subject).chain(of_actor).collect();
    if identities.len() > MAXIMUM_DEPTH {
        return refuse("the chain of actors is deeper than 3");
    }
    let mut seen = BTreeSet::from([(None, behind.subject.profile().our_subject())]);
    if !identities.iter().all(|identity| seen.insert(identity.clone())) {
        return refuse("the chain of actors is circular");
    }
    Ok(identities.into_iter().rev().fold(None, |inner, identity| Some(member(identity, inner))))
}

/// Whether the token of `subject` is one that we issued: then it is delegation, and what it buys ends with it (threat X06).
pub(super) fn is_ours(subject: &VerifiedSubject, ours: &str) -> bool {
    issuer_of(subject.profile()) == Some(ours)
}

/// The actors that a token names already. Those in a stranger's token are in the stranger's words: they keep its `iss`, and
/// none of them is ours. We write our own without an `iss`, so a stranger's would read as one that we have verified.
fn prior(profile: &Profile, ours: &str) -> Result<Vec<Identity>, MintError> {
    let default_issuer = issuer_of(profile).filter(|issuer| *issuer != ours);
    let mut found = Vec::new();
    let mut next = profile.claims.get("act");
    while let Some(act) = next {
        let name = act.get("sub").and_then(Value::as_str).filter(|name| !name.is_empty());
        let Some(name) = name else { return refuse("an actor of the token has no `sub`") };
        let named = act.get("iss");
        if named.is_some_and(|named| !named.is_string()) {
            return refuse("an actor of the token has an `iss` that is no text");
        }
        let issuer = named.and_then(Value::as_str).or(default_issuer);
        if default_issuer.is_some() && issuer == Some(ours) {
            return refuse("an actor of another issuer's token is named as one of ours");
        }
        found.push((issuer.filter(|issuer| *issuer != ours).map(str::to_owned), name.to_owned()));
        if found.len() > MAXIMUM_DEPTH {
            return refuse("the chain of actors is deeper than 3");
        }
        next = act.get("act");
    }
    Ok(found)
}

fn issuer_of(profile: &Profile) -> Option<&str> {
    profile.claims.get("iss").and_then(Value::as_str)
}

fn member((issuer, name): Identity, inner: Option<Value>) -> Value {
    let mut act = Map::new();
    act.extend(issuer.map(|issuer| ("iss".to_owned(), issuer.into())));
    act.insert("sub".to_owned(), name.into());
    act.extend(inner.map(|inner| ("act".to_owned(), inner)));
    Value::Object(act)
}

fn refuse<T>(reason: &str) -> Result<T, MintError> {
    Err(MintError::Actors(reason.to_owned()))
}
