//! Events for the tests that compare with the offline computation, and that comparison.

use std::collections::BTreeMap;

use lapin::message::Delivery;
use serde_json::{Value, json};

use crate::{
    offline,
    surroundings::{Lane, Sent, eventually},
};

/// Tumbling, hopping, sessions and a step after a step, over keys and floats.
pub(crate) const QUERY: &str = "WITH e AS (SELECT k, v FROM input TIMESTAMP BY DATEADD(millisecond, t, '1970-01-01T00:00:00Z')),
    s AS (SELECT k, COUNT(*) AS c, SUM(v) AS v FROM e GROUP BY k, TUMBLINGWINDOW(second, 2))
    SELECT 'tumbling' AS kind, k, System.Timestamp() AS w, c AS c, v AS v INTO out FROM s
    SELECT 'total' AS kind, NULL AS k, System.Timestamp() AS w, SUM(c) AS c, SUM(v) AS v INTO out FROM s GROUP BY TUMBLINGWINDOW(second, 10)
    SELECT 'hopping' AS kind, k, System.Timestamp() AS w, COUNT(*) AS c, AVG(v) AS v INTO out FROM e GROUP BY k, HOPPINGWINDOW(second, 6, 2)
    SELECT 'session' AS kind, k, System.Timestamp() AS w, COUNT(*) AS c, CAST(MAX(v) AS float) AS v INTO out FROM e GROUP BY k, SESSIONWINDOW(second, 1, 20) OVER (PARTITION BY k)";

/// A small generator, the same for the same seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// Events from a moment on, so many a second, over so many partitions: 3 % of them late.
pub(crate) fn events(random: &mut Random, from: i64, n: u64, per_second: u64, partitions: i32) -> Vec<Sent> {
    let event = |i: u64, random: &mut Random| {
        let arrival = from + (i * 1_000 / per_second).cast_signed();
        let delay = if random.below(100) < 3 { 5_000 + random.below(4_000) } else { random.below(50) };
        let body = json!({
            "t": arrival - delay.cast_signed(),
            "k": format!("k{}", random.below(13)),
            "v": f64::from(u32::try_from(random.below(1_000)).unwrap()) * 0.1,
        });
        let partition = i32::try_from(random.below(partitions.unsigned_abs().into())).unwrap();
        Sent::new(partition, &body, arrival)
    };
    (0..n).map(|i| event(i, random)).collect()
}

/// Rows as they are compared: by all their values, each so many times.
fn counted<'a>(rows: impl Iterator<Item = &'a Value>) -> BTreeMap<String, usize> {
    let mut counted = BTreeMap::new();
    for row in rows {
        let number = |name: &str| row[name].as_f64().map(|f| format!("{f:.6}"));
        let w = drover_worker::query::parse_datetime(row["w"].as_str().unwrap_or_default());
        let key = format!("{} {} {w:?} {:?} {:?}", row["kind"], row["k"], number("c"), number("v"));
        *counted.entry(key).or_default() += 1;
    }
    counted
}

/// Waits until everything is closed up to a tick, and compares the table with the offline computation of the same streams.
pub(crate) async fn assert_exact(lane: &Lane, query: &str, more: &[(&str, &str)], final_tick: i64) {
    assert_exact_with(lane, query, more, final_tick, BTreeMap::new()).await;
}

/// As [`assert_exact`], with what partitions were read of before their streams were declared anew.
pub(crate) async fn assert_exact_with(
    lane: &Lane,
    query: &str,
    more: &[(&str, &str)],
    final_tick: i64,
    mut gone: BTreeMap<i32, Vec<Delivery>>,
) {
    lane.tick(final_tick).await;
    let closed = format!(
        "SELECT COALESCE(bool_and(c.upto >= {watermark}), false) FROM @.close c",
        watermark = (final_tick - 5_000) * 10_000
    );
    eventually("everything is closed", || async {
        let there = lane.ask(&format!("to_regclass('\"{}\".close') IS NOT NULL", lane.schema())).await;
        (there == "true" && lane.ask(&closed).await == "true").then_some(())
    })
    .await;
    let settings = lane.settings(query, more);
    let mut streams = Vec::new();
    for part in 0..lane.partitions {
        let mut read = gone.remove(&part).unwrap_or_default();
        read.extend(lane.read_until(part, final_tick).await);
        streams.push(read);
    }
    let expected: Vec<Value> =
        offline::compute(&settings, &streams).iter().map(|row| serde_json::to_value(row).unwrap()).collect();
    let found = lane.rows().await;
    let (found, expected) = (counted(found.iter()), counted(expected.iter()));
    let missing: Vec<_> = expected.iter().filter(|(row, n)| found.get(*row) != Some(*n)).take(5).collect();
    let more: Vec<_> = found.iter().filter(|(row, n)| expected.get(*row) != Some(*n)).take(5).collect();
    assert!(missing.is_empty() && more.is_empty(), "missing {missing:#?}, too many {more:#?}");
    assert!(!expected.is_empty());
}
