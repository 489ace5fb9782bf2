//! What one replica does per second of being busy.
//!
//! Three measures, each with its flaw. *Seen*: finished per busy second; too low while lanes are empty and batches small, which asks
//! for more replicas, which makes batches smaller still. *Fitted*: batches cost a + b·rows, taken at the full batch in all lanes; too
//! high where lanes get in each other's way. *Full*: seen while messages waited, which is the truth, but only then. So: full where it
//! is known, else fitted, and never less than what was seen.

use std::collections::BTreeMap;

use super::{flow::Step, real, sample::Batches};

/// Before this many messages, or…
const MESSAGES: f64 = 100.0;
/// …this many busy seconds, no rate is known.
const BUSY: f64 = 5.0;
/// Busy seconds of each worker that are remembered.
const MEMORY: f64 = 30.0;
/// Messages that make a rate which can be compared with another.
const FIRM: f64 = 20.0;
/// Seconds for which a rate at full load is believed: the sink may have got faster since.
const FULL_LIFE: f64 = 3_600.0;
/// Workers with unfinished work that are remembered at most.
const MOST_OPEN: usize = 10_000;

/// Evidence for a revision's rate.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Rate {
    revision: String,
    seen: Work,
    full: Work,
    full_at: f64,
    batches: Batches,
    open: BTreeMap<String, Work>,
    last: Option<f64>,
}

/// Messages, and the busy seconds that they took.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Work {
    messages: f64,
    busy: f64,
}

impl Work {
    fn add(&mut self, messages: f64, busy: f64) {
        self.messages += messages;
        self.busy += busy;
    }

    fn rate(self) -> Option<f64> {
        (self.messages > 0.0 && self.busy > 0.0).then(|| self.messages / self.busy)
    }

    /// The factor that keeps no more than is to be remembered.
    fn excess(self, busy: f64) -> f64 {
        if self.busy > busy && self.messages > 2.0 * MESSAGES { busy / self.busy } else { 1.0 }
    }

    fn fade(&mut self, factor: f64) {
        self.messages *= factor;
        self.busy *= factor;
    }
}

impl Rate {
    /// Takes in what the workers of a revision did.
    pub(super) fn take(&mut self, at: f64, revision: &str, steps: &[Step]) {
        if revision != self.revision {
            *self = Self { revision: revision.to_owned(), last: self.last, ..Self::default() };
        }
        let own: Vec<&Step> = steps.iter().filter(|s| s.worker.revision == revision && !s.worker.holding).collect();
        for step in &own {
            self.note(at, step);
        }
        self.open.retain(|id, _| steps.iter().any(|s| &s.worker.id == id));
        let memory = MEMORY * real(own.len().max(1) as u64);
        let factor = self.seen.excess(memory);
        self.seen.fade(factor);
        self.batches.fade(factor);
        let factor = self.full.excess(memory);
        self.full.fade(factor);
        if !own.is_empty() {
            self.last = self.measure(at).or(self.last);
        }
    }

    fn note(&mut self, at: f64, step: &Step) {
        if let Some(batches) = &step.batches {
            self.batches.add(batches);
        }
        if step.saturated {
            if at - self.full_at > FULL_LIFE {
                self.full = Work::default();
            }
            self.full.add(step.finished, step.busy);
            self.full_at = at;
        }
        // What is under way counts once it is done: busy seconds without their message would make it look slow.
        if step.finished > 0.0 {
            let open = self.open.remove(&step.worker.id).unwrap_or_default();
            self.seen.add(step.finished, open.busy + step.busy);
        } else if step.worker.in_flight == 0 {
            self.open.remove(&step.worker.id);
        } else if self.open.len() < MOST_OPEN {
            let open = self.open.entry(step.worker.id.clone()).or_default();
            open.busy += step.busy;
            open.messages = real(step.worker.in_flight);
        }
    }

    /// Messages per busy second of one replica; the last one known where nothing has run since.
    pub(super) fn known(&self) -> Option<f64> {
        self.last
    }

    /// It rests on messages that were finished, not on waiting for one.
    pub(super) fn is_firm(&self) -> bool {
        self.seen.messages >= FIRM
    }

    /// Something was finished.
    pub(super) fn is_proven(&self) -> bool {
        self.seen.messages > 0.0
    }

    /// The worker has been busy for long without finishing anything.
    pub(super) fn lasts(&self, worker: &str) -> bool {
        self.open.get(worker).is_some_and(|open| open.busy >= BUSY)
    }

    /// What the first messages tell, too few to size by.
    pub(super) fn impression(&self) -> Option<f64> {
        self.seen.rate()
    }

    /// The same, if it was measured by now.
    fn measure(&self, at: f64) -> Option<f64> {
        let seen = self.seen()?;
        let full = self.full.rate().filter(|_| self.full.messages >= FIRM && at - self.full_at <= FULL_LIFE);
        let best = full.or_else(|| self.batches.full_rate()).unwrap_or(seen).max(seen);
        (best.is_finite() && best > 0.0).then_some(best)
    }

    /// With work that takes longer than the rate so far would have it: all of it could be finished just now, no sooner.
    fn seen(&self) -> Option<f64> {
        let rate = self.seen.rate();
        let mut all = self.seen;
        let mut busy = self.seen.busy;
        for open in self.open.values() {
            busy += open.busy;
            if open.rate().is_some_and(|r| rate.is_none_or(|rate| r < rate)) {
                all.add(open.messages, open.busy);
            }
        }
        all.rate().filter(|_| all.messages >= MESSAGES && self.seen.messages > 0.0 || busy >= BUSY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scaling::sample::Worker;

    fn step(id: &str, finished: f64, busy: f64, in_flight: u64) -> Step {
        let worker = Worker { id: id.to_owned(), in_flight, ..Worker::default() };
        Step { worker, seconds: 1.0, finished, busy, batches: None, saturated: false }
    }

    fn close(rate: Option<f64>, wanted: f64) -> bool {
        rate.is_some_and(|r| (r / wanted - 1.0).abs() < 0.02)
    }

    #[test]
    fn unknown_until_a_hundred_messages_or_five_busy_seconds() {
        let mut rate = Rate::default();
        rate.take(1.0, "", &[step("a", 90.0, 0.9, 0)]);
        assert_eq!(rate.known(), None);
        rate.take(2.0, "", &[step("a", 10.0, 0.1, 0)]);
        assert!(close(rate.known(), 100.0), "{rate:?}");
        let mut slow = Rate::default();
        slow.take(1.0, "", &[step("a", 1.0, 4.9, 0)]);
        assert_eq!(slow.known(), None);
        slow.take(2.0, "", &[step("a", 1.0, 5.1, 0)]);
        assert!(close(slow.known(), 0.2), "{slow:?}");
    }

    #[test]
    fn nothing_finished_in_five_busy_seconds_is_an_upper_bound() {
        let mut rate = Rate::default();
        for second in 0..8 {
            rate.take(f64::from(second), "", &[step("a", 0.0, 1.0, 1)]);
        }
        assert!(close(rate.known(), 1.0 / 8.0), "{rate:?}");
    }

    #[test]
    fn long_messages_under_way_do_not_make_it_look_slower() {
        let mut rate = Rate::default();
        for second in 1..=40 {
            let done = |shift| if (second + shift) % 10 == 0 { 1.0 } else { 0.0 };
            rate.take(f64::from(second), "", &[step("a", done(0), 1.0, 1), step("b", done(3), 1.0, 1)]);
        }
        assert!(close(rate.known(), 0.1) || rate.known().is_some_and(|r| (0.09..0.12).contains(&r)), "{rate:?}");
    }

    #[test]
    fn the_last_known_rate_is_kept_at_zero_and_over_a_new_revision() {
        let mut rate = Rate::default();
        rate.take(
            1.0,
            "one",
            &[Step { worker: Worker { revision: "one".to_owned(), ..Worker::default() }, ..step("", 500.0, 5.0, 0) }],
        );
        rate.take(2.0, "one", &[]);
        rate.take(3.0, "two", &[]);
        assert!(close(rate.known(), 100.0), "{rate:?}");
    }

    /// Batches of a worker that is lightly loaded, whose batch takes 5 ms and 0.1 ms a row.
    fn small_batches() -> Batches {
        let mut sums = Batches { full: 500.0, lanes: 4.0, ..Batches::default() };
        for rows in [1.0, 2.0, 3.0, 2.0, 1.0, 4.0, 2.0, 3.0, 5.0, 1.0] {
            let seconds = 0.005 + 0.000_1 * rows;
            sums.count += 1.0;
            sums.rows += rows;
            sums.seconds += seconds;
            sums.rows_seconds += rows * seconds;
            sums.rows_squared += rows * rows;
        }
        sums
    }

    #[test]
    fn small_batches_tell_the_rate_of_full_ones() {
        let mut rate = Rate::default();
        let batches = Some(small_batches());
        rate.take(1.0, "", &[Step { batches, ..step("a", 120.0, 0.5, 0) }]);
        assert!(close(rate.known(), 4.0 * 500.0 / 0.055), "{rate:?}");
    }

    #[test]
    fn what_was_seen_at_full_load_beats_the_fit() {
        let mut rate = Rate::default();
        let batches = Some(small_batches());
        rate.take(1.0, "", &[Step { batches, saturated: true, ..step("a", 3_000.0, 1.0, 0) }]);
        assert!(close(rate.known(), 3_000.0), "{rate:?}");
    }

    #[test]
    fn batches_that_are_all_alike_tell_no_more_than_what_was_seen() {
        let alike = Batches {
            count: 100.0,
            rows: 100.0,
            seconds: 0.5,
            rows_seconds: 0.5,
            rows_squared: 100.0,
            full: 500.0,
            lanes: 4.0,
        };
        assert_eq!(alike.full_rate(), None);
    }
}
