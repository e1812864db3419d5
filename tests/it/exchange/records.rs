//! Every exchange is found again: as an entry of its own, or in the roll-up (threats A09, A11); and no secret with it (A08).

use cambio::{
    id::ExchangeId,
    ledger::{Event, show},
    telemetry::{Format, subscriber},
};
use serde_json::json;

use crate::{
    edge::surface::Answered,
    support::{
        broker::{Broker, bytes_below, form, issued},
        lines::{Lines, listen},
        site::Site,
        token::NOW,
    },
};

fn id_of(answer: &Answered) -> ExchangeId {
    let id = answer.json()["exchange_id"].as_str().unwrap().to_owned();
    assert_eq!(answer.header("cambio-exchange-id"), id);
    id.parse().unwrap()
}

#[tokio::test]
async fn a09_refusals_of_known_tenants_are_entries_with_the_facts_to_explain_them() {
    let broker = Broker::start().await;
    let job = || broker.site.job();
    let spent = job().sign();
    broker.exchange(&spent).await;
    let (known, elsewhere) = ("audience=jwt/orders&scope=read", "audience=jwt/billing");
    let actor = "&actor_token=a.b.c&actor_token_type=urn:ietf:params:oauth:token-type:jwt";
    for (token, wants, reason, detail) in [
        (spent, known.to_owned(), "already_spent", None),
        (
            job().claim("ref", "refs/heads/other").sign(),
            "audience=jwt/orders&scope=write".to_owned(),
            "scope",
            Some("denied: scope `write` is not granted"),
        ),
        (
            job().claim("event_name", "schedule").sign(),
            known.to_owned(),
            "conditions",
            Some("denied: no rule's conditions hold; nearest is `orders/"),
        ),
        (
            job().sign(),
            elsewhere.to_owned(),
            "target",
            Some("denied: target `jwt/billing` is not granted"),
        ),
        (
            job().sign(),
            "audience=jwt/orders".to_owned(),
            "ambiguous_target",
            Some("the request fits 2 "),
        ),
        (job().sign(), format!("{known}{actor}"), "malformed_token", Some("actor token: ")),
        (
            job().claim("may_act", json!({})).sign(),
            known.to_owned(),
            "actor",
            Some("actor refused: "),
        ),
        (
            job().sign(),
            format!("{known}&requested_token_type=urn:ietf:params:oauth:token-type:id_token"),
            "bad_request",
            Some(
                "bad request: `requested_token_type` is `urn:ietf:params:oauth:token-type:id_token`",
            ),
        ),
    ] {
        let answer = broker.post_token(&form(&token, &wants)).await;
        assert_eq!(answer.status.as_u16(), 400, "{reason}: {}", answer.body);
        let entry = broker.exchanges().await.pop().unwrap();
        assert_eq!(entry.text("exchange_id"), id_of(&answer).to_string(), "{reason}");
        assert_eq!((entry.kind.as_str(), entry.text("reason")), ("refused", reason));
        let facts = entry.facts.unwrap();
        assert_eq!(facts.claims["repository_id"], "1296269", "{reason}");
        let found = facts.detail.as_deref();
        match detail {
            Some(begins) => {
                assert!(found.unwrap_or_default().starts_with(begins), "{reason}: {found:?}");
            }
            None => assert_eq!(found, None, "{reason}"),
        }
        assert_eq!(broker.rollup.recent(id_of(&answer)), None, "{reason}: counted once");
    }
}

/// Anyone on a public platform can get a validly signed token for our audience: a flood of them is one entry a minute.
#[tokio::test]
async fn a11_strangers_are_counted_and_do_not_grow_the_ledger() {
    let broker = Broker::start().await;
    let before = broker.exchanges().await.len();
    let mut answers = Vec::new();
    for number in 0..50 {
        let fork = broker.site.job().claim("repository_id", format!("9{number}"));
        answers.push(broker.exchange(&fork.sign()).await);
        answers.push(broker.exchange("a.b.c").await);
        let late = broker.site.job().issued_at(NOW - 900, 300).sign();
        answers.push(broker.exchange(&late).await);
        answers.push(broker.post_token("grant_type=password").await);
    }
    assert_eq!(broker.exchanges().await.len(), before);
    for answer in &answers {
        let stranger = broker.rollup.recent(id_of(answer)).unwrap();
        assert_eq!(stranger.exchange_id, id_of(answer));
    }
    let Some(Event::RolledUp { mut counts, .. }) = broker.rollup.rest() else {
        panic!("nothing was counted")
    };
    counts.sort();
    let expected =
        [("claim", 50), ("malformed_token", 50), ("no_rule", 50), ("unsupported_grant_type", 50)];
    assert_eq!(counts, expected.map(|(reason, count)| (reason.to_owned(), count)));
}

/// Tokens that came, tokens that left and key material: nowhere but in the answers (threat A08).
#[tokio::test]
async fn a08_no_token_and_no_key_in_ledger_store_logs_and_metrics() {
    let logs = Lines::default();
    let writer = logs.clone();
    let subscriber = subscriber(Format::Json, "trace", move || writer.clone()).unwrap();
    let _logging = listen(subscriber);
    let mut broker = Broker::start_at(Site::new(), |_| {}).await;
    let (mut secrets, mut answers) = (Vec::new(), String::new());
    let job = || broker.site.job();
    let kind = "actor_token_type=urn:ietf:params:oauth:token-type:jwt";
    let come = [
        (job().sign(), String::new()),
        (job().claim("repository_id", "13").sign(), String::new()),
        (job().claim("event_name", "schedule").sign(), String::new()),
        (job().issued_at(NOW - 900, 300).sign(), String::new()),
        (job().header("alg", "none").sign(), String::new()),
        (job().header("kid", "key-9").sign(), String::new()),
        (format!("{}\u{7f}", job().sign()), String::new()),
        (job().sign().replace('.', ".CANARY."), String::new()),
        (job().sign(), format!("&{kind}&actor_token={}", broker.site.gitlab_job().sign())),
        (job().sign(), "&client_secret=CANARY-PASSWORD".to_owned()),
        (job().sign(), "&scope=CANARY%00".to_owned()),
    ];
    for (token, more) in come {
        let answer = broker.ask(&token, &format!("scope=read{more}")).await;
        if answer.status == 200 {
            secrets.push(issued(&answer));
            // A spent one comes again.
            broker.exchange(&token).await;
        } else {
            answers.push_str(&answer.body);
        }
        secrets.push(token);
        secrets.extend(more.split_once("actor_token=").map(|(_, actor)| actor.to_owned()));
    }
    broker.rotator.rotate_now(cambio::subject::Algorithm::ES256, true).await.unwrap();
    broker.checkpoint().unwrap();
    broker.lines().await;
    // A signature, and the payload in the form in which it is useful.
    let mut needles: Vec<String> = secrets
        .iter()
        .flat_map(|token| token.split('.').skip(1).filter(|part| part.len() > 40))
        .map(str::to_owned)
        .collect();
    needles.push(std::fs::read_to_string(broker.site.path("kek")).unwrap());
    needles.push("CANARY-PASSWORD".to_owned());
    assert!(needles.len() > 20, "{}", needles.len());

    let mut places = vec![
        ("answers".to_owned(), answers.into_bytes()),
        ("metrics".to_owned(), broker.metrics.text().unwrap().into_bytes()),
        ("logs".to_owned(), logs.bytes()),
    ];
    let mut export = Vec::new();
    show::export::<cambio::ledger::reader::ReadError>(&*broker.reader, 0, true, &mut |line| {
        export.extend_from_slice(line.as_bytes());
        Ok(())
    })
    .unwrap();
    places.push(("export".to_owned(), export));
    for (path, bytes) in bytes_below(&broker.site.path("data")) {
        places.push((path.display().to_string(), bytes));
    }
    places.retain(|(place, _)| !place.ends_with("db.lock"));
    for (place, bytes) in &places {
        assert!(bytes.len() > 100, "`{place}` was looked at: {} bytes", bytes.len());
    }
    for (place, bytes) in places {
        let text = String::from_utf8_lossy(&bytes);
        for needle in &needles {
            assert!(!text.contains(needle), "`{place}` holds `{needle}`");
        }
    }
}
