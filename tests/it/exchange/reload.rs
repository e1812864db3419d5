//! Reloading a composed broker: all of it or nothing, and never in silence.

use std::{fs, os::unix::fs::PermissionsExt as _};

use cambio::{
    app::{Existing, StartError},
    ledger::entry::Kind,
};
use serde_json::json;

use crate::support::{
    broker::{issued, parts},
    issuer::SigningKey,
    serving::{Serving, serve, serve_existing, try_serve},
    site::{ORDERS_YAML, Site},
};

/// How many policy sets the ledger knows, and how many rules the newest has.
fn adopted(serving: &Serving) -> (usize, u64) {
    let lines = serving.lines();
    let policies: Vec<_> = lines.iter().filter(|line| line.kind == Kind::Policy).collect();
    (policies.len(), policies.last().unwrap().event["rules"].as_u64().unwrap())
}

const ONE_RULE: &str = r#"
version: 1
rules:
  - id: check
    issuer: github
    when: { repository_id: "1296269", event_name: push }
    grants: [{ target: jwt/orders, role: read, lifetime: 1m }]
"#;

#[tokio::test]
async fn good_policies_are_in_force_and_in_the_ledger_at_once() {
    let serving = serve(Site::new()).await;
    assert_eq!(adopted(&serving), (1, 8));
    let lifetime = async || {
        let claims = parts(&issued(&serving.exchange(&serving.job().sign()).await)).1;
        claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap()
    };
    assert_eq!(lifetime().await, 300);
    serving.site.write("policies/orders.yaml", ONE_RULE);
    let told = serving.running.reload().await.unwrap();
    assert!(told.starts_with("3 rules, policy set "), "{told}");
    assert_eq!(adopted(&serving), (2, 3));
    assert_eq!(serving.check("policies"), "ok: 3 rules");
    assert_eq!(lifetime().await, 60);
    serving.running.reload().await.unwrap();
    assert_eq!(adopted(&serving), (2, 3), "the same set again is no change");
    serving.drain().await;
}

#[tokio::test]
async fn broken_policies_change_nothing_and_readiness_tells() {
    let serving = serve(Site::new()).await;
    let works = async || assert_eq!(serving.exchange(&serving.job().sign()).await.status, 200);
    serving
        .site
        .write("policies/orders.yaml", &ORDERS_YAML.replace("repository_id", "repositry_id"));
    let said = serving.running.reload().await.unwrap_err();
    assert!(said.contains("policies/orders.yaml:7:"), "{said}");
    works().await;
    let told = serving.check("policies");
    assert!(told.starts_with("not ok: 8 rules of before; the reload failed: "), "{told}");
    let ready = serving.operations("/readyz").await;
    assert_eq!(ready.status, 200, "a detail, not a failure: {}", ready.body);
    let metrics = serving.operations("/metrics").await.body;
    assert!(metrics.contains("cambio_policy_reloads_total{outcome=\"failed\"} 1\n"), "{metrics}");
    // A case that fails is a bad file too.
    let failing = "cases: [{ permit: check, claims: { sub: x, repository_id: \"1\" } }]\n";
    serving.site.write("policies/orders.yaml", &format!("{ONE_RULE}{failing}"));
    assert!(serving.running.reload().await.is_err());
    // Vanished is not empty.
    fs::rename(serving.site.path("policies"), serving.site.path("elsewhere")).unwrap();
    assert!(serving.running.reload().await.is_err());
    works().await;
    assert_eq!(adopted(&serving), (1, 8));
    // And an empty directory denies everybody.
    fs::create_dir(serving.site.path("policies")).unwrap();
    serving.running.reload().await.unwrap();
    assert_eq!(serving.check("policies"), "ok: 0 rules");
    let answer = serving.exchange(&serving.job().sign()).await;
    assert_eq!(answer.error().2, "no trust policy permits this exchange");
    serving.drain().await;
}

/// Policies say who gets what: a file that others may change says what they want.
#[tokio::test]
async fn k12_policies_that_others_may_change_are_not_taken_up() {
    let mode = |site: &Site, name: &str, mode| {
        fs::set_permissions(site.path(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    let serving = serve(Site::new()).await;
    serving.site.write("policies/orders.yaml", ONE_RULE);
    for (name, loose, strict, expected) in [
        (
            "policies/orders.yaml",
            0o666,
            0o644,
            "it has mode 0666: anyone may write to it: chmod go-w it",
        ),
        ("policies/orders.yaml", 0o664, 0o644, "its group may write to it"),
        ("policies", 0o770, 0o755, "its group may write to it"),
        ("policies", 0o1777, 0o755, "anyone may write to directory"),
        ("github.json", 0o664, 0o644, "its group may write to it"),
        ("cambio.yaml", 0o664, 0o644, "its group may write to it"),
        ("data", 0o770, 0o755, "its group may write to it"),
    ] {
        mode(&serving.site, name, loose);
        let said = serving.running.reload().await.unwrap_err();
        assert!(said.contains(expected), "{name} {loose:o}: {said}");
        assert_eq!(adopted(&serving), (1, 8));
        let told = serving.check("policies");
        assert!(told.starts_with("not ok: 8 rules of before; "), "{told}");
        mode(&serving.site, name, strict);
    }
    if rustix::process::geteuid().is_root() {
        for name in ["policies/orders.yaml", "policies", "github.json", "cambio.yaml", "data"] {
            let give = |uid| std::os::unix::fs::chown(serving.site.path(name), Some(uid), None);
            give(4711).unwrap();
            let said = serving.running.reload().await.unwrap_err();
            assert!(said.contains("belongs to uid 4711, expected us or root"), "{name}: {said}");
            give(0).unwrap();
        }
    }
    serving.running.reload().await.unwrap();
    assert_eq!(adopted(&serving), (2, 3));
    // Nor at a start: the last good set is in force, and it is said.
    let site = serving.drain().await;
    mode(&site, "policies/orders.yaml", 0o666);
    let serving = serve_existing(site, Existing::Required).await;
    let told = serving.check("policies");
    assert!(told.contains("the policies on disk do not load") && told.contains("0666"), "{told}");
    serving.drain().await;
}

#[tokio::test]
async fn a_start_over_bad_files_goes_on_with_the_last_good_set_and_says_so() {
    let site = serve(Site::new()).await.drain().await;
    site.write("policies/orders.yaml", "version: 1\nrules: [{ id: x }]\n");
    let serving = serve_existing(site, Existing::Required).await;
    assert_eq!(serving.exchange(&serving.job().sign()).await.status, 200);
    let told = serving.check("policies");
    assert!(
        told.starts_with("not ok: 8 rules of before; the policies on disk do not load: "),
        "{told}"
    );
    assert_eq!(adopted(&serving).0, 1);
    serving.drain().await;
    // Without a last good set there is nothing to go on with.
    let site = Site::new();
    site.write("policies/orders.yaml", "version: 1\nrules: [{ id: x }]\n");
    let refused = try_serve(&site, Existing::Created).await;
    assert!(matches!(refused, Err(StartError::Scene(_))), "{refused:?}");
}

#[tokio::test]
async fn what_is_fixed_until_a_restart_is_not_passed_over_in_silence() {
    let serving = serve(Site::new()).await;
    let site = &serving.site;
    let good = fs::read_to_string(site.path("cambio.yaml")).unwrap();
    fs::create_dir(site.path("other")).unwrap();
    fs::set_permissions(site.path("other"), fs::Permissions::from_mode(0o700)).unwrap();
    site.write("kek2", &fs::read_to_string(site.path("kek")).unwrap());
    for (from, to, name) in [
        ("issuer: https://cambio.example\n", "issuer: https://other.example\n", "issuer"),
        ("data: data", "data: other", "data, store, listen"),
        ("origin: cambio.example/test", "origin: cambio.example/other", "ledger"),
        ("[{ file: anchor.note }]", "none", "ledger"),
        ("key_file: kek", "key_file: kek2", "keys.protector"),
        ("operations: 127.0.0.1:0", "operations: 127.0.0.2:0", "listen"),
        ("in_flight: 4096", "in_flight: 1", "limits"),
        ("sign_for: 2h", "sign_for: 3h", "what the rotation of our keys is derived from"),
    ] {
        site.edit("cambio.yaml", from, to);
        let said = serving.running.reload().await;
        assert_eq!(said, Err(format!("changed and fixed until a restart: {name}")), "{to}");
        site.write("cambio.yaml", &good);
    }
    serving.running.reload().await.unwrap();
    serving.drain().await;
}

/// What may change: issuers, targets, policies.
#[tokio::test]
async fn new_issuer_keys_and_targets_come_with_a_reload() {
    let mut serving = serve(Site::new()).await;
    serving.site.github.rotate();
    let token = serving.job().sign();
    assert_eq!(serving.exchange(&token).await.status, 400, "an unknown key");
    serving.site.write("github.json", &serving.site.github.jwks().to_string());
    serving.site.edit(
        "cambio.yaml",
        "audience: https://billing.example",
        "audience: https://bills.example",
    );
    serving.running.reload().await.unwrap();
    assert_eq!(serving.exchange(&token).await.status, 200);
    serving.drain().await;
}

#[tokio::test]
async fn the_keys_of_a_sandbox_open_nothing_outside_cambio_dev() {
    let sandbox = SigningKey::generate(cambio::subject::Algorithm::ES256, "sandbox-key-1");
    let set = json!({ "keys": [sandbox.public_jwk()] }).to_string();
    let serving = serve(Site::new()).await;
    serving.site.write("gitlab.json", &set);
    let said = serving.running.reload().await.unwrap_err();
    assert!(
        said.contains("holds a key of the sandbox issuer, expected keys of a real one"),
        "{said}"
    );
    let site = serving.drain().await;
    let refused = try_serve(&site, Existing::Required).await;
    assert!(matches!(refused, Err(StartError::Scene(_))), "{refused:?}");
}

/// Guardrails in a directory of their own stand over every permit, and their authors can't grant.
#[tokio::test]
async fn guardrails_in_their_own_directory_guard() {
    let site = Site::new();
    fs::create_dir(site.path("guardrails")).unwrap();
    let reviewed = "version: 1\nguardrails:\n  - id: main-only\n    for: { target: jwt/orders, provider: github }\n    when: { ref: refs/heads/main }\n";
    site.write("guardrails/reviewed.yaml", reviewed);
    site.edit(
        "cambio.yaml",
        "directory: policies,",
        "directory: policies, guardrails: guardrails,",
    );
    let serving = serve(site).await;
    assert_eq!(serving.exchange(&serving.job().sign()).await.status, 200);
    let branch = || serving.job().claim("ref", "refs/heads/other").sign();
    let answer = serving.exchange(&branch()).await;
    assert_eq!(answer.error().2, "no trust policy permits this exchange");
    // Guardrails that vanished are a failed reload, not freedom.
    fs::rename(serving.site.path("guardrails"), serving.site.path("elsewhere")).unwrap();
    assert!(serving.running.reload().await.is_err());
    assert_eq!(serving.exchange(&branch()).await.status, 400);
    fs::rename(serving.site.path("elsewhere"), serving.site.path("guardrails")).unwrap();
    // A file of the name that may grant the target, in the wrong directory.
    serving.site.write("guardrails/orders.yaml", ONE_RULE);
    let said = serving.running.reload().await.unwrap_err();
    assert!(said.contains("guardrails/orders.yaml"), "{said}");
    let site = serving.drain().await;
    // The last good set has its guardrails too.
    let serving = serve_existing(site, Existing::Required).await;
    let answer = serving.exchange(&serving.job().claim("ref", "refs/heads/other").sign()).await;
    assert_eq!(answer.status, 400);
    serving.drain().await;
}
