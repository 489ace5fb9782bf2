//! The table of contents of a query's reconcile.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use drover_crds::api::{QueryDeletionPolicy, Status, WindowQuery};
use futures::FutureExt as _;
use kube::{Api, ResourceExt as _};
use kube_runtime::{
    controller::Action,
    finalizer::{self, Event, finalizer},
};
use tracing::Instrument as _;

use super::{cleanup, decide, observe};
use crate::{
    context::{Caches, Context, GuardedQuery, now},
    metrics::ObjectLabels,
    names::FINALIZER,
    pipeline::{act, reconcile::chain, report::is_ready},
};

/// No reconcile takes longer.
const LIMIT: Duration = Duration::from_mins(1);
/// After a look at an object that was out of date.
const SOON: Duration = Duration::from_millis(200);
/// After a failure it is tried again this soon.
const AGAIN: Duration = Duration::from_secs(5);

/// Could not read, or could not write.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A write failed.
    #[error("a write failed")]
    Act(#[source] act::Error),
    /// The finalizer could not be set or removed.
    #[error("the finalizer could not be changed")]
    Finalizer(#[source] Box<finalizer::Error<Error>>),
    /// A defect of the operator.
    #[error("a defect of the operator, which this object brings to light: please report it, with the log")]
    Panicked,
    /// It took too long.
    #[error("not done within {} s", LIMIT.as_secs())]
    Timeout,
    /// Deletion waits for something; not a failure, but the finalizer stays.
    #[error("deletion waits")]
    Deleting(Duration),
}

/// Brings the cluster, the hub and the store in line with a query.
///
/// # Errors
/// If something could not be read or written; a spec that is wrong is a condition, not an error.
pub async fn reconcile(object: Arc<GuardedQuery>, ctx: Arc<(Context, Caches)>) -> Result<Action, Error> {
    // One that cannot be read is left alone until it is changed.
    let Ok(query) = &object.0 else { return Ok(Action::await_change()) };
    let query = Arc::new(query.clone());
    let (context, caches) = &*ctx;
    caches.ready().await;
    let start = now().1;
    let span = tracing::info_span!("query", namespace = query.namespace(), name = query.name_any());
    let work = async {
        let guarded = AssertUnwindSafe(guarded(context, caches, query)).catch_unwind();
        let done = tokio::time::timeout(LIMIT, guarded).await.unwrap_or(Ok(Err(Error::Timeout)));
        // One object must not end the work on all others.
        done.unwrap_or(Err(Error::Panicked))
    };
    let result = work.instrument(span).await;
    context.metrics.duration.observe(now().1.duration_since(start).as_secs_f64());
    if result.is_ok() {
        context.metrics.reconciles.inc();
    }
    result
}

/// With a finalizer only where something is to be done at the end.
async fn guarded(ctx: &Context, caches: &Caches, object: Arc<WindowQuery>) -> Result<Action, Error> {
    let retain = object.spec.deletion_policy.unwrap_or_default() == QueryDeletionPolicy::Retain;
    let held = object.finalizers().iter().any(|f| f == FINALIZER);
    if retain && !held {
        if object.metadata.deletion_timestamp.is_some() {
            cleanup::forget(ctx, &object);
            return Ok(Action::await_change());
        }
        return apply(ctx, caches, object).await;
    }
    let api: Api<WindowQuery> = Api::namespaced(ctx.client.clone(), &object.namespace().unwrap_or_default());
    let done = finalizer(&api, FINALIZER, object, |event| async {
        match event {
            Event::Apply(object) => apply(ctx, caches, object).await,
            Event::Cleanup(object) => cleanup::cleanup(ctx, caches, object).await,
        }
    });
    match done.await {
        Ok(action) => Ok(action),
        Err(finalizer::Error::CleanupFailed(Error::Deleting(again))) => Ok(Action::requeue(again)),
        Err(finalizer::Error::ApplyFailed(e) | finalizer::Error::CleanupFailed(e)) => Err(e),
        Err(e) => Err(Error::Finalizer(Box::new(e))),
    }
}

async fn apply(ctx: &Context, caches: &Caches, object: Arc<WindowQuery>) -> Result<Action, Error> {
    let seen = observe::observe(ctx, caches, object).await;
    let plan = decide::decide(&seen);
    act::act(ctx, &*seen.object, &plan).await.map_err(Error::Act)?;
    measure(ctx, &seen.object, plan.status.as_ref().or(seen.object.status.as_ref()));
    Ok(Action::requeue(plan.requeue))
}

fn measure(ctx: &Context, object: &WindowQuery, status: Option<&Status>) {
    let Some(status) = status else { return };
    let labels = ObjectLabels { namespace: object.namespace().unwrap_or_default(), name: object.name_any() };
    ctx.metrics.ready.get_or_create(&labels).set(i64::from(is_ready(status)));
    ctx.metrics.replicas.get_or_create(&labels).set(i64::from(status.replicas.unwrap_or(0)));
    if let Some(dead) = status.dead_letters {
        ctx.metrics.dead_letters.get_or_create(&labels).set(dead);
    }
}

/// Says what went wrong, and when it is tried again.
#[expect(clippy::needless_pass_by_value, reason = "the controller passes it so")]
pub fn error_policy(object: Arc<GuardedQuery>, error: &Error, ctx: Arc<(Context, Caches)>) -> Action {
    use kube::Resource as _;
    if let Error::Act(e) = error
        && e.is_conflict()
    {
        // The cache was behind: the object as it is now is on its way.
        return Action::requeue(SOON);
    }
    ctx.0.metrics.failures.inc();
    let meta = object.meta();
    tracing::warn!(namespace = meta.namespace, name = meta.name, error = %chain(error), "reconcile failed");
    Action::requeue(AGAIN)
}
