//! What SDKs and kubectl read from a command that they run themselves.

use serde_json::{Map, Value};

use super::{expiry, object, revealed};
use crate::client::{ClientError, Credential, Issued};

/// `credential_process`, version 1. Without `Expiration` an SDK would keep it for ever, so it must be there.
pub(super) fn aws_process(issued: &Issued) -> Result<Map<String, Value>, ClientError> {
    let Credential::Aws(session) = &issued.credential else {
        return Err(super::misfit(super::Format::AwsProcess, issued));
    };
    let ends = expiry(issued)
        .ok_or_else(|| ClientError::unreachable("the aws session lacks `expires_at`"))?;
    Ok(object([
        ("Version", Some(1.into())),
        ("AccessKeyId", Some(session.access_key_id.as_str().into())),
        ("SecretAccessKey", Some(revealed(&session.secret_access_key)?.into())),
        ("SessionToken", Some(revealed(&session.session_token)?.into())),
        ("Expiration", Some(ends)),
    ]))
}

/// Executable-sourced credentials of Google's libraries, version 1: the token is a subject token for Google's own exchange.
pub(super) fn gcp_executable(issued: &Issued) -> Result<Map<String, Value>, ClientError> {
    Ok(object([
        ("version", Some(1.into())),
        ("success", Some(true.into())),
        ("token_type", Some("urn:ietf:params:oauth:token-type:id_token".into())),
        ("id_token", Some(revealed(&issued.access_token)?.into())),
        ("expiration_time", issued.expires_at.map(|ends| ends.seconds().into())),
    ]))
}

/// `client.authentication.k8s.io/v1`. client-go asks again when `expirationTimestamp` is over, or the API server says 401.
pub(super) fn exec_credential(issued: &Issued) -> Result<Map<String, Value>, ClientError> {
    let status = object([
        ("expirationTimestamp", expiry(issued)),
        ("token", Some(revealed(&issued.access_token)?.into())),
    ]);
    Ok(object([
        ("apiVersion", Some("client.authentication.k8s.io/v1".into())),
        ("kind", Some("ExecCredential".into())),
        ("status", Some(Value::Object(status))),
    ]))
}
