//! Events → [`Node`] tree. Everything of YAML that can surprise a reviewer is refused here.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::{Problem, scalar};

/// The longest file: more is a bomb or a mistake.
const LONGEST_FILE_BYTES: usize = 4 * 1024 * 1024;
/// The most nodes of one file: bounds memory at some tens of megabytes.
const MOST_NODES: usize = 500_000;
/// The deepest nesting. Everything that walks a tree by recursion relies on it.
const DEEPEST: usize = 32;

/// Where something stands: both counted from 1, the column in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// A value and the place where it begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where.
    pub place: Place,
    /// What.
    pub value: Value,
}

/// A value of the YAML 1.2 core schema.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false`; never `yes`, `no`, `on`, `off`.
    Boolean(bool),
    /// From the least `i64` to the greatest `u64`; the text as written stands beside it.
    Integer(i128, String),
    /// A number with a fraction or an exponent, as written. No shape of ours wants one.
    Float(String),
    /// A string.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping in the order of the file: (key, its place, value).
    Map(Vec<(String, Place, Node)>),
}

/// The kind of a value, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Null,
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer,
    /// Another number.
    Float,
    /// A string.
    Text,
    /// A list.
    List,
    /// A map.
    Map,
}

impl Kind {
    /// The kind with its article, in the reader's words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Null => "empty",
            Self::Boolean => "a boolean",
            Self::Integer => "a number",
            Self::Float => "a fraction",
            Self::Text => "a text",
            Self::List => "a list",
            Self::Map => "a map",
        }
    }
}

impl Node {
    /// The kind of the value.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self.value {
            Value::Null => Kind::Null,
            Value::Boolean(_) => Kind::Boolean,
            Value::Integer(..) => Kind::Integer,
            Value::Float(_) => Kind::Float,
            Value::Text(_) => Kind::Text,
            Value::List(_) => Kind::List,
            Value::Map(_) => Kind::Map,
        }
    }

    /// The value of `key`, where this is a map that has it.
    #[must_use]
    pub fn find(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find(|(name, ..)| name == key).map(|(.., node)| node)
    }

    /// Where `key` itself stands, where this is a map that has it.
    #[must_use]
    pub fn key_place(&self, key: &str) -> Option<Place> {
        self.entries().iter().find(|(name, ..)| name == key).map(|(_, place, _)| *place)
    }

    /// The entries of a map; none of anything else.
    #[must_use]
    pub fn entries(&self) -> &[(String, Place, Self)] {
        if let Value::Map(entries) = &self.value { entries } else { &[] }
    }

    /// The elements of a list; none of anything else.
    #[must_use]
    pub fn elements(&self) -> &[Self] {
        if let Value::List(elements) = &self.value { elements } else { &[] }
    }

    /// The string, if it is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        if let Value::Text(text) = &self.value { Some(text) } else { None }
    }

    /// The whole number, if it is one.
    #[must_use]
    pub const fn integer(&self) -> Option<i128> {
        if let Value::Integer(integer, _) = self.value { Some(integer) } else { None }
    }

    /// `true` or `false`, if it is one.
    #[must_use]
    pub const fn boolean(&self) -> Option<bool> {
        if let Value::Boolean(boolean) = self.value { Some(boolean) } else { None }
    }

    /// The length of time, if it is written as one (`15m`).
    #[must_use]
    pub fn duration(&self) -> Option<std::time::Duration> {
        self.text().and_then(scalar::parse_duration)
    }
}

enum Open {
    List(Place, Vec<Node>),
    Map {
        place: Place,
        entries: Vec<(String, Place, Node)>,
        seen: HashMap<String, Place>,
        pending: Option<(String, Place)>,
    },
}

struct Builder<'a> {
    file: &'a str,
    open: Vec<Open>,
    root: Option<Node>,
    nodes: usize,
    problems: Vec<Problem>,
}

/// What ends the reading of a file at once.
struct Stop;

/// The tree of `text`.
pub(super) fn parse(file: &str, text: &str) -> Result<Node, Vec<Problem>> {
    let start = Place { line: 1, column: 1 };
    if text.len() > LONGEST_FILE_BYTES {
        let message =
            format!("file has {} bytes, expected at most {LONGEST_FILE_BYTES}", text.len());
        return Err(vec![Problem::at(file, start, message)]);
    }
    let mut builder =
        Builder { file, open: Vec::new(), root: None, nodes: 0, problems: Vec::new() };
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let taken = match event {
            Ok((event, span)) => builder.take(event, span),
            Err(error) => {
                let marker = error.marker();
                let place = Place { line: marker.line(), column: marker.col().saturating_add(1) };
                builder.problem(place, format!("not YAML: {}", error.info()), None);
                Err(Stop)
            }
        };
        if taken.is_err() {
            break;
        }
    }
    if builder.problems.is_empty() {
        return match builder.root {
            Some(root) => Ok(root),
            None => Err(vec![Problem::at(file, start, "file is empty, expected a document")]),
        };
    }
    builder.problems.sort();
    Err(builder.problems)
}

impl Builder<'_> {
    fn problem(&mut self, place: Place, message: impl Into<String>, hint: Option<&str>) {
        let mut problem = Problem::at(self.file, place, message);
        problem.hint = hint.map(ToOwned::to_owned);
        self.problems.push(problem);
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Stop> {
        let place = Place { line: span.start.line(), column: span.start.col().saturating_add(1) };
        match event {
            Event::DocumentStart(_) if self.root.is_some() => {
                let hint = "a second document would be read by some tools and not by others: use two files";
                self.problem(place, "found a second document, expected one", Some(hint));
                Err(Stop)
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
            Event::Alias(_) => {
                self.no_reference(place);
                self.close(Node { place, value: Value::Null })
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.plainly(place, anchor, tag.as_deref());
                self.scalar(place, &text, style)
            }
            Event::SequenceStart(anchor, tag) => {
                self.plainly(place, anchor, tag.as_deref());
                self.descend(place, Open::List(place, Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.plainly(place, anchor, tag.as_deref());
                let (entries, seen) = (Vec::new(), HashMap::new());
                self.descend(place, Open::Map { place, entries, seen, pending: None })
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List(place, list)) => {
                    self.close(Node { place, value: Value::List(list) })
                }
                Some(Open::Map { place, entries, .. }) => {
                    self.close(Node { place, value: Value::Map(entries) })
                }
                None => Err(Stop),
            },
        }
    }

    /// An anchor makes the meaning of one line depend on another one far away; a tag makes it depend on the tool.
    fn plainly(&mut self, place: Place, anchor: usize, tag: Option<&Tag>) {
        if anchor != 0 {
            self.no_reference(place);
        }
        if tag.is_some() {
            self.problem(
                place,
                "found a tag (`!…`), expected a plain value",
                Some("remove the tag"),
            );
        }
    }

    fn no_reference(&mut self, place: Place) {
        let hint = "write the value out: each line says what it means where it stands";
        self.problem(
            place,
            "found an anchor or an alias (`&…`, `*…`), expected a value",
            Some(hint),
        );
    }

    fn scalar(&mut self, place: Place, text: &str, style: ScalarStyle) -> Result<(), Stop> {
        let value = match style {
            ScalarStyle::Plain => scalar::resolve(text),
            ScalarStyle::SingleQuoted
            | ScalarStyle::DoubleQuoted
            | ScalarStyle::Literal
            | ScalarStyle::Folded => Value::Text(text.to_owned()),
        };
        if let Some(Open::Map { seen, pending: pending @ None, .. }) = self.open.last_mut() {
            let Value::Text(key) = value else {
                let message = format!("key `{text}` is not a text");
                self.problem(place, message, Some("put it in quotes"));
                return Err(Stop);
            };
            let earlier = seen.insert(key.clone(), place);
            *pending = Some((key.clone(), place));
            if let Some(earlier) = earlier {
                let message = format!(
                    "key `{key}` stands here a second time, first in line {}",
                    earlier.line
                );
                self.problem(place, message, Some("tools disagree on which one counts: keep one"));
            }
            return Ok(());
        }
        if let Value::Integer(integer, _) = &value
            && (*integer < i128::from(i64::MIN) || *integer > i128::from(u64::MAX))
        {
            self.problem(place, "number does not fit in 64 bits", Some("put an id in quotes"));
        }
        self.close(Node { place, value })
    }

    fn descend(&mut self, place: Place, open: Open) -> Result<(), Stop> {
        if matches!(self.open.last(), Some(Open::Map { pending: None, .. })) {
            self.problem(place, "found a list or a map as a key, expected a text", None);
            return Err(Stop);
        }
        self.open.push(open);
        if self.open.len() > DEEPEST {
            self.problem(place, format!("nested more than {DEEPEST} levels deep"), None);
            return Err(Stop);
        }
        Ok(())
    }

    /// Puts a finished node where it belongs.
    fn close(&mut self, node: Node) -> Result<(), Stop> {
        self.nodes = self.nodes.saturating_add(1);
        if self.nodes > MOST_NODES {
            self.problem(node.place, format!("file has more than {MOST_NODES} values"), None);
            return Err(Stop);
        }
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List(_, list)) => list.push(node),
            Some(Open::Map { entries, pending, .. }) => {
                let Some((key, place)) = pending.take() else {
                    self.problem(node.place, "found an alias as a key, expected a text", None);
                    return Err(Stop);
                };
                entries.push((key, place, node));
            }
        }
        Ok(())
    }
}
