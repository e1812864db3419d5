//! A bounded body, and the strict reading of a form: one parser, no second opinion about which duplicate counts.

use std::{borrow::Cow, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, header},
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::{
    json::is_plain,
    refusal::{Refusal, Unfit},
};

/// The most that a body may have, in bytes (threat H03).
pub const MOST_BYTES: usize = 64 * 1024;
/// The most parameters that a form may have.
const MOST_PARAMETERS: usize = 64;
/// The most often that `audience` or `resource` may be given, each.
const MOST_REPEATS: usize = 8;
/// What may be repeated (RFC 8693 section 2.1).
const REPEATABLE: [&str; 2] = ["audience", "resource"];
/// What may be written in lines: PEM.
const LINES: [&str; 1] = ["csr"];

/// Whose form it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// RFC 6749 section 3.2: what has no value was not sent; `audience` and `resource` may be repeated.
    OAuth,
    /// The AWS query protocol: an empty value is one, a value may have several lines, and nothing is repeated.
    AwsQuery,
}

/// The parameters of a form, in order; in OAuth's none of them is empty.
pub struct Form(Vec<(String, String)>);

/// Names only: the values are tokens.
impl std::fmt::Debug for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl Form {
    /// Reads the form that `body` carries.
    ///
    /// # Errors
    /// It is no form (415), too large (413), too slow (408), or ill-formed or ambiguous (400).
    pub async fn read(
        headers: &HeaderMap,
        body: Body,
        deadline: Duration,
        dialect: Dialect,
    ) -> Result<Self, Refusal> {
        is_form(headers)?;
        Self::parse_as(&read_body(headers, body, deadline).await?, dialect)
    }

    /// Parses `application/x-www-form-urlencoded` text strictly (threats H01, H02).
    ///
    /// # Errors
    /// It is not UTF-8, has a broken escape, a control character, a repeated parameter or too many of them.
    pub fn parse(body: &[u8]) -> Result<Self, Refusal> {
        Self::parse_as(body, Dialect::OAuth)
    }

    /// Parses the form of a `dialect`, as strictly.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_as(body: &[u8], dialect: Dialect) -> Result<Self, Refusal> {
        let oauth = dialect == Dialect::OAuth;
        let text = std::str::from_utf8(body).map_err(|_| refuse("the form is not UTF-8"))?;
        if !escapes_are_whole(text) {
            return Err(refuse("the form has a broken percent escape"));
        }
        let mut seen: Vec<(String, String)> = Vec::new();
        for (name, value) in pairs(text) {
            // The decoder writes U+FFFD where the escaped bytes are not UTF-8.
            if [&name, &value].iter().any(|part| !part.is_ascii() && part.contains('\u{fffd}')) {
                return Err(refuse("the form is not UTF-8"));
            }
            let lines =
                if oauth { if LINES.contains(&&*name) { "\r\n" } else { "" } } else { "\t\r\n" };
            if holds_control(&name, "") || holds_control(&value, lines) {
                return Err(refuse("the form holds a control character"));
            }
            if seen.len() >= MOST_PARAMETERS {
                return Err(refuse("the form has more than 64 parameters"));
            }
            let before = seen.iter().filter(|(known, _)| *known == name).count();
            if oauth && REPEATABLE.contains(&&*name) {
                if before >= MOST_REPEATS {
                    return Err(refuse("`audience` and `resource` may be given 8 times each"));
                }
            } else if before > 0 {
                // RFC 6749 section 3.2: parameters MUST NOT be included more than once.
                return Err(refuse("a parameter is given more than once"));
            }
            seen.push((name.into_owned(), value.into_owned()));
        }
        // RFC 6749 section 3.2: parameters sent without a value are treated as if they were omitted.
        seen.retain(|(_, value)| !(oauth && value.is_empty()));
        Ok(Self(seen))
    }

    /// The value of `name`, if it was given.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Takes the value of `name` out, so that a token is not kept twice.
    #[must_use]
    pub fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(at).1)
    }

    /// The names of all parameters, in the order of the form.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// All values under any of `names`, in the order of the form.
    pub fn all<'a>(&'a self, names: &'a [&'a str]) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0
            .iter()
            .filter(|(known, _)| names.contains(&known.as_str()))
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// A refusal about the form's own shape; `words` are public.
pub(super) fn refuse(words: &str) -> Refusal {
    Refusal::BadRequest(words.to_owned())
}

pub(super) fn is_form(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(only), None) = (types.next(), types.next()) else {
        return Err(Unfit::MediaType.into());
    };
    let text = only.to_str().map_err(|_| Unfit::MediaType)?;
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    let parameter = parts.next();
    let plain = parameter.is_none_or(|one| {
        one.eq_ignore_ascii_case("charset=utf-8") || one.eq_ignore_ascii_case("charset=\"utf-8\"")
    });
    let coded = headers.contains_key(header::CONTENT_ENCODING);
    if essence.eq_ignore_ascii_case("application/x-www-form-urlencoded")
        && plain
        && parts.next().is_none()
        && !coded
    {
        return Ok(());
    }
    Err(Unfit::MediaType.into())
}

/// Reads `body` within size and time (threats H03, H04).
pub(super) async fn read_body(
    headers: &HeaderMap,
    body: Body,
    deadline: Duration,
) -> Result<Bytes, Refusal> {
    // Said before a byte is read, and before `100 Continue` is sent.
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if announced.and_then(|text| text.parse::<usize>().ok()).is_some_and(|n| n > MOST_BYTES) {
        return Err(Unfit::TooLarge.into());
    }
    match tokio::time::timeout(deadline, Limited::new(body, MOST_BYTES).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Unfit::TooLarge.into()),
        Ok(Err(_)) => Err(Unfit::Body.into()),
        Err(_) => Err(Unfit::TooSlow.into()),
    }
}

/// Those of `but` are none: the ends of lines in PEM; and the white space of a policy of several lines, or of a token file with its
/// last newline.
fn holds_control(text: &str, but: &str) -> bool {
    !is_plain(text) && text.chars().any(|c| c.is_control() && !but.contains(c))
}

/// The pairs of a form, as `form_urlencoded` (URL Standard, section 5.1) reads them. It decodes byte by byte, which two kilobytes of
/// token need not: a pair without an escape says what it stands for.
fn pairs(text: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    text.split('&').filter(|pair| !pair.is_empty()).filter_map(|pair| {
        if pair.contains('%') || pair.contains('+') {
            return form_urlencoded::parse(pair.as_bytes()).next();
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((name.into(), value.into()))
    })
}

fn escapes_are_whole(text: &str) -> bool {
    text.split('%').skip(1).all(|after| {
        let mut digits = after.bytes();
        [digits.next(), digits.next()]
            .iter()
            .all(|digit| digit.is_some_and(|byte| byte.is_ascii_hexdigit()))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn a_form_is_read_as_the_library_reads_it(text in "([a-c]|[&=]|%[2346][0-9a-fA-F]|[+%;é\u{fffd}]){0,32}") {
            let theirs: Vec<_> = form_urlencoded::parse(text.as_bytes()).collect();
            prop_assert_eq!(pairs(&text).collect::<Vec<_>>(), theirs);
        }
    }

    #[test]
    fn control_characters_are_found_in_ascii_and_beyond_but_for_those_allowed() {
        for text in ["a\0", "\u{1f}", "a\u{7f}b", "é\u{85}", "\n"] {
            assert!(holds_control(text, ""), "{text:?}");
        }
        for text in ["", " ~", "é", "a\nb"] {
            assert!(!holds_control(text, "\n"), "{text:?}");
        }
    }
}
