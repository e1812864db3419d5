//! One declarative description of what a file may say. The reader checks with it; `schema.rs` publishes it.

use super::{Kind, Node, Place, Problem, Value, nearest, parse_date, parse_duration};

/// What a value may be.
#[derive(Debug)]
pub enum Shape {
    /// Any non-empty string.
    Text,
    /// Any non-empty string, which no message ever repeats.
    Secret,
    /// A name: 1 to 128 letters, digits, `-`, `_`, `.` and `/`, beginning with a letter or a digit.
    Name,
    /// A whole number between the two, both included.
    Integer(i64, i64),
    /// A whole number of 64 bits, signed or unsigned.
    Number,
    /// `true` or `false`.
    Boolean,
    /// Only this number.
    Constant(i64),
    /// Only `true`.
    True,
    /// A whole number and one of `s`, `m`, `h`, `d`; more than zero.
    Duration,
    /// A day in UTC: `2027-01-31`.
    Date,
    /// One of these words: (word, what it means).
    Choice(&'static [(&'static str, &'static str)]),
    /// At least so many values of one shape.
    List(&'static Shape, usize),
    /// A map with these keys and no others.
    Map(&'static Fields),
    /// A map whose keys are free (but for the reserved ones), with values of one shape, and at least so many of them.
    Table {
        /// What the values are.
        value: &'static Shape,
        /// Keys that have another meaning in this place.
        reserved: &'static [&'static str],
        /// How many entries at least.
        least: usize,
    },
    /// A map whose keys depend on the word that stands under `tag`: (word, the whole map, `tag` included).
    Tagged {
        /// The key that decides.
        tag: &'static str,
        /// What it decides between.
        cases: &'static [(&'static str, &'static Fields)],
    },
    /// The first of these that fits by kind; between maps, the first of which some required key is there.
    Either(&'static [Shape]),
    /// Described once under its name: the way for shapes to hold themselves.
    Named(&'static str, &'static Shape),
    /// Any value at all.
    Any,
}

/// A closed map.
#[derive(Debug)]
pub struct Fields {
    /// What it describes, with its article: `a rule`.
    pub what: &'static str,
    /// Its keys.
    pub fields: &'static [Field],
}

/// One key of a closed map.
#[derive(Debug)]
pub struct Field {
    /// The key.
    pub name: &'static str,
    /// Whether it must be there. What may be left out is safe when absent.
    pub required: bool,
    /// One line for the reader of an error, of the schema and of the documentation.
    pub doc: &'static str,
    /// What its value may be.
    pub shape: Shape,
}

impl Field {
    /// A key that must be there.
    #[must_use]
    pub const fn required(name: &'static str, doc: &'static str, shape: Shape) -> Self {
        Self { name, required: true, doc, shape }
    }

    /// A key that may be left out.
    #[must_use]
    pub const fn optional(name: &'static str, doc: &'static str, shape: Shape) -> Self {
        Self { name, required: false, doc, shape }
    }
}

/// Whether `text` is a [`Shape::Name`].
pub(super) fn is_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    text.len() <= 128
        && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && text.bytes().all(fits)
}

/// Pushes every problem that `node` has with `shape`. Recursion is bounded by the depth of the tree, which is.
pub(super) fn check(file: &str, node: &Node, shape: &Shape, problems: &mut Vec<Problem>) {
    Check { file, problems }.value(node, shape, "the document");
}

struct Check<'a> {
    file: &'a str,
    problems: &'a mut Vec<Problem>,
}

impl Check<'_> {
    fn problem(&mut self, place: Place, message: String, hint: Option<String>) {
        let mut problem = Problem::at(self.file, place, message);
        problem.hint = hint;
        self.problems.push(problem);
    }

    fn value(&mut self, node: &Node, shape: &Shape, label: &str) {
        match (shape, &node.value) {
            (Shape::Any, _)
            | (Shape::Number, Value::Integer(..))
            | (Shape::Boolean, Value::Boolean(_))
            | (Shape::True, Value::Boolean(true)) => {}
            (Shape::Named(_, inner), _) => self.value(node, inner, label),
            (Shape::Either(shapes), _) => match shapes.iter().find(|shape| shape.fits(node)) {
                Some(fitting) => self.value(node, fitting, label),
                None => self.expected(node, shape, label),
            },
            (Shape::Text | Shape::Secret, Value::Text(text)) if !text.is_empty() => {}
            (Shape::Name, Value::Text(text)) if is_name(text) => {}
            (Shape::Duration, Value::Text(text))
                if parse_duration(text).is_some_and(|duration| !duration.is_zero()) => {}
            (Shape::Date, Value::Text(text)) if parse_date(text).is_some() => {}
            (Shape::Integer(least, most), Value::Integer(integer, _))
                if (i128::from(*least)..=i128::from(*most)).contains(integer) => {}
            (Shape::Constant(wanted), Value::Integer(integer, _))
                if i128::from(*wanted) == *integer => {}
            (Shape::Choice(words), Value::Text(text)) => {
                if !words.iter().any(|(word, _)| word == text) {
                    let hint = nearest(text, words.iter().map(|(word, _)| *word))
                        .map(|word| format!("did you mean `{word}`?"));
                    let message = format!("{label} is {}, expected {}", shown(node), shape.words());
                    self.problem(node.place, message, hint);
                }
            }
            (Shape::List(element, least), Value::List(list)) => {
                if list.len() < *least {
                    let message =
                        format!("{label} has {} elements, expected at least {least}", list.len());
                    self.problem(node.place, message, None);
                }
                let label = format!("an element of {label}");
                for node in list {
                    self.value(node, element, &label);
                }
            }
            (Shape::Map(fields), Value::Map(_)) => self.fields(node, fields),
            (Shape::Table { value, least, .. }, Value::Map(entries)) => {
                if entries.len() < *least {
                    let message =
                        format!("{label} has {} keys, expected at least {least}", entries.len());
                    self.problem(node.place, message, None);
                }
                for (key, _, node) in entries {
                    self.value(node, value, &format!("`{key}`"));
                }
            }
            (Shape::Tagged { tag, cases }, Value::Map(_)) => self.tagged(node, tag, cases, label),
            _ => self.expected(node, shape, label),
        }
    }

    fn tagged(&mut self, node: &Node, tag: &str, cases: &[(&str, &Fields)], label: &str) {
        let words = || one_of(cases.iter().map(|(word, _)| *word));
        let Some(found) = node.find(tag) else {
            let message = format!("`{tag}` is missing in {label}, expected {}", words());
            return self.problem(node.place, message, None);
        };
        let known = found.text().and_then(|text| cases.iter().find(|(word, _)| *word == text));
        if let Some((_, fields)) = known {
            return self.fields(node, fields);
        }
        let hint = found
            .text()
            .and_then(|text| nearest(text, cases.iter().map(|(word, _)| *word)))
            .map(|word| format!("did you mean `{word}`?"));
        let message = format!("`{tag}` is {}, expected {}", shown(found), words());
        self.problem(found.place, message, hint);
    }

    fn fields(&mut self, node: &Node, Fields { what, fields }: &Fields) {
        for (key, place, value) in node.entries() {
            if let Some(field) = fields.iter().find(|field| field.name == key) {
                self.value(value, &field.shape, &format!("`{key}`"));
                continue;
            }
            let names = || fields.iter().map(|field| field.name);
            let hint = match nearest(key, names()) {
                Some(name) => format!("did you mean `{name}`?"),
                None => format!("expected {}", one_of(names())),
            };
            self.problem(*place, format!("`{key}` is not a key of {what}"), Some(hint));
        }
        for field in fields.iter().filter(|field| field.required) {
            if node.find(field.name).is_none() {
                let message = format!("`{}` is missing in {what}", field.name);
                self.problem(node.place, message, Some(format!("{}: {}", field.name, field.doc)));
            }
        }
    }

    fn expected(&mut self, node: &Node, shape: &Shape, label: &str) {
        let found = if shape.is_secret() { node.kind().words().to_owned() } else { shown(node) };
        let hint = match (shape.wants_text(), &node.value) {
            (true, Value::Integer(_, text) | Value::Float(text)) if !shape.is_secret() => {
                Some(format!("put it in quotes: \"{text}\""))
            }
            (true, Value::Integer(..) | Value::Float(_) | Value::Boolean(_)) => {
                Some("put it in quotes".to_owned())
            }
            _ => None,
        };
        self.problem(node.place, format!("{label} is {found}, expected {}", shape.words()), hint);
    }
}

impl Shape {
    /// Whether a value of the node's kind could be meant as this shape.
    fn fits(&self, node: &Node) -> bool {
        match self {
            Self::Any => true,
            Self::Text
            | Self::Secret
            | Self::Name
            | Self::Duration
            | Self::Date
            | Self::Choice(_) => node.kind() == Kind::Text,
            Self::Integer(..) | Self::Number | Self::Constant(_) => node.kind() == Kind::Integer,
            Self::Boolean | Self::True => node.kind() == Kind::Boolean,
            Self::List(..) => node.kind() == Kind::List,
            Self::Map(fields) => {
                fields.fields.iter().any(|field| field.required && node.find(field.name).is_some())
            }
            Self::Table { reserved, .. } => {
                node.kind() == Kind::Map && !reserved.iter().any(|key| node.find(key).is_some())
            }
            Self::Tagged { tag, .. } => node.find(tag).is_some(),
            Self::Either(shapes) => shapes.iter().any(|shape| shape.fits(node)),
            Self::Named(_, shape) => shape.fits(node),
        }
    }

    fn is_secret(&self) -> bool {
        if let Self::Either(shapes) = self {
            return shapes.iter().any(Self::is_secret);
        }
        if let Self::List(shape, _) | Self::Named(_, shape) = self {
            return shape.is_secret();
        }
        matches!(self, Self::Secret)
    }

    const fn wants_text(&self) -> bool {
        matches!(self, Self::Text | Self::Secret | Self::Name | Self::Choice(_))
    }

    /// What is expected, in the reader's words.
    fn words(&self) -> String {
        match self {
            Self::Text | Self::Secret => "a text".to_owned(),
            Self::Name => "a name of letters, digits, `-`, `_`, `.` and `/`".to_owned(),
            Self::Integer(least, most) => format!("a number from {least} to {most}"),
            Self::Number => "a number".to_owned(),
            Self::Boolean => "`true` or `false`".to_owned(),
            Self::Constant(number) => format!("`{number}`"),
            Self::True => "`true`".to_owned(),
            Self::Duration => "a length of time such as `90s`, `15m`, `1h` or `1d`".to_owned(),
            Self::Date => "a day such as `2027-01-31`".to_owned(),
            Self::Choice(words) => one_of(words.iter().map(|(word, _)| *word)),
            Self::List(..) => "a list".to_owned(),
            Self::Map(fields) => format!("{} (a map)", fields.what),
            Self::Table { .. } | Self::Tagged { .. } => "a map".to_owned(),
            Self::Either(shapes) => {
                let mut words: Vec<String> = Vec::new();
                for shape in *shapes {
                    let word = if matches!(shape, Self::Map(_)) {
                        "a map".to_owned()
                    } else {
                        shape.words()
                    };
                    if !words.contains(&word) {
                        words.push(word);
                    }
                }
                words.join(" or ")
            }
            Self::Named(_, shape) => shape.words(),
            Self::Any => "a value".to_owned(),
        }
    }
}

/// `` `a`, `b` or `c` ``.
fn one_of<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let mut words: Vec<String> = words.map(|word| format!("`{word}`")).collect();
    match (words.pop(), words.is_empty()) {
        (None, _) => "nothing".to_owned(),
        (Some(last), true) => last,
        (Some(last), false) => format!("{} or {last}", words.join(", ")),
    }
}

/// A value as a message repeats it: short, and only where it is not a secret.
fn shown(node: &Node) -> String {
    match &node.value {
        Value::Text(text) if text.is_empty() => "empty".to_owned(),
        Value::Text(text) | Value::Integer(_, text) | Value::Float(text) => {
            let short: String = text.chars().take(60).collect();
            let more = if short.len() < text.len() { "…" } else { "" };
            format!("`{}{more}`", short.escape_debug())
        }
        Value::Boolean(boolean) => format!("`{boolean}`"),
        Value::Null | Value::List(_) | Value::Map(_) => node.kind().words().to_owned(),
    }
}
