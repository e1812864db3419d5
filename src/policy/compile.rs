//! Documents → [`PolicySet`]. Every problem of every file at once, each with its line; one problem and nothing loads.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::digest;

use super::{
    Condition, PolicySet, cases,
    claim::{self, Known},
    document::{self, At, Document, GrantText, GuardrailText, RuleText},
    index::Index,
    lint,
};
use crate::{
    clock::Instant,
    grant::{IssuerName, Replay, RoleName, RuleId, TargetName},
    subject::{Claims, Preset, provider},
    target::{Expiry, Target, Targets},
    yaml::{Place, Problem, nearest},
};

/// What policies may refer to: the part of the configuration that they are judged against.
#[derive(Clone, Debug)]
pub struct Context {
    /// All targets.
    pub targets: Arc<Targets>,
    /// The kind of each issuer, by its name in the configuration.
    pub issuers: BTreeMap<IssuerName, &'static Preset>,
    /// The environment of this broker: `prod`. Targets of another one can't be granted.
    pub environment: String,
}

/// A policy file as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name without directory: `deploy.yaml`.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// What the names of files from the directory of guardrails begin with: no `granted_by` can say it.
pub(in crate::policy) const GUARDRAILS: &str = "guardrails/";

/// A rule, ready to be judged.
#[derive(Debug)]
pub(in crate::policy) struct Rule {
    pub(in crate::policy) id: RuleId,
    pub(in crate::policy) file: String,
    pub(in crate::policy) place: Place,
    pub(in crate::policy) issuer: IssuerName,
    pub(in crate::policy) conditions: Vec<Condition>,
    pub(in crate::policy) grants: Vec<RuleGrant>,
    pub(in crate::policy) replay: Replay,
    pub(in crate::policy) shadow: bool,
    pub(in crate::policy) owner: Option<String>,
    pub(in crate::policy) bounded_by_subject: bool,
}

/// One line of a rule's grants.
#[derive(Debug)]
pub(in crate::policy) struct RuleGrant {
    pub(in crate::policy) target: TargetName,
    pub(in crate::policy) role: RoleName,
    pub(in crate::policy) lifetime: Duration,
    pub(in crate::policy) subject: Option<String>,
    /// Indices of the guardrails that stand over it: what `for` asks is known at load.
    pub(in crate::policy) guardrails: Vec<usize>,
}

/// A guardrail, ready to be judged.
#[derive(Debug)]
pub(in crate::policy) struct Guardrail {
    pub(in crate::policy) id: String,
    over: Vec<Condition>,
    /// The conditions as each issuer's claims are named and typed.
    pub(in crate::policy) when: BTreeMap<IssuerName, Vec<Condition>>,
    pub(in crate::policy) exceptions: Vec<Exception>,
}

/// A rule that a guardrail does not stand over, until its day.
#[derive(Debug)]
pub(in crate::policy) struct Exception {
    pub(in crate::policy) rule: RuleId,
    pub(in crate::policy) owner: String,
    pub(in crate::policy) expires: Instant,
}

impl Guardrail {
    /// The exception that holds for `rule` at `now`. An expired one does not: the guardrail applies.
    pub(in crate::policy) fn exception(&self, rule: &RuleId, now: Instant) -> Option<&Exception> {
        self.exceptions.iter().find(|exception| exception.rule == *rule && now < exception.expires)
    }

    /// Whether it lets `rule` permit `claims` of `issuer` at `now`. An issuer that it does not know is not let by.
    pub(in crate::policy) fn holds(
        &self,
        rule: &RuleId,
        issuer: &IssuerName,
        claims: &Claims,
        now: Instant,
    ) -> bool {
        let when = || self.when.get(issuer);
        self.exception(rule, now).is_some()
            || when().is_some_and(|when| when.iter().all(|condition| condition.holds(claims)))
    }
}

impl PolicySet {
    /// Compiles `sources`, in whatever order they come, against `context`. None at all deny everything, legally.
    ///
    /// # Errors
    /// Every problem of every file, in the order of files and lines. Else the set, and what is legal but unwise.
    pub fn compile(
        sources: &[Source],
        context: &Context,
    ) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        let mut sources = sources.to_vec();
        sources.sort_by(|left, right| left.name.cmp(&right.name));
        let mut compiler =
            Compiler { context, problems: Vec::new(), warnings: Vec::new(), unread: false };
        let documents = compiler.read(&sources);
        let mut rules = compiler.rules(&documents);
        let ids: BTreeSet<RuleId> = rules.iter().map(|rule| rule.id.clone()).collect();
        let guardrails = compiler.guardrails(&documents, &ids);
        compiler.stand_over(&mut rules, &guardrails);
        let cases = cases::compile(&documents, &ids, context, &mut compiler.problems);
        let Compiler { mut problems, mut warnings, .. } = compiler;
        problems.sort();
        problems.dedup();
        warnings.sort();
        if !problems.is_empty() {
            return Err(problems);
        }
        let index = Index::of(&rules, context);
        let targets = Arc::clone(&context.targets);
        let presets = context.issuers.clone();
        let digest = digest_of(&sources);
        let set = Self { rules, guardrails, index, targets, presets, cases, digest, sources };
        Ok((set, warnings))
    }
}

/// SHA-256 over (length of name, name, length of text, text) of each file, lengths as 64-bit big-endian.
fn digest_of(sources: &[Source]) -> [u8; 32] {
    let mut hash = digest::Context::new(&digest::SHA256);
    for part in sources.iter().flat_map(|source| [&source.name, &source.text]) {
        hash.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let mut digest = [0; 32];
    for (to, from) in digest.iter_mut().zip(hash.finish().as_ref()) {
        *to = *from;
    }
    digest
}

struct Compiler<'a> {
    context: &'a Context,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    /// Some file could not be read: what it might hold can't be called missing.
    unread: bool,
}

impl Compiler<'_> {
    fn read(&mut self, sources: &[Source]) -> Vec<Document> {
        let mut documents = Vec::new();
        let mut names = BTreeSet::new();
        for Source { name, text } in sources {
            let start = Place { line: 1, column: 1 };
            let own = name.strip_prefix(GUARDRAILS).unwrap_or(name);
            let stem = own.strip_suffix(".yaml").unwrap_or_default();
            if stem.is_empty() || !is_id(stem) {
                let message = format!(
                    "file name `{name}` is not letters, digits, `-`, `_`, `.` and then `.yaml`"
                );
                self.problems.push(Problem::at(name, start, message));
            }
            if !names.insert(name) {
                self.problems.push(Problem::at(name, start, "two files have this name"));
            }
            match document::read(name, text) {
                Ok(document) => documents.push(document),
                Err(problems) => {
                    self.unread = true;
                    self.problems.extend(problems);
                }
            }
        }
        documents
    }

    fn rules(&mut self, documents: &[Document]) -> Vec<Rule> {
        let mut rules = Vec::new();
        for document in documents {
            let mut seen: BTreeMap<&str, Place> = BTreeMap::new();
            for text in &document.rules {
                let At { value: id, place } = &text.id;
                if !is_id(id) {
                    let message = format!(
                        "rule id `{id}` has a `/`, expected letters, digits, `-`, `_` and `.`"
                    );
                    self.problem(document, *place, message, None);
                }
                if let Some(first) = seen.insert(id, *place) {
                    let message = format!(
                        "rule id `{id}` stands here a second time, first in line {}",
                        first.line
                    );
                    self.problem(document, *place, message, None);
                }
                rules.extend(self.rule(document, text));
            }
        }
        rules
    }

    fn rule(&mut self, document: &Document, text: &RuleText) -> Option<Rule> {
        let grants: Vec<RuleGrant> =
            text.grants.iter().filter_map(|grant| self.grant(document, grant)).collect();
        self.no_grant_twice(document, &text.grants);
        let issuer = IssuerName::from(text.issuer.value.as_str());
        let Some(preset) = self.context.issuers.get(&issuer) else {
            let names = self.context.issuers.keys().map(IssuerName::as_str);
            let hint = did_you_mean(&text.issuer.value, names, "issuers");
            let message = format!("issuer `{issuer}` is not one of the configuration");
            self.problem(document, text.issuer.place, message, Some(hint));
            return None;
        };
        let known = Known { issuer: &issuer, preset };
        let found = self.problems.len();
        let mut conditions = claim::compile(&document.file, &text.when, &known, &mut self.problems);
        if self.problems.len() > found {
            return None;
        }
        lint::rule(&document.file, text, &conditions, &known, &mut self.problems);
        lint::unwise(&document.file, text, &conditions, &known, &mut self.warnings);
        conditions.extend(lint::implied(&conditions, preset));
        let replay = match text.replay.as_deref() {
            Some("once") => Replay::Once,
            Some("reusable") => Replay::Reusable,
            _ => preset.replay,
        };
        let stem = document.file.strip_suffix(".yaml").unwrap_or(&document.file);
        Some(Rule {
            id: RuleId::from(format!("{stem}/{}", text.id.value)),
            file: document.file.clone(),
            place: text.id.place,
            issuer,
            conditions,
            grants,
            replay,
            shadow: text.shadow,
            owner: text.owner.clone(),
            bounded_by_subject: text.bounded_by_subject,
        })
    }

    fn grant(&mut self, document: &Document, text: &GrantText) -> Option<RuleGrant> {
        let name = TargetName::from(text.target.value.as_str());
        let context = self.context;
        let Some(target) = context.targets.find(&name) else {
            let names = context.targets.iter().map(|target| target.name.as_str());
            let hint = did_you_mean(name.as_str(), names, "targets");
            let message = format!("target `{name}` is not one of the configuration");
            self.problem(document, text.target.place, message, Some(hint));
            return None;
        };
        if !target.granted_by.contains(&document.file) {
            let file = &document.file;
            let message = format!("target `{name}` may not be granted by `{file}`");
            let hint = format!(
                "whoever runs the broker can list `{file}` under `granted_by` of the target"
            );
            self.problem(document, text.target.place, message, Some(hint));
        }
        if target.environment != context.environment {
            let message = format!(
                "target `{name}` belongs to environment `{}`, this broker to `{}`",
                target.environment, context.environment
            );
            self.problem(document, text.target.place, message, None);
        }
        let role = RoleName::from(text.role.value.as_str());
        if let Some(declared) = target.roles.get(&role) {
            if let Some(claim) = declared.claims.keys().find(|claim| is_reserved(claim)) {
                let message = format!(
                    "role `{role}` of `{name}` maps claim `{claim}`, which only the broker may set"
                );
                self.problem(document, text.role.place, message, None);
            }
        } else {
            let names = target.roles.keys().map(RoleName::as_str);
            let hint = did_you_mean(role.as_str(), names, "roles");
            self.problem(
                document,
                text.role.place,
                format!("role `{role}` is not one of target `{name}`"),
                Some(hint),
            );
        }
        self.lifetime(document, &text.lifetime, target);
        if let Some(subject) = &text.subject
            && let Some(reason) = lint::literal(&subject.value)
        {
            let message = format!("`subject` {reason}");
            self.problem(document, subject.place, message, None);
        }
        if let Some(subject) = &text.subject
            && let Some((issuer, _)) = subject.value.split_once(':')
            && context.issuers.contains_key(&IssuerName::from(issuer))
        {
            // Two files may grant one target: neither can make its workloads pass there for those of the other.
            let message = format!(
                "`subject` is `{}`, which reads as a workload of issuer `{issuer}`",
                subject.value
            );
            let hint = "leave it out, and it is the workload's own; or begin it otherwise";
            self.problem(document, subject.place, message, Some(hint.to_owned()));
        }
        let subject = text.subject.as_ref().map(|subject| subject.value.clone());
        let lifetime = text.lifetime.value;
        Some(RuleGrant { target: name, role, lifetime, subject, guardrails: Vec::new() })
    }

    /// INVARIANT(honest-expiry): a lifetime that the target can't keep is an error of the policy, not a surprise.
    fn lifetime(&mut self, document: &Document, lifetime: &At<Duration>, target: &Target) {
        let asked = lifetime.value;
        let expected = match target.expiry {
            Expiry::Exact { floor, ceiling } if asked < floor || asked > ceiling => {
                format!("between {} s and {} s", floor.as_secs(), ceiling.as_secs())
            }
            Expiry::ByBroker { ceiling } if asked > ceiling => {
                format!("at most {} s", ceiling.as_secs())
            }
            Expiry::Fixed(fixed) if asked != fixed => {
                format!("exactly {} s, which no one can change", fixed.as_secs())
            }
            Expiry::Exact { .. } | Expiry::ByBroker { .. } | Expiry::Fixed(_) => return,
        };
        let message = format!(
            "lifetime is {} s, expected what target `{}` can keep: {expected}",
            asked.as_secs(),
            target.name
        );
        self.problem(document, lifetime.place, message, None);
    }

    fn no_grant_twice(&mut self, document: &Document, grants: &[GrantText]) {
        let mut seen = BTreeSet::new();
        for grant in grants {
            let (target, role) = (&grant.target.value, &grant.role.value);
            if !seen.insert((target, role)) {
                let message = format!("rule grants role `{role}` of `{target}` twice");
                self.problem(document, grant.target.place, message, None);
            }
        }
    }

    fn guardrails(&mut self, documents: &[Document], ids: &BTreeSet<RuleId>) -> Vec<Guardrail> {
        let mut guardrails = Vec::new();
        let mut seen = BTreeSet::new();
        for document in documents {
            for text in &document.guardrails {
                if !seen.insert(&text.id.value) {
                    let message = format!("guardrail id `{}` is taken", text.id.value);
                    self.problem(document, text.id.place, message, None);
                }
                guardrails.push(self.guardrail(document, text, ids));
            }
        }
        guardrails
    }

    fn guardrail(
        &mut self,
        document: &Document,
        text: &GuardrailText,
        ids: &BTreeSet<RuleId>,
    ) -> Guardrail {
        let file = &document.file;
        let over = claim::compile_facts(file, &text.over, &mut self.problems);
        self.only_known(document, &text.over, &over);
        let mut when = BTreeMap::new();
        for (issuer, preset) in &self.context.issuers {
            let known = Known { issuer, preset };
            when.insert(issuer.clone(), claim::compile_leniently(file, &text.when, &known));
        }
        claim::known_to_some(file, &text.when, &self.context.issuers, &mut self.problems);
        let mut exceptions = Vec::new();
        for exception in &text.exceptions {
            let rule = RuleId::from(exception.rule.value.as_str());
            if !self.unread && !ids.contains(&rule) {
                let hint = did_you_mean(rule.as_str(), ids.iter().map(RuleId::as_str), "rules");
                let message = format!("rule `{rule}` is not one of the loaded files");
                self.problem(document, exception.rule.place, message, Some(hint));
            }
            let (owner, expires) = (exception.owner.clone(), exception.expires);
            exceptions.push(Exception { rule, owner, expires });
        }
        Guardrail { id: text.id.value.clone(), over, when, exceptions }
    }

    /// INVARIANT(closed-by-absence): a guardrail whose `for` names what is not there would stand over nothing, in silence. The
    /// environment is left out: one folder of guardrails may serve the brokers of several.
    fn only_known(&mut self, document: &Document, lines: &document::Lines, over: &[Condition]) {
        let context = self.context;
        for condition in over {
            let known: BTreeSet<&str> = match condition.label.as_str() {
                "target" => context.targets.iter().map(|target| target.name.as_str()).collect(),
                "role" => {
                    let roles = context.targets.iter().flat_map(|target| target.roles.keys());
                    roles.map(RoleName::as_str).collect()
                }
                "kind" => context.targets.iter().map(|target| target.kind.as_str()).collect(),
                "issuer" => context.issuers.keys().map(IssuerName::as_str).collect(),
                "provider" => provider::ALL.iter().map(|preset| preset.name).collect(),
                _ => continue,
            };
            let line = lines.iter().find(|(fact, _)| fact.value == condition.label);
            let place = line.map_or(Place::default(), |(_, node)| node.place);
            for name in condition.test.wanted_texts().filter(|name| !known.contains(name)) {
                let label = &condition.label;
                let message = format!("{label} `{name}` is not one of the configuration");
                let hint = did_you_mean(name, known.iter().copied(), &format!("{label}s"));
                self.problem(document, place, message, Some(hint));
            }
        }
    }

    /// Notes for each grant which guardrails stand over it, and tells where a rule can never get past one.
    fn stand_over(&mut self, rules: &mut [Rule], guardrails: &[Guardrail]) {
        for rule in &mut *rules {
            for grant in &mut rule.grants {
                let facts = self.facts(&rule.issuer, grant);
                for (index, guardrail) in guardrails.iter().enumerate() {
                    if !guardrail.over.iter().all(|condition| condition.holds(&facts)) {
                        continue;
                    }
                    grant.guardrails.push(index);
                    let when = guardrail.when.get(&rule.issuer).map_or(&[][..], Vec::as_slice);
                    if let Some(against) = lint::contradiction(&rule.conditions, when) {
                        let message = format!(
                            "rule `{}` can never grant `{}`: guardrail `{}` wants `{}` to be {}",
                            rule.id,
                            grant.target,
                            guardrail.id,
                            against.label,
                            against.wanted()
                        );
                        self.warnings.push(Problem::at(&rule.file, rule.place, message));
                    }
                }
            }
        }
    }

    /// What a guardrail's `for` is asked of.
    fn facts(&self, issuer: &IssuerName, grant: &RuleGrant) -> Claims {
        let target = self.context.targets.find(&grant.target);
        let preset = self.context.issuers.get(issuer);
        let facts = [
            ("target", grant.target.as_str()),
            ("role", grant.role.as_str()),
            ("kind", target.map_or("", |target| &target.kind)),
            ("environment", target.map_or("", |target| &target.environment)),
            ("issuer", issuer.as_str()),
            ("provider", preset.map_or("", |preset| preset.name)),
        ];
        facts.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
    }

    fn problem(
        &mut self,
        document: &Document,
        place: Place,
        message: String,
        hint: Option<String>,
    ) {
        let mut problem = Problem::at(&document.file, place, message);
        problem.hint = hint;
        self.problems.push(problem);
    }
}

/// Claims that mapped claims of a role can never set: the registered ones, and what clouds read as tags.
pub(in crate::policy) fn is_reserved(claim: &str) -> bool {
    const RESERVED: [&str; 13] = [
        "iss",
        "sub",
        "aud",
        "exp",
        "nbf",
        "iat",
        "jti",
        "client_id",
        "act",
        "may_act",
        "scope",
        "cnf",
        "azp",
    ];
    RESERVED.contains(&claim) || claim.starts_with("https://aws.amazon.com/")
}

fn is_id(text: &str) -> bool {
    !text.contains('/')
        && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// The way out of a name that does not exist: the one that was meant, or the few that there are.
pub(in crate::policy) fn did_you_mean<'a>(
    word: &str,
    names: impl Iterator<Item = &'a str>,
    what: &str,
) -> String {
    let names: Vec<&str> = names.collect();
    if let Some(name) = nearest(word, names.iter().copied()) {
        return format!("did you mean `{name}`?");
    }
    let known: Vec<String> = names.iter().take(8).map(|name| format!("`{name}`")).collect();
    if known.is_empty() {
        return format!("there are no {what} yet");
    }
    format!("{what} are {}", known.join(", "))
}
