//! The benches' own stream, state and table, and a query's worker on them as it ships. What is read once lies in the stream for every run.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use drover_worker::{
    hub::{self, HubAddress},
    store::{self, StoreAddress},
    stream::{ARRIVAL, DEAD, TICK},
    tls::Material,
};
use futures::future::try_join_all;
use lapin::{
    BasicProperties, Channel, Connection, ExchangeKind,
    options::{
        BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions,
        QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};
use tokio_postgres::Client;

use crate::process::Process;

/// Between two looks at the store: little beside what is measured.
pub(crate) const LOOK: Duration = Duration::from_millis(5);
/// Messages that are published before their confirmations are waited for.
const UNCONFIRMED: usize = 1_000;

fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: make bench sets it"))
}

fn ca() -> String {
    std::fs::read_to_string(env("DROVER_TEST_CA")).expect("the CA can be read")
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "events of a benchmark are of now")]
pub(crate) fn wall() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock after 1970");
    since.as_millis().try_into().expect("a clock of this age")
}

/// The value in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Streams, exchange, dead letters, schema and table of one name.
pub(crate) struct Lane {
    name: &'static str,
    partitions: i32,
    pub(crate) hub: Connection,
    channel: Channel,
    store: Client,
}

impl Lane {
    /// Everything that the operator declares, and nothing in it.
    pub(crate) async fn new(name: &'static str, partitions: i32) -> Self {
        let address =
            HubAddress { uri: env("DROVER_TEST_HUB_URI"), tls: Material { ca: Some(ca()), ..Material::default() } };
        let hub = hub::connect(&address, name).await.expect("the hub is there");
        let channel = hub.create_channel().await.expect("a channel");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        let address = StoreAddress::from_uri(&env("DROVER_TEST_STORE_URI"), Some(ca())).expect("an address");
        let store = store::connect(&address, name).await.expect("the store is there");
        let lane = Self { name, partitions, hub, channel, store };
        lane.remove().await;
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let exchange = lane.exchange();
        lane.channel
            .exchange_declare(exchange.as_str().into(), ExchangeKind::Direct, durable, FieldTable::default())
            .await
            .expect("an exchange");
        for part in 0..partitions {
            lane.declare(&lane.stream(part), "stream", &format!("tick-{part}")).await;
        }
        lane.declare(&lane.dead(), "quorum", DEAD).await;
        lane
    }

    fn exchange(&self) -> String {
        format!("{}.drover", self.name)
    }

    fn dead(&self) -> String {
        format!("{}.dead", self.name)
    }

    pub(crate) fn stream(&self, part: i32) -> String {
        format!("{}-{part}", self.name)
    }

    fn schema(&self) -> String {
        format!("drover_{}", self.name)
    }

    async fn declare(&self, queue: &str, kind: &str, key: &str) {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        self.channel.queue_declare(queue.into(), durable, arguments).await.expect("a queue");
        let (exchange, options) = (self.exchange(), QueueBindOptions::default());
        self.channel
            .queue_bind(queue.into(), exchange.as_str().into(), key.into(), options, FieldTable::default())
            .await
            .expect("a binding");
    }

    /// No state and no rows: the streams are read from their beginning again.
    pub(crate) async fn forget(&self) {
        let (schema, table) = (self.schema(), self.name);
        let drop = format!(
            "SET client_min_messages = warning; DROP SCHEMA IF EXISTS \"{schema}\" CASCADE; DROP TABLE IF EXISTS \"{table}\""
        );
        self.store.batch_execute(&drop).await.expect("no state");
        // What earlier runs left to write is not this run's.
        self.store.batch_execute("CHECKPOINT").await.ok();
    }

    /// Takes all of it away.
    pub(crate) async fn close(self) {
        self.remove().await;
        self.hub.close(200, "done".into()).await.expect("closed");
    }

    async fn remove(&self) {
        self.forget().await;
        for queue in (0..self.partitions).map(|part| self.stream(part)).chain([self.dead()]) {
            self.channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await.expect("no queue");
        }
        let exchange = self.exchange();
        self.channel
            .exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default())
            .await
            .expect("no exchange");
    }

    /// Publishes messages with their partitions and arrivals, in order; all are confirmed.
    pub(crate) async fn publish(&self, messages: impl Iterator<Item = (i32, i64, Vec<u8>)>) {
        let mut sent = Vec::new();
        for (part, arrival, body) in messages {
            let properties = header(ARRIVAL, arrival);
            let (stream, options) = (self.stream(part), BasicPublishOptions::default());
            let published = self.channel.basic_publish("".into(), stream.as_str().into(), options, &body, properties);
            sent.push(published.await.expect("sent"));
            if sent.len() >= UNCONFIRMED {
                try_join_all(sent.drain(..)).await.expect("confirmed");
            }
        }
        try_join_all(sent).await.expect("confirmed");
    }

    /// Lets all partitions know a time, in milliseconds since 1970.
    pub(crate) async fn tick(&self, millis: i64) {
        let exchange = self.exchange();
        for part in 0..self.partitions {
            let (key, options) = (format!("tick-{part}"), BasicPublishOptions::default());
            let properties = header(TICK, millis);
            let published =
                self.channel.basic_publish(exchange.as_str().into(), key.as_str().into(), options, b"", properties);
            published.await.expect("sent").await.expect("confirmed");
        }
    }

    /// One number of the store's; none where the table is not there yet.
    pub(crate) async fn number(&self, sql: &str) -> Option<i64> {
        let sql = sql.replace('@', &format!("\"{}\"", self.schema()));
        self.store.query_one(&sql, &[]).await.ok()?.get(0)
    }

    /// Waits for a number of the store's.
    pub(crate) async fn await_number(&self, sql: &str, wanted: i64) {
        while self.number(sql).await.is_none_or(|n| n < wanted) {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A query's worker, as a process of its own, on this lane.
    pub(crate) fn worker(&self, query: &str) -> Process {
        let child = Command::new(env!("CARGO_BIN_EXE_drover-worker"))
            .arg("query")
            .env("DROVER_HUB_URI", env("DROVER_TEST_HUB_URI"))
            .env("DROVER_HUB_CA", ca())
            .env("DROVER_STREAM", self.name)
            .env("DROVER_PARTITIONS", self.partitions.to_string())
            .env("DROVER_QUERY", query)
            .env("DROVER_SINK", format!("{{\"postgres\":{{\"table\":\"{}\"}}}}", self.name))
            .env("DROVER_STORE_URI", env("DROVER_TEST_STORE_URI"))
            .env("DROVER_STORE_CA", ca())
            .env("DROVER_STORE_SCHEMA", self.schema())
            .env("DROVER_REVISION", "bench")
            .env("DROVER_LISTEN", "127.0.0.1:0")
            .env("RUST_LOG", "warn")
            .stdout(Stdio::inherit())
            .spawn()
            .expect("the worker starts");
        Process(child)
    }
}

fn header(name: &str, millis: i64) -> BasicProperties {
    let mut headers = FieldTable::default();
    headers.insert(name.into(), AMQPValue::LongLongInt(millis));
    BasicProperties::default().with_headers(headers)
}
