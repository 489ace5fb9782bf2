//! Two revisions at one queue.

use crate::surroundings::{APPEND, Lane, eventually};

const COLUMNS: &str = "message_id text PRIMARY KEY, n bigint";

#[tokio::test(flavor = "multi_thread")]
async fn the_higher_priority_takes_the_messages_and_the_lower_is_there_when_it_has_gone() {
    let lane = Lane::new("priority").await;
    lane.table(COLUMNS).await;
    let old = lane.worker(APPEND, &[("DROVER_REVISION", "old")]).await;
    lane.publish_numbered(0..100).await;
    old.await_done(100).await;
    let new = lane.worker(APPEND, &[("DROVER_REVISION", "new"), ("DROVER_CONSUMER_PRIORITY", "1")]).await;
    eventually("both consume", || async { (lane.consumers().await == 2).then_some(()) }).await;
    // Each when the one before is done: a worker begins with little credit, and what finds it used up goes to the other.
    for n in 100..400 {
        lane.publish_numbered(n..n + 1).await;
        eventually("it is done", || async {
            (old.status().await.processed + new.status().await.processed == n + 1).then_some(())
        })
        .await;
    }
    assert!(new.status().await.processed >= 285, "{:?}", new.status().await);
    new.stop().await;
    lane.publish_numbered(400..600).await;
    lane.await_rows(600).await;
    old.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_priority_below_zero_is_one_too() {
    let lane = Lane::new("priority-low").await;
    lane.table(COLUMNS).await;
    let low = lane.worker(APPEND, &[("DROVER_CONSUMER_PRIORITY", "-1")]).await;
    let usual = lane.worker(APPEND, &[]).await;
    eventually("both consume", || async { (lane.consumers().await == 2).then_some(()) }).await;
    for n in 0..100 {
        lane.publish_numbered(n..n + 1).await;
        lane.await_rows(n + 1).await;
    }
    usual.await_done(90).await;
    usual.stop().await;
    low.stop().await;
    lane.close().await;
}
