//! Anchors: places outside the store that remember the log's head, so that a cut tail and a restored backup are seen
//! (threats A02, K07).

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use thiserror::Error;

use crate::ledger::{
    Hash,
    checkpoint::Checkpoint,
    note::VerifierKey,
    reader::{LedgerReader, ReadError},
    tree,
};

/// How much of the end of an anchor file is read: far more than one note has.
const TAIL: u64 = 128 * 1_024;

/// An anchor did not do its part.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AnchorError {
    /// It holds a newer head, or another one of the same size.
    #[error("anchor `{anchor}` holds a head of size {newest}, found one of size {found}")]
    Backwards {
        /// Which anchor.
        anchor: String,
        /// The size that it holds.
        newest: u64,
        /// The size that was offered.
        found: u64,
    },
    /// What it holds is not by this log's key.
    #[error("anchor `{anchor}` holds something else: {reason}")]
    Foreign {
        /// Which anchor.
        anchor: String,
        /// What was found.
        reason: String,
    },
    /// It can't be reached, read or written.
    #[error("anchor `{anchor}` failed: {reason}")]
    Failed {
        /// Which anchor.
        anchor: String,
        /// What happened.
        reason: String,
    },
}

/// Remembers the newest checkpoint of one log.
///
/// Duties, held by `tests/it/ledger/anchor.rs`:
///
/// 1. after `publish` returns, `newest` gives that checkpoint or a newer one, whatever happens to this machine's store;
/// 2. it never goes back: a smaller head, or another head of the same size, is [`AnchorError::Backwards`], unless the
///    checkpoint itself names the anchor's head as a fork that an operator acknowledged;
/// 3. what it gives was signed by the log's key: anything else is [`AnchorError::Foreign`], never "nothing".
#[async_trait]
pub trait Anchor: fmt::Debug + Send + Sync {
    /// The name in messages.
    fn name(&self) -> &str;

    /// Remembers a signed checkpoint.
    ///
    /// # Errors
    /// It would go back, or it can't be written.
    async fn publish(&self, note: &str) -> Result<(), AnchorError>;

    /// The newest checkpoint; `None` only if nothing was ever published.
    ///
    /// # Errors
    /// It can't be read, or is not by the log's key.
    async fn newest(&self) -> Result<Option<Checkpoint>, AnchorError>;
}

/// An append-only file, for another disk or another host's mount. Notes follow one another, each ended by an empty line.
#[derive(Debug)]
pub struct FileAnchor {
    name: String,
    path: PathBuf,
    key: VerifierKey,
    /// One publisher at a time: compare and append must not interleave.
    turn: Arc<Mutex<()>>,
}

impl FileAnchor {
    /// The anchor at `path`, for checkpoints by `key`. The file is made by the first publication, its folder is not.
    #[must_use]
    pub fn new(path: &Path, key: VerifierKey) -> Self {
        let name = format!("file:{}", path.display());
        Self { name, path: path.to_owned(), key, turn: Arc::default() }
    }

    /// Every head that the file keeps, oldest first: for `ledger verify`.
    ///
    /// # Errors
    /// The file can't be read, or its newest whole note is not by the log's key. Older ones that are not were torn by a crash
    /// and never acknowledged; they are left out.
    pub fn kept(&self) -> Result<Vec<Checkpoint>, AnchorError> {
        if self.read_newest()?.is_none() {
            return Ok(Vec::new());
        }
        let text = std::fs::read(&self.path).map_err(|error| self.failed(error))?;
        let text = String::from_utf8_lossy(&text);
        let whole = text.split("\n\n\n").map(|note| format!("{note}\n"));
        Ok(whole.filter_map(|note| Checkpoint::open(&note, &self.key).ok()).collect())
    }

    fn failed(&self, reason: impl fmt::Display) -> AnchorError {
        AnchorError::Failed { anchor: self.name.clone(), reason: reason.to_string() }
    }

    fn foreign(&self, reason: impl fmt::Display) -> AnchorError {
        AnchorError::Foreign { anchor: self.name.clone(), reason: reason.to_string() }
    }

    fn read_newest(&self) -> Result<Option<Checkpoint>, AnchorError> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed(error)),
        };
        let text = tail_of(&mut file).map_err(|error| self.failed(error))?;
        if text.is_empty() {
            return Ok(None);
        }
        // A note torn by a power cut was never acknowledged: the newest whole one counts. A whole one that does not verify
        // is somebody else's work, and is not skipped.
        let whole = text.rfind("\n\n\n").ok_or_else(|| self.foreign("found no whole note"))?;
        let (notes, _) = text.split_at_checked(whole.saturating_add(1)).unwrap_or_default();
        let from = notes.rfind("\n\n\n").map_or(0, |at| at.saturating_add(3));
        let note = notes.get(from..).unwrap_or_default();
        Checkpoint::open(note, &self.key).map(Some).map_err(|error| self.foreign(error))
    }

    fn append(&self, note: &str) -> Result<(), AnchorError> {
        let offered = Checkpoint::open(note, &self.key).map_err(|error| self.foreign(error))?;
        let fresh = match self.read_newest()? {
            Some(newest) if newest.size == offered.size && newest.root == offered.root => {
                return Ok(());
            }
            Some(newest) if !follows(&offered, &newest) => {
                let (newest, found) = (newest.size, offered.size);
                return Err(AnchorError::Backwards { anchor: self.name.clone(), newest, found });
            }
            newest => newest.is_none(),
        };
        self.write(note, fresh).map_err(|error| self.failed(error))
    }

    fn write(&self, note: &str, fresh: bool) -> io::Result<()> {
        if fresh && !self.path.exists() {
            return self.create(note);
        }
        let mut file = OpenOptions::new().append(true).create(true).mode(0o644).open(&self.path)?;
        // A torn note is closed by an ending of its own, so that it can't swallow this one.
        let torn = !fresh && !tail_of(&mut File::open(&self.path)?)?.ends_with("\n\n\n");
        let lead = if torn { "\n\n\n" } else { "" };
        file.write_all(format!("{lead}{note}\n\n").as_bytes())?;
        file.sync_all()
    }

    /// The file appears under its name with its first note whole: who dies before that leaves none, not an empty or torn one.
    fn create(&self, note: &str) -> io::Result<()> {
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let draft = folder.join(name);
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&draft)?;
        file.write_all(format!("{note}\n\n").as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&draft, &self.path)?;
        // The name of a new file is durable only with its folder.
        File::open(folder)?.sync_all()
    }
}

/// The end of the file, from the first whole character on.
fn tail_of(file: &mut File) -> io::Result<String> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether an anchor that holds `newest` may take `offered`.
fn follows(offered: &Checkpoint, newest: &Checkpoint) -> bool {
    offered.size > newest.size || offered.forks.contains(&(newest.size, newest.root))
}

#[async_trait]
impl Anchor for FileAnchor {
    fn name(&self) -> &str {
        &self.name
    }

    async fn publish(&self, note: &str) -> Result<(), AnchorError> {
        let this = self.clone_for_blocking();
        let note = note.to_owned();
        let done = tokio::task::spawn_blocking(move || {
            let _turn = this.turn.lock().unwrap_or_else(PoisonError::into_inner);
            this.append(&note)
        });
        done.await.map_err(|error| self.failed(error))?
    }

    async fn newest(&self) -> Result<Option<Checkpoint>, AnchorError> {
        let this = self.clone_for_blocking();
        let done = tokio::task::spawn_blocking(move || this.read_newest());
        done.await.map_err(|error| self.failed(error))?
    }
}

impl FileAnchor {
    fn clone_for_blocking(&self) -> Self {
        Self {
            name: self.name.clone(),
            path: self.path.clone(),
            key: self.key.clone(),
            turn: Arc::clone(&self.turn),
        }
    }
}

/// The log's head does not agree with an anchor: the store was restored, cut or replaced (threats A02, K07).
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Fork {
    /// The anchor knows entries that the store does not have.
    #[error("the log has {size} entries, anchor `{anchor}` saw {}", .anchored.0)]
    Behind {
        /// Which anchor.
        anchor: String,
        /// What the anchor holds: size and root.
        anchored: (u64, Hash),
        /// How many entries there are.
        size: u64,
    },
    /// The anchor knows another history.
    #[error("the first {} entries are not those that anchor `{anchor}` saw", .anchored.0)]
    Beside {
        /// Which anchor.
        anchor: String,
        /// What the anchor holds: size and root.
        anchored: (u64, Hash),
    },
    /// The anchor did not answer, or with something that the log's key did not sign. No answer is not a good answer.
    #[error(transparent)]
    Unknown(#[from] AnchorError),
    /// The store can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl Fork {
    /// The head that an operator must acknowledge to go on; none where there is nothing to acknowledge.
    #[must_use]
    pub const fn anchored(&self) -> Option<(u64, Hash)> {
        match self {
            Self::Behind { anchored, .. } | Self::Beside { anchored, .. } => Some(*anchored),
            Self::Unknown(_) | Self::Read(_) => None,
        }
    }
}

/// Compares the log with the newest head of every anchor, before anything is issued. A head that an operator acknowledged
/// as a fork is no disagreement.
///
/// # Errors
/// All disagreements, so that one `fork` can acknowledge them together.
pub async fn check_head(
    reader: &dyn LedgerReader,
    anchors: &[Arc<dyn Anchor>],
) -> Result<(), Vec<Fork>> {
    let mut found = Vec::new();
    for anchor in anchors {
        match anchor.newest().await {
            Ok(None) => {}
            Ok(Some(newest)) => found.extend(disagreement(reader, anchor.name(), &newest)),
            Err(error) => found.push(Fork::Unknown(error)),
        }
    }
    if found.is_empty() { Ok(()) } else { Err(found) }
}

fn disagreement(reader: &dyn LedgerReader, anchor: &str, newest: &Checkpoint) -> Option<Fork> {
    let anchored = (newest.size, newest.root);
    let anchor = anchor.to_owned();
    let judged = || -> Result<Option<Fork>, ReadError> {
        if reader.forks()?.contains(&anchored) {
            return Ok(None);
        }
        let size = reader.size()?;
        if size < newest.size {
            return Ok(Some(Fork::Behind { anchor, anchored, size }));
        }
        let agrees = tree::root(reader, newest.size)? == newest.root;
        Ok((!agrees).then_some(Fork::Beside { anchor, anchored }))
    };
    judged().unwrap_or_else(|error| Some(error.into()))
}

/// Publishes a checkpoint to every anchor. A failure is loud and does not stop issuing: the next checkpoint covers it.
pub(in crate::ledger) async fn publish_everywhere(anchors: &[Arc<dyn Anchor>], note: &str) {
    for anchor in anchors {
        if let Err(error) = anchor.publish(note).await {
            tracing::warn!(ledger.anchor = anchor.name(), "a checkpoint was not anchored: {error}");
        }
    }
}
