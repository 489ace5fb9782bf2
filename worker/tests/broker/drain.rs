//! How a worker stops.

use std::time::{Duration, Instant};

use crate::surroundings::{APPEND, Lane, eventually, header};

const COLUMNS: &str = "message_id text PRIMARY KEY, n bigint";

#[expect(clippy::disallowed_methods, reason = "a test measures time")]
fn now() -> Instant {
    Instant::now()
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_finishes_what_runs_and_returns_the_rest() {
    let lane = Lane::new("drain-returns").await;
    lane.table(COLUMNS).await;
    let worker = lane.worker(APPEND, &[("DROVER_CONCURRENCY", "1"), ("DROVER_SOURCE_PREFETCH", "300")]).await;
    lane.publish_numbered(0..1).await;
    worker.await_done(1).await;
    // The next batch waits for the table, and what comes after it waits for the batch.
    lane.sql("BEGIN; LOCK TABLE \"drain-returns\" IN SHARE MODE").await;
    lane.publish_numbered(1..2).await;
    eventually("a batch of one", || async { (worker.status().await.in_flight == 1).then_some(()) }).await;
    lane.publish_numbered(2..1001).await;
    eventually("messages held", || async { (worker.status().await.held > 0).then_some(()) }).await;
    tokio::join!(worker.stop(), async {
        eventually("the rest is back", || async { (lane.ready(&lane.name).await == 999).then_some(()) }).await;
        lane.sql("COMMIT").await;
    });
    let written = lane.count().await;
    let left = lane.take(&lane.name).await;
    assert_eq!(written + left.len() as u64, 1001, "each message is a row or in the queue, once");
    assert_eq!(written, 2, "what runs is finished");
    assert!(left.iter().any(|m| header(m, "x-drover-returned") == "1"));
    assert!(left.iter().all(|m| !m.redelivered), "nothing was left to the broker to requeue");
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_while_the_sink_is_down_returns_everything_at_once() {
    let lane = Lane::new("drain-holding").await;
    lane.table(COLUMNS).await;
    let worker = lane.worker(APPEND, &[("DROVER_GRACE_SECONDS", "30")]).await;
    lane.publish_numbered(0..1).await;
    worker.await_done(1).await;
    lane.sql("REVOKE INSERT ON \"drain-holding\" FROM drover_worker").await;
    lane.publish_numbered(1..200).await;
    worker.await_holding("PrivilegeMissing").await;
    let begin = now();
    worker.stop().await;
    assert!(now().duration_since(begin) < Duration::from_secs(10));
    let left = lane.take(&lane.name).await;
    assert_eq!(left.len(), 199);
    assert!(left.iter().all(|m| !m.redelivered));
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_queue_gets_its_messages_back_too() {
    let lane = Lane::bare("drain-adopted").await;
    lane.declare_queue("drain-adopted", "classic").await;
    lane.sql("DROP TABLE IF EXISTS \"drain-adopted\"").await;
    let worker = lane.worker(APPEND, &[("DROVER_SOURCE_ADOPT", "true")]).await;
    lane.publish_numbered(0..100).await;
    worker.await_holding("TableNotFound").await;
    eventually("a message taken", || async { (lane.ready("drain-adopted").await < 100).then_some(()) }).await;
    worker.stop().await;
    // The broker requeues in its own time.
    eventually("all of it back", || async { (lane.ready("drain-adopted").await == 100).then_some(()) }).await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: a worker holds for a minute before it gives its messages back"]
async fn after_a_minute_of_holding_messages_go_back_once_and_the_worker_waits_without_a_consumer() {
    let lane = Lane::new("drain-minute").await;
    lane.table(COLUMNS).await;
    let worker = lane.worker(APPEND, &[]).await;
    lane.publish_numbered(0..10).await;
    worker.await_done(10).await;
    lane.sql("REVOKE INSERT ON \"drain-minute\" FROM drover_worker").await;
    lane.publish_numbered(10..110).await;
    worker.await_holding("PrivilegeMissing").await;
    // Longer than anything else here is waited for: twice is enough for a minute.
    for _ in 0..2 {
        let gone = async { lane.consumers().await == 0 };
        if gone.await {
            break;
        }
        let _ = tokio::time::timeout(
            Duration::from_secs(39),
            eventually("no consumer", || async { (lane.consumers().await == 0).then_some(()) }),
        )
        .await;
    }
    eventually("all of it back in the queue", || async { (lane.ready(&lane.name).await == 100).then_some(()) }).await;
    assert_eq!(lane.consumers().await, 0);
    let status = worker.status().await;
    assert!(status.consuming && status.holding.is_some_and(|h| h.since_seconds >= 60));
    assert_eq!(worker.get("/readyz").await.0, 200);
    lane.sql("GRANT INSERT ON \"drain-minute\" TO drover_worker").await;
    lane.await_rows(110).await;
    assert_eq!(lane.dead_letters().await.len(), 0);
    worker.stop().await;
    assert_eq!(lane.ready(&lane.name).await, 0);
    lane.close().await;
}
