//! `POST /aws/`: the AWS STS query protocol, so that an SDK that knows nothing of us gets its session from us, by
//! `AWS_ENDPOINT_URL_STS` alone. What can't be honoured is refused; nothing that a caller narrows is ever dropped.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    http::header,
    response::Response,
};

use super::{
    Surface,
    answer::{self, Front},
    form::{Dialect, Form, refuse},
    source::{self, AddressKey},
    token::{self, Arrival, LONGEST_NAME},
};
use crate::{
    exchange::{ExchangeRequest, Issued, TokenType},
    grant::Narrowing,
    id::ExchangeId,
    json::{Limits, parse_object},
    mint::aws::{LONGEST_POLICY, MOST_POLICY_ARNS},
    policy::Wants,
    refusal::{Refusal, Unfit},
    subject::UnverifiedToken,
};

pub(super) mod xml;

const ASSUME: &str = "AssumeRoleWithWebIdentity";
const VERSION: &str = "2011-06-15";
/// The most characters of an action's name that are kept for the operator.
const LONGEST_ACTION: usize = 80;
/// The parameters of the action that we can honour (AWS STS API reference).
const KNOWN: [&str; 7] = [
    "Action",
    "Version",
    "RoleArn",
    "RoleSessionName",
    "WebIdentityToken",
    "DurationSeconds",
    "Policy",
];
/// What an SDK writes for a list without elements.
const NO_ARNS: &str = "PolicyArns";
const POLICY_LIMITS: Limits = Limits { bytes: 8_192, depth: 12, members: 256, elements: 512 };

/// Serves one call.
pub(super) async fn assume(State(surface): State<Arc<Surface>>, request: Request) -> Response {
    let begun = tokio::time::Instant::now();
    let Ok(id) = ExchangeId::make(surface.clock.now(), &*surface.chance) else {
        return answer::unattributed(&Refusal::NotReady("no randomness".to_owned()), Front::AwsSts);
    };
    let arrival = arrive(&surface, request, id).await;
    token::answer_to(&surface, id, begun, arrival, granted).await
}

async fn arrive(surface: &Surface, request: Request, id: ExchangeId) -> Arrival {
    let (parts, body) = request.into_parts();
    let Some(source) = source::of(&parts, &surface.proxies) else {
        let nobody = Refusal::Internal("the listener did not say who connected".to_owned());
        return Arrival { front: Front::AwsSts, source: None, request: Err(nobody) };
    };
    let read = async {
        if let Err(retry_after) = surface.per_address.check(&AddressKey::of(source)) {
            surface.metrics.rate_limited("address");
            return Err(Refusal::TooMany { scope: "address", retry_after });
        }
        if parts.uri.query().is_some() {
            return Err(refuse("parameters belong in the body: the query must be absent"));
        }
        let limit = surface.body_timeout;
        let mut form = Form::read(&parts.headers, body, limit, Dialect::AwsQuery).await?;
        served(&form)?;
        // Threat H07: this action is not signed. A signature that nobody checks looks like one that was accepted.
        if parts.headers.contains_key(header::AUTHORIZATION) {
            return Err(Unfit::ClientAuthentication.into());
        }
        let (wants, narrowing) = (wants(&form)?, narrowing(&form)?);
        Ok(ExchangeRequest {
            exchange_id: id,
            subject_token: UnverifiedToken::new(web_identity_token(&mut form)?),
            subject_token_type: TokenType::Jwt,
            actor_token: None,
            // Nothing but an AWS session fits into the answer.
            requested_token_type: Some(TokenType::Aws),
            wants,
            narrowing: Some(narrowing),
            csr: None,
            source,
        })
    };
    Arrival { front: Front::AwsSts, source: Some(source), request: read.await }
}

/// The action, its version, and no parameter that we do not know: dropped silently, it could have meant less power.
fn served(form: &Form) -> Result<(), Refusal> {
    match form.find("Action") {
        Some(ASSUME) => {}
        Some(other) => {
            return Err(Refusal::UnsupportedGrantType(
                other.chars().take(LONGEST_ACTION).collect(),
            ));
        }
        None => return Err(refuse("Action is missing")),
    }
    if form.find("Version") != Some(VERSION) {
        return Err(refuse("Version must be 2011-06-15"));
    }
    if form.find("ProviderId").is_some() {
        return Err(refuse("ProviderId is for OAuth 2.0 access tokens, which are not served here"));
    }
    let known = |name: &str| KNOWN.contains(&name) || name == NO_ARNS || arn_at(name).is_some();
    if form.names().all(known) { Ok(()) } else { Err(refuse("a parameter is not served here")) }
}

/// `N` of `PolicyArns.member.N.arn`.
fn arn_at(name: &str) -> Option<usize> {
    let number = name.strip_prefix("PolicyArns.member.")?.strip_suffix(".arn")?;
    let plain = number.bytes().all(|byte| byte.is_ascii_digit()) && !number.starts_with('0');
    number.parse().ok().filter(|at| plain && (1..=MOST_POLICY_ARNS).contains(at))
}

fn wants(form: &Form) -> Result<Wants, Refusal> {
    let arn = form.find("RoleArn").unwrap_or_default();
    if !(20..=LONGEST_NAME).contains(&arn.len()) || !arn.starts_with("arn:") {
        return Err(refuse("RoleArn must be the ARN of a role, of 20 to 1024 characters"));
    }
    let lifetime = form.find("DurationSeconds").map(seconds).transpose()?;
    Ok(Wants { targets: vec![arn.to_owned()], scope: Vec::new(), lifetime })
}

/// What is longer than the rule allows is cut, as everywhere; what is shorter than AWS gives is refused by the decision.
fn seconds(text: &str) -> Result<Duration, Refusal> {
    let digits = text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u64>() {
        Ok(found) if digits && (900..=43_200).contains(&found) => Ok(Duration::from_secs(found)),
        _ => Err(refuse("DurationSeconds must be a whole number from 900 to 43200")),
    }
}

fn narrowing(form: &Form) -> Result<Narrowing, Refusal> {
    let name = form.find("RoleSessionName").unwrap_or_default();
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte);
    if !(2..=64).contains(&name.len()) || !name.bytes().all(fits) {
        return Err(refuse("RoleSessionName must have 2 to 64 letters, digits and _+=,.@-"));
    }
    let policy = form.find("Policy");
    if policy.is_some_and(|text| {
        text.chars().count() > LONGEST_POLICY
            || parse_object(text.as_bytes(), &POLICY_LIMITS).is_err()
    }) {
        return Err(refuse("Policy must be one JSON object of at most 2048 characters"));
    }
    if form.find(NO_ARNS).is_some_and(|text| !text.is_empty()) {
        return Err(refuse("PolicyArns must be a list"));
    }
    let mut numbered: Vec<(usize, String)> = Vec::new();
    for name in form.names() {
        let (Some(at), Some(arn)) = (arn_at(name), form.find(name)) else { continue };
        let fits = arn.starts_with("arn:") && arn.len() <= LONGEST_NAME;
        if !fits || !arn.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(refuse("PolicyArns must be ARNs of at most 1024 characters"));
        }
        numbered.push((at, arn.to_owned()));
    }
    numbered.sort();
    if numbered.iter().map(|(at, _)| *at).ne(1..=numbered.len()) {
        return Err(refuse("PolicyArns must be numbered from 1 on"));
    }
    Ok(Narrowing {
        session_name: Some(name.to_owned()),
        policy: policy.map(str::to_owned),
        policy_arns: numbered.into_iter().map(|(_, arn)| arn).collect(),
    })
}

/// SDKs send the token's file as it is, with its last newline: what is around the token is no part of it.
fn web_identity_token(form: &mut Form) -> Result<String, Refusal> {
    let mut token =
        form.take("WebIdentityToken").ok_or_else(|| refuse("WebIdentityToken is missing"))?;
    token.truncate(token.trim_ascii_end().len());
    if token.starts_with(|first: char| first.is_ascii_whitespace()) {
        token = token.trim_ascii_start().to_owned();
    }
    if token.is_empty() {
        return Err(refuse("WebIdentityToken is missing"));
    }
    Ok(token)
}

fn granted(issued: &Issued, id: ExchangeId, _left: Duration) -> Response {
    xml::granted(issued, id).unwrap_or_else(|| {
        let broken = Refusal::Internal("the credential is no AWS session".to_owned());
        answer::respond(&broken, Front::AwsSts, id)
    })
}
