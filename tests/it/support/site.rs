//! Everything that a configuration names: files, issuers with pinned keys, and the tokens of their workloads.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use cambio::{
    chance::{Chance as _, SystemChance},
    config::Config,
};
use serde_json::json;
use tempfile::TempDir;

use super::{
    issuer::FakeIssuer,
    token::{AUDIENCE, TokenBuilder},
};

/// Who the brokers of the tests are.
pub(crate) const OURS: &str = "https://cambio.example";
/// What the target `jwt/orders` is called by callers.
pub(crate) const ORDERS: &str = "https://orders.example";

const CONFIG: &str = r"
version: 1
environment: test
issuer: https://cambio.example
data: data
issuers:
  - name: github
    provider: github
    audience: https://cambio.example
    algorithms: [ES256]
    leeway: 60s
    keys: { pinned: { file: github.json } }
  - name: gitlab
    provider: gitlab
    audience: https://cambio.example
    algorithms: [ES256]
    keys: { pinned: { file: gitlab.json } }
  - name: cluster
    provider: kubernetes
    issuer: https://cluster.example
    audience: https://cambio.example
    algorithms: [ES256]
    keys: { pinned: { file: cluster.json } }
targets:
  - name: jwt/orders
    kind: jwt
    audience: https://orders.example
    aliases: [urn:example:orders]
    environment: test
    roles:
      read: { scope: [orders.read] }
      write: { scope: [orders.read, orders.write], claims: { repository: repository, commit: sha } }
    granted_by: [orders.yaml]
    ceiling: 30m
  - name: jwt/billing
    kind: jwt
    audience: https://billing.example
    environment: test
    roles: { read: {} }
    granted_by: [orders.yaml]
    ceiling: 30m
    token_type: JWT
  - name: cambio
    kind: cambio
    environment: test
    roles: { introspect:https://orders.example: {}, ledger.read: {} }
    granted_by: [platform.yaml]
    ceiling: 15m
policies: { directory: policies, watch: false }
ledger: { origin: cambio.example/test, anchors: [{ file: anchor.note }] }
keys: { key_file: kek, sign_for: 2h, verifier_cache: 1h }
listen: { public: 127.0.0.1:0, operations: 127.0.0.1:0 }
tls: none
limits:
  per_address: { per_second: 100000, burst: 1000000 }
  per_subject: { per_second: 100000, burst: 1000000 }
  in_flight: 4096
";

/// The rules that every broker of the tests begins with.
pub(crate) const ORDERS_YAML: &str = r#"
version: 1
rules:
  - id: deploy
    issuer: github
    when:
      repository_id: "1296269"
      ref: refs/heads/main
      event_name: push
    grants: [{ target: jwt/orders, role: write, lifetime: 15m }]
  - id: check
    issuer: github
    when: { repository_id: "1296269", event_name: [push, pull_request] }
    grants: [{ target: jwt/orders, role: read, lifetime: 5m }]
  - id: again
    issuer: github
    when: { repository_id: "4242", event_name: push }
    grants: [{ target: jwt/orders, role: read, lifetime: 5m }]
    replay: reusable
  - id: bill
    issuer: github
    when: { repository_id: "777", event_name: push }
    grants: [{ target: jwt/billing, role: read, lifetime: 5m }]
  - id: job
    issuer: gitlab
    when: { project_id: "20", pipeline_source: push }
    grants: [{ target: jwt/orders, role: read, lifetime: 15m }]
  - id: worker
    issuer: cluster
    when: { namespace: shop, service_account: worker }
    grants: [{ target: jwt/orders, role: read, lifetime: 15m, subject: "orders:worker" }]
    bounded_by_subject: true
"#;

const PLATFORM_YAML: &str = r"
version: 1
rules:
  - id: gateway
    issuer: cluster
    when: { namespace: platform, service_account: gateway }
    grants: [{ target: cambio, role: introspect:https://orders.example, lifetime: 10m }]
  - id: auditor
    issuer: cluster
    when: { namespace: platform, service_account: auditor }
    grants: [{ target: cambio, role: ledger.read, lifetime: 10m }]
";

/// A directory with everything that a configuration names, and the issuers whose keys it pins.
#[derive(Debug)]
pub(crate) struct Site {
    folder: TempDir,
    pub(crate) github: FakeIssuer,
    pub(crate) gitlab: FakeIssuer,
    pub(crate) cluster: FakeIssuer,
}

impl Site {
    pub(crate) fn new() -> Self {
        let site = Self {
            folder: tempfile::tempdir().unwrap(),
            github: FakeIssuer::at("https://token.actions.githubusercontent.com"),
            gitlab: FakeIssuer::at("https://gitlab.com"),
            cluster: FakeIssuer::at("https://cluster.example"),
        };
        fs::create_dir(site.path("data")).unwrap();
        fs::set_permissions(site.path("data"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::create_dir(site.path("policies")).unwrap();
        site.write("cambio.yaml", CONFIG);
        site.write("policies/orders.yaml", ORDERS_YAML);
        site.write("policies/platform.yaml", PLATFORM_YAML);
        site.write("github.json", &site.github.jwks().to_string());
        site.write("gitlab.json", &site.gitlab.jwks().to_string());
        site.write("cluster.json", &site.cluster.jwks().to_string());
        let mut kek = [0; 32];
        SystemChance.fill(&mut kek).unwrap();
        site.write("kek", &URL_SAFE_NO_PAD.encode(kek));
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file that only its owner may read.
    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Replaces a text, which must be there, in a file.
    #[track_caller]
    pub(crate) fn edit(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(from), "`{name}` does not hold `{from}`");
        self.write(name, &text.replace(from, to));
    }

    #[track_caller]
    pub(crate) fn config(&self) -> Config {
        match Config::read(&self.path("cambio.yaml")) {
            Ok((config, _)) => config,
            Err(problems) => panic!("{problems:#?}"),
        }
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path("data/cambio.db")
    }

    /// A job on the main branch of repository 1296269.
    pub(crate) fn job(&self) -> TokenBuilder<'_> {
        self.github.token().github()
    }

    /// A GitLab job of project 20.
    pub(crate) fn gitlab_job(&self) -> TokenBuilder<'_> {
        self.gitlab.token().claims(json!({
            "sub": "project_path:acme/orders:ref_type:branch:ref:main",
            "namespace_id": "72",
            "namespace_path": "acme",
            "project_id": "20",
            "project_path": "acme/orders",
            "user_id": "42",
            "user_login": "ada",
            "user_email": "ada@example.com",
            "pipeline_id": "1000",
            "pipeline_source": "push",
            "job_id": "2000",
            "ref": "main",
            "ref_type": "branch",
            "ref_path": "refs/heads/main",
            "ref_protected": "true",
            "runner_id": 7,
            "runner_environment": "gitlab-hosted",
            "environment": null,
            "sha": "1d2c3b4a5f6e7d8c9b0a1d2c3b4a5f6e7d8c9b0a",
        }))
    }

    /// A pod of service account `account` in `namespace`.
    pub(crate) fn pod(&self, namespace: &str, account: &str) -> TokenBuilder<'_> {
        self.cluster.token().claims(json!({
            "sub": format!("system:serviceaccount:{namespace}:{account}"),
            "aud": [AUDIENCE],
            "kubernetes.io": {
                "namespace": namespace,
                "node": { "name": "node-1", "uid": "5b2f9a30-2d0c-4a7b-8f2e-1c9d0e7a6b51" },
                "pod": { "name": "pod-7d", "uid": "9d0e7a6b-51c9-4d0e-9a6b-511c9d0e7a6b" },
                "serviceaccount": { "name": account, "uid": "3f2b8c1e-55d4-4a0e-9f57-7e1c0d9a6b42" },
            },
        }))
    }
}
