//! Dead letters against a real hub: `DROVER_TEST_HUB_URI` and `DROVER_TEST_CA` name it.

use std::{
    collections::BTreeSet,
    process::{Child, Command, Stdio},
    time::Duration,
};

use drover_operator::plugin::dead::{self, DeadLetters, Destination, Pace, Selection};
use drover_worker::{
    hub::{self, HubAddress},
    tls::Material,
};
use k8s_openapi::jiff::Timestamp;
use lapin::{
    BasicProperties, Channel, Connection,
    options::{
        BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions,
        QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};

/// Whatever is waited for comes within this, or never.
const PATIENCE: Duration = Duration::from_mins(1);

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is missing: run these tests by make test-hub"))
}

fn now() -> Timestamp {
    "2026-01-02T12:00:00Z".parse().unwrap()
}

/// Asks until it is so.
async fn eventually(what: &str, mut ask: impl AsyncFnMut() -> bool) {
    let asking = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        while !ask().await {
            ticks.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// A source and its dead-letter queue.
struct Lane {
    _connection: Connection,
    channel: Channel,
    source: String,
    letters: DeadLetters,
}

impl Lane {
    async fn new(name: &str) -> Self {
        let ca = std::fs::read_to_string(variable("DROVER_TEST_CA")).unwrap();
        let hub =
            HubAddress { uri: variable("DROVER_TEST_HUB_URI"), tls: Material { ca: Some(ca), ..Material::default() } };
        let connection = hub::connect(&hub, "dead letters' test").await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        let source = format!("operator-dead-{name}-{}", std::process::id());
        let letters = DeadLetters { hub, queue: format!("{source}.dead") };
        let lane = Self { _connection: connection, channel, source, letters };
        for queue in [&lane.source, &lane.letters.queue] {
            let mut arguments = FieldTable::default();
            arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
            // As the operator declares it: RabbitMQ 4 takes 20 otherwise, and drops what was looked at more often.
            arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(1_000_000_000));
            let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
            lane.channel.queue_declare(queue.as_str().into(), durable, arguments).await.unwrap();
        }
        let exchange = format!("{}.drover", lane.source);
        let kind = lapin::ExchangeKind::Direct;
        let options = ExchangeDeclareOptions { auto_delete: true, ..ExchangeDeclareOptions::default() };
        lane.channel.exchange_declare(exchange.as_str().into(), kind, options, FieldTable::default()).await.unwrap();
        let (queue, none) = (lane.source.as_str().into(), FieldTable::default());
        lane.channel
            .queue_bind(queue, exchange.as_str().into(), "return".into(), QueueBindOptions::default(), none)
            .await
            .unwrap();
        lane
    }

    /// Dead letters with the numbers as ids, every third of another reason.
    async fn fill(&self, numbers: std::ops::Range<u32>) {
        let publish = numbers.map(|n| {
            let mut headers = FieldTable::default();
            let reason = if n % 3 == 0 { "NotJson" } else { "ColumnMissing" };
            headers.insert("x-drover-reason".into(), AMQPValue::LongString(reason.into()));
            headers.insert("x-drover-attempts".into(), AMQPValue::LongLongInt(5));
            let properties = BasicProperties::default()
                .with_headers(headers)
                .with_message_id(n.to_string().as_str().into())
                .with_expiration("3600000".into());
            let body = format!("{{\"n\":{n}}}");
            let queue = self.letters.queue.as_str().into();
            async move {
                let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
                let sent = self.channel.basic_publish("".into(), queue, options, body.as_bytes(), properties).await;
                assert!(sent.unwrap().await.unwrap().is_ack());
            }
        });
        futures::future::join_all(publish).await;
    }

    /// Messages that are ready, and consumers.
    async fn look(&self, queue: &str) -> (u32, u32) {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let queue = self.channel.queue_declare(queue.into(), passive, FieldTable::default()).await.unwrap();
        (queue.message_count(), queue.consumer_count())
    }

    async fn depth(&self, queue: &str) -> u32 {
        self.look(queue).await.0
    }

    /// Waits until what consumers of the dead letters held is there again.
    async fn unused(&self) {
        eventually("no consumers", async || self.look(&self.letters.queue).await.1 == 0).await;
    }

    async fn settled(&self, depth: u32) {
        // A consumer that was cancelled holds what it had until its channel is closed.
        let what = format!("{depth} letters and nobody who holds one");
        eventually(&what, async || self.look(&self.letters.queue).await == (depth, 0)).await;
    }

    async fn ids(&self, queue: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        while let Some(got) = self.channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await.unwrap() {
            ids.push(got.properties.message_id().as_ref().unwrap().as_str().parse().unwrap());
        }
        ids
    }

    fn plugin(&self, arguments: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_kubectl-drover"))
            .args(arguments)
            .args(["--queue", &self.source])
            .env("DROVER_HUB_URI", &self.letters.hub.uri)
            .env("DROVER_HUB_CA", variable("DROVER_TEST_CA"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn said(&self, arguments: &[&str]) -> String {
        let output = self.plugin(arguments).wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    async fn close(self) {
        for queue in [&self.source, &self.letters.queue] {
            self.channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_looks_leave_depth_and_order_as_they_were() {
    let lane = Lane::new("looks").await;
    lane.fill(0..2500).await;
    for round in 0..30 {
        // Whole queues, parts of them, and few letters with a condition.
        let (selection, bound) = match round % 3 {
            0 => (Selection::default(), u64::MAX),
            1 => (Selection::default(), 1500),
            _ => (Selection { reasons: vec!["NotJson".to_owned()], ..Selection::default() }, 10),
        };
        let seen = dead::look(&lane.letters, &selection, (0, 5), bound, now()).await.unwrap();
        assert_eq!((seen.depth, seen.letters.len()), (2500, if round % 3 == 2 { 4 } else { 5 }), "look {round}");
        lane.settled(2500).await;
    }
    assert_eq!(lane.ids(&lane.letters.queue).await, (0..2500).collect::<Vec<_>>());
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_that_is_killed_midway_goes_on_and_loses_nothing() {
    let lane = Lane::new("killed").await;
    lane.fill(0..10_000).await;
    let mut first = lane.plugin(&["dead", "redrive", "--rate", "2000"]);
    eventually("a thousand redriven", async || lane.depth(&lane.source).await >= 1000).await;
    first.kill().unwrap();
    first.wait().unwrap();
    let at_source = lane.depth(&lane.source).await;
    assert!(at_source < 10_000, "it was killed too late");
    // What the killed one held comes back with its consumer's end.
    lane.unused().await;
    let said = lane.said(&["dead", "redrive"]);
    assert!(said.contains(", 0 left"), "{said}");
    assert_eq!(lane.depth(&lane.letters.queue).await, 0);
    let ids = lane.ids(&lane.source).await;
    assert_eq!(ids.iter().copied().collect::<BTreeSet<_>>(), (0..10_000).collect::<BTreeSet<_>>());
    assert!(ids.len() <= 10_000 + 200, "at most a batch is doubled, not {}", ids.len() - 10_000);
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_meant_is_redriven_as_a_first_attempt_and_the_rest_keeps_its_order() {
    let lane = Lane::new("meant").await;
    lane.fill(0..30).await;
    assert!(lane.said(&["dead", "redrive", "--reason", "NotJson", "--dry-run"]).starts_with("10 would be redriven"));
    assert_eq!(lane.depth(&lane.source).await, 0);
    lane.said(&["dead", "redrive", "--reason", "NotJson", "--max", "5"]);
    lane.said(&["dead", "redrive", "--json-path", "$.n=7"]);
    let got =
        lane.channel.basic_get(lane.source.as_str().into(), BasicGetOptions { no_ack: true }).await.unwrap().unwrap();
    let headers = got.properties.headers().clone().unwrap();
    assert_eq!(headers.inner().get("x-drover-attempts"), Some(&AMQPValue::LongLongInt(0)));
    assert_eq!(got.properties.expiration(), &None, "an expiration of its publisher would lose it");
    assert_eq!(lane.ids(&lane.source).await, [3, 6, 9, 12, 7]);
    let gone = [0, 3, 6, 9, 12, 7];
    lane.settled(24).await;
    assert_eq!(lane.ids(&lane.letters.queue).await, (0..30).filter(|n| !gone.contains(n)).collect::<Vec<_>>());
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_asks_first_and_deletes_only_what_is_meant() {
    let lane = Lane::new("purge").await;
    lane.fill(0..9).await;
    let refused = lane.plugin(&["dead", "purge"]).wait_with_output().unwrap();
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("--yes"));
    lane.settled(9).await;
    assert!(lane.said(&["dead", "purge", "--reason", "ColumnMissing", "--yes"]).starts_with("6 deleted"));
    lane.settled(3).await;
    assert_eq!(lane.ids(&lane.letters.queue).await, [0, 3, 6]);
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_queue_takes_them_all_stays() {
    let lane = Lane::new("unroutable").await;
    lane.fill(0..20).await;
    let to = Destination::Queue("operator-dead-that-is-not-there".to_owned());
    let error =
        dead::redrive(&lane.letters, &to, &Selection::default(), &Pace::default(), now(), |_| ()).await.unwrap_err();
    assert!(error.to_string().contains("no queue is bound to queue operator-dead-that-is-not-there"), "{error}");
    let itself = Destination::Queue(lane.letters.queue.clone());
    let error = dead::redrive(&lane.letters, &itself, &Selection::default(), &Pace::default(), now(), |_| ()).await;
    assert!(error.unwrap_err().to_string().contains("is the one that the letters are in"));
    lane.settled(20).await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_queue_is_full_each_is_in_one_place_or_the_other() {
    let lane = Lane::new("full").await;
    lane.fill(0..40).await;
    let small = format!("{}.small", lane.source);
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(5));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    lane.channel.queue_declare(small.as_str().into(), durable, arguments).await.unwrap();
    let to = Destination::Queue(small.clone());
    let pace = Pace { held: Some(10), ..Pace::default() };
    let error = dead::redrive(&lane.letters, &to, &Selection::default(), &pace, now(), |_| ()).await.unwrap_err();
    assert!(error.to_string().contains("it is full"), "{error}");
    lane.unused().await;
    let mut ids = lane.ids(&small).await;
    assert!(!ids.is_empty() && ids.len() < 40, "{ids:?}");
    ids.extend(lane.ids(&lane.letters.queue).await);
    ids.sort_unstable();
    assert_eq!(ids, (0..40).collect::<Vec<_>>());
    lane.channel.queue_delete(small.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    lane.close().await;
}
