//! The task of one hub: looks at its queues in turn, and decides. It ends when the hub has none left.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::MissedTickBehavior;

use super::{Entry, Scales, facts};
use crate::{
    context::now,
    hub::{Depths, Hub},
    scaling::{Depth, Reason, Sample, decide},
    workers::reachable,
};

/// Time between looks.
const TICK: Duration = Duration::from_millis(200);
/// Queues of one look: 500 a second in all.
const AT_ONCE: usize = 100;

/// Starts the task, unless it runs.
pub(super) fn start(scales: &Arc<Scales>, hub: &Arc<Hub>) {
    if hub.take_task() {
        tokio::spawn(run(Arc::downgrade(scales), Arc::clone(hub)));
    }
}

async fn run(scales: Weak<Scales>, hub: Arc<Hub>) {
    let mut depths = Depths::new(Arc::clone(&hub));
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = String::new();
    loop {
        ticks.tick().await;
        let Some(scales) = scales.upgrade() else { return };
        let Some(turn) = scales.turn(hub.name(), &last) else {
            hub.task_ended();
            return;
        };
        let queues: Vec<String> = turn.iter().map(|(_, queue)| queue.clone()).collect();
        let found = depths.read(&queues).await;
        let at = now().1.duration_since(scales.start).as_secs_f64();
        for ((uid, _), depth) in turn.iter().zip(found) {
            scales.sample(uid, at, depth);
        }
        last = turn.last().map(|(uid, _)| uid.clone()).unwrap_or_default();
    }
}

impl Scales {
    /// The next queues of a hub after `last`, in a fixed order and round again; `None` if it has none.
    fn turn(&self, hub: &str, last: &str) -> Option<Vec<(String, String)>> {
        let entries = self.lock();
        let mut own: Vec<_> = entries
            .iter()
            .filter(|(_, e)| e.hub == hub)
            .map(|(uid, e)| (uid.clone(), e.subject.queue.clone()))
            .collect();
        own.sort();
        let from = if own.len() > AT_ONCE { own.partition_point(|(uid, _)| uid.as_str() <= last) } else { 0 };
        own.rotate_left(from);
        own.truncate(AT_ONCE);
        (!own.is_empty()).then_some(own)
    }

    /// One more sample of an object: a decision, and who must know of it.
    fn sample(self: &Arc<Self>, uid: &str, at: f64, depth: Option<Depth>) {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(uid) else { return };
        let since = entry.at.replace(at).map_or(0.0, |before| (at - before).max(0.0));
        let (changed, pods) = entry.sample(at, depth);
        let pod_seconds = since * f64::from(entry.running);
        let labels = entry.subject.labels.clone();
        if let Some(decision) = &entry.decision {
            self.metrics.scale.seen(&labels, &decision.numbers, decision.sink_limited);
            self.metrics.scale.ran(&labels, pod_seconds);
        }
        drop(entries);
        if changed {
            self.tell(&labels);
        }
        if let Some(pods) = pods {
            let (scales, uid) = (Arc::clone(self), uid.to_owned());
            tokio::spawn(async move {
                let answers = scales.workers.ask(pods).await;
                if let Some(entry) = scales.lock().get_mut(&uid) {
                    entry.poll.answered(answers);
                }
            });
        }
    }
}

impl Entry {
    /// Decides; whether that is something new, and whom to ask before the next time.
    fn sample(&mut self, at: f64, depth: Option<Depth>) -> (bool, Option<Vec<(String, String)>>) {
        let subject = &self.subject;
        let labels = &subject.labels;
        let pods = subject.pods.state_filter(|p| facts::belongs(p, &labels.namespace, &labels.name));
        let pods: Vec<_> = pods.iter().filter_map(|p| reachable(p)).collect();
        self.running = u32::try_from(pods.len()).unwrap_or(u32::MAX);
        let answer = if pods.is_empty() { Some(self.poll.nobody()) } else { self.poll.take() };
        let silent = answer.as_ref().map_or(0, |(_, silent)| *silent);
        let sample = Sample {
            at,
            depth,
            replicas: subject.replicas,
            revision: subject.revision.clone(),
            workers: answer.map(|(workers, _)| workers),
            silent,
        };
        let decision;
        (self.state, decision) = decide(&subject.policy, std::mem::take(&mut self.state), &sample);
        let told = |d: &crate::scaling::Decision| (d.desired, d.sink_limited, d.reason == Reason::HubUnreadable);
        let changed = self.decision.as_ref().map(told) != Some(told(&decision));
        self.pressing |= changed;
        self.decision = Some(decision);
        let due = !pods.is_empty() && self.poll.is_due(at);
        (changed, due.then_some(pods))
    }
}
