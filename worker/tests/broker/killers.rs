//! Messages that kill their handler, each in its own way: one of 200 costs one, and only one.
//!
//! A handler is a process of its own, started again when it ends, and when the worker beside it says that it hangs: what a
//! kubelet does.

use std::{
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use axum::{Router, body::Bytes, http::StatusCode};

use crate::surroundings::{APPEND, Lane, Worker, eventually, header, hold};

const COLUMNS: &str = "message_id text PRIMARY KEY, n bigint, kill text";
/// Says to this executable that it is a handler, and on which port.
const PORT: &str = "DROVER_TEST_HANDLER_PORT";

/// Not a test: the process of a handler.
#[test]
#[ignore = "the process of a handler"]
fn is_a_handler() {
    let Ok(port) = std::env::var(PORT) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await.unwrap();
        axum::serve(listener, Router::new().fallback(handle)).await.unwrap();
    });
}

async fn handle(body: Bytes) -> StatusCode {
    let message: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    match message["kill"].as_str() {
        None => {}
        Some("segfault") => signal("-SEGV"),
        Some("oom") => signal("-KILL"),
        Some("memory") => drop(std::hint::black_box(vec![1_u8; 1 << 44])),
        Some("exit") => std::process::exit(1),
        Some("stack") => drop(std::hint::black_box(overflow(1))),
        Some("loop") => loop {
            std::hint::spin_loop();
        },
        Some(other) => panic!("{other}"),
    }
    StatusCode::OK
}

fn signal(name: &str) {
    // The runtime takes the first segfault for the guard of a stack, and not the second.
    for _ in 0..2 {
        let _ = Command::new("kill").args([name, &std::process::id().to_string()]).status();
    }
    std::thread::sleep(Duration::from_mins(1));
}

/// Never returns, and not as a loop.
fn overflow(n: u64) -> [u64; 1024] {
    let mut frame = [n; 1024];
    if std::hint::black_box(n) > 0 {
        let deeper = overflow(std::hint::black_box(n + 1));
        frame[1] = std::hint::black_box(deeper)[0];
    }
    frame
}

/// A worker and its handler.
struct Pod {
    worker: Worker,
    stop: Arc<AtomicBool>,
    keeper: Option<JoinHandle<u32>>,
}

impl Pod {
    async fn start(lane: &Lane, role: &str, more: &[(&str, &str)]) -> Self {
        let port = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        let (stop, worker_port) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU16::new(0)));
        let keeper = {
            let (stop, worker_port) = (Arc::clone(&stop), Arc::clone(&worker_port));
            std::thread::spawn(move || keep(port, &stop, &worker_port))
        };
        let pod = format!("{}-{role}", lane.name);
        let least = [
            ("DROVER_HANDLER_PORT", &*port.to_string()),
            ("DROVER_HANDLER_TIMEOUT_SECONDS", "2"),
            ("DROVER_RETRY_ATTEMPTS", "2"),
            ("DROVER_SUSPECTS", "true"),
            ("DROVER_ROLE", role),
            ("DROVER_POD", &pod),
        ]
        .map(|(name, value)| (name, value.to_owned()));
        let all: Vec<(&str, &str)> =
            more.iter().copied().chain(least.iter().map(|(name, value)| (*name, value.as_str()))).collect();
        let worker = lane.worker(APPEND, &all).await;
        worker_port.store(worker.port(), Relaxed);
        Self { worker, stop, keeper: Some(keeper) }
    }

    /// How often the handler died.
    async fn stop(mut self) -> u32 {
        self.worker.stop().await;
        self.stop.store(true, Relaxed);
        self.keeper.take().unwrap().join().unwrap()
    }
}

#[expect(clippy::disallowed_methods, reason = "a test measures time")]
fn now() -> Instant {
    Instant::now()
}

fn keep(port: u16, stop: &AtomicBool, worker: &AtomicU16) -> u32 {
    let mut deaths = 0;
    while !stop.load(Relaxed) {
        let mut child = spawn(port);
        let began = now();
        while child.try_wait().unwrap().is_none() {
            let is_up = now().duration_since(began) > Duration::from_secs(1);
            if stop.load(Relaxed) || (is_up && hangs(worker.load(Relaxed))) {
                child.kill().unwrap();
                child.wait().unwrap();
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        deaths += u32::from(!stop.load(Relaxed));
    }
    deaths
}

fn spawn(port: u16) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killers::is_a_handler", "--ignored", "--nocapture"])
        .env(PORT, port.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn hangs(worker: u16) -> bool {
    use std::io::{Read, Write};
    let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", worker)) else { return false };
    let request = "GET /handlerz HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n";
    let mut answer = String::new();
    let asked = stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_string(&mut answer));
    asked.is_ok() && answer.starts_with("HTTP/1.1 503")
}

/// Publishes `messages`, those of `killers` with what kills.
async fn publish(lane: &Lane, messages: u64, killers: &[u64], kill: &str) {
    let body = |n: u64| {
        if killers.contains(&n) { format!(r#"{{"n":{n},"kill":"{kill}"}}"#) } else { format!(r#"{{"n":{n}}}"#) }
    };
    let bodies: Vec<(String, String)> = (0..messages).map(|n| (format!("m-{n}"), body(n))).collect();
    lane.publish(bodies.iter().map(|(id, body)| (id.clone(), body.as_bytes()))).await;
}

async fn pods(lane: &Lane, more: &[(&str, &str)]) -> Vec<Pod> {
    let mut pods = Vec::new();
    for role in ["main", "suspects-1", "suspects-2"] {
        pods.push(Pod::start(lane, role, more).await);
    }
    pods
}

/// Waits until everything has come to its end; then how often handlers died, and the dead letters.
async fn finish(lane: &Lane, pods: Vec<Pod>, rows: u64, dead: u32) -> (u32, Vec<lapin::message::BasicGetMessage>) {
    lane.await_rows(rows).await;
    eventually("the dead letters", || async { (lane.ready(&lane.dead()).await == dead).then_some(()) }).await;
    let mut deaths = 0;
    for pod in pods {
        deaths += pod.stop().await;
    }
    assert_eq!((lane.count().await, lane.left().await), (rows, 0));
    let letters = lane.dead_letters().await;
    assert_eq!(letters.len(), dead as usize);
    (deaths, letters)
}

/// One of 200 kills: exactly one dead letter, the others at the sink.
async fn one_of_two_hundred(kill: &str, prefetch: &str) {
    let lane = Lane::new(&format!("kill-{kill}-{prefetch}")).await;
    lane.declare_detours().await;
    lane.table(COLUMNS).await;
    publish(&lane, 200, &[77], kill).await;
    let pods = pods(&lane, &[("DROVER_SOURCE_PREFETCH", prefetch)]).await;
    let (deaths, dead) = finish(&lane, pods, 199, 1).await;
    assert_eq!(dead[0].data, format!(r#"{{"n":77,"kill":"{kill}"}}"#).as_bytes());
    let told = ["reason", "class", "stage", "attempts", "original-queue"]
        .map(|name| header(&dead[0], &format!("x-drover-{name}")));
    assert_eq!(told, ["KilledWorker", "killer", "worker", "2", &lane.name]);
    let exit = if kill == "loop" { "timeout" } else { "the handler ended the connection" };
    assert!(header(&dead[0], "x-drover-exit").starts_with(exit), "{}", header(&dead[0], "x-drover-exit"));
    assert_eq!(deaths, 4, "once in the stream, once among some, twice alone");
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_killers_among_many_cost_ten_messages() {
    let lane = Lane::new("kill-ten").await;
    lane.declare_detours().await;
    lane.table(COLUMNS).await;
    let killers: Vec<u64> = (0..10).map(|n| n * 60 + 7).collect();
    publish(&lane, 600, &killers, "exit").await;
    let pods = pods(&lane, &[]).await;
    let (_, dead) = finish(&lane, pods, 590, 10).await;
    let mut found: Vec<u64> = dead
        .iter()
        .map(|letter| serde_json::from_slice::<serde_json::Value>(&letter.data).unwrap()["n"].as_u64().unwrap())
        .collect();
    found.sort_unstable();
    assert_eq!(found, killers);
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_killer_among_what_a_lost_node_held_costs_one_message() {
    let lane = Lane::new("kill-node").await;
    lane.declare_detours().await;
    lane.table(COLUMNS).await;
    publish(&lane, 1600, &[800], "segfault").await;
    let holders = futures::future::try_join_all((0..16).map(|_| hold(&lane.name, 100))).await.unwrap();
    eventually("all of it is held", || async { (lane.ready(&lane.name).await == 0).then_some(()) }).await;
    for holder in holders {
        holder.dies().await;
    }
    let pods = pods(&lane, &[]).await;
    let (deaths, dead) = finish(&lane, pods, 1599, 1).await;
    assert_eq!(dead[0].data, br#"{"n":800,"kill":"segfault"}"#);
    assert_eq!(deaths, 3, "once among some, twice alone");
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segfault_costs_one_message() {
    one_of_two_hundred("segfault", "50").await;
    one_of_two_hundred("segfault", "200").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_costs_one_message() {
    one_of_two_hundred("oom", "50").await;
    one_of_two_hundred("memory", "200").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_costs_one_message() {
    one_of_two_hundred("exit", "50").await;
    one_of_two_hundred("exit", "200").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_overflow_costs_one_message() {
    one_of_two_hundred("stack", "50").await;
    one_of_two_hundred("stack", "200").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_loop_costs_one_message() {
    one_of_two_hundred("loop", "50").await;
    one_of_two_hundred("loop", "200").await;
}
