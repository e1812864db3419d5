//! The operations listener: metrics and health on a port of their own, nothing that has power (threat H14).

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;

use super::Health;
use crate::{clock::Clock, telemetry::Metrics};

/// What the operations listener serves from.
#[derive(Clone, Debug)]
pub struct Operations {
    /// How the broker is.
    pub health: Arc<dyn Health>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Now.
    pub clock: Arc<dyn Clock>,
}

/// `/metrics`, `/livez`, `/readyz`.
pub fn router(operations: Operations) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .fallback(super::nothing_here)
        .layer(middleware::map_response(super::guard))
        .with_state(operations)
}

/// `OpenMetrics` 1.0.
async fn metrics(State(operations): State<Operations>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match operations.metrics.text() {
        Ok(text) => {
            ([(header::CONTENT_TYPE, HeaderValue::from_static(kind))], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The process answers: that is all that liveness means. What is broken outside is no reason to be killed.
async fn live() -> &'static str {
    "ok\n"
}

/// Whether to send callers here. Details for people stand beside it; a detail that is not `required` does not fail it.
async fn ready(State(operations): State<Operations>) -> Response {
    let checks = operations.health.checks(operations.clock.now());
    // INVARIANT(closed-by-absence): a broker that looked at nothing is not ready.
    let ready = !checks.is_empty() && checks.iter().all(|check| check.ok || !check.required);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    super::no_store(super::json(status, &json!({ "ready": ready, "checks": checks })))
}
