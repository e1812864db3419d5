//! The battery of `Chance`.

use std::collections::HashSet;

use cambio::chance::{Chance, SeededChance, SystemChance};

fn holds(chance: &dyn Chance) {
    // Duty 1: every byte is filled. A byte that stays zero in 64 draws would be a miracle otherwise (2⁻⁵¹²).
    for length in [0, 1, 31, 32, 33, 100] {
        let mut touched = vec![false; length];
        for _ in 0..64 {
            let mut buffer = vec![0; length];
            chance.fill(&mut buffer).unwrap();
            for (touched, byte) in touched.iter_mut().zip(&buffer) {
                *touched |= *byte != 0;
            }
        }
        assert!(touched.iter().all(|touched| *touched), "duty 1: {length} bytes");
    }
    // Duty 2: never the same 16 bytes.
    let mut seen = HashSet::new();
    for _ in 0..10_000 {
        let mut buffer = [0_u8; 16];
        chance.fill(&mut buffer).unwrap();
        assert!(seen.insert(buffer), "duty 2");
    }
}

#[test]
fn the_system_gives_chance() {
    holds(&SystemChance);
}

#[test]
fn a_seeded_sequence_gives_chance_and_repeats() {
    holds(&SeededChance::of(7));
    let draw = |seed: u64| {
        let mut buffer = [0_u8; 40];
        SeededChance::of(seed).fill(&mut buffer).unwrap();
        buffer
    };
    assert_eq!(draw(7), draw(7));
    assert_ne!(draw(7), draw(8));
}
