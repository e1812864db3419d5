//! A subject in at most so many bytes, and never that of another one.

use aws_lc_rs::digest;

use crate::ledger::entry::hex;

/// Google's limit of `google.subject`, in bytes.
pub const GOOGLE: usize = 127;
/// 128 bits: nobody finds a second subject with the same ones.
const SUFFIX: usize = 32;

/// `subject` in at most `most` bytes.
///
/// Threat H11: a long one is cut, and ends in 128 bits of its SHA-256; it then has exactly `most` bytes, which no subject that
/// is left as it is ever has. So two subjects never share a name, and none can be chosen to look like a cut one.
#[must_use]
pub fn bounded(subject: &str, most: usize) -> String {
    if subject.len() < most {
        return subject.to_owned();
    }
    let room = most.saturating_sub(SUFFIX.saturating_add(1));
    let mut cut = room;
    while !subject.is_char_boundary(cut) {
        cut = cut.saturating_sub(1);
    }
    let hash = hex(digest::digest(&digest::SHA256, subject.as_bytes()).as_ref());
    let (front, _) = subject.split_at(cut);
    let suffix: String = hash.chars().take(SUFFIX).collect();
    // A character that was cut through leaves up to three bytes: filled, so that the length is always the same.
    format!("{front}{}{suffix}", "~".repeat(most.saturating_sub(cut.saturating_add(SUFFIX))))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn h11_a_short_subject_is_left_as_it_is_and_a_long_one_has_exactly_so_many_bytes() {
        let short = "github:repository_id:1296269";
        assert_eq!(bounded(short, GOOGLE), short);
        assert_eq!(bounded(&"a".repeat(126), GOOGLE), "a".repeat(126));
        for length in [127, 128, 5_000] {
            assert_eq!(bounded(&"a".repeat(length), GOOGLE).len(), 127, "{length}");
        }
        assert_eq!(bounded(&"é".repeat(500), GOOGLE).len(), 127);
        // A subject that spells the cut form of another one is cut itself.
        let victim = bounded(&"a".repeat(400), GOOGLE);
        assert_ne!(bounded(&victim, GOOGLE), victim);
    }

    proptest! {
        #[test]
        fn h11_two_subjects_never_share_a_name(
            subjects in prop::collection::btree_set("[a-b:é]{0,8}x{0,160}[a-b]{0,2}", 2..40)
        ) {
            let names: BTreeSet<String> =
                subjects.iter().map(|subject| bounded(subject, GOOGLE)).collect();
            prop_assert_eq!(names.len(), subjects.len());
            prop_assert!(names.iter().all(|name| name.len() <= GOOGLE));
        }
    }
}
