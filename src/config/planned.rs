//! Words that are right elsewhere: a setting that this build does not have is told from a slip of the pen.

use super::reader::Reader;
use crate::yaml::{Node, Place, Problem};

const TARGETS: &[&str] = &["kubernetes", "ssh"];
const STORES: &[&str] = &["postgres", "mysql"];
const ANCHORS: &[&str] = &["witness", "object_store"];
const PROTECTORS: &[&str] = &["aws_kms", "gcp_kms", "azure_key_vault", "pkcs11", "vault"];
/// Puts what is known of absent features in the place of what the shape says of unknown words.
pub(super) fn replace(reader: &mut Reader<'_>) {
    let absent = |what: &str, word: &str, has: &str| {
        let hint = format!(
            "it takes feature `{word}`, which this version does not have yet; it has {has}"
        );
        (format!("{what} `{word}` is not in this build"), hint)
    };
    for target in reader.section("targets").map(Node::elements).unwrap_or_default() {
        if let Some((word, place)) = value_among(target, "kind", TARGETS) {
            let has = "`jwt`, `cambio`, `postgres`, `mysql`, `redis`, `x509`, `google`, `azure`, `github` and `aws`";
            put(reader, &[place], absent("target kind", word, has));
        }
    }
    symmetric(reader);
    if let Some(store) = reader.section("store") {
        keys_among(reader, store, STORES, |word| absent("store", word, "`sqlite`"));
    }
    if let Some(keys) = reader.section("keys") {
        keys_among(reader, keys, PROTECTORS, |word| {
            absent("key protector", word, "`key_file` and `passphrase_file`")
        });
    }
    let anchors = reader.section("ledger").and_then(|ledger| ledger.find("anchors"));
    for anchor in anchors.map(Node::elements).unwrap_or_default() {
        keys_among(reader, anchor, ANCHORS, |word| absent("anchor", word, "`file`"));
    }
}

/// Threats J01 and J02: no "did you mean" for these.
fn symmetric(reader: &mut Reader<'_>) {
    for issuer in reader.section("issuers").map(Node::elements).unwrap_or_default() {
        for (word, at) in super::reader::texts(issuer, "algorithms") {
            let lower = word.to_ascii_lowercase();
            if lower == "none" || ["hs256", "hs384", "hs512"].contains(&lower.as_str()) {
                let message = format!("algorithm `{}` is never accepted", word.escape_debug());
                let hint = "whoever can verify with it can sign with it: use what the issuer's public keys are for";
                put(reader, &[at.place], (message, hint.to_owned()));
            }
        }
    }
}

fn value_among<'n>(map: &'n Node, key: &str, words: &[&str]) -> Option<(&'n str, Place)> {
    let node = map.find(key)?;
    let text = node.text().filter(|text| words.contains(text))?;
    Some((text, node.place))
}

/// Everything that the shape says of the key, and of the map that lacks another in its stead, comes down to one problem.
fn keys_among(
    reader: &mut Reader<'_>,
    map: &Node,
    words: &[&str],
    say: impl Fn(&str) -> (String, String),
) {
    for (word, place, _) in map.entries() {
        if words.contains(&word.as_str()) {
            put(reader, &[*place, map.place], say(word));
        }
    }
}

fn put(reader: &mut Reader<'_>, places: &[Place], (message, hint): (String, String)) {
    let Some(first) = places.first() else { return };
    let here = |problem: &Problem| {
        places.iter().any(|place| problem.line == place.line && problem.column == place.column)
    };
    reader.problems.retain(|problem| !here(problem));
    reader.refuse(*first, message, &hint);
}
