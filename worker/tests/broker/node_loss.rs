//! Workers that die with what they held: everything goes by the suspects, and nobody innocent is dead-lettered.

use std::process::{Child, Command, Stdio};

use drover_worker::settings;
use futures::future::try_join_all;

use crate::{
    process::command,
    surroundings::{APPEND, Lane, Worker, eventually, header, hold, one},
};

const COLUMNS: &str = "message_id text PRIMARY KEY, n bigint";

/// Ends with the test, by SIGKILL.
struct Process(Child);

impl Process {
    fn start(lane: &Lane, role: &str) -> Self {
        let mut command = command(lane);
        command
            .env(settings::SUSPECTS, "true")
            .env(settings::ROLE, role)
            .env(settings::REVISION, "r1")
            .env(settings::WORKER_CONCURRENCY, "1")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    /// As SIGTERM: what it holds is done or given back.
    fn stop(mut self) {
        let term = Command::new("kill").arg(self.0.id().to_string()).status().unwrap();
        assert!(term.success() && self.0.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn suspects(lane: &Lane) -> [Worker; 2] {
    let more = |role| [("DROVER_SUSPECTS", "true"), ("DROVER_ROLE", role), ("DROVER_RETRY_ATTEMPTS", "2")];
    [lane.worker(APPEND, &more("suspects-1")).await, lane.worker(APPEND, &more("suspects-2")).await]
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_workers_that_die_at_once_cost_no_message() {
    const WORKERS: u32 = 16;
    const EACH: u32 = 200;
    let lane = Lane::new("loss-node").await;
    lane.declare_detours().await;
    lane.table(COLUMNS).await;
    lane.publish_numbered(0..u64::from(WORKERS * EACH)).await;
    let holders = try_join_all((0..WORKERS).map(|_| hold(&lane.name, EACH))).await.unwrap();
    eventually("all of it is held", || async { (lane.ready(&lane.name).await == 0).then_some(()) }).await;
    for holder in holders {
        holder.dies().await;
    }
    let main = lane.worker(APPEND, &[("DROVER_SUSPECTS", "true")]).await;
    let suspects = suspects(&lane).await;
    lane.await_rows(u64::from(WORKERS * EACH)).await;
    eventually("all is done", || async { (lane.left().await == 0).then_some(()) }).await;
    let status = main.status().await;
    assert_eq!((status.processed, status.suspected), (0, u64::from(WORKERS * EACH)));
    main.stop().await;
    for worker in suspects {
        let status = worker.status().await;
        assert_eq!(status.dead_lettered, 0);
        worker.stop().await;
    }
    assert_eq!((lane.left().await, lane.dead_letters().await.len()), (0, 0));
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_killed_again_and_again_cost_no_message() {
    let lane = Lane::new("loss-kills").await;
    lane.declare_detours().await;
    lane.table(COLUMNS).await;
    lane.publish_numbered(0..4000).await;
    let suspects = suspects(&lane).await;
    for _ in 0..4 {
        let before = lane.count().await;
        let processes: Vec<Process> = (0..3).map(|_| Process::start(&lane, "main")).collect();
        eventually("some rows more", || async { (lane.count().await > before).then_some(()) }).await;
        drop(processes);
        if lane.count().await == 4000 {
            break;
        }
    }
    let last = Process::start(&lane, "main");
    lane.await_rows(4000).await;
    eventually("all is done", || async { (lane.left().await == 0).then_some(()) }).await;
    drop(last);
    for worker in suspects {
        worker.stop().await;
    }
    assert_eq!((lane.left().await, lane.dead_letters().await.len()), (0, 0));
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_with_which_its_worker_dies_each_time_is_dead_with_the_last_known_exit() {
    let lane = Lane::new("loss-worker").await;
    lane.declare_detours().await;
    lane.table(COLUMNS).await;
    // Its transaction never ends, so that the worker is killed with it in flight.
    lane.sql(
        "CREATE OR REPLACE FUNCTION \"loss-worker-f\"() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN IF NEW.n = 5 THEN PERFORM pg_sleep(600); END IF; RETURN NEW; END $$;
         CREATE TRIGGER f BEFORE INSERT ON \"loss-worker\" FOR EACH ROW EXECUTE FUNCTION \"loss-worker-f\"()",
    )
    .await;
    lane.publish_numbered(0..10).await;
    let exit = std::env::temp_dir().join(format!("drover-test-exit-{}", std::process::id()));
    std::fs::write(&exit, "OOMKilled (exit code 137)\n").unwrap();
    let stuck = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE '%loss-worker%' AND pid <> pg_backend_pid()";
    let unstick = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE '%loss-worker%' AND pid <> pg_backend_pid()";
    let killed = async |role: &str| {
        let process = Process::start(&lane, role);
        eventually("stuck", || async { (one(stuck).await == "1").then_some(()) }).await;
        drop(process);
        one(unstick).await;
        // Or the next one is taken for stuck before it has begun.
        eventually("its transaction ends", || async { (one(stuck).await == "0").then_some(()) }).await;
    };
    for (role, queue, next) in [("main", "", ".suspects-1"), ("suspects-1", ".suspects-1", ".suspects-2")] {
        killed(role).await;
        let (queue, next) = (format!("loss-worker{queue}"), format!("loss-worker{next}"));
        let process = Process::start(&lane, role);
        let moved = async || {
            let rest = 10 - u32::try_from(lane.count().await).unwrap();
            (lane.ready(&queue).await == 0 && lane.ready(&next).await == rest).then_some(())
        };
        eventually("moved on", &moved).await;
        process.stop();
    }
    for _ in 0..3 {
        killed("suspects-2").await;
    }
    let more = [
        ("DROVER_SUSPECTS", "true"),
        ("DROVER_ROLE", "suspects-2"),
        ("DROVER_RETRY_ATTEMPTS", "3"),
        ("DROVER_LAST_EXIT_FILE", exit.to_str().unwrap()),
    ];
    let worker = lane.worker(APPEND, &more).await;
    eventually("a dead letter", || async { (lane.ready(&lane.dead()).await == 1).then_some(()) }).await;
    lane.await_rows(9).await;
    worker.stop().await;
    let dead = lane.dead_letters().await;
    assert_eq!(dead[0].data, br#"{"n":5}"#);
    let error = header(&dead[0], "x-drover-error");
    assert!(error.ends_with("OOMKilled (exit code 137)"), "{error}");
    std::fs::remove_file(exit).unwrap();
    lane.sql("DROP TABLE \"loss-worker\"; DROP FUNCTION \"loss-worker-f\"()").await;
    lane.close().await;
}
