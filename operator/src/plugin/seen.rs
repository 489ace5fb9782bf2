//! What is looked at: the object, its pods, what happened to it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use drover_crds::api::Status;
use k8s_openapi::{
    api::{
        core::v1::{ContainerStatus, Pod},
        events::v1::Event,
    },
    jiff::Timestamp,
};
use kube::{
    Api, ResourceExt as _,
    api::{DynamicObject, ListParams},
};

use super::cluster::{Access, Target};
use crate::names;

/// Containers that the operator makes, in the order in which their images are told.
const CONTAINERS: [&str; 2] = ["worker", "handler"];
/// Events that are told.
const EVENTS: usize = 8;

/// An object, as far as whoever asks may see it.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// As kubectl writes it.
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) generation: Option<i64>,
    pub(super) suspended: bool,
    pub(super) status: Status,
    /// The revision that is to take over, or that was given up.
    pub(super) preview: Option<String>,
    /// Of the first dead letters how many have which reason; None where the hub is not reached from here.
    pub(super) reasons: Option<BTreeMap<String, u64>>,
    /// None where they may not be listed.
    pub(super) pods: Option<Vec<Worker>>,
    /// The newest last.
    pub(super) events: Vec<Happening>,
}

/// A worker's pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Worker {
    pub(super) name: String,
    pub(super) work: Work,
    /// The worker's, then the handler's; with their digests, where they are known.
    pub(super) images: Vec<String>,
    pub(super) ready: bool,
    pub(super) restarts: i32,
    /// Why it does not run, in the kubelet's or the scheduler's words.
    pub(super) waiting: Option<(String, String)>,
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

/// An Event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Happening {
    pub(super) at: Option<Timestamp>,
    pub(super) reason: String,
    pub(super) note: String,
}

impl Seen {
    pub(super) async fn look(access: &Access, target: &Target) -> Result<Self> {
        let object = access.objects(target).get(&target.name).await;
        let object = object.with_context(|| format!("{} in namespace {}", target.shown(), access.namespace))?;
        let labels = match target.kind {
            "WindowQuery" => names::query_labels(&target.name),
            _ => names::labels(&target.name),
        };
        let selector = labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",");
        let pods = Api::<Pod>::namespaced(access.client.clone(), &access.namespace);
        let pods = pods.list(&ListParams::default().labels(&selector)).await;
        let events = Api::<Event>::namespaced(access.client.clone(), &access.namespace);
        let of = format!("regarding.name={},regarding.kind={}", target.name, target.kind);
        let events = events.list(&ListParams::default().fields(&of)).await;
        Ok(Self {
            name: target.shown(),
            namespace: access.namespace.clone(),
            generation: object.metadata.generation,
            suspended: object.data.pointer("/spec/suspend").and_then(serde_json::Value::as_bool).unwrap_or(false),
            status: status(&object)?,
            preview: text(&object, "/status/previewRevision"),
            reasons: None,
            pods: pods.ok().map(|pods| pods.items.iter().map(worker).collect()),
            events: happenings(events.map(|events| events.items).unwrap_or_default()),
        })
    }

    /// The operator has not seen the spec as it is now.
    pub(super) fn is_stale(&self) -> bool {
        self.generation.is_some() && self.status.observed_generation != self.generation
    }
}

fn text(object: &DynamicObject, pointer: &str) -> Option<String> {
    object.data.pointer(pointer)?.as_str().map(str::to_owned)
}

/// What the operator has written of an object.
pub(super) fn status(object: &DynamicObject) -> Result<Status> {
    let status = object.data.get("status").cloned().unwrap_or_else(|| serde_json::json!({}));
    serde_json::from_value(status).context("the status has another form: plugin and operator are of different versions")
}

fn happenings(mut events: Vec<Event>) -> Vec<Happening> {
    let at = |event: &Event| {
        let last = event.series.as_ref().map(|s| s.last_observed_time.0);
        last.or_else(|| event.event_time.as_ref().map(|t| t.0))
            .or_else(|| event.deprecated_last_timestamp.as_ref().map(|t| t.0))
    };
    events.sort_by_key(at);
    let surplus = events.len().saturating_sub(EVENTS);
    let newest = events.into_iter().skip(surplus);
    let happening = |event: Event| {
        let at = at(&event);
        Happening { at, reason: event.reason.unwrap_or_default(), note: event.note.unwrap_or_default() }
    };
    newest.map(happening).collect()
}

fn worker(pod: &Pod) -> Worker {
    let status = pod.status.as_ref();
    let containers = status.and_then(|s| s.container_statuses.as_deref()).unwrap_or_default();
    let first = status.and_then(|s| s.init_container_statuses.as_deref()).unwrap_or_default();
    let all = || first.iter().chain(containers);
    let condition = |type_: &str| status.and_then(|s| s.conditions.iter().flatten().find(|c| c.type_ == type_));
    let unscheduled = condition("PodScheduled").filter(|c| c.status == "False");
    let unscheduled =
        unscheduled.map(|c| (c.reason.clone().unwrap_or_default(), c.message.clone().unwrap_or_default()));
    Worker {
        name: pod.name_any(),
        work: work(pod),
        images: images(pod),
        ready: condition("Ready").is_some_and(|c| c.status == "True"),
        restarts: all().map(|c| c.restart_count).sum(),
        waiting: unscheduled.or_else(|| all().find_map(waiting)),
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
    let status = pod.status.as_ref();
    let state = |name: &str| {
        let running = status.and_then(|s| s.container_statuses.as_ref()).into_iter().flatten();
        let first = status.and_then(|s| s.init_container_statuses.as_ref()).into_iter().flatten();
        running.chain(first).find(|s| s.name == name)
    };
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

/// A pod that is being made waits for nothing that a person could mend.
fn waiting(container: &ContainerStatus) -> Option<(String, String)> {
    let state = container.state.as_ref()?;
    let waiting = state.waiting.as_ref()?;
    let reason = waiting.reason.clone().unwrap_or_default();
    if matches!(reason.as_str(), "ContainerCreating" | "PodInitializing") {
        return None;
    }
    let ended = container.last_state.as_ref().and_then(|s| s.terminated.as_ref());
    let ended = ended.map(|t| format!("{} (exit code {})", t.reason.as_deref().unwrap_or("ended"), t.exit_code));
    Some((reason, ended.or_else(|| waiting.message.clone()).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

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
            waiting: Some(("CrashLoopBackOff".into(), "OOMKilled (exit code 137)".into())),
        };
        assert_eq!(worker(&pod), expected);
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

    #[test]
    fn events_come_in_their_order_and_only_the_last_ones() {
        let event = |n: u32| -> Event {
            serde_json::from_value(serde_json::json!({
                "metadata": {}, "eventTime": format!("2026-01-02T12:00:{n:02}.000000Z"), "reason": n.to_string(), "note": "x",
            }))
            .unwrap()
        };
        let told = happenings((0..20).rev().map(event).collect());
        let reasons: Vec<_> = told.iter().map(|h| h.reason.as_str()).collect();
        assert_eq!(reasons, ["12", "13", "14", "15", "16", "17", "18", "19"]);
    }
}
