//! `/healthz`, `/readyz`, `/metrics` and `/status`.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use axum::{Router, extract::State, response::Response, routing::get};

use super::job::Job;
use crate::answer;

pub(crate) fn router(job: Arc<Job>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .with_state(job)
}

async fn readyz(State(job): State<Arc<Job>>) -> Response {
    answer::probe(job.meter.ready.load(Relaxed), "not ready\n")
}

async fn metrics(State(job): State<Arc<Job>>) -> Response {
    answer::metrics(job.meter.text(&job.revision))
}

async fn status(State(job): State<Arc<Job>>) -> Response {
    answer::json(&job.meter.status(&job.revision))
}
