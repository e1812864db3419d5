//! Names of things that happen: prefixed `UUIDv7` (RFC 9562 section 5.7), sortable by time.

use std::{fmt, str::FromStr};

use thiserror::Error;
use uuid::Uuid;

use crate::{
    chance::{Chance, ChanceError},
    clock::Instant,
};

/// A text that is not an id of the wanted kind.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("found `{found}`, expected `{prefix}` and a UUID")]
pub struct IdError {
    found: String,
    prefix: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// The prefix of the text form.
            pub const PREFIX: &'static str = $prefix;

            /// A new id, made at `now`.
            ///
            /// # Errors
            /// There is no randomness to be had.
            pub fn make(now: Instant, chance: &dyn Chance) -> Result<Self, ChanceError> {
                Ok(Self(uuid_v7(now, chance)?))
            }

            /// The sixteen bytes, as the ledger keeps them.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// The id of these sixteen bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", Self::PREFIX, self.0.simple())
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                text.strip_prefix(Self::PREFIX)
                    .and_then(|rest| Uuid::try_parse(rest).ok())
                    .map(Self)
                    .ok_or_else(|| IdError { found: text.to_owned(), prefix: Self::PREFIX })
            }
        }
    };
}

id! {
    /// Names one exchange, granted or refused: `ex_…`.
    ExchangeId, "ex_"
}
id! {
    /// Names one lease: `ls_…`.
    LeaseId, "ls_"
}
id! {
    /// Names one block: `bl_…`.
    BlockId, "bl_"
}

fn uuid_v7(now: Instant, chance: &dyn Chance) -> Result<Uuid, ChanceError> {
    let mut random = [0_u8; 10];
    chance.fill(&mut random)?;
    Ok(uuid::Builder::from_unix_timestamp_millis(now.milliseconds(), &random).into_uuid())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::SeededChance;

    #[test]
    fn an_id_reads_back_what_it_prints() -> Result<(), Box<dyn std::error::Error>> {
        let id = ExchangeId::make(Instant::from_seconds(1_800_000_000), &SeededChance::of(1))?;
        assert_eq!(id.to_string().parse::<ExchangeId>()?, id);
        assert!(id.to_string().starts_with("ex_01a3185c50007"), "{id}");
        assert!(id.to_string().parse::<LeaseId>().is_err());
        Ok(())
    }
}
