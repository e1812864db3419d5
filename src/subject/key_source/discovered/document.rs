//! Where an issuer's documents are, and what its discovery document may say about that.

use serde_json::Value;
use url::{Origin, Url};

use super::{DiscoveredConfig, DiscoveredError};
use crate::subject::{
    issuers::IssuerUrl,
    json::{Limits, parse_object},
};

/// The URLs of one source. Everything it may ever dial is known before it dials.
#[derive(Debug)]
pub(super) enum Locations {
    /// The operator knows where the set is.
    Configured {
        /// There.
        jwks_uri: Url,
    },
    /// The issuer says where.
    Discovered {
        /// Its metadata (OpenID Connect Discovery section 4).
        document: Url,
        /// The other origin where the set may be.
        also: Option<Origin>,
        /// Whether plain http is spoken: loopback alone.
        plain: bool,
    },
}

impl Locations {
    pub(super) fn of(config: &DiscoveredConfig) -> Result<Self, DiscoveredError> {
        let fail = |key, found: &str, reason| DiscoveredError::Url {
            issuer: config.issuer.clone(),
            key,
            found: found.to_owned(),
            reason,
        };
        let check = |key, url: &Url| {
            acceptable(url, config.dangerously_loopback)
                .map_err(|reason| fail(key, url.as_str(), reason))
        };
        if let Some(jwks_uri) = &config.jwks_uri {
            check("jwks_uri", jwks_uri)?;
            return Ok(Self::Configured { jwks_uri: jwks_uri.clone() });
        }
        let issuer = config.issuer.as_str();
        // Section 4.1: a terminating slash is removed before the well-known path is appended.
        let document = format!(
            "{}/.well-known/openid-configuration",
            issuer.strip_suffix('/').unwrap_or(issuer)
        );
        let document = Url::parse(&document).map_err(|_| fail("issuer", issuer, "is not a URL"))?;
        check("issuer", &document)?;
        let also = match &config.jwks_origin {
            None => None,
            Some(origin) => {
                check("jwks_origin", origin)?;
                if origin.path() != "/" || origin.query().is_some() {
                    return Err(fail("jwks_origin", origin.as_str(), "is more than an origin"));
                }
                Some(origin.origin())
            }
        };
        Ok(Self::Discovered { document, also, plain: config.dangerously_loopback })
    }

    /// The first document to ask for: its origin is the issuer's own, or the one that the operator named in its place.
    pub(super) const fn home(&self) -> &Url {
        match self {
            Self::Configured { jwks_uri } => jwks_uri,
            Self::Discovered { document, .. } => document,
        }
    }

    /// Everything that may be dialled.
    pub(super) fn origins(&self) -> Vec<Origin> {
        let also = match self {
            Self::Configured { .. } => None,
            Self::Discovered { also, .. } => also.clone(),
        };
        std::iter::once(self.home().origin()).chain(also).collect()
    }

    /// The `jwks_uri` of a discovery document: only if the document is this issuer's, byte for byte, and the set is where the
    /// configuration lets it be (threats D03, D04).
    pub(super) fn jwks_uri_in(&self, bytes: &[u8], issuer: &IssuerUrl) -> Result<Url, String> {
        let document = parse_object(bytes, &Limits::DISCOVERY)
            .map_err(|error| format!("discovery document: {error}"))?;
        let text = |member: &str| match document.get(member) {
            Some(Value::String(text)) => Ok(text.as_str()),
            _ => Err(format!("discovery document has no text member `{member}`")),
        };
        let found = text("issuer")?;
        if found != issuer.as_str() {
            let found: String = found.chars().take(128).flat_map(char::escape_debug).collect();
            return Err(format!("discovery document is of issuer `{found}`, expected `{issuer}`"));
        }
        let jwks_uri = Url::parse(text("jwks_uri")?)
            .map_err(|error| format!("discovery document: `jwks_uri` is not a URL: {error}"))?;
        let plain = matches!(self, Self::Discovered { plain: true, .. });
        acceptable(&jwks_uri, plain)
            .map_err(|reason| format!("discovery document: `jwks_uri` `{jwks_uri}` {reason}"))?;
        if !self.origins().contains(&jwks_uri.origin()) {
            return Err(format!(
                "discovery document: `jwks_uri` `{jwks_uri}` is on another origin than the issuer; if that is right, name it as \
                 `jwks_origin`"
            ));
        }
        Ok(jwks_uri)
    }
}

/// What a URL must be before anything is sent to it.
fn acceptable(url: &Url, plain: bool) -> Result<(), &'static str> {
    if !(url.scheme() == "https" || plain && url.scheme() == "http") {
        return Err("does not begin with `https://`");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("has userinfo");
    }
    if url.fragment().is_some() {
        return Err("has a fragment");
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("has no host");
    }
    Ok(())
}
