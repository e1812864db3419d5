//! A pattern and a value, split at the first line break: the matcher agrees with a naive one, letter by letter.

#![no_main]

use cambio::policy::pattern::Pattern;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Some((pattern, value)) = text.split_once('\n') else { return };
    let Ok(parsed) = Pattern::parse(pattern) else { return };
    for folded in [false, true] {
        assert_eq!(parsed.fits(value, folded), reference(pattern, value, folded), "{pattern:?} {value:?}");
    }
    assert!(!parsed.fits("", false));
});

/// Segments and separators, one after the other.
fn pieces(text: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    for letter in text.chars() {
        if matches!(letter, '/' | ':' | '@') {
            pieces.push(letter.to_string());
            pieces.push(String::new());
        } else if let Some(last) = pieces.last_mut() {
            last.push(letter);
        }
    }
    pieces
}

fn reference(pattern: &str, value: &str, folded: bool) -> bool {
    let fold = |text: &str| if folded { text.to_ascii_lowercase() } else { text.to_owned() };
    let (wanted, given) = (pieces(&fold(pattern)), pieces(&fold(value)));
    wanted.len() == given.len()
        && wanted.iter().zip(&given).all(|(want, got)| if want == "*" { !got.is_empty() } else { want == got })
}
