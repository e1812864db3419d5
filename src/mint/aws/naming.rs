//! Claims become names at AWS (threat H11): in its alphabets and lengths, and never two subjects under one name.

use std::fmt::Write as _;

use super::super::sha256;

/// `RoleSessionName` and `SourceIdentity` have 2 to 64 of `[\w+=,.@-]` (AWS STS API reference).
const LONGEST_NAME: usize = 64;
/// The most characters of a tag's value.
const LONGEST_VALUE: usize = 256;
/// Hexadecimal characters of a SHA-256 that end a name: 64 bits, so that nobody finds two subjects that share them by trying a
/// few thousand repositories.
const HASH: usize = 16;

/// The name of a session, or its source identity: as much of `parts` as can be read, and the hash of everything, `owner` (the
/// subject, or its issuer) included. Two owners never share a name, nor do two lists of parts of one owner.
#[must_use]
pub fn session_name(owner: &str, parts: &[String]) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
    let all = std::iter::once(owner).chain(parts.iter().map(String::as_str));
    suffixed(&parts.join("-"), fits, LONGEST_NAME, &hash(all))
}

/// The value of a tag. One that AWS takes as it is stays as it is, so that a condition in IAM can name it; any other is mapped
/// and ends in its hash. A value that only looks like a mapped one is mapped, too: or whoever chooses it would be taken for another.
#[must_use]
pub fn tag_value(value: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || " _.:/=+-@".contains(c);
    let as_it_is = !value.is_empty()
        && value.len() <= LONGEST_VALUE
        && value.chars().all(fits)
        && value.trim() == value
        && !looks_mapped(value);
    if as_it_is {
        return value.to_owned();
    }
    suffixed(value.trim(), fits, LONGEST_VALUE, &hash(std::iter::once(value)))
}

/// What `fits` of `readable`, at most so much of it that name and hash have `longest` characters.
fn suffixed(readable: &str, fits: impl Fn(char) -> bool, longest: usize, hash: &str) -> String {
    let room = longest.saturating_sub(HASH).saturating_sub(1);
    let mut name: String =
        readable.chars().map(|c| if fits(c) { c } else { '-' }).take(room).collect();
    name.push('-');
    name.push_str(hash);
    name
}

/// Each part with its length in front: no two lists are hashed as the same bytes.
fn hash<'a>(parts: impl Iterator<Item = &'a str>) -> String {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    let mut text = String::with_capacity(HASH);
    for byte in sha256(&bytes).iter().take(HASH / 2) {
        // Writing into a `String` can't fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn looks_mapped(value: &str) -> bool {
    value.rsplit_once('-').is_some_and(|(_, end)| {
        end.len() == HASH && end.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}
