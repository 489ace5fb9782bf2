//! One span for each message of a batch, and one below it for what a handler or the sink did with it. The names of attributes are
//! those of OpenTelemetry's semantic conventions.
//!
//! A message whose publisher sent a `traceparent` goes on in that trace, and is sampled as the publisher has decided. Where nothing is
//! traced there are no spans, and all of this does nothing.

use std::collections::HashMap;

use drover_crds::{api::Sink, resolved};
use jiff::Timestamp;
use lapin::message::Delivery;
use opentelemetry::{
    Context, KeyValue,
    propagation::{Extractor, TextMapPropagator},
    trace::{Span as _, SpanBuilder, SpanKind, Status, TraceContextExt, Tracer},
};
use opentelemetry_sdk::{
    propagation::TraceContextPropagator,
    trace::{SdkTracer, Span},
};

use super::{clock, envelope, meter::Outcome};
use crate::traces::Traces;

/// Header of a message, and of a request over HTTP, that names a span.
pub(crate) const TRACEPARENT: &str = "traceparent";
/// The same, for what vendors add.
pub(crate) const TRACESTATE: &str = "tracestate";

/// What is done with a message, as its own span tells it.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    pub(crate) name: String,
    pub(crate) kind: SpanKind,
    pub(crate) attributes: Vec<KeyValue>,
}

/// What is done with messages, for spans.
#[derive(Debug)]
pub(crate) struct Works {
    pub(crate) sink: Option<Work>,
    pub(crate) handler: Work,
}

impl Work {
    /// What a sink does; throwing away is nothing.
    pub(crate) fn of_sink(sink: &Sink) -> Option<Self> {
        if let Some(postgres) = &sink.postgres {
            let attributes = vec![
                KeyValue::new("db.system.name", "postgresql"),
                KeyValue::new("db.operation.name", "INSERT"),
                KeyValue::new("db.collection.name", postgres.table.clone()),
            ];
            return Some(Self { name: format!("INSERT {}", postgres.table), kind: SpanKind::Client, attributes });
        }
        if let Some(hub) = &sink.hub {
            let attributes = vec![
                KeyValue::new("messaging.system", "rabbitmq"),
                KeyValue::new("messaging.operation.name", "publish"),
                KeyValue::new("messaging.operation.type", "send"),
                KeyValue::new("messaging.destination.name", hub.exchange.clone()),
            ];
            return Some(Self { name: format!("publish {}", hub.exchange), kind: SpanKind::Producer, attributes });
        }
        let host = resolved::web_host(&sink.http.as_ref()?.url)?.to_owned();
        Some(Self::post(host))
    }

    /// What a handler does.
    pub(crate) fn of_handler() -> Self {
        Self::post("127.0.0.1".to_owned())
    }

    /// Of an address the host alone: the rest of it may be a secret.
    fn post(host: String) -> Self {
        let attributes = vec![KeyValue::new("http.request.method", "POST"), KeyValue::new("server.address", host)];
        Self { name: "POST".to_owned(), kind: SpanKind::Client, attributes }
    }
}

/// The spans of a batch, by the places of its messages; none where nothing is traced.
#[derive(Debug, Default)]
pub(super) struct Spans {
    tracer: Option<SdkTracer>,
    spans: Vec<Span>,
}

impl Spans {
    /// Begins those of deliveries from `queue`.
    pub(super) fn begin(traces: Option<&Traces>, queue: &str, batch: &[Delivery]) -> Self {
        let Some(Traces { tracer, .. }) = traces else { return Self::default() };
        let propagator = TraceContextPropagator::new();
        let begin = |delivery: &Delivery| {
            let parent = propagator.extract_with_context(&Context::new(), &Headers(delivery));
            let builder = SpanBuilder::from_name(format!("process {queue}")).with_kind(SpanKind::Consumer);
            let mut span = tracer.build_with_context(builder.with_start_time(clock::today()), &parent);
            if span.is_recording() {
                span.set_attributes(attributes(queue, delivery));
            }
            span
        };
        Self { spans: batch.iter().map(begin).collect(), tracer: Some(tracer.clone()) }
    }

    /// The span in whose name a message goes on.
    pub(super) fn parent(&self, message: usize) -> Option<String> {
        self.spans.get(message).map(traceparent)
    }

    /// Begins the span of what is done with a message.
    pub(super) fn child(&self, message: usize, work: &Work, since: Timestamp) -> Option<Span> {
        let parent = self.spans.get(message)?;
        let Work { name, kind, attributes } = work;
        let mut builder = SpanBuilder::from_name(name.clone()).with_kind(kind.clone()).with_start_time(since);
        if parent.is_recording() {
            builder = builder.with_attributes(attributes.iter().cloned());
        }
        let parent = Context::new().with_remote_span_context(parent.span_context().clone());
        Some(self.tracer.as_ref()?.build_with_context(builder, &parent))
    }

    /// A message fails, for this reason; not the error, which may show a row.
    pub(super) fn fails(&mut self, message: usize, reason: &'static str) {
        if let Some(span) = self.spans.get_mut(message) {
            failed(span, reason);
        }
    }

    /// A message has come to this end.
    pub(super) fn end(&mut self, message: usize, outcome: Outcome) {
        if let Some(span) = self.spans.get_mut(message) {
            span.set_attribute(KeyValue::new("drover.outcome", outcome.as_str()));
            span.end_with_timestamp(clock::today().into());
        }
    }
}

/// Names a span in a header.
pub(super) fn traceparent(span: &Span) -> String {
    let mut headers = HashMap::new();
    let context = Context::new().with_remote_span_context(span.span_context().clone());
    TraceContextPropagator::new().inject_context(&context, &mut headers);
    headers.remove(TRACEPARENT).unwrap_or_default()
}

/// What a span was for did not succeed.
pub(super) fn failed(span: &mut Span, reason: &'static str) {
    span.set_attribute(KeyValue::new("error.type", reason));
    span.set_status(Status::error(""));
}

fn attributes(queue: &str, delivery: &Delivery) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("messaging.system", "rabbitmq"),
        KeyValue::new("messaging.operation.name", "process"),
        KeyValue::new("messaging.operation.type", "process"),
        KeyValue::new("messaging.destination.name", queue.to_owned()),
        KeyValue::new("messaging.rabbitmq.destination.routing_key", envelope::origin(delivery).1),
        KeyValue::new("messaging.message.body.size", i64::try_from(delivery.data.len()).unwrap_or(i64::MAX)),
    ];
    if let Some(id) = delivery.properties.message_id() {
        attributes.push(KeyValue::new("messaging.message.id", id.to_string()));
    }
    attributes
}

/// The headers of a message that say which trace it is of.
struct Headers<'d>(&'d Delivery);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        header(self.0, key)
    }

    fn keys(&self) -> Vec<&str> {
        [TRACEPARENT, TRACESTATE].into_iter().filter(|key| header(self.0, key).is_some()).collect()
    }
}

/// What a message itself says of its trace.
pub(crate) fn header<'d>(delivery: &'d Delivery, name: &str) -> Option<&'d str> {
    let value = delivery.properties.headers().as_ref()?.inner().get(name)?;
    std::str::from_utf8(value.as_long_string()?.as_bytes()).ok()
}
