//! The sealed form: a compact JWE whose protected header says what it belongs to. Strict in front of the library.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use josekit::jwe::{self, JweContentEncryption, JweDecrypter, JweEncrypter, JweHeader};
use serde_json::{Map, Value};

use super::{KeyContext, ProtectError};
use crate::secret::Secret;

/// RFC 7517 section 7.
const CONTENT_TYPE: &str = "jwk-set+json";
const RING: &str = "cambio_ring";
const EPOCH: &str = "cambio_epoch";
const ENVIRONMENT: &str = "cambio_environment";
/// A ring of some hundred RSA keys.
const MAXIMUM_SEALED: usize = 1024 * 1024;
const MAXIMUM_HEADER: usize = 2 * 1024;
/// josekit refuses more of them.
const MAXIMUM_ITERATIONS: u64 = 1_000_000;

pub(super) fn not_opened(reason: &str) -> ProtectError {
    ProtectError::DoesNotOpen(reason.to_owned())
}

pub(super) fn not_closed(reason: &str) -> ProtectError {
    ProtectError::DoesNotClose(reason.to_owned())
}

/// Closes `plain`. The context stands in the protected header, which the content encryption authenticates.
pub(super) fn seal(
    plain: &Secret,
    context: &KeyContext,
    encryption: &dyn JweContentEncryption,
    encrypter: &dyn JweEncrypter,
) -> Result<String, ProtectError> {
    let mut header = JweHeader::new();
    header.set_content_encryption(encryption.name());
    header.set_content_type(CONTENT_TYPE);
    for (name, value) in bound(context) {
        let set = header.set_claim(name, Some(value));
        set.map_err(|_| not_closed("the library refuses the header"))?;
    }
    jwe::serialize_compact(plain.reveal(), &header, encrypter)
        .map_err(|_| not_closed("the library refused"))
}

/// The protected header of `sealed`, after the shape of all five segments was checked: OpenSSL accepts a tag cut to a few
/// bytes, and josekit subtracts 8 from the length of the encrypted key unseen.
pub(super) fn header_of(sealed: &str) -> Result<Map<String, Value>, ProtectError> {
    if sealed.len() > MAXIMUM_SEALED {
        return Err(not_opened("it is longer than 1 MiB"));
    }
    let mut segments = Vec::with_capacity(5);
    for segment in sealed.split('.').take(6) {
        // Canonical only: otherwise the last bits of a segment could change unseen.
        let bytes = URL_SAFE_NO_PAD.decode(segment);
        segments.push(bytes.map_err(|_| not_opened("a segment is not base64url"))?);
    }
    let [header, encrypted_key, nonce, _, tag] = segments.as_slice() else {
        return Err(not_opened("it does not have five segments"));
    };
    // A256KW wraps 32 bytes in 40; GCM has a nonce of 12 and a tag of 16 bytes (RFC 7518 sections 4.4 and 5.3).
    if (encrypted_key.len(), nonce.len(), tag.len()) != (40, 12, 16) {
        return Err(not_opened("encrypted key, nonce or tag has another length"));
    }
    if header.len() > MAXIMUM_HEADER {
        return Err(not_opened("its header is longer than 2 KiB"));
    }
    // By the parser that opens it as well, so that nothing can mean one thing here and another one there.
    let header = JweHeader::from_bytes(header).map_err(|_| not_opened("its header is not JSON"))?;
    Ok(header.into_map())
}

/// The epoch that the header names.
pub(super) fn epoch_in(header: &Map<String, Value>) -> Option<u64> {
    header.get(EPOCH).and_then(Value::as_u64)
}

/// Exactly our header: `algorithm`, `A256GCM`, and the context that it is to be opened in. `zip`, `crit` and whatever we
/// don't write is refused by name.
pub(super) fn expect(
    header: &Map<String, Value>,
    algorithm: &str,
    context: &KeyContext,
) -> Result<(), ProtectError> {
    let fixed = [
        ("alg", Value::from(algorithm)),
        ("enc", Value::from("A256GCM")),
        ("cty", Value::from(CONTENT_TYPE)),
    ];
    for (name, wanted) in fixed.into_iter().chain(bound(context)) {
        let found = header.get(name).unwrap_or(&Value::Null);
        if *found != wanted {
            return Err(ProtectError::DoesNotOpen(format!(
                "`{name}` is {found}, expected {wanted}"
            )));
        }
    }
    let known = ["alg", "enc", "cty", RING, EPOCH, ENVIRONMENT, "p2s", "p2c"];
    match header.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(ProtectError::DoesNotOpen(format!("its header has `{name}`"))),
        None => Ok(()),
    }
}

/// Whether `p2c` and `p2s` (RFC 7518 section 4.8.1) are what we would write.
pub(super) fn expect_rounds(
    header: &Map<String, Value>,
    iterations: u32,
    salt_bytes: usize,
) -> Result<(), ProtectError> {
    let rounds = header.get("p2c").and_then(Value::as_u64).unwrap_or(0);
    if !(u64::from(iterations)..=MAXIMUM_ITERATIONS).contains(&rounds) {
        return Err(ProtectError::DoesNotOpen(format!(
            "`p2c` is {rounds}, expected {iterations} to {MAXIMUM_ITERATIONS}"
        )));
    }
    let salt = header.get("p2s").and_then(Value::as_str).unwrap_or_default();
    if URL_SAFE_NO_PAD.decode(salt).is_ok_and(|salt| salt.len() >= salt_bytes) {
        return Ok(());
    }
    Err(not_opened("`p2s` is too short"))
}

/// Opens `sealed`, whose header was found to be ours. All failures read alike: a wrong KEK and a changed byte are not told
/// apart.
pub(super) fn open(sealed: &str, decrypter: &dyn JweDecrypter) -> Result<Secret, ProtectError> {
    let (plain, _) = jwe::deserialize_compact(sealed, decrypter)
        .map_err(|_| not_opened("another key-encryption key, or a changed byte"))?;
    Ok(Secret::new(plain))
}

fn bound(context: &KeyContext) -> [(&'static str, Value); 3] {
    [
        (RING, Value::from(context.ring.as_str())),
        (EPOCH, Value::from(context.epoch)),
        (ENVIRONMENT, Value::from(context.environment.as_str())),
    ]
}
