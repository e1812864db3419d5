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
    /// `urn:cambio:token-type:database`: a login at a database server. Ours, because RFC 8693 section 3 names none.
    Database,
    /// `urn:cambio:token-type:aws`: an AWS session. Ours, too.
    Aws,
    /// `urn:cambio:token-type:x509`: a client certificate. Ours, for the same reason.
    X509,
}

impl TokenType {
    /// The URN.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Jwt => "urn:ietf:params:oauth:token-type:jwt",
            Self::IdToken => "urn:ietf:params:oauth:token-type:id_token",
            Self::AccessToken => "urn:ietf:params:oauth:token-type:access_token",
            Self::Database => crate::mint::login::TOKEN_TYPE,
            Self::Aws => crate::mint::aws::TOKEN_TYPE,
            Self::X509 => crate::mint::x509::TOKEN_TYPE,
        }
    }

    /// The type that `urn` names, exactly.
    #[must_use]
    pub fn of(urn: &str) -> Option<Self> {
        let all =
            [Self::Jwt, Self::IdToken, Self::AccessToken, Self::Database, Self::X509, Self::Aws];
        all.into_iter().find(|kind| kind.as_str() == urn)
    }

    /// Checks that a verified token is of this type: platforms hand out id tokens, only we hand out access tokens; both
    /// are JWTs.
    pub(in crate::exchange) fn must_fit(self, subject: &VerifiedSubject) -> Result<(), Refusal> {
        let ours = subject.profile().preset.name == "cambio";
        let fits = match self {
            Self::Jwt => true,
            Self::IdToken => !ours,
            Self::AccessToken => ours,
            Self::Database | Self::X509 | Self::Aws => false,
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
    let makes: &[TokenType] = match plan {
        Plan::Jwt(_) => &[TokenType::AccessToken, TokenType::Jwt],
        Plan::Aws(_) => &[TokenType::Aws],
        Plan::Login(_) | Plan::Rds(_) => &[TokenType::Database],
        Plan::Cloud(_) => &[TokenType::AccessToken],
        Plan::X509(_) => &[TokenType::X509],
    };
    let Some(wanted) = wanted.filter(|wanted| !makes.contains(wanted)) else { return Ok(()) };
    let expected: Vec<String> = makes.iter().map(|made| format!("`{}`", made.as_str())).collect();
    Err(Refusal::BadRequest(format!(
        "`requested_token_type` is `{}`, expected {}",
        wanted.as_str(),
        expected.join(" or ")
    )))
}
