//! JSON from the wire, bounded: the library lexes, we count, and a name that comes twice is refused (threats J08, J09).
//!
//! RFC 8259 section 4 leaves duplicate names open and `serde_json` keeps the last one; RFC 7519 section 4 lets us refuse
//! them, and a second reader of the same token (a log, a sidecar) may keep the first.

use std::{
    cell::{Cell, RefCell},
    fmt,
};

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value, map::Entry};
use thiserror::Error;

/// The members of an object, integers kept as 64-bit integers, duplicates already refused.
type Members = Map<String, Value>;

/// How much of a document is read before it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the whole document.
    pub bytes: usize,
    /// Objects and lists inside each other; a flat object is 1.
    pub depth: usize,
    /// Members of all objects together.
    pub members: usize,
    /// Elements of all lists together.
    pub elements: usize,
}

impl Limits {
    /// A JOSE header, decoded.
    pub const HEADER: Self = Self { bytes: 2 * 1024, depth: 16, members: 32, elements: 64 };
    /// The claims of a token, decoded. GitLab's `groups_direct` has up to 200 elements, Entra's `groups` as many.
    pub const CLAIMS: Self = Self { bytes: 16 * 1024, depth: 16, members: 128, elements: 1024 };
    /// A discovery document (OpenID Connect Discovery section 4.2).
    pub const DISCOVERY: Self = Self { bytes: 64 * 1024, depth: 16, members: 512, elements: 2048 };
    /// A JWK Set (RFC 7517 section 5): room for 64 keys of 32 members; the number of keys is counted by its reader.
    pub const JWKS: Self = Self { bytes: 256 * 1024, depth: 16, members: 2304, elements: 1024 };
}

/// Why a document was not read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum JsonError {
    /// Too long.
    #[error("found {found} bytes, expected at most {limit}")]
    TooLong {
        /// Its length, bytes.
        found: usize,
        /// The limit, bytes.
        limit: usize,
    },
    /// Objects or lists too deep inside each other.
    #[error("found more than {limit} levels of nesting")]
    TooDeep {
        /// The limit.
        limit: usize,
    },
    /// Too many members, over all objects.
    #[error("found more than {limit} members")]
    TooManyMembers {
        /// The limit.
        limit: usize,
    },
    /// Too many elements, over all lists.
    #[error("found more than {limit} list elements")]
    TooManyElements {
        /// The limit.
        limit: usize,
    },
    /// One name twice in one object, compared after its escapes were resolved.
    #[error("found member `{name}` twice in one object")]
    Duplicate {
        /// Which, shortened and escaped.
        name: String,
    },
    /// Not UTF-8 (RFC 8259 section 8.1).
    #[error("found bytes that are not UTF-8, from byte {at}")]
    NotUtf8 {
        /// The first bad byte.
        at: usize,
    },
    /// Not JSON, or JSON and something behind it.
    #[error("not JSON: {reason}")]
    Syntax {
        /// What the library says; never holds any of the input.
        reason: String,
    },
    /// JSON, but not an object.
    #[error("found {found}, expected an object")]
    NotAnObject {
        /// What it is.
        found: &'static str,
    },
}

/// Reads one object and nothing behind it.
///
/// Integers keep all of their 64 bits; a number with a fraction, an exponent, or beyond 64 bits is an `f64`, and one
/// beyond `f64` is refused.
///
/// # Errors
/// The bytes are not one JSON object, name a member twice on any level, or go beyond `limits`.
pub fn parse_object(bytes: &[u8], limits: &Limits) -> Result<Members, JsonError> {
    let value = parse_value(bytes, limits)?;
    let found = kind(&value);
    let Value::Object(members) = value else { return Err(JsonError::NotAnObject { found }) };
    Ok(members)
}

/// Reads one value and nothing behind it, under the same rules as [`parse_object`].
///
/// # Errors
/// The bytes are not one JSON value, name a member twice on any level, or go beyond `limits`.
pub fn parse_value(bytes: &[u8], limits: &Limits) -> Result<Value, JsonError> {
    if bytes.len() > limits.bytes {
        return Err(JsonError::TooLong { found: bytes.len(), limit: limits.bytes });
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| JsonError::NotUtf8 { at: error.valid_up_to() })?;
    let budget = Budget::of(limits);
    let mut lexer = serde_json::Deserializer::from_str(text);
    let read = Bounded { budget: &budget, depth: 0 }
        .deserialize(&mut lexer)
        .and_then(|value| lexer.end().map(|()| value));
    // A verdict of ours reaches here as text inside the library's error: the typed one stands in the budget.
    read.map_err(|error| {
        budget.verdict.take().unwrap_or_else(|| JsonError::Syntax { reason: error.to_string() })
    })
}

/// What a value is, in a reader's words.
#[must_use]
pub const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Whether there is nothing in `text` but what ASCII can print: most of what comes from outside, and told without decoding it or
/// stopping at a byte, so that many are compared at once. What isn't plain may still be harmless.
pub(crate) fn is_plain(text: &str) -> bool {
    text.bytes().fold(true, |plain, byte| plain & matches!(byte, b' '..=b'~'))
}

/// The beginning of what a stranger wrote, escaped: for an operator's eyes, and too short to flood a log.
pub(crate) fn excerpt(text: &str) -> String {
    excerpt_of(text, 64)
}

/// [`excerpt`] with room for so many characters: a server's own sentence.
pub(crate) fn excerpt_of(text: &str, most: usize) -> String {
    let mut shown: String = text.chars().take(most).flat_map(char::escape_debug).collect();
    if text.chars().nth(most).is_some() {
        shown.push('…');
    }
    shown
}

/// What is left of the limits, shared by all levels of one document.
struct Budget<'a> {
    limits: &'a Limits,
    members: Cell<usize>,
    elements: Cell<usize>,
    verdict: RefCell<Option<JsonError>>,
}

impl<'a> Budget<'a> {
    const fn of(limits: &'a Limits) -> Self {
        Self {
            limits,
            members: Cell::new(limits.members),
            elements: Cell::new(limits.elements),
            verdict: RefCell::new(None),
        }
    }

    /// Leaves the verdict where [`parse_value`] finds it, and makes the library stop.
    fn refuse<E: serde::de::Error>(&self, verdict: JsonError) -> E {
        let error = E::custom(&verdict);
        self.verdict.replace(Some(verdict));
        error
    }

    fn spend<E: serde::de::Error>(&self, left: &Cell<usize>, verdict: JsonError) -> Result<(), E> {
        match left.get().checked_sub(1) {
            Some(rest) => {
                left.set(rest);
                Ok(())
            }
            None => Err(self.refuse(verdict)),
        }
    }

    fn spend_member<E: serde::de::Error>(&self) -> Result<(), E> {
        self.spend(&self.members, JsonError::TooManyMembers { limit: self.limits.members })
    }

    fn spend_element<E: serde::de::Error>(&self) -> Result<(), E> {
        self.spend(&self.elements, JsonError::TooManyElements { limit: self.limits.elements })
    }
}

/// Reads one value at `depth` levels below the top.
#[derive(Clone, Copy)]
struct Bounded<'a> {
    budget: &'a Budget<'a>,
    depth: usize,
}

impl Bounded<'_> {
    /// The reader of what is inside: refused before the library descends, so that the stack stays as small as the limit.
    fn inside<E: serde::de::Error>(self) -> Result<Self, E> {
        let limit = self.budget.limits.depth;
        if self.depth >= limit {
            return Err(self.budget.refuse(JsonError::TooDeep { limit }));
        }
        Ok(Self { depth: self.depth.saturating_add(1), ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Bounded<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, lexer: D) -> Result<Value, D::Error> {
        lexer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Bounded<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let inside = self.inside()?;
        let mut elements = Vec::new();
        while let Some(element) = list.next_element_seed(inside)? {
            self.budget.spend_element()?;
            elements.push(element);
        }
        Ok(Value::Array(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let inside = self.inside()?;
        // A token of a CI platform has some forty members, a header three: no growing while they are read.
        let room = if self.depth == 0 { self.budget.limits.members / 3 } else { 0 };
        let mut members = Map::with_capacity(room.min(48));
        while let Some(name) = object.next_key::<String>()? {
            self.budget.spend_member()?;
            match members.entry(name) {
                Entry::Vacant(free) => {
                    free.insert(object.next_value_seed(inside)?);
                }
                Entry::Occupied(taken) => {
                    let name = excerpt(taken.key());
                    return Err(self.budget.refuse(JsonError::Duplicate { name }));
                }
            }
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(text: &str) -> String {
        match parse_object(text.as_bytes(), &Limits::CLAIMS) {
            Ok(_) => "accepted".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    fn nested(depth: usize) -> String {
        format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth))
    }

    #[test]
    fn j08_a_name_that_comes_twice_is_refused_on_every_level() {
        let twice = "found member `alg` twice in one object";
        assert_eq!(verdict(r#"{"alg":1,"alg":1}"#), twice);
        assert_eq!(verdict(r#"{"alg":1,"al\u0067":1}"#), twice);
        assert_eq!(verdict(r#"{"x":{"alg":1,"alg":2}}"#), twice);
        assert_eq!(verdict(r#"{"x":[{"alg":1,"alg":2}]}"#), twice);
        assert_eq!(verdict(r#"{"x":{"alg":1},"y":{"alg":2},"alg":3}"#), "accepted");
    }

    #[test]
    fn j09_depth_members_elements_and_bytes_are_bounded() {
        assert_eq!(verdict(&nested(16)), "accepted");
        assert_eq!(verdict(&nested(17)), "found more than 16 levels of nesting");
        assert_eq!(verdict(&"[".repeat(10_000)), "found more than 16 levels of nesting");

        let wide = |members: usize| {
            let members: Vec<_> = (0..members).map(|number| format!("\"c{number}\":0")).collect();
            format!("{{{}}}", members.join(","))
        };
        assert_eq!(verdict(&wide(128)), "accepted");
        assert_eq!(verdict(&wide(129)), "found more than 128 members");
        assert_eq!(verdict(&format!(r#"{{"a":{}}}"#, wide(128))), "found more than 128 members");

        let list = |elements: usize| format!(r#"{{"a":[{}]}}"#, vec!["0"; elements].join(","));
        assert_eq!(verdict(&list(1024)), "accepted");
        assert_eq!(verdict(&list(1025)), "found more than 1024 list elements");

        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(1 << 20));
        assert_eq!(verdict(&long), "found 1048584 bytes, expected at most 16384");
    }

    #[test]
    fn j09_only_one_object_in_clean_utf_8_is_read() {
        let eof = "not JSON: EOF while parsing a value at line 1 column 0";
        assert_eq!(verdict(""), eof);
        assert_eq!(verdict("[1]"), "found a list, expected an object");
        assert_eq!(verdict("null"), "found null, expected an object");
        assert_eq!(verdict("{} {}"), "not JSON: trailing characters at line 1 column 4");
        assert_eq!(verdict("{}\0"), "not JSON: trailing characters at line 1 column 3");
        assert_eq!(verdict("\u{feff}{}"), "not JSON: expected value at line 1 column 1");
        assert_eq!(
            verdict(r#"{"a":"\ud800"}"#),
            "not JSON: unexpected end of hex escape at line 1 column 13"
        );
        assert_eq!(
            verdict("{\"a\":\"\n\"}"),
            "not JSON: control character (\\u0000-\\u001F) found while parsing a string at line 2 column 0"
        );
        assert_eq!(verdict(r#"{"a":1e400}"#), "not JSON: number out of range at line 1 column 10");
        assert_eq!(
            parse_object(b"{\"a\":\"\xff\"}", &Limits::CLAIMS),
            Err(JsonError::NotUtf8 { at: 6 })
        );
    }

    #[test]
    fn plain_is_what_ascii_prints() {
        for code in 0..=0x100_u32 {
            let text: String = ['a', char::from_u32(code).unwrap_or_default()].iter().collect();
            assert_eq!(is_plain(&text), (0x20..0x7f).contains(&code), "{text:?}");
        }
        assert!(is_plain(""));
    }

    #[test]
    fn integers_keep_their_64_bits() -> Result<(), JsonError> {
        let text = br#"{"u":18446744073709551615,"i":-9223372036854775808,"f":18446744073709551616,"e":1e3}"#;
        let read = parse_object(text, &Limits::CLAIMS)?;
        assert_eq!(read["u"].as_u64(), Some(u64::MAX));
        assert_eq!(read["i"].as_i64(), Some(i64::MIN));
        assert!(read["f"].is_f64() && read["e"].is_f64(), "{read:?}");
        Ok(())
    }

    #[test]
    fn a_refused_name_is_told_shortened_and_escaped() {
        let name = format!("\\u001b{}", "x".repeat(500));
        let told = verdict(&format!(r#"{{"{name}":1,"{name}":1}}"#));
        assert!(told.starts_with("found member `\\u{1b}xxx"), "{told}");
        assert!(told.len() < 120, "{told}");
    }
}
