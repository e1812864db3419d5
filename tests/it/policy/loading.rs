//! Directories, cases, digests, and what we ship.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc, time::Duration};

use cambio::{
    grant::IssuerName,
    policy::{
        Context, PolicySet, Wants,
        document::schema,
        load::{self, load},
    },
    subject::provider,
    target::{Expiry, Role, Target, Targets},
};
use insta::assert_snapshot;
use tempfile::TempDir;

use super::shared::{NOW, ORDERS, compile, context, github, lines, policy, rule, said, source};

fn written(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    directory
}

fn a() -> String {
    policy(&rule("a", "github", "{ repository_id: \"1296269\" }", ORDERS, ""))
}

/// The error of a load, with the directory's name taken out.
fn error(directory: &TempDir) -> String {
    let error = load(directory.path(), &context(), NOW).unwrap_err().to_string();
    error.replace(&directory.path().display().to_string(), "DIR")
}

#[test]
fn only_policy_files_are_read_and_in_one_order() {
    let directory = written(&[
        ("q.yaml", "version: 1\nrules: []\n"),
        ("p.yaml", &a()),
        (".p.yaml.swp", "x"),
        (".draft.yaml", "not: [a policy"),
        ("README.md", "x"),
        ("p.yaml.orig", "x"),
        ("tokens/nested.yaml", "x"),
    ]);
    let loaded = load(directory.path(), &context(), NOW).unwrap();
    let names: Vec<&str> = loaded.set.sources().iter().map(|source| source.name.as_str()).collect();
    assert_eq!(names, ["p.yaml", "q.yaml"]);
    assert_eq!((loaded.set.rule_count(), loaded.commit), (1, None));
}

/// Passed over in silence, a guardrail of such a name would guard nothing.
#[test]
fn a_policy_file_with_another_ending_is_refused_not_passed_over() {
    for name in ["guard.yml", "guard.YAML", "guard.Yml"] {
        let directory = written(&[("p.yaml", &a()), (name, "version: 1\nguardrails: []\n")]);
        let said = format!("`DIR/{name}` can't be read: the name of a policy file ends in `.yaml`");
        assert_eq!(error(&directory), said);
    }
    let draft = written(&[("p.yaml", &a()), (".guard.yml", "x"), ("guard.yml.orig", "x")]);
    assert!(load(draft.path(), &context(), NOW).is_ok());
}

#[test]
fn an_empty_directory_denies_everything_and_a_vanished_one_is_an_error() {
    let directory = written(&[]);
    let set = load(directory.path(), &context(), NOW).unwrap().set;
    assert_eq!(said(&set, &github()), "deny: no rule is pinned to this workload");
    let path = directory.path().join("gone");
    let error = load(&path, &context(), NOW).unwrap_err().to_string();
    assert_eq!(
        error.replace(&path.display().to_string(), "DIR"),
        "`DIR` can't be read: No such file or directory (os error 2)"
    );
    let file = written(&[("p.yaml/x", "")]);
    assert!(load(file.path(), &context(), NOW).is_err(), "a directory called like a policy");
}

#[test]
fn problems_are_told_with_the_path_of_the_file() {
    let directory = written(&[("p.yaml", &a().replace("github", "githbu"))]);
    assert_snapshot!(error(&directory), @r"
    DIR/p.yaml:4:13: issuer `githbu` is not one of the configuration
      hint: did you mean `github`?
    ");
    let bytes = written(&[]);
    fs::write(bytes.path().join("p.yaml"), [0xff, 0xfe]).unwrap();
    assert_snapshot!(error(&bytes), @"`DIR/p.yaml` can't be read: stream did not contain valid UTF-8");
}

#[test]
fn a_policy_whose_own_cases_fail_does_not_load() {
    let cases = "cases:\n  - { permit: a, token: github/a.json }\n  - { deny: true, token: github/a.json }\n  - { permit: a, token: github/gone.json }\n  - { permit: a, claims: { sub: x, repository_id: 5 } }\n  - { permit: a, token: github/a.json, wants: { target: jwt/billing } }\n  - { permit: a, token: github/a.json, wants: { lifetime: 1s } }\n";
    let directory =
        written(&[("p.yaml", &(a() + cases)), ("tokens/github/a.json", &github().to_string())]);
    assert_snapshot!(error(&directory), @r"
    FAIL  DIR/p.yaml:9  deny: github/a.json
          permit: `jwt/orders` as `deployer` for 900 s, once, by `p/a`
    FAIL  DIR/p.yaml:10  permit p/a: github/gone.json
          `tokens/github/gone.json` is not there
    FAIL  DIR/p.yaml:11  permit p/a: claims as written
          no such token can come: claim `repository_id`: found a number, expected text of decimal digits
    FAIL  DIR/p.yaml:12  permit p/a: github/a.json
          deny: target `jwt/billing` is not granted
    FAIL  DIR/p.yaml:13  permit p/a: github/a.json
          deny: lifetime of 1 s is shorter than the target can keep, which is 60 s
    ");
    let twice = written(&[
        ("p.yaml", &(a() + "cases: [{ permit: a, token: a.json }]\n")),
        ("tokens/a.json", "{\"sub\": 1, \"sub\": 2}"),
    ]);
    assert!(error(&twice).starts_with("`DIR/tokens/a.json` can't be read: "));
}

#[test]
fn cases_are_checked_as_they_are_written() {
    let cases = "cases:\n  - { permit: a, deny: true, token: a.json }\n  - { permit: a }\n  - { permit: a, token: ../../etc/passwd.json }\n  - { permit: a, token: /etc/passwd.json }\n  - { permit: b, token: a.json }\n  - { deny: true, issuer: githb, token: a.json }\n  - { permit: a, claims: { sub: 1.5 } }\n";
    assert_snapshot!(super::shared::problems(&(a() + cases)), @r"
    p.yaml:8:5: a case says either `permit` or `deny`
    p.yaml:9:5: a case has either `token` or `claims`
    p.yaml:10:25: token is not a `.json` file inside the folder `tokens`
    p.yaml:11:25: token is not a `.json` file inside the folder `tokens`
    p.yaml:12:15: rule `b` is not one of this file
      hint: rules are `a`
    p.yaml:13:27: whose token it is can't be told
      hint: issuers are `generic`, `github`, `gitlab`, `kubernetes`
    p.yaml:14:33: claims have no fractions, and their numbers fit in 64 bits
    ");
}

#[test]
fn the_digest_is_over_names_lengths_and_bytes() {
    let digest = |files: &[(&str, &str)]| compile(files).digest();
    let empty = "version: 1\nrules: []\n";
    let first = digest(&[("p.yaml", &a()), ("q.yaml", empty)]);
    assert_eq!(first, digest(&[("q.yaml", empty), ("p.yaml", &a())]));
    assert_ne!(first, digest(&[("p.yaml", &a()), ("r.yaml", empty)]));
    assert_ne!(first, digest(&[("p.yaml", &a()), ("q.yaml", "version: 1\nrules: []\n\n")]));
    let sources = [source("p.yaml", &a()), source("p.yaml", &a())];
    assert_snapshot!(lines(&PolicySet::compile(&sources, &context()).unwrap_err()), @"p.yaml:1:1: two files have this name");
    let sources = [source("P Q.yaml", &a())];
    assert_snapshot!(lines(&PolicySet::compile(&sources, &context()).unwrap_err()), @r"
    P Q.yaml:1:1: file name `P Q.yaml` is not letters, digits, `-`, `_`, `.` and then `.yaml`
    P Q.yaml:6:24: target `jwt/orders` may not be granted by `P Q.yaml`
      hint: whoever runs the broker can list `P Q.yaml` under `granted_by` of the target
    ");
}

#[test]
fn the_commit_is_read_without_running_git() {
    let id = "0123456789abcdef0123456789abcdef01234567";
    let commit = |files: &[(&str, &str)]| {
        let directory = written(files);
        fs::create_dir_all(directory.path().join("policies")).unwrap();
        load(&directory.path().join("policies"), &context(), NOW).unwrap().commit
    };
    assert_eq!(commit(&[(".git/HEAD", &format!("{id}\n"))]).as_deref(), Some(id));
    assert_eq!(
        commit(&[
            (".git/HEAD", "ref: refs/heads/main\n"),
            (".git/refs/heads/main", &format!("{id}\n"))
        ])
        .as_deref(),
        Some(id)
    );
    assert_eq!(
        commit(&[
            (".git/HEAD", "ref: refs/heads/main\n"),
            (".git/packed-refs", &format!("# pack\n{id} refs/heads/main\n"))
        ])
        .as_deref(),
        Some(id)
    );
    assert_eq!(commit(&[(".git/HEAD", "ref: refs/heads/none\n")]), None);
    assert_eq!(commit(&[(".git/HEAD", "x")]), None);
}

/// The part of `cambio dev`'s configuration that the shipped policies are written for.
fn sandbox() -> Context {
    let expiry = Expiry::Exact { floor: Duration::from_mins(1), ceiling: Duration::from_hours(1) };
    let orders = Target {
        name: "jwt/orders".into(),
        kind: "jwt".to_owned(),
        aliases: [].into(),
        environment: "dev".to_owned(),
        roles: [("reader".into(), Role::default()), ("deployer".into(), Role::default())].into(),
        granted_by: ["github.yaml", "gitlab.yaml", "kubernetes.yaml"].map(str::to_owned).into(),
        expiry,
    };
    Context {
        targets: Arc::new(Targets::of([orders]).unwrap()),
        issuers: ["github", "gitlab", "kubernetes"]
            .map(|name| (IssuerName::from(name), provider::find(name).unwrap()))
            .into(),
        environment: "dev".to_owned(),
    }
}

fn shipped() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/trust-policies"))
}

#[test]
fn the_shipped_policies_load_without_a_warning_and_their_cases_pass() {
    let loaded = load(shipped(), &sandbox(), NOW).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(lines(&loaded.warnings), "");
    assert_snapshot!(lines(&loaded.cases).replace(&format!("{}/", shipped().display()), ""), @r"
    pass  github.yaml:45  permit github/deploy-production: github/push-main.json
    pass  github.yaml:46  permit github/read-in-checks: github/push-main.json
    pass  github.yaml:47  permit github/read-in-checks: github/pull-request-from-fork.json
    pass  github.yaml:48  deny: github/pull-request-from-fork.json
    pass  github.yaml:49  deny: github/pull-request-target.json
    pass  github.yaml:50  deny: github/recreated-repository.json
    pass  github.yaml:51  permit github/read-for-everybody: github/other-repository.json
    pass  gitlab.yaml:21  permit gitlab/deploy-production: gitlab/push-main.json
    pass  gitlab.yaml:22  deny: gitlab/merge-request-from-fork.json
    pass  gitlab.yaml:23  deny: claims as written
    pass  kubernetes.yaml:20  permit kubernetes/orders-worker: kubernetes/worker.json
    pass  kubernetes.yaml:21  deny: kubernetes/worker-recreated.json
    pass  kubernetes.yaml:22  deny: kubernetes/worker-without-pod.json
    ");
    let tokens = load::tokens(shipped(), &loaded.set).unwrap();
    let files = walk(&shipped().join("tokens"));
    assert_eq!(tokens.len(), files, "every file of claims is used by a case");
    // Broken once, a case tells: without its claims none passes that permits.
    let failed = loaded.set.run_cases(&BTreeMap::new(), NOW);
    assert!(failed.iter().filter(|case| case.passed).count() <= 1, "{}", lines(&failed));
    let stranger = loaded.set.explain(
        &super::shared::profile(
            "github",
            &super::shared::with(
                github(),
                serde_json::json!({ "repository_id": "2", "repository_owner_id": "2" }),
            ),
        ),
        &Wants::default(),
        NOW,
    );
    assert_eq!(stranger.outcome.to_string(), "deny: no rule is pinned to this workload");
}

fn walk(directory: &Path) -> usize {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| if path.is_dir() { walk(&path) } else { 1 })
        .sum()
}

/// Regenerate with `CAMBIO_GENERATE=1`.
#[test]
fn the_published_schema_is_the_one_that_the_reader_has() {
    let path = shipped().join("schema.json");
    if std::env::var_os("CAMBIO_GENERATE").is_some() {
        fs::write(&path, schema()).unwrap();
    }
    assert_eq!(fs::read_to_string(path).unwrap_or_default(), schema());
}
