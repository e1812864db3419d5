//! The command line's HTTP client: that of `web`, in the words of the command line.

use std::path::Path;

use reqwest::{Client, RequestBuilder, StatusCode};
use url::Url;

use super::Failure;
use crate::web::{self, Reaching};

/// More than any answer of a broker or of the sandbox.
const LIMIT: usize = 1024 * 1024;

/// A client for `url` that trusts the machine's roots, and those of `ca_file` besides.
pub(super) fn client(url: &Url, ca_file: Option<&Path>) -> Result<Client, Failure> {
    web::client(url, Reaching { ca_file, ..Reaching::default() }).map_err(Failure::usage)
}

/// `text` as a URL that a token may be sent to: https, or http to this machine.
pub(super) fn safe_url(text: &str) -> Result<Url, Failure> {
    web::safe_url(text).map_err(|reason| {
        Failure::usage(reason).hint("a token that is sent in the clear is anybody's")
    })
}

/// Sends, and reads at most [`LIMIT`] bytes of the answer.
pub(super) async fn send(request: RequestBuilder) -> Result<(StatusCode, Vec<u8>), Failure> {
    let answered = web::send(request, LIMIT).await.map_err(Failure::unreachable)?;
    Ok((answered.status, answered.body.0))
}
