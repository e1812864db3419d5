//! Pods and machines: a projected file that the platform keeps fresh, a socket beside us.

use std::{fs::File, io::Read as _, path::Path};

use url::Url;

use super::{LONGEST, Means, Platform, Sign, Way, ask::Ask};
use crate::client::{ClientError, Waiting};

/// Never `/var/run/secrets/kubernetes.io/serviceaccount/token`: that one opens the API server, and a broker that got it could use
/// it there. EKS's and AKS's files are left alone for the same reason: they are for AWS and Azure.
pub(super) const KUBERNETES: Platform = Platform {
    name: "kubernetes",
    title: "Kubernetes",
    signs: &[Sign::Set("KUBERNETES_SERVICE_HOST"), Sign::There(TOKEN)],
    way: Way::File(TOKEN),
    remedy: "project a token for the broker into the pod: a volume `projected: { sources: [{ serviceAccountToken: { audience: <what the broker expects>, expirationSeconds: 600, path: token } }] }`, mounted at `/var/run/secrets/cambio`; or name another file with `--token-file`",
    shared: false,
};

pub(super) const FLY: Platform = Platform {
    name: "fly",
    title: "Fly.io",
    signs: &[Sign::There(FLY_SOCKET), Sign::Set("FLY_APP_NAME")],
    way: Way::Fly,
    remedy: "the machine's API is at `/.fly/api`: does this command run inside a Fly machine, and may its user open the socket?",
    shared: false,
};

/// The token that is projected into a pod for the broker, and for nobody else.
pub(super) const TOKEN: &str = "/var/run/secrets/cambio/token";

const FLY_SOCKET: &str = "/.fly/api";

/// The token in the file at `path`, read anew each time: the platform rotates it.
pub(super) fn read(
    platform: &Platform,
    path: &str,
    means: &Means<'_>,
) -> Result<(String, String), ClientError> {
    match bounded(&means.machine.path(path), LONGEST.saturating_add(1)) {
        Ok(text) => Ok((format!("`{path}`"), text)),
        Err(error) => Err(platform.missing(&format!("`{path}` can't be read: {error}"))),
    }
}

/// The beginning of a small file, where there is one.
pub(super) fn beginning(path: &Path) -> Option<String> {
    bounded(path, 1024).ok()
}

fn bounded(path: &Path, most: usize) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(u64::try_from(most).unwrap_or(u64::MAX)).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

pub(super) async fn fly(
    platform: &Platform,
    means: &Means<'_>,
    waiting: &mut Waiting<'_>,
) -> Result<(String, String), ClientError> {
    let url = Url::parse("http://localhost/v1/tokens/oidc")
        .map_err(|error| ClientError::usage(error.to_string()))?;
    let socket = means.machine.path(FLY_SOCKET);
    if !socket.exists() {
        return Err(platform.missing(&format!("`{FLY_SOCKET}` is not there")));
    }
    let body = serde_json::json!({ "aud": means.audience }).to_string();
    let ask = Ask { unix_socket: Some(socket), ..Ask::post(url, body) };
    Ok((format!("`{FLY_SOCKET}`"), ask.text_of(platform, means, waiting).await?))
}
