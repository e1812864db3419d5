//! Entries for people and for other programs. What a stranger chose is escaped, never passed through (threat A01).

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::ledger::{
    entry::{Entry, Kind, hex},
    reader::{LedgerReader, ReadError, StoredEntry},
};

/// How many entries are held in memory at once.
const STRIDE: u64 = 512;

/// An entry as one JSON object: its place, its fields, and its facts where they are wanted and still there.
///
/// # Errors
/// The leaf is not one of ours.
pub fn object(stored: &StoredEntry, with_facts: bool) -> Result<Map<String, Value>, ReadError> {
    let damaged = |reason: String| ReadError::Damaged { index: stored.index, reason };
    let entry = Entry::decode(&stored.leaf).map_err(|error| damaged(error.to_string()))?;
    let mut object = Map::new();
    object.insert("index".to_owned(), json!(entry.index));
    object.insert("kind".to_owned(), json!(entry.kind.as_str()));
    object.insert("time".to_owned(), json!(entry.time.to_string()));
    object.insert("leaf_hash".to_owned(), json!(hex(&stored.hash)));
    object.insert("boot".to_owned(), json!(hex(&entry.boot)));
    object.insert("counter".to_owned(), json!(entry.counter));
    object.insert("broker".to_owned(), json!(entry.broker));
    object.insert("event".to_owned(), Value::Object(entry.body));
    if let Some(facts) = stored.facts.as_ref().filter(|_| with_facts) {
        let text = std::str::from_utf8(&facts.json).map_err(|error| damaged(error.to_string()))?;
        let facts = serde_json::from_str(text).map_err(|error| damaged(error.to_string()))?;
        object.insert("facts".to_owned(), facts);
    }
    Ok(object)
}

/// An entry as a few lines for a terminal.
///
/// # Errors
/// The leaf is not one of ours.
pub fn show(stored: &StoredEntry, with_facts: bool) -> Result<String, ReadError> {
    let mut text = String::new();
    for (name, value) in object(stored, with_facts)? {
        if let Value::Object(members) = value {
            let _ = writeln!(text, "{name}:");
            for (name, value) in members {
                let _ = writeln!(text, "  {}: {}", escaped(&name), shown(&value));
            }
        } else {
            let _ = writeln!(text, "{name}: {}", shown(&value));
        }
    }
    Ok(text)
}

/// How the exchange of a grant was concluded, where that was told, newest first; and what that means, where it needs saying.
///
/// # Errors
/// The store can't be read, or a leaf is not one of ours.
pub fn outcome(
    reader: &dyn LedgerReader,
    stored: &StoredEntry,
) -> Result<Option<String>, ReadError> {
    let damaged = |reason: String| ReadError::Damaged { index: stored.index, reason };
    let decode = |leaf: &[u8]| Entry::decode(leaf).map_err(|error| damaged(error.to_string()));
    let grant = decode(&stored.leaf)?;
    let id = grant.body.get("exchange_id").and_then(Value::as_str);
    let id = id.filter(|_| grant.kind == Kind::Granted).and_then(|id| id.parse().ok());
    let Some(id) = id else { return Ok(None) };
    for later in reader.history(id)?.iter().rev() {
        let entry = decode(&later.leaf)?;
        if entry.kind != Kind::Concluded {
            continue;
        }
        let word = entry.body.get("outcome").and_then(Value::as_str).unwrap_or_default();
        let meaning = match word {
            "unknown" => {
                ": a credential may exist, and ends at `expires_at` on its own or with its lease"
            }
            "ended" => ": nobody knows whether there was a credential; if there was, it has ended",
            _ => "",
        };
        return Ok(Some(format!("{}{meaning}", escaped(word))));
    }
    Ok(None)
}

/// Writes entries `from` to the end as JSON lines to `line`, in order. Stops at the first line that is not taken.
///
/// # Errors
/// The store can't be read, a leaf is not one of ours, or `line` failed.
pub fn export<E: From<ReadError>>(
    reader: &dyn LedgerReader,
    from: u64,
    with_facts: bool,
    line: &mut dyn FnMut(&str) -> Result<(), E>,
) -> Result<u64, E> {
    let end = reader.size()?;
    let mut at = from;
    while at < end {
        let entries = reader.entries(at..at.saturating_add(STRIDE).min(end))?;
        if entries.is_empty() {
            return Err(ReadError::Absent(at).into());
        }
        for stored in entries {
            if stored.index != at {
                return Err(ReadError::Absent(at).into());
            }
            line(&escaped(&Value::Object(object(&stored, with_facts)?).to_string()))?;
            at = at.saturating_add(1);
        }
    }
    Ok(end.saturating_sub(from))
}

/// A text as it is, anything else as JSON; without anything that could steer a terminal or a log reader.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => escaped(text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            escaped(&value.to_string())
        }
    }
}

/// Controls, line separators and direction marks as `\u{…}` of JSON: `\u001b`, `\u2028`, `\u202e`.
fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if steers(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
        out
    })
}

fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}
