//! What becomes of the queues when a pipeline is deleted. Bounded in time: a hub that is gone blocks nothing for ever.

use std::{sync::Arc, time::Duration};

use drover_crds::{
    api::{DeletionPolicy, IngestPipeline},
    resolved::Pipeline,
};
use kube::ResourceExt as _;
use kube_runtime::controller::Action;

use super::{act::tell, cutover, observe, plan::Notice, snapshot::Snapshot};
use crate::{
    audit::Cause,
    context::{Caches, Context, now},
    ending::end_users,
    hub::{self, Emptied, Hub, Topology},
    metrics::ObjectLabels,
    minted::Role,
    problem::Problem,
    reconcile::{Error, deleted_for, wait},
};

/// A hub that cannot be reached is given up after this long.
const HUB_LIMIT: Duration = Duration::from_mins(1);
/// A source that does not empty is given up after this long, and stays.
const DRAIN_LIMIT: Duration = Duration::from_hours(1);
/// A hub that does not answer within this is asked again.
const PATIENCE: Duration = Duration::from_secs(10);

/// What one look has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// The queues are as the policy wants them.
    Done(String),
    /// Messages are left.
    Draining,
    /// Messages are left, and nobody takes them.
    Stuck(String),
    /// It could not be done now.
    Failed(Problem),
}

/// Runs while a pipeline is being deleted; the finalizer goes when it returns `Ok`.
pub(super) async fn cleanup(ctx: &Context, caches: &Caches, object: Arc<IngestPipeline>) -> Result<Action, Error> {
    let seen = observe::cluster(ctx, caches, Arc::clone(&object));
    let outcome = match &seen.admitted {
        // What was never accepted has declared nothing.
        Err(_) => Outcome::Done("queues are left as they are".to_owned()),
        Ok(pipeline) => {
            let removed = tokio::time::timeout(PATIENCE, remove(ctx, &seen, pipeline)).await;
            let silent = |_| Ok(Outcome::Failed(Problem::new("Timeout", "hub: no answer")));
            removed.unwrap_or_else(silent).unwrap_or_else(Outcome::Failed)
        }
    };
    let age = deleted_for(&*object, seen.now);
    let (warning, note) = match outcome {
        Outcome::Done(note) => (false, note),
        Outcome::Stuck(note) => (true, note),
        Outcome::Draining if age < DRAIN_LIMIT => {
            return Err(
                wait(ctx, &*seen.object, seen.old_status(), "the source drains before its queue is deleted").await
            );
        }
        Outcome::Draining => (true, "the source did not drain in time: its queue stays".to_owned()),
        Outcome::Failed(problem) if age < HUB_LIMIT => {
            return Err(wait(ctx, &*seen.object, seen.old_status(), &problem.message).await);
        }
        Outcome::Failed(problem) => (true, format!("queues stay as they are: {}", problem.message)),
    };
    if let Err(problem) = end_users(ctx, &*object, &object.spec.hub, &seen.owned, &Role::OF_PIPELINE).await {
        return Err(wait(ctx, &*seen.object, seen.old_status(), &problem.message).await);
    }
    let reason = if warning { "QueuesLeft" } else { "Deleted" };
    tell(ctx, &*object, &Notice { warning, reason: reason.to_owned(), action: "Delete", note }).await;
    forget(ctx, &object);
    Ok(Action::await_change())
}

/// What was remembered of a pipeline that is gone.
pub(super) fn forget(ctx: &Context, object: &IngestPipeline) {
    let uid = object.uid().unwrap_or_default();
    ctx.written.forget(&uid);
    ctx.journal.forget(&uid);
    ctx.stores.forget(&uid);
    ctx.scales.forget(&uid);
    ctx.ledgers.forget(&uid);
    ctx.turns.forget(&uid);
    ctx.redrives.forget(&uid);
    ctx.topologies.forget(&uid);
    ctx.minted.forget(&uid);
    ctx.metrics.forget(&ObjectLabels::of(object));
}

async fn remove(ctx: &Context, seen: &Snapshot, pipeline: &Pipeline) -> Result<Outcome, Problem> {
    let done = |note: &str| Ok(Outcome::Done(note.to_owned()));
    if pipeline.deletion_policy == DeletionPolicy::Retain {
        return done("deletionPolicy Retain: queues, bindings and exchange stay");
    }
    let instant = now().1;
    let namespace = seen.object.namespace().unwrap_or_default();
    let data = ctx.secrets.get(&ctx.client, &namespace, &pipeline.hub.name, instant).await?;
    let hub = ctx.hubs.at(&ctx.config.allowed_hosts.hub(&pipeline.hub, &data)?, instant);
    let cause = Cause::of(&*seen.object, format!("deletionPolicy {:?}", pipeline.deletion_policy));
    if let Some(mirror) = cutover::state(seen).mirror {
        hub.remove_mirror(&mirror, &pipeline.bindings, &cause).await?;
    }
    let topology = Topology::of(pipeline).with_suspects(pipeline);
    if pipeline.deletion_policy == DeletionPolicy::Delete {
        // A publisher whose message is on its way to a queue that goes would be refused it, though others may have it.
        hub::unbind(&hub, &topology, &cause).await?;
        hub::delete_all(&hub, &topology, &cause).await?;
        return done("deletionPolicy Delete: queues are deleted with what was in them");
    }
    drain(ctx, seen, &hub, &topology, &cause).await
}

/// First nothing new comes; then nothing waits; then no worker holds anything; only then is the queue asked for the last time.
async fn drain(
    ctx: &Context,
    seen: &Snapshot,
    hub: &Hub,
    topology: &Topology,
    cause: &Cause,
) -> Result<Outcome, Problem> {
    hub::unbind(hub, topology, cause).await?;
    if !hub::sources_empty(hub, topology).await? {
        let workers = seen.owned.deployments.iter().any(|d| d.spec.as_ref().is_some_and(|s| s.replicas != Some(0)));
        let stuck = "no workers run that could drain the source: its queue stays, unbound";
        return Ok(if workers { Outcome::Draining } else { Outcome::Stuck(stuck.to_owned()) });
    }
    // Asked only now: what was delivered while the queue was looked at is seen.
    if !observe::all_idle(ctx, &seen.owned.pods).await {
        return Ok(Outcome::Draining);
    }
    Ok(match hub::delete_when_empty(hub, topology, cause).await? {
        Emptied::Gone => {
            Outcome::Done("deletionPolicy DrainThenDelete: the source was empty and is deleted".to_owned())
        }
        Emptied::NotYet => Outcome::Draining,
    })
}
