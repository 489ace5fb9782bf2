//! Bodies that can never be written, among bodies that can.

use lapin::BasicProperties;

use crate::surroundings::{APPEND, Lane, eventually, header};

/// What each is dead-lettered for.
fn bodies() -> Vec<(&'static str, Vec<u8>)> {
    let mut bodies: Vec<(&'static str, Vec<u8>)> = [
        ("EmptyBody", ""),
        ("Truncated", "   "),
        ("NotJson", "hello"),
        ("Truncated", r#"{"n":1"#),
        ("Truncated", r#"{"n":"#),
        ("NotJson", r#"{"n":1}{"n":2}"#),
        ("NotJson", r#"{"n":1,}"#),
        ("NotJson", r#"{"n":NaN}"#),
        ("NotJson", r"{n:1}"),
        ("NotJson", r#"{"n":0x10}"#),
        ("NotJson", "{\"s\":\"a\nb\"}"),
        ("NotAnObject", "[]"),
        ("NotAnObject", r#"[{"n":1}]"#),
        ("NotAnObject", "42"),
        ("NotAnObject", r#""text""#),
        ("NotAnObject", "null"),
        ("WrongType", r#"{"n":"abc"}"#),
        ("WrongType", r#"{"n":1.5}"#),
        ("WrongType", r#"{"n":{"a":1}}"#),
        ("WrongType", r#"{"n":[1]}"#),
        ("WrongType", r#"{"n":true}"#),
        ("WrongType", r#"{"b":"maybe"}"#),
        ("WrongType", r#"{"t":"yesterday"}"#),
        ("WrongType", r#"{"t":1e300}"#),
        ("WrongType", r#"{"s":{"a":1}}"#),
        ("NulInText", r#"{"s":"a\u0000b"}"#),
        ("NulInText", r#"{"j":{"a":"\u0000"}}"#),
        ("InvalidText", r#"{"s":"\ud800"}"#),
        ("InvalidText", r#"{"u":"not-a-uuid"}"#),
        ("NumberOutOfRange", r#"{"n":99999999999}"#),
        ("NumberOutOfRange", r#"{"f":1e999}"#),
        ("NumberOutOfRange", r#"{"d":123456789.5}"#),
        ("InvalidTime", r#"{"t":"2026-13-45T00:00:00Z"}"#),
        ("InvalidTime", r#"{"t":"12 bananas"}"#),
        ("TextTooLong", r#"{"v":"longer than five"}"#),
        ("NotNullViolation", r#"{"must":null}"#),
        ("CheckViolation", r#"{"n":-1}"#),
    ]
    .map(|(reason, body)| (reason, body.as_bytes().to_vec()))
    .into();
    bodies.push(("InvalidUtf8", b"{\"s\":\"\xff\xfe\"}".to_vec()));
    bodies.push(("InvalidUtf8", vec![0x80; 20]));
    bodies.push(("TooDeep", b"[".repeat(1 << 20)));
    bodies.push(("TooDeep", [&b"{\"j\":"[..], &b"[".repeat(200), &b"]".repeat(200), b"}"].concat()));
    bodies.push(("TooLarge", [&b"{\"s\":\""[..], &b"x".repeat(1 << 20), b"\"}"].concat()));
    bodies
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_body_is_dead_lettered_with_its_reason_and_every_good_one_is_written() {
    let lane = Lane::new("bad-bodies").await;
    lane.table(
        "message_id text PRIMARY KEY, n int CHECK (n >= 0), b bool, t timestamptz, s text, j jsonb, u uuid, f float8, d numeric(6,2),
         v varchar(5), must text NOT NULL DEFAULT 'x'",
    )
    .await;
    let bad = bodies();
    assert!(bad.len() >= 25);
    for (n, (_, body)) in bad.iter().enumerate() {
        let good = format!("{{\"n\":{n}}}");
        lane.publish([
            (format!("before-{n}"), good.as_bytes()),
            (format!("bad-{n}"), &body[..]),
            (format!("after-{n}"), good.as_bytes()),
        ])
        .await;
    }
    let worker = lane.worker(APPEND, &[]).await;
    let status = worker.await_done(3 * bad.len() as u64).await;
    assert_eq!((status.processed, status.dead_lettered), (2 * bad.len() as u64, bad.len() as u64));
    assert_eq!(lane.count().await, 2 * bad.len() as u64);
    let dead = lane.dead_letters().await;
    for (n, (reason, body)) in bad.iter().enumerate() {
        let id = format!("bad-{n}");
        let letter = dead.iter().find(|d| d.properties.message_id().as_ref().is_some_and(|m| m.as_str() == id));
        let letter = letter.unwrap_or_else(|| panic!("{id} is no dead letter"));
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        assert_eq!(&header(letter, "x-drover-reason"), reason, "{shown}: {}", header(letter, "x-drover-error"));
        assert!(letter.data == *body, "the body of {id} is not what it was");
        for name in ["stage", "error", "class", "revision", "pod", "first-failure", "last-failure", "original-queue"] {
            assert!(!header(letter, &format!("x-drover-{name}")).is_empty(), "{id} has no {name}");
        }
    }
    worker.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_without_an_id_is_dead_lettered_where_ids_are_needed() {
    let lane = Lane::new("bad-id").await;
    lane.table("message_id text PRIMARY KEY, n int").await;
    let worker = lane.worker(APPEND, &[]).await;
    lane.publish_with([(BasicProperties::default(), &b"{\"n\":1}"[..])]).await;
    worker.await_done(1).await;
    assert_eq!(header(&lane.dead_letters().await[0], "x-drover-reason"), "NoId");
    worker.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_survives_what_would_drop_or_double_it() {
    let lane = Lane::new("bad-properties").await;
    lane.table("message_id text PRIMARY KEY, n int").await;
    let mut headers = lapin::types::FieldTable::default();
    headers.insert("mine".into(), lapin::types::AMQPValue::LongString("kept".into()));
    headers.insert("x-death".into(), lapin::types::AMQPValue::LongString("me".into()));
    let user: url::Url = crate::surroundings::env("DROVER_TEST_HUB_URI").parse().unwrap();
    let properties = BasicProperties::default()
        .with_message_id("m".into())
        .with_expiration("60000".into())
        .with_user_id(user.username().into())
        .with_headers(headers);
    lane.publish_with([(properties, &b"x"[..])]).await;
    let worker = lane.worker(APPEND, &[]).await;
    worker.await_done(1).await;
    let dead = lane.dead_letters().await;
    assert_eq!(dead.len(), 1);
    assert_eq!((dead[0].properties.expiration(), dead[0].properties.user_id()), (&None, &None));
    assert_eq!(header(&dead[0], "x-drover-original-expiration"), "60000");
    assert_eq!((header(&dead[0], "mine"), header(&dead[0], "x-death")), ("kept".to_owned(), String::new()));
    assert_eq!(header(&dead[0], "x-drover-original-routing-key"), "bad-properties");
    worker.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_dead_letter_queue_a_bad_message_is_held_until_there_is_one() {
    let lane = Lane::bare("bad-nowhere").await;
    lane.declare_source("quorum").await;
    lane.table("message_id text PRIMARY KEY, n int").await;
    let worker = lane.worker(APPEND, &[]).await;
    lane.publish([("bad".to_owned(), &b"x"[..]), ("good".to_owned(), b"{\"n\":1}")]).await;
    worker.await_holding("DeadLetterRefused").await;
    assert_eq!(worker.status().await.dead_lettered, 0);
    assert_eq!(worker.get("/readyz").await.0, 200);
    lane.declare_dead().await;
    worker.await_done(2).await;
    assert_eq!((lane.count().await, lane.dead_letters().await.len()), (1, 1));
    eventually("no longer holding", || async { worker.status().await.holding.is_none().then_some(()) }).await;
    worker.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_pipeline_exchange_is_waited_for() {
    let lane = Lane::bare("bad-exchange").await;
    lane.declare_queue("bad-exchange", "quorum").await;
    lane.table("message_id text PRIMARY KEY, n int").await;
    let worker = lane.worker(APPEND, &[]).await;
    lane.publish([("bad".to_owned(), &b"x"[..])]).await;
    worker.await_holding("ExchangeNotFound").await;
    lane.declare_exchange().await;
    lane.declare_dead().await;
    worker.await_done(1).await;
    assert_eq!(lane.dead_letters().await.len(), 1);
    worker.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_bad_bodies_stops_the_source_instead_of_emptying_it() {
    let lane = Lane::new("bad-flood").await;
    lane.table("message_id text PRIMARY KEY, n bigint").await;
    let worker = lane.worker(APPEND, &[("DROVER_CONCURRENCY", "1")]).await;
    lane.publish_numbered(0..50).await;
    lane.await_rows(50).await;
    lane.publish((0..600).map(|n| (format!("bad-{n}"), &b"<xml/>"[..]))).await;
    worker.await_holding("TooManyDeadLetters").await;
    worker.stop().await;
    let dead = lane.dead_letters().await.len();
    assert!((100..110).contains(&dead), "{dead}");
    assert_eq!(lane.take(&lane.name).await.len(), 600 - dead, "the others are still in the source");
    lane.close().await;
}
