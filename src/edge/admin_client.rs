//! The other end of the admin socket, for the command line.

use std::{io, path::Path};

use axum::body::Body;
use http_body_util::{BodyExt as _, Limited};
use hyper::{Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value};
use thiserror::Error;
use tokio::net::UnixStream;

use crate::subject::json::{self, Limits};

/// The most that an answer may have, in bytes.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// Why a power was not used, seen from the command line.
#[derive(Debug, Error)]
pub enum CallError {
    /// Nobody listens there, or it is not ours to use: exit code 3.
    #[error("the broker is not reachable: {0}")]
    NotReachable(String),
    /// The broker said no, and why: exit code 1 (2 for `bad_request`).
    #[error("{message}")]
    Refused {
        /// `bad_request`, `not_found`, `conflict`, `failed`.
        code: String,
        /// The broker's words.
        message: String,
    },
    /// What came back is none of our answers.
    #[error("the broker's answer makes no sense: {0}")]
    Garbled(String),
}

/// Uses `verb` (`keys/rotate`) on the broker behind `socket`; `arguments` hold the `reason`, where one is wanted.
///
/// # Errors
/// It was not reached, it refused, or it failed.
pub async fn call(
    socket: &Path,
    verb: &str,
    arguments: Map<String, Value>,
) -> Result<Value, CallError> {
    let stream = UnixStream::connect(socket).await.map_err(|error| unreachable(socket, &error))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| garbled(&error))?;
    let request = Request::post(format!("/v1/{verb}"))
        .header(header::HOST, "cambio")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(Value::Object(arguments).to_string()))
        .map_err(|error| garbled(&error))?;
    // Takes the sender along: once that is gone, the connection ends too.
    let exchange = async move {
        let answer = sender.send_request(request).await.map_err(|error| garbled(&error))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MOST_BYTES).collect().await;
        Ok((status, body.map_err(|error| garbled(&error))?.to_bytes()))
    };
    let (answered, _) = tokio::join!(exchange, async { connection.await.ok() });
    let (status, body) = answered?;
    read(verb, status, &body)
}

const ANSWER: Limits =
    Limits { bytes: MOST_BYTES, depth: 32, members: 1_000_000, elements: 1_000_000 };

fn read(verb: &str, status: StatusCode, body: &[u8]) -> Result<Value, CallError> {
    if status == StatusCode::NOT_FOUND && body.is_empty() {
        return Err(CallError::Garbled(format!("it does not know `{verb}`")));
    }
    let value = json::parse_value(body, &ANSWER).map_err(|error| garbled(&error))?;
    if status.is_success() {
        return Ok(value);
    }
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    Err(CallError::Refused { code: text("error"), message: text("message") })
}

fn unreachable(socket: &Path, error: &io::Error) -> CallError {
    CallError::NotReachable(format!("`{}`: {error}", socket.display()))
}

fn garbled(error: &dyn std::fmt::Display) -> CallError {
    CallError::Garbled(error.to_string())
}
