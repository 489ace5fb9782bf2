//! A preview works on copies, and nothing of it stays.

use lapin::BasicProperties;

use crate::{
    server::{Server, number, status},
    surroundings::{APPEND, Lane, Worker, eventually},
};

const COLUMNS: &str = "message_id text PRIMARY KEY, n bigint NOT NULL CHECK (n < 1000000), extra int DEFAULT 7";

/// A lane with the queue of the copies for the tests' revision, r1.
async fn lane(name: &str) -> Lane {
    let lane = Lane::new(name).await;
    lane.table(COLUMNS).await;
    lane.declare_queue(&mirror(&lane), "classic").await;
    lane
}

fn mirror(lane: &Lane) -> String {
    format!("{}.mirror-r1", lane.name)
}

async fn copy(lane: &Lane, bodies: impl IntoIterator<Item = String>) {
    let bodies: Vec<String> = bodies.into_iter().collect();
    let id = |n: usize| BasicProperties::default().with_message_id(format!("m-{n}").as_str().into());
    let messages = bodies.iter().enumerate().map(|(n, body)| (id(n), body.as_bytes()));
    lane.publish_to(&mirror(lane), messages).await;
}

fn numbered(numbers: std::ops::Range<u64>) -> impl Iterator<Item = String> {
    numbers.map(|n| format!("{{\"n\":{n}}}"))
}

async fn preview(lane: &Lane, sink: &str, more: &[(&str, &str)]) -> Worker {
    let more: Vec<(&str, &str)> = more.iter().copied().chain([("DROVER_PREVIEW", "true")]).collect();
    lane.worker(sink, &more).await
}

/// What a preview must never leave behind.
async fn nothing_is_left(lane: Lane, preview: Worker) {
    preview.stop().await;
    assert_eq!((lane.count().await, lane.ready(&lane.dead()).await, lane.left().await), (0, 0, 0));
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_works_on_its_share_of_the_copies_and_writes_no_row() {
    let lane = lane("preview-share").await;
    lane.declare_detours().await;
    let preview = preview(&lane, APPEND, &[("DROVER_PREVIEW_PERCENT", "10")]).await;
    copy(&lane, numbered(0..500)).await;
    let status = eventually("all are seen", || async {
        let status = preview.status().await;
        (status.processed + status.skipped == 500).then_some(status)
    })
    .await;
    assert_eq!((status.processed, status.dead_lettered, status.role.as_str()), (50, 0, "preview"));
    assert!(status.busy_seconds > 0.0);
    nothing_is_left(lane, preview).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_source_itself_is_left_alone() {
    let lane = lane("preview-source").await;
    lane.publish_numbered(0..5).await;
    let preview = preview(&lane, APPEND, &[]).await;
    copy(&lane, numbered(0..5)).await;
    assert_eq!(preview.await_done(5).await.processed, 5);
    assert_eq!((lane.ready(&lane.name).await, lane.consumers().await), (5, 0));
    preview.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_preview_would_dead_letter_is_counted_and_stays_out_of_the_queue() {
    let lane = lane("preview-bad").await;
    lane.declare_detours().await;
    let preview = preview(&lane, APPEND, &[]).await;
    // Not JSON, a value that no cell takes, and one that only the table's own check refuses.
    let bodies = ["{", r#"{"n":"x"}"#, r#"{"n":1000000}"#, r#"{"n":1}"#];
    copy(&lane, bodies.map(str::to_owned)).await;
    let status = preview.await_done(4).await;
    assert_eq!((status.processed, status.dead_lettered, status.failed.content), (1, 3, 3));
    assert_eq!(status.failed.all(), 3);
    nothing_is_left(lane, preview).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_that_refuses_everything_says_so_and_neither_holds_nor_floods() {
    let lane = lane("preview-all-bad").await;
    lane.declare_detours().await;
    let preview = preview(&lane, APPEND, &[]).await;
    copy(&lane, numbered(2_000_000..2_000_300)).await;
    let status = preview.await_done(300).await;
    assert_eq!((status.processed, status.dead_lettered, status.holding), (0, 300, None));
    nothing_is_left(lane, preview).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_column_is_found_in_preview() {
    let lane = lane("preview-column").await;
    lane.declare_detours().await;
    let sink = r#"{"postgres":{"table":"TABLE","idColumn":"message_id","columns":{"pref":"$.n"}}}"#;
    let preview = preview(&lane, sink, &[]).await;
    preview.await_holding("ColumnNotFound").await;
    nothing_is_left(lane, preview).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_the_same_id_is_not_waited_for_and_does_not_wait() {
    let lane = lane("preview-beside").await;
    // Somebody else is writing the row, and takes his time.
    lane.sql("BEGIN; INSERT INTO \"preview-beside\" VALUES ('m-0', 7)").await;
    let preview = preview(&lane, APPEND, &[]).await;
    copy(&lane, numbered(0..5)).await;
    assert_eq!(preview.await_done(5).await.processed, 5);
    lane.sql("COMMIT").await;
    assert_eq!(lane.count().await, 1);
    preview.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_preview_do_not_pile_up_and_repeats_among_batches_are_no_fault() {
    let lane = lane("preview-repeat").await;
    lane.declare_detours().await;
    let preview = preview(&lane, APPEND, &[]).await;
    for done in 1..=3 {
        copy(&lane, numbered(0..10)).await;
        assert_eq!(preview.await_done(done * 10).await.dead_lettered, 0);
    }
    nothing_is_left(lane, preview).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upsert_is_previewed_too() {
    let lane = lane("preview-upsert").await;
    lane.declare_detours().await;
    lane.table("device text PRIMARY KEY, ts bigint NOT NULL, n int").await;
    let sink = r#"{"postgres":{"table":"TABLE","mode":"Upsert","key":["device"],"orderBy":"ts"}}"#;
    let preview = preview(&lane, sink, &[]).await;
    copy(&lane, (0..20).map(|n| format!(r#"{{"device":"d{}","ts":{n},"n":{n}}}"#, n % 3))).await;
    assert_eq!(preview.await_done(20).await.processed, 20);
    nothing_is_left(lane, preview).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_copy_the_table_a_statement_that_it_takes_is_enough() {
    let lane = lane("preview-rights").await;
    lane.declare_detours().await;
    lane.table("n bigint").await;
    lane.sql(
        "REVOKE ALL ON \"preview-rights\" FROM drover_worker; GRANT INSERT ON \"preview-rights\" TO drover_worker",
    )
    .await;
    let preview = preview(&lane, r#"{"postgres":{"table":"TABLE"}}"#, &[]).await;
    copy(&lane, numbered(0..5)).await;
    assert_eq!(preview.await_done(5).await.processed, 5);
    nothing_is_left(lane, preview).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_is_told_and_each_copy_is_tried_once() {
    let lane = lane("preview-handler").await;
    lane.declare_detours().await;
    let server = Server::start(|_, seen| match number(seen) % 4 {
        0 => status(503),
        1 => status(422),
        _ => status(200),
    })
    .await;
    let preview = preview(&lane, APPEND, &[("DROVER_HANDLER_PORT", &server.port()), ("DROVER_SUSPECTS", "true")]).await;
    copy(&lane, numbered(0..40)).await;
    let status = preview.await_done(40).await;
    assert_eq!((status.processed, status.dead_lettered, status.delayed), (20, 20, 0));
    assert_eq!((status.failed.content, status.failed.passing, status.failed.killer), (10, 10, 0));
    let seen = server.seen();
    assert_eq!(seen.len(), 40);
    assert!(seen.iter().all(|seen| seen.header("ce-droverpreview") == "true"));
    nothing_is_left(lane, preview).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_hangs_in_preview_makes_no_suspects() {
    let lane = lane("preview-hang").await;
    lane.declare_detours().await;
    // Accepts, and never answers.
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = deaf.local_addr().unwrap().port().to_string();
    let more = [("DROVER_HANDLER_PORT", &*port), ("DROVER_HANDLER_TIMEOUT_SECONDS", "1"), ("DROVER_SUSPECTS", "true")];
    let preview = preview(&lane, APPEND, &more).await;
    copy(&lane, numbered(0..1)).await;
    let status = eventually("it is counted", || async {
        let status = preview.status().await;
        (status.dead_lettered > 0).then_some(status)
    })
    .await;
    assert_eq!((status.failed.killer, status.suspected), (1, 0));
    nothing_is_left(lane, preview).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_publishes_nothing_and_sends_nothing_to_a_server() {
    let lane = lane("preview-sinks").await;
    lane.declare_detours().await;
    lane.declare_queue("preview-sinks.out", "classic").await;
    lane.bind("preview-sinks.out", "out").await;
    let to_hub = preview(&lane, r#"{"hub":{"exchange":"preview-sinks.drover","routingKey":"out"}}"#, &[]).await;
    copy(&lane, numbered(0..20)).await;
    assert_eq!(to_hub.await_done(20).await.processed, 20);
    to_hub.stop().await;
    assert_eq!(lane.ready("preview-sinks.out").await, 0);
    let server = Server::start(|_, _| status(200)).await;
    let to_server = preview(&lane, &format!(r#"{{"http":{{"url":"http://{}/"}}}}"#, server.address), &[]).await;
    copy(&lane, numbered(0..20)).await;
    assert_eq!(to_server.await_done(20).await.processed, 20);
    assert_eq!(server.seen().len(), 0);
    nothing_is_left(lane, to_server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_are_not_given_back_to_the_source() {
    let lane = lane("preview-return").await;
    // Nothing can be written, so all of it is held, and comes back when the preview ends.
    lane.sql("DROP TABLE \"preview-return\"").await;
    let preview = preview(&lane, APPEND, &[]).await;
    preview.await_holding("TableNotFound").await;
    copy(&lane, numbered(0..5)).await;
    eventually("the preview has some", || async { (preview.status().await.held > 0).then_some(()) }).await;
    preview.stop().await;
    eventually("they are back", || async { (lane.ready(&mirror(&lane)).await == 5).then_some(()) }).await;
    assert_eq!(lane.ready(&lane.name).await, 0);
    lane.close().await;
}
