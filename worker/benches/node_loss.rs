//! Node loss: sixteen workers with 200 messages each are gone at once, and none of the messages is to blame. All 3,200 go by the workers
//! for suspects, beside as many that are fresh and the same number of workers. A handler takes its time for each, as whoever has a
//! handler has work for it. Needs the hub and store of the tests. Its last line is JSON.

use std::time::{Duration, Instant};

#[path = "../tests/services/reach.rs"]
mod reach;
#[path = "../tests/broker/surroundings.rs"]
#[expect(dead_code, reason = "tests need more of it")]
mod surroundings;
#[path = "../tests/services/variables.rs"]
mod variables;

use axum::Router;
use futures::future::{join_all, try_join_all};
use surroundings::{APPEND, Lane, Worker, eventually, hold};
use tokio::net::TcpListener;

const WORKERS: u32 = 16;
const EACH: u32 = 200;
const MESSAGES: u64 = WORKERS as u64 * EACH as u64;
/// What the handler does with a message.
const WORK: Duration = Duration::from_millis(20);
const RUNS: usize = 3;
const AIM: f64 = 2.0;

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn now() -> Instant {
    Instant::now()
}

/// A handler that takes its time; its port.
async fn handler() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port().to_string();
    let router = Router::new().fallback(|| tokio::time::sleep(WORK));
    tokio::spawn(async move { axum::serve(listener, router).await });
    port
}

async fn workers(lane: &Lane, handler: &str, role: &str, workers: u32) -> Vec<Worker> {
    let more = [("DROVER_SUSPECTS", "true"), ("DROVER_ROLE", role), ("DROVER_HANDLER_PORT", handler)];
    join_all((0..workers).map(|_| lane.worker(APPEND, &more))).await
}

/// Seconds until all are rows, from when they are published, or from when those that hold them die.
async fn run(handler: &str, lost: bool) -> f64 {
    let lane = Lane::new("bench-loss").await;
    lane.declare_detours().await;
    lane.table("message_id text PRIMARY KEY, n bigint").await;
    let mut holders = Vec::new();
    if lost {
        lane.publish_numbered(0..MESSAGES).await;
        holders = try_join_all((0..WORKERS).map(|_| hold(&lane.name, EACH))).await.expect("held");
        eventually("all of it is held", || async { (lane.ready(&lane.name).await == 0).then_some(()) }).await;
    }
    let mut all = workers(&lane, handler, "main", WORKERS).await;
    if lost {
        all.extend(workers(&lane, handler, "suspects-1", WORKERS).await);
    }
    let consumers = if lost { 2 * WORKERS } else { WORKERS };
    eventually("all consume", || async { (lane.consumers().await == consumers).then_some(()) }).await;
    let start = now();
    if lost {
        join_all(holders.into_iter().map(surroundings::Holder::dies)).await;
    } else {
        lane.publish_numbered(0..MESSAGES).await;
    }
    lane.await_rows(MESSAGES).await;
    let seconds = start.elapsed().as_secs_f64();
    assert!(lane.dead_letters().await.is_empty(), "one of them was dead-lettered");
    join_all(all.into_iter().map(Worker::stop)).await;
    lane.close().await;
    seconds
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let handler = handler().await;
    let (mut fresh, mut lost) = (Vec::new(), Vec::new());
    // By turns, so that a machine that slows down slows both.
    for number in 1..=RUNS {
        fresh.push(run(&handler, false).await);
        lost.push(run(&handler, true).await);
        eprintln!("run {number}: fresh {:.2} s, lost {:.2} s", fresh[number - 1], lost[number - 1]);
    }
    let (fresh, lost) = (median(&mut fresh), median(&mut lost));
    let figures = serde_json::json!([
        { "what": "16 workers gone with 200 messages each, of 20 ms: all done, beside as many fresh ones", "floor": fresh, "ours": lost,
          "unit": "s", "aim": "≤ 2 × it", "met": lost <= AIM * fresh },
    ]);
    println!("{}", serde_json::json!({ "bench": "node loss", "rows": figures }));
}
