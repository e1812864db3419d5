//! Words of strangers in messages of ours: a broker's, a platform's. They end up in the log of a job, where a line is a fact, and
//! where runners take orders: GitHub's from a line that begins with `::` or holds `##[`, those of Azure Pipelines from `##vso[`.

/// The most characters that are told: a description is a sentence or two.
const MOST: usize = 1_000;

/// `text` as a part of one line: no control character, no line or paragraph separator, nothing that a runner obeys.
#[must_use]
pub fn tamed(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(MOST));
    let mut characters = text.trim_start().chars();
    for character in characters.by_ref().take(MOST) {
        match character {
            control if control.is_control() || matches!(control, '\u{2028}' | '\u{2029}') => {
                out.push(' ');
            }
            // Anywhere, because Azure's are found anywhere. Two of them mean nothing in a sentence.
            '#' if out.ends_with('#') => out.push_str(" #"),
            // At its beginning alone: names of AWS have `::` in them.
            ':' if out.trim_start() == ":" => out.push_str(" :"),
            other => out.push(other),
        }
    }
    if characters.next().is_some() {
        out.push('…');
    }
    out
}

/// The name of an exchange or a lease, as far as it is one: people type it into a shell.
#[must_use]
pub fn name(text: &str) -> Option<&str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    (!text.is_empty() && text.len() <= 128 && !text.starts_with('-') && text.chars().all(fits))
        .then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_stranger_begin_no_line_and_give_no_order() {
        assert_eq!(
            tamed("x\n::stop-commands::pwn\r\nissued a token"),
            "x ::stop-commands::pwn  issued a token"
        );
        assert_eq!(tamed("::add-mask::a"), ": :add-mask::a");
        assert_eq!(tamed("\n\t ::add-mask::a"), ": :add-mask::a");
        assert_eq!(
            tamed("a ##vso[task.complete] ###[error]"),
            "a # #vso[task.complete] # # #[error]"
        );
        assert_eq!(tamed("a\u{1b}[2K\u{85}b\u{2028}c"), "a [2K b c");
        assert_eq!(tamed("no role `arn:aws:iam::1:role/x`"), "no role `arn:aws:iam::1:role/x`");
        assert_eq!(tamed(&"é".repeat(1_001)), format!("{}…", "é".repeat(1_000)));
    }

    #[test]
    fn a_name_is_one_word_of_a_shell() {
        assert_eq!(name("ex_01J-a.b"), Some("ex_01J-a.b"));
        for bad in ["", "a b", "$(id)", "a;b", "a\nb", "-x", "é", "a`b"] {
            assert_eq!(name(bad), None, "{bad}");
        }
    }
}
