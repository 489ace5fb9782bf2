//! The table of contents of a reconcile.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use drover_crds::api::{DeletionPolicy, IngestPipeline};
use futures::FutureExt as _;
use kube::{Api, ResourceExt as _};
use kube_runtime::{
    controller::Action,
    finalizer::{self, Event, finalizer},
};
use tracing::Instrument as _;

use super::{act, cleanup, decide, letters, observe, report, snapshot::Snapshot};
use crate::{
    context::{Caches, Context, Guarded, now},
    metrics::ObjectLabels,
    names::FINALIZER,
    problem::External,
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

/// Brings the cluster and the hub in line with a pipeline.
///
/// # Errors
/// If something could not be read or written; a spec that is wrong is a condition, not an error.
pub async fn reconcile(object: Arc<Guarded>, ctx: Arc<(Context, Caches)>) -> Result<Action, Error> {
    // One that cannot be read is left alone until it is changed.
    let Ok(pipeline) = &object.0 else { return Ok(Action::await_change()) };
    let pipeline = Arc::new(pipeline.clone());
    let (context, caches) = &*ctx;
    caches.ready().await;
    let start = now().1;
    let span = tracing::info_span!("pipeline", namespace = pipeline.namespace(), name = pipeline.name_any());
    let work = async {
        let guarded = AssertUnwindSafe(guarded(context, caches, pipeline)).catch_unwind();
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
async fn guarded(ctx: &Context, caches: &Caches, object: Arc<IngestPipeline>) -> Result<Action, Error> {
    let retain = object.spec.deletion_policy.unwrap_or_default() == DeletionPolicy::Retain;
    let held = object.finalizers().iter().any(|f| f == FINALIZER);
    if retain && !held {
        if object.metadata.deletion_timestamp.is_some() {
            cleanup::forget(ctx, &object);
            return Ok(Action::await_change());
        }
        return apply(ctx, caches, object).await;
    }
    let api: Api<IngestPipeline> = Api::namespaced(ctx.client.clone(), &object.namespace().unwrap_or_default());
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

async fn apply(ctx: &Context, caches: &Caches, object: Arc<IngestPipeline>) -> Result<Action, Error> {
    let seen = observe::observe(ctx, caches, object).await;
    let plan = decide::decide(&seen);
    act::act(ctx, &*seen.object, &plan).await.map_err(Error::Act)?;
    measure(ctx, &seen, plan.status.as_ref().or(seen.object.status.as_ref()));
    Ok(Action::requeue(plan.requeue))
}

fn measure(ctx: &Context, seen: &Snapshot, status: Option<&drover_crds::api::Status>) {
    let object = &seen.object;
    let labels = ObjectLabels { namespace: object.namespace().unwrap_or_default(), name: object.name_any() };
    if let Some(waiting) = &seen.suspects {
        ctx.metrics.suspects.get_or_create(&labels).set(waiting.iter().copied().map(i64::from).sum());
    }
    let life = match (&seen.hub, &seen.admitted) {
        (External::Fine(facts), Ok(pipeline)) => letters::life(facts, pipeline, seen.now),
        _ => None,
    };
    ctx.metrics.dead_letters_live(&labels, life.map(|life| (life.age, life.left)));
    let Some(status) = status else { return };
    ctx.metrics.ready.get_or_create(&labels).set(i64::from(report::is_ready(status)));
    ctx.metrics.replicas.get_or_create(&labels).set(i64::from(status.replicas.unwrap_or(0)));
    if let Some(dead) = status.dead_letters {
        ctx.metrics.dead_letters.get_or_create(&labels).set(dead);
    }
}

/// Says what went wrong, and when it is tried again.
#[expect(clippy::needless_pass_by_value, reason = "the controller passes it so")]
pub fn error_policy(object: Arc<Guarded>, error: &Error, ctx: Arc<(Context, Caches)>) -> Action {
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

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text.push_str(": ");
        text.push_str(&e.to_string());
        cause = e.source();
    }
    text
}
