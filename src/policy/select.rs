//! Which grant: from the rules that fit to exactly one (target, role), or to the reason why not. Pure and total.

use std::{collections::BTreeSet, time::Duration};

use super::{
    Decision, Denial, DenialReason, NearMiss, Permit, PolicySet, Wants,
    compile::{Rule, RuleGrant, is_reserved},
    condition::walk,
};
use crate::{
    clock::Instant,
    grant::{Grant, Replay, RoleName, RuleId, TargetName},
    subject::{Claims, Profile},
    target::{Expiry, Role, Target},
};

/// How many rules of a tenant are looked at for the near miss of a denial. `policy explain` looks at all.
const NEAREST_AMONG: usize = 256;

/// A grant of a rule whose conditions all hold.
#[derive(Clone, Copy, Debug)]
pub(in crate::policy) struct Fit<'a> {
    pub(in crate::policy) rule: &'a Rule,
    pub(in crate::policy) grant: &'a RuleGrant,
}

impl PolicySet {
    /// INVARIANT(policy-does-no-io): everything that decides is an argument, `now` among them.
    pub(in crate::policy) fn select(
        &self,
        profile: &Profile,
        wants: &Wants,
        now: Instant,
    ) -> Decision {
        let fitting: Vec<&Rule> = self
            .index
            .candidates(profile)
            .into_iter()
            .filter_map(|position| self.rules.get(position))
            .filter(|rule| rule.conditions.iter().all(|condition| condition.holds(&profile.claims)))
            .collect();
        let shadow = self.shadows(&fitting, profile, wants, now);
        let enforced = fitting.iter().copied().filter(|rule| !rule.shadow);
        let chosen = self.narrow(enforced, profile, wants, now).and_then(|(fits, scope)| {
            choose(&fits).map(|fits| (fits, scope)).map_err(Stop::Ambiguous)
        });
        let granted = chosen.and_then(|(fits, scope)| self.merge(&fits, scope, profile, wants));
        match granted {
            Ok(grant) => Decision::Permit(Box::new(Permit { grant, shadow })),
            Err(Stop::Ambiguous(choices)) => Decision::Ambiguous(choices),
            Err(Stop::Deny(reason)) => {
                Decision::Deny(Box::new(self.denial(reason, profile, shadow)))
            }
        }
    }

    /// The grants of `rules` that the request leaves, and the scopes it asks for beside the role.
    ///
    /// A workload that no rule fits learns nothing about targets and roles: that is asked first.
    pub(in crate::policy) fn narrow<'a>(
        &self,
        rules: impl Iterator<Item = &'a Rule>,
        profile: &Profile,
        wants: &Wants,
        now: Instant,
    ) -> Result<(Vec<Fit<'a>>, Vec<String>), Stop> {
        let mut fits: Vec<Fit<'a>> = rules
            .flat_map(|rule| rule.grants.iter().map(move |grant| Fit { rule, grant }))
            .collect();
        if fits.is_empty() {
            return Err(Stop::Deny(DenialReason::Conditions));
        }
        let (wanted, role) = self.wanted_target(wants)?;
        if let Some(target) = wanted {
            fits.retain(|fit| fit.grant.target == target.name);
            if fits.is_empty() {
                return Err(Stop::Deny(DenialReason::Target(target.name.to_string())));
            }
        }
        if let Some(role) = role {
            fits.retain(|fit| fit.grant.role == *role);
            if fits.is_empty() {
                return Err(Stop::Deny(DenialReason::Scope(role.to_string())));
            }
        }
        let scope = self.narrow_by_scope(&mut fits, wants)?;
        self.narrow_by_guardrails(&mut fits, profile, now)?;
        Ok((fits, scope))
    }

    /// The one target that all `audience` and `resource` values name (threat X02), none if there are no values; and the one
    /// role, where a value names a role by what it is called elsewhere.
    fn wanted_target(&self, wants: &Wants) -> Result<(Option<&Target>, Option<&RoleName>), Stop> {
        let (mut wanted, mut wanted_role): (Option<&Target>, Option<&RoleName>) = (None, None);
        for value in &wants.targets {
            let by_role = || self.targets.resolve_role(value).map(|(at, role)| (at, Some(role)));
            let found = self.targets.resolve(value).map(|found| (found, None)).or_else(by_role);
            let same = |target: &Target, role: Option<&RoleName>| {
                wanted.is_none_or(|first| first.name == target.name)
                    && (wanted_role.is_none() || role.is_none() || wanted_role == role)
            };
            match found {
                Some((target, role)) if same(target, role) => {
                    (wanted, wanted_role) = (Some(target), wanted_role.or(role));
                }
                _ => return Err(Stop::Deny(DenialReason::Target(value.clone()))),
            }
        }
        Ok((wanted, wanted_role))
    }

    /// Threat X05: a scope is the role, or is carried by the role, or is refused; it is never dropped.
    fn narrow_by_scope(&self, fits: &mut Vec<Fit<'_>>, wants: &Wants) -> Result<Vec<String>, Stop> {
        let is_role = |scope: &str| {
            let named = |target: &Target| target.roles.keys().any(|role| role.as_str() == scope);
            fits.iter().any(|fit| self.targets.find(&fit.grant.target).is_some_and(named))
        };
        let role = wants.scope.iter().find(|scope| is_role(scope)).map(String::as_str);
        if let Some(role) = role {
            fits.retain(|fit| fit.grant.role.as_str() == role);
            if fits.is_empty() {
                return Err(Stop::Deny(DenialReason::Scope(role.to_owned())));
            }
        }
        let mut rest: Vec<String> = Vec::new();
        for scope in &wants.scope {
            if role != Some(scope.as_str()) && !rest.contains(scope) {
                fits.retain(|fit| self.role(fit).is_some_and(|role| role.scope.contains(scope)));
                if fits.is_empty() {
                    return Err(Stop::Deny(DenialReason::Scope(scope.clone())));
                }
                rest.push(scope.clone());
            }
        }
        Ok(rest)
    }

    fn narrow_by_guardrails(
        &self,
        fits: &mut Vec<Fit<'_>>,
        profile: &Profile,
        now: Instant,
    ) -> Result<(), Stop> {
        let mut against: Option<&str> = None;
        fits.retain(|fit| {
            let stands = fit.grant.guardrails.iter().find(|index| {
                // A guardrail that can't be found is one that can't be passed.
                !self.guardrails.get(**index).is_some_and(|guardrail| {
                    guardrail.holds(&fit.rule.id, &profile.issuer, &profile.claims, now)
                })
            });
            if let Some(index) = stands {
                against = against.or(self.guardrails.get(*index).map(|found| found.id.as_str()));
            }
            stands.is_none()
        });
        if fits.is_empty() {
            let id = against.unwrap_or_default().to_owned();
            return Err(Stop::Deny(DenialReason::Guardrail(id)));
        }
        Ok(())
    }

    /// Several rules for one (target, role): shortest lifetime, strictest replay, all rule ids.
    fn merge(
        &self,
        fits: &[Fit<'_>],
        scope: Vec<String>,
        profile: &Profile,
        wants: &Wants,
    ) -> Result<Grant, Stop> {
        let nothing = || Stop::Deny(DenialReason::Conditions);
        let first = fits.first().ok_or_else(nothing)?;
        let target = self.targets.find(&first.grant.target).ok_or_else(nothing)?;
        let role = self.role(first).ok_or_else(nothing)?;
        let rules: BTreeSet<RuleId> = fits.iter().map(|fit| fit.rule.id.clone()).collect();
        let subjects: BTreeSet<Option<&str>> =
            fits.iter().map(|fit| fit.grant.subject.as_deref()).collect();
        if subjects.len() > 1 {
            let rules: Vec<String> = rules.iter().map(ToString::to_string).collect();
            return Err(Stop::Deny(DenialReason::Conflict(rules.join("`, `"))));
        }
        let by_rules = fits.iter().map(|fit| fit.grant.lifetime).min().unwrap_or_default();
        let lifetime = lifetime(target.expiry, by_rules, wants.lifetime)?;
        Ok(Grant {
            target: target.name.clone(),
            role: first.grant.role.clone(),
            rules: rules.into_iter().collect(),
            lifetime,
            bounded_by_subject: fits.iter().any(|fit| fit.rule.bounded_by_subject),
            replay: fits.iter().map(|fit| fit.rule.replay).max().unwrap_or(Replay::Once),
            subject: first.grant.subject.clone(),
            scope,
            policy_digest: self.digest,
            claims: mapped(role, &profile.claims),
        })
    }

    fn shadows(
        &self,
        fitting: &[&Rule],
        profile: &Profile,
        wants: &Wants,
        now: Instant,
    ) -> Vec<RuleId> {
        let shadow = fitting.iter().copied().filter(|rule| rule.shadow);
        let left =
            self.narrow(shadow, profile, wants, now).map_or_else(|_| Vec::new(), |(fits, _)| fits);
        let ids: BTreeSet<RuleId> = left.iter().map(|fit| fit.rule.id.clone()).collect();
        ids.into_iter().collect()
    }

    fn denial(&self, reason: DenialReason, profile: &Profile, shadow: Vec<RuleId>) -> Denial {
        let tenant = self.index.of_tenant(profile);
        let known_tenant = !tenant.is_empty();
        let conditions = reason == DenialReason::Conditions;
        let reason = if conditions && !known_tenant { DenialReason::NoRule } else { reason };
        let rules = tenant.into_iter().take(NEAREST_AMONG).filter_map(|at| self.rules.get(at));
        let nearest = conditions.then(|| nearest(rules, &profile.claims)).flatten();
        Denial { reason, known_tenant, nearest, shadow, policy_digest: self.digest }
    }

    fn role(&self, fit: &Fit<'_>) -> Option<&Role> {
        self.targets.find(&fit.grant.target)?.roles.get(&fit.grant.role)
    }
}

/// Why there is no grant.
#[derive(Debug)]
pub(in crate::policy) enum Stop {
    /// The request leaves more than one.
    Ambiguous(Vec<(TargetName, RoleName)>),
    /// There is none.
    Deny(DenialReason),
}

/// The one (target, role) that is left, or all that are: never a choice of ours.
fn choose<'a>(fits: &[Fit<'a>]) -> Result<Vec<Fit<'a>>, Vec<(TargetName, RoleName)>> {
    let choices: BTreeSet<(TargetName, RoleName)> =
        fits.iter().map(|fit| (fit.grant.target.clone(), fit.grant.role.clone())).collect();
    if choices.len() > 1 { Err(choices.into_iter().collect()) } else { Ok(fits.to_vec()) }
}

/// INVARIANT(never-outlive): the shortest of what is asked, what the rules allow and what the target honours.
/// INVARIANT(honest-expiry): what the target can't keep is refused, not rounded.
fn lifetime(expiry: Expiry, rules: Duration, asked: Option<Duration>) -> Result<Duration, Stop> {
    let second = Duration::from_secs(1);
    let (floor, ceiling) = match expiry {
        Expiry::Exact { floor, ceiling } => (floor.max(second), ceiling),
        Expiry::Fixed(fixed) => (fixed, fixed),
        Expiry::ByBroker { ceiling } => (second, ceiling),
    };
    let shortest = asked.unwrap_or(Duration::MAX).min(rules).min(ceiling);
    if shortest < floor {
        return Err(Stop::Deny(DenialReason::Lifetime { asked: shortest, floor }));
    }
    Ok(shortest)
}

/// What the role's mapped claims resolve to. A claim that the subject lacks is left out.
fn mapped(role: &Role, claims: &Claims) -> std::collections::BTreeMap<String, serde_json::Value> {
    role.claims
        .iter()
        .filter(|(to, _)| !is_reserved(to))
        .filter_map(|(to, from)| {
            Some((to.clone(), walk(claims, &super::claim::path_of(from)?)?.clone()))
        })
        .filter(|(_, value)| !value.is_null())
        .collect()
}

/// The rule that the fewest conditions stand against; of equals the first by id.
pub(in crate::policy) fn nearest<'a>(
    rules: impl Iterator<Item = &'a Rule>,
    claims: &Claims,
) -> Option<NearMiss> {
    let missed =
        |rule: &Rule| rule.conditions.iter().filter(|condition| !condition.holds(claims)).count();
    let (count, rule) = rules
        .filter(|rule| !rule.shadow)
        .map(|rule| (missed(rule), rule))
        .min_by(|left, right| (left.0, &left.1.id).cmp(&(right.0, &right.1.id)))?;
    let first = rule.conditions.iter().find(|condition| !condition.holds(claims))?;
    let all = rule.conditions.len();
    let held = all.saturating_sub(count);
    let (wanted, got) = (first.wanted(), first.got(claims));
    let missed = if count == 1 {
        format!("all held but `{}`: wanted {wanted}, got {got}", first.label)
    } else {
        format!("{held} of {all} held, first missed `{}`: wanted {wanted}, got {got}", first.label)
    };
    Some(NearMiss { rule: rule.id.clone(), held: (held, all), missed })
}
