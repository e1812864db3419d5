//! `cambio google credential-file`: what Google's libraries read, for a workload that has no key.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Failure, Talk};
use crate::web;

/// Files for Google's libraries
#[derive(Debug, Subcommand)]
pub(super) enum Google {
    /// Print an `external_account` file: with it google-auth and its siblings work with this broker as they are
    CredentialFile(CredentialFile),
}

/// Print an `external_account` file: with it google-auth and its siblings work with this broker as they are
///
/// It holds no secret: where the broker is, what is wanted, and where the workload's own token lies. Name it in
/// `GOOGLE_APPLICATION_CREDENTIALS`, and set `GOOGLE_CLOUD_PROJECT`.
#[derive(Debug, Args)]
pub(super) struct CredentialFile {
    /// The broker: its issuer URL
    #[arg(long, value_name = "URL")]
    broker: String,

    /// The target: its name or an alias
    #[arg(long, value_name = "TARGET")]
    audience: String,

    /// The role of the target; needed where rules permit this workload several
    #[arg(long, value_name = "ROLE")]
    role: Option<String>,

    /// Where the workload's own token lies, or will lie
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,

    /// That file is JSON, and the token stands under this name
    #[arg(long, value_name = "NAME")]
    json_field: Option<String>,
}

pub(super) fn run(google: &Google, talk: &mut Talk) -> Result<(), Failure> {
    let Google::CredentialFile(asked) = google;
    let file = file(asked).map_err(Failure::usage)?;
    let text = serde_json::to_string_pretty(&file).unwrap_or_default();
    talk.bytes(format!("{text}\n").as_bytes());
    Ok(())
}

fn file(asked: &CredentialFile) -> Result<Value, String> {
    let broker = web::safe_url(&asked.broker)?;
    if asked.audience.contains('#') {
        return Err("`--audience` holds a `#`: name the role by `--role`".to_owned());
    }
    let path = asked.token_file.to_str().ok_or("the path of the token is not UTF-8")?;
    let role = asked.role.as_deref().map(|role| format!("#{role}")).unwrap_or_default();
    let format = match &asked.json_field {
        None => json!({ "type": "text" }),
        Some(name) => json!({ "type": "json", "subject_token_field_name": name }),
    };
    Ok(json!({
        "type": "external_account",
        "audience": format!("{}{role}", asked.audience),
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": format!("{}/google/token", broker.as_str().trim_end_matches('/')),
        "credential_source": { "file": path, "format": format },
    }))
}
