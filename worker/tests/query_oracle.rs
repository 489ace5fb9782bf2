//! An independent, simple implementation (sort everything, compute) agrees with the engine, whatever the cuts and partitions.
//!
//! It shares the parser and the decoder with the engine, and nothing of time, windows or aggregates. `DROVER_ORACLE_SEED` (a number)
//! draws other scenarios than the usual ones; a failure prints the scenario.

mod oracle {
    pub(crate) mod compute;
    pub(crate) mod scenario;
}

use drover_crds::query::parse;
use drover_worker::query::{Decoder, Engine, Ordering, OutputRow, Tolerance, Value, Verdict, format_datetime};
use oracle::{
    compute::{Group, Row, compute},
    scenario::{Scenario, scenario},
};
use proptest::{
    prelude::*,
    test_runner::{RngSeed, TestRunner},
};

/// What the engine gives: rows of the groups, rows of the step after them, and how many events were counted.
#[derive(Debug, PartialEq)]
struct Outcome {
    rows: Vec<(Group, Row)>,
    then: Vec<(i64, i64)>,
    counted: u64,
}

/// Batches of `cut` events, each aggregated by workers of its own whose partials go through their stored form.
fn engine(s: &Scenario, cut: usize) -> Outcome {
    let plan = parse(&s.query()).unwrap_or_else(|e| panic!("{}: {e}", s.query()));
    let decoder = Decoder::new(&plan, None);
    let tolerance =
        Tolerance { policy: s.policy, late: s.late * s.unit.ticks(), out_of_order: s.disorder * s.unit.ticks() };
    let mut orders: Vec<Ordering> = (0..s.partitions).map(|_| Ordering::new(tolerance, i64::MIN)).collect();
    let mut closer = Engine::new(&plan);
    let (mut out, mut errors) = (Vec::new(), Vec::new());
    for (batch, events) in s.events.chunks(cut).enumerate() {
        for (partition, ordering) in orders.iter_mut().enumerate() {
            let mut worker = Engine::new(&plan);
            for (i, e) in events.iter().enumerate().filter(|(_, e)| e.partition % s.partitions == partition) {
                let time = format_datetime(s.ticks(e.time));
                let value = e.value.map_or("null".to_owned(), |v| format!("{v:?}"));
                let json = format!(r#"{{"t":"{time}","k":{},"v":{value}}}"#, e.key);
                let event = decoder.event(json.as_bytes()).unwrap();
                let time = worker.time_of(&event).unwrap().unwrap();
                if let Verdict::OnTime(at) | Verdict::Adjusted(at) =
                    ordering.event(time, Some(s.ticks(e.time + e.delay)))
                {
                    worker.push(&event, at, (batch * cut + i) as u64, &mut out).unwrap();
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
    outcome(s, &out, &orders)
}

fn outcome(s: &Scenario, out: &[OutputRow], orders: &[Ordering]) -> Outcome {
    let units = |row: &OutputRow| (row.time - s.origin).div_euclid(s.unit.ticks());
    let mut rows: Vec<(Group, Row)> = out
        .iter()
        .filter(|r| &*r.output == "rows")
        .map(|r| {
            let id = match r.row.field("id") {
                Value::Text(id) => id.parse().unwrap(),
                _ => 0,
            };
            (Group { window: id, end: units(r), key: integer(&r.row, "k") }, Row::read(&r.row))
        })
        .collect();
    rows.sort_by_key(|r| r.0);
    let mut then: Vec<(i64, i64)> =
        out.iter().filter(|r| &*r.output == "then").map(|r| (units(r), integer(&r.row, "n"))).collect();
    then.sort_unstable();
    let counted = orders.iter().map(|o| {
        let c = o.counters();
        c.on_time + c.adjusted + c.dropped + c.dead_lettered
    });
    Outcome { rows, then, counted: counted.sum() }
}

fn integer(row: &Value, name: &str) -> i64 {
    match row.field(name) {
        Value::BigInt(n) => *n,
        other => panic!("{name} is {other}"),
    }
}

fn agrees(s: &Scenario) -> Result<(), TestCaseError> {
    let cut = engine(s, s.cut);
    prop_assert_eq!(cut.counted, s.events.len() as u64, "the counters add up to the input");
    let whole = engine(s, s.events.len().max(1));
    prop_assert_eq!(format!("{:?}", cut.rows), format!("{:?}", whole.rows), "the cut into batches changes nothing");
    let expected = compute(s);
    let groups = |rows: &[(Group, Row)]| rows.iter().map(|r| r.0).collect::<Vec<_>>();
    prop_assert_eq!(groups(&cut.rows), groups(&expected.rows), "each window and key once: {}", s.query());
    for ((group, row), (_, wanted)) in cut.rows.iter().zip(&expected.rows) {
        prop_assert!(row.same(wanted), "{group:?} of {}: {row:?} is not {wanted:?}", s.query());
    }
    prop_assert_eq!(cut.then, expected.then, "the step after the windows");
    Ok(())
}

fn run(cases: u32) {
    let seed = std::env::var("DROVER_ORACLE_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(7);
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        max_shrink_iters: 4_096,
        ..ProptestConfig::default()
    };
    TestRunner::new(config)
        .run(&scenario(), |s| agrees(&s))
        .unwrap_or_else(|e| panic!("DROVER_ORACLE_SEED={seed}: {e}"));
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
