//! Templates for compound texts: what a `sub` or an `iss` says twice must agree with the claim that says it too (threats C01, C03).

use serde_json::Value;

use super::{ClaimError, Preset, Subject, compound::agree, described};
use crate::subject::Claims;

/// What stands in the places of `template`, if the whole of `text` fits it: (name of the place, text).
///
/// A place ends where the letters after it first occur. A value that holds these letters itself is therefore cut short, and then
/// contradicts its claim, or leaves a rest that does not fit: never the other way round.
pub(super) fn fit<'t>(
    template: &'static str,
    text: &'t str,
) -> Option<Vec<(&'static str, &'t str)>> {
    let mut found = Vec::new();
    let (mut template, mut rest) = (template, text);
    while let Some((literal, after)) = template.split_once('{') {
        let (place, next) = after.split_once('}')?;
        rest = rest.strip_prefix(literal)?;
        let until = next.split('{').next().unwrap_or_default();
        let until = until.strip_suffix("**").unwrap_or(until);
        let value = if until.is_empty() { rest } else { rest.split_once(until)?.0 };
        if !is_of_class(place, value) {
            return None;
        }
        found.push((place, value));
        rest = rest.get(value.len()..)?;
        template = next;
    }
    let whole = match template.strip_suffix("**") {
        Some(head) => rest.starts_with(head),
        None => rest == template,
    };
    whole.then_some(found)
}

/// Whether `value` is what a place may hold: `uuid`, `name` and `any` of URLs; claims of `sub` hold any text but none.
fn is_of_class(place: &str, value: &str) -> bool {
    let class = place.split_once(':').map_or(place, |(class, _)| class);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !value.is_empty()
        && match class {
            "uuid" => is_uuid(value),
            "name" => value.bytes().all(plain),
            "any" => !value.contains('/'),
            _ => true,
        }
}

/// RFC 9562 section 4: 8, 4, 4, 4 and 12 hexadecimal digits.
fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    let lengths = groups.iter().map(|group| group.len());
    lengths.eq([8, 4, 4, 4, 12])
        && groups.iter().all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Where `iss` names a tenant that a claim names too, they agree: keys that sign for all tenants say nothing about which.
pub(super) fn check_issuer(preset: &Preset, claims: &Claims) -> Result<(), ClaimError> {
    let Some(issuer) = claims.get("iss").and_then(Value::as_str) else { return Ok(()) };
    let Some(shape) = preset.platform.shape_of(issuer) else { return Ok(()) };
    for (place, value) in fit(shape.url, issuer).unwrap_or_default() {
        if let Some((_, claim)) = place.split_once(':') {
            agree("iss", claims, claim, value)?;
        }
    }
    Ok(())
}

/// Holds `sub` to the shapes of its preset.
pub(super) fn check_subject(preset: &Preset, claims: &Claims) -> Result<(), ClaimError> {
    let (shapes, obliged) = match preset.subject {
        Subject::Opaque => return Ok(()),
        Subject::OneOf(shapes) => (shapes, true),
        Subject::Perhaps(shapes) => (shapes, false),
    };
    let sub = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
    let mut contradiction = None;
    for shape in shapes {
        let Some(places) = fit(shape, sub) else { continue };
        match places.into_iter().try_for_each(|(place, value)| agrees(claims, place, value)) {
            Ok(()) => return Ok(()),
            Err(error) => contradiction = contradiction.or(Some(error)),
        }
    }
    match contradiction {
        Some(error) => Err(error),
        None if obliged => {
            let found = described(&Value::String(sub.to_owned()));
            let reason = format!("found `sub` {found}, expected `{}`", shapes.join("` or `"));
            Err(ClaimError { claim: "sub".to_owned(), reason })
        }
        None => Ok(()),
    }
}

fn agrees(claims: &Claims, place: &str, value: &str) -> Result<(), ClaimError> {
    let Some(obliged) = place.strip_prefix('=') else { return agree("sub", claims, place, value) };
    if claims.get(obliged).is_none_or(Value::is_null) {
        let reason = format!("`sub` is an id, but `{obliged}`, which says of what, is missing");
        return Err(ClaimError { claim: obliged.to_owned(), reason });
    }
    agree("sub", claims, obliged, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_fits_a_whole_text_and_nothing_more() {
        let shape = "org/{org_id}/project/{project_id}/**";
        let found = fit(shape, "org/a/project/b/user/c").unwrap_or_default();
        assert_eq!(found, [("org_id", "a"), ("project_id", "b")]);
        for other in ["org/a/project/b", "org//project/b/", "xorg/a/project/b/", "org/a/b/c/d", ""]
        {
            assert_eq!(fit(shape, other), None, "{other}");
        }
        assert!(fit("a:{x}", "a:b:c").is_some() && fit("a:{x}:d", "a:b:c").is_none());
        assert!(fit("exact", "exact").is_some() && fit("exact", "exactly").is_none());
    }

    #[test]
    fn c01_a_tenant_in_a_url_is_one_segment_of_its_class() {
        let uuid = "a2a4b6c8-0000-4111-8222-333344445555";
        let shape = "https://sts.windows.net/{uuid:tid}/";
        assert!(fit(shape, &format!("https://sts.windows.net/{uuid}/")).is_some());
        for tenant in ["common", "organizations", "", "a/b", "a2a4b6c8-0000-4111-8222-33334444555x"]
        {
            assert!(
                fit(shape, &format!("https://sts.windows.net/{tenant}/")).is_none(),
                "{tenant}"
            );
        }
        let shape = "https://{name}.app.spacelift.io";
        assert!(fit(shape, "https://acme.app.spacelift.io").is_some());
        for url in
            ["https://acme.app.spacelift.io.evil.example", "https://evil/acme.app.spacelift.io"]
        {
            assert!(fit(shape, url).is_none(), "{url}");
        }
        assert!(
            fit("https://oidc.vercel.com/{name}", "https://passport.vercel.com/acme").is_none()
        );
    }
}
