//! A new query text, and the old one again, under load: each window and key once.

use std::collections::BTreeMap;

use drover_worker::{
    settings::{POD, REVISION},
    stream::schema::{self, Boundary},
};
use serde_json::json;

use crate::surroundings::{Lane, Sent, eventually, now};

const SECOND: i64 = 1_000;

fn query(text: &str) -> String {
    format!(
        "SELECT '{text}' AS text, k, System.Timestamp() AS w, COUNT(*) AS c FROM input GROUP BY k, TUMBLINGWINDOW(second, 1)"
    )
}

/// One event a window and key.
fn events(from: i64, seconds: std::ops::Range<i64>) -> Vec<Sent> {
    let event =
        |s: i64, k: i64| Sent::new(i32::try_from(k).unwrap() % 2, &json!({"k": format!("k{k}")}), from + s * SECOND);
    seconds.flat_map(|s| (0..4).map(move |k| event(s, k))).collect()
}

async fn staged(lane: &Lane, old: &str, new: &str) {
    let schema = lane.schema();
    let staged = || async { schema::stage(&lane.owner, &schema, &lane.name, old, new).await.unwrap().then_some(()) };
    eventually("staged", staged).await;
}

async fn handed_over(lane: &Lane, old: &str, new: &str) -> i64 {
    let schema = lane.schema();
    let drawn = || async {
        match schema::hand_over(&lane.owner, &schema, &lane.name, old, new).await.unwrap() {
            Boundary::At(at) => Some(at),
            Boundary::NotYet => None,
        }
    };
    eventually("a boundary", drawn).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_text_takes_over_at_a_boundary_and_the_old_one_again() {
    let lane = Lane::new("revisions", 2).await;
    let from = now() / SECOND * SECOND;
    let old = lane.worker(&query("old"), &[(REVISION, "r1"), (POD, "a")]).await;
    lane.publish(&events(from, 0..20)).await;
    eventually("old rows", || async { (lane.rows().await.len() >= 20).then_some(()) }).await;
    staged(&lane, "r1", "r2").await;
    let new = lane.worker(&query("new"), &[(REVISION, "r2"), (POD, "b")]).await;
    lane.publish(&events(from, 20..40)).await;
    let first = handed_over(&lane, "r1", "r2").await;
    lane.publish(&events(from, 40..60)).await;
    eventually("new rows", || async { lane.rows().await.iter().any(|r| r["text"] == "new").then_some(()) }).await;
    // Back: the old text under the revision that still runs.
    staged(&lane, "r2", "r1").await;
    let second = handed_over(&lane, "r2", "r1").await;
    lane.publish(&events(from, 60..80)).await;
    lane.tick(from + 3_600 * SECOND).await;
    let rows = eventually("all rows", || async { Some(lane.rows().await).filter(|rows| rows.len() >= 320) }).await;
    for worker in [&old, &new] {
        worker.await_status("nothing open", |s| !s.open).await;
    }
    assert!(first < second);
    assert_eq!(lane.rows().await.len(), 320);
    let mut seen = BTreeMap::new();
    for row in &rows {
        let end = drover_worker::query::parse_datetime(row["w"].as_str().unwrap()).unwrap();
        let text = if end <= first || end > second { "old" } else { "new" };
        assert_eq!((row["text"].as_str(), row["c"].as_i64()), (Some(text), Some(1)), "{row}");
        *seen.entry((end, row["k"].to_string())).or_insert(0) += 1;
    }
    assert!(seen.len() == 320 && seen.values().all(|n| *n == 1));
    old.stop().await;
    new.stop().await;
    lane.close().await;
}
