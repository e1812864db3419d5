//! From configured targets to what makes and ends their credentials.

use std::sync::Arc;

use super::scene::{Means, SceneError};

mod aws;

use crate::{
    config::{Config, JwtConfig, JwtType, TargetConfig, TargetKind},
    grant::TargetName,
    keys::keyring::TokenType,
    lease::{Revoker, Revokers},
    mint::{
        Minter, Minters,
        examine::Examine,
        jwt::{JwtMinter, JwtTarget},
        login::{LoginMinter, LoginTarget, Logins},
        name::Names,
    },
};

/// What makes credentials, and what ends those that must end.
#[derive(Debug, Default)]
pub struct Makers {
    /// By target.
    pub minters: Minters,
    /// Those with leases, by target.
    pub revokers: Revokers,
    /// What `cambio doctor` asks.
    pub examiners: Vec<(TargetName, Arc<dyn Examine>)>,
}

/// What serves one target.
struct Made {
    minter: Arc<dyn Minter>,
    revoker: Option<Arc<dyn Revoker>>,
    examiner: Option<Arc<dyn Examine>>,
}

/// The minters and revokers of the configured targets. Nothing is connected to yet: one dead target neither stops the start nor
/// slows another (threat V03).
///
/// # Errors
/// A target can't be served.
pub fn makers(config: &Config, means: &Means) -> Result<Makers, SceneError> {
    let (mut minters, mut revokers, mut examiners) = (Vec::new(), Vec::new(), Vec::new());
    for target in &config.targets {
        let made = match &target.kind {
            TargetKind::Jwt(jwt) | TargetKind::Cambio(jwt) => {
                jwt_maker(config, target, jwt, means)?
            }
            TargetKind::Aws(aws) => aws::maker(config, target, aws, means)?,
        };
        minters.push((target.name.clone(), made.minter));
        revokers.extend(made.revoker.map(|revoker| (target.name.clone(), revoker)));
        examiners.extend(made.examiner.map(|examiner| (target.name.clone(), examiner)));
    }
    Ok(Makers { minters: Minters::of(minters), revokers: Revokers::of(revokers), examiners })
}

/// Who looks at one target, or why it can't be looked at.
pub type Examined = Result<Arc<dyn Examine>, SceneError>;

/// What `cambio doctor` asks the targets that can be looked at from outside the broker: no signing key is needed for it.
#[must_use]
pub fn examiners(config: &Config) -> Vec<(TargetName, Examined)> {
    let one = |target: &TargetConfig| {
        let TargetKind::Aws(aws) = &target.kind else { return None };
        let examiner = aws::examiner(config, target, aws);
        Some((target.name.clone(), examiner.map(|found| Arc::new(found) as Arc<dyn Examine>)))
    };
    config.targets.iter().filter_map(one).collect()
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
    Ok(Made { minter: Arc::new(minter), revoker: None, examiner: None })
}

/// A target whose server has logins: `server` makes and ends them.
#[expect(dead_code, reason = "the first kind of server comes next")]
fn login_maker(
    config: &Config,
    target: &TargetConfig,
    (at_once, names): (u32, Names),
    server: (Arc<dyn Logins>, Arc<dyn Examine>),
    means: &Means,
) -> Made {
    let login = LoginTarget {
        name: target.name.clone(),
        kind: target.kind.as_str(),
        issuer: config.issuer.as_str().to_owned(),
        names,
        expiry: target.expiry(),
        at_once: usize::try_from(at_once).unwrap_or(1),
    };
    let (clock, chance) = (Arc::clone(&means.clock), Arc::clone(&means.chance));
    let minter = Arc::new(LoginMinter::of(login, server.0, clock, chance));
    Made {
        minter: Arc::clone(&minter) as Arc<dyn Minter>,
        revoker: Some(minter),
        examiner: Some(server.1),
    }
}
