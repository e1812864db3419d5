//! Which characters a text may hold that people and logs will read (threat J26).
//!
//! Nothing is normalised and no case is folded: texts are compared by their bytes, so that two spellings stay two names.

use crate::subject::json::is_plain;

/// The first control character (Unicode `Cc`): NUL, newline, ESC and their like.
pub(super) fn find_control(text: &str) -> Option<char> {
    if is_plain(text) {
        return None;
    }
    text.chars().find(|character| character.is_control())
}

/// The first character that is there and can't be seen: a control character, one that turns the direction of what
/// follows, one without width, or a line break by another name.
pub(super) fn find_invisible(text: &str) -> Option<char> {
    if is_plain(text) {
        return None;
    }
    text.chars().find(|character| character.is_control() || is_invisible(*character))
}

/// Unicode 17: the categories `Cf`, `Zl`, `Zp`, and `Default_Ignorable_Code_Point`.
const fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{ad}'
            | '\u{34f}'
            | '\u{600}'..='\u{605}'
            | '\u{61c}'
            | '\u{6dd}'
            | '\u{70f}'
            | '\u{890}'..='\u{891}'
            | '\u{8e2}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{110bd}'
            | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j26_what_can_not_be_seen_is_found() {
        for hidden in ['\0', '\n', '\u{1b}', '\u{7f}', '\u{9b}'] {
            assert_eq!(find_control(&format!("a{hidden}b")), Some(hidden));
            assert_eq!(find_invisible(&format!("a{hidden}b")), Some(hidden));
        }
        for hidden in [
            '\u{ad}',
            '\u{200b}',
            '\u{200d}',
            '\u{202e}',
            '\u{2028}',
            '\u{2066}',
            '\u{feff}',
            '\u{e0041}',
        ] {
            assert_eq!(find_control(&format!("a{hidden}b")), None);
            assert_eq!(find_invisible(&format!("a{hidden}b")), Some(hidden));
        }
        for plain in
            ["repo:acme/site:ref:refs/heads/main", "é", "e\u{301}", "名前", "Дом", "a b", "👩"]
        {
            assert_eq!(find_invisible(plain), None, "{plain}");
        }
    }
}
