//! Ends a lease before its time (RFC 7009), by the token that came with the credential.

use std::{fmt, time::Duration};

use reqwest::{StatusCode, header};
use serde_json::Value;

use super::{Broker, ClientError, Patience, Waiting, said};
use crate::{
    json::{self, Limits},
    secret::Secret,
    web::{self, WebError},
};

/// A lease, and the token that ends it.
#[derive(Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its name: `ls_…`.
    pub id: String,
    /// What its holder ends it with.
    pub token: Secret,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("id", &self.id).finish_non_exhaustive()
    }
}

/// How long a client goes on to end a lease that nobody will use. Behind that, the lease's own end.
pub const ENDING: Patience = Patience {
    total: Duration::from_secs(15),
    first: Duration::from_millis(250),
    most: Duration::from_secs(4),
};
/// How long one answer may take: the broker asks the target meanwhile.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

impl Lease {
    /// Ends it at `broker`. Asked again while nobody answers, or the broker says that the target does not: to end a lease
    /// twice is to end it.
    ///
    /// # Errors
    /// It is not known to be ended. A broker that said 503 has it recorded and goes on by itself.
    pub async fn revoke(
        &self,
        broker: &Broker,
        waiting: &mut Waiting<'_>,
    ) -> Result<(), ClientError> {
        loop {
            let (error, after) = match self.once(broker, waiting.left()).await {
                Ok(answered) if answered.status == StatusCode::OK => return Ok(()),
                Ok(answered) => {
                    let after = answered.headers.get(header::RETRY_AFTER);
                    let after = after.and_then(|value| value.to_str().ok()?.parse().ok());
                    let error = self.said(broker, &answered);
                    if !answered.status.is_server_error()
                        && answered.status != StatusCode::TOO_MANY_REQUESTS
                    {
                        return Err(error);
                    }
                    (error, after.map(Duration::from_secs))
                }
                Err(error) => {
                    let lasting = matches!(error, WebError::NoTls(_) | WebError::Setup(_));
                    let error = ClientError::unreachable(format!(
                        "lease `{}` is not known to be ended: no answer from `{}`: {error}",
                        said::tamed(&self.id),
                        broker.issuer()
                    ));
                    if lasting {
                        return Err(error);
                    }
                    (error, None)
                }
            };
            if !waiting.rest(after, &error).await {
                return Err(error);
            }
        }
    }

    async fn once(&self, broker: &Broker, left: Duration) -> Result<web::Answered, WebError> {
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("token", self.token.reveal_text().unwrap_or_default())
            .finish();
        let request = broker.post("/revoke").timeout(left.min(LONGEST_WAIT)).body(form);
        web::send(request, Limits::DISCOVERY.bytes).await
    }

    fn said(&self, broker: &Broker, answered: &web::Answered) -> ClientError {
        let members = json::parse_object(&answered.body.0, &Limits::DISCOVERY).unwrap_or_default();
        let member = |name: &str| members.get(name).and_then(Value::as_str);
        let words = member("error_description").or(member("error"));
        let words = said::tamed(words.unwrap_or("without a description"));
        ClientError::unreachable(format!(
            "lease `{}` is not known to be ended: `{}` answered {}: {words}",
            said::tamed(&self.id),
            broker.issuer(),
            answered.status
        ))
    }
}
