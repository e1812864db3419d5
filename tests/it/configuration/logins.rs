//! Targets whose servers have logins: `mysql` and `redis`. What the documentation shows is what is read here.

use std::{fs, path::Path};

use cambio::{
    config::{Config, ServerTls, TargetKind},
    target::Expiry,
};

use super::{lines, with};

/// The target that the page shows.
fn shown(page: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/targets").join(page);
    let text = fs::read_to_string(path).unwrap();
    text.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap().to_owned()
}

fn parse(target: &str) -> Result<Config, String> {
    let text = with("policies: {", &format!("{target}policies: {{"));
    match Config::parse("cambio.yaml", &text, Path::new("/etc/cambio")) {
        Ok((config, warnings)) if warnings.is_empty() => Ok(config),
        Ok((_, warnings)) => Err(format!("warned: {}", lines(&warnings))),
        Err(problems) => Err(lines(&problems)),
    }
}

/// What is said of the shown target with its only `from` replaced.
fn said(page: &str, from: &str, to: &str) -> String {
    let shown = shown(page);
    assert_eq!(shown.matches(from).count(), 1, "`{from}` must stand in {page} exactly once");
    parse(&shown.replacen(from, to, 1)).err().unwrap_or_else(|| "nothing".to_owned())
}

#[test]
fn the_shown_mysql_is_read() {
    let config = parse(&shown("mysql.md")).unwrap();
    let target = config.targets.last().unwrap();
    assert!(matches!(target.expiry(), Expiry::ByBroker { ceiling } if ceiling.as_secs() == 1_800));
    let TargetKind::Mysql(mysql) = &target.kind else { panic!("{:?}", target.kind) };
    assert_eq!((mysql.server.port, mysql.server.bounds.connections, mysql.sessions), (3306, 4, 5));
    assert!(matches!(&mysql.server.tls, ServerTls::VerifyFull { ca_file: Some(_) }));
    assert!(mysql.require_tls);
    assert_eq!(mysql.from.as_str(), "%");
    assert_eq!(mysql.roles.len(), 2);
    assert_eq!(target.roles.len(), 2);
    let migrate = &mysql.roles[&"migrate".into()];
    assert_eq!((migrate.grants[0].privileges.len(), &migrate.grants[0].table), (8, &None));
}

#[test]
fn the_shown_redis_is_read() {
    let config = parse(&shown("redis.md")).unwrap();
    let target = config.targets.last().unwrap();
    assert!(matches!(target.expiry(), Expiry::ByBroker { .. }));
    let TargetKind::Redis(redis) = &target.kind else { panic!("{:?}", target.kind) };
    assert_eq!((redis.server.port, redis.database), (6379, 0));
    assert_eq!(
        redis.roles[&"worker".into()].rules(false).join(" "),
        "resetkeys resetchannels -@all ~orders:* &news +@read +@write +@pubsub -@scripting -@dangerous -@admin -function \
         -script|debug -script|flush -script|kill +ping +client|setname"
    );
}

/// INVARIANT(honest-expiry): nobody has such a target without having said that he knows.
#[test]
fn a_target_that_only_a_broker_ends_is_opted_into() {
    for page in ["mysql.md", "redis.md"] {
        let line = "    ends: by_broker                 # no broker, no end: say that you know\n";
        let without = said(page, line, "");
        assert!(without.contains("`ends` is missing in a target of kind"), "{without}");
        let other = said(page, "ends: by_broker", "ends: exact");
        assert!(other.contains("`ends` is `exact`, expected `by_broker`"), "{other}");
    }
}

#[test]
fn b01_a_name_that_could_be_more_than_a_name_is_refused() {
    let cases = [
        (
            "database: orders ",
            "database: \"or`ders\" ",
            "`database` is `or`ders`, expected 1 to 64 letters",
        ),
        ("database: orders ", "database: mysql ", "expected a database of yours"),
        (
            "{ database: orders, table: entries,",
            "{ database: Performance_Schema,",
            "expected a database of yours",
        ),
        ("table: entries", "table: \"a'b\"", "`table` is `a\\'b`, expected 1 to 64 letters"),
        ("# logins_from: \"10.1.%\"", "logins_from: \"10.1.%' \"", "`logins_from` is `10.1.%\\' `"),
    ];
    for (from, to, expected) in cases {
        let said = said("mysql.md", from, to);
        assert!(said.contains(expected), "{to}: {said}");
    }
}

#[test]
fn a_grant_that_would_outlive_its_login_or_means_nothing_is_refused() {
    let one = "{ database: orders, table: entries, privileges: [select] }";
    let cases = [
        ("privileges: [select]", "privileges: [all]", "`privileges` is `all`, expected `select`"),
        (
            "privileges: [select]",
            "privileges: [create_view]",
            "`privileges` is `create_view`, expected `select`",
        ),
        (
            "privileges: [select]",
            "privileges: [grant_option]",
            "`privileges` is `grant_option`, expected `select`",
        ),
        ("privileges: [select]", "privileges: []", "expected at least 1"),
        ("privileges: [select]", "privileges: [execute]", "`execute` on a table"),
        (one, "{ database: orders, privileges: [select], where: x }", "`where`"),
        ("# logins_need: tls  ", "logins_need: dangerously_nothing  ", "warned: "),
        ("password_file: secrets/mysql", "password: x", "`password`"),
        (
            "password_file: secrets/mysql",
            "password_file: secrets/mysql\n    logins_in_all: 20",
            "`logins_in_all` is 20, and one subject alone may hold 20: it can keep all others out",
        ),
    ];
    for (from, to, expected) in cases {
        let said = said("mysql.md", from, to);
        assert!(said.contains(expected), "{to}: {said}");
    }
    let none = parse(&shown("mysql.md").replace("      read:\n        grants:\n          - { database: orders, table: entries, privileges: [select] }\n", "      read: {}\n"));
    assert!(none.unwrap_err().contains("role `read` has neither `grants` nor `member_of`"));
}

#[test]
fn b07_a_rule_that_could_widen_a_login_is_refused() {
    for rule in [
        "+@all",
        "+@admin",
        "+@dangerous",
        "+@fast",
        "+acl",
        "+acl|setuser",
        "+config",
        "+client",
        "+client|kill",
        "+function|load",
        "+migrate",
        "allcommands",
        "+flushdb",
    ] {
        let said = said(
            "redis.md",
            "commands: [\"+@read\"]",
            &format!("commands: [\"+@read\", \"{rule}\"]"),
        );
        assert!(said.contains(rule), "{rule}: {said}");
    }
    for (from, to, expected) in [
        ("read_keys: [\"orders:*\"]", "read_keys: [\"a b\"]", "`read_keys` has `a b`"),
        ("channels: [\"news\"]", "channels: [\"n\\newuser\"]", "`channels` has `n\\newuser`"),
        ("commands: [\"+@read\"]", "commands: []", "expected at least 1"),
    ] {
        let said = said("redis.md", from, to);
        assert!(said.contains(expected), "{to}: {said}");
    }
}
