//! An independent, simple implementation (sort everything, compute) agrees with the engine, whatever the cuts and partitions.

use std::collections::{BTreeMap, BTreeSet};

use drover_crds::query::{TICKS_PER_SECOND, parse};
use drover_worker::query::{Decoder, Engine, Ordering, OutputRow, Policy, Tolerance, Value, Verdict, format_datetime};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Kind {
    Hopping(i64, i64, i64),
    Sliding(i64),
    Session(i64, i64),
    Snapshot,
}

impl Kind {
    fn sql(&self) -> String {
        match self {
            Self::Hopping(size, hop, offset) => format!("HOPPINGWINDOW(second, {size}, {hop}, {offset})"),
            Self::Sliding(size) => format!("SLIDINGWINDOW(second, {size})"),
            Self::Session(timeout, max) => format!("SESSIONWINDOW(second, {timeout}, {max}) OVER (PARTITION BY k)"),
            Self::Snapshot => "System.Timestamp()".to_owned(),
        }
    }

    /// The windows of one key's sorted times, in seconds: (start, end].
    fn windows(&self, times: &[i64]) -> BTreeSet<(i64, i64)> {
        let mut out = BTreeSet::new();
        match *self {
            Self::Hopping(size, hop, offset) => {
                for t in times {
                    out.extend((*t..*t + size).filter(|e| (e - offset).rem_euclid(hop) == 0).map(|e| (e - size, e)));
                }
            }
            Self::Sliding(size) => out.extend(times.iter().flat_map(|t| [*t, *t + size]).map(|e| (e - size, e))),
            Self::Snapshot => out.extend(times.iter().map(|t| (t - 1, *t))),
            Self::Session(timeout, max) => {
                let mut rest = times;
                while let Some(open) = rest.first().copied() {
                    // Second by second, as the rule is written.
                    let mut last = open;
                    let mut now = open;
                    let end = loop {
                        if now - last > timeout {
                            break last + timeout;
                        }
                        last = rest.iter().copied().filter(|t| *t <= now).max().unwrap_or(last);
                        if now % max == 0 && now - open >= max {
                            break now;
                        }
                        now += 1;
                    };
                    out.insert((open - 1, end));
                    rest = &rest[rest.iter().take_while(|t| **t <= last).count()..];
                }
            }
        }
        out
    }
}

#[derive(Debug, Clone)]
struct Scenario {
    kind: Kind,
    policy: Policy,
    late: i64,
    disorder: i64,
    partitions: usize,
    cut: usize,
    /// Second, key, value, partition, delay.
    events: Vec<(i64, u8, f64, usize, i64)>,
}

/// A float that every JSON decoder reads alike.
fn as_decoded(v: f64) -> f64 {
    // Eighths are exact in decimal and in binary.
    (v * 8.0).round() / 8.0
}

fn scenario() -> impl Strategy<Value = Scenario> {
    let kind = prop_oneof![
        (1_i64..20, 1_i64..20, 0_i64..5).prop_map(|(a, b, o)| Kind::Hopping(a.max(b), a.min(b), o)),
        (1_i64..15).prop_map(Kind::Sliding),
        (1_i64..8, 0_i64..20).prop_map(|(t, m)| Kind::Session(t, t + m)),
        Just(Kind::Snapshot),
    ];
    let policy = prop_oneof![Just(Policy::Adjust), Just(Policy::Drop), Just(Policy::DeadLetter)];
    let event = (
        0_i64..60,
        0_u8..3,
        prop_oneof![Just(0.1), Just(1e16), Just(-1e16), Just(0.3), (-1e3..1e3).prop_map(as_decoded)],
        0_usize..3,
        0_i64..8,
    );
    (kind, policy, 0_i64..6, 0_i64..6, 1_usize..4, 1_usize..6, prop::collection::vec(event, 0..40)).prop_map(
        |(kind, policy, late, disorder, partitions, cut, events)| Scenario {
            kind,
            policy,
            late,
            disorder,
            partitions,
            cut,
            events,
        },
    )
}

type Rows = BTreeMap<(i64, i64), (i64, f64, f64, i64)>;

/// The times that the ordering rules give to the events of one partition.
fn order(s: &Scenario, partition: usize) -> Vec<(i64, u8, f64)> {
    let (mut watermark, mut out) = (i64::MIN, Vec::new());
    for (t, k, v, p, delay) in &s.events {
        if p % s.partitions != partition {
            continue;
        }
        let moved = (*t).max(t + delay - s.late).max(watermark);
        if moved != *t && s.policy != Policy::Adjust {
            continue;
        }
        watermark = watermark.max(moved - s.disorder);
        out.push((moved, *k, *v));
    }
    out
}

fn oracle(s: &Scenario) -> Rows {
    let all: Vec<(i64, u8, f64)> = (0..s.partitions).flat_map(|p| order(s, p)).collect();
    let mut rows = Rows::new();
    for key in 0..3_u8 {
        let mut times: Vec<i64> = all.iter().filter(|e| e.1 == key).map(|e| e.0).collect();
        times.sort_unstable();
        for (start, end) in s.kind.windows(&times) {
            let inside: Vec<f64> =
                all.iter().filter(|e| e.1 == key && start < e.0 && e.0 <= end).map(|e| e.2).collect();
            if inside.is_empty() {
                continue;
            }
            let distinct: BTreeSet<u64> = inside.iter().map(|v| v.to_bits()).collect();
            let greatest = inside.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            rows.insert(
                (end, i64::from(key)),
                (
                    i64::try_from(inside.len()).unwrap(),
                    exact_sum(&inside),
                    greatest,
                    i64::try_from(distinct.len()).unwrap(),
                ),
            );
        }
    }
    rows
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

fn engine(s: &Scenario) -> (Rows, u64) {
    let query = format!(
        "SELECT k, COUNT(*) AS c, SUM(v) AS s, MAX(v) AS m, COUNT(DISTINCT v) AS d FROM input TIMESTAMP BY t GROUP BY k, {}",
        s.kind.sql()
    );
    let plan = parse(&query).unwrap();
    let decoder = Decoder::new(&plan, None);
    let tolerance =
        Tolerance { policy: s.policy, late: s.late * TICKS_PER_SECOND, out_of_order: s.disorder * TICKS_PER_SECOND };
    let mut orders: Vec<Ordering> = (0..s.partitions).map(|_| Ordering::new(tolerance, i64::MIN)).collect();
    let mut closer = Engine::new(&plan);
    let (mut out, mut errors, mut counted) = (Vec::new(), Vec::new(), 0);
    for (batch, events) in s.events.chunks(s.cut).enumerate() {
        // Each batch is aggregated by an engine of its own; its partials go through their stored form.
        for (partition, ordering) in orders.iter_mut().enumerate() {
            let mut worker = Engine::new(&plan);
            for (i, (t, k, v, p, delay)) in events.iter().enumerate() {
                if p % s.partitions != partition {
                    continue;
                }
                let json = format!(r#"{{"t":"{}","k":{k},"v":{v:?}}}"#, format_datetime(t * TICKS_PER_SECOND));
                let event = decoder.event(json.as_bytes()).unwrap();
                let time = worker.time_of(&event).unwrap().unwrap();
                if let Verdict::OnTime(at) | Verdict::Adjusted(at) =
                    ordering.event(time, Some(time + delay * TICKS_PER_SECOND))
                {
                    worker.push(&event, at, (batch * s.cut + i) as u64, &mut out).unwrap();
                }
            }
            for partial in worker.drain() {
                assert!(closer.absorb(&partial));
            }
        }
        let watermark = orders.iter().map(Ordering::watermark).min().unwrap();
        closer.advance(watermark, &mut out, &mut errors);
    }
    closer.finish(&mut out, &mut errors);
    assert_eq!(errors, []);
    for ordering in &orders {
        let c = ordering.counters();
        counted += c.on_time + c.adjusted + c.dropped + c.dead_lettered;
    }
    let count = out.len();
    let rows: Rows = out.iter().map(row).collect();
    assert_eq!(rows.len(), count, "a window and key were emitted twice");
    (rows, counted)
}

#[expect(clippy::cast_precision_loss, reason = "small sums")]
fn row(row: &OutputRow) -> ((i64, i64), (i64, f64, f64, i64)) {
    let integer = |name| match row.row.field(name) {
        Value::BigInt(n) => *n,
        other => panic!("{name} is {other}"),
    };
    let float = |name| match row.row.field(name) {
        Value::Float(f) => *f,
        Value::BigInt(n) => *n as f64,
        other => panic!("{name} is {other}"),
    };
    ((row.time / TICKS_PER_SECOND, integer("k")), (integer("c"), float("s"), float("m"), integer("d")))
}

fn agrees(s: &Scenario) -> Result<(), TestCaseError> {
    let (rows, counted) = engine(s);
    prop_assert_eq!(counted, s.events.len() as u64, "the counters add up to the input");
    prop_assert_eq!(rows, oracle(s));
    Ok(())
}

fn run(cases: u32) {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner.run(&scenario(), |s| agrees(&s)).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn engine_and_oracle_agree_on_100_scenarios() {
    run(100);
}

#[test]
#[ignore = "2,000 scenarios, part of the full tests"]
fn engine_and_oracle_agree_on_2000_scenarios() {
    run(2_000);
}
