//! Stream to row: the reference query over events of about 190 bytes, from a stream to rows in PostgreSQL, by the worker as it ships,
//! beside a bare reader of the same stream; and how long after a window's end its rows are there. Needs the hub and store of the tests.
//! Its last line is JSON.

#![expect(clippy::cast_precision_loss, reason = "rates")]

#[path = "shared/lane.rs"]
mod lane;
#[path = "shared/process.rs"]
mod process;

use std::time::Duration;

use futures::StreamExt;
use lapin::{
    Channel,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::{AMQPValue, FieldTable},
};

use lane::{LOOK, Lane, median, now, wall};

const QUERY: &str = "SELECT input.payloads.pref AS pref, System.Timestamp AS window_end, COUNT(*) AS n FROM [input] TIMESTAMP BY DATEADD(millisecond, timestamp, '1970-01-01T00:00:00Z') GROUP BY TUMBLINGWINDOW(minute, 1), input.payloads.pref";
const MESSAGES: i64 = 300_000;
const RUNS: usize = 5;
/// Prefectures of Japan.
const GROUPS: i64 = 47;
/// The bare reader's credit, which is the worker's for messages of this size, and messages between two of its acknowledgements.
const CREDIT: u16 = 12_000;
const ACKNOWLEDGED: i64 = 4_000;
const AIM: f64 = 0.7;

const LIVE: &str = "SELECT input.payloads.pref AS pref, System.Timestamp AS window_end, COUNT(*) AS n FROM [input] TIMESTAMP BY DATEADD(millisecond, timestamp, '1970-01-01T00:00:00Z') GROUP BY TUMBLINGWINDOW(millisecond, 500), input.payloads.pref";
const WINDOW: i64 = 500;
const WINDOWS: i64 = 120;
const PARTITIONS: i32 = 4;
/// Events of each partition in a burst, and between two bursts.
const BURST: i64 = 5;
const PACE: Duration = Duration::from_millis(10);
const AIM_SECONDS: f64 = 1.0;

fn event(i: i64, millis: i64) -> Vec<u8> {
    format!(
        r#"{{"deviceId":"device-{:06}","timestamp":{millis},"type":"telemetry","firmware":"1.4.2-stable","payloads":{{"pref":"Prefecture-{:05}","temp":{}.5,"humidity":{},"battery":3.71,"rssi":-67}}}}"#,
        i % 10_000,
        i % GROUPS,
        i % 40,
        i % 100
    )
    .into_bytes()
}

/// Messages a second that a consumer of a stream gets, and nothing else done with them. On a thread of the pool, as the worker's
/// partitions are: a task of the main thread is woken from another one for each message.
async fn bare(lane: &Lane) -> f64 {
    let (channel, stream) = (lane.hub.create_channel().await.expect("a channel"), lane.stream(0));
    tokio::spawn(read(channel, stream)).await.expect("read")
}

async fn read(channel: Channel, stream: String) -> f64 {
    channel.basic_qos(CREDIT, BasicQosOptions::default()).await.expect("a credit");
    let mut arguments = FieldTable::default();
    arguments.insert("x-stream-offset".into(), AMQPValue::LongString("first".into()));
    let start = now();
    let options = BasicConsumeOptions::default();
    let mut consumer =
        channel.basic_consume(stream.as_str().into(), "bare".into(), options, arguments).await.expect("a consumer");
    for read in 1..=MESSAGES {
        let delivery = consumer.next().await.expect("a delivery").expect("a delivery");
        if read % ACKNOWLEDGED == 0 {
            let all = BasicAckOptions { multiple: true };
            channel.basic_ack(delivery.delivery_tag, all).await.expect("acknowledged");
        }
    }
    let rate = MESSAGES as f64 / start.elapsed().as_secs_f64();
    channel.close(200, "done".into()).await.expect("closed");
    rate
}

/// Messages a second from the claim of the partition until the rows of all windows are there, and the worker's peak memory in MiB.
async fn ours(lane: &Lane) -> (f64, f64) {
    lane.forget().await;
    let worker = lane.worker(QUERY);
    lane.await_number("SELECT count(*) FROM @.partition WHERE owner IS NOT NULL", 1).await;
    let start = now();
    lane.await_number("SELECT sum(on_time)::bigint FROM @.partition", MESSAGES).await;
    lane.await_number("SELECT sum(n)::bigint FROM \"bench-stream\"", MESSAGES).await;
    let rate = MESSAGES as f64 / start.elapsed().as_secs_f64();
    assert_eq!(lane.number("SELECT sum(n)::bigint FROM \"bench-stream\"").await, Some(MESSAGES));
    (rate, worker.peak_memory())
}

/// Seconds from each window's end until its rows are there, while events of that moment are published.
async fn live(lane: &Lane) -> Vec<f64> {
    let worker = lane.worker(LIVE);
    lane.await_number("SELECT count(*) FROM @.partition WHERE owner IS NOT NULL", PARTITIONS.into()).await;
    // The first two seconds are not measured: the consumers learn the size of messages in them.
    let from = wall() / WINDOW * WINDOW + 2_000;
    let to = from + WINDOWS * WINDOW;
    let publish = async {
        let mut i = 0;
        while wall() < to + 2 * WINDOW {
            let at = wall();
            let each = (0..PARTITIONS).flat_map(|part| (0..BURST).map(move |_| part));
            lane.publish((i..).zip(each).map(|(i, part)| (part, at, event(i, at)))).await;
            i += BURST * i64::from(PARTITIONS);
            tokio::time::sleep(PACE).await;
        }
    };
    let watch = async {
        let newest = "SELECT (extract(epoch FROM max(window_end)) * 1000)::bigint FROM \"bench-live\"";
        let (mut seen, mut delays) = (from, Vec::new());
        while seen < to {
            let last = lane.number(newest).await.unwrap_or(0);
            while seen < last.min(to) {
                seen += WINDOW;
                delays.push((wall() - seen) as f64 / 1_000.0);
            }
            tokio::time::sleep(LOOK).await;
        }
        delays
    };
    let ((), delays) = tokio::join!(publish, watch);
    assert_eq!(lane.number("SELECT sum(adjusted + dropped + dead_lettered)::bigint FROM @.partition").await, Some(0));
    drop(worker);
    delays
}

/// The value that so many percent of all do not exceed.
fn percentile(mut values: Vec<f64>, percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() * percent).div_ceil(100) - 1]
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let lane = Lane::new("bench-stream", 1).await;
    let first = wall() / 60_000 * 60_000 - 3_600_000;
    lane.publish((0..MESSAGES).map(|i| (0, first + i, event(i, first + i)))).await;
    lane.tick(first + MESSAGES + 120_000).await;
    let (mut floor, mut rates, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    // By turns, so that a machine that slows down slows both.
    for run in 1..=RUNS {
        floor.push(bare(&lane).await);
        let (rate, peak) = ours(&lane).await;
        rates.push(rate);
        memory.push(peak);
        eprintln!("run {run}: bare {:.0}, ours {rate:.0} msg/s, {peak:.1} MiB", floor[run - 1]);
    }
    lane.close().await;
    let lane = Lane::new("bench-live", PARTITIONS).await;
    let delays = live(&lane).await;
    lane.close().await;
    report(median(floor), median(rates), median(memory), delays);
}

fn report(floor: f64, ours: f64, memory: f64, delays: Vec<f64>) {
    let (size, windows) = (event(0, wall()).len(), delays.len());
    let (p50, p99) = (percentile(delays.clone(), 50), percentile(delays, 99));
    let rows = serde_json::json!([
        { "what": format!("stream to rows, reference query, {size}-byte messages; floor: a bare reader of the stream"), "floor": floor,
          "peer": null, "ours": ours, "unit": "msg/s", "aim": "≥ 0.7 of the bare reader", "met": ours >= AIM * floor },
        { "what": "worker memory under that load, peak", "floor": null, "peer": null, "ours": memory, "unit": "MiB",
          "aim": "for comparison", "met": true },
        { "what": format!("window end → its rows are visible, on-time events in {PARTITIONS} partitions, p50 of {windows} windows"),
          "floor": null, "peer": null, "ours": p50, "unit": "s", "aim": "for comparison", "met": true },
        { "what": format!("the same, p99 of {windows} windows"), "floor": null, "peer": null, "ours": p99, "unit": "s",
          "aim": "≤ 1 s", "met": p99 <= AIM_SECONDS },
    ]);
    println!("{}", serde_json::json!({ "bench": "stream to row", "rows": rows }));
}
