//! The hub and the store of the tests, and a lane of a test's own: source, exchange, dead-letter queue and table.

use std::{future::Future, process::Command, time::Duration};

use drover_worker::{
    hub::connect,
    ingest,
    settings::{self, Settings},
    status::WorkerStatus,
    store::{self, StoreAddress},
};
use futures::future::try_join_all;
use lapin::{
    BasicProperties, Channel, Connection, Consumer, ExchangeKind,
    message::BasicGetMessage,
    options::{
        BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
        ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tokio_postgres::Client;

use crate::reach::{get, take, within};
pub(crate) use crate::{
    reach::hub,
    variables::{env, file},
};

/// Whatever is waited for comes within this, or never.
const PATIENCE: Duration = Duration::from_secs(40);

/// The store's superuser.
pub(crate) async fn admin() -> Client {
    let address = StoreAddress::from_uri(&env("DROVER_TEST_STORE_ADMIN_URI"), Some(file("DROVER_TEST_CA"))).unwrap();
    store::connect(&address, "drover-test").await.unwrap()
}

/// One value that the store's superuser sees, as text.
pub(crate) async fn one(sql: &str) -> String {
    let row = admin().await.query_one(&format!("SELECT ({sql})::text"), &[]).await.unwrap();
    row.get::<_, Option<String>>(0).unwrap_or_default()
}

/// Asks until the answer is right.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, ask: impl FnMut() -> F) -> T {
    within(PATIENCE, what, ask).await
}

/// What a worker holds that has taken so many messages and acknowledged none.
pub(crate) struct Holder {
    connection: Connection,
    _consumer: Consumer,
}

impl Holder {
    /// To the broker, the end of a connection is the end of its process.
    pub(crate) async fn dies(self) {
        self.connection.close(200, "killed".into()).await.unwrap();
    }
}

pub(crate) async fn hold(queue: &str, messages: u32) -> lapin::Result<Holder> {
    let connection = connect(&hub(&env("DROVER_TEST_HUB_URI")), "drover-test-holder").await.unwrap();
    let channel = connection.create_channel().await?;
    channel.basic_qos(u16::try_from(messages).unwrap(), BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let consumer = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await?;
    Ok(Holder { connection, _consumer: consumer })
}

/// What belongs to one test.
pub(crate) struct Lane {
    pub(crate) name: String,
    pub(crate) owner: Client,
    pub(crate) channel: Channel,
    connection: Connection,
}

impl Lane {
    /// Queues, exchange and bindings as the operator declares them, all empty.
    pub(crate) async fn new(name: &str) -> Self {
        let lane = Self::bare(name).await;
        lane.declare_source("quorum").await;
        lane.declare_dead().await;
        lane
    }

    /// A connection, and nothing of this name in the broker.
    pub(crate) async fn bare(name: &str) -> Self {
        let lane = Self::again(name).await;
        for queue in lane.queues() {
            lane.channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
        }
        let exchange = lane.exchange();
        lane.channel.exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default()).await.unwrap();
        lane
    }

    /// A connection to what is there.
    pub(crate) async fn again(name: &str) -> Self {
        let address = StoreAddress::from_uri(&env("DROVER_TEST_STORE_URI"), Some(file("DROVER_TEST_CA"))).unwrap();
        let owner = store::connect(&address, "drover-test").await.unwrap();
        let connection = connect(&hub(&env("DROVER_TEST_HUB_URI")), "drover-test").await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        Self { name: name.to_owned(), owner, channel, connection }
    }

    pub(crate) fn exchange(&self) -> String {
        format!("{}.drover", self.name)
    }

    pub(crate) fn dead(&self) -> String {
        format!("{}.dead", self.name)
    }

    fn queues(&self) -> Vec<String> {
        let ours = ["out", "dead", "suspects-1", "suspects-2", "delay-1", "delay-2", "mirror-r1"];
        ours.iter().map(|end| format!("{}.{end}", self.name)).chain([self.name.clone()]).collect()
    }

    /// Queues of suspects, and those in which messages wait one and two seconds, as the operator declares them.
    pub(crate) async fn declare_detours(&self) {
        let text = |value: &str| AMQPValue::LongString(value.into());
        let exchange = self.exchange();
        let detours =
            [("suspects-1", "dead", 0), ("suspects-2", "dead", 0), ("delay-1", "return", 1), ("delay-2", "return", 2)];
        for (key, next, seconds) in detours {
            let name = format!("{}.{key}", self.name);
            let mut arguments = FieldTable::default();
            for (argument, value) in [
                ("x-queue-type", "quorum"),
                ("x-dead-letter-exchange", &exchange),
                ("x-dead-letter-routing-key", next),
                ("x-dead-letter-strategy", "at-least-once"),
                ("x-overflow", "reject-publish"),
            ] {
                arguments.insert(argument.into(), text(value));
            }
            if seconds > 0 {
                arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(seconds * 1000));
            }
            let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
            self.channel.queue_declare(name.as_str().into(), durable, arguments).await.unwrap();
            self.bind(&name, key).await;
        }
    }

    pub(crate) async fn declare_exchange(&self) {
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let name = self.exchange();
        self.channel
            .exchange_declare(name.as_str().into(), ExchangeKind::Direct, durable, FieldTable::default())
            .await
            .unwrap();
    }

    pub(crate) async fn declare_source(&self, kind: &str) {
        self.declare_exchange().await;
        self.declare_queue(&self.name, kind).await;
        self.bind(&self.name, "return").await;
    }

    pub(crate) async fn declare_dead(&self) {
        self.declare_queue(&self.dead(), "quorum").await;
        self.bind(&self.dead(), "dead").await;
    }

    pub(crate) async fn declare_queue(&self, name: &str, kind: &str) {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        self.channel.queue_declare(name.into(), durable, arguments).await.unwrap();
    }

    pub(crate) async fn bind(&self, queue: &str, key: &str) {
        let exchange = self.exchange();
        let options = QueueBindOptions::default();
        self.channel
            .queue_bind(queue.into(), exchange.as_str().into(), key.into(), options, FieldTable::default())
            .await
            .unwrap();
    }

    /// Makes the lane's table, granted to the worker's role.
    pub(crate) async fn table(&self, columns: &str) {
        let name = &self.name;
        let sql = format!(
            "DROP TABLE IF EXISTS \"{name}\" CASCADE; CREATE TABLE \"{name}\" ({columns});
             GRANT SELECT, INSERT, UPDATE ON \"{name}\" TO drover_worker"
        );
        self.sql(&sql).await;
    }

    pub(crate) async fn sql(&self, sql: &str) {
        self.owner.batch_execute(sql).await.unwrap();
    }

    /// One value, as text.
    pub(crate) async fn ask(&self, sql: &str) -> String {
        let row = self.owner.query_typed_one(&format!("SELECT ({sql})::text"), &[]).await.unwrap();
        row.get::<_, Option<String>>(0).unwrap_or_default()
    }

    pub(crate) async fn count(&self) -> u64 {
        self.ask(&format!("SELECT count(*) FROM \"{}\"", self.name)).await.parse().unwrap()
    }

    /// Publishes bodies with ids, all confirmed.
    pub(crate) async fn publish<'b>(&self, messages: impl IntoIterator<Item = (String, &'b [u8])>) {
        let properties = |id: String| BasicProperties::default().with_message_id(id.as_str().into());
        self.publish_with(messages.into_iter().map(|(id, body)| (properties(id), body))).await;
    }

    pub(crate) async fn publish_with<'b>(&self, messages: impl IntoIterator<Item = (BasicProperties, &'b [u8])>) {
        self.publish_to(&self.name, messages).await;
    }

    pub(crate) async fn publish_to<'b>(
        &self,
        queue: &str,
        messages: impl IntoIterator<Item = (BasicProperties, &'b [u8])>,
    ) {
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let sent = messages
            .into_iter()
            .map(|(properties, body)| self.channel.basic_publish("".into(), queue.into(), options, body, properties));
        for confirmation in try_join_all(try_join_all(sent).await.unwrap()).await.unwrap() {
            assert!(confirmation.is_ack() && confirmation.take_message().is_none());
        }
    }

    /// Numbered messages `{"n":…}` with ids `prefix-n`.
    pub(crate) async fn publish_numbered(&self, numbers: std::ops::Range<u64>) {
        let bodies: Vec<(String, String)> = numbers.map(|n| (format!("m-{n}"), format!("{{\"n\":{n}}}"))).collect();
        self.publish(bodies.iter().map(|(id, body)| (id.clone(), body.as_bytes()))).await;
    }

    /// Ready messages of a queue.
    pub(crate) async fn ready(&self, queue: &str) -> u32 {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        self.channel.queue_declare(queue.into(), passive, FieldTable::default()).await.unwrap().message_count()
    }

    pub(crate) async fn consumers(&self) -> u32 {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        self.channel
            .queue_declare(self.name.as_str().into(), passive, FieldTable::default())
            .await
            .unwrap()
            .consumer_count()
    }

    /// Has the hub cut the connections of the lane's worker; false while it knows of none.
    pub(crate) async fn cut(&self) -> bool {
        let name = format!("drover-worker {}", self.name);
        tokio::task::spawn_blocking(move || {
            let url = format!("{}/api/connections", env("DROVER_TEST_HUB_MANAGEMENT_URI"));
            let curl = |arguments: &[&str]| {
                let ca = env("DROVER_TEST_CA");
                let output = Command::new("curl").args(["-sf", "--cacert", &ca]).args(arguments).output().unwrap();
                assert!(output.status.success(), "curl: {output:?}");
                output.stdout
            };
            let all: Vec<serde_json::Value> = serde_json::from_slice(&curl(&[&url])).unwrap();
            let ours = all.iter().filter(|c| c["client_properties"]["connection_name"] == name.as_str());
            let names: Vec<String> =
                ours.map(|c| c["name"].as_str().unwrap().replace(' ', "%20").replace('>', "%3E")).collect();
            for connection in &names {
                curl(&["-X", "DELETE", &format!("{url}/{connection}")]);
            }
            !names.is_empty()
        })
        .await
        .unwrap()
    }

    /// Takes everything out of a queue.
    pub(crate) async fn take(&self, queue: &str) -> Vec<BasicGetMessage> {
        take(&self.channel, queue).await
    }

    pub(crate) async fn dead_letters(&self) -> Vec<BasicGetMessage> {
        self.take(&self.dead()).await
    }

    /// Waits until the table has so many rows and the worker has acknowledged everything.
    pub(crate) async fn await_rows(&self, rows: u64) {
        eventually(&format!("{rows} rows in {}", self.name), || async { (self.count().await == rows).then_some(()) })
            .await;
    }

    pub(crate) async fn close(self) {
        self.sql(&format!("DROP TABLE IF EXISTS \"{}\" CASCADE", self.name)).await;
        for queue in self.queues() {
            self.channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
        }
        let exchange = self.exchange();
        self.channel.exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default()).await.unwrap();
        self.connection.close(200, "done".into()).await.unwrap();
    }

    /// A worker on this lane, into the lane's table unless another sink is given.
    pub(crate) async fn worker(&self, sink: &str, more: &[(&str, &str)]) -> Worker {
        let postgres = sink.replace("TABLE", &self.name);
        let (hub_uri, store_uri, ca) =
            (env("DROVER_TEST_HUB_URI"), env("DROVER_TEST_STORE_WORKER_URI"), file("DROVER_TEST_CA"));
        let least = [
            (settings::HUB_URI, hub_uri.as_str()),
            (settings::HUB_CA, &ca),
            (settings::SOURCE_QUEUE, &self.name),
            (settings::SINK, &postgres),
            (settings::SINK_URI, &store_uri),
            (settings::SINK_CA, &ca),
            (settings::REVISION, "r1"),
            (settings::POD, &self.name),
            (settings::GRACE_SECONDS, "10"),
        ];
        let all: Vec<(&str, &str)> = more.iter().copied().chain(least).collect();
        let lookup = |name: &str| all.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        Worker::start(Settings::from_env(lookup).unwrap()).await
    }

    /// What is in the queues that are worked on.
    pub(crate) async fn left(&self) -> u32 {
        let mut left = 0;
        for end in ["", ".suspects-1", ".suspects-2", ".delay-1", ".delay-2"] {
            left += self.ready(&format!("{}{end}", self.name)).await;
        }
        left
    }
}

/// An append with the lane's ids.
pub(crate) const APPEND: &str = r#"{"postgres":{"table":"TABLE","idColumn":"message_id"}}"#;

/// A worker in this process.
pub(crate) struct Worker {
    address: std::net::SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Worker {
    pub(crate) async fn start(settings: Settings) -> Self {
        // Shown where a test fails; another test may have set it up.
        let _ = tracing_subscriber::fmt().with_env_filter("drover_worker=debug").with_test_writer().try_init();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async move {
            let _ = stopped.await;
        };
        let task = tokio::spawn(async move { ingest::run_on(settings, listener, shutdown).await.unwrap() });
        Self { address, stop: Some(stop), task }
    }

    /// As SIGTERM does; ends when the worker has.
    pub(crate) async fn stop(mut self) {
        drop(self.stop.take());
        tokio::time::timeout(PATIENCE, self.task).await.expect("the worker ends").unwrap();
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        get(self.address, path).await
    }

    pub(crate) async fn status(&self) -> WorkerStatus {
        serde_json::from_str(&self.get("/status").await.1).unwrap()
    }

    /// Waits until nothing is held or in flight, and so many messages have come to an end.
    pub(crate) async fn await_done(&self, messages: u64) -> WorkerStatus {
        eventually(&format!("{messages} done"), || async {
            let status = self.status().await;
            (status.processed + status.dead_lettered >= messages && status.in_flight == 0).then_some(status)
        })
        .await
    }

    /// Waits until it holds for a reason.
    pub(crate) async fn await_holding(&self, reason: &str) {
        eventually(&format!("holding for {reason}"), || async {
            self.status().await.holding.is_some_and(|holding| holding.reason == reason).then_some(())
        })
        .await;
    }
}

pub(crate) fn header(message: &BasicGetMessage, name: &str) -> String {
    let headers = message.properties.headers().as_ref().expect("headers");
    match headers.inner().get(name) {
        Some(AMQPValue::LongString(text)) => text.to_string(),
        Some(AMQPValue::LongLongInt(n)) => n.to_string(),
        Some(other) => format!("{other:?}"),
        None => String::new(),
    }
}
