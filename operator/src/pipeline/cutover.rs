//! What a pipeline's pods, workers and spec are to a rollout: its facts. Pure.

use std::sync::Arc;

use drover_crds::{
    api::{Cause, Proof, RolloutPhase, RolloutStatus, Tally},
    resolved::{HANDLER_TIMEOUT_SECONDS, HTTP_TIMEOUT_SECONDS, Pipeline, mirror_queue},
};
use drover_worker::status::WorkerStatus;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};

use super::{pods, render::Revision, size, snapshot::Snapshot};
use crate::{
    names,
    rollout::{Command, Facts, Knowledge, Live, Of, Reading, Side, Sizes, Wanted, is_on_source, request, sizes},
    scaling::Batches,
    workers::is_running,
};

/// Where the rollout is, as it was last written.
pub(super) fn state(seen: &Snapshot) -> RolloutStatus {
    let status = seen.old_status();
    status.rollout.unwrap_or_else(|| RolloutStatus { active: status.active_revision, ..RolloutStatus::default() })
}

/// The revision that carries the load.
pub(super) fn carrier(state: &RolloutStatus) -> Option<String> {
    let new = state.preview.as_ref().filter(|_| state.phase == RolloutPhase::Verifying);
    new.or(state.active.as_ref()).cloned()
}

/// How many workers each side is to have.
pub(super) fn sizes_of(seen: &Snapshot, pipeline: &Pipeline, state: &RolloutStatus, need: i32) -> Sizes {
    let new = state.preview.as_deref();
    let live = Live {
        new: new.and_then(|name| deployment(seen, name)).map_or(0, size::asked),
        active_pods: state.active.as_deref().is_some_and(|name| has_pods(seen, name)),
        new_pods: new.is_some_and(|name| has_pods(seen, name)),
    };
    let previews = i32::try_from(pipeline.rollout.preview_replicas).unwrap_or(i32::MAX);
    sizes(state, pipeline.rollout.cutover, live, need, size::most(pipeline), pipeline.suspend, previews)
}

/// A Deployment that is not settled at nothing has pods, or is about to.
fn has_pods(seen: &Snapshot, revision: &str) -> bool {
    let settled = deployment(seen, revision).is_none_or(|d| {
        let counts = pods::counts(d);
        size::asked(d) == 0 && counts.current && counts.replicas == 0
    });
    !settled || pods::any_of(&seen.owned.pods, revision)
}

/// The Deployment of a revision on the source.
pub(super) fn deployment<'a>(seen: &'a Snapshot, revision: &str) -> Option<&'a Deployment> {
    let name = names::of_revision(seen.name(), revision);
    seen.owned.deployments.iter().map(|d| &**d).find(|d| d.metadata.name.as_deref() == Some(&name))
}

/// All that the next step follows from.
pub(super) fn facts(
    seen: &Snapshot,
    pipeline: &Pipeline,
    state: &RolloutStatus,
    wanted: &Revision,
    need: i32,
) -> Facts {
    Facts {
        now: seen.now.to_string(),
        policy: pipeline.rollout,
        wanted: Some(asked_for(seen, pipeline, state, wanted)),
        may_start: seen.hub.is_fine() && (seen.store.is_fine() || pipeline.sink.postgres.is_none()),
        turn: seen.turn,
        suspended: pipeline.suspend,
        mirror: seen.mirror.clone(),
        preview: preview(seen, state),
        new: new(seen, state, sizes_of(seen, pipeline, state, need)),
        active_lost: false,
        retained_gone: state.retained.as_deref().is_some_and(|r| deployment(seen, r).is_none()),
        evidence: seen.evidence,
        requests: requests(seen),
    }
}

fn asked_for(seen: &Snapshot, pipeline: &Pipeline, state: &RolloutStatus, wanted: &Revision) -> Wanted {
    let work = |d: &Deployment| d.metadata.labels.as_ref()?.get(names::WORK).cloned();
    let active = state.active.as_deref().and_then(|name| deployment(seen, name)).and_then(work);
    // One made by an older operator tells nothing of its work: it may be another.
    let same = active.is_some() && active == work(&wanted.deployment);
    let generation = seen.object.metadata.generation;
    let by_spec = seen.old_status().observed_generation != generation;
    let mirrored = !pipeline.bindings.is_empty();
    Wanted {
        name: wanted.name.clone(),
        proof: if same { Proof::Readiness } else { Proof::Preview },
        cause: if by_spec { Cause::Spec } else { Cause::Operator },
        mirror: mirrored.then(|| mirror_queue(&pipeline.queue, &wanted.name)),
    }
}

/// Requests that were not answered yet.
fn requests(seen: &Snapshot) -> Vec<(Command, String)> {
    let handled = seen.old_status().handled_requests;
    let asked = Command::ALL.into_iter().filter_map(|c| Some((c, request(&*seen.object, c.annotation())?)));
    asked.filter(|(_, id)| !handled.contains(id)).collect()
}

/// Ids that annotations carry.
pub(super) fn asked(seen: &Snapshot) -> Vec<String> {
    let all = Command::ALL.into_iter().map(Command::annotation).chain([names::REDRIVE]);
    all.filter_map(|name| request(&*seen.object, name)).collect()
}

/// What is known of the new revision on its mirror.
fn preview(seen: &Snapshot, state: &RolloutStatus) -> Side {
    let Some(name) = state.preview.as_deref() else { return Side::default() };
    let full = names::of_preview(seen.name(), name);
    let live = seen.owned.previews.iter().find(|d| d.metadata.name.as_deref() == Some(&full));
    let counts = live.map(|d| pods::counts(d));
    let consumes = live.zip(counts).is_some_and(|(d, c)| {
        let asked = size::asked(d);
        d.metadata.deletion_timestamp.is_none() && c.current && asked > 0 && c.available >= asked
    });
    let hindrance = live.filter(|_| !consumes);
    let hindrance = hindrance.and_then(|d| pods::hindrance_of(d, &seen.owned.pods, names::PREVIEW, name));
    Side { exists: live.is_some(), consumes, hindrance, ..at_work(seen, names::PREVIEW, name) }
}

/// What is known of it on the source.
fn new(seen: &Snapshot, state: &RolloutStatus, sizes: Sizes) -> Side {
    let Some(name) = state.preview.as_deref() else { return Side::default() };
    let live = deployment(seen, name);
    let exists = live.is_some() || pods::any_of(&seen.owned.pods, name);
    // One that is told to end is of no use any more, though it still consumes: it is made anew when it has gone.
    let usable = live.filter(|d| d.metadata.deletion_timestamp.is_none());
    let size = sizes.new.unwrap_or(i32::MAX);
    // Once it has taken over, more of them may be on their way.
    let enough = if state.phase == RolloutPhase::Verifying { size.min(1) } else { size };
    let consumes = usable.is_some_and(|d| pods::consume(d, &seen.owned.pods, name, enough));
    let hindrance = usable.filter(|_| !consumes).and_then(|d| pods::hindrance(d, &seen.owned.pods, name));
    Side { exists, consumes, hindrance, pace: seen.pace, ..at_work(seen, names::REVISION, name) }
}

/// What workers have in hand, and why one waits.
fn at_work(seen: &Snapshot, key: &str, value: &str) -> Side {
    let statuses = || own(seen, key, value).into_iter().filter_map(|pod| seen.said(&pod));
    Side {
        timeout: seen.admitted.as_ref().map_or(0, timeout),
        in_hand: statuses().fold(0, |sum, s| sum.saturating_add(s.in_flight).saturating_add(s.held)),
        holding: statuses().find_map(|s| s.holding.as_ref().map(|h| h.message.clone())),
        ..Side::default()
    }
}

/// How long a single message may take: its handler, or the server that it goes to.
fn timeout(pipeline: &Pipeline) -> u32 {
    let handler = pipeline.handler.as_ref().map(|h| h.timeout_seconds.unwrap_or(HANDLER_TIMEOUT_SECONDS));
    let server = pipeline.sink.http.as_ref().map(|http| http.timeout_seconds.unwrap_or(HTTP_TIMEOUT_SECONDS));
    handler.unwrap_or(0).saturating_add(server.unwrap_or(0))
}

fn own(seen: &Snapshot, key: &str, value: &str) -> Vec<Arc<Pod>> {
    seen.owned.pods.iter().filter(|p| pods::label(p, key) == Some(value)).cloned().collect()
}

/// What was learnt at this look of what both sides do.
pub(super) fn knowledge(seen: &Snapshot, at: f64) -> Knowledge {
    let state = state(seen);
    let (key, new) =
        if is_on_source(&state) { (names::REVISION, &state.preview) } else { (names::PREVIEW, &state.preview) };
    let old = state.active.as_deref().map_or_else(Vec::new, |name| own(seen, names::REVISION, name));
    let new_pods = new.as_deref().map_or_else(Vec::new, |name| own(seen, key, name));
    let store = seen.admitted.as_ref().is_ok_and(|p| p.sink.postgres.is_none()) || seen.store.is_fine();
    let works = |pod: &Arc<Pod>| !is_running(pod) || seen.said(pod).is_some_and(|s| s.holding.is_none());
    let readings = read(seen, &old, Of::Active).into_iter().chain(read(seen, &new_pods, Of::New)).collect();
    let running = new_pods.iter().filter(|p| is_running(p)).count();
    let works_on = |s: &WorkerStatus| s.holding.is_none() && s.in_flight.saturating_add(s.held) > 0;
    let heard = new_pods.iter().filter(|p| seen.said(p).is_some_and(|s| s.consuming)).count();
    Knowledge {
        at,
        readings,
        sound: seen.hub.is_fine() && store && seen.admitted.as_ref().is_ok_and(|p| !p.suspend) && old.iter().all(works),
        heard: running > 0 && heard == running,
        works: new_pods.iter().filter_map(|pod| seen.said(pod)).any(works_on),
        active_restarts: old.iter().map(|p| pods::restarts(p)).sum(),
        new_restarts: new_pods.iter().map(|p| pods::restarts(p)).sum(),
    }
}

fn read(seen: &Snapshot, pods: &[Arc<Pod>], of: Of) -> Vec<Reading> {
    let readings = pods.iter().filter_map(|pod| {
        let (name, status) = (pod.metadata.name.clone()?, seen.said(pod)?);
        Some(Reading {
            pod: name,
            of,
            started: status.started_seconds,
            tally: tally(status),
            batches: status.batches.map(Batches::from),
        })
    });
    readings.collect()
}

fn tally(status: &WorkerStatus) -> Tally {
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    Tally {
        processed: count(status.processed.saturating_add(status.dead_lettered).saturating_add(status.suspected)),
        failed: count(status.failed.all()),
        dead_letters: count(status.dead_lettered),
        restarts: 0,
        busy_seconds: status.busy_seconds,
    }
}
