//! Retry: a handler that fails for a tenth of the messages, each twice, by a worker as it ships. Under a steady load all of them reach
//! the sink, and each is tried when planned; out of a backlog as many tries are made a second as if none failed. Needs the hub and
//! store of the tests. Its last line is JSON.

#![expect(clippy::cast_precision_loss, reason = "rates")]

use std::time::{Duration, Instant};

#[path = "../tests/services/reach.rs"]
mod reach;
#[path = "../tests/broker/server.rs"]
#[expect(dead_code, reason = "tests need more of it")]
mod server;
#[path = "../tests/broker/surroundings.rs"]
#[expect(dead_code, reason = "tests need more of it")]
mod surroundings;
#[path = "../tests/services/variables.rs"]
mod variables;

use server::{Server, number, status};
use surroundings::{APPEND, Lane, eventually};

/// What a handler takes for a message: it is the limit then, and not the processor that it shares with worker, hub and store.
const TAKES: Duration = Duration::from_millis(2);
/// One message in so many fails.
const FAILS: u64 = 10;
/// Its first tries do, and these are the waits that follow.
const PLAN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];
/// The steady load: so many messages in each beat.
const BEAT: (Duration, u64) = (Duration::from_millis(20), 4);
const STEADY: u64 = 4_000;
const BACKLOG: u64 = 20_000;
const RUNS: usize = 3;
const AIM_TIME: f64 = 1.1;
const AIM_RATE: f64 = 0.9;

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn now() -> Instant {
    Instant::now()
}

async fn lane() -> Lane {
    let lane = Lane::new("bench-retry").await;
    lane.declare_detours().await;
    lane.table("message_id text PRIMARY KEY, n bigint").await;
    lane
}

/// A handler that fails for a tenth, or for none.
async fn handler(fails: bool) -> Server {
    Server::slow(TAKES, move |_, seen| {
        let attempt: usize = seen.header("ce-droverattempt").parse().expect("it is numbered");
        let failing = fails && number(seen).is_multiple_of(FAILS) && attempt <= PLAN.len();
        status(if failing { 503 } else { 200 })
    })
    .await
}

/// Waits as shares of the plan, the worst last, and the rows.
async fn steady() -> (Vec<f64>, u64) {
    let (lane, handler) = (lane().await, handler(true).await);
    let worker = lane.worker(APPEND, &[("DROVER_HANDLER_PORT", &handler.port())]).await;
    let mut beat = tokio::time::interval(BEAT.0);
    for first in (0..STEADY).step_by(usize::try_from(BEAT.1).expect("a small number")) {
        beat.tick().await;
        lane.publish_numbered(first..first + BEAT.1).await;
    }
    lane.await_rows(STEADY).await;
    let seen = handler.seen();
    let mut over = Vec::new();
    for n in (0..STEADY).step_by(usize::try_from(FAILS).expect("a small number")) {
        let at: Vec<Instant> = seen.iter().filter(|seen| number(seen) == n).map(|seen| seen.at).collect();
        assert_eq!(at.len(), PLAN.len() + 1, "tries of message {n}");
        let waits = at.windows(2).map(|pair| pair[1].duration_since(pair[0]));
        over.extend(waits.zip(PLAN).map(|(wait, plan)| wait.as_secs_f64() / plan.as_secs_f64()));
    }
    over.sort_by(f64::total_cmp);
    let rows = lane.count().await;
    worker.stop().await;
    lane.close().await;
    (over, rows)
}

/// Messages a second of those that never fail, out of a backlog, and tries a second of all meanwhile.
async fn backlog(fails: bool) -> (f64, f64) {
    let (lane, handler) = (lane().await, handler(fails).await);
    lane.publish_numbered(0..BACKLOG).await;
    let others = BACKLOG - BACKLOG / FAILS;
    let start = now();
    let worker = lane.worker(APPEND, &[("DROVER_HANDLER_PORT", &handler.port())]).await;
    let count = format!("SELECT count(*) FROM \"bench-retry\" WHERE n % {FAILS} <> 0");
    eventually("the others are done", || async { (lane.ask(&count).await == others.to_string()).then_some(()) }).await;
    let seconds = start.elapsed().as_secs_f64();
    let rates = (others as f64 / seconds, handler.seen().len() as f64 / seconds);
    worker.stop().await;
    lane.close().await;
    rates
}

fn median(values: &[(f64, f64)], of: impl Fn(&(f64, f64)) -> f64) -> f64 {
    let mut values: Vec<f64> = values.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let (over, rows) = steady().await;
    let (p99, worst) = (over[over.len() * 99 / 100], over[over.len() - 1]);
    eprintln!("steady: {rows} rows; waits over plan: p99 {p99:.3}, worst {worst:.3}, least {:.3}", over[0]);
    let (mut with, mut without) = (Vec::new(), Vec::new());
    // By turns, so that a machine that slows down slows both.
    for run in 1..=RUNS {
        without.push(backlog(false).await);
        with.push(backlog(true).await);
        eprintln!(
            "run {run}: none fails {:.0}, the others {:.0} msg/s, with {:.0} tries/s",
            without[run - 1].0,
            with[run - 1].0,
            with[run - 1].1
        );
    }
    let others = (median(&with, |rates| rates.0), median(&without, |rates| rates.0));
    let tries = (median(&with, |rates| rates.1), median(&without, |rates| rates.1));
    let figures = serde_json::json!([
        { "what": "a tenth fails twice with 503: messages at the sink", "floor": STEADY, "ours": rows, "unit": "messages",
          "aim": "all", "met": rows == STEADY },
        { "what": "their waits over the plan, 99 of 100", "floor": 1.0, "ours": p99, "unit": "× plan",
          "aim": "≤ 1.1", "met": p99 <= AIM_TIME && over[0] >= 1.0 },
        { "what": "their waits over the plan, the worst", "floor": 1.0, "ours": worst, "unit": "× plan",
          "aim": "≤ 1.1", "met": worst <= AIM_TIME },
        { "what": "tries out of a backlog, those again among them, beside none that fails", "floor": tries.1, "ours": tries.0,
          "unit": "tries/s", "aim": "≥ 0.9 of it", "met": tries.0 >= AIM_RATE * tries.1 },
        { "what": "messages that never fail meanwhile; of all tries they are 3 in 4", "floor": others.1, "ours": others.0, "unit": "msg/s",
          "aim": "for comparison", "met": true },
    ]);
    println!("{}", serde_json::json!({ "bench": "retry", "rows": figures }));
}
