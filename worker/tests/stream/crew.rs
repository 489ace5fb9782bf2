//! Several workers, more partitions, streams that are others than before.

use drover_worker::{
    settings::POD,
    stream::{
        schema,
        settings::{BATCH_MESSAGES, LEASE_SECONDS, OUTPUTS, SINK},
        status::QueryStatus,
    },
};
use serde_json::json;

use crate::{
    load::{self, QUERY, Random, assert_exact},
    surroundings::{Lane, Sent, eventually, now},
};

#[tokio::test(flavor = "multi_thread")]
async fn one_worker_then_four_then_one_have_the_rows_of_one() {
    let lane = Lane::new("crew_scale", 4).await;
    let more = [(BATCH_MESSAGES, "100")];
    let mut random = Random(11);
    let from = now();
    let all = load::events(&mut random, from, 6_000, 250, 4);
    let first = lane.worker(QUERY, &more).await;
    lane.publish(&all[..2_000]).await;
    let mut others = Vec::new();
    for pod in ["w2", "w3", "w4"] {
        others.push(lane.worker(QUERY, &[(POD, pod), more[0]]).await);
    }
    lane.publish(&all[2_000..4_000]).await;
    let began = now();
    for worker in others.iter().chain([&first]) {
        worker.await_status("one partition each", |s| s.held.len() == 1).await;
    }
    assert!(now() - began < 10_000);
    for worker in others {
        worker.stop().await;
    }
    first.await_status("all partitions", |s| s.held.len() == 4).await;
    lane.publish(&all[4_000..]).await;
    assert_exact(&lane, QUERY, &more, from + 3_600_000).await;
    first.stop().await;
    assert_eq!(lane.ask("SELECT count(*) FROM @.partition WHERE owner IS NOT NULL").await, "0");
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_goes_leaves_no_lease_even_where_it_could_not_read() {
    let lane = Lane::new("crew_leave", 1).await;
    lane.delete_stream(0).await;
    let worker = lane.worker(QUERY, &[]).await;
    worker.await_status("no stream", |s| s.holding.iter().any(|h| h.reason == "StreamNotFound")).await;
    worker.stop().await;
    assert_eq!(lane.ask("SELECT count(*) FROM @.partition WHERE owner IS NULL").await, "1");
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_may_grow_and_the_rows_are_exact() {
    let mut lane = Lane::new("crew_grow", 2).await;
    let mut random = Random(3);
    let from = now();
    let worker = lane.worker(QUERY, &[]).await;
    lane.publish(&load::events(&mut random, from, 1_000, 100, 2)).await;
    eventually("something closed", || async { (!lane.rows().await.is_empty()).then_some(()) }).await;
    worker.stop().await;
    for part in 2..4 {
        lane.declare_stream(part).await;
    }
    lane.partitions = 4;
    let worker = lane.worker(QUERY, &[]).await;
    worker.await_status("four partitions", |s| s.partitions.len() == 4).await;
    lane.publish(&load::events(&mut random, from + 10_000, 1_000, 100, 4)).await;
    assert_exact(&lane, QUERY, &[], from + 3_600_000).await;
    worker.stop().await;
    lane.partitions = 2;
    let worker = lane.worker(QUERY, &[]).await;
    worker.await_status("a refusal", |s| s.holding.iter().any(|h| h.reason == "PartitionsShrunk")).await;
    worker.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_declared_anew_is_read_from_its_beginning_and_reported() {
    let lane = Lane::new("crew_anew", 1).await;
    let query = "SELECT k, COUNT(*) AS c FROM input GROUP BY k, TUMBLINGWINDOW(second, 1)";
    let events = |k: &str, n: i64| -> Vec<Sent> { (0..n).map(|_| Sent::new(0, &json!({"k": k}), 1_000)).collect() };
    lane.publish(&events("a", 50)).await;
    let worker = lane.worker(query, &[]).await;
    worker.await_status("fifty", |s| s.partitions.first().is_some_and(|p| p.on_time == 50)).await;
    lane.delete_stream(0).await;
    worker.await_status("no stream", |s| s.holding.iter().any(|h| h.reason == "StreamNotFound")).await;
    lane.declare_stream(0).await;
    lane.publish(&events("b", 10)).await;
    let status = worker.await_status("sixty", |s| s.partitions[0].on_time == 60).await;
    assert_eq!((status.partitions[0].generation, status.partitions[0].lost), (1, 1));
    lane.tick(100_000).await;
    assert_eq!(lane.await_rows(2).await.len(), 2);
    worker.stop().await;
    lane.close().await;
}

const COUNT: &str = "SELECT COUNT(*) AS c FROM input GROUP BY TUMBLINGWINDOW(second, 1)";

/// A stream that keeps little.
async fn short_lane(name: &str) -> Lane {
    let lane = Lane::new(name, 1).await;
    lane.delete_stream(0).await;
    lane.declare_short_stream(0, 100_000).await;
    lane
}

/// Events that soon fill it.
fn large_events(n: usize) -> Vec<Sent> {
    (0..n).map(|_| Sent::new(0, &json!({"x": "y".repeat(4_000)}), 1_000)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_took_before_it_was_read_is_told_as_a_loss() {
    let lane = short_lane("crew_retention").await;
    lane.publish(&large_events(10)).await;
    let worker = lane.worker(COUNT, &[]).await;
    worker.await_status("ten", |s| s.partitions.first().is_some_and(|p| p.on_time == 10)).await;
    worker.stop().await;
    let next: i64 = lane.ask("SELECT next_offset FROM @.partition").await.parse().unwrap();
    // Whole segments go, and only as others begin.
    for _ in 0..20 {
        lane.publish(&large_events(10)).await;
    }
    let first =
        eventually("something is gone", || async { Some(lane.first_offset(0).await).filter(|f| *f > next) }).await;
    let worker = lane.worker(COUNT, &[]).await;
    let status = worker.await_status("a loss", |s| s.partitions.first().is_some_and(|p| p.lost > 0)).await;
    assert!(status.partitions[0].lost >= first - next && status.partitions[0].lost_at_seconds.is_some(), "{status:?}");
    // Reading goes on with what is there, and all else is told. Segments take offsets too, so more may be told than messages are gone.
    lane.tick(100_000).await;
    let read = lane.await_rows(1).await.remove(0)["c"].as_i64().unwrap();
    let held = lane.read_until(0, 100_000).await.iter().filter(|d| !d.data.is_empty()).count();
    let lost = lane.ask("SELECT lost FROM @.partition").await.parse::<i64>().unwrap();
    assert!(read >= 10 + i64::try_from(held).unwrap() && (10..210).contains(&read), "{read} of them, {held} are there");
    assert!(read + lost >= 210, "{read} read and {lost} lost");
    worker.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_took_before_anything_was_read_is_a_loss_where_the_stream_was_the_querys_from_its_beginning() {
    for (name, fresh) in [("crew_unread", true), ("crew_found", false)] {
        let lane = short_lane(name).await;
        if fresh {
            schema::migrate(&lane.owner, &lane.schema(), None).await.unwrap();
            schema::begin(&lane.owner, &lane.schema(), (name, "r1"), 1, &[0], &[]).await.unwrap();
        }
        for _ in 0..20 {
            lane.publish(&large_events(10)).await;
        }
        eventually("something is gone", || async { (lane.first_offset(0).await > 0).then_some(()) }).await;
        let worker = lane.worker(COUNT, &[]).await;
        let read = |s: &QueryStatus| s.partitions.first().is_some_and(|p| p.on_time > 0 && p.next_offset >= 200);
        let status = worker.await_status("all of it read", read).await;
        assert_eq!(status.partitions[0].lost > 0, fresh, "{status:?}");
        worker.stop().await;
        lane.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_took_under_a_reader_is_told_as_a_loss() {
    let lane = short_lane("crew_overtaken").await;
    lane.publish(&large_events(10)).await;
    // Few messages are on their way to the worker.
    let worker = lane.worker(COUNT, &[(BATCH_MESSAGES, "1"), (LEASE_SECONDS, "60")]).await;
    worker.await_status("ten", |s| s.partitions.first().is_some_and(|p| p.on_time == 10)).await;
    let mut blocker = Lane::stranger().await;
    let lock = blocker.transaction().await.unwrap();
    lock.batch_execute(&format!("LOCK TABLE \"{}\".partial IN SHARE MODE", lane.schema())).await.unwrap();
    for _ in 0..40 {
        lane.publish(&large_events(10)).await;
    }
    eventually("something is gone", || async { (lane.first_offset(0).await > 300).then_some(()) }).await;
    lock.rollback().await.unwrap();
    lane.tick(100_000).await;
    let read = lane.await_rows(1).await.remove(0)["c"].as_i64().unwrap();
    let lost = lane.ask("SELECT lost FROM @.partition").await.parse::<i64>().unwrap();
    assert!(read < 410 && read + lost >= 410, "{read} read and {lost} lost");
    worker.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_make_the_tables_at_once_and_another_clusters_are_refused() {
    let lane = Lane::new("crew_schema", 1).await;
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(Lane::client().await);
    }
    let name = lane.schema();
    let all = futures::future::join_all(clients.iter().map(|c| schema::migrate(c, &name, Some("one")))).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    schema::migrate(&clients[0], &name, None).await.unwrap();
    let refused = schema::migrate(&clients[0], &name, Some("two")).await.unwrap_err();
    assert_eq!(refused.reason(), "OtherCluster");
    lane.sql(&format!("UPDATE \"{name}\".meta SET schema_version = 99")).await;
    assert_eq!(schema::migrate(&clients[0], &name, None).await.unwrap_err().reason(), "SchemaTooNew");
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_for_the_hub_are_relayed_with_ids_of_their_own() {
    let lane = Lane::new("crew_hub", 1).await;
    lane.declare("crew_hub.out", "quorum", "out.a").await;
    lane.publish(&[Sent::new(0, &json!({"k": "a"}), 1_000), Sent::new(0, &json!({"k": {}}), 1_000)]).await;
    lane.tick(100_000).await;
    let query = "SELECT k, COUNT(*) AS c FROM input GROUP BY k, TUMBLINGWINDOW(second, 1)";
    let sink = format!(r#"{{"hub":{{"exchange":"{}","routingKey":"out.{{k}}"}}}}"#, lane.exchange());
    let worker = lane.worker(query, &[(SINK, &sink)]).await;
    lane.await_dead(1).await;
    let out = eventually("a row", || async { lane.take("crew_hub.out").await.pop() }).await;
    assert_eq!(out.data, br#"{"k":"a","c":1}"#);
    assert_eq!(out.properties.message_id().as_ref().unwrap().as_str().len(), 32);
    worker.await_status("nothing waits", |s| s.rows_waiting == 0 && s.dead_letters_waiting == 0).await;
    worker.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_no_queue_takes_hold_up_no_others_and_go_once_one_does() {
    let lane = Lane::new("crew_stuck", 1).await;
    lane.declare("crew_stuck.out", "quorum", "out").await;
    let to = |exchange: &str, key: &str| json!({"hub": {"exchange": exchange, "routingKey": key}});
    let query = "SELECT n INTO missing FROM input SELECT n INTO nowhere FROM input SELECT n INTO good FROM input";
    let outputs = json!({
        "missing": to("crew_stuck.missing", "a"), "nowhere": to(&lane.exchange(), "nowhere"), "good": to(&lane.exchange(), "out")
    });
    // More than are relayed at once, in the order of the outputs.
    let events: Vec<Sent> = (0..250).map(|n| Sent::new(0, &json!({"n": n}), 1_000)).collect();
    lane.publish(&events).await;
    let worker = lane.worker(query, &[(OUTPUTS, &outputs.to_string())]).await;
    let mut seen = 0;
    while seen < 250 {
        seen += eventually("more rows", || async { Some(lane.take("crew_stuck.out").await.len()).filter(|n| *n > 0) })
            .await;
    }
    worker.await_status("the others wait", |s| s.rows_waiting == 500).await;
    worker.await_status("it is told", |s| s.holding.iter().any(|h| h.stage == "relay")).await;
    worker.stop().await;
    // Another text, without these outputs: what waits for them goes all the same.
    lane.declare("crew_stuck.out", "quorum", "nowhere").await;
    let worker = lane.worker("SELECT n FROM input", &[]).await;
    worker.await_status("those of one output went", |s| s.rows_waiting == 250).await;
    worker.stop().await;
    lane.close().await;
}
