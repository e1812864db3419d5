//! Tokens in files: read within a limit, trimmed of what editors add, taken apart without being believed.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::Failure;
use crate::{
    secret::Secret,
    subject::{Claims, json},
};

/// More than any issuer's token, and less than a mistake (a whole log file).
const LIMIT: u64 = 64 * 1024;

/// The token in `file`, or in stdin for `-`. White space around it is the file's, not the token's: it goes.
pub(super) fn read(file: &Path) -> Result<Secret, Failure> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        io::stdin().lock().take(LIMIT).read_to_string(&mut text)
    } else {
        File::open(file).and_then(|file| file.take(LIMIT).read_to_string(&mut text))
    };
    let length = read.map_err(|error| Failure::usage(format!("`{}`: {error}", file.display())))?;
    if u64::try_from(length).unwrap_or(LIMIT) >= LIMIT {
        return Err(Failure::usage(format!(
            "`{}` has {LIMIT} bytes or more: no token",
            file.display()
        )));
    }
    let token = text.trim();
    if token.is_empty() {
        return Err(Failure::usage(format!("`{}` is empty, expected a token", file.display())));
    }
    Ok(Secret::from(token.to_owned()))
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
