//! Targets of kind `postgres`: what is read, and what is refused before a server hears of it.

use std::{path::Path, time::Duration};

use cambio::{
    config::{Config, ServerTls, TargetKind},
    mint::sql::Placeholder,
    target::Expiry,
};

use super::{lines, said_of, with};

const TARGET: &str = r"  - name: postgres/orders
    kind: postgres
    environment: prod
    host: db.example.com
    user: cambio
    password_file: db-password
    roles:
      read: { database: orders, member_of: [app_read] }
    granted_by: [orders.yaml]
policies: {";

/// The valid configuration with [`TARGET`] in it, in which `from` is `to`.
fn changed(from: &str, to: &str) -> String {
    assert_eq!(TARGET.matches(from).count(), 1, "{from}");
    with("policies: {", &TARGET.replacen(from, to, 1))
}

fn read(text: &str) -> Config {
    let judged = Config::parse("cambio.yaml", text, Path::new("/etc/cambio"));
    judged.map_err(|problems| lines(&problems)).unwrap().0
}

#[test]
fn what_a_postgres_target_leaves_out_is_safe() {
    let config = read(&changed("host", "host"));
    let target = config.targets.last().unwrap();
    let (floor, ceiling) = (Duration::from_secs(1), Duration::from_hours(1));
    assert_eq!(target.expiry(), Expiry::Exact { floor, ceiling });
    let TargetKind::Postgres(it) = &target.kind else { panic!("{target:?}") };
    assert_eq!(it.server.tls, ServerTls::VerifyFull { ca_file: None });
    assert_eq!((it.server.port, it.server.bounds.connections), (5432, 4));
    assert_eq!(it.server.password_file, Path::new("/etc/cambio/db-password"));
    assert_eq!((it.maintenance_database.as_str(), &it.databases), ("postgres", &None));
    assert_eq!(it.owner, None);
    let role = it.roles.values().next().unwrap();
    assert_eq!((role.connection_limit, role.create.len(), role.revoke.len()), (5, 0, 0));
}

#[test]
fn an_operators_statements_are_read_with_their_placeholders() {
    let statements = r#"statements: { create: ["CREATE ROLE {{name}} LOGIN"], revoke: ["REVOKE x FROM {{name}};"] }"#;
    let config = read(&changed("member_of: [app_read]", statements));
    let TargetKind::Postgres(it) = &config.targets.last().unwrap().kind else { panic!("no kind") };
    let role = it.roles.values().next().unwrap();
    assert!(role.create[0].has(Placeholder::Name) && role.member_of.is_empty());
    assert_eq!(role.revoke[0].to_string(), "REVOKE x FROM {{name}}");
}

#[test]
fn b01_what_a_server_could_read_otherwise_is_refused_at_load_with_its_line() {
    let member = "member_of: [app_read]";
    let long = format!("member_of: [{}]", "x".repeat(64));
    let refused = [
        (
            "member_of: [app_read]",
            "connection_limit: 2",
            "the role has no `member_of`, expected a group role",
        ),
        (member, &long, "expected 1 to 63 bytes without control characters"),
        (member, r#"member_of: ["a\0b"]"#, r"`member_of` is `a\0b`, expected 1 to 63 bytes"),
        (
            member,
            r#"statements: { create: ["CREATE ROLE '{{name}}'"] }"#,
            "`create`: line 1 of the statement: a placeholder inside quotes",
        ),
        (
            member,
            r#"statements: { create: ["DO $$ {{name}} $$"] }"#,
            "a placeholder inside a dollar quote",
        ),
        (
            member,
            r#"statements: { create: ["CREATE -- {{name}}"] }"#,
            "a placeholder inside a comment",
        ),
        (
            member,
            r#"statements: { create: ["CREATE ROLE {{user}}"] }"#,
            "`{{user}}` is no placeholder",
        ),
        (
            member,
            r#"statements: { create: ["CREATE ROLE {{name}}; SELECT 1"] }"#,
            "more than one statement",
        ),
        (
            member,
            r#"statements: { create: ["SELECT 1"] }"#,
            "no statement of `create` has `{{name}}`",
        ),
        (
            member,
            r#"member_of: [a], statements: { revoke: ["SELECT {{password}}"] }"#,
            "`{{password}}` in a `revoke`",
        ),
        (
            member,
            r#"member_of: [a], statements: { revoke: ["COMMIT"] }"#,
            "`COMMIT` moves the transaction",
        ),
        (
            "host: db.example.com",
            "host: db.example.com\n    tls: dangerously_plain",
            "would be reached without TLS",
        ),
        ("database: orders, ", "", "`database`"),
    ];
    for (from, to, wanted) in refused {
        let said = said_of(&changed(from, to));
        assert!(said.contains(wanted), "{to}\n{said}");
        assert!(said.starts_with("cambio.yaml:") && said.contains("\n  hint: "), "{said}");
    }
}

/// A target without an `audience` does not switch off what is checked of others.
#[test]
fn a_postgres_target_leaves_the_check_of_audiences_alone() {
    let text = changed("host", "host")
        .replace("introspect:https://orders.example.com", "introspect:nobody");
    assert!(said_of(&text).contains("no target of kind `jwt` has this audience"));
}
