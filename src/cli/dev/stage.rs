//! The folder that `cambio dev` lives in, and the configuration that it runs with.

use std::{
    fs,
    io::Write as _,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::Failure;
use crate::{
    chance::Chance,
    config::{Config, IssuerConfig},
    sandbox::{Platform, Sandbox},
    subject::issuers::IssuerUrl,
};

/// The trust policy of the sandbox's workloads.
const POLICY: &str = include_str!("shop.yaml");
const CONFIG: &str = include_str!("cambio.yaml");
/// The audience that the sandbox's tokens must carry.
pub(super) const AUDIENCE: &str = "cambio-dev";

/// A folder of mode 0700. The temporary one is removed when this is dropped, whatever ended the run; if even that is
/// prevented, what stays is a key ring whose key-encryption key is gone.
#[derive(Debug)]
pub(super) struct Stage {
    folder: PathBuf,
    temporary: bool,
}

impl Stage {
    /// A new temporary folder, or `kept`, made where it is not there.
    pub(super) fn set(kept: Option<PathBuf>, chance: &dyn Chance) -> Result<Self, Failure> {
        let temporary = kept.is_none();
        let folder = match kept {
            Some(folder) => folder,
            None => std::env::temp_dir().join(format!("cambio-dev-{}", random_name(chance)?)),
        };
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o700).recursive(!temporary);
        let failed = |error| Failure::usage(format!("`{}`: {error}", folder.display()));
        builder.create(&folder).map_err(failed)?;
        let folder = folder.canonicalize().map_err(failed)?;
        let stage = Self { folder, temporary };
        for part in ["policies", "state"] {
            builder.recursive(true).create(stage.folder.join(part)).map_err(failed_at(&stage))?;
        }
        // In a folder that is kept, somebody may have changed it to see what happens.
        if !stage.folder.join("policies/shop.yaml").exists() {
            stage.write("policies/shop.yaml", POLICY)?;
        }
        if !stage.key_file().exists() {
            let mut key = [0_u8; 32];
            chance.fill(&mut key).map_err(Failure::unreachable)?;
            stage.write("kek", &URL_SAFE_NO_PAD.encode(key))?;
        }
        Ok(stage)
    }

    /// Where everything lies.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether nothing of it stays.
    pub(super) const fn is_temporary(&self) -> bool {
        self.temporary
    }

    /// The key-encryption key was read: a temporary folder does not keep it a moment longer.
    pub(super) fn forget_key(&self) -> Result<(), Failure> {
        if self.temporary {
            fs::remove_file(self.key_file()).map_err(failed_at(self))?;
        }
        Ok(())
    }

    /// What the broker runs with: `cambio.yaml`, with the loopback URLs that `serve` would refuse.
    pub(super) fn config(&self, sandbox: &Sandbox) -> Result<Config, Failure> {
        let (mut config, _) =
            Config::parse("cambio.yaml", CONFIG, &self.folder).map_err(|all| {
                let all: Vec<String> = all.iter().map(ToString::to_string).collect();
                Failure::usage(format!("the configuration of `dev`:\n{}", all.join("\n")))
            })?;
        let (public, operations) = (free_port()?, free_port()?);
        config.listen.public.set_port(public);
        config.listen.operations.set_port(operations);
        config.issuer = loopback(&format!("http://127.0.0.1:{public}"))?;
        for (issuer, platform) in config.issuers.iter_mut().zip(Platform::ALL) {
            let IssuerConfig { issuer: url, .. } = issuer;
            *url = loopback(&sandbox.issuer(platform))?;
        }
        Ok(config)
    }

    fn key_file(&self) -> PathBuf {
        self.folder.join("kek")
    }

    fn write(&self, name: &str, text: &str) -> Result<(), Failure> {
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(self.folder.join(name));
        file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed_at(self))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.temporary {
            // Nothing can be done about it, and nothing in there opens without the key that is gone.
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

fn failed_at(stage: &Stage) -> impl Fn(std::io::Error) -> Failure {
    |error| Failure::usage(format!("`{}`: {error}", stage.folder.display()))
}

fn loopback(url: &str) -> Result<IssuerUrl, Failure> {
    IssuerUrl::dangerously_loopback(url).map_err(Failure::usage)
}

/// A port that is free now. Somebody may take it before we do; then `dev` says so and is started again.
fn free_port() -> Result<u16, Failure> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| Failure::unreachable(format!("no free port on loopback: {error}")))
}

fn random_name(chance: &dyn Chance) -> Result<String, Failure> {
    let mut bytes = [0_u8; 12];
    chance.fill(&mut bytes).map_err(Failure::unreachable)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}
