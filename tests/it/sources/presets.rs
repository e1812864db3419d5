//! What the claims of GitHub, GitLab and Kubernetes mean, and what contradicts itself.

use std::collections::BTreeSet;

use cambio::{
    grant::{IssuerName, Replay},
    subject::{
        Claims, Preset, Profile,
        issuers::{IssuerUrl, Issuers},
        provider::{self, CAMBIO, GENERIC, GITHUB, GITLAB, KUBERNETES},
    },
};
use serde_json::{Value, json};

use crate::support::issuer::FakeIssuer;

fn claims(value: Value) -> Claims {
    value.as_object().expect("an object").clone()
}

fn github() -> Value {
    json!({
        "iss": "https://token.actions.githubusercontent.com",
        "aud": "cambio", "exp": 1_800_000_300, "iat": 1_800_000_000, "nbf": 1_799_999_400, "jti": "1",
        "sub": "repo:octo-org/hello:ref:refs/heads/main",
        "repository": "octo-org/hello", "repository_id": "1296269",
        "repository_owner": "octo-org", "repository_owner_id": "9919",
        "repository_visibility": "private",
        "ref": "refs/heads/main", "ref_type": "branch", "ref_protected": "true", "sha": "abc",
        "head_ref": "", "base_ref": "", "event_name": "push", "actor": "mona", "actor_id": "42",
        "run_id": "7", "run_number": "3", "run_attempt": "1", "runner_environment": "github-hosted",
        "workflow": "deploy",
        "workflow_ref": "octo-org/hello/.github/workflows/deploy.yml@refs/heads/main",
        "job_workflow_ref": "octo-org/shared/.github/workflows/build.yaml@refs/tags/v1",
    })
}

fn gitlab() -> Value {
    json!({
        "iss": "https://gitlab.com", "aud": "cambio", "jti": "1",
        "sub": "project_path:my-group/my-project:ref_type:branch:ref:main",
        "namespace_id": "72", "namespace_path": "my-group", "project_id": "20",
        "project_path": "my-group/my-project", "user_id": "1", "user_login": "mona",
        "user_identities": [{"provider": "github", "extern_uid": "24"}], "groups_direct": ["g/sub"],
        "pipeline_id": "574", "pipeline_source": "push", "job_id": "302",
        "ref": "main", "ref_type": "branch", "ref_path": "refs/heads/main", "ref_protected": "true",
        "runner_id": 1, "runner_environment": "gitlab-hosted", "environment": null,
        "ci_config_ref_uri": "gitlab.com/my-group/my-project//.gitlab-ci.yml@refs/heads/main",
    })
}

fn kubernetes() -> Value {
    json!({
        "iss": "https://kubernetes.default.svc", "aud": ["cambio"], "jti": "1",
        "sub": "system:serviceaccount:payments:api",
        "kubernetes.io": {
            "namespace": "payments",
            "serviceaccount": {"name": "api", "uid": "0f4c-1"},
            "pod": {"name": "api-7d", "uid": "77aa-2"},
            "node": {"name": "n1", "uid": "99bb-3"},
        },
    })
}

fn with(mut value: Value, pointer: &str, new: Value) -> Value {
    let (parent, member) = pointer.rsplit_once('/').expect("a pointer");
    value.pointer_mut(parent).expect("a parent")[member] = new;
    value
}

fn without(mut value: Value, member: &str) -> Value {
    value.as_object_mut().expect("an object").remove(member);
    value
}

fn interpret(preset: &Preset, value: Value) -> Result<(Claims, String), String> {
    preset.interpret(claims(value)).map_err(|error| error.to_string())
}

fn refused(preset: &Preset, value: Value) -> String {
    interpret(preset, value).expect_err("refused")
}

#[test]
fn presets_are_found_by_name() {
    let names: Vec<_> = provider::ALL.iter().map(|preset| preset.name).collect();
    assert_eq!(names[..3], ["github", "gitlab", "kubernetes"]);
    assert_eq!(names[names.len() - 2..], ["cambio", "generic"]);
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    for preset in provider::ALL {
        assert_eq!(provider::find(preset.name).map(|found| found.name), Some(preset.name));
        for pin in preset.pins.iter().chain(preset.stable_ids).flat_map(|set| set.iter()) {
            assert!(preset.claim(pin).is_some(), "{}: {pin}", preset.name);
        }
        let dangerous = preset.dangerous.iter().map(|(claim, _)| claim);
        let lifted = preset.lifted.iter().map(|(_, claim)| claim);
        let others = [preset.organizations, preset.narrowing, preset.label, preset.folded].concat();
        for claim in dangerous.chain(lifted).chain(&others) {
            assert!(preset.claim(claim).is_some(), "{}: {claim}", preset.name);
        }
    }
    assert!(provider::find("GitHub").is_none());
    let replay = [&GITHUB, &GITLAB, &KUBERNETES, &CAMBIO, &GENERIC].map(|preset| preset.replay);
    assert_eq!(
        replay,
        [Replay::Once, Replay::Reusable, Replay::Reusable, Replay::Once, Replay::Reusable]
    );
}

#[test]
fn a_workload_is_named_by_its_stable_id() {
    let name = |issuer: &str, preset, value| {
        let profile = Profile::of(IssuerName::from(issuer), preset, claims(value));
        profile.expect("a profile").our_subject()
    };
    assert_eq!(name("github", &GITHUB, github()), "github:repository_id:1296269");
    assert_eq!(name("gitlab", &GITLAB, gitlab()), "gitlab:project_id:20");
    assert_eq!(
        name("prod", &KUBERNETES, kubernetes()),
        "prod:namespace:payments:service_account:api"
    );
    assert_eq!(name("other", &GENERIC, json!({"sub": "job-1"})), "other:sub:job-1");
    assert_eq!(
        refused(&GITHUB, without(github(), "repository_id")),
        "found none of the claims that name a github workload, expected `repository_id`"
    );
    assert_eq!(
        refused(&GENERIC, json!({"sub": ""})),
        "found none of the claims that name a generic workload, expected `sub`"
    );
}

#[test]
fn c03_both_shapes_of_a_github_subject_agree_with_the_ids() {
    for sub in [
        "repo:octo-org/hello:pull_request",
        "repo:octo-org/hello:environment:prod%3Aeu",
        "repo:Octo-Org/Hello:ref:refs/heads/main",
        "repo:octo-org@9919/hello@1296269:ref:refs/heads/main",
        "repo:octo-org@9919/hello@1296269:pull_request",
        "repository_owner_id:9919:repository_id:1296269:environment:prod",
        "repo:octo-org/hello:pull_request:repository_id:1296269",
        "job_workflow_ref:octo-org/shared/.github/workflows/build.yaml@refs/tags/v1",
        "environment:repository_id",
        "",
    ] {
        let value = with(github(), "/sub", json!(sub));
        assert!(
            interpret(&GITHUB, value.clone()).is_ok(),
            "{sub}: {:?}",
            interpret(&GITHUB, value)
        );
    }
    for (sub, told) in [
        (
            "repo:evil/hello:ref:refs/heads/main",
            "`sub` and `repository_owner` disagree: found `evil` and `octo-org`",
        ),
        (
            "repo:octo-org/other:ref:refs/heads/main",
            "`sub` and `repository` disagree: found `octo-org/other` and `octo-org/hello`",
        ),
        (
            "repo:octo-org@9919/hello@7:ref:refs/heads/main",
            "`sub` and `repository_id` disagree: found `7` and `1296269`",
        ),
        (
            "repo:octo-org@7/hello@1296269:ref:refs/heads/main",
            "`sub` and `repository_owner_id` disagree: found `7` and `9919`",
        ),
        (
            "repository_id:7:environment:prod",
            "`sub` and `repository_id` disagree: found `7` and `1296269`",
        ),
        // An old GHES does not escape `:` in environment names: what it lets them forge must not pass.
        (
            "repo:octo-org/hello:environment:x:repository_id:7",
            "`sub` and `repository_id` disagree: found `7` and `1296269`",
        ),
        (
            "repo:octo-org@9919/hello:pull_request",
            "found repository `octo-org@9919/hello` in `sub`, expected `owner/name` or `owner@id/name@id`",
        ),
        (
            "repo:octo-org@9919/hello@1296269@7:pull_request",
            "found repository `octo-org@9919/hello@1296269@7` in `sub`, expected `owner/name` or `owner@id/name@id`",
        ),
        (
            "repo:octo-org",
            "found repository `octo-org` in `sub`, expected `owner/name` or `owner@id/name@id`",
        ),
    ] {
        assert_eq!(refused(&GITHUB, with(github(), "/sub", json!(sub))), told, "{sub}");
    }
    let immutable = with(github(), "/sub", json!("repo:octo-org@9919/hello@1296269:pull_request"));
    assert_eq!(
        refused(&GITHUB, without(immutable, "repository_owner_id")),
        "`sub` has an id, but `repository_owner_id` is missing"
    );
}

#[test]
fn c05_a_gitlab_subject_may_be_customised_but_not_contradict() {
    for sub in ["project_id:20:environment_protected:true", "project_path:My-Group/my-project"] {
        assert!(interpret(&GITLAB, with(gitlab(), "/sub", json!(sub))).is_ok(), "{sub}");
    }
    assert_eq!(
        refused(
            &GITLAB,
            with(gitlab(), "/sub", json!("project_path:evil/my-project:ref_type:branch"))
        ),
        "`sub` and `project_path` disagree: found `evil/my-project` and `my-group/my-project`"
    );
}

#[test]
fn c07_a_workflow_splits_at_the_first_at_after_its_file() {
    let split = |reference: &str| {
        let (claims, _) = interpret(&GITHUB, with(github(), "/job_workflow_ref", json!(reference)))
            .expect("claims");
        claims.get("job_workflow").cloned().unwrap_or_default()
    };
    let of = |path: &str, reference: &str| json!({"path": path, "ref": reference});
    let file = "octo-org/shared/.github/workflows/x.yml";
    let sha = "0123456789abcdef0123456789abcdef01234567";
    assert_eq!(split(&format!("{file}@refs/tags/v1")), of(file, "refs/tags/v1"));
    assert_eq!(split(&format!("{file}@refs/heads/a@b.yml")), of(file, "refs/heads/a@b.yml"));
    assert_eq!(split(&format!("{file}@{sha}")), of(file, sha));
    // Not derived, so that no condition holds: what follows the first `@` is no ref.
    for odd in [
        "octo-org/shared/.github/workflows/nested.yml@evil.yml@refs/heads/main",
        "octo-org/shared/.github/workflows/x.yml@main",
        "octo-org/shared/.github/workflows/x.yml",
        "octo-org/shared/.github/workflows/.yml@refs/heads/main",
        "octo-org/shared/.github/workflows/x.sh@refs/heads/main",
        "octo@1/shared/.github/workflows/x.yml@refs/heads/main",
        "dynamic/dependabot/dependabot-updates",
        "",
    ] {
        assert_eq!(split(odd), Value::Null, "{odd}");
    }
    let (claims, _) = interpret(&GITHUB, github()).expect("claims");
    assert_eq!(
        claims["workflow_file"],
        of("octo-org/hello/.github/workflows/deploy.yml", "refs/heads/main")
    );
    let (claims, _) = interpret(&GITLAB, gitlab()).expect("claims");
    assert_eq!(
        claims["ci_config"],
        of("gitlab.com/my-group/my-project//.gitlab-ci.yml", "refs/heads/main")
    );
}

#[test]
fn c08_the_environment_is_its_own_claim() {
    let value = with(github(), "/environment", json!("prod:eu"));
    let value = with(value, "/sub", json!("repo:octo-org/hello:environment:prod%3Aeu"));
    let (claims, _) = interpret(&GITHUB, value).expect("claims");
    assert_eq!(claims["environment"], "prod:eu");
}

#[test]
fn c07_derived_claims_are_never_signed_ones() {
    for (preset, value, names) in [
        (&GITHUB, github(), &["job_workflow", "workflow_file"][..]),
        (&GITLAB, gitlab(), &["ci_config"]),
        (
            &KUBERNETES,
            kubernetes(),
            &[
                "namespace",
                "service_account",
                "service_account_uid",
                "pod",
                "pod_uid",
                "node",
                "node_uid",
            ],
        ),
    ] {
        for name in names {
            let signed =
                if preset.name == "kubernetes" { json!("x") } else { json!({"path": "x"}) };
            assert_eq!(
                refused(preset, with(value.clone(), &format!("/{name}"), signed)),
                format!("claim `{name}` is signed, expected it to be derived by us alone")
            );
        }
    }
}

#[test]
fn c10_a_known_claim_has_its_type() {
    for (preset, value, claim, found, told) in [
        (
            &GITHUB,
            github(),
            "repository_id",
            json!(1_296_269),
            "found a number, expected text of decimal digits",
        ),
        (
            &GITHUB,
            github(),
            "repository_id",
            json!("12a"),
            "found `12a`, expected text of decimal digits",
        ),
        (
            &GITHUB,
            github(),
            "ref_protected",
            json!(true),
            "found a boolean, expected the text `true` or `false`",
        ),
        (
            &GITHUB,
            github(),
            "ref_protected",
            json!("TRUE"),
            "found `TRUE`, expected the text `true` or `false`",
        ),
        (&GITHUB, github(), "repo_property_team", json!(["a"]), "found a list, expected text"),
        (&GITLAB, gitlab(), "runner_id", json!("1"), "found `1`, expected an integer"),
        (&GITLAB, gitlab(), "runner_id", json!(1.5), "found a number, expected an integer"),
        (&GITLAB, gitlab(), "groups_direct", json!([1]), "found a list, expected a list of texts"),
        (&KUBERNETES, kubernetes(), "kubernetes.io", json!("x"), "found `x`, expected an object"),
    ] {
        assert_eq!(
            refused(preset, with(value, &format!("/{claim}"), found)),
            format!("claim `{claim}`: {told}")
        );
    }
}

#[test]
fn c13_legacy_service_account_tokens_are_refused() {
    let told = "found a legacy service-account token, expected a projected one";
    let flat = json!({
        "iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:payments:api",
        "kubernetes.io/serviceaccount/namespace": "payments",
    });
    assert_eq!(refused(&KUBERNETES, flat.clone()), told);
    assert_eq!(refused(&KUBERNETES, without(flat.clone(), "iss")), told);
    assert_eq!(
        refused(&KUBERNETES, without(kubernetes(), "kubernetes.io")),
        "claim `kubernetes.io` is missing, expected a projected service-account token"
    );
}

#[test]
fn c14_a_token_stretched_to_a_year_is_refused() {
    assert_eq!(
        refused(&KUBERNETES, with(kubernetes(), "/kubernetes.io/warnafter", json!(1_700_003_607))),
        "`warnafter` marks an ambient token stretched to a year, expected one projected for our audience"
    );
}

#[test]
fn c15_what_a_kubernetes_token_is_bound_to_can_be_pinned() {
    let (claims, _) = interpret(&KUBERNETES, kubernetes()).expect("claims");
    let derived: Vec<_> = [
        "namespace",
        "service_account",
        "service_account_uid",
        "pod",
        "pod_uid",
        "node",
        "node_uid",
    ]
    .iter()
    .map(|name| claims[*name].as_str().expect("text"))
    .collect();
    assert_eq!(derived, ["payments", "api", "0f4c-1", "api-7d", "77aa-2", "n1", "99bb-3"]);

    let mut unbound = kubernetes();
    unbound["kubernetes.io"].as_object_mut().expect("an object").remove("pod");
    let (claims, _) = interpret(&KUBERNETES, unbound).expect("claims");
    assert!(!claims.contains_key("pod") && !claims.contains_key("pod_uid"));

    for sub in ["system:serviceaccount:payments:other", "system:serviceaccount:api:payments", ""] {
        assert_eq!(
            refused(&KUBERNETES, with(kubernetes(), "/sub", json!(sub))),
            "`sub` and `kubernetes.io` disagree: expected `system:serviceaccount:payments:api`"
        );
    }
    for bad in ["", "a:b", "A", "a/b", "a\u{0}b"] {
        assert_eq!(
            refused(&KUBERNETES, with(kubernetes(), "/kubernetes.io/namespace", json!(bad))),
            "`namespace` is not 1 to 253 of the letters a-z, 0-9, `-` and `.`"
        );
    }
}

#[test]
fn c17_one_issuer_url_is_configured_once() {
    let issuer = FakeIssuer::at("https://kubernetes.default.svc");
    let twice = [issuer.configured_as("east"), issuer.configured_as("west")];
    assert_eq!(
        Issuers::of(twice).expect_err("a clash").to_string(),
        "issuers `east` and `west` have the same issuer `https://kubernetes.default.svc`"
    );
}

#[test]
fn c12_j25_an_issuer_is_found_by_its_exact_url() {
    let issuer = FakeIssuer::at("https://token.actions.githubusercontent.com");
    let issuers = Issuers::of([issuer.configured_as("github")]).expect("one issuer");
    assert!(issuers.find("https://token.actions.githubusercontent.com").is_some());
    for other in [
        "https://token.actions.githubusercontent.com/",
        "https://token.actions.githubusercontent.com/acme",
        "https://TOKEN.actions.githubusercontent.com",
        "https://token.actions.githubusercontent.com:443",
        "http://token.actions.githubusercontent.com",
        "",
    ] {
        assert!(issuers.find(other).is_none(), "{other}");
    }
}

#[test]
fn c18_claims_that_nobody_expected_are_told_and_change_nothing() {
    for (preset, value) in [(&GITHUB, github()), (&GITLAB, gitlab()), (&KUBERNETES, kubernetes())] {
        assert_eq!(preset.unaccounted(&claims(value)).count(), 0, "{}", preset.name);
    }
    let value = with(github(), "/new_claim", json!({"a": 1}));
    let value = with(value, "/repo_property_team", json!("payments"));
    let known = claims(value.clone());
    assert_eq!(GITHUB.unaccounted(&known).collect::<Vec<_>>(), ["new_claim"]);
    let (interpreted, stable_id) = interpret(&GITHUB, value).expect("claims");
    assert_eq!(
        (&interpreted["new_claim"], stable_id.as_str()),
        (&json!({"a": 1}), "repository_id:1296269")
    );
    assert_eq!(GITHUB.unaccounted(&interpreted).collect::<Vec<_>>(), ["new_claim"]);
}

#[test]
fn d17_only_plain_https_urls_are_issuers() {
    for good in [
        "https://gitlab.com",
        "https://gitlab.example:8443/sub/path",
        "https://westeurope.oic.prod-aks.azure.com/t/g/",
        "https://[2001:db8::1]:6443",
    ] {
        assert_eq!(good.parse::<IssuerUrl>().map(|url| url.to_string()), Ok(good.to_owned()));
    }
    for bad in [
        "http://gitlab.com",
        "HTTPS://gitlab.com",
        "ftp://gitlab.com",
        "file:///etc/passwd",
        "data:,x",
        "javascript:alert(1)",
        "gitlab.com",
        "",
        "https://",
        "https:///path",
        "https://user@gitlab.com",
        "https://user:pass@gitlab.com",
        "https://gitlab.com?x",
        "https://gitlab.com/#x",
        "https://gitlab.com/a/../b",
        "https://gitlab.com/./b",
        "https://gitlab.com//b",
        "https://gitlab.com/%2e%2e",
        "https://gitlab.com%2fevil",
        "https://gitlab.com\\@evil",
        "https://gitl\u{430}b.com",
        "https://gitlab.com ",
        " https://gitlab.com",
        "https://gitlab.com\n",
        "https://gitlab.com\0",
        "https://2130706433",
        "https://0x7f.1",
        "https://0177.0.0.1",
        "https://127.1",
        "https://GITLAB.com",
        "https://gitlab.com:99999",
    ] {
        assert!(bad.parse::<IssuerUrl>().is_err(), "{bad:?}");
    }
}
