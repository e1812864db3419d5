//! What is special to some platforms: their tenants, their subjects, what strangers can cause, what nobody asked for us.

use cambio::{
    config::{Discovered, KeysFrom},
    policy::init::init,
};
use serde_json::{Value, json};

use super::{
    Bench, Fixture, as_it_is, changed, compiled, configured, fixtures, permits, platforms, rule,
};
use crate::support::token::NOW;

/// Threat C01: good signatures of shared keys say nothing about the tenant.
#[tokio::test]
async fn c01_a_token_that_names_two_tenants_is_refused() {
    for (provider, changes, says) in [
        (
            "azure",
            json!({ "tid": "00000000-0000-4000-8000-000000000000" }),
            "`iss` and `tid` disagree: found `7a1b2c3d-4e5f-4061-8273-94a5b6c7d8e9` and `00000000-0000-4000-8000-000000000000`",
        ),
        (
            "vercel",
            json!({ "owner": "evil", "sub": "owner:evil:project:site:environment:production" }),
            "`iss` and `owner` disagree: found `acme` and `evil`",
        ),
        (
            "circleci",
            json!({ "oidc.circleci.com/org-id": "other", "sub": "org/other/project/p/user/u" }),
            "`iss` and `org_id` disagree: found `3fd8c0a2-0000-4000-8000-000000000001` and `other`",
        ),
        ("azure_devops", json!({ "org_id": "other" }), "`iss` and `org_id` disagree"),
        ("fly", json!({ "org_name": "evil" }), "`iss` and `org_name` disagree"),
        ("semaphore", json!({ "org": "evil" }), "`iss` and `org` disagree"),
    ] {
        let said = Bench::named(provider).refusal(changes).await;
        assert!(said.contains(says), "{provider}: {said}");
    }
    let azure = Bench::named("azure");
    let other = "https://login.microsoftonline.com/00000000-0000-4000-8000-000000000000/v2.0";
    assert!(azure.refusal(json!({ "iss": other })).await.contains("is not configured"));
}

#[test]
fn c01_d02_an_issuer_that_stands_for_all_tenants_or_is_another_product_is_refused_at_load() {
    for (provider, issuer) in [
        ("azure", "https://login.microsoftonline.com/common/v2.0"),
        ("azure", "https://sts.windows.net/7a1b2c3d-4e5f-4061-8273-94a5b6c7d8e9"),
        ("azure", "https://login.microsoftonline.com/7a1b2c3d-4e5f-4061-8273-94a5b6c7d8e9"),
        ("aws", "https://tokens.sts.global.api.aws"),
        (
            "aws",
            "https://5f0c1d2e-3a4b-4c5d-8e6f-708192a3b4c5.tokens.sts.global.api.aws.evil.example",
        ),
        ("vercel", "https://passport.vercel.com/acme"),
        ("circleci", "https://oidc.circleci.com/org/acme"),
        ("google", "https://accounts.google.com/"),
        ("semaphore", "https://semaphoreci.com"),
        ("buildkite", "https://agent.buildkite.com/acme"),
    ] {
        let said = configured(&Fixture { issuer, ..fixtures::of(provider) }, "").unwrap_err();
        assert!(said.contains("it has another shape") && said.contains("hint: expected"), "{said}");
    }
    let said = configured(
        &Fixture {
            issuer: "https://login.microsoftonline.com/organizations/v2.0",
            ..fixtures::of("azure")
        },
        "",
    );
    assert_eq!(
        said.unwrap_err(),
        "cambio.yaml:8:13: issuer `https://login.microsoftonline.com/organizations/v2.0` is none of provider `azure`: it has another shape\n  \
         hint: expected `https://login.microsoftonline.com/<tid>/v2.0` or `https://sts.windows.net/<tid>/` or `https://login.microsoftonline.us/<tid>/v2.0` or `https://login.partner.microsoftonline.cn/<tid>/v2.0`, exactly as the tokens have it"
    );
}

/// Threat C01: people's tokens of the same issuer are nobody's workload.
#[tokio::test]
async fn c01_people_are_no_workloads() {
    let google = Bench::named("google");
    for changes in [
        json!({ "email": "ann@gmail.com" }),
        json!({ "email": "ann@evilgserviceaccount.com" }),
        json!({ "email": "deploy@acme.iam.gserviceaccount.com@evil.example" }),
        json!({ "email": null, "hd": "acme.example" }),
    ] {
        let said = google.refusal(changes).await;
        assert!(said.contains("found a person's token"), "{said}");
    }
    let said = google.refusal(json!({ "email_verified": false })).await;
    assert!(said.contains("does not vouch"), "{said}");
    google.profile(json!({ "email": null, "email_verified": null, "google": null })).await;

    let azure = Bench::named("azure");
    for changes in [
        json!({ "scp": "user_impersonation" }),
        json!({ "idtyp": "user" }),
        json!({ "idtyp": null, "sub": "pairwise" }),
    ] {
        let said = azure.refusal(changes).await;
        assert!(said.contains("found a person's token"), "{said}");
    }
    azure.profile(json!({ "idtyp": null })).await;
}

/// Threats C02, C05: patterns admit one segment of what is pinned already, and never stand at `sub`.
#[tokio::test]
async fn c02_a_pattern_on_a_spiffe_path_stays_in_its_segment_and_its_trust_domain() {
    let bench = Bench::named("spiffe");
    let when = "{ trust_domain: acme.example, path: { glob: \"ns/payments/sa/*\" } }";
    assert!(compiled(bench.preset, &rule(when, "")).is_err());
    let set = compiled(bench.preset, &rule(when, "    allow_organization: true\n")).unwrap();
    assert!(permits(&set, &bench.profile(as_it_is()).await));
    for sub in [
        "spiffe://acme.example/ns/payments/sa/worker/x",
        "spiffe://acme.example/ns/payments-x/sa/worker",
        "spiffe://acme.example.evil.example/ns/payments/sa/worker",
    ] {
        assert!(!permits(&set, &bench.profile(json!({ "sub": sub })).await), "{sub}");
    }
    for (provider, pattern) in [
        ("aws", "sub: { glob: \"arn:aws:iam::*:role/Deploy\" }"),
        ("google", "sub: { glob: \"1/*\" }"),
        ("bitbucket", "workspaceUuid: \"{c}\", sub: { glob: \"a:*\" }"),
        ("spiffe", "sub: { glob: \"spiffe://acme.example/*\" }"),
        ("spiffe", "trust_domain: acme.example, path: { glob: \"ns/pay*\" }"),
        ("buildkite", "organization_slug: acme, pipeline_slug: { glob: \"*\" }"),
    ] {
        let preset = Bench::named(provider).preset;
        let said = compiled(preset, &rule(&format!("{{ {pattern} }}"), "")).map(|_| ());
        assert!(said.is_err(), "{provider}: {pattern}");
    }
}

/// Threat C03: where a `sub` says what a claim says too, both say the same.
#[tokio::test]
async fn c03_no_platforms_sub_contradicts_its_claims() {
    for (provider, sub, says) in [
        ("aws", "arn:aws:iam::999999999999:role/Deploy", "`sub` and `aws_account` disagree"),
        ("aws", "arn:aws:s3:::bucket", "found `sub` `arn:aws:s3:::bucket`, expected"),
        ("bitbucket", "{x}:{y}", "`sub` and `repositoryUuid` disagree"),
        (
            "buddy",
            "https://app.buddy.works/acme/site/pipelines/pipeline/6",
            "`sub` and `pipeline_id` disagree",
        ),
        (
            "buddy",
            "https://app.buddy.works/evil/site/pipelines/pipeline/5150",
            "`sub` and `workspace_domain` disagree",
        ),
        (
            "buildkite",
            "organization:evil:pipeline:site:ref:x",
            "`sub` and `organization_slug` disagree",
        ),
        (
            "circleci",
            "org/3fd8c0a2-0000-4000-8000-000000000001/project/other/user/u",
            "`sub` and `project_id` disagree",
        ),
        ("circleci", "project/x", "expected `org/{org_id}/project/{project_id}/user/**`"),
        (
            "codefresh",
            "account:628a80b693a15c0f9c13ab75:pipeline:other:x",
            "`sub` and `pipeline_id` disagree",
        ),
        ("fly", "acme:other:weathered-river-1", "`sub` and `app_name` disagree"),
        (
            "modal",
            "modal:workspace_id:ac-2:environment_name:main:app_name:site:function_name:x",
            "`sub` and `workspace_id` disagree",
        ),
        ("semaphore", "org:acme:project:other:repo:site", "`sub` and `prj_id` disagree"),
        (
            "spacelift",
            "space:prod-01:stack:site:run_type:PROPOSED:scope:write",
            "`sub` and `runType` disagree",
        ),
        (
            "spacelift",
            "space:prod-01:stack:site:run_type:TRACKED:scope:read",
            "`sub` and `scope` disagree",
        ),
        (
            "terraform",
            "organization:acme:project:Default Project:workspace:other:run_phase:apply",
            "`sub` and `terraform_workspace_name` disagree",
        ),
        // A name that holds what stands after it in the template contradicts its claim: it can't take the next one's place.
        (
            "terraform",
            "organization:acme:project:x:project:Default Project:workspace:site:run_phase:apply",
            "`sub` and `terraform_project_name` disagree",
        ),
        (
            "vercel",
            "owner:acme:project:site:environment:preview",
            "`sub` and `environment` disagree",
        ),
    ] {
        let said = Bench::named(provider).refusal(json!({ "sub": sub })).await;
        assert!(said.contains(says), "{provider}: {said}");
    }
    // Its grammar is not settled: another shape contradicts nothing.
    Bench::named("codefresh").profile(json!({ "sub": "something:else" })).await;
}

/// Threat C05: a job of Buildkite may make `sub` one bare id; it says nothing without the claim that says of what.
#[tokio::test]
async fn c05_a_bare_id_as_a_buildkite_subject_must_be_named_by_its_claim() {
    let bench = Bench::named("buildkite");
    let pipeline = "0184990a-0000-4000-8000-00000000000b";
    let profile = bench.profile(json!({ "sub": pipeline })).await;
    assert_eq!(profile.stable_id, format!("pipeline_id:{pipeline}"));
    bench.profile(json!({ "sub": "0184990a-0000-4000-8000-00000000000c" })).await;
    for sub in ["0184990a-0000-4000-8000-0000000000aa", "x"] {
        let said = bench.refusal(json!({ "sub": sub })).await;
        assert!(said.contains("disagree"), "{said}");
    }
    let said = bench.refusal(json!({ "pipeline_id": null })).await;
    assert!(said.contains("expected `pipeline_id`"), "{said}");
    let said =
        compiled(bench.preset, &rule("{ organization_slug: acme, pipeline_slug: site }", ""));
    let said = said.map(|_| ()).unwrap_err();
    assert!(said.contains("add an equality on `organization_id` and `pipeline_id`"), "{said}");
}

/// Threat C06: what strangers, pull requests or people's shells can cause is admitted only by a rule that names it.
#[tokio::test]
async fn c06_what_strangers_can_cause_on_a_platform_must_be_named() {
    let sub = |text: &str| Value::String(text.to_owned());
    let cases = [
        ("buildkite", "build_source", "ui", json!({ "build_source": "ui" })),
        ("circleci", "ssh_rerun", "\"true\"", json!({ "oidc.circleci.com/ssh-rerun": true })),
        ("circleci", "ssh_rerun", "\"true\"", json!({ "oidc.circleci.com/ssh-rerun": "true" })),
        (
            "forgejo",
            "event_name",
            "pull_request_target",
            json!({ "event_name": "pull_request_target" }),
        ),
        ("semaphore", "ref_type", "pull-request", json!({ "ref_type": "pull-request" })),
        ("semaphore", "job_type", "debug_job", json!({ "job_type": "debug_job" })),
        (
            "spacelift",
            "runType",
            "PROPOSED",
            json!({ "runType": "PROPOSED", "sub": sub("space:prod-01:stack:site:run_type:PROPOSED:scope:write") }),
        ),
        (
            "terraform",
            "terraform_run_phase",
            "plan",
            json!({
                "terraform_run_phase": "plan",
                "sub": sub("organization:acme:project:Default Project:workspace:site:run_phase:plan"),
            }),
        ),
    ];
    for (provider, claim, value, changes) in cases {
        let bench = Bench::named(provider);
        let plain = bench.profile(as_it_is()).await;
        let pins = bench.preset.pins[0].iter().map(|pin| format!("{pin}: {}", plain.claims[*pin]));
        let pins = pins.collect::<Vec<_>>().join(", ");
        let set = compiled(bench.preset, &rule(&format!("{{ {pins} }}"), "")).unwrap();
        let caused = bench.profile(changes).await;
        assert!(permits(&set, &plain), "{provider}");
        assert!(!permits(&set, &caused), "{provider}: {claim}");
        let named = rule(&format!("{{ {pins}, {claim}: {value} }}"), "");
        assert!(permits(&compiled(bench.preset, &named).unwrap(), &caused), "{provider}: {claim}");
    }
    // INVARIANT(closed-by-absence): a token that does not say whether a person has a shell has none of the default's trust.
    let circleci = Bench::named("circleci");
    let when = "{ org_id: 3fd8c0a2-0000-4000-8000-000000000001, project_id: 50d8c0a2-0000-4000-8000-000000000002 }";
    let set = compiled(circleci.preset, &rule(when, "")).unwrap();
    let silent = circleci.profile(json!({ "oidc.circleci.com/ssh-rerun": null })).await;
    assert!(!permits(&set, &silent));
    let said = circleci.refusal(json!({ "oidc.circleci.com/ssh-rerun": "no" })).await;
    assert!(said.contains("expected `true` or `false`"), "{said}");
}

/// Threats C19, C20: a pin is compared as it is, whatever the platform; nothing in it is a pattern or a template.
#[tokio::test]
async fn c19_c20_no_platforms_pin_is_a_pattern_or_a_template() {
    for preset in platforms() {
        let bench = Bench::named(preset.name);
        let profile = bench.profile(as_it_is()).await;
        let signed = bench.token().claim_set().clone();
        let text = init(&profile, &signed, Some("jwt/orders"), Some("deployer"));
        for pin in preset.pins[0] {
            let value = &profile.claims[*pin];
            for odd in ["^a|b$", "a*", "(?i)a", "{{claim}}", "${claim}"] {
                let line = format!("      {pin}: {value}");
                assert!(text.contains(&line), "{text}");
                let broken = text.replacen(&line, &format!("      {pin}: \"{odd}\""), 1);
                let said = compiled(preset, &broken).map(|_| ());
                assert!(said.is_err(), "{}: {pin}: {odd}", preset.name);
            }
        }
    }
    // What a token holds is not expanded either: `init` leaves out what it could not compare literally.
    let forgejo = Bench::named("forgejo");
    let odd = json!({ "ref": "refs/heads/${x}", "event_name": "push*" });
    let profile = forgejo.profile(odd).await;
    let text = init(&profile, &profile.claims, None, None);
    assert!(!text.split("cases:").next().unwrap().contains("${x}"), "{text}");
}

#[test]
fn what_nobody_asked_for_us_is_no_audience_of_ours() {
    for (provider, audience) in [
        ("azure", "api://AzureADTokenExchange"),
        ("bitbucket", "ari:cloud:bitbucket::workspace/cccc1111-0000-4000-8000-000000000001"),
        ("buildkite", "https://buildkite.com/acme"),
        ("circleci", "3fd8c0a2-0000-4000-8000-000000000001"),
        ("codefresh", "https://g.codefresh.io"),
        ("fly", "https://fly.io/acme"),
        ("vercel", "https://vercel.com/acme"),
        ("aws", "sts.amazonaws.com"),
    ] {
        let said = configured(&Fixture { audience, ..fixtures::of(provider) }, "").unwrap_err();
        assert!(said.contains("tokens with it are made for somebody else"), "{provider}: {said}");
    }
    for provider in ["azure_devops", "modal", "semaphore", "spacelift"] {
        let fixture = Fixture { audience: "https://cambio.example", ..fixtures::of(provider) };
        let said = configured(&fixture, "").unwrap_err();
        assert!(said.contains("never have"), "{provider}: {said}");
    }
}

/// Where nobody can choose the audience, one use and a short age are what stands against a relying party that brings it here.
#[tokio::test]
async fn tokens_with_one_audience_for_everybody_are_young_and_used_once() {
    for (provider, when) in [
        ("azure_devops", "{ org_id: a, prj_id: b, def_id: c }"),
        ("modal", "{ workspace_id: a, app_id: b }"),
    ] {
        let bench = Bench::named(provider);
        let said = compiled(bench.preset, &rule(when, "    replay: reusable\n")).map(|_| ());
        assert!(said.unwrap_err().contains("have one audience for everybody"), "{provider}");
        assert!(compiled(bench.preset, &rule(when, "    replay: once\n")).is_ok(), "{provider}");
        let old = bench.token().issued_at(NOW - 601, 900);
        let said = bench.verify(&old).await.unwrap_err().to_string();
        assert!(said.contains("601 s old, expected at most 600 s"), "{provider}: {said}");
    }
    let terraform = Bench::named("terraform");
    let old = terraform.token().issued_at(NOW - 3601, 86_400);
    let said = terraform.verify(&old).await.unwrap_err().to_string();
    assert!(said.contains("3601 s old, expected at most 3600 s"), "{said}");
}

/// Two kinds of service connection and pipelines, side by side; none passes for another.
#[tokio::test]
async fn a_service_connection_of_azure_devops_is_no_pipeline() {
    let bench = Bench::named("azure_devops");
    let bare = json!({
        "org_id": null, "prj_id": null, "def_id": null, "rpo_id": null, "rpo_uri": null,
        "rpo_ver": null, "rpo_ref": null, "run_id": null, "sub": "sc://acme/site/prod",
    });
    let connection = bench.profile(bare.clone()).await;
    assert_eq!(connection.our_subject(), "ci:service_connection:acme/site/prod");
    let pipeline = bench.profile(as_it_is()).await;
    let of_connection =
        compiled(bench.preset, &rule("{ service_connection: acme/site/prod }", "")).unwrap();
    let of_pipeline = "{ org_id: 0c0d1e2f-3a4b-4c5d-8e6f-708192a3b4c5, prj_id: aaaa1111-2222-4333-8444-555566667777, def_id: \"42\" }";
    let of_pipeline = compiled(bench.preset, &rule(of_pipeline, "")).unwrap();
    assert!(permits(&of_connection, &connection) && !permits(&of_connection, &pipeline));
    assert!(permits(&of_pipeline, &pipeline) && !permits(&of_pipeline, &connection));

    let said = bench.refusal(json!({ "sub": "sc://acme/site/prod" })).await;
    assert!(
        said.contains("`sub` is of a service connection, and `def_id` of a pipeline"),
        "{said}"
    );
    for sub in ["sc://acme/site", "p://acme//deploy", "x://acme/site/prod", "eid1/c/pub/t/x"] {
        let mut changes = bare.clone();
        changes["sub"] = json!(sub);
        assert!(bench.refusal(changes).await.contains("expected `p://"), "{sub}");
    }

    let entra = Bench::of(Fixture {
        issuer: "https://login.microsoftonline.com/7a1b2c3d-4e5f-4061-8273-94a5b6c7d8e9/v2.0",
        ..fixtures::of("azure_devops")
    });
    let mut changes = bare;
    changes["sub"] = json!("/eid1/c/pub/t/abc/a/def/xyz");
    let connection = entra.profile(changes).await;
    assert_eq!(connection.our_subject(), "ci:service_connection:/eid1/c/pub/t/abc/a/def/xyz");
}

/// SPIFFE-ID section 2: one workload, one spelling. JWT-SVID section 2.3: `typ` is absent, `JWT` or `JOSE`.
#[tokio::test]
async fn a_spiffe_id_has_one_spelling() {
    let bench = Bench::named("spiffe");
    for sub in [
        "spiffe://acme.example",
        "spiffe://acme.example/",
        "spiffe://acme.example/ns//sa",
        "spiffe://acme.example/ns/../sa",
        "spiffe://acme.example/ns/./sa",
        "spiffe://acme.example/ns/a/",
        "spiffe://ACME.example/ns/a",
        "spiffe://acme.example:443/ns/a",
        "spiffe://user@acme.example/ns/a",
        "spiffe://acme.example/ns/a?x=1",
        "spiffe://acme.example/ns/%61",
        "SPIFFE://acme.example/ns/a",
        "spiffe:///ns/a",
        "https://acme.example/ns/a",
    ] {
        let said = bench.refusal(json!({ "sub": sub })).await;
        assert!(said.contains("expected `spiffe://trust-domain/path`"), "{sub}: {said}");
    }
    for token in [bench.token().header("typ", "JOSE"), bench.token().without_header("typ")] {
        assert!(bench.verify(&token).await.is_ok());
    }
    assert!(bench.verify(&bench.token().header("typ", "at+jwt")).await.is_err());
    // docs/divergences.md: what a JWT-SVID may leave out and a subject token may not.
    for (claim, says) in
        [("iss", "claim `iss`: found none"), ("iat", "claim `iat` refused: found none")]
    {
        let said = bench.verify(&bench.token().without(claim)).await.unwrap_err().to_string();
        assert!(said.contains(says), "{said}");
    }
    assert!(bench.verify(&bench.token().header("x5t", "AAAA")).await.is_ok());
    assert!(bench.verify(&bench.token().header("x5c", json!(["AAAA"]))).await.is_err());
    let profile = bench.profile(as_it_is()).await;
    assert_eq!(
        (&profile.claims["trust_domain"], &profile.claims["path"]),
        (&json!("acme.example"), &json!("ns/payments/sa/worker"))
    );
}

/// Threat J04: AWS calls its keys alike in every account, and leaves `alg` out of them.
#[tokio::test]
async fn an_account_of_aws_is_told_by_its_issuer_and_not_by_its_kid() {
    let ours = Bench::named("aws");
    let theirs = Bench::of(Fixture {
        issuer: "https://00000000-3a4b-4c5d-8e6f-708192a3b4c5.tokens.sts.global.api.aws",
        ..fixtures::of("aws")
    });
    assert_eq!(ours.issuer.newest_key().kid(), theirs.issuer.newest_key().kid());
    let forged = changed(theirs.token(), json!({ "iss": ours.issuer.url() }));
    let said = ours.verify(&forged).await.unwrap_err().to_string();
    assert!(said.contains("signature does not verify"), "{said}");
    assert!(ours.verify(&theirs.token()).await.unwrap_err().to_string().contains("not configured"));
    // What the caller says of itself is not what AWS says of it.
    let profile = ours.profile(as_it_is()).await;
    assert_eq!(profile.claims["principal_tags"]["team"], "payments");
    assert_eq!(profile.claims["request_tags"]["team"], "anything");
}

#[test]
fn keys_are_looked_for_where_the_platform_has_them() {
    let keys = |fixture: &Fixture, lines: &str| match configured(fixture, lines).unwrap().keys {
        KeysFrom::Discovered(found) => {
            let Discovered { jwks_uri, jwks_origin, .. } = *found;
            (jwks_uri.map(String::from), jwks_origin.map(String::from))
        }
        KeysFrom::Pinned { .. } => panic!("pinned"),
    };
    let of = |provider| keys(&fixtures::of(provider), "");
    assert_eq!(of("google"), (None, Some("https://www.googleapis.com/".to_owned())));
    let vercel = "https://oidc.vercel.com/.well-known/jwks".to_owned();
    assert_eq!(of("vercel"), (Some(vercel), None));
    assert_eq!(of("azure"), (None, None));
    let v1 = Fixture {
        issuer: "https://sts.windows.net/7a1b2c3d-4e5f-4061-8273-94a5b6c7d8e9/",
        ..fixtures::of("azure")
    };
    let common = "https://login.microsoftonline.com/common/discovery/keys".to_owned();
    assert_eq!(keys(&v1, ""), (Some(common.clone()), None));
    // What the operator says goes before; what they leave out is as known.
    let own = "    keys: { discovered: { jwks_uri: \"https://keys.example/set\" } }\n";
    assert_eq!(keys(&v1, own), (Some("https://keys.example/set".to_owned()), None));
    assert_eq!(keys(&v1, "    keys: { discovered: { stale_after: 2h } }\n"), (Some(common), None));
}

#[tokio::test]
async fn a_forgejo_workflow_is_taken_apart_as_a_github_one_is() {
    let bench = Bench::named("forgejo");
    let profile = bench.profile(as_it_is()).await;
    assert_eq!(
        profile.claims["workflow_file"],
        json!({ "path": "acme/site/.forgejo/workflows/deploy.yml", "ref": "refs/heads/main" })
    );
    let said = bench.refusal(json!({ "workflow_file": { "path": "x" } })).await;
    assert!(said.contains("derived by us alone"), "{said}");
}

/// The number that an id is goes into our `sub` and into a rule as it is signed.
#[tokio::test]
async fn an_id_that_is_a_number_is_pinned_as_a_number() {
    let bench = Bench::named("buddy");
    let profile = bench.profile(as_it_is()).await;
    assert_eq!(profile.stable_id, "pipeline_id:5150");
    assert!(compiled(bench.preset, &rule("{ pipeline_id: \"5150\" }", "")).is_err());
    let set = compiled(bench.preset, &rule("{ pipeline_id: 5150 }", "")).unwrap();
    assert!(permits(&set, &profile));
    let said = bench.refusal(json!({ "pipeline_id": "5150" })).await;
    assert!(said.contains("found `5150`, expected an integer"), "{said}");
}
