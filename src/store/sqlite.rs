//! The embedded store: SQLite in WAL mode, `synchronous=FULL`, one writing connection that also checkpoints.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rusqlite::{Connection, OpenFlags};

use crate::{
    ledger::note::{VerifierKey, check_name},
    store::{
        Store, StoreError,
        sqlite::{journal::SqliteJournal, read::SqliteReader},
    },
};

mod intents;
mod journal;
mod leases;
mod place;
mod read;
mod room;
mod schema;
mod wal;

/// The oldest SQLite without the WAL-reset defect.
const OLDEST_LIBRARY: i32 = 3_051_003;

/// Stores up to this size are checked whole at start; of larger ones the small tables, and the log's tail.
const CHECKED_WHOLE: u64 = 16 * 1_024 * 1_024;

/// How long a reading connection waits for the short locks of a WAL reset.
const BUSY: Duration = Duration::from_secs(5);

impl Store {
    /// Creates the store of a new log, which will be called `origin` for ever, and opens it.
    ///
    /// # Errors
    /// There is one already, the place can't be trusted, or the disk failed.
    pub fn create(path: &Path, origin: &str) -> Result<Self, StoreError> {
        check_name(origin).map_err(|error| StoreError::Origin(error.to_string()))?;
        check_library()?;
        let lock = lock(path)?;
        if fs::symlink_metadata(path).is_ok() {
            return Err(StoreError::Exists(path.to_owned()));
        }
        // Under another name until it is whole: whoever dies in between leaves no store, and no half of one.
        let new = beside(path, ".new");
        forget(&new)?;
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(failed)?;
        place::check(&new)?;
        let mut connection = writing(&new)?;
        schema::create(&mut connection, origin)?;
        schema::empty_wal(&connection)?;
        connection.close().map_err(|(_, error)| failed(error))?;
        File::open(&new).and_then(|file| file.sync_all()).map_err(failed)?;
        // Ours is the lock, so nobody of ours made one meanwhile.
        fs::rename(&new, path).map_err(failed)?;
        forget(&new)?;
        sync_folder(path)?;
        Self::assemble(path, writing(path)?, lock)
    }

    /// Opens an existing store for writing, after checking that it may be trusted.
    ///
    /// # Errors
    /// There is none, another process has it, it is damaged or of a later version, or the place can't be trusted.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        check_library()?;
        exists(path)?;
        place::check(path)?;
        let lock = lock(path)?;
        // Before SQLite sees it: recovery would silently drop what follows a damaged frame.
        let torn = wal::check(&wal_of(path))?;
        let mut connection = writing(path)?;
        let version = schema::version(&connection)?;
        let size = std::fs::metadata(path).map_err(failed)?.len();
        // Before anything is changed: what is damaged is left as it is, for whoever examines it.
        schema::check_integrity(&connection, version, size <= CHECKED_WHOLE)?;
        schema::upgrade(&mut connection)?;
        if torn > 0 {
            tracing::warn!(
                "the last {torn} commits of the write-ahead log were torn and are dropped: entries of the last moment may be missing, \
                 so tokens that may be used once and were issued before this start are not taken any more"
            );
            // Before the log is emptied: then nobody sees it any more.
            schema::note_torn(&connection)?;
        }
        // A fresh log: frames of a torn commit would otherwise stand behind the next ones and look like damage.
        schema::empty_wal(&connection)?;
        Self::assemble(path, connection, lock)
    }

    /// Opens an existing store for reading, beside a running broker or without one.
    ///
    /// # Errors
    /// There is none, or it is of a later version.
    pub fn read(path: &Path) -> Result<Arc<dyn crate::ledger::reader::LedgerReader>, StoreError> {
        exists(path)?;
        Ok(Arc::new(SqliteReader::open(path)?))
    }

    /// Keeps the log's private key, sealed, and its public half: once, when the log is created.
    ///
    /// # Errors
    /// There is a key already, or the disk failed.
    pub fn keep_log_key(path: &Path, sealed: &str, public: &VerifierKey) -> Result<(), StoreError> {
        exists(path)?;
        schema::keep_log_key(&mut writing(path)?, sealed, &public.to_string())
    }

    fn assemble(path: &Path, connection: Connection, lock: File) -> Result<Self, StoreError> {
        let reader = Arc::new(SqliteReader::open(path)?);
        Ok(Self { journal: Box::new(SqliteJournal::new(connection, wal_of(path), lock)), reader })
    }
}

/// What a creation that was killed left behind: the database called `new`, and what SQLite keeps beside one.
fn forget(new: &Path) -> Result<(), StoreError> {
    for left in [new.to_owned(), wal_of(new), beside(new, "-shm")] {
        match fs::remove_file(left) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

fn exists(path: &Path) -> Result<(), StoreError> {
    if path.is_file() { Ok(()) } else { Err(StoreError::Absent(path.to_owned())) }
}

fn check_library() -> Result<(), StoreError> {
    if rusqlite::version_number() >= OLDEST_LIBRARY {
        return Ok(());
    }
    Err(StoreError::Library { found: rusqlite::version().to_owned() })
}

/// The lock of the one writing process: a file of its own, because SQLite's are dropped with any descriptor of the database.
fn lock(path: &Path) -> Result<File, StoreError> {
    let lock = beside(path, ".lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(lock)
        .map_err(failed)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::Locked(path.to_owned())),
        Err(error) => Err(failed(error)),
    }
}

fn writing(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    schema::configure_writer(&connection)?;
    Ok(connection)
}

/// A new file's name is durable only with its folder.
fn sync_folder(path: &Path) -> Result<(), StoreError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))
        .and_then(|folder| folder.sync_all())
        .map_err(failed)
}

fn wal_of(path: &Path) -> PathBuf {
    beside(path, "-wal")
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn failed(error: impl std::fmt::Display) -> StoreError {
    StoreError::Failed(error.to_string())
}
