//! The worker as a process of its own: killed, asked to end, and told nonsense.

use std::process::{Child, Command, Output, Stdio};

use drover_worker::settings;

use crate::surroundings::{APPEND, Lane, env, eventually, file};

const COLUMNS: &str = "message_id text PRIMARY KEY, n bigint";

/// A worker of the lane as a process, to be told more.
pub(crate) fn command(lane: &Lane) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drover-worker"));
    command
        .arg("ingest")
        .env(settings::HUB_URI, env("DROVER_TEST_HUB_URI"))
        .env(settings::HUB_CA, file("DROVER_TEST_CA"))
        .env(settings::SOURCE_QUEUE, &lane.name)
        .env(settings::SINK, APPEND.replace("TABLE", &lane.name))
        .env(settings::SINK_URI, env("DROVER_TEST_STORE_WORKER_URI"))
        .env(settings::SINK_CA, file("DROVER_TEST_CA"))
        .env(settings::LISTEN, "127.0.0.1:0")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Ends with the test, however that ends.
struct Worker(Option<Child>);

impl Worker {
    fn start(lane: &Lane) -> Self {
        Self(Some(command(lane).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()))
    }

    /// SIGTERM, and how it ended.
    async fn terminate(mut self) -> Output {
        let child = self.0.take().unwrap();
        assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
        tokio::task::spawn_blocking(|| child.wait_with_output()).await.unwrap().unwrap()
    }
}

impl Drop for Worker {
    /// SIGKILL.
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_it_writes_each_message_once() {
    let lane = Lane::new("process-killed").await;
    lane.table(COLUMNS).await;
    lane.publish_numbered(0..8000).await;
    let mut kills = 0;
    while lane.count().await < 7000 && kills < 6 {
        let before = lane.count().await;
        let child = Worker::start(&lane);
        eventually("some rows more", || async { (lane.count().await > before).then_some(()) }).await;
        drop(child);
        kills += 1;
    }
    assert!(kills > 0);
    let child = Worker::start(&lane);
    lane.await_rows(8000).await;
    eventually("an empty queue", || async { (lane.ready(&lane.name).await == 0).then_some(()) }).await;
    assert!(child.terminate().await.status.success());
    assert_eq!((lane.ready(&lane.name).await, lane.ready(&lane.dead()).await), (0, 0));
    assert_eq!(lane.count().await, 8000);
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_to_end_midway_it_loses_nothing_and_ends_well() {
    let lane = Lane::new("process-ended").await;
    lane.table(COLUMNS).await;
    lane.publish_numbered(0..5000).await;
    let child = Worker::start(&lane);
    eventually("some rows", || async { (lane.count().await > 0).then_some(()) }).await;
    assert!(child.terminate().await.status.success());
    let left = lane.take(&lane.name).await;
    assert_eq!(lane.count().await + left.len() as u64, 5000);
    assert!(left.iter().all(|message| !message.redelivered));
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_line_of_its_log_says_whose_it_is() {
    let lane = Lane::new("process-log").await;
    lane.table(COLUMNS).await;
    let mut command = command(&lane);
    command.env(settings::LOG_FORMAT, "json").env("DROVER_NAMESPACE", "iot").env("DROVER_NAME", "telemetry");
    let worker = Worker(Some(command.env("DROVER_REVISION", "5f2a91c0").spawn().unwrap()));
    lane.publish_numbered(0..10).await;
    lane.await_rows(10).await;
    let ended = worker.terminate().await;
    let log = String::from_utf8(ended.stdout).unwrap();
    assert!(log.lines().count() > 1, "{log}");
    for entry in log.lines() {
        let entry: serde_json::Value = serde_json::from_str(entry).unwrap();
        let told = ["name", "namespace", "object", "revision"].map(|field| entry["spans"][0][field].clone());
        assert_eq!(told, ["worker", "iot", "telemetry", "5f2a91c0"], "{entry}");
    }
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn told_nonsense_it_says_which_variable_is_wrong() {
    let lane = Lane::new("process-nonsense").await;
    for (variable, value) in [(settings::SINK, "{}"), (settings::HUB_URI, ""), (settings::LOG_FORMAT, "xml")] {
        let output = command(&lane).env(variable, value).output().unwrap();
        assert!(!output.status.success());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.starts_with(&format!("error: {variable}: ")), "{said}");
    }
    let query = "SELECT COUNT(*) AS n FROM input GROUP BY TUMBLINGWINDOW(second, 1)";
    let output = command(&lane).env(settings::TRANSFORM_QUERY, query).output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("error: the transform's query is refused: "));
    lane.close().await;
}
