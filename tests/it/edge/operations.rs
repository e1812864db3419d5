//! The operations listener, and what the metrics say.

use std::{sync::Arc, time::Duration};

use axum::Router;
use cambio::{
    clock::{Instant, ManualClock},
    edge::{
        self, Check, Health,
        operations::{self, Operations},
    },
    telemetry::Metrics,
};
use serde_json::json;

use super::surface::{EXCHANGE, FakeExchanges, NOW, post, read, surface};

#[derive(Debug)]
pub(super) struct FakeHealth(pub(super) Vec<(&'static str, bool, bool)>);

impl Health for FakeHealth {
    fn checks(&self, _now: Instant) -> Vec<Check> {
        let check = |(name, ok, required): &(&str, bool, bool)| Check {
            name: (*name).to_owned(),
            ok: *ok,
            required: *required,
            detail: "as told".to_owned(),
        };
        self.0.iter().map(check).collect()
    }
}

fn operations(health: Vec<(&'static str, bool, bool)>, metrics: Arc<Metrics>) -> Router {
    let clock = Arc::new(ManualClock::at(NOW));
    operations::router(Operations { health: Arc::new(FakeHealth(health)), metrics, clock })
}

#[tokio::test]
async fn readiness_needs_what_is_required_and_tells_the_rest() {
    let ready = async |health: Vec<(&'static str, bool, bool)>| {
        read(&operations(health, Arc::default()), "/readyz").await
    };
    let answer = ready(vec![("store", true, true), ("policies", false, false)]).await;
    assert_eq!(answer.status.as_u16(), 200);
    assert_eq!(
        answer.json(),
        json!({ "ready": true, "checks": [
            { "name": "store", "ok": true, "required": true, "detail": "as told" },
            { "name": "policies", "ok": false, "required": false, "detail": "as told" },
        ] })
    );
    let answer = ready(vec![("store", true, true), ("ledger", false, true)]).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["ready"]), (503, &json!(false)));
    assert_eq!(ready(vec![]).await.status.as_u16(), 503, "nothing was looked at");
}

#[tokio::test]
async fn v07_liveness_does_not_depend_on_anything() {
    let router = operations(vec![("store", false, true)], Arc::default());
    let answer = read(&router, "/livez").await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, "ok\n"));
}

#[tokio::test]
async fn h14_the_operations_listener_has_no_power() {
    let router = operations(vec![], Arc::default());
    for path in ["/token", "/jwks", "/v1/reload", "/v1/status", "/debug/pprof", "/"] {
        assert_eq!(read(&router, path).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn h10_what_callers_choose_is_never_a_label() {
    let exchanges = Arc::new(FakeExchanges::default());
    let surface = surface(&exchanges);
    let metrics = surface.metrics.clone();
    let router = edge::router(surface);
    for hostile in ["evil\"} 1", "grant_type=evil", "grant_type=evil&evil=evil&audience=evil"] {
        post(&router, hostile).await;
    }
    post(&router, &format!("{EXCHANGE}&audience=evil&scope=evil")).await;
    metrics.issued("evil");
    let answer = read(&operations(vec![], metrics), "/metrics").await;
    assert_eq!(
        answer.header("content-type"),
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    assert!(!answer.body.contains("evil"), "{}", answer.body);
    for line in [
        "cambio_exchanges_total{front=\"token_exchange\",outcome=\"refused\"} 4",
        "cambio_refusals_total{reason=\"bad_request\"} 1",
        "cambio_refusals_total{reason=\"unsupported_grant_type\"} 2",
        "cambio_refusals_total{reason=\"not_ready\"} 1",
        "cambio_grants_total{target_kind=\"other\"} 1",
        "cambio_exchange_duration_seconds_count 4",
    ] {
        assert!(answer.body.lines().any(|found| found == line), "{line}:\n{}", answer.body);
    }
}

/// Every metric that `docs/metrics.md` lists is there, and no other.
#[test]
fn the_metrics_are_documented() {
    let metrics = Metrics::new();
    let github = "github".into();
    metrics.granted("token_exchange", Duration::from_millis(1));
    metrics.ended_refused("token_exchange", "denied", Duration::from_millis(1));
    metrics.issued("jwt");
    metrics.committed(3, Duration::from_millis(1), 3);
    metrics.anchored("witness", true);
    metrics.issuer_keys(&github, Some(NOW), 1);
    metrics.issuer_keys_failed(&github);
    metrics.keys("active", 1);
    metrics.reloaded(4);
    metrics.rate_limited("address");
    metrics.connected("public");
    metrics.connection_refused("total");
    metrics.unaccounted_claim(&github);
    metrics.token_reviewed(&github, "stands", Duration::from_millis(1));
    let target = "postgres/orders".into();
    metrics.leases([(&target, "active", 3, 1)].into_iter(), [&target].into_iter());
    metrics.lease_ended(Duration::from_secs(1));
    metrics.lease_failed(&target, "unreachable");
    metrics.target_failed(&target, "busy");
    metrics.certificate_ends(NOW);
    metrics.unknown_outcomes([(&target, 1)].into_iter());
    let text = metrics.text().unwrap();
    let mut exposed: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    exposed.sort_unstable();
    let page = include_str!("../../../docs/metrics.md");
    let mut listed: Vec<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|line| {
            let (name, rest) = line.split_once("` | ").unwrap();
            format!("{name} {}", rest.split(" |").next().unwrap())
        })
        .collect();
    listed.sort_unstable();
    assert_eq!(exposed, listed);
}
