//! The field tables as Markdown: `docs/configuration.md` is generated from what the reader reads with.

use crate::yaml::{Field, Fields, Shape};

const HEAD: &str = "\
# Configuration

<!-- Generated from the field tables of `src/config/`; a test compares. Regenerate: CAMBIO_BLESS=1 cargo test --test it shipped -->

One YAML file (1.2 core, strict): unknown and duplicate keys, anchors, tags and a second document are refused, and all
problems are told at once, each with its line, column and a way out. `cambio config check FILE` judges a file without
starting anything. `deploy/cambio.example.yaml` is a whole one; `deploy/cambio.schema.json` serves editors.

- Relative paths start in the directory of the configuration file. Directories must exist.
- A length of time is a whole number and one of `s`, `m`, `h`, `d`.
- Secrets are named by file (mode 0600 or 0400), never written here and never taken from the environment.
- What has no safe default has none: it is marked *required*.
- Plain http and loopback issuers exist in `cambio dev` alone.
";

/// The page of `fields` and of everything below them.
pub(super) fn of(fields: &'static Fields) -> String {
    format!("{HEAD}{}", tables(fields))
}

/// The tables of `fields` and of everything below them, without a head.
pub(super) fn tables(fields: &'static Fields) -> String {
    let mut page = String::new();
    let mut below = vec![(String::new(), fields)];
    while !below.is_empty() {
        let mut next = Vec::new();
        for (path, fields) in below.drain(..) {
            section(&mut page, &path, fields, &mut next);
        }
        below = next;
    }
    page
}

fn section(page: &mut String, path: &str, fields: &'static Fields, next: &mut Vec<Found>) {
    let title = if path.is_empty() { "The file".to_owned() } else { format!("`{path}`") };
    page.extend(["\n## ", &title, "\n\n| setting | value | meaning |\n|---|---|---|\n"]);
    for field in fields.fields {
        page.push_str(&row(field));
        let path =
            if path.is_empty() { field.name.to_owned() } else { format!("{path}.{}", field.name) };
        nested(&path, &field.shape, next);
    }
}

fn row(field: &Field) -> String {
    let required = if field.required { "*required* " } else { "" };
    format!("| `{}` | {required}{} | {} |\n", field.name, words(&field.shape), field.doc)
}

/// A map to describe, and where it stands.
type Found = (String, &'static Fields);

fn nested(path: &str, shape: &'static Shape, next: &mut Vec<Found>) {
    match shape {
        Shape::Map(fields) => next.push((path.to_owned(), fields)),
        Shape::List(element, _) => nested(&format!("{path}[]"), element, next),
        Shape::Table { value, .. } => nested(&format!("{path}.<name>"), value, next),
        Shape::Tagged { tag, cases } => {
            for (word, fields) in *cases {
                next.push((format!("{path} ({tag}: {word})"), fields));
            }
        }
        Shape::Either(shapes) => shapes.iter().for_each(|shape| nested(path, shape, next)),
        Shape::Named(_, shape) => nested(path, shape, next),
        Shape::Text
        | Shape::Secret
        | Shape::Name
        | Shape::Integer(..)
        | Shape::Number
        | Shape::Boolean
        | Shape::Constant(_)
        | Shape::True
        | Shape::Duration
        | Shape::Date
        | Shape::Choice(_)
        | Shape::Any => {}
    }
}

fn words(shape: &Shape) -> String {
    match shape {
        Shape::Text => "text".to_owned(),
        Shape::Secret => "path of a secret file".to_owned(),
        Shape::Name => "name".to_owned(),
        Shape::Integer(least, most) => format!("number from {least} to {most}"),
        Shape::Number => "whole number".to_owned(),
        Shape::Boolean => "`true` or `false`".to_owned(),
        Shape::Constant(number) => format!("`{number}`"),
        Shape::True => "`true`".to_owned(),
        Shape::Duration => "length of time".to_owned(),
        Shape::Date => "day".to_owned(),
        Shape::Choice(words) => {
            let words: Vec<String> =
                words.iter().map(|(word, doc)| format!("`{word}` ({doc})")).collect();
            words.join(", ")
        }
        Shape::List(element, 0) => format!("list of {}", words(element)),
        Shape::List(element, least) => format!("list of {least} or more: {}", words(element)),
        Shape::Table { value, .. } => format!("map of names to {}", words(value)),
        Shape::Map(fields) => format!("{}, below", fields.what),
        Shape::Tagged { tag, cases } => {
            let words: Vec<String> = cases.iter().map(|(word, _)| format!("`{word}`")).collect();
            format!("map, below, by `{tag}`: {}", words.join(", "))
        }
        Shape::Either(shapes) => shapes.iter().map(words).collect::<Vec<_>>().join(", or "),
        Shape::Named(_, shape) => words(shape),
        Shape::Any => "anything".to_owned(),
    }
}
