//! Any bytes → claims, or a refusal. What is accepted must be what the library reads, and within the limits (threat J09).
#![no_main]

use cambio::subject::json::{Limits, parse_object};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let Ok(claims) = parse_object(bytes, &Limits::CLAIMS) else { return };
    let claims = Value::Object(claims);
    let (depth, members) = measure(&claims);
    assert!(depth <= Limits::CLAIMS.depth && members <= Limits::CLAIMS.members);
    let text = std::str::from_utf8(bytes).expect("what is accepted is UTF-8");
    let theirs: Value = serde_json::from_str(text).expect("the library reads it too");
    assert_eq!(claims, theirs);
});

/// Levels of nesting, and members of all objects.
fn measure(value: &Value) -> (usize, usize) {
    match value {
        Value::Array(list) => list.iter().map(measure).fold((1, 0), |(depth, members), inside| {
            (depth.max(inside.0 + 1), members + inside.1)
        }),
        Value::Object(object) => {
            object.values().map(measure).fold((1, object.len()), |(depth, members), inside| {
                (depth.max(inside.0 + 1), members + inside.1)
            })
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (0, 0),
    }
}
