//! What the workers have done since they were last asked: differences of counters, whatever restarts.

use std::collections::BTreeMap;

use super::{
    real,
    sample::{Batches, Worker},
};

/// Busy for this share of the time is all of it: looks are not exactly at the same moment.
const BUSY: f64 = 0.9;
/// Batches of this share of the largest are full.
const FILLED: f64 = 0.8;

/// What one worker did between two looks.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Step {
    /// It as it is now.
    pub worker: Worker,
    /// Seconds between the looks.
    pub seconds: f64,
    /// Messages finished.
    pub finished: f64,
    /// Seconds of being busy.
    pub busy: f64,
    /// Batches finished.
    pub batches: Option<Batches>,
    /// Messages waited at both looks, so it could not do more.
    pub saturated: bool,
}

/// Workers as they were last seen.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Flow {
    known: BTreeMap<String, (f64, Worker)>,
    begun: bool,
    waiting: bool,
    /// Messages finished, over all workers that there have been.
    pub finished: f64,
}

impl Flow {
    /// Takes in what workers say; `waiting` is true if messages wait in the queue longer than they should.
    pub(super) fn take(&mut self, at: f64, workers: &[Worker], silent: u32, waiting: bool) -> Vec<Step> {
        let mut steps = Vec::new();
        for worker in workers {
            let known = self.known.get(&worker.id);
            if known.is_some_and(|(t, _)| at <= *t) {
                continue;
            }
            let before = match known {
                Some((t, before)) if before.started == worker.started => Some((*t, before.clone())),
                // A process that has come since the last look began at nothing.
                Some((t, _)) => Some((*t, fresh(worker))),
                None if self.begun => Some((at, fresh(worker))),
                None => None,
            };
            if let Some((t, before)) = before {
                let step = step(&before, worker, at - t, waiting && self.waiting);
                self.finished += step.finished;
                steps.push(step);
            }
            self.known.insert(worker.id.clone(), (at, worker.clone()));
        }
        // One that is silent may come back; with all that answer, those who are not among them are gone.
        if silent == 0 {
            self.known.retain(|id, _| workers.iter().any(|w| &w.id == id));
        }
        self.begun = true;
        self.waiting = waiting;
        steps
    }

    /// Workers as they were last seen.
    pub(super) fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.known.values().map(|(_, w)| w)
    }

    /// Messages that workers have and have not acknowledged.
    pub(super) fn unacked(&self) -> u64 {
        self.workers().fold(0, |sum, w| sum.saturating_add(w.unacked()))
    }

    /// Messages that workers have received and not started.
    pub(super) fn held(&self) -> u64 {
        self.workers().fold(0, |sum, w| sum.saturating_add(w.held))
    }

    /// Consumers that are known to be attached.
    pub(super) fn attached(&self) -> u64 {
        self.workers().map(|w| u64::from(w.attached)).sum()
    }
}

fn fresh(worker: &Worker) -> Worker {
    Worker { id: worker.id.clone(), started: worker.started, ..Worker::default() }
}

fn step(before: &Worker, now: &Worker, seconds: f64, waiting: bool) -> Step {
    let busy = if now.busy.is_finite() { (now.busy - before.busy).clamp(0.0, 3_600.0) } else { 0.0 };
    let batches = now.batches.map(|b| b.since(&before.batches.unwrap_or_default()));
    // A worker that writes whatever there is has always something in hand; full batches tell that it could not keep up.
    let filled = batches.is_none_or(|b| b.rows >= FILLED * b.full * b.count && b.count > 0.0);
    Step {
        worker: now.clone(),
        seconds,
        finished: real(now.finished.saturating_sub(before.finished)),
        busy,
        batches,
        saturated: seconds > 0.0
            && busy >= BUSY * seconds
            && (waiting || (before.held > 0 && now.held > 0 && filled))
            && !(before.holding || now.holding),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(id: &str, started: u64, finished: u64) -> Worker {
        Worker { id: id.to_owned(), started, finished, busy: real(finished) / 100.0, ..Worker::default() }
    }

    #[test]
    fn a_restarted_or_new_process_counts_from_its_start_and_a_past_life_not_at_all() {
        let mut flow = Flow::default();
        assert!(flow.take(0.0, &[worker("a", 1, 1_000)], 0, false).is_empty(), "its past is not ours");
        flow.take(1.0, &[worker("a", 1, 1_100)], 0, false);
        assert!((flow.finished - 100.0).abs() < 1e-9);
        flow.take(2.0, &[worker("a", 2, 30), worker("b", 5, 20)], 0, false);
        assert!((flow.finished - 150.0).abs() < 1e-9);
    }

    #[test]
    fn counters_that_go_back_without_a_new_process_count_nothing() {
        let mut flow = Flow::default();
        flow.take(0.0, &[worker("a", 1, 1_000)], 0, false);
        flow.take(1.0, &[worker("a", 1, 10)], 0, false);
        assert!(flow.finished.abs() < 1e-9);
    }

    #[test]
    fn a_silent_worker_is_remembered_with_what_it_holds() {
        let mut flow = Flow::default();
        let holds = Worker { in_flight: 3, held: 2, ..worker("a", 1, 0) };
        flow.take(0.0, &[holds], 0, false);
        flow.take(1.0, &[], 1, false);
        assert_eq!((flow.unacked(), flow.held()), (5, 2));
        flow.take(2.0, &[], 0, false);
        assert_eq!(flow.unacked(), 0);
    }
}
