//! A bearer token in a file that its platform renews: a projected service-account token.

use std::{io, path::Path};

use reqwest::header::HeaderValue;
use tokio::io::AsyncReadExt as _;

use crate::secret::Secret;

/// The most bytes of the file: a projected service-account token has one or two thousand.
const MAXIMUM: u64 = 16 * 1024;

/// The token in `path`, without the white space around it. Read anew each time: the kubelet rotates the file.
///
/// # Errors
/// There is none, in words that begin with the path.
pub(in crate::subject) async fn read(path: &Path) -> Result<Secret, String> {
    let fail = |reason: &str| format!("`{}` {reason}", path.display());
    let found = read_bytes(path).await.map_err(|error| fail(&error.to_string()))?;
    let token = found.reveal_text().map(str::trim_ascii).filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| fail("is empty or not text"))?;
    Ok(Secret::from(token.to_owned()))
}

/// `Authorization: Bearer …` (RFC 6750 section 2.1), marked so that no client prints it.
///
/// # Errors
/// What was read from `path` can't stand in a header.
pub(in crate::subject) fn header(token: &Secret, path: &Path) -> Result<HeaderValue, String> {
    let text = token.reveal_text().unwrap_or_default();
    let mut value = HeaderValue::try_from(format!("Bearer {text}"))
        .map_err(|_| format!("`{}` does not hold a token", path.display()))?;
    value.set_sensitive(true);
    Ok(value)
}

async fn read_bytes(path: &Path) -> io::Result<Secret> {
    let mut bytes = Vec::new();
    tokio::fs::File::open(path).await?.take(MAXIMUM).read_to_end(&mut bytes).await?;
    Ok(Secret::new(bytes))
}
