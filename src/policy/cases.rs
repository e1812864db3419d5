//! Cases: tokens, and what must come of them. A policy whose own cases fail does not load.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde_json::{Number, Value as Json};

use super::{
    Decision, Outcome, PolicySet, Wants,
    compile::{Context, did_you_mean},
    document::{At, CaseText, Document},
    select::Stop,
};
use crate::{
    clock::Instant,
    grant::{IssuerName, RuleId},
    subject::{Claims, Profile},
    yaml::{Node, Place, Problem, Value},
};

/// A case, ready to be run.
#[derive(Debug)]
pub(in crate::policy) struct Case {
    file: String,
    place: Place,
    issuer: IssuerName,
    permit: Option<RuleId>,
    claims: CaseClaims,
    wants: Wants,
    now: Option<Instant>,
}

#[derive(Debug)]
enum CaseClaims {
    Inline(Claims),
    File(String),
}

/// How one case ended.
#[derive(Clone, Debug, PartialEq)]
pub struct CaseResult {
    /// Where it stands.
    pub file: String,
    /// In which line.
    pub place: Place,
    /// The case in words: `permit deploy-production: github/push-main.json`.
    pub case: String,
    /// What came of it, or why it could not be run.
    pub outcome: Result<Outcome, String>,
    /// Whether that is what the case says.
    pub passed: bool,
}

impl fmt::Display for CaseResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.passed { "pass" } else { "FAIL" };
        write!(f, "{verdict}  {}:{}  {}", self.file, self.place.line, self.case)?;
        match (&self.outcome, self.passed) {
            (_, true) => Ok(()),
            (Ok(outcome), false) => write!(f, "\n      {outcome}"),
            (Err(reason), false) => write!(f, "\n      {reason}"),
        }
    }
}

impl PolicySet {
    /// Files of claims that the cases name, relative to the folder `tokens`.
    #[must_use]
    pub fn case_tokens(&self) -> BTreeSet<&str> {
        let mut tokens = BTreeSet::new();
        for case in &self.cases {
            if let CaseClaims::File(name) = &case.claims {
                tokens.insert(name.as_str());
            }
        }
        tokens
    }

    /// Runs every case with the claims of `tokens`, at `now` where a case says no other day.
    #[must_use]
    pub fn run_cases(&self, tokens: &BTreeMap<String, Claims>, now: Instant) -> Vec<CaseResult> {
        self.cases.iter().map(|case| self.run(case, tokens, now)).collect()
    }

    fn run(&self, case: &Case, tokens: &BTreeMap<String, Claims>, now: Instant) -> CaseResult {
        let profile = self.profile_of(case, tokens);
        let now = case.now.unwrap_or(now);
        let (outcome, passed) = match profile {
            Err(reason) => (Err(reason), false),
            Ok(profile) => {
                let decision = self.select(&profile, &case.wants, now);
                let passed = match &case.permit {
                    Some(rule) => self.permits(rule, &profile, &case.wants, now),
                    None => matches!(decision, Decision::Deny(_)),
                };
                (Ok(Outcome::of(&decision)), passed)
            }
        };
        let (file, place) = (case.file.clone(), case.place);
        CaseResult { file, place, case: case.to_string(), outcome, passed }
    }

    /// Whether `rule`, in shadow mode or not, is one of those that permit what is left of the request. A case that wants
    /// nothing in particular is not asked to choose between the rule's own grants.
    fn permits(&self, rule: &RuleId, profile: &Profile, wants: &Wants, now: Instant) -> bool {
        let found = self.rules.iter().filter(|known| {
            known.id == *rule
                && known.issuer == profile.issuer
                && known.conditions.iter().all(|condition| condition.holds(&profile.claims))
        });
        let stands: Result<_, Stop> = self.narrow(found, profile, wants, now);
        let particular =
            !wants.targets.is_empty() || !wants.scope.is_empty() || wants.lifetime.is_some();
        match (stands, self.select(profile, wants, now)) {
            (Err(_), _) => false,
            (Ok(_), Decision::Permit(permit)) => {
                permit.grant.rules.contains(rule) || permit.shadow.contains(rule)
            }
            (Ok(_), Decision::Ambiguous(_)) => !particular,
            (Ok(_), Decision::Deny(denial)) => denial.shadow.contains(rule),
        }
    }

    fn profile_of(
        &self,
        case: &Case,
        tokens: &BTreeMap<String, Claims>,
    ) -> Result<Profile, String> {
        let claims = match &case.claims {
            CaseClaims::Inline(claims) => claims,
            CaseClaims::File(name) => {
                tokens.get(name).ok_or_else(|| format!("`tokens/{name}` is not there"))?
            }
        };
        let preset = self.presets.get(&case.issuer).ok_or("the issuer is not configured")?;
        Profile::of(case.issuer.clone(), preset, claims.clone())
            .map_err(|error| format!("no such token can come: {error}"))
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.permit {
            Some(rule) => write!(f, "permit {rule}")?,
            None => write!(f, "deny")?,
        }
        match &self.claims {
            CaseClaims::Inline(_) => write!(f, ": claims as written"),
            CaseClaims::File(name) => write!(f, ": {name}"),
        }
    }
}

/// The cases of all files; what is wrong with them goes to `problems`.
pub(in crate::policy) fn compile(
    documents: &[Document],
    ids: &BTreeSet<RuleId>,
    context: &Context,
    problems: &mut Vec<Problem>,
) -> Vec<Case> {
    let mut cases = Vec::new();
    for document in documents {
        for text in &document.cases {
            match case(document, text, ids, context) {
                Ok(case) => cases.push(case),
                Err(problem) => problems.push(problem),
            }
        }
    }
    cases
}

fn case(
    document: &Document,
    text: &CaseText,
    ids: &BTreeSet<RuleId>,
    context: &Context,
) -> Result<Case, Problem> {
    let problem = |place, message: &str| Problem::at(&document.file, place, message);
    let stem = document.file.strip_suffix(".yaml").unwrap_or(&document.file);
    let permit = match (&text.permit, text.deny) {
        (Some(rule), false) => {
            let id = RuleId::from(format!("{stem}/{}", rule.value));
            // A rule that did not compile has problems of its own: only a name that nobody wrote is one here.
            let written = document.rules.iter().any(|known| known.id.value == rule.value);
            if !written && !ids.contains(&id) {
                let names = document.rules.iter().map(|rule| rule.id.value.as_str());
                let message = format!("rule `{}` is not one of this file", rule.value);
                let hint = did_you_mean(&rule.value, names, "rules");
                return Err(problem(rule.place, &message).hint(hint));
            }
            Some(id)
        }
        (None, true) => None,
        _ => return Err(problem(text.place, "a case says either `permit` or `deny`")),
    };
    let claims = match (&text.token, &text.claims) {
        (Some(token), None) if is_inside(&token.value) => CaseClaims::File(token.value.clone()),
        (Some(token), None) => {
            return Err(problem(
                token.place,
                "token is not a `.json` file inside the folder `tokens`",
            ));
        }
        (None, Some(node)) => CaseClaims::Inline(members(node).map_err(|place| {
            problem(place, "claims have no fractions, and their numbers fit in 64 bits")
        })?),
        _ => return Err(problem(text.place, "a case has either `token` or `claims`")),
    };
    let issuer = issuer(document, text, context).map_err(|place| {
        let known = context.issuers.keys().map(IssuerName::as_str);
        problem(place, "whose token it is can't be told")
            .hint(did_you_mean("issuer", known, "issuers"))
    })?;
    let wants = Wants {
        targets: text.target.iter().cloned().collect(),
        scope: text.scope.clone(),
        lifetime: text.lifetime,
    };
    let file = document.file.clone();
    Ok(Case { file, place: text.place, issuer, permit, claims, wants, now: text.now })
}

/// The issuer that the case names, or else the rule's, the token folder's, the only one of the file.
fn issuer(document: &Document, text: &CaseText, context: &Context) -> Result<IssuerName, Place> {
    let configured = |name: &str| {
        let name = IssuerName::from(name);
        context.issuers.contains_key(&name).then_some(name)
    };
    if let Some(At { value, place }) = &text.issuer {
        return configured(value).ok_or(*place);
    }
    let of_rule = |id: &At<String>| document.rules.iter().find(|rule| rule.id.value == id.value);
    if let Some(rule) = text.permit.as_ref().and_then(of_rule) {
        return configured(&rule.issuer.value).ok_or(text.place);
    }
    let folder = text.token.as_ref().and_then(|token| token.value.split_once('/'));
    if let Some(issuer) = folder.and_then(|(folder, _)| configured(folder)) {
        return Ok(issuer);
    }
    let all: BTreeSet<&str> =
        document.rules.iter().map(|rule| rule.issuer.value.as_str()).collect();
    match all.first() {
        Some(only) if all.len() == 1 => configured(only).ok_or(text.place),
        _ => Err(text.place),
    }
}

/// Whether a name stays inside the folder that it is relative to.
fn is_inside(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    name.strip_suffix(".json").is_some()
        && name
            .split('/')
            .all(|part| !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain))
}

fn members(node: &Node) -> Result<Claims, Place> {
    node.entries().iter().map(|(key, _, node)| Ok((key.clone(), json(node)?))).collect()
}

/// A YAML value as JSON; the place of one that is no claim's value. The depth is bounded by the reader.
fn json(node: &Node) -> Result<Json, Place> {
    Ok(match &node.value {
        Value::Null => Json::Null,
        Value::Boolean(boolean) => Json::Bool(*boolean),
        Value::Integer(integer, _) => Json::Number(Number::from_i128(*integer).ok_or(node.place)?),
        Value::Float(_) => return Err(node.place),
        Value::Text(text) => Json::String(text.clone()),
        Value::List(list) => Json::Array(list.iter().map(json).collect::<Result<_, _>>()?),
        Value::Map(_) => Json::Object(members(node)?),
    })
}
