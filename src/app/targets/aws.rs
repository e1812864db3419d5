//! From configured targets of kind `aws` to what gets their sessions.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc};

use super::Made;
use crate::{
    app::{
        Mode,
        scene::{Means, SceneError},
    },
    config::{
        Config, RdsConfig, RdsEngine, TargetConfig,
        aws::{
            AwsConfig, AwsIdentity, AwsRoleConfig, SESSION_NAME, SOURCE_IDENTITY, SessionPolicy,
            TAG, session_policy,
        },
    },
    mint::{
        aws::{
            AwsMinter, AwsRole, AwsTarget, Identity, Origin,
            examine::StsExaminer,
            sts::{Sts, StsAddress},
        },
        rds::{Database, Engine, RdsMinter},
    },
};

/// What looks at the STS of a target, without a signing key and without a role.
pub(super) fn examiner(
    config: &Config,
    target: &TargetConfig,
    aws: &AwsConfig,
) -> Result<StsExaminer, SceneError> {
    let (sts, identity) = sts(target, aws)?;
    Ok(StsExaminer::of(sts, identity, config.issuer.as_str().to_owned()))
}

fn failed(target: &TargetConfig, what: &dyn fmt::Display) -> SceneError {
    SceneError::Target(format!("target `{}`: {what}", target.name))
}

/// The client of the target's STS, and who asks it.
fn sts(target: &TargetConfig, aws: &AwsConfig) -> Result<(Arc<Sts>, Identity), SceneError> {
    let read = |path: &PathBuf| {
        let text = |error| failed(target, &format!("`{}`: {error}", path.display()));
        std::fs::read(path).map_err(text)
    };
    let roots = aws.ca_file.as_ref().map(read).transpose()?;
    let identity = match &aws.identity {
        AwsIdentity::WebIdentity { audience, algorithm } => {
            Identity::WebIdentity { audience: audience.clone(), algorithm: *algorithm }
        }
        AwsIdentity::Ambient => Identity::Ambient,
    };
    let address = StsAddress {
        region: aws.region.clone(),
        endpoint: aws.endpoint.as_ref().map(ToString::to_string),
        roots,
        ambient: identity == Identity::Ambient,
    };
    let sts = Sts::of(address).map_err(|error| failed(target, &error))?;
    Ok((Arc::new(sts), identity))
}

pub(super) fn maker(
    config: &Config,
    target: &TargetConfig,
    aws: &AwsConfig,
    means: &Means,
) -> Result<Made, SceneError> {
    let minter = minter(config, target, aws, means)?;
    Ok(Made { minter: Arc::new(minter), revoker: None })
}

/// Tokens are signed with sessions that nobody else gets.
pub(super) fn rds_maker(
    config: &Config,
    target: &TargetConfig,
    rds: &RdsConfig,
    means: &Means,
) -> Result<Made, SceneError> {
    let sessions = minter(config, target, &rds.sessions, means)?;
    let database = Database {
        engine: match rds.engine {
            RdsEngine::Postgres => Engine::Postgres,
            RdsEngine::Mysql => Engine::Mysql,
        },
        host: rds.host.clone(),
        port: rds.port,
        name: rds.database.clone(),
        region: rds.sessions.region.clone(),
        users: rds.users.clone(),
    };
    let minter = RdsMinter::of(sessions, database, Arc::clone(&means.clock));
    Ok(Made { minter: Arc::new(minter), revoker: None })
}

fn minter(
    config: &Config,
    target: &TargetConfig,
    aws: &AwsConfig,
    means: &Means,
) -> Result<AwsMinter, SceneError> {
    let plain = aws.endpoint.as_ref().is_some_and(|url| url.scheme() != "https");
    if plain && means.mode == Mode::Serve {
        let words = "`endpoint` is plain http, which exists in `cambio dev` alone";
        return Err(failed(target, &words));
    }
    let (sts, identity) = sts(target, aws)?;
    let mut roles = BTreeMap::new();
    for (name, configured) in &aws.roles {
        let role = role(configured);
        let role = role.map_err(|reason| failed(target, &format!("role `{name}`: {reason}")))?;
        roles.insert(name.clone(), role);
    }
    let issuer = config.issuer.clone();
    let target = AwsTarget {
        name: target.name.clone(),
        issuer,
        identity,
        roles,
        floor: target.floor,
        ceiling: target.ceiling,
        region: aws.region.clone(),
        at_once: usize::try_from(aws.calls).unwrap_or(1),
    };
    let (keyring, clock) = (Arc::clone(&means.keyring), Arc::clone(&means.clock));
    AwsMinter::of(target, sts, keyring, clock, Arc::clone(&means.chance))
        .map_err(|error| SceneError::Target(error.to_string()))
}

fn role(role: &AwsRoleConfig) -> Result<AwsRole, String> {
    let policy = match &role.session_policy {
        None => None,
        Some(SessionPolicy::Inline(text)) => Some(text.clone()),
        Some(SessionPolicy::File(path)) => {
            let wrong = |reason: String| format!("session policy `{}`: {reason}", path.display());
            let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
            session_policy(&text).map_err(wrong)?;
            Some(text)
        }
    };
    let tags = role.tags.iter();
    let parts = role.session_name.iter().enumerate();
    Ok(AwsRole {
        arn: role.arn.clone(),
        ceiling: role.duration,
        session_policy: policy,
        policy_arns: role.policy_arns.clone(),
        external_id: role.external_id.clone(),
        tags: tags.map(|(key, from)| (key.clone(), origin(from, &format!("{TAG}{key}")))).collect(),
        transitive: role.transitive_tags.clone(),
        source_identity: role.source_identity.as_deref().map(|from| origin(from, SOURCE_IDENTITY)),
        session_name: parts
            .map(|(at, from)| origin(from, &format!("{SESSION_NAME}{at}")))
            .collect(),
    })
}

/// `from` as the configuration says it; `key` is where policy puts what a claim resolves to.
fn origin(from: &str, key: &str) -> Origin {
    match from {
        "cambio.rule" => Origin::Rule,
        "cambio.subject" => Origin::Subject,
        "cambio.exchange" => Origin::Exchange,
        _ => Origin::Claim(key.to_owned()),
    }
}
