//! `cambio ledger`: verify it, prove an entry, show one, take it out, acknowledge a fork.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    Failure, Talk,
    admin::{Reach, Why},
    config, render, serve,
};
use crate::{
    config::AnchorConfig,
    id::ExchangeId,
    ledger::{
        anchor::FileAnchor,
        checkpoint::Checkpoint,
        entry::hex,
        note::{self, VerifierKey},
        reader::{LedgerReader, ReadError, StoredEntry},
        receipt::{self, ProveError},
        show,
        tree::leaf_hash,
        verify,
    },
    store::Store,
};

/// The tamper-evident ledger: all verbs but `fork` work on the store, whether the broker runs or not.
#[derive(Debug, Subcommand)]
pub(super) enum Ledger {
    /// Hash every stored byte again and compare with checkpoints and anchors
    Verify(Verify),
    /// Prove that an entry stands in the ledger
    Prove(One),
    /// Show an entry and the facts behind it
    Show(One),
    /// Write entries to stdout, one JSON object a line
    Export(Export),
    /// Go on from a head that the anchor does not know, and record why
    Fork(Fork),
}

/// Where the ledger lies.
#[derive(Clone, Debug, Args)]
pub(super) struct Where {
    /// The store; without it, the one that the configuration names
    #[arg(long, value_name = "PATH")]
    store: Option<PathBuf>,

    /// The broker's configuration
    #[arg(long, value_name = "FILE", default_value = "cambio.yaml")]
    config: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// A file of checkpoints that the broker can't rewrite; may be given again; without it, those of the configuration
    #[arg(long, value_name = "FILE")]
    anchor: Vec<PathBuf>,

    /// The log's public key, `name+hash+key`, from somewhere else than the store; without it, the store's word is taken
    #[arg(long, value_name = "KEY")]
    key: Option<VerifierKey>,

    #[command(flatten)]
    at: Where,
}

#[derive(Debug, Args)]
pub(super) struct One {
    /// The entry: its index, or its exchange `ex_…`
    #[arg(value_name = "INDEX|EXCHANGE")]
    entry: String,

    #[command(flatten)]
    at: Where,
}

#[derive(Debug, Args)]
pub(super) struct Export {
    /// The first index
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    from: u64,

    /// Without the facts behind the entries: claims, which may be personal data
    #[arg(long)]
    without_facts: bool,

    #[command(flatten)]
    at: Where,
}

#[derive(Debug, Args)]
pub(super) struct Fork {
    #[command(flatten)]
    why: Why,

    #[command(flatten)]
    reach: Reach,
}

pub(super) async fn run(ledger: Ledger, talk: &mut Talk) -> Result<(), Failure> {
    match ledger {
        Ledger::Verify(verify) => check(verify, talk),
        Ledger::Prove(one) => prove(&one, talk),
        Ledger::Show(one) => look(&one, talk),
        Ledger::Export(export) => write_out(&export, talk),
        Ledger::Fork(Fork { why, reach }) => {
            let answer = reach.change("ledger/fork", why, json!({})).await?;
            render::answer(talk, &answer);
            talk.say(
                "these keys are published from now on: withdraw again what was withdrawn after the backup (`cambio keys withdraw`)",
            );
            Ok(())
        }
    }
}

impl Where {
    fn open(&self) -> Result<Arc<dyn LedgerReader>, Failure> {
        let path = match &self.store {
            Some(store) => store.clone(),
            None => serve::store_of(&config::load(&self.config)?),
        };
        open(&path)
    }
}

fn open(store: &Path) -> Result<Arc<dyn LedgerReader>, Failure> {
    Store::read(store).map_err(Failure::unreachable)
}

fn unreadable(error: ReadError) -> Failure {
    match error {
        ReadError::Store(_) => Failure::unreachable(error),
        ReadError::Damaged { .. } | ReadError::Absent(_) => Failure::refused(error),
    }
}

/// The key that signs the log's checkpoints, as the store knows it.
fn stored_key(reader: &dyn LedgerReader) -> Result<VerifierKey, Failure> {
    let (_, public) = reader
        .log_key()
        .map_err(unreadable)?
        .ok_or_else(|| Failure::refused("the store holds no public key of its log"))?;
    public.parse().map_err(|error: note::NoteError| Failure::refused(error))
}

fn check(asked: Verify, talk: &mut Talk) -> Result<(), Failure> {
    let reader = asked.at.open()?;
    let own_key = asked.key.is_none();
    let key = match asked.key {
        Some(key) => key,
        None => stored_key(reader.as_ref())?,
    };
    let outside = anchored(&asked.anchor, &asked.at, &key)?;
    let report = verify::verify(reader.as_ref(), &key, &outside, &mut |done, all| {
        talk.progress(format_args!("{done} of {all} entries"));
    });
    talk.progress_ended();
    let report = report.map_err(|fault| {
        if talk.json() {
            talk.value(&json!({ "ok": false, "fault": fault.to_string() }));
        }
        Failure::refused(fault).hint("keep a copy of the store before you do anything else")
    })?;
    render::answer(
        talk,
        &json!({
            "ok": true,
            "origin": report.origin,
            "entries": report.size,
            "root": hex(&report.root),
            "checkpoints": report.checkpoints,
            "unsigned": report.unsigned,
            "facts": report.facts,
            "erased": report.erased,
            "anchored": report.anchored,
            "key": key.to_string(),
        }),
    );
    if own_key {
        talk.say("The key is the store's own: compare `key` with the one that you were given, or pass `--key`.");
    }
    if report.anchored == 0 {
        talk.say("No head from outside was compared: a tail that was cut off would not be seen. See `--anchor`.");
    }
    Ok(())
}

/// The heads that anchors keep: of the named files, else of the configuration (where the store was found by it).
fn anchored(files: &[PathBuf], at: &Where, key: &VerifierKey) -> Result<Vec<Checkpoint>, Failure> {
    let files = if files.is_empty() && at.store.is_none() {
        let anchors = config::load(&at.config)?.ledger.anchors;
        anchors.into_iter().map(|AnchorConfig::File(file)| file).collect()
    } else {
        files.to_vec()
    };
    let mut heads = Vec::new();
    for file in files {
        let failed =
            |reason: String| Failure::refused(format!("anchor `{}`: {reason}", file.display()));
        let anchor = FileAnchor::new(&file, key.clone());
        let kept = anchor.kept().map_err(|error| failed(error.to_string()))?;
        if kept.is_empty() {
            return Err(failed("it holds no checkpoint".to_owned()));
        }
        heads.extend(kept);
    }
    Ok(heads)
}

/// The entry that `text` names: by its index, or by its exchange.
fn find(reader: &dyn LedgerReader, text: &str) -> Result<StoredEntry, Failure> {
    let found = match (text.parse::<u64>(), text.parse::<ExchangeId>()) {
        (Ok(index), _) => reader.entry(index),
        (_, Ok(id)) => reader.find(id),
        (Err(_), Err(_)) => {
            return Err(Failure::usage(format!("`{text}` is neither an index nor an `ex_…`")));
        }
    };
    if let Some(entry) = found.map_err(unreadable)? {
        return Ok(entry);
    }
    let hint = if text.starts_with("ex_") {
        "refusals of strangers have none: `cambio policy explain` tells of the newest".to_owned()
    } else {
        let size = reader.size().map_err(unreadable)?;
        format!("there are {size}, counted from 0")
    };
    Err(Failure::refused(format!("there is no entry `{text}`")).hint(hint))
}

fn prove(one: &One, talk: &mut Talk) -> Result<(), Failure> {
    let reader = one.at.open()?;
    let entry = find(reader.as_ref(), &one.entry)?;
    let proof = receipt::prove(reader.as_ref(), entry.index).map_err(unproven)?;
    // What does not convince us is not given to anybody.
    let leaf = leaf_hash(&entry.leaf);
    let (_, checkpoint) = receipt::check_proof(&proof, &leaf, &stored_key(reader.as_ref())?)
        .map_err(|error| {
            Failure::refused(error).hint("`cambio ledger verify` says where the store was changed")
        })?;
    if talk.json() {
        talk.value(&json!({
            "index": entry.index,
            "leaf": STANDARD.encode(leaf),
            "checkpoint_size": checkpoint.size,
            "proof": proof,
        }));
    } else {
        // C2SP tlog-proof: whoever has the log's key checks it without us.
        talk.bytes(proof.as_bytes());
    }
    talk.say(format_args!(
        "Entry {} is in the checkpoint of {} entries. The proof is of leaf hash `{}`: compare it with your receipt.",
        entry.index,
        checkpoint.size,
        STANDARD.encode(leaf),
    ));
    Ok(())
}

fn unproven(error: ProveError) -> Failure {
    match error {
        ProveError::NotYet(_) => {
            Failure::refused(error).hint("a running broker signs one within a second: try again")
        }
        ProveError::Read(error) => unreadable(error),
        ProveError::Checkpoint(_) => Failure::refused(error),
    }
}

/// Waits until a checkpoint covers the receipt's entry, and checks all of it: the receipt's hash against the entry, the entry
/// against the checkpoint, the checkpoint against the log's key. Gives the checkpoint's size.
pub(super) async fn await_inclusion(
    store: &Path,
    (index, leaf): (u64, &str),
) -> Result<u64, Failure> {
    let reader = open(store)?;
    let entry = find(reader.as_ref(), &index.to_string())?;
    let hash = leaf_hash(&entry.leaf);
    if STANDARD.encode(hash) != leaf {
        return Err(Failure::refused(format!("the receipt is not that of entry {index}")));
    }
    // A checkpoint is signed within a second.
    for _ in 0..100 {
        match receipt::prove(reader.as_ref(), index) {
            Ok(proof) => {
                let key = stored_key(reader.as_ref())?;
                let checked =
                    receipt::check_proof(&proof, &hash, &key).map_err(Failure::refused)?;
                return Ok(checked.1.size);
            }
            Err(ProveError::NotYet(_)) => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(error) => return Err(unproven(error)),
        }
    }
    Err(Failure::unreachable(format!("no checkpoint covers entry {index} after ten seconds")))
}

fn look(one: &One, talk: &mut Talk) -> Result<(), Failure> {
    let reader = one.at.open()?;
    let entry = find(reader.as_ref(), &one.entry)?;
    let outcome = show::outcome(reader.as_ref(), &entry).map_err(unreadable)?;
    if talk.json() {
        let mut object = show::object(&entry, true).map_err(unreadable)?;
        object.extend(outcome.map(|outcome| ("outcome".to_owned(), outcome.into())));
        talk.value(&Value::Object(object));
    } else {
        talk.line(show::show(&entry, true).map_err(unreadable)?.trim_end());
        if let Some(outcome) = outcome {
            talk.line(format!("outcome: {outcome}"));
        }
    }
    Ok(())
}

fn write_out(export: &Export, talk: &mut Talk) -> Result<(), Failure> {
    let reader = export.at.open()?;
    let mut written = 0_u64;
    let mut line = |line: &str| -> Result<(), ReadError> {
        talk.bytes(line.as_bytes());
        talk.bytes(b"\n");
        written = written.saturating_add(1);
        if written.is_multiple_of(1_000) {
            talk.progress(format_args!("{written} entries"));
        }
        Ok(())
    };
    let all = show::export(reader.as_ref(), export.from, !export.without_facts, &mut line);
    talk.progress_ended();
    let all = all.map_err(unreadable)?;
    talk.say(format_args!("{all} entries written."));
    Ok(())
}
