//! What presets share in taking compound claims apart.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::{ClaimError, described};
use crate::subject::Claims;

/// Refuses a token that signs a claim which we derive: a policy's condition on `job_workflow` must never be about a value that the
/// platform, or whoever can make it add claims, chose under that name.
pub(super) fn refuse_signed(claims: &Claims, derived: &[&str]) -> Result<(), ClaimError> {
    match derived.iter().find(|name| claims.contains_key(**name)) {
        Some(name) => Err(error(
            name,
            format!("claim `{name}` is signed, expected it to be derived by us alone"),
        )),
        None => Ok(()),
    }
}

/// `…/file@ref` → `{path, ref}`, at the first `@` after the file name (threat C07).
///
/// `marker` is what stands before the file's folder or name. `None` where the text has another shape, or one that can be read in
/// two ways: a file called `a.yml@b.yml` and a branch called `x@b.yml` look alike until the part after the first `@` is seen to be a
/// full ref or a commit. No condition holds on what was not derived.
pub(super) fn split_at_ref(text: &str, marker: &str) -> Option<Value> {
    let (before, after) = text.split_once(marker)?;
    let (file, reference) = after.split_once('@')?;
    let is_commit = matches!(reference.len(), 40 | 64)
        && reference.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_file = [".yml", ".yaml"].iter().any(|end| file.len() > end.len() && file.ends_with(end));
    let well_formed = !before.is_empty()
        && !before.contains('@')
        && is_file
        && (reference.starts_with("refs/") || is_commit);
    well_formed.then(|| {
        let path = [before, marker, file].concat();
        json!({ "path": path, "ref": reference })
    })
}

/// Compares what `of` (`sub`, or `iss`) says with the claim that says the same (threat C03). An absent claim contradicts nothing.
pub(super) fn agree(of: &str, claims: &Claims, claim: &str, said: &str) -> Result<(), ClaimError> {
    let Some(signed) = claims.get(claim).filter(|value| !value.is_null()) else { return Ok(()) };
    // Names of platforms are case-insensitive; ids are digits, and nothing is authorised by this comparison (threat C09).
    let same = match signed {
        Value::String(signed) => signed.eq_ignore_ascii_case(said),
        Value::Number(signed) => signed.to_string() == said,
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => false,
    };
    if same {
        return Ok(());
    }
    Err(error(
        of,
        format!(
            "`{of}` and `{claim}` disagree: found {} and {}",
            described(&Value::String(said.to_owned())),
            described(signed)
        ),
    ))
}

/// Puts what stands at each pointer under its flat name as well. An absent value, or `null`, is not there under the flat name
/// either.
pub(super) fn lift(
    claims: &mut Claims,
    lifted: &[(&'static str, &'static str)],
) -> Result<(), ClaimError> {
    for (_, name) in lifted {
        refuse_signed(claims, &[*name])?;
    }
    for (pointer, name) in lifted {
        let value = at(claims, pointer).filter(|value| !value.is_null()).cloned();
        if let Some(value) = value {
            claims.insert((*name).to_owned(), value);
        }
    }
    Ok(())
}

/// What stands at a JSON Pointer (RFC 6901), through objects only.
fn at<'c>(claims: &'c Claims, pointer: &str) -> Option<&'c Value> {
    let plain = |part: &str| part.replace("~1", "/").replace("~0", "~");
    let mut parts = pointer.strip_prefix('/')?.split('/').map(plain);
    let first = claims.get(&parts.next()?)?;
    parts.try_fold(first, |value, part| value.as_object()?.get(&part))
}

/// The `key:value` pairs of a composed `sub`. Values escape `:` as `%3A`; a key of `alone` has no value.
pub(super) fn pairs<'a>(sub: &'a str, alone: &[&str]) -> Vec<(&'a str, Cow<'a, str>)> {
    let mut segments = sub.split(':');
    let mut pairs = Vec::new();
    while let Some(key) = segments.next() {
        if alone.contains(&key) {
            continue;
        }
        let value = segments.next().unwrap_or_default();
        let value = if value.contains('%') {
            value.replace("%3A", ":").replace("%3a", ":").into()
        } else {
            value.into()
        };
        pairs.push((key, value));
    }
    pairs
}

pub(super) fn error(claim: &str, reason: String) -> ClaimError {
    ClaimError { claim: claim.to_owned(), reason }
}
