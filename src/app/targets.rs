//! From configured targets to what makes and ends their credentials.

use std::sync::Arc;

use super::scene::{Means, SceneError};

mod aws;

use crate::{
    chance::Chance,
    clock::Clock,
    config::{Config, JwtConfig, JwtType, TargetConfig, TargetKind, X509Config},
    grant::TargetName,
    keys::keyring::TokenType,
    lease::{Revoker, Revokers},
    mint::{
        Minter, Minters,
        examine::Examine,
        jwt::{JwtMinter, JwtTarget},
        login::{LoginMinter, LoginTarget},
        x509::{X509Minter, X509Target},
    },
};

mod clouds;
mod servers;

use servers::Server;

/// What `cambio doctor` asks, by target.
pub type Examiners = Vec<(TargetName, Arc<dyn Examine>)>;

/// What makes credentials, and what ends those that must end.
#[derive(Debug, Default)]
pub struct Makers {
    /// By target.
    pub minters: Minters,
    /// Those with leases, by target.
    pub revokers: Revokers,
}

/// What serves one target.
struct Made {
    minter: Arc<dyn Minter>,
    revoker: Option<Arc<dyn Revoker>>,
}

/// The minters and revokers of the configured targets. Nothing is connected to yet: one dead target neither stops the start nor
/// slows another (threat V03).
///
/// # Errors
/// A target can't be served.
pub async fn makers(config: &Config, means: &Means) -> Result<Makers, SceneError> {
    let (mut minters, mut revokers) = (Vec::new(), Vec::new());
    for target in &config.targets {
        let made = match &target.kind {
            TargetKind::Jwt(jwt) | TargetKind::Cambio(jwt) => {
                jwt_maker(config, target, jwt, means)?
            }
            TargetKind::Aws(aws) => aws::maker(config, target, aws, means)?,
            TargetKind::Rds(rds) => aws::rds_maker(config, target, rds, means)?,
            TargetKind::Postgres(_) | TargetKind::Mysql(_) | TargetKind::Redis(_) => {
                let server = servers::server(config, target, &means.chance)?.ok_or_else(|| {
                    SceneError::Target(format!("`{}` has no server", target.name))
                })?;
                login_maker(config, target, server, means)
            }
            TargetKind::Google(google) => clouds::google(config, target, google, means)?,
            TargetKind::Azure(azure) => clouds::azure(config, target, azure, means)?,
            TargetKind::Github(github) => clouds::github(config, target, github, means).await?,
            TargetKind::X509(x509) => x509_maker(config, target, x509, means)?,
        };
        minters.push((target.name.clone(), made.minter));
        revokers.extend(made.revoker.map(|revoker| (target.name.clone(), revoker)));
    }
    Ok(Makers { minters: Minters::of(minters), revokers: Revokers::of(revokers) })
}

/// Both kinds end in a JWT of ours: `cambio` is our own API, with our issuer as its audience.
fn jwt_maker(
    config: &Config,
    target: &TargetConfig,
    jwt: &JwtConfig,
    means: &Means,
) -> Result<Made, SceneError> {
    let target = JwtTarget {
        name: target.name.clone(),
        issuer: config.issuer.clone(),
        audience: jwt.audience.clone(),
        algorithm: jwt.algorithm,
        typ: match jwt.token_type {
            JwtType::AccessToken => TokenType::AccessToken,
            JwtType::Jwt => TokenType::Jwt,
        },
        ceiling: target.ceiling,
        environment: config.environment.clone(),
    };
    let (keyring, chance) = (Arc::clone(&means.keyring), Arc::clone(&means.chance));
    let minter = JwtMinter::of(target, keyring, chance)
        .map_err(|error| SceneError::Target(error.to_string()))?;
    Ok(Made { minter: Arc::new(minter), revoker: None })
}

/// Certificates of a CA that is the target's own.
fn x509_maker(
    config: &Config,
    target: &TargetConfig,
    x509: &X509Config,
    means: &Means,
) -> Result<Made, SceneError> {
    let target = X509Target {
        name: target.name.clone(),
        issuer: config.issuer.as_str().to_owned(),
        names: x509.names.clone(),
        makes_keys: !x509.require_csr,
        expiry: target.expiry(),
        environment: config.environment.clone(),
    };
    let (keyring, chance) = (Arc::clone(&means.keyring), Arc::clone(&means.chance));
    let minter = X509Minter::of(target, keyring, chance)
        .map_err(|error| SceneError::Target(error.to_string()))?;
    Ok(Made { minter: Arc::new(minter), revoker: None })
}

/// A target whose server has logins of its own.
fn login_maker(config: &Config, target: &TargetConfig, server: Server, means: &Means) -> Made {
    let login = LoginTarget {
        name: target.name.clone(),
        kind: target.kind.as_str(),
        issuer: config.issuer.as_str().to_owned(),
        names: server.names,
        expiry: target.expiry(),
        at_once: usize::try_from(server.bounds.connections).unwrap_or(1),
        per_subject: server.bounds.per_subject,
        in_all: server.bounds.in_all,
    };
    let (clock, chance) = (Arc::clone(&means.clock), Arc::clone(&means.chance));
    let minter = Arc::new(LoginMinter::of(login, server.logins, clock, chance));
    Made { minter: Arc::clone(&minter) as Arc<dyn Minter>, revoker: Some(minter) }
}

/// What `cambio doctor` asks the targets that can be asked. Nothing is connected to yet.
///
/// # Errors
/// A target can't be set up.
pub async fn examiners(
    config: &Config,
    clock: &Arc<dyn Clock>,
    chance: &Arc<dyn Chance>,
) -> Result<Examiners, SceneError> {
    let mut examiners = Vec::new();
    for target in &config.targets {
        let sessions = match &target.kind {
            TargetKind::Aws(aws) => Some(&**aws),
            TargetKind::Rds(rds) => Some(&rds.sessions),
            TargetKind::Jwt(_)
            | TargetKind::Cambio(_)
            | TargetKind::Postgres(_)
            | TargetKind::Mysql(_)
            | TargetKind::Redis(_)
            | TargetKind::X509(_)
            | TargetKind::Google(_)
            | TargetKind::Azure(_)
            | TargetKind::Github(_) => None,
        };
        if let Some(aws) = sessions {
            let examiner = aws::examiner(config, target, aws)?;
            examiners.push((target.name.clone(), Arc::new(examiner) as Arc<dyn Examine>));
        }
        let server = servers::server(config, target, chance)?;
        let cloud = clouds::examiner(config, target, clock).await?;
        let found = server.map(|server| server.examiner).or(cloud);
        examiners.extend(found.map(|examiner| (target.name.clone(), examiner)));
    }
    Ok(examiners)
}
