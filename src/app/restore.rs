//! A key ring that comes back from an export: for an instance whose key-encryption key was lost. The ledger, and the keys in the
//! ring, are those of before; only what the ring rests under is new.

use std::sync::Arc;

use crate::{
    app::{
        StartError,
        books::{self, ledger},
        journal::Journal,
    },
    chance::{Chance, SystemChance},
    clock::{Clock, SystemClock},
    config::Config,
    keys::{KeysError, rotator},
    ledger::{
        Commit, Event, Operator, Proposal, anchor, note::NoteError, reader::LedgerReader,
        writer::Writer,
    },
    protector::file::PassphraseFile,
    secret::Secret,
    store::Store,
};

/// Puts the ring in `exported` (of `cambio keys export`), which `passphrase` opens, under the KEK of `config`, and records it. Of a
/// store that no broker has open. The ring's new epoch.
///
/// # Errors
/// The store is not there, is in use, or its newest ring is another one than the exported: a ring of before would revive withdrawn
/// keys (threat K07). Or a key does not fit. Nothing is changed then.
pub async fn restore_keys(
    config: &Config,
    exported: &str,
    passphrase: Secret,
    by: Operator,
) -> Result<u64, StartError> {
    let protect = |error| StartError::Keys(KeysError::Protect(error));
    let opener = PassphraseFile::of(passphrase).map_err(protect)?;
    let kek = books::protector(config)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let chance: Arc<dyn Chance> = Arc::new(SystemChance);
    let store = Store::open(&books::store_path(config)).map_err(ledger)?;
    let reader = store.reader;
    let writer =
        Writer::start(store.journal, &*reader, Arc::clone(&clock), chance, 1).map_err(ledger)?;
    let commit: Arc<dyn Commit> = Arc::new(writer.clone());
    let journal = Journal::of(Arc::clone(&commit), Arc::clone(&reader));
    let restored = async {
        agrees_with_its_anchors(config, &*reader).await?;
        let name = (config.ledger.origin.as_str(), config.environment.as_str());
        let ring = rotator::reopen(name, exported, &opener, &journal).await?;
        let event = Event::Admin { action: "restore keys".to_owned(), by };
        commit.commit(Proposal::of(event)).await.map_err(ledger)?;
        Ok(rotator::restore(&ring, &*kek, &journal).await?)
    };
    let restored = restored.await;
    writer.close();
    writer.wait_until_ended().await;
    restored
}

/// A KEK is lost with its machine, and then the store comes from a backup: what it lacks may hold a withdrawal. That is for
/// `cambio ledger fork` to acknowledge, by a broker that runs.
async fn agrees_with_its_anchors(
    config: &Config,
    reader: &dyn LedgerReader,
) -> Result<(), StartError> {
    let Some((_, public)) = reader.log_key().map_err(ledger)? else { return Ok(()) };
    let public = public.parse().map_err(|error: NoteError| ledger(error))?;
    let found = anchor::check_head(reader, &books::anchors(config, &public)).await;
    found.map_err(|forks| {
        let forks: Vec<String> = forks.iter().map(ToString::to_string).collect();
        ledger(format_args!(
            "{}: the keys of a log that was set back are not put back",
            forks.join("; ")
        ))
    })
}
