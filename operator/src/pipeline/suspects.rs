//! Workers for suspects: started from zero when there are some, and back to zero when there are none. Pure.

use std::{collections::BTreeMap, sync::Arc};

use drover_crds::resolved::{Pipeline, SUSPECT_STEPS, suspects_key};
use drover_worker::{settings as var, status::WorkerStatus};
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec},
        core::v1::{
            DownwardAPIVolumeFile, DownwardAPIVolumeSource, EnvVar, ObjectFieldSelector, Pod, Volume, VolumeMount,
        },
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};

use super::{render::Subject, size, snapshot::Snapshot};
use crate::{names, workers::is_running};

/// Suspects for which one more worker is started: those of one lost worker with the usual prefetch.
const EACH: u32 = 200;

/// Where a pod finds what it is told by its annotations.
const ABOUT_ITSELF: &str = "/run/drover/pod";
const LAST_EXIT: &str = "last-exit";
const VOLUME: &str = "pod";

/// Whether a pipeline has, or had, queues of suspects.
pub(super) fn are_possible(pipeline: &Pipeline, seen: &Snapshot) -> bool {
    pipeline.handler.is_some() || !seen.owned.suspects.is_empty()
}

/// Whether there are some, or workers for them.
pub(super) fn are_handled(seen: &Snapshot) -> bool {
    let runs = |step| current(seen, step).is_some_and(|replicas| replicas > 0);
    seen.suspects.iter().flatten().any(|waiting| *waiting > 0) || (1..=SUSPECT_STEPS).any(runs)
}

/// The step of a Deployment or pod of suspects.
pub(super) fn step(labels: Option<&BTreeMap<String, String>>) -> Option<u8> {
    labels?.get(names::SUSPECTS)?.parse().ok()
}

/// The Deployments as they should be, by the pods of the Deployment of a revision that is known to work. Where nobody knows how
/// many wait, all stays as it is.
pub(super) fn deployments(
    seen: &Snapshot,
    subject: &Subject<'_>,
    pipeline: &Pipeline,
    active: &Deployment,
) -> Vec<Deployment> {
    let Some(waiting) = seen.suspects.as_ref().filter(|_| are_possible(pipeline, seen)) else { return Vec::new() };
    let all = (1..=SUSPECT_STEPS).zip(waiting).filter_map(|(step, waiting)| {
        let now = current(seen, step);
        let wanted = replicas(pipeline, step, *waiting, now.unwrap_or(0), is_busy(seen, step));
        // One that never ran is not made before it is needed.
        (wanted > 0 || now.is_some()).then(|| deployment(subject, active, step, wanted))
    });
    all.collect()
}

fn current(seen: &Snapshot, step: u8) -> Option<i32> {
    let own = |d: &&Arc<Deployment>| self::step(d.metadata.labels.as_ref()) == Some(step);
    let found = seen.owned.suspects.iter().find(own)?;
    Some(found.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0))
}

/// The last step has one worker, or what dies there would not be alone.
fn replicas(pipeline: &Pipeline, step: u8, waiting: u32, now: i32, busy: bool) -> i32 {
    if pipeline.suspend {
        return 0;
    }
    let most = if step == SUSPECT_STEPS { 1 } else { size::most(pipeline).max(1) };
    match waiting {
        0 if busy => now.min(most),
        0 => 0,
        _ => i32::try_from(waiting.div_ceil(EACH)).unwrap_or(i32::MAX).max(now).clamp(1, most),
    }
}

/// Whether a worker of the step holds something, or does not say.
fn is_busy(seen: &Snapshot, step: u8) -> bool {
    let role = suspects_key(step);
    let answers: Vec<&WorkerStatus> =
        seen.workers.iter().filter_map(|worker| worker.status.as_ref()).filter(|status| status.role == role).collect();
    let own = |pod: &&Arc<Pod>| self::step(pod.metadata.labels.as_ref()) == Some(step) && is_running(pod);
    let pods = seen.owned.pods.iter().filter(own).count();
    pods > answers.len() || answers.iter().any(|worker| worker.in_flight > 0 || worker.held > 0)
}

/// Pods of a revision that read the queue of a step instead of the source.
fn deployment(subject: &Subject<'_>, active: &Deployment, step: u8, replicas: i32) -> Deployment {
    let labels = names::suspects_labels(subject.name, step);
    let selected = BTreeMap::from([
        (names::PIPELINE.to_owned(), subject.name.to_owned()),
        (names::SUSPECTS.to_owned(), step.to_string()),
    ]);
    let metadata = subject.meta(&names::of_suspects(subject.name, step), labels.clone());
    let mut template = active.spec.clone().unwrap_or_default().template;
    let meta = template.metadata.get_or_insert_default();
    let pod_labels = meta.labels.get_or_insert_default();
    pod_labels.remove(names::REVISION);
    pod_labels.extend(labels);
    let selector = LabelSelector { match_labels: Some(selected), match_expressions: None };
    if let Some(spec) = template.spec.as_mut() {
        spec.volumes.get_or_insert_default().push(about_itself());
        for container in &mut spec.containers {
            let env = container.env.get_or_insert_default();
            let told = [
                (var::ROLE, suspects_key(step)),
                (var::SUSPECTS, "true".to_owned()),
                (var::LAST_EXIT_FILE, format!("{ABOUT_ITSELF}/{LAST_EXIT}")),
            ];
            env.extend(told.map(|(name, value)| EnvVar {
                name: name.to_owned(),
                value: Some(value),
                value_from: None,
            }));
            container.volume_mounts.get_or_insert_default().push(VolumeMount {
                name: VOLUME.to_owned(),
                mount_path: ABOUT_ITSELF.to_owned(),
                read_only: Some(true),
                ..VolumeMount::default()
            });
        }
    }
    let spec = DeploymentSpec {
        replicas: Some(replicas),
        revision_history_limit: Some(0),
        selector,
        template,
        ..DeploymentSpec::default()
    };
    Deployment { metadata, spec: Some(spec), status: None }
}

/// Kubelet writes a changed annotation into it at the pod's next look.
fn about_itself() -> Volume {
    let field = ObjectFieldSelector {
        api_version: Some("v1".to_owned()),
        field_path: format!("metadata.annotations['{}']", names::LAST_EXIT),
    };
    let file = DownwardAPIVolumeFile {
        path: LAST_EXIT.to_owned(),
        field_ref: Some(field),
        ..DownwardAPIVolumeFile::default()
    };
    Volume {
        name: VOLUME.to_owned(),
        downward_api: Some(DownwardAPIVolumeSource { items: Some(vec![file]), default_mode: Some(0o444) }),
        ..Volume::default()
    }
}
