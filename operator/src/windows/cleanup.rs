//! What becomes of streams and state when a query is deleted. Bounded in time: a hub or store that is gone blocks nothing for ever.

use std::{sync::Arc, time::Duration};

use drover_crds::{
    api::{QueryDeletionPolicy, WindowQuery},
    resolved_query::Query,
};
use drover_worker::stream::schema;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{Api, ResourceExt as _, api::DeleteParams};
use kube_runtime::controller::Action;

use super::{observe, outside, snapshot::Snapshot};
use crate::{
    context::{Caches, Context, now},
    hub::Streams,
    metrics::ObjectLabels,
    pipeline::{act, plan::Notice},
    problem::Problem,
    reconcile::{Error, deleted_for, wait},
};

/// A hub or store that cannot be reached, and workers that do not end, are given up after this long.
const LIMIT: Duration = Duration::from_mins(1);
/// A hub and store that do not answer within this are asked again.
const PATIENCE: Duration = Duration::from_secs(15);

/// Runs while a query is being deleted; the finalizer goes when it returns `Ok`.
pub(super) async fn cleanup(ctx: &Context, caches: &Caches, object: Arc<WindowQuery>) -> Result<Action, Error> {
    let seen = observe::cluster(ctx, caches, Arc::clone(&object));
    let gone = match &seen.admitted {
        // What was never accepted has declared nothing.
        Err(_) => Ok("streams and state are left as they are"),
        Ok(query) if query.deletion_policy == QueryDeletionPolicy::Retain => {
            Ok("deletionPolicy Retain: streams, exchanges and state stay")
        }
        Ok(query) => {
            let removed = tokio::time::timeout(PATIENCE, remove(ctx, &seen, query)).await;
            removed.unwrap_or_else(|_| Err(Problem::new("Timeout", "hub or store: no answer")))
        }
    };
    let (warning, note) = match gone {
        Ok(note) => (false, note.to_owned()),
        Err(problem) if deleted_for(&*object, seen.now) < LIMIT => {
            return Err(wait(ctx, &*seen.object, seen.old_status(), &problem.message).await);
        }
        Err(problem) => (true, format!("streams or state stay as they are: {}", problem.message)),
    };
    let reason = if warning { "StreamsLeft" } else { "Deleted" };
    act::tell(ctx, &*object, &Notice { warning, reason: reason.to_owned(), action: "Delete", note }).await;
    forget(ctx, &object);
    Ok(Action::await_change())
}

/// What was remembered of a query that is gone.
pub(super) fn forget(ctx: &Context, object: &WindowQuery) {
    let uid = object.uid().unwrap_or_default();
    ctx.written.forget(&uid);
    ctx.windows.forget(&uid);
    ctx.metrics.forget(&ObjectLabels { namespace: object.namespace().unwrap_or_default(), name: object.name_any() });
}

/// Workers first, which would make what is missing anew; then what brings messages; the state last, so that a failure is found again.
async fn remove(ctx: &Context, seen: &Snapshot, query: &Query) -> Result<&'static str, Problem> {
    let instant = now().1;
    let namespace = seen.object.namespace().unwrap_or_default();
    ctx.windows.forget(&seen.object.uid().unwrap_or_default());
    end_workers(ctx, seen, &namespace).await?;
    let allowed = &ctx.config.allowed_hosts;
    let data = ctx.secrets.get(&ctx.client, &namespace, &query.hub.name, instant).await?;
    let hub = ctx.hubs.at(&allowed.hub(&query.hub, &data)?, instant);
    hub.delete_streams(&Streams::of(query, &[])).await?;
    let data = ctx.secrets.get(&ctx.client, &namespace, &query.store.name, instant).await?;
    let client = outside::connect(&allowed.store(&query.store, &data)?).await?;
    let name = observe::name_in_store(&seen.object);
    schema::forget(&client, &query.schema, &name).await.map_err(|e| outside::told(&e))?;
    Ok("deletionPolicy Delete: streams, exchanges and state are deleted")
}

/// Tells all revisions to end; an error, to be tried again, until they have.
async fn end_workers(ctx: &Context, seen: &Snapshot, namespace: &str) -> Result<(), Problem> {
    let api: Api<Deployment> = Api::namespaced(ctx.client.clone(), namespace);
    for deployment in seen.owned.deployments.iter().filter(|d| d.metadata.deletion_timestamp.is_none()) {
        let name = deployment.name_any();
        ctx.metrics.wrote("Deployment", "delete");
        match api.delete(&name, &DeleteParams::foreground()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(error) => return Err(Problem::new("WorkersEnding", format!("Deployment {name}: {error}"))),
            Ok(_) => {}
        }
    }
    if seen.owned.deployments.is_empty() && seen.owned.pods.is_empty() {
        return Ok(());
    }
    Err(Problem::new("WorkersEnding", "workers end before streams and state are deleted"))
}
