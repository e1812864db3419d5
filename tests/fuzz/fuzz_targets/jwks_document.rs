//! Any bytes → a key set, or a refusal. Each listed key is usable or reported, and a name means one key (threats J17, D08).
#![no_main]

use std::collections::BTreeSet;

use cambio::subject::jwk::{KeySet, MAXIMUM_KEYS};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let Ok(set) = KeySet::parse(bytes) else { return };
    let document: Value = serde_json::from_slice(bytes).expect("what is accepted is JSON");
    let listed = document["keys"].as_array().expect("a list").len();
    assert_eq!(set.keys().len() + set.ignored().len(), listed, "a key is neither used nor reported");
    assert!(!set.keys().is_empty() && listed <= MAXIMUM_KEYS);
    let names: Vec<_> = set.keys().iter().filter_map(|key| key.kid()).collect();
    assert_eq!(names.len(), names.iter().collect::<BTreeSet<_>>().len(), "one name, two keys");
    for name in names {
        assert_eq!(set.find(Some(name)).expect("it is there").len(), 1);
    }
    for ignored in set.ignored() {
        assert!(!ignored.to_string().contains('\n'), "{ignored}");
    }
});
