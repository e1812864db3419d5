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
use tracing::{info, warn};

use super::{
    Failure, config, harden,
    notify::{self, State},
};
use crate::{
    app::{self, Existing, Mode, StartError},
    clock::SystemClock,
    config::{AnchorConfig, Config, LogFormat, StoreConfig},
    keys::KeysError,
    owner::{self, NotOurs},
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
    // Before anything is made: what others may write to says nowhere what is made, least of all to root.
    let load = if serve.create_only { config::load_to_make } else { config::load_to_serve };
    let config = load(&serve.config)?;
    let format = match config.log.format {
        LogFormat::Json => Format::Json,
        LogFormat::Text => Format::People,
    };
    let collector =
        config.log.otlp.clone().map(|url| Collector { url, clock: Arc::new(SystemClock) });
    let traces = telemetry::start(format, config.log.level.as_str(), collector);
    let traces = traces.map_err(Failure::usage)?;
    if serve.create_only {
        make_folders(&config)?;
        // Now with its folders.
        let config = config::load_to_serve(&serve.config)?;
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
/// group again where a restored volume comes without that group, and no image has a shell to mend it: so it is mended here, for `data`
/// and where a store or an anchor of ours lies already. A folder of another use is left to be judged by the loader.
fn make_folders(config: &Config) -> Result<(), Failure> {
    let anchors = config.ledger.anchors.iter().map(|anchor| {
        let AnchorConfig::File(path) = anchor;
        path.clone()
    });
    let files: Vec<PathBuf> = anchors.chain([store_of(config)]).collect();
    let above = |file: &PathBuf| match file.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Some(PathBuf::from(".")),
        parent => parent.map(Path::to_owned),
    };
    let socket = above(&config.listen.admin_socket);
    let folders = files.iter().filter_map(above).chain(socket).chain([config.data.clone()]);
    for folder in folders {
        match fs::DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => info!("made folder `{}`", folder.display()),
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                let folder = folder.display();
                return Err(Failure::unreachable(format!("can't make `{folder}`: {error}")));
            }
            Err(_) => {}
        }
    }
    let used = files.iter().filter(|file| is_ours(file)).filter_map(above);
    for folder in used.chain([config.data.clone()]) {
        close_to_group(&folder).map_err(|error| {
            let folder = folder.display();
            Failure::unreachable(format!(
                "can't take its group the right to write to `{folder}`: {error}"
            ))
        })?;
    }
    Ok(())
}

/// Whether there is a file of ours at `path`.
fn is_ours(path: &Path) -> bool {
    let us = rustix::process::geteuid().as_raw();
    fs::symlink_metadata(path).is_ok_and(|about| about.is_file() && about.uid() == us)
}

/// Takes the group of a folder of ours the right to write there, and says so. A stranger's, one behind a stranger's link, root's and one
/// that is open to everybody are left to be judged by the loader.
fn close_to_group(folder: &Path) -> std::io::Result<()> {
    // What is changed is what was judged: by its name, another could be meant by then.
    let open = fs::File::open(folder)?;
    let about = open.metadata()?;
    let ours = about.uid() == rustix::process::geteuid().as_raw();
    let judged = owner::kept(folder, &about);
    if ours && about.is_dir() && matches!(judged, Err(NotOurs::Group(_))) {
        let (before, after) = (about.mode() & 0o7777, about.mode() & 0o7757);
        open.set_permissions(fs::Permissions::from_mode(after))?;
        let folder = folder.display();
        warn!(
            "took its group the right to write to `{folder}`: its mode was {before:04o}, and is {after:04o}"
        );
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
