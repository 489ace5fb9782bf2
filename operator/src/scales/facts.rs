//! What pods and workers say, as samples have it. Pure.

use std::collections::BTreeSet;

use drover_worker::status::WorkerStatus;
use k8s_openapi::api::core::v1::Pod;

use crate::{
    names,
    scaling::{Batches, Worker},
};

/// Workers are asked this often, in seconds.
const EVERY: f64 = 1.0;

/// What the workers of one object have said, and when they were asked.
#[derive(Debug, Default)]
pub(super) struct Poll {
    asked: Option<f64>,
    under_way: bool,
    answer: Option<(Vec<Worker>, u32)>,
    /// Pods that have answered once: their silence means something.
    heard: BTreeSet<String>,
}

impl Poll {
    /// True if workers are to be asked now; whoever asks must come back with the answer.
    pub(super) fn is_due(&mut self, at: f64) -> bool {
        let due = !self.under_way && self.asked.is_none_or(|asked| at - asked >= EVERY - 0.05);
        if due {
            (self.asked, self.under_way) = (Some(at), true);
        }
        due
    }

    /// The answer of pods that run.
    pub(super) fn answered(&mut self, answers: Vec<(String, Option<WorkerStatus>)>) {
        self.under_way = false;
        let pods: BTreeSet<String> = answers.iter().map(|(pod, _)| pod.clone()).collect();
        self.heard.retain(|pod| pods.contains(pod));
        let mut silent = 0;
        let mut workers = Vec::new();
        for (pod, status) in answers {
            match status {
                Some(status) => {
                    self.heard.insert(pod.clone());
                    workers.push(worker(pod, &status));
                }
                // One that starts has nothing in hand yet.
                None => silent += u32::from(self.heard.contains(&pod)),
            }
        }
        self.answer = Some((workers, silent));
    }

    /// The answer, once.
    pub(super) fn take(&mut self) -> Option<(Vec<Worker>, u32)> {
        self.answer.take()
    }

    /// Nobody runs: there is nothing to ask, and nothing to wait for.
    pub(super) fn nobody(&mut self) -> (Vec<Worker>, u32) {
        self.answer = None;
        self.heard.clear();
        (Vec::new(), 0)
    }
}

fn worker(pod: String, status: &WorkerStatus) -> Worker {
    Worker {
        id: pod,
        revision: status.revision.clone(),
        started: status.started_seconds,
        attached: status.connected && status.consuming && status.holding.is_none(),
        holding: status.holding.is_some(),
        finished: status.processed + status.dead_lettered + status.suspected + status.delayed,
        busy: status.busy_seconds,
        in_flight: status.in_flight,
        held: status.held,
        batches: status.batches.map(Batches::from),
    }
}

/// True if a pod is one of those that read a pipeline's source.
pub(super) fn belongs(pod: &Pod, namespace: &str, pipeline: &str) -> bool {
    let label = |name| pod.metadata.labels.as_ref().and_then(|l| l.get(name)).map(String::as_str);
    pod.metadata.namespace.as_deref() == Some(namespace)
        && label(names::PIPELINE) == Some(pipeline)
        && label(names::SUSPECTS).is_none()
        && label(names::PREVIEW).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(processed: u64) -> WorkerStatus {
        serde_json::from_value(serde_json::json!({
            "revision": "r", "connected": true, "consuming": true, "holding": null, "inFlight": 1, "held": 2,
            "busySeconds": 0.5, "processed": processed, "deadLettered": 1, "startedSeconds": 7,
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_that_starts_is_not_silent_and_one_that_has_answered_before_is() {
        let mut poll = Poll::default();
        assert!(poll.is_due(0.0) && !poll.is_due(5.0), "one question at a time");
        poll.answered(vec![("a".to_owned(), Some(status(3))), ("b".to_owned(), None)]);
        let (workers, silent) = poll.take().unwrap();
        assert_eq!((workers[0].finished, workers[0].unacked(), silent), (4, 3, 0));
        assert!(!poll.is_due(0.5) && poll.is_due(1.0));
        poll.answered(vec![("a".to_owned(), None)]);
        assert_eq!(poll.take().unwrap().1, 1);
        assert_eq!(poll.take(), None);
    }
}
