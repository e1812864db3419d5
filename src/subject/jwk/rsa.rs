//! What an RSA public key must be before it may verify (threat J14).

use super::Unusable;

pub(super) const MINIMUM_BITS: usize = 2048;
pub(super) const MAXIMUM_BITS: usize = 8192;

/// Checks modulus and exponent, both big-endian and without a leading zero (RFC 7518 section 6.3.1, RFC 7517 `Base64urlUInt`).
pub(super) fn check(n: &[u8], e: &[u8]) -> Result<(), Unusable> {
    for (member, octets) in [("n", n), ("e", e)] {
        if octets.first().is_none_or(|first| *first == 0) {
            return Err(Unusable::BadMember {
                member,
                reason: "empty or begins with a zero octet",
            });
        }
    }
    let bits = bit_length(n);
    if !(MINIMUM_BITS..=MAXIMUM_BITS).contains(&bits) {
        return Err(Unusable::ModulusSize { bits });
    }
    if n.last().is_none_or(|last| last & 1 == 0) {
        return Err(Unusable::Invalid("the RSA modulus is even"));
    }
    if e.len() > 4 || e == [1] || e.last().is_none_or(|last| last & 1 == 0) {
        return Err(Unusable::Exponent);
    }
    if has_roca_fingerprint(n) {
        return Err(Unusable::Roca);
    }
    Ok(())
}

fn bit_length(n: &[u8]) -> usize {
    let first = n.first().copied().unwrap_or_default();
    let zeros = usize::try_from(first.leading_zeros()).unwrap_or_default();
    n.len().saturating_mul(8).saturating_sub(zeros)
}

/// The odd primes up to 167: those whose product divides the generator's `M` for every affected key size.
const SMALL_PRIMES: [u32; 38] = [
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97,
    101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
];

/// CVE-2017-15361: affected chips made primes of the form `k·M + (65537^a mod M)`, with `M` the product of the first primes. So
/// both primes, and their product, are powers of 65537 modulo each small prime. A sound modulus is that by chance once in about
/// 2^27 even for the shortest keys' `M`; over all these primes far more rarely.
fn has_roca_fingerprint(n: &[u8]) -> bool {
    SMALL_PRIMES.into_iter().all(|prime| is_power_of_65537(remainder(n, prime), prime))
}

fn remainder(n: &[u8], prime: u32) -> u32 {
    n.iter().fold(0, |rest: u32, octet| modulo((rest << 8) | u32::from(*octet), prime))
}

fn is_power_of_65537(residue: u32, prime: u32) -> bool {
    let generator = modulo(65_537, prime);
    let mut power = 1;
    loop {
        if power == residue {
            return true;
        }
        power = modulo(power.saturating_mul(generator), prime);
        if power <= 1 {
            return false;
        }
    }
}

fn modulo(value: u32, prime: u32) -> u32 {
    value.checked_rem(prime).unwrap_or_default()
}
