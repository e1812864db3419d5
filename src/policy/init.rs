//! `cambio policy init`: the rule that fits a token. Ids pinned, names as comments, a case that proves it.

use std::fmt::Write as _;

use serde_json::Value;

use super::lint;
use crate::subject::{
    Claims, Preset, Profile,
    provider::{ClaimType, Stability},
};

/// A whole policy file with the rule that fits a token, for `target` and `role` (placeholders where none is named).
///
/// `profile` is of the verified or the pasted token, `signed` are its claims as signed: they become the rule's case. Nothing
/// of the token leaves but names and ids: no `jti`, no times.
#[must_use]
pub fn init(
    profile: &Profile,
    signed: &Claims,
    target: Option<&str>,
    role: Option<&str>,
) -> String {
    let lines = lines(profile);
    let id = id_of(profile);
    let mut text =
        String::from("# yaml-language-server: $schema=schema.json\nversion: 1\nrules:\n");
    push(&mut text, format_args!("  - id: {id}\n"));
    push(&mut text, format_args!("    issuer: {}\n", profile.issuer));
    text.push_str("    when:\n");
    for Line { claim, value, comment } in &lines {
        let comment =
            comment.as_deref().map_or_else(String::new, |comment| format!("   # {comment}"));
        push(&mut text, format_args!("      {claim}: {}{comment}\n", json(value)));
    }
    text.push_str("    grants:\n");
    let (target, role) = (target.unwrap_or("TARGET"), role.unwrap_or("ROLE"));
    push(&mut text, format_args!("      - {{ target: {target}, role: {role}, lifetime: 15m }}\n"));
    text.push_str("cases:\n");
    push(&mut text, format_args!("  - permit: {id}\n    claims:\n"));
    for (name, value) in case(profile, signed, &lines) {
        push(&mut text, format_args!("      {}: {}\n", quoted(&name), json(&value)));
    }
    text
}

struct Line {
    claim: String,
    value: Value,
    comment: Option<String>,
}

/// What the rule asks: every pin that the token has, then what narrows.
fn lines(profile: &Profile) -> Vec<Line> {
    let (preset, claims) = (profile.preset, &profile.claims);
    let text = |name: &str| {
        claims
            .get(name)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty() && lint::literal(text).is_none())
    };
    // What a condition can equal: a text, or the number that some ids are.
    let scalar = |name: &str| match claims.get(name)? {
        Value::String(_) => text(name).map(|text| Value::String(text.to_owned())),
        number @ Value::Number(_) => Some(number.clone()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    let mut lines: Vec<Line> = Vec::new();
    let pins = preset.pins.iter().filter(|set| set.iter().all(|claim| scalar(claim).is_some()));
    for claim in pins.copied().flatten().chain(preset.narrowing) {
        let known = preset.claim(claim).is_some() && !lines.iter().any(|line| line.claim == *claim);
        let Some(value) = scalar(claim).filter(|_| known) else { continue };
        let dangerous = preset.dangerous.iter().any(|(name, values)| {
            name == claim && value.as_str().is_some_and(|value| values.contains(&value))
        });
        let comment = if dangerous {
            Some("strangers can cause this: keep the line only if it is meant".to_owned())
        } else {
            name_of(claim, preset).and_then(text).map(ToOwned::to_owned)
        };
        lines.push(Line { claim: (*claim).to_owned(), value, comment });
    }
    lines
}

/// The name that stands beside an id: `repository_id` → `repository`.
fn name_of(id: &str, preset: &Preset) -> Option<&'static str> {
    let stem = id.strip_suffix("_uid").or(id.strip_suffix("_id"))?;
    [stem.to_owned(), format!("{stem}_path"), format!("{stem}_name"), format!("{stem}_slug")]
        .iter()
        .find_map(|name| preset.claim(name))
        .map(|claim| claim.name)
}

/// The signed claims that the rule's case needs. Of what lies deeper only that which the preset gives a flat name, and which is
/// needed itself.
fn case(profile: &Profile, signed: &Claims, lines: &[Line]) -> Claims {
    let preset = profile.preset;
    let mut case = Claims::new();
    for (name, value) in signed {
        if belongs(name, lines, preset) {
            case.insert(name.clone(), value.clone());
        }
    }
    let absent = |(_, name): &&(&str, &str)| belongs(name, lines, preset);
    for (pointer, _) in preset.lifted.iter().filter(absent) {
        let Some(path) = super::claim::path_of(pointer) else { continue };
        copy(signed, &mut case, &path);
    }
    case
}

/// Copies the value at `path` and the objects around it.
fn copy(from: &Claims, to: &mut Claims, path: &[String]) {
    let Some((first, rest)) = path.split_first() else { return };
    let Some(value) = from.get(first) else { return };
    match value {
        _ if rest.is_empty() => {
            to.insert(first.clone(), value.clone());
        }
        Value::Object(inner) => {
            let into = to.entry(first.clone()).or_insert_with(|| Value::Object(Claims::new()));
            if let Value::Object(into) = into {
                copy(inner, into, rest);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {}
    }
}

/// Whether a claim is needed to tell the workload: ids, names, and what the rule asks. Nothing of the moment.
fn belongs(name: &str, lines: &[Line], preset: &Preset) -> bool {
    if name == "sub" || lines.iter().any(|line| line.claim == name) {
        return true;
    }
    let personal = ["actor", "user_", "groups_"].iter().any(|prefix| name.starts_with(prefix));
    let derived_from = preset.taken_apart.contains(&name);
    let known = preset.claim(name).is_some_and(|claim| {
        claim.kind != ClaimType::Object
            && matches!(claim.stability, Stability::Immutable | Stability::Reusable)
    });
    derived_from || (known && !personal)
}

/// The rule's id: the last word of the workload's own name.
fn id_of(profile: &Profile) -> String {
    let mut names = profile.preset.label.iter().chain(&["sub"]);
    let name = names.find_map(|name| profile.claims.get(*name).and_then(Value::as_str));
    let last = name.and_then(|name| name.rsplit(['/', ':']).next()).unwrap_or_default();
    let plain: String = last
        .chars()
        .filter(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(*letter))
        .take(60)
        .collect();
    let plain = plain.trim_start_matches(['-', '_', '.']);
    if plain.is_empty() { "workload".to_owned() } else { plain.to_owned() }
}

/// A double-quoted scalar. What JSON escapes, YAML reads alike; the rest is escaped until it is ASCII.
fn quoted(text: &str) -> String {
    json(&Value::String(text.to_owned()))
}

fn json(value: &Value) -> String {
    let mut ascii = String::new();
    for letter in value.to_string().chars() {
        if letter.is_ascii() && !letter.is_ascii_control() {
            ascii.push(letter);
            continue;
        }
        push(&mut ascii, format_args!("\\U{:08x}", u32::from(letter)));
    }
    ascii
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a `String` can't fail.
    let _infallible = text.write_fmt(arguments);
}
