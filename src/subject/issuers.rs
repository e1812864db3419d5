//! The registry: exact `iss` → issuer, its keys, algorithms, audience and leeway.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use thiserror::Error;

use super::{Algorithm, KeySource, TokenReview, provider::Preset};
use crate::grant::IssuerName;

/// An issuer identifier: https, no query, no fragment, no userinfo, compared byte for byte (threats J25, D17).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IssuerUrl(String);

/// A text that can't be an issuer identifier.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("issuer `{found}` {reason}")]
pub struct IssuerUrlError {
    /// The text.
    pub found: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl IssuerUrl {
    /// The identifier, as configured.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Plain http on loopback: what `cambio dev`'s sandbox issuer has. `serve` never calls this.
    ///
    /// # Errors
    /// The text is not an http URL of a loopback address.
    pub fn dangerously_loopback(text: &str) -> Result<Self, IssuerUrlError> {
        let fail = |reason| IssuerUrlError { found: text.to_owned(), reason };
        let url = url::Url::parse(text).map_err(|_| fail("is not a URL"))?;
        let loopback = matches!(url.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"));
        if !(url.scheme() == "http" && loopback) {
            return Err(fail("is not plain http on loopback"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for IssuerUrl {
    type Err = IssuerUrlError;

    fn from_str(text: &str) -> Result<Self, IssuerUrlError> {
        let fail = |reason| Err(IssuerUrlError { found: text.to_owned(), reason });
        let Some(rest) = text.strip_prefix("https://") else {
            return fail("does not begin with `https://`");
        };
        if rest.contains(['?', '#']) {
            return fail("has a query or a fragment (OIDC Discovery section 3)");
        }
        if rest.contains(['@', '%', '\\']) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return fail("has userinfo, an escape or a character outside printable ASCII");
        }
        if rest.split('/').any(|segment| segment == "." || segment == "..") || rest.contains("//") {
            return fail("has an empty or a dot segment in its path");
        }
        let Ok(url) = url::Url::parse(text) else { return fail("is not a URL") };
        if url.host_str().is_none_or(|host| host.is_empty() || !rest.starts_with(host)) {
            return fail("has a host that a URL parser reads differently");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for IssuerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One configured issuer: everything that verification may ask about it.
#[derive(Debug)]
pub struct Issuer {
    /// What the configuration calls it.
    pub name: IssuerName,
    /// The exact `iss`.
    pub url: IssuerUrl,
    /// The kind of issuer, whose claims we know.
    pub preset: &'static Preset,
    /// The one `aud` that a token must carry.
    pub audience: String,
    /// What the issuer may sign with. The key narrows it further (threat J03).
    pub algorithms: BTreeSet<Algorithm>,
    /// How far its clock may be off; at most [`super::MAXIMUM_LEEWAY`].
    pub leeway: Duration,
    /// The longest accepted `exp − iat`.
    pub maximum_lifetime: Duration,
    /// The longest accepted `now − iat`, for issuers whose tokens live long; none means `maximum_lifetime` alone.
    pub maximum_age: Option<Duration>,
    /// Accepted `typ` header values besides an absent one, compared as RFC 7515 section 4.1.9 says.
    pub accepted_types: BTreeSet<String>,
    /// Where its keys come from.
    pub keys: Arc<dyn KeySource>,
    /// Asks the issuer whether a token still stands; none where its word when it signed is enough.
    pub review: Option<Arc<TokenReview>>,
}

/// Two issuers with one name or one `iss` (threat C17).
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("issuers `{first}` and `{second}` have the same {what} `{value}`")]
pub struct IssuerClash {
    /// The earlier one.
    pub first: IssuerName,
    /// The later one.
    pub second: IssuerName,
    /// `name` or `issuer`.
    pub what: &'static str,
    /// The value they share.
    pub value: String,
}

/// All issuers, looked up by exact `iss`. The only place where an `iss` is looked up.
#[derive(Clone, Debug, Default)]
pub struct Issuers(HashMap<String, Arc<Issuer>>);

impl Issuers {
    /// The registry of `issuers`.
    ///
    /// # Errors
    /// Two of them share a name or an `iss`.
    pub fn of(issuers: impl IntoIterator<Item = Issuer>) -> Result<Self, IssuerClash> {
        let mut by_url: HashMap<String, Arc<Issuer>> = HashMap::new();
        for issuer in issuers {
            let clash = |first: &Issuer, what, value: &str| IssuerClash {
                first: first.name.clone(),
                second: issuer.name.clone(),
                what,
                value: value.to_owned(),
            };
            if let Some(first) = by_url.values().find(|known| known.name == issuer.name) {
                return Err(clash(first, "name", issuer.name.as_str()));
            }
            if let Some(first) = by_url.get(issuer.url.as_str()) {
                return Err(clash(first, "issuer", issuer.url.as_str()));
            }
            by_url.insert(issuer.url.as_str().to_owned(), Arc::new(issuer));
        }
        Ok(Self(by_url))
    }

    /// The issuer whose identifier is exactly `claimed`.
    #[must_use]
    pub fn find(&self, claimed: &str) -> Option<&Arc<Issuer>> {
        self.0.get(claimed)
    }

    /// The issuer called `name`.
    #[must_use]
    pub fn named(&self, name: &IssuerName) -> Option<&Arc<Issuer>> {
        self.0.values().find(|issuer| issuer.name == *name)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Issuer>> {
        self.0.values()
    }
}
