//! TLS by rustls on aws-lc, 1.2 and 1.3, from two PEM files that may be replaced while we run.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use x509_cert::{Certificate, der::Decode as _};
use zeroize::Zeroizing;

use crate::{clock::Instant, owner};

/// Why a pair of files can't serve.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("`{path}` can't be read: {error}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file is no PEM of the kind that we look for.
    #[error("`{path}` holds no {wanted}: {error}")]
    Pem {
        /// Which.
        path: PathBuf,
        /// `certificate` or `private key`.
        wanted: &'static str,
        /// Why.
        error: pem::Error,
    },
    /// Certificate and key do not belong together, or rustls will not have them.
    #[error("`{certificate}` and `{key}` can't be used together: {error}")]
    Pair {
        /// The chain.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// Why.
        error: rustls::Error,
    },
}

/// A certificate chain with its key, and the files that they came from.
#[derive(Debug)]
pub struct Tls {
    certificate_file: PathBuf,
    key_file: PathBuf,
    current: ArcSwap<ServerConfig>,
    /// The last second of the first certificate; 0 where it can't be told.
    ends: AtomicU64,
    seen: Mutex<Stamp>,
}

/// When the two files were last changed.
type Stamp = [Option<SystemTime>; 2];

impl Tls {
    /// Loads the pair.
    ///
    /// # Errors
    /// It can't serve.
    pub fn load(certificate_file: PathBuf, key_file: PathBuf) -> Result<Self, TlsError> {
        // Stamped before reading: a change in between is seen as a change.
        let seen = stamp(&certificate_file, &key_file);
        let (config, ends) = read(&certificate_file, &key_file)?;
        Ok(Self {
            certificate_file,
            key_file,
            current: ArcSwap::from_pointee(config),
            ends: AtomicU64::new(ends),
            seen: Mutex::new(seen),
        })
    }

    /// What the next handshake uses.
    #[must_use]
    pub fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// The last second of the certificate that the next handshake shows; the epoch where it can't be told.
    #[must_use]
    pub fn ends(&self) -> Instant {
        Instant::from_seconds(self.ends.load(Ordering::Relaxed))
    }

    /// Loads the pair again, changed or not (SIGHUP). Connections that are open keep what they have.
    ///
    /// # Errors
    /// The new pair can't serve: the old one stays.
    pub fn reload(&self) -> Result<(), TlsError> {
        let stamp = stamp(&self.certificate_file, &self.key_file);
        // Noted even if the pair turns out bad: it is said once, not every time.
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = stamp;
        let (config, ends) = read(&self.certificate_file, &self.key_file)?;
        self.current.store(Arc::new(config));
        self.ends.store(ends, Ordering::Relaxed);
        Ok(())
    }

    /// Loads the pair again if a file changed since the last look. `true` if there is a new pair.
    ///
    /// # Errors
    /// The new pair can't serve: the old one stays.
    pub fn reload_if_changed(&self) -> Result<bool, TlsError> {
        let stamp = stamp(&self.certificate_file, &self.key_file);
        if *self.seen.lock().unwrap_or_else(PoisonError::into_inner) == stamp {
            return Ok(false);
        }
        self.reload().map(|()| true)
    }

    /// Looks every `pause` whether a file changed, until `stop`. Blocking reads of two small files.
    pub async fn watch(self: Arc<Self>, pause: Duration, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            match self.reload_if_changed() {
                Ok(false) => {}
                Ok(true) => info!("loaded a new certificate"),
                Err(error) => error!("kept the old certificate: {error}"),
            }
        }
    }
}

fn stamp(certificate: &Path, key: &Path) -> Stamp {
    [certificate, key].map(|path| fs::metadata(path).and_then(|meta| meta.modified()).ok())
}

/// The pair, ready to serve, and when its certificate ends, in seconds of the epoch.
fn read(certificate: &Path, key: &Path) -> Result<(ServerConfig, u64), TlsError> {
    // At each load, of the open file: a renewal must not leave the key to others, nor take a chain from them (threat K12).
    let bytes = |path: &Path, judged: fn(&Path, &Metadata) -> io::Result<()>| {
        let read = || -> io::Result<_> {
            let mut file = File::open(path)?;
            judged(path, &file.metadata()?)?;
            let mut bytes = Zeroizing::new(Vec::new());
            file.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(|error| TlsError::Read { path: path.to_owned(), error })
    };
    let public = |path: &Path, about: &Metadata| Ok(owner::believable(path, about)?);
    let secret = |_: &Path, about: &Metadata| Ok(owner::private(about)?);
    let pem = |path: &Path, wanted, error| TlsError::Pem { path: path.to_owned(), wanted, error };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&bytes(certificate, public)?)
        .collect::<Result<_, _>>()
        .map_err(|error| pem(certificate, "certificate", error))?;
    if chain.is_empty() {
        return Err(pem(certificate, "certificate", pem::Error::NoItemsFound));
    }
    // Only told, never judged by: whether it is still good is for those to say who see it.
    let ends = chain.first().and_then(|first| Certificate::from_der(first).ok());
    let ends =
        ends.map_or(0, |it| it.tbs_certificate.validity.not_after.to_unix_duration().as_secs());
    let private = PrivateKeyDer::from_pem_slice(&bytes(key, secret)?)
        .map_err(|error| pem(key, "private key", error))?;
    let config = server(chain, private).map_err(|error| TlsError::Pair {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        error,
    })?;
    Ok((config, ends))
}

fn server(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A handshake is the largest single cost of a CI job's exchange; resumption halves it.
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    Ok(config)
}
