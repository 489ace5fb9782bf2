//! What is looked at: the object, its pods, what happened to it.

use std::collections::BTreeMap;

use anyhow::Result;
use drover_crds::api::Status;
use k8s_openapi::{
    api::{core::v1::Pod, events::v1::Event},
    jiff::Timestamp,
};
use kube::{
    ResourceExt as _,
    api::{DynamicObject, ListParams},
};

use super::{
    cluster::{Access, Target},
    command::Scope,
    reading,
    worker::Worker,
};
use crate::names;

/// Events that are told.
const EVENTS: usize = 8;

/// An object, as far as whoever asks may see it.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// As kubectl writes it.
    pub(super) name: String,
    pub(super) scope: Scope,
    pub(super) generation: Option<i64>,
    pub(super) suspended: bool,
    pub(super) deletion: Option<Deletion>,
    pub(super) status: Status,
    /// Fields of the status that an operator of another version has written in another form.
    pub(super) unread: Vec<String>,
    /// The phase, also where this version does not know it.
    pub(super) phase: Option<String>,
    /// The revision that is to take over, or that was given up.
    pub(super) preview: Option<String>,
    /// Of the first dead letters how many have which reason; None where the hub is not reached from here.
    pub(super) reasons: Option<BTreeMap<String, u64>>,
    /// None where they may not be listed.
    pub(super) pods: Option<Vec<Worker>>,
    /// The newest last.
    pub(super) events: Vec<Happening>,
}

/// It is to be deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Deletion {
    pub(super) since: Timestamp,
    /// What is to be done before it goes.
    pub(super) finalizers: Vec<String>,
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
        let object = access.object(target).await?;
        let labels = match target.kind {
            "WindowQuery" => names::query_labels(&target.name),
            _ => names::labels(&target.name),
        };
        let selector = labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",");
        let pods = access.all::<Pod>().list(&ListParams::default().labels(&selector)).await;
        let of = format!("regarding.name={},regarding.kind={}", target.name, target.kind);
        let events = access.all::<Event>().list(&ListParams::default().fields(&of)).await;
        let events = events.map(|events| events.items).unwrap_or_default();
        let (status, unread) = reading::status(&object);
        Ok(Self {
            name: target.shown(),
            scope: access.scope.clone(),
            generation: object.metadata.generation,
            suspended: object.data.pointer("/spec/suspend").and_then(serde_json::Value::as_bool).unwrap_or(false),
            deletion: deletion(&object),
            status,
            unread,
            phase: text(&object, "/status/phase"),
            preview: text(&object, "/status/previewRevision"),
            reasons: None,
            pods: pods.ok().map(|pods| pods.items.iter().map(Worker::of).collect()),
            events: happenings(events, object.metadata.uid.as_deref()),
        })
    }

    /// A command of the plugin about the object, whole.
    pub(super) fn command(&self, verb: &str) -> String {
        self.scope.command(&format!("kubectl drover {verb} {}", self.name))
    }

    /// The operator has not seen the spec as it is now.
    pub(super) fn is_stale(&self) -> bool {
        self.generation.is_some() && self.status.observed_generation != self.generation
    }
}

fn text(object: &DynamicObject, pointer: &str) -> Option<String> {
    object.data.pointer(pointer)?.as_str().map(str::to_owned)
}

fn deletion(object: &DynamicObject) -> Option<Deletion> {
    let since = object.metadata.deletion_timestamp.as_ref()?.0;
    Some(Deletion { since, finalizers: object.finalizers().to_vec() })
}

/// Those of an earlier object of the same name are not this one's.
fn happenings(mut events: Vec<Event>, uid: Option<&str>) -> Vec<Happening> {
    let of = |event: &Event| event.regarding.as_ref()?.uid.clone();
    events.retain(|event| of(event).is_none_or(|of| uid.is_none_or(|uid| of == uid)));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_their_order_and_only_the_last_ones() {
        let event = |n: u32| -> Event {
            serde_json::from_value(serde_json::json!({
                "metadata": {}, "eventTime": format!("2026-01-02T12:00:{n:02}.000000Z"), "reason": n.to_string(), "note": "x",
            }))
            .unwrap()
        };
        let told = happenings((0..20).rev().map(event).collect(), Some("u"));
        let reasons: Vec<_> = told.iter().map(|h| h.reason.as_str()).collect();
        assert_eq!(reasons, ["12", "13", "14", "15", "16", "17", "18", "19"]);
    }

    #[test]
    fn events_of_an_earlier_object_of_the_same_name_are_not_told() {
        let event = |reason: &str, uid: Option<&str>| -> Event {
            let regarding = serde_json::json!({ "kind": "IngestPipeline", "name": "t", "uid": uid });
            let event =
                serde_json::json!({ "metadata": {}, "eventTime": null, "reason": reason, "regarding": regarding });
            serde_json::from_value(event).unwrap()
        };
        let all = vec![event("Own", Some("new")), event("Deleted", Some("old")), event("ByHand", None)];
        let told: Vec<String> = happenings(all, Some("new")).into_iter().map(|h| h.reason).collect();
        assert_eq!(told, ["Own", "ByHand"]);
    }

    #[test]
    fn an_object_that_is_to_go_says_since_when_and_what_is_done_before() {
        let object = |metadata: serde_json::Value| {
            let object = serde_json::json!({ "apiVersion": "drover.dev/v1alpha1", "kind": "IngestPipeline", "metadata": metadata });
            serde_json::from_value(object).unwrap()
        };
        let going =
            serde_json::json!({ "deletionTimestamp": "2026-01-02T11:55:00Z", "finalizers": [names::FINALIZER] });
        let expected =
            Deletion { since: "2026-01-02T11:55:00Z".parse().unwrap(), finalizers: vec![names::FINALIZER.to_owned()] };
        assert_eq!(deletion(&object(going)), Some(expected));
        assert_eq!(deletion(&object(serde_json::json!({ "finalizers": [names::FINALIZER] }))), None);
    }
}
