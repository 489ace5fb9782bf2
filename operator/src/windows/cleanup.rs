//! What becomes of streams and state when a query is deleted. Bounded in time: a hub or store that is gone blocks nothing for ever.

use std::{sync::Arc, time::Duration};

use drover_crds::{
    api::{QueryDeletionPolicy, WindowQuery},
    resolved_query::Query,
};
use drover_worker::stream::schema;
use kube::ResourceExt as _;
use kube_runtime::controller::Action;
use tokio_postgres::Client;

use super::{observe, outside, snapshot::Snapshot};
use crate::{
    audit::{Cause, Verb},
    context::{Caches, Context, now},
    ending::{end_users, end_workers},
    hub::Streams,
    metrics::ObjectLabels,
    minted::Role,
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
    let age = deleted_for(&*object, seen.now);
    let (warning, note) = match gone {
        Ok(note) => (false, note.to_owned()),
        Err(problem) if age < LIMIT => {
            return Err(wait(ctx, &*seen.object, seen.old_status(), &problem.message).await);
        }
        Err(problem) => (true, format!("streams or state stay as they are: {}", problem.message)),
    };
    if let Err(problem) = end_users(ctx, &*object, &object.spec.hub, &seen.owned, &Role::OF_QUERY).await {
        return Err(wait(ctx, &*seen.object, seen.old_status(), &problem.message).await);
    }
    let reason = if warning { "StreamsLeft" } else { "Deleted" };
    act::tell(ctx, &*object, &Notice { warning, reason: reason.to_owned(), action: "Delete", note }).await;
    forget(ctx, &object);
    Ok(Action::await_change())
}

/// What was remembered of a query that is gone.
pub(super) fn forget(ctx: &Context, object: &WindowQuery) {
    let uid = object.uid().unwrap_or_default();
    ctx.written.forget(&uid);
    ctx.journal.forget(&uid);
    ctx.windows.forget(&uid);
    ctx.minted.forget(&uid);
    ctx.metrics.forget(&ObjectLabels::of(object));
}

/// Workers first, which would make what is missing anew; then what brings messages; the state last, so that a failure is found again.
async fn remove(ctx: &Context, seen: &Snapshot, query: &Query) -> Result<&'static str, Problem> {
    let instant = now().1;
    let namespace = seen.object.namespace().unwrap_or_default();
    ctx.windows.forget(&seen.object.uid().unwrap_or_default());
    let cause = Cause::of(&*seen.object, "deletionPolicy Delete");
    let allowed = &ctx.config.allowed_hosts;
    let data = ctx.secrets.get(&ctx.client, &namespace, &query.store.name, instant).await?;
    let client = outside::connect(&allowed.store(&query.store, &data)?).await?;
    let name = observe::name_in_store(&seen.object);
    let work = seen.owned.deployments.iter().any(|d| d.metadata.deletion_timestamp.is_none());
    if work {
        all_relayed(&client, query, &name).await?;
    }
    end_workers(ctx, &seen.owned, &namespace, &cause).await?;
    all_relayed(&client, query, &name).await?;
    let data = ctx.secrets.get(&ctx.client, &namespace, &query.hub.name, instant).await?;
    let hub = ctx.hubs.at(&allowed.hub(&query.hub, &data)?, instant);
    hub.delete_streams(&Streams::of(query, &[]), &cause).await?;
    schema::forget(&client, &query.schema, &name).await.map_err(|e| outside::told(&e))?;
    cause.done(Verb::Delete, "state", &name);
    Ok("deletionPolicy Delete: streams, exchanges and state are deleted")
}

/// An error, to be tried again, while something waits in the store for the hub. Workers relay it, also when they end.
async fn all_relayed(client: &Client, query: &Query, name: &str) -> Result<(), Problem> {
    let waiting = schema::waiting(client, &query.schema, name).await.map_err(|e| outside::told(&e))?;
    if waiting == schema::Waiting::default() {
        return Ok(());
    }
    let message = format!(
        "{} dead letters and {} rows wait in schema {} to be published to the hub",
        waiting.dead_letters, waiting.rows, query.schema
    );
    Err(Problem::new("Relaying", message))
}
