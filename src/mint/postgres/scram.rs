//! The SCRAM-SHA-256 verifier of a password (RFC 5802 section 3, RFC 7677), computed here: the server gets what it checks a
//! password by, and neither a statement nor a log of it ever holds the password.

use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

/// RFC 7677 section 4 asks for at least 4096, and PostgreSQL does as many. Ours stretch nothing: the password is 192 bits of
/// chance.
const ITERATIONS: NonZeroU32 = NonZeroU32::MIN.saturating_add(4095);
/// As many bytes of salt as PostgreSQL takes.
pub(super) const SALT_BYTES: usize = 16;

/// `SCRAM-SHA-256$4096:<salt>$<StoredKey>:<ServerKey>`, as `pg_authid.rolpassword` keeps it: base64, no quote in it.
///
/// `password` is ASCII, so that `SASLprep` (RFC 4013) leaves it as it is.
pub(super) fn verifier(password: &[u8], salt: &[u8; SALT_BYTES]) -> String {
    let mut salted = Zeroizing::new([0_u8; digest::SHA256_OUTPUT_LEN]);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ITERATIONS, salt, password, &mut *salted);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &*salted);
    let client_key = hmac::sign(&key, b"Client Key");
    let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
    let server_key = hmac::sign(&key, b"Server Key");
    format!(
        "SCRAM-SHA-256${ITERATIONS}:{}${}:{}",
        STANDARD.encode(salt),
        STANDARD.encode(stored_key),
        STANDARD.encode(server_key)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7677 section 3: the exchange of `user` and `pencil`, its proof and its signature checked by the verifier alone.
    #[test]
    fn the_verifier_of_rfc_7677_checks_the_exchange_of_rfc_7677() {
        let salt: [u8; SALT_BYTES] =
            STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap().try_into().unwrap();
        let verifier = verifier(b"pencil", &salt);
        let rest = verifier.strip_prefix("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$").unwrap();
        let (stored, server) = rest.split_once(':').unwrap();
        let message = b"n=user,r=rOprNGfwEbeRWgbNEkqO,\
            r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,\
            c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let signed = |key: &str| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(key).unwrap());
            hmac::sign(&key, message)
        };
        assert_eq!(STANDARD.encode(signed(server)), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        let proof = STANDARD.decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=").unwrap();
        let client_key: Vec<u8> =
            proof.iter().zip(signed(stored).as_ref()).map(|(a, b)| a ^ b).collect();
        assert_eq!(STANDARD.encode(digest::digest(&digest::SHA256, &client_key)), stored);
    }
}
