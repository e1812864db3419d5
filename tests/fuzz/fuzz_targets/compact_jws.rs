//! Any text → a compact JWS, or a refusal. What is accepted must spell itself again, byte for byte (threat J11).
#![no_main]

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use cambio::subject::compact::{MAXIMUM_KID_BYTES, MAXIMUM_TOKEN_BYTES, UnverifiedJws};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(jws) = UnverifiedJws::parse(text) else { return };
    assert!(text.len() <= MAXIMUM_TOKEN_BYTES);
    assert!(jws.header.kid.is_none_or(|kid| kid.len() <= MAXIMUM_KID_BYTES));
    let (_, payload) = jws.signing_input.split_once('.').expect("two segments are signed");
    assert_eq!(payload, URL_SAFE_NO_PAD.encode(&jws.payload));
    let signature = URL_SAFE_NO_PAD.encode(&jws.signature);
    assert_eq!(text, format!("{}.{signature}", jws.signing_input));
});
