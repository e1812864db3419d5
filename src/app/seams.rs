//! What the edge serves from, filled with the real parts.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::body::Bytes;
use serde_json::{Map, Value};

use crate::{
    app::State,
    clock::Instant,
    edge::{
        CallerRefused, Check, Health, Introspect, Log, Published, Revocation, Revocations,
        Unavailable,
    },
    grant::{IssuerName, TargetName},
    keys::{
        Phase,
        keyring::Keyring,
        own::Introspector,
        schedule::{Schedule, in_phase},
    },
    lease::{
        Trouble,
        ending::{Ending, EndingError},
        reaper::Watch,
    },
    ledger::{Operator, reader::LedgerReader, tile::TileName, writer::Writer},
    mint::login::token_hash,
    secret::Secret,
    subject::{issuers::IssuerUrl, review::ReviewWatch},
    telemetry::Metrics,
};

/// The published key set.
#[derive(Debug)]
pub struct Keys(pub Arc<Keyring>, pub Writer);

impl Published for Keys {
    fn jwks(&self, now: Instant) -> (Bytes, Duration) {
        let published = self.0.published(now);
        (Bytes::copy_from_slice(published.document.as_bytes()), published.max_age)
    }

    /// A store that was restored holds keys that may have been withdrawn in the history that it lacks. Verifiers go on with what
    /// they have until the fork is recorded.
    fn withheld(&self) -> bool {
        self.1.is_held().is_some()
    }

    fn algorithms(&self) -> Vec<&'static str> {
        self.0.schedule().algorithms().iter().map(|algorithm| algorithm.as_str()).collect()
    }

    fn bundle(&self, target: &str, now: Instant) -> Option<(Bytes, Duration)> {
        let published = self.0.bundle(&TargetName::from(target), now)?;
        Some((Bytes::copy_from_slice(published.document.as_bytes()), published.max_age))
    }

    fn has_bundles(&self) -> bool {
        !self.0.schedules().certificates().is_empty()
    }
}

/// The public half of the ledger.
#[derive(Debug)]
pub struct PublicLog(pub Arc<dyn LedgerReader>);

#[async_trait]
impl Log for PublicLog {
    async fn checkpoint(&self) -> Result<Option<Bytes>, Unavailable> {
        let reader = Arc::clone(&self.0);
        let read = move || reader.newest_checkpoint().map(|found| found.map(|found| found.note));
        let note = blocking(read).await?;
        Ok(note.map(Bytes::from))
    }

    async fn tile(&self, tile: TileName) -> Result<Option<Bytes>, Unavailable> {
        let reader = Arc::clone(&self.0);
        let hashes = blocking(move || tile.render(&*reader)).await?;
        Ok(hashes.map(Bytes::from))
    }
}

async fn blocking<T: Send + 'static, E: std::fmt::Display + Send + 'static>(
    read: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Unavailable> {
    let read = tokio::task::spawn_blocking(read).await;
    let read = read.map_err(|error| Unavailable(error.to_string()))?;
    read.map_err(|error| Unavailable(error.to_string()))
}

/// What the reaper does, counted.
#[derive(Debug)]
pub struct LeaseMetrics(pub Arc<Metrics>);

impl Watch for LeaseMetrics {
    fn ended(&self, _target: &TargetName, late: Duration) {
        self.0.lease_ended(late);
    }

    fn failed(&self, target: &TargetName, kind: &'static str) {
        self.0.lease_failed(target, kind);
    }
}

/// What API servers are asked about tokens, counted.
#[derive(Debug)]
pub struct ReviewMetrics(pub Arc<Metrics>);

impl ReviewWatch for ReviewMetrics {
    fn reviewed(&self, issuer: &IssuerName, outcome: &'static str, took: Duration) {
        self.0.token_reviewed(issuer, outcome, took);
    }
}

/// Introspection by workloads with a role `introspect:<audience>` of target `cambio`.
#[derive(Debug)]
pub struct OwnTokens {
    issuer: IssuerUrl,
    introspector: Introspector,
}

impl OwnTokens {
    /// For the tokens of `issuer`, which is us.
    #[must_use]
    pub fn of(issuer: IssuerUrl, keyring: Arc<Keyring>) -> Self {
        Self { introspector: Introspector::of(issuer.clone(), keyring), issuer }
    }

    /// The members of a caller's token, if it is a live one of ours for our own API.
    fn caller(&self, token: &Secret, now: Instant) -> Result<Map<String, Value>, CallerRefused> {
        self.live(token, self.issuer.as_str(), now).ok_or_else(|| {
            CallerRefused::Unauthenticated("not a live token of ours for our own API".to_owned())
        })
    }

    fn live(&self, token: &Secret, audience: &str, now: Instant) -> Option<Map<String, Value>> {
        let answer = self.introspector.introspect(token.reveal_text()?, audience, now);
        let Value::Object(mut members) = answer else { return None };
        (members.remove("active") == Some(true.into())).then_some(members)
    }
}

#[async_trait]
impl Introspect for OwnTokens {
    async fn introspect(
        &self,
        caller: Secret,
        token: Secret,
        now: Instant,
    ) -> Result<Option<Map<String, Value>>, CallerRefused> {
        let who = self.caller(&caller, now)?;
        let scope = who.get("scope").and_then(Value::as_str).unwrap_or_default();
        let audiences: BTreeSet<&str> =
            scope.split(' ').filter_map(|role| role.strip_prefix("introspect:")).collect();
        if audiences.is_empty() {
            return Err(CallerRefused::NotAllowed);
        }
        Ok(audiences.into_iter().find_map(|audience| self.live(&token, audience, now)))
    }
}

/// Ending leases by their holders, and by workloads with role `revoke` of target `cambio`.
#[derive(Debug)]
pub struct LeaseRevocations {
    /// Judges callers.
    pub tokens: OwnTokens,
    /// Does it.
    pub ending: Arc<Ending>,
}

impl LeaseRevocations {
    /// Who asks, as the ledger will name it.
    fn asked_by(&self, caller: Option<&Secret>, now: Instant) -> Result<Operator, CallerRefused> {
        let reason = "POST /revoke".to_owned();
        let Some(caller) = caller else {
            return Ok(Operator { who: "holder".to_owned(), reason });
        };
        let who = self.tokens.caller(caller, now)?;
        let text = |name: &str| who.get(name).and_then(Value::as_str).unwrap_or_default();
        if !text("scope").split(' ').any(|role| role == "revoke") {
            return Err(CallerRefused::NotAllowed);
        }
        Ok(Operator { who: text("sub").to_owned(), reason })
    }
}

#[async_trait]
impl Revocations for LeaseRevocations {
    async fn revoke(
        &self,
        caller: Option<Secret>,
        token: Secret,
        now: Instant,
    ) -> Result<Revocation, CallerRefused> {
        let by = self.asked_by(caller.as_ref(), now)?;
        let text = token.reveal_text().unwrap_or_default();
        if text.split('.').count() == 3 {
            return Ok(Revocation::Unsupported);
        }
        let failed = |error: EndingError| CallerRefused::from(Unavailable(error.to_string()));
        // An id is no secret: it ends a lease only for whom the caller's own token gave that power (threat B11).
        let found = match caller.and_then(|_| text.parse().ok()) {
            Some(id) => self.ending.find(id),
            None => self.ending.held(&token_hash(text)),
        };
        let found = found.map_err(|error| failed(error.into()))?;
        let Some(lease) = found else { return Ok(Revocation::Unknown) };
        if !lease.state.is_live() {
            return Ok(Revocation::Ended);
        }
        let pending = self.ending.end(&[lease], &by).await.map_err(failed)?;
        Ok(if pending.is_empty() { Revocation::Ended } else { Revocation::Pending })
    }
}

#[async_trait]
impl Health for State {
    fn checks(&self, now: Instant) -> Vec<Check> {
        let mut checks = vec![self.ledger_check(), self.clock_check(now), self.keys_check()];
        checks.push(self.anchors_check());
        checks.push(self.policies_check());
        checks.extend(self.authority_checks());
        checks.extend(self.lease_checks(now));
        checks.extend(self.outcome_checks());
        for issuer in self.exchange.scene.load().verifier.issuers().iter() {
            let state = issuer.keys.state();
            let detail = match (state.fetched_at, &state.last_error) {
                (Some(at), None) => format!("{} keys since {at}", state.keys),
                (Some(at), Some(error)) => format!("{} keys since {at}; then: {error}", state.keys),
                (None, Some(error)) => error.clone(),
                (None, None) => "not asked for yet".to_owned(),
            };
            // One dead issuer is a detail: the others go on.
            let ok = state.keys > 0 && state.last_error.is_none();
            checks.push(check(&format!("issuer:{}", issuer.name), ok, false, detail));
            if let Some(review) = &issuer.review {
                // A detail as well: this issuer's exchanges are refused for now, the others go on.
                let trouble = review.trouble();
                let ok = trouble.is_none();
                let detail = trouble.unwrap_or_else(|| format!("`{}`", review.api_server()));
                checks.push(check(&format!("token_review:{}", issuer.name), ok, false, detail));
            }
        }
        checks
    }
}

impl State {
    fn ledger_check(&self) -> Check {
        let stopped = self.writer.stopped().or_else(|| self.writer.is_held());
        let ok = stopped.is_none();
        let size = || format!("{} entries", self.writer.head().size);
        check("ledger", ok, true, stopped.unwrap_or_else(size))
    }

    /// INVARIANT(ledger-time): a wall clock that is behind the newest entry stops issuing.
    fn clock_check(&self, now: Instant) -> Check {
        let behind = self.writer.head().time.since(now);
        let ok = behind <= crate::ledger::writer::CLOCK_TOLERANCE;
        check("clock", ok, true, format!("{} s behind the newest entry", behind.as_secs()))
    }

    fn keys_check(&self) -> Check {
        let keyring = self.rotator.keyring();
        let trouble = self.rotator.trouble();
        let detail = match &trouble {
            Some(trouble) => format!("epoch {}; {trouble}", keyring.epoch()),
            None if keyring.ready() => {
                format!("epoch {}, {} keys", keyring.epoch(), keyring.records().len())
            }
            None => format!("epoch {}; {}", keyring.epoch(), paused(keyring, keyring.schedule())),
        };
        check("signing_key", keyring.ready(), true, detail)
    }

    /// One target without a CA that signs is a detail: exchanges for the others go on.
    fn authority_checks(&self) -> Vec<Check> {
        let keyring = self.rotator.keyring();
        let told = keyring.schedules().certificates().iter().map(|(target, schedule)| {
            let name = format!("ca:{target}");
            match (keyring.authority(target), paused(keyring, schedule)) {
                (Some(active), _) => {
                    check(&name, true, false, format!("`{}` signs", active.key.key_id()))
                }
                (None, paused) => check(&name, false, false, paused),
            }
        });
        told.collect()
    }

    fn anchors_check(&self) -> Check {
        let names: Vec<&str> = self.anchors.iter().map(|anchor| anchor.name()).collect();
        let detail = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        match self.anchor_trouble.load().as_deref() {
            None => check("anchors", true, false, detail),
            Some(trouble) => check("anchors", false, false, trouble.clone()),
        }
    }

    /// One failing target is a detail: exchanges for the others go on. What is overdue is an alarm all the same.
    fn lease_checks(&self, now: Instant) -> Vec<Check> {
        let troubles = self.ending.reaper().troubles();
        if troubles.is_empty() {
            return vec![check("leases", true, false, "none is overdue".to_owned())];
        }
        let told = |trouble: &Trouble| {
            let since = trouble.since.map(|since| now.since(since).as_secs());
            let what = match since {
                Some(seconds) => format!("out of reach for {seconds} s"),
                None => format!("{} can't be ended", trouble.leases),
            };
            let name = format!("leases:{}", trouble.target);
            check(&name, false, false, format!("{what}: {}", trouble.reason))
        };
        troubles.iter().map(told).collect()
    }

    /// Credentials of clouds that may be good though nobody is known to have them: told, and nothing that stops anything.
    fn outcome_checks(&self) -> Vec<Check> {
        let Some(unknown) = self.unknown.load_full() else {
            return vec![check("outcomes", false, false, "not looked at yet".to_owned())];
        };
        if unknown.is_empty() {
            return vec![check("outcomes", true, false, "none is unknown".to_owned())];
        }
        let told = unknown.iter().map(|it| {
            let detail = format!(
                "{} of unknown outcome: what may have been made ends by {}",
                it.count, it.until
            );
            check(&format!("outcomes:{}", it.target), true, false, detail)
        });
        told.collect()
    }

    fn policies_check(&self) -> Check {
        let rules = self.exchange.scene.load().policies.rule_count();
        match self.trouble.load().as_deref() {
            None => check("policies", true, false, format!("{rules} rules")),
            Some(trouble) => {
                check("policies", false, false, format!("{rules} rules of before; {trouble}"))
            }
        }
    }
}

/// Which algorithms have no key that signs, and when that ends on its own.
fn paused(keyring: &Keyring, schedule: &Schedule) -> String {
    let (records, purpose) = (keyring.records(), schedule.purpose());
    let without = schedule
        .algorithms()
        .iter()
        .filter(|algorithm| in_phase(&records, purpose, **algorithm, Phase::Active).is_none());
    let told = without.map(|it| (it, in_phase(&records, purpose, *it, Phase::Prepared)));
    let told = told.map(|(algorithm, next)| match next {
        Some(next) => format!(
            "no {algorithm} key signs, the announced one may from {} on",
            schedule.announced_at(next)
        ),
        None => format!("no {algorithm} key signs, and none is announced yet"),
    });
    told.collect::<Vec<_>>().join("; ")
}

fn check(name: &str, ok: bool, required: bool, detail: String) -> Check {
    Check { name: name.to_owned(), ok, required, detail }
}
