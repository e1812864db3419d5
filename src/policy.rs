//! Step 3: the decision. Nothing here reads a clock, a file or a socket (but `policy/load.rs`, which reads files).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    clock::Instant,
    grant::{Grant, IssuerName, RoleName, RuleId, TargetName},
    subject::{Preset, Profile, VerifiedSubject},
    target::Targets,
};

pub mod cases;
mod claim;
pub mod compile;
mod condition;
pub mod document;
pub mod explain;
mod index;
pub mod init;
mod lint;
pub mod load;
pub mod pattern;
mod select;

pub use cases::CaseResult;
pub use compile::{Context, Source};
use condition::Condition;
pub use explain::{Explanation, Outcome};
pub use load::{LoadError, Loaded};

/// All rules and guardrails of one moment, compiled. Immutable: an exchange holds one from the decision to the entry
/// (threat X11).
#[derive(Debug)]
pub struct PolicySet {
    rules: Vec<compile::Rule>,
    guardrails: Vec<compile::Guardrail>,
    index: index::Index,
    targets: Arc<Targets>,
    presets: BTreeMap<IssuerName, &'static Preset>,
    cases: Vec<cases::Case>,
    digest: [u8; 32],
    sources: Vec<Source>,
}

impl PolicySet {
    /// The decision. Total and pure; its cost does not grow with the number of rules.
    #[must_use]
    pub fn decide(&self, subject: &VerifiedSubject, wants: &Wants, now: Instant) -> Decision {
        self.select(subject.profile(), wants, now)
    }

    /// SHA-256 over its files.
    #[must_use]
    pub const fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Whether some rule is pinned to this workload's tenant: then its refusals get an entry of their own (threat A11).
    #[must_use]
    pub fn knows_tenant(&self, profile: &Profile) -> bool {
        !self.index.of_tenant(profile).is_empty()
    }

    /// Its files, sorted by name: what the ledger stores under the digest.
    #[must_use]
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// Whether it has the rule.
    #[must_use]
    pub fn has_rule(&self, id: &RuleId) -> bool {
        self.rules.iter().any(|rule| rule.id == *id)
    }

    /// How many rules it has.
    #[must_use]
    pub fn rule_count(&self) -> usize {
        self.rules.len()
    }
}

/// What the caller asked for, before policy resolves it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Wants {
    /// RFC 8693 `audience` and RFC 8707 `resource` values, in order.
    pub targets: Vec<String>,
    /// RFC 8693 `scope`, split at spaces. The first that names a role chooses the role.
    pub scope: Vec<String>,
    /// `requested_lifetime` (ours): only ever shortens.
    pub lifetime: Option<Duration>,
}

/// How a request ended in the policy.
#[derive(Debug)]
pub enum Decision {
    /// Exactly one (target, role) is permitted.
    Permit(Box<Permit>),
    /// More than one is, and the request does not choose.
    Ambiguous(Vec<(TargetName, RoleName)>),
    /// None is.
    Deny(Box<Denial>),
}

/// A permit, and what would have been different under shadow rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit {
    /// What was permitted.
    pub grant: Grant,
    /// Rules in `mode: shadow` that also fit: recorded, not granted.
    pub shadow: Vec<RuleId>,
}

/// Why nothing was permitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The closed kind of reason.
    pub reason: DenialReason,
    /// Whether the tenant pin of some rule matched: then the refusal gets an entry of its own (design section 7).
    pub known_tenant: bool,
    /// The rule that came nearest, and what it missed: "all held but `ref`: wanted …, got …".
    pub nearest: Option<NearMiss>,
    /// Rules in `mode: shadow` that would have permitted it.
    pub shadow: Vec<RuleId>,
    /// SHA-256 of the policy set that decided.
    pub policy_digest: [u8; 32],
}

/// A closed set of reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DenialReason {
    /// No rule is pinned to this tenant.
    NoRule,
    /// Some rule is, but its conditions do not hold.
    Conditions,
    /// A guardrail stands against it.
    Guardrail(String),
    /// The named target is none of ours, or no permitted rule grants it.
    Target(String),
    /// What is left of the lifetime is shorter than the target can keep (honest-expiry).
    Lifetime {
        /// The shortest of what was asked and what the rules allow.
        asked: Duration,
        /// The target's shortest.
        floor: Duration,
    },
    /// Rules that permit the same fix different subjects: these.
    Conflict(String),
    /// The named scope is no role of the target that is granted, or beyond it.
    Scope(String),
}

impl DenialReason {
    /// A closed label for metrics and the ledger (threat H10).
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::NoRule => "no_rule",
            Self::Conditions => "conditions",
            Self::Guardrail(_) => "guardrail",
            Self::Target(_) => "target",
            Self::Lifetime { .. } => "lifetime",
            Self::Conflict(_) => "conflict",
            Self::Scope(_) => "scope",
        }
    }
}

/// The rule that came nearest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NearMiss {
    /// Which rule.
    pub rule: RuleId,
    /// How many of its conditions held, and how many it has.
    pub held: (usize, usize),
    /// The first condition that did not hold, as a sentence.
    pub missed: String,
}

impl std::fmt::Display for Denial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.reason {
            DenialReason::NoRule => write!(f, "no rule is pinned to this workload"),
            DenialReason::Conditions => write!(f, "no rule's conditions hold"),
            DenialReason::Guardrail(name) => write!(f, "guardrail `{name}` stands against it"),
            DenialReason::Target(name) => write!(f, "target `{name}` is not granted"),
            DenialReason::Lifetime { asked, floor } => write!(
                f,
                "lifetime of {} s is shorter than the target can keep, which is {} s",
                asked.as_secs(),
                floor.as_secs()
            ),
            DenialReason::Conflict(rules) => write!(f, "rules `{rules}` fix different subjects"),
            DenialReason::Scope(name) => write!(f, "scope `{name}` is not granted"),
        }?;
        match &self.nearest {
            Some(near) => write!(f, "; nearest is `{}`: {}", near.rule, near.missed),
            None => Ok(()),
        }
    }
}
