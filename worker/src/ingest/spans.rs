//! One span for each message of a batch, and one below it for what a handler or the sink did with it. The names of attributes are
//! those of OpenTelemetry's semantic conventions.
//!
//! A message whose publisher sent a `traceparent` goes on in that trace, and is sampled as the publisher has decided. Where nothing is
//! traced there are no spans, and all of this does nothing.

use std::collections::HashMap;

use drover_crds::{api::Sink, resolved};
use jiff::Timestamp;
use lapin::{message::Delivery, types::FieldTable};
use opentelemetry::{
    Context, KeyValue,
    propagation::{Extractor, TextMapPropagator},
    trace::{Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, Tracer},
};
use opentelemetry_sdk::{
    propagation::TraceContextPropagator,
    trace::{SdkTracer, Span},
};

use super::{clock, envelope, meter::Outcome};
use crate::traces::Traces;

/// Header of a message, and of a request over HTTP, that names a span.
const TRACEPARENT: &str = "traceparent";
/// The same, for what vendors add.
const TRACESTATE: &str = "tracestate";

/// Longest header that is read, in bytes: what the W3C asks everybody to take of a `tracestate`. Servers refuse requests with long ones.
const MAX_HEADER: usize = 512;
/// Most bytes of an attribute: spans wait in memory.
const MAX_ATTRIBUTE: usize = 255;

/// What is done with a message, as its own span tells it.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    name: String,
    kind: SpanKind,
    attributes: Vec<KeyValue>,
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
pub(crate) struct Spans {
    tracer: Option<SdkTracer>,
    spans: Vec<Span>,
}

impl Spans {
    /// Begins those of deliveries from `queue`.
    pub(super) fn begin(traces: Option<&Traces>, queue: &str, batch: &[Delivery]) -> Self {
        let Some(Traces { tracer, .. }) = traces else { return Self::default() };
        let begin = |delivery: &Delivery| {
            let parent = publisher(delivery);
            let builder = SpanBuilder::from_name(format!("process {queue}")).with_kind(SpanKind::Consumer);
            let mut span = tracer.build_with_context(builder.with_start_time(clock::today()), &parent);
            if span.is_recording() {
                span.set_attributes(attributes(queue, delivery));
            }
            span
        };
        Self { spans: batch.iter().map(begin).collect(), tracer: Some(tracer.clone()) }
    }

    /// In whose name a message is sent to another queue of the pipeline, if it says nothing itself: all of its tries are one trace.
    pub(super) fn lasting(&self, message: usize, delivery: &Delivery) -> Option<Onward> {
        let span = self.spans.get(message).filter(|_| header(delivery, TRACEPARENT).is_none())?;
        Onward::of(Some(span), delivery)
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
    pub(super) fn fails(&mut self, message: usize, reason: &str) {
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

/// Tells of what a sink does, message by message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Telling<'s> {
    pub(super) spans: &'s Spans,
    pub(super) work: Option<&'s Work>,
}

impl Telling<'_> {
    /// It begins with a message.
    pub(crate) fn begin(&self, message: usize) -> Option<Span> {
        self.spans.child(message, self.work?, clock::today())
    }

    /// It has written a message, and began then.
    pub(crate) fn wrote(&self, message: usize, since: Timestamp) {
        // It ends as it is dropped.
        drop(self.work.and_then(|work| self.spans.child(message, work, since)));
    }
}

/// What names a trace, for whoever a message goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Onward {
    pub(crate) traceparent: String,
    /// What vendors add; may be empty.
    pub(crate) tracestate: String,
}

impl Onward {
    /// In the name of a span; where there is none, as the message says itself, if that is valid.
    pub(crate) fn of(span: Option<&Span>, delivery: &Delivery) -> Option<Self> {
        Self::from_context(
            span.map_or_else(|| publisher(delivery).span().span_context().clone(), |span| span.span_context().clone()),
        )
    }

    fn from_context(context: SpanContext) -> Option<Self> {
        let mut headers = HashMap::new();
        TraceContextPropagator::new().inject_context(&Context::new().with_remote_span_context(context), &mut headers);
        let traceparent = headers.remove(TRACEPARENT)?;
        Some(Self { traceparent, tracestate: headers.remove(TRACESTATE).unwrap_or_default() })
    }

    /// As headers; an empty one is none.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [(TRACEPARENT, &*self.traceparent), (TRACESTATE, &*self.tracestate)].into_iter().filter(|(_, v)| !v.is_empty())
    }

    /// Puts it into the headers of a message, in place of what is there.
    pub(crate) fn put(&self, headers: &mut FieldTable) {
        *headers = envelope::without(headers, TRACESTATE);
        for (name, value) in self.pairs() {
            headers.insert(name.into(), envelope::text(value));
        }
    }
}

/// What a span was for did not succeed.
pub(crate) fn failed(span: &mut Span, reason: &str) {
    span.set_attribute(KeyValue::new("error.type", reason.to_owned()));
    span.set_status(Status::error(""));
}

/// A server answered with this status.
pub(crate) fn answered(span: &mut Span, status: u16) {
    span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
}

fn cut(text: &str) -> String {
    envelope::cut(text, MAX_ATTRIBUTE).to_owned()
}

fn attributes(queue: &str, delivery: &Delivery) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("messaging.system", "rabbitmq"),
        KeyValue::new("messaging.operation.name", "process"),
        KeyValue::new("messaging.operation.type", "process"),
        KeyValue::new("messaging.destination.name", queue.to_owned()),
        KeyValue::new("messaging.rabbitmq.destination.routing_key", cut(&envelope::origin(delivery).1)),
        KeyValue::new("messaging.message.body.size", i64::try_from(delivery.data.len()).unwrap_or(i64::MAX)),
    ];
    if let Some(id) = delivery.properties.message_id() {
        attributes.push(KeyValue::new("messaging.message.id", cut(id.as_str())));
    }
    attributes
}

/// The trace of whoever published a message, and whether it is sampled; of none where the headers are not valid.
fn publisher(delivery: &Delivery) -> Context {
    TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(delivery))
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
fn header<'d>(delivery: &'d Delivery, name: &str) -> Option<&'d str> {
    let value = delivery.properties.headers().as_ref()?.inner().get(name)?.as_long_string()?;
    let text = std::str::from_utf8(value.as_bytes()).ok()?;
    (text.len() <= MAX_HEADER).then_some(text)
}
