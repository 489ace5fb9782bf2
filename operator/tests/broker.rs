//! Topologies against a real hub: `DROVER_TEST_HUB_URI` and `DROVER_TEST_CA` name it.

#[path = "support/audited.rs"]
mod audited;
#[path = "support/patient.rs"]
mod patient;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use audited::{audited, listen};
use drover_crds::{
    api::{Binding, IngestPipeline, IngestPipelineSpec},
    resolved::Pipeline,
};
use drover_operator::{
    audit::Cause,
    hub::{Bind, Depths, Emptied, Hub, Hubs, Topology, delete_all, delete_when_empty, sources_empty, unbind},
};
use drover_worker::{hub::HubAddress, tls::Material};
use futures::future::join_all;
use lapin::{
    BasicProperties, Channel,
    options::{
        BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueDeclareOptions,
        QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};
use serde_json::{Value, json};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

fn address(uri: &str) -> HubAddress {
    let variable =
        |name| std::env::var(name).unwrap_or_else(|_| panic!("{name} is missing: run these tests by make test-hub"));
    let ca = std::fs::read_to_string(variable("DROVER_TEST_CA")).unwrap();
    HubAddress { uri: variable(uri), tls: Material { ca: Some(ca), ..Material::default() } }
}

/// Who asks for what tests make.
fn cause() -> Cause {
    let spec = json!({"hub": {"secretRef": {"name": "hub"}}, "source": {"queue": "q"}, "sink": {"discard": {}}});
    Cause::of(&IngestPipeline::new("test", serde_json::from_value(spec).unwrap()), "a test asks for it")
}

/// The lines of a topology of which nothing was there.
fn made(topology: &Topology) -> Vec<String> {
    let queues = topology.queues.iter().map(|queue| format!("create queue {} done", queue.name));
    let bindings = topology.bindings.iter().map(bound);
    let mut all: Vec<_> =
        queues.chain(bindings).chain([format!("create exchange {} done", topology.exchange)]).collect();
    all.sort();
    all
}

fn bound(Bind { queue, exchange, routing_key }: &Bind) -> String {
    format!("bind binding {exchange} → {queue} ({routing_key}) done")
}

#[expect(clippy::disallowed_methods, reason = "time enters the test here")]
fn now() -> Instant {
    Instant::now()
}

struct Test {
    hub: Arc<Hub>,
    channel: Channel,
    queue: String,
}

impl Test {
    async fn new(name: &str) -> Self {
        listen();
        let hub = Hubs::default().at(&address("DROVER_TEST_HUB_URI"), now());
        let channel = patient::channel(&hub).await;
        let test = Self { hub, channel, queue: format!("operator-test-{name}-{}", std::process::id()) };
        test.clear().await;
        test
    }

    /// At the same hub, as an operator sees it that has seen nothing yet.
    fn another_operator() -> Arc<Hub> {
        Hubs::default().at(&address("DROVER_TEST_HUB_URI"), now())
    }

    fn topology(&self, change: impl FnOnce(&mut Value)) -> Topology {
        Topology::of(&self.pipeline(change))
    }

    fn pipeline(&self, change: impl FnOnce(&mut Value)) -> Pipeline {
        let mut spec = json!({
            "hub": {"secretRef": {"name": "hub"}},
            "source": {"queue": self.queue, "bindings": [{"exchange": "amq.topic", "routingKey": format!("{}.#", self.queue)}]},
            "sink": {"discard": {}},
        });
        change(&mut spec);
        let spec: IngestPipelineSpec = serde_json::from_value(spec).unwrap();
        Pipeline::resolve(&spec).unwrap()
    }

    async fn ensure(&self, topology: &Topology) -> Result<u32, String> {
        self.hub.ensure(topology, &cause()).await.map_err(|p| format!("{}: {}", p.reason, p.message))
    }

    async fn refused(&self, topology: &Topology) -> String {
        self.ensure(topology).await.expect_err("the hub must refuse this")
    }

    async fn publish(&self, routing_key: &str) {
        self.publish_to("amq.topic", routing_key).await;
    }

    async fn publish_to(&self, exchange: &str, routing_key: &str) {
        self.channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let (exchange, properties) = (exchange.into(), BasicProperties::default());
        let sent = self.channel.basic_publish(exchange, routing_key.into(), options, b"x", properties);
        let confirmation = sent.await.unwrap().await.unwrap();
        assert!(confirmation.is_ack() && confirmation.take_message().is_none(), "the message was not routed");
    }

    async fn clear(&self) {
        delete_all(&self.hub, &self.topology(|_| {}), &cause()).await.unwrap();
    }
}

#[tokio::test]
async fn declaring_twice_is_as_good_as_once_and_repairs_what_is_missing() {
    let test = Test::new("twice").await;
    let topology = test.topology(|_| {});
    for _ in 0..2 {
        assert_eq!(test.ensure(&topology).await, Ok(0));
    }
    test.publish(&format!("{}.1", test.queue)).await;
    delete_all(&test.hub, &topology, &cause()).await.unwrap();
    assert_eq!(test.ensure(&topology).await, Ok(0));
    test.publish(&format!("{}.1", test.queue)).await;
    test.clear().await;
}

#[tokio::test]
async fn a_first_look_tells_each_thing_that_it_makes_once_and_a_second_nothing() {
    let test = Test::new("audit").await;
    let topology = test.topology(|s| s["transform"] = json!({"handler": {"image": "i"}}));
    let nothing = Vec::<String>::new();
    assert_eq!(audited(test.ensure(&topology)).await, made(&topology));
    assert_eq!(audited(test.ensure(&topology)).await, nothing);
    assert_eq!(audited(Test::another_operator().ensure(&topology, &cause())).await, nothing, "found, not made");
    // One thing that somebody has removed is made again, and with it the bindings that it had.
    let gone = format!("{}.dead", test.queue);
    test.channel.queue_delete(gone.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    let mut again: Vec<_> = topology.bindings.iter().filter(|b| b.queue == gone).map(bound).collect();
    again.push(format!("create queue {gone} done"));
    assert_eq!(audited(test.ensure(&topology)).await, again);
    let mut all: Vec<_> = topology.queues.iter().map(|q| format!("delete queue {} done", q.name)).collect();
    all.push(format!("delete exchange {} done", topology.exchange));
    all.sort();
    assert_eq!(audited(delete_all(&test.hub, &topology, &cause())).await, all);
    assert_eq!(audited(delete_all(&test.hub, &topology, &cause())).await, nothing);
}

#[tokio::test]
async fn a_binding_is_told_when_it_is_asked_for_first_and_when_it_is_asked_for_no_longer() {
    let test = Test::new("bindings").await;
    test.ensure(&test.topology(|_| {})).await.unwrap();
    let of = |key: &str| Binding { exchange: "amq.topic".to_owned(), routing_key: key.to_owned() };
    let (old, new) = (of(&format!("{}.#", test.queue)), of(&format!("{}.new", test.queue)));
    let pipeline = test.pipeline(|s| s["source"]["bindings"] = json!([new]));
    let topology = Topology::of(&pipeline).instead_of(&pipeline, std::slice::from_ref(&old));
    let path = |b: &Binding| format!("{} → {} ({})", b.exchange, test.queue, b.routing_key);
    let told = [format!("bind binding {} done", path(&new)), format!("unbind binding {} done", path(&old))];
    assert_eq!(audited(test.ensure(&topology)).await, told);
    assert_eq!(audited(test.ensure(&topology)).await, Vec::<String>::new(), "the status does not tell of it yet");
    assert_eq!(audited(unbind(&test.hub, &topology, &cause())).await, [format!("unbind binding {} done", path(&new))]);
    assert_eq!(audited(unbind(&test.hub, &topology, &cause())).await, Vec::<String>::new());
    test.clear().await;
}

#[tokio::test]
async fn what_cannot_be_made_is_told_with_its_reason_and_without_the_hub_s_words() {
    let test = Test::new("failed").await;
    let topology = test.topology(|s| s["source"]["bindings"][0]["exchange"] = json!("no-such-exchange"));
    let told = audited(async { test.refused(&topology).await }).await;
    let failed: Vec<_> = told.iter().filter(|line| line.ends_with("failed")).collect();
    assert_eq!(failed.len(), 1, "{told:?}");
    assert!(failed[0].starts_with("bind binding no-such-exchange → "), "{failed:?}");
    test.clear().await;
}

#[tokio::test]
async fn a_queue_that_is_not_there_is_not_known_and_spoils_no_other() {
    let test = Test::new("depths").await;
    test.ensure(&test.topology(|_| {})).await.unwrap();
    test.publish(&format!("{}.a", test.queue)).await;
    let missing = format!("{}-missing", test.queue);
    let queues = [missing.clone(), test.queue.clone(), missing, test.queue.clone(), format!("{}.dead", test.queue)];
    let mut depths = Depths::new(Arc::clone(&test.hub));
    for _ in 0..2 {
        let ready: Vec<_> = depths.read(&queues).await.iter().map(|d| d.map(|d| (d.ready, d.consumers))).collect();
        assert_eq!(ready, [None, Some((1, 0)), None, Some((1, 0)), Some((0, 0))]);
    }
    test.clear().await;
}

/// Passes everything on to the hub until it stands still: then connections stay open and nothing is answered.
async fn relay(listener: TcpListener, to: String, stands_still: CancellationToken) {
    loop {
        let (mut from, _) = listener.accept().await.unwrap();
        let (to, stands_still) = (to.clone(), stands_still.clone());
        tokio::spawn(async move {
            let mut hub = TcpStream::connect(to).await.unwrap();
            tokio::select! {
                _ = copy_bidirectional(&mut from, &mut hub) => {}
                () = stands_still.cancelled() => std::future::pending().await,
            }
        });
    }
}

#[tokio::test]
async fn a_hub_that_stands_still_is_not_asked_for_each_queue_in_vain() {
    let mut address = address("DROVER_TEST_HUB_URI");
    let (before, after) = address.uri.rsplit_once('@').unwrap();
    let (host, vhost) = after.split_once('/').unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (at, to) = (listener.local_addr().unwrap(), host.to_owned());
    address.uri = format!("{before}@{at}/{vhost}");
    let stands_still = CancellationToken::new();
    tokio::spawn(relay(listener, to, stands_still.clone()));
    let hub = Hubs::default().at(&address, now());
    let mut depths = Depths::new(hub);
    let queues: Vec<String> = (0..100).map(|n| format!("operator-test-still-{n}")).collect();
    assert_eq!(depths.read(&queues).await, vec![None; 100]);
    stands_still.cancel();
    // Each of them in vain would be 50 seconds.
    let read = tokio::time::timeout(Duration::from_secs(20), depths.read(&queues)).await;
    assert_eq!(read.expect("a look ends"), vec![None; 100]);
}

#[tokio::test]
async fn a_queue_with_other_arguments_is_told_and_left_as_it_is() {
    let test = Test::new("other").await;
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    test.channel.queue_declare(test.queue.as_str().into(), options, FieldTable::default()).await.unwrap();
    let told = test.refused(&test.topology(|_| {})).await;
    assert!(told.starts_with("QueueArgumentsDiffer: ") && told.contains(&test.queue), "{told}");
    let adopted = test.topology(|s| s["source"] = json!({"queue": s["source"]["queue"], "adopt": true}));
    assert_eq!(test.ensure(&adopted).await, Ok(0));
    test.clear().await;
}

#[tokio::test]
async fn limits_of_dead_letters_cannot_be_edited_and_that_is_told() {
    let test = Test::new("limits").await;
    test.ensure(&test.topology(|_| {})).await.unwrap();
    for (field, value) in [("retentionSeconds", 60), ("maxMessages", 7)] {
        let told = test.refused(&test.topology(|s| s["deadLetter"] = json!({field: value}))).await;
        assert!(told.starts_with("NeedsManagementApi: "), "{told}");
    }
    assert_eq!(test.ensure(&test.topology(|_| {})).await, Ok(0), "put back, it is well again");
    test.clear().await;
}

#[tokio::test]
async fn looking_at_a_dead_letter_leaves_it_where_it_is() {
    let test = Test::new("look").await;
    let topology = test.topology(|_| {});
    test.ensure(&topology).await.unwrap();
    let bind = lapin::options::QueueBindOptions::default();
    let key = format!("{}.dead", test.queue);
    let (queue, exchange) = (topology.dead.as_str().into(), "amq.topic".into());
    test.channel.queue_bind(queue, exchange, key.as_str().into(), bind, FieldTable::default()).await.unwrap();
    test.publish(&key).await;
    for look in 0..30 {
        let options = lapin::options::BasicGetOptions { no_ack: false };
        let got = test.channel.basic_get(topology.dead.as_str().into(), options).await.unwrap();
        let message = got.unwrap_or_else(|| panic!("gone after {look} looks"));
        let requeue = lapin::options::BasicNackOptions { requeue: true, ..Default::default() };
        message.acker.nack(requeue).await.unwrap();
    }
    test.clear().await;
}

#[tokio::test]
async fn what_must_exist_and_does_not_is_named() {
    let test = Test::new("missing").await;
    let told =
        test.refused(&test.topology(|s| s["source"]["bindings"][0]["exchange"] = json!("no-such-exchange"))).await;
    assert!(told.starts_with("ExchangeMissing: ") && told.contains("no-such-exchange"), "{told}");
    test.clear().await;
    let told =
        test.refused(&test.topology(|s| s["source"] = json!({"queue": s["source"]["queue"], "adopt": true}))).await;
    assert!(told.starts_with("QueueMissing: ") && told.contains(&test.queue), "{told}");
    test.clear().await;
}

#[tokio::test]
async fn an_exchange_of_another_kind_is_told() {
    let test = Test::new("exchange").await;
    let topology = test.topology(|_| {});
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let name = topology.exchange.as_str().into();
    test.channel.exchange_declare(name, lapin::ExchangeKind::Fanout, options, FieldTable::default()).await.unwrap();
    let told = test.refused(&topology).await;
    assert!(told.starts_with("ExchangeDiffers: "), "{told}");
    test.clear().await;
}

#[tokio::test]
async fn a_queue_with_a_message_is_not_deleted_until_it_is_empty() {
    let test = Test::new("drain").await;
    let topology = test.topology(|_| {});
    test.ensure(&topology).await.unwrap();
    test.publish(&format!("{}.1", test.queue)).await;
    unbind(&test.hub, &topology, &cause()).await.unwrap();
    unbind(&test.hub, &topology, &cause()).await.unwrap();
    assert!(!sources_empty(&test.hub, &topology).await.unwrap());
    assert_eq!(delete_when_empty(&test.hub, &topology, &cause()).await.unwrap(), Emptied::NotYet);
    test.channel.queue_purge(test.queue.as_str().into(), lapin::options::QueuePurgeOptions::default()).await.unwrap();
    assert_eq!(delete_when_empty(&test.hub, &topology, &cause()).await.unwrap(), Emptied::Gone);
    assert_eq!(delete_when_empty(&test.hub, &topology, &cause()).await.unwrap(), Emptied::Gone, "a second time too");
}

#[tokio::test]
async fn certificates_that_do_not_fit_are_three_reasons() {
    let mut other = address("DROVER_TEST_HUB_URI");
    other.tls.ca = Some(std::fs::read_to_string(std::env::var("DROVER_TEST_OTHER_CA").unwrap()).unwrap());
    for (address, reason) in [
        (other, "CertificateUnknownAuthority"),
        (address("DROVER_TEST_HUB_WRONGNAME_URI"), "CertificateWrongName"),
        (address("DROVER_TEST_HUB_EXPIRED_URI"), "CertificateExpired"),
    ] {
        let problem = Hubs::default().at(&address, now()).channel().await.unwrap_err();
        assert_eq!(problem.reason, reason, "{}", problem.message);
    }
}

#[tokio::test]
async fn what_waits_comes_back_to_the_source_and_suspects_have_queues_where_there_is_a_handler() {
    let test = Test::new("detours").await;
    let handler = |s: &mut Value| {
        s["transform"] = json!({"handler": {"image": "i"}});
        s["retry"] = json!({"initialSeconds": 1, "maxSeconds": 2});
    };
    let topology = test.topology(handler);
    for _ in 0..2 {
        assert_eq!(test.ensure(&topology).await, Ok(0));
    }
    let source = test.queue.clone();
    let suspects: Vec<String> = (1..=2).map(|step| format!("{source}.suspects-{step}")).collect();
    for (key, waits) in [("suspects-1", [1, 0]), ("suspects-2", [1, 1])] {
        test.publish_to(&topology.exchange, key).await;
        assert_eq!(test.hub.waiting(&suspects).await.unwrap(), waits);
    }
    test.publish_to(&topology.exchange, "delay-1").await;
    test.publish_to(&topology.exchange, "delay-2").await;
    let back = async {
        while test.hub.waiting(std::slice::from_ref(&source)).await.unwrap() != [2] {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), back).await.expect("both come back");
    assert_eq!(test.hub.waiting(&[format!("{source}.never")]).await.unwrap(), [0]);
    delete_all(&test.hub, &topology, &cause()).await.unwrap();
}

#[tokio::test]
async fn what_is_missing_may_be_asked_for_more_often_than_a_connection_has_channels() {
    let test = Test::new("never").await;
    let never = [format!("{}.never", test.queue)];
    for n in 0..2100 {
        assert_eq!(patient::patient(async || test.hub.waiting(&never).await).await, Ok(vec![0]), "{n}");
    }
}

#[tokio::test]
async fn a_full_mirror_refuses_no_message_and_is_removed_twice_without_harm() {
    let test = Test::new("mirror").await;
    let topology = test.topology(|_| {});
    test.ensure(&topology).await.unwrap();
    let (mirror, key) = (format!("{}.mirror-a", test.queue), format!("{}.#", test.queue));
    let bindings = [drover_crds::api::Binding { exchange: "amq.topic".to_owned(), routing_key: key }];
    let bind =
        Bind { queue: mirror.clone(), exchange: "amq.topic".into(), routing_key: bindings[0].routing_key.clone() };
    let told = [bound(&bind), format!("create queue {mirror} done")];
    assert_eq!(audited(test.hub.mirror(&mirror, &bindings, &cause())).await, told);
    assert_eq!(audited(test.hub.mirror(&mirror, &bindings, &cause())).await, Vec::<String>::new());
    test.channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let mut confirms = Vec::new();
    for _ in 0..10_050 {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let (to, properties) = (format!("{}.x", test.queue), BasicProperties::default());
        confirms.push(
            test.channel
                .basic_publish("amq.topic".into(), to.as_str().into(), options, b"x", properties)
                .await
                .unwrap(),
        );
    }
    for confirm in confirms {
        assert!(confirm.await.unwrap().is_ack());
    }
    assert_eq!(test.hub.waiting(&[mirror.clone(), test.queue.clone()]).await.unwrap(), [10_000, 10_050]);
    let told = [format!("delete queue {mirror} done"), format!("un{}", bound(&bind))];
    assert_eq!(audited(test.hub.remove_mirror(&mirror, &bindings, &cause())).await, told);
    assert_eq!(audited(test.hub.remove_mirror(&mirror, &bindings, &cause())).await, Vec::<String>::new());
    assert_eq!(test.hub.waiting(&[mirror]).await.unwrap(), [0]);
    delete_all(&test.hub, &topology, &cause()).await.unwrap();
}

#[tokio::test]
async fn publishers_notice_nothing_of_the_end_of_a_mirror() {
    let test = Test::new("mirror-end").await;
    let topology = test.topology(|_| {});
    test.ensure(&topology).await.unwrap();
    let bindings = [Binding { exchange: "amq.topic".to_owned(), routing_key: format!("{}.#", test.queue) }];
    let mirrors: Vec<String> = (0..100).map(|n| format!("{}.mirror-{n}", test.queue)).collect();
    for mirror in &mirrors {
        test.hub.mirror(mirror, &bindings, &cause()).await.unwrap();
    }
    let over = CancellationToken::new();
    let publisher = async || {
        let (hub, to) = (Test::another_operator(), format!("{}.x", test.queue));
        let (mut sent, mut refused) = (0, 0);
        while !over.is_cancelled() {
            // As a device that has not published before: its channel knows no queue yet.
            let channel = patient::channel(&hub).await;
            channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
            let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
            let confirm = channel.basic_publish("amq.topic".into(), to.as_str().into(), options, b"x", properties);
            refused += u32::from(!confirm.await.unwrap().await.unwrap().is_ack());
            sent += 1;
            channel.close(200, "done".into()).await.unwrap();
        }
        (sent, refused)
    };
    let cause = cause();
    let ends = async {
        for some in mirrors.chunks(25) {
            let ends = some.iter().map(|mirror| test.hub.remove_mirror(mirror, &bindings, &cause));
            join_all(ends).await.into_iter().for_each(Result::unwrap);
        }
        over.cancel();
    };
    let (counts, ()) = tokio::join!(join_all((0..8).map(|_| publisher())), ends);
    let (sent, refused) =
        counts.into_iter().fold((0, 0), |(s, r): (u32, u32), (sent, refused)| (s + sent, r + refused));
    assert!(sent > 0 && refused == 0, "{refused} of {sent} messages were refused");
    delete_all(&test.hub, &topology, &cause).await.unwrap();
}

#[tokio::test]
async fn looks_at_the_oldest_dead_letter_change_nothing() {
    let test = Test::new("oldest").await;
    test.ensure(&test.topology(|_| {})).await.unwrap();
    let dead = format!("{}.dead", test.queue);
    assert_eq!(test.hub.oldest(&dead).await.unwrap(), None);
    test.channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    for (body, failure) in [(b"a", "2026-01-02T03:04:05Z"), (b"b", "2026-01-03T03:04:05Z")] {
        let mut headers = FieldTable::default();
        headers.insert("x-drover-last-failure".into(), AMQPValue::LongString(failure.into()));
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default().with_headers(headers));
        let sent = test.channel.basic_publish("".into(), dead.as_str().into(), options, body, properties);
        assert!(sent.await.unwrap().await.unwrap().is_ack());
    }
    for _ in 0..30 {
        let oldest = test.hub.oldest(&dead).await.unwrap().expect("it says when it died");
        assert_eq!(oldest.to_string(), "2026-01-02T03:04:05Z");
        // It goes back when the queue has seen the end of the look's channel.
        let back = async { while test.ensure(&test.topology(|_| {})).await != Ok(2) {} };
        tokio::time::timeout(std::time::Duration::from_secs(20), back).await.expect("it is back");
    }
    for body in [b"a", b"b"] {
        let options = BasicGetOptions { no_ack: true };
        let got = test.channel.basic_get(dead.as_str().into(), options).await.unwrap().expect("both are there");
        assert_eq!(got.data, body);
    }
    test.clear().await;
}
