//! Answers over HTTP: to probes, to Prometheus, and to the operator.

use axum::{
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use serde::Serialize;

/// To a probe: that all is well, or what is not.
pub(crate) fn probe(well: bool, otherwise: &'static str) -> Response {
    if well { "ok\n".into_response() } else { (StatusCode::SERVICE_UNAVAILABLE, otherwise).into_response() }
}

/// Metrics, as `OpenMetrics` text.
pub(crate) fn metrics(text: String) -> Response {
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
}

/// A state as JSON.
pub(crate) fn json(state: &impl Serialize) -> Response {
    match serde_json::to_string(state) {
        Ok(json) => ([(CONTENT_TYPE, "application/json")], json).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
