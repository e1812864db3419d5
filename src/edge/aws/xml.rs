//! Answers of the AWS STS query protocol (AWS STS API reference, `AssumeRoleWithWebIdentity`, "Sample Response").

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};

use crate::{edge::answer::Answer, exchange::Issued, id::ExchangeId};

const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";
/// Where SDKs find the request's id, too.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");

/// What the credential's JSON says, as `mint::aws` wrote it.
#[derive(Deserialize)]
struct Told {
    access_key_id: String,
    secret_access_key: String,
    session_token: String,
    expires_at: String,
    assumed_role_arn: Option<String>,
    assumed_role_id: Option<String>,
    packed_policy_size: Option<i32>,
}

#[derive(Serialize)]
#[serde(rename = "AssumeRoleWithWebIdentityResponse", rename_all = "PascalCase")]
struct Granted {
    #[serde(rename = "@xmlns")]
    namespace: &'static str,
    assume_role_with_web_identity_result: Outcome,
    response_metadata: Metadata,
}

/// SDKs read the credentials, and the account from the ARN of the user. What AWS was told of us (subject, audience, provider) is
/// not the caller's token, and is left out.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Outcome {
    #[serde(skip_serializing_if = "Option::is_none")]
    assumed_role_user: Option<User>,
    credentials: Credentials,
    #[serde(skip_serializing_if = "Option::is_none")]
    packed_policy_size: Option<i32>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct User {
    arn: String,
    assumed_role_id: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Credentials {
    access_key_id: String,
    secret_access_key: String,
    session_token: String,
    expiration: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata {
    request_id: String,
}

#[derive(Serialize)]
#[serde(rename = "ErrorResponse", rename_all = "PascalCase")]
struct Refused<'a> {
    #[serde(rename = "@xmlns")]
    namespace: &'static str,
    error: Fault<'a>,
    /// The exchange's id; of what never became an exchange, none.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Fault<'a> {
    r#type: &'static str,
    code: &'static str,
    message: &'a str,
}

/// The session in AWS's form; `None` if it is none.
pub(super) fn granted(issued: &Issued, id: ExchangeId) -> Option<Response> {
    let told: Told = serde_json::from_str(issued.credential.value.reveal_text()?).ok()?;
    let user = told.assumed_role_arn.zip(told.assumed_role_id);
    let body = Granted {
        namespace: NAMESPACE,
        assume_role_with_web_identity_result: Outcome {
            assumed_role_user: user.map(|(arn, id)| User { arn, assumed_role_id: id }),
            credentials: Credentials {
                access_key_id: told.access_key_id,
                secret_access_key: told.secret_access_key,
                session_token: told.session_token,
                // INVARIANT(honest-expiry): the end that AWS told.
                expiration: told.expires_at,
            },
            packed_policy_size: told.packed_policy_size,
        },
        response_metadata: Metadata { request_id: id.to_string() },
    };
    Some(crate::edge::no_store(document(StatusCode::OK, &body, Some(id))?))
}

/// A refusal in AWS's form.
pub(in crate::edge) fn refused(answer: &Answer, id: Option<ExchangeId>) -> Response {
    let sender = answer.status.is_client_error();
    let body = Refused {
        namespace: NAMESPACE,
        error: Fault {
            r#type: if sender { "Sender" } else { "Receiver" },
            code: answer.code,
            message: &answer.description,
        },
        request_id: id.map(|id| id.to_string()),
    };
    document(answer.status, &body, id).unwrap_or_else(|| answer.status.into_response())
}

fn document(status: StatusCode, body: &impl Serialize, id: Option<ExchangeId>) -> Option<Response> {
    let text = quick_xml::se::to_string(body).ok()?;
    let mut response =
        (status, [(header::CONTENT_TYPE, HeaderValue::from_static("text/xml"))], text)
            .into_response();
    if let Some(id) = id {
        let id = HeaderValue::from_str(&id.to_string()).ok()?;
        response.headers_mut().insert(super::super::EXCHANGE_ID, id.clone());
        response.headers_mut().insert(REQUEST_ID, id);
    }
    Some(response)
}
