//! What policy hands to minting, and no more; and the names that every stage shares.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// What the configuration calls an issuer: `github`. Never reused for another issuer.
    IssuerName
}
name! {
    /// What the configuration calls a target: `jwt/orders`.
    TargetName
}
name! {
    /// A named power of one target: `deploy`.
    RoleName
}
name! {
    /// A rule of a trust policy: `file/rule`, where `file` is the file's name without `.yaml`.
    RuleId
}

/// Whether one subject token may buy the same (target, role) again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Replay {
    /// As often as it verifies, within the issuer's maximum age.
    Reusable,
    /// Once per token, target and role.
    Once,
}

/// What the caller of an AWS front wants its session narrowed to, beyond what policy says, and what it would call it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Narrowing {
    /// `RoleSessionName`: kept for the record, never used (threat H11).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_name: Option<String>,
    /// A session policy (JSON).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Managed session policies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy_arns: Vec<String>,
}

/// What was permitted, narrowed: the input of [`crate::mint::Minter::prepare`].
///
/// Built by `policy` alone (`pub(crate)` constructor fields are only written there and in tests).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Where the credential is good for.
    pub target: TargetName,
    /// Which of the target's powers.
    pub role: RoleName,
    /// Every rule that permitted it, sorted. The first is the `client_id` of a JWT of ours.
    pub rules: Vec<RuleId>,
    /// INVARIANT(never-outlive): the most that asked, rules and target's ceiling allow together.
    pub lifetime: Duration,
    /// Whether the credential must also end with the subject token (some rule says `bounded_by_subject`).
    pub bounded_by_subject: bool,
    /// The strictest of the rules' modes.
    pub replay: Replay,
    /// The `sub` that the rule fixes, in place of `<issuer name>:<stable id>`.
    pub subject: Option<String>,
    /// What the caller asked for as `scope`, if it named more than the role; already checked against the role.
    pub scope: Vec<String>,
    /// SHA-256 of the policy set that decided.
    pub policy_digest: [u8; 32],
    /// What mapped claims of the role resolve to; never a registered or a cloud-tag claim.
    pub claims: BTreeMap<String, serde_json::Value>,
}
