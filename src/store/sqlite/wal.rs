//! Looks at a write-ahead log before SQLite does (threat A06).
//!
//! SQLite's recovery ends at the first frame whose checksum is wrong and drops the rest without a word. That is right for
//! the torn end of commits that nobody got a receipt of, and wrong for damage in the middle. One writer leaves at most one
//! commit to the flush of the next, so at most *two* commits may stand from the first bad frame on; three mean damage. One or two can
//! be damage as well, and nobody can tell: so they are cut, and said, and no token that may be used once and is from before is
//! taken any more. Format: <https://www.sqlite.org/fileformat2.html#walformat>.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

use crate::store::{StoreError, sqlite::failed};

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

/// The most commits that a power cut can tear: one that waits for its flush, and the one that would have flushed it.
const TORN: u64 = 2;

/// Refuses a write-ahead log with damage before its last commits. Else, how many of these SQLite will drop.
pub(super) fn check(path: &Path) -> Result<u64, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(failed(error)),
    };
    let lost = commits_after_damage(BufReader::with_capacity(1 << 20, file)).map_err(failed)?;
    if lost <= TORN {
        return Ok(lost);
    }
    Err(StoreError::Damaged(format!(
        "{lost} commits follow a damaged frame of the write-ahead log"
    )))
}

/// How many commits of the log's own generation follow the first frame whose checksum is wrong.
fn commits_after_damage(mut log: impl Read) -> io::Result<u64> {
    let mut header = [0; HEADER];
    if !filled(&mut log, &mut header)? {
        return Ok(0);
    }
    let mut sum = Checksum::of(word(&header, 0) & 1 == 1);
    let page = usize::try_from(word(&header, 8)).unwrap_or(0);
    if word(&header, 0) & !1 != 0x377f_0682 || !page.is_power_of_two() || page > 65_536 {
        return Ok(0);
    }
    sum.add(header.get(..24).unwrap_or_default());
    let (salts, mut damaged) = (header.get(16..24).unwrap_or_default().to_vec(), false);
    if !sum.is(&header, 24) {
        damaged = true;
    }
    let mut frame = vec![0; FRAME_HEADER.saturating_add(page)];
    let mut lost = 0_u64;
    while filled(&mut log, &mut frame)? {
        // Frames of an earlier generation stand behind ours until they are overwritten.
        let ours = frame.get(8..16) == Some(salts.as_slice());
        if !damaged {
            sum.add(frame.get(..8).unwrap_or_default());
            sum.add(frame.get(FRAME_HEADER..).unwrap_or_default());
            damaged = !(ours && sum.is(&frame, 16));
        }
        // The second word is the database's size in a commit's last frame, and 0 in the others.
        if damaged && ours && word(&frame, 4) != 0 {
            lost = lost.saturating_add(1);
        }
    }
    Ok(lost)
}

/// The running checksum over header and frames; each word in the byte order that the header's lowest bit names.
struct Checksum {
    big_endian: bool,
    first: u32,
    second: u32,
}

impl Checksum {
    const fn of(big_endian: bool) -> Self {
        Self { big_endian, first: 0, second: 0 }
    }

    fn add(&mut self, bytes: &[u8]) {
        for pair in bytes.chunks_exact(8) {
            let (one, two) = (self.read(pair, 0), self.read(pair, 4));
            self.first = self.first.wrapping_add(one).wrapping_add(self.second);
            self.second = self.second.wrapping_add(two).wrapping_add(self.first);
        }
    }

    fn read(&self, bytes: &[u8], at: usize) -> u32 {
        let word = word(bytes, at);
        if self.big_endian { word } else { word.swap_bytes() }
    }

    /// Whether the stored sum at `at`, always big-endian, is this one.
    fn is(&self, bytes: &[u8], at: usize) -> bool {
        word(bytes, at) == self.first && word(bytes, at.saturating_add(4)) == self.second
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..at.saturating_add(4)).and_then(|word| word.try_into().ok());
    u32::from_be_bytes(word.unwrap_or_default())
}

/// Fills `buffer`, or says that the log ends first.
fn filled(log: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match log.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
