//! The refusal table: one row for every way to end without a credential, its public answer pinned whole.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use cambio::{
    edge::answer::{Front, answer},
    exchange::{Issued, TokenType},
    grant::{IssuerName, RoleName, TargetName},
    ledger::{Commit as _, CommitError},
    mint::{Credential, MintError},
    policy::{Denial, DenialReason},
    refusal::{Refusal, Unfit},
    secret::Secret,
    subject::Rejection,
};
use serde_json::json;

use super::surface::{BEARER, EXCHANGE, NOW, broker, post};
use crate::ledger::log::{Log, durable, grant};

fn issuer() -> IssuerName {
    "github".into()
}

fn target() -> TargetName {
    "jwt/orders".into()
}

fn denied(reason: DenialReason) -> Refusal {
    Refusal::Denied(Box::new(Denial {
        reason,
        known_tenant: true,
        nearest: None,
        shadow: vec![],
        policy_digest: [0; 32],
    }))
}

fn mint(error: MintError, unspent: bool) -> Refusal {
    Refusal::Mint { target: target(), error, unspent }
}

fn bad_tokens() -> Vec<Rejection> {
    vec![
        Rejection::Malformed("secret cause".to_owned()),
        Rejection::Header("secret cause".to_owned()),
        Rejection::UnknownIssuer { found: "https://evil.example".to_owned() },
        Rejection::NoKey { issuer: issuer(), reason: "secret cause".to_owned() },
        Rejection::Signature { issuer: issuer(), kid: "secret".to_owned() },
        Rejection::Claim { issuer: issuer(), claim: "aud".to_owned(), reason: "x".to_owned() },
        Rejection::NotStanding { issuer: issuer(), reason: "secret cause".to_owned() },
    ]
}

fn not_asked() -> Rejection {
    Rejection::ReviewUnavailable { issuer: issuer(), reason: "secret cause".to_owned() }
}

/// (refusal, answer to token exchange, code for jwt-bearer where it differs).
fn table() -> Vec<(Refusal, &'static str, Option<&'static str>)> {
    const GRANT: Option<&str> = Some("invalid_grant");
    const NO_TARGET: &str =
        "400 invalid_target: the target can't be had: see `audience` and `resource`";
    const NOT_PERMITTED: &str = "400 invalid_request: no trust policy permits this exchange";
    const NOT_RECORDED: &str = "503 temporarily_unavailable: the exchange could not be recorded";
    let outage =
        |reason: &str| Rejection::KeysUnavailable { issuer: issuer(), reason: reason.to_owned() };
    let mut rows = vec![
        (
            Refusal::BadRequest("`grant_type` is <missing> \"\\\u{7}".to_owned()),
            "400 invalid_request: `grant_type` is ?missing? ???",
            None,
        ),
        (
            Unfit::MediaType.into(),
            "415 invalid_request: the body must be `application/x-www-form-urlencoded`, without a content coding",
            None,
        ),
        (Unfit::TooLarge.into(), "413 invalid_request: the body is too large", None),
        (Unfit::TooSlow.into(), "408 invalid_request: the body did not arrive in time", None),
        (
            Unfit::Body.into(),
            "400 invalid_request: the body could not be read: it needs one `Content-Length` and no `Transfer-Encoding`",
            None,
        ),
        (
            Unfit::ClientAuthentication.into(),
            "401 invalid_client: there is no client authentication here: the subject token is the credential",
            None,
        ),
        (
            Unfit::Overloaded.into(),
            "503 temporarily_unavailable: the broker is busy, again in 1 s",
            None,
        ),
        (
            Refusal::UnsupportedGrantType("password".to_owned()),
            "400 unsupported_grant_type: the grant type is not served",
            None,
        ),
        (
            Refusal::TooMany { scope: "address", retry_after: Duration::from_secs(7) },
            "429 temporarily_unavailable: too many requests, again in 7 s",
            None,
        ),
        (
            Refusal::SubjectToken(outage("dns")),
            "503 temporarily_unavailable: the keys of the token's issuer are not available, again in 5 s",
            None,
        ),
        (
            Refusal::ActorToken(outage("dns")),
            "503 temporarily_unavailable: the keys of the token's issuer are not available, again in 5 s",
            None,
        ),
        (
            Refusal::SubjectToken(not_asked()),
            "503 temporarily_unavailable: the token's issuer can't be asked about it now, again in 5 s",
            None,
        ),
        (
            Refusal::ActorToken(not_asked()),
            "503 temporarily_unavailable: the token's issuer can't be asked about it now, again in 5 s",
            None,
        ),
        (
            Refusal::Actor("cycle".to_owned()),
            "400 invalid_request: the actor may not act for this subject",
            GRANT,
        ),
        (denied(DenialReason::NoRule), NOT_PERMITTED, GRANT),
        (denied(DenialReason::Conditions), NOT_PERMITTED, GRANT),
        (denied(DenialReason::Guardrail("no-forks".to_owned())), NOT_PERMITTED, GRANT),
        (denied(DenialReason::Conflict("a/b".to_owned())), NOT_PERMITTED, GRANT),
        (
            denied(DenialReason::Lifetime {
                asked: Duration::from_secs(1),
                floor: Duration::from_secs(60),
            }),
            "400 invalid_request: no lifetime is left that the target can keep",
            GRANT,
        ),
        (denied(DenialReason::Target("aws/prod".to_owned())), NO_TARGET, None),
        (
            denied(DenialReason::Scope("admin".to_owned())),
            "400 invalid_scope: the scope is not permitted",
            None,
        ),
        (
            Refusal::Ambiguous(vec![(target(), RoleName::from("a"))]),
            "400 invalid_target: more than one role is permitted: name the target by `audience` and the role by `scope`",
            None,
        ),
        (Refusal::Scope("admin".to_owned()), "400 invalid_scope: the scope is not permitted", None),
        (
            Refusal::AlreadySpent { target: target(), role: "a".into() },
            "400 invalid_request: the subject token was already used for this",
            GRANT,
        ),
        (Refusal::Blocked("bl_1".to_owned()), NOT_PERMITTED, GRANT),
        (
            mint(MintError::NoLifetime("x".to_owned()), true),
            "400 invalid_request: no lifetime is left that the target can keep",
            GRANT,
        ),
        (
            mint(MintError::Actors("x".to_owned()), true),
            "400 invalid_request: the actor may not act for this subject",
            GRANT,
        ),
        (
            mint(MintError::NoKey("x".to_owned()), true),
            "503 temporarily_unavailable: no signing key may be used now, again in 5 s",
            None,
        ),
        (
            mint(MintError::NoKey("x".to_owned()), false),
            "503 temporarily_unavailable: no signing key may be used now",
            None,
        ),
        (
            Refusal::NoRoom { target: target(), retry_after: Duration::from_secs(90) },
            "429 temporarily_unavailable: as many logins as may be are live: use one of them, or end one, again in 90 s",
            None,
        ),
        (
            mint(MintError::Refused("x".to_owned()), true),
            "503 temporarily_unavailable: the target did not issue a credential, again in 5 s",
            None,
        ),
        (
            mint(MintError::Unknown("x".to_owned()), true),
            "503 temporarily_unavailable: the target did not answer, again in 5 s",
            None,
        ),
        (
            mint(MintError::Unknown("x".to_owned()), false),
            "503 temporarily_unavailable: the target did not answer",
            None,
        ),
        (mint(MintError::Internal("x".to_owned()), true), "500 server_error: internal error", None),
        (CommitError::Stopped("x".to_owned()).into(), NOT_RECORDED, None),
        (CommitError::Fork("x".to_owned()).into(), NOT_RECORDED, None),
        (
            CommitError::ClockBehind(Duration::from_secs(61)).into(),
            "503 temporarily_unavailable: the exchange could not be recorded, again in 1 s",
            None,
        ),
        (
            CommitError::Full.into(),
            "503 temporarily_unavailable: the exchange could not be recorded, again in 1 s",
            None,
        ),
        (
            CommitError::TooLarge(5000).into(),
            "500 server_error: the exchange could not be recorded",
            None,
        ),
        (
            Refusal::NotReady("store".to_owned()),
            "503 temporarily_unavailable: the broker is not ready, again in 1 s",
            None,
        ),
        (Refusal::Internal("defect".to_owned()), "500 server_error: internal error", None),
    ];
    rows.extend(bad_tokens().into_iter().map(|rejection| {
        let said = "400 invalid_request: the subject token was not accepted";
        (Refusal::SubjectToken(rejection), said, GRANT)
    }));
    rows.extend(bad_tokens().into_iter().map(|rejection| {
        let said = "400 invalid_request: the actor token was not accepted";
        (Refusal::ActorToken(rejection), said, GRANT)
    }));
    rows
}

fn said(refusal: &Refusal, front: Front) -> String {
    let answer = answer(refusal, front);
    let again = answer.retry_after.map(|after| format!(", again in {} s", after.as_secs()));
    let (status, code) = (answer.status.as_u16(), answer.code);
    format!("{status} {code}: {}{}", answer.description, again.unwrap_or_default())
}

#[test]
fn every_refusal_has_its_public_answer() {
    for (refusal, exchange, bearer_code) in table() {
        assert_eq!(said(&refusal, Front::TokenExchange), exchange, "{refusal}");
        let expected = bearer_code
            .map_or_else(|| exchange.to_owned(), |code| exchange.replace("invalid_request", code));
        assert_eq!(said(&refusal, Front::JwtBearer), expected, "{refusal}");
    }
}

/// Does not compile when a variant is added: give it a row, then a number here.
const fn number(refusal: &Refusal) -> usize {
    match refusal {
        Refusal::BadRequest(_) => 0,
        Refusal::Unfit(_) => 1,
        Refusal::UnsupportedGrantType(_) => 2,
        Refusal::TooMany { .. } => 3,
        Refusal::SubjectToken(_) => 4,
        Refusal::ActorToken(_) => 5,
        Refusal::Actor(_) => 6,
        Refusal::Denied(_) => 7,
        Refusal::Ambiguous(_) => 8,
        Refusal::Scope(_) => 9,
        Refusal::AlreadySpent { .. } => 10,
        Refusal::Blocked(_) => 11,
        Refusal::Mint { .. } => 12,
        Refusal::Ledger(_) => 13,
        Refusal::NotReady(_) => 14,
        Refusal::Internal(_) => 15,
        Refusal::NoRoom { .. } => 16,
    }
}

#[test]
fn every_variant_has_a_row() {
    let mut rows: Vec<usize> = table().iter().map(|(refusal, ..)| number(refusal)).collect();
    rows.sort_unstable();
    rows.dedup();
    assert_eq!(rows, (0..=16).collect::<Vec<_>>());
}

#[test]
fn j28_every_bad_token_looks_the_same() {
    let mut answers: Vec<String> = bad_tokens()
        .into_iter()
        .map(|rejection| said(&Refusal::SubjectToken(rejection), Front::TokenExchange))
        .collect();
    answers.dedup();
    assert_eq!(answers, ["400 invalid_request: the subject token was not accepted"]);
}

#[tokio::test]
async fn an_error_response_is_pinned_whole() {
    let (router, exchanges) = broker();
    exchanges.refusals.lock().unwrap().push(denied(DenialReason::NoRule));
    let answer = post(&router, EXCHANGE).await;
    let id = answer.header("cambio-exchange-id").to_owned();
    assert!(id.starts_with("ex_01a3185c5000"), "{id}");
    assert_eq!(answer.status.as_u16(), 400);
    assert_eq!(
        answer.json(),
        json!({
            "error": "invalid_request",
            "error_description": "no trust policy permits this exchange",
            "exchange_id": id,
            "explain": format!("cambio policy explain {id}"),
        })
    );
    for (header, value) in [
        ("content-type", "application/json"),
        ("cache-control", "no-store"),
        ("pragma", "no-cache"),
        ("retry-after", ""),
    ] {
        assert_eq!(answer.header(header), value, "{header}");
    }
}

#[tokio::test]
async fn the_front_is_the_one_that_was_asked() {
    let (router, exchanges) = broker();
    exchanges.refusals.lock().unwrap().push(denied(DenialReason::NoRule));
    assert_eq!(post(&router, BEARER).await.error().1, "invalid_grant");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_is_answered_with_its_credential_its_true_end_and_its_receipt() {
    let (router, exchanges) = broker();
    let log = Log::create();
    let receipt = durable(log.writer.commit(grant(1)).await);
    exchanges.issued.lock().unwrap().push(Issued {
        credential: Credential {
            value: Secret::from("h.c.s".to_owned()),
            issued_token_type: TokenType::AccessToken.as_str(),
            token_type: "Bearer",
            expires_at: NOW.plus(Duration::from_secs(600)),
            scope: vec!["deploy".to_owned()],
            lease: None,
        },
        receipt,
        kind: "jwt",
    });
    let answer = post(&router, EXCHANGE).await;
    let id = answer.header("cambio-exchange-id").to_owned();
    assert_eq!(
        (answer.status.as_u16(), answer.json()),
        (
            200,
            json!({
                "access_token": "h.c.s",
                "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
                "token_type": "Bearer",
                "expires_in": 600,
                "exchange_id": id,
                "ledger": { "index": receipt.index(), "leaf": STANDARD.encode(receipt.leaf()) },
                "scope": "deploy",
            })
        )
    );
    assert_eq!((answer.header("cache-control"), answer.header("pragma")), ("no-store", "no-cache"));
    log.close().await;
}
