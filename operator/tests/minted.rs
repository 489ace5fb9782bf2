//! Users that are made for an object, against a real hub: `DROVER_TEST_HUB_URI`, `DROVER_TEST_HUB_MANAGEMENT_URI` and `DROVER_TEST_CA`
//! name it. Secrets are in an API server of this file's own.

#[path = "support/audited.rs"]
mod audited;
#[path = "support/patient.rs"]
mod patient;

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use audited::{audited, listen};
use drover_crds::{
    api::{IngestPipeline, IngestPipelineSpec},
    resolved::{Pipeline, mirror_queue},
};
use drover_operator::{
    audit::Cause,
    hub::{Hub, Hubs, Topology, delete_all},
    metrics::Metrics,
    minted::{self, Found, Look, Management, ManagementAddress, Order, Role},
};
use drover_worker::{
    hub::{HubAddress, connect},
    ingest, settings as var,
    settings::Settings,
    tls::Material,
};
use k8s_openapi::{
    ByteString,
    api::core::v1::Secret,
    apimachinery::pkg::apis::meta::v1::OwnerReference,
    jiff::{SignedDuration, Timestamp},
};
use kube::{Client, client::Body};
use lapin::{
    BasicProperties, Channel, Connection, ExchangeKind,
    options::{
        BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
        ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
    },
    types::FieldTable,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Whatever is waited for comes within this, or never.
const PATIENCE: Duration = Duration::from_mins(1);

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is missing: run these tests by make test-hub"))
}

fn hub_address(uri: String) -> HubAddress {
    let ca = std::fs::read_to_string(variable("DROVER_TEST_CA")).unwrap();
    HubAddress { uri, tls: Material { ca: Some(ca), ..Material::default() } }
}

#[expect(clippy::disallowed_methods, reason = "time enters the test here")]
fn now() -> (Instant, Timestamp) {
    (Instant::now(), Timestamp::now())
}

/// An API server that has secrets, and applies what is sent as the only one who writes them.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<BTreeMap<String, Value>>>);

impl Server {
    fn client(&self) -> Client {
        let server = self.clone();
        let answer = move |request: http::Request<Body>| {
            let server = server.clone();
            async move {
                let (parts, body) = request.into_parts();
                let name = parts.uri.path().rsplit('/').next().unwrap().to_owned();
                let sent = body.collect_bytes().await.unwrap();
                let mut secrets = server.0.lock().unwrap();
                if parts.method == "PATCH" {
                    secrets.insert(name.clone(), serde_json::from_slice(&sent).unwrap());
                }
                let (code, found) = match secrets.get(&name) {
                    Some(secret) => (200, secret.to_string()),
                    None => (
                        404,
                        json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}).to_string(),
                    ),
                };
                let answer = http::Response::builder().status(code).body(http_body_util::Full::from(found));
                Ok::<_, Infallible>(answer.unwrap())
            }
        };
        Client::new(tower::service_fn(answer), "n")
    }

    fn delete(&self, secret: &str) {
        self.0.lock().unwrap().remove(secret).expect("it is there");
    }

    fn text(&self, secret: &str, key: &str) -> Option<String> {
        let secret: Secret = serde_json::from_value(self.0.lock().unwrap().get(secret)?.clone()).unwrap();
        let ByteString(bytes) = secret.data?.get(key)?.clone();
        Some(String::from_utf8(bytes).unwrap())
    }
}

/// A pipeline with its queues, a place for its results, and somebody else's queue beside it.
struct Test {
    name: String,
    hub: Arc<Hub>,
    channel: Channel,
    server: Server,
    client: Client,
    metrics: Metrics,
    management: Management,
    pipeline: Pipeline,
    cause: Cause,
    order: Order,
}

impl Test {
    async fn new(name: &str) -> Self {
        listen();
        let name = format!("minted-{name}-{}", std::process::id());
        let address = hub_address(variable("DROVER_TEST_HUB_URI"));
        let hub = Hubs::default().at(&address, now().0);
        let spec = json!({
            "hub": {"secretRef": {"name": "hub"}, "credentials": "Minted"},
            "source": {"queue": name, "bindings": [{"exchange": "amq.topic", "routingKey": format!("{name}.#")}]},
            "sink": {"hub": {"exchange": format!("{name}.clean"), "routingKey": "k"}},
        });
        let spec: IngestPipelineSpec = serde_json::from_value(spec).unwrap();
        let pipeline = Pipeline::resolve(&spec).unwrap();
        let cause = Cause::of(&IngestPipeline::new(&name, spec), "a test asks for it");
        let order = Order {
            namespace: "test".to_owned(),
            name: name.clone(),
            uid: name.clone(),
            owner: OwnerReference { uid: name.clone(), ..OwnerReference::default() },
            labels: BTreeMap::new(),
            roles: minted::of_pipeline(&pipeline, &BTreeSet::new()),
            used: BTreeMap::new(),
            days: 30,
        };
        let management = ManagementAddress::new(&variable("DROVER_TEST_HUB_MANAGEMENT_URI"), &address).unwrap();
        let server = Server::default();
        let test = Self {
            channel: patient::channel(&hub).await,
            client: server.client(),
            metrics: Metrics::default(),
            management: Management::new(management).unwrap(),
            hub,
            server,
            pipeline,
            cause,
            order,
            name,
        };
        test.clear().await;
        test.declare().await;
        test
    }

    async fn declare(&self) {
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let clean = self.of("clean");
        let (kind, none) = (ExchangeKind::Direct, FieldTable::default);
        self.channel.exchange_declare(clean.as_str().into(), kind, durable, none()).await.unwrap();
        for queue in [self.of("out"), self.of("other"), self.mirror()] {
            let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
            self.channel.queue_declare(queue.as_str().into(), options, none()).await.unwrap();
        }
        let out = self.of("out");
        let options = QueueBindOptions::default();
        self.channel.queue_bind(out.as_str().into(), clean.as_str().into(), "k".into(), options, none()).await.unwrap();
        self.hub.ensure(&Topology::of(&self.pipeline), &self.cause).await.unwrap();
    }

    async fn clear(&self) {
        minted::remove(&self.management, ("test", &self.name, &self.name), &ROLES, &self.cause).await.unwrap();
        delete_all(&self.hub, &Topology::of(&self.pipeline), &self.cause).await.unwrap();
        for queue in [self.of("out"), self.of("other"), self.mirror()] {
            self.channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
        }
        let clean = self.of("clean");
        self.channel.exchange_delete(clean.as_str().into(), ExchangeDeleteOptions::default()).await.unwrap();
    }

    fn of(&self, what: &str) -> String {
        format!("{}.{what}", self.name)
    }

    fn mirror(&self) -> String {
        mirror_queue(&self.name, "0123456789")
    }

    /// A look so long after the beginning, while pods are told of some keys of the worker's secret.
    async fn settle(&self, after: SignedDuration, used: &[&str]) -> Found {
        let secret = Role::Worker.secret(&self.name);
        let used = used.iter().map(|key| ((secret.clone(), (*key).to_owned()), None)).collect();
        self.look(after, &Order { used, ..self.order.clone() }, &self.management).await
    }

    async fn look(&self, after: SignedDuration, order: &Order, management: &Management) -> Found {
        self.look_at(hub_address(variable("DROVER_TEST_HUB_URI")), after, order, management).await
    }

    async fn look_at(&self, hub: HubAddress, after: SignedDuration, order: &Order, management: &Management) -> Found {
        let (client, metrics, cause) = (&self.client, &self.metrics, &self.cause);
        let look = Look { client, metrics, order, hub: &hub, cause, now: now().1 + after };
        look.settle(management).await
    }

    fn uri(&self, role: Role, key: &str) -> String {
        self.server.text(&role.secret(&self.name), key).unwrap_or_else(|| panic!("{role:?} has no {key}"))
    }

    async fn connect(&self, role: Role, key: &str) -> Result<Connection, String> {
        let connection = connect(&hub_address(self.uri(role, key)), "a test").await;
        connection.map_err(|e| e.reason.as_str().to_owned())
    }

    /// A worker of the pipeline, as a pod runs it that is told of a key.
    fn worker(&self, key: &str) -> (tokio::sync::oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
        let sink = json!({"hub": {"exchange": self.of("clean"), "routingKey": "k"}}).to_string();
        let variables = BTreeMap::from([
            (var::HUB_URI, self.uri(Role::Worker, key)),
            (var::HUB_CA, std::fs::read_to_string(variable("DROVER_TEST_CA")).unwrap()),
            (var::SOURCE_QUEUE, self.name.clone()),
            (var::SINK, sink),
            (var::SOURCE_PREFETCH, "20".to_owned()),
            (var::LISTEN, "127.0.0.1:0".to_owned()),
        ]);
        let settings = Settings::from_env(|name| variables.get(name).cloned()).unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let told = async move {
                let _ = stopped.await;
            };
            ingest::run(settings, told).await.unwrap();
        });
        (stop, task)
    }
}

const ROLES: [Role; 3] = [Role::Worker, Role::Mirror, Role::Publisher];
const NOW: SignedDuration = SignedDuration::ZERO;
const MONTH: SignedDuration = SignedDuration::from_hours(24 * 31);

async fn consumes(connection: &Connection, queue: &str) -> Result<(), lapin::Error> {
    let channel = connection.create_channel().await?;
    let consumer =
        channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default()).await?;
    drop(consumer);
    channel.close(200, "done".into()).await
}

async fn publishes(connection: &Connection, exchange: &str, key: &str) -> Result<(), lapin::Error> {
    let channel = connection.create_channel().await?;
    send(&channel, exchange, key, "m", b"{}").await?;
    channel.close(200, "done".into()).await
}

async fn send(channel: &Channel, exchange: &str, key: &str, id: &str, body: &[u8]) -> Result<(), lapin::Error> {
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let properties = BasicProperties::default().with_message_id(id.into()).with_delivery_mode(2);
    let options = BasicPublishOptions::default();
    let confirmed = channel.basic_publish(exchange.into(), key.into(), options, body, properties).await?.await?;
    assert!(confirmed.is_ack());
    Ok(())
}

#[track_caller]
fn refused<T: std::fmt::Debug>(what: &str, result: Result<T, lapin::Error>) {
    let told = result.expect_err(what).to_string();
    assert!(told.contains("ACCESS_REFUSED"), "{what}: {told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_user_may_do_what_its_role_needs_and_nothing_else() {
    let t = Test::new("rights").await;
    let found = t.settle(NOW, &[]).await;
    assert_eq!((found.problem, found.keys.len()), (None, 3));
    let (source, dead, own, clean) = (t.name.clone(), t.of("dead"), t.of("drover"), t.of("clean"));

    let worker = t.connect(Role::Worker, "uri-a").await.unwrap();
    consumes(&worker, &source).await.unwrap();
    publishes(&worker, &own, "dead").await.unwrap();
    publishes(&worker, &clean, "k").await.unwrap();
    let channel = worker.create_channel().await.unwrap();
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(source.as_str().into(), passive, FieldTable::default()).await.unwrap();
    let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    let seen = channel.exchange_declare(clean.as_str().into(), ExchangeKind::Direct, passive, FieldTable::default());
    seen.await.unwrap();
    for queue in [dead.clone(), t.of("other"), t.of("out"), t.mirror()] {
        refused(&queue, consumes(&worker, &queue).await);
    }
    for (exchange, key) in [("", &t.of("other")), ("amq.topic", &t.of("1")), ("amq.direct", &t.of("1"))] {
        refused(exchange, publishes(&worker, exchange, key).await);
    }
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let (fresh, none) = (t.of("new"), FieldTable::default);
    let open = async || worker.create_channel().await.unwrap();
    refused("declare", open().await.queue_declare(fresh.as_str().into(), durable, none()).await);
    refused("delete", open().await.queue_delete(source.as_str().into(), QueueDeleteOptions::default()).await);
    refused("purge", open().await.queue_purge(dead.as_str().into(), QueuePurgeOptions::default()).await);
    let options = QueueBindOptions::default();
    let bound = open().await.queue_bind(source.as_str().into(), "amq.topic".into(), "#".into(), options, none()).await;
    refused("bind", bound);

    let mirror = t.connect(Role::Mirror, "uri-a").await.unwrap();
    consumes(&mirror, &t.mirror()).await.unwrap();
    refused("the source", consumes(&mirror, &source).await);
    refused("its exchange", publishes(&mirror, &own, "dead").await);

    let publisher = t.connect(Role::Publisher, "uri").await.unwrap();
    publishes(&publisher, "amq.topic", &t.of("1.temp")).await.unwrap();
    publishes(&publisher, "amq.topic", &source).await.unwrap();
    for key in [format!("{source}x"), "devices.1".to_owned(), "#".to_owned()] {
        refused(&key, publishes(&publisher, "amq.topic", &key).await);
    }
    refused("the default exchange", publishes(&publisher, "", &source).await);
    refused("the pipeline's exchange", publishes(&publisher, &own, "dead").await);
    refused("the source", consumes(&publisher, &source).await);
    t.clear().await;
    assert_eq!(t.connect(Role::Publisher, "uri").await.unwrap_err(), "AccessRefused");
}

/// Asks the management API by hand; what it answers.
fn api(method: &str, path: &str, body: Option<Value>) -> Value {
    let (url, ca) = (format!("{}/api/{path}", variable("DROVER_TEST_HUB_MANAGEMENT_URI")), variable("DROVER_TEST_CA"));
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let arguments = ["-sSf", "--cacert", &ca, "-X", method, "-H", "content-type: application/json", "-d", &body, &url];
    let output = std::process::Command::new("curl").args(arguments).output().unwrap();
    assert!(output.status.success(), "{method} {path}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_virtual_host_takes_the_rights_with_it() {
    let t = Test::new("vhost").await;
    assert_eq!(t.settle(NOW, &[]).await.problem, None);
    let (vhost, publisher) =
        (t.name.clone(), minted::user("test", &t.name, &t.name, Role::Publisher, minted::Generation::A));
    api("PUT", &format!("vhosts/{vhost}"), Some(json!({})));
    let mut uri: url::Url = variable("DROVER_TEST_HUB_URI").parse().unwrap();
    uri.set_path(&vhost);
    let found = t.look_at(hub_address(uri.into()), NOW, &t.order, &t.management).await;
    assert_eq!((found.problem, found.keys.len()), (None, 3));
    for what in ["permissions", "topic-permissions"] {
        let told = api("GET", &format!("users/{publisher}/{what}"), None);
        let vhosts: Vec<_> = told.as_array().unwrap().iter().map(|p| p["vhost"].as_str().unwrap().to_owned()).collect();
        assert_eq!(vhosts, [vhost.as_str()], "{what}");
    }
    // By hand, in a virtual host in which the user has no rights otherwise.
    let by_hand = json!({"exchange": "amq.topic", "write": ".*", "read": ".*"});
    api("PUT", &format!("topic-permissions/%2F/{publisher}"), Some(by_hand));
    assert_eq!(t.settle(NOW, &[]).await.problem, None);
    api("DELETE", &format!("vhosts/{vhost}"), None);
    t.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_publish_less_may_at_no_moment_publish_more() {
    let t = Test::new("narrow").await;
    let mut order = t.order.clone();
    let more = |of: &mut Order, patterns: &[(&str, &str)]| {
        let grant = &mut of.roles.iter_mut().find(|(role, _)| *role == Role::Publisher).unwrap().1;
        grant.topics = patterns.iter().map(|(exchange, key)| ((*exchange).to_owned(), (*key).to_owned())).collect();
        grant.write = "^(amq\\.topic|amq\\.rabbitmq\\.trace)\\z".to_owned();
    };
    more(&mut order, &[("amq.topic", "^a\\z"), ("amq.rabbitmq.trace", "^b\\z")]);
    assert_eq!(t.look(NOW, &order, &t.management).await.problem, None);
    let publisher = t.connect(Role::Publisher, "uri").await.unwrap();
    let (stop, asked) = (CancellationToken::new(), AtomicUsize::new(0));
    let trying = async {
        while !stop.is_cancelled() {
            for exchange in ["amq.topic", "amq.rabbitmq.trace"] {
                refused("another key", publishes(&publisher, exchange, "other").await);
                asked.fetch_add(1, Relaxed);
            }
        }
    };
    let narrowing = async {
        for (n, patterns) in
            [&[("amq.topic", "^c\\z")][..], &[], &[("amq.topic", "^d\\z"), ("amq.rabbitmq.trace", "^e\\z")], &[]]
                .into_iter()
                .enumerate()
        {
            more(&mut order, patterns);
            assert_eq!(t.look(NOW, &order, &t.management).await.problem, None, "{n}");
            let before = asked.load(Relaxed);
            while asked.load(Relaxed) < before + 4 {
                tokio::task::yield_now().await;
            }
        }
        stop.cancel();
    };
    tokio::join!(trying, narrowing);
    t.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_is_no_more_may_do_nothing() {
    let t = Test::new("role").await;
    assert_eq!(t.settle(NOW, &[]).await.problem, None);
    let publisher = t.connect(Role::Publisher, "uri").await.unwrap();
    publishes(&publisher, "amq.topic", &t.of("1")).await.unwrap();
    let fewer = Order { roles: t.order.roles[..1].to_vec(), ..t.order.clone() };
    let found = t.look(NOW, &fewer, &t.management).await;
    assert_eq!((found.problem, found.keys.keys().collect::<Vec<_>>()), (None, vec![&Role::Worker]));
    let publisher = t.connect(Role::Publisher, "uri").await.unwrap();
    refused("a role that is no more", publishes(&publisher, "amq.topic", &t.of("1")).await);
    refused("the mirror", consumes(&t.connect(Role::Mirror, "uri").await.unwrap(), &t.mirror()).await);
    // And again all that it could.
    assert_eq!(t.settle(NOW, &[]).await.problem, None);
    publishes(&t.connect(Role::Publisher, "uri").await.unwrap(), "amq.topic", &t.of("1")).await.unwrap();
    t.clear().await;
}

/// True of one message in a hundred: it is no JSON.
fn is_broken(n: usize) -> bool {
    n % 100 == 99
}

/// Publishes until it is told to stop, as a device that knows its password from the beginning; how many messages.
async fn publish(connection: Connection, name: String, stop: CancellationToken) -> usize {
    let channel = connection.create_channel().await.unwrap();
    let mut sent = 0;
    while !stop.is_cancelled() {
        let body = if is_broken(sent) { "{".to_owned() } else { json!({ "n": sent }).to_string() };
        send(&channel, "amq.topic", &format!("{name}.{sent}"), &sent.to_string(), body.as_bytes()).await.unwrap();
        sent += 1;
    }
    sent
}

/// Ids of messages in a queue, until all that are wanted were seen.
async fn ids(t: &Test, queue: &str, seen: &mut BTreeSet<usize>, wanted: impl Fn(&BTreeSet<usize>) -> bool) {
    let channel = patient::channel(&t.hub).await;
    let taking = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        while !wanted(seen) {
            match channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await.unwrap() {
                Some(message) => {
                    seen.insert(message.properties.message_id().as_ref().unwrap().as_str().parse().unwrap());
                }
                None => {
                    ticks.tick().await;
                }
            }
        }
    };
    let _ = tokio::time::timeout(PATIENCE, taking).await;
    channel.close(200, "done".into()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_are_renewed_under_load_and_no_message_is_lost() {
    let t = Test::new("renewed").await;
    let first = t.settle(NOW, &[]).await;
    assert_eq!(first.keys[&Role::Worker].key, "uri-a");
    let (told, device) = (CancellationToken::new(), t.connect(Role::Publisher, "uri").await.unwrap());
    let load = tokio::spawn(publish(device, t.name.clone(), told.clone()));
    let (stop_old, old) = t.worker("uri-a");
    let (out, mut seen) = (t.of("out"), BTreeSet::new());
    ids(&t, &out, &mut seen, |seen| seen.len() >= 100).await;

    // The time has come, while the old worker is at work.
    let renewed = t.settle(MONTH, &["uri-a"]).await;
    assert_eq!((renewed.problem, renewed.keys[&Role::Worker].key.as_str()), (None, "uri-b"));
    assert_ne!(renewed.keys[&Role::Worker].print, first.keys[&Role::Worker].print);
    let (stop_new, new) = t.worker("uri-b");
    let later = MONTH + SignedDuration::from_mins(5);
    t.settle(later, &["uri-a", "uri-b"]).await;
    assert!(t.connect(Role::Worker, "uri-a").await.is_ok(), "a pod that is told of it may start again");
    // Even where no pod is known to be told of it, what is connected keeps it.
    t.settle(later, &["uri-b"]).await;
    assert!(t.connect(Role::Worker, "uri-a").await.is_ok(), "it is connected");

    stop_old.send(()).unwrap();
    tokio::time::timeout(PATIENCE, old).await.unwrap().unwrap();
    let old_uri = hub_address(t.uri(Role::Worker, "uri-a"));
    let gone = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        while t.server.text(&Role::Worker.secret(&t.name), "uri-a").is_some() {
            ticks.tick().await;
            assert_eq!(t.settle(later, &["uri-b"]).await.problem, None);
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("the old user stays");
    assert_eq!(connect(&old_uri, "a test").await.unwrap_err().reason.as_str(), "AccessRefused");

    let so_far = seen.len();
    ids(&t, &out, &mut seen, |seen| seen.len() >= so_far + 100).await;
    told.cancel();
    let sent = load.await.unwrap();
    ids(&t, &out, &mut seen, |seen| (0..sent).all(|n| seen.contains(&n) || is_broken(n))).await;
    let mut dead = BTreeSet::new();
    ids(&t, &t.of("dead"), &mut dead, |dead| (0..sent).filter(|n| is_broken(*n)).all(|n| dead.contains(&n))).await;
    let lost: Vec<usize> = (0..sent).filter(|n| !seen.contains(n) && !dead.contains(n)).collect();
    assert!(lost.is_empty(), "of {sent} are lost: {lost:?}");
    assert!(dead.iter().all(|n| is_broken(*n)), "dead-lettered without a fault: {dead:?}");
    stop_new.send(()).unwrap();
    tokio::time::timeout(PATIENCE, new).await.unwrap().unwrap();
    t.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_its_secret_deleted_pods_start_that_are_told_of_either_user_and_nobody_is_cut_off() {
    let t = Test::new("deleted").await;
    let worker = |key: &'static str| t.connect(Role::Worker, key);
    t.settle(NOW, &[]).await;
    let first = worker("uri-a").await.unwrap();
    t.server.delete(&Role::Worker.secret(&t.name));
    let found = t.settle(NOW, &["uri-a"]).await;
    assert_eq!((found.problem, found.keys[&Role::Worker].key.as_str()), (None, "uri-b"));
    assert_eq!(
        t.uri(Role::Worker, "uri-a"),
        t.uri(Role::Worker, "uri-b"),
        "who is told of the one before has the new one"
    );
    let second = worker("uri-a").await.expect("a pod of the revision before starts");

    // Again, with both users at work: one of them gets another password.
    t.server.delete(&Role::Worker.secret(&t.name));
    let found = t.settle(NOW, &["uri-a", "uri-b"]).await;
    assert_eq!(found.problem, None);
    for key in ["uri-a", "uri-b"] {
        worker(key).await.unwrap_or_else(|reason| panic!("{key}: {reason}"));
    }
    assert!(first.status().connected() && second.status().connected());
    t.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_made_once_put_back_and_taken_away_and_each_is_told() {
    let mut t = Test::new("told").await;
    t.order.roles.retain(|(role, _)| *role == Role::Worker);
    let user = |generation| minted::user("test", &t.name, &t.name, Role::Worker, generation);
    let (a, b) = (user(minted::Generation::A), user(minted::Generation::B));
    let secret = Role::Worker.secret(&t.name);
    let told = audited(async { assert_eq!(t.settle(NOW, &[]).await.problem, None) }).await;
    let made = |user: &str| [format!("apply permissions {user} done"), format!("create user {user} done")];
    let wanted: Vec<String> = [format!("apply Secret {secret} done"), made(&a)[0].clone()]
        .into_iter()
        .chain([format!("create Secret {secret} done"), made(&a)[1].clone()])
        .collect();
    assert_eq!(told, wanted);
    let told = audited(async { assert_eq!(t.settle(NOW, &["uri-a"]).await.problem, None) }).await;
    assert!(told.is_empty(), "what is as it should be is no change: {told:?}");

    // Somebody deletes the user: it comes back with the password that workers have.
    let gone = minted::remove(&t.management, ("test", &t.name, &t.name), &[Role::Worker], &t.cause);
    assert_eq!(audited(async { gone.await.unwrap() }).await, [format!("delete user {a} done")]);
    let told = audited(async { assert_eq!(t.settle(NOW, &["uri-a"]).await.problem, None) }).await;
    assert_eq!(told, made(&a));
    let old = t.connect(Role::Worker, "uri-a").await.unwrap();

    // Somebody deletes the secret: another user follows at once, and whoever is connected stays.
    t.server.0.lock().unwrap().clear();
    let found = t.settle(NOW, &["uri-a"]).await;
    assert_eq!((found.problem, found.keys[&Role::Worker].key.as_str()), (None, "uri-b"));
    t.connect(Role::Worker, "uri-b").await.unwrap();
    assert!(old.status().connected() && b != a);

    // Results go elsewhere from now on, for whoever has the password that is lost too.
    let mut order = t.order.clone();
    order.roles[0].1.write = "^(elsewhere)\\z".to_owned();
    let told = audited(async { assert_eq!(t.look(NOW, &order, &t.management).await.problem, None) }).await;
    assert_eq!(told, [made(&a)[0].clone(), made(&b)[0].clone()]);
    let new = t.connect(Role::Worker, "uri-b").await.unwrap();
    refused("as before", publishes(&new, &t.of("clean"), "k").await);
    t.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_administrator_is_told_and_pods_keep_what_they_have() {
    let t = Test::new("refused").await;
    let before = t.settle(NOW, &[]).await;
    let hub = hub_address(variable("DROVER_TEST_HUB_URI"));
    let management = variable("DROVER_TEST_HUB_MANAGEMENT_URI");
    let (scheme, host) = management.split_once("://").map(|(s, rest)| (s, rest.rsplit('@').next().unwrap())).unwrap();
    let worker = minted::user("test", &t.name, &t.name, Role::Worker, minted::Generation::A);
    let password = t.uri(Role::Worker, "password-a");
    for (user, password) in [("nobody", "wrong"), (worker.as_str(), password.as_str())] {
        let address = ManagementAddress::new(&format!("{scheme}://{user}:{password}@{host}"), &hub).unwrap();
        let found = t.look(NOW, &t.order, &Management::new(address).unwrap()).await;
        let problem = found.problem.unwrap();
        assert_eq!((problem.reason.as_str(), found.keys), ("ManagementRefused", before.keys.clone()));
        assert!(problem.message.contains(user) && !problem.message.contains(password), "{}", problem.message);
    }
    let address = ManagementAddress::new("http://drover:x@127.0.0.1:1", &hub).unwrap();
    let problem = t.look(NOW, &t.order, &Management::new(address).unwrap()).await.problem.unwrap();
    assert_eq!(problem.reason, "ManagementUnreachable", "{}", problem.message);
    let untrusted = HubAddress { tls: Material::default(), ..hub };
    let address = ManagementAddress::new(&management, &untrusted).unwrap();
    let problem = t.look(NOW, &t.order, &Management::new(address).unwrap()).await.problem.unwrap();
    assert_eq!(problem.reason, "CertificateUnknownAuthority", "{}", problem.message);
    t.clear().await;
}
