//! RFC 8693 section 3: what a token says it is must be what it is (threat X08).

use crate::{mint::Plan, refusal::Refusal, subject::VerifiedSubject};

/// A token type of RFC 8693 section 3 that we take or give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenType {
    /// `urn:ietf:params:oauth:token-type:jwt`
    Jwt,
    /// `urn:ietf:params:oauth:token-type:id_token`
    IdToken,
    /// `urn:ietf:params:oauth:token-type:access_token`
    AccessToken,
}

impl TokenType {
    /// The URN.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Jwt => "urn:ietf:params:oauth:token-type:jwt",
            Self::IdToken => "urn:ietf:params:oauth:token-type:id_token",
            Self::AccessToken => "urn:ietf:params:oauth:token-type:access_token",
        }
    }

    /// The type that `urn` names, exactly.
    #[must_use]
    pub fn of(urn: &str) -> Option<Self> {
        [Self::Jwt, Self::IdToken, Self::AccessToken].into_iter().find(|kind| kind.as_str() == urn)
    }

    /// Checks that a verified token is of this type: platforms hand out id tokens, only we hand out access tokens; both
    /// are JWTs.
    pub(in crate::exchange) fn must_fit(self, subject: &VerifiedSubject) -> Result<(), Refusal> {
        let ours = subject.profile().preset.name == "cambio";
        let fits = match self {
            Self::Jwt => true,
            Self::IdToken => !ours,
            Self::AccessToken => ours,
        };
        if fits {
            return Ok(());
        }
        let found = if ours { Self::AccessToken } else { Self::IdToken };
        Err(Refusal::BadRequest(format!(
            "token type `{}` was stated, found one of type `{}`",
            self.as_str(),
            found.as_str()
        )))
    }
}

/// Checks that what was asked for is what this plan makes.
pub(in crate::exchange) fn must_issue(
    wanted: Option<TokenType>,
    plan: &Plan,
) -> Result<(), Refusal> {
    match (wanted, plan) {
        (None | Some(TokenType::Jwt | TokenType::AccessToken), Plan::Jwt(_)) => Ok(()),
        (Some(TokenType::IdToken), Plan::Jwt(_)) => Err(Refusal::BadRequest(
            "`requested_token_type` is `id_token`, expected `access_token` or `jwt`".to_owned(),
        )),
    }
}
