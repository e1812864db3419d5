//! Reaching the running broker: its Unix socket, with a reason for whatever changes something.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value, json};

use super::{Failure, config, render};
use crate::edge::admin_client::{self, CallError};

/// Which broker is meant.
#[derive(Clone, Debug, Args)]
pub(super) struct Reach {
    /// The broker's admin socket; without it, the one that the configuration names
    #[arg(long, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,

    /// The broker's configuration
    #[arg(long, value_name = "FILE", default_value = "cambio.yaml")]
    pub(super) config: PathBuf,
}

/// Why a power is used; it stands in the ledger, beside who did it.
#[derive(Clone, Debug, Args)]
pub(super) struct Why {
    /// Why: recorded in the ledger, with your user id
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: String,
}

impl Reach {
    /// Uses `verb` of the admin socket. `arguments` is a JSON object.
    pub(super) async fn call(&self, verb: &str, arguments: Value) -> Result<Value, Failure> {
        if let Some(socket) = &self.socket {
            return call(socket, verb, arguments).await;
        }
        let config = config::load(&self.config).map_err(|failure| {
            failure.hint(
                "name the broker's socket with `--socket`, or its configuration with `--config`",
            )
        });
        call(&config?.listen.admin_socket, verb, arguments).await
    }

    /// Uses a `verb` that changes something.
    pub(super) async fn change(
        &self,
        verb: &str,
        why: Why,
        arguments: Value,
    ) -> Result<Value, Failure> {
        let mut arguments = members(arguments);
        arguments.insert("reason".to_owned(), why.reason.into());
        self.call(verb, Value::Object(arguments)).await
    }
}

async fn call(socket: &Path, verb: &str, arguments: Value) -> Result<Value, Failure> {
    admin_client::call(socket, verb, members(arguments)).await.map_err(|error| match error {
        CallError::NotReachable(_) => Failure::unreachable(&error)
            .hint("is the broker running, and are you the user that it runs as?"),
        CallError::Garbled(_) => Failure::unreachable(&error),
        CallError::Refused { ref code, .. } if code == "bad_request" => Failure::usage(&error),
        CallError::Refused { .. } => Failure::refused(&error),
    })
}

/// The explanation of a recorded exchange, for people.
pub(super) async fn explain(socket: &Path, exchange: &str) -> Result<String, Failure> {
    let answer = call(socket, "explain", json!({ "exchange": exchange })).await?;
    Ok(explained(&answer))
}

/// What the broker says for people (`text`), or all that it says.
pub(super) fn explained(answer: &Value) -> String {
    match answer.get("text").and_then(Value::as_str) {
        Some(text) => text.trim_end().to_owned(),
        None => render::people(answer),
    }
}

fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Map::new()
        }
    }
}
