//! The worked cases of file mode, through a stream and a worker into a table.

use std::{fs, path::Path};

use drover_worker::{
    query::parse_datetime,
    stream::settings::{ORDERING, StreamSettings},
};
use serde_json::{Map, Value};

use crate::surroundings::{Lane, Sent, times};

/// What only the form of a file can express.
const FILE_ONLY: [(&str, &str); 7] = [
    ("watermark_early5_late5_reorder2", "it checks each event's time and the watermark after it, which are no rows"),
    ("substreams_timestamp_by_over", "keys of one partition arrive in an order that no arrivals have"),
    ("time_over_a_key_is_kept_per_key", "keys of one partition arrive in an order that no arrivals have"),
    ("the_columns_of_what_is_unnamed_have_no_name", "a table has no column without a name"),
    (
        "an_event_without_an_arrival_has_no_late_check",
        "an arrival that is no date is an error; a header that is none, is none",
    ),
    ("an_event_in_error_moves_no_time", "what is read after the event in error would have arrived late"),
    ("percentile_cont_095", "a table has no column without a name"),
];

/// Datetimes by instant, numbers by value to 1e-9; text columns have the text of what is no text.
fn same(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Number(x), Value::Number(y)) => {
            (x.as_f64().unwrap() - y.as_f64().unwrap()).abs() <= 1e-9 * (1.0 + x.as_f64().unwrap().abs())
        }
        (Value::String(x), Value::String(y)) => {
            x == y || matches!((parse_datetime(x), parse_datetime(y)), (Some(x), Some(y)) if x == y)
        }
        (Value::String(text), other @ (Value::Number(_) | Value::Bool(_) | Value::Array(_) | Value::Object(_))) => {
            serde_json::from_str::<Value>(text).is_ok_and(|value| same(&value, other))
        }
        // 0 and 1 where a query yields a bit.
        (Value::Bool(x), Value::Number(y)) => y.as_i64() == Some(i64::from(*x)),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y)),
        (Value::Object(x), Value::Object(y)) => {
            let known = |m: &Map<String, Value>, k: &str| m.get(k).cloned().unwrap_or(Value::Null);
            x.keys().chain(y.keys()).all(|k| same(&known(x, k), &known(y, k)))
        }
        _ => found == expected,
    }
}

fn expected(case: &Value) -> Vec<Value> {
    let mut rows = case.get("asa_expected").unwrap_or(&case["expected"]).as_array().unwrap().clone();
    rows.extend(case["derived_extra"].as_array().cloned().unwrap_or_default());
    for row in &mut rows {
        row.as_object_mut().unwrap().retain(|name, _| name != "_window_end");
    }
    rows
}

/// Events with arrival = event time; where there is none, the running maximum, or what the case names.
fn events(case: &Value, settings: &StreamSettings) -> (Vec<Sent>, i64) {
    let input = case["input"].as_array().unwrap();
    let mut newest = i64::MIN;
    let mut sent = Vec::new();
    for (event, time) in input.iter().zip(times(settings, input)) {
        newest = newest.max(time.unwrap_or(i64::MIN));
        let arrival = match case["arrival"].as_str().map(|name| &event[name]) {
            Some(Value::Number(ms)) => ms.as_i64(),
            Some(Value::String(text)) => parse_datetime(text).map(|t| t.div_euclid(10_000)),
            Some(_) => None,
            None => Some(if newest == i64::MIN { 0 } else { newest }),
        };
        newest = newest.max(arrival.unwrap_or(i64::MIN));
        sent.push(Sent { partition: 0, body: event.to_string().into_bytes(), arrival });
    }
    (sent, newest.max(0))
}

/// Nothing tells the columns of `*`: the table is the test's.
async fn table_for_a_star(lane: &Lane, settings: &StreamSettings, rows: &[Value]) {
    if !settings.plan.steps.iter().any(|s| format!("{:?}", s.kind).contains("Star")) {
        return;
    }
    let mut names: Vec<&String> = rows.iter().flat_map(|r| r.as_object().unwrap().keys()).collect();
    names.sort();
    names.dedup();
    let columns: Vec<String> = names.iter().map(|n| format!("\"{n}\" jsonb")).collect();
    lane.sql(&format!("CREATE TABLE \"{}\" ({})", lane.name, columns.join(", "))).await;
}

async fn check(case: &Value, lane_name: &str) {
    let name = case["name"].as_str().unwrap();
    let query = case.get("asa_query").unwrap_or(&case["query"]).as_str().unwrap();
    let lane = Lane::new(lane_name, 2).await;
    let ordering = case["ordering"].to_string();
    let more: &[(&str, &str)] = if case["ordering"].is_null() { &[] } else { &[(ORDERING, &ordering)] };
    let settings = lane.settings(query, more);
    let wanted = expected(case);
    table_for_a_star(&lane, &settings, &wanted).await;
    let (sent, newest) = events(case, &settings);
    lane.publish(&sent).await;
    // Later than every window, and still a year that there is.
    lane.tick((newest + 60 * 86_400_000).min(253_402_300_799_999)).await;
    let worker = lane.worker(query, more).await;
    // Both partitions are read to the end, and nothing is open.
    let tick = (newest + 30 * 86_400_000).min(253_402_300_000_000);
    worker
        .await_status(name, |s| {
            s.partitions.len() == 2
                && s.partitions.iter().all(|p| p.watermark_millis.is_some_and(|w| w > tick))
                && !s.open
                && s.dead_letters_waiting == 0
        })
        .await;
    let prefix = case["note"].as_str().is_some_and(|n| n.contains("first 10 rows only"));
    let mut rows = lane.rows().await;
    assert!(rows.len() == wanted.len() || (prefix && rows.len() > wanted.len()), "{name}: {rows:#?}");
    for row in &wanted {
        let at = rows.iter().position(|found| same(found, row));
        rows.remove(at.unwrap_or_else(|| panic!("{name}: no row {row} in {rows:#?}")));
    }
    worker.stop().await;
    lane.close().await;
}

async fn check_all(path: &Path, prefix: &str) {
    let cases: Vec<Value> = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let only = std::env::var("DROVER_CASE").ok();
    let cases: Vec<(usize, Value)> = cases
        .into_iter()
        .enumerate()
        .filter(|(_, case)| FILE_ONLY.iter().all(|(name, _)| case["name"] != *name))
        .filter(|(_, case)| only.as_ref().is_none_or(|name| case["name"] == name.as_str()))
        .collect();
    for some in cases.chunks(8) {
        let names: Vec<String> = some.iter().map(|(n, _)| format!("{prefix}{n}")).collect();
        futures::future::join_all(some.iter().zip(&names).map(|((_, case), name)| check(case, name))).await;
    }
}

/// `DROVER_CASES` names a further file of cases.
#[tokio::test(flavor = "multi_thread")]
async fn every_case_of_a_file_that_is_named_passes_through_a_stream() {
    if let Some(path) = std::env::var_os("DROVER_CASES") {
        check_all(Path::new(&path), "cases_named_").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_case_of_our_own_passes_through_a_stream() {
    check_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/query_cases.json"), "cases_own_").await;
}
