//! `/healthz`, `/readyz` and `/metrics` of the operator.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use axum::{Router, extract::State, http::StatusCode, http::header, response::IntoResponse, routing::get};

use crate::metrics::Metrics;

/// What the probes look at.
#[derive(Debug, Clone, Default)]
pub struct Health {
    /// Namespaces, or all of them as one, whose caches are not filled yet.
    pub waiting: Arc<AtomicUsize>,
    /// Another replica was seen to lead, and this one stands by: that is as it should be.
    pub standby: Arc<AtomicBool>,
}

/// The routes.
pub(crate) fn router(health: Health, metrics: Metrics) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route(
            "/readyz",
            get(|State((health, _)): State<(Health, Metrics)>| async move {
                if health.standby.load(Ordering::Acquire) {
                    (StatusCode::OK, "standby")
                } else if health.waiting.load(Ordering::Acquire) == 0 {
                    (StatusCode::OK, "ready")
                } else {
                    (StatusCode::SERVICE_UNAVAILABLE, "the caches are not filled yet, or no replica is seen to lead")
                }
            }),
        )
        .route(
            "/metrics",
            get(|State((_, metrics)): State<(Health, Metrics)>| async move {
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                ([(header::CONTENT_TYPE, kind)], metrics.text()).into_response()
            }),
        )
        .with_state((health, metrics))
}
