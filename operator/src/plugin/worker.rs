//! A worker's pod: what it works on, of which images it is, and why it does not run. Pure.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod, PodCondition};
use kube::ResourceExt as _;

use crate::names;

/// Containers that the operator makes, in the order in which their images are told.
const CONTAINERS: [&str; 2] = ["worker", "handler"];

/// A worker's pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Worker {
    pub(super) name: String,
    pub(super) work: Work,
    /// The worker's, then the handler's; with their digests, where they are known.
    pub(super) images: Vec<String>,
    pub(super) ready: bool,
    pub(super) restarts: i32,
    /// Why it does not run.
    pub(super) trouble: Option<Trouble>,
}

/// Why a pod does not run, in the kubelet's or the scheduler's words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) reason: String,
    pub(super) message: String,
    /// The container that does not; None where it is the pod.
    pub(super) container: Option<String>,
    /// The pod has ended for good: another one takes its place.
    pub(super) is_over: bool,
}

/// What a pod works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Work {
    /// What arrives, as this revision; empty where that is not known.
    Source(String),
    /// Copies of what arrives: this revision is tried.
    Preview(String),
    /// What was in flight when a worker or handler died, at this step.
    Suspects(String),
}

impl Default for Work {
    fn default() -> Self {
        Self::Source(String::new())
    }
}

impl Worker {
    pub(super) fn of(pod: &Pod) -> Self {
        Self {
            name: pod.name_any(),
            work: work(pod),
            images: images(pod),
            ready: condition(pod, "Ready").is_some_and(|c| c.status == "True"),
            restarts: containers(pod).map(|c| c.restart_count).sum(),
            trouble: trouble(pod),
        }
    }
}

/// Pods that do not read the source carry another label in place of the revision's.
fn work(pod: &Pod) -> Work {
    let label = |name: &str| pod.labels().get(name).cloned();
    let preview = label(names::PREVIEW).map(Work::Preview);
    let apart = preview.or_else(|| label(names::SUSPECTS).map(Work::Suspects));
    apart.unwrap_or_else(|| Work::Source(label(names::REVISION).unwrap_or_default()))
}

/// A handler is an init container that goes on: it is found by its name, as is a worker beside what others put into the pod.
fn images(pod: &Pod) -> Vec<String> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let state = |name: &str| main(pod).chain(first(pod)).find(|s| s.name == name);
    let image = |name: &&str| {
        let mut all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let written = all.find(|c| c.name == *name)?.image.as_deref()?;
        let role = if *name == CONTAINERS[0] { String::new() } else { format!("{name} ") };
        Some(format!("{role}{}", with_digest(written, state(name))))
    };
    CONTAINERS.iter().filter_map(image).collect()
}

/// An image as it is written, and what it was when it was pulled.
fn with_digest(written: &str, state: Option<&ContainerStatus>) -> String {
    let digest = state.and_then(|s| s.image_id.rsplit_once("sha256:")).map(|(_, digest)| digest);
    match digest.filter(|_| !written.contains("@sha256:")) {
        Some(digest) => format!("{written} ({})", digest.get(..12).unwrap_or(digest)),
        None => written.to_owned(),
    }
}

/// Those that come first, and the others.
fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    first(pod).chain(main(pod))
}

fn first(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().flat_map(|s| s.init_container_statuses.iter().flatten())
}

fn main(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten())
}

fn condition<'p>(pod: &'p Pod, type_: &str) -> Option<&'p PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == type_)
}

fn trouble(pod: &Pod) -> Option<Trouble> {
    over(pod).or_else(|| unscheduled(pod)).or_else(|| containers(pod).find_map(waiting)).or_else(|| ended(pod))
}

/// A pod that was evicted, or whose node has ended it.
fn over(pod: &Pod) -> Option<Trouble> {
    let status = pod.status.as_ref().filter(|s| s.phase.as_deref() == Some("Failed"))?;
    let ended = || containers(pod).find_map(terminated).map(of_end);
    Some(Trouble {
        reason: status.reason.clone().unwrap_or_else(|| "Failed".to_owned()),
        message: status.message.clone().or_else(ended).unwrap_or_default(),
        container: None,
        is_over: true,
    })
}

fn unscheduled(pod: &Pod) -> Option<Trouble> {
    let refused = condition(pod, "PodScheduled").filter(|c| c.status == "False")?;
    let (reason, message) = (refused.reason.clone().unwrap_or_default(), refused.message.clone().unwrap_or_default());
    Some(Trouble { reason, message, ..Trouble::default() })
}

/// A container that has ended, where it should not: one that comes first ends well, and in a pod that is to go all do.
fn ended(pod: &Pod) -> Option<Trouble> {
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let failed = first(pod).filter(|c| terminated(c).is_some_and(|t| t.exit_code != 0));
    failed.chain(main(pod)).find_map(|container| {
        let ended = terminated(container)?;
        Some(Trouble {
            reason: ended.reason.clone().unwrap_or_else(|| "Ended".to_owned()),
            message: format!("exit code {}", ended.exit_code),
            container: Some(container.name.clone()),
            is_over: false,
        })
    })
}

/// A pod that is being made waits for nothing that a person could mend.
fn waiting(container: &ContainerStatus) -> Option<Trouble> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.clone().unwrap_or_default();
    if matches!(reason.as_str(), "ContainerCreating" | "PodInitializing") {
        return None;
    }
    let ended = container.last_state.as_ref().and_then(|s| s.terminated.as_ref()).map(of_end);
    let message = ended.or_else(|| waiting.message.clone()).unwrap_or_default();
    Some(Trouble { reason, message, container: Some(container.name.clone()), is_over: false })
}

fn terminated(container: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    container.state.as_ref()?.terminated.as_ref()
}

fn of_end(ended: &ContainerStateTerminated) -> String {
    format!("{} (exit code {})", ended.reason.as_deref().unwrap_or("ended"), ended.exit_code)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_pod_tells_why_it_waits_and_what_ended_it() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": { "name": "t-1", "labels": { "drover.dev/revision": "abc" } },
            "spec": { "containers": [{ "name": "worker", "image": "drover-worker:1" }] },
            "status": {
                "conditions": [{ "type": "Ready", "status": "False" }],
                "containerStatuses": [{
                    "name": "worker", "image": "drover-worker:1", "imageID": "localhost/w@sha256:0123456789abcdef",
                    "ready": false, "restartCount": 3,
                    "state": { "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 20s" } },
                    "lastState": { "terminated": { "reason": "OOMKilled", "exitCode": 137 } },
                }],
            },
        }))
        .unwrap();
        let expected = Worker {
            name: "t-1".into(),
            work: Work::Source("abc".into()),
            images: vec!["drover-worker:1 (0123456789ab)".into()],
            ready: false,
            restarts: 3,
            trouble: Some(Trouble {
                reason: "CrashLoopBackOff".into(),
                message: "OOMKilled (exit code 137)".into(),
                container: Some("worker".into()),
                is_over: false,
            }),
        };
        assert_eq!(Worker::of(&pod), expected);
    }

    fn labelled(labels: BTreeMap<String, String>) -> Pod {
        Pod { metadata: ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }, ..Pod::default() }
    }

    #[test]
    fn a_pod_that_does_not_read_the_source_says_what_it_works_on() {
        assert_eq!(work(&labelled(names::revision_labels("t", "b1"))), Work::Source("b1".into()));
        assert_eq!(work(&labelled(names::preview_labels("t", "c2"))), Work::Preview("c2".into()));
        assert_eq!(work(&labelled(names::suspects_labels("t", 2))), Work::Suspects("2".into()));
        assert_eq!(work(&Pod::default()), Work::default());
    }

    #[test]
    fn images_are_those_of_worker_and_handler_and_not_of_what_others_put_beside_them() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {},
            "spec": {
                "initContainers": [{ "name": "mesh-init", "image": "mesh:1" }, { "name": "handler", "image": "acme/h:3" }],
                "containers": [{ "name": "mesh", "image": "mesh:1" }, { "name": "worker", "image": "w@sha256:feed" }],
            },
            "status": {
                "initContainerStatuses": [{
                    "name": "handler", "image": "acme/h:3", "imageID": "acme/h@sha256:fedcba9876543210",
                    "ready": true, "restartCount": 0,
                }],
                "containerStatuses": [{
                    "name": "worker", "image": "w", "imageID": "w@sha256:feed", "ready": true, "restartCount": 0,
                }],
            },
        }))
        .unwrap();
        assert_eq!(images(&pod), ["w@sha256:feed", "handler acme/h:3 (fedcba987654)"]);
    }

    fn told(pod: Value) -> Option<Trouble> {
        trouble(&serde_json::from_value(pod).unwrap())
    }

    fn ended(code: i32) -> Value {
        let state = json!({ "terminated": { "reason": "Error", "exitCode": code } });
        json!({ "name": "worker", "image": "w", "imageID": "", "ready": false, "restartCount": 0, "state": state })
    }

    #[test]
    fn an_evicted_pod_does_not_run_and_is_over() {
        let evicted = json!({ "phase": "Failed", "reason": "Evicted", "message": "The node was low on memory." });
        let told = told(json!({ "metadata": {}, "status": evicted })).unwrap();
        assert_eq!((told.reason.as_str(), told.message.as_str()), ("Evicted", "The node was low on memory."));
        assert!(told.is_over);
    }

    #[test]
    fn a_pod_that_has_failed_says_how_its_container_ended_where_nobody_else_does() {
        let failed = json!({ "phase": "Failed", "containerStatuses": [ended(137)] });
        let told = told(json!({ "metadata": {}, "status": failed })).unwrap();
        assert_eq!((told.reason.as_str(), told.message.as_str()), ("Failed", "Error (exit code 137)"));
    }

    #[test]
    fn a_container_that_has_ended_does_not_run() {
        let running = json!({ "phase": "Running", "containerStatuses": [ended(101)] });
        let told = told(json!({ "metadata": {}, "status": running })).unwrap();
        assert_eq!((told.reason.as_str(), told.message.as_str()), ("Error", "exit code 101"));
        assert_eq!((told.container.as_deref(), told.is_over), (Some("worker"), false));
    }

    #[test]
    fn what_ends_as_it_should_is_no_trouble() {
        let first = |code| json!({ "metadata": {}, "status": { "initContainerStatuses": [ended(code)] } });
        assert_eq!(told(first(0)), None);
        assert!(told(first(1)).is_some());
        let going = json!({ "deletionTimestamp": "2026-01-02T11:55:00Z" });
        assert_eq!(told(json!({ "metadata": going, "status": { "containerStatuses": [ended(0)] } })), None);
    }
}
