//! What the issuers of a kind are like: the shape of their URLs, where their keys are, how long their tokens live, for whom these are.

use std::time::Duration;

use super::{Preset, template};
use crate::subject::Algorithm;

/// What is known of the issuers of a kind, and what a configuration starts from.
#[derive(Clone, Copy, Debug)]
pub struct Platform {
    /// The shapes that the exact `iss` may have; none means that installations have their own.
    pub urls: &'static [UrlShape],
    /// The `iss` where a configuration names none.
    pub default_url: Option<&'static str>,
    /// What it signs with.
    pub algorithms: &'static [Algorithm],
    /// The longest accepted `exp − iat`: the platform's own, with room.
    pub maximum_lifetime: Duration,
    /// The longest accepted `now − iat`; none means `maximum_lifetime` alone.
    pub maximum_age: Option<Duration>,
    /// Accepted `typ` headers besides an absent one.
    pub accepted_types: &'static [&'static str],
    /// Whom its tokens are for.
    pub audience: Audience,
}

/// One shape of `iss`.
#[derive(Clone, Copy, Debug)]
pub struct UrlShape {
    /// A template: `{uuid}`, `{name}` (letters, digits, `-`, `_` and `.`) and `{any}` stand for one segment each; `{uuid:tid}` says
    /// that claim `tid` is the same (threat C01: one key set may sign for all tenants).
    pub url: &'static str,
    /// Where the key set is, if discovery must not be asked.
    pub jwks_uri: Option<&'static str>,
    /// The other origin that discovery names for the key set.
    pub jwks_origin: Option<&'static str>,
}

/// Whom a platform's tokens are for.
#[derive(Clone, Copy, Debug)]
pub enum Audience {
    /// Whoever asks for a token chooses. These shapes are what tokens have that nobody asked for us: they serve too many.
    Chosen {
        /// Templates.
        unasked: &'static [&'static str],
    },
    /// Nobody can choose: one of these shapes it is, at us and at everybody else. So whoever receives such a token could bring it
    /// here; age and single use stand against it.
    Fixed(&'static [&'static str]),
}

/// What a kind of issuer is like that nothing is known of.
pub(super) const UNKNOWN: Platform = Platform {
    urls: &[],
    default_url: None,
    algorithms: &[Algorithm::RS256],
    maximum_lifetime: Duration::from_hours(1),
    maximum_age: None,
    accepted_types: &["JWT"],
    audience: Audience::Chosen { unasked: &[] },
};

impl UrlShape {
    /// A shape whose keys are where discovery says, on the same origin.
    pub(super) const fn of(url: &'static str) -> Self {
        Self { url, jwks_uri: None, jwks_origin: None }
    }
}

impl Platform {
    /// The shape that `url` has.
    #[must_use]
    pub fn shape_of(&self, url: &str) -> Option<&'static UrlShape> {
        self.urls.iter().find(|shape| template::fit(shape.url, url).is_some())
    }

    /// Whether `url` can be the `iss` of such an issuer.
    #[must_use]
    pub fn may_issue_as(&self, url: &str) -> bool {
        self.urls.is_empty() || self.shape_of(url).is_some()
    }

    /// Whether `audience` is what tokens of the platform have that nobody asked for us.
    #[must_use]
    pub fn is_unasked(&self, audience: &str) -> bool {
        match self.audience {
            Audience::Chosen { unasked } => fits_one(unasked, audience),
            Audience::Fixed(_) => false,
        }
    }

    /// Whether tokens of the platform can have `audience` at all.
    #[must_use]
    pub fn may_be_for(&self, audience: &str) -> bool {
        match self.audience {
            Audience::Chosen { .. } => true,
            Audience::Fixed(shapes) => fits_one(shapes, audience),
        }
    }

    /// Whether all tokens of the platform have one audience, at us and elsewhere.
    #[must_use]
    pub const fn has_fixed_audience(&self) -> bool {
        matches!(self.audience, Audience::Fixed(_))
    }
}

fn fits_one(shapes: &'static [&'static str], text: &str) -> bool {
    shapes.iter().any(|shape| template::fit(shape, text).is_some())
}

/// The preset whose issuers have such an `iss`; none where several could, or installations have their own.
#[must_use]
pub fn of_issuer(iss: &str) -> Option<&'static Preset> {
    let fits = |preset: &&Preset| {
        let platform = preset.platform;
        platform.default_url == Some(iss) || platform.shape_of(iss).is_some()
    };
    let mut found = super::ALL.into_iter().filter(fits);
    match (found.next(), found.next()) {
        (Some(preset), None) => Some(preset),
        _ => None,
    }
}
