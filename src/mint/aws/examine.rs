//! What `cambio doctor` asks AWS: is STS there, who are we to it, and can it know our issuer?

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    Identity,
    sts::{Ask, Sts, StsError},
};
use crate::{
    mint::examine::{Examine, Finding, Verdict},
    secret::Secret,
};

/// Looks at one STS. It assumes no role.
#[derive(Debug)]
pub struct StsExaminer {
    sts: Arc<Sts>,
    identity: Identity,
    issuer: String,
}

impl StsExaminer {
    /// For targets of `identity` at `sts`; `issuer` is our issuer URL.
    #[must_use]
    pub const fn of(sts: Arc<Sts>, identity: Identity, issuer: String) -> Self {
        Self { sts, identity, issuer }
    }

    async fn own_identity(&self) -> Finding {
        match self.sts.own_identity().await {
            Ok(arn) => Finding { verdict: Verdict::Good, detail: format!("we are `{arn}`") },
            Err(error) => Finding {
                verdict: Verdict::Bad,
                detail: format!(
                    "who we are can't be asked: {error}; give the broker an instance profile, a task role or IRSA"
                ),
            },
        }
    }

    /// A token that nobody signed is refused by whoever is there: nothing comes of it.
    async fn reach(&self) -> Finding {
        let ask = Ask {
            arn: "arn:aws:iam::000000000000:role/cambio-doctor".to_owned(),
            session_name: "cambio-doctor".to_owned(),
            assertion: Some(Secret::from("not.a.token".to_owned())),
            ambient: None,
            policy: None,
            policy_arns: Vec::new(),
        };
        let (verdict, detail) = match self.sts.assume(&ask, 900).await {
            Err(StsError::Refused(_)) => (Verdict::Good, "STS answers".to_owned()),
            Err(error) => (Verdict::Bad, format!("STS: {error}")),
            Ok(_) => (
                Verdict::Unwise,
                "what answers took a token that nobody signed: this is no STS but a stand-in"
                    .to_owned(),
            ),
        };
        Finding { verdict, detail }
    }

    /// AWS fetches our key set over the public internet, by our issuer URL.
    fn issuer(&self) -> Finding {
        if self.issuer.starts_with("https://") {
            let detail = format!(
                "create an IAM OIDC provider for `{}`: AWS fetches its discovery document and `jwks` itself",
                self.issuer
            );
            return Finding { verdict: Verdict::Good, detail };
        }
        let detail = format!("our issuer is `{}`, and AWS takes `https` only", self.issuer);
        Finding { verdict: Verdict::Bad, detail }
    }
}

#[async_trait]
impl Examine for StsExaminer {
    async fn examine(&self) -> Vec<Finding> {
        match &self.identity {
            Identity::WebIdentity { .. } => vec![self.issuer(), self.reach().await],
            Identity::Ambient => vec![self.own_identity().await],
        }
    }
}
