//! From targets at clouds, as configured, to their minters.

use std::{fmt, fs, sync::Arc};

use url::Url;

use super::{
    scene::{Means, SceneError},
    targets::Made,
};
use crate::{
    config::{AzureConfig, CloudConfig, Config, GithubConfig, GoogleConfig, TargetConfig},
    lease::Revoker,
    mint::{
        Minter,
        azure::{AzureMinter, AzureRole, AzureTarget},
        cloud::Reaching,
        examine::Examine,
        github::{GithubMinter, GithubRole, GithubTarget, app::AppKey},
        google::{GoogleMinter, GoogleRole, GoogleTarget},
        name::Names,
    },
    secret::Secret,
    subject::key_source::guard::Reach,
    web,
};

pub(super) fn google(
    config: &Config,
    target: &TargetConfig,
    google: &GoogleConfig,
    means: &Means,
) -> Result<Made, SceneError> {
    let roles = google.roles.iter().map(|(name, role)| {
        let service_account = role.service_account.clone();
        (name.clone(), GoogleRole { service_account, scopes: role.scopes.clone() })
    });
    let wanted = GoogleTarget {
        name: target.name.clone(),
        issuer: config.issuer.as_str().to_owned(),
        provider: google.provider.clone(),
        algorithm: google.algorithm,
        roles: roles.collect(),
        expiry: target.expiry(),
        sts: google.sts.clone(),
        iam_credentials: google.iam_credentials.clone(),
        reaching: reaching(&google.sts, &google.cloud),
        at_once: at_once(&google.cloud),
    };
    let (clock, chance) = (Arc::clone(&means.clock), Arc::clone(&means.chance));
    let minter = GoogleMinter::of(wanted, Arc::clone(&means.keyring), clock, chance);
    Ok(made(Arc::new(minter.map_err(|error| refuse(target, error))?)))
}

pub(super) fn azure(
    config: &Config,
    target: &TargetConfig,
    azure: &AzureConfig,
    means: &Means,
) -> Result<Made, SceneError> {
    let roles = azure.roles.iter().map(|(name, role)| {
        let (client_id, subject) = (role.client_id.clone(), role.subject.clone());
        (name.clone(), AzureRole { client_id, subject, scope: role.scope.clone() })
    });
    let wanted = AzureTarget {
        name: target.name.clone(),
        issuer: config.issuer.as_str().to_owned(),
        tenant: azure.tenant.clone(),
        audience: azure.audience.clone(),
        roles: roles.collect(),
        expiry: target.expiry(),
        authority: azure.authority.clone(),
        reaching: reaching(&azure.authority, &azure.cloud),
        at_once: at_once(&azure.cloud),
    };
    let (clock, chance) = (Arc::clone(&means.clock), Arc::clone(&means.chance));
    let minter = AzureMinter::of(wanted, Arc::clone(&means.keyring), clock, chance);
    Ok(made(Arc::new(minter.map_err(|error| refuse(target, error))?)))
}

pub(super) fn github(
    config: &Config,
    target: &TargetConfig,
    github: &GithubConfig,
    means: &Means,
) -> Result<Made, SceneError> {
    let pem = fs::read(&github.private_key_file).map(Secret::new);
    let pem = pem.map_err(|error| refuse(target, format!("`private_key_file`: {error}")))?;
    let key = AppKey::from_pem(&pem);
    let key = key.map_err(|reason| refuse(target, format!("`private_key_file`: {reason}")))?;
    let roles = github.roles.iter().map(|(name, role)| {
        let role = GithubRole {
            repository_ids: role.repository_ids.clone(),
            repositories: role.repositories.clone(),
            permissions: role.permissions.clone(),
        };
        (name.clone(), role)
    });
    let wanted = GithubTarget {
        name: target.name.clone(),
        issuer: config.issuer.as_str().to_owned(),
        app: github.app.clone(),
        installation: github.installation,
        names: Names::of(&config.ledger.origin, &target.name),
        roles: roles.collect(),
        expiry: target.expiry(),
        api: github.api.clone(),
        reaching: reaching(&github.api, &github.cloud),
        at_once: at_once(&github.cloud),
    };
    let (clock, chance) = (Arc::clone(&means.clock), Arc::clone(&means.chance));
    let minter = GithubMinter::of(wanted, key, Arc::clone(&means.held), clock, chance);
    let minter = Arc::new(minter.map_err(|error| refuse(target, error))?);
    let revoker = Some(Arc::clone(&minter) as Arc<dyn Revoker>);
    Ok(Made { revoker, ..made(minter) })
}

fn made<M: Minter + Examine + 'static>(minter: Arc<M>) -> Made {
    let examiner = Some(Arc::clone(&minter) as Arc<dyn Examine>);
    Made { minter, revoker: None, examiner }
}

fn refuse(target: &TargetConfig, reason: impl fmt::Display) -> SceneError {
    SceneError::Target(format!("`{}`: {reason}", target.name))
}

/// Threat D06: an address of this machine is reached only where the configuration spells it.
fn reaching(url: &Url, cloud: &CloudConfig) -> Reaching {
    let reach = match (web::is_loopback(url), cloud.private) {
        (true, _) => Reach::DangerouslyLoopback,
        (false, true) => Reach::Private,
        (false, false) => Reach::Public,
    };
    Reaching { reach, ca_file: cloud.ca_file.clone() }
}

fn at_once(cloud: &CloudConfig) -> usize {
    usize::try_from(cloud.at_once).unwrap_or(1)
}
