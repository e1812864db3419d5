//! The ordered checks between a text and a [`VerifiedSubject`]. Each names its section; none is optional.

use std::{fmt, sync::Arc};

use super::{
    Claims, Issuer, Issuers, KeySourceError, Profile, Rejection, TokenDigest, UnverifiedToken,
    VerificationKey, VerifiedSubject,
    compact::{CompactError, UnverifiedHeader, UnverifiedJws},
    json::{self, Limits, excerpt},
    jws::{self, JwsError},
    provider::ClaimError,
    review::Question,
};
use crate::clock::Clock;

mod claims;
mod text;

/// Makes verified subjects, and is the only one that can.
pub struct Verifier {
    issuers: Issuers,
    clock: Arc<dyn Clock>,
}

impl Verifier {
    /// A verifier for the tokens of `issuers`, at the times of `clock`.
    #[must_use]
    pub fn new(issuers: Issuers, clock: Arc<dyn Clock>) -> Self {
        Self { issuers, clock }
    }

    /// The issuers whose tokens it takes.
    #[must_use]
    pub const fn issuers(&self) -> &Issuers {
        &self.issuers
    }

    /// Proves who `token` is about, or says why not.
    ///
    /// The signature is checked before any claim is judged, so that whoever can't sign learns nothing from the order of
    /// our work (threat J28); the result is the only outcome, there is no half-filled subject (threat J27).
    ///
    /// # Errors
    /// The first check that does not hold. Callers see one public answer for all of them.
    pub async fn verify(&self, token: &UnverifiedToken) -> Result<VerifiedSubject, Rejection> {
        // RFC 7515 section 7.1, RFC 8725bis section 3.11: compact JWS only, and a header of known members.
        // RFC 7519 section 7.2: the payload is one JSON object. Read here once, because `iss` chooses the keys.
        let unproven = UnprovenJwt::parse(token.unverified_text())?;

        // OpenID Connect Core section 3.1.3.7, 2: `iss` matches exactly. An unknown one makes no call (threat D01).
        let issuer = self.find_issuer(unproven.claimed_issuer()?)?;

        // RFC 8725bis section 3.1: the algorithm is one that the issuer may use; the key narrows it further below.
        let refuse = |error| from_jws(&issuer, error);
        jws::admit(&unproven.jws.header, &issuer.algorithms).map_err(refuse)?;

        // RFC 7515 section 4.1.4: `kid` looked up among the keys of this issuer and of no other (threat J04).
        let kid = unproven.jws.header.kid.as_deref();
        let keys = issuer.keys.find(kid, self.clock.now()).await;
        let keys = keys.map_err(|error| refuse(JwsError::Key(error)))?;

        // RFC 7515 section 5.2.
        let proven = unproven.prove(&keys).map_err(refuse)?;

        // RFC 7519 section 4.1. The clock is read again: finding the keys may have taken a fetch.
        let refuse = |error| from_claim(&issuer, error);
        let times = claims::check(&proven.claims, &issuer, self.clock.now()).map_err(refuse)?;

        // RFC 8725bis section 3.11, explicit typing: no token made for another purpose (threats J21, X08).
        claims::check_type(proven.header.media_type.as_deref(), &issuer)
            .map_err(Rejection::Header)?;

        // What this kind of issuer is known to say: types, the grammar of `sub`, the stable id (threat C03).
        let profile = Profile::of(issuer.name.clone(), issuer.preset, proven.claims);
        let profile = profile.map_err(refuse)?;

        // Threat C16: what only the issuer knows is asked by `VerifiedSubject::confirm`, once policy has permitted the exchange.
        let question = issuer.review.as_ref().map(|review| Question::of(review, token));

        let times = (times.issued_at, times.expires_at);
        Ok(VerifiedSubject::attest(profile, times, proven.digest, question))
    }

    fn find_issuer(&self, claimed: &str) -> Result<Arc<Issuer>, Rejection> {
        let unknown = || Rejection::UnknownIssuer { found: excerpt(claimed) };
        self.issuers.find(claimed).cloned().ok_or_else(unknown)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("issuers", &self.issuers).finish_non_exhaustive()
    }
}

/// A JWT whose signature was not looked at. It gives away who it *says* issued it, and its header, and no more.
struct UnprovenJwt<'t> {
    jws: UnverifiedJws<'t>,
    claims: Claims,
}

/// The claims as their issuer signed them.
struct ProvenJwt {
    header: UnverifiedHeader,
    claims: Claims,
    digest: TokenDigest,
}

impl<'t> UnprovenJwt<'t> {
    fn parse(token: &'t str) -> Result<Self, Rejection> {
        let jws = UnverifiedJws::parse(token).map_err(|error| from_compact(&error))?;
        let claims = json::parse_object(&jws.payload, &Limits::CLAIMS)
            .map_err(|error| Rejection::Malformed(format!("the claims: {error}")))?;
        Ok(Self { jws, claims })
    }

    /// Chooses a set of keys; decides nothing. A list is refused even if a trusted issuer is in it (CVE-2025-30144, J25).
    fn claimed_issuer(&self) -> Result<&str, Rejection> {
        let found = match self.claims.get("iss") {
            Some(serde_json::Value::String(claimed)) => return Ok(claimed),
            Some(other) => json::kind(other),
            None => "none",
        };
        Err(Rejection::Malformed(format!("claim `iss`: found {found}, expected a string")))
    }

    /// Uses up the unproven token: its claims are to be had only with a good signature.
    fn prove(self, keys: &[Arc<VerificationKey>]) -> Result<ProvenJwt, JwsError> {
        let digest = jws::prove(&self.jws, keys)?;
        Ok(ProvenJwt { header: self.jws.header, claims: self.claims, digest })
    }
}

fn from_compact(error: &CompactError) -> Rejection {
    if error.concerns_header() {
        return Rejection::Header(error.to_string());
    }
    Rejection::Malformed(error.to_string())
}

fn from_jws(issuer: &Issuer, error: JwsError) -> Rejection {
    let issuer = issuer.name.clone();
    match error {
        JwsError::Compact(error) => from_compact(&error),
        JwsError::Algorithm { .. } => Rejection::Header(error.to_string()),
        JwsError::Key(KeySourceError::Unavailable(reason)) => {
            Rejection::KeysUnavailable { issuer, reason }
        }
        JwsError::Key(KeySourceError::NoSuchKey { kid, reason }) => {
            let reason = format!("no key `{}`: {reason}", excerpt(&kid));
            Rejection::NoKey { issuer, reason }
        }
        JwsError::NoKeyFits(reason) => Rejection::NoKey { issuer, reason },
        JwsError::Signature { kid } => Rejection::Signature { issuer, kid },
    }
}

fn from_claim(issuer: &Issuer, error: ClaimError) -> Rejection {
    let ClaimError { claim, reason } = error;
    Rejection::Claim { issuer: issuer.name.clone(), claim, reason }
}
