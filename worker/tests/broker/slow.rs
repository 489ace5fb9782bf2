//! Messages that take long.

use crate::surroundings::{APPEND, Lane, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_knows_no_rate_leaves_slow_messages_to_others() {
    let lane = Lane::new("slow-rows").await;
    lane.table("message_id text PRIMARY KEY, n bigint").await;
    lane.sql(
        "CREATE OR REPLACE FUNCTION \"slow-rows\"() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.7); RETURN NEW; END $$;
         CREATE TRIGGER slow BEFORE INSERT ON \"slow-rows\" FOR EACH ROW EXECUTE FUNCTION \"slow-rows\"()",
    )
    .await;
    lane.publish_numbered(0..20).await;
    let worker = lane.worker(APPEND, &[("DROVER_CONCURRENCY", "1")]).await;
    eventually("a row", || async { (lane.count().await > 0).then_some(()) }).await;
    assert!(lane.ready(&lane.name).await >= 10, "little more than the work of three seconds is taken");
    worker.await_done(20).await;
    worker.stop().await;
    lane.sql("DROP TABLE \"slow-rows\"; DROP FUNCTION \"slow-rows\"()").await;
    lane.close().await;
}
