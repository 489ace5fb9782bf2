//! Window ends, ticks and backlogs.

use drover_worker::stream::settings::{BATCH_MESSAGES, TICK_MILLIS};
use serde_json::json;

use crate::{
    load::{self, QUERY, Random, assert_exact},
    surroundings::{Lane, Sent, now},
};

#[tokio::test(flavor = "multi_thread")]
async fn events_on_window_ends_are_exact_in_batches_of_one() {
    let lane = Lane::new("time_boundary", 2).await;
    let more = [(BATCH_MESSAGES, "1")];
    let worker = lane.worker(QUERY, &more).await;
    let mut random = Random(77);
    let from = now() / 20_000 * 20_000;
    for second in 0..12 {
        let end = from + second * 2_000;
        let mut sent = Vec::new();
        for _ in 0..10 {
            // On the end, a little before and a little after; some of them again once the watermark has reached it.
            let millis = end + [0, 0, 0, -1, 1][usize::try_from(random.below(5)).unwrap()];
            let body = json!({"t": millis, "k": format!("k{}", random.below(3)), "v": 1.5});
            sent.push(Sent::new(i32::try_from(random.below(2)).unwrap(), &body, millis.max(end)));
        }
        lane.publish(&sent).await;
        if second % 3 == 0 {
            // The watermark is then the end itself.
            lane.tick(end + 5_000).await;
            lane.publish(&[Sent::new(0, &json!({"t": end, "k": "k0", "v": 1.0}), end)]).await;
        }
    }
    assert_exact(&lane, QUERY, &more, from + 3_600_000).await;
    worker.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_has_the_rows_that_it_would_have_had() {
    let lane = Lane::new("time_backlog", 3).await;
    let mut random = Random(5);
    let from = now() - 600_000;
    let all = load::events(&mut random, from, 6_000, 10, 3);
    let (before, later) = all.split_at(1_000);
    lane.publish(before).await;
    let worker = lane.worker(QUERY, &[]).await;
    worker.await_status("all read", |s| s.partitions.iter().map(|p| p.next_offset).sum::<i64>() >= 1_000).await;
    worker.stop().await;
    lane.publish(later).await;
    let worker = lane.worker(QUERY, &[]).await;
    assert_exact(&lane, QUERY, &[], from + 3_600_000).await;
    worker.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_closes_windows() {
    let lane = Lane::new("time_silence", 2).await;
    let at = now();
    lane.publish(&[Sent::new(0, &json!({"k": "a"}), at)]).await;
    let query = "SELECT k, COUNT(*) AS c FROM input GROUP BY k, TUMBLINGWINDOW(second, 1)";
    let worker = lane.worker(query, &[(TICK_MILLIS, "200")]).await;
    assert_eq!(lane.await_rows(1).await, [json!({"k": "a", "c": 1})]);
    let status = worker.await_status("not open", |s| !s.open).await;
    assert!(status.partitions.iter().all(|p| p.read_at_millis.is_some_and(|read| read > at + 4_000)));
    worker.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_has_nothing_but_events_in_error_holds_no_window() {
    let lane = Lane::new("time_errors", 2).await;
    let at = now();
    lane.publish(&[Sent::new(0, &json!({"k": "a"}), at)]).await;
    let query = "SELECT k, COUNT(*) AS c FROM input GROUP BY k, TUMBLINGWINDOW(second, 1)";
    let worker = lane.worker(query, &[(TICK_MILLIS, "400")]).await;
    let broken = async {
        // More often than a tick is due after silence.
        loop {
            lane.publish(&[Sent { partition: 1, body: b"{".to_vec(), arrival: Some(now()) }]).await;
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        rows = lane.await_rows(1) => assert_eq!(rows, [json!({"k": "a", "c": 1})]),
        () = broken => {}
    }
    worker.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_somebody_else_is_no_tick() {
    use drover_worker::stream::TICK;
    use lapin::{
        BasicProperties,
        options::BasicPublishOptions,
        types::{AMQPValue, FieldTable},
    };
    let lane = Lane::new("time_forged", 1).await;
    let mut headers = FieldTable::default();
    headers.insert(TICK.into(), AMQPValue::LongLongInt(now()));
    let properties = BasicProperties::default().with_headers(headers).with_timestamp(1_000);
    let options = BasicPublishOptions::default();
    lane.channel.basic_publish("".into(), "time_forged-0".into(), options, b"{}", properties).await.unwrap();
    let query = "SELECT COUNT(*) AS c FROM input GROUP BY TUMBLINGWINDOW(second, 1)";
    let worker = lane.worker(query, &[]).await;
    let read = worker.await_status("one event", |s| s.partitions.first().is_some_and(|p| p.on_time == 1)).await;
    assert_eq!(read.partitions[0].watermark_millis, Some(1_000_000));
    worker.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_of_more_keys_than_a_transaction_closes_are_exact() {
    let lane = Lane::new("time_keys", 2).await;
    let from = now() / 20_000 * 20_000;
    let mut sent = Vec::new();
    for some in 0..48_i64 {
        let key = |n: i64| json!({"t": from + n % 7 * 1_000, "k": format!("k{}", (some * 500 + n) % 12_000), "v": 0.1});
        let events: Vec<serde_json::Value> = (0..500).map(key).collect();
        sent.push(Sent::new(i32::try_from(some % 2).unwrap(), &json!(events), from + 6_000));
    }
    lane.publish(&sent).await;
    let ordering = [(drover_worker::stream::settings::ORDERING, r#"{"lateArrivalSeconds":5,"outOfOrderSeconds":60}"#)];
    let worker = lane.worker(QUERY, &ordering).await;
    assert_exact(&lane, QUERY, &ordering, from + 3_600_000).await;
    worker.await_status("nothing open", |s| !s.open).await;
    assert_eq!(lane.ask("SELECT count(DISTINCT k) FROM time_keys WHERE kind = 'session'").await, "12000");
    worker.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_over_have_their_own_time_across_workers() {
    let lane = Lane::new("time_over", 1).await;
    let event = |k: &str, t: i64, arrival: i64| Sent::new(0, &json!({"k": k, "t": t * 1_000}), arrival * 1_000);
    let query = "SELECT k, COUNT(*) AS c, System.Timestamp() AS w
        FROM input TIMESTAMP BY DATEADD(millisecond, t, '1970-01-01T00:00:00Z') OVER k GROUP BY k, TUMBLINGWINDOW(second, 2)";
    lane.publish(&[event("a", 1_020, 1_020), event("b", 1_016, 1_020)]).await;
    let worker = lane.worker(query, &[]).await;
    worker.await_status("two events", |s| s.partitions.first().is_some_and(|p| p.on_time == 2)).await;
    worker.stop().await;
    // a is behind itself and moves to 1,020; b is not behind a.
    lane.publish(&[event("a", 1_018, 1_020), event("b", 1_018, 1_020)]).await;
    lane.tick(2_000_000).await;
    let worker = lane.worker(query, &[]).await;
    let mut rows: Vec<String> =
        lane.await_rows(3).await.iter().map(|r| format!("{} {} {}", r["k"], r["c"], r["w"])).collect();
    rows.sort();
    let w = |second: &str| format!("\"1970-01-01T00:{second}+00:00\"");
    assert_eq!(
        rows,
        [format!("\"a\" 2 {}", w("17:00")), format!("\"b\" 1 {}", w("16:56")), format!("\"b\" 1 {}", w("16:58"))]
    );
    assert_eq!(lane.ask("SELECT concat(on_time, '/', adjusted) FROM @.partition").await, "3/1");
    assert_eq!(lane.ask("SELECT count(*) FROM @.substream").await, "0");
    worker.stop().await;
    lane.close().await;
}
