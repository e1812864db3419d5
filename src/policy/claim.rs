//! Lines of a `when` → conditions, as one issuer's claims are named and typed.

use std::collections::BTreeMap;

use super::{
    condition::{Condition, Item, Test},
    document::{At, Lines, OPERATORS},
    lint,
    pattern::Pattern,
};
use crate::{
    grant::IssuerName,
    subject::{
        Preset,
        provider::{ClaimSpec, ClaimType, Stability},
    },
    yaml::{Node, Place, Problem, Value, nearest},
};

/// What verification has settled before policy is asked: it says nothing about who the workload is.
const SETTLED: [&str; 6] = ["iss", "aud", "exp", "nbf", "iat", "jti"];

/// What a guardrail's `for` may ask about.
const FACTS: [&str; 6] = ["target", "role", "kind", "environment", "issuer", "provider"];

/// What the facts of a grant are.
static FACT: ClaimSpec = ClaimSpec {
    name: "fact",
    kind: ClaimType::Text,
    stability: Stability::Platform,
    meaning: "a fact of the grant, as the configuration says it",
};

/// An issuer and the kind it is of.
pub(in crate::policy) struct Known<'a> {
    pub(in crate::policy) issuer: &'a IssuerName,
    pub(in crate::policy) preset: &'static Preset,
}

/// The conditions of `lines`; what is wrong with them goes to `problems`.
pub(in crate::policy) fn compile(
    file: &str,
    lines: &Lines,
    known: &Known<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<Condition> {
    let mut reader = Reader { file, preset: Some(known.preset), problems, conditions: Vec::new() };
    for (claim, node) in lines {
        reader.line(claim, node, known);
    }
    let conditions = reader.conditions;
    for (index, condition) in conditions.iter().enumerate() {
        let twin = conditions.iter().take(index).find(|other| other.path == condition.path);
        if let Some(twin) = twin {
            let place = lines.first().map_or(Place::default(), |(claim, _)| claim.place);
            let message = format!("`{}` and `{}` name one claim", twin.label, condition.label);
            problems.push(Problem::at(file, place, message).hint("put both into one condition"));
        }
    }
    conditions
}

/// The same for a guardrail, which stands over every issuer: a claim that this one does not send is never there.
pub(in crate::policy) fn compile_leniently(
    file: &str,
    lines: &Lines,
    known: &Known<'_>,
) -> Vec<Condition> {
    let mut all = Vec::new();
    for line in lines {
        let mut problems = Vec::new();
        let one = compile(file, &vec![line.clone()], known, &mut problems);
        if problems.is_empty() {
            all.extend(one);
            continue;
        }
        // INVARIANT(closed-by-absence): a condition that means nothing to an issuer holds for none of its tokens.
        let (label, path) = (line.0.value.clone(), Vec::new());
        all.push(Condition {
            label,
            path,
            test: Test::OneOf(Vec::new()),
            folded: false,
            implied: false,
        });
    }
    all
}

/// A guardrail's line must be right for at least one issuer.
pub(in crate::policy) fn known_to_some(
    file: &str,
    lines: &Lines,
    issuers: &BTreeMap<IssuerName, &'static Preset>,
    problems: &mut Vec<Problem>,
) {
    for line in lines {
        let mut first = None;
        let fits = issuers.iter().any(|(issuer, preset)| {
            let mut found = Vec::new();
            compile(file, &vec![line.clone()], &Known { issuer, preset }, &mut found);
            let fits = found.is_empty();
            // The issuer that knows the claim, or nearly, says best what is wrong with the line.
            let meant = |problem: &Problem| {
                problem.hint.as_ref().is_some_and(|hint| hint.starts_with("did you mean"))
            };
            if first.is_none()
                || preset.claim(&line.0.value).is_some()
                || found.first().is_some_and(meant)
            {
                first = Some(found);
            }
            fits
        });
        if !fits {
            problems.extend(first.unwrap_or_default());
        }
    }
}

/// The conditions of a guardrail's `for`.
pub(in crate::policy) fn compile_facts(
    file: &str,
    lines: &Lines,
    problems: &mut Vec<Problem>,
) -> Vec<Condition> {
    let mut reader = Reader { file, preset: None, problems, conditions: Vec::new() };
    for (fact, node) in lines {
        if FACTS.contains(&fact.value.as_str()) {
            // All of these are texts: a number would make a guardrail that stands over nothing.
            reader.condition(&fact.value, vec![fact.value.clone()], Some(&FACT), node);
            continue;
        }
        let hint = match nearest(&fact.value, FACTS) {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("expected one of `{}`", FACTS.join("`, `")),
        };
        let message = format!("`{}` is nothing that a guardrail's `for` knows", fact.value);
        reader.problems.push(Problem::at(file, fact.place, message).hint(hint));
    }
    reader.conditions
}

struct Reader<'a> {
    file: &'a str,
    preset: Option<&'static Preset>,
    problems: &'a mut Vec<Problem>,
    conditions: Vec<Condition>,
}

impl Reader<'_> {
    fn problem(&mut self, place: Place, message: String, hint: Option<&str>) {
        let mut problem = Problem::at(self.file, place, message);
        problem.hint = hint.map(ToOwned::to_owned);
        self.problems.push(problem);
    }

    fn line(&mut self, claim: &At<String>, node: &Node, known: &Known<'_>) {
        let At { value: name, place } = claim;
        let Some(path) = path_of(name) else {
            let hint = "RFC 6901: `/` before each name, `~1` for `/` and `~0` for `~` in one";
            return self.problem(*place, format!("`{name}` is no JSON Pointer"), Some(hint));
        };
        let root = path.first().map_or("", String::as_str);
        if SETTLED.contains(&root) {
            let message = format!(
                "claim `{root}` is checked before any policy, and says nothing about the workload"
            );
            return self.problem(*place, message, Some("remove the line"));
        }
        let spec = if path.len() == 1 { known.preset.claim(root) } else { None };
        if spec.is_none() && !name.starts_with('/') {
            let message = format!("claim `{name}` is not one that `{}` sends", known.issuer);
            let hint = unknown(name, known.preset);
            return self.problem(*place, message, Some(&hint));
        }
        self.condition(name, path, spec, node);
    }

    fn condition(
        &mut self,
        label: &str,
        path: Vec<String>,
        spec: Option<&'static ClaimSpec>,
        node: &Node,
    ) {
        let operator = node.entries().first().filter(|(key, ..)| OPERATORS.contains(&key.as_str()));
        if let (Value::Map(members), None) = (&node.value, operator) {
            return self.members(label, &path, spec, node, members);
        }
        let (test, on_list): (fn(Vec<Item>) -> Test, bool) =
            match operator.map(|(key, ..)| key.as_str()) {
                Some("any") => (Test::Any, true),
                Some("all") => (Test::All, true),
                Some("none") => (Test::Without, true),
                Some("not") => (Test::NoneOf, false),
                _ => (Test::OneOf, false),
            };
        let inner = match operator {
            Some((key, _, inner)) if key != "glob" => inner,
            _ => node,
        };
        if !self.right_form(label, spec, on_list, node) {
            return;
        }
        let nodes = if matches!(inner.value, Value::List(_)) {
            inner.elements()
        } else {
            std::slice::from_ref(inner)
        };
        let items: Vec<Item> =
            nodes.iter().filter_map(|node| self.item(label, &path, spec, node)).collect();
        if items.len() < nodes.len() {
            return;
        }
        let root = path.first().map_or("", String::as_str);
        let folded = self.preset.is_some_and(|preset| {
            preset.folded.contains(&label) || (path.len() == 1 && preset.folded.contains(&root))
        });
        let test = test(items);
        self.conditions.push(Condition {
            label: label.to_owned(),
            path,
            test,
            folded,
            implied: false,
        });
    }

    fn members(
        &mut self,
        label: &str,
        path: &[String],
        spec: Option<&'static ClaimSpec>,
        node: &Node,
        members: &[(String, Place, Node)],
    ) {
        if spec.is_some_and(|spec| !matches!(spec.kind, ClaimType::Object | ClaimType::Any)) {
            let message = format!("claim `{label}` has no members");
            return self.problem(
                node.place,
                message,
                Some("write the value, a list of values, or `{ glob: … }`"),
            );
        }
        for (member, _, node) in members {
            let label = format!("{label}.{member}");
            let spec = self.preset.and_then(|preset| preset.claim(&label));
            let mut path = path.to_vec();
            path.push(member.clone());
            self.condition(&label, path, spec, node);
        }
    }

    /// Whether a condition on a list stands at a claim that is one, and a condition on a scalar at one that is not.
    fn right_form(
        &mut self,
        label: &str,
        spec: Option<&ClaimSpec>,
        on_list: bool,
        node: &Node,
    ) -> bool {
        let Some(spec) = spec else { return true };
        match (spec.kind, on_list) {
            (ClaimType::Any, _) | (ClaimType::TextList, true) => true,
            (ClaimType::TextList, false) => {
                let message = format!("claim `{label}` is a list, which no single value equals");
                self.problem(
                    node.place,
                    message,
                    Some("write `{ any: […] }`, `{ all: […] }` or `{ none: […] }`"),
                );
                false
            }
            (ClaimType::Object, _) => {
                let message =
                    format!("claim `{label}` is an object, expected conditions on its members");
                self.problem(node.place, message, Some("write `{ member: value }`"));
                false
            }
            (_, true) => {
                let message = format!("claim `{label}` is no list");
                self.problem(
                    node.place,
                    message,
                    Some("write the value, a list of values, or `{ not: … }`"),
                );
                false
            }
            (_, false) => true,
        }
    }

    fn item(
        &mut self,
        label: &str,
        path: &[String],
        spec: Option<&ClaimSpec>,
        node: &Node,
    ) -> Option<Item> {
        let item = match &node.value {
            Value::Integer(integer, _) => Item::Integer(*integer),
            Value::Boolean(boolean) => Item::Boolean(*boolean),
            Value::Text(text) => {
                if let Some(reason) = lint::literal(text) {
                    let hint = text.contains('*').then_some("a pattern is written `{ glob: … }`");
                    self.problem(node.place, format!("value of `{label}` {reason}"), hint);
                    return None;
                }
                Item::Text(text.clone())
            }
            Value::Map(_) => self.pattern(label, path, node)?,
            Value::Null | Value::Float(_) | Value::List(_) => return None,
        };
        let Some(spec) = spec else { return Some(item) };
        let expected = match (spec.kind, &item) {
            (ClaimType::Text | ClaimType::TextList, Item::Text(_) | Item::Glob(_))
            | (ClaimType::Integer, Item::Integer(_))
            | (ClaimType::Boolean, Item::Boolean(_))
            | (ClaimType::Any, _) => return Some(item),
            (ClaimType::NumericText, Item::Text(text))
                if text.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                return Some(item);
            }
            (ClaimType::BooleanText, Item::Text(text)) if text == "true" || text == "false" => {
                return Some(item);
            }
            (ClaimType::Text | ClaimType::TextList, _) => "a text",
            (ClaimType::NumericText, _) => "a text of digits",
            (ClaimType::BooleanText, _) => "the text `\"true\"` or `\"false\"`",
            (ClaimType::Integer, _) => "a number, without quotes",
            (ClaimType::Boolean, _) => "`true` or `false`, without quotes",
            (ClaimType::Object, _) => "conditions on its members",
        };
        let message = format!("value of `{label}` is {item}, expected {expected}");
        let hint = match (&node.value, spec.kind) {
            (Value::Integer(_, text), ClaimType::NumericText | ClaimType::Text) => {
                Some(format!("put it in quotes: \"{text}\""))
            }
            (Value::Boolean(boolean), ClaimType::BooleanText | ClaimType::Text) => {
                Some(format!("put it in quotes: \"{boolean}\""))
            }
            _ => None,
        };
        self.problem(node.place, message, hint.as_deref());
        None
    }

    fn pattern(&mut self, label: &str, path: &[String], node: &Node) -> Option<Item> {
        let text = node.find("glob").and_then(Node::text).unwrap_or_default();
        let place = node.find("glob").map_or(node.place, |node| node.place);
        if path.len() == 1 && path.first().is_some_and(|name| name == "sub") {
            let message = "pattern on `sub`, whose shape repository admins can choose".to_owned();
            self.problem(place, message, Some("name the claims that `sub` is made of"));
            return None;
        }
        match Pattern::parse(text) {
            Ok(pattern) => Some(Item::Glob(pattern)),
            Err(error) => {
                self.problem(place, format!("pattern `{text}` of `{label}` {error}"), None);
                None
            }
        }
    }
}

/// The way out of an unknown claim.
fn unknown(name: &str, preset: &Preset) -> String {
    let Some(meant) = nearest(name, preset.claims.iter().map(|claim| claim.name)) else {
        return format!(
            "a claim that the preset `{}` does not know is named by JSON Pointer: `/{name}`",
            preset.name
        );
    };
    match twin(meant, preset) {
        Some(id) => format!("did you mean `{meant}`? `{id}` survives renames"),
        None => format!("did you mean `{meant}`?"),
    }
}

/// The immutable id beside a name that strangers can take over: `repository` → `repository_id`.
pub(in crate::policy) fn twin(name: &str, preset: &Preset) -> Option<&'static str> {
    if preset.claim(name)?.stability != Stability::Reusable {
        return None;
    }
    let stem = ["_path", "_name", "_slug"].iter().find_map(|suffix| name.strip_suffix(suffix));
    let stem = stem.unwrap_or(name);
    ["_id", "_uid"]
        .iter()
        .find_map(|suffix| preset.claim(&format!("{stem}{suffix}")))
        .filter(|claim| claim.stability == Stability::Immutable)
        .map(|claim| claim.name)
}

/// The names on the way to a claim: one name, or a JSON Pointer (RFC 6901) through objects.
pub(in crate::policy) fn path_of(name: &str) -> Option<Vec<String>> {
    let path: Vec<String> = match name.strip_prefix('/') {
        Some(pointer) => pointer.split('/').map(unescape).collect::<Option<_>>()?,
        None => vec![name.to_owned()],
    };
    path.iter().all(|part| !part.is_empty()).then_some(path)
}

fn unescape(part: &str) -> Option<String> {
    let mut plain = String::new();
    let mut rest = part.chars();
    while let Some(next) = rest.next() {
        if next != '~' {
            plain.push(next);
            continue;
        }
        plain.push(match rest.next() {
            Some('0') => '~',
            Some('1') => '/',
            _ => return None,
        });
    }
    Some(plain)
}
