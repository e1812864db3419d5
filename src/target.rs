//! Targets as the configuration declares them: names, roles, who may grant them, how their credentials end.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use thiserror::Error;

pub mod mysql;
pub mod redis;

use crate::grant::{RoleName, TargetName};

/// A value is not what the place takes: this is what was expected.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("expected {0}")]
pub struct Unfit(pub &'static str);

/// INVARIANT(honest-expiry): how the credentials of a target end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// The target itself ends the credential at any second between the two.
    Exact {
        /// The shortest lifetime that the target can keep.
        floor: Duration,
        /// The longest.
        ceiling: Duration,
    },
    /// Always this long, whatever is asked.
    Fixed(Duration),
    /// Only the broker ends it; must be opted into.
    ByBroker {
        /// The longest.
        ceiling: Duration,
    },
}

/// One power of a target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Role {
    /// OAuth scopes that the role carries, beyond its own name (RFC 8693 section 2.1, `scope`).
    pub scope: BTreeSet<String>,
    /// Claim of the credential → claim of the subject (a preset's name, or a JSON Pointer).
    pub claims: BTreeMap<String, String>,
}

/// A configured place that a credential is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `jwt/orders`.
    pub name: TargetName,
    /// `jwt`, `cambio`, later `aws`, `postgres` …
    pub kind: String,
    /// Further URIs that `audience` or `resource` may name it by. Unique over all targets.
    pub aliases: BTreeSet<String>,
    /// `prod`, `dev` …
    pub environment: String,
    /// Its powers.
    pub roles: BTreeMap<RoleName, Role>,
    /// File names of the trust policies that may grant it. None named means none may.
    pub granted_by: BTreeSet<String>,
    /// How its credentials end.
    pub expiry: Expiry,
}

/// Two targets answer to one name.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("`{name}` names both target `{first}` and target `{second}`")]
pub struct TargetClash {
    /// What both answer to.
    pub name: String,
    /// The earlier one.
    pub first: TargetName,
    /// The later one.
    pub second: TargetName,
}

/// All targets, looked up by name or alias.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    by_name: BTreeMap<TargetName, Target>,
    by_alias: HashMap<String, TargetName>,
    roles_elsewhere: HashMap<String, BTreeSet<(TargetName, RoleName)>>,
}

impl Targets {
    /// The registry of `targets`.
    ///
    /// # Errors
    /// A name or an alias stands for two of them: the request would not resolve to exactly one.
    pub fn of(targets: impl IntoIterator<Item = Target>) -> Result<Self, TargetClash> {
        let mut registry = Self::default();
        for target in targets {
            let own = std::iter::once(target.name.to_string());
            for alias in own.chain(target.aliases.iter().cloned()) {
                if let Some(first) = registry.by_alias.insert(alias.clone(), target.name.clone()) {
                    return Err(TargetClash { name: alias, first, second: target.name });
                }
            }
            registry.by_name.insert(target.name.clone(), target);
        }
        Ok(registry)
    }

    /// With names that single roles have elsewhere: the ARN of a role in AWS names target and role at once.
    #[must_use]
    pub fn naming_roles(
        mut self,
        named: impl IntoIterator<Item = (String, (TargetName, RoleName))>,
    ) -> Self {
        for (name, role) in named {
            self.roles_elsewhere.entry(name).or_default().insert(role);
        }
        self
    }

    /// The target and the role that `wanted` names by what the role is called elsewhere, byte for byte; none if it names
    /// several: which of them is never a choice of ours.
    #[must_use]
    pub fn resolve_role(&self, wanted: &str) -> Option<(&Target, &RoleName)> {
        let mut named = self.roles_elsewhere.get(wanted)?.iter();
        match (named.next(), named.next()) {
            (Some((target, role)), None) => Some((self.find(target)?, role)),
            _ => None,
        }
    }

    /// The target that an `audience` or a `resource` names, byte for byte.
    #[must_use]
    pub fn resolve(&self, wanted: &str) -> Option<&Target> {
        self.by_alias.get(wanted).and_then(|name| self.by_name.get(name))
    }

    /// The target called `name`.
    #[must_use]
    pub fn find(&self, name: &TargetName) -> Option<&Target> {
        self.by_name.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Target> {
        self.by_name.values()
    }
}
