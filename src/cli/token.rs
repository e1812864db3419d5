//! Tokens in files: read within a limit, trimmed of what editors add, taken apart without being believed.

use std::{io, path::Path};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::Failure;
use crate::{
    client::{ClientError, errand},
    secret::Secret,
    subject::{Claims, json},
};

/// The token in `file`, or in stdin for `-`.
pub(super) fn read(file: &Path) -> Result<Secret, Failure> {
    let read = if file == Path::new("-") { stdin() } else { errand::read_file(file) };
    Ok(read?)
}

fn stdin() -> Result<Secret, ClientError> {
    errand::read_token("-", io::stdin().lock())
}

/// The claims that `file` *says*: those of a compact JWS, whose signature nobody looks at, or a plain claims object.
/// For writing and explaining policies; nothing is granted by it.
pub(super) fn read_unverified_claims(file: &Path) -> Result<Claims, Failure> {
    let token = read(file)?;
    let text = token.reveal_text().unwrap_or_default();
    let name = file.display();
    unverified_claims(text).map_err(|reason| Failure::usage(format!("`{name}`: {reason}")))
}

/// The claims that `text` says.
pub(super) fn unverified_claims(text: &str) -> Result<Claims, String> {
    if text.starts_with('{') {
        return parsed(text.as_bytes());
    }
    let mut parts = text.split('.');
    let (Some(_), Some(claims), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("found neither a compact JWS (three parts) nor a JSON object".to_owned());
    };
    let bytes = URL_SAFE_NO_PAD
        .decode(claims)
        .map_err(|_| "the second part of the token is not base64url".to_owned())?;
    parsed(&bytes)
}

fn parsed(bytes: &[u8]) -> Result<Claims, String> {
    json::parse_object(bytes, &json::Limits::CLAIMS).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_read_from_a_token_and_from_plain_json() {
        let plain = unverified_claims(r#"{"sub":"a"}"#);
        assert_eq!(unverified_claims("e30.eyJzdWIiOiJhIn0.c2ln"), plain);
        assert_eq!(
            unverified_claims("a.b"),
            Err("found neither a compact JWS (three parts) nor a JSON object".to_owned())
        );
        assert_eq!(
            unverified_claims(r#"{"sub":"a","sub":"b"}"#).unwrap_err(),
            unverified_claims("e30.eyJzdWIiOiJhIiwic3ViIjoiYiJ9.c2ln").unwrap_err()
        );
    }
}
