//! Properties over random histories.

use std::collections::HashSet;

use proptest::prelude::*;

use super::claims::policy;
use crate::scaling::{Batches, Decision, Depth, Policy, Sample, State, Worker, decide, real};

fn count() -> impl Strategy<Value = u64> {
    prop_oneof![4 => Just(0), 4 => 0..2_000_u64, 1 => any::<u64>()]
}

fn seconds() -> impl Strategy<Value = f64> {
    prop_oneof![8 => 0.0..500.0_f64, 1 => Just(f64::NAN), 1 => -1e9..1e300_f64, 1 => Just(f64::INFINITY)]
}

fn batches() -> impl Strategy<Value = Option<Batches>> {
    let sums = prop::array::uniform7(prop_oneof![4 => 0.0..1e4_f64, 1 => Just(f64::NAN), 1 => -1e9..1e300_f64]);
    prop::option::of(sums.prop_map(|[count, rows, seconds, rows_seconds, rows_squared, full, lanes]| Batches {
        count,
        rows,
        seconds,
        rows_seconds,
        rows_squared,
        full,
        lanes,
    }))
}

fn worker() -> impl Strategy<Value = Worker> {
    let flags = (any::<bool>(), prop::bool::weighted(0.1));
    (0..5_u8, 0..3_u64, flags, count(), seconds(), count(), count(), batches()).prop_map(
        |(id, started, (attached, holding), finished, busy, in_flight, held, batches)| Worker {
            id: id.to_string(),
            revision: if id == 4 { "old".to_owned() } else { String::new() },
            started,
            attached,
            holding,
            finished,
            busy,
            in_flight,
            held,
            batches,
        },
    )
}

/// Missing, stale, huge and contradictory facts, 0/0 answers, counters that go back, clocks that do.
fn sample() -> impl Strategy<Value = Sample> {
    let at = prop_oneof![8 => 0.1..3.0_f64, 1 => 3.0..200.0_f64, 1 => -5.0..0.0_f64, 1 => Just(f64::NAN)];
    let depth = prop_oneof![
        1 => Just(None),
        1 => Just(Some(Depth { ready: 0, consumers: 0 })),
        4 => (count(), 0..6_u64).prop_map(|(ready, consumers)| Some(Depth { ready, consumers })),
    ];
    let workers = prop::option::weighted(0.8, prop::collection::vec(worker(), 0..5));
    (at, depth, 0..30_u32, workers, prop_oneof![3 => Just(0_u32), 1 => 0..4_u32]).prop_map(
        |(at, depth, replicas, mut workers, silent)| {
            // A pod answers once in a sample.
            let mut known = HashSet::new();
            if let Some(workers) = &mut workers {
                workers.retain(|w| known.insert(w.id.clone()));
            }
            Sample { at, depth, replicas, revision: String::new(), workers, silent }
        },
    )
}

fn policies() -> impl Strategy<Value = Policy> {
    (0..4_u32, 0..20_u32, 0.1..1.0_f64, 1.0..600.0_f64, 0.0..600.0_f64, 0..5_u32).prop_map(
        |(min, more, target_utilization, catch_up, cooldown, fallback)| Policy {
            min,
            max: (min + more).max(1),
            target_utilization,
            catch_up,
            cooldown,
            fallback,
        },
    )
}

fn unacked(sample: &Sample) -> bool {
    sample.workers.iter().flatten().any(|w| w.in_flight > 0 || w.held > 0)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_seen_replicas_stay_in_bounds_and_work_is_never_left_alone(
        policy in policies(),
        samples in prop::collection::vec(sample(), 1..80),
    ) {
        let mut state = State::default();
        let (mut at, mut latest) = (0.0_f64, f64::NEG_INFINITY);
        let mut before: Option<u32> = None;
        for mut sample in samples {
            at += if sample.at.is_nan() { 0.0 } else { sample.at };
            sample.at = if sample.at.is_nan() { f64::NAN } else { at };
            let current = before.unwrap_or(sample.replicas);
            let decision;
            (state, decision) = decide(&policy, state, &sample);
            prop_assert!((policy.min..=policy.max).contains(&decision.desired), "{:?}", decision);
            let drops = current > 0 && decision.desired == 0;
            let known = sample.at.is_finite() && sample.at >= latest;
            latest = latest.max(if known { sample.at } else { latest });
            let work = sample.depth.is_some_and(|d| d.ready > 0) || unacked(&sample);
            let unknown = sample.depth.is_none() || sample.workers.is_none() || sample.silent > 0;
            prop_assert!(!drops || !(work || unknown), "to zero: {:?} {:?}", sample, decision);
            let waits = known && sample.depth.is_some_and(|d| d.ready > 0);
            prop_assert!(!waits || decision.desired > 0, "messages wait: {:?}", decision);
            before = Some(decision.desired);
        }
    }

    #[test]
    fn the_same_history_gives_the_same_decision(samples in prop::collection::vec(sample(), 1..30)) {
        let run = || samples.iter().fold((State::default(), Decision::default()), |(state, _), s| decide(&policy(), state, s));
        prop_assert_eq!(format!("{:?}", run().1), format!("{:?}", run().1));
    }

}

proptest! {
    // Each case is half an hour.
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn constant_load_settles(load in 1.0..3_000.0_f64, rate in 5.0..400.0_f64) {
        let last = settled(load, |_| rate, None);
        let ideal = (load / 0.8 / rate).ceil().clamp(1.0, 20.0);
        let desired = f64::from(last.desired);
        prop_assert!((ideal - 1.0..=(ideal * 1.15).ceil() + 1.0).contains(&desired), "{desired} for {ideal}");
    }

    /// A batch costs a + b·rows in each of four lanes; with little load batches are small and a replica looks slow.
    #[test]
    fn constant_load_settles_with_batches_too(load in 1.0..20_000.0_f64, base in 0.000_5..0.05_f64, row in 0.000_01..0.001_f64) {
        let sink = Sink { base, row, full: 500.0, lanes: 4.0 };
        let last = settled(load, |share| sink.rate(share), Some(sink));
        let ideal = (load / 0.8 / sink.most()).ceil().clamp(1.0, 20.0);
        let desired = f64::from(last.desired);
        prop_assert!((ideal - 1.0..=(ideal * 1.3).ceil() + 1.0).contains(&desired), "{desired} for {ideal}: {:?}", last);
    }
}

#[derive(Debug, Clone, Copy)]
struct Sink {
    base: f64,
    row: f64,
    full: f64,
    lanes: f64,
}

impl Sink {
    fn most(&self) -> f64 {
        self.lanes * self.full / (self.base + self.row * self.full)
    }

    /// Rows in a batch when `share` rows a second arrive: what has come while one lane was busy.
    fn rows(&self, share: f64) -> f64 {
        let left = 1.0 - share * self.row / self.lanes;
        if left <= 0.0 { self.full } else { (share * self.base / self.lanes / left).clamp(1.0, self.full) }
    }

    fn rate(&self, share: f64) -> f64 {
        let rows = self.rows(share);
        self.lanes * rows / (self.base + self.row * rows)
    }
}

/// Runs half an hour of constant load; the second half must not see a change.
fn settled(load: f64, rate: impl Fn(f64) -> f64, sink: Option<Sink>) -> Decision {
    let (mut state, mut last) = (State::default(), Decision::default());
    let (mut ready, mut changes) = (0.0_f64, 0);
    let mut workers: Vec<Worker> = Vec::new();
    let mut finished: Vec<f64> = Vec::new();
    for second in 1..=1_800_u32 {
        let count = real(workers.len() as u64).max(1.0);
        ready += load;
        let share = ready / count;
        let most = rate(share);
        let done = ready.min(most * real(workers.len() as u64)) / count;
        ready -= done * real(workers.len() as u64);
        for (w, total) in workers.iter_mut().zip(&mut finished) {
            *total += done;
            w.finished = *total as u64;
            w.busy += done / most;
            w.held = u64::from(ready >= count);
            if let (Some(sink), Some(sums)) = (sink, w.batches.as_mut()) {
                // Half of the batches are smaller, half larger than the mean.
                for rows in [0.5, 1.5].map(|f| (sink.rows(share) * f).clamp(1.0, sink.full)) {
                    let (n, cost) = (done / 2.0 / rows, sink.base + sink.row * rows);
                    sums.count += n;
                    sums.rows += n * rows;
                    sums.seconds += n * cost;
                    sums.rows_seconds += n * rows * cost;
                    sums.rows_squared += n * rows * rows;
                }
            }
        }
        let sample = Sample {
            at: f64::from(second),
            depth: Some(Depth { ready: ready as u64, consumers: workers.len() as u64 }),
            replicas: last.desired,
            workers: Some(workers.clone()),
            ..Sample::default()
        };
        let before = last.desired;
        (state, last) = decide(&policy(), state, &sample);
        changes += u32::from(second > 900 && before != last.desired);
        workers.truncate(last.desired as usize);
        finished.truncate(last.desired as usize);
        while workers.len() < last.desired as usize {
            let id = format!("w{}", workers.len());
            let batches = sink.map(|s| Batches { full: s.full, lanes: s.lanes, ..Batches::default() });
            workers.push(Worker { id, started: second.into(), attached: true, batches, ..Worker::default() });
            finished.push(0.0);
        }
    }
    assert_eq!(changes, 0, "flaps at {load}: {last:?}");
    last
}
