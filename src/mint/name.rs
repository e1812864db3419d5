//! Names of what we make at targets: generated, short, of one alphabet, and recognisably ours.
//!
//! Threat B01: nothing of a claim, a role or a rule is ever part of a name. PostgreSQL cuts names at 63 bytes silently, MySQL
//! has 32: a cut name could be another's.

use aws_lc_rs::digest;

use crate::{
    chance::{Chance, ChanceError},
    grant::TargetName,
};

/// Crockford's alphabet in lower case: no letter that is taken for a digit, nothing that needs quotes anywhere.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const MARK_CHARACTERS: usize = 6;
const RANDOM_CHARACTERS: usize = 18;

/// Makes the names of one target in one broker, and knows them again.
///
/// `cambio_`, six characters that stand for this broker and this target, `_`, eighteen random ones (90 bits): 32 bytes. Two
/// brokers that share a server do not take each other's objects for orphans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    prefix: String,
}

impl Names {
    /// The names of `target` in the broker whose log is called `origin`.
    #[must_use]
    pub fn of(origin: &str, target: &TargetName) -> Self {
        let text = format!("{origin}\n{target}");
        let hash = digest::digest(&digest::SHA256, text.as_bytes());
        Self { prefix: format!("cambio_{}_", letters(hash.as_ref(), MARK_CHARACTERS)) }
    }

    /// What all of them begin with.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// A new name.
    ///
    /// # Errors
    /// There is no randomness to be had.
    pub fn make(&self, chance: &dyn Chance) -> Result<String, ChanceError> {
        let mut random = [0; RANDOM_CHARACTERS];
        chance.fill(&mut random)?;
        Ok(format!("{}{}", self.prefix, letters(&random, RANDOM_CHARACTERS)))
    }

    /// Whether `name` could have been made here. Only such names are ever put into a statement.
    #[must_use]
    pub fn is_ours(&self, name: &str) -> bool {
        name.strip_prefix(&self.prefix).is_some_and(|rest| {
            rest.len() == RANDOM_CHARACTERS && rest.bytes().all(|byte| ALPHABET.contains(&byte))
        })
    }
}

/// Five bits of each of the first `count` bytes.
fn letters(bytes: &[u8], count: usize) -> String {
    let letter = |byte: &u8| ALPHABET.get(usize::from(byte & 31)).copied().map(char::from);
    bytes.iter().take(count).filter_map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::SeededChance;

    #[test]
    fn a_name_fits_every_server_and_is_known_again() {
        let names = Names::of("log.example/cambio", &"postgres/orders".into());
        let name = names.make(&SeededChance::of(1)).unwrap();
        assert_eq!(name.len(), 32);
        assert!(names.is_ours(&name));
        assert_ne!(name, names.make(&SeededChance::of(2)).unwrap());
    }

    #[test]
    fn b01_nothing_else_is_taken_for_ours() {
        let names = Names::of("log.example/cambio", &"postgres/orders".into());
        let name = names.make(&SeededChance::of(1)).unwrap();
        let other = Names::of("log.example/cambio", &"postgres/billing".into());
        assert!(!other.is_ours(&name), "another target's");
        assert!(!Names::of("log.example/b", &"postgres/orders".into()).is_ours(&name));
        for wrong in ["", "postgres", names.prefix(), &format!("{name}x"), &format!("{name}\0")] {
            assert!(!names.is_ours(wrong), "{wrong:?}");
        }
        for bad in ['\'', '"', ';', '\\', 'I', 'é'] {
            let mut wrong = name.clone();
            wrong.pop();
            wrong.push(bad);
            assert!(!names.is_ours(&wrong), "{wrong}");
        }
    }
}
