//! A KEK on this machine: a key file, or a passphrase file.

use std::{fmt, fs::File, io::Read, path::Path};

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use josekit::jwe::{
    alg::{aeskw::AeskwJweAlgorithm, pbes2_hmac_aeskw::Pbes2HmacAeskwJweAlgorithm},
    enc::A256GCM,
};

use super::{KeyContext, KeyProtector, ProtectError, jwe};
use crate::{owner, secret::Secret};

/// More is no key file of ours.
const MAXIMUM_FILE: u64 = 4 * 1024;
const MINIMUM_PASSPHRASE: usize = 16;
/// PBKDF2-HMAC-SHA-512 rounds of what we seal; josekit's default would be 1,000.
const ITERATIONS: u32 = 600_000;
/// RFC 8018 section 4.1 wants 8 bytes at least; josekit's default is that.
const SALT_BYTES: usize = 16;

/// The KEK is 32 random bytes, as base64url text in a file: JWE `A256KW` (RFC 7518 section 4.4) with `A256GCM`.
#[derive(Clone)]
pub struct KeyFile(Secret);

/// The KEK is derived from a passphrase in a file: JWE `PBES2-HS512+A256KW` (RFC 7518 section 4.8), 600,000 rounds and a
/// salt of 16 bytes, with `A256GCM`. Takes a good part of a second each time; for export and for one machine.
#[derive(Clone)]
pub struct PassphraseFile(Secret);

/// INVARIANT(secrets-do-not-print).
impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyFile(…)")
    }
}

/// INVARIANT(secrets-do-not-print).
impl fmt::Debug for PassphraseFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PassphraseFile(…)")
    }
}

impl KeyFile {
    /// Reads the key from `path`: 43 characters of base64url, a line break after them at most.
    ///
    /// # Errors
    /// [`ProtectError::NoKek`]: absent, readable by others than its owner, or not 32 bytes.
    pub fn load(path: &Path) -> Result<Self, ProtectError> {
        let text = read_private(path)?;
        let key = URL_SAFE_NO_PAD.decode(text.reveal()).map(Secret::new);
        let no_kek = |reason: &str| ProtectError::NoKek(format!("`{}` {reason}", path.display()));
        let key = key.map_err(|_| no_kek("is not base64url without padding"))?;
        if key.reveal().len() != 32 {
            return Err(no_kek("does not hold 32 bytes"));
        }
        Ok(Self(key))
    }
}

impl PassphraseFile {
    /// Reads the passphrase from `path`: one line of at least 16 bytes.
    ///
    /// # Errors
    /// [`ProtectError::NoKek`]: absent, readable by others than its owner, or too short.
    pub fn load(path: &Path) -> Result<Self, ProtectError> {
        Self::of(read_private(path)?)
            .map_err(|error| ProtectError::NoKek(format!("`{}`: {error}", path.display())))
    }

    /// A passphrase that was typed, or that an export is for.
    ///
    /// # Errors
    /// [`ProtectError::NoKek`]: it has fewer than 16 bytes.
    pub fn of(passphrase: Secret) -> Result<Self, ProtectError> {
        let found = passphrase.reveal().len();
        if found < MINIMUM_PASSPHRASE {
            let reason =
                format!("the passphrase has {found} bytes, expected at least {MINIMUM_PASSPHRASE}");
            return Err(ProtectError::NoKek(reason));
        }
        Ok(Self(passphrase))
    }
}

#[async_trait]
impl KeyProtector for KeyFile {
    async fn wrap(&self, plain: &Secret, context: &KeyContext) -> Result<String, ProtectError> {
        let encrypter = AeskwJweAlgorithm::A256kw.encrypter_from_bytes(self.0.reveal());
        let encrypter = encrypter.map_err(|_| jwe::not_closed("the KEK does not fit"))?;
        jwe::seal(plain, context, &A256GCM, &encrypter)
    }

    async fn unwrap(&self, sealed: &str, context: &KeyContext) -> Result<Secret, ProtectError> {
        let header = jwe::header_of(sealed)?;
        jwe::expect(&header, "A256KW", context)?;
        let decrypter = AeskwJweAlgorithm::A256kw.decrypter_from_bytes(self.0.reveal());
        let decrypter = decrypter.map_err(|_| jwe::not_opened("the KEK does not fit"))?;
        jwe::open(sealed, &decrypter)
    }
}

#[async_trait]
impl KeyProtector for PassphraseFile {
    async fn wrap(&self, plain: &Secret, context: &KeyContext) -> Result<String, ProtectError> {
        let (passphrase, plain, context) = (self.0.clone(), plain.clone(), context.clone());
        let sealed = tokio::task::spawn_blocking(move || {
            let algorithm = Pbes2HmacAeskwJweAlgorithm::Pbes2Hs512A256kw;
            let mut encrypter = algorithm
                .encrypter_from_bytes(passphrase.reveal())
                .map_err(|_| jwe::not_closed("the passphrase does not fit"))?;
            encrypter.set_iter_count(usize::try_from(ITERATIONS).unwrap_or(usize::MAX));
            encrypter.set_salt_len(SALT_BYTES);
            jwe::seal(&plain, &context, &A256GCM, &encrypter)
        });
        sealed.await.map_err(|_| jwe::not_closed("the thread ended"))?
    }

    async fn unwrap(&self, sealed: &str, context: &KeyContext) -> Result<Secret, ProtectError> {
        let header = jwe::header_of(sealed)?;
        jwe::expect(&header, "PBES2-HS512+A256KW", context)?;
        // Before a single round is made: a header can ask for days of them (CVE-2022-36083), or for one.
        jwe::expect_rounds(&header, ITERATIONS, SALT_BYTES)?;
        let (passphrase, sealed) = (self.0.clone(), sealed.to_owned());
        let opened = tokio::task::spawn_blocking(move || {
            let decrypter = Pbes2HmacAeskwJweAlgorithm::Pbes2Hs512A256kw
                .decrypter_from_bytes(passphrase.reveal())
                .map_err(|_| jwe::not_opened("the passphrase does not fit"))?;
            jwe::open(&sealed, &decrypter).map_err(|_| {
                jwe::not_opened("another passphrase than it was made with, or a changed byte")
            })
        });
        opened.await.map_err(|_| jwe::not_opened("the thread ended"))?
    }
}

/// The one line of a file that nobody else can read ([`owner::private`]). The mode is asked of the open file, so that it
/// can't be another one by then; symbolic links are followed, as Kubernetes makes its secrets of them.
fn read_private(path: &Path) -> Result<Secret, ProtectError> {
    let no_kek = |reason: String| ProtectError::NoKek(format!("`{}` {reason}", path.display()));
    let file = File::open(path).map_err(|error| no_kek(format!("can't be opened: {error}")))?;
    let about = file.metadata().map_err(|error| no_kek(format!("can't be examined: {error}")))?;
    if !about.is_file() {
        return Err(no_kek("is not a file".to_owned()));
    }
    owner::private(&about).map_err(|error| no_kek(error.to_string()))?;
    if about.len() > MAXIMUM_FILE {
        return Err(no_kek(format!("has {} bytes, expected at most {MAXIMUM_FILE}", about.len())));
    }
    let mut bytes = Vec::with_capacity(4 * 1024);
    let read = file.take(MAXIMUM_FILE).read_to_end(&mut bytes);
    let mut bytes = zeroize::Zeroizing::new(bytes);
    read.map_err(|error| no_kek(format!("can't be read: {error}")))?;
    for end in [b'\n', b'\r'] {
        if bytes.last() == Some(&end) {
            bytes.pop();
        }
    }
    if bytes.iter().any(|byte| matches!(byte, b'\n' | b'\r' | 0)) {
        return Err(no_kek("has more than one line".to_owned()));
    }
    Ok(Secret::new(bytes.to_vec()))
}
