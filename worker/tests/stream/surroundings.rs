//! The hub and the store of the tests, and a lane of a test's own: streams, exchange, dead-letter queue, schema and tables.

use std::{collections::BTreeMap, future::Future, time::Duration};

use drover_worker::{
    hub::connect,
    query::{Decoder, Engine},
    settings,
    store::{self, StoreAddress},
    stream::{self, ARRIVAL, DEAD, TICK, settings as names, settings::StreamSettings, status::QueryStatus},
};
use futures::{StreamExt, future::try_join_all};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ExchangeKind,
    message::{BasicGetMessage, Delivery},
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
        ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};
use serde_json::{Value, value::RawValue};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tokio_postgres::Client;

use crate::reach::{get, take, within};
pub(crate) use crate::{
    reach::hub,
    variables::{env, file},
};

const OFFSET: &str = "x-stream-offset";
/// Whatever is waited for comes within this, or never.
const PATIENCE: Duration = Duration::from_mins(2);

/// Asks until the answer is right.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, ask: impl FnMut() -> F) -> T {
    within(PATIENCE, what, ask).await
}

/// An event on its way to a partition.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) partition: i32,
    pub(crate) body: Vec<u8>,
    /// Milliseconds since 1970.
    pub(crate) arrival: Option<i64>,
}

impl Sent {
    pub(crate) fn new(partition: i32, body: &Value, arrival: i64) -> Self {
        Self { partition, body: body.to_string().into_bytes(), arrival: Some(arrival) }
    }
}

/// Milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "events of a test are of now")]
pub(crate) fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}

/// What belongs to one test. The names are its own, so tests run side by side.
pub(crate) struct Lane {
    pub(crate) name: String,
    pub(crate) partitions: i32,
    pub(crate) owner: Client,
    pub(crate) channel: Channel,
    connection: Connection,
}

impl Lane {
    /// Streams, exchange and dead-letter queue as the operator declares them, all empty; no schema.
    pub(crate) async fn new(name: &str, partitions: i32) -> Self {
        let lane = Self::again(name, partitions).await;
        lane.remove().await;
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        lane.channel
            .exchange_declare(lane.exchange().as_str().into(), ExchangeKind::Direct, durable, FieldTable::default())
            .await
            .unwrap();
        for part in 0..partitions {
            lane.declare_stream(part).await;
        }
        lane.declare(&lane.dead(), "quorum", DEAD).await;
        lane
    }

    /// A connection to what is there.
    pub(crate) async fn again(name: &str, partitions: i32) -> Self {
        let owner = Self::client().await;
        let connection = connect(&hub(&env("DROVER_TEST_HUB_URI")), "drover-test").await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        Self { name: name.to_owned(), partitions, owner, channel, connection }
    }

    pub(crate) async fn client() -> Client {
        Self::connected("DROVER_TEST_STORE_URI").await
    }

    /// Somebody else: shares no connection with a worker, as clients of a pooler do.
    pub(crate) async fn stranger() -> Client {
        Self::connected("DROVER_TEST_STORE_ADMIN_URI").await
    }

    async fn connected(variable: &str) -> Client {
        let address = StoreAddress::from_uri(&env(variable), Some(file("DROVER_TEST_CA"))).unwrap();
        store::connect(&address, "drover-test").await.unwrap()
    }

    pub(crate) fn exchange(&self) -> String {
        format!("{}.drover", self.name)
    }

    pub(crate) fn dead(&self) -> String {
        format!("{}.dead", self.name)
    }

    pub(crate) fn stream(&self, part: i32) -> String {
        format!("{}-{part}", self.name)
    }

    pub(crate) fn schema(&self) -> String {
        format!("drover_test_{}", self.name)
    }

    pub(crate) async fn declare_stream(&self, part: i32) {
        self.declare(&self.stream(part), "stream", &format!("tick-{part}")).await;
    }

    /// A stream that keeps about so many bytes.
    pub(crate) async fn declare_short_stream(&self, part: i32, bytes: i64) {
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-length-bytes".into(), AMQPValue::LongLongInt(bytes));
        arguments.insert("x-stream-max-segment-size-bytes".into(), AMQPValue::LongLongInt(bytes / 4));
        self.declare_with(&self.stream(part), "stream", &format!("tick-{part}"), arguments).await;
    }

    pub(crate) async fn declare(&self, name: &str, kind: &str, key: &str) {
        self.declare_with(name, kind, key, FieldTable::default()).await;
    }

    async fn declare_with(&self, name: &str, kind: &str, key: &str, mut arguments: FieldTable) {
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        self.channel.queue_declare(name.into(), durable, arguments).await.unwrap();
        let options = QueueBindOptions::default();
        self.channel
            .queue_bind(name.into(), self.exchange().as_str().into(), key.into(), options, FieldTable::default())
            .await
            .unwrap();
    }

    pub(crate) async fn delete_stream(&self, part: i32) {
        self.delete_queue(&self.stream(part)).await;
    }

    pub(crate) async fn delete_queue(&self, name: &str) {
        self.channel.queue_delete(name.into(), QueueDeleteOptions::default()).await.unwrap();
    }

    async fn remove(&self) {
        let (schema, table) = (self.schema(), &self.name);
        self.sql(&format!(
            "SET client_min_messages = warning; DROP SCHEMA IF EXISTS \"{schema}\" CASCADE; DROP TABLE IF EXISTS \"{table}\""
        ))
        .await;
        for queue in (0..self.partitions.max(8)).map(|p| self.stream(p)).chain([self.dead(), format!("{table}.out")]) {
            self.delete_queue(&queue).await;
        }
        let exchange = self.exchange();
        self.channel.exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default()).await.unwrap();
    }

    pub(crate) async fn close(self) {
        self.remove().await;
        self.connection.close(200, "done".into()).await.unwrap();
    }

    pub(crate) async fn sql(&self, sql: &str) {
        self.owner.batch_execute(sql).await.unwrap();
    }

    /// One value, as text.
    pub(crate) async fn ask(&self, sql: &str) -> String {
        let sql = sql.replace('@', &format!("\"{}\"", self.schema()));
        let row = self.owner.query_typed_one(&format!("SELECT ({sql})::text"), &[]).await.unwrap();
        row.get::<_, Option<String>>(0).unwrap_or_default()
    }

    /// The result table's rows as JSON; none while there is no table.
    pub(crate) async fn rows(&self) -> Vec<Value> {
        let table = &self.name;
        if self.ask(&format!("to_regclass('\"{table}\"') IS NOT NULL")).await != "true" {
            return Vec::new();
        }
        let rows = self
            .owner
            .query_typed(&format!("SELECT to_jsonb(\"the row\")::text FROM \"{table}\" AS \"the row\""), &[])
            .await
            .unwrap();
        rows.iter().map(|row| value_of(row.get(0))).collect()
    }

    pub(crate) async fn await_rows(&self, rows: usize) -> Vec<Value> {
        let what = format!("{rows} rows in {}", self.name);
        eventually(&what, || async { Some(self.rows().await).filter(|found| found.len() >= rows) }).await
    }

    /// Publishes in order, all confirmed. What a hub that has just started routes nowhere comes back and is sent again.
    pub(crate) async fn publish(&self, events: &[Sent]) {
        for some in events.chunks(2_000) {
            let mut left: Vec<&Sent> = some.iter().collect();
            for _ in 0..600 {
                left = self.publish_once(&left).await;
                if left.is_empty() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            assert!(left.is_empty(), "the hub gives back {} messages again and again", left.len());
        }
    }

    /// Publishes in order and answers what the hub gave back.
    async fn publish_once<'s>(&self, events: &[&'s Sent]) -> Vec<&'s Sent> {
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let mut sent = Vec::new();
        for event in events {
            let mut headers = FieldTable::default();
            if let Some(arrival) = event.arrival {
                headers.insert(ARRIVAL.into(), AMQPValue::LongLongInt(arrival));
            }
            let properties = BasicProperties::default().with_headers(headers);
            let stream = self.stream(event.partition);
            let published =
                self.channel.basic_publish("".into(), stream.as_str().into(), options, &event.body, properties);
            sent.push(published.await.unwrap());
        }
        let confirmations = try_join_all(sent).await.unwrap();
        assert!(confirmations.iter().all(Confirmation::is_ack), "a nack says nothing of what became of a message");
        let given_back = |(event, confirmation): (&&'s Sent, Confirmation)| confirmation.take_message().map(|_| *event);
        events.iter().zip(confirmations).filter_map(given_back).collect()
    }

    /// Lets all partitions know a time, in milliseconds since 1970.
    pub(crate) async fn tick(&self, millis: i64) {
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        for part in 0..self.partitions {
            let mut headers = FieldTable::default();
            headers.insert(TICK.into(), AMQPValue::LongLongInt(millis));
            let (exchange, key) = (self.exchange(), format!("tick-{part}"));
            let properties = BasicProperties::default().with_headers(headers);
            let published =
                self.channel.basic_publish(exchange.as_str().into(), key.as_str().into(), options, b"", properties);
            let confirmation = published.await.unwrap().await.unwrap();
            assert!(confirmation.is_ack() && confirmation.take_message().is_none());
        }
    }

    /// Takes everything out of a queue.
    pub(crate) async fn take(&self, queue: &str) -> Vec<BasicGetMessage> {
        take(&self.channel, queue).await
    }

    /// Waits for so many dead letters.
    pub(crate) async fn await_dead(&self, letters: usize) -> Vec<BasicGetMessage> {
        let dead = self.dead();
        let count = || async {
            let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let declared = self.channel.queue_declare(dead.as_str().into(), passive, FieldTable::default()).await;
            (declared.unwrap().message_count() as usize >= letters).then_some(())
        };
        eventually(&format!("{letters} dead letters"), count).await;
        self.take(&dead).await
    }

    /// Everything that a stream holds up to a tick.
    pub(crate) async fn read_until(&self, part: i32, tick: i64) -> Vec<Delivery> {
        self.read_to(part, |d| header(d, TICK) == Some(tick)).await
    }

    /// Everything that a stream holds before an offset.
    pub(crate) async fn read_before(&self, part: i32, offset: i64) -> Vec<Delivery> {
        self.read_to(part, |d| header(d, OFFSET).unwrap() + 1 >= offset).await
    }

    /// The offset of the first message that a stream still holds.
    pub(crate) async fn first_offset(&self, part: i32) -> i64 {
        header(&self.read_to(part, |_| true).await[0], OFFSET).unwrap()
    }

    async fn read_to(&self, part: i32, last: impl Fn(&Delivery) -> bool) -> Vec<Delivery> {
        let stream = self.stream(part);
        let channel = self.connection.create_channel().await.unwrap();
        channel.basic_qos(5_000, BasicQosOptions::default()).await.unwrap();
        let mut arguments = FieldTable::default();
        arguments.insert("x-stream-offset".into(), AMQPValue::LongString("first".into()));
        let options = BasicConsumeOptions::default();
        let mut consumer =
            channel.basic_consume(stream.as_str().into(), "read".into(), options, arguments).await.unwrap();
        let mut read = Vec::new();
        loop {
            let delivery = tokio::time::timeout(PATIENCE, consumer.next()).await.expect("a message").unwrap().unwrap();
            channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default()).await.unwrap();
            let end = last(&delivery);
            read.push(delivery);
            if end {
                channel.close(200, "done".into()).await.unwrap();
                return read;
            }
        }
    }

    /// The variables of a worker on this lane. Ticks are the test's, unless it says otherwise.
    pub(crate) fn variables(&self, query: &str, more: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut all: Vec<(String, String)> =
            more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let table = format!("{{\"postgres\":{{\"table\":\"{}\"}}}}", self.name);
        let least = [
            (settings::HUB_URI, env("DROVER_TEST_HUB_URI")),
            (settings::HUB_CA, file("DROVER_TEST_CA")),
            (names::STREAM, self.name.clone()),
            (names::PARTITIONS, self.partitions.to_string()),
            (names::QUERY, query.to_owned()),
            (names::SINK, table),
            (names::STORE_URI, env("DROVER_TEST_STORE_URI")),
            (names::STORE_CA, file("DROVER_TEST_CA")),
            (names::STORE_SCHEMA, self.schema()),
            (names::TICK_MILLIS, "0".to_owned()),
            (names::LEASE_SECONDS, "4".to_owned()),
            (settings::REVISION, "r1".to_owned()),
            (settings::POD, "w".to_owned()),
            (settings::GRACE_SECONDS, "10".to_owned()),
            (settings::LISTEN, "127.0.0.1:0".to_owned()),
        ];
        for (name, value) in least {
            if !all.iter().any(|(known, _)| known == name) {
                all.push((name.to_owned(), value));
            }
        }
        all
    }

    pub(crate) fn settings(&self, query: &str, more: &[(&str, &str)]) -> StreamSettings {
        let all = self.variables(query, more);
        StreamSettings::from_env(|name| all.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone())).unwrap()
    }

    /// A worker in this process.
    pub(crate) async fn worker(&self, query: &str, more: &[(&str, &str)]) -> Worker {
        Worker::start(self.settings(query, more)).await
    }
}

/// A JSON object with the numbers that its text says: the last bit of a float may get lost where the parser is a quick one.
fn value_of(object: &str) -> Value {
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(object).unwrap();
    let value = |raw: &RawValue| match raw.get().parse::<f64>() {
        Ok(float) if raw.get().contains(['.', 'e', 'E']) => Value::from(float),
        _ => serde_json::from_str(raw.get()).unwrap(),
    };
    fields.into_iter().map(|(name, raw)| (name, value(raw))).collect()
}

#[test]
fn floats_are_read_to_the_last_bit() {
    let row = value_of(r#"{"v":49.776562500000004,"n":3,"k":"1.5"}"#);
    assert_eq!(row["v"].as_f64().map(f64::to_bits), Some(49.776_562_500_000_004_f64.to_bits()));
    assert_eq!((&row["n"], &row["k"]), (&Value::from(3), &Value::from("1.5")));
}

fn header(delivery: &Delivery, name: &str) -> Option<i64> {
    match delivery.properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongLongInt(n) => Some(*n),
        other => panic!("{name} is {other:?}"),
    }
}

/// The times of events, as the query reads them: milliseconds since 1970.
pub(crate) fn times(settings: &StreamSettings, events: &[Value]) -> Vec<Option<i64>> {
    let (engine, decoder) = (Engine::new(&settings.plan), Decoder::new(&settings.plan, None));
    let time = |e: &Value| engine.time_of(&decoder.event(e.to_string().as_bytes()).ok()?).ok().flatten();
    events.iter().map(|e| time(e).map(|t| t.div_euclid(10_000))).collect()
}

pub(crate) struct Worker {
    address: std::net::SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Worker {
    pub(crate) async fn start(settings: StreamSettings) -> Self {
        // Shown where a test fails; another test may have set it up.
        let _ = tracing_subscriber::fmt().with_env_filter("drover_worker=debug").with_test_writer().try_init();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async move {
            let _ = stopped.await;
        };
        let task = tokio::spawn(stream::run_on(settings, listener, shutdown));
        Self { address, stop: Some(stop), task }
    }

    /// As SIGTERM does; ends when the worker has.
    pub(crate) async fn stop(mut self) {
        drop(self.stop.take());
        tokio::time::timeout(PATIENCE, self.task).await.expect("the worker ends").unwrap();
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        get(self.address, path).await
    }

    pub(crate) async fn status(&self) -> QueryStatus {
        serde_json::from_str(&self.get("/status").await.1).unwrap()
    }

    /// Waits until the status is as wanted.
    pub(crate) async fn await_status(&self, what: &str, wanted: impl Fn(&QueryStatus) -> bool) -> QueryStatus {
        eventually(what, || async { Some(self.status().await).filter(&wanted) }).await
    }
}
