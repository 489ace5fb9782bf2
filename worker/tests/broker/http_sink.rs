//! Results that are posted to a server.

use axum::response::IntoResponse;

use crate::{
    server::{Server, number, status},
    surroundings::{Lane, eventually, header},
};

fn sink(server: &Server) -> String {
    format!(r#"{{"http":{{"url":"http://{}/in?a=b","timeoutSeconds":2}}}}"#, server.address)
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_posted_once_refusals_are_dead_and_failures_come_again() {
    let lane = Lane::new("http-answers").await;
    lane.declare_detours().await;
    let server = Server::start(|_, seen| match number(seen) {
        7 => (axum::http::StatusCode::CONFLICT, "no room").into_response(),
        n if n % 10 == 3 && seen.header("ce-droverattempt") == "1" => status(500),
        _ => status(202),
    })
    .await;
    let worker = lane.worker(&sink(&server), &[("DROVER_SINK_TOKEN", "sesame"), ("DROVER_SINK_CA", "")]).await;
    lane.publish_numbered(0..100).await;
    worker.await_done(100).await;
    let seen = server.seen();
    assert_eq!(seen.len(), 110);
    let taken: std::collections::BTreeSet<String> = seen.iter().map(|seen| seen.header("ce-id").to_owned()).collect();
    assert_eq!(taken.len(), 100);
    assert!(seen.iter().all(|seen| seen.header("authorization") == "Bearer sesame"));
    assert!(seen.iter().all(|seen| seen.header("content-type") == "application/json"));
    let dead = lane.dead_letters().await;
    assert_eq!(dead.len(), 1);
    assert_eq!(header(&dead[0], "x-drover-error"), "HTTP 409: no room");
    worker.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_or_refuses_everybody_is_waited_for() {
    let lane = Lane::new("http-down").await;
    lane.declare_detours().await;
    let server = Server::start(|n, _| status(if n < 60 { 404 } else { 200 })).await;
    let worker = lane.worker(&sink(&server), &[("DROVER_SINK_CA", "")]).await;
    lane.publish_numbered(0..200).await;
    worker.await_holding("MostMessagesRefused").await;
    let dead = worker.await_done(200).await.dead_lettered;
    assert!(dead < 10, "{dead} dead letters");
    worker.stop().await;
    lane.dead_letters().await;
    let absent = r#"{"http":{"url":"http://127.0.0.1:9/"}}"#;
    let worker = lane.worker(absent, &[("DROVER_SINK_CA", "")]).await;
    lane.publish_numbered(0..10).await;
    worker.await_holding("Unreachable").await;
    worker.stop().await;
    eventually("all of it back", || async { (lane.ready(&lane.name).await == 10).then_some(()) }).await;
    assert_eq!(lane.dead_letters().await.len(), 0);
    lane.close().await;
}
