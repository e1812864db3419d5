//! What is put into statements, quoted. Values go as parameters wherever the server takes them; `CREATE ROLE` takes none.

/// Names longer than this are cut by the server without a word, and then are another's (threat B01).
pub const MOST_NAME_BYTES: usize = 63;

/// Whether `text` can name something at a server: what stands in the configuration is held to it.
#[must_use]
pub fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= MOST_NAME_BYTES && !text.chars().any(char::is_control)
}

/// `text` as a quoted identifier.
pub(super) fn identifier(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// `text` as a literal. Only for text of ours without a backslash: sessions of ours have `standard_conforming_strings` on.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Several identifiers.
pub(super) fn identifiers<'n>(names: impl IntoIterator<Item = &'n String>) -> String {
    names.into_iter().map(|name| identifier(name)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b01_no_name_and_no_text_ends_its_own_quotes() {
        assert_eq!(identifier(r#"a"; DROP ROLE b; --"#), r#""a""; DROP ROLE b; --""#);
        assert_eq!(literal("a'; DROP ROLE b; --"), "'a''; DROP ROLE b; --'");
        assert_eq!(identifiers(&["a".to_owned(), "b".to_owned()]), r#""a", "b""#);
        assert!(is_name("app read") && is_name(&"x".repeat(63)));
        for bad in ["", "a\0", "a\nb", &"x".repeat(64), &"é".repeat(32)] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }
}
