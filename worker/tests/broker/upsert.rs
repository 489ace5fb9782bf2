//! Rows that are replaced by newer ones.

use std::{collections::HashMap, fmt::Write as _};

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

use crate::surroundings::Lane;

const UPSERT: &str = r#"{"postgres":{"table":"TABLE","mode":"Upsert","key":["deviceId"],"orderBy":"ts"}}"#;
const COLUMNS: &str = "deviceid text PRIMARY KEY, ts timestamptz, v int, note text, seen int DEFAULT 0";

#[tokio::test(flavor = "multi_thread")]
async fn shuffled_doubled_and_redelivered_input_ends_with_the_newest_row_of_each_key() {
    let lane = Lane::new("upsert-newest").await;
    lane.table(COLUMNS).await;
    let mut runner = TestRunner::default();
    let reading = (0..40_u32, 0..500_i64, any::<bool>());
    let readings = proptest::collection::vec(reading, 1500).new_tree(&mut runner).unwrap().current();
    let mut newest: HashMap<u32, i64> = HashMap::new();
    let mut bodies = Vec::new();
    for (device, ts, twice) in readings {
        let max = newest.entry(device).or_insert(ts);
        *max = (*max).max(ts);
        // The value follows from key and time, so that a tie leaves no doubt.
        let millis = ts * 1000;
        let body = format!("{{\"deviceId\":\"d{device}\",\"ts\":{millis},\"v\":{}}}", ts * 100 + i64::from(device));
        bodies.extend(std::iter::repeat_n(body, if twice { 2 } else { 1 }));
    }
    let bodies = Just(bodies).prop_shuffle().new_tree(&mut runner).unwrap().current();
    lane.publish(bodies.iter().enumerate().map(|(n, body)| (n.to_string(), body.as_bytes()))).await;
    // A connection that is cut midway makes the rest redelivered.
    let worker = lane.worker(UPSERT, &[("DROVER_SOURCE_PREFETCH", "20"), ("DROVER_CONCURRENCY", "2")]).await;
    crate::surroundings::eventually("a connection to cut", || async { lane.cut().await.then_some(()) }).await;
    let mut wanted: Vec<(u32, i64)> = newest.into_iter().collect();
    wanted.sort_unstable();
    let mut text = String::new();
    for (device, ts) in wanted {
        write!(text, "d{device}={}/{} ", ts, ts * 100 + i64::from(device)).unwrap();
    }
    let rows = "SELECT string_agg(deviceid || '=' || extract(epoch FROM ts)::bigint || '/' || v, ' '
        ORDER BY substr(deviceid, 2)::int) FROM \"upsert-newest\"";
    crate::surroundings::eventually("the newest row of each key", || async {
        let status = worker.status().await;
        let idle = lane.ready(&lane.name).await == 0 && status.in_flight + status.held == 0;
        (idle && lane.ask(rows).await == text.trim_end()).then_some(())
    })
    .await;
    worker.stop().await;
    assert_eq!((lane.ready(&lane.name).await, lane.ready(&lane.dead()).await), (0, 0));
    assert_eq!(lane.ask(rows).await, text.trim_end());
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_replaced_as_a_whole_and_only_by_a_newer_or_equal_one() {
    let lane = Lane::new("upsert-whole").await;
    lane.table(COLUMNS).await;
    lane.sql("INSERT INTO \"upsert-whole\" VALUES ('a', 'epoch', 1, 'old', 9), ('b', '2030-01-01', 1, 'newer', 9)")
        .await;
    let bodies = [
        r#"{"deviceId":"a","ts":"2026-01-01T00:00:00","v":2}"#,
        r#"{"deviceId":"b","ts":"2026-01-01T00:00:00Z","v":2}"#,
        r#"{"deviceId":"c","ts":0,"v":1}"#,
        r#"{"deviceId":"c","ts":0,"v":2}"#,
    ];
    lane.publish(bodies.iter().enumerate().map(|(n, body)| (n.to_string(), body.as_bytes()))).await;
    let worker = lane.worker(UPSERT, &[("DROVER_CONCURRENCY", "1")]).await;
    worker.await_done(4).await;
    let rows = lane
        .ask(
            "SELECT string_agg(concat_ws('|', deviceid, ts AT TIME ZONE 'UTC', v, coalesce(note, '-'), seen), E'\n' ORDER BY deviceid)
             FROM \"upsert-whole\"",
        )
        .await;
    assert_eq!(rows, "a|2026-01-01 00:00:00|2|-|9\nb|2030-01-01 00:00:00|1|newer|9\nc|1970-01-01 00:00:00|2|-|0");
    worker.stop().await;
    lane.close().await;
}
