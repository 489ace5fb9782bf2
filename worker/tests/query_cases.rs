//! Worked cases, run in file mode.

use std::{fs, io::BufReader, path::Path};

use drover_crds::query::{TICKS_PER_SECOND, parse};
use drover_worker::query::{Ordering, Policy, Tolerance, Verdict, file, parse_datetime};
use serde_json::{Value, json};

struct Run {
    rows: Vec<Value>,
    notes: String,
}

fn run(query: &str, events: &[Value], tolerance: Tolerance, options: &file::Options) -> Run {
    let plan = parse(query).unwrap_or_else(|e| panic!("{query}: {e}"));
    let input: String = events.iter().flat_map(|e| [e.to_string(), "\n".to_owned()]).collect();
    let (mut out, mut notes) = (Vec::new(), Vec::new());
    file::run(&plan, tolerance, options, &mut BufReader::new(input.as_bytes()), &mut out, &mut notes, &mut |_| {})
        .unwrap();
    let rows = String::from_utf8(out).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    Run { rows, notes: String::from_utf8(notes).unwrap() }
}

/// Datetimes by instant, numbers by value to 1e-9.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => {
            (x.as_f64().unwrap() - y.as_f64().unwrap()).abs() <= 1e-9 * (1.0 + x.as_f64().unwrap().abs())
        }
        (Value::String(x), Value::String(y)) => {
            x == y || matches!((parse_datetime(x), parse_datetime(y)), (Some(x), Some(y)) if x == y)
        }
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, v)| y.get(k).is_some_and(|w| same(v, w)))
        }
        _ => a == b,
    }
}

fn without_mark(row: &Value, marked: bool) -> Value {
    let mut row = row.clone();
    if !marked {
        row.as_object_mut().unwrap().remove("_window_end");
    }
    row
}

fn tolerance(ordering: &Value) -> Tolerance {
    let ticks = |name: &str, default: i64| ordering[name].as_i64().map_or(default, |s| s * TICKS_PER_SECOND);
    let default = Tolerance::default();
    Tolerance {
        policy: match ordering["policy"].as_str() {
            Some("Drop") => Policy::Drop,
            Some("DeadLetter") => Policy::DeadLetter,
            _ => Policy::Adjust,
        },
        late: ticks("lateArrivalSeconds", default.late),
        out_of_order: ticks("outOfOrderSeconds", default.out_of_order),
    }
}

fn check(case: &Value) {
    let name = case["name"].as_str().unwrap();
    let query = case.get("asa_query").unwrap_or(&case["query"]).as_str().unwrap();
    let mut expected = case.get("asa_expected").unwrap_or(&case["expected"]).as_array().unwrap().clone();
    expected.extend(case["derived_extra"].as_array().cloned().unwrap_or_default());
    let run = run(
        query,
        case["input"].as_array().unwrap(),
        tolerance(&case["ordering"]),
        &file::Options { window_end: true, arrival_field: case["arrival"].as_str().map(str::to_owned) },
    );
    assert_eq!(run.notes, case["notes"].as_str().unwrap_or_default(), "{name}");
    let prefix = case["note"].as_str().is_some_and(|n| n.contains("first 10 rows only"));
    let mut rows: Vec<Value> =
        run.rows.iter().take(if prefix { expected.len() } else { usize::MAX }).cloned().collect();
    assert_eq!(rows.len(), expected.len(), "{name}: {:#?}", run.rows);
    for row in &expected {
        let marked = row.get("_window_end").is_some();
        let at = rows.iter().position(|r| same(&without_mark(r, marked), row));
        rows.remove(at.unwrap_or_else(|| panic!("{name}: no row {row} in {rows:#?}")));
    }
}

/// `DROVER_CASES` names a further file of cases.
#[test]
fn every_case_of_a_file_that_is_named_passes() {
    let Some(path) = std::env::var_os("DROVER_CASES") else { return };
    for case in serde_json::from_str::<Vec<Value>>(&fs::read_to_string(path).unwrap()).unwrap() {
        if case["input"][0].get("arrival_time").is_some() {
            check_watermarks(&case);
        } else {
            check(&case);
        }
    }
}

#[test]
fn every_case_of_our_own_passes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/query_cases.json");
    for case in serde_json::from_str::<Vec<Value>>(&fs::read_to_string(path).unwrap()).unwrap() {
        check(&case);
    }
}

fn check_watermarks(case: &Value) {
    let tolerance =
        Tolerance { policy: Policy::Adjust, late: 300 * TICKS_PER_SECOND, out_of_order: 120 * TICKS_PER_SECOND };
    let mut order = Ordering::new(tolerance, i64::MIN);
    let at = |text: &Value| parse_datetime(&format!("2026-01-01T{}:00Z", text.as_str().unwrap())).unwrap();
    for (event, expected) in case["input"].as_array().unwrap().iter().zip(case["expected"].as_array().unwrap()) {
        match order.event(at(&event["event_time"]), Some(at(&event["arrival_time"]))) {
            Verdict::OnTime(t) | Verdict::Adjusted(t) => {
                assert_eq!(t, at(&expected["system_timestamp"]), "{event}");
                assert_eq!(order.watermark(), at(&expected["watermark"]), "{event}");
            }
            Verdict::Dropped(_) => assert_eq!(expected["dropped"], "early"),
            Verdict::DeadLetter(_) => panic!("the policy is Adjust"),
        }
    }
    let c = order.counters();
    assert_eq!(c.on_time + c.adjusted + c.dropped + c.dead_lettered, 12);
}

#[test]
fn an_event_in_error_goes_to_the_notes_with_its_line() {
    let query = "SELECT 10 / x AS q FROM input";
    let run = run(
        query,
        &[json!({"x": 2}), json!({"x": 0}), json!({"x": "a"}), json!({"x": 5})],
        Tolerance::default(),
        &file::Options::default(),
    );
    assert_eq!(run.rows, [json!({"q": 5}), json!({"q": 2})]);
    assert_eq!(run.notes, "line 2: division by zero\nline 3: division does not take nvarchar(max)\n");
}

#[test]
fn a_field_may_hold_the_arrival() {
    let query = "SELECT n, System.Timestamp() AS t FROM input TIMESTAMP BY e";
    let events = [
        json!({"n": 1, "e": "2026-01-01T12:07:00Z", "a": "2026-01-01T12:07:00Z"}),
        json!({"n": 2, "e": "2026-01-01T12:17:00Z", "a": "2026-01-01T12:11:00Z"}),
        json!({"n": 3, "e": "2026-01-01T12:07:30Z", "a": "2026-01-01T12:13:00Z"}),
    ];
    let tolerance = Tolerance { policy: Policy::Adjust, late: 300 * TICKS_PER_SECOND, out_of_order: 0 };
    let run =
        run(query, &events, tolerance, &file::Options { arrival_field: Some("a".to_owned()), ..Default::default() });
    assert_eq!(
        run.rows,
        [json!({"n": 1, "t": "2026-01-01T12:07:00.000Z"}), json!({"n": 3, "t": "2026-01-01T12:08:00.000Z"})]
    );
    assert!(run.notes.starts_with("line 2: dropped, early"));
}

#[test]
fn several_outputs_are_named_in_the_rows() {
    let query = "WITH s AS (SELECT k, COUNT(*) AS c FROM input TIMESTAMP BY t GROUP BY k, TUMBLINGWINDOW(second, 10))
        SELECT k, c INTO many FROM s WHERE c > 1 SELECT SUM(c) AS total INTO sums FROM s GROUP BY TUMBLINGWINDOW(second, 20)";
    let at = |s: u32, k: &str| json!({"t": format!("2026-01-01T00:00:{s:02}Z"), "k": k});
    let run =
        run(query, &[at(1, "a"), at(2, "a"), at(3, "b"), at(12, "b")], Tolerance::default(), &file::Options::default());
    assert_eq!(run.rows, [json!({"k": "a", "c": 2, "_output": "many"}), json!({"total": 4, "_output": "sums"})]);
}
