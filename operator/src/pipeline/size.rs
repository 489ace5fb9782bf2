//! How many pods a revision is to have, and which of them can go. Pure.

use drover_crds::{
    api::ScalingMode,
    resolved::{Pipeline, Scaling},
};
use k8s_openapi::api::apps::v1::Deployment;

use super::{
    plan::{Mark, Object},
    pods,
    snapshot::{Owned, Snapshot},
};
use crate::{
    drift::Repair,
    names,
    scaling::{Decision, Policy},
};

/// The `ReplicaSet` controller removes pods of a smaller cost first.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Pods that every revision that takes messages, or is to, should have; `decided` is what the scaler came to last.
pub(crate) fn replicas(scaling: &Scaling, suspend: bool, decided: Option<u32>, owned: &Owned) -> i32 {
    if suspend {
        return 0;
    }
    if scaling.mode != ScalingMode::Auto {
        return scaling.replicas;
    }
    match decided {
        Some(desired) => count(desired),
        // Not decided yet: what runs stays.
        None => running(owned).clamp(count(scaling.min_replicas), count(scaling.max_replicas)),
    }
}

/// Most pods that may be wanted at any time.
pub(super) fn most(pipeline: &Pipeline) -> i32 {
    let scaling = &pipeline.scaling;
    if scaling.mode == ScalingMode::Auto { count(scaling.max_replicas) } else { scaling.replicas }
}

/// Bounds and aims, for the decision.
pub(crate) fn policy(scaling: &Scaling) -> Policy {
    Policy {
        min: scaling.min_replicas,
        max: scaling.max_replicas,
        target_utilization: scaling.target_utilization,
        catch_up: f64::from(scaling.catch_up_seconds),
        cooldown: f64::from(scaling.cooldown_seconds),
        fallback: scaling.fallback_replicas,
    }
}

/// A decision as the API has it.
pub(super) fn desired(decision: &Decision) -> i32 {
    count(decision.desired)
}

/// Pods that are asked for so far: of the largest revision.
pub(crate) fn running(owned: &Owned) -> i32 {
    let live = owned.deployments.iter().filter(|d| d.metadata.deletion_timestamp.is_none());
    live.map(|d| asked(d)).max().unwrap_or(0)
}

/// Pods that a Deployment asks for.
pub(crate) fn asked(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

fn count(replicas: u32) -> i32 {
    i32::try_from(replicas).unwrap_or(i32::MAX)
}

/// A Deployment of an older revision with another number of pods; all else stays as it is.
pub(crate) fn resized(live: &Deployment, replicas: i32) -> Deployment {
    let mut wanted = Deployment { metadata: live.metadata.clone(), spec: live.spec.clone(), status: None };
    let meta = &mut wanted.metadata;
    (meta.managed_fields, meta.resource_version, meta.uid) = (None, None, None);
    (meta.generation, meta.creation_timestamp, meta.annotations) = (None, None, None);
    if let Some(spec) = wanted.spec.as_mut() {
        spec.replicas = Some(replicas);
    }
    wanted
}

/// Everything that runs, at zero.
pub(crate) fn stopped(owned: &Owned) -> Vec<(Object, Repair)> {
    let all = owned.deployments.iter().chain(&owned.previews).chain(&owned.suspects);
    let runs = all.filter(|d| d.metadata.deletion_timestamp.is_none() && asked(d) != 0);
    runs.map(|d| (Object::Deployment(Box::new(resized(d, 0))), Repair::Apply)).collect()
}

/// Deletion costs to write before pods are removed: what each has in hand, where that is not what its annotation says.
pub(super) fn costs(seen: &Snapshot, revision: &str) -> Vec<Mark> {
    let own = seen.owned.pods.iter().filter(|p| pods::label(p, names::REVISION) == Some(revision));
    own.filter_map(|pod| {
        let name = pod.metadata.name.clone()?;
        let cost = seen.said(pod).map_or(0, |w| i32::try_from(w.in_flight.saturating_add(w.held)).unwrap_or(i32::MAX));
        let written = pod.metadata.annotations.as_ref().and_then(|a| a.get(DELETION_COST));
        let value = cost.to_string();
        let news = written.map_or("0", String::as_str) != value;
        news.then_some(Mark { pod: name, annotation: DELETION_COST, value })
    })
    .collect()
}
