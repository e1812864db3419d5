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
pub(super) fn problems(target: &str) -> String {
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

/// A token for a resource server would be a login at the cloud, past session policy, tags and ceiling.
#[test]
fn x01_no_jwt_target_shares_the_audience_of_a_cloud_or_of_our_assertions() {
    let jwt = |audience: &str| {
        format!(
            "  - name: jwt/sts\n    kind: jwt\n    audience: {audience}\n    environment: test\n    granted_by: [orders.yaml]\n    roles: {{ reader: {{}} }}\n"
        )
    };
    let own = GOOD.to_owned() + "    assertion: { audience: cambio-prod.example }\n";
    insta::assert_snapshot!(problems(&jwt("sts.amazonaws.com")), @"`audience` is `sts.amazonaws.com`, by which AWS takes a token for a login");
    for both in [
        format!("{own}{}", jwt("Cambio-prod.example/")),
        format!("{}{own}", jwt("cambio-prod.example")),
    ] {
        let told = problems(&both);
        assert!(told.contains("as in the assertions of target `aws/prod` on line "), "{told}");
    }
    assert_eq!(problems(&format!("{own}{}", jwt("cambio-prod.example.org"))), "none");
    // Without an assertion there is no audience to share.
    let ambient = format!("{GOOD}    identity: ambient\n{}", jwt("cambio-prod.example"));
    assert_eq!(problems(&ambient), "none");
}

#[test]
fn honest_expiry_lifetimes_that_aws_does_not_keep_are_refused() {
    insta::assert_snapshot!(with("    ceiling: 13h\n"), @"`ceiling` is `13h`, expected from `15m` to `12h`");
    insta::assert_snapshot!(with("    floor: 5m\n"), @"`floor` is `5m`, expected from `15m` to `12h`");
    insta::assert_snapshot!(with("    identity: ambient\n    ceiling: 2h\n"), @"`ceiling` is `2h`, expected from `15m` to `1h`");
    insta::assert_snapshot!(role("duration: 10m"), @"`duration` is `10m`, expected from `15m` to `12h`");
    let short = GOOD.replace("role/deploy' }", "role/deploy', duration: 15m }");
    insta::assert_snapshot!(problems(&format!("{short}    floor: 30m\n")), @"`duration` of role `deploy` is `15m`, below the `floor` of `30m`");
}

#[test]
fn where_sessions_come_back_from_must_be_https() {
    insta::assert_snapshot!(with("    endpoint: http://sts.example/\n"), @"`endpoint` is `http://sts.example/`, expected an `https` URL");
    insta::assert_snapshot!(with("    endpoint: https://user@sts.example/\n"), @"`endpoint` is `https://user@sts.example/`, expected an `https` URL");
    assert_eq!(with("    endpoint: https://sts.example/\n"), "none");
}

#[test]
fn roles_tags_and_policies_are_what_aws_takes() {
    insta::assert_snapshot!(problems(&GOOD.replace("iam::123456789012", "iam::123")), @"`role_arn` is `arn:aws:iam::123:role/deploy`, expected `arn:aws:iam::<account>:role/<name>`");
    insta::assert_snapshot!(role("session_policy: '{'"), @"`session_policy` is none: not JSON: EOF while parsing an object at line 1 column 1");
    insta::assert_snapshot!(role("session_policy: '{\"a\": 1, \"a\": 2}'"), @"`session_policy` is none: found member `a` twice in one object");
    insta::assert_snapshot!(role("policy_arns: ['arn:aws:s3:::bucket']"), @"`policy_arns` names `arn:aws:s3:::bucket`, expected `arn:aws:iam::aws:policy/<name>` or one of an account");
    insta::assert_snapshot!(role("external_id: 4711-ab"), @"`external_id` without `identity: ambient`");
    insta::assert_snapshot!(role("tags: { 'aws:team': sub, Team: sub, team: sub }"), @r"
    tag `aws:team` has a name that AWS does not take
    tag `team` differs from another only in case
    ");
    insta::assert_snapshot!(role("tags: { team: cambio.team }, transitive_tags: [unit]"), @r"
    `cambio.team` is no claim and nothing of ours
    `transitive_tags` names `unit`, which is none of `tags`
    ");
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
