//! What is bad costs itself and nothing else.

use drover_worker::stream::{
    DEAD, schema,
    settings::{BATCH_MESSAGES, LEASE_SECONDS, ORDERING, RETRY_ATTEMPTS},
};
use lapin::{message::BasicGetMessage, types::AMQPValue};
use serde_json::{Value, json};

use crate::{
    process::Process,
    surroundings::{Lane, Sent, eventually, now},
};

const SECOND: i64 = 1_000;
const BY_TIME: &str = "FROM input TIMESTAMP BY DATEADD(millisecond, t, '1970-01-01T00:00:00Z')";

fn header(message: &BasicGetMessage, name: &str) -> String {
    match message.properties.headers().as_ref().unwrap().inner().get(name) {
        Some(AMQPValue::LongString(text)) => text.to_string(),
        other => format!("{other:?}"),
    }
}

fn event(mut body: Value, millis: i64) -> Sent {
    body["t"] = json!(millis);
    Sent::new(0, &body, millis)
}

fn sorted(mut rows: Vec<Value>) -> Vec<String> {
    rows.sort_by_key(ToString::to_string);
    rows.iter().map(ToString::to_string).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_message_event_or_row_is_one_dead_letter_and_everything_else_is_written() {
    let lane = Lane::new("poison_content", 1).await;
    lane.sql("CREATE TABLE poison_content (k text, s bigint CHECK (s <> 13))").await;
    let at = 1_000_000 * SECOND;
    lane.publish(&[
        event(json!({"k": "a", "v": 1}), at),
        event(json!({"k": "nul\0", "v": 2}), at),
        event(json!({"k": "over", "v": i64::MAX}), at),
        event(json!({"k": "over", "v": i64::MAX}), at),
        event(json!({"k": "check", "v": 13}), at),
        event(json!({"k": "b", "v": "text"}), at),
        Sent { partition: 0, body: b"\xff{".to_vec(), arrival: Some(at) },
        Sent { partition: 0, body: b"".to_vec(), arrival: Some(at) },
        event(json!({"k": "b", "v": 5}), at),
    ])
    .await;
    lane.tick(at + 100 * SECOND).await;
    let query = format!("SELECT k, SUM(v) AS s {BY_TIME} GROUP BY k, TUMBLINGWINDOW(second, 10)");
    let worker = lane.worker(&query, &[]).await;
    let dead = lane.await_dead(6).await;
    let mut reasons: Vec<String> = dead.iter().map(|m| header(m, "x-drover-reason")).collect();
    reasons.sort();
    assert_eq!(reasons, ["CheckViolation", "InvalidEvent", "InvalidRow", "NulInText", "Undecodable", "Undecodable"]);
    let row = dead.iter().find(|m| header(m, "x-drover-reason") == "CheckViolation").unwrap();
    assert_eq!(row.data, br#"{"k":"check","s":13}"#);
    assert_eq!(sorted(lane.await_rows(2).await), [r#"{"k":"a","s":1}"#, r#"{"k":"b","s":5}"#]);
    let status = worker.await_status("nothing open", |s| !s.open && s.dead_letters_waiting == 0).await;
    assert!(status.holding.is_empty(), "{:?}", status.holding);
    worker.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_ends_relays_what_the_hub_did_not_take_before() {
    let lane = Lane::new("poison_last", 1).await;
    lane.delete_queue(&lane.dead()).await;
    lane.publish(&[Sent { partition: 0, body: b"{".to_vec(), arrival: Some(now()) }]).await;
    let query = format!("SELECT k, COUNT(*) AS c {BY_TIME} GROUP BY k, TUMBLINGWINDOW(second, 10)");
    let worker = lane.worker(&query, &[]).await;
    worker.await_status("nowhere to go", |s| s.holding.iter().any(|h| h.reason == "Unroutable")).await;
    lane.declare(&lane.dead(), "quorum", DEAD).await;
    worker.stop().await;
    let client = Lane::client().await;
    let waiting = schema::waiting(&client, &lane.schema(), &lane.name).await.unwrap();
    assert_eq!((waiting.dead_letters, lane.take(&lane.dead()).await.len()), (0, 1));
    lane.close().await;
}

/// A message of 9 MiB whose events take more than the process may have.
fn deadly(at: i64) -> Sent {
    let body = format!("[{}{{}}]", "{},".repeat(3_000_000));
    Sent { partition: 0, body: body.into_bytes(), arrival: Some(at) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_ends_the_worker_is_one_dead_letter() {
    let lane = Lane::new("poison_deadly", 2).await;
    let at = 1_000_000 * SECOND;
    let mut sent: Vec<Sent> = (0..300).map(|n| event(json!({"k": n % 3}), at)).collect();
    sent.insert(150, deadly(at));
    sent.extend((0..300).map(|n| Sent { partition: 1, ..event(json!({"k": n % 3}), at) }));
    lane.publish(&sent).await;
    lane.tick(at + 100 * SECOND).await;
    let query = format!(
        "SELECT k, COUNT(*) AS c, MAX(a) AS a, MAX(b) AS b, MAX(c) AS d {BY_TIME} GROUP BY k, TUMBLINGWINDOW(second, 10)"
    );
    let more = [(LEASE_SECONDS, "2"), (RETRY_ATTEMPTS, "2")];
    let mut starts = 0;
    let mut worker = Process::limited(&lane, &query, &more, Some(700_000));
    // As Kubernetes starts a container again.
    let rows = eventually("three rows", || {
        if worker.has_ended() {
            worker = Process::limited(&lane, &query, &more, Some(700_000));
            starts += 1;
        }
        async { Some(lane.rows().await).filter(|rows| rows.len() == 3) }
    })
    .await;
    assert!(starts >= 4, "{starts}");
    assert!(rows.iter().all(|row| row["c"] == 200), "{rows:?}");
    let dead = lane.await_dead(1).await;
    assert_eq!((dead.len(), header(&dead[0], "x-drover-reason")), (1, "EndsWorkers".to_owned()));
    assert_eq!(lane.ask("SELECT sum(skipped) FROM @.partition").await, "1");
    drop(worker);
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn late_events_are_what_the_policy_says_and_all_are_counted() {
    let at = 1_000_000 * SECOND;
    for (policy, c, counts) in [("Adjust", 3, "2,1,1,0"), ("Drop", 2, "2,0,2,0"), ("DeadLetter", 2, "2,0,1,1")] {
        let lane = Lane::new(&format!("poison_{}", policy.to_lowercase()), 1).await;
        let early = Sent { arrival: Some(at), ..event(json!({}), at + 400 * SECOND) };
        let behind = Sent { arrival: Some(at), ..event(json!({"late": 1}), at - 6 * SECOND) };
        lane.publish(&[behind, event(json!({}), at), early, event(json!({}), at)]).await;
        lane.tick(at + 100 * SECOND).await;
        let query = format!("SELECT COUNT(*) AS c {BY_TIME} GROUP BY TUMBLINGWINDOW(second, 100)");
        let ordering = format!("{{\"policy\":\"{policy}\"}}");
        let worker = lane.worker(&query, &[(ORDERING, &ordering), (BATCH_MESSAGES, "2")]).await;
        assert_eq!(lane.await_rows(1).await, [json!({ "c": c })], "{policy}");
        let counted = "SELECT concat_ws(',', on_time, adjusted, dropped, dead_lettered) FROM @.partition";
        assert_eq!(lane.ask(counted).await, counts, "{policy}");
        if policy == "DeadLetter" {
            let dead = lane.await_dead(1).await;
            assert_eq!(header(&dead[0], "x-drover-reason"), "Late");
        }
        worker.stop().await;
        lane.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_result_table_is_made_and_a_wrong_one_is_waited_for() {
    let lane = Lane::new("poison_table", 1).await;
    let at = 1_000_000 * SECOND;
    lane.sql("CREATE TABLE poison_table (other text)").await;
    lane.publish(&[event(json!({}), at)]).await;
    lane.tick(at + 100 * SECOND).await;
    let query = format!("SELECT COUNT(*) AS c {BY_TIME} GROUP BY TUMBLINGWINDOW(second, 10)");
    let worker = lane.worker(&query, &[]).await;
    worker.await_status("a table that does not fit", |s| s.holding.iter().any(|h| h.reason == "TableUnfit")).await;
    assert_eq!(worker.get("/readyz").await.0, 503);
    lane.sql("DROP TABLE poison_table").await;
    assert_eq!(lane.await_rows(1).await, [json!({"c": 1})]);
    let kind = "SELECT data_type FROM information_schema.columns WHERE table_name = 'poison_table'";
    assert_eq!(lane.ask(kind).await, "bigint");
    worker.await_status("ready", |s| s.ready && s.holding.is_empty()).await;
    assert!(
        worker.get("/metrics").await.1.contains("drover_query_events_total{partition=\"0\",outcome=\"on_time\"} 1")
    );
    worker.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_does_not_fit_for_a_while_costs_no_row_of_any_partition() {
    let lane = Lane::new("poison_column", 4).await;
    let worker = lane.worker("SELECT k, n FROM input", &[]).await;
    let events = |from: i32, to: i32| -> Vec<Sent> {
        (from..to).map(|n| Sent::new(n % 4, &json!({"k": "a", "n": n}), 1_000)).collect()
    };
    lane.publish(&events(0, 40)).await;
    lane.await_rows(40).await;
    lane.sql("ALTER TABLE poison_column RENAME COLUMN k TO other").await;
    for n in 40..80 {
        lane.publish(&events(n, n + 1)).await;
    }
    worker.await_status("held", |s| !s.holding.is_empty()).await;
    lane.publish(&events(80, 120)).await;
    lane.sql("ALTER TABLE poison_column RENAME COLUMN other TO k").await;
    assert_eq!(lane.await_rows(120).await.len(), 120);
    worker.stop().await;
    assert_eq!(lane.ask("SELECT sum(on_time) FROM @.partition").await, "120");
    lane.close().await;
}
