//! A delivery as an event of CloudEvents 1.0, in the binary mode of HTTP: attributes are headers, the body is the body. Pure.

use std::fmt::Write as _;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use jiff::Timestamp;
use lapin::{message::Delivery, types::ShortString};

use super::{
    envelope::{self, Sender},
    spans::Onward,
};

/// The type of an event whose message has none.
const TYPE: &str = "dev.drover.message";

/// What an event says beside its body.
#[derive(Debug)]
pub(crate) struct Event<'a> {
    pub(crate) sender: &'a Sender,
    pub(crate) delivery: &'a Delivery,
    pub(crate) id: &'a str,
    /// Results are thrown away.
    pub(crate) preview: bool,
    /// The trace that it is of.
    pub(crate) trace: Option<Onward>,
}

impl Event<'_> {
    /// The headers of the event. `kind` is the body's content type.
    pub(crate) fn headers(&self, kind: &str) -> HeaderMap {
        let properties = &self.delivery.properties;
        let (exchange, routing_key) = envelope::origin(self.delivery);
        let mut headers = HeaderMap::new();
        let mut set = |name: &'static str, value: &str| {
            if !value.is_empty() {
                headers.insert(HeaderName::from_static(name), encoded(value));
            }
        };
        set("ce-specversion", "1.0");
        set("ce-id", self.id);
        set("ce-source", &self.source());
        set("ce-type", properties.kind().as_ref().map_or(TYPE, |kind| kind.as_str()));
        set("ce-subject", &routing_key);
        set("ce-droverexchange", &exchange);
        set("ce-droverattempt", &envelope::attempts_now(self.sender, self.delivery).to_string());
        set("ce-droverrevision", &self.sender.identity.revision);
        if self.preview {
            set("ce-droverpreview", "true");
        }
        let seconds = properties.timestamp().and_then(|seconds| i64::try_from(seconds).ok());
        if let Some(time) = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok()) {
            set("ce-time", &time.to_string());
        }
        for (name, value) in self.trace.iter().flat_map(Onward::pairs) {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        if let Ok(kind) = HeaderValue::from_str(kind) {
            headers.insert(header::CONTENT_TYPE, kind);
        }
        headers
    }

    fn source(&self) -> String {
        let identity = &self.sender.identity;
        let (namespace, name) = (&identity.namespace, &identity.name);
        if name.is_empty() { "/drover".to_owned() } else { format!("/drover/{namespace}/{name}") }
    }
}

/// A message's content type; JSON where it says nothing.
pub(crate) fn content_type(delivery: &Delivery) -> &str {
    let said = delivery.properties.content_type().as_ref().map(ShortString::as_str);
    said.filter(|kind| !kind.is_empty()).unwrap_or("application/json")
}

/// As the HTTP binding of CloudEvents wants it: what is not printable ASCII, quotes and per cent signs are escaped.
fn encoded(value: &str) -> HeaderValue {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_graphic() && !matches!(byte, b'"' | b'%') {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").expect("writing to a String does not fail");
        }
    }
    HeaderValue::from_str(&text).expect("printable ASCII is a header's value")
}

#[cfg(test)]
mod tests {
    use lapin::BasicProperties;

    use super::*;
    use crate::settings::Identity;

    fn headers(properties: BasicProperties, preview: bool) -> HeaderMap {
        let identity = Identity {
            namespace: "iot".to_owned(),
            name: "telemetry".to_owned(),
            revision: "r1".to_owned(),
            ..Identity::default()
        };
        let sender = Sender { identity, queue: "q".to_owned(), process: "me".to_owned() };
        let mut delivery = Delivery::mock(1, "amq.topic".into(), "devices.7".into(), false, Vec::new());
        delivery.properties = properties;
        let event = Event { sender: &sender, delivery: &delivery, id: "é 1%", preview, trace: None };
        event.headers(content_type(&delivery))
    }

    #[test]
    fn attributes_are_headers() {
        let properties = BasicProperties::default()
            .with_type("reading".into())
            .with_content_type("text/csv".into())
            .with_timestamp(1_767_323_045);
        let headers = headers(properties, true);
        for (name, value) in [
            ("ce-specversion", "1.0"),
            ("ce-id", "%C3%A9%201%25"),
            ("ce-source", "/drover/iot/telemetry"),
            ("ce-type", "reading"),
            ("ce-subject", "devices.7"),
            ("ce-time", "2026-01-02T03:04:05Z"),
            ("ce-droverattempt", "1"),
            ("ce-droverexchange", "amq.topic"),
            ("ce-droverpreview", "true"),
            ("ce-droverrevision", "r1"),
            ("content-type", "text/csv"),
        ] {
            assert_eq!(headers.get(name).map(|v| v.to_str().unwrap()), Some(value), "{name}");
        }
    }

    #[test]
    fn the_trace_is_told_as_it_is() {
        let told = |traceparent: &str, tracestate: &str| {
            let identity = Identity::default();
            let sender = Sender { identity, queue: "q".to_owned(), process: "me".to_owned() };
            let delivery = Delivery::mock(1, "".into(), "q".into(), false, Vec::new());
            let trace = Onward { traceparent: traceparent.to_owned(), tracestate: tracestate.to_owned() };
            let event = Event { sender: &sender, delivery: &delivery, id: "1", preview: false, trace: Some(trace) };
            let headers = event.headers("application/json");
            ["traceparent", "tracestate"].map(|name| headers.get(name).map(|v| v.to_str().unwrap().to_owned()))
        };
        assert_eq!(told("00-a", "a=1, b=50%"), [Some("00-a".to_owned()), Some("a=1, b=50%".to_owned())]);
        assert_eq!(told("00-a", ""), [Some("00-a".to_owned()), None]);
        assert_eq!(told("00-a\r\nx: y", "\0"), [None, None]);
    }

    #[test]
    fn what_a_message_does_not_say_is_left_out_or_usual() {
        let headers = headers(BasicProperties::default(), false);
        assert_eq!((headers.get("ce-time"), headers.get("ce-droverpreview")), (None, None));
        assert_eq!(headers["ce-type"], TYPE);
        assert_eq!(headers["content-type"], "application/json");
    }
}
