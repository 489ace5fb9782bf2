//! Adds up what both sides of a rollout do, from counters that begin with each process. It decides nothing.
//!
//! Only what was seen counts: what happens while nobody looks, or while facts are missing, is on neither side.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use drover_crds::api::{Evidence, RolloutPhase, RolloutStatus, Tally};

use crate::scaling::Batches;

/// A longer gap between two looks counts as this, in seconds: nobody was there to see.
const GAP: f64 = 10.0;

/// A side of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Of {
    /// The old one.
    Active,
    /// The new one, on copies or on the source.
    New,
}

/// What one worker says; its counters begin with its process.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reading {
    /// Name of its pod.
    pub pod: String,
    /// Its side.
    pub of: Of,
    /// When its process started.
    pub started: u64,
    /// What it has done since.
    pub tally: Tally,
    /// The batches that it has done it in, where it has any.
    pub batches: Option<Batches>,
}

/// What is known at one look.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Knowledge {
    /// When, in seconds of a clock that does not go back.
    pub at: f64,
    /// What the workers of both sides say.
    pub readings: Vec<Reading>,
    /// Hub and store are fine, and the old side works as it should: what happens is the new side's doing.
    pub sound: bool,
    /// The new side consumes, and has said what it does.
    pub heard: bool,
    /// The new side has messages in hand, and works on them.
    pub works: bool,
    /// Restarts of the old side's pods that are there.
    pub active_restarts: i64,
    /// Restarts of the new side's pods that are there.
    pub new_restarts: i64,
}

/// What was added up for one object.
#[derive(Debug, Default)]
struct Ledger {
    phase: Option<(RolloutPhase, String, bool)>,
    at: Option<f64>,
    known: HashMap<(String, Of), Reading>,
    restarts: Option<i64>,
    total: Evidence,
    /// Of the old side and of the new one, since the phase began or the operator started: both in the same time.
    batches: (Batches, Batches),
}

/// Of all objects, by their UID.
#[derive(Debug, Default)]
pub(crate) struct Ledgers(Mutex<HashMap<String, Ledger>>);

impl Ledgers {
    /// Adds one look; gives what both sides have done since the phase began, or `None` where no phase needs it.
    pub(crate) fn take(&self, uid: &str, state: &RolloutStatus, seen: &Knowledge) -> Option<Evidence> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(written) = state.evidence else {
            all.remove(uid);
            return None;
        };
        let ledger = all.entry(uid.to_owned()).or_default();
        ledger.follow(state, written);
        ledger.add(seen);
        Some(ledger.total)
    }

    /// How much longer the new side's batches have taken in this phase than they would at the old side's cost.
    pub(crate) fn pace(&self, uid: &str) -> Option<f64> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (old, new) = &all.get(uid)?.batches;
        new.pace(old)
    }

    /// The object is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

impl Ledger {
    /// A new phase begins with what its status says, and so does an operator.
    fn follow(&mut self, state: &RolloutStatus, written: Evidence) {
        let phase = (state.phase, state.since.clone(), state.scaled_up);
        if self.phase.as_ref() != Some(&phase) {
            self.phase = Some(phase);
            self.total = written;
            self.batches = <(Batches, Batches)>::default();
        }
    }

    fn add(&mut self, seen: &Knowledge) {
        let seconds = self.at.replace(seen.at).map_or(0.0, |before| (seen.at - before).clamp(0.0, GAP));
        let first = self.known.is_empty() && self.restarts.is_none();
        let done = self.total.preview.processed;
        for reading in &seen.readings {
            let key = (reading.pod.clone(), reading.of);
            let now = reading.batches.unwrap_or_default();
            let (grown, batches) = match self.known.get(&key) {
                Some(before) if before.started == reading.started => {
                    (since(reading.tally, before.tally), now.since(&before.batches.unwrap_or_default()))
                }
                // Its past, before anybody looked, is not of this phase; one that has come since began at nothing.
                None if first => <(Tally, Batches)>::default(),
                _ => (reading.tally, now),
            };
            self.known.insert(key, reading.clone());
            if seen.sound {
                let (side, sums) = match reading.of {
                    Of::Active => (&mut self.total.active, &mut self.batches.0),
                    Of::New => (&mut self.total.preview, &mut self.batches.1),
                };
                *side = super::enter::sum(*side, grown);
                sums.add(&batches);
            }
        }
        // Pods of the new side are there for this rollout alone; those that were replaced take their count with them.
        self.total.preview.restarts = self.total.preview.restarts.max(seen.new_restarts);
        let before = self.restarts.replace(seen.active_restarts);
        self.total.active.restarts += before.map_or(0, |before| (seen.active_restarts - before).max(0));
        match (seen.sound, seen.heard) {
            (true, true) => self.total.seconds += seconds,
            (true, false) => self.total.waiting_seconds += seconds,
            (false, _) => {}
        }
        if !seen.works || self.total.preview.processed > done {
            self.total.progress_at_seconds = self.total.seconds;
        }
    }
}

fn since(now: Tally, before: Tally) -> Tally {
    Tally {
        processed: (now.processed - before.processed).max(0),
        failed: (now.failed - before.failed).max(0),
        dead_letters: (now.dead_letters - before.dead_letters).max(0),
        restarts: 0,
        busy_seconds: (now.busy_seconds - before.busy_seconds).max(0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(since: &str) -> RolloutStatus {
        RolloutStatus {
            phase: RolloutPhase::Verifying,
            since: since.to_owned(),
            evidence: Some(Evidence::default()),
            ..RolloutStatus::default()
        }
    }

    fn look(at: f64, of: Of, started: u64, processed: i64) -> Knowledge {
        let tally = Tally { processed, ..Tally::default() };
        Knowledge {
            at,
            readings: vec![Reading { pod: "p".to_owned(), of, started, tally, batches: None }],
            sound: true,
            heard: true,
            ..Knowledge::default()
        }
    }

    #[test]
    fn a_past_life_is_not_counted_and_a_new_process_counts_from_its_start() {
        let ledgers = Ledgers::default();
        let done = |at, started, processed| {
            let found = ledgers.take("u", &state("a"), &look(at, Of::New, started, processed)).unwrap();
            (found.preview.processed, found.seconds)
        };
        assert_eq!(done(1.0, 1, 1_000), (0, 0.0));
        assert_eq!(done(3.0, 1, 1_100), (100, 2.0));
        assert_eq!(done(4.0, 2, 30), (130, 3.0));
        assert_eq!(done(400.0, 2, 30), (130, 13.0), "nobody looked meanwhile");
    }

    #[test]
    fn the_pace_of_both_is_that_of_the_same_time() {
        let ledgers = Ledgers::default();
        // Batches of one, two, … rows, each of which cost 10 ms and so much a row.
        let batches = |rounds: u32, row: f64| {
            let each = |n: u32| {
                let (rows, seconds) = (f64::from(n % 10 + 1), 0.01 + row * f64::from(n % 10 + 1));
                Batches {
                    count: 1.0,
                    rows,
                    seconds,
                    rows_seconds: rows * seconds,
                    rows_squared: rows * rows,
                    full: 200.0,
                    lanes: 2.0,
                }
            };
            let mut sum = Batches::default();
            (0..rounds).for_each(|n| sum.add(&each(n)));
            Some(sum)
        };
        let reading =
            |pod: &str, of, batches| Reading { pod: pod.to_owned(), of, started: 1, tally: Tally::default(), batches };
        let at = |at, old, new| {
            let readings = vec![reading("a", Of::Active, old), reading("b", Of::New, new)];
            let seen = Knowledge { at, readings, sound: true, heard: true, ..Knowledge::default() };
            ledgers.take("u", &state("a"), &seen);
            ledgers.pace("u").map(|pace| format!("{pace:.2}"))
        };
        // What the old one has done before, on an idle node, is not of this time.
        assert_eq!(at(0.0, batches(1_000, 0.001), batches(0, 0.0)), None);
        let mut since = batches(1_000, 0.001);
        if let (Some(sum), Some(more)) = (&mut since, batches(20, 0.004)) {
            sum.add(&more);
        }
        assert_eq!(at(5.0, since, batches(5, 0.008)), None, "too few to tell");
        assert_eq!(at(6.0, since, batches(40, 0.008)).as_deref(), Some("1.69"));
        assert_eq!(ledgers.pace("other"), None);
    }

    #[test]
    fn clocks_stand_still_and_nothing_counts_while_facts_are_missing() {
        let ledgers = Ledgers::default();
        ledgers.take("u", &state("a"), &look(0.0, Of::New, 1, 0));
        let blind = Knowledge { sound: false, ..look(5.0, Of::New, 1, 50) };
        let found = ledgers.take("u", &state("a"), &blind).unwrap();
        assert_eq!((found.seconds, found.waiting_seconds, found.preview.processed), (0.0, 0.0, 0));
        let starts = Knowledge { heard: false, ..look(7.0, Of::New, 1, 60) };
        let found = ledgers.take("u", &state("a"), &starts).unwrap();
        assert_eq!((found.seconds, found.waiting_seconds, found.preview.processed), (0.0, 2.0, 10));
    }

    #[test]
    fn it_is_known_since_when_the_new_side_is_done_with_none_of_what_it_has() {
        let ledgers = Ledgers::default();
        let since = |at, processed, works| {
            let seen = Knowledge { works, ..look(at, Of::New, 1, processed) };
            let found = ledgers.take("u", &state("a"), &seen).unwrap();
            format!("{:.0}", found.seconds - found.progress_at_seconds)
        };
        let all = [since(0.0, 0, true), since(2.0, 5, true), since(4.0, 5, true), since(9.0, 5, true)];
        assert_eq!(all, ["0", "0", "2", "7"]);
        let all = [since(10.0, 6, true), since(12.0, 6, false), since(18.0, 6, false), since(19.0, 6, true)];
        assert_eq!(all, ["0", "0", "0", "1"], "with nothing in hand it cannot be done with anything");
    }

    #[test]
    fn a_new_phase_begins_with_what_its_status_says() {
        let ledgers = Ledgers::default();
        ledgers.take("u", &state("a"), &look(0.0, Of::Active, 1, 0));
        assert_eq!(ledgers.take("u", &state("a"), &look(1.0, Of::Active, 1, 9)).unwrap().active.processed, 9);
        assert_eq!(ledgers.take("u", &state("b"), &look(2.0, Of::Active, 1, 11)).unwrap().active.processed, 2);
        assert_eq!(ledgers.take("u", &RolloutStatus::default(), &Knowledge::default()), None);
    }
}
