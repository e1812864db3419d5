//! Tokens for databases of Amazon RDS: the presigned request, checked by the book and not by the library that made it.

use std::collections::BTreeMap;

use aws_lc_rs::{digest, hmac};
use cambio::{
    clock::Clock as _,
    config::Config,
    mint::rds::{Database, Engine, LIVES, token},
    secret::Secret,
};
use serde_json::Value;

use super::{
    outages::outcomes,
    settings::problems,
    stand_in::{DEPLOY, Manner, StandIn},
};
use crate::{
    edge::surface::Answered,
    support::{
        broker::form,
        serving::{Serving, serve_dev},
        site::Site,
    },
};

/// Where the stand-in may use plain http.
const OURS: &str = "http://127.0.0.1:1";
const HOST: &str = "orders.c9akciq32.eu-central-1.rds.amazonaws.com";
const TARGET: &str = "  - name: rds/orders
    kind: rds
    engine: postgres
    host: orders.c9akciq32.eu-central-1.rds.amazonaws.com
    database: orders
    region: eu-central-1
    environment: test
    granted_by: [orders.yaml]
    roles: { reader: { role_arn: 'arn:aws:iam::123456789012:role/deploy', user: app_reader, session_name: [run_id] } }
";
const RULES: &str = r#"
  - id: database
    issuer: github
    when: { repository_id: "1296269", event_name: push }
    grants: [{ target: rds/orders, role: reader, lifetime: 15m }]
"#;

fn site(target: &str) -> Site {
    let site = Site::new();
    site.edit("cambio.yaml", "policies: { directory", &format!("{target}policies: {{ directory"));
    let rules = crate::support::site::ORDERS_YAML.to_owned() + RULES.trim_start_matches('\n');
    site.write("policies/orders.yaml", &rules);
    site
}

async fn broker(sts: &StandIn) -> Serving {
    let serving = serve_dev(site(&format!("{TARGET}    endpoint: {}\n", sts.url)), |config| {
        config.issuer = cambio::subject::issuers::IssuerUrl::dangerously_loopback(OURS).unwrap();
    })
    .await;
    sts.trusts(OURS, serving.public("/jwks").await.json());
    serving
}

async fn ask(broker: &Serving) -> Answered {
    broker.post_token(&form(&broker.job().sign(), "audience=rds/orders&scope=reader")).await
}

fn hex(bytes: &[u8]) -> String {
    cambio::ledger::entry::hex(bytes)
}

/// Signature Version 4, query parameters (AWS General Reference, "Create a signed AWS API request"): the signature over what
/// `token` says, with `secret`; and its parameters.
fn expected(token: &str, secret: &str) -> (String, BTreeMap<String, String>) {
    let (host, query) = token.split_once("/?").unwrap();
    let signed = |pair: &&str| !pair.starts_with("X-Amz-Signature=");
    let mut pairs: Vec<&str> = query.split('&').filter(signed).collect();
    pairs.sort_unstable();
    let canonical = format!("GET\n/\n{}\nhost:{host}\n\nhost\n{}", pairs.join("&"), sha256(b""));
    let parameters: BTreeMap<String, String> = url::form_urlencoded::parse(query.as_bytes())
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    let (date, region) = (&parameters["X-Amz-Date"][..8], "eu-central-1");
    let scope = format!("{date}/{region}/rds-db/aws4_request");
    let to_sign = format!(
        "AWS4-HMAC-SHA256\n{}\n{scope}\n{}",
        parameters["X-Amz-Date"],
        sha256(canonical.as_bytes())
    );
    let mac = |key: &[u8], text: &str| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
    };
    let mut key = mac(format!("AWS4{secret}").as_bytes(), date);
    for part in [region, "rds-db", "aws4_request"] {
        key = mac(&key, part);
    }
    (hex(&mac(&key, &to_sign)), parameters)
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

#[tokio::test]
async fn a_job_gets_a_token_that_is_signed_as_aws_says_and_a_login_like_any_other() {
    let sts = StandIn::start().await;
    let broker = broker(&sts).await;
    let before = Serving::now();
    let answer = ask(&broker).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let body = answer.json();
    assert_eq!(body["issued_token_type"], "urn:cambio:token-type:database");
    let credential: Value = serde_json::from_str(body["access_token"].as_str().unwrap()).unwrap();
    let token = credential["password"].as_str().unwrap();
    assert!(token.starts_with(&format!("{HOST}:5432/?Action=connect&DBUser=app_reader&X-Amz-")));
    let (signature, parameters) = expected(token, "wJalrXUtnFEMI");
    assert_eq!(parameters["X-Amz-Signature"], signature);
    assert_eq!(parameters["X-Amz-Expires"], "900");
    assert_eq!(parameters["X-Amz-SignedHeaders"], "host");
    assert_eq!(parameters["X-Amz-Security-Token"], "AQoDYXdzEE0a8ANXXXXXXXX/+=");
    assert!(parameters["X-Amz-Credential"].starts_with("ASIAIOSFODNN7EXAMPLE/"));
    for (name, value) in [
        ("kind", "postgres"),
        ("user", "app_reader"),
        ("host", HOST),
        ("database", "orders"),
        ("sslmode", "verify-full"),
    ] {
        assert_eq!(credential[name], value, "{name}");
    }
    assert_eq!(credential["port"], 5_432);
    assert!(!body.to_string().contains("wJalrXUtnFEMI"), "the session's own secret stays here");
    // What a program reads from the URI is the token, byte for byte.
    let uri: url::Url = credential["uri"].as_str().unwrap().parse().unwrap();
    let decoded = url::form_urlencoded::parse(
        format!("p={}", uri.password().unwrap().replace('+', "%2B").replace('&', "%26")).as_bytes(),
    )
    .next()
    .map(|(_, value)| value.into_owned());
    assert_eq!(decoded.as_deref(), Some(token));
    // INVARIANT(honest-expiry): whichever ends first, the signature or the session.
    let told = body["expires_in"].as_u64().unwrap();
    assert!(told <= LIVES.as_secs(), "{told}");
    let entry =
        broker.lines().into_iter().find(|line| !line.text("credential").is_empty()).unwrap();
    let worst = entry.event["expires_at"].as_u64().unwrap() / 1_000;
    assert!(worst >= before + 900 && worst <= Serving::now() + 930, "{worst}");
    let seen = sts.granted();
    assert_eq!((&*seen[0].form["RoleArn"], &*seen[0].form["DurationSeconds"]), (DEPLOY, "900"));
    assert!(
        seen[0].form["RoleSessionName"].starts_with("20000000001-"),
        "CloudTrail names the run"
    );
    assert_eq!(outcomes(&broker), ["minted"]);
    drop(broker.drain().await);
}

#[tokio::test]
async fn honest_expiry_a_rule_says_the_fifteen_minutes_that_aws_gives() {
    let site = site(TARGET);
    site.edit(
        "policies/orders.yaml",
        "role: reader, lifetime: 15m }",
        "role: reader, lifetime: 10m }",
    );
    let error = crate::support::serving::try_serve(&site, cambio::app::Existing::Created).await;
    let error = error.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(
        error.contains(
            "lifetime is 600 s, expected what target `rds/orders` can keep: exactly 900 s"
        ),
        "{error}"
    );
}

#[tokio::test]
async fn v03_an_sts_that_fails_is_told_as_for_a_session() {
    let sts = StandIn::start().await;
    let broker = broker(&sts).await;
    sts.behaves(Manner::Throttles);
    let answer = ask(&broker).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "2"));
    sts.behaves(Manner::Incomplete);
    let answer = ask(&broker).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, ""));
    assert_eq!(outcomes(&broker), ["void", "unknown"]);
    drop(broker.drain().await);
}

/// The session's end binds: nothing opens after it, whatever the signature says.
#[test]
fn what_is_signed_depends_on_everything_that_it_names() {
    let session = |key: &str| cambio::mint::aws::sts::Session {
        access_key_id: key.to_owned(),
        secret_access_key: Secret::from("secret".to_owned()),
        session_token: Secret::from("a/b+c==".to_owned()),
        expires_at: cambio::clock::SystemClock.now(),
        assumed: None,
        packed_policy_size: None,
    };
    let database = Database {
        engine: Engine::Mysql,
        host: HOST.to_owned(),
        port: 3_306,
        name: None,
        region: "eu-central-1".to_owned(),
        users: BTreeMap::new(),
    };
    let now = cambio::clock::Instant::from_seconds(1_800_000_000);
    let made = |database: &Database, user: &str, key: &str| {
        let made = token(database, user, &session(key), now).unwrap();
        let made = made.reveal_text().unwrap().to_owned();
        let (signature, parameters) = expected(&made, "secret");
        assert_eq!(parameters["X-Amz-Signature"], signature, "{made}");
        assert_eq!(parameters["X-Amz-Date"], "20270115T080000Z");
        signature
    };
    let one = made(&database, "app", "ASIAONE");
    let others = [
        made(&database, "app2", "ASIAONE"),
        made(&database, "app", "ASIATWO"),
        made(&Database { port: 3_307, ..database.clone() }, "app", "ASIAONE"),
        made(&Database { host: "other.example".to_owned(), ..database.clone() }, "app", "ASIAONE"),
    ];
    assert!(others.iter().all(|other| *other != one));
    assert_eq!(made(&database, "app", "ASIAONE"), one);
}

#[test]
fn an_endpoint_a_user_and_lifetimes_are_what_aws_takes() {
    assert_eq!(problems(TARGET), "none");
    let with = |from: &str, to: &str| problems(&TARGET.replace(from, to));
    insta::assert_snapshot!(with(HOST, "10.0.0.7"), @"`host` is `10.0.0.7`, expected a name");
    insta::assert_snapshot!(with(HOST, "Orders.example/x"), @"`host` is `Orders.example/x`, expected a name");
    insta::assert_snapshot!(with("user: app_reader", "user: '*'"), @"`user` is `*`");
    insta::assert_snapshot!(with("user: app_reader", "user: 'a&Action=delete'"), @"`user` is `a&Action=delete`");
    let ceiling = problems(&format!("{TARGET}    ceiling: 1h\n"));
    assert!(ceiling.contains("`ceiling`"), "there is nothing to choose: {ceiling}");
    let site = site(TARGET);
    let config = Config::read(&site.path("cambio.yaml")).unwrap();
    assert_eq!(config.0.targets.last().unwrap().kind.as_str(), "rds");
}
