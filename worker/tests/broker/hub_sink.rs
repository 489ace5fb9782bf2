//! Results that are published to an exchange.

use lapin::BasicProperties;

use crate::surroundings::{Lane, eventually, header};

const SINK: &str = r#"{"hub":{"exchange":"TABLE.drover","routingKey":"clean.{deviceId}"}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn results_are_published_with_id_and_key() {
    let lane = Lane::new("hub-key").await;
    lane.declare_queue("hub-key.out", "classic").await;
    lane.bind("hub-key.out", "clean.d1").await;
    let query =
        "SELECT input.deviceId AS deviceId, e.ArrayValue AS v FROM input CROSS APPLY GetArrayElements(input.list) AS e";
    let worker = lane.worker(SINK, &[("DROVER_TRANSFORM_QUERY", query)]).await;
    let properties =
        BasicProperties::default().with_message_id("m".into()).with_timestamp(7).with_expiration("60000".into());
    lane.publish_with([(properties, &br#"{"deviceId":"d1","list":[1,2]}"#[..])]).await;
    worker.await_done(1).await;
    let out = lane.take("hub-key.out").await;
    let seen: Vec<(&str, &[u8])> =
        out.iter().map(|m| (m.properties.message_id().as_ref().unwrap().as_str(), &m.data[..])).collect();
    assert_eq!(seen, [("m", &br#"{"deviceId":"d1","v":1}"#[..]), ("m/1", br#"{"deviceId":"d1","v":2}"#)]);
    assert_eq!((out[0].properties.timestamp(), out[0].properties.expiration()), (&Some(7), &None));
    worker.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_its_own_that_is_routed_nowhere_costs_its_message_and_no_neighbour() {
    let lane = Lane::new("hub-nowhere").await;
    lane.declare_queue("hub-nowhere.out", "quorum").await;
    lane.bind("hub-nowhere.out", "clean.a").await;
    let bodies: Vec<(String, String)> = (0..20)
        .map(|n| (n.to_string(), format!("{{\"deviceId\":\"{}\",\"n\":{n}}}", if n == 7 { "b" } else { "a" })))
        .collect();
    lane.publish(bodies.iter().map(|(id, body)| (id.clone(), body.as_bytes()))).await;
    let worker = lane.worker(SINK, &[("DROVER_CONCURRENCY", "1")]).await;
    let status = worker.await_done(20).await;
    assert_eq!(status.dead_lettered, 1);
    assert_eq!(header(&lane.dead_letters().await[0], "x-drover-reason"), "Unroutable");
    assert_eq!(numbers(&lane.take("hub-nowhere.out").await), (0..20).filter(|n| *n != 7).collect::<Vec<_>>());
    worker.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binding_that_all_miss_is_waited_for() {
    for (name, key) in [("hub-unbound", "clean"), ("hub-unbound-own", "clean.{deviceId}")] {
        let lane = Lane::new(name).await;
        lane.declare_queue(&format!("{name}.out"), "quorum").await;
        let sink = format!(r#"{{"hub":{{"exchange":"TABLE.drover","routingKey":"{key}"}}}}"#);
        let bodies = (0..40).map(|n| (format!("{n}"), format!("{{\"deviceId\":\"{n}\"}}"))).collect::<Vec<_>>();
        lane.publish(bodies.iter().map(|(id, body)| (id.clone(), body.as_bytes()))).await;
        let worker = lane.worker(&sink, &[("DROVER_CONCURRENCY", "1")]).await;
        worker.await_holding(if key == "clean" { "Unroutable" } else { "MostMessagesRefused" }).await;
        for n in 0..40 {
            lane.bind(&format!("{name}.out"), &key.replace("{deviceId}", &n.to_string())).await;
        }
        let dead = worker.await_done(40).await.dead_lettered;
        // The first deliveries may come alone: with keys of their own, fewer than ten refusals tell of no outage.
        assert!(if key == "clean" { dead == 0 } else { dead < 10 }, "{key}: {dead} dead letters");
        let mut seen = numbers(&lane.take(&format!("{name}.out")).await);
        seen.extend(numbers(&lane.dead_letters().await));
        seen.sort_unstable();
        assert_eq!(seen, (0..40).collect::<Vec<_>>(), "{key}");
        worker.stop().await;
        lane.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_exchange_is_waited_for_and_bad_keys_are_dead_lettered() {
    let lane = Lane::new("hub-missing").await;
    let sink = r#"{"hub":{"exchange":"hub-missing.absent","routingKey":"{deviceId}"}}"#;
    let absent = "hub-missing.absent";
    let options = lapin::options::ExchangeDeleteOptions::default();
    lane.channel.exchange_delete(absent.into(), options).await.unwrap();
    let worker = lane.worker(sink, &[]).await;
    worker.await_holding("ExchangeNotFound").await;
    lane.publish([("a".to_owned(), &br#"{"deviceId":"x"}"#[..]), ("b".to_owned(), br#"{"n":1}"#)]).await;
    lane.declare_queue("hub-missing.out", "classic").await;
    let kind = lapin::ExchangeKind::Fanout;
    let table = lapin::types::FieldTable::default;
    lane.channel
        .exchange_declare(absent.into(), kind, lapin::options::ExchangeDeclareOptions::default(), table())
        .await
        .unwrap();
    let bind = lapin::options::QueueBindOptions::default();
    lane.channel.queue_bind("hub-missing.out".into(), absent.into(), "".into(), bind, table()).await.unwrap();
    let status = worker.await_done(2).await;
    assert_eq!((status.processed, status.dead_lettered), (1, 1));
    eventually("it is there", || async { (lane.ready("hub-missing.out").await == 1).then_some(()) }).await;
    worker.stop().await;
    lane.channel.exchange_delete(absent.into(), options).await.unwrap();
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_behind_the_exchange_is_waited_for() {
    let lane = Lane::new("hub-full").await;
    let mut arguments = lapin::types::FieldTable::default();
    arguments.insert("x-max-length".into(), lapin::types::AMQPValue::LongInt(5));
    arguments.insert("x-overflow".into(), lapin::types::AMQPValue::LongString("reject-publish".into()));
    let durable = lapin::options::QueueDeclareOptions { durable: true, ..Default::default() };
    lane.channel.queue_declare("hub-full.out".into(), durable, arguments).await.unwrap();
    lane.bind("hub-full.out", "clean").await;
    let worker = lane.worker(r#"{"hub":{"exchange":"TABLE.drover","routingKey":"clean"}}"#, &[]).await;
    lane.publish_numbered(0..20).await;
    worker.await_holding("PublishRefused").await;
    let mut taken = 0;
    eventually("all through the small queue", || {
        let lane = &lane;
        async move { Some(lane.take("hub-full.out").await.len()) }
    })
    .await;
    while worker.status().await.processed < 20 {
        taken += lane.take("hub-full.out").await.len();
        assert!(taken < 1000);
    }
    assert_eq!(worker.status().await.dead_lettered, 0);
    worker.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn discard_takes_everything() {
    let lane = Lane::new("hub-discard").await;
    let worker = lane.worker(r#"{"discard":{}}"#, &[]).await;
    lane.publish_numbered(0..100).await;
    assert_eq!(worker.await_done(100).await.processed, 100);
    worker.stop().await;
    assert_eq!(lane.ready(&lane.name).await, 0);
    lane.close().await;
}

/// The ids of messages, in order.
fn numbers(messages: &[lapin::message::BasicGetMessage]) -> Vec<u32> {
    let id =
        |m: &lapin::message::BasicGetMessage| m.properties.message_id().as_ref().unwrap().as_str().parse().unwrap();
    let mut ids: Vec<u32> = messages.iter().map(id).collect();
    ids.sort_unstable();
    ids
}
