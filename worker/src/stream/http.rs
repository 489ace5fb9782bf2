//! `/healthz`, `/readyz`, `/metrics` and `/status`.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};

use super::job::Job;

pub(crate) fn router(job: Arc<Job>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .with_state(job)
}

async fn readyz(State(job): State<Arc<Job>>) -> Response {
    if job.meter.ready.load(Relaxed) {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response()
    }
}

async fn metrics(State(job): State<Arc<Job>>) -> Response {
    let text = job.meter.text(&job.revision);
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
}

async fn status(State(job): State<Arc<Job>>) -> Response {
    match serde_json::to_string(&job.meter.status(&job.revision)) {
        Ok(json) => ([(CONTENT_TYPE, "application/json")], json).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
