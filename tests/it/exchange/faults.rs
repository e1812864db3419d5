//! Something fails: an issuer, the store. What it touches stops; what it does not touch goes on.

use std::{collections::BTreeSet, time::Duration};

use cambio::{
    config::{Discovered, IssuerConfig, KeysFrom},
    subject::{Algorithm, issuers::IssuerUrl, provider::GENERIC},
};

use crate::support::{
    broker::form,
    issuer::{Document, Reply, ServedIssuer},
    serving::{Serving, serve, serve_dev},
    site::{ORDERS_YAML, Site},
    token::AUDIENCE,
};

const WEATHER: &str = r"
  - id: weather
    issuer: weather
    when: { sub: station-7 }
    grants: [{ target: jwt/orders, role: read, lifetime: 5m }]
";

/// A broker with one issuer more, which it has to ask for its keys.
async fn with_discovered(issuer: &ServedIssuer) -> Serving {
    let site = Site::new();
    let url = IssuerUrl::dangerously_loopback(issuer.issuer.url()).unwrap();
    let rules = format!("{ORDERS_YAML}{WEATHER}");
    site.write("policies/orders.yaml", &rules);
    serve_dev(site, |config| {
        config.issuers.push(IssuerConfig {
            name: "weather".into(),
            preset: &GENERIC,
            issuer: url,
            audience: AUDIENCE.to_owned(),
            keys: KeysFrom::Discovered(Box::new(Discovered {
                jwks_uri: None,
                jwks_origin: None,
                ca_file: None,
                bearer_token_file: None,
                private: false,
                stale_after: Duration::from_hours(1),
            })),
            algorithms: BTreeSet::from([Algorithm::ES256]),
            leeway: Duration::from_mins(1),
            maximum_lifetime: Duration::from_hours(1),
            maximum_age: None,
            accepted_types: BTreeSet::from(["JWT".to_owned()]),
            token_review: None,
        });
    })
    .await
}

/// Somebody edits a policy while an issuer is down: what is known of its keys is not forgotten, and however often that
/// happens, the issuer is not asked more often.
#[tokio::test]
async fn d14_a_reload_while_an_issuer_is_down_keeps_its_keys() {
    let weather = ServedIssuer::start().await;
    let serving = with_discovered(&weather).await;
    let station = async || {
        let token = weather.issuer.token().subject("station-7").issued_at(Serving::now(), 300);
        serving.post_token(&form(&token.sign(), "audience=jwt/orders")).await.status
    };
    assert_eq!(station().await, 200);
    let fetches = weather.fetches(Document::Jwks);
    weather.serve(Document::Discovery, Reply::status(503));
    weather.serve(Document::Jwks, Reply::status(503));
    for _ in 0..20 {
        serving.running.reload().await.unwrap();
    }
    assert_eq!(station().await, 200);
    assert_eq!(weather.fetches(Document::Jwks), fetches);
    assert_eq!(weather.fetches(Document::Discovery), fetches);
    serving.drain().await;
}

#[tokio::test]
async fn v01_an_issuer_that_hangs_or_fails_costs_nobody_but_its_own_workloads() {
    let weather = ServedIssuer::start().await;
    weather.hold();
    let serving = with_discovered(&weather).await;
    let station =
        || weather.issuer.token().subject("station-7").issued_at(Serving::now(), 300).sign();
    let first = form(&station(), "audience=jwt/orders");
    let mut asked = Box::pin(serving.post_token(&first));
    // Its keys hang: meanwhile everybody else is served.
    for _ in 0..3 {
        let job = serving.job().sign();
        tokio::select! {
            biased;
            answer = &mut asked => panic!("answered without keys: {answer:?}"),
            answer = serving.exchange(&job) => assert_eq!(answer.status, 200),
        }
    }
    weather.serve(Document::Discovery, Reply::status(503));
    weather.serve(Document::Jwks, Reply::status(503));
    weather.release();
    let answer = asked.as_mut().await;
    drop(asked);
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "5"));
    assert_eq!(answer.error().2, "the keys of the token's issuer are not available");
    assert_eq!(serving.exchange(&serving.job().sign()).await.status, 200);
    assert!(serving.check("issuer:weather").starts_with("not ok: "));
    assert_eq!(serving.operations("/readyz").await.status, 200, "one dead issuer is a detail");
    serving.drain().await;
}

#[tokio::test]
async fn d14_an_issuer_that_went_down_is_served_from_what_is_known() {
    let weather = ServedIssuer::start().await;
    let serving = with_discovered(&weather).await;
    let station =
        || weather.issuer.token().subject("station-7").issued_at(Serving::now(), 300).sign();
    let ask = async |token: String| serving.post_token(&form(&token, "audience=jwt/orders")).await;
    assert_eq!(ask(station()).await.status, 200);
    weather.serve(Document::Discovery, Reply::status(503));
    weather.serve(Document::Jwks, Reply::status(503));
    assert_eq!(ask(station()).await.status, 200);
    serving.drain().await;
}

/// One INSERT fails, as on a full disk: the exchange gets nothing, readiness says so, the process is told to end.
#[tokio::test]
async fn a05_a_store_that_fails_in_the_middle_ends_the_process_and_issues_nothing() {
    let serving = serve(Site::new()).await;
    assert_eq!(serving.exchange(&serving.job().sign()).await.status, 200);
    let elsewhere = rusqlite::Connection::open(serving.site.store()).unwrap();
    let fails =
        "CREATE TRIGGER full BEFORE INSERT ON facts BEGIN SELECT RAISE(ABORT, 'disk is full'); END";
    elsewhere.execute_batch(fails).unwrap();
    let before = serving.lines().len();
    let token = serving.job().sign();
    let answer = serving.exchange(&token).await;
    let words = "the exchange could not be recorded".to_owned();
    assert_eq!(answer.error(), (503, "temporarily_unavailable".to_owned(), words));
    assert_eq!(answer.header("retry-after"), "", "whether the token is spent is not known");
    let reason = serving.running.ended().await;
    assert!(reason.contains("disk is full"), "{reason}");
    // No healing in place: only a restart knows what is durable (threat K10).
    elsewhere.execute_batch("DROP TRIGGER full").unwrap();
    drop(elsewhere);
    assert_eq!(serving.exchange(&serving.job().sign()).await.status, 503);
    assert_eq!(serving.operations("/readyz").await.status, 503);
    assert!(serving.check("ledger").starts_with("not ok: "));
    assert_eq!(serving.lines().len(), before);
    let site = serving.drain().await;
    let serving =
        crate::support::serving::serve_existing(site, cambio::app::Existing::Required).await;
    assert_eq!(serving.exchange(&token).await.status, 200, "it was never spent");
    serving.drain().await;
}

/// Drain: what was asked for is answered, what was noted is written, the last checkpoint covers all of it.
#[tokio::test]
async fn drain_writes_what_waits_and_signs_the_end() {
    let serving = serve(Site::new()).await;
    for _ in 0..3 {
        assert_eq!(serving.exchange(&serving.job().sign()).await.status, 200);
    }
    assert_eq!(serving.exchange("a.b.c").await.status, 400);
    assert_eq!(
        serving.public("/.well-known/openid-configuration").await.json()["issuer"],
        "https://cambio.example"
    );
    assert!(serving.operations("/metrics").await.body.contains("cambio_"));
    assert_eq!(serving.operations("/readyz").await.status, 200);
    let site = serving.drain().await;
    let reader = cambio::store::Store::read(&site.store()).unwrap();
    let checkpoint = reader.newest_checkpoint().unwrap().unwrap();
    assert_eq!(checkpoint.size, reader.size().unwrap());
    let lines = crate::support::broker::lines(&*reader);
    let rolled = lines.iter().find(|line| line.kind.as_str() == "rolled_up").unwrap();
    assert!(rolled.event.to_string().contains("malformed_token"), "{}", rolled.event);
    let anchored = std::fs::read_to_string(site.path("anchor.note")).unwrap();
    assert!(anchored.contains(&checkpoint.note), "the anchor holds the end");
}
