//! What a claim is: its type, and how far it keeps its meaning.

use serde_json::Value;

use crate::subject::json::kind;

/// What a claim's value is. `null` is what GitLab sends for an absent value, and the empty text what GitHub sends: both pass the
/// check of types, and no condition holds on either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimType {
    /// A string.
    Text,
    /// A string that holds only decimal digits.
    NumericText,
    /// `"true"` or `"false"` as a string, as CI platforms send it.
    BooleanText,
    /// A 64-bit integer.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// A list of strings.
    TextList,
    /// An object; its members are named `claim: { member: … }` in policies, or by JSON Pointer.
    Object,
    /// Anything: only JSON Pointer conditions of the matching type hold.
    Any,
}

/// Who can change a claim's value, and whether it can come to mean somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stability {
    /// Never reused for anything else: an id.
    Immutable,
    /// A name that can be renamed, deleted and taken by a stranger.
    Reusable,
    /// Whoever can push, open a pull request or write the job's definition chooses it.
    ChosenByJob,
    /// A fact of the run that the platform decides.
    Platform,
}

/// One claim of a preset.
#[derive(Clone, Copy, Debug)]
pub struct ClaimSpec {
    /// Its name in policies. One that ends in `*` stands for all names that begin so (`repo_property_*`).
    pub name: &'static str,
    /// Its value.
    pub kind: ClaimType,
    /// How far it can be trusted to keep its meaning.
    pub stability: Stability,
    /// One line for `policy init`, `policy check` and the documentation.
    pub meaning: &'static str,
}

impl ClaimSpec {
    /// A claim called `name`.
    pub(super) const fn new(
        name: &'static str,
        kind: ClaimType,
        stability: Stability,
        meaning: &'static str,
    ) -> Self {
        Self { name, kind, stability, meaning }
    }

    pub(super) fn is_of(&self, name: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => self.name == name,
        }
    }
}

impl ClaimType {
    pub(super) fn admits(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Any, _)
            | (_, Value::Null)
            | (Self::Text, Value::String(_))
            | (Self::Boolean, Value::Bool(_))
            | (Self::Object, Value::Object(_)) => true,
            (Self::NumericText, Value::String(text)) => {
                text.bytes().all(|byte| byte.is_ascii_digit())
            }
            (Self::BooleanText, Value::String(text)) => {
                matches!(text.as_str(), "" | "true" | "false")
            }
            (Self::Integer, Value::Number(number)) => number.is_i64() || number.is_u64(),
            (Self::TextList, Value::Array(list)) => list.iter().all(Value::is_string),
            (
                Self::Text
                | Self::NumericText
                | Self::BooleanText
                | Self::Integer
                | Self::Boolean
                | Self::TextList
                | Self::Object,
                _,
            ) => false,
        }
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::NumericText => "text of decimal digits",
            Self::BooleanText => "the text `true` or `false`",
            Self::Integer => "an integer",
            Self::Boolean => "`true` or `false`",
            Self::TextList => "a list of texts",
            Self::Object => "an object",
            Self::Any => "anything",
        }
    }
}

/// A value as a message shows it: short and escaped, or its kind alone.
pub(super) fn described(value: &Value) -> String {
    match value.as_str() {
        Some(text) => {
            format!("`{}`", text.chars().take(64).flat_map(char::escape_debug).collect::<String>())
        }
        None => kind(value).to_owned(),
    }
}
