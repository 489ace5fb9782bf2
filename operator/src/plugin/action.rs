//! Actions: asked for by an annotation with a request's id, done by the operator once.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use drover_crds::api::Status;
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{
    args::{Cluster, Request},
    cluster::{Access, Target},
    reader, reading,
    table::plain,
};
use crate::{condition::find, context};

/// Between two looks for the answer.
const PAUSE: Duration = Duration::from_millis(300);

pub(super) async fn request(cluster: &Cluster, action: &str, request: Request) -> Result<()> {
    let target = Target::parse(&request.object)?;
    if !is_for(target.kind, action) {
        bail!("{action} is for an IngestPipeline: what a WindowQuery does is put right by its text, or by promote");
    }
    let access = Access::new(cluster).await?;
    let id = format!("{action}-{}", context::now().0.as_microsecond());
    let annotation = json!({ "metadata": { "annotations": { format!("drover.dev/{action}"): id } } });
    let objects = access.objects(&target);
    let patched = objects.patch(&target.name, &PatchParams::default(), &Patch::Merge(annotation)).await;
    patched.with_context(|| access.shown(&target))?;
    reader::print(&format!("{} {action} requested ({id})\n", target.shown()))?;
    if request.no_wait {
        return Ok(());
    }
    let answer = answered(&access, &target, &id, Duration::from_secs(request.timeout)).await?;
    reader::print(&format!("{} {answer}\n", target.shown())).map(drop)
}

/// Waits for the operator's answer.
async fn answered(access: &Access, target: &Target, id: &str, patience: Duration) -> Result<String> {
    let until = Instant::now() + patience;
    let mut status = Status::default();
    while Instant::now() < until {
        let object = access.object(target).await;
        let object = object.context("the request is made and stands, but it cannot be watched (--no-wait does not)")?;
        status = reading::status(&object).0;
        if let Some(answer) = answer(&status, id) {
            return Ok(answer);
        }
        sleep(PAUSE).await;
    }
    bail!("{} within {} s; the request stands", unanswered(&status, id), patience.as_secs())
}

/// A version of a query that has caught up and is refused can be promoted; it is neither given up nor tried again.
fn is_for(kind: &str, action: &str) -> bool {
    kind == "IngestPipeline" || action == "promote"
}

/// Where the rollout is, or the change of a query, once the operator has answered the request.
fn answer(status: &Status, id: &str) -> Option<String> {
    status.handled_requests.iter().find(|one| *one == id)?;
    let rollout = status.rollout.as_ref().map(|r| format!("{:?}: {}", r.phase, plain(&r.message)));
    let of_query = || find(&status.conditions, "Progressing").map(|c| format!("{}: {}", c.reason, plain(&c.message)));
    Some(rollout.or_else(of_query).unwrap_or_else(|| "answered".to_owned()))
}

/// What there is to say where no answer came: a query's is given when the version takes over.
fn unanswered(status: &Status, id: &str) -> &'static str {
    match &status.promotion {
        Some(promotion) if promotion.id == id => "the new version has not caught up and taken over",
        _ => "the operator has not answered",
    }
}

pub(super) async fn suspend(cluster: &Cluster, object: &str, suspend: bool) -> Result<()> {
    let target = Target::parse(object)?;
    let access = Access::new(cluster).await?;
    let patch = Patch::Merge(json!({ "spec": { "suspend": suspend } }));
    let patched = access.objects(&target).patch(&target.name, &PatchParams::default(), &patch).await;
    let patched = patched.with_context(|| access.shown(&target))?;
    reader::print(&format!("{} {}\n", target.shown(), if suspend { "suspended" } else { "resumed" }))?;
    if let Some(owner) = synced_by(&patched) {
        reader::note(&format!("note: {owner} applies this object and may set spec.suspend back; write it there too"));
    }
    Ok(())
}

/// A tool that applies the object from elsewhere, where its marks tell.
fn synced_by(object: &DynamicObject) -> Option<&'static str> {
    let labels = object.metadata.labels.iter().flatten().map(|(k, _)| k.as_str());
    let annotations = object.metadata.annotations.iter().flatten().map(|(k, _)| k.as_str());
    labels.chain(annotations).find_map(|key| match key {
        "argocd.argoproj.io/tracking-id" | "argocd.argoproj.io/instance" => Some("Argo CD"),
        "kustomize.toolkit.fluxcd.io/name" | "helm.toolkit.fluxcd.io/name" => Some("Flux"),
        "meta.helm.sh/release-name" => Some("Helm"),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::plugin::{command::Scope, fault};

    fn object(value: Value) -> DynamicObject {
        serde_json::from_value(value).unwrap()
    }

    fn status(value: Value) -> Status {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn an_answer_is_that_to_the_own_request_and_says_where_the_rollout_is() {
        let with = |handled: Value, rollout: Value| status(json!({ "handledRequests": handled, "rollout": rollout }));
        let stable = json!({ "phase": "Stable", "message": "revision a is active" });
        let told = answer(&with(json!(["a", "b"]), stable.clone()), "b");
        assert_eq!(told.as_deref(), Some("Stable: revision a is active"));
        assert_eq!(answer(&with(json!(["a"]), stable), "b"), None);
        assert_eq!(answer(&with(json!(["a"]), Value::Null), "a").as_deref(), Some("answered"));
        assert_eq!(answer(&Status::default(), "b"), None);
    }

    #[test]
    fn a_refused_text_of_a_query_can_be_promoted_and_nothing_else_is_asked_of_it() {
        let told = ["promote", "abort", "retry"].map(|action| is_for("WindowQuery", action));
        assert_eq!(told, [true, false, false]);
        assert!(["promote", "abort", "retry"].iter().all(|action| is_for("IngestPipeline", action)));
    }

    #[test]
    fn the_answer_to_a_query_is_where_its_change_is_and_until_then_that_it_waits() {
        let condition = json!({
            "type": "Progressing", "status": "True", "reason": "TakingOver", "message": "both work until then",
            "lastTransitionTime": "2026-01-02T11:00:00Z",
        });
        let handled = status(json!({ "handledRequests": ["a"], "conditions": [condition] }));
        assert_eq!(answer(&handled, "a").as_deref(), Some("TakingOver: both work until then"));
        let waits = status(json!({ "promotion": { "id": "a", "version": "5f3a" } }));
        assert_eq!(answer(&waits, "a"), None);
        assert!(unanswered(&waits, "a").contains("caught up") && unanswered(&waits, "b").contains("not answered"));
    }

    const PATIENCE: Duration = Duration::from_mins(1);

    async fn answered_by(access: Access) -> Result<String> {
        answered(&access, &Target::parse("t").unwrap(), "id", PATIENCE).await
    }

    #[tokio::test(start_paused = true)]
    async fn who_may_ask_and_not_look_is_told_that_the_request_stands() {
        let refused = json!({
            "kind": "Status", "code": 403, "reason": "Forbidden", "message": "you cannot get it", "details": { "name": "t" },
        });
        let error = answered_by(Access::answering(move |_| (403, refused.clone()))).await.unwrap_err();
        let told = fault::text(&error, &Scope::default());
        assert!(told.starts_with("the request is made and stands, but it cannot be watched"), "{told}");
        assert!(told.ends_with("ingestpipeline.drover.dev/t in namespace n: you cannot get it"), "{told}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_heard_from_an_operator_of_another_version_and_its_silence_has_an_end() {
        let with = |handled: &str| {
            let status = json!({ "phase": "Pondering", "handledRequests": [handled], "message": "x" });
            let object = json!({ "apiVersion": "drover.dev/v1alpha1", "kind": "IngestPipeline", "status": status });
            Access::answering(move |_| (200, object.clone()))
        };
        assert_eq!(answered_by(with("id")).await.unwrap(), "answered");
        assert!(answered_by(with("other")).await.unwrap_err().to_string().contains("within 60 s; the request stands"));
    }

    #[test]
    fn tools_that_may_set_it_back_are_known_by_their_marks() {
        let with = |metadata: Value| object(json!({ "metadata": metadata }));
        let argo = with(json!({ "annotations": { "argocd.argoproj.io/tracking-id": "x" } }));
        assert_eq!((synced_by(&argo), synced_by(&with(json!({})))), (Some("Argo CD"), None));
    }
}
