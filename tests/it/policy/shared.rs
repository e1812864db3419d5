//! What the policy tests share: a configuration, workloads with valid claims, a short way to a rule.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use cambio::{
    clock::Instant,
    grant::IssuerName,
    policy::{Context, Outcome, PolicySet, Source, Wants},
    subject::{Claims, Profile, provider},
    target::{Expiry, Role, Target, Targets},
};
use serde_json::{Value, json};

pub(super) const NOW: Instant = Instant::from_seconds(1_800_000_000);

fn role(scope: &[&str], claims: &[(&str, &str)]) -> Role {
    Role {
        scope: scope.iter().map(ToString::to_string).collect(),
        claims: claims.iter().map(|(to, from)| (to.to_string(), from.to_string())).collect(),
    }
}

fn target(name: &str, expiry: Expiry, roles: &[(&str, Role)]) -> Target {
    Target {
        name: name.into(),
        kind: name.split('/').next().unwrap().to_owned(),
        aliases: BTreeSet::from([format!("https://{name}.example")]),
        environment: "prod".to_owned(),
        roles: roles.iter().map(|(name, role)| ((*name).into(), role.clone())).collect(),
        granted_by: ["p.yaml", "q.yaml", "r.yaml"].map(str::to_owned).into(),
        expiry,
    }
}

pub(super) fn context() -> Context {
    let exact = Expiry::Exact { floor: Duration::from_mins(1), ceiling: Duration::from_hours(1) };
    let orders = target(
        "jwt/orders",
        exact,
        &[
            ("reader", role(&["orders:read", "orders:list"], &[])),
            ("deployer", role(&[], &[("repo", "repository"), ("file", "/job_workflow/path")])),
        ],
    );
    let billing =
        target("jwt/billing", exact, &[("writer", role(&[], &[])), ("reader", role(&[], &[]))]);
    let fixed =
        target("fixed/hour", Expiry::Fixed(Duration::from_hours(1)), &[("all", role(&[], &[]))]);
    let greedy = target("jwt/greedy", exact, &[("all", role(&[], &[("sub", "actor")]))]);
    let mut closed = target("jwt/closed", exact, &[("all", role(&[], &[]))]);
    closed.granted_by.clear();
    let mut dev = target("jwt/dev", exact, &[("all", role(&[], &[]))]);
    "dev".clone_into(&mut dev.environment);
    let targets = Targets::of([orders, billing, fixed, greedy, closed, dev]).unwrap();
    let issuers = ["github", "gitlab", "kubernetes", "generic"]
        .map(|name| (IssuerName::from(name), provider::find(name).unwrap()));
    Context {
        targets: Arc::new(targets),
        issuers: BTreeMap::from(issuers),
        environment: "prod".to_owned(),
    }
}

/// What GitHub signs for a push to main of repository 1296269.
pub(super) fn github() -> Value {
    json!({
        "iss": "https://token.actions.githubusercontent.com",
        "sub": "repo:acme/site:environment:production",
        "repository": "acme/site",
        "repository_id": "1296269",
        "repository_owner": "acme",
        "repository_owner_id": "9919",
        "environment": "production",
        "event_name": "push",
        "ref": "refs/heads/main",
        "ref_type": "branch",
        "ref_protected": "true",
        "head_ref": "",
        "runner_environment": "github-hosted",
        "job_workflow_ref": "acme/deploy/.github/workflows/ship.yml@refs/heads/main",
        "run_attempt": "2",
    })
}

pub(super) fn kubernetes() -> Value {
    json!({
        "iss": "https://cluster.example",
        "sub": "system:serviceaccount:payments:worker",
        "kubernetes.io": {
            "namespace": "payments",
            "serviceaccount": { "name": "worker", "uid": "0a1b2c3d" },
            "pod": { "name": "worker-7d", "uid": "4e5f" },
        },
    })
}

/// `claims` with some of them replaced, or removed by `null`.
pub(super) fn with(mut claims: Value, changes: Value) -> Value {
    let Value::Object(changes) = changes else { panic!("expected an object") };
    for (name, value) in changes {
        let members = claims.as_object_mut().unwrap();
        if value.is_null() {
            members.remove(&name);
        } else {
            members.insert(name, value);
        }
    }
    claims
}

pub(super) fn claims(value: &Value) -> Claims {
    value.as_object().unwrap().clone()
}

pub(super) fn profile(issuer: &str, value: &Value) -> Profile {
    Profile::of(issuer.into(), provider::find(issuer).unwrap(), claims(value)).unwrap()
}

/// A rule `id` for `issuer` with one line of `when`, granting `grants`, and further `lines`.
pub(super) fn rule(id: &str, issuer: &str, when: &str, grants: &str, lines: &str) -> String {
    format!("  - id: {id}\n    issuer: {issuer}\n    when: {when}\n    grants: {grants}\n{lines}")
}

pub(super) const ORDERS: &str = "[{ target: jwt/orders, role: deployer, lifetime: 15m }]";

pub(super) fn policy(rules: &str) -> String {
    format!("version: 1\nrules:\n{rules}")
}

pub(super) fn source(name: &str, text: &str) -> Source {
    Source { name: name.to_owned(), text: text.to_owned() }
}

pub(super) fn compile(texts: &[(&str, &str)]) -> PolicySet {
    let sources: Vec<Source> = texts.iter().map(|(name, text)| source(name, text)).collect();
    match PolicySet::compile(&sources, &context()) {
        Ok((set, _)) => set,
        Err(problems) => panic!("{}", lines(&problems)),
    }
}

/// A set with one rule `p/a` of GitHub.
pub(super) fn one(when: &str) -> PolicySet {
    compile(&[("p.yaml", &policy(&rule("a", "github", when, ORDERS, "")))])
}

pub(super) fn problems(text: &str) -> String {
    match PolicySet::compile(&[source("p.yaml", text)], &context()) {
        Ok(_) => "none".to_owned(),
        Err(problems) => lines(&problems),
    }
}

pub(super) fn lines<T: ToString>(all: &[T]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

pub(super) fn outcome(set: &PolicySet, issuer: &str, value: &Value, wants: &Wants) -> Outcome {
    set.explain(&profile(issuer, value), wants, NOW).outcome
}

/// The outcome for a workload of GitHub that asks for nothing in particular, as text.
pub(super) fn said(set: &PolicySet, value: &Value) -> String {
    outcome(set, "github", value, &Wants::default()).to_string()
}

pub(super) fn permits(set: &PolicySet, value: &Value) -> bool {
    matches!(outcome(set, "github", value, &Wants::default()), Outcome::Permit { .. })
}

pub(super) fn wants(target: &str, scope: &[&str]) -> Wants {
    Wants {
        targets: if target.is_empty() { Vec::new() } else { vec![target.to_owned()] },
        scope: scope.iter().map(ToString::to_string).collect(),
        lifetime: None,
    }
}
