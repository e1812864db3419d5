//! Threat H11: whatever a claim says, AWS takes the name, and no two subjects share it.

use cambio::mint::aws::naming::{session_name, tag_value};
use proptest::prelude::*;

fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
    (2..=64).contains(&name.len()) && name.chars().all(fits)
}

fn is_value(value: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || " _.:/=+-@".contains(c);
    (1..=256).contains(&value.len()) && value.chars().all(fits)
}

/// Texts that are likely to meet after mapping, beside arbitrary ones.
fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-c/:*]{0,4}", "[a-c ]{60,70}", ".{0,300}", "[a-f0-9-]{17,20}"]
}

proptest! {
    #[test]
    fn h11_two_subjects_never_share_a_session_name(
        one in text(), other in text(), parts in prop::collection::vec(text(), 0..3), more in prop::collection::vec(text(), 0..3),
    ) {
        let (first, second) = (session_name(&one, &parts), session_name(&other, &more));
        prop_assert!(is_name(&first), "{first}");
        prop_assert_eq!(first == second, one == other && parts == more);
    }

    #[test]
    fn h11_two_claims_never_share_a_tag_value(one in text(), other in text()) {
        let (first, second) = (tag_value(&one), tag_value(&other));
        prop_assert!(is_value(&first), "{first}");
        prop_assert_eq!(first == second, one == other);
        // Nobody can be taken for somebody else by saying what the other's claim was mapped to.
        prop_assert_ne!(tag_value(&second) == second, second != other);
    }
}

#[test]
fn h11_names_are_readable_and_end_in_a_hash() {
    let name =
        session_name("github:repository_id:1296269", &["github:repository_id:1296269".to_owned()]);
    insta::assert_snapshot!(name, @"github-repository_id-1296269-8553659cc60b7e1b");
    insta::assert_snapshot!(tag_value("refs/heads/main"), @"refs/heads/main");
    insta::assert_snapshot!(tag_value("refs/heads/wörk*"), @"refs/heads/w-rk--14fa05eb7bd4fd9f");
}
