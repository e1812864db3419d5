//! Facts: what explain, replay and revoke-by-claim need. They stand in a row beside the entry; the leaf holds a salted
//! commitment to them, so that personal data can be erased without breaking the tree.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    grant::Narrowing,
    policy::Wants,
    subject::{
        Claims,
        json::{Limits, parse_object},
    },
};

/// What was known when an exchange was decided. Stored as JSON; never holds a token, only claims.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Version of this shape: 1.
    pub version: u32,
    /// `ex_…`.
    pub exchange_id: String,
    /// What the configuration calls the issuer.
    pub issuer: String,
    /// All verified claims, derived ones included.
    pub claims: Arc<Claims>,
    /// The actor's verified claims, if one came along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Arc<Claims>>,
    /// What the configuration calls the actor's issuer: blocks by issuer reach it, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor_issuer: Option<String>,
    /// What was asked for.
    pub wants: Wants,
    /// What the caller wanted the credential narrowed to, and called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub narrowing: Option<Narrowing>,
    /// The instant of the decision, in milliseconds since 1970.
    pub now: u64,
    /// The caller's address.
    pub source: String,
    /// Hexadecimal SHA-256 of the policy set.
    pub policy: String,
    /// Rules in shadow mode that fitted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shadow: Vec<String>,
    /// The operator's words for a refusal: the near miss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Facts {
    /// What [`crate::ledger::reader::StoredFacts::json`] holds; `None` if it is not ours.
    #[must_use]
    pub fn read(json: &[u8]) -> Option<Self> {
        let read = parse_object(json, &LIMITS).ok()?;
        serde_json::from_value(serde_json::Value::Object(read)).ok()
    }
}

/// Claims were bounded when they came in; this is what surrounds them.
const LIMITS: Limits = Limits { bytes: 65_536, depth: 24, members: 1_024, elements: 4_096 };
