//! `POST /aws/`: what SDKs send and read, and that nothing which narrows is ever dropped.

use axum::{
    body::Body,
    http::{Request, header},
};

use super::{
    sessions::broker,
    stand_in::{DEPLOY, Manner, StandIn},
};
use crate::{edge::surface::Answered, support::serving::Serving};

const NARROW: &str = "arn:aws:iam::123456789012:role/narrow";

/// As botocore writes it, its token file's last newline included.
fn call(token: &str, more: &[(&str, &str)]) -> String {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("Action", "AssumeRoleWithWebIdentity").append_pair("Version", "2011-06-15");
    for (name, value) in [("RoleArn", DEPLOY), ("RoleSessionName", "botocore-session-1800000000")] {
        if !more.iter().any(|(other, _)| *other == name) {
            form.append_pair(name, value);
        }
    }
    form.append_pair("WebIdentityToken", &format!("{token}\n"));
    for (name, value) in more {
        form.append_pair(name, value);
    }
    form.finish()
}

async fn post(broker: &Serving, body: String) -> Answered {
    let request = Request::post("/aws/")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded; charset=utf-8");
    broker.send(request.body(Body::from(body)).unwrap()).await
}

async fn assume(broker: &Serving, more: &[(&str, &str)]) -> Answered {
    post(broker, call(&broker.job().sign(), more)).await
}

/// The text of the first element called `name`.
fn element<'a>(answer: &'a Answered, name: &str) -> &'a str {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let inner = answer.body.split(&open).nth(1).and_then(|rest| rest.split(&close).next());
    inner.unwrap_or_default()
}

fn refused(answer: &Answered) -> (u16, &str, &str) {
    (answer.status.as_u16(), element(answer, "Code"), element(answer, "Message"))
}

#[tokio::test]
async fn an_sdk_gets_its_session_in_the_form_of_aws() {
    let sts = StandIn::start().await;
    let broker = broker(&sts).await;
    let answer = assume(&broker, &[]).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let body = answer
        .body
        .replace(element(&answer, "Expiration"), "END")
        .replace(element(&answer, "RequestId"), "ID")
        .replace(&sts.granted()[0].form["RoleSessionName"], "NAME");
    insta::assert_snapshot!(body, @r#"<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult><AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/deploy/NAME</Arn><AssumedRoleId>AROACLKWSDQRAOEXAMPLE:NAME</AssumedRoleId></AssumedRoleUser><Credentials><AccessKeyId>ASIAIOSFODNN7EXAMPLE</AccessKeyId><SecretAccessKey>wJalrXUtnFEMI</SecretAccessKey><SessionToken>AQoDYXdzEE0a8ANXXXXXXXX/+=</SessionToken><Expiration>END</Expiration></Credentials><PackedPolicySize>6</PackedPolicySize></AssumeRoleWithWebIdentityResult><ResponseMetadata><RequestId>ID</RequestId></ResponseMetadata></AssumeRoleWithWebIdentityResponse>"#);
    assert_eq!(answer.header("content-type"), "text/xml");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("x-amzn-requestid"), element(&answer, "RequestId"));
    // The caller's name for the session is on record, and ours is what AWS saw.
    let lines = broker.lines();
    let facts = lines.iter().find_map(|line| line.facts.clone()).unwrap();
    let asked = facts.narrowing.unwrap();
    assert_eq!(asked.session_name.as_deref(), Some("botocore-session-1800000000"));
    assert!(sts.granted()[0].form["RoleSessionName"].starts_with("acme-site-"));
    drop(broker.drain().await);
}

#[tokio::test]
async fn a_session_policy_reaches_aws_or_refuses_and_is_never_dropped() {
    let sts = StandIn::start().await;
    let broker = broker(&sts).await;
    let policy = "{\n\t\"Version\": \"2012-10-17\",\n\t\"Statement\": []\n}";
    let managed = "arn:aws:iam::aws:policy/ReadOnlyAccess";
    let more =
        [("Policy", policy), ("PolicyArns.member.1.arn", managed), ("DurationSeconds", "901")];
    let answer = assume(&broker, &more).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let seen = sts.granted()[0].form.clone();
    assert_eq!(seen["Policy"], policy);
    assert_eq!(seen["PolicyArns.member.1.arn"], managed);
    assert_eq!(seen["DurationSeconds"], "900", "the rule's 15 minutes are the upper bound");
    // The role has a policy of its own: AWS would add up what the two allow.
    let answer = assume(&broker, &[("RoleArn", NARROW), ("Policy", policy)]).await;
    let words = "the credential can't be narrowed as asked";
    assert_eq!(refused(&answer), (400, "MalformedPolicyDocument", words));
    let answer = assume(&broker, &[("Policy", "{}")]).await;
    assert_eq!(
        refused(&answer),
        (400, "MalformedPolicyDocument", words),
        "AWS's own word is handed on"
    );
    let long = format!("{{\"Statement\": [], \"Id\": \"{}\"}}", "x".repeat(1_800));
    let answer = assume(&broker, &[("Policy", &long)]).await;
    let words = "session policies and tags are too large together";
    assert_eq!(refused(&answer), (400, "PackedPolicyTooLarge", words));
    for (more, words) in [
        ([("Policy", "")], "Policy must be one JSON object of at most 2048 characters"),
        ([("Policy", "[]")], "Policy must be one JSON object of at most 2048 characters"),
        ([("PolicyArns.member.2.arn", managed)], "PolicyArns must be numbered from 1 on"),
        ([("PolicyArns.member.01.arn", managed)], "a parameter is not served here"),
        ([("Tags.member.1.Key", "x")], "a parameter is not served here"),
    ] {
        let answer = assume(&broker, &more).await;
        assert_eq!(refused(&answer), (400, "ValidationError", words));
    }
    assert_eq!(sts.granted().len(), 1);
    drop(broker.drain().await);
}

#[tokio::test]
async fn h01_what_cannot_be_honoured_is_refused_in_the_words_of_aws() {
    let sts = StandIn::start().await;
    let broker = broker(&sts).await;
    let name = "RoleSessionName must have 2 to 64 letters, digits and _+=,.@-";
    let seconds = "DurationSeconds must be a whole number from 900 to 43200";
    let arn = "RoleArn must be the ARN of a role, of 20 to 1024 characters";
    for (more, words) in [
        (
            [("ProviderId", "graph.facebook.com")],
            "ProviderId is for OAuth 2.0 access tokens, which are not served here",
        ),
        ([("DurationSeconds", "899")], seconds),
        ([("DurationSeconds", "+900")], seconds),
        ([("DurationSeconds", "")], seconds),
        ([("RoleSessionName", "a b")], name),
        ([("RoleArn", "aws/prod")], arn),
    ] {
        assert_eq!(refused(&assume(&broker, &more).await), (400, "ValidationError", words));
    }
    let token = broker.job().sign();
    let twice = call(&token, &[]) + "&RoleArn=" + DEPLOY;
    let words = "a parameter is given more than once";
    assert_eq!(refused(&post(&broker, twice).await), (400, "ValidationError", words));
    let unserved = "AssumeRoleWithWebIdentity alone is served here: ask AWS itself for the rest";
    let body = "Action=GetCallerIdentity&Version=2011-06-15".to_owned();
    assert_eq!(refused(&post(&broker, body).await), (400, "InvalidAction", unserved));
    let signed = Request::post("/aws")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(header::AUTHORIZATION, "AWS4-HMAC-SHA256 Credential=x");
    let answer = broker.send(signed.body(Body::from(call(&token, &[]))).unwrap()).await;
    assert_eq!(
        refused(&answer).1,
        "AccessDenied",
        "h07: a signature that nobody checks is refused"
    );
    let query = Request::post("/aws/?Action=AssumeRoleWithWebIdentity")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    let answer = broker.send(query.body(Body::from(call(&token, &[]))).unwrap()).await;
    assert_eq!(refused(&answer).1, "ValidationError");
    assert_eq!(sts.asked(), 0);
    drop(broker.drain().await);
}

#[tokio::test]
async fn refusals_have_the_codes_by_which_sdks_know_what_to_do() {
    let sts = StandIn::start().await;
    let broker = broker(&sts).await;
    let now = Serving::now();
    let expired = broker.site.job().issued_at(now - 4_000, 300).sign();
    let said = |answer: Answered| (answer.status.as_u16(), element(&answer, "Code").to_owned());
    let code = |status: u16, code: &str| (status, code.to_owned());
    assert_eq!(said(post(&broker, call(&expired, &[])).await), code(400, "ExpiredTokenException"));
    let forged = broker.job().sign();
    let forged = format!("{}AAAA", &forged[..forged.len() - 4]);
    assert_eq!(said(post(&broker, call(&forged, &[])).await), code(400, "InvalidIdentityToken"));
    let stranger = broker.job().claim("repository_id", "5").sign();
    assert_eq!(said(post(&broker, call(&stranger, &[])).await), code(403, "AccessDenied"));
    let other = [("RoleArn", "arn:aws:iam::123456789012:role/unknown")];
    assert_eq!(said(assume(&broker, &other).await), code(403, "AccessDenied"));
    let token = broker.job().sign();
    assert_eq!(said(post(&broker, call(&token, &[])).await).0, 200);
    assert_eq!(
        said(post(&broker, call(&token, &[])).await),
        code(403, "AccessDenied"),
        "it was spent"
    );
    sts.behaves(Manner::Throttles);
    let busy = assume(&broker, &[]).await;
    assert_eq!(busy.header("retry-after"), "2");
    assert_eq!(said(busy), code(503, "ServiceUnavailable"));
    drop(broker.drain().await);
}
