//! Claims as the real platforms send them: the same names, types and grammar of `sub`, about invented workloads.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::{Map, Value, json};

use super::Platform;
use crate::clock::Instant;

/// The namespace of the invented pod.
pub const NAMESPACE: &str = "shop";
/// The service account of the invented pod.
pub const SERVICE_ACCOUNT: &str = "checkout";

/// What a token should be. The default is a token that the platform would really hand out, for no audience.
#[derive(Clone, Debug, Default)]
pub struct TokenWish {
    /// `aud`: one string for GitHub and GitLab where it is one, a list for Kubernetes.
    pub audience: Vec<String>,
    /// Claims that differ from the invented workload's. What follows from them (`sub`, `ref_type` …) follows.
    pub claims: BTreeMap<String, Value>,
    /// Claims to leave out at the very end.
    pub without: BTreeSet<String>,
    /// GitHub's `sub` with the ids in it (repositories made or renamed after 15 July 2026) instead of the name form.
    pub immutable_sub: bool,
    /// `exp − iat`; the platform's own where none is wished.
    pub lifetime: Option<Duration>,
}

impl TokenWish {
    /// The platform's token for `audience`.
    #[must_use]
    pub fn for_audience(audience: &str) -> Self {
        Self { audience: vec![audience.to_owned()], ..Self::default() }
    }

    /// With claim `name` as the string `value`.
    #[must_use]
    pub fn claim(mut self, name: &str, value: &str) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }
}

/// All claims but `iss` and `jti`, unless those are wished for.
pub(super) fn of(platform: Platform, wish: &TokenWish, now: Instant) -> Map<String, Value> {
    // An API server stretches exactly this lifetime to a year, for old clients that never re-read their token.
    let stretched = platform == Platform::Kubernetes && wish.lifetime == Some(WARN_AFTER);
    let draft = Draft { claims: wish.claims.clone().into_iter().collect() };
    let mut draft = match platform {
        Platform::GitHub => github(draft, wish.immutable_sub),
        Platform::GitLab => gitlab(draft),
        Platform::Kubernetes => kubernetes(draft, stretched, now),
    };
    let (lifetime, before) = match platform {
        // GitHub's `nbf` may lie ten minutes before `iat`; GitLab's is five seconds before.
        Platform::GitHub => (Duration::from_mins(5), Duration::from_mins(10)),
        Platform::GitLab => (HOUR, Duration::from_secs(5)),
        Platform::Kubernetes => (HOUR, Duration::ZERO),
    };
    draft.or("iat", now.seconds());
    draft.or("nbf", now.minus(before).seconds());
    let lifetime = if stretched { YEAR } else { wish.lifetime.unwrap_or(lifetime) };
    draft.or("exp", now.plus(lifetime).seconds());
    draft.or("aud", audience(platform, &wish.audience));
    draft.claims
}

const HOUR: Duration = Duration::from_hours(1);
const WARN_AFTER: Duration = Duration::from_secs(3607);
const YEAR: Duration = Duration::from_hours(365 * 24);

fn audience(platform: Platform, wished: &[String]) -> Value {
    match (platform, wished) {
        (Platform::GitHub | Platform::GitLab, [only]) => only.as_str().into(),
        (_, several) => several.into(),
    }
}

/// Claims wished for, filled up with those that were not: a wish always wins.
struct Draft {
    claims: Map<String, Value>,
}

impl Draft {
    fn or(&mut self, name: &str, value: impl Into<Value>) {
        self.claims.entry(name).or_insert_with(|| value.into());
    }

    fn all(&mut self, defaults: &[(&str, &str)]) {
        for (name, value) in defaults {
            self.or(name, *value);
        }
    }

    fn text(&self, name: &str) -> String {
        self.claims.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    }
}

const COMMIT: &str = "8f1c2a7be0d94b6fa3c5d1e27b80946ac3f5e211";

/// Every value is a string, numbers and booleans too; `environment` is absent where the job has none.
fn github(mut draft: Draft, immutable: bool) -> Draft {
    draft.all(&[("event_name", "push"), ("repository", "acme/shop")]);
    if draft.text("event_name") == "pull_request" {
        draft.all(&[
            ("ref", "refs/pull/7/merge"),
            ("head_ref", "patch-1"),
            ("base_ref", "main"),
            ("ref_type", "branch"),
            ("ref_protected", "false"),
            ("actor", "stranger"),
            ("actor_id", "20222023"),
        ]);
    }
    draft.all(&[("ref", "refs/heads/main"), ("head_ref", ""), ("base_ref", "")]);
    let (repository, git_ref) = (draft.text("repository"), draft.text("ref"));
    let owner = repository.split('/').next().unwrap_or_default();
    let tag = git_ref.starts_with("refs/tags/");
    draft.or("ref_type", if tag { "tag" } else { "branch" });
    draft.or("ref_protected", if git_ref == "refs/heads/main" { "true" } else { "false" });
    draft.or("repository_owner", owner);
    draft.all(&[
        ("repository_id", "1296269"),
        ("repository_owner_id", "9919"),
        ("repository_visibility", "private"),
        ("actor", "octocat"),
        ("actor_id", "583231"),
        ("run_id", "16543210987"),
        ("run_number", "10"),
        ("run_attempt", "2"),
        ("check_run_id", "46782341223"),
        ("runner_environment", "github-hosted"),
        ("workflow", "deploy"),
        ("sha", COMMIT),
        ("workflow_sha", COMMIT),
        ("job_workflow_sha", COMMIT),
    ]);
    let workflow = format!("{repository}/.github/workflows/deploy.yml@{git_ref}");
    draft.or("workflow_ref", workflow.as_str());
    draft.or("job_workflow_ref", workflow);
    let sub = github_sub(&draft, immutable);
    draft.or("sub", sub);
    draft
}

/// `repo:<owner>/<repo>:<context>`, or `repo:<owner>@<owner id>/<repo>@<id>:<context>` (providers, GitHub).
fn github_sub(draft: &Draft, immutable: bool) -> String {
    let repository = draft.text("repository");
    let context = if draft.claims.contains_key("environment") {
        // `:` in a value is escaped, so that it can't forge a segment.
        format!("environment:{}", draft.text("environment").replace(':', "%3A"))
    } else if draft.text("event_name") == "pull_request" {
        "pull_request".to_owned()
    } else {
        format!("ref:{}", draft.text("ref"))
    };
    match repository.split_once('/') {
        Some((owner, name)) if immutable => {
            let (owner_id, id) = (draft.text("repository_owner_id"), draft.text("repository_id"));
            format!("repo:{owner}@{owner_id}/{name}@{id}:{context}")
        }
        _ => format!("repo:{repository}:{context}"),
    }
}

/// Booleans are strings, `runner_id` is a number, `ci_config_*` may be null.
fn gitlab(mut draft: Draft) -> Draft {
    draft.all(&[("project_path", "acme/shop"), ("ref", "main"), ("ref_type", "branch")]);
    let (path, git_ref, kind) =
        (draft.text("project_path"), draft.text("ref"), draft.text("ref_type"));
    let namespace = path.rsplit_once('/').map_or("", |(namespace, _)| namespace);
    draft.or("namespace_path", namespace);
    let folder = if kind == "tag" { "tags" } else { "heads" };
    let ref_path = format!("refs/{folder}/{git_ref}");
    draft.or("ci_config_ref_uri", format!("gitlab.example/{path}//.gitlab-ci.yml@{ref_path}"));
    draft.or("ref_path", ref_path);
    draft.or("ref_protected", if git_ref == "main" { "true" } else { "false" });
    draft.all(&[
        ("namespace_id", "72"),
        ("project_id", "20"),
        ("user_id", "1"),
        ("user_login", "octavia"),
        ("user_email", "octavia@acme.example"),
        ("user_access_level", "developer"),
        ("pipeline_id", "574"),
        ("pipeline_source", "push"),
        ("job_id", "302"),
        ("runner_environment", "gitlab-hosted"),
        ("sha", COMMIT),
        ("project_visibility", "private"),
        ("ci_config_sha", COMMIT),
    ]);
    draft.or("runner_id", 1);
    draft.or("sub", format!("project_path:{path}:ref_type:{kind}:ref:{git_ref}"));
    draft
}

/// A pod-bound projected token. `warnafter` marks one that the API server stretched to a year.
fn kubernetes(mut draft: Draft, stretched: bool, now: Instant) -> Draft {
    let mut binding = json!({
        "namespace": NAMESPACE,
        "node": { "name": "node-1", "uid": "6f4c2b0a-7d11-4b53-9c39-0a1f2e3d4c5b" },
        "pod": { "name": "checkout-7d9c6b5f4-x2x8q", "uid": "9d3a5b1e-8c27-4f60-a1b2-c3d4e5f60718" },
        "serviceaccount": { "name": SERVICE_ACCOUNT, "uid": "2b7e1516-28ae-42a6-abf7-158809cf4f3c" },
    });
    if let (true, Some(members)) = (stretched, binding.as_object_mut()) {
        members.insert("warnafter".to_owned(), now.plus(WARN_AFTER).seconds().into());
    }
    draft.or("kubernetes.io", binding);
    let bound = draft.claims.get("kubernetes.io").cloned().unwrap_or_default();
    let text = |pointer| bound.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (namespace, account) = (text("/namespace"), text("/serviceaccount/name"));
    draft.or("sub", format!("system:serviceaccount:{namespace}:{account}"));
    draft
}

/// The invented pod's `kubernetes.io`, under another namespace and service account.
pub(super) fn binding(namespace: &str, account: &str) -> Value {
    let mut draft = kubernetes(Draft { claims: Map::new() }, false, Instant::default());
    let mut binding = draft.claims.remove("kubernetes.io").unwrap_or_default();
    for (pointer, value) in [("/namespace", namespace), ("/serviceaccount/name", account)] {
        if let Some(place) = binding.pointer_mut(pointer) {
            *place = value.into();
        }
    }
    binding
}
