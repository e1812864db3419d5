//! Spacelift: runs of stacks and modules. Each account has an issuer of its own.

use super::{
    Audience, BARE, ClaimSpec,
    ClaimType::Text,
    Preset,
    Stability::{Platform, Reusable},
    Subject, platform,
};
use crate::grant::Replay;

/// A run has one token, in a variable and a file, so it is reusable. Slugs are unique within the account, which is the issuer.
pub static SPACELIFT: Preset = Preset {
    name: "spacelift",
    claims: CLAIMS,
    pins: &[&["callerType", "callerId"], &["spaceId"]],
    organizations: &["spaceId"],
    stable_ids: &[&["callerType", "callerId"]],
    replay: Replay::Reusable,
    // They run what a pull request brings (threat C06).
    dangerous: &[("runType", &["PROPOSED", "TESTING"])],
    subject: Subject::OneOf(&[
        "space:{spaceId}:{callerType}:{callerId}:run_type:{runType}:scope:{scope}",
    ]),
    narrowing: &["spaceId", "runType", "scope"],
    label: &["callerId"],
    platform: platform::Platform {
        // One that is hosted elsewhere can have any issuer. The audience is its host.
        audience: Audience::Fixed(&["{any}"]),
        ..platform::UNKNOWN
    },
    ..BARE
};

const CLAIMS: &[ClaimSpec] = &[
    ClaimSpec::new("sub", Text, Reusable, "space, stack or module, kind of run and scope"),
    ClaimSpec::new("jti", Text, Platform, "id of this token"),
    ClaimSpec::new("spaceId", Text, Reusable, "slug of the space"),
    ClaimSpec::new("callerType", Text, Platform, "stack or module"),
    ClaimSpec::new("callerId", Text, Reusable, "slug of the stack or module"),
    ClaimSpec::new("runType", Text, Platform, "PROPOSED, TRACKED, TASK, TESTING or DESTROY"),
    ClaimSpec::new("runId", Text, Platform, "id of the run"),
    ClaimSpec::new(
        "scope",
        Text,
        Platform,
        "read or write; Spacelift only says it, a rule must ask it",
    ),
];
