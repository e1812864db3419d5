//! Any bytes → a form, or a refusal. What is accepted has one reading, and written again it reads the same (threats H01, H02).
#![no_main]

use cambio::edge::form::Form;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut form) = Form::parse(bytes) else { return };
    let given: Vec<(String, String)> = form_urlencoded::parse(bytes).into_owned().collect();
    assert!(given.len() <= 64);
    for (name, value) in &given {
        assert!(!name.chars().chain(value.chars()).any(|letter| letter.is_control() || letter == '\u{fffd}'));
        let values = given.iter().filter(|(known, _)| known == name).count();
        if matches!(name.as_str(), "audience" | "resource") {
            assert!(values <= 8);
        } else {
            assert_eq!(values, 1, "{name:?} has more than one reading");
            // RFC 6749 section 3.2: no value is no parameter.
            assert_eq!(form.find(name), (!value.is_empty()).then_some(value.as_str()));
        }
    }
    let written = form_urlencoded::Serializer::new(String::new()).extend_pairs(&given).finish();
    let again = Form::parse(written.as_bytes()).expect("written again, it is a form");
    for (name, _) in &given {
        let names = [name.as_str()];
        assert!(form.all(&names).eq(again.all(&names)));
    }
    for (name, _) in &given {
        while form.take(name).is_some() {}
        assert_eq!(form.find(name), None);
    }
});
