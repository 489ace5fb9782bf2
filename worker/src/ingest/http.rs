//! `/healthz`, `/readyz`, `/handlerz`, `/metrics` and `/status`.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};

use super::{Context, clock, handler::Handler};

pub(crate) fn router(context: Arc<Context>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/handlerz", get(handlerz))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .with_state(context)
}

async fn healthz(State(context): State<Arc<Context>>) -> Response {
    if context.meter.is_healthy(&context.holds, clock::now()) {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "work is in flight and nothing ends\n").into_response()
    }
}

async fn readyz(State(context): State<Arc<Context>>) -> Response {
    if context.meter.is_ready() {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not consuming\n").into_response()
    }
}

/// Of the handler beside the worker: only the worker knows that it hangs.
async fn handlerz(State(context): State<Arc<Context>>) -> Response {
    if context.handler.as_ref().is_some_and(Handler::hangs) {
        (StatusCode::SERVICE_UNAVAILABLE, "the handler does not answer\n").into_response()
    } else {
        "ok\n".into_response()
    }
}

async fn metrics(State(context): State<Arc<Context>>) -> Response {
    let text = context.meter.text(&context.holds, clock::now());
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
}

async fn status(State(context): State<Arc<Context>>) -> Response {
    let (revision, role) = (&context.sender.identity.revision, context.suspicion.role);
    let status = context.meter.status(revision, role, &context.holds, clock::now());
    match serde_json::to_string(&status) {
        Ok(json) => ([(CONTENT_TYPE, "application/json")], json).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
