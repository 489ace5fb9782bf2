//! Transforms of pipelines: rows of one message.

use drover_worker::query::{DataError, Transform, parse_datetime};

fn apply(query: &str, body: &str) -> Result<String, DataError> {
    let arrival = parse_datetime("2026-01-01T00:00:00Z").unwrap();
    let rows = Transform::new(query).unwrap_or_else(|e| panic!("{query}: {e}")).apply(body.as_bytes(), arrival)?;
    Ok(rows.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

#[test]
fn a_transform_filters_and_projects_one_message() {
    let query = "SELECT a.b AS c, UPPER(n) AS n FROM input WHERE a.b > 1";
    assert_eq!(apply(query, r#"{"a":{"b":2},"n":"x"}"#).unwrap(), r#"{"c":2,"n":"X"}"#);
    assert_eq!(apply(query, r#"{"a":{"b":1},"n":"x"}"#).unwrap(), "");
}

#[test]
fn a_message_gives_a_row_for_each_event_and_element() {
    let query = "SELECT i.d, x.ArrayValue AS v FROM input i CROSS APPLY GetArrayElements(i.xs) AS x";
    assert_eq!(apply(query, r#"{"d":1,"xs":[7,8]}"#).unwrap(), "{\"d\":1,\"v\":7}\n{\"d\":1,\"v\":8}");
    assert_eq!(apply("SELECT a FROM input", "[{\"a\":1},{\"a\":2}]").unwrap(), "{\"a\":1}\n{\"a\":2}");
    assert_eq!(apply("SELECT a FROM input", "{\"a\":1}\n{\"a\":2}\n").unwrap(), "{\"a\":1}\n{\"a\":2}");
    assert_eq!(apply("SELECT * FROM input", "{\n \"a\": 1,\n \"b\": [true]\n}").unwrap(), "{\"a\":1,\"b\":[true]}");
    assert_eq!(apply("SELECT a FROM input", "[]").unwrap(), "");
}

#[test]
fn steps_follow_each_other_in_a_transform() {
    let query = "WITH s AS (SELECT v * 2 AS v FROM input) SELECT v + 1 AS w FROM s WHERE v > 2";
    assert_eq!(apply(query, r#"[{"v":1},{"v":2}]"#).unwrap(), r#"{"w":5}"#);
}

#[test]
fn the_time_of_a_transform_is_the_arrival() {
    assert_eq!(apply("SELECT System.Timestamp() AS at FROM x", "{}").unwrap(), r#"{"at":"2026-01-01T00:00:00.000Z"}"#);
}

#[test]
fn a_message_gives_all_of_its_rows_or_none() {
    assert_eq!(apply("SELECT 1 / v AS q FROM input", r#"[{"v":1},{"v":0}]"#), Err(DataError::DivisionByZero));
    assert!(matches!(apply("SELECT v FROM input", "{\"v\":1}\nnope"), Err(DataError::Decode(_))));
}

#[test]
fn a_transform_is_shared_between_threads() {
    let transform = Transform::new("SELECT REGEXMATCH(s, '[0-9]') AS at FROM input").unwrap();
    std::thread::scope(|scope| {
        for n in 1..=4_usize {
            let transform = &transform;
            scope.spawn(move || {
                let body = format!(r#"{{"s":"{}7"}}"#, "a".repeat(n - 1));
                let rows = transform.apply(body.as_bytes(), 0).unwrap();
                assert_eq!(rows[0].to_string(), format!(r#"{{"at":{n}}}"#));
            });
        }
    });
}
