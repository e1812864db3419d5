//! Tests of the configuration: what is refused and in which words, what is read, what is shipped.

mod agent;
mod broken;
mod files;
mod logins;
mod postgres;
mod read;
mod shipped;

use std::path::Path;

use cambio::config::Config;

/// A whole configuration, small and valid; each broken one is this with one thing changed.
const VALID: &str = r#"version: 1
environment: prod
issuer: https://cambio.example.com
data: state
issuers:
  - name: github
    provider: github
    audience: https://cambio.example.com
  - name: blue
    provider: kubernetes
    issuer: https://blue.example.com
    audience: https://cambio.example.com
    keys: { pinned: { file: blue.json } }
targets:
  - name: jwt/orders
    kind: jwt
    audience: https://orders.example.com
    environment: prod
    roles: { read: { scope: [orders.read] } }
    granted_by: [orders.yaml]
  - name: cambio
    kind: cambio
    environment: prod
    roles: { "introspect:https://orders.example.com": {}, admin: {} }
    granted_by: [platform.yaml]
policies: { directory: policies }
store: { sqlite: { path: state/cambio.db } }
ledger: { origin: cambio.example.com/prod, anchors: [{ file: anchor/note }] }
keys: { key_file: kek }
listen: { public: "127.0.0.1:8443" }
tls: none
"#;

/// [`VALID`] with its only `from` replaced.
fn with(from: &str, to: &str) -> String {
    assert_eq!(VALID.matches(from).count(), 1, "`{from}` must stand in VALID exactly once");
    VALID.replacen(from, to, 1)
}

/// What is said of `text`, without a look at the disk: problems, or else warnings.
fn said_of(text: &str) -> String {
    match Config::parse("cambio.yaml", text, Path::new("/etc/cambio")) {
        Ok((_, warnings)) if warnings.is_empty() => "nothing".to_owned(),
        Ok((_, warnings)) => format!("warned: {}", lines(&warnings)),
        Err(problems) => lines(&problems),
    }
}

fn lines(problems: &[cambio::yaml::Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
