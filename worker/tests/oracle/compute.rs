//! The simple implementation: order the events of each partition, list the windows, compute each group from its values.

use std::collections::{BTreeMap, BTreeSet};

use drover_worker::query::{Policy, Value};

use super::scenario::{Kind, Scenario};

/// 5 minutes in ticks.
const EARLY: i64 = 3_000_000_000;

/// The place of a row: window of the set, end in units, key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Group {
    pub(crate) window: usize,
    pub(crate) end: i64,
    pub(crate) key: i64,
}

/// The aggregates of a group. Counts, sums and picked values are exact, the others near.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    counts: [i64; 3],
    exact: Vec<Option<f64>>,
    near: Vec<Option<f64>>,
}

impl Row {
    pub(crate) fn read(row: &Value) -> Self {
        let count = |name| match row.field(name) {
            Value::BigInt(n) => *n,
            other => panic!("{name} is {other}"),
        };
        let mut exact: Vec<Option<f64>> = ["s", "lo", "hi", "pd", "pr", "top"].map(|n| number(row.field(n))).to_vec();
        exact.extend(elements(row.field("ct")).iter().map(|e| number(e.field("value"))));
        let mut all: Vec<Option<f64>> = elements(row.field("col")).iter().map(number).collect();
        sort(&mut all);
        exact.extend(all);
        let near = ["a", "var", "varp", "sd", "sdp", "pc"].map(|n| number(row.field(n))).to_vec();
        Self { counts: ["n", "c", "d"].map(count), exact, near }
    }

    pub(crate) fn same(&self, other: &Self) -> bool {
        let near = |a: &Option<f64>, b: &Option<f64>| match (a, b) {
            (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0),
            (a, b) => a == b,
        };
        self.counts == other.counts
            && self.exact == other.exact
            && self.near.iter().zip(&other.near).all(|(a, b)| near(a, b))
    }

    fn of(values: &[Option<f64>]) -> Self {
        let mut known: Vec<f64> = values.iter().copied().flatten().collect();
        known.sort_by(f64::total_cmp);
        let distinct: BTreeSet<u64> = known.iter().map(|v| v.to_bits()).collect();
        let mut ranked = values.to_vec();
        sort(&mut ranked);
        let mut exact = vec![
            (!known.is_empty()).then(|| exact_sum(&known)),
            known.first().copied(),
            known.last().copied(),
            nearest_rank(&known, 0.3),
            nearest_rank(&known.iter().rev().copied().collect::<Vec<_>>(), 0.3),
            // NULL is the smallest value.
            ranked.last().copied().flatten(),
        ];
        exact.extend(ranked.iter().take(3));
        exact.extend(&ranked);
        let size = |n: usize| i64::try_from(n).unwrap();
        Self { counts: [size(values.len()), size(known.len()), size(distinct.len())], exact, near: moments(&known) }
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Null => None,
        Value::Float(f) => Some(*f),
        other => panic!("{other} is no float"),
    }
}

fn elements(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(values) => values.to_vec(),
        other => panic!("{other} is no array"),
    }
}

fn sort(values: &mut [Option<f64>]) {
    values.sort_by(|a, b| a.partial_cmp(b).unwrap());
}

/// The rows of the scenario, and those of the step after: sums of the counts per end.
pub(crate) struct Expected {
    pub(crate) rows: Vec<(Group, Row)>,
    pub(crate) then: Vec<(i64, i64)>,
}

pub(crate) fn compute(s: &Scenario) -> Expected {
    let all: Vec<Accepted> = (0..s.partitions).flat_map(|p| accepted(s, p)).collect();
    let mut rows = BTreeMap::new();
    for (window, kind) in s.kinds.iter().enumerate() {
        for key in 0..3_u8 {
            let shared = matches!(kind, Kind::Session(_, _, false));
            let mut times: Vec<i64> = all.iter().filter(|e| shared || e.key == key).map(|e| e.time).collect();
            times.sort_unstable();
            for (start, end, last) in windows(kind, s.shift(), &times) {
                let inside: Vec<Option<f64>> =
                    all.iter().filter(|e| e.key == key && start < e.time && e.time <= last).map(|e| e.value).collect();
                if i64::try_from(inside.len()).unwrap() >= s.least {
                    rows.insert(Group { window, end, key: i64::from(key) }, Row::of(&inside));
                }
            }
        }
    }
    let mut then: BTreeMap<i64, i64> = BTreeMap::new();
    for (group, row) in &rows {
        let end = (group.end..group.end + s.then).find(|e| (e + s.shift()).rem_euclid(s.then) == 0).unwrap();
        *then.entry(end).or_default() += row.counts[0];
    }
    Expected { rows: rows.into_iter().collect(), then: then.into_iter().collect() }
}

struct Accepted {
    time: i64,
    key: u8,
    value: Option<f64>,
}

/// The events of one partition that count, at the times that the ordering rules give them.
fn accepted(s: &Scenario, partition: usize) -> Vec<Accepted> {
    let (mut watermark, mut out) = (i64::MIN, Vec::new());
    for e in s.events.iter().filter(|e| e.partition % s.partitions == partition) {
        let early = -e.delay * s.unit.ticks() > EARLY;
        let time = e.time.max(e.time + e.delay - s.late).max(watermark);
        if early || (time != e.time && s.policy != Policy::Adjust) {
            continue;
        }
        watermark = watermark.max(time - s.disorder);
        out.push(Accepted { time, key: e.key, value: e.value });
    }
    out
}

/// The windows over sorted times: they hold (start, last] and end at `end`.
fn windows(kind: &Kind, shift: i64, times: &[i64]) -> BTreeSet<(i64, i64, i64)> {
    let mut out = BTreeSet::new();
    match *kind {
        Kind::Hopping(size, hop, offset) => {
            for t in times {
                let ends = (*t..*t + size).filter(|e| (e + shift - offset).rem_euclid(hop) == 0);
                out.extend(ends.map(|e| (e - size, e, e)));
            }
        }
        Kind::Sliding(size) => out.extend(times.iter().flat_map(|t| [*t, *t + size]).map(|e| (e - size, e, e))),
        Kind::Snapshot => out.extend(times.iter().map(|t| (t - 1, *t, *t))),
        Kind::Session(timeout, max, _) => {
            let mut rest = times;
            while let Some(open) = rest.first().copied() {
                let (last, end) = session(open, rest, shift, timeout, max);
                out.insert((open - 1, end, last));
                rest = &rest[rest.iter().take_while(|t| **t <= last).count()..];
            }
        }
    }
    out
}

/// The last event and the end of a session, moment by moment as the rule is written.
fn session(open: i64, times: &[i64], shift: i64, timeout: i64, max: i64) -> (i64, i64) {
    let (mut last, mut now) = (open, open);
    loop {
        if now - last > timeout {
            return (last, last + timeout);
        }
        if times.contains(&now) {
            last = now;
        }
        if (now + shift) % max == 0 && now - open >= max {
            return (last, now);
        }
        now += 1;
    }
}

/// In fixed point of 60 fractional bits, which holds every value of a scenario exactly; rounded once.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "exact in fixed point, then rounded to nearest"
)]
fn exact_sum(values: &[f64]) -> f64 {
    let scale = 2.0_f64.powi(60);
    let sum: i128 = values.iter().map(|v| (v * scale) as i128).sum();
    sum as f64 / scale
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a few values"
)]
fn nearest_rank(sorted: &[f64], p: f64) -> Option<f64> {
    let rank = (p * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

/// AVG, VAR, VARP, STDEV, STDEVP and `PERCENTILE_CONT(0.3)`, by their definitions.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a few values"
)]
fn moments(sorted: &[f64]) -> Vec<Option<f64>> {
    let n = sorted.len() as f64;
    if sorted.is_empty() {
        return vec![None; 6];
    }
    let mean = exact_sum(sorted) / n;
    let squares: Vec<f64> = sorted.iter().map(|v| (v - mean).powi(2)).collect();
    let squares: f64 = squares.iter().sum();
    let sample = (sorted.len() > 1).then(|| squares / (n - 1.0));
    let place = 0.3 * (n - 1.0);
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    vec![
        Some(mean),
        sample,
        Some(squares / n),
        sample.map(f64::sqrt),
        Some((squares / n).sqrt()),
        Some(low + (high - low) * place.fract()),
    ]
}
