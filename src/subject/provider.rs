//! Presets as data: which claims a kind of issuer sends, which of them are immutable, which a stranger can choose.

use serde_json::Value;
use thiserror::Error;

use self::claim::described;
use super::Claims;
use crate::grant::Replay;

mod actions;
mod aws;
mod azure;
mod azure_devops;
mod bitbucket;
mod buddy;
mod buildkite;
mod cambio;
mod circleci;
mod claim;
mod codefresh;
mod compound;
mod fly;
mod forgejo;
mod generic;
mod github;
mod gitlab;
mod google;
mod kubernetes;
mod modal;
pub mod platform;
mod semaphore;
mod spacelift;
mod spiffe;
mod template;
mod terraform;
mod vercel;

pub use aws::AWS;
pub use azure::AZURE;
pub use azure_devops::AZURE_DEVOPS;
pub use bitbucket::BITBUCKET;
pub use buddy::BUDDY;
pub use buildkite::BUILDKITE;
pub use cambio::CAMBIO;
pub use circleci::CIRCLECI;
pub use claim::{ClaimSpec, ClaimType, Stability};
pub use codefresh::CODEFRESH;
pub use fly::FLY;
pub use forgejo::FORGEJO;
pub use generic::GENERIC;
pub use github::GITHUB;
pub use gitlab::GITLAB;
pub use google::GOOGLE;
pub use kubernetes::KUBERNETES;
pub use modal::MODAL;
pub use platform::{Audience, Platform, UrlShape};
pub use semaphore::SEMAPHORE;
pub use spacelift::SPACELIFT;
pub use spiffe::SPIFFE;
pub use terraform::TERRAFORM;
pub use vercel::VERCEL;

/// All presets: CI platforms, clouds, and what serves any.
pub static ALL: [&Preset; 22] = [
    &GITHUB,
    &GITLAB,
    &KUBERNETES,
    &AWS,
    &AZURE,
    &GOOGLE,
    &SPIFFE,
    &AZURE_DEVOPS,
    &BITBUCKET,
    &BUDDY,
    &BUILDKITE,
    &CIRCLECI,
    &CODEFRESH,
    &FLY,
    &FORGEJO,
    &MODAL,
    &SEMAPHORE,
    &SPACELIFT,
    &TERRAFORM,
    &VERCEL,
    &CAMBIO,
    &GENERIC,
];

/// The preset called `name`.
#[must_use]
pub fn find(name: &str) -> Option<&'static Preset> {
    ALL.into_iter().find(|preset| preset.name == name)
}

/// A claim is not what the preset knows it to be.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{reason}")]
pub struct ClaimError {
    /// Which claim.
    pub claim: String,
    /// What was found and what was expected.
    pub reason: String,
}

/// What is known of a token's own `sub`. Shapes are templates: `{claim}` agrees with that claim where the token has it, `{=claim}`
/// also wants it there, `{}` is any text, and a final `**` any rest. What stands in a template ends where its next letters begin.
#[derive(Clone, Copy, Debug)]
pub enum Subject {
    /// It says nothing that a claim says too, or [`Preset::derive`] takes it apart.
    Opaque,
    /// It has one of these shapes, and agrees with the claims (threat C03).
    OneOf(&'static [&'static str]),
    /// Administrators can set its shape, or it is not settled: where it has one of these, it agrees with the claims (threats
    /// C03, C05); another contradicts nothing.
    Perhaps(&'static [&'static str]),
}

/// What a preset adds to the signed claims: compound claims taken apart, or the reason why they can't be.
pub type Interpret = fn(&mut Claims) -> Result<(), ClaimError>;

/// A kind of issuer.
#[derive(Debug)]
pub struct Preset {
    /// `github`, `gitlab`, `kubernetes`, `generic` …
    pub name: &'static str,
    /// The claims it is known to send; others are legal, and counted as drift (threat C18).
    pub claims: &'static [ClaimSpec],
    /// Ways to pin a tenant: a rule must hold an equality on every claim of at least one of these sets (threat C01).
    pub pins: &'static [&'static [&'static str]],
    /// Pins that every workload of an organization shares: a rule with no other says that it means them all.
    pub organizations: &'static [&'static str],
    /// Claims that make the stable id, most specific set first: the first set that is wholly present is used.
    pub stable_ids: &'static [&'static [&'static str]],
    /// Whether the platform can hand out a fresh token for each exchange.
    pub replay: Replay,
    /// Names that the platform compares without regard to ASCII case (threat C09). Never ids.
    pub folded: &'static [&'static str],
    /// Values of a claim that a rule admits only by naming them (threat C06): (claim, values).
    pub dangerous: &'static [(&'static str, &'static [&'static str])],
    /// Flat names for claims that lie in objects or have unhandy names: (JSON Pointer, name). Such a name is never a signed one.
    pub lifted: &'static [(&'static str, &'static str)],
    /// The token's `sub`.
    pub subject: Subject,
    /// Takes compound claims apart and cross-checks `sub` with the ids, where [`Preset::lifted`] and [`Preset::subject`] don't.
    pub derive: Interpret,
    /// Signed claims that [`Preset::derive`] takes apart, where a claim that it derives is among the pins or the dangerous ones: a
    /// case of a policy needs them.
    pub taken_apart: &'static [&'static str],
    /// Facts of the run that `policy init` narrows a rule by, beside the pins.
    pub narrowing: &'static [&'static str],
    /// Claims whose last word serves `policy init` as the name of a rule.
    pub label: &'static [&'static str],
    /// What its issuers are like.
    pub platform: Platform,
}

/// What a preset is before anything is known. Every default closes: no pin, so that no rule can be written; one use.
pub const BARE: Preset = Preset {
    name: "",
    claims: &[],
    pins: &[],
    organizations: &[],
    stable_ids: &[],
    replay: Replay::Once,
    folded: &[],
    dangerous: &[],
    lifted: &[],
    subject: Subject::Opaque,
    derive: |_| Ok(()),
    taken_apart: &[],
    narrowing: &[],
    label: &["sub"],
    platform: platform::UNKNOWN,
};

/// What RFC 7519 section 4.1 registers, and every issuer sends. The verifier has its own, stricter rules for them.
const REGISTERED: [&str; 7] = ["iss", "sub", "aud", "exp", "nbf", "iat", "jti"];

impl Preset {
    /// The claim called `name`, if the preset knows it.
    #[must_use]
    pub fn claim(&self, name: &str) -> Option<&'static ClaimSpec> {
        self.claims.iter().find(|claim| claim.is_of(name))
    }

    /// Whether RFC 7519 registers the claim, so that every issuer sends it.
    #[must_use]
    pub fn is_registered(name: &str) -> bool {
        REGISTERED.contains(&name)
    }

    /// Checks types, derives compound claims, and finds the stable id.
    ///
    /// # Errors
    /// A known claim has another type, the token signs a claim that only we derive, or claims contradict each other.
    pub fn interpret(&self, mut claims: Claims) -> Result<(Claims, String), ClaimError> {
        compound::lift(&mut claims, self.lifted)?;
        self.check_types(&claims)?;
        (self.derive)(&mut claims)?;
        template::check_issuer(self, &claims)?;
        template::check_subject(self, &claims)?;
        let stable = self.stable_id(&claims)?;
        Ok((claims, stable))
    }

    /// The stable id in claims that were interpreted already.
    ///
    /// # Errors
    /// None of the preset's sets of ids is wholly present.
    pub fn stable_id(&self, claims: &Claims) -> Result<String, ClaimError> {
        let stable = self.stable_ids.iter().find_map(|set| stable_id(claims, set));
        stable.ok_or_else(|| {
            let ways: Vec<String> = self.stable_ids.iter().map(|set| set.join("` and `")).collect();
            let (name, ways) = (self.name, ways.join("`, or `"));
            let reason =
                format!("found none of the claims that name a {name} workload, expected `{ways}`");
            ClaimError { claim: "sub".to_owned(), reason }
        })
    }

    /// The signed claims that the preset does not know: the platform has changed, and somebody should look (threat C18). They
    /// change nothing else.
    pub fn unaccounted<'a>(&'a self, claims: &'a Claims) -> impl Iterator<Item = &'a str> {
        claims
            .keys()
            .map(String::as_str)
            .filter(|name| !REGISTERED.contains(name) && self.claim(name).is_none())
    }

    fn check_types(&self, claims: &Claims) -> Result<(), ClaimError> {
        for (name, value) in claims {
            let Some(spec) = self.claim(name) else { continue };
            if !spec.kind.admits(value) {
                return Err(ClaimError {
                    claim: name.clone(),
                    reason: format!(
                        "claim `{name}`: found {}, expected {}",
                        described(value),
                        spec.kind.as_str()
                    ),
                });
            }
        }
        Ok(())
    }
}

/// `name:value` for each claim of `set`, texts and integers; none if one is absent or empty.
fn stable_id(claims: &Claims, set: &[&str]) -> Option<String> {
    let mut parts = Vec::with_capacity(set.len());
    for name in set {
        parts.push(match claims.get(*name)? {
            Value::String(text) if !text.is_empty() => [name, ":", text].concat(),
            Value::Number(number) if number.is_i64() || number.is_u64() => {
                format!("{name}:{number}")
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => return None,
        });
    }
    Some(parts.join(":"))
}
