//! What the configuration refuses of targets at clouds.

use super::bench;

/// What is said of a configuration in which `from` is `to`.
#[track_caller]
fn problem(from: &str, to: &str) -> String {
    let (site, _) = bench::site();
    site.edit("cambio.yaml", from, to);
    let Err(problems) = cambio::config::Config::read(&site.path("cambio.yaml")) else {
        panic!("accepted `{to}`")
    };
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_target_that_would_get_more_than_was_written_down_does_not_load() {
    for (from, to, expected) in [
        (
            "{ repository_ids: [777], permissions: { contents: read } }",
            "{ permissions: { contents: read } }",
            "found both or neither",
        ),
        (
            "{ repository_ids: [777], permissions: { contents: read } }",
            "{ repository_ids: [777], permissions: {} }",
            "permissions",
        ),
        ("contents: write", "contents: everything", "`everything`"),
        (
            "ceiling: 1h\n  - name: github/hour",
            "ceiling: 2h\n  - name: github/hour",
            "at most `1h`",
        ),
        ("    ends: by_broker\n", "", "always live for `1h`"),
        ("https://management.azure.com/.default", "https://management.azure.com/user", "/.default"),
        (
            "subject: cambio:prod:stranger",
            "subject: cambio:prod:deploy",
            "shares an application or a subject",
        ),
        ("tenant: 0b1f6a52-7c1d-4f0e-9a51-2f6f0c7f2a11", "tenant: common", "a UUID"),
        (
            "service_account: auditor@acme-prod.iam.gserviceaccount.com",
            "service_account: ../projects/x@y.gserviceaccount.com",
            "email address of a service account",
        ),
        (
            "        service_account: auditor@acme-prod.iam.gserviceaccount.com\n",
            "",
            "make two targets",
        ),
        (
            "algorithm: RS256",
            "algorithm: RS256\n    ceiling: 10m",
            "a federated token lives for `1h`",
        ),
        ("algorithm: RS256", "algorithm: EdDSA", "EdDSA"),
        (
            "algorithm: RS256",
            "algorithm: RS256\n    sts: http://sts.googleapis.com",
            "no https URL",
        ),
        (
            "algorithm: RS256",
            "algorithm: RS256\n    sts: https://user:word@sts.googleapis.com",
            "no https URL",
        ),
        (
            "kind: google\n    provider: //iam.googleapis.com/projects/123456/",
            "kind: google\n    provider: //iam.googleapis.com/projects/acme/",
            "projects/<number>",
        ),
    ] {
        let told = problem(from, to);
        assert!(told.contains(expected), "`{to}`: {told}");
        assert!(!told.contains("word@"), "{told}");
    }
}

/// Entra and Google take our tokens as AWS does.
#[test]
fn x01_no_jwt_target_shares_the_audience_of_an_azure_or_google_target() {
    let jwt = |audience: &str| {
        format!(
            "targets:\n  - name: jwt/deputy\n    kind: jwt\n    audience: {audience}\n    environment: test\n    roles: {{ deploy: {{}} }}\n"
        )
    };
    for (audience, expected) in [
        ("api://AzureADTokenExchangeChina", "use a target of kind `azure`"),
        ("\"//iam.googleapis.com/projects/1/providers/b\"", "use a target of kind `google`"),
    ] {
        let told = problem("targets:\n", &jwt(audience));
        assert!(told.contains(expected), "{audience}: {told}");
    }
    let own = "    kind: azure\n    audience: api://cambio-own\n";
    let (site, _) = bench::site();
    site.edit("cambio.yaml", "    kind: azure\n", own);
    site.edit("cambio.yaml", "targets:\n", &jwt("api://cambio-own"));
    let told = cambio::config::Config::read(&site.path("cambio.yaml")).unwrap_err();
    let told = told.iter().map(ToString::to_string).collect::<String>();
    assert!(told.contains("as in the assertions of target `azure/prod`"), "{told}");
}

#[test]
fn honest_expiry_a_rule_whose_lifetime_a_cloud_can_not_keep_does_not_load() {
    for (from, to, expected) in [
        (
            "role: read, lifetime: 1h }\n      - { target: azure",
            "role: read, lifetime: 15m }\n      - { target: azure",
            "exactly 3600 s",
        ),
        (
            "azure/prod, role: deploy, lifetime: 90m",
            "azure/prod, role: deploy, lifetime: 60m",
            "exactly 5400 s",
        ),
        (
            "github/hour, role: read, lifetime: 1h",
            "github/hour, role: read, lifetime: 15m",
            "exactly 3600 s",
        ),
        (
            "github/acme, role: release, lifetime: 15m",
            "github/acme, role: release, lifetime: 2h",
            "at most 3600 s",
        ),
    ] {
        let (site, _) = bench::site();
        site.edit("policies/clouds.yaml", from, to);
        let config = site.config();
        let now = cambio::clock::Instant::from_seconds(crate::support::token::NOW);
        let told = cambio::app::scene::policies(&config, now).unwrap_err().to_string();
        assert!(told.contains(expected), "{to}: {told}");
    }
}

#[test]
fn the_targets_of_the_pages_load() {
    for page in ["google", "azure", "github"] {
        let file = format!("{}/docs/targets/{page}.md", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(file).unwrap();
        let blocks = text.split("```yaml\ntargets:\n").skip(1);
        let targets: String = blocks.filter_map(|rest| rest.split("```").next()).collect();
        assert!(targets.contains(&format!("kind: {page}")), "{page}");
        let (site, _) = bench::site();
        std::fs::create_dir(site.path("secrets")).unwrap();
        site.write("secrets/app.jwe", "for this test there is no key in it");
        site.write("policies/deploy.yaml", "version: 1\nrules: []\n");
        let targets = targets.replace("environment: prod", "environment: test");
        // Beside the others: their names are their own.
        let targets = targets.replace("/prod\n", "/page\n").replace("/acme\n", "/page\n");
        let config = std::fs::read_to_string(site.path("cambio.yaml")).unwrap();
        let config = config.replacen("targets:\n", &format!("targets:\n{targets}"), 1);
        site.write("cambio.yaml", &config);
        assert!(
            site.config()
                .targets
                .iter()
                .any(|target| target.name.as_str() == format!("{page}/page"))
        );
    }
}
