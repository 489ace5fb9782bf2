//! Bodies made to break whoever reads them: none of them ends a worker, and each is a row or a dead letter.

use crate::surroundings::{APPEND, Lane};

const COLUMNS: &str = "message_id text PRIMARY KEY, a text, v double precision, at timestamptz, more jsonb";
const QUERY: &str = "SELECT input.a AS a, CAST(input.v AS float) * 2 AS v, input.at AS at, e.ArrayValue AS more \
    FROM input CROSS APPLY GetArrayElements(input.list) AS e WHERE LEN(input.a) >= 0";

fn list(body: &str) -> Vec<u8> {
    format!(r#"{{"a":"x","v":1,"list":[{body}]}}"#).into_bytes()
}

fn poison() -> Vec<Vec<u8>> {
    let deep = |open: &str, close: &str, n: usize| open.repeat(n) + &close.repeat(n);
    let mut bodies: Vec<Vec<u8>> = [
        "",
        " ",
        "null",
        "true",
        "0",
        "-",
        "\"",
        "\"a",
        "[]",
        "{}",
        "{",
        "}",
        "[",
        "]",
        "{]",
        "[}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{'a':1}",
        "NaN",
        "Infinity",
        "{\"v\":NaN}",
        "{\"v\":1e999999}",
        "{\"v\":-1e-999999}",
        "{\"v\":00}",
        "{\"v\":1.}",
        "{\"v\":0x10}",
        "\u{feff}{}",
        "{}{}",
        "{} x",
        "// c\n{}",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    bodies.extend([
        deep("[", "]", 20_000).into_bytes(),
        deep("{\"a\":", "}", 20_000).into_bytes(),
        "[".repeat(1_000_000).into_bytes(),
        list(&deep("[", "]", 100)),
        list(&deep("{\"a\":[", "]}", 60)),
        b"\xff\xfe\x00".to_vec(),
        b"{\"a\":\"\xc3\x28\"}".to_vec(),
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00".to_vec(),
        br#"{"a":"\u0000","v":1,"list":[1]}"#.to_vec(),
        br#"{"a":"\ud800","v":1,"list":[1]}"#.to_vec(),
        br#"{"a":"\uD83D\uDE00","v":1,"list":[1]}"#.to_vec(),
        format!(r#"{{"a":"{}","v":1,"list":[1]}}"#, "\\\\".repeat(100_000)).into_bytes(),
        format!(r#"{{"a":"x","v":{},"list":[1]}}"#, "9".repeat(100_000)).into_bytes(),
        format!(r#"{{"a":"x","v":0.{},"list":[1]}}"#, "1".repeat(100_000)).into_bytes(),
        format!(r#"{{"a":"x","v":1,"list":[{}]}}"#, "1,".repeat(5_000) + "1").into_bytes(),
        format!("{{{}}}", (0..20_000).map(|n| format!("\"k{n}\":0")).collect::<Vec<_>>().join(",")).into_bytes(),
        format!("{{{}\"a\":1}}", "\"a\":{},".repeat(10_000)).into_bytes(),
        br#"{"a":{"a":{}},"v":"x","list":[1]}"#.to_vec(),
        br#"{"a":"x","v":"1e400","list":[1]}"#.to_vec(),
        br#"{"a":"x","v":1,"at":"now","list":[1]}"#.to_vec(),
        br#"{"a":"x","v":1,"at":9223372036854775807,"list":[1]}"#.to_vec(),
        br#"{"a":"x","v":1,"at":-9e300,"list":[1]}"#.to_vec(),
        br#"{"a":"x","v":1,"at":"294277-01-01T00:00:00Z","list":[1]}"#.to_vec(),
        br##"{"a":"'; DROP TABLE x; --","v":1,"list":[{"$ref":"#"}]}"##.to_vec(),
        br#"{"__proto__":{"a":1},"constructor":1,"list":{}}"#.to_vec(),
        vec![b' '; 1_048_577],
        vec![0; 1000],
    ]);
    bodies
}

/// Publishes each body with good ones between, and finds all of the good ones and the end of each bad one.
async fn survives(name: &str, more: &[(&str, &str)]) {
    let lane = Lane::new(name).await;
    lane.table(COLUMNS).await;
    let (worker, bodies) = (lane.worker(APPEND, more).await, poison());
    assert!(bodies.len() >= 40, "{} kinds", bodies.len());
    let good = list("7");
    let messages = bodies
        .iter()
        .enumerate()
        .flat_map(|(n, body)| [(format!("bad-{n}"), body.as_slice()), (format!("good-{n}"), good.as_slice())]);
    lane.publish(messages).await;
    worker.await_done(2 * bodies.len() as u64).await;
    let written = lane.ask(&format!("SELECT count(*) FROM \"{name}\" WHERE message_id ~ '^good-[0-9]+$'")).await;
    assert_eq!(written, bodies.len().to_string());
    let status = worker.status().await;
    assert_eq!(status.processed + status.dead_lettered, 2 * bodies.len() as u64);
    assert_eq!(lane.dead_letters().await.len() as u64, status.dead_lettered);
    worker.stop().await;
    assert_eq!(lane.ready(&lane.name).await, 0);
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_break_parsers_end_no_worker() {
    survives("poison-plain", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_break_parsers_end_no_worker_with_a_query() {
    survives("poison-query", &[("DROVER_TRANSFORM_QUERY", QUERY)]).await;
}
