//! Decode and window: the reference query over events of about 180 bytes on one core, with a floor beside it. Prints one JSON line.

#![expect(clippy::cast_precision_loss, reason = "rates")]

use std::{collections::HashMap, hint::black_box, time::Instant};

use drover_crds::query::parse;
use drover_worker::query::{Decoder, Engine, Ordering, Tolerance, Verdict};
use serde::Deserialize;

const QUERY: &str = "SELECT input.payloads.pref AS pref, System.Timestamp AS WindowEnd, COUNT(*) AS Count FROM [input] TIMESTAMP BY DATEADD(millisecond, timestamp, '1970-01-01T00:00:00Z') GROUP BY TUMBLINGWINDOW(minute, 1), input.payloads.pref";
const EVENTS: u64 = 1_000_000;
const KEYS: u64 = 100_000;

#[derive(Deserialize)]
struct Typed {
    timestamp: i64,
    payloads: Payloads,
}

#[derive(Deserialize)]
struct Payloads {
    pref: String,
}

fn event(i: u64, keys: u64) -> Vec<u8> {
    format!(
        r#"{{"deviceId":"device-{:06}","timestamp":{},"type":"telemetry","firmware":"1.4.2-stable","payloads":{{"pref":"Prefecture-{:05}","temp":{}.5,"humidity":{},"battery":3.71,"rssi":-67}}}}"#,
        i % 10_000,
        1_767_268_800_000 + i / 10,
        i % keys,
        i % 40,
        i % 100
    )
    .into_bytes()
}

/// The reference query, as a worker runs it.
fn engine(events: &[Vec<u8>]) -> f64 {
    let plan = parse(QUERY).expect("the reference query is valid");
    let (decoder, mut engine) = (Decoder::new(&plan, None), Engine::new(&plan));
    let mut ordering = Ordering::new(Tolerance::default(), i64::MIN);
    let (mut out, mut errors, mut event) = (Vec::new(), Vec::new(), decoder.empty());
    let start = now();
    for (position, body) in (0_u64..).zip(events) {
        decoder.read(body, &mut event).expect("the events are valid");
        let time = engine.time_of(&event).expect("the events have a time").unwrap_or(0);
        if let Verdict::OnTime(at) | Verdict::Adjusted(at) = ordering.event(time, Some(time)) {
            engine.push(&event, at, position, &mut out).expect("the events are valid");
        }
        if position % 200 == 199 {
            engine.advance(ordering.watermark(), &mut out, &mut errors);
        }
    }
    engine.finish(&mut out, &mut errors);
    black_box(&out);
    events.len() as f64 / start.elapsed().as_secs_f64()
}

/// The floor: typed decoding and a hash map.
fn typed(events: &[Vec<u8>]) -> f64 {
    let mut counts: HashMap<(i64, String), u64> = HashMap::new();
    let start = now();
    for body in events {
        let event: Typed = serde_json::from_slice(body).expect("the events are valid");
        *counts.entry(((event.timestamp + 59_999) / 60_000, event.payloads.pref)).or_default() += 1;
    }
    black_box(&counts);
    events.len() as f64 / start.elapsed().as_secs_f64()
}

/// Resident bytes for each open key.
fn memory_per_key() -> f64 {
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
    bytes as f64 / engine.open() as f64
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    status.split(' ').nth(1).and_then(|p| p.parse::<u64>().ok()).unwrap_or(0) * 4096
}

#[allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn now() -> Instant {
    Instant::now()
}

fn main() {
    let memory = memory_per_key();
    let events: Vec<Vec<u8>> = (0..EVENTS).map(|i| event(i, 47)).collect();
    let bytes = events.iter().map(Vec::len).sum::<usize>() / events.len();
    let best = |f: &dyn Fn(&[Vec<u8>]) -> f64| (0..3).map(|_| f(&events)).fold(0.0, f64::max);
    println!(
        r#"{{"bench":"decode and window","event_bytes":{bytes},"events_per_second":{:.0},"floor_typed_serde_json":{:.0},"bytes_per_open_key":{memory:.0}}}"#,
        best(&engine),
        best(&typed)
    );
}
