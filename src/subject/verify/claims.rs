//! What every token must say whoever issued it: the registered claims of RFC 7519 section 4.1, and the `typ` header.

use serde_json::Value;

use super::text::{find_control, find_invisible};
use crate::{
    clock::Instant,
    subject::{
        Claims, ENDED, Issuer, MAXIMUM_LEEWAY,
        json::{excerpt, kind},
        provider::ClaimError,
    },
};

/// The longest `sub`, bytes. OpenID Connect Core allows 255 characters; GitHub's customised ones are longer.
const MAXIMUM_SUBJECT_BYTES: usize = 1024;
/// 9999-12-31T23:59:59Z: later seconds are nobody's clock.
const LAST_SECOND: u64 = 253_402_300_799;

/// When the token begins and ends, by its own word.
#[derive(Debug)]
pub(super) struct Times {
    /// `iat`.
    pub(super) issued_at: Instant,
    /// `exp`, without leeway.
    pub(super) expires_at: Instant,
}

/// Judges the registered claims of a token whose signature is good.
pub(super) fn check(claims: &Claims, issuer: &Issuer, now: Instant) -> Result<Times, ClaimError> {
    check_issuer(claims, issuer)?;
    check_audience(claims, issuer)?;
    let times = check_times(claims, issuer, now)?;
    check_subject(claims)?;
    check_token_id(claims)?;
    check_texts(claims)?;
    Ok(times)
}

/// RFC 8725bis section 3.11, explicit typing: absent, `JWT`, or what the configuration accepts. So a logout token, a
/// security event, or an access token (`at+jwt`, ours among them) is no identity token unless somebody said so.
pub(super) fn check_type(found: Option<&str>, issuer: &Issuer) -> Result<(), String> {
    let Some(found) = found else { return Ok(()) };
    let accepted = std::iter::once("JWT").chain(issuer.accepted_types.iter().map(String::as_str));
    if accepted.clone().any(|accepted| same_media_type(found, accepted)) {
        return Ok(());
    }
    let accepted: Vec<_> = accepted.map(|accepted| format!("`{accepted}`")).collect();
    Err(format!("found `typ` `{}`, expected none or {}", excerpt(found), accepted.join(" or ")))
}

/// RFC 7515 section 4.1.9: a media type, in any case, whose `application/` may be left out.
fn same_media_type(left: &str, right: &str) -> bool {
    fn short(text: &str) -> &str {
        match text.split_once('/') {
            Some((family, rest))
                if family.eq_ignore_ascii_case("application") && !rest.contains('/') =>
            {
                rest
            }
            _ => text,
        }
    }
    short(left).eq_ignore_ascii_case(short(right))
}

/// RFC 7519 section 4.1.1. The issuer was found by this text; it is compared again, because this is what is attested.
fn check_issuer(claims: &Claims, issuer: &Issuer) -> Result<(), ClaimError> {
    let found = text(claims, "iss")?;
    if found == issuer.url.as_str() {
        return Ok(());
    }
    refuse("iss", format!("found `{}`, expected `{}`", excerpt(found), issuer.url))
}

/// RFC 7519 section 4.1.3, RFC 8725bis section 3.9: made for us alone. A token that is also for somebody else can be
/// brought here by that somebody (threats J24, X01).
///
/// INVARIANT(closed-by-absence): an issuer without an audience accepts nothing, not even an empty `aud`.
fn check_audience(claims: &Claims, issuer: &Issuer) -> Result<(), ClaimError> {
    let wanted = issuer.audience.as_str();
    let found = match claims.get("aud") {
        None => "none".to_owned(),
        Some(Value::String(found)) if found == wanted && !wanted.is_empty() => return Ok(()),
        Some(Value::String(found)) => format!("`{}`", excerpt(found)),
        Some(Value::Array(list)) => match list.as_slice() {
            [Value::String(found)] if found == wanted && !wanted.is_empty() => return Ok(()),
            [Value::String(found)] => format!("`{}`", excerpt(found)),
            [other] => format!("a list of {}", kind(other)),
            many => format!("a list of {}", many.len()),
        },
        Some(other) => kind(other).to_owned(),
    };
    refuse("aud", format!("found {found}, expected `{wanted}` alone"))
}

/// RFC 7519 sections 4.1.4 to 4.1.6, and our caps on how long a token may live and how old it may be (J22, J23).
fn check_times(claims: &Claims, issuer: &Issuer, now: Instant) -> Result<Times, ClaimError> {
    // INVARIANT(replay-window): never more than what spends are kept for, whatever an issuer is configured to.
    let leeway = issuer.leeway.min(MAXIMUM_LEEWAY);
    let expires_at = required_instant(claims, "exp")?;
    let issued_at = required_instant(claims, "iat")?;
    let not_before = instant(claims, "nbf")?;

    if expires_at.plus(leeway) <= now {
        return refuse("exp", format!("{ENDED} {expires_at}, now is {now}"));
    }
    if issued_at > now.plus(leeway) {
        return refuse("iat", format!("the token begins at {issued_at}, now is {now}"));
    }
    if let Some(not_before) = not_before.filter(|not_before| *not_before > now.plus(leeway)) {
        return refuse("nbf", format!("the token is good from {not_before}, now is {now}"));
    }
    if expires_at <= issued_at {
        let reason = format!("the token ends at {expires_at}, not after its `iat` {issued_at}");
        return refuse("exp", reason);
    }
    let (lifetime, cap) = (expires_at.since(issued_at).as_secs_f64(), issuer.maximum_lifetime);
    if lifetime > cap.as_secs_f64() {
        let cap = cap.as_secs();
        return refuse(
            "exp",
            format!("found a lifetime of {lifetime} s, expected at most {cap} s"),
        );
    }
    // No leeway here: the age limits how long a stolen token is good for, and is chosen by us, not by the issuer's clock.
    let age = now.since(issued_at);
    if let Some(cap) = issuer.maximum_age.filter(|cap| age > *cap) {
        let (age, cap) = (age.as_secs(), cap.as_secs());
        return refuse("iat", format!("the token is {age} s old, expected at most {cap} s"));
    }
    Ok(Times { issued_at, expires_at })
}

/// RFC 7519 section 4.1.2: who it is. It becomes a name in rules, in logs and on screens, so all of it must be visible.
fn check_subject(claims: &Claims) -> Result<(), ClaimError> {
    let found = text(claims, "sub")?;
    if found.is_empty() {
        return refuse("sub", "found an empty string".to_owned());
    }
    if found.len() > MAXIMUM_SUBJECT_BYTES {
        let length = found.len();
        let reason = format!("found {length} bytes, expected at most {MAXIMUM_SUBJECT_BYTES}");
        return refuse("sub", reason);
    }
    check_visible("sub", found)
}

/// RFC 7519 section 4.1.7: may be absent (we name tokens by their digest), but is a text where it is there.
fn check_token_id(claims: &Claims) -> Result<(), ClaimError> {
    if claims.contains_key("jti") { check_visible("jti", text(claims, "jti")?) } else { Ok(()) }
}

/// No control character in any text, nor in any name, on any level: they end lines in logs and strings in C libraries.
/// Characters without width stay legal outside `sub` and `jti`: a workflow's name may hold a joined emoji.
fn check_texts(claims: &Claims) -> Result<(), ClaimError> {
    for (name, value) in claims {
        if let Some(found) = find_control(name).or_else(|| control_inside(value)) {
            return refuse(&excerpt(name), format!("found character U+{:04X}", u32::from(found)));
        }
    }
    Ok(())
}

/// Descends no deeper than the reader of the claims let them be.
fn control_inside(value: &Value) -> Option<char> {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
        Value::String(text) => find_control(text),
        Value::Array(list) => list.iter().find_map(control_inside),
        Value::Object(members) => members
            .iter()
            .find_map(|(name, value)| find_control(name).or_else(|| control_inside(value))),
    }
}

fn check_visible(claim: &str, value: &str) -> Result<(), ClaimError> {
    match find_invisible(value) {
        None => Ok(()),
        Some(found) => refuse(claim, format!("found character U+{:04X}", u32::from(found))),
    }
}

fn text<'a>(claims: &'a Claims, claim: &str) -> Result<&'a str, ClaimError> {
    match claims.get(claim) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => refuse(claim, format!("found {}, expected a string", kind(other))),
        None => refuse(claim, "found none, expected a string".to_owned()),
    }
}

fn required_instant(claims: &Claims, claim: &str) -> Result<Instant, ClaimError> {
    match instant(claims, claim)? {
        Some(instant) => Ok(instant),
        None => refuse(claim, "found none, expected seconds since 1970".to_owned()),
    }
}

/// RFC 7519 section 2, `NumericDate`: whole seconds, or with a fraction, which is cut to milliseconds.
///
/// A number as text is refused, not skipped: CVE-2026-25537 took `"exp": "…"` for an absent one.
fn instant(claims: &Claims, claim: &str) -> Result<Option<Instant>, ClaimError> {
    let number = match claims.get(claim) {
        None => return Ok(None),
        Some(Value::Number(number)) => number,
        Some(other) => {
            let found = kind(other);
            return refuse(claim, format!("found {found}, expected seconds since 1970"));
        }
    };
    if let Some(seconds) = number.as_u64().filter(|seconds| *seconds <= LAST_SECOND) {
        return Ok(Some(Instant::from_seconds(seconds)));
    }
    match number.as_f64().and_then(milliseconds) {
        Some(milliseconds) => Ok(Some(Instant::from_milliseconds(milliseconds))),
        None => {
            refuse(claim, format!("found `{number}`, expected seconds from 0 to {LAST_SECOND}"))
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "the range is checked: from 0 to 2.6e14, which an f64 holds exactly"
)]
fn milliseconds(seconds: f64) -> Option<u64> {
    let in_range = seconds >= 0.0 && seconds <= LAST_SECOND as f64;
    in_range.then(|| (seconds * 1_000.0).floor() as u64)
}

fn refuse<T>(claim: &str, reason: String) -> Result<T, ClaimError> {
    Err(ClaimError { claim: claim.to_owned(), reason })
}
