//! The table of contents of a pipeline's reconcile.

use std::sync::Arc;

use drover_crds::api::{DeletionPolicy, IngestPipeline};
use kube::ResourceExt as _;
use kube_runtime::controller::Action;
use tracing::Span;

use super::{act, cleanup, decide, letters, observe, snapshot::Snapshot};
use crate::{
    context::{Caches, Context},
    metrics::ObjectLabels,
    problem::External,
    reconcile::{Error, Kind, measure},
};

impl Kind for IngestPipeline {
    fn span(&self) -> Span {
        tracing::info_span!("pipeline", namespace = self.namespace(), object = self.name_any())
    }

    fn is_retained(&self) -> bool {
        self.spec.deletion_policy.unwrap_or_default() == DeletionPolicy::Retain && !self.spec.hub.is_minted()
    }

    async fn apply(ctx: &Context, caches: &Caches, object: Arc<Self>) -> Result<Action, Error> {
        let seen = observe::observe(ctx, caches, object).await;
        let plan = decide::decide(&seen);
        measure_letters(ctx, &seen);
        measure(ctx, &*seen.object, plan.status.as_ref().or(seen.object.status.as_ref()));
        act::act(ctx, &*seen.object, &plan).await.map_err(Error::Act)?;
        Ok(Action::requeue(plan.requeue))
    }

    async fn cleanup(ctx: &Context, caches: &Caches, object: Arc<Self>) -> Result<Action, Error> {
        cleanup::cleanup(ctx, caches, object).await
    }

    fn forget(&self, ctx: &Context) {
        cleanup::forget(ctx, self);
    }
}

/// What is apart from the stream.
fn measure_letters(ctx: &Context, seen: &Snapshot) {
    let labels = ObjectLabels::of(&*seen.object);
    if let Some(waiting) = &seen.suspects {
        ctx.metrics.suspects.get_or_create(&labels).set(waiting.iter().copied().map(i64::from).sum());
    }
    let life = match (&seen.hub, &seen.admitted) {
        (External::Fine(facts), Ok(pipeline)) => letters::life(facts, pipeline, seen.now),
        _ => None,
    };
    ctx.metrics.dead_letters_live(&labels, life.map(|life| (life.age, life.left)));
}
