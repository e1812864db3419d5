//! What the configuration of such a target may say.

use std::{fs, path::Path, time::Duration};

use cambio::config::Config;

use super::bench;

/// What is said of the configuration of the tests with its first `from` replaced.
fn said(from: &str, to: &str) -> Vec<String> {
    let text = fs::read_to_string(bench::site().path("cambio.yaml")).unwrap();
    assert!(text.contains(from), "`{from}`");
    match Config::parse("cambio.yaml", &text.replacen(from, to, 1), Path::new("/etc/cambio")) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(|problem| problem.message.clone()).collect(),
    }
}

#[test]
fn g27_names_that_could_be_read_twice_and_waits_that_contradict_are_refused() {
    assert_eq!(said("x", "x"), Vec::<String>::new());
    for (from, to, words) in [
        ("{ common_name: orders_reader }", "{}", "role `reader` gives its certificates no name"),
        (
            "{ common_name: orders_reader }",
            "{ dns: [] }",
            "role `reader` gives its certificates no name",
        ),
        (
            "common_name: orders_reader",
            "common_name: \"a,CN=postgres\"",
            "`common_name`: found `a,CN=postgres`, expected 1 to 63",
        ),
        ("common_name: orders_reader", "common_name: \"{sub}\"", "`common_name`: found `{sub}`"),
        ("{repository_id}/{ref}", "repo-{repository_id}", "`spiffe_id`: found"),
        (
            "spiffe://test.example/github/{repository_id}/{ref}",
            "spiffe://test.example",
            "expected a path after the trust domain",
        ),
        ("job.test.example", "\"*.test.example\"", "`dns`: found `*.test.example`"),
        (
            "urn:example:tool",
            "spiffe://test.example/tool",
            "`uri`: found `spiffe://test.example/tool`",
        ),
        (
            "common_name: tool, uri",
            "spiffe_id: \"spiffe://a.example/b\", uri",
            "`uri` beside `spiffe_id`",
        ),
        ("bundle_cache: 1h", "bundle_cache: 3h", "found 7200 s, expected more than 10800 s"),
        ("require_csr: true", "require_csr: false", "`require_csr` is `false`, expected `true`"),
        ("common_name: tool", "scope: [x], common_name: tool", "`scope` is not a key of a role"),
        ("ceiling: 30m\n    sign_for", "ceiling: 2d\n    sign_for", "`ceiling` is `2d`"),
    ] {
        let found = said(from, to);
        assert!(found.iter().any(|said| said.contains(words)), "{to}: {found:#?}");
    }
}

#[test]
fn publish_before_sign_the_waits_of_a_ca_follow_from_its_own_target() {
    let config = bench::site().config();
    let schedules = config.keys.schedules(&config.targets).unwrap();
    let orders = &schedules.certificates()[&"x509/orders".into()];
    assert_eq!(orders.publish_before(), Duration::from_secs(3_600));
    assert_eq!(orders.window(), Duration::from_secs(1_800));
    assert_eq!(orders.keep_after(), Duration::from_secs(1_800 + 60 + 5));
    assert_eq!(schedules.tokens().window(), Duration::from_secs(1_800), "tokens have their own");
}
