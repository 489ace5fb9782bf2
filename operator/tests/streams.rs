//! The streams of queries against a real hub, and their state against a real store: `DROVER_TEST_HUB_URI`, `DROVER_TEST_STORE_URI` and
//! `DROVER_TEST_CA` name them.

#[path = "support/audited.rs"]
mod audited;
#[path = "support/patient.rs"]
mod patient;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use audited::{audited, listen};
use drover_crds::{api::WindowQuerySpec, resolved_query::Query};
use drover_operator::{
    audit::Cause,
    hub::{Hub, Hubs, Streams},
    problem::External,
    windows::{
        outside::{HubFacts, Outsides, Task},
        wake::{self, Waker},
    },
};
use drover_worker::{
    hub::HubAddress,
    settings,
    store::{self, StoreAddress},
    stream::{
        self, TICK,
        schema::{self, State},
        settings::{self as names, StreamSettings},
    },
    tls::Material,
};
use lapin::{
    BasicProperties, Channel, ExchangeKind,
    options::{
        BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueDeclareOptions,
        QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};
use serde_json::{Value, json};
use tokio_postgres::Client;

/// Whatever is waited for comes within this, or never.
const PATIENCE: Duration = Duration::from_mins(1);
const COUNTS: &str =
    "SELECT 'old' AS text, k, System.Timestamp() AS w, COUNT(*) AS c FROM input GROUP BY k, TUMBLINGWINDOW(second, 1)";
const OTHERS: &str =
    "SELECT 'new' AS text, k, System.Timestamp() AS w, COUNT(*) AS c FROM input GROUP BY k, TUMBLINGWINDOW(second, 1)";

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is missing: run these tests by make test-hub"))
}

fn authority() -> String {
    std::fs::read_to_string(variable("DROVER_TEST_CA")).unwrap()
}

fn hub_address() -> HubAddress {
    let tls = Material { ca: Some(authority()), ..Material::default() };
    HubAddress { uri: variable("DROVER_TEST_HUB_URI"), tls }
}

fn store_address() -> StoreAddress {
    StoreAddress::from_uri(&variable("DROVER_TEST_STORE_URI"), Some(authority())).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "time enters the test here")]
fn now() -> (std::time::Instant, i64) {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    (std::time::Instant::now(), since.as_millis().try_into().unwrap())
}

/// Asks until there is an answer.
async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let asking = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        loop {
            ticks.tick().await;
            if let Some(answer) = ask().await {
                return answer;
            }
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("never: {what}"))
}

struct Test {
    hub: Arc<Hub>,
    channel: Channel,
    /// Of the streams, the schema and the table.
    name: String,
}

impl Test {
    async fn new(name: &str) -> Self {
        listen();
        let hub = Hubs::default().at(&hub_address(), now().0);
        let channel = patient::channel(&hub).await;
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        let test = Self { hub, channel, name: format!("operator_{name}_{}", std::process::id()) };
        test.clear().await;
        test
    }

    fn query(&self, change: impl FnOnce(&mut Value)) -> Query {
        let mut spec = json!({
            "hub": {"secretRef": {"name": "hub"}},
            "input": {
                "stream": self.name, "partitions": 4,
                "bindings": [{"exchange": "amq.topic", "routingKey": format!("{}.#", self.name)}],
            },
            "query": COUNTS,
            "store": {"postgres": {"secretRef": {"name": "warehouse"}, "schema": self.name}},
            "sink": {"postgres": {"secretRef": {"name": "warehouse"}, "table": format!("{0}.rows", self.name)}},
        });
        change(&mut spec);
        let spec: WindowQuerySpec = serde_json::from_value(spec).unwrap();
        Query::resolve(&spec).unwrap()
    }

    fn streams(&self, change: impl FnOnce(&mut Value)) -> Streams {
        Streams::of(&self.query(change), &[])
    }

    async fn all(&self, streams: &Streams) -> Result<(), String> {
        let told = |p: drover_operator::problem::Problem| format!("{}: {}", p.reason, p.message);
        let cause = Cause::default();
        let found = self.hub.survey(streams, &cause).await.map_err(told)?;
        self.hub.make_streams(streams, &found, &cause).await.map_err(told)?;
        self.hub.route(streams, streams.streams.len(), &cause).await.map_err(told)
    }

    /// True if a message with this key has found a queue.
    async fn routed(&self, exchange: &str, key: &str) -> bool {
        self.publish(exchange, key, BasicProperties::default(), b"{}").await
    }

    async fn publish(&self, exchange: &str, key: &str, properties: BasicProperties, body: &[u8]) -> bool {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let sent = self.channel.basic_publish(exchange.into(), key.into(), options, body, properties).await;
        let confirmation = sent.unwrap().await.unwrap();
        assert!(confirmation.is_ack());
        confirmation.take_message().is_none()
    }

    async fn delete(&self, queue: &str) {
        self.channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
    }

    async fn store(&self) -> Client {
        store::connect(&store_address(), "drover-test").await.unwrap()
    }

    fn task(&self, query: &Query, state: &str, inhabited: &[&str]) -> Task {
        Task {
            hub: Arc::clone(&self.hub),
            streams: Streams::of(query, &[]),
            store: store_address(),
            schema: self.name.clone(),
            cluster: Some("here".to_owned()),
            query: format!("n/{}", self.name),
            state: state.to_owned(),
            plan: query.plan.clone(),
            holds_a_window: true,
            inhabited: inhabited.iter().map(|s| (*s).to_owned()).collect::<BTreeSet<_>>(),
            promoted: None,
            cause: Cause::default(),
        }
    }

    /// Looks until what is seen is as it should be.
    async fn ensured(&self, task: &Task, what: &str, is: impl Fn(&State, HubFacts) -> bool) -> State {
        let outsides = Outsides::default();
        eventually(what, || async {
            let seen = outsides.ensure("uid", task.clone()).await;
            match (seen.store, seen.hub) {
                (External::Fine(state), External::Fine(hub)) if is(&state, hub) => Some(state),
                _ => None,
            }
        })
        .await
    }

    async fn refused(&self, task: &Task) -> String {
        let outsides = Outsides::default();
        eventually("a problem", || async {
            let seen = outsides.ensure("uid", task.clone()).await;
            match (seen.store, seen.hub) {
                (External::Problem(p), _) | (_, External::Problem(p)) if p.reason != "Connecting" => {
                    Some(format!("{}: {}", p.reason, p.message))
                }
                _ => None,
            }
        })
        .await
    }

    /// A worker of a version of the query, as its Deployment would run it.
    fn worker(&self, query: &Query, state: &str) -> Worker {
        let table = format!("{}.rows", self.name);
        let variables = [
            (settings::HUB_URI, variable("DROVER_TEST_HUB_URI")),
            (settings::HUB_CA, authority()),
            (settings::NAMESPACE, "n".to_owned()),
            (settings::NAME, self.name.clone()),
            (settings::REVISION, state.to_owned()),
            (settings::POD, format!("pod-{state}")),
            (settings::LISTEN, "127.0.0.1:0".to_owned()),
            (names::STREAM, self.name.clone()),
            (names::PARTITIONS, query.partitions.to_string()),
            (names::QUERY, query.text.clone()),
            (names::OUTPUTS, json!({"output": {"postgres": {"table": table}}}).to_string()),
            (names::STORE_URI, variable("DROVER_TEST_STORE_URI")),
            (names::STORE_CA, authority()),
            (names::STORE_SCHEMA, self.name.clone()),
            (names::LEASE_SECONDS, "3".to_owned()),
        ];
        let lookup = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.clone());
        let settings = StreamSettings::from_env(lookup).unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            stream::run(settings, async move {
                let _ = stopped.await;
            })
            .await
            .unwrap();
        });
        Worker { stop, task }
    }

    /// One event a second and key, of now, for so many seconds.
    async fn events(&self, seconds: i64) {
        let mut ticks = tokio::time::interval(Duration::from_millis(250));
        for n in 0..seconds * 4 {
            ticks.tick().await;
            let mut headers = FieldTable::default();
            headers.insert(stream::ARRIVAL.into(), AMQPValue::LongLongInt(now().1));
            let properties = BasicProperties::default().with_headers(headers);
            let key = format!("{}.{}", self.name, n % 16);
            let body = json!({"k": n % 3}).to_string();
            assert!(self.publish("amq.topic", &key, properties, body.as_bytes()).await);
        }
    }

    async fn clear(&self) {
        self.hub
            .delete_streams(&self.streams(|s| s["input"]["partitions"] = json!(8)), &Cause::default())
            .await
            .unwrap();
        self.delete(&format!("{}.dead", self.name)).await;
        let schema = format!("DROP SCHEMA IF EXISTS {} CASCADE", self.name);
        self.store().await.batch_execute(&schema).await.unwrap();
    }
}

struct Worker {
    stop: tokio::sync::oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Worker {
    async fn end(self) {
        let _ = self.stop.send(());
        self.task.await.unwrap();
    }
}

#[tokio::test]
async fn declaring_twice_is_as_good_as_once_and_all_keys_find_a_stream() {
    let test = Test::new("twice").await;
    let streams = test.streams(|_| {});
    for _ in 0..2 {
        test.all(&streams).await.unwrap();
    }
    assert_eq!(test.hub.survey(&streams, &Cause::default()).await.unwrap().missing, Vec::<u16>::new());
    for n in 0..20 {
        assert!(test.routed("amq.topic", &format!("{}.{n}", test.name)).await);
    }
    for key in ["tick-0", "tick-3", "dead"] {
        assert!(test.routed(&streams.own, key).await, "{key}");
    }
    assert!(!test.routed(&streams.own, "tick-4").await);
    test.clear().await;
}

#[tokio::test]
async fn what_is_made_is_told_once_and_a_second_look_and_a_second_deletion_tell_nothing() {
    let test = Test::new("audit").await;
    let streams = test.streams(|_| {});
    let (name, own) = (&test.name, &streams.own);
    let mut made = vec![
        format!("bind binding amq.topic → {name} ({name}.#) done"),
        format!("bind binding {own} → {} (dead) done", streams.dead.name),
        format!("create exchange {name} done"),
        format!("create exchange {own} done"),
        format!("create queue {} done", streams.dead.name),
    ];
    let mut gone = vec![
        format!("delete exchange {name} done"),
        format!("delete exchange {own} done"),
        format!("delete queue {} done", streams.dead.name),
    ];
    for (part, stream) in streams.streams.iter().map(|stream| &stream.name).enumerate() {
        made.push(format!("create stream {stream} done"));
        made.push(format!("bind binding {own} → {stream} (tick-{part}) done"));
        made.push(format!("bind binding {name} → {stream} (1) done"));
        gone.push(format!("delete stream {stream} done"));
    }
    made.sort();
    gone.sort();
    let nothing = Vec::<String>::new();
    assert_eq!(audited(test.all(&streams)).await, made);
    assert_eq!(audited(test.all(&streams)).await, nothing);
    assert_eq!(audited(test.hub.delete_streams(&streams, &Cause::default())).await, gone);
    assert_eq!(audited(test.hub.delete_streams(&streams, &Cause::default())).await, nothing);
    test.clear().await;
}

#[tokio::test]
async fn streams_that_are_made_get_nothing_before_they_are_routed() {
    let test = Test::new("unrouted").await;
    let streams = test.streams(|_| {});
    let found = test.hub.survey(&streams, &Cause::default()).await.unwrap();
    assert_eq!(found.missing, [0, 1, 2, 3]);
    test.hub.make_streams(&streams, &found, &Cause::default()).await.unwrap();
    assert!(!test.routed(&streams.exchange, "a").await, "no partition has a row yet");
    test.hub.route(&streams, 2, &Cause::default()).await.unwrap();
    assert!(test.routed(&streams.exchange, "a").await);
    test.clear().await;
}

#[tokio::test]
async fn what_cannot_be_edited_or_is_somebody_elses_is_told_and_left_as_it_is() {
    let test = Test::new("other").await;
    test.all(&test.streams(|_| {})).await.unwrap();
    for retention in [json!({"maxAgeSeconds": 60}), json!({"maxBytes": 5_000_000})] {
        let told = test.all(&test.streams(|s| s["input"]["retention"] = retention)).await.unwrap_err();
        assert!(told.starts_with("NeedsManagementApi: input.retention"), "{told}");
    }
    test.clear().await;
    let first = format!("{}-0", test.name);
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    test.channel.queue_declare(first.as_str().into(), durable, FieldTable::default()).await.unwrap();
    let told = test.all(&test.streams(|_| {})).await.unwrap_err();
    assert!(told.starts_with("QueueArgumentsDiffer: ") && told.contains(&first), "{told}");
    test.clear().await;
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let name = test.name.as_str();
    test.channel.exchange_declare(name.into(), ExchangeKind::Fanout, durable, FieldTable::default()).await.unwrap();
    let told = test.all(&test.streams(|_| {})).await.unwrap_err();
    assert!(told.starts_with("ExchangeDiffers: ") && told.contains(name), "{told}");
    test.channel.exchange_delete(name.into(), ExchangeDeleteOptions::default()).await.unwrap();
    let bindings = json!([{"exchange": "operator-test-no-such"}]);
    let told = test.all(&test.streams(|s| s["input"]["bindings"] = bindings)).await.unwrap_err();
    assert!(told.starts_with("ExchangeMissing: input.bindings"), "{told}");
    test.clear().await;
}

#[tokio::test]
#[ignore = "needs a hub without the plugin of consistent-hash exchanges"]
async fn a_hub_without_the_plugin_is_told_which_to_enable_and_keeps_its_connection() {
    let test = Test::new("plugin").await;
    let told = test.all(&test.streams(|_| {})).await.unwrap_err();
    assert!(told.starts_with("PluginMissing: ") && told.contains("rabbitmq_consistent_hash_exchange"), "{told}");
    assert!(test.channel.status().connected(), "others use the same connection");
    test.clear().await;
}

#[tokio::test]
async fn a_binding_that_is_no_longer_asked_for_goes() {
    let test = Test::new("bindings").await;
    let before = test.query(|_| {});
    test.all(&Streams::of(&before, &[])).await.unwrap();
    let after = test.query(|s| s["input"]["bindings"] = json!([]));
    test.all(&Streams::of(&after, &before.bindings)).await.unwrap();
    assert!(!test.routed("amq.topic", &format!("{}.a", test.name)).await);
    test.clear().await;
}

#[tokio::test]
async fn deleting_leaves_nothing_but_dead_letters() {
    let test = Test::new("delete").await;
    let streams = test.streams(|_| {});
    test.all(&streams).await.unwrap();
    assert!(test.routed(&streams.own, "dead").await);
    test.hub.delete_streams(&streams, &Cause::default()).await.unwrap();
    assert_eq!(
        test.hub.survey(&streams, &Cause::default()).await.unwrap(),
        drover_operator::hub::Found { dead: 1, missing: vec![0, 1, 2, 3] }
    );
    test.clear().await;
}

#[tokio::test]
async fn a_query_begins_with_rows_and_a_stream_that_was_deleted_is_a_loss() {
    let test = Test::new("loss").await;
    let task = test.task(&test.query(|_| {}), "a", &[]);
    let begun = test.ensured(&task, "rows", |s, hub| s.partitions.len() == 4 && hub.routed == 4).await;
    assert!(begun.partitions.iter().all(|p| p.lost == 0 && p.next_offset == 0), "{begun:?}");
    test.delete(&format!("{}-2", test.name)).await;
    let lost = test.ensured(&task, "a loss", |s, hub| s.partitions.iter().any(|p| p.lost > 0) && hub.routed == 4).await;
    let told: Vec<_> = lost.partitions.iter().filter(|p| p.lost > 0).map(|p| (p.part, p.lost)).collect();
    assert_eq!(told, [(2, 1)]);
    assert!(lost.partitions[2].lost_at.is_some());
    let again = test.ensured(&task, "no other loss", |_, hub| hub.routed == 4).await;
    assert_eq!(again.partitions[2].lost, 1);
    test.clear().await;
}

#[tokio::test]
async fn a_stream_that_cannot_be_made_again_is_one_loss_and_is_claimed_by_nobody() {
    let test = Test::new("losses").await;
    let task = test.task(&test.query(|_| {}), "a", &[]);
    test.ensured(&task, "rows", |s, hub| s.partitions.len() == 4 && hub.routed == 4).await;
    test.delete(&format!("{}-0", test.name)).await;
    test.delete(&format!("{}-2", test.name)).await;
    // A queue of somebody else has the name of the first: nothing is made while it is there.
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let name = format!("{}-0", test.name);
    test.channel.queue_declare(name.as_str().into(), options, FieldTable::default()).await.unwrap();
    for _ in 0..3 {
        assert!(test.refused(&task).await.starts_with("QueueArgumentsDiffer: "));
    }
    let query = format!("n/{}", test.name);
    let state = schema::look(&test.store().await, &test.name, &query).await.unwrap();
    let told: Vec<_> = state.partitions.iter().filter(|p| p.gone).map(|p| (p.part, p.lost)).collect();
    assert_eq!(told, [(2, 1)]);
    test.delete(&name).await;
    let again =
        test.ensured(&task, "all there", |s, hub| hub.routed == 4 && s.partitions.iter().all(|p| !p.gone)).await;
    assert_eq!(again.partitions.iter().map(|p| p.lost).collect::<Vec<_>>(), [1, 0, 1, 0]);
    test.clear().await;
}

#[tokio::test]
async fn partitions_grow_with_their_rows_first() {
    let test = Test::new("grow").await;
    test.ensured(&test.task(&test.query(|_| {}), "a", &[]), "4", |s, hub| s.partitions.len() == 4 && hub.routed == 4)
        .await;
    let eight = test.query(|s| s["input"]["partitions"] = json!(8));
    test.ensured(&test.task(&eight, "a", &["a"]), "8", |s, hub| s.partitions.len() == 8 && hub.routed == 8).await;
    test.clear().await;
}

#[tokio::test]
async fn the_state_of_another_cluster_is_refused() {
    let test = Test::new("cluster").await;
    let task = test.task(&test.query(|_| {}), "a", &[]);
    test.ensured(&task, "rows", |s, _| s.partitions.len() == 4).await;
    let told = test.refused(&Task { cluster: Some("there".to_owned()), ..task }).await;
    assert!(told.starts_with("OtherCluster: ") && told.contains("clusterId"), "{told}");
    test.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_text_takes_over_each_window_and_key_once() {
    let test = Test::new("text").await;
    let (old, new) = (test.query(|_| {}), test.query(|s| s["query"] = json!(OTHERS)));
    test.ensured(&test.task(&old, "a", &[]), "rows", |s, _| s.partitions.len() == 4).await;
    let first = test.worker(&old, "a");
    let operate = async {
        let client = test.store().await;
        let rows = format!("SELECT count(*) FROM {0}.rows", test.name);
        eventually("old rows", || async {
            let counted = client.query_one(&rows, &[]).await.ok()?;
            (counted.get::<_, i64>(0) > 6).then_some(())
        })
        .await;
        let task = test.task(&new, "b", &["a"]);
        test.ensured(&task, "the new version staged", |s, _| s.emission.as_ref().is_some_and(|e| e.new == "b")).await;
        test.ensured(&task, "its rows", |s, _| s.revisions == ["a", "b"]).await;
        let second = test.worker(&new, "b");
        let task = test.task(&new, "b", &["a", "b"]);
        test.ensured(&task, "the boundary", |s, _| s.emission.as_ref().is_some_and(|e| e.at.is_some() && e.passed))
            .await;
        first.end().await;
        let task = test.task(&new, "b", &["b"]);
        test.ensured(&task, "the old one gone", |s, _| s.revisions == ["b"]).await;
        second
    };
    let (second, ()) = futures::join!(operate, test.events(40));
    let client = test.store().await;
    let open =
        || async { (!schema::look(&client, &test.name, &format!("n/{}", test.name)).await.ok()?.open).then_some(()) };
    eventually("all windows closed", open).await;
    second.end().await;
    let rows = format!("SELECT text, k, w, c FROM {}.rows ORDER BY w", test.name);
    let rows = client.query(&rows, &[]).await.unwrap();
    let counted: i64 = rows.iter().map(|r| r.get::<_, i64>(3)).sum();
    assert_eq!(counted, 160, "each event counts once");
    let texts: Vec<String> = rows.iter().map(|r| r.get(0)).collect();
    let turn = texts.iter().position(|t| t == "new").expect("the new text writes rows");
    assert!(
        turn > 0 && texts[..turn].iter().all(|t| t == "old") && texts[turn..].iter().all(|t| t == "new"),
        "{texts:?}"
    );
    test.clear().await;
}

/// No event has a number there.
const BAD: &str = "SELECT SUM(CAST(CONCAT('x', k) AS bigint)) AS c FROM input GROUP BY TUMBLINGWINDOW(second, 1)";

#[tokio::test(flavor = "multi_thread")]
async fn a_new_text_that_takes_no_event_takes_over_only_where_a_person_says_so() {
    let test = Test::new("worse").await;
    let (old, new) = (test.query(|_| {}), test.query(|s| s["query"] = json!(BAD)));
    test.ensured(&test.task(&old, "a", &[]), "rows", |s, _| s.partitions.len() == 4).await;
    let first = test.worker(&old, "a");
    test.events(5).await;
    let task = test.task(&new, "b", &["a"]);
    test.ensured(&task, "its rows", |s, _| s.revisions == ["a", "b"]).await;
    let second = test.worker(&new, "b");
    let task = test.task(&new, "b", &["a", "b"]);
    let read =
        |s: &State| s.partitions.iter().filter(|p| p.revision == "b").map(|p| p.dead_lettered).sum::<i64>() == 20;
    test.ensured(&task, "all read", |s, _| read(s)).await;
    for _ in 0..5 {
        let seen = test.ensured(&task, "a look", |_, _| true).await;
        assert!(seen.emission.as_ref().is_some_and(|e| e.at.is_none()), "{seen:?}");
    }
    let promoted = Task { promoted: Some("1".to_owned()), ..task };
    test.ensured(&promoted, "the boundary", |s, _| s.emission.as_ref().is_some_and(|e| e.at.is_some())).await;
    first.end().await;
    second.end().await;
    test.clear().await;
}

#[tokio::test]
async fn at_zero_ticks_are_silence_and_a_message_wakes() {
    let test = Test::new("wake").await;
    let streams = test.streams(|_| {});
    test.all(&streams).await.unwrap();
    let next = streams.streams.iter().map(|s| (s.name.clone(), 0)).collect();
    let listened = wake::Streams { hub: Arc::clone(&test.hub), exchange: streams.own.clone(), next };
    let mut waker = Waker::default();
    let moment = Duration::from_millis(500);
    assert_eq!(waker.listen(&listened, moment).await, Some(false));
    for part in 0..4 {
        let mut headers = FieldTable::default();
        headers.insert(TICK.into(), AMQPValue::LongLongInt(1));
        let tick = BasicProperties::default().with_headers(headers);
        for _ in 0..3 {
            assert!(test.publish(&streams.own, &format!("tick-{part}"), tick.clone(), b"").await);
        }
    }
    assert_eq!(waker.listen(&listened, moment).await, Some(false), "ticks are the query's own");
    assert!(test.routed("amq.topic", &format!("{}.a", test.name)).await);
    let heard = async {
        loop {
            match waker.listen(&listened, moment).await {
                Some(true) => return,
                Some(false) => {}
                None => panic!("the hub does not let us listen"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.expect("the message wakes");
    waker.rest().await;
    // What was heard was not taken: whoever reads next finds it.
    assert_eq!(waker.listen(&listened, PATIENCE).await, Some(true));
    test.clear().await;
}
