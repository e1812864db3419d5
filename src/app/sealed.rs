//! Secrets of targets that rest under the KEK: a file holds them sealed, in place of the secret itself, and whoever copies the file
//! has nothing.

use std::{fs, path::Path};

use crate::{
    app::books,
    config::Config,
    grant::TargetName,
    protector::{KeyContext, ProtectError},
    secret::Secret,
};

/// The most bytes of such a file: a sealed RSA key of 8192 bits has a tenth of that.
const MAXIMUM: usize = 64 * 1024;

/// What the file at `path` holds for `target`: as it is, or, where it was made by [`seal`], opened with the configured KEK.
///
/// # Errors
/// It can't be read, or was sealed for another target, instance or environment, or under another KEK.
pub(super) async fn read(
    config: &Config,
    target: &TargetName,
    path: &Path,
) -> Result<Secret, String> {
    let found = fs::read(path).map(Secret::new).map_err(|error| error.to_string())?;
    let Some(sealed) = sealed(&found) else { return Ok(found) };
    let protector = books::protector(config).map_err(|error| error.to_string())?;
    protector.unwrap(sealed, &context(config, target)).await.map_err(|error| match error {
        ProtectError::DoesNotOpen(reason) => format!("what it holds does not open: {reason}"),
        error @ (ProtectError::NoKek(_) | ProtectError::DoesNotClose(_)) => error.to_string(),
    })
}

/// `plain` sealed for `target` of this instance: a compact JWE (RFC 7516 section 7.1) that opens nowhere else.
///
/// # Errors
/// There is no such target, `plain` is no secret of one, or the KEK can't be had.
pub async fn seal(config: &Config, target: &str, plain: &Secret) -> Result<String, String> {
    let found = config.targets.iter().find(|known| known.name.as_str() == target);
    let found = found.ok_or_else(|| {
        let known: Vec<&str> = config.targets.iter().map(|known| known.name.as_str()).collect();
        format!("found no target `{target}`, expected one of {}", known.join(", "))
    })?;
    if plain.reveal().len() > MAXIMUM / 2 {
        return Err(format!("found more than {} bytes: no key", MAXIMUM / 2));
    }
    if sealed(plain).is_some() {
        return Err("it is sealed already".to_owned());
    }
    let protector = books::protector(config).map_err(|error| error.to_string())?;
    let sealed = protector.wrap(plain, &context(config, &found.name)).await;
    sealed.map_err(|error| error.to_string())
}

/// Five segments of base64url: no PEM, and no password, looks like that.
fn sealed(found: &Secret) -> Option<&str> {
    let text = found.reveal_text()?.trim();
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let fits = text.len() <= MAXIMUM && text.starts_with("ey") && text.chars().all(letter);
    (fits && text.split('.').count() == 5).then_some(text)
}

/// Threats K01, K02: bound to the instance and its target, so that what was sealed for one is nothing to another.
fn context(config: &Config, target: &TargetName) -> KeyContext {
    KeyContext {
        ring: format!("{}/target/{target}", config.ledger.origin),
        epoch: 0,
        environment: config.environment.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_told_from_what_is_not() {
        let told = |text: &str| sealed(&Secret::from(text.to_owned())).is_some();
        assert!(told("eyJh.YQ.Yg.Yw.ZA\n"));
        for plain in
            ["-----BEGIN CERTIFICATE-----\n", "eyJh.YQ.Yg", "ey.a.b.c.d e", "", "a.b.c.d.e"]
        {
            assert!(!told(plain), "{plain}");
        }
    }
}
