//! Tokens of our own as subject tokens: delegation, by explicit rule alone (threat X06).

use super::{
    BARE, ClaimSpec,
    ClaimType::{Object, Text},
    Preset,
    Stability::{Immutable, Platform},
    platform,
};
use crate::{grant::Replay, subject::Algorithm};

/// Our issuer, configured as an issuer like any other. `sub` is immutable because issuer names are never reused.
pub static CAMBIO: Preset = Preset {
    name: "cambio",
    claims: CLAIMS,
    pins: &[&["sub"]],
    organizations: &[],
    stable_ids: &[&["sub"]],
    replay: Replay::Once,
    folded: &[],
    dangerous: &[],
    platform: platform::Platform {
        algorithms: &[Algorithm::ES256],
        accepted_types: &["JWT", "at+jwt"],
        ..platform::UNKNOWN
    },
    ..BARE
};

const CLAIMS: &[ClaimSpec] = &[
    ClaimSpec {
        name: "sub",
        kind: Text,
        stability: Immutable,
        meaning: "`<issuer name>:<stable id>` of the workload that the token was issued to",
    },
    ClaimSpec {
        name: "client_id",
        kind: Text,
        stability: Platform,
        meaning: "the rule that permitted the exchange",
    },
    ClaimSpec { name: "scope", kind: Text, stability: Platform, meaning: "role and scopes" },
    ClaimSpec {
        name: "act",
        kind: Object,
        stability: Platform,
        meaning: "who acts, and who before",
    },
    ClaimSpec { name: "may_act", kind: Object, stability: Platform, meaning: "who may act" },
    ClaimSpec { name: "jti", kind: Text, stability: Platform, meaning: "id of this token" },
];
