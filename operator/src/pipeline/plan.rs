//! What is to be done, with nothing left to choose. Data only.

use std::{collections::BTreeMap, time::Duration};

use drover_crds::api::Status;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, ServiceAccount},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use kube_runtime::events::{Event, EventType};

use crate::{drift::Repair, names, redrive::Order};

/// Marks of pods, writes in their order, then the status, then deletions, then events, then when to look again. A status that says
/// where a rollout goes from here comes before the writes: whoever finds them finds also why.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Plan {
    /// What pods are told by annotations, before some are removed.
    pub marks: Vec<Mark>,
    /// Objects to write, in this order: what pods refer to comes before what makes pods.
    pub writes: Vec<(Object, Repair)>,
    /// The status to write, where it says something new.
    pub status: Option<Status>,
    /// The status comes before the writes.
    pub status_first: bool,
    /// Dead letters to send back, once the status tells of it.
    pub redrive: Option<Order>,
    /// Objects to delete, once the status tells what has taken their place.
    pub deletes: Vec<Doomed>,
    /// What to tell people.
    pub events: Vec<Notice>,
    /// Why things are written or deleted, by kind and name, where more is known than that they differ.
    pub reasons: BTreeMap<(&'static str, String), String>,
    /// Requests of people that are answered: what is done now is done for them.
    pub answers: Vec<String>,
    /// When to look again if nothing happens.
    pub requeue: Duration,
}

/// An annotation of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    pub pod: String,
    pub annotation: &'static str,
    pub value: String,
}

/// An object in the cluster.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Object {
    /// Identity of the pods, without a token.
    ServiceAccount(ServiceAccount),
    /// Whom the pods may talk to.
    NetworkPolicy(NetworkPolicy),
    /// How many pods may be evicted at a time.
    DisruptionBudget(PodDisruptionBudget),
    /// Environment of a revision.
    ConfigMap(ConfigMap),
    /// Pods of a revision.
    Deployment(Box<Deployment>),
}

/// An object to delete, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Doomed {
    /// A revision's pods: they are told to end, finish what they hold and return the rest.
    Deployment(String),
    /// A revision's environment.
    ConfigMap(String),
    /// A pod of a revision that has failed: it ends at once, and what it held is delivered to others.
    PodNow(String),
    /// A pod that would idle in kubelet's back-off: another takes its place at once.
    Pod(String),
}

impl Doomed {
    /// Kind and name.
    pub(crate) fn describe(&self) -> (&'static str, &str) {
        match self {
            Self::Deployment(name) => ("Deployment", name),
            Self::ConfigMap(name) => ("ConfigMap", name),
            Self::PodNow(name) | Self::Pod(name) => ("Pod", name),
        }
    }
}

/// An Event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notice {
    /// Something a person should look at.
    pub warning: bool,
    /// In CamelCase.
    pub reason: String,
    /// What was done, in CamelCase.
    pub action: &'static str,
    /// One line.
    pub note: String,
}

impl From<&Notice> for Event {
    fn from(notice: &Notice) -> Self {
        Self {
            type_: if notice.warning { EventType::Warning } else { EventType::Normal },
            reason: notice.reason.clone(),
            note: Some(notice.note.chars().take(1_000).collect()),
            action: notice.action.to_owned(),
            secondary: None,
        }
    }
}

impl Plan {
    /// Tells why something is written or deleted.
    pub(crate) fn because(&mut self, (kind, name): (&'static str, &str), why: &str) {
        self.reasons.insert((kind, name.to_owned()), why.to_owned());
    }

    /// What was said of it; `usual` if nothing.
    pub(crate) fn why(&self, (kind, name): (&'static str, &str), usual: &str) -> String {
        self.reasons.get(&(kind, name.to_owned())).cloned().unwrap_or_else(|| usual.to_owned())
    }
}

impl Object {
    /// Kind and name, for people.
    pub(crate) fn describe(&self) -> (&'static str, &str) {
        let (kind, name) = match self {
            Self::ServiceAccount(o) => ("ServiceAccount", &o.metadata.name),
            Self::NetworkPolicy(o) => ("NetworkPolicy", &o.metadata.name),
            Self::DisruptionBudget(o) => ("PodDisruptionBudget", &o.metadata.name),
            Self::ConfigMap(o) => ("ConfigMap", &o.metadata.name),
            Self::Deployment(o) => ("Deployment", &o.metadata.name),
        };
        (kind, name.as_deref().unwrap_or_default())
    }

    /// The revision that it is of; `None` where it is of all.
    pub(crate) fn revision(&self) -> Option<&str> {
        let labels = match self {
            Self::ServiceAccount(o) => &o.metadata.labels,
            Self::NetworkPolicy(o) => &o.metadata.labels,
            Self::DisruptionBudget(o) => &o.metadata.labels,
            Self::ConfigMap(o) => &o.metadata.labels,
            Self::Deployment(o) => &o.metadata.labels,
        };
        let labels = labels.as_ref()?;
        [names::REVISION, names::PREVIEW].into_iter().find_map(|label| labels.get(label)).map(String::as_str)
    }
}

/// The objects of a plan as text, for snapshots.
#[cfg(test)]
pub(crate) fn yaml(plan: Plan) -> String {
    let mut text = String::new();
    for (object, _) in plan.writes {
        let part = match object {
            Object::ServiceAccount(o) => serde_saphyr::to_string(&o),
            Object::NetworkPolicy(o) => serde_saphyr::to_string(&o),
            Object::DisruptionBudget(o) => serde_saphyr::to_string(&o),
            Object::ConfigMap(o) => serde_saphyr::to_string(&o),
            Object::Deployment(o) => serde_saphyr::to_string(&o),
        };
        text.push_str("---\n");
        text.push_str(&part.unwrap());
    }
    text
}
