//! The registered claims.

use std::time::Duration;

use cambio::{clock::Instant, subject::MAXIMUM_LEEWAY};
use serde_json::{Value, json};

use super::Bench;
use crate::support::{
    issuer::FakeIssuer,
    token::{AUDIENCE, NOW},
};

#[tokio::test]
async fn j22_exp_is_a_finite_number_of_seconds() {
    let bench = Bench::new();
    let range = "expected seconds from 0 to 253402300799";
    let refused = [
        (Value::Null, "found null, expected seconds since 1970".to_owned()),
        (json!("1800000300"), "found a string, expected seconds since 1970".to_owned()),
        (json!(true), "found a boolean, expected seconds since 1970".to_owned()),
        (json!([NOW + 300]), "found a list, expected seconds since 1970".to_owned()),
        (json!({}), "found an object, expected seconds since 1970".to_owned()),
        (json!(-1), format!("found `-1`, {range}")),
        (json!(1e300), format!("found `1e+300`, {range}")),
        (json!(u64::MAX), format!("found `18446744073709551615`, {range}")),
        (json!(i64::MAX), format!("found `9223372036854775807`, {range}")),
        (json!(253_402_300_800_u64), format!("found `253402300800`, {range}")),
        (json!(-0.5), format!("found `-0.5`, {range}")),
        (
            json!(0),
            "the token ended at 1970-01-01T00:00:00Z, now is 2027-01-15T08:00:00Z".to_owned(),
        ),
    ];
    for (exp, reason) in refused {
        assert_eq!(
            bench.verdict(bench.token().claim("exp", exp)).await,
            format!("claim `exp` refused: {reason}")
        );
    }
    assert_eq!(
        bench.verdict(bench.token().without("exp")).await,
        "claim `exp` refused: found none, expected seconds since 1970"
    );
    let written = Value::Object(bench.token().claim_set().clone()).to_string();
    for (number, reason) in [
        ("18446744073709551616", format!("found `1.8446744073709552e+19`, {range}")),
        ("1e308", format!("found `1e+308`, {range}")),
    ] {
        let claims =
            written.replace(&format!("\"exp\":{}", NOW + 300), &format!("\"exp\":{number}"));
        let verdict = bench.verdict(bench.token().raw_claims(claims)).await;
        assert_eq!(verdict, format!("claim `exp` refused: {reason}"));
    }
    for number in ["1e999", "NaN", "Infinity", "0x6b49d3ac", "01800000300"] {
        let claims =
            written.replace(&format!("\"exp\":{}", NOW + 300), &format!("\"exp\":{number}"));
        let verdict = bench.verdict(bench.token().raw_claims(claims)).await;
        assert!(verdict.starts_with("malformed token: the claims: not JSON: "), "{verdict}");
    }
}

#[tokio::test]
async fn j22_a_fraction_of_a_second_is_tolerated() {
    let bench = Bench::new();
    let token = bench.token().claim("iat", 1_800_000_000.25).claim("exp", 1_800_000_299.999_9);
    let subject = bench.verify(&token.sign()).await.unwrap();
    assert_eq!(subject.issued_at(), Instant::from_milliseconds(1_800_000_000_250));
    assert_eq!(subject.expires_at(), Instant::from_milliseconds(1_800_000_299_999));
}

#[tokio::test]
async fn j22_a_token_lives_no_longer_than_its_issuer_may_make_it() {
    let bench = Bench::new();
    assert_eq!(bench.verdict(bench.token().issued_at(NOW, 3600)).await, "accepted");
    assert_eq!(
        bench.verdict(bench.token().issued_at(NOW, 3601)).await,
        "claim `exp` refused: found a lifetime of 3601 s, expected at most 3600 s"
    );
    assert_eq!(
        bench.verdict(bench.token().issued_at(NOW, 315_360_000)).await,
        "claim `exp` refused: found a lifetime of 315360000 s, expected at most 3600 s"
    );
    assert_eq!(
        bench.verdict(bench.token().claim("exp", 1_800_003_600.001)).await,
        "claim `exp` refused: found a lifetime of 3600.001 s, expected at most 3600 s"
    );
}

#[tokio::test]
async fn j23_times_that_do_not_fit_now_are_refused() {
    let bench = Bench::new();
    let future = [
        (
            "iat",
            "claim `iat` refused: the token begins at 2027-01-15T08:01:01Z, now is 2027-01-15T08:00:00Z",
        ),
        (
            "nbf",
            "claim `nbf` refused: the token is good from 2027-01-15T08:01:01Z, now is 2027-01-15T08:00:00Z",
        ),
    ];
    for (claim, refused) in future {
        assert_eq!(bench.verdict(bench.token().claim(claim, NOW + 60)).await, "accepted");
        assert_eq!(bench.verdict(bench.token().claim(claim, NOW + 61)).await, refused);
    }
    assert_eq!(
        bench.verdict(bench.token().claim("exp", NOW).claim("iat", NOW + 1)).await,
        "claim `exp` refused: the token ends at 2027-01-15T08:00:00Z, not after its `iat` 2027-01-15T08:00:01Z"
    );
    assert_eq!(
        bench.verdict(bench.token().claim("exp", NOW)).await,
        "claim `exp` refused: the token ends at 2027-01-15T08:00:00Z, not after its `iat` 2027-01-15T08:00:00Z"
    );
    assert_eq!(
        bench.verdict(bench.token().without("iat")).await,
        "claim `iat` refused: found none, expected seconds since 1970"
    );
    for claim in ["iat", "nbf"] {
        for (value, found) in [(Value::Null, "null"), (json!("1800000000"), "a string")] {
            assert_eq!(
                bench.verdict(bench.token().claim(claim, value)).await,
                format!("claim `{claim}` refused: found {found}, expected seconds since 1970")
            );
        }
    }
    // GitHub sends an `nbf` ten minutes before `iat`; others send none.
    assert_eq!(bench.verdict(bench.token().claim("nbf", NOW - 600)).await, "accepted");
    assert_eq!(bench.verdict(bench.token().without("nbf")).await, "accepted");
}

#[tokio::test]
async fn j23_exp_is_over_when_the_leeway_is() {
    let bench = Bench::new();
    let token = bench.token().sign();
    bench.clock.set(Instant::from_milliseconds((NOW + 360) * 1000 - 1));
    assert_eq!(bench.verdict_on(&token).await, "accepted");
    bench.clock.pass(Duration::from_millis(1));
    assert_eq!(
        bench.verdict_on(&token).await,
        "claim `exp` refused: the token ended at 2027-01-15T08:05:00Z, now is 2027-01-15T08:06:00Z"
    );
}

#[tokio::test]
async fn j23_replay_window_no_issuer_has_more_leeway_than_spends_are_kept_for() {
    let bench = Bench::with(|issuer| issuer.leeway = Duration::from_hours(24));
    let token = bench.token().sign();
    bench.clock.set(Instant::from_seconds(NOW + 300).plus(MAXIMUM_LEEWAY));
    assert_eq!(
        bench.verdict_on(&token).await,
        "claim `exp` refused: the token ended at 2027-01-15T08:05:00Z, now is 2027-01-15T08:06:00Z"
    );
}

#[tokio::test]
async fn a_token_older_than_the_maximum_age_is_refused() {
    let bench = Bench::with(|issuer| issuer.maximum_age = Some(Duration::from_mins(2)));
    let token = bench.token().issued_at(NOW, 3600).sign();
    bench.clock.pass(Duration::from_mins(2));
    assert_eq!(bench.verdict_on(&token).await, "accepted");
    bench.clock.pass(Duration::from_secs(1));
    assert_eq!(
        bench.verdict_on(&token).await,
        "claim `iat` refused: the token is 121 s old, expected at most 120 s"
    );
}

#[tokio::test]
async fn j24_the_audience_is_ours_alone_byte_for_byte() {
    let bench = Bench::new();
    let refused = [
        (Value::Null, "null"),
        (json!(1), "a number"),
        (json!({"a": AUDIENCE}), "an object"),
        (json!(""), "``"),
        (json!([]), "a list of 0"),
        (json!([AUDIENCE, AUDIENCE]), "a list of 2"),
        (json!([AUDIENCE, "https://other.example"]), "a list of 2"),
        (json!([[AUDIENCE]]), "a list of a list"),
        (json!("https://cambio.exampl"), "`https://cambio.exampl`"),
        (json!("https://cambio.example/"), "`https://cambio.example/`"),
        (json!("https://cambio.example.evil"), "`https://cambio.example.evil`"),
        (json!("https://Cambio.example"), "`https://Cambio.example`"),
        (json!(" https://cambio.example"), "` https://cambio.example`"),
        (json!("https://cambio.example\0"), "`https://cambio.example\\0`"),
        (
            json!("https://cambio.example https://other.example"),
            "`https://cambio.example https://other.example`",
        ),
    ];
    for (audience, found) in refused {
        assert_eq!(
            bench.verdict(bench.token().claim("aud", audience)).await,
            format!("claim `aud` refused: found {found}, expected `{AUDIENCE}` alone")
        );
    }
    assert_eq!(
        bench.verdict(bench.token().without("aud")).await,
        format!("claim `aud` refused: found none, expected `{AUDIENCE}` alone")
    );
    assert_eq!(bench.verdict(bench.token().claim("aud", json!([AUDIENCE]))).await, "accepted");
}

#[tokio::test]
async fn j24_an_issuer_without_an_audience_accepts_nothing() {
    let bench = Bench::with(|issuer| issuer.audience = String::new());
    for audience in [json!(""), json!([""])] {
        assert_eq!(
            bench.verdict(bench.token().claim("aud", audience)).await,
            "claim `aud` refused: found ``, expected `` alone"
        );
    }
}

#[tokio::test]
async fn x01_a_token_for_another_service_is_refused() {
    let bench = Bench::new();
    for audience in
        ["sts.amazonaws.com", "sigstore", "https://github.com/acme", "api://AzureADTokenExchange"]
    {
        assert_eq!(
            bench.verdict(bench.token().audience(audience)).await,
            format!("claim `aud` refused: found `{audience}`, expected `{AUDIENCE}` alone")
        );
    }
}

#[tokio::test]
async fn j25_the_issuer_is_configured_byte_for_byte() {
    let bench = Bench::new();
    for issuer in [
        "https://issuer.example/",
        "https://Issuer.example",
        "HTTPS://issuer.example",
        "https://issuer.example:443",
        "https://issuer.example#",
        "https://issuer.example?",
        "https://user@issuer.example",
        "https://issuer.example@evil.example",
        "https://issuer.example.evil.example",
        "http://issuer.example",
        "issuer.example",
        "https://issuer.exampl\u{435}",
        " https://issuer.example",
        "",
    ] {
        assert_eq!(
            bench.verdict(bench.token().claim("iss", issuer)).await,
            format!("issuer `{}` is not configured", issuer.escape_debug())
        );
    }
    for (issuer, found) in [
        (json!(["https://issuer.example", "https://evil.example"]), "a list"),
        (json!(["https://issuer.example"]), "a list"),
        (json!({"url": "https://issuer.example"}), "an object"),
        (json!(1), "a number"),
        (Value::Null, "null"),
    ] {
        assert_eq!(
            bench.verdict(bench.token().claim("iss", issuer)).await,
            format!("malformed token: claim `iss`: found {found}, expected a string")
        );
    }
    assert_eq!(
        bench.verdict(bench.token().without("iss")).await,
        "malformed token: claim `iss`: found none, expected a string"
    );
    let long = format!("https://issuer.example/{}", "a".repeat(5_000));
    assert_eq!(
        bench.verdict(bench.token().claim("iss", long)).await,
        format!("issuer `https://issuer.example/{}…` is not configured", "a".repeat(41))
    );
}

#[tokio::test]
async fn j26_a_subject_is_a_text_that_can_be_seen() {
    let bench = Bench::new();
    for (subject, reason) in [
        (Value::Null, "found null, expected a string"),
        (json!(42), "found a number, expected a string"),
        (json!(["repo:acme/site"]), "found a list, expected a string"),
        (json!(""), "found an empty string"),
        (json!("repo:acme/site\0"), "found character U+0000"),
        (json!("repo:acme/site\nrepo:evil/site"), "found character U+000A"),
        (json!("\u{1b}[31mrepo:acme/site"), "found character U+001B"),
        (json!("repo:acme/site\u{7f}"), "found character U+007F"),
        (json!("repo:acme/site\u{85}"), "found character U+0085"),
        (json!("repo:acme/\u{202e}etis"), "found character U+202E"),
        (json!("repo:acme/si\u{2066}te"), "found character U+2066"),
        (json!("repo:acme/si\u{200b}te"), "found character U+200B"),
        (json!("repo:acme/si\u{ad}te"), "found character U+00AD"),
        (json!("repo:acme/site\u{2028}"), "found character U+2028"),
        (json!("\u{feff}repo:acme/site"), "found character U+FEFF"),
        (json!("repo:acme/site\u{e0041}"), "found character U+E0041"),
        (json!("x".repeat(1025)), "found 1025 bytes, expected at most 1024"),
    ] {
        assert_eq!(
            bench.verdict(bench.token().claim("sub", subject)).await,
            format!("claim `sub` refused: {reason}")
        );
    }
    assert_eq!(
        bench.verdict(bench.token().without("sub")).await,
        "claim `sub` refused: found none, expected a string"
    );
    assert_eq!(bench.verdict(bench.token().subject(&"x".repeat(1024))).await, "accepted");
}

#[tokio::test]
async fn j26_two_spellings_of_a_subject_stay_two_subjects() {
    let bench = Bench::new();
    let name = async |subject: &str| {
        let subject = bench.verify(&bench.token().subject(subject).sign()).await.unwrap();
        subject.profile().token_subject().to_owned()
    };
    for subject in
        ["repo:caf\u{e9}", "repo:cafe\u{301}", "repo:Cafe", "repo:c\u{430}fe", " repo ", "repo:%61"]
    {
        assert_eq!(name(subject).await, subject);
    }
}

#[tokio::test]
async fn j26_no_claim_holds_a_control_character() {
    let bench = Bench::new();
    for (value, found) in [
        (json!("deploy\u{1b}[2J"), "U+001B"),
        (json!(["a", "b\n"]), "U+000A"),
        (json!({"a": {"b": ["c\0"]}}), "U+0000"),
        (json!({"a\r": 1}), "U+000D"),
    ] {
        assert_eq!(
            bench.verdict(bench.token().claim("workflow", value)).await,
            format!("claim `workflow` refused: found character {found}")
        );
    }
    assert_eq!(
        bench.verdict(bench.token().claim("work\nflow", "a")).await,
        "claim `work\\nflow` refused: found character U+000A"
    );
    // A workflow's name is free text: a joined emoji is what it is.
    let emoji = bench.token().claim("workflow", "\u{1f469}\u{200d}\u{1f4bb} deploy");
    assert_eq!(bench.verdict(emoji).await, "accepted");
}

#[tokio::test]
async fn x04_a_token_id_may_be_absent_and_is_a_visible_text_otherwise() {
    let bench = Bench::new();
    assert_eq!(bench.verdict(bench.token().without("jti")).await, "accepted");
    for (id, reason) in [
        (json!(1), "found a number, expected a string"),
        (Value::Null, "found null, expected a string"),
        (json!("a\u{200b}"), "found character U+200B"),
    ] {
        assert_eq!(
            bench.verdict(bench.token().claim("jti", id)).await,
            format!("claim `jti` refused: {reason}")
        );
    }
}

#[tokio::test]
async fn j28_without_the_key_no_claim_gets_a_verdict_of_its_own() {
    let bench = Bench::new();
    let stranger = FakeIssuer::at("https://issuer.example");
    let tokens = [
        stranger.token(),
        stranger.token().claim("exp", NOW - 3600),
        stranger.token().without("exp"),
        stranger.token().audience("https://other.example"),
        stranger.token().subject(""),
        stranger.token().claim("iat", "x"),
        stranger.token().header("typ", "at+jwt"),
        stranger.token().claim("workflow", "\0"),
    ];
    for token in tokens {
        assert_eq!(
            bench.verdict(token).await,
            "signature does not verify with key `key-1` of issuer `ci`"
        );
    }
}
