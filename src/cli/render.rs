//! Tables for people.

use std::fmt;

use serde_json::{Value, json};

use super::Talk;
use crate::yaml::Problem;

/// Columns as wide as their widest cell, two spaces apart, nothing that depends on colour or on the terminal's width.
#[derive(Clone, Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn of<const N: usize>(header: [&str; N]) -> Self {
        Self { rows: vec![header.map(str::to_uppercase).to_vec()] }
    }

    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
            })
            .collect();
        for (number, row) in self.rows.iter().enumerate() {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            let line = cells.join("  ");
            let end = if number.saturating_add(1) < self.rows.len() { "\n" } else { "" };
            write!(f, "{}{end}", line.trim_end())?;
        }
        Ok(())
    }
}

/// An answer of the broker: for machines as it is, for people as a table or as lines.
pub(super) fn answer(talk: &mut Talk, answer: &Value) {
    if talk.json() {
        talk.value(answer);
    } else {
        talk.line(people(answer));
    }
}

/// `value` for people: a list of objects as a table, an object as one line for each member, lists in it as tables below.
pub(super) fn people(value: &Value) -> String {
    match value {
        Value::Array(rows) => table(rows),
        Value::Object(members) => {
            let is_list = |value: &&Value| value.is_array();
            let plain = members.iter().filter(|(_, value)| !is_list(value));
            let width = plain.clone().map(|(name, _)| name.len()).max().unwrap_or_default();
            let mut lines: Vec<String> = plain
                .map(|(name, value)| format!("{name:<width$}  {}", cell(Some(value))))
                .collect();
            for (name, value) in members {
                if let Value::Array(rows) = value {
                    if members.len() > 1 {
                        lines.push(format!("{name}:"));
                    }
                    lines.push(table(rows));
                }
            }
            lines.join("\n")
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => cell(Some(value)),
    }
}

fn table(rows: &[Value]) -> String {
    if rows.is_empty() {
        return "none".to_owned();
    }
    let rows: Vec<Value> = rows.iter().map(flattened).collect();
    let mut header: Vec<&str> = Vec::new();
    for name in rows.iter().filter_map(Value::as_object).flat_map(|row| row.keys()) {
        if !header.contains(&name.as_str()) {
            header.push(name);
        }
    }
    if header.is_empty() {
        return rows.iter().map(|row| cell(Some(row))).collect::<Vec<_>>().join("\n");
    }
    let mut table = Table { rows: vec![header.iter().map(|name| name.to_uppercase()).collect()] };
    for row in &rows {
        table.rows.push(header.iter().map(|name| cell(row.get(*name))).collect());
    }
    table.to_string()
}

/// A row whose members that are objects are replaced by theirs.
fn flattened(row: &Value) -> Value {
    let Value::Object(members) = row else { return row.clone() };
    let mut flat = serde_json::Map::new();
    for (name, value) in members {
        match value {
            Value::Object(inner) => flat.extend(inner.clone()),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => {
                flat.insert(name.clone(), value.clone());
            }
        }
    }
    Value::Object(flat)
}

/// What a checker found: problems and warnings, and members of its own for machines.
pub(super) fn report(talk: &mut Talk, problems: &[Problem], warnings: &[Problem], own: Value) {
    if !talk.json() {
        for problem in problems {
            talk.line(problem);
        }
        for warning in warnings {
            talk.line(format_args!("warning: {warning}"));
        }
        return;
    }
    let all = |list: &[Problem]| list.iter().map(as_json).collect::<Value>();
    let mut report = json!({
        "ok": problems.is_empty(),
        "problems": all(problems),
        "warnings": all(warnings),
    });
    if let (Some(report), Value::Object(own)) = (report.as_object_mut(), own) {
        report.extend(own);
    }
    talk.value(&report);
}

fn as_json(problem: &Problem) -> Value {
    json!({
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "message": problem.message,
        "hint": problem.hint,
    })
}

/// `1 problem`, `2 problems`.
pub(super) fn count(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// A JSON value as a cell: strings without their quotes, nothing for null.
pub(super) fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_as_wide_as_its_widest_cells() {
        let mut table = Table::of(["kid", "phase"]);
        table.row(["8f1c2a".to_owned(), "active".to_owned()]);
        table.row(["é".to_owned(), "retired".to_owned()]);
        assert_eq!(table.to_string(), "KID     PHASE\n8f1c2a  active\né       retired");
    }
}
