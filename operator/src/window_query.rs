//! `WindowQuery`: its text is checked and reported; it does not run on a cluster yet, and says so.

use std::{sync::Arc, time::Duration};

use drover_crds::{
    api::{Phase, Status, WindowQuery},
    query,
};
use kube::{
    Api, Resource, ResourceExt as _,
    api::{Patch, PatchParams},
    core::DeserializeGuard,
};
use kube_runtime::controller::Action;
use serde_json::json;

use crate::{
    condition::condition,
    context::{Context, now},
    names::MANAGER,
    problem::Problem,
};

/// After a failure it is tried again this soon.
const AGAIN: Duration = Duration::from_secs(5);

/// The status could not be written.
#[derive(Debug, thiserror::Error)]
#[error("could not write the status of a WindowQuery")]
pub struct Error(#[source] kube::Error);

/// Reports whether the query is sound.
///
/// # Errors
/// If the status cannot be written.
pub async fn reconcile(object: Arc<DeserializeGuard<WindowQuery>>, ctx: Arc<Context>) -> Result<Action, Error> {
    let Ok(object) = &object.0 else { return Ok(Action::await_change()) };
    let wanted = status(object, &verdict(object), now().0);
    if object.status.as_ref() != Some(&wanted) {
        let api: Api<WindowQuery> = Api::namespaced(ctx.client.clone(), &object.namespace().unwrap_or_default());
        let patch = json!({
            "apiVersion": WindowQuery::api_version(&()),
            "kind": WindowQuery::kind(&()),
            "status": wanted,
        });
        ctx.metrics.wrote("WindowQuery", "status");
        api.patch_status(&object.name_any(), &PatchParams::apply(MANAGER).force(), &Patch::Apply(patch))
            .await
            .map_err(Error)?;
    }
    Ok(Action::await_change())
}

/// Tries again.
#[expect(clippy::needless_pass_by_value, reason = "the controller passes it so")]
pub fn error_policy(_: Arc<DeserializeGuard<WindowQuery>>, error: &Error, ctx: Arc<Context>) -> Action {
    ctx.metrics.failures.inc();
    tracing::warn!(error = %error.0, "{error}");
    Action::requeue(AGAIN)
}

fn verdict(object: &WindowQuery) -> Problem {
    let alias = object.spec.input.alias.as_deref().unwrap_or("input");
    match query::parse(&object.spec.query) {
        Err(e) => Problem::new("InvalidQuery", format!("query: {e}")),
        Ok(plan) if !plan.source.eq_ignore_ascii_case(alias) => Problem::new(
            "InvalidQuery",
            format!("query: it reads FROM {}, and input.alias is {alias}: make them the same", plan.source),
        ),
        Ok(_) => Problem::new(
            "NotYetSupported",
            "the query is sound; this version runs queries over files only: drover-worker query --input events.ndjson query.yaml",
        ),
    }
}

fn status(object: &WindowQuery, problem: &Problem, now: k8s_openapi::jiff::Timestamp) -> Status {
    let old = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation;
    let set = |type_, status| {
        condition(&old.conditions, type_, Some(status), &problem.reason, &problem.message, generation, now)
    };
    Status {
        observed_generation: generation,
        phase: Some(Phase::Refused),
        message: Some(problem.message.clone()),
        conditions: vec![set("Ready", false), set("Reconciling", false), set("Stalled", true), set("Accepted", false)],
        ..Status::default()
    }
}
