//! A message of a stream: its offset, its arrival, whether it is a tick, and the texts of its events. Pure.

use drover_crds::query::TICKS_PER_MILLISECOND;
use lapin::{
    BasicProperties,
    message::Delivery,
    types::{AMQPValue, FieldTable},
};
use serde_json::value::RawValue;

/// The clock of a tick, in milliseconds since 1970.
pub const TICK: &str = "x-drover-tick";
/// The name of a marker that says nothing: it is only looked for.
pub const PROBE: &str = "x-drover-probe";
/// A message's arrival, in milliseconds since 1970, as whoever publishes it says.
pub const ARRIVAL: &str = "x-drover-arrival";
/// A message's arrival as the broker stamps it.
const STAMP: &str = "timestamp_in_ms";
const OFFSET: &str = "x-stream-offset";

/// A message that was read.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) offset: i64,
    /// For the acknowledgement.
    pub(crate) tag: u64,
    pub(crate) body: Vec<u8>,
    pub(crate) id: Option<String>,
    /// When it arrived, where it says so.
    pub(crate) arrival: Option<i64>,
    /// The clock of a tick of ours.
    pub(crate) tick: Option<i64>,
    /// The name of a marker of ours.
    pub(crate) probe: Option<String>,
}

impl Message {
    /// Reads a delivery; `None` where it has no offset, which no stream does. A tick counts only through our exchange.
    pub(crate) fn of(delivery: Delivery, exchange: &str) -> Option<Self> {
        let headers = delivery.properties.headers().as_ref();
        let offset = headers.and_then(|h| integer(h, OFFSET))?;
        let ours = delivery.exchange.as_str() == exchange;
        let tick = headers.and_then(|h| integer(h, TICK)).and_then(ticks).filter(|_| ours);
        let probe = headers.and_then(|h| text(h, PROBE)).filter(|_| ours);
        Some(Self {
            offset,
            tag: delivery.delivery_tag,
            id: delivery.properties.message_id().as_ref().map(ToString::to_string),
            arrival: arrival(&delivery.properties),
            tick,
            probe,
            body: delivery.data,
        })
    }
}

/// Milliseconds as ticks of 100 ns, where they are a datetime.
fn ticks(ms: i64) -> Option<i64> {
    ms.checked_mul(TICKS_PER_MILLISECOND).and_then(crate::query::clock::valid)
}

fn arrival(properties: &BasicProperties) -> Option<i64> {
    let headers = properties.headers().as_ref();
    let named = |name| headers.and_then(|h| integer(h, name)).and_then(ticks);
    let seconds = || properties.timestamp().and_then(|s| i64::try_from(s).ok()?.checked_mul(1_000)).and_then(ticks);
    named(STAMP).or_else(|| named(ARRIVAL)).or_else(seconds)
}

fn integer(headers: &FieldTable, name: &str) -> Option<i64> {
    match headers.inner().get(name)? {
        AMQPValue::LongLongInt(n) => Some(*n),
        AMQPValue::LongInt(n) => Some((*n).into()),
        AMQPValue::LongUInt(n) => Some((*n).into()),
        AMQPValue::ShortInt(n) => Some((*n).into()),
        AMQPValue::ShortUInt(n) => Some((*n).into()),
        AMQPValue::Timestamp(n) => i64::try_from(*n).ok(),
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok()?.parse().ok(),
        _ => None,
    }
}

fn text(headers: &FieldTable, name: &str) -> Option<String> {
    match headers.inner().get(name)? {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok().map(str::to_owned),
        _ => None,
    }
}

/// The text of one event of a body that has been decoded.
pub(crate) fn event_text(body: &[u8], index: usize) -> &[u8] {
    let body = body.trim_ascii();
    if body.first() == Some(&b'[') {
        let events: Vec<&RawValue> = serde_json::from_slice(body).unwrap_or_default();
        return events.get(index).map_or(body, |raw| raw.get().as_bytes());
    }
    let single = index == 0 && serde_json::from_slice::<&RawValue>(body).is_ok();
    let line = || body.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).filter(|l| !l.is_empty()).nth(index);
    if single { body } else { line().unwrap_or(body) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_an_event_is_found_in_every_form_of_body() {
        assert_eq!(event_text(b" {\"a\":\n1} ", 0), b"{\"a\":\n1}");
        assert_eq!(event_text(b"[{\"a\":1}, {\"a\":2}]", 1), b"{\"a\":2}");
        assert_eq!(event_text(b"{\"a\":1}\n\n{\"a\":2}\n", 1), b"{\"a\":2}");
        assert_eq!(event_text(b"{\"a\":1}\n{\"a\":2}", 0), b"{\"a\":1}");
    }

    #[test]
    fn the_brokers_stamp_comes_before_the_publishers_word() {
        let mut headers = FieldTable::default();
        let seconds = |h: &FieldTable| BasicProperties::default().with_headers(h.clone()).with_timestamp(3);
        assert_eq!(arrival(&seconds(&headers)), Some(30_000_000));
        headers.insert(ARRIVAL.into(), AMQPValue::LongLongInt(2));
        assert_eq!(arrival(&seconds(&headers)), Some(20_000));
        headers.insert(STAMP.into(), AMQPValue::LongLongInt(1));
        assert_eq!(arrival(&seconds(&headers)), Some(10_000));
        assert_eq!(arrival(&BasicProperties::default()), None);
    }

    #[test]
    fn a_number_that_is_no_datetime_is_no_arrival() {
        let mut headers = FieldTable::default();
        headers.insert(ARRIVAL.into(), AMQPValue::LongLongInt(i64::MAX));
        assert_eq!(arrival(&BasicProperties::default().with_headers(headers)), None);
    }
}
