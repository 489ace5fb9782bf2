//! A message that goes every way there is, with everything set that would make a broker drop, double or refuse it.

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldArray, FieldTable},
};

use crate::{
    server::{Server, status},
    surroundings::{APPEND, Lane, env, eventually, header},
};

const COLUMNS: &str = "message_id text PRIMARY KEY, n bigint";

fn nasty(id: &str) -> BasicProperties {
    let text = |value: &str| AMQPValue::LongString(value.into());
    let mut death = FieldTable::default();
    for (name, value) in [("queue", "way"), ("reason", "expired"), ("exchange", "")] {
        death.insert(name.into(), text(value));
    }
    death.insert("count".into(), AMQPValue::LongLongInt(1));
    let mut deaths = FieldArray::default();
    deaths.push(AMQPValue::FieldTable(death));
    let mut headers = FieldTable::default();
    headers.insert("x-death".into(), AMQPValue::FieldArray(deaths));
    headers.insert("x-first-death-queue".into(), text("way"));
    headers.insert("mine".into(), text("stays"));
    let url: url::Url = env("DROVER_TEST_HUB_URI").parse().unwrap();
    BasicProperties::default()
        .with_message_id(id.into())
        .with_expiration("60000".into())
        .with_user_id(url.username().into())
        .with_headers(headers)
}

#[tokio::test(flavor = "multi_thread")]
async fn source_delay_source_dead_redrive_source_dead_neither_loses_nor_doubles() {
    let lane = Lane::new("way").await;
    lane.declare_detours().await;
    lane.table(COLUMNS).await;
    let server = Server::start(|_, seen| status(if seen.header("ce-droverattempt") == "1" { 503 } else { 422 })).await;
    let worker = lane.worker(APPEND, &[("DROVER_HANDLER_PORT", &server.port())]).await;
    // Few, so that they do not look like an outage.
    let bodies: Vec<(String, String)> = (0..4).map(|n| (format!("m-{n}"), format!("{{\"n\":{n}}}"))).collect();
    lane.publish_with(bodies.iter().map(|(id, body)| (nasty(id), body.as_bytes()))).await;
    for round in 1..=2 {
        worker.await_done(4 * round).await;
        eventually("the dead letters", || async { (lane.ready(&lane.dead()).await == 4).then_some(()) }).await;
        assert_eq!((lane.left().await, server.seen().len() as u64), (0, 8 * round));
        let mut dead = lane.dead_letters().await;
        dead.sort_by_key(|letter| letter.properties.message_id().clone());
        assert_eq!(dead.len(), 4);
        for (letter, (id, body)) in dead.iter().zip(&bodies) {
            assert_eq!(letter.properties.message_id().as_ref().unwrap().as_str(), id);
            assert_eq!(letter.data, body.as_bytes());
            assert_eq!((letter.properties.expiration(), letter.properties.user_id()), (&None, &None));
            let told =
                ["mine", "x-drover-original-expiration", "x-drover-original-queue", "x-drover-original-routing-key"]
                    .map(|name| header(letter, name));
            assert_eq!(told, ["stays", "60000", "way", "way"]);
            assert_eq!(header(letter, "x-death"), "");
        }
        if round == 1 {
            lane.publish_with(dead.iter().map(|letter| (letter.properties.clone(), &letter.data[..]))).await;
        }
    }
    worker.stop().await;
    lane.close().await;
}
