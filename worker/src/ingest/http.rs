//! `/healthz`, `/readyz`, `/handlerz`, `/metrics` and `/status`.

use std::sync::Arc;

use axum::{Router, extract::State, response::Response, routing::get};

use super::{Context, clock, handler::Handler};
use crate::answer;

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
    let well = context.meter.is_healthy(&context.holds, clock::now());
    answer::probe(well, "work is in flight and nothing ends\n")
}

async fn readyz(State(context): State<Arc<Context>>) -> Response {
    answer::probe(context.meter.is_ready(), "not consuming\n")
}

/// Of the handler beside the worker: only the worker knows that it hangs.
async fn handlerz(State(context): State<Arc<Context>>) -> Response {
    let hangs = context.handler.as_ref().is_some_and(Handler::hangs);
    answer::probe(!hangs, "the handler does not answer\n")
}

async fn metrics(State(context): State<Arc<Context>>) -> Response {
    answer::metrics(context.meter.text(&context.holds, clock::now()))
}

async fn status(State(context): State<Arc<Context>>) -> Response {
    let revision = &context.sender.identity.revision;
    answer::json(&context.meter.status(revision, &context.role(), &context.holds, clock::now()))
}
