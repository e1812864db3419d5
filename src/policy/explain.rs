//! The whole decision tree: each rule, each condition, what was wanted and what was there. For owners, never for callers.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;
use serde_json::Value;

use super::{
    Condition, Decision, PolicySet, Wants,
    compile::{Guardrail, Rule},
};
use crate::{
    clock::Instant,
    grant::{Replay, RoleName, RuleId, TargetName},
    subject::{Claims, Profile},
};

/// How many rules an explanation tells of, nearest first.
const MOST_RULES: usize = 20;

/// What a policy set says to a workload, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// `<issuer name>:<stable id>`.
    pub subject: String,
    /// Hexadecimal SHA-256 of the policy set.
    pub policy: String,
    /// How it ends.
    pub outcome: Outcome,
    /// Rules of the workload's tenant (of its issuer, where there are none), nearest first.
    pub rules: Vec<RuleJudgement>,
    /// How many more rules there are.
    pub further_rules: usize,
}

/// How a decision ends, without a grant: from this nothing can be minted.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "decision", rename_all = "lowercase")]
pub enum Outcome {
    /// Exactly one (target, role).
    Permit {
        /// Where the credential would be good for.
        target: TargetName,
        /// As what.
        role: RoleName,
        /// Every rule that permits it.
        rules: Vec<RuleId>,
        /// How long.
        lifetime_seconds: u64,
        /// Whether it also ends with the subject token.
        bounded_by_subject: bool,
        /// Whether the token can buy it again.
        replay: Replay,
        /// The `sub` that the rules fix.
        #[serde(skip_serializing_if = "Option::is_none")]
        subject: Option<String>,
        /// Scopes beside the role.
        scope: Vec<String>,
        /// Mapped claims.
        claims: BTreeMap<String, Value>,
        /// Rules in shadow mode that also fit.
        shadow: Vec<RuleId>,
    },
    /// Several, and the request does not choose.
    Ambiguous {
        /// Between which.
        choices: Vec<(TargetName, RoleName)>,
    },
    /// None.
    Deny {
        /// Why, as the ledger has it.
        reason: String,
        /// Rules in shadow mode that would have permitted it.
        shadow: Vec<RuleId>,
    },
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleJudgement {
    /// Which.
    pub rule: RuleId,
    /// Where it stands: `deploy.yaml:4`.
    pub place: String,
    /// Who answers for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// `enforce` or `shadow`.
    pub mode: &'static str,
    /// Whether all its conditions hold.
    pub fits: bool,
    /// Whether no other rule came nearer.
    pub nearest: bool,
    /// Its conditions in the order of the file, then the defaults.
    pub conditions: Vec<ConditionJudgement>,
    /// What it would grant, and what stands over that.
    pub grants: Vec<GrantJudgement>,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConditionJudgement {
    /// The claim.
    pub claim: String,
    /// Whether it holds.
    pub held: bool,
    /// What was wanted.
    pub wanted: String,
    /// What the token has.
    pub got: String,
}

/// One grant of a rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GrantJudgement {
    /// Where.
    pub target: TargetName,
    /// As what.
    pub role: RoleName,
    /// The rule's lifetime.
    pub lifetime_seconds: u64,
    /// The guardrails over it.
    pub guardrails: Vec<GuardrailJudgement>,
}

/// One guardrail.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GuardrailJudgement {
    /// Which.
    pub guardrail: String,
    /// Whether it lets the grant by.
    pub held: bool,
    /// The exception that does: who answers for it, and until when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exception: Option<String>,
    /// Its conditions.
    pub conditions: Vec<ConditionJudgement>,
}

impl PolicySet {
    /// Says what [`PolicySet::decide`] would, of a workload that may be recorded or invented, and why.
    #[must_use]
    pub fn explain(&self, profile: &Profile, wants: &Wants, now: Instant) -> Explanation {
        let outcome = Outcome::of(&self.select(profile, wants, now));
        let mut tenant: Vec<&Rule> =
            self.index.of_tenant(profile).into_iter().filter_map(|at| self.rules.get(at)).collect();
        if tenant.is_empty() {
            tenant = self.rules.iter().filter(|rule| rule.issuer == profile.issuer).collect();
        }
        let missed =
            |rule: &Rule| rule.conditions.iter().filter(|one| !one.holds(&profile.claims)).count();
        tenant.sort_by_cached_key(|rule| (missed(rule), rule.id.clone()));
        let least = tenant.first().map(|rule| missed(rule));
        let rules = tenant
            .iter()
            .take(MOST_RULES)
            .map(|rule| self.judge(rule, profile, now, least == Some(missed(rule))))
            .collect();
        Explanation {
            subject: profile.our_subject(),
            policy: hex(&self.digest),
            outcome,
            rules,
            further_rules: tenant.len().saturating_sub(MOST_RULES),
        }
    }

    fn judge(&self, rule: &Rule, profile: &Profile, now: Instant, nearest: bool) -> RuleJudgement {
        let conditions = judge_all(&rule.conditions, &profile.claims);
        let fits = conditions.iter().all(|condition| condition.held);
        let guardrails = |indices: &[usize]| {
            indices
                .iter()
                .filter_map(|index| self.guardrails.get(*index))
                .map(|guardrail| judge_guardrail(guardrail, rule, profile, now))
                .collect()
        };
        let grants = rule
            .grants
            .iter()
            .map(|grant| GrantJudgement {
                target: grant.target.clone(),
                role: grant.role.clone(),
                lifetime_seconds: grant.lifetime.as_secs(),
                guardrails: guardrails(&grant.guardrails),
            })
            .collect();
        RuleJudgement {
            rule: rule.id.clone(),
            place: format!("{}:{}", rule.file, rule.place.line),
            owner: rule.owner.clone(),
            mode: if rule.shadow { "shadow" } else { "enforce" },
            fits,
            nearest,
            conditions,
            grants,
        }
    }
}

fn judge_all(conditions: &[Condition], claims: &Claims) -> Vec<ConditionJudgement> {
    let judge = |condition: &Condition| ConditionJudgement {
        claim: condition.label.clone(),
        held: condition.holds(claims),
        wanted: condition.wanted(),
        got: condition.got(claims),
    };
    conditions.iter().map(judge).collect()
}

fn judge_guardrail(
    guardrail: &Guardrail,
    rule: &Rule,
    profile: &Profile,
    now: Instant,
) -> GuardrailJudgement {
    let when = guardrail.when.get(&profile.issuer).map_or(&[][..], Vec::as_slice);
    let exception = guardrail
        .exception(&rule.id, now)
        .map(|found| format!("excepted until {} by `{}`", found.expires, found.owner));
    GuardrailJudgement {
        guardrail: guardrail.id.clone(),
        held: guardrail.holds(&rule.id, &profile.issuer, &profile.claims, now),
        exception,
        conditions: judge_all(when, &profile.claims),
    }
}

impl Outcome {
    /// The outcome of a decision, for people: no grant is in it.
    #[must_use]
    pub fn of(decision: &Decision) -> Self {
        match decision {
            Decision::Permit(permit) => Self::Permit {
                target: permit.grant.target.clone(),
                role: permit.grant.role.clone(),
                rules: permit.grant.rules.clone(),
                lifetime_seconds: permit.grant.lifetime.as_secs(),
                bounded_by_subject: permit.grant.bounded_by_subject,
                replay: permit.grant.replay,
                subject: permit.grant.subject.clone(),
                scope: permit.grant.scope.clone(),
                claims: permit.grant.claims.clone(),
                shadow: permit.shadow.clone(),
            },
            Decision::Ambiguous(choices) => Self::Ambiguous { choices: choices.clone() },
            Decision::Deny(denial) => {
                Self::Deny { reason: denial.to_string(), shadow: denial.shadow.clone() }
            }
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shadow = match self {
            Self::Permit {
                target, role, rules, lifetime_seconds, replay, subject, shadow, ..
            } => {
                let again = if *replay == Replay::Once { "once" } else { "reusable" };
                write!(
                    f,
                    "permit: `{target}` as `{role}` for {lifetime_seconds} s, {again}, by {}",
                    list(rules)
                )?;
                if let Some(subject) = subject {
                    write!(f, ", as subject `{subject}`")?;
                }
                shadow
            }
            Self::Ambiguous { choices } => {
                let words: Vec<String> = choices
                    .iter()
                    .map(|(target, role)| format!("`{target}` as `{role}`"))
                    .collect();
                return write!(
                    f,
                    "ambiguous: {}; name one by `audience` and `scope`",
                    words.join(", ")
                );
            }
            Self::Deny { reason, shadow } => {
                write!(f, "deny: {reason}")?;
                shadow
            }
        };
        if shadow.is_empty() {
            return Ok(());
        }
        write!(f, "\n  in shadow mode it would also be permitted by {}", list(shadow))
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.outcome)?;
        writeln!(
            f,
            "  subject `{}`, policy {}",
            self.subject,
            self.policy.get(..12).unwrap_or_default()
        )?;
        for rule in &self.rules {
            write!(f, "{rule}")?;
        }
        if self.further_rules > 0 {
            writeln!(f, "and {} rules further off", self.further_rules)?;
        }
        Ok(())
    }
}

impl fmt::Display for RuleJudgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match (self.fits, self.nearest) {
            (true, _) => "fits",
            (false, true) => "nearest",
            (false, false) => "does not fit",
        };
        let mode = if self.mode == "shadow" { ", shadow" } else { "" };
        writeln!(f, "rule `{}` ({}{mode}): {how}", self.rule, self.place)?;
        for condition in &self.conditions {
            writeln!(f, "  {condition}")?;
        }
        for grant in &self.grants {
            writeln!(
                f,
                "  grants `{}` as `{}` for {} s",
                grant.target, grant.role, grant.lifetime_seconds
            )?;
            for guardrail in &grant.guardrails {
                let how = match (&guardrail.exception, guardrail.held) {
                    (Some(exception), _) => exception.clone(),
                    (None, true) => "lets it by".to_owned(),
                    (None, false) => "stands against it".to_owned(),
                };
                writeln!(f, "    guardrail `{}`: {how}", guardrail.guardrail)?;
                for condition in guardrail.conditions.iter().filter(|condition| !condition.held) {
                    writeln!(f, "      {condition}")?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for ConditionJudgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.held {
            return write!(f, "held    `{}`: is {}", self.claim, self.got);
        }
        write!(f, "missed  `{}`: wanted {}, got {}", self.claim, self.wanted, self.got)
    }
}

fn list(rules: &[RuleId]) -> String {
    rules.iter().map(|rule| format!("`{rule}`")).collect::<Vec<_>>().join(", ")
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).flatten().collect()
}
