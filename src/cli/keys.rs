//! `cambio keys`: the lives of our signing keys.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{
    Failure, Talk,
    admin::{Reach, Why},
    config, render,
    serve::{not_started, store_of},
};
use crate::{
    app::{self, StartError, restore::restore_keys},
    chance::{Chance as _, SystemChance},
    keys::KeysError,
    ledger::Operator,
    owner,
    secret::Secret,
    store::StoreError,
};

/// More than any key.
const SECRET_BYTES: u64 = 64 * 1024;

/// More than any ring.
const EXPORT_BYTES: u64 = 16 * 1024 * 1024;

/// Our signing keys: prepare → promote → retire → prune; withdraw when one leaked.
#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    /// Write a new key-encryption key to stdout, for a file of mode 0600 on a machine of yours
    Kek,
    /// List the keys and their phases
    List(List),
    /// Promote the prepared keys now, if they were announced long enough
    Rotate(Rotate),
    /// Remove a leaked key at once, and list what it signed
    Withdraw(Withdraw),
    /// Write the key ring to stdout as an encrypted JWK Set (RFC 7517 section 7)
    Export(Export),
    /// Put an export, from stdin, back under the configuration's KEK: where the old KEK is lost. The broker must not run
    Import(Import),
    /// Seal a target's secret, such as a GitHub App's private key: from stdin, under the KEK, to stdout
    Seal(Seal),
}

#[derive(Debug, Args)]
pub(super) struct Seal {
    /// The configuration: its KEK seals
    #[arg(long, value_name = "FILE", default_value = "cambio.yaml")]
    config: PathBuf,

    /// The target whose secret it is: it opens for no other
    #[arg(long, value_name = "NAME")]
    target: String,
}

#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    reach: Reach,
}

#[derive(Debug, Args)]
pub(super) struct Rotate {
    /// The CA of this target of kind `x509`, in place of the keys for tokens
    #[arg(long, value_name = "NAME")]
    target: Option<String>,

    #[command(flatten)]
    why: Why,

    #[command(flatten)]
    reach: Reach,
}

#[derive(Debug, Args)]
pub(super) struct Withdraw {
    /// The key's `kid`
    kid: String,

    /// Even without an announced successor: verifiers that hold our old key set will refuse the new key's tokens. Without
    /// it issuing pauses then, and saying it again with `--force` ends the pause
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    why: Why,

    #[command(flatten)]
    reach: Reach,
}

#[derive(Debug, Args)]
pub(super) struct Export {
    /// What the export is encrypted with: one line of at least 16 bytes, in a file of mode 0600 or 0400
    #[arg(long, value_name = "FILE")]
    passphrase_file: PathBuf,

    #[command(flatten)]
    why: Why,

    #[command(flatten)]
    reach: Reach,
}

#[derive(Debug, Args)]
pub(super) struct Import {
    /// The configuration: its store holds the ring, its KEK seals it
    #[arg(long, value_name = "FILE", default_value = "cambio.yaml")]
    config: PathBuf,

    /// What the export was encrypted with: one line of at least 16 bytes, in a file of mode 0600 or 0400
    #[arg(long, value_name = "FILE")]
    passphrase_file: PathBuf,

    #[command(flatten)]
    why: Why,
}

pub(super) async fn run(keys: Keys, talk: &mut Talk) -> Result<(), Failure> {
    match keys {
        Keys::Kek => {
            let mut kek = Zeroizing::new([0_u8; 32]);
            SystemChance.fill(&mut *kek).map_err(Failure::refused)?;
            talk.line(&*Zeroizing::new(URL_SAFE_NO_PAD.encode(*kek)));
        }
        Keys::List(List { reach }) => {
            let answer = reach.call("keys/list", json!({})).await?;
            render::answer(talk, &answer);
        }
        Keys::Rotate(Rotate { target, why, reach }) => {
            let wanted = target.map_or_else(|| json!({}), |target| json!({ "target": target }));
            let answer = reach.change("keys/rotate", why, wanted).await?;
            render::answer(talk, &answer);
        }
        Keys::Withdraw(Withdraw { kid, force, why, reach }) => {
            let wanted = json!({ "kid": kid, "force": force });
            let answer = reach.change("keys/withdraw", why, wanted).await?;
            render::answer(talk, &answer);
            if answer.get("successor").is_none_or(Value::is_null) {
                talk.say(
                    "No key signs in its place now: issuing with its algorithm PAUSES until the announced key may sign. `/readyz` says when.",
                );
            }
            talk.say(
                "Verifiers may hold our old key set for its max-age: tell those who must not wait.",
            );
        }
        Keys::Seal(Seal { config, target }) => {
            let config = config::load(&config)?;
            let mut plain = Zeroizing::new(Vec::new());
            let read = io::stdin().lock().take(SECRET_BYTES).read_to_end(&mut plain);
            read.map_err(|error| Failure::usage(format!("stdin: {error}")))?;
            if plain.is_empty() {
                return Err(Failure::usage("stdin is empty, expected the secret to seal"));
            }
            let plain = Secret::new(std::mem::take(&mut *plain));
            let sealed = app::sealed::seal(&config, &target, &plain).await;
            let sealed = sealed.map_err(Failure::usage)?;
            if talk.json() {
                talk.value(&json!({ "jwe": sealed }));
            } else {
                talk.line(sealed);
            }
            talk.say("write it into the target's file of mode 0600 or 0400, and destroy what it was made of");
        }
        Keys::Import(Import { config, passphrase_file, why }) => {
            let passphrase = passphrase(&passphrase_file)?;
            let mut exported = String::new();
            let read = io::stdin().lock().take(EXPORT_BYTES).read_to_string(&mut exported);
            read.map_err(|error| Failure::usage(format!("stdin: {error}")))?;
            if exported.trim().is_empty() {
                return Err(Failure::usage("stdin holds no export").hint(
                    "`cambio keys export` makes one, while the broker runs: `… < ring.jwe`",
                ));
            }
            // It writes to the store: by a configuration that nobody else may change.
            let config = config::load_to_serve(&config)?;
            let who = format!("uid:{}", rustix::process::getuid().as_raw());
            let by = Operator { who, reason: why.reason };
            let epoch = restore_keys(&config, exported.trim(), passphrase, by).await;
            let epoch = epoch.map_err(|error| not_imported(&error, store_of(&config)))?;
            if talk.json() {
                talk.value(&json!({ "epoch": epoch }));
            } else {
                talk.line(format_args!(
                    "the key ring is under the configuration's KEK, epoch {epoch}"
                ));
            }
        }
        Keys::Export(Export { passphrase_file, why, reach }) => {
            let passphrase = passphrase(&passphrase_file)?;
            let wanted = json!({ "passphrase": passphrase.reveal_text() });
            let answer = reach.change("keys/export", why, wanted).await?;
            if talk.json() {
                talk.value(&answer);
            } else {
                let sealed = answer.get("jwe").unwrap_or(&answer);
                talk.line(render::cell(Some(sealed)));
            }
        }
    }
    Ok(())
}

/// Why an export did not come back.
fn not_imported(error: &StartError, store: PathBuf) -> Failure {
    if matches!(error, StartError::Keys(KeysError::Export(_) | KeysError::OtherExport { .. })) {
        return Failure::usage(error);
    }
    let failure = not_started(error);
    // Whoever has it open is the broker: nobody else keeps it open for longer than a moment.
    if let StartError::Ledger(words) = error
        && *words == StoreError::Locked(store).to_string()
    {
        return failure.hint("end the broker first");
    }
    failure
}

/// One line that only its owner can read: whoever else could would hold our signing keys with the export.
fn passphrase(file: &Path) -> Result<Secret, Failure> {
    let failed =
        |reason: &dyn fmt::Display| Failure::usage(format!("`{}`: {reason}", file.display()));
    let mut opened = File::open(file).map_err(|error| failed(&error))?;
    let about = opened.metadata().map_err(|error| failed(&error))?;
    owner::private(&about).map_err(|error| failed(&error))?;
    let mut text = Zeroizing::new(String::new());
    opened.by_ref().take(4096).read_to_string(&mut text).map_err(|error| failed(&error))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    if line.len() < 16 || line.contains('\n') {
        return Err(failed(&"expected one line of at least 16 bytes"));
    }
    Ok(Secret::from(line.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn a_passphrase_is_one_long_line_that_nobody_else_can_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("passphrase");
        let read = |text: &str, mode| {
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            passphrase(&file).is_ok()
        };
        assert!(read("correct horse battery staple\n", 0o600));
        assert!(!read("correct horse battery staple\n", 0o640));
        assert!(!read("short\n", 0o600));
        assert!(!read("correct horse battery\nstaple\n", 0o600));
    }
}
