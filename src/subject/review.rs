//! Asks a cluster whether a token still stands: Kubernetes `TokenReview` (`authentication.k8s.io/v1`).
//!
//! A signature can't tell that the pod, the node or the service account that a token is bound to was deleted since, or deleted and
//! created again (threats C15, C16). The API server looks them up by uid.
//!
//! It is asked after every check of ours and after policy has permitted the exchange: a stranger never makes us call out, a pod
//! that gets nothing does not either, and one workload no more often than its rate limit lets it. An answer is never kept: a yes
//! of a minute ago is what a signature is already. The API server keeps a yes for ten seconds, by token and audiences; so that it
//! looks anew, no two of our questions name the same audiences (`Audiences`).

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::{
    Client,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};
use serde_json::{Value, json};
use tokio::{sync::Semaphore, time};
use url::Url;

use super::{Profile, Rejection, UnverifiedToken, key_source::bearer};
use crate::{
    chance::Chance,
    grant::IssuerName,
    web::{self, Reaching},
};

mod answer;

use answer::{Expected, Verdict};

const API_VERSION: &str = "authentication.k8s.io/v1";
const KIND: &str = "TokenReview";
const PATH: &str = "apis/authentication.k8s.io/v1/tokenreviews";
/// The most bytes of an answer: it repeats the token, and tells groups.
const MAXIMUM_ANSWER: usize = 64 * 1024;

/// How the API server of one issuer is asked.
#[derive(Clone, Debug)]
pub struct ReviewTerms {
    /// Whose tokens.
    pub issuer: IssuerName,
    /// The one `aud` that they carry: the API server must say that the token is good for it.
    pub audience: String,
    /// Where the API server is: https.
    pub api_server: Url,
    /// Who vouches for it, in place of the machine's trust roots (PEM).
    pub ca_file: PathBuf,
    /// Our own service-account token, read anew for each question.
    pub token_file: PathBuf,
    /// From the question to the last byte of the answer.
    pub timeout: Duration,
    /// How many questions at once; more are turned away.
    pub max_in_flight: usize,
}

/// Is told of every question.
pub trait ReviewWatch: fmt::Debug + Send + Sync {
    /// A token of `issuer` was asked about: `stands`, `refused`, `unavailable`, or `shed` where too many were under way.
    fn reviewed(&self, issuer: &IssuerName, outcome: &'static str, took: Duration);
}

/// Asks one API server.
pub struct TokenReview {
    terms: ReviewTerms,
    url: Url,
    client: Client,
    places: Semaphore,
    chance: Arc<dyn Chance>,
    watch: Arc<dyn ReviewWatch>,
    /// Why the last question had no answer.
    trouble: Mutex<Option<String>>,
}

impl fmt::Debug for TokenReview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenReview").field("terms", &self.terms).finish_non_exhaustive()
    }
}

/// A verified token, and who is to be asked about it: made by the verifier alone, so that what is asked about is what was verified.
#[derive(Debug)]
pub(in crate::subject) struct Question {
    review: Arc<TokenReview>,
    token: UnverifiedToken,
}

impl Question {
    pub(in crate::subject) fn of(review: &Arc<TokenReview>, token: &UnverifiedToken) -> Arc<Self> {
        Arc::new(Self { review: Arc::clone(review), token: token.clone() })
    }

    pub(in crate::subject) async fn ask(&self, profile: &Profile) -> Result<(), Rejection> {
        self.review.confirm(&self.token, profile).await
    }
}

/// Why there is no verdict.
enum NoVerdict {
    /// As many questions as may be are under way; this one was not asked.
    Shed,
    Outage(String),
}

impl TokenReview {
    /// One that asks as `terms` say. Nothing is asked yet.
    ///
    /// # Errors
    /// The API server's URL is not https, or the CA file holds no certificate.
    pub fn of(
        terms: ReviewTerms,
        chance: Arc<dyn Chance>,
        watch: Arc<dyn ReviewWatch>,
    ) -> Result<Self, String> {
        let base = &terms.api_server;
        if base.scheme() != "https" {
            return Err(format!("API server `{base}` is not https: tokens would go in the clear"));
        }
        let text = format!("{}/{PATH}", base.as_str().trim_end_matches('/'));
        let url = Url::parse(&text).map_err(|error| format!("API server `{base}`: {error}"))?;
        // Only the cluster's own CA: no public one has a say in whom tokens are shown to (threat D07).
        let reaching = Reaching { only_ca_file: Some(&terms.ca_file), ..Reaching::default() };
        let client = web::client(&url, reaching).map_err(|error| error.to_string())?;
        let places = Semaphore::new(terms.max_in_flight);
        Ok(Self { terms, url, client, places, chance, watch, trouble: Mutex::default() })
    }

    /// Why the last question had no answer, if it had none: for readiness.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where questions go to.
    #[must_use]
    pub const fn api_server(&self) -> &Url {
        &self.terms.api_server
    }

    /// Asks about our own token, for `cambio doctor`: who the API server takes us for.
    ///
    /// # Errors
    /// What is missing: the connection, our credential, or our right to ask.
    pub async fn examine(&self) -> Result<String, String> {
        let asked = time::timeout(self.terms.timeout, async {
            let own = bearer::read(&self.terms.token_file).await?;
            self.post(&UnverifiedToken(own), Audiences::TheServersOwn).await
        });
        let (status, body) = asked.await.map_err(|_| self.late())??;
        answer::who(status, &body)
    }

    async fn confirm(&self, token: &UnverifiedToken, profile: &Profile) -> Result<(), Rejection> {
        let begun = time::Instant::now();
        let verdict = self.verdict(token, profile).await;
        let outcome = match &verdict {
            Ok(Verdict::Stands) => "stands",
            Ok(Verdict::Refused(_)) => "refused",
            Err(NoVerdict::Shed) => "shed",
            Err(NoVerdict::Outage(_)) => "unavailable",
        };
        self.watch.reviewed(&self.terms.issuer, outcome, begun.elapsed());
        let issuer = self.terms.issuer.clone();
        match verdict {
            Ok(Verdict::Stands) => Ok(()),
            Ok(Verdict::Refused(reason)) => Err(Rejection::NotStanding { issuer, reason }),
            Err(NoVerdict::Outage(reason)) => Err(Rejection::ReviewUnavailable { issuer, reason }),
            Err(NoVerdict::Shed) => {
                let most = self.terms.max_in_flight;
                let reason = format!("{most} questions are under way, as many as `max_in_flight`");
                Err(Rejection::ReviewUnavailable { issuer, reason })
            }
        }
    }

    async fn verdict(
        &self,
        token: &UnverifiedToken,
        profile: &Profile,
    ) -> Result<Verdict, NoVerdict> {
        // Threats V03, V07: nobody queues for an API server that is slow. The caller comes back, and the places of the broker are for
        // those who can be served.
        let _place = self.places.try_acquire().map_err(|_| NoVerdict::Shed)?;
        let expected = Expected::of(profile, &self.terms.audience);
        let asked = time::timeout(self.terms.timeout, self.ask(token, &expected)).await;
        let found = asked.unwrap_or_else(|_| Err(self.late()));
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = found.clone().err();
        found.map_err(NoVerdict::Outage)
    }

    async fn ask(
        &self,
        token: &UnverifiedToken,
        expected: &Expected<'_>,
    ) -> Result<Verdict, String> {
        let audiences = Audiences::anew(&self.terms.audience, &*self.chance)?;
        let (status, body) = self.post(token, audiences).await?;
        answer::judge(status, &body, expected)
    }

    /// The status and the body of the API server's answer to one question.
    async fn post(
        &self,
        token: &UnverifiedToken,
        audiences: Audiences<'_>,
    ) -> Result<(u16, Vec<u8>), String> {
        let path = &self.terms.token_file;
        let told = |reason: String| format!("our own token: {reason}");
        let own = bearer::read(path).await.map_err(told)?;
        let authorization = bearer::header(&own, path).map_err(told)?;
        let request = self
            .client
            .post(self.url.clone())
            .header(AUTHORIZATION, authorization)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(ACCEPT, HeaderValue::from_static("application/json"))
            .body(question(token, &audiences).to_string());
        let answered = web::send(request, MAXIMUM_ANSWER).await;
        let answered = answered
            .map_err(|error| format!("no answer from `{}`: {error}", self.terms.api_server))?;
        Ok((answered.status.as_u16(), answered.body.0))
    }

    fn late(&self) -> String {
        let seconds = self.terms.timeout.as_secs();
        format!("no answer from `{}` within {seconds} s", self.terms.api_server)
    }
}

/// For whom a token is asked to be good.
enum Audiences<'a> {
    /// Ours, and one that nobody has: the API server answers with those that the token carries, which is ours alone.
    Ours(&'a str, String),
    /// None named: those of the API server itself.
    TheServersOwn,
}

impl<'a> Audiences<'a> {
    /// Found with a real API server: asked about the same token for the same audiences, it went on saying yes for ten seconds after
    /// the pod was gone (`k8s.io/apiserver`, package `authentication/token/cache`). A question that it never heard has no kept answer.
    fn anew(ours: &'a str, chance: &dyn Chance) -> Result<Self, String> {
        let mut bytes = [0; 16];
        chance.fill(&mut bytes).map_err(|error| error.to_string())?;
        Ok(Self::Ours(ours, format!("urn:cambio:review:{}", URL_SAFE_NO_PAD.encode(bytes))))
    }
}

fn question(token: &UnverifiedToken, audiences: &Audiences<'_>) -> Value {
    let token = token.unverified_text();
    let spec = match audiences {
        Audiences::Ours(ours, new) => json!({ "token": token, "audiences": [ours, new] }),
        Audiences::TheServersOwn => json!({ "token": token }),
    };
    json!({ "apiVersion": API_VERSION, "kind": KIND, "spec": spec })
}
