//! Ed25519 points as `verify_strict` wants them (threat J15): canonical, and not of small order. With a public key of small
//! order one signature fits many messages; verifiers disagree about such points, and replicas must not.

/// The ordinate of every point of order 1, 2, 4 or 8, little-endian; their sign bit may be either.
const SMALL_ORDER: [[u8; 32]; 5] = [
    [0; 32],
    ONE,
    MINUS_ONE,
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ],
];

const ONE: [u8; 32] = {
    let mut one = [0; 32];
    one[0] = 1;
    one
};

/// p − 1 = 2^255 − 20.
const MINUS_ONE: [u8; 32] = {
    let mut minus_one = [0xff; 32];
    minus_one[0] = 0xec;
    minus_one[31] = 0x7f;
    minus_one
};

/// Whether these 32 bytes encode a point canonically, and not one of small order.
pub(super) fn is_strict_point(encoded: &[u8]) -> bool {
    let Ok(mut ordinate) = <[u8; 32]>::try_from(encoded) else { return false };
    ordinate[31] &= 0x7f;
    // Little-endian: compare from the most significant byte.
    let canonical = ordinate.iter().rev().le(MINUS_ONE.iter().rev());
    canonical && !SMALL_ORDER.contains(&ordinate)
}

/// Whether a signature's R is such a point. That S is below the group's order is checked by the library (RFC 8032 section 5.1.7).
pub(super) fn is_strict_signature(signature: &[u8]) -> bool {
    signature.len() == 64 && signature.first_chunk::<32>().is_some_and(|r| is_strict_point(r))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j15_a_signature_of_small_order_is_not_strict() {
        let mut signature = [0x11; 64];
        assert!(is_strict_signature(&signature));
        assert!(!is_strict_signature(&signature[..63]));
        for weak in SMALL_ORDER {
            signature[..32].copy_from_slice(&weak);
            assert!(!is_strict_signature(&signature));
            signature[31] |= 0x80;
            assert!(!is_strict_signature(&signature));
        }
    }
}
