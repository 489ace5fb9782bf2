//! The table of contents of a query's reconcile.

use std::sync::Arc;

use drover_crds::api::{QueryDeletionPolicy, WindowQuery};
use kube::ResourceExt as _;
use kube_runtime::controller::Action;
use tracing::Span;

use super::{cleanup, decide, observe};
use crate::{
    context::{Caches, Context},
    pipeline::act,
    reconcile::{Error, Kind, measure},
};

impl Kind for WindowQuery {
    fn span(&self) -> Span {
        tracing::info_span!("query", namespace = self.namespace(), object = self.name_any())
    }

    fn is_retained(&self) -> bool {
        self.spec.deletion_policy.unwrap_or_default() == QueryDeletionPolicy::Retain && !self.spec.hub.is_minted()
    }

    async fn apply(ctx: &Context, caches: &Caches, object: Arc<Self>) -> Result<Action, Error> {
        let seen = observe::observe(ctx, caches, object).await;
        let plan = decide::decide(&seen);
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
