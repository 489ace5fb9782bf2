//! Writes what a plan says, in its order. Client required; it chooses nothing.

use std::fmt::Debug;

use drover_crds::api::{IngestPipeline, Status, WindowQuery};
use futures::{StreamExt as _, stream};
use k8s_openapi::{NamespaceResourceScope, api::core::v1::Pod};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use kube_runtime::events::{Event, EventType};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use super::plan::{self, Doomed, Mark, Notice, Plan};
use crate::{
    context::{Context, now},
    drift::Repair,
    names::MANAGER,
    redrive,
};

/// Pods written at the same time.
const AT_ONCE: usize = 16;

/// A custom resource of ours, whose status is written.
pub(crate) trait Object:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned
{
    /// Its kind, as writes are counted.
    const NAME: &'static str;
}

impl Object for IngestPipeline {
    const NAME: &'static str = "IngestPipeline";
}

impl Object for WindowQuery {
    const NAME: &'static str = "WindowQuery";
}

/// A write that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// An object could not be written.
    #[error("could not write {kind} {name}")]
    Write {
        /// Its kind.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: kube::Error,
    },
    /// The status could not be written.
    #[error("could not write the status")]
    Status(#[source] kube::Error),
    /// An object could not be deleted.
    #[error("could not delete {0}")]
    Delete(String, #[source] kube::Error),
}

impl Error {
    /// True if the object has changed since it was looked at.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, Self::Status(kube::Error::Api(status)) if status.is_conflict())
    }
}

/// Does what the plan says.
///
/// # Errors
/// The first write that fails; the rest is planned anew.
pub(crate) async fn act<K: Object>(ctx: &Context, object: &K, plan: &Plan) -> Result<(), Error> {
    let namespace = object.namespace().unwrap_or_default();
    mark(ctx, &namespace, &plan.marks).await;
    if let Some(status) = plan.status.as_ref().filter(|_| plan.status_first) {
        write_status(ctx, object, status).await?;
    }
    for (wanted, repair) in &plan.writes {
        write(ctx, &namespace, wanted, *repair).await?;
    }
    if let Some(status) = plan.status.as_ref().filter(|_| !plan.status_first) {
        write_status(ctx, object, status).await?;
    }
    if let Some(order) = &plan.redrive {
        redrive::start(ctx, object, order.clone());
    }
    for doomed in &plan.deletes {
        delete(ctx, &namespace, doomed).await?;
    }
    for notice in &plan.events {
        tell(ctx, object, notice).await;
    }
    Ok(())
}

/// Marks pods. One that cannot be told of is no worse off than without: what a busy one holds is returned when it ends.
async fn mark(ctx: &Context, namespace: &str, marks: &[Mark]) {
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), namespace);
    let patches: Vec<_> = marks.iter().map(|mark| patch(api.clone(), mark.clone())).collect();
    stream::iter(patches).for_each_concurrent(AT_ONCE, |patch| patch).await;
    for _ in marks {
        ctx.metrics.wrote("Pod", "patch");
    }
}

async fn patch(api: Api<Pod>, Mark { pod, annotation, value }: Mark) {
    let patch = json!({ "metadata": { "annotations": { annotation: value } } });
    if let Err(error) = api.patch_metadata(&pod, &PatchParams::default(), &Patch::Merge(patch)).await {
        tracing::debug!(%error, pod, annotation, "a mark could not be written");
    }
}

async fn write(ctx: &Context, namespace: &str, wanted: &plan::Object, repair: Repair) -> Result<(), Error> {
    let (kind, name) = wanted.describe();
    let verb = match repair {
        Repair::Create => "create",
        Repair::Apply => "apply",
        Repair::Replace => "replace",
    };
    ctx.metrics.wrote(kind, verb);
    let client = &ctx.client;
    match wanted {
        plan::Object::ServiceAccount(o) => put(client, namespace, o, repair).await,
        plan::Object::NetworkPolicy(o) => put(client, namespace, o, repair).await,
        plan::Object::DisruptionBudget(o) => put(client, namespace, o, repair).await,
        plan::Object::ConfigMap(o) => put(client, namespace, o, repair).await,
        plan::Object::Deployment(o) => put(client, namespace, &**o, repair).await,
    }
    .map_err(|source| Error::Write { kind, name: name.to_owned(), source })
}

/// Applies as the one field manager; only what somebody else added needs a replacement to go.
async fn put<K>(client: &Client, namespace: &str, wanted: &K, repair: Repair) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let name = wanted.name_any();
    if repair == Repair::Replace {
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        api.replace(&name, &params, wanted).await?;
    }
    // The fields are ours from here on, also where a replacement has just written them.
    api.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(wanted)).await?;
    Ok(())
}

pub(crate) async fn write_status<K: Object>(ctx: &Context, object: &K, status: &Status) -> Result<(), Error> {
    ctx.metrics.wrote(K::NAME, "status");
    let api: Api<K> = Api::namespaced(ctx.client.clone(), &object.namespace().unwrap_or_default());
    let patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        // A status made from an object that has changed meanwhile is not written.
        "metadata": { "resourceVersion": object.resource_version() },
        "status": status,
    });
    let written =
        api.patch_status(&object.name_any(), &PatchParams::apply(MANAGER).force(), &Patch::Apply(patch)).await;
    written.map_err(Error::Status)?;
    ctx.written.note(&object.uid().unwrap_or_default(), now().1);
    Ok(())
}

async fn delete(ctx: &Context, namespace: &str, doomed: &Doomed) -> Result<(), Error> {
    use k8s_openapi::api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Pod},
    };
    let client = ctx.client.clone();
    // In the foreground: the Deployment is seen until its pods have drained.
    let foreground = DeleteParams::foreground();
    let (kind, name, result) = match doomed {
        Doomed::Deployment(name) => (
            "Deployment",
            name,
            Api::<Deployment>::namespaced(client, namespace).delete(name, &foreground).await.map(|_| ()),
        ),
        Doomed::ConfigMap(name) => {
            let api = Api::<ConfigMap>::namespaced(client, namespace);
            ("ConfigMap", name, api.delete(name, &DeleteParams::default()).await.map(|_| ()))
        }
        Doomed::PodNow(name) => {
            let api = Api::<Pod>::namespaced(client, namespace);
            ("Pod", name, api.delete(name, &DeleteParams::default().grace_period(0)).await.map(|_| ()))
        }
        Doomed::Pod(name) => {
            let api = Api::<Pod>::namespaced(client, namespace);
            ("Pod", name, api.delete(name, &DeleteParams::default()).await.map(|_| ()))
        }
    };
    ctx.metrics.wrote(kind, "delete");
    match result {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other.map_err(|e| Error::Delete(format!("{kind} {name}"), e)),
    }
}

/// An Event that cannot be published is not worth a failed reconcile.
pub(crate) async fn tell<K: Object>(ctx: &Context, object: &K, notice: &Notice) {
    let event = Event {
        type_: if notice.warning { EventType::Warning } else { EventType::Normal },
        reason: notice.reason.clone(),
        note: Some(notice.note.chars().take(1_000).collect()),
        action: notice.action.to_owned(),
        secondary: None,
    };
    tracing::info!(reason = notice.reason, "{}", notice.note);
    if let Err(error) = ctx.recorder.publish(&event, &object.object_ref(&())).await {
        tracing::warn!(%error, "an event could not be published");
    }
}
