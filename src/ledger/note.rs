//! Signed notes (C2SP signed-note): a text, and signatures of Ed25519 keys with names.

use std::{fmt, str::FromStr};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use thiserror::Error;

use crate::{
    ledger::{entry::hex, tree::sha256},
    secret::Secret,
};

/// The signature type byte of Ed25519.
const ED25519_TYPE: u8 = 0x01;

/// The most bytes of a note that is read from outside.
const MAXIMUM_NOTE: usize = 64 * 1_024;

/// Why a note or a key was not accepted.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NoteError {
    /// Not a signed note.
    #[error("not a signed note: {0}")]
    Malformed(String),
    /// Nobody whom we know signed it.
    #[error("found no signature by `{0}`")]
    Unsigned(String),
    /// The signature that names the key is not by it.
    #[error("the signature by `{0}` does not verify")]
    BadSignature(String),
    /// Not a verifier key.
    #[error("not a verifier key: {0}")]
    Key(String),
    /// The seed is not 32 bytes.
    #[error("the log's key can't be made from its seed")]
    Seed,
}

/// The log's own private key (threat A12: never the key of tokens).
pub struct LogKey {
    pair: Ed25519KeyPair,
    public: VerifierKey,
}

impl LogKey {
    /// The key of these 32 random bytes; its name is the log's origin.
    ///
    /// # Errors
    /// `seed` is not 32 bytes long, or `origin` can't be a key name.
    pub fn from_seed(origin: &str, seed: &Secret) -> Result<Self, NoteError> {
        check_name(origin)?;
        let pair =
            Ed25519KeyPair::from_seed_unchecked(seed.reveal()).map_err(|_| NoteError::Seed)?;
        let bytes = pair.public_key().as_ref().try_into().map_err(|_| NoteError::Seed)?;
        Ok(Self { pair, public: VerifierKey { name: origin.to_owned(), bytes } })
    }

    /// The public half.
    #[must_use]
    pub const fn public(&self) -> &VerifierKey {
        &self.public
    }

    /// Signs `text`, which ends with a line feed.
    #[must_use]
    pub fn sign(&self, text: &str) -> String {
        let mut signature = self.public.id().to_vec();
        signature.extend_from_slice(self.pair.sign(text.as_bytes()).as_ref());
        format!("{text}\n— {} {}\n", self.public.name, STANDARD.encode(signature))
    }
}

impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogKey({})", self.public)
    }
}

/// The public half of a note's key. Its text form is `name+hash+key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    bytes: [u8; 32],
}

impl VerifierKey {
    /// The key's name: the log's origin.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first four bytes of SHA-256(name ‖ `\n` ‖ type ‖ key).
    fn id(&self) -> [u8; 4] {
        let mut input = self.name.clone().into_bytes();
        input.extend_from_slice(&[b'\n', ED25519_TYPE]);
        input.extend_from_slice(&self.bytes);
        let [a, b, c, d, ..] = sha256(&input);
        [a, b, c, d]
    }

    /// The text of `note`, if this key signed it.
    ///
    /// # Errors
    /// The note is malformed, has no signature by this key, or a wrong one.
    pub fn open<'a>(&self, note: &'a str) -> Result<&'a str, NoteError> {
        let (text, signatures) = split(note)?;
        for line in signatures.lines() {
            let (name, id, signature) = signature(line)?;
            if name != self.name || id != self.id() {
                continue;
            }
            return UnparsedPublicKey::new(&ED25519, self.bytes)
                .verify(text.as_bytes(), &signature)
                .map(|()| text)
                .map_err(|_| NoteError::BadSignature(self.name.clone()));
        }
        Err(NoteError::Unsigned(self.name.clone()))
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![ED25519_TYPE];
        key.extend_from_slice(&self.bytes);
        write!(f, "{}+{}+{}", self.name, hex(&self.id()), STANDARD.encode(key))
    }
}

impl FromStr for VerifierKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let malformed = || NoteError::Key("expected `name+hash+key`".to_owned());
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(malformed());
        };
        check_name(name)?;
        let key = STANDARD.decode(key).map_err(|_| malformed())?;
        let bytes = match key.split_first() {
            Some((&ED25519_TYPE, bytes)) => bytes.try_into().map_err(|_| malformed())?,
            _ => return Err(NoteError::Key("expected an Ed25519 key".to_owned())),
        };
        let key = Self { name: name.to_owned(), bytes };
        if hex(&key.id()) == id {
            Ok(key)
        } else {
            Err(NoteError::Key("the hash is not that of name and key".to_owned()))
        }
    }
}

/// Checks that `name` can name a key and a log: no white space, no plus (C2SP signed-note), 1 to 200 bytes.
///
/// # Errors
/// It can't.
pub fn check_name(name: &str) -> Result<(), NoteError> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    if name.is_empty() || name.len() > 200 || name.contains(bad) {
        return Err(NoteError::Key(
            "expected a name of 1 to 200 bytes without white space and `+`".to_owned(),
        ));
    }
    Ok(())
}

/// Text with its last line feed, and the signature lines.
fn split(note: &str) -> Result<(&str, &str), NoteError> {
    let malformed = |reason: &str| NoteError::Malformed(reason.to_owned());
    if note.len() > MAXIMUM_NOTE {
        return Err(malformed("too long"));
    }
    if note.chars().any(|c| c.is_control() && c != '\n') {
        return Err(malformed("found a control character"));
    }
    let at = note.rfind("\n\n").ok_or_else(|| malformed("found no signatures"))?;
    let (text, rest) = note
        .split_at_checked(at.saturating_add(1))
        .ok_or_else(|| malformed("found no signatures"))?;
    let signatures = rest.strip_prefix('\n').unwrap_or_default();
    if text.is_empty() || signatures.is_empty() || !signatures.ends_with('\n') {
        return Err(malformed("expected a text, an empty line and signatures"));
    }
    Ok((text, signatures))
}

/// Name, key id and signature of a line `— name base64(id ‖ signature)`.
fn signature(line: &str) -> Result<(&str, [u8; 4], Vec<u8>), NoteError> {
    let malformed = || NoteError::Malformed("expected `— name signature`".to_owned());
    let (name, encoded) =
        line.strip_prefix("— ").and_then(|rest| rest.split_once(' ')).ok_or_else(malformed)?;
    check_name(name).map_err(|_| malformed())?;
    let bytes = STANDARD.decode(encoded).map_err(|_| malformed())?;
    let (id, signature) = bytes.split_first_chunk::<4>().ok_or_else(malformed)?;
    Ok((name, *id, signature.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> LogKey {
        LogKey::from_seed("log.example/cambio", &Secret::new(vec![7; 32])).unwrap()
    }

    #[test]
    fn a_signed_note_opens_with_its_key_and_no_changed_byte_does() {
        let note = key().sign("log.example/cambio\n0\nroot\n");
        assert_eq!(key().public().open(&note).unwrap(), "log.example/cambio\n0\nroot\n");
        for at in 0..note.len() {
            let mut bytes = note.clone().into_bytes();
            bytes[at] ^= 1;
            if let Ok(changed) = String::from_utf8(bytes) {
                assert!(key().public().open(&changed).is_err(), "byte {at}");
            }
        }
    }

    #[test]
    fn a_verifier_key_reads_back_what_it_prints() {
        let text = key().public().to_string();
        assert_eq!(text.parse::<VerifierKey>().unwrap(), *key().public());
        assert!(text.replace('+', "-").parse::<VerifierKey>().is_err());
        assert!(text.replace("cambio+", "cambia+").parse::<VerifierKey>().is_err());
    }

    #[test]
    fn the_verifier_of_the_signed_note_specification_is_read() {
        // The example key of the format's first implementation (golang.org/x/mod/sumdb/note).
        let text = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let key: VerifierKey = text.parse().unwrap();
        assert_eq!(key.to_string(), text);
        let note = "If you think cryptography is the answer to your problem,\n\
            then you don't know what your problem is.\n\n\
            — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
        assert!(key.open(note).is_ok());
    }

    #[test]
    fn names_that_would_break_a_note_are_refused() {
        for name in ["", "a b", "a+b", "a\nb", "a\u{2028}b"] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }
}
