//! Rows that are appended.

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};

use crate::surroundings::{APPEND, Lane, eventually, header};

const COLUMNS: &str = "message_id text PRIMARY KEY, n bigint";

#[tokio::test(flavor = "multi_thread")]
async fn each_message_is_one_row_and_is_acknowledged() {
    let lane = Lane::new("append-each").await;
    lane.table(COLUMNS).await;
    let worker = lane.worker(APPEND, &[]).await;
    lane.publish_numbered(0..2000).await;
    let status = worker.await_done(2000).await;
    assert_eq!((status.dead_lettered, status.held, status.revision.as_str()), (0, 0, "r1"));
    assert_eq!(lane.ask("SELECT count(*) || ' ' || sum(n) FROM \"append-each\"").await, "2000 1999000");
    assert_eq!(worker.get("/healthz").await.0, 200);
    assert_eq!(worker.get("/readyz").await.0, 200);
    let metrics = worker.get("/metrics").await.1;
    assert!(metrics.contains("drover_worker_messages_total{outcome=\"written\"} 2000"), "{metrics}");
    worker.stop().await;
    assert_eq!((lane.ready(&lane.name).await, lane.ready(&lane.dead()).await), (0, 0));
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_is_read_with_credit_that_grows_to_the_ceiling() {
    let lane = Lane::new("append-credit").await;
    lane.table(COLUMNS).await;
    lane.publish_numbered(0..5000).await;
    let worker = lane.worker(APPEND, &[]).await;
    // On a machine that is slow for a moment it takes more of them.
    let mut published = 5000;
    while !worker.get("/metrics").await.1.contains("drover_worker_prefetch 200") {
        assert!(published < 200_000, "the ceiling is never reached");
        lane.publish_numbered(published..published + 1000).await;
        published += 1000;
    }
    worker.await_done(published).await;
    assert_eq!(lane.count().await, published);
    worker.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_is_acknowledged_and_a_used_id_is_dead_lettered() {
    let lane = Lane::new("append-reuse").await;
    lane.table("message_id text PRIMARY KEY, n numeric(6,2), v varchar(8), t timestamptz(0)").await;
    let worker = lane.worker(APPEND, &[]).await;
    let say = |body: &'static str| lane.publish([("m".to_owned(), body.as_bytes())]);
    say(r#"{"n":1.234,"v":"a","t":"2026-01-02T03:04:05.6Z"}"#).await;
    worker.await_done(1).await;
    // The same once more, though the table has rounded it.
    say(r#"{"n":1.234,"v":"a","t":"2026-01-02T03:04:05.6Z"}"#).await;
    worker.await_done(2).await;
    assert_eq!(lane.dead_letters().await.len(), 0);
    say(r#"{"n":2,"v":"a","t":"2026-01-02T03:04:05.6Z"}"#).await;
    worker.await_done(3).await;
    let dead = lane.dead_letters().await;
    assert_eq!(dead.iter().map(|d| header(d, "x-drover-reason")).collect::<Vec<_>>(), ["IdReused"]);
    assert_eq!(lane.ask("SELECT string_agg(n || v, ',') FROM \"append-reuse\"").await, "1.23a");
    worker.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_messages_with_one_id_in_a_batch_one_is_written() {
    let lane = Lane::new("append-twins").await;
    lane.table(COLUMNS).await;
    // All of them wait, so that they come in one batch.
    let bodies: Vec<String> = (0..10).map(|n| format!("{{\"n\":{n}}}")).collect();
    lane.publish(bodies.iter().map(|body| ("m".to_owned(), body.as_bytes()))).await;
    lane.publish([("m".to_owned(), &b"{\"n\":0}"[..])]).await;
    let worker = lane.worker(APPEND, &[("DROVER_CONCURRENCY", "1")]).await;
    let status = worker.await_done(11).await;
    assert_eq!((status.processed, status.dead_lettered), (2, 9));
    assert_eq!(lane.ask("SELECT string_agg(n::text, ',') FROM \"append-twins\"").await, "0");
    worker.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_messages_with_one_id_in_different_statements_one_is_written_and_others_are_dead_lettered() {
    let lane = Lane::new("append-apart").await;
    lane.table("message_id text PRIMARY KEY, n bigint, d bigint DEFAULT 9").await;
    let bodies = [
        ("used", r#"{"n":1}"#),
        ("used", r#"{"n":1,"d":2}"#),
        ("used", r#"{"n":3}"#),
        ("same", r#"{"n":1}"#),
        ("same", r#"{"n":1,"d":9}"#),
    ];
    lane.publish(bodies.iter().map(|(id, body)| ((*id).to_owned(), body.as_bytes()))).await;
    let worker = lane.worker(APPEND, &[("DROVER_CONCURRENCY", "1")]).await;
    let status = worker.await_done(5).await;
    assert_eq!((status.processed, status.dead_lettered), (3, 2));
    let dead: Vec<Vec<u8>> = lane.dead_letters().await.into_iter().map(|letter| letter.delivery.data).collect();
    assert_eq!(dead.len(), 2);
    assert!(bodies[1..3].iter().all(|(_, body)| dead.iter().any(|letter| letter == body.as_bytes())));
    assert_eq!(
        lane.ask("SELECT string_agg(concat(message_id, n, d), ' ' ORDER BY message_id) FROM \"append-apart\"").await,
        "same19 used19"
    );
    worker.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_was_here_before_never_reuses_its_own_id() {
    let lane = Lane::new("append-returned").await;
    lane.table(COLUMNS).await;
    lane.sql("INSERT INTO \"append-returned\" VALUES ('m', 1)").await;
    let worker = lane.worker(APPEND, &[]).await;
    let mut headers = FieldTable::default();
    headers.insert("x-drover-returned".into(), AMQPValue::LongLongInt(1));
    let properties = BasicProperties::default().with_message_id("m".into()).with_headers(headers);
    lane.publish_with([(properties, &b"{\"n\":2}"[..])]).await;
    let status = worker.await_done(1).await;
    assert_eq!((status.processed, status.dead_lettered), (1, 0));
    worker.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn absent_fields_take_defaults_and_null_does_not() {
    let lane = Lane::new("append-defaults").await;
    lane.table("message_id text PRIMARY KEY, a int DEFAULT 7, b text DEFAULT 'x', c int, s bigserial, tags jsonb, l int[], at timestamptz, docs jsonb[]")
        .await;
    // Of this table alone: a grant on all sequences fails while another test drops its own.
    lane.sql("GRANT USAGE ON SEQUENCE \"append-defaults_s_seq\" TO drover_worker").await;
    let bodies = [
        "{}",
        r#"{"a":null,"c":1}"#,
        r#"{"b":"y","A":3}"#,
        r#"{"a":5,"b":null,"tags":{"k":[1,2]},"l":[1,null,3],"at":1767323045678,"docs":["a",{"b":[1]}]}"#,
    ];
    lane.publish(bodies.iter().enumerate().map(|(n, body)| (n.to_string(), body.as_bytes()))).await;
    let worker = lane.worker(APPEND, &[("DROVER_CONCURRENCY", "1")]).await;
    worker.await_done(4).await;
    let rows = lane
        .ask(
            "SELECT string_agg(concat_ws('|', message_id, coalesce(a::text, '-'), coalesce(b, '-'), coalesce(c::text, '-'), s IS NOT NULL,
                tags, l, at AT TIME ZONE 'UTC', docs[1], docs[2]), E'\n' ORDER BY message_id) FROM \"append-defaults\"",
        )
        .await;
    assert_eq!(
        rows,
        "0|7|x|-|t\n1|-|x|1|t\n2|3|y|-|t\n3|5|-|-|t|{\"k\": [1, 2]}|{1,NULL,3}|2026-01-02 03:04:05.678|\"a\"|{\"b\": [1]}"
    );
    worker.stop().await;
    lane.close().await;
}

const EVENTS: &str = "SELECT e.ArrayValue.v AS n FROM input CROSS APPLY GetArrayElements(input.list) AS e";

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_message_are_all_written_or_none() {
    let lane = Lane::new("append-rows").await;
    lane.table("message_id text PRIMARY KEY, n int CHECK (n < 100)").await;
    lane.sql("INSERT INTO \"append-rows\" VALUES ('used/1', 55)").await;
    let bodies = [
        ("good", r#"{"list":[{"v":1},{"v":2},{"v":3}]}"#),
        ("bad", r#"{"list":[{"v":4},{"v":500},{"v":6}]}"#),
        ("used", r#"{"list":[{"v":7},{"v":8}]}"#),
        ("none", r#"{"list":[]}"#),
        ("last", r#"{"list":[{"v":9}]}"#),
    ];
    lane.publish(bodies.iter().map(|(id, body)| ((*id).to_owned(), body.as_bytes()))).await;
    let worker = lane.worker(APPEND, &[("DROVER_TRANSFORM_QUERY", EVENTS), ("DROVER_CONCURRENCY", "1")]).await;
    let status = worker.await_done(5).await;
    assert_eq!((status.processed, status.dead_lettered), (3, 2));
    let rows =
        lane.ask("SELECT string_agg(message_id || '=' || n, ' ' ORDER BY message_id) FROM \"append-rows\"").await;
    assert_eq!(rows, "good=1 good/1=2 good/2=3 last=9 used/1=55");
    let mut reasons: Vec<String> = lane.dead_letters().await.iter().map(|d| header(d, "x-drover-reason")).collect();
    reasons.sort();
    assert_eq!(reasons, ["CheckViolation", "IdReused"]);
    worker.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_column_is_noticed_after_a_fault_and_unknown_fields_are_counted() {
    let lane = Lane::new("append-unknown").await;
    lane.table(COLUMNS).await;
    let worker = lane.worker(APPEND, &[]).await;
    lane.publish([("a".to_owned(), &b"{\"n\":1,\"x\":2,\"y\":3}"[..])]).await;
    worker.await_done(1).await;
    assert!(worker.get("/metrics").await.1.contains("drover_worker_unknown_fields_total 2"));
    worker.stop().await;
    let strict = r#"{"postgres":{"table":"TABLE","idColumn":"message_id","unknownFields":"DeadLetter"}}"#;
    let worker = lane.worker(strict, &[]).await;
    lane.publish([("b".to_owned(), &b"{\"n\":1,\"x\":2}"[..])]).await;
    worker.await_done(1).await;
    assert_eq!(header(&lane.dead_letters().await[0], "x-drover-reason"), "UnknownField");
    worker.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_costs_no_message_and_doubles_none() {
    let lane = Lane::new("append-lost").await;
    lane.table(COLUMNS).await;
    // Slow enough to be cut midway.
    let worker = lane.worker(APPEND, &[("DROVER_SOURCE_PREFETCH", "20"), ("DROVER_CONCURRENCY", "2")]).await;
    for begin in [0, 2000, 4000] {
        lane.publish_numbered(begin..begin + 2000).await;
        eventually("a connection to cut", || async { lane.cut().await.then_some(()) }).await;
    }
    lane.await_rows(6000).await;
    eventually("an empty queue", || async {
        let status = worker.status().await;
        (lane.ready(&lane.name).await == 0 && status.in_flight + status.held == 0).then_some(())
    })
    .await;
    assert!(!worker.get("/metrics").await.1.contains("drover_worker_hub_reconnects_total 0"));
    assert_eq!(lane.dead_letters().await.len(), 0);
    worker.stop().await;
    assert_eq!(lane.ready(&lane.name).await, 0);
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_ends_the_session_and_a_new_one_is_read() {
    let lane = Lane::new("append-deleted").await;
    lane.table(COLUMNS).await;
    let worker = lane.worker(APPEND, &[]).await;
    lane.publish_numbered(0..1).await;
    worker.await_done(1).await;
    lane.channel.queue_delete(lane.name.as_str().into(), lapin::options::QueueDeleteOptions::default()).await.unwrap();
    eventually("not ready", || async { (worker.get("/readyz").await.0 == 503).then_some(()) }).await;
    lane.declare_source("quorum").await;
    lane.publish_numbered(1..2).await;
    worker.await_done(2).await;
    assert!(!worker.get("/metrics").await.1.contains("drover_worker_hub_reconnects_total 0"));
    worker.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_classic_queue_is_read() {
    let lane = Lane::bare("append-classic").await;
    lane.declare_queue("append-classic", "classic").await;
    lane.table("message_id bigint PRIMARY KEY, n int").await;
    let worker = lane.worker(APPEND, &[("DROVER_SOURCE_ADOPT", "true"), ("DROVER_SOURCE_ID", "$.n")]).await;
    let bodies: Vec<String> = (0..300).map(|n| format!("{{\"n\":{n}}}")).collect();
    lane.publish_with(bodies.iter().map(|body| (BasicProperties::default(), body.as_bytes()))).await;
    worker.await_done(300).await;
    assert_eq!(lane.count().await, 300);
    worker.stop().await;
    assert_eq!(lane.ready("append-classic").await, 0);
    lane.close().await;
}
