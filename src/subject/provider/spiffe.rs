//! SPIFFE: JWT-SVIDs with an `iss`, as SPIRE signs them when its `jwt_issuer` is set.

use serde_json::Value;

use super::{
    BARE, ClaimError, ClaimSpec,
    ClaimType::Text,
    Preset,
    Stability::{Platform, Reusable},
    compound::{error, refuse_signed},
    platform,
};
use crate::{
    grant::Replay,
    subject::{Algorithm, Claims},
};

/// Workloads cache their SVIDs and send them again, so tokens are reusable. Whether a path can come to mean another workload is for
/// the trust domain's operator to know.
pub static SPIFFE: Preset = Preset {
    name: "spiffe",
    claims: CLAIMS,
    pins: &[&["trust_domain", "path"], &["trust_domain"]],
    organizations: &["trust_domain"],
    stable_ids: &[&["sub"]],
    replay: Replay::Reusable,
    derive,
    label: &["path"],
    platform: platform::Platform {
        algorithms: &[Algorithm::RS256, Algorithm::ES256, Algorithm::ES384],
        // JWT-SVID section 2.3.
        accepted_types: &["JWT", "JOSE"],
        ..platform::UNKNOWN
    },
    ..BARE
};

const CLAIMS: &[ClaimSpec] = &[
    ClaimSpec::new("sub", Text, Reusable, "SPIFFE ID"),
    ClaimSpec::new("jti", Text, Platform, "id of this token"),
    ClaimSpec::new("trust_domain", Text, Reusable, "derived: trust domain of the SPIFFE ID"),
    ClaimSpec::new("path", Text, Reusable, "derived: path of the SPIFFE ID, without its first `/`"),
];

fn derive(claims: &mut Claims) -> Result<(), ClaimError> {
    refuse_signed(claims, &["trust_domain", "path"])?;
    let sub = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
    let Some((trust_domain, path)) = taken_apart(sub) else {
        let shown: String = sub.chars().take(128).flat_map(char::escape_debug).collect();
        let reason = format!("found `{shown}`, expected `spiffe://trust-domain/path`");
        return Err(error("sub", reason));
    };
    let (trust_domain, path) = (trust_domain.to_owned(), path.to_owned());
    claims.insert("trust_domain".to_owned(), Value::String(trust_domain));
    claims.insert("path".to_owned(), Value::String(path));
    Ok(())
}

/// SPIFFE-ID sections 2.1 and 2.2: the letters of a trust domain and of a path, no empty or dot segment, so that one workload has
/// one spelling. An id without a path is the trust domain itself and no workload.
fn taken_apart(id: &str) -> Option<(&str, &str)> {
    let rest = id.strip_prefix("spiffe://")?;
    let (trust_domain, path) = rest.split_once('/')?;
    let of_domain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    let of_path = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let well_formed = !trust_domain.is_empty()
        && trust_domain.len() <= 255
        && trust_domain.bytes().all(of_domain)
        && path
            .split('/')
            .all(|segment| !matches!(segment, "" | "." | "..") && segment.bytes().all(of_path));
    well_formed.then_some((trust_domain, path))
}
