//! GitHub: narrow tokens, and their end.

use std::time::Duration;

use cambio::{
    app::sealed,
    lease::{Gone, RevokeError},
    ledger::reader::{Leases, StoredLease},
    mint::examine::Verdict,
    secret::Secret,
};
use serde_json::json;

use super::{
    bench::{Bench, site, token},
    stand_in::Mood,
};

fn lease(bench: &Bench) -> StoredLease {
    let mut leases = bench.broker.reader.leases(Leases::Live, 10).unwrap();
    assert_eq!(leases.len(), 1, "{leases:?}");
    leases.remove(0)
}

#[tokio::test]
async fn a_job_gets_a_token_for_the_repositories_and_permissions_of_its_role_and_no_others() {
    let bench = Bench::start().await;
    let answer = bench.ask("audience=github/acme&scope=release").await;
    let issued = token(&answer);
    assert!(issued.starts_with("ghs_4711_ey"), "the long form is handed on as it came");
    let known = bench.clouds.knows(&issued).unwrap();
    assert_eq!(known["permissions"], json!({ "contents": "write", "metadata": "read" }));
    assert_eq!(
        bench.clouds.seen("/access_tokens"),
        [json!({ "permissions": { "contents": "write" }, "repository_ids": [1_296_269] })]
    );
    assert_eq!(answer.json()["expires_in"], 900, "its lease's end, which is ours to keep");
    assert!(answer.json()["lease"]["token"].as_str().unwrap().starts_with("cambio_lt_"));
    assert_eq!(bench.conclusions().await, ["minted"]);
    let hour = bench.ask("audience=github/hour").await;
    assert_eq!(hour.json()["expires_in"], 3_600, "GitHub's own end: {}", hour.body);
}

/// Threats K01, K02: what lies on the disk opens with the KEK, for the target that it was sealed for, and for nothing else.
#[tokio::test]
async fn k01_an_app_key_that_is_sealed_serves_its_target_and_no_other() {
    let (site, app) = site();
    let pem = Secret::from(std::fs::read_to_string(site.path("app.pem")).unwrap());
    let file = |target: &str, name: &str| {
        let app = "kind: github\n    app: Iv23liCambioTest";
        format!("name: {target}\n    {app}\n    private_key_file: {name}\n")
    };
    let made = sealed::seal(&site.config(), "github/acme", &pem).await.unwrap();
    assert!(!made.contains("PRIVATE") && made.split('.').count() == 5);
    site.write("acme.jwe", &format!("{made}\n"));
    site.edit("cambio.yaml", &file("github/acme", "app.pem"), &file("github/acme", "acme.jwe"));
    let bench = Bench::over(site, app).await;
    let answer = bench.ask("audience=github/acme&scope=release").await;
    assert!(token(&answer).starts_with("ghs_"), "{}", answer.body);
    let again = sealed::seal(&bench.broker.site.config(), "github/acme", &Secret::from(made)).await;
    assert_eq!(again, Err("it is sealed already".to_owned()));
    let nobody = sealed::seal(&bench.broker.site.config(), "github/acmee", &pem).await.unwrap_err();
    assert!(nobody.starts_with("found no target `github/acmee`, expected one of "), "{nobody}");
    let site = &bench.broker.site;
    site.edit("cambio.yaml", &file("github/hour", "app.pem"), &file("github/hour", "acme.jwe"));
    let refused = bench.broker.makers().await.unwrap_err().to_string();
    assert!(
        refused
            .contains("does not open: `cambio_ring` is \"cambio.example/test/target/github/acme\""),
        "{refused}"
    );
}

/// The stand-in refuses what is over, from the future, or good for more than ten minutes, as GitHub does.
#[tokio::test]
async fn what_we_say_of_our_app_is_said_again_for_two_minutes_and_then_anew() {
    let bench = Bench::start().await;
    let clock = &bench.broker.clock;
    let mut shown = Vec::new();
    for pass in [0, 119, 1, 119, 1] {
        clock.pass(Duration::from_secs(pass));
        token(&bench.ask("audience=github/acme&scope=release").await);
        let jwts = std::mem::take(&mut *bench.clouds.desk.shown.lock().unwrap());
        shown.push(jwts.into_iter().last().unwrap());
    }
    assert_eq!((&shown[0], &shown[2]), (&shown[1], &shown[3]));
    assert!(shown[1] != shown[2] && shown[3] != shown[4]);
    // Whose clock is set back says it anew, and does not say for hours what came from the future.
    clock.set(bench.broker.now().minus(Duration::from_secs(30)));
    token(&bench.ask("audience=github/acme&scope=release").await);
    assert_ne!(bench.clouds.desk.shown.lock().unwrap().pop(), shown.pop());
}

#[tokio::test]
async fn b06_a_token_can_be_ended_over_a_reload_and_twice() {
    let bench = Bench::start().await;
    let issued = token(&bench.ask("audience=github/acme&scope=release").await);
    let lease = lease(&bench);
    assert!(!lease.object.contains(&issued), "the store holds a name, never the token");
    let revoker = bench.broker.revoker("github/acme").await;
    assert_eq!(revoker.revoke(&lease.object).await, Ok(Gone::Ended));
    assert_eq!(bench.clouds.knows(&issued), None);
    let asked = bench.clouds.asked();
    assert_eq!(revoker.revoke(&lease.object).await, Ok(Gone::Absent));
    assert_eq!(bench.clouds.asked(), asked, "GitHub has said it once");
}

#[tokio::test]
async fn b06_after_a_restart_nobody_can_end_a_token_and_nobody_says_so_until_its_hour_is_over() {
    let Bench { broker, clouds } = Bench::start().await;
    let bench = Bench { broker, clouds };
    let issued = token(&bench.ask("audience=github/acme&scope=release").await);
    let object = lease(&bench).object;
    let Bench { broker, clouds } = bench;
    let broker = broker.restart().await;
    let revoker = broker.revoker("github/acme").await;
    let Err(RevokeError::Failed(reason)) = revoker.revoke(&object).await else { panic!("ended?") };
    assert!(reason.contains("it is dead by 2027-01-15T09:00:31Z"), "{reason}");
    assert!(clouds.knows(&issued).is_some(), "it is still good, and we say so");
    broker.pass(3_631);
    assert_eq!(revoker.revoke(&object).await, Ok(Gone::Ended));
}

#[tokio::test]
async fn b03_a_lease_of_another_target_or_a_made_up_one_is_never_ended_here() {
    let bench = Bench::start().await;
    bench.ask("audience=github/acme&scope=release").await;
    let object = lease(&bench).object;
    let other = bench.broker.revoker("github/hour").await;
    for wrong in [object.as_str(), "", "cambio_x@1", "@9", "cambio_aaaaaa_000000000000000000@x"] {
        assert!(matches!(other.revoke(wrong).await, Err(RevokeError::Failed(_))), "{wrong}");
    }
    assert_eq!(other.objects().await, Ok(Vec::new()), "GitHub lists no tokens");
}

#[tokio::test]
async fn a_token_with_more_power_than_was_asked_for_is_ended_at_once_and_not_handed_on() {
    let bench = Bench::start().await;
    bench.clouds.is(Mood::Broader);
    let answer = bench.ask("audience=github/acme&scope=release").await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "5"));
    assert!(bench.clouds.desk.tokens.lock().unwrap().is_empty(), "it is ended");
    assert_eq!(bench.conclusions().await, ["void"]);
}

#[tokio::test]
async fn never_outlive_a_token_that_lives_for_a_day_is_withheld_unless_we_end_it() {
    let bench = Bench::start().await;
    bench.clouds.is(Mood::Generous);
    assert_eq!(bench.ask("audience=github/hour").await.status, 503);
    assert_eq!(bench.conclusions().await, ["unknown"]);
    // It exists, and its lease ends it.
    let object = lease(&bench).object;
    assert_eq!(bench.broker.revoker("github/hour").await.revoke(&object).await, Ok(Gone::Ended));
    assert!(bench.clouds.desk.tokens.lock().unwrap().is_empty());
}

#[tokio::test]
async fn permissions_that_the_installation_lacks_are_a_refusal_and_doctor_names_them() {
    let bench = Bench::start().await;
    let answer = bench.ask("audience=github/acme&scope=admin").await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "5"));
    assert_eq!(bench.conclusions().await, ["void"]);
    let found = bench.broker.examine("github/acme").await;
    let told = |verdict: Verdict| {
        let found = found.iter().filter(|finding| finding.verdict == verdict);
        found.map(|finding| finding.detail.as_str()).collect::<Vec<_>>().join("\n")
    };
    assert!(told(Verdict::Bad).contains("role `admin` wants `administration: admin`"), "{found:?}");
    assert_eq!(told(Verdict::Unwise), "the installation has `issues`, which no role needs");
    assert!(bench.clouds.desk.tokens.lock().unwrap().is_empty(), "doctor makes nothing");
}
