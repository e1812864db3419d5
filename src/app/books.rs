//! Opens what must be trusted before anything is served: store, ledger, anchors, key ring.

use std::{path::PathBuf, sync::Arc};

use crate::{
    app::{Existing, StartError, journal::Journal},
    chance::Chance,
    clock::Clock,
    config::{AnchorConfig, Config, ProtectorConfig, StoreConfig},
    keys::{rotator::Rotator, schedules::Schedules},
    ledger::{
        Commit,
        anchor::{self, Anchor, FileAnchor},
        checkpoint::Checkpointer,
        note::{LogKey, VerifierKey},
        reader::LedgerReader,
        writer::Writer,
    },
    protector::{
        KeyProtector,
        file::{KeyFile, PassphraseFile},
    },
    store::Store,
};

/// How many proposals may wait for the disk; more are refused with 503.
const QUEUE: usize = 8_192;

/// What was opened.
#[derive(Debug)]
pub struct Books {
    /// The commit port.
    pub writer: Writer,
    /// The read side.
    pub reader: Arc<dyn LedgerReader>,
    /// What shows a rollback.
    pub anchors: Vec<Arc<dyn Anchor>>,
    /// Our signing keys.
    pub rotator: Arc<Rotator>,
    /// Signs heads.
    pub checkpointer: Checkpointer,
}

/// Opens, or with [`Existing::Created`] makes, everything that the configuration names.
///
/// # Errors
/// Something is not there, does not open, or is not what it was.
pub async fn open(
    config: &Config,
    existing: Existing,
    clock: &Arc<dyn Clock>,
    chance: &Arc<dyn Chance>,
) -> Result<Books, StartError> {
    let path = store_path(config);
    let opened = match existing {
        Existing::Required => Store::open(&path),
        Existing::Created => Store::create(&path, &config.ledger.origin),
    };
    let store = opened.map_err(ledger)?;
    let reader = store.reader;
    if reader.origin() != config.ledger.origin {
        return Err(StartError::Ledger(format!(
            "the store is the ledger of `{}`, expected `{}`: an origin is fixed when a ledger is created",
            reader.origin(),
            config.ledger.origin
        )));
    }
    let writer =
        Writer::start(store.journal, &*reader, Arc::clone(clock), Arc::clone(chance), QUEUE)
            .map_err(ledger)?;
    let opened = open_over(config, &writer, reader, clock).await;
    if opened.is_err() {
        // The store's lock is free when this returns: whoever mends the cause can start again at once.
        writer.close();
        writer.wait_until_ended().await;
    }
    opened
}

/// What stands over a running writer: keys, anchors, checkpoints.
async fn open_over(
    config: &Config,
    writer: &Writer,
    reader: Arc<dyn LedgerReader>,
    clock: &Arc<dyn Clock>,
) -> Result<Books, StartError> {
    let rotator = Arc::new(open_ring(config, writer, &reader, clock).await?);
    let key =
        LogKey::from_seed(&config.ledger.origin, &rotator.keyring().log_seed()).map_err(ledger)?;
    keep_log_key(&store_path(config), &*reader, &key)?;
    let anchors = anchors(config, key.public());
    hold_if_forked(&*reader, &anchors, writer).await;
    let checkpointer =
        Checkpointer::new(key, Arc::clone(&reader), writer.clone()).map_err(ledger)?;
    let checkpointer = checkpointer.every(config.ledger.checkpoint_every);
    Ok(Books { writer: writer.clone(), reader, anchors, rotator, checkpointer })
}

/// Whether nothing shows that there was a ledger before.
///
/// # Errors
/// An anchor is there.
pub fn no_anchor_tells_of_one(config: &Config) -> Result<(), StartError> {
    let there = |anchor: &&AnchorConfig| {
        let AnchorConfig::File(path) = anchor;
        // What can not be looked at is not known to be absent; and a link that leads nowhere is there.
        let found = std::fs::symlink_metadata(path);
        !found.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    };
    let Some(AnchorConfig::File(path)) = config.ledger.anchors.iter().find(there) else {
        return Ok(());
    };
    Err(StartError::Ledger(format!(
        "found no store at `{}`, but its anchor `{}`: the store is lost, not new. Restore it; or give the anchor up by moving \
         it away, and with it every spent token, block and withdrawn key that the ledger knew",
        store_path(config).display(),
        path.display()
    )))
}

/// Where the store lies.
#[must_use]
pub fn store_path(config: &Config) -> PathBuf {
    let StoreConfig::Sqlite { path } = &config.store;
    path.clone()
}

/// The waits between the phases of our keys, derived from the configuration.
///
/// # Errors
/// They contradict each other.
pub fn schedules(config: &Config) -> Result<Schedules, StartError> {
    let schedules = config.keys.schedules(&config.targets);
    schedules.map_err(|error| StartError::Keys(error.into()))
}

/// The key protector that the configuration names.
///
/// # Errors
/// The KEK can't be had.
pub fn protector(config: &Config) -> Result<Arc<dyn KeyProtector>, StartError> {
    let keys = |error| StartError::Keys(crate::keys::KeysError::Protect(error));
    Ok(match &config.keys.protector {
        ProtectorConfig::KeyFile(path) => Arc::new(KeyFile::load(path).map_err(keys)?),
        ProtectorConfig::PassphraseFile(path) => {
            Arc::new(PassphraseFile::load(path).map_err(keys)?)
        }
    })
}

async fn open_ring(
    config: &Config,
    writer: &Writer,
    reader: &Arc<dyn LedgerReader>,
    clock: &Arc<dyn Clock>,
) -> Result<Rotator, StartError> {
    let ledger: Arc<dyn Commit> = Arc::new(writer.clone());
    let journal = Arc::new(Journal::of(ledger, Arc::clone(reader)));
    let name = (config.ledger.origin.as_str(), config.environment.as_str());
    let (schedules, protector) = (schedules(config)?, protector(config)?);
    Ok(Rotator::start(name, schedules, journal, protector, Arc::clone(clock)).await?)
}

/// The public half of the log's key stands in the store, so that `ledger verify` needs no KEK. The private half is in the ring.
fn keep_log_key(
    path: &std::path::Path,
    reader: &dyn LedgerReader,
    key: &LogKey,
) -> Result<(), StartError> {
    let public = key.public().to_string();
    match reader.log_key().map_err(ledger)? {
        None => Store::keep_log_key(path, "in the key ring", key.public()).map_err(ledger),
        Some((_, known)) if known == public => Ok(()),
        Some((_, known)) => Err(StartError::Ledger(format!(
            "the log's key is `{known}`, the key ring holds `{public}`"
        ))),
    }
}

pub(in crate::app) fn anchors(config: &Config, key: &VerifierKey) -> Vec<Arc<dyn Anchor>> {
    if config.ledger.anchors.is_empty() {
        tracing::warn!("anchors: none: a cut tail or a rolled-back store can't be noticed");
    }
    let anchor = |configured: &AnchorConfig| {
        let AnchorConfig::File(path) = configured;
        Arc::new(FileAnchor::new(path, key.clone())) as Arc<dyn Anchor>
    };
    config.ledger.anchors.iter().map(anchor).collect()
}

/// A head behind or beside its anchor stops issuing until `cambio ledger fork` (threat K07). The process stays up, to say so.
async fn hold_if_forked(reader: &dyn LedgerReader, anchors: &[Arc<dyn Anchor>], writer: &Writer) {
    if let Err(forks) = anchor::check_head(reader, anchors).await {
        let reason: Vec<String> = forks.iter().map(ToString::to_string).collect();
        let reason = reason.join("; ");
        tracing::error!("issuing is stopped: {reason}; look at it, then `cambio ledger fork`");
        writer.hold(reason);
    }
}

/// What is wrong with the ledger, as a reason not to start.
pub fn ledger(error: impl std::fmt::Display) -> StartError {
    StartError::Ledger(error.to_string())
}
