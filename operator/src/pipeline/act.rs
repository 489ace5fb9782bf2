//! Writes what a plan says, in its order. Client required; it chooses nothing.

use std::fmt::Debug;

use drover_crds::api::{IngestPipeline, Status, WindowQuery};
use futures::{StreamExt as _, stream};
use k8s_openapi::{NamespaceResourceScope, api::core::v1::Pod};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use super::{
    effects,
    plan::{self, Doomed, Mark, Notice, Plan},
};
use crate::{
    audit::{Cause, Effect, Outcome, Verb, refusal},
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
    let request = Some(plan.answers.join(", ")).filter(|ids| !ids.is_empty());
    let cause = Cause::of(object, "").asked(request.as_deref());
    mark(ctx, &namespace, &plan.marks, &cause).await;
    if plan.status_first {
        answer(ctx, object, plan, &cause).await?;
    }
    for (wanted, repair) in &plan.writes {
        let why = plan.why(wanted.describe(), effects::done(*repair));
        write(ctx, &namespace, wanted, *repair, &cause.because(why)).await?;
    }
    if !plan.status_first {
        answer(ctx, object, plan, &cause).await?;
    }
    if let Some(order) = &plan.redrive {
        redrive::start(ctx, object, order.clone());
    }
    for doomed in &plan.deletes {
        let why = plan.why(doomed.describe(), &effects::why(doomed));
        delete(ctx, &namespace, doomed, &cause.because(why)).await?;
    }
    for notice in &plan.events {
        let asked = request
            .as_ref()
            .map(|ids| Notice { note: format!("{} (as asked by {ids})", notice.note), ..notice.clone() });
        tell(ctx, object, asked.as_ref().unwrap_or(notice)).await;
    }
    Ok(())
}

/// Writes the status, where it says something new. With it, requests are answered.
async fn answer<K: Object>(ctx: &Context, object: &K, plan: &Plan, cause: &Cause) -> Result<(), Error> {
    if let Some(status) = &plan.status {
        write_status(ctx, object, status).await?;
    }
    for id in &plan.answers {
        let asked = cause.because("a person asked by annotation").asked(Some(id));
        asked.done(Verb::Answer, K::NAME, &object.name_any());
    }
    Ok(())
}

/// Marks pods. One that cannot be told of is no worse off than without: what a busy one holds is returned when it ends.
async fn mark(ctx: &Context, namespace: &str, marks: &[Mark], cause: &Cause) {
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), namespace);
    let patches: Vec<_> = marks.iter().map(|mark| patch(api.clone(), mark.clone(), cause)).collect();
    stream::iter(patches).for_each_concurrent(AT_ONCE, |patch| patch).await;
    for _ in marks {
        ctx.metrics.wrote("Pod", "patch");
    }
}

async fn patch(api: Api<Pod>, Mark { pod, annotation, value }: Mark, cause: &Cause) {
    let patch = json!({ "metadata": { "annotations": { annotation: value } } });
    let patched = api.patch_metadata(&pod, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop);
    told(&cause.because(annotation), &Effect::new(Verb::Annotate, "Pod", &pod), &patched);
    if let Err(error) = patched {
        tracing::debug!(%error, pod, annotation, "a mark could not be written");
    }
}

/// The line of a write to the API server.
fn told(cause: &Cause, effect: &Effect<'_>, result: &Result<(), kube::Error>) {
    cause.tell(effect, result.as_ref().map_or_else(|e| Outcome::Failed(refusal(e)), |()| Outcome::Done));
}

async fn write(
    ctx: &Context,
    namespace: &str,
    wanted: &plan::Object,
    repair: Repair,
    cause: &Cause,
) -> Result<(), Error> {
    let (kind, name) = wanted.describe();
    let verb = match repair {
        Repair::Create => Verb::Create,
        Repair::Apply => Verb::Apply,
        Repair::Replace => Verb::Replace,
    };
    ctx.metrics.wrote(kind, verb.as_str());
    let client = &ctx.client;
    let written = match wanted {
        plan::Object::ServiceAccount(o) => put(client, namespace, o, repair).await,
        plan::Object::NetworkPolicy(o) => put(client, namespace, o, repair).await,
        plan::Object::DisruptionBudget(o) => put(client, namespace, o, repair).await,
        plan::Object::ConfigMap(o) => put(client, namespace, o, repair).await,
        plan::Object::Deployment(o) => put(client, namespace, &**o, repair).await,
    };
    let version = written.as_ref().ok().cloned().flatten();
    let written = written.map(drop);
    // From a cache that is behind, the same is written twice: the second time nothing is changed.
    if written.is_err() || ctx.journal.is_news(cause.uid(), format!("{kind} {name}"), version) {
        told(cause, &Effect { revision: wanted.revision(), ..Effect::new(verb, kind, name) }, &written);
    }
    written.map_err(|source| Error::Write { kind, name: name.to_owned(), source })
}

/// Applies as the one field manager; only what somebody else added needs a replacement to go. Gives the version that is there now.
async fn put<K>(client: &Client, namespace: &str, wanted: &K, repair: Repair) -> Result<Option<String>, kube::Error>
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
    let written = api.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(wanted)).await?;
    Ok(written.resource_version())
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

async fn delete(ctx: &Context, namespace: &str, doomed: &Doomed, cause: &Cause) -> Result<(), Error> {
    use k8s_openapi::api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Pod},
    };
    let client = ctx.client.clone();
    // In the foreground: the Deployment is seen until its pods have drained.
    let foreground = DeleteParams::foreground();
    let (kind, name) = doomed.describe();
    let result = match doomed {
        Doomed::Deployment(name) => {
            Api::<Deployment>::namespaced(client, namespace).delete(name, &foreground).await.map(drop)
        }
        Doomed::ConfigMap(name) => {
            let api = Api::<ConfigMap>::namespaced(client, namespace);
            api.delete(name, &DeleteParams::default()).await.map(drop)
        }
        Doomed::PodNow(name) => {
            let api = Api::<Pod>::namespaced(client, namespace);
            api.delete(name, &DeleteParams::default().grace_period(0)).await.map(drop)
        }
        Doomed::Pod(name) => {
            let api = Api::<Pod>::namespaced(client, namespace);
            api.delete(name, &DeleteParams::default()).await.map(drop)
        }
    };
    ctx.metrics.wrote(kind, Verb::Delete.as_str());
    if matches!(&result, Err(kube::Error::Api(status)) if status.is_not_found()) {
        return Ok(());
    }
    told(cause, &Effect::new(Verb::Delete, kind, name), &result);
    ctx.journal.ended(cause.uid(), &format!("{kind} {name}"));
    result.map_err(|e| Error::Delete(format!("{kind} {name}"), e))
}

/// An Event that cannot be published is not worth a failed reconcile.
pub(crate) async fn tell<K: Resource<DynamicType = ()>>(ctx: &Context, object: &K, notice: &Notice) {
    tracing::info!(reason = notice.reason, "{}", notice.note);
    if let Err(error) = ctx.recorder.publish(&notice.into(), &object.object_ref(&())).await {
        tracing::warn!(%error, "an event could not be published");
    }
}
