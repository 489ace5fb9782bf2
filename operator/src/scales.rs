//! Samples hubs and workers, decides, and wakes the reconcile whose decision has changed. It writes nothing: the reconcile is the one
//! place that does.
//!
//! One task for each hub. Every 200 ms it looks at the next hundred queues, so that a hub answers at most 500 a second, shared fairly.

mod facts;
mod hub_task;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use k8s_openapi::api::core::v1::Pod;
use kube_runtime::reflector::{ObjectRef, Store};

use crate::{
    context::{Guarded, now},
    hub::Hub,
    metrics::{Metrics, ObjectLabels},
    scaling::{Decision, Policy, State},
    workers::Workers,
};

/// What is to be sampled, as the last reconcile has found it.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    /// The object.
    pub labels: ObjectLabels,
    /// Its queue.
    pub queue: String,
    /// Bounds and aims.
    pub policy: Policy,
    /// Replicas that are asked for.
    pub replicas: u32,
    /// The revision whose rate counts.
    pub revision: String,
    /// The pods of the cluster.
    pub pods: Store<Pod>,
}

/// What is sampled, and what was decided.
#[derive(Debug)]
struct Entry {
    subject: Subject,
    /// Name of the hub whose task looks after it.
    hub: String,
    state: State,
    decision: Option<Decision>,
    /// A change was told to the reconcile, which has not taken it yet.
    pressing: bool,
    poll: facts::Poll,
    /// When it was sampled last.
    at: Option<f64>,
    /// Pods that run.
    running: u32,
}

/// All that is sampled.
#[derive(Debug)]
pub struct Scales {
    entries: Mutex<HashMap<String, Entry>>,
    wake: Mutex<Vec<UnboundedSender<ObjectRef<Guarded>>>>,
    workers: Workers,
    metrics: Metrics,
    /// Samples count their seconds from here.
    start: Instant,
}

impl Scales {
    /// Nothing is sampled yet.
    #[must_use]
    pub fn new(workers: Workers, metrics: Metrics) -> Self {
        Self { entries: Mutex::default(), wake: Mutex::default(), workers, metrics, start: now().1 }
    }

    /// Seconds of a clock that does not go back.
    pub(crate) fn seconds(&self, now: Instant) -> f64 {
        now.duration_since(self.start).as_secs_f64()
    }

    /// Objects whose decision has changed.
    pub fn changes(&self) -> UnboundedReceiver<ObjectRef<Guarded>> {
        let (sender, receiver) = unbounded();
        self.wake.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        receiver
    }

    /// Samples an object from now on, or goes on with it; gives what was decided last.
    pub(crate) fn watch(self: &Arc<Self>, uid: &str, subject: Subject, hub: &Arc<Hub>) -> Option<Decision> {
        let mut entries = self.lock();
        let name = hub.name().to_owned();
        let known = entries.get_mut(uid).map(|entry| {
            entry.subject = subject.clone();
            entry.pressing = false;
            entry.hub.clone_from(&name);
            entry.decision
        });
        let decision = known.unwrap_or_else(|| {
            entries.insert(uid.to_owned(), Entry::new(subject, name));
            None
        });
        drop(entries);
        hub_task::start(self, hub);
        decision
    }

    /// What was decided last, if the object is sampled.
    pub(crate) fn decision(&self, uid: &str) -> Option<Decision> {
        self.lock().get(uid)?.decision
    }

    /// A change was decided, and no reconcile has taken it: it must not wait for what can wait.
    pub(crate) fn is_pressing(&self, uid: &str) -> bool {
        self.lock().get(uid).is_some_and(|e| e.pressing)
    }

    /// The object is gone, or is not to be sampled.
    pub(crate) fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// Wakes the reconcile of an object.
    pub(crate) fn tell(&self, labels: &ObjectLabels) {
        let object = ObjectRef::<Guarded>::new(&labels.name).within(&labels.namespace);
        let mut wake = self.wake.lock().unwrap_or_else(PoisonError::into_inner);
        // One that has ended with its scope is not told.
        wake.retain(|sender| sender.unbounded_send(object.clone()).is_ok());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn new(subject: Subject, hub: String) -> Self {
        Self {
            subject,
            hub,
            state: State::default(),
            decision: None,
            pressing: false,
            poll: facts::Poll::default(),
            at: None,
            running: 0,
        }
    }
}
