//! A sink that takes nothing, and comes back: nobody's message is to blame.

use crate::surroundings::{APPEND, Lane, Worker, eventually};

const COLUMNS: &str = "message_id text PRIMARY KEY, n bigint";

/// Publishes, breaks, publishes, sees it hold, mends, and finds each message written once.
async fn survives(lane: Lane, worker: Worker, break_it: &str, reason: &str, mend: &str) {
    lane.publish_numbered(0..100).await;
    worker.await_done(100).await;
    lane.sql(break_it).await;
    lane.publish_numbered(100..400).await;
    worker.await_holding(reason).await;
    assert_eq!(worker.get("/readyz").await.0, 200, "a sink that is down is no reason to fail a rollout");
    assert_eq!(worker.get("/healthz").await.0, 200);
    lane.sql(mend).await;
    lane.await_rows(400).await;
    let status = worker.await_done(400).await;
    assert_eq!(status.dead_lettered, 0);
    worker.stop().await;
    assert_eq!((lane.ready(&lane.name).await, lane.ready(&lane.dead()).await), (0, 0));
    lane.close().await;
}

async fn lane(name: &str) -> (Lane, Worker) {
    let lane = Lane::new(name).await;
    lane.table(COLUMNS).await;
    let worker = lane.worker(APPEND, &[]).await;
    (lane, worker)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_table() {
    let (lane, worker) = lane("fault-dropped").await;
    let break_it = "CREATE TABLE \"fault-kept\" AS TABLE \"fault-dropped\"; DROP TABLE \"fault-dropped\"";
    let mend = "CREATE TABLE \"fault-dropped\" (message_id text PRIMARY KEY, n bigint);
        INSERT INTO \"fault-dropped\" TABLE \"fault-kept\"; DROP TABLE \"fault-kept\";
        GRANT SELECT, INSERT ON \"fault-dropped\" TO drover_worker";
    lane.sql("DROP TABLE IF EXISTS \"fault-kept\"").await;
    survives(lane, worker, break_it, "TableNotFound", mend).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_index() {
    let (lane, worker) = lane("fault-index").await;
    let break_it = "ALTER TABLE \"fault-index\" DROP CONSTRAINT \"fault-index_pkey\"";
    let mend = "ALTER TABLE \"fault-index\" ADD PRIMARY KEY (message_id)";
    survives(lane, worker, break_it, "NoUniqueIndex", mend).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_grant() {
    let (lane, worker) = lane("fault-revoked").await;
    let break_it = "REVOKE INSERT ON \"fault-revoked\" FROM drover_worker";
    survives(lane, worker, break_it, "PrivilegeMissing", "GRANT INSERT ON \"fault-revoked\" TO drover_worker").await;
}

/// A trigger that raises a SQLSTATE of the class.
fn raising(table: &str, state: &str) -> (String, String) {
    let break_it = format!(
        "CREATE OR REPLACE FUNCTION \"{table}-raise\"() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'simulated' USING ERRCODE = '{state}'; END $$;
         CREATE TRIGGER raise BEFORE INSERT ON \"{table}\" FOR EACH ROW EXECUTE FUNCTION \"{table}-raise\"()"
    );
    (break_it, format!("DROP TRIGGER raise ON \"{table}\"; DROP FUNCTION \"{table}-raise\"()"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk() {
    let (lane, worker) = lane("fault-disk").await;
    let (break_it, mend) = raising("fault-disk", "53100");
    survives(lane, worker, &break_it, "InsufficientResources", &mend).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_failover() {
    let (lane, worker) = lane("fault-readonly").await;
    let (break_it, mend) = raising("fault-readonly", "25006");
    survives(lane, worker, &break_it, "ReadOnly", &mend).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_connections_and_a_connection_limit() {
    let (lane, worker) = lane("fault-limit").await;
    // A role of its own, so that other tests' connections are not counted.
    worker.stop().await;
    let mut uri: url::Url = crate::surroundings::env("DROVER_TEST_STORE_WORKER_URI").parse().unwrap();
    let admin = crate::surroundings::admin().await;
    let password = uri.password().unwrap().to_owned();
    admin
        .batch_execute(&format!(
            "DO $$ BEGIN CREATE ROLE drover_limited LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
             ALTER ROLE drover_limited PASSWORD '{password}' CONNECTION LIMIT -1;
             GRANT SELECT, INSERT ON \"fault-limit\" TO drover_limited"
        ))
        .await
        .unwrap();
    uri.set_username("drover_limited").unwrap();
    let worker = lane.worker(APPEND, &[("DROVER_SINK_URI", uri.as_str())]).await;
    lane.publish_numbered(0..100).await;
    worker.await_done(100).await;
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'drover_limited'";
    admin.batch_execute(&format!("ALTER ROLE drover_limited CONNECTION LIMIT 0; {cut}")).await.unwrap();
    lane.publish_numbered(100..400).await;
    worker.await_holding("TooManyConnections").await;
    admin.batch_execute("ALTER ROLE drover_limited CONNECTION LIMIT -1").await.unwrap();
    lane.await_rows(400).await;
    assert_eq!(worker.await_done(400).await.dead_lettered, 0);
    admin.batch_execute("ALTER ROLE drover_limited SET default_transaction_read_only = on").await.unwrap();
    admin.batch_execute(cut).await.unwrap();
    lane.publish_numbered(400..500).await;
    worker.await_holding("ReadOnly").await;
    admin.batch_execute("ALTER ROLE drover_limited RESET default_transaction_read_only").await.unwrap();
    // Sessions keep what they began with; the worker begins new ones.
    lane.await_rows(500).await;
    assert_eq!(worker.await_done(500).await.dead_lettered, 0);
    worker.stop().await;
    admin.batch_execute("REVOKE ALL ON \"fault-limit\" FROM drover_limited; DROP ROLE drover_limited").await.unwrap();
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_is_missing_at_the_start() {
    let lane = Lane::new("fault-start").await;
    lane.sql("DROP TABLE IF EXISTS \"fault-start\"").await;
    let worker = lane.worker(APPEND, &[]).await;
    worker.await_holding("TableNotFound").await;
    eventually("it is ready all the same", || async { (worker.get("/readyz").await.0 == 200).then_some(()) }).await;
    lane.publish_numbered(0..50).await;
    lane.table(COLUMNS).await;
    lane.await_rows(50).await;
    worker.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_constraint_that_refuses_everybody_is_an_outage_once_ten_messages_say_so() {
    let (lane, worker) = lane("fault-alike").await;
    lane.publish_numbered(0..100).await;
    worker.await_done(100).await;
    worker.stop().await;
    lane.sql("ALTER TABLE \"fault-alike\" ADD site text, ADD CHECK (n < 100 OR site IS NOT NULL)").await;
    lane.publish_numbered(100..200).await;
    let worker = lane.worker(APPEND, &[]).await;
    worker.await_holding("MostMessagesRefused").await;
    lane.sql("ALTER TABLE \"fault-alike\" DROP site").await;
    let dead = worker.await_done(100).await.dead_lettered;
    assert!(dead < 10, "{dead} dead letters");
    assert_eq!((lane.count().await, lane.dead_letters().await.len() as u64), (200 - dead, dead));
    worker.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_without_an_answer_makes_the_next_try_a_repeat() {
    let (lane, worker) = lane("fault-commit").await;
    let sql = "DROP TABLE IF EXISTS \"fault-commit-on\"; CREATE TABLE \"fault-commit-on\" (n int);
         GRANT SELECT ON \"fault-commit-on\" TO drover_worker;
         CREATE OR REPLACE FUNCTION \"fault-commit-f\"() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN IF NOT EXISTS (SELECT FROM \"fault-commit-on\") THEN
                    PERFORM pg_terminate_backend(pg_backend_pid()); END IF; RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER f AFTER INSERT ON \"fault-commit\" DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION \"fault-commit-f\"()";
    lane.sql(sql).await;
    lane.publish_numbered(1..2).await;
    eventually("it holds", || async { worker.status().await.holding }).await;
    // As if the first try had been committed, and a trigger had changed its row.
    let written = "INSERT INTO \"fault-commit-on\" VALUES (1); INSERT INTO \"fault-commit\" VALUES ('m-1', 100)";
    lane.sql(&format!("BEGIN; {written}; COMMIT")).await;
    let status = worker.await_done(1).await;
    assert_eq!((status.processed, status.dead_lettered), (1, 0));
    worker.stop().await;
    lane.sql("DROP TABLE \"fault-commit\", \"fault-commit-on\"; DROP FUNCTION \"fault-commit-f\"()").await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlocks_are_tried_again_at_once() {
    let (lane, worker) = lane("fault-deadlock").await;
    let sql = "CREATE OR REPLACE FUNCTION \"fault-deadlock-f\"() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN IF nextval('\"fault-deadlock-s\"') < 3 THEN RAISE EXCEPTION 'simulated' USING ERRCODE = '40P01'; END IF;
                RETURN NEW; END $$;
         CREATE SEQUENCE IF NOT EXISTS \"fault-deadlock-s\"; GRANT ALL ON SEQUENCE \"fault-deadlock-s\" TO drover_worker;
         CREATE TRIGGER f BEFORE INSERT ON \"fault-deadlock\" FOR EACH ROW EXECUTE FUNCTION \"fault-deadlock-f\"()";
    lane.sql(sql).await;
    lane.publish_numbered(0..10).await;
    worker.await_done(10).await;
    assert_eq!(lane.count().await, 10);
    worker.stop().await;
    lane.sql("DROP TABLE \"fault-deadlock\"; DROP SEQUENCE \"fault-deadlock-s\"; DROP FUNCTION \"fault-deadlock-f\"()")
        .await;
    lane.close().await;
}
