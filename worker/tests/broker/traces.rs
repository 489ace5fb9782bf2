//! Spans: of which trace a message is, what is told of it, and that nothing waits for the collector.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::response::IntoResponse;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse},
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use prost::Message as _;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::{
    server::{Server, number, status},
    surroundings::{APPEND, Lane, Worker, env, eventually, file, header},
};

const COLUMNS: &str = "message_id text PRIMARY KEY, n bigint";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// What a span is, in text.
#[derive(Debug, Clone)]
struct Told {
    service: BTreeMap<String, String>,
    trace: String,
    id: String,
    parent: String,
    name: String,
    kind: SpanKind,
    failed: bool,
    nanoseconds: u64,
    attributes: BTreeMap<String, String>,
}

impl Told {
    /// As a header names it, where it is sampled.
    fn traceparent(&self) -> String {
        format!("00-{}-{}-01", self.trace, self.id)
    }

    fn says(&self, attribute: &str) -> &str {
        self.attributes.get(attribute).map_or("", String::as_str)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn text(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let value = |pair: &KeyValue| match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(n)) => n.to_string(),
        other => format!("{other:?}"),
    };
    attributes.iter().map(|pair| (pair.key.clone(), value(pair))).collect()
}

fn told(service: &BTreeMap<String, String>, span: &Span) -> Told {
    Told {
        service: service.clone(),
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        name: span.name.clone(),
        kind: span.kind(),
        failed: span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error),
        nanoseconds: span.end_time_unix_nano - span.start_time_unix_nano,
        attributes: text(&span.attributes),
    }
}

/// All spans that a collector has.
fn spans(collector: &Server) -> Vec<Told> {
    let mut all = Vec::new();
    for request in collector.seen() {
        assert_eq!(request.header("content-type"), "application/x-protobuf");
        for resource in ExportTraceServiceRequest::decode(&*request.body).unwrap().resource_spans {
            let service = text(&resource.resource.unwrap().attributes);
            all.extend(resource.scope_spans.iter().flat_map(|scope| &scope.spans).map(|span| told(&service, span)));
        }
    }
    all
}

/// The spans of this name.
fn named<'s>(spans: &'s [Told], name: &str) -> Vec<&'s Told> {
    spans.iter().filter(|span| span.name == name).collect()
}

fn one<'s>(spans: &'s [Told], name: &str) -> &'s Told {
    let found = named(spans, name);
    assert_eq!(found.len(), 1, "{name}: {spans:#?}");
    found[0]
}

async fn collector() -> Server {
    Server::start(|_, _| status(200)).await
}

async fn lane(name: &str) -> Lane {
    let lane = Lane::new(name).await;
    lane.declare_detours().await;
    lane.table(COLUMNS).await;
    lane
}

async fn worker(lane: &Lane, sink: &str, collector: &Server, more: &[(&str, &str)]) -> Worker {
    let endpoint = format!("http://{}/", collector.address);
    let more: Vec<_> = more.iter().copied().chain([("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint)]).collect();
    lane.worker(sink, &more).await
}

/// A message of the publisher's trace, sampled or not.
async fn publish(lane: &Lane, n: u64, flags: &str) {
    let mut headers = FieldTable::default();
    let mut set = |name: &str, value: String| {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    };
    set("traceparent", format!("00-{TRACE}-{PARENT}-{flags}"));
    set("tracestate", "vendor=7".to_owned());
    let id = format!("m-{n}");
    let properties = BasicProperties::default().with_message_id(id.as_str().into()).with_headers(headers);
    lane.publish_with([(properties, format!("{{\"n\":{n}}}").as_bytes())]).await;
}

/// Samples of a counter of spans.
async fn counted(worker: &Worker, outcome: &str) -> u64 {
    let (_, metrics) = worker.get("/metrics").await;
    let name = format!("drover_worker_spans_total{{outcome=\"{outcome}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or("0").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_goes_on_in_the_trace_of_its_publisher() {
    let (lane, collector) = (lane("trace-row").await, collector().await);
    let who = [("DROVER_NAMESPACE", "iot"), ("DROVER_NAME", "telemetry")];
    let worker = worker(&lane, APPEND, &collector, &who).await;
    publish(&lane, 1, "01").await;
    worker.await_done(1).await;
    let told = eventually("both spans", || async { Some(spans(&collector)).filter(|spans| spans.len() == 2) }).await;
    let (process, insert) = (one(&told, "process trace-row"), one(&told, "INSERT trace-row"));
    assert_eq!((&*process.trace, &*process.parent, process.kind), (TRACE, PARENT, SpanKind::Consumer));
    assert_eq!((&insert.trace, &insert.parent, insert.kind), (&process.trace, &process.id, SpanKind::Client));
    assert!(insert.nanoseconds > 0 && insert.nanoseconds <= process.nanoseconds && !process.failed);
    for (attribute, value) in [
        ("messaging.system", "rabbitmq"),
        ("messaging.operation.type", "process"),
        ("messaging.destination.name", "trace-row"),
        ("messaging.rabbitmq.destination.routing_key", "trace-row"),
        ("messaging.message.id", "m-1"),
        ("messaging.message.body.size", "7"),
        ("drover.outcome", "written"),
    ] {
        assert_eq!(process.says(attribute), value, "{attribute}");
    }
    assert_eq!(["db.system.name", "db.collection.name"].map(|name| insert.says(name)), ["postgresql", "trace-row"]);
    for (attribute, value) in [
        ("service.name", "telemetry"),
        ("service.namespace", "iot"),
        ("service.version", "r1"),
        ("service.instance.id", "trace-row"),
    ] {
        assert_eq!(process.service.get(attribute).map(String::as_str), Some(value), "{attribute}");
    }
    assert_eq!(counted(&worker, "exported").await, 2);
    worker.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handler_server_and_queue_are_told_in_whose_name() {
    let (lane, collector) = (lane("trace-on").await, collector().await);
    lane.declare_queue("trace-on.out", "quorum").await;
    lane.bind("trace-on.out", "out").await;
    let handler = Server::start(|_, _| status(200)).await;
    let to_queue = r#"{"hub":{"exchange":"TABLE.drover","routingKey":"out"}}"#;
    let to_handler = worker(&lane, to_queue, &collector, &[("DROVER_HANDLER_PORT", &handler.port())]).await;
    publish(&lane, 1, "01").await;
    to_handler.await_done(1).await;
    to_handler.stop().await;
    let told = spans(&collector);
    let (process, post, published) =
        (one(&told, "process trace-on"), one(&told, "POST"), one(&told, "publish trace-on.drover"));
    assert_eq!((&post.parent, &published.parent), (&process.id, &process.id));
    assert_eq!(published.kind, SpanKind::Producer);
    let seen = &handler.seen()[0];
    assert_eq!((seen.header("traceparent"), seen.header("tracestate")), (&*post.traceparent(), "vendor=7"));
    let out = lane.take("trace-on.out").await;
    assert_eq!(
        (header(&out[0], "traceparent"), header(&out[0], "tracestate")),
        (published.traceparent(), "vendor=7".into())
    );

    let server = Server::start(|_, _| status(202)).await;
    let to_server = format!(r#"{{"http":{{"url":"http://{}/in?token=sesame"}}}}"#, server.address);
    let other = self::collector().await;
    let worker = worker(&lane, &to_server, &other, &[("DROVER_SINK_CA", "")]).await;
    publish(&lane, 2, "01").await;
    worker.await_done(1).await;
    worker.stop().await;
    let told = spans(&other);
    let post = one(&told, "POST");
    assert_eq!(server.seen()[0].header("traceparent"), post.traceparent());
    assert_eq!((post.says("server.address"), post.says("http.response.status_code")), ("127.0.0.1", "202"));
    assert!(!format!("{told:?}").contains("sesame"));
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_told_by_its_reason_and_each_try_is_of_the_same_trace() {
    let (lane, collector) = (lane("trace-fail").await, collector().await);
    let handler = Server::start(|_, seen| match (number(seen), seen.header("ce-droverattempt")) {
        (1, _) => status(422),
        (_, "1") => status(503),
        _ => status(204),
    })
    .await;
    let worker = worker(&lane, APPEND, &collector, &[("DROVER_HANDLER_PORT", &handler.port())]).await;
    publish(&lane, 1, "01").await;
    publish(&lane, 2, "01").await;
    worker.await_done(2).await;
    let dead = lane.dead_letters().await;
    assert_eq!(header(&dead[0], "traceparent"), format!("00-{TRACE}-{PARENT}-01"));
    worker.stop().await;
    let told = spans(&collector);
    let mut ends: Vec<_> = named(&told, "process trace-fail")
        .iter()
        .map(|span| (span.says("drover.outcome"), span.says("error.type"), span.failed, &*span.trace, &*span.parent))
        .collect();
    ends.sort_unstable();
    assert_eq!(
        ends,
        [
            ("dead_lettered", "RefusedByHandler", true, TRACE, PARENT),
            ("delayed", "HandlerFailed", true, TRACE, PARENT),
            ("filtered", "", false, TRACE, PARENT),
        ]
    );
    let mut calls: Vec<_> = named(&told, "POST").iter().map(|span| (span.says("error.type"), span.failed)).collect();
    calls.sort_unstable();
    assert_eq!(calls, [("", false), ("HandlerFailed", true), ("RefusedByHandler", true)]);
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_tries_of_a_message_are_one_trace_also_where_its_publisher_names_none() {
    let (lane, collector) = (lane("trace-tries").await, collector().await);
    let handler = Server::start(|_, seen| status(if seen.header("ce-droverattempt") == "1" { 503 } else { 204 })).await;
    let worker = worker(&lane, APPEND, &collector, &[("DROVER_HANDLER_PORT", &handler.port())]).await;
    lane.publish_numbered(0..5).await;
    worker.await_done(5).await;
    worker.stop().await;
    let told = spans(&collector);
    let mut traces: Vec<_> = named(&told, "process trace-tries").iter().map(|span| span.trace.as_str()).collect();
    assert_eq!(traces.len(), 10);
    traces.sort_unstable();
    traces.dedup();
    assert_eq!(traces.len(), 5, "{told:#?}");
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_names_no_trace_is_taken_for_none() {
    let (lane, collector) = (lane("trace-wrong").await, collector().await);
    let server = Server::start(|_, _| status(202)).await;
    let sink = format!(r#"{{"http":{{"url":"http://{}/"}}}}"#, server.address);
    let wrong = [
        AMQPValue::LongString("00-0-0-01".into()),
        AMQPValue::LongString("x".repeat(20_000).into()),
        AMQPValue::LongString(vec![0xff, 0x00].into()),
        AMQPValue::LongLongInt(7),
        AMQPValue::Void,
    ];
    for (n, value) in (0_u64..).zip(&wrong) {
        let mut headers = FieldTable::default();
        headers.insert("traceparent".into(), value.clone());
        headers.insert("tracestate".into(), AMQPValue::LongString("y".repeat(20_000).into()));
        let properties = BasicProperties::default().with_headers(headers);
        lane.publish_with([(properties, format!("{{\"n\":{n}}}").as_bytes())]).await;
    }
    let ca = ("DROVER_SINK_CA", "");
    let worker = self::worker(&lane, &sink, &collector, &[ca]).await;
    worker.await_done(5).await;
    worker.stop().await;
    let told = spans(&collector);
    assert!(named(&told, "process trace-wrong").iter().all(|span| span.parent.is_empty()), "{told:#?}");
    for seen in server.seen() {
        assert!(told.iter().any(|span| span.traceparent() == seen.header("traceparent")), "{seen:?}");
        assert_eq!(seen.header("tracestate"), "");
    }
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_collector_rejects_of_a_request_has_failed() {
    let lane = lane("trace-part").await;
    let part = ExportTracePartialSuccess { rejected_spans: 3, error_message: "too old".to_owned() };
    let answer = ExportTraceServiceResponse { partial_success: Some(part) }.encode_to_vec();
    let collector = Server::start(move |_, _| answer.clone().into_response()).await;
    let worker = worker(&lane, APPEND, &collector, &[]).await;
    lane.publish_numbered(0..5).await;
    worker.await_done(5).await;
    eventually("they are counted", || async {
        let both = (counted(&worker, "exported").await, counted(&worker, "failed").await);
        (both.0 + both.1 == 10).then_some(both)
    })
    .await;
    let requests = u64::try_from(collector.seen().len()).unwrap();
    assert_eq!(counted(&worker, "failed").await, 3 * requests);
    worker.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_publisher_decides_what_is_traced_and_else_the_share_does() {
    let (lane, collector) = (lane("trace-share").await, collector().await);
    let server = Server::start(|_, _| status(202)).await;
    let sink = format!(r#"{{"http":{{"url":"http://{}/"}}}}"#, server.address);
    let none = [("OTEL_TRACES_SAMPLER_ARG", "0"), ("DROVER_SINK_CA", "")];
    let worker = self::worker(&lane, &sink, &collector, &none).await;
    publish(&lane, 1, "01").await;
    publish(&lane, 2, "00").await;
    lane.publish_numbered(3..4).await;
    worker.await_done(3).await;
    worker.stop().await;
    let told = spans(&collector);
    assert_eq!(one(&told, "process trace-share").says("messaging.message.id"), "m-1");
    // What is not traced here is not traced further on.
    for seen in server.seen() {
        let flags = if number(&seen) == 1 { "-01" } else { "-00" };
        assert!(seen.header("traceparent").ends_with(flags), "{seen:?}");
    }
    let other = self::collector().await;
    let worker = self::worker(&lane, APPEND, &other, &[]).await;
    publish(&lane, 4, "00").await;
    lane.publish_numbered(5..8).await;
    worker.await_done(4).await;
    worker.stop().await;
    let told = spans(&other);
    let (process, mut traces) = (named(&told, "process trace-share"), Vec::new());
    assert!(process.iter().all(|span| span.parent.is_empty() && span.says("messaging.message.id") != "m-4"));
    traces.extend(process.iter().map(|span| &span.trace));
    traces.sort_unstable();
    traces.dedup();
    assert_eq!(traces.len(), 3, "a trace for each");
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_collector_a_message_keeps_its_own_trace() {
    let lane = lane("trace-off").await;
    let server = Server::start(|_, _| status(202)).await;
    let sink = format!(r#"{{"http":{{"url":"http://{}/"}}}}"#, server.address);
    let worker = lane.worker(&sink, &[("DROVER_SINK_CA", "")]).await;
    publish(&lane, 1, "01").await;
    lane.publish_numbered(2..3).await;
    worker.await_done(2).await;
    worker.stop().await;
    for seen in server.seen() {
        let own = (format!("00-{TRACE}-{PARENT}-01"), "vendor=7".to_owned());
        let expected = if number(&seen) == 1 { own } else { Default::default() };
        assert_eq!((seen.header("traceparent"), seen.header("tracestate")), (&*expected.0, &*expected.1));
    }
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_down_or_hangs_holds_up_no_message() {
    let lane = lane("trace-down").await;
    let nobody = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")];
    let worker = lane.worker(APPEND, &nobody).await;
    lane.publish_numbered(0..10).await;
    worker.await_done(10).await;
    eventually("they are counted", || async { (counted(&worker, "failed").await == 20).then_some(()) }).await;
    worker.stop().await;
    // One request takes half a thousand, and as many as the queue has room for wait.
    let slow = Server::slow(Duration::from_secs(30), |_, _| status(200)).await;
    let worker = self::worker(&lane, APPEND, &slow, &[]).await;
    lane.publish_numbered(10..3000).await;
    worker.await_done(2990).await;
    assert_eq!(lane.count().await, 3000);
    let (dropped, sent) = (counted(&worker, "dropped").await, counted(&worker, "exported").await);
    assert!((5980 - 2048 - 512 - 512..5980).contains(&dropped) && sent == 0, "{dropped} dropped, {sent} sent");
    worker.stop().await;
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_with_tls_is_trusted_by_its_authority_alone() {
    let (lane, pki) = (lane("trace-tls").await, env("DROVER_TEST_PKI"));
    let chain = CertificateDer::pem_file_iter(format!("{pki}/server.crt")).unwrap().collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(format!("{pki}/server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let collector = Server::with_tls(config, |_, _| status(200)).await;
    let endpoint = format!("https://{}", collector.address);
    for (ca, outcome, n) in [("DROVER_TEST_OTHER_CA", "failed", 1), ("DROVER_TEST_CA", "exported", 2)] {
        let ca = file(ca);
        let traced = [("DROVER_TRACES_ENDPOINT", &*endpoint), ("DROVER_TRACES_CA", &*ca)];
        let worker = lane.worker(APPEND, &traced).await;
        lane.publish_numbered(n..n + 1).await;
        worker.await_done(1).await;
        eventually("they are counted", || async { (counted(&worker, outcome).await == 2).then_some(()) }).await;
        worker.stop().await;
    }
    assert_eq!(named(&spans(&collector), "process trace-tls").len(), 1);
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_that_a_preview_works_on_are_not_traced() {
    let (lane, collector) = (lane("trace-preview").await, collector().await);
    lane.declare_queue("trace-preview.mirror-r1", "classic").await;
    let worker = worker(&lane, APPEND, &collector, &[("DROVER_PREVIEW", "true")]).await;
    let id = BasicProperties::default().with_message_id("m".into());
    lane.publish_to("trace-preview.mirror-r1", [(id, &b"{\"n\":1}"[..])]).await;
    worker.await_done(1).await;
    worker.stop().await;
    assert_eq!(spans(&collector).len(), 0);
    lane.close().await;
}
