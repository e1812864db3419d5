//! One errand: the token from where it is, brought to one broker, for one credential. It can be run again and again: each run
//! has the token anew, because what lay in a file a minute ago may be another one by now (the kubelet rotates it), and what a
//! platform hands out is mostly good once.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

use aws_lc_rs::digest;

use super::{
    Answer, Asked, Broker, ClientError, Machine, Refused, Waiting,
    ambient::{self, Found, Wanted},
};
use crate::{clock::Clock, secret::Secret, web::Reaching};

/// More than any issuer's token, and less than a mistake (a whole log file).
const LIMIT: u64 = 64 * 1024;

/// Where the subject token comes from.
#[derive(Clone, Debug)]
pub enum TokenSource {
    /// What the platform hands out: this one, or the first that shows.
    Platform(Option<String>),
    /// This file, read at each run.
    File(PathBuf),
    /// This variable of the machine's environment.
    Variable(String),
    /// This token, and no other will come.
    Given(Secret),
}

/// What is wanted, of whom, and with which token.
#[derive(Clone, Debug)]
pub struct Errand {
    /// Who is asked.
    pub broker: Broker,
    /// The subject token's place.
    pub source: TokenSource,
    /// Whom the subject token shall be for; without it, the broker's issuer URL.
    pub token_audience: Option<String>,
    /// The target.
    pub audience: Option<String>,
    /// The role, and scopes.
    pub scope: Option<String>,
    /// A shorter lifetime than the rule's.
    pub lifetime: Option<Duration>,
    /// Root certificates (PEM) for the platform's own endpoints, besides the machine's. The broker has its client already.
    pub ca_file: Option<PathBuf>,
    /// An HTTP proxy for them.
    pub proxy: Option<String>,
}

/// A subject token that is at hand.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The token.
    pub token: Secret,
    /// The platform's name for people and the place on it, where a platform was asked. Never a value.
    pub place: Option<(&'static str, String)>,
}

impl Subject {
    /// SHA-256 of the token: tells whether the next one is the same, without keeping it.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut out = [0; 32];
        let digest = digest::digest(&digest::SHA256, self.token.reveal());
        for (to, from) in out.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        out
    }
}

/// How a run ended at the broker.
#[derive(Debug)]
pub struct Acquired {
    /// What the broker answered: a refusal is an answer.
    pub answer: Answer,
    /// Which token was shown: [`Subject::fingerprint`].
    pub fingerprint: [u8; 32],
    /// Where it was found: [`Subject::place`].
    pub place: Option<(&'static str, String)>,
}

impl Errand {
    /// Has the subject token.
    ///
    /// # Errors
    /// There is none, it can't be one, or the platform does not hand it out.
    pub async fn subject(
        &self,
        machine: &Machine,
        waiting: &mut Waiting<'_>,
    ) -> Result<Subject, ClientError> {
        let alone = |token| Ok(Subject { token, place: None });
        match &self.source {
            TokenSource::Given(token) => alone(token.clone()),
            TokenSource::File(path) => alone(read_file(path)?),
            TokenSource::Variable(name) => {
                let token = machine.environment.find(name).map(str::trim);
                let token = token.ok_or_else(|| {
                    ClientError::usage(format!("`{name}` is not set, or is empty"))
                })?;
                alone(Secret::from(token.to_owned()))
            }
            TokenSource::Platform(platform) => {
                let audience = self.token_audience.as_deref().unwrap_or(self.broker.issuer());
                let wanted = Wanted { audience, platform: platform.as_deref() };
                let reaching = Reaching {
                    ca_file: self.ca_file.as_deref(),
                    proxy: self.proxy.as_deref(),
                    ..Reaching::default()
                };
                let Found { platform, place, token } =
                    ambient::find(wanted, machine, reaching, waiting).await?;
                Ok(Subject { token, place: Some((platform.title, place)) })
            }
        }
    }

    /// Brings `subject` to the broker.
    ///
    /// # Errors
    /// No answer of a broker came.
    pub async fn exchange(
        &self,
        subject: &Subject,
        waiting: &mut Waiting<'_>,
        clock: &dyn Clock,
    ) -> Result<Answer, ClientError> {
        let asked = Asked {
            subject_token: &subject.token,
            audience: self.audience.as_deref(),
            scope: self.scope.as_deref(),
            lifetime: self.lifetime,
        };
        asked.of(&self.broker, waiting, clock).await
    }

    /// Both, one after the other.
    ///
    /// # Errors
    /// There is no token, or no answer of a broker came.
    pub async fn run(
        &self,
        machine: &Machine,
        waiting: &mut Waiting<'_>,
        clock: &dyn Clock,
    ) -> Result<Acquired, ClientError> {
        let subject = self.subject(machine, waiting).await?;
        let answer = self.exchange(&subject, waiting, clock).await?;
        Ok(Acquired { answer, fingerprint: subject.fingerprint(), place: subject.place })
    }

    /// `refused`, in words, with what was asked for. Where the token is refused, and its audience is the one that we chose by
    /// ourselves, that is said too: the broker's configuration may name another one for this issuer.
    #[must_use]
    pub fn refused(&self, refused: Refused, subject: &Subject) -> ClientError {
        let of_the_token = refused
            .description
            .as_deref()
            .is_some_and(|words| words.starts_with("the subject token"));
        let mut error = refused.of(self.audience.as_deref());
        let ours = self.broker.issuer();
        if of_the_token
            && self.token_audience.is_none()
            && matches!(self.source, TokenSource::Platform(_))
            && ambient::is_unverified_for(&subject.token, ours)
        {
            let words = format!(
                "the token was asked for with the audience `{ours}`; if the broker expects another one of this issuer, name \
                 it with `--token-audience`"
            );
            error.hint = Some(match error.hint {
                Some(hint) => format!("{words}; {hint}"),
                None => words,
            });
        }
        error
    }

    /// `refused`, where the same token had been taken before: most issuers' tokens are good once, and then the words of the
    /// broker alone would send the reader to the policy, in place of the token.
    #[must_use]
    pub fn refused_again(&self, refused: Refused) -> ClientError {
        let why = match &self.source {
            TokenSource::File(path) => format!(
                "the token in `{}` is still the one that was exchanged before; whoever writes it must replace it in time",
                path.display()
            ),
            TokenSource::Variable(name) => format!(
                "the token in `{name}` was exchanged before, and a variable never changes: take a file, or a platform that \
                 hands out tokens at any time"
            ),
            TokenSource::Given(_) => {
                "the token that was handed in was exchanged before, and no other one can come"
                    .to_owned()
            }
            TokenSource::Platform(_) => {
                "the platform hands out the token that was exchanged before".to_owned()
            }
        };
        let outage = refused.is_outage();
        let mut error = ClientError::from(refused);
        if !outage {
            error.hint = Some(match error.hint {
                Some(hint) => format!("{why}; {hint}"),
                None => why,
            });
        }
        error
    }
}

/// The token in the file at `path`. White space around it is the file's, not the token's: it goes.
///
/// # Errors
/// It can't be read, is empty, or is too long for a token.
pub fn read_file(path: &Path) -> Result<Secret, ClientError> {
    let name = path.display().to_string();
    let file =
        File::open(path).map_err(|error| ClientError::usage(format!("`{name}`: {error}")))?;
    read_token(&name, file)
}

/// The token that `from`, called `name` in messages, holds.
///
/// # Errors
/// It can't be read, is empty, or is too long for a token.
pub fn read_token(name: &str, from: impl Read) -> Result<Secret, ClientError> {
    let mut bytes = Vec::new();
    let read = from.take(LIMIT).read_to_end(&mut bytes);
    // Wiped however this ends.
    let secret = Secret::new(bytes);
    let length = read.map_err(|error| ClientError::usage(format!("`{name}`: {error}")))?;
    if u64::try_from(length).unwrap_or(LIMIT) >= LIMIT {
        return Err(ClientError::usage(format!("`{name}` has {LIMIT} bytes or more: no token")));
    }
    let text = secret
        .reveal_text()
        .ok_or_else(|| ClientError::usage(format!("`{name}` is not UTF-8: no token")))?;
    let token = text.trim();
    if token.is_empty() {
        return Err(ClientError::usage(format!("`{name}` is empty, expected a token")));
    }
    Ok(Secret::from(token.to_owned()))
}
