//! From a text to a verified subject: threats J01 to J29, and what X01, X06 and X08 say of tokens.

mod claims;
mod corpus;
mod keys;
mod properties;
mod shape;
mod vectors;

use std::sync::Arc;

use cambio::{
    clock::{Instant, ManualClock},
    subject::{Issuer, Issuers, Rejection, UnverifiedToken, VerifiedSubject, verify::Verifier},
};

use crate::support::{
    issuer::FakeIssuer,
    token::{NOW, TokenBuilder},
};

/// One issuer, one verifier, and a clock that stands at [`NOW`].
#[derive(Debug)]
struct Bench {
    issuer: FakeIssuer,
    clock: Arc<ManualClock>,
    verifier: Verifier,
}

impl Bench {
    /// Everything as [`FakeIssuer::configured_as`] has it.
    fn new() -> Self {
        Self::with(|_| {})
    }

    /// The configured issuer with a change.
    fn with(change: impl FnOnce(&mut Issuer)) -> Self {
        Self::of(FakeIssuer::at("https://issuer.example"), change)
    }

    /// Any issuer, with a change to its configuration.
    fn of(issuer: FakeIssuer, change: impl FnOnce(&mut Issuer)) -> Self {
        let mut configured = issuer.configured_as("ci");
        change(&mut configured);
        let clock = Arc::new(ManualClock::at(Instant::from_seconds(NOW)));
        let verifier = Verifier::new(Issuers::of([configured]).unwrap(), clock.clone());
        Self { issuer, clock, verifier }
    }

    /// Begins a valid token.
    fn token(&self) -> TokenBuilder<'_> {
        self.issuer.token()
    }

    async fn verify(&self, token: &str) -> Result<VerifiedSubject, Rejection> {
        self.verifier.verify(&UnverifiedToken::new(token.to_owned())).await
    }

    /// What the operator reads of `token`.
    async fn verdict_on(&self, token: &str) -> String {
        match self.verify(token).await {
            Ok(_) => "accepted".to_owned(),
            Err(rejection) => rejection.to_string(),
        }
    }

    /// What the operator reads of the signed token.
    async fn verdict(&self, token: TokenBuilder<'_>) -> String {
        self.verdict_on(&token.sign()).await
    }
}
