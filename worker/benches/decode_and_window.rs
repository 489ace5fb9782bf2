//! Decode and window: the reference query over events of about 180 bytes on one core, with two floors measured in the same rounds.
//!
//! The last line of its output is one JSON object: `bench` and `rows`, each with `what`, `floor`, `peer`, `ours`, `unit`, `aim` and `met`.
//! Rates are medians of the rounds, per second on a core.

#![expect(clippy::cast_precision_loss, reason = "rates")]

use std::{collections::HashMap, hint::black_box, sync::LazyLock, time::Instant};

use drover_crds::query::parse;
use drover_worker::query::{Decoder, Engine, Ordering, Tolerance, Verdict};
use serde::Deserialize;
use serde_json::{Value, json};
use sonic_rs::{JsonValueTrait, pointer};

const QUERY: &str = "SELECT input.payloads.pref AS pref, System.Timestamp AS WindowEnd, COUNT(*) AS Count FROM [input] TIMESTAMP BY DATEADD(millisecond, timestamp, '1970-01-01T00:00:00Z') GROUP BY TUMBLINGWINDOW(minute, 1), input.payloads.pref";
const EVENTS: u64 = 500_000;
/// Prefectures of Japan.
const GROUPS: u64 = 47;
/// Events between two closings, as in a batch of a worker.
const BATCH: u64 = 200;
const ROUNDS: usize = 7;
const KEYS: u64 = 200_000;
const LEAST_RATE: f64 = 1_500_000.0;
const MOST_BYTES: f64 = 200.0;

#[derive(Deserialize)]
struct Typed {
    timestamp: i64,
    payloads: Payloads,
}

#[derive(Deserialize)]
struct Payloads {
    pref: String,
}

fn event(i: u64, groups: u64) -> Vec<u8> {
    format!(
        r#"{{"deviceId":"device-{:06}","timestamp":{},"type":"telemetry","firmware":"1.4.2-stable","payloads":{{"pref":"Prefecture-{:05}","temp":{}.5,"humidity":{},"battery":3.71,"rssi":-67}}}}"#,
        i % 10_000,
        1_767_268_800_000 + i / 10,
        i % groups,
        i % 40,
        i % 100
    )
    .into_bytes()
}

/// The reference query, as a worker runs it: events per second.
fn ours(events: &[Vec<u8>]) -> f64 {
    let plan = parse(QUERY).expect("the reference query is valid");
    let (decoder, mut engine) = (Decoder::new(&plan, None), Engine::new(&plan));
    let mut ordering = Ordering::new(Tolerance::default(), i64::MIN);
    let (mut out, mut errors, mut event) = (Vec::new(), Vec::new(), decoder.empty());
    rate(events, || {
        for (position, body) in (0_u64..).zip(events) {
            decoder.read(body, &mut event).expect("the events are valid");
            let time = engine.time_of(&event).expect("the events have a time").unwrap_or(0);
            if let Verdict::OnTime(at) | Verdict::Adjusted(at) = ordering.event(time, Some(time)) {
                engine.push(&event, at, position, &mut out).expect("the events are valid");
            }
            if position % BATCH == BATCH - 1 {
                engine.advance(ordering.watermark(), &mut out, &mut errors);
            }
        }
        engine.finish(&mut out, &mut errors);
        black_box(&out);
    })
}

/// A floor: typed decoding and a hash map.
fn typed(events: &[Vec<u8>]) -> f64 {
    let mut counts: HashMap<(i64, String), u64> = HashMap::new();
    rate(events, || {
        for body in events {
            let event: Typed = serde_json::from_slice(body).expect("the events are valid");
            *counts.entry((end(event.timestamp), event.payloads.pref)).or_default() += 1;
        }
        black_box(&counts);
    })
}

/// A floor: only the two fields are looked for, and a hash map.
fn lazy(events: &[Vec<u8>]) -> f64 {
    let mut counts: HashMap<(i64, String), u64> = HashMap::new();
    rate(events, || {
        for body in events {
            let timestamp = sonic_rs::get(body.as_slice(), pointer!["timestamp"]).expect("the events are valid");
            let pref = sonic_rs::get(body.as_slice(), pointer!["payloads", "pref"]).expect("the events are valid");
            let key = (end(timestamp.as_i64().unwrap_or(0)), pref.as_str().unwrap_or("").to_owned());
            *counts.entry(key).or_default() += 1;
        }
        black_box(&counts);
    })
}

fn end(timestamp: i64) -> i64 {
    (timestamp + 59_999) / 60_000
}

fn rate(events: &[Vec<u8>], run: impl FnOnce()) -> f64 {
    let start = on_core();
    run();
    events.len() as f64 / (on_core() - start)
}

/// Seconds that this thread has run on a core: what else runs on the machine takes little from the rates. Elsewhere than on Linux,
/// seconds of the clock.
#[allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn on_core() -> f64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let nanoseconds = std::fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|s| s.split(' ').next()?.parse::<u64>().ok())
        .filter(|n| *n > 0);
    nanoseconds.map_or_else(|| START.elapsed().as_secs_f64(), |n| n as f64 / 1e9)
}

fn median(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2].round()
}

/// Resident bytes for each open key.
fn bytes_per_key() -> f64 {
    let plan = parse(QUERY).expect("the reference query is valid");
    let (decoder, mut engine) = (Decoder::new(&plan, None), Engine::new(&plan));
    let mut out = Vec::new();
    let before = resident();
    for i in 0..KEYS {
        let event = decoder.event(&event(i, KEYS)).expect("the event is valid");
        engine.push(&event, 1, i, &mut out).expect("the event is valid");
    }
    let bytes = resident().saturating_sub(before);
    black_box(&engine);
    (bytes as f64 / engine.open() as f64).round()
}

fn resident() -> u64 {
    const PAGE: u64 = 4_096;
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    status.split(' ').nth(1).and_then(|p| p.parse::<u64>().ok()).unwrap_or(0) * PAGE
}

fn row(what: &str, floor: Option<f64>, ours: f64, unit: &str, aim: &str, met: bool) -> Value {
    json!({"what": what, "floor": floor, "peer": null, "ours": ours, "unit": unit, "aim": aim, "met": met})
}

fn main() {
    // First, while the heap is small.
    let bytes = bytes_per_key();
    let events: Vec<Vec<u8>> = (0..EVENTS).map(|i| event(i, GROUPS)).collect();
    let size = events.iter().map(Vec::len).sum::<usize>() / events.len();
    let (mut own, mut serde, mut sonic) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let rates = (ours(&events), typed(&events), lazy(&events));
        // The first round warms up.
        if round > 0 {
            own.push(rates.0);
            serde.push(rates.1);
            sonic.push(rates.2);
        }
    }
    let rate = median(&mut own);
    let aim = "at least 1,500,000 on one core";
    let what = |floor: &str| format!("reference query, {size}-byte events (floor: {floor})");
    let met = rate >= LEAST_RATE;
    let rows = [
        row(&what("typed serde_json"), Some(median(&mut serde)), rate, "events/s", aim, met),
        row(&what("sonic-rs lazy get"), Some(median(&mut sonic)), rate, "events/s", aim, met),
        row("memory per open key", None, bytes, "bytes", "at most 200", bytes <= MOST_BYTES),
    ];
    println!("{}", json!({"bench": "decode and window", "rows": rows}));
}
