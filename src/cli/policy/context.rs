//! What policies are judged against: a configuration, or without one what they name themselves.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use serde_json::Value;

use crate::{
    cli::{Failure, config},
    grant::{IssuerName, RoleName, TargetName},
    policy::{Context, Source},
    subject::{Claims, Preset, provider},
    target::{Expiry, Role, Target, Targets},
    yaml::{self, Node, Shape},
};

/// The environment of targets that nobody configured.
const ENVIRONMENT: &str = "unconfigured";

/// The context of `config`; without one, all presets under their own names, and every (target, role) that `sources` grant.
///
/// What needs a configuration (who may grant what, ceilings) is then not checked; the caller says so.
pub(super) fn of(config: Option<&Path>, sources: &[Source]) -> Result<Context, Failure> {
    if let Some(file) = config {
        let config = config::load(file)?;
        let targets = config.targets().map_err(Failure::usage)?;
        return Ok(Context {
            targets: Arc::new(targets),
            issuers: config.policy_context(),
            environment: config.environment,
        });
    }
    let mut named: BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)> = BTreeMap::new();
    for source in sources {
        // Files that are no YAML are told of by the compiler.
        let Ok(document) = yaml::read(&source.name, &source.text, &Shape::Any) else { continue };
        let rules = document.root.find("rules").map(Node::elements).unwrap_or_default();
        let grants = rules.iter().filter_map(|rule| rule.find("grants")).flat_map(Node::elements);
        for grant in grants {
            let text = |key| grant.find(key).and_then(Node::text);
            if let (Some(target), Some(role)) = (text("target"), text("role")) {
                let (powers, files) = named.entry(target.to_owned()).or_default();
                powers.insert(role.to_owned());
                files.insert(source.name.clone());
            }
        }
    }
    let targets =
        Targets::of(named.into_iter().map(|(name, (roles, files))| assumed(name, roles, files)));
    Ok(Context {
        targets: Arc::new(targets.map_err(Failure::usage)?),
        issuers: presets(),
        environment: ENVIRONMENT.to_owned(),
    })
}

fn assumed(name: String, roles: BTreeSet<String>, granted_by: BTreeSet<String>) -> Target {
    let kind = name.split('/').next().unwrap_or_default().to_owned();
    Target {
        name: TargetName::from(name),
        kind,
        aliases: BTreeSet::new(),
        environment: ENVIRONMENT.to_owned(),
        roles: roles.into_iter().map(|role| (RoleName::from(role), Role::default())).collect(),
        granted_by,
        expiry: Expiry::Exact { floor: Duration::from_secs(1), ceiling: Duration::from_hours(24) },
    }
}

fn presets() -> BTreeMap<IssuerName, &'static Preset> {
    provider::ALL.into_iter().map(|preset| (IssuerName::from(preset.name), preset)).collect()
}

/// The issuers that a token may be of.
#[derive(Debug)]
pub(super) struct Known {
    by_name: BTreeMap<IssuerName, &'static Preset>,
    by_url: BTreeMap<String, IssuerName>,
}

/// The issuers of `config`; without one, all presets under their own names.
pub(super) fn issuers(config: Option<&Path>) -> Result<Known, Failure> {
    let Some(file) = config else {
        return Ok(Known { by_name: presets(), by_url: BTreeMap::new() });
    };
    let config = config::load(file)?;
    let url = |issuer: &crate::config::IssuerConfig| {
        (issuer.issuer.as_str().to_owned(), issuer.name.clone())
    };
    Ok(Known { by_name: config.policy_context(), by_url: config.issuers.iter().map(url).collect() })
}

impl Known {
    /// The issuer called `name`; else that of the claims' `iss`; else the provider that they look like.
    pub(super) fn of(
        &self,
        claims: &Claims,
        name: Option<&str>,
    ) -> Result<(IssuerName, &'static Preset), Failure> {
        let by_url = || self.by_url.get(claims.get("iss")?.as_str()?).cloned();
        let name = match name {
            Some(name) => IssuerName::from(name),
            None => by_url().unwrap_or_else(|| IssuerName::from(guess(claims))),
        };
        if let Some(preset) = self.by_name.get(&name) {
            return Ok((name, preset));
        }
        let all: Vec<&str> = self.by_name.keys().map(IssuerName::as_str).collect();
        Err(Failure::usage(format!("there is no issuer `{name}`"))
            .hint(format_args!("name one with `--issuer`: {}", all.join(", "))))
    }
}

/// The provider whose tokens have such an `iss`, or such claims.
pub(super) fn guess(claims: &Claims) -> &'static str {
    let issuer = claims.get("iss").and_then(Value::as_str);
    if let Some(preset) = issuer.and_then(provider::platform::of_issuer) {
        return preset.name;
    }
    let has = |name: &str| claims.get(name).is_some_and(|value| !matches!(value, Value::Null));
    if has("kubernetes.io") {
        "kubernetes"
    } else if has("repository_owner_id") || has("job_workflow_ref") {
        "github"
    } else if has("namespace_id") || has("project_path") {
        "gitlab"
    } else if has("terraform_workspace_id") {
        "terraform"
    } else if has("callerType") {
        "spacelift"
    } else if has("workflow_ref") {
        "forgejo"
    } else if claims
        .get("sub")
        .and_then(Value::as_str)
        .is_some_and(|sub| sub.starts_with("spiffe://"))
    {
        "spiffe"
    } else {
        "generic"
    }
}
