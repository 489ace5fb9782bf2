//! Hub and store that end and come back. One test, since all others share them.

use std::process::Command;

use crate::surroundings::{APPEND, Lane, env, eventually};

fn control(service: &str, what: &str) {
    let status =
        Command::new(env("DROVER_TEST_CTL")).args([env("DROVER_TEST_SET").as_str(), service, what]).status().unwrap();
    assert!(status.success(), "{service} {what}");
}

/// The store does not answer; other tests need it afterwards, whatever becomes of this one.
struct Suspended;

impl Suspended {
    fn new() -> Self {
        control("postgres", "suspend");
        Self
    }
}

impl Drop for Suspended {
    fn drop(&mut self) {
        control("postgres", "resume");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: restarts the hub and the store that all tests share"]
async fn a_restart_of_hub_or_store_costs_no_message_and_doubles_none() {
    let lane = Lane::new("restarts").await;
    lane.table("message_id text PRIMARY KEY, n bigint").await;
    let worker = lane.worker(APPEND, &[]).await;
    lane.publish_numbered(0..20_000).await;
    eventually("some rows", || async { (lane.count().await > 500).then_some(()) }).await;
    control("rabbitmq", "restart");
    drop(lane);
    let lane = Lane::again("restarts").await;
    lane.await_rows(20_000).await;
    lane.publish_numbered(20_000..30_000).await;
    control("postgres", "restart");
    drop(lane);
    let lane = Lane::again("restarts").await;
    lane.await_rows(30_000).await;
    {
        let _suspended = Suspended::new();
        lane.publish_numbered(30_000..31_000).await;
        eventually("holding", || async { worker.status().await.holding.map(drop) }).await;
    }
    lane.await_rows(31_000).await;
    eventually("an empty queue", || async {
        let status = worker.status().await;
        (lane.ready(&lane.name).await == 0 && status.in_flight + status.held == 0).then_some(())
    })
    .await;
    worker.stop().await;
    assert_eq!((lane.ready(&lane.name).await, lane.ready(&lane.dead()).await), (0, 0));
    lane.close().await;
}
