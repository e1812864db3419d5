//! How long a credential may live: the least of everything that has a say.

use std::time::Duration;

use super::{Behind, act};
use crate::{
    clock::Instant,
    grant::Grant,
    subject::{ConfirmedSubject, VerifiedSubject},
};

/// INVARIANT(never-outlive): the least of `most` (what the target can keep) and the grant; and the subject token's own end,
/// where a rule says so or the token is one of ours, whose issuer URL is `ours` (threat X06: a chain of exchanges never gains
/// time).
pub(super) fn bounded(most: Duration, grant: &Grant, behind: &Behind<'_>, ours: &str) -> Duration {
    let most = grant.lifetime.min(most);
    latest(grant, behind, ours).map_or(most, |end| most.min(end.since(behind.now)))
}

/// The instant that no credential from these tokens may outlive, where there is one.
pub(super) fn latest(grant: &Grant, behind: &Behind<'_>, ours: &str) -> Option<Instant> {
    let subject = Some(behind.subject.verified())
        .filter(|subject| grant.bounded_by_subject || act::is_ours(subject, ours));
    let actor = behind.actor.map(ConfirmedSubject::verified);
    let actor = actor.filter(|actor| act::is_ours(actor, ours));
    subject.into_iter().chain(actor).map(VerifiedSubject::expires_at).min()
}
