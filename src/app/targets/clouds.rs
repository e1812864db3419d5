//! From targets at clouds, as configured, to their minters.

use std::{fmt, sync::Arc};

use url::Url;

use super::Made;
use crate::{
    app::{
        scene::{Means, SceneError},
        sealed,
    },
    clock::Clock,
    config::{
        AzureConfig, CloudConfig, Config, GithubConfig, GoogleConfig, TargetConfig, TargetKind,
    },
    mint::{
        Minter,
        azure::{AzureApi, AzureMinter, AzureRole, AzureTarget},
        cloud::Reaching,
        examine::Examine,
        github::{GithubApi, GithubMinter, GithubRole, GithubTarget, app::AppKey},
        google::{GoogleApi, GoogleMinter, GoogleRole, GoogleTarget},
        name::Names,
    },
    subject::key_source::guard::Reach,
    web,
};

pub(super) fn google(
    config: &Config,
    target: &TargetConfig,
    google: &GoogleConfig,
    means: &Means,
) -> Result<Made, SceneError> {
    let api = google_api(config, target, google, Arc::clone(&means.clock))?;
    let (keyring, chance) = (Arc::clone(&means.keyring), Arc::clone(&means.chance));
    Ok(Made { minter: Arc::new(GoogleMinter::of(api, keyring, chance)), revoker: None })
}

fn google_api(
    config: &Config,
    target: &TargetConfig,
    google: &GoogleConfig,
    clock: Arc<dyn Clock>,
) -> Result<GoogleApi, SceneError> {
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
    GoogleApi::of(wanted, clock).map_err(|error| refuse(target, error))
}

pub(super) fn azure(
    config: &Config,
    target: &TargetConfig,
    azure: &AzureConfig,
    means: &Means,
) -> Result<Made, SceneError> {
    let api = azure_api(config, target, azure, Arc::clone(&means.clock))?;
    let (keyring, chance) = (Arc::clone(&means.keyring), Arc::clone(&means.chance));
    Ok(Made { minter: Arc::new(AzureMinter::of(api, keyring, chance)), revoker: None })
}

fn azure_api(
    config: &Config,
    target: &TargetConfig,
    azure: &AzureConfig,
    clock: Arc<dyn Clock>,
) -> Result<AzureApi, SceneError> {
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
    AzureApi::of(wanted, clock).map_err(|error| refuse(target, error))
}

pub(super) async fn github(
    config: &Config,
    target: &TargetConfig,
    github: &GithubConfig,
    means: &Means,
) -> Result<Made, SceneError> {
    let api = github_api(config, target, github, Arc::clone(&means.clock)).await?;
    let (held, chance) = (Arc::clone(&means.held), Arc::clone(&means.chance));
    let minter = Arc::new(GithubMinter::of(api, held, chance));
    Ok(Made { minter: Arc::clone(&minter) as Arc<dyn Minter>, revoker: Some(minter) })
}

async fn github_api(
    config: &Config,
    target: &TargetConfig,
    github: &GithubConfig,
    clock: Arc<dyn Clock>,
) -> Result<GithubApi, SceneError> {
    let pem = sealed::read(config, &target.name, &github.private_key_file).await;
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
    GithubApi::of(wanted, key, clock).map_err(|error| refuse(target, error))
}

/// What `cambio doctor` asks of a target at a cloud; none of any other.
pub(super) async fn examiner(
    config: &Config,
    target: &TargetConfig,
    clock: &Arc<dyn Clock>,
) -> Result<Option<Arc<dyn Examine>>, SceneError> {
    let clock = Arc::clone(clock);
    Ok(match &target.kind {
        TargetKind::Google(google) => Some(Arc::new(google_api(config, target, google, clock)?)),
        TargetKind::Azure(azure) => Some(Arc::new(azure_api(config, target, azure, clock)?)),
        TargetKind::Github(github) => {
            Some(Arc::new(github_api(config, target, github, clock).await?))
        }
        TargetKind::Jwt(_)
        | TargetKind::Cambio(_)
        | TargetKind::Postgres(_)
        | TargetKind::Mysql(_)
        | TargetKind::Redis(_)
        | TargetKind::Aws(_)
        | TargetKind::Rds(_)
        | TargetKind::X509(_) => None,
    })
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
