//! A strict, spanned YAML document reader: one for the configuration and for the trust policies.
//!
//! `saphyr-parser` does the YAML. What is ours is what stands around it: one document, no anchors, no tags, no duplicate keys,
//! YAML 1.2 core scalars, a place for every node; and one declarative description ([`Shape`]) that serves the reader and
//! the published JSON Schema alike, so that there is one truth.

use std::{error::Error, fmt, sync::Arc};

mod node;
mod scalar;
mod schema;
mod shape;
mod similar;

pub use node::{Kind, Node, Place, Value};
pub use scalar::{parse_date, parse_duration};
pub use schema::schema;
pub use shape::{Field, Fields, Shape};
pub use similar::nearest;

/// What is wrong with a file, where, and what to do about it. Never holds the value of a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file as it was named by whoever loaded it.
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
    /// What was found and what was expected; lowercase, no full stop, one line.
    pub message: String,
    /// An action.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl Error for Problem {}

impl Problem {
    /// A problem at `place` of `file`, without a hint.
    pub fn at(file: &str, place: Place, message: impl Into<String>) -> Self {
        let (line, column) = (place.line, place.column);
        Self { file: file.to_owned(), line, column, message: message.into(), hint: None }
    }

    /// The same with a way out.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// A file that has the shape it was read with.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The name of the file, for messages.
    pub file: Arc<str>,
    /// Its content.
    pub root: Node,
}

impl Document {
    /// A problem at `node`.
    pub fn problem(&self, node: &Node, message: impl Into<String>) -> Problem {
        Problem::at(&self.file, node.place, message)
    }
}

/// Reads `text` as one YAML document of `shape`. `file` only names it in messages.
///
/// # Errors
/// Every problem of the file at once, in the order of their places: those of the YAML itself, or else those of its shape.
pub fn read(file: &str, text: &str, shape: &Shape) -> Result<Document, Vec<Problem>> {
    let root = node::parse(file, text)?;
    let mut problems = Vec::new();
    shape::check(file, &root, shape, &mut problems);
    if problems.is_empty() {
        return Ok(Document { file: file.into(), root });
    }
    problems.sort();
    Err(problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    static MODE: Shape = Shape::Choice(&[("enforce", "it counts"), ("shadow", "it is recorded")]);
    static INNER: Shape = Shape::Either(&[
        Shape::Text,
        Shape::List(&Shape::Text, 1),
        Shape::Map(&Fields {
            what: "a negation",
            fields: &[Field::required("not", "what must not hold", Shape::Named("inner", &INNER))],
        }),
        Shape::Table { value: &Shape::Text, reserved: &["not"], least: 1 },
    ]);
    static PERSON: Shape = Shape::Map(&Fields {
        what: "a person",
        fields: &[
            Field::required("version", "version of this format", Shape::Constant(1)),
            Field::required("name", "what it is called", Shape::Name),
            Field::optional("age", "in years", Shape::Integer(0, 150)),
            Field::optional("password", "never shown", Shape::Secret),
            Field::optional("lifetime", "how long", Shape::Duration),
            Field::optional("mode", "how", Shape::Choice(&[("enforce", "a"), ("shadow", "b")])),
            Field::optional("when", "conditions", Shape::Named("inner", &INNER)),
        ],
    });

    fn problems(text: &str) -> String {
        match read("p.yaml", text, &PERSON) {
            Ok(_) => "none".to_owned(),
            Err(found) => found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
        }
    }

    #[test]
    fn a_document_that_fits_is_read_with_places() {
        let text = "version: 1\nname: a/b\nwhen:\n  x: y\n";
        let document = read("p.yaml", text, &PERSON).unwrap();
        let when = document.root.find("when").unwrap();
        assert_eq!(document.root.key_place("when"), Some(Place { line: 3, column: 1 }));
        assert_eq!(when.key_place("x"), Some(Place { line: 4, column: 3 }));
        assert_eq!(when.find("x").unwrap().place, Place { line: 4, column: 6 });
        assert_eq!(when.place, Place { line: 4, column: 3 });
    }

    #[test]
    fn all_problems_of_the_shape_are_told_at_once() {
        let text =
            "version: 2\nnmae: x\nage: old\nlifetime: 15\nmode: shadwo\nwhen: {not: [], or: 1}\n";
        insta::assert_snapshot!(problems(text), @r"
        p.yaml:1:1: `name` is missing in a person
          hint: name: what it is called
        p.yaml:1:10: `version` is `2`, expected `1`
        p.yaml:2:1: `nmae` is not a key of a person
          hint: did you mean `name`?
        p.yaml:3:6: `age` is `old`, expected a number from 0 to 150
        p.yaml:4:11: `lifetime` is `15`, expected a length of time such as `90s`, `15m`, `1h` or `1d`
        p.yaml:5:7: `mode` is `shadwo`, expected `enforce` or `shadow`
          hint: did you mean `shadow`?
        p.yaml:6:13: `not` has 0 elements, expected at least 1
        p.yaml:6:17: `or` is not a key of a negation
          hint: expected `not`
        ");
    }

    #[test]
    fn a_secret_is_never_repeated() {
        let text = "version: 1\nname: x\npassword: 471147114711\n";
        insta::assert_snapshot!(problems(text), @r"
        p.yaml:3:11: `password` is a number, expected a text
          hint: put it in quotes
        ");
        insta::assert_snapshot!(problems("version: 1\nname: x\npassword: [hunter2]\n"), @"p.yaml:3:11: `password` is a list, expected a text");
    }

    #[test]
    fn what_can_surprise_a_reviewer_is_refused() {
        insta::assert_snapshot!(problems("version: 1\nname: x\nname: y\nage: 1\nage: 2\n"), @r"
        p.yaml:3:1: key `name` stands here a second time, first in line 2
          hint: tools disagree on which one counts: keep one
        p.yaml:5:1: key `age` stands here a second time, first in line 4
          hint: tools disagree on which one counts: keep one
        ");
        insta::assert_snapshot!(problems("version: &v 1\nname: *v\n"), @r"
        p.yaml:1:10: found an anchor or an alias (`&…`, `*…`), expected a value
          hint: write the value out: each line says what it means where it stands
        p.yaml:2:7: found an anchor or an alias (`&…`, `*…`), expected a value
          hint: write the value out: each line says what it means where it stands
        ");
        insta::assert_snapshot!(problems("version: !!int 1\nname: x\n"), @r"
        p.yaml:1:10: found a tag (`!…`), expected a plain value
          hint: remove the tag
        ");
        insta::assert_snapshot!(problems("version: 1\nname: x\n---\nversion: 1\n"), @r"
        p.yaml:3:1: found a second document, expected one
          hint: a second document would be read by some tools and not by others: use two files
        ");
        insta::assert_snapshot!(problems("1: x\n"), @r"
        p.yaml:1:1: key `1` is not a text
          hint: put it in quotes
        ");
        insta::assert_snapshot!(problems("[a]: x\n"), @"p.yaml:1:1: found a list or a map as a key, expected a text");
        insta::assert_snapshot!(problems("? {a: b}\n: x\n"), @"p.yaml:1:3: found a list or a map as a key, expected a text");
        insta::assert_snapshot!(problems("name: \"x\n"), @"p.yaml:1:7: not YAML: while scanning a quoted scalar, found unexpected end of stream");
        insta::assert_snapshot!(problems("a: b: c\n"), @"p.yaml:1:5: not YAML: mapping values are not allowed in this context");
        insta::assert_snapshot!(problems(""), @"p.yaml:1:1: file is empty, expected a document");
        insta::assert_snapshot!(problems("# nothing\n"), @"p.yaml:1:1: file is empty, expected a document");
        insta::assert_snapshot!(problems("name:\nversion: 1\n"), @"p.yaml:1:5: `name` is empty, expected a name of letters, digits, `-`, `_`, `.` and `/`");
        insta::assert_snapshot!(problems("- a\n"), @"p.yaml:1:1: the document is a list, expected a person (a map)");
        insta::assert_snapshot!(problems("version: 123456789012345678901234567890\nname: x\n"), @r"
        p.yaml:1:10: number does not fit in 64 bits
          hint: put an id in quotes
        ");
    }

    #[test]
    fn bombs_are_refused_within_bounds() {
        insta::assert_snapshot!(problems(&"[".repeat(100_000)), @"p.yaml:1:256: not YAML: recursion limit exceeded");
        insta::assert_snapshot!(problems("a: ["), @"p.yaml:2:1: not YAML: while parsing a node, did not find expected node content");
        insta::assert_snapshot!(problems(&format!("[{}]", "a,".repeat(600_000))), @"p.yaml:1:1000002: file has more than 500000 values");
        insta::assert_snapshot!(problems(&" ".repeat(5_000_000)), @"p.yaml:1:1: file has 5000000 bytes, expected at most 4194304");
    }

    #[test]
    fn a_shape_that_holds_itself_has_a_schema() {
        let schema = schema("a person", &PERSON);
        assert_eq!(
            schema["$defs"]["inner"]["anyOf"][2]["properties"]["not"]["$ref"],
            "#/$defs/inner"
        );
        assert_eq!(schema["properties"]["mode"]["oneOf"][1]["const"], "shadow");
        assert_eq!(schema["required"], serde_json::json!(["version", "name"]));
        assert_eq!(serde_json::json!(super::schema("m", &MODE))["title"], "m");
    }
}
