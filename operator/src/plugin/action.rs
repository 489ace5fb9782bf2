//! Actions: asked for by an annotation with a request's id, done by the operator once.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    args::{Cluster, Request},
    cluster::{Access, Target},
};
use crate::context;

/// Between two looks for the answer.
const PAUSE: Duration = Duration::from_millis(300);

pub(super) async fn request(cluster: &Cluster, action: &str, request: Request) -> Result<()> {
    let target = Target::parse(&request.object)?;
    if target.kind != "IngestPipeline" {
        bail!("{action} is for an IngestPipeline: a WindowQuery changes over at a window's end by itself");
    }
    let access = Access::new(cluster).await?;
    let objects = access.objects(&target);
    let id = format!("{action}-{}", context::now().0.as_microsecond());
    let annotation = json!({ "metadata": { "annotations": { format!("drover.dev/{action}"): id } } });
    let patched = objects.patch(&target.name, &PatchParams::default(), &Patch::Merge(annotation)).await;
    patched.with_context(|| format!("{} in namespace {}", target.shown(), access.namespace))?;
    println!("{} {action} requested ({id})", target.shown());
    if request.no_wait {
        return Ok(());
    }
    let until = Instant::now() + Duration::from_secs(request.timeout);
    while Instant::now() < until {
        if let Some(answer) = answer(&objects.get(&target.name).await?, &id) {
            println!("{} {answer}", target.shown());
            return Ok(());
        }
        sleep(PAUSE).await;
    }
    bail!("the operator has not answered within {} s; the request stands", request.timeout)
}

/// Where the rollout is, once the operator has answered the request.
fn answer(object: &DynamicObject, id: &str) -> Option<String> {
    let handled = object.data.pointer("/status/handledRequests")?.as_array()?;
    handled.iter().find(|one| one.as_str() == Some(id))?;
    let rollout = |field: &str| object.data.pointer(&format!("/status/rollout/{field}")).and_then(Value::as_str);
    let found = rollout("phase").map(|phase| format!("{phase}: {}", rollout("message").unwrap_or_default()));
    Some(found.unwrap_or_else(|| "answered".to_owned()))
}

pub(super) async fn suspend(cluster: &Cluster, object: &str, suspend: bool) -> Result<()> {
    let target = Target::parse(object)?;
    let access = Access::new(cluster).await?;
    let patch = Patch::Merge(json!({ "spec": { "suspend": suspend } }));
    let patched = access.objects(&target).patch(&target.name, &PatchParams::default(), &patch).await;
    let patched = patched.with_context(|| format!("{} in namespace {}", target.shown(), access.namespace))?;
    println!("{} {}", target.shown(), if suspend { "suspended" } else { "resumed" });
    if let Some(owner) = synced_by(&patched) {
        eprintln!("note: {owner} applies this object and may set spec.suspend back; write it there too");
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
    use super::*;

    fn object(value: Value) -> DynamicObject {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn an_answer_is_that_to_the_own_request_and_says_where_the_rollout_is() {
        let with = |handled: Value, rollout: Value| {
            object(json!({ "metadata": {}, "status": { "handledRequests": handled, "rollout": rollout } }))
        };
        let stable = json!({ "phase": "Stable", "message": "revision a is active" });
        let told = answer(&with(json!(["a", "b"]), stable.clone()), "b");
        assert_eq!(told.as_deref(), Some("Stable: revision a is active"));
        assert_eq!(answer(&with(json!(["a"]), stable), "b"), None);
        assert_eq!(answer(&with(json!(["a"]), Value::Null), "a").as_deref(), Some("answered"));
        assert_eq!(answer(&object(json!({ "metadata": {} })), "b"), None);
    }

    #[test]
    fn tools_that_may_set_it_back_are_known_by_their_marks() {
        let with = |metadata: Value| object(json!({ "metadata": metadata }));
        let argo = with(json!({ "annotations": { "argocd.argoproj.io/tracking-id": "x" } }));
        assert_eq!((synced_by(&argo), synced_by(&with(json!({})))), (Some("Argo CD"), None));
    }
}
