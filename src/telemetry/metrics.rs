//! The metrics. Their names and labels stand here and nowhere else; `docs/metrics.md` lists them.
//!
//! Every label value is a word from our own code or configuration, never one that a caller chose (threat H10): the types
//! below take `&'static str`, or names of the configuration.

use std::{
    fmt,
    sync::atomic::{AtomicI64, AtomicU64},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::{
    clock::Instant,
    grant::{IssuerName, TargetName},
};

/// `cambio_exchanges_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ExchangeLabels {
    front: &'static str,
    outcome: &'static str,
}

/// One closed label; its name is the field's.
macro_rules! label {
    ($name:ident, $field:ident) => {
        #[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
        struct $name {
            $field: &'static str,
        }
    };
}

label!(Reason, reason);
label!(Scope, scope);
label!(Outcome, outcome);
label!(TargetKind, target_kind);
label!(KeyPhase, phase);
label!(Surface, surface);

/// Issuers are named by the configuration: as many as it has.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct IssuerLabel {
    issuer: String,
}

/// `cambio_token_reviews_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReviewLabels {
    issuer: String,
    outcome: &'static str,
}

/// An anchor is named by the configuration too.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnchorLabel {
    anchor: String,
}

/// What the process counts.
pub struct Metrics {
    registry: Registry,
    exchanges: Family<ExchangeLabels, Counter>,
    refusals: Family<Reason, Counter>,
    grants: Family<TargetKind, Counter>,
    duration: Histogram,
    ledger_entries: Gauge<u64, AtomicU64>,
    commit_batch: Histogram,
    flush: Histogram,
    queue: Gauge<u64, AtomicU64>,
    dropped_notes: Counter,
    checkpoint_at: Gauge<i64, AtomicI64>,
    anchors: Family<AnchorLabel, Gauge>,
    key_fetches: Family<IssuerLabel, Gauge<u64, AtomicU64>>,
    key_failures: Family<IssuerLabel, Counter>,
    keys_fetched_at: Family<IssuerLabel, Gauge<i64, AtomicI64>>,
    keys: Family<KeyPhase, Gauge>,
    reloads: Family<Outcome, Counter>,
    rules: Gauge,
    rate_limited: Family<Scope, Counter>,
    connections: Family<Surface, Gauge>,
    connections_refused: Family<Reason, Counter>,
    unaccounted_claims: Family<IssuerLabel, Counter>,
    token_reviews: Family<ReviewLabels, Counter>,
    token_review_duration: Histogram,
    leases: Family<LeaseLabels, Gauge<u64, AtomicU64>>,
    leases_due: Family<TargetLabel, Gauge<u64, AtomicU64>>,
    lease_trouble: Family<TargetLabel, Gauge>,
    lease_failures: Family<LeaseFailure, Counter>,
    lease_lateness: Histogram,
    target_failures: Family<TargetFailure, Counter>,
    certificate_end: Gauge<i64, AtomicI64>,
    unknown_outcomes: Family<TargetLabel, Gauge<u64, AtomicU64>>,
}

/// Targets are named by the configuration, and by what was in it when a lease was opened.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TargetLabel {
    target: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LeaseLabels {
    target: String,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TargetFailure {
    target: String,
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LeaseFailure {
    target: String,
    kind: &'static str,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// 100 µs to 3.3 s.
fn seconds() -> Histogram {
    Histogram::new([
        0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 3.3,
    ])
}

impl Metrics {
    /// All of them, at zero.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "a table: an entry for each metric")]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("cambio");
        macro_rules! metric {
            ($name:literal, $help:literal, $metric:expr) => {{
                let metric = $metric;
                registry.register($name, $help, metric.clone());
                metric
            }};
            ($name:literal, $help:literal, $unit:ident, $metric:expr) => {{
                let metric = $metric;
                registry.register_with_unit($name, $help, Unit::$unit, metric.clone());
                metric
            }};
        }
        Self {
            exchanges: metric!("exchanges", "Exchanges that ended", Family::default()),
            refusals: metric!("refusals", "Requests refused, by reason code", Family::default()),
            grants: metric!("grants", "Credentials issued, by kind of target", Family::default()),
            duration: metric!("exchange_duration", "From request to answer", Seconds, seconds()),
            ledger_entries: metric!("ledger_entries", "Durable entries", Gauge::default()),
            commit_batch: metric!(
                "ledger_commit_batch",
                "Entries that shared one flush",
                Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0])
            ),
            flush: metric!("ledger_flush_duration", "One durable flush", Seconds, seconds()),
            queue: metric!("ledger_queue", "Proposals that wait for a flush", Gauge::default()),
            dropped_notes: metric!(
                "ledger_notes_dropped",
                "Refusals that found the queue full and have no entry",
                Counter::default()
            ),
            checkpoint_at: metric!(
                "ledger_checkpoint_timestamp",
                "When the newest checkpoint was signed",
                Seconds,
                Gauge::default()
            ),
            anchors: metric!(
                "ledger_anchor_current",
                "1 where the anchor took the newest checkpoint",
                Family::default()
            ),
            key_fetches: metric!(
                "issuer_key_fetches",
                "Fetches of an issuer's keys since the start",
                Family::default()
            ),
            key_failures: metric!(
                "issuer_key_failures",
                "Verifications that found an issuer's keys out of reach",
                Family::default()
            ),
            keys_fetched_at: metric!(
                "issuer_keys_timestamp",
                "When the key set in use was fetched",
                Seconds,
                Family::default()
            ),
            keys: metric!("signing_keys", "Our signing keys, by phase", Family::default()),
            reloads: metric!("policy_reloads", "Policy reloads, by outcome", Family::default()),
            rules: metric!("policy_rules", "Rules in force", Gauge::default()),
            rate_limited: metric!("rate_limited", "Requests over a limit", Family::default()),
            connections: metric!("connections", "Open connections", Family::default()),
            connections_refused: metric!(
                "connections_refused",
                "Connections closed unserved",
                Family::default()
            ),
            unaccounted_claims: metric!(
                "unaccounted_claims",
                "Tokens with a claim that the issuer's preset does not know",
                Family::default()
            ),
            token_reviews: metric!(
                "token_reviews",
                "Questions to an API server whether a token stands, by outcome",
                Family::default()
            ),
            token_review_duration: metric!(
                "token_review_duration",
                "From such a question to its answer, or to giving up",
                Seconds,
                seconds()
            ),
            leases: metric!("leases", "Live leases, by target and state", Family::default()),
            leases_due: metric!(
                "leases_due",
                "Live leases that should have ended by now",
                Family::default()
            ),
            lease_trouble: metric!(
                "lease_trouble",
                "1 where leases of the target can't be ended now",
                Family::default()
            ),
            lease_failures: metric!(
                "lease_failures",
                "Leases that could not be ended, by try; and orphans that were found",
                Family::default()
            ),
            lease_lateness: metric!(
                "lease_lateness",
                "How long after its end a lease was gone",
                Seconds,
                Histogram::new([0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3_600.0])
            ),
            target_failures: metric!(
                "target_failures",
                "Exchanges that failed at their target",
                Family::default()
            ),
            certificate_end: metric!(
                "certificate_end_timestamp",
                "When the certificate of the public listener ends",
                Seconds,
                Gauge::default()
            ),
            unknown_outcomes: metric!(
                "unknown_outcomes",
                "Grants without a lease whose outcome nobody knows",
                Family::default()
            ),
            registry,
        }
    }

    /// The live leases by (target, state, live, due), and the targets where they can't be ended. What is no more is gone here.
    pub fn leases<'a>(
        &self,
        counts: impl Iterator<Item = (&'a TargetName, &'static str, u64, u64)>,
        troubled: impl Iterator<Item = &'a TargetName>,
    ) {
        self.leases.clear();
        self.leases_due.clear();
        self.lease_trouble.clear();
        for (target, state, live, due) in counts {
            let target = target.to_string();
            self.leases.get_or_create(&LeaseLabels { target: target.clone(), state }).set(live);
            self.leases_due.get_or_create(&TargetLabel { target }).inc_by(due);
        }
        for target in troubled {
            self.lease_trouble.get_or_create(&TargetLabel { target: target.to_string() }).set(1);
        }
    }

    /// An exchange failed at `target`: `busy` where nothing was tried because it does not answer of late, `refused` where it said
    /// no, `unknown` where its answer was lost.
    pub fn target_failed(&self, target: &TargetName, kind: &'static str) {
        self.target_failures
            .get_or_create(&TargetFailure { target: target.to_string(), kind })
            .inc();
    }

    /// The certificate that the public listener shows ends at `at`.
    pub fn certificate_ends(&self, at: Instant) {
        self.certificate_end.set(i64::try_from(at.seconds()).unwrap_or(i64::MAX));
    }

    /// Grants whose outcome nobody knows, and whose credential may still be good: (target, how many).
    pub fn unknown_outcomes<'a>(&self, counts: impl Iterator<Item = (&'a TargetName, u64)>) {
        self.unknown_outcomes.clear();
        for (target, count) in counts {
            let target = TargetLabel { target: target.to_string() };
            self.unknown_outcomes.get_or_create(&target).set(count);
        }
    }

    /// A lease ended, so long after it was due.
    pub fn lease_ended(&self, late: Duration) {
        self.lease_lateness.observe(late.as_secs_f64());
    }

    /// A try to end a lease failed: `unreachable`, `failed`, or `orphan` for what had none.
    pub fn lease_failed(&self, target: &TargetName, kind: &'static str) {
        self.lease_failures.get_or_create(&LeaseFailure { target: target.to_string(), kind }).inc();
    }

    /// `OpenMetrics` text.
    ///
    /// # Errors
    /// A metric can't be written.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// An exchange was granted.
    pub fn granted(&self, front: &'static str, took: Duration) {
        self.exchanges.get_or_create(&ExchangeLabels { front, outcome: "granted" }).inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// An exchange was refused.
    pub fn ended_refused(&self, front: &'static str, reason: &'static str, took: Duration) {
        self.exchanges.get_or_create(&ExchangeLabels { front, outcome: "refused" }).inc();
        self.duration.observe(took.as_secs_f64());
        self.refused(reason);
    }

    /// A request was refused that was no exchange yet. `reason` is [`crate::refusal::Refusal::reason`].
    pub fn refused(&self, reason: &'static str) {
        self.refusals.get_or_create(&Reason { reason }).inc();
    }

    /// A credential was issued for a target of this kind. A kind that is not built in counts as `other`.
    pub fn issued(&self, kind: &str) {
        let target_kind = [
            "jwt", "cambio", "aws", "google", "azure", "github", "x509", "postgres", "mysql",
            "redis",
        ]
        .into_iter()
        .find(|known| *known == kind)
        .unwrap_or("other");
        self.grants.get_or_create(&TargetKind { target_kind }).inc();
    }

    /// One durable flush of `entries` entries, after which the log has `size`.
    pub fn committed(&self, entries: u32, took: Duration, size: u64) {
        self.commit_batch.observe(f64::from(entries));
        self.flush.observe(took.as_secs_f64());
        self.ledger_entries.set(size);
    }

    /// How many proposals wait now.
    pub fn queued(&self, waiting: u64) {
        self.queue.set(waiting);
    }

    /// How many refusals have no entry by now, because the queue was full. Never less than told before.
    pub fn notes_dropped(&self, all: u64) {
        self.dropped_notes.inc_by(all.saturating_sub(self.dropped_notes.get()));
    }

    /// A checkpoint was signed at `at`.
    pub fn checkpointed(&self, at: Instant) {
        self.checkpoint_at.set(i64::try_from(at.seconds()).unwrap_or(i64::MAX));
    }

    /// Whether `anchor` (its name in the configuration) holds the newest checkpoint.
    pub fn anchored(&self, anchor: &str, current: bool) {
        self.anchors.get_or_create(&AnchorLabel { anchor: anchor.to_owned() }).set(current.into());
    }

    /// How fresh the keys of `issuer` are, from its `KeySourceState`.
    pub fn issuer_keys(&self, issuer: &IssuerName, fetched_at: Option<Instant>, fetches: u64) {
        let label = IssuerLabel { issuer: issuer.to_string() };
        let at = fetched_at.map_or(0, |at| i64::try_from(at.seconds()).unwrap_or(i64::MAX));
        self.keys_fetched_at.get_or_create(&label).set(at);
        self.key_fetches.get_or_create(&label).set(fetches);
    }

    /// A token could not be judged, because the keys of `issuer` were out of reach.
    pub fn issuer_keys_failed(&self, issuer: &IssuerName) {
        self.key_failures.get_or_create(&IssuerLabel { issuer: issuer.to_string() }).inc();
    }

    /// How many signing keys are in `phase`: `prepared`, `active`, `retired`, `withdrawn`.
    pub fn keys(&self, phase: &'static str, count: usize) {
        self.keys.get_or_create(&KeyPhase { phase }).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A reload put `rules` rules in force.
    pub fn reloaded(&self, rules: usize) {
        self.reloads.get_or_create(&Outcome { outcome: "ok" }).inc();
        self.rules.set(i64::try_from(rules).unwrap_or(i64::MAX));
    }

    /// A reload failed; the old set stays.
    pub fn reload_failed(&self) {
        self.reloads.get_or_create(&Outcome { outcome: "failed" }).inc();
    }

    /// A request was over the limit of its `scope`: `address` or `subject`.
    pub fn rate_limited(&self, scope: &'static str) {
        self.rate_limited.get_or_create(&Scope { scope }).inc();
    }

    /// A connection of `surface` (`public`, `operations`, `admin`) was opened.
    pub fn connected(&self, surface: &'static str) {
        self.connections.get_or_create(&Surface { surface }).inc();
    }

    /// It was closed.
    pub fn disconnected(&self, surface: &'static str) {
        self.connections.get_or_create(&Surface { surface }).dec();
    }

    /// A connection was closed unserved: `total`, `per_address`, `handshake`, `accept`.
    pub fn connection_refused(&self, reason: &'static str) {
        self.connections_refused.get_or_create(&Reason { reason }).inc();
    }

    /// The API server of `issuer` was asked about a token: `stands`, `refused`, `unavailable`, `shed`.
    pub fn token_reviewed(&self, issuer: &IssuerName, outcome: &'static str, took: Duration) {
        let labels = ReviewLabels { issuer: issuer.to_string(), outcome };
        self.token_reviews.get_or_create(&labels).inc();
        self.token_review_duration.observe(took.as_secs_f64());
    }

    /// A token of `issuer` had a claim that its preset does not know.
    pub fn unaccounted_claim(&self, issuer: &IssuerName) {
        self.unaccounted_claims.get_or_create(&IssuerLabel { issuer: issuer.to_string() }).inc();
    }
}
