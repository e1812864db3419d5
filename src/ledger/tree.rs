//! The Merkle tree of RFC 6962 section 2.1: hashing, an append frontier, and proofs from stored hashes.
//!
//! Nothing here stores anything. A tree of `n` leaves is read through [`Nodes`]: the leaf hashes (tile level 0), and the
//! roots of complete subtrees of 256ˡ leaves (tile level `l`). Every other node is folded from at most 256 of those, so that
//! a proof costs the same number of reads per level at 10² and at 10⁸ leaves.

use aws_lc_rs::digest;

use crate::ledger::{Hash, reader::ReadError};

/// How many levels of the tree one level of tiles spans (C2SP tlog-tiles: tiles of height 8).
pub const TILE_HEIGHT: u8 = 8;

/// How many hashes a full tile holds.
pub const TILE_WIDTH: u64 = 256;

/// Gives stored hashes.
pub trait Nodes {
    /// `count` hashes of tile level `level`, beginning with number `from`; fewer than that is an error.
    ///
    /// # Errors
    /// The store can't be read, or hashes are missing.
    fn hashes(&self, level: u8, from: u64, count: u64) -> Result<Vec<Hash>, ReadError>;
}

/// The hash of a leaf: `SHA-256(0x00 ‖ leaf)`. The prefix keeps a leaf from passing for a node.
#[must_use]
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    sha256_of(&[&[0x00], leaf])
}

/// The hash of an inner node: `SHA-256(0x01 ‖ left ‖ right)`.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    sha256_of(&[&[0x01], left, right])
}

/// The root of a tree without leaves: SHA-256 of nothing.
#[must_use]
pub fn empty_root() -> Hash {
    sha256(&[])
}

/// SHA-256 of `bytes`.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Hash {
    hash_of(&digest::digest(&digest::SHA256, bytes))
}

/// SHA-256 of all `parts` after each other.
#[must_use]
pub fn sha256_of(parts: &[&[u8]]) -> Hash {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    hash_of(&context.finish())
}

fn hash_of(digest: &digest::Digest) -> Hash {
    let mut hash = [0; 32];
    for (to, from) in hash.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    hash
}

/// A finished subtree whose root a tile level keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileRoot {
    /// The tile level, from 1: the subtree has 256^level leaves.
    pub level: u8,
    /// Its number among the subtrees of that level.
    pub position: u64,
    /// Its root.
    pub hash: Hash,
}

/// The right edge of a tree: the roots of its complete subtrees, largest first. O(log n) in size, O(1) amortised to append.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// The frontier of the first `size` leaves.
    ///
    /// # Errors
    /// The store can't be read, or hashes are missing.
    pub fn load(nodes: &dyn Nodes, size: u64) -> Result<Self, ReadError> {
        let peaks = peaks_of(0, size)
            .map(|(level, position)| perfect(nodes, level, position))
            .collect::<Result<_, _>>()?;
        Ok(Self { size, peaks })
    }

    /// How many leaves there are.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf and tells `finished` of every subtree of 256ˡ leaves that it completes.
    pub fn push(&mut self, leaf: Hash, finished: &mut Vec<TileRoot>) {
        let index = self.size;
        let mut hash = leaf;
        let mut level = 0_u8;
        // Each trailing one bit of the old size is a complete left sibling that waits for us.
        while index.checked_shr(u32::from(level)).unwrap_or(0) & 1 == 1 {
            let Some(left) = self.peaks.pop() else { break };
            hash = node_hash(&left, &hash);
            level = level.saturating_add(1);
            if level.is_multiple_of(TILE_HEIGHT) {
                let position = index.checked_shr(u32::from(level)).unwrap_or(0);
                finished.push(TileRoot { level: level / TILE_HEIGHT, position, hash });
            }
        }
        self.peaks.push(hash);
        self.size = index.saturating_add(1);
    }

    /// The root over all leaves.
    #[must_use]
    pub fn root(&self) -> Hash {
        fold_peaks(&self.peaks)
    }
}

/// The root of the first `size` leaves.
///
/// # Errors
/// The store can't be read, or hashes are missing.
pub fn root(nodes: &dyn Nodes, size: u64) -> Result<Hash, ReadError> {
    Ok(Frontier::load(nodes, size)?.root())
}

/// The inclusion proof of leaf `index` in the tree of `size` leaves (RFC 6962 section 2.1.1), from the leaf upwards.
///
/// # Errors
/// `index` is not below `size`, the store can't be read, or hashes are missing.
pub fn inclusion(nodes: &dyn Nodes, index: u64, size: u64) -> Result<Vec<Hash>, ReadError> {
    if index >= size {
        return Err(ReadError::Absent(index));
    }
    let mut path = Vec::new();
    let (mut start, mut end) = (0, size);
    while end.saturating_sub(start) > 1 {
        let middle = split(start, end);
        if index < middle {
            path.push(range_root(nodes, middle, end)?);
            end = middle;
        } else {
            path.push(range_root(nodes, start, middle)?);
            start = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// The proof that the tree of `old` leaves is a prefix of the tree of `new` leaves (RFC 6962 section 2.1.2).
///
/// # Errors
/// `old` is 0 or above `new`, the store can't be read, or hashes are missing.
pub fn consistency(nodes: &dyn Nodes, old: u64, new: u64) -> Result<Vec<Hash>, ReadError> {
    if old == 0 || old > new {
        return Err(ReadError::Absent(old));
    }
    let mut path = Vec::new();
    let (mut start, mut end) = (0, new);
    let mut known = true;
    while end != old {
        let middle = split(start, end);
        if old <= middle {
            path.push(range_root(nodes, middle, end)?);
            end = middle;
        } else {
            path.push(range_root(nodes, start, middle)?);
            start = middle;
            known = false;
        }
    }
    // The verifier has the old root itself, but not that of a subtree of it.
    if !known {
        path.push(range_root(nodes, start, end)?);
    }
    path.reverse();
    Ok(path)
}

/// Where RFC 6962 cuts `[start, end)` of at least two leaves: after the largest power of two that leaves something over.
fn split(start: u64, end: u64) -> u64 {
    let last = end.saturating_sub(start).saturating_sub(1);
    start.saturating_add(1_u64 << last.max(1).ilog2())
}

/// The root of `[start, end)`, where `start` is a multiple of the largest power of two that fits in.
fn range_root(nodes: &dyn Nodes, start: u64, end: u64) -> Result<Hash, ReadError> {
    let peaks = peaks_of(start, end)
        .map(|(level, position)| perfect(nodes, level, position))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(fold_peaks(&peaks))
}

/// The complete subtrees that cover `[start, end)`, largest first, as (level, position).
fn peaks_of(start: u64, end: u64) -> impl Iterator<Item = (u8, u64)> {
    let size = end.saturating_sub(start);
    let mut at = start;
    (0..64_u8).rev().filter(move |level| size >> level & 1 == 1).map(move |level| {
        let position = at >> level;
        at = at.saturating_add(1 << level);
        (level, position)
    })
}

/// The root of the complete subtree of 2^`level` leaves, number `position`.
fn perfect(nodes: &dyn Nodes, level: u8, position: u64) -> Result<Hash, ReadError> {
    let above = level % TILE_HEIGHT;
    let count = 1_u64 << above;
    let from = position << above;
    let mut hashes = nodes.hashes(level / TILE_HEIGHT, from, count)?;
    if u64::try_from(hashes.len()).ok() != Some(count) {
        return Err(ReadError::Absent(from));
    }
    while hashes.len() > 1 {
        hashes = hashes
            .chunks(2)
            .filter_map(|pair| match pair {
                [left, right] => Some(node_hash(left, right)),
                _ => None,
            })
            .collect();
    }
    hashes.pop().ok_or(ReadError::Absent(from))
}

fn fold_peaks(peaks: &[Hash]) -> Hash {
    peaks
        .iter()
        .rev()
        .copied()
        .reduce(|right, left| node_hash(&left, &right))
        .unwrap_or_else(empty_root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::proof;

    /// Keeps what a store keeps: leaf hashes and tile roots.
    struct Memory(Vec<Vec<Hash>>);

    impl Memory {
        fn of(leaves: &[Hash]) -> (Self, Frontier) {
            let mut levels = vec![Vec::new(); 8];
            let mut frontier = Frontier::default();
            let mut finished = Vec::new();
            for leaf in leaves {
                levels[0].push(*leaf);
                frontier.push(*leaf, &mut finished);
            }
            for root in finished {
                let level = &mut levels[usize::from(root.level)];
                assert_eq!(level.len() as u64, root.position, "tile roots come in order");
                level.push(root.hash);
            }
            (Self(levels), frontier)
        }
    }

    impl Nodes for Memory {
        fn hashes(&self, level: u8, from: u64, count: u64) -> Result<Vec<Hash>, ReadError> {
            let (from, count) = (usize::try_from(from).unwrap(), usize::try_from(count).unwrap());
            self.0[usize::from(level)]
                .get(from..from.saturating_add(count))
                .map(<[_]>::to_vec)
                .ok_or(ReadError::Absent(from as u64))
        }
    }

    /// RFC 6962 section 2.1, word for word.
    fn naive(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => empty_root(),
            [one] => *one,
            many => {
                let half = many.len().next_power_of_two() / 2;
                node_hash(&naive(&many[..half]), &naive(&many[half..]))
            }
        }
    }

    fn leaves(count: u64) -> Vec<Hash> {
        (0..count).map(|index| leaf_hash(&index.to_be_bytes())).collect()
    }

    fn hex(hash: Hash) -> String {
        crate::ledger::entry::hex(&hash)
    }

    #[test]
    fn the_hashes_are_those_of_rfc_6962() {
        // The well-known vectors of Certificate Transparency's reference implementation.
        assert_eq!(
            hex(empty_root()),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(
            hex(leaf_hash(b"")),
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
        );
        let inputs: [&[u8]; 8] = [
            b"",
            &[0x00],
            &[0x10],
            &[0x20, 0x21],
            &[0x30, 0x31],
            &[0x40, 0x41, 0x42, 0x43],
            &[0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
            &[
                0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d,
                0x6e, 0x6f,
            ],
        ];
        let hashes: Vec<_> = inputs.iter().map(|input| leaf_hash(input)).collect();
        let (_, frontier) = Memory::of(&hashes);
        assert_eq!(
            hex(frontier.root()),
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
        );
        let (_, frontier) = Memory::of(&hashes[..7]);
        assert_eq!(
            hex(frontier.root()),
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"
        );
    }

    #[test]
    fn every_size_to_300_has_the_root_and_the_frontier_of_the_naive_tree() {
        let leaves = leaves(300);
        let (memory, _) = Memory::of(&leaves);
        for size in 0..=leaves.len() {
            let (_, frontier) = Memory::of(&leaves[..size]);
            assert_eq!(frontier.root(), naive(&leaves[..size]), "size {size}");
            assert_eq!(Frontier::load(&memory, size as u64).unwrap(), frontier, "size {size}");
        }
    }

    #[test]
    fn every_inclusion_proof_to_300_verifies_and_no_other_leaf_does() {
        let leaves = leaves(300);
        let (memory, _) = Memory::of(&leaves);
        for size in 1..=leaves.len() as u64 {
            let root = root(&memory, size).unwrap();
            for index in (0..size).filter(|index| size < 70 || index % 7 == size % 7) {
                let path = inclusion(&memory, index, size).unwrap();
                let leaf = leaves[usize::try_from(index).unwrap()];
                assert!(proof::includes(&leaf, index, size, &path, &root), "{index} of {size}");
                let other = leaf_hash(b"other");
                assert!(!proof::includes(&other, index, size, &path, &root));
                assert!(!proof::includes(&leaf, index ^ 1, size, &path, &root) || size == 1);
                let mut longer = path.clone();
                longer.push(root);
                assert!(!proof::includes(&leaf, index, size, &longer, &root));
                assert!(path.is_empty() || !proof::includes(&leaf, index, size, &path[1..], &root));
            }
        }
        assert!(inclusion(&memory, 5, 5).is_err());
    }

    #[test]
    fn every_consistency_proof_to_300_verifies_and_no_other_root_does() {
        let leaves = leaves(300);
        let (memory, _) = Memory::of(&leaves);
        let roots: Vec<_> = (0..=300).map(|size| root(&memory, size).unwrap()).collect();
        for new in 1..=300_usize {
            for old in (1..=new).filter(|old| new < 70 || old % 11 == new % 11) {
                let path = consistency(&memory, old as u64, new as u64).unwrap();
                let (first, second) = ((old as u64, &roots[old]), (new as u64, &roots[new]));
                assert!(proof::extends(first, second, &path), "{old} → {new}");
                let wrong = leaf_hash(b"other");
                assert!(!proof::extends((old as u64, &wrong), second, &path));
                assert!(!proof::extends(first, (new as u64, &wrong), &path));
            }
        }
        assert!(consistency(&memory, 0, 5).is_err());
        assert!(consistency(&memory, 6, 5).is_err());
    }

    #[test]
    fn tile_roots_reach_level_two_after_65536_leaves() {
        let leaves = leaves(66_000);
        let (memory, frontier) = Memory::of(&leaves);
        assert_eq!(memory.0[1].len(), 257);
        assert_eq!(memory.0[2], vec![naive(&leaves[..65_536])]);
        assert_eq!(Frontier::load(&memory, 66_000).unwrap().root(), frontier.root());
        let path = inclusion(&memory, 12_345, 66_000).unwrap();
        assert!(proof::includes(&leaves[12_345], 12_345, 66_000, &path, &frontier.root()));
    }
}
