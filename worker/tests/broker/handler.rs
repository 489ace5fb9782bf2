//! A handler beside the worker: what each of its answers does to a message.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::response::IntoResponse;
use lapin::BasicProperties;

use crate::{
    server::{Server, json, number, status},
    surroundings::{APPEND, Lane, eventually, header},
};

const COLUMNS: &str = "message_id text PRIMARY KEY, n bigint, by text";

async fn lane(name: &str) -> Lane {
    let lane = Lane::new(name).await;
    lane.declare_detours().await;
    lane.table(COLUMNS).await;
    lane
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_replaces_passes_drops_splits_or_refuses_a_message() {
    let lane = lane("handler-answers").await;
    let server = Server::start(|_, seen| match number(seen) {
        0 => json(r#"{"n":100,"by":"handler"}"#),
        1 => status(200),
        2 => status(204),
        3 => json(r#"[{"n":300},{"n":301}]"#),
        4 => (axum::http::StatusCode::UNPROCESSABLE_ENTITY, "no pref").into_response(),
        5 => json("{"),
        _ => ([("content-type", "text/plain")], "OK").into_response(),
    })
    .await;
    let worker = lane.worker(APPEND, &[("DROVER_HANDLER_PORT", &server.port())]).await;
    lane.publish_numbered(0..7).await;
    worker.await_done(7).await;
    let rows =
        lane.ask("SELECT string_agg(message_id || '=' || n, ' ' ORDER BY message_id) FROM \"handler-answers\"").await;
    assert_eq!(rows, "m-0=100 m-1=1 m-3=300 m-3/1=301 m-6=6");
    let mut dead: Vec<String> = lane.dead_letters().await.iter().map(|d| header(d, "x-drover-reason")).collect();
    dead.sort();
    assert_eq!(dead, ["HandlerAnswer", "RefusedByHandler"]);
    worker.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_a_cloud_event_whatever_its_body_is() {
    let lane = lane("handler-event").await;
    let server = Server::start(|_, _| status(204)).await;
    let worker = lane.worker(APPEND, &[("DROVER_HANDLER_PORT", &server.port())]).await;
    let properties = BasicProperties::default()
        .with_message_id("m 1".into())
        .with_type("reading".into())
        .with_content_type("application/octet-stream".into());
    lane.publish_with([(properties, &b"\xff\x00 no JSON"[..]), (BasicProperties::default(), b"")]).await;
    worker.await_done(2).await;
    let seen = server.seen();
    let first = seen.iter().find(|seen| seen.header("ce-id") == "m%201").unwrap();
    assert_eq!(first.body, b"\xff\x00 no JSON");
    for (name, value) in [
        ("ce-specversion", "1.0"),
        ("ce-type", "reading"),
        ("ce-source", "/drover"),
        ("ce-subject", "handler-event"),
        ("ce-droverattempt", "1"),
        ("ce-droverpreview", ""),
        ("content-type", "application/octet-stream"),
    ] {
        assert_eq!(first.header(name), value, "{name}");
    }
    assert!(seen.iter().all(|seen| !seen.header("ce-id").is_empty()));
    worker.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenth_that_fails_in_passing_waits_as_planned_and_all_reach_the_sink() {
    let lane = lane("handler-tenth").await;
    // Each tenth message fails twice.
    let server = Server::start(|_, seen| {
        let attempt: u64 = seen.header("ce-droverattempt").parse().unwrap();
        if number(seen).is_multiple_of(10) && attempt <= 2 { status(503) } else { status(200) }
    })
    .await;
    let worker = lane.worker(APPEND, &[("DROVER_HANDLER_PORT", &server.port())]).await;
    lane.publish_numbered(0..500).await;
    lane.await_rows(500).await;
    eventually("all done", || async { (lane.left().await == 0).then_some(()) }).await;
    let seen = server.seen();
    for n in (0..500).step_by(10) {
        let at: Vec<_> = seen.iter().filter(|seen| number(seen) == n).map(|seen| seen.at).collect();
        assert_eq!(at.len(), 3, "{n}");
        let waits = [at[1].duration_since(at[0]), at[2].duration_since(at[1])];
        for (wait, planned) in waits.into_iter().zip([1000, 2000]) {
            let planned = Duration::from_millis(planned);
            assert!(wait >= planned && wait < planned * 10, "{n}: {wait:?} instead of {planned:?}");
        }
    }
    assert_eq!(seen.len(), 500 + 100);
    assert_eq!((lane.dead_letters().await.len(), worker.status().await.delayed), (0, 100));
    worker.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_last_try_a_message_is_dead_and_under_another_revision_it_has_all_tries_again() {
    let lane = lane("handler-last").await;
    let server = Server::start(|_, _| status(503)).await;
    let port = server.port();
    let tries = [("DROVER_HANDLER_PORT", &*port), ("DROVER_RETRY_ATTEMPTS", "2")];
    let worker = lane.worker(APPEND, &tries).await;
    lane.publish_numbered(0..1).await;
    worker.await_done(1).await;
    worker.stop().await;
    assert_eq!(server.seen().len(), 2);
    let dead = lane.dead_letters().await;
    let told =
        ["reason", "class", "stage", "attempts", "error"].map(|name| header(&dead[0], &format!("x-drover-{name}")));
    assert_eq!(told, ["HandlerFailed", "passing", "transform", "2", "HTTP 503"]);
    // In again, as a redrive does it.
    let properties = dead[0].properties.clone();
    lane.publish_with([(properties, &dead[0].data[..])]).await;
    let worker = lane.worker(APPEND, &tries).await;
    worker.await_done(1).await;
    assert_eq!(server.seen().len(), 4);
    worker.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_is_asked_for_is_granted() {
    let lane = lane("handler-after").await;
    let server =
        Server::start(|n, _| if n == 0 { ([("retry-after", "2")], status(429)).into_response() } else { status(200) })
            .await;
    let worker = lane.worker(APPEND, &[("DROVER_HANDLER_PORT", &server.port())]).await;
    lane.publish_numbered(0..1).await;
    lane.await_rows(1).await;
    let seen = server.seen();
    assert!(seen[1].at.duration_since(seen[0].at) >= Duration::from_secs(2));
    worker.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_whose_dependency_is_down_for_everybody_costs_no_message() {
    let lane = lane("handler-outage").await;
    let up = Arc::new(AtomicBool::new(false));
    let server = {
        let up = Arc::clone(&up);
        Server::start(move |_, _| status(if up.load(Relaxed) { 200 } else { 503 })).await
    };
    let more = [("DROVER_HANDLER_PORT", &*server.port()), ("DROVER_RETRY_ATTEMPTS", "2")];
    let worker = lane.worker(APPEND, &more).await;
    lane.publish_numbered(0..200).await;
    worker.await_holding("MostMessagesFail").await;
    // Longer than all tries of the few that were sent to wait before.
    eventually("they came back", || async { (lane.ready("handler-outage.delay-1").await == 0).then_some(()) }).await;
    lane.publish_numbered(200..300).await;
    assert_eq!(worker.get("/healthz").await.0, 200);
    up.store(true, Relaxed);
    lane.await_rows(300).await;
    assert_eq!(lane.dead_letters().await.len(), 0);
    worker.stop().await;
    assert_eq!(lane.left().await, 0);
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_is_not_there_yet_is_waited_for() {
    let lane = lane("handler-late").await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let worker = lane.worker(APPEND, &[("DROVER_HANDLER_PORT", &address.port().to_string())]).await;
    lane.publish_numbered(0..50).await;
    worker.await_holding("HandlerUnreachable").await;
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let router = axum::Router::new().fallback(|| async {});
    let served = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    lane.await_rows(50).await;
    let status = worker.await_done(50).await;
    assert_eq!((status.dead_lettered, status.delayed, status.suspected), (0, 0, 0));
    worker.stop().await;
    served.abort();
    lane.close().await;
}
