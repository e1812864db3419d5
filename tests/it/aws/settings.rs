//! What a target of kind `aws` may be called, hold and name.

use cambio::config::Config;

use crate::support::site::Site;

const GOOD: &str = "  - name: aws/prod
    kind: aws
    region: eu-central-1
    environment: test
    granted_by: [orders.yaml]
    roles: { deploy: { role_arn: 'arn:aws:iam::123456789012:role/deploy' } }
";

/// The problems of the site's configuration with this target, one a line, without their places.
fn problems(target: &str) -> String {
    let site = Site::new();
    site.edit("cambio.yaml", "policies: { directory", &format!("{target}policies: {{ directory"));
    match Config::read(&site.path("cambio.yaml")) {
        Ok(_) => "none".to_owned(),
        Err(problems) => {
            let told = problems.iter().map(|problem| problem.message.clone());
            told.collect::<Vec<_>>().join("\n")
        }
    }
}

fn with(lines: &str) -> String {
    problems(&format!("{GOOD}{lines}"))
}

fn role(members: &str) -> String {
    problems(&GOOD.replace("role/deploy' }", &format!("role/deploy', {members} }}")))
}

#[test]
fn a_target_needs_a_region_and_roles_and_the_rest_has_safe_defaults() {
    assert_eq!(problems(GOOD), "none");
    assert_eq!(
        with("    ceiling: 12h\n    floor: 20m\n    assertion: { algorithm: RS256 }\n"),
        "none"
    );
}

#[test]
fn honest_expiry_lifetimes_that_aws_does_not_keep_are_refused() {
    insta::assert_snapshot!(with("    ceiling: 13h\n"), @"");
    insta::assert_snapshot!(with("    floor: 5m\n"), @"");
    insta::assert_snapshot!(with("    identity: ambient\n    ceiling: 2h\n"), @"");
    insta::assert_snapshot!(role("duration: 10m"), @"");
    insta::assert_snapshot!(role("duration: 15m").replace("none", "") + &with("    floor: 30m\n"), @"");
}

#[test]
fn where_sessions_come_back_from_must_be_https() {
    insta::assert_snapshot!(with("    endpoint: http://sts.example/\n"), @"");
    insta::assert_snapshot!(with("    endpoint: https://user@sts.example/\n"), @"");
    assert_eq!(with("    endpoint: https://sts.example/\n"), "none");
}

#[test]
fn roles_tags_and_policies_are_what_aws_takes() {
    insta::assert_snapshot!(problems(&GOOD.replace("iam::123456789012", "iam::123")), @"");
    insta::assert_snapshot!(role("session_policy: '{'"), @"");
    insta::assert_snapshot!(role("session_policy: '{\"a\": 1, \"a\": 2}'"), @"");
    insta::assert_snapshot!(role("policy_arns: ['arn:aws:s3:::bucket']"), @"");
    insta::assert_snapshot!(role("external_id: 4711-ab"), @"");
    insta::assert_snapshot!(role("tags: { 'aws:team': sub, Team: sub, team: sub }"), @"");
    insta::assert_snapshot!(role("tags: { team: cambio.team }, transitive_tags: [unit]"), @"");
}

#[test]
fn plain_http_to_this_machine_exists_in_dev_alone() {
    let site = Site::new();
    let target = format!("{GOOD}    endpoint: http://127.0.0.1:9/\n");
    site.edit("cambio.yaml", "policies: { directory", &format!("{target}policies: {{ directory"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let started = crate::support::serving::try_serve(&site, cambio::app::Existing::Created);
    let error = runtime.block_on(started).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("plain http, which exists in `cambio dev` alone"), "{error}");
}
