//! How a server with logins is reached, and as whom. Files are read for each new connection, so that a password or a CA that was
//! changed on disk is used without a restart.

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::io::AsyncReadExt as _;

use super::login::LoginError;
use crate::{owner, secret::Secret};

/// How long a new connection may take until we are logged in. With it a login's making still ends in its time.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(4);

/// The longest password file: a wrong path does not fill the memory.
const PASSWORD_BYTES: usize = 4_096;

/// A server, and who we are there.
#[derive(Clone, Debug)]
pub struct Reach {
    /// As clients name it, and as its certificate does.
    pub host: String,
    /// TCP.
    pub port: u16,
    /// How the connection is protected.
    pub tls: Protection,
    /// Our user there.
    pub user: String,
    /// Our password there.
    pub password_file: PathBuf,
    /// How many connections at once.
    pub connections: u32,
}

/// What a file holds that nobody else may read or change, asked of the open file at each reading: a renewal may have left it to
/// others (threat K12).
pub(super) async fn read_private(path: &Path) -> io::Result<zeroize::Zeroizing<Vec<u8>>> {
    let mut file = tokio::fs::File::open(path).await?;
    owner::private(&file.metadata().await?)?;
    let mut found = zeroize::Zeroizing::new(Vec::new());
    file.read_to_end(&mut found).await?;
    Ok(found)
}

/// How a connection is protected.
#[derive(Clone, Debug)]
pub enum Protection {
    /// Chain and name are verified, up to the roots in this file, or to those of the machine.
    VerifyFull(Option<PathBuf>),
    /// Not at all.
    DangerouslyPlain,
}

impl Reach {
    /// Our password.
    ///
    /// # Errors
    /// The file can't be read, or is no password.
    pub(super) async fn password(&self) -> Result<Secret, LoginError> {
        let found = read_private(&self.password_file).await;
        let found = found.map_err(|error| unreadable("our password", &error))?;
        let text = std::str::from_utf8(&found).ok().map(|text| text.trim_end_matches(['\r', '\n']));
        match text.filter(|text| !text.is_empty() && text.len() <= PASSWORD_BYTES) {
            Some(text) => Ok(Secret::from(text.to_owned())),
            None => Err(LoginError::Unreachable("our password is no line of text".to_owned())),
        }
    }

    /// The roots, as PEM or DER, one or more in each element; none without TLS.
    ///
    /// # Errors
    /// There are none to be had: no connection is made that can't be verified.
    pub(super) async fn roots(&self) -> Result<Option<Vec<Vec<u8>>>, LoginError> {
        let file = match &self.tls {
            Protection::DangerouslyPlain => return Ok(None),
            Protection::VerifyFull(file) => file,
        };
        if let Some(file) = file {
            let pem =
                tokio::fs::read(file).await.map_err(|error| unreadable("`ca_file`", &error))?;
            return Ok(Some(vec![pem]));
        }
        let found = rustls_native_certs::load_native_certs();
        if found.certs.is_empty() {
            let reason = "this machine has no trust roots: name them with `tls: { ca_file: … }`";
            return Err(LoginError::Unreachable(reason.to_owned()));
        }
        Ok(Some(found.certs.into_iter().map(|root| root.to_vec()).collect()))
    }

    /// The host as it stands in a URI.
    pub(super) fn uri_host(&self) -> String {
        match self.host.parse::<IpAddr>() {
            Ok(IpAddr::V6(address)) => format!("[{address}]"),
            Ok(IpAddr::V4(_)) | Err(_) => self.host.clone(),
        }
    }
}

/// The path is not told: it goes to callers' operators, and a path is where secrets get pasted.
fn unreadable(what: &str, error: &io::Error) -> LoginError {
    LoginError::Unreachable(format!("{what} can't be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn k12_a_password_that_others_may_read_is_not_used() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, "hush").unwrap();
        let mode = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        mode(0o600);
        assert_eq!(read_private(&path).await.unwrap().as_slice(), b"hush");
        mode(0o644);
        let told = read_private(&path).await.unwrap_err().to_string();
        assert_eq!(told, "it has mode 0644, expected 0600 or 0400");
    }
}
