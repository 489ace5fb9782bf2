//! Our rule: the operator's decision as it is.

use drover_operator::scaling::{Depth, Policy, Sample, State, Worker, decide};

use super::simulation::{MOST, Rule, Seen};

/// The operator's decision as it is.
#[derive(Debug)]
pub(crate) struct Drover {
    policy: Policy,
    state: State,
    asked: f64,
}

impl Default for Drover {
    fn default() -> Self {
        let policy = Policy { min: 0, max: MOST, target_utilization: 0.8, catch_up: 60.0, cooldown: 60.0, fallback: 1 };
        Self { policy, state: State::default(), asked: f64::NEG_INFINITY }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts of a simulation")]
impl Rule for Drover {
    fn replicas(&mut self, seen: &Seen<'_>) -> u32 {
        // The queue five times a second, the workers once.
        let ask = seen.pods.is_empty() || seen.at - self.asked >= 0.99;
        if ask {
            self.asked = seen.at;
        }
        let workers = seen.pods.iter().map(|pod| Worker {
            id: pod.number.to_string(),
            started: pod.number,
            attached: true,
            finished: pod.finished as u64,
            busy: pod.busy,
            held: u64::from(seen.ready > 0.0),
            ..Worker::default()
        });
        let sample = Sample {
            at: seen.at,
            depth: Some(Depth { ready: seen.ready as u64, consumers: seen.pods.len() as u64 }),
            replicas: seen.replicas,
            revision: String::new(),
            workers: ask.then(|| workers.collect()),
            silent: 0,
        };
        let decision;
        (self.state, decision) = decide(&self.policy, std::mem::take(&mut self.state), &sample);
        decision.desired
    }
}
