//! Hash tiles as the public sees them (C2SP tlog-tiles): rendered from stored hashes, never a record of their own.
//!
//! Entries and facts are not public: there are no entry bundles.

use std::{fmt, str::FromStr};

use thiserror::Error;

use crate::ledger::{
    reader::{LedgerReader, ReadError},
    tree::{TILE_HEIGHT, TILE_WIDTH},
};

/// The highest level that a log of 2⁶³ entries has.
const HIGHEST: u8 = 7;

/// Which tile: `<level>/<number>`, and `.p/<width>` for the first hashes of one that is not full yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileName {
    level: u8,
    number: u64,
    width: u64,
}

/// Not the name of a tile.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not the path of a hash tile")]
pub struct TileNameError;

impl TileName {
    /// The tile's bytes: its hashes in order. `None` if the log is not that long yet.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn render(&self, reader: &dyn LedgerReader) -> Result<Option<Vec<u8>>, ReadError> {
        let from = self.number.saturating_mul(TILE_WIDTH);
        let shift = u32::from(self.level).saturating_mul(u32::from(TILE_HEIGHT));
        let there = reader.size()?.checked_shr(shift).unwrap_or(0);
        if there < from.saturating_add(self.width) {
            return Ok(None);
        }
        reader.hashes(self.level, from, self.width).map(|hashes| Some(hashes.concat()))
    }

    /// Whether it is full: then it never changes, and may be cached for ever.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.width == TILE_WIDTH
    }
}

/// What follows `/tile/` in the path.
impl fmt::Display for TileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.level, path_of(self.number))?;
        if self.is_full() { Ok(()) } else { write!(f, ".p/{}", self.width) }
    }
}

impl FromStr for TileName {
    type Err = TileNameError;

    /// Reads what follows `/tile/`. Only the one way of writing a name is accepted.
    fn from_str(text: &str) -> Result<Self, TileNameError> {
        let (level, rest) = text.split_once('/').ok_or(TileNameError)?;
        let (number, width) = match rest.split_once(".p/") {
            Some((number, width)) => (number, width.parse().map_err(|_| TileNameError)?),
            None => (rest, TILE_WIDTH),
        };
        let level: u8 = level.parse().map_err(|_| TileNameError)?;
        let mut digits = String::new();
        for group in number.split('/') {
            digits.push_str(group.strip_prefix('x').unwrap_or(group));
        }
        let name = Self { level, number: digits.parse().map_err(|_| TileNameError)?, width };
        let sane = level <= HIGHEST && (1..=TILE_WIDTH).contains(&width);
        if sane && name.to_string() == text { Ok(name) } else { Err(TileNameError) }
    }
}

/// A number in groups of three digits, all but the last with an `x`: `x001/x234/067`.
fn path_of(number: u64) -> String {
    let mut path = format!("{:03}", number % 1_000);
    let mut rest = number / 1_000;
    while rest > 0 {
        path = format!("x{:03}/{path}", rest % 1_000);
        rest /= 1_000;
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_way_of_being_written() {
        for name in ["0/000", "0/000.p/1", "1/x001/x234/067", "7/x001/000.p/255"] {
            assert_eq!(name.parse::<TileName>().map(|name| name.to_string()), Ok(name.to_owned()));
        }
        for name in [
            "",
            "0",
            "0/",
            "0/0",
            "0/00",
            "0/0000",
            "00/000",
            "+0/000",
            "8/000",
            "0/000.p/0",
            "0/000.p/256",
            "0/000.p/01",
            "0/x000/001",
            "0/x01/001",
            "0/001/",
            "0/001/002",
            "0/-01",
            "entries/000",
            "0/000.p/",
            "0/x99999999999999999999/001",
        ] {
            assert_eq!(name.parse::<TileName>(), Err(TileNameError), "{name}");
        }
    }
}
