//! Window keys: a million distinct keys in one window, from a stream to a row each, and the memory of the worker as it ships.
//! Needs the hub and store of the tests. Its last line is JSON.

#![expect(clippy::cast_precision_loss, reason = "rates")]

#[path = "shared/lane.rs"]
mod lane;
#[path = "shared/process.rs"]
mod process;

use lane::{Lane, median, now, wall};

const QUERY: &str = "SELECT deviceId AS device, COUNT(*) AS n FROM input TIMESTAMP BY DATEADD(millisecond, timestamp, '1970-01-01T00:00:00Z') GROUP BY deviceId, TUMBLINGWINDOW(minute, 1)";
const KEYS: i64 = 1_000_000;
const RUNS: usize = 3;
const AIM_MEMORY: f64 = 200.0;

fn event(i: i64, millis: i64) -> Vec<u8> {
    format!(
        r#"{{"deviceId":"device-{i:07}","timestamp":{millis},"type":"telemetry","firmware":"1.4.2-stable","payloads":{{"temp":{}.5,"humidity":{}}}}}"#,
        i % 40,
        i % 100
    )
    .into_bytes()
}

/// Peak memory in MiB, and keys a second from the claim of the partition until all rows are there.
async fn ours(lane: &Lane) -> (f64, f64) {
    lane.forget().await;
    let worker = lane.worker(QUERY);
    lane.await_number("SELECT count(*) FROM @.partition WHERE owner IS NOT NULL", 1).await;
    let start = now();
    lane.await_number("SELECT sum(on_time)::bigint FROM @.partition", KEYS).await;
    // Counting a million rows is work for the store: only once that nothing is open.
    lane.await_number("SELECT (NOT EXISTS (SELECT FROM @.partial))::int::bigint", 1).await;
    let rate = KEYS as f64 / start.elapsed().as_secs_f64();
    assert_eq!(lane.number("SELECT count(*) FROM \"bench-keys\" WHERE n = 1").await, Some(KEYS));
    assert_eq!(lane.number("SELECT count(DISTINCT device) FROM \"bench-keys\"").await, Some(KEYS));
    (worker.peak_memory(), rate)
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let lane = Lane::new("bench-keys", 1).await;
    let at = wall() / 60_000 * 60_000 - 3_600_000;
    lane.publish((0..KEYS).map(|i| (0, at, event(i, at)))).await;
    lane.tick(at + 120_000).await;
    let (mut memory, mut rates) = (Vec::new(), Vec::new());
    for run in 1..=RUNS {
        let (peak, rate) = ours(&lane).await;
        memory.push(peak);
        rates.push(rate);
        eprintln!("run {run}: {peak:.1} MiB, {rate:.0} keys/s");
    }
    lane.close().await;
    let (peak, rate) = (median(memory), median(rates));
    let rows = serde_json::json!([
        { "what": "worker memory with 1,000,000 keys in one window, peak", "floor": null, "peer": null, "ours": peak, "unit": "MiB",
          "aim": "≤ 200 MiB", "met": peak <= AIM_MEMORY },
        { "what": "keys from the stream to rows, all of them there", "floor": null, "peer": null, "ours": rate, "unit": "keys/s",
          "aim": "for comparison", "met": true },
    ]);
    println!("{}", serde_json::json!({ "bench": "window keys", "rows": rows }));
}
