//! A new query text, and the old one again, under load: each window and key once.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use drover_worker::{
    settings::{POD, REVISION},
    stream::{
        schema::{self, Boundary},
        settings::{BATCH_MESSAGES, LEASE_SECONDS, TICK_MILLIS},
    },
};
use serde_json::json;

use crate::{
    load::{self, QUERY, Random, assert_exact},
    process::Process,
    surroundings::{Lane, Sent, eventually, now},
};

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

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_catches_up_counts_what_it_cannot_take_and_keeps_it_for_nobody() {
    let lane = Lane::new("revisions_dead", 1).await;
    let from = now() / SECOND * SECOND;
    let bad = || Sent { partition: 0, body: b"{".to_vec(), arrival: Some(from) };
    lane.publish(&[bad(), Sent::new(0, &json!({"k": "a"}), from)]).await;
    let old = lane.worker(&query("old"), &[(REVISION, "r1"), (POD, "a")]).await;
    assert_eq!(lane.await_dead(1).await.len(), 1);
    staged(&lane, "r1", "r2").await;
    let new = lane.worker(&query("new"), &[(REVISION, "r2"), (POD, "b")]).await;
    new.await_status("two events", |s| s.partitions.first().is_some_and(|p| p.on_time + p.dead_lettered == 2)).await;
    lane.publish(&[bad()]).await;
    // The old one has kept it when the new one has read it, or the other way round: once in any case.
    for worker in [&old, &new] {
        worker.await_status("two bad ones", |s| s.partitions[0].dead_lettered == 2).await;
    }
    old.await_status("nothing waits", |s| s.dead_letters_waiting == 0).await;
    assert_eq!(lane.await_dead(1).await.len(), 1);
    lane.tick(from + 20 * SECOND).await;
    handed_over(&lane, "r1", "r2").await;
    // Both read it, and the boundary is passed by neither.
    lane.publish(&[bad()]).await;
    for worker in [&old, &new] {
        worker.await_status("three bad ones", |s| s.partitions[0].dead_lettered == 3).await;
    }
    new.await_status("nothing waits", |s| s.dead_letters_waiting == 0).await;
    assert_eq!(lane.await_dead(1).await.len(), 1);
    lane.tick(from + 40 * SECOND).await;
    old.await_status("nothing open", |s| !s.open).await;
    old.stop().await;
    lane.publish(&[bad()]).await;
    assert_eq!(lane.await_dead(1).await.len(), 1);
    new.stop().await;
    assert_eq!(lane.take(&lane.dead()).await.len(), 0);
    lane.close().await;
}

const SHORT: [(&str, &str); 3] = [(BATCH_MESSAGES, "50"), (LEASE_SECONDS, "2"), (TICK_MILLIS, "300")];

/// Every kind of window, with the text that wrote the row.
fn every_window(text: &str) -> String {
    let sliding = "SELECT 'sliding' AS kind, k, System.Timestamp() AS w, COUNT(*) AS c, CAST(MAX(v) AS float) AS v INTO out FROM e
        GROUP BY k, SLIDINGWINDOW(second, 2) HAVING COUNT(*) > 20";
    format!("{QUERY}\n{sliding}")
        .replace(" AS kind,", &format!(" AS kind, '{text}' AS text,"))
        .replace("SESSIONWINDOW(second, 1, 20)", "SESSIONWINDOW(second, 1, 4)")
}

/// Two workers of each of two versions: one of those that are there is killed, again and again, and starts again.
async fn kill_for_ever(lane: &Lane, workers: &mut Vec<Process>, there: &AtomicUsize) {
    let mut random = Random(0x51_7c_c1_b7_27_22_0a_95);
    loop {
        let start = |n: usize| {
            let (text, revision) = if n < 2 { ("old", "r1") } else { ("new", "r2") };
            let pod = format!("pod-{n}");
            let more = [(REVISION, revision), (POD, pod.as_str()), SHORT[0], SHORT[1], SHORT[2]];
            Process::start(lane, &every_window(text), &more)
        };
        while workers.len() < there.load(Relaxed) {
            workers.push(start(workers.len()));
        }
        let at = usize::try_from(random.below(workers.len() as u64)).unwrap();
        tokio::time::sleep(Duration::from_millis(100 + random.below(400))).await;
        workers[at] = start(at);
    }
}

/// A boundary from one version to another, once it is passed.
async fn moved(lane: &Lane, old: &str, new: &str) -> i64 {
    let at = handed_over(lane, old, new).await;
    let schema = lane.schema();
    let passed = || async {
        let state = schema::look(&lane.owner, &schema, &lane.name).await.unwrap();
        state.emission.is_none_or(|e| e.passed).then_some(())
    };
    eventually("passed", passed).await;
    at
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_window_is_handed_over_and_back_under_kills() {
    let lane = Lane::new("revisions_kills", 2).await;
    // For longer than all of it takes: what is left then is not published, but for a little.
    let all = load::events(&mut Random(0x9e37_79b9_7f4a_7c15), now(), 60_000, 100, 2);
    let (mut workers, there) = (Vec::new(), AtomicUsize::new(2));
    let published = AtomicUsize::new(0);
    let publish = async {
        for some in all.chunks(20) {
            lane.publish(some).await;
            published.fetch_add(some.len(), Relaxed);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let moves = async {
        eventually("rows", || async { (lane.rows().await.len() > 100).then_some(()) }).await;
        staged(&lane, "r1", "r2").await;
        there.store(4, Relaxed);
        let first = moved(&lane, "r1", "r2").await;
        let kinds = "SELECT count(DISTINCT kind) FROM revisions_kills WHERE text = 'new'";
        eventually("every kind", || async { (lane.ask(kinds).await == "5").then_some(()) }).await;
        staged(&lane, "r2", "r1").await;
        (first, moved(&lane, "r2", "r1").await)
    };
    let disturbed = async {
        tokio::select! {
            () = kill_for_ever(&lane, &mut workers, &there) => unreachable!("it goes on for ever"),
            both = moves => both,
        }
    };
    let (first, second) = tokio::select! {
        () = publish => panic!("all is published before the text is the old one again"),
        both = disturbed => both,
    };
    // As the operator does it: workers first, then what they had in the store.
    for worker in workers.drain(2..) {
        assert!(worker.terminate().await);
    }
    schema::finish(&lane.owner, &lane.schema(), &lane.name, "r2").await.unwrap();
    // What was on its way when the publisher was given up may be there already: it counts as often as it is there.
    let rest = &all[published.load(Relaxed)..];
    lane.publish(&rest[..rest.len().min(1_000)]).await;
    assert_exact(&lane, &every_window("old"), &SHORT, now() + 3_600_000).await;
    let mut of: BTreeMap<String, [usize; 2]> = BTreeMap::new();
    for row in lane.rows().await {
        let end = drover_worker::query::parse_datetime(row["w"].as_str().unwrap()).unwrap();
        let text = if end <= first || end > second { "old" } else { "new" };
        assert_eq!(row["text"].as_str(), Some(text), "{row}: not as the boundaries {first} and {second} have it");
        of.entry(row["kind"].to_string()).or_default()[usize::from(text == "new")] += 1;
    }
    assert!(of.len() == 5 && of.values().flatten().all(|n| *n > 0), "{of:?}");
    for worker in workers {
        assert!(worker.terminate().await);
    }
    lane.close().await;
}
