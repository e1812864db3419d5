//! `cambio serve`: the broker in earnest.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

use super::{
    Failure, config, harden,
    notify::{self, State},
};
use crate::{
    app::{self, Existing, Mode, StartError},
    clock::SystemClock,
    config::{AnchorConfig, Config, LogFormat, StoreConfig},
    keys::KeysError,
    telemetry::{self, Collector, Format},
};

/// Run the broker
///
/// SIGTERM and Ctrl-C drain: nothing new is accepted, every exchange that is committed is finished. SIGHUP reloads policies.
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// The configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// Make store, ledger and first keys, where there are none: once, for a new instance
    #[arg(long)]
    create: bool,

    /// Make them, and folders for them, where there is no store and no anchor tells of one, and end; where there is a store,
    /// do nothing. For a new instance whose start is automatic, such as in Kubernetes
    #[arg(long, conflicts_with = "create")]
    create_only: bool,
}

pub(super) async fn run(serve: Serve) -> Result<(), Failure> {
    if serve.create_only {
        make_folders(&serve.config)?;
    }
    let config = config::load_to_serve(&serve.config)?;
    let format = match config.log.format {
        LogFormat::Json => Format::Json,
        LogFormat::Text => Format::People,
    };
    let collector =
        config.log.otlp.clone().map(|url| Collector { url, clock: Arc::new(SystemClock) });
    let traces = telemetry::start(format, config.log.level.as_str(), collector);
    let traces = traces.map_err(Failure::usage)?;
    if serve.create_only {
        let made = app::create(&config).await.map_err(|error| not_started(&error))?;
        let path = store_of(&config);
        let what = if made { "made store, ledger and first keys" } else { "there is a store" };
        info!("{what}: `{}`", path.display());
        traces.flush().await;
        return Ok(());
    }
    harden::tell();
    // Before anything starts: a signal that comes now must drain too.
    let mut signals = Signals::listen()?;
    let existing = if serve.create { Existing::Created } else { Existing::Required };
    let running = app::start(config, Some(serve.config), Mode::Serve, existing);
    let running = running.await.map_err(|error| not_started(&error))?;
    notify::tell(State::Ready);
    loop {
        let asked = tokio::select! {
            asked = signals.next() => asked,
            reason = running.ended() => {
                running.drain().await;
                traces.flush().await;
                return Err(Failure::unreachable(format!("the broker ended: {reason}")));
            }
        };
        match asked {
            Asked::End => {
                notify::tell(State::Stopping);
                info!("draining: nothing new is accepted, what is committed is finished");
                running.drain().await;
                traces.flush().await;
                return Ok(());
            }
            // How it ended is logged where it is handled; after a failure the last good set stays in force.
            Asked::Reload => drop(running.reload().await),
        }
    }
}

/// A configuration that can't be served is exit code 2; a port, a disk or a database that is not there is 3.
pub(super) fn not_started(error: &StartError) -> Failure {
    match error {
        // Of the keys: a key-encryption key that is not there, or not the one that the ring was closed with.
        StartError::Scene(_)
        | StartError::Tls(_)
        | StartError::Issuer(_)
        | StartError::Keys(KeysError::Protect(_)) => Failure::usage(error),
        StartError::Ledger(_) | StartError::Keys(_) | StartError::Listen { .. } => {
            Failure::unreachable(error)
        }
    }
}

/// Makes the folders that an instance writes to, where there are none; the ones above them must be there. A volume may belong to
/// root and be open to a group (`fsGroup`) or to everybody: what lies in a folder of ours is ours alone. Kubernetes opens it to the
/// group again where a restored volume comes without that group, and no image has a shell to mend it: so it is mended here.
fn make_folders(file: &Path) -> Result<(), Failure> {
    // What can't be read or is not well formed is told by the loader, with all that is wrong.
    let text = fs::read_to_string(file).unwrap_or_default();
    let base = file.parent().unwrap_or(Path::new(""));
    let parsed = Config::parse(&file.display().to_string(), &text, base);
    let Ok((config, _)) = parsed else { return Ok(()) };
    let anchors = config.ledger.anchors.iter().map(|anchor| {
        let AnchorConfig::File(path) = anchor;
        path.clone()
    });
    let files = anchors.chain([store_of(&config), config.listen.admin_socket.clone()]);
    let above = files.filter_map(|file| file.parent().map(Path::to_owned));
    for folder in above.chain([config.data.clone()]) {
        match fs::DirBuilder::new().mode(0o700).create(&folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                let folder = folder.display();
                return Err(Failure::unreachable(format!("can't make `{folder}`: {error}")));
            }
            _ => close_to_group(&folder).map_err(|error| {
                let folder = folder.display();
                Failure::unreachable(format!(
                    "can't take its group the right to write to `{folder}`: {error}"
                ))
            })?,
        }
    }
    Ok(())
}

/// Takes the group of a folder of ours the right to write there. A stranger's, root's and one that is open to everybody are left to
/// be judged by the loader.
fn close_to_group(folder: &Path) -> std::io::Result<()> {
    let about = fs::metadata(folder)?;
    let ours = about.uid() == rustix::process::geteuid().as_raw();
    if ours && about.is_dir() && about.mode() & 0o022 == 0o020 {
        fs::set_permissions(folder, fs::Permissions::from_mode(about.mode() & 0o7757))?;
    }
    Ok(())
}

/// Where the ledger of `config` lies.
pub(super) fn store_of(config: &Config) -> PathBuf {
    let StoreConfig::Sqlite { path } = &config.store;
    path.clone()
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Ctrl-C or SIGTERM: drain.
    End,
    /// SIGHUP.
    Reload,
}

/// The signals that end or reload a broker.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    /// From here on the signals come to us, and do not end the process by themselves.
    pub(super) fn listen() -> Result<Self, Failure> {
        let on =
            |kind| signal(kind).map_err(|error| Failure::unreachable(format!("signals: {error}")));
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hang_up: on(SignalKind::hangup())?,
        })
    }

    /// What the next signal asks for.
    pub(super) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::End,
            _ = self.terminate.recv() => Asked::End,
            _ = self.hang_up.recv() => Asked::Reload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_ours_is_closed_to_its_group_and_nothing_else_is_changed() {
        let above = tempfile::tempdir().unwrap();
        for (before, after) in
            [(0o2770, 0o2750), (0o775, 0o755), (0o700, 0o700), (0o777, 0o777), (0o702, 0o702)]
        {
            let folder = above.path().join(format!("{before:o}"));
            fs::create_dir(&folder).unwrap();
            fs::set_permissions(&folder, fs::Permissions::from_mode(before)).unwrap();
            close_to_group(&folder).unwrap();
            let found = fs::metadata(&folder).unwrap().mode() & 0o7777;
            assert_eq!(found, after, "{before:o} became {found:o}");
        }
        assert!(close_to_group(&above.path().join("absent")).is_err());
    }
}
