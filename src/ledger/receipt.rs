//! Proof files (C2SP tlog-proof): all that somebody without access to the log needs to check an entry.
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! index 17
//! <base64 hash>            one line for each hash of the inclusion proof, from the leaf upwards
//!
//! <signed checkpoint>
//! ```

use base64::{Engine as _, engine::general_purpose::STANDARD};
use thiserror::Error;

use crate::ledger::{
    Hash,
    checkpoint::Checkpoint,
    note::VerifierKey,
    proof,
    reader::{LedgerReader, ReadError},
    tree,
};

const HEADER: &str = "c2sp.org/tlog-proof@v1";

/// The most hashes a proof can have: one for each level.
const MOST_HASHES: usize = 64;

/// Why there is no proof.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ProveError {
    /// The store can't be read, or there is no such entry.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// No checkpoint covers the entry yet: ask again in a second.
    #[error("no checkpoint covers entry {0} yet")]
    NotYet(u64),
    /// The checkpoint of the store is not one.
    #[error("checkpoint: {0}")]
    Checkpoint(String),
}

/// Why a proof proves nothing.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ProofError {
    /// Not a proof file.
    #[error("not a proof file: {0}")]
    Malformed(&'static str),
    /// The checkpoint is not by the log's key.
    #[error("checkpoint: {0}")]
    Checkpoint(String),
    /// The hashes do not lead from the leaf to the signed root.
    #[error("the entry is not in the log that was signed")]
    NotIncluded,
}

/// The proof file of entry `index`, under the oldest checkpoint that covers it.
///
/// # Errors
/// There is no such entry, no checkpoint covers it yet, or the store can't be read.
pub fn prove(reader: &dyn LedgerReader, index: u64) -> Result<String, ProveError> {
    if index >= reader.size()? {
        return Err(ReadError::Absent(index).into());
    }
    let stored =
        reader.checkpoint_at_least(index.saturating_add(1))?.ok_or(ProveError::NotYet(index))?;
    let mut text = format!("{HEADER}\nindex {index}\n");
    for hash in tree::inclusion(reader, index, stored.size)? {
        text.push_str(&STANDARD.encode(hash));
        text.push('\n');
    }
    text.push('\n');
    text.push_str(&stored.note);
    Ok(text)
}

/// Whether `text` proves that `leaf` is an entry of the log of `key`: its index and the checkpoint that says so.
///
/// # Errors
/// It proves nothing.
pub fn check_proof(
    text: &str,
    leaf: &Hash,
    key: &VerifierKey,
) -> Result<(u64, Checkpoint), ProofError> {
    let malformed = ProofError::Malformed("expected its header and an index");
    let rest = text.strip_prefix(HEADER).ok_or_else(|| malformed.clone())?;
    // Opaque data of others may stand before the index; it proves nothing.
    let rest = match rest.strip_prefix("\nextra ") {
        Some(extra) => extra.find('\n').and_then(|end| extra.get(end..)).unwrap_or_default(),
        None => rest,
    };
    let rest = rest.strip_prefix("\nindex ").ok_or(malformed)?;
    let (head, note) =
        rest.split_once("\n\n").ok_or(ProofError::Malformed("expected a checkpoint"))?;
    let mut lines = head.split('\n');
    let index = lines
        .next()
        .and_then(|text| text.parse::<u64>().ok().filter(|index| index.to_string() == text))
        .ok_or(ProofError::Malformed("expected an index"))?;
    let path = lines.take(MOST_HASHES.saturating_add(1)).map(hash).collect::<Option<Vec<_>>>();
    let path = path
        .filter(|path| path.len() <= MOST_HASHES)
        .ok_or(ProofError::Malformed("expected at most 64 hashes"))?;
    let checkpoint =
        Checkpoint::open(note, key).map_err(|error| ProofError::Checkpoint(error.to_string()))?;
    if proof::includes(leaf, index, checkpoint.size, &path, &checkpoint.root) {
        return Ok((index, checkpoint));
    }
    Err(ProofError::NotIncluded)
}

fn hash(text: &str) -> Option<Hash> {
    STANDARD.decode(text).ok()?.try_into().ok()
}
