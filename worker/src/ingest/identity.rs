//! What makes a message the same message, and whether it may have been here before.

use std::borrow::Cow;

use drover_crds::resolved::MessageId;
use lapin::{
    message::Delivery,
    types::{AMQPValue, FieldTable},
};

use super::{
    decode::{self, Fields},
    envelope,
    reject::Rejection,
};

/// The id of a delivery; `None` where it has none.
pub(crate) fn of<'a>(
    source: &MessageId,
    delivery: &'a Delivery,
    body: Option<&Fields<'a>>,
) -> Result<Option<Cow<'a, str>>, Rejection> {
    let id = match source {
        MessageId::Property => delivery.properties.message_id().as_ref().map(|id| Cow::Borrowed(id.as_str())),
        MessageId::Header(name) => delivery.properties.headers().as_ref().and_then(|h| header(h, name)),
        MessageId::Path(path) => body.and_then(|fields| fields.path(path)).and_then(|raw| scalar(raw.get())),
    };
    match id {
        Some(id) if id.contains('\0') => Err(Rejection::decode("NulInText", "the message's id contains a NUL")),
        id => Ok(id.filter(|id| !id.is_empty())),
    }
}

/// The id of a row: that of the message for the first, then `id/1`, `id/2` and so on.
pub(crate) fn of_row<'a>(id: &Cow<'a, str>, row: usize) -> Cow<'a, str> {
    if row == 0 { id.clone() } else { Cow::Owned(format!("{id}/{row}")) }
}

/// A header as text.
pub(crate) fn header<'a>(headers: &'a FieldTable, name: &str) -> Option<Cow<'a, str>> {
    Some(match headers.inner().get(name)? {
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()),
        AMQPValue::ShortString(text) => Cow::Borrowed(text.as_str()),
        AMQPValue::Boolean(value) => value.to_string().into(),
        value => integer(value)?.to_string().into(),
    })
}

/// A header as a whole number.
pub(crate) fn integer(value: &AMQPValue) -> Option<i64> {
    Some(match value {
        AMQPValue::ShortShortInt(n) => (*n).into(),
        AMQPValue::ShortShortUInt(n) => (*n).into(),
        AMQPValue::ShortInt(n) => (*n).into(),
        AMQPValue::ShortUInt(n) => (*n).into(),
        AMQPValue::LongInt(n) => (*n).into(),
        AMQPValue::LongUInt(n) => (*n).into(),
        AMQPValue::LongLongInt(n) => *n,
        AMQPValue::Timestamp(n) => i64::try_from(*n).ok()?,
        _ => return None,
    })
}

fn scalar(raw: &str) -> Option<Cow<'_, str>> {
    match raw.as_bytes().first()? {
        b'"' => decode::text(raw),
        b'{' | b'[' | b'n' => None,
        _ => Some(Cow::Borrowed(raw)),
    }
}

/// Whether nobody can have seen this message before: then a row of its id is another message's.
pub(crate) fn is_first(delivery: &Delivery) -> bool {
    let counted = |name: &str| {
        let headers = delivery.properties.headers().as_ref();
        headers.and_then(|h| h.inner().get(name)).is_some_and(|value| integer(value) != Some(0))
    };
    !delivery.redelivered
        && ![envelope::ATTEMPTS, envelope::RETURNED, "x-delivery-count", "x-death"].into_iter().any(counted)
}

#[cfg(test)]
mod tests {
    use lapin::BasicProperties;

    use super::*;

    fn delivery(properties: BasicProperties, redelivered: bool) -> Delivery {
        let mut delivery = Delivery::mock(1, "e".into(), "k".into(), redelivered, Vec::new());
        delivery.properties = properties;
        delivery
    }

    fn headers(name: &str, value: AMQPValue) -> BasicProperties {
        let mut table = FieldTable::default();
        table.insert(name.into(), value);
        BasicProperties::default().with_headers(table)
    }

    fn id(source: &str, delivery: &Delivery, body: &str) -> Option<String> {
        let fields = decode::fields(body).unwrap();
        of(&MessageId::parse(source).unwrap(), delivery, Some(&fields)).unwrap().map(Cow::into_owned)
    }

    #[test]
    fn an_id_is_a_property_a_header_or_a_field() {
        let property = delivery(BasicProperties::default().with_message_id("m1".into()), false);
        assert_eq!(id("messageId", &property, "{}").as_deref(), Some("m1"));
        let header = delivery(headers("seq", AMQPValue::LongInt(7)), false);
        assert_eq!(id("header:seq", &header, "{}").as_deref(), Some("7"));
        let none = delivery(BasicProperties::default(), false);
        assert_eq!(id("$.a.id", &none, r#"{"a":{"id":"x\ty"}}"#).as_deref(), Some("x\ty"));
        assert_eq!(id("$.id", &none, r#"{"id":12345678901234567890}"#).as_deref(), Some("12345678901234567890"));
        for (source, body) in [
            ("messageId", "{}"),
            ("header:seq", "{}"),
            ("$.id", "{}"),
            ("$.id", r#"{"id":null}"#),
            ("$.id", r#"{"id":""}"#),
        ] {
            assert_eq!(id(source, &none, body), None, "{source} {body}");
        }
    }

    #[test]
    fn rows_of_a_message_have_ids_of_their_own() {
        let id = Cow::Borrowed("m");
        assert_eq!([of_row(&id, 0), of_row(&id, 1), of_row(&id, 2)], ["m", "m/1", "m/2"]);
    }

    #[test]
    fn only_what_nobody_can_have_seen_is_first() {
        assert!(is_first(&delivery(BasicProperties::default(), false)));
        assert!(is_first(&delivery(headers("x-delivery-count", AMQPValue::LongLongInt(0)), false)));
        assert!(!is_first(&delivery(BasicProperties::default(), true)));
        for name in [envelope::ATTEMPTS, envelope::RETURNED, "x-delivery-count", "x-death"] {
            assert!(!is_first(&delivery(headers(name, AMQPValue::LongLongInt(1)), false)), "{name}");
        }
    }
}
