//! Streams that are read while they are written.

use drover_worker::settings::POD;
use tokio_util::sync::CancellationToken;

use crate::{
    load::{self, QUERY, Random, assert_exact},
    surroundings::{Lane, now},
};

#[tokio::test(flavor = "multi_thread")]
async fn events_that_come_while_workers_take_turns_are_all_counted() {
    let name = "live_turns";
    let (lane, from, enough) = (Lane::new(name, 4).await, now(), CancellationToken::new());
    let done = enough.clone();
    let publishing = tokio::spawn(async move {
        let (publisher, mut random) = (Lane::again(name, 4).await, Random(7));
        while !done.is_cancelled() {
            for event in load::events(&mut random, now(), 50, 500, 4) {
                publisher.publish(&[event]).await;
            }
        }
    });
    let first = lane.worker(QUERY, &[]).await;
    for _ in 0..6 {
        let second = lane.worker(QUERY, &[(POD, "w2")]).await;
        second.await_status("half of all", |s| s.held.len() == 2).await;
        second.stop().await;
        first.await_status("all", |s| s.held.len() == 4).await;
    }
    enough.cancel();
    publishing.await.unwrap();
    assert_exact(&lane, QUERY, &[], from + 3_600_000).await;
    first.stop().await;
    lane.close().await;
}
