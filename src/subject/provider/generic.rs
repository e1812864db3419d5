//! Any other issuer: nothing is known but `sub`.

use super::{
    BARE, ClaimSpec,
    ClaimType::Text,
    Preset,
    Stability::{Platform, Reusable},
};
use crate::grant::Replay;

/// Whether the platform can hand out a fresh token is not known, so tokens are reusable within the issuer's maximum age; a rule may
/// say `replay: once`. Whether `sub` can come to mean somebody else is for the operator to know.
pub static GENERIC: Preset = Preset {
    name: "generic",
    claims: CLAIMS,
    pins: &[&["sub"]],
    organizations: &[],
    stable_ids: &[&["sub"]],
    replay: Replay::Reusable,
    folded: &[],
    dangerous: &[],
    ..BARE
};

const CLAIMS: &[ClaimSpec] = &[
    ClaimSpec {
        name: "sub",
        kind: Text,
        stability: Reusable,
        meaning: "subject, as the issuer defines it",
    },
    ClaimSpec { name: "jti", kind: Text, stability: Platform, meaning: "id of this token" },
];
