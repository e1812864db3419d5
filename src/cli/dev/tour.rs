//! The tour: one exchange of each kind and one refusal, over real HTTP, each looked at from all sides.

use std::{fmt, path::PathBuf, time::Duration};

use jsonwebtoken::{DecodingKey, Validation, jwk::JwkSet};
use reqwest::Client;
use serde_json::{Map, Value, json};
use url::Url;

use super::curl::Fetch;
use crate::{
    chance::SystemChance,
    cli::{Failure, admin, http, ledger, render::cell, token},
    client::{Answer, Asked, Broker, Patience, Refused, Waiting},
    clock::SystemClock,
    sandbox::{Platform, Sandbox},
    secret::Secret,
};

pub(super) const TARGET: &str = "jwt/orders";
const TARGET_AUDIENCE: &str = "https://orders.example";

/// One stop of the tour.
#[derive(Clone, Copy, Debug)]
pub(super) struct Visit {
    title: &'static str,
    platform: Platform,
    /// What differs from the sandbox's ordinary token.
    claims: &'static [(&'static str, &'static str)],
    /// The claims that the rule looks at.
    telling: &'static [&'static str],
    /// The rule that permits it, or that comes nearest.
    rule: &'static str,
    /// What the nearest rule misses, where the end is a refusal.
    missed: Option<&'static str>,
}

impl Visit {
    /// All stops, in order.
    pub(super) const fn all() -> [Self; 4] {
        [
            Self {
                title: "A GitHub Actions job deploys to production",
                platform: Platform::GitHub,
                claims: &[("environment", "production")],
                telling: &["repository_owner_id", "repository_id", "environment", "event_name"],
                rule: "shop/deploy-production",
                missed: None,
            },
            Self {
                title: "A GitLab CI job on a protected branch reads orders",
                platform: Platform::GitLab,
                claims: &[],
                telling: &["namespace_id", "project_id", "ref_path", "ref_protected"],
                rule: "shop/nightly-report",
                missed: None,
            },
            Self {
                title: "A Kubernetes pod writes orders",
                platform: Platform::Kubernetes,
                claims: &[],
                telling: &["sub"],
                rule: "shop/checkout-pod",
                missed: None,
            },
            Self {
                title: "A pull request from a fork tries the same as the first",
                platform: Platform::GitHub,
                claims: &[("environment", "production"), ("event_name", "pull_request")],
                telling: &[
                    "repository_owner_id",
                    "repository_id",
                    "environment",
                    "event_name",
                    "actor",
                ],
                rule: "shop/deploy-production",
                missed: Some("event_name"),
            },
        ]
    }
}

/// What the tour goes through.
#[derive(Debug)]
pub(super) struct Tour<'a> {
    pub(super) client: Client,
    pub(super) sandbox: &'a Sandbox,
    pub(super) broker: Url,
    pub(super) socket: PathBuf,
    pub(super) store: PathBuf,
}

/// What was seen at one stop.
#[derive(Debug)]
pub(super) struct Seen {
    visit: Visit,
    brought: Map<String, Value>,
    line: String,
    end: End,
}

#[derive(Debug)]
enum End {
    Issued {
        issued: Map<String, Value>,
        expires_in: u64,
        index: u64,
        /// How many entries the checkpoint has that was found to include this one.
        proven_in: u64,
    },
    Refused {
        error: String,
        exchange_id: String,
        explanation: String,
    },
}

impl Tour<'_> {
    /// Fetches a token, exchanges it, and looks at what came of it.
    pub(super) async fn see(&self, visit: Visit) -> Result<Seen, Failure> {
        let fetch = Fetch::of(self.sandbox, visit.platform, visit.claims);
        let line = fetch.line(self.broker.as_str(), TARGET);
        let subject_token = fetch.token(&self.client).await?;
        let text = subject_token.reveal_text().unwrap_or_default();
        let all = token::unverified_claims(text).map_err(Failure::unreachable)?;
        let told = |name: &&str| Some(((*name).to_owned(), all.get(*name)?.clone()));
        let brought = visit.telling.iter().filter_map(told).collect();
        let asked = Asked {
            subject_token: &subject_token,
            audience: Some(TARGET),
            scope: None,
            lifetime: None,
        };
        let broker = Broker::with(&self.broker, self.client.clone());
        let mut waiting = Waiting::begin(Patience::default(), &SystemChance);
        let end = match asked.of(&broker, &mut waiting, &SystemClock).await? {
            Answer::Issued(issued) => self.issued(issued.reveal_answer()).await?,
            Answer::Refused(refused) => self.refused(refused).await?,
        };
        Ok(Seen { visit, brought, line, end })
    }

    /// Does what a resource server does with the token, and what an auditor does with the receipt.
    async fn issued(&self, answer: &Map<String, Value>) -> Result<End, Failure> {
        let number = |value: Option<&Value>| value.and_then(Value::as_u64).unwrap_or(u64::MAX);
        let token = Secret::from(cell(answer.get("access_token")));
        let issued = self.verified(&token).await?;
        let receipt = answer.get("ledger").and_then(Value::as_object);
        let index = number(receipt.and_then(|receipt| receipt.get("index")));
        let leaf = cell(receipt.and_then(|receipt| receipt.get("leaf")));
        let proven_in = ledger::await_inclusion(&self.store, (index, &leaf)).await?;
        Ok(End::Issued { issued, expires_in: number(answer.get("expires_in")), index, proven_in })
    }

    /// Asks for the explanation that only the operator gets.
    async fn refused(&self, answer: Refused) -> Result<End, Failure> {
        let exchange_id = answer.exchange_id.unwrap_or_default();
        // A refusal does not wait for its entry to be durable; who asks at once may be too early.
        let mut explanation = admin::explain(&self.socket, &exchange_id).await;
        for _ in 0..20 {
            if explanation.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            explanation = admin::explain(&self.socket, &exchange_id).await;
        }
        let explanation = explanation?;
        Ok(End::Refused { error: answer.code, exchange_id, explanation })
    }

    /// The claims of a JWT of ours, verified with what `/jwks` publishes (RFC 7515 section 5.2).
    async fn verified(&self, token: &Secret) -> Result<Map<String, Value>, Failure> {
        let (_, body) = http::send(self.client.get(format!("{}/jwks", self.base()))).await?;
        let text = String::from_utf8_lossy(&body);
        let set: JwkSet = serde_json::from_str(&text)
            .map_err(|error| Failure::refused(format!("our key set is none: {error}")))?;
        let bad = |reason: &dyn fmt::Display| {
            Failure::refused(format!("our token does not verify: {reason}"))
        };
        let token = token.reveal_text().unwrap_or_default();
        let header = jsonwebtoken::decode_header(token).map_err(|error| bad(&error))?;
        let key = header.kid.and_then(|kid| set.find(&kid).cloned());
        let key = key.ok_or_else(|| bad(&"its `kid` is not published"))?;
        let key = DecodingKey::from_jwk(&key).map_err(|error| bad(&error))?;
        let mut validation = Validation::new(header.alg);
        validation.set_issuer(&[self.base()]);
        validation.set_audience(&[TARGET_AUDIENCE]);
        let decoded = jsonwebtoken::decode::<Map<String, Value>>(token, &key, &validation);
        Ok(decoded.map_err(|error| bad(&error))?.claims)
    }

    fn base(&self) -> &str {
        self.broker.as_str().trim_end_matches('/')
    }
}

impl Seen {
    /// The exchange that was refused here, for who wants to ask why.
    pub(super) fn refused(&self) -> Option<&str> {
        match &self.end {
            End::Refused { exchange_id, .. } => Some(exchange_id),
            End::Issued { .. } => None,
        }
    }

    /// What was not as it should be.
    pub(super) fn fault(&self) -> Option<String> {
        let title = self.visit.title;
        match (&self.end, self.visit.missed) {
            (End::Issued { issued, .. }, None) => {
                let rule = cell(issued.get("client_id"));
                (rule != self.visit.rule).then(|| {
                    format!("{title}: permitted by `{rule}`, expected `{}`", self.visit.rule)
                })
            }
            (End::Refused { explanation, .. }, Some(missed)) => {
                let told = explanation.contains(self.visit.rule) && explanation.contains(missed);
                (!told).then(|| format!("{title}: the explanation does not name `{missed}`"))
            }
            (End::Issued { .. }, Some(_)) => {
                Some(format!("{title}: permitted, expected a refusal"))
            }
            (End::Refused { explanation, .. }, None) => {
                Some(format!("{title}: refused: {explanation}"))
            }
        }
    }

    /// For machines.
    pub(super) fn as_json(&self) -> Value {
        let end = match &self.end {
            End::Issued { issued, expires_in, index, proven_in } => json!({
                "issued": issued,
                "expires_in": expires_in,
                "rule": issued.get("client_id"),
                "ledger": { "index": index, "proven_in_checkpoint_of": proven_in },
            }),
            End::Refused { error, exchange_id, explanation } => json!({
                "error": error,
                "exchange_id": exchange_id,
                "explanation": explanation,
            }),
        };
        json!({
            "title": self.visit.title,
            "platform": self.visit.platform.as_str(),
            "token": self.brought,
            "outcome": end,
            "again": self.line,
            "as_expected": self.fault().is_none(),
        })
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.visit.title)?;
        writeln!(f, "   brought    {}", pairs(&self.brought))?;
        match &self.end {
            End::Issued { issued, expires_in, index, proven_in } => {
                let said = |name| cell(issued.get(name));
                writeln!(f, "   permitted  by rule `{}`, on `{TARGET}`", said("client_id"))?;
                writeln!(
                    f,
                    "   left with  a JWT for {expires_in} s, verified with the published key set:\n              {}",
                    pairs_of(issued, &mapped(issued))
                )?;
                writeln!(
                    f,
                    "   recorded   as entry {index}; its inclusion in the checkpoint of {proven_in} entries verifies"
                )?;
            }
            End::Refused { error, exchange_id, explanation } => {
                writeln!(f, "   was told   `{error}`, exchange `{exchange_id}`, and no more")?;
                writeln!(f, "   you see    {}", indented(explanation))?;
            }
        }
        write!(f, "   again:\n     {}", self.line.replace('\n', "\n     "))
    }
}

/// Lines after the first below it; empty ones stay empty.
fn indented(text: &str) -> String {
    text.replace("\n\n", "\n").replace('\n', "\n              ")
}

/// What tells about the credential: everything but its times and what names it.
fn mapped(issued: &Map<String, Value>) -> Vec<&str> {
    let dull = ["iat", "nbf", "exp", "jti", "client_id"];
    issued.keys().map(String::as_str).filter(|name| !dull.contains(name)).collect()
}

fn pairs(members: &Map<String, Value>) -> String {
    let all: Vec<&str> = members.keys().map(String::as_str).collect();
    pairs_of(members, &all)
}

fn pairs_of(members: &Map<String, Value>, names: &[&str]) -> String {
    let pair =
        |name: &&str| members.get(*name).map(|value| format!("{name} {}", cell(Some(value))));
    names.iter().filter_map(pair).collect::<Vec<_>>().join(", ")
}
