//! Conditions: one claim, one test. A missing, an empty or an otherwise typed claim never holds, not even for `not`.

use std::fmt;

use serde_json::{Map, Value};

use super::pattern::Pattern;
use crate::subject::Claims;

/// One line of a `when`, compiled.
#[derive(Clone, Debug)]
pub(in crate::policy) struct Condition {
    /// The claim as the policy names it: `ref`, `job_workflow.path`, `/kubernetes.io/pod/name`.
    pub(in crate::policy) label: String,
    /// The names on the way to the value.
    pub(in crate::policy) path: Vec<String>,
    /// What must be true of the value.
    pub(in crate::policy) test: Test,
    /// Whether texts are compared without ASCII case: names of a preset that says so, never ids (threat C09).
    pub(in crate::policy) folded: bool,
    /// Not written by anybody: the default against dangerous values (threat C06).
    pub(in crate::policy) implied: bool,
}

/// What must be true of a claim's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) enum Test {
    /// The scalar is one of these.
    OneOf(Vec<Item>),
    /// The scalar is none of these.
    NoneOf(Vec<Item>),
    /// The list has an element that is one of these.
    Any(Vec<Item>),
    /// The list has, for each of these, an element that is it.
    All(Vec<Item>),
    /// The list, which is not empty, has no element that is one of these.
    Without(Vec<Item>),
}

/// A value or a pattern for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) enum Item {
    /// This text.
    Text(String),
    /// This number; 64-bit safe on both sides.
    Integer(i128),
    /// `true` or `false`.
    Boolean(bool),
    /// A text that fits.
    Glob(Pattern),
}

impl Condition {
    /// Whether the claim is there and what the test says of it.
    pub(in crate::policy) fn holds(&self, claims: &Claims) -> bool {
        self.value(claims).is_some_and(|value| self.test.holds(value, self.folded))
    }

    /// The claim's value; `None` also where it says nothing: `null`, an empty text, list or object.
    pub(in crate::policy) fn value<'a>(&self, claims: &'a Claims) -> Option<&'a Value> {
        walk(claims, &self.path).filter(|value| !says_nothing(value))
    }

    /// The texts and numbers that the claim must equal one of, where the test says exactly that.
    pub(in crate::policy) fn equals(&self) -> Option<&[Item]> {
        match &self.test {
            Test::OneOf(items) if items.iter().all(|item| !matches!(item, Item::Glob(_))) => {
                Some(items)
            }
            Test::OneOf(_) | Test::NoneOf(_) | Test::Any(_) | Test::All(_) | Test::Without(_) => {
                None
            }
        }
    }

    /// What was wanted, for people.
    pub(in crate::policy) fn wanted(&self) -> String {
        if self.implied {
            return "any value but those that a rule must name".to_owned();
        }
        self.test.to_string()
    }

    /// What the token has, for people: escaped and short.
    pub(in crate::policy) fn got(&self, claims: &Claims) -> String {
        match walk(claims, &self.path) {
            None | Some(Value::Null) => "nothing".to_owned(),
            Some(Value::String(text)) if text.is_empty() => "an empty text".to_owned(),
            Some(Value::String(text)) => format!("`{}`", shortened(text)),
            Some(Value::Array(list)) => format!("the list `{}`", shortened(&plain(list))),
            Some(Value::Object(_)) => "an object".to_owned(),
            Some(Value::Number(number)) => format!("the number `{number}`"),
            Some(Value::Bool(boolean)) => format!("the boolean `{boolean}`"),
        }
    }
}

impl Test {
    /// The texts that the scalar may be; patterns are none.
    pub(in crate::policy) fn wanted_texts(&self) -> impl Iterator<Item = &str> {
        let items = if let Self::OneOf(items) = self { items.as_slice() } else { &[] };
        items.iter().filter_map(|item| match item {
            Item::Text(text) => Some(text.as_str()),
            Item::Integer(_) | Item::Boolean(_) | Item::Glob(_) => None,
        })
    }

    fn holds(&self, value: &Value, folded: bool) -> bool {
        let is_one =
            |items: &[Item], value: &Value| items.iter().any(|item| item.is(value, folded));
        match (self, value) {
            (Self::OneOf(items), Value::String(_) | Value::Number(_) | Value::Bool(_)) => {
                is_one(items, value)
            }
            // A number can't be told from a text by `not`: a changed type must not open anything (threat C18).
            (Self::NoneOf(items), Value::String(_) | Value::Number(_) | Value::Bool(_)) => {
                items.iter().all(|item| item.same_type(value)) && !is_one(items, value)
            }
            (Self::Any(items), Value::Array(list)) => list.iter().any(|value| is_one(items, value)),
            (Self::All(items), Value::Array(list)) => {
                items.iter().all(|item| list.iter().any(|value| item.is(value, folded)))
            }
            (Self::Without(items), Value::Array(list)) => list.iter().all(|value| {
                items.iter().all(|item| item.same_type(value)) && !is_one(items, value)
            }),
            _ => false,
        }
    }
}

impl Item {
    fn is(&self, value: &Value, folded: bool) -> bool {
        match (self, value) {
            (Self::Text(want), Value::String(got)) => {
                want == got || (folded && want.eq_ignore_ascii_case(got))
            }
            (Self::Glob(pattern), Value::String(got)) => pattern.fits(got, folded),
            (Self::Integer(want), Value::Number(_)) => integer(value) == Some(*want),
            (Self::Boolean(want), Value::Bool(got)) => want == got,
            _ => false,
        }
    }

    fn same_type(&self, value: &Value) -> bool {
        match self {
            Self::Text(_) | Self::Glob(_) => value.is_string(),
            Self::Integer(_) => integer(value).is_some(),
            Self::Boolean(_) => value.is_boolean(),
        }
    }
}

/// A whole number of JSON; `None` for fractions, which equal nothing.
pub(in crate::policy) fn integer(value: &Value) -> Option<i128> {
    value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from))
}

/// The value at the end of `path`, through objects only.
pub(in crate::policy) fn walk<'a>(
    claims: &'a Map<String, Value>,
    path: &[String],
) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(claims.get(first)?, |value, name| value.as_object()?.get(name))
}

fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn plain(list: &[Value]) -> String {
    let words: Vec<String> = list
        .iter()
        .map(|value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned))
        .collect();
    words.join(", ")
}

/// A stranger's text, so that it can't write lines or colours into ours (threat C20's cousin in logs).
pub(in crate::policy) fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(120).flat_map(char::escape_debug).collect();
    if text.chars().nth(120).is_some() {
        short.push('…');
    }
    short
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "`{}`", shortened(text)),
            Self::Integer(integer) => write!(f, "the number `{integer}`"),
            Self::Boolean(boolean) => write!(f, "the boolean `{boolean}`"),
            Self::Glob(pattern) => write!(f, "the pattern `{pattern}`"),
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, items, joint) = match self {
            Self::OneOf(items) => ("", items, " or "),
            Self::NoneOf(items) => ("anything but ", items, " or "),
            Self::Any(items) => ("a list with ", items, " or "),
            Self::All(items) => ("a list with ", items, " and "),
            Self::Without(items) => ("a list without ", items, " or "),
        };
        f.write_str(before)?;
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                f.write_str(joint)?;
            }
            write!(f, "{item}")?;
        }
        Ok(())
    }
}
