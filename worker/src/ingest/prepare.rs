//! Deliveries become items for a sink: decoded, transformed and with their id.

use std::borrow::Cow;

use drover_crds::resolved::MessageId;
use jiff::Timestamp;
use lapin::message::Delivery;
use serde_json::value::RawValue;

use super::{
    decode::{self, Fields},
    identity,
    reject::Rejection,
};
use crate::query::{DataError, Transform};

/// What is done to each body.
#[derive(Debug)]
pub(crate) struct Preparation {
    pub(crate) id: MessageId,
    /// In bytes.
    pub(crate) max_bytes: u32,
    pub(crate) transform: Option<Transform>,
}

/// A delivery's id and the JSON objects that come of it.
#[derive(Debug)]
pub(crate) struct Prepared<'a> {
    id: Option<Cow<'a, str>>,
    texts: Vec<Cow<'a, str>>,
}

/// A message on its way to the sink: all of its rows are written or none.
#[derive(Debug)]
pub(crate) struct Item<'a> {
    /// Its place in the batch.
    pub(crate) message: usize,
    pub(crate) delivery: &'a Delivery,
    pub(crate) id: Option<Cow<'a, str>>,
    /// A row of its id that says something else is another message's.
    pub(crate) first: bool,
    pub(crate) rows: Vec<(&'a str, Fields<'a>)>,
}

impl Item<'_> {
    /// The id of a row.
    pub(crate) fn row_id(&self, row: usize) -> Option<Cow<'_, str>> {
        self.id.as_ref().map(|id| identity::of_row(id, row))
    }
}

impl Preparation {
    pub(crate) fn prepare<'a>(&self, delivery: &'a Delivery, arrival: Timestamp) -> Result<Prepared<'a>, Rejection> {
        let text = decode::check(&delivery.data, self.max_bytes)?;
        let fields = match self.id {
            MessageId::Path(_) => Some(decode::fields(text)?),
            MessageId::Property | MessageId::Header(_) => None,
        };
        let id = identity::of(&self.id, delivery, fields.as_ref())?;
        let texts = match &self.transform {
            None => vec![Cow::Borrowed(text)],
            Some(transform) => transformed(transform, &delivery.data, arrival)?,
        };
        Ok(Prepared { id, texts })
    }

    /// The id of a message whose body is a handler's to read.
    pub(crate) fn identify<'a>(&self, delivery: &'a Delivery) -> Result<Option<Cow<'a, str>>, Rejection> {
        decode::fits(&delivery.data, self.max_bytes)?;
        let fields = match self.id {
            MessageId::Path(_) => Some(decode::fields(decode::check(&delivery.data, self.max_bytes)?)?),
            MessageId::Property | MessageId::Header(_) => None,
        };
        identity::of(&self.id, delivery, fields.as_ref())
    }

    /// A message as its handler left it.
    pub(crate) fn passed<'a>(
        &self,
        delivery: &'a Delivery,
        id: Option<Cow<'a, str>>,
        body: Option<&[u8]>,
    ) -> Result<Prepared<'a>, Rejection> {
        let texts = match body {
            None => vec![Cow::Borrowed(decode::check(&delivery.data, self.max_bytes)?)],
            Some(body) => answered(body)?,
        };
        Ok(Prepared { id, texts })
    }
}

/// The rows of a handler's answer: an object, or several in an array.
fn answered(body: &[u8]) -> Result<Vec<Cow<'static, str>>, Rejection> {
    let wrong = |what: String| Rejection::transform("HandlerAnswer", format!("the handler's answer: {what}"));
    let most = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let text = decode::check(body, most).map_err(|why| wrong(why.error.into_owned()))?;
    let rows: Vec<&str> = if text.trim_start().starts_with('[') {
        let rows: Vec<&RawValue> = serde_json::from_str(text).map_err(|why| wrong(why.to_string()))?;
        rows.into_iter().map(RawValue::get).collect()
    } else {
        vec![text]
    };
    for row in &rows {
        decode::fields(row).map_err(|why| wrong(why.error.into_owned()))?;
    }
    Ok(rows.into_iter().map(|row| Cow::Owned(row.to_owned())).collect())
}

impl<'a> Prepared<'a> {
    pub(crate) fn item(&'a self, message: usize, delivery: &'a Delivery) -> Result<Item<'a>, Rejection> {
        let rows = self.texts.iter().map(|text| Ok((&**text, decode::fields(text)?)));
        Ok(Item {
            message,
            delivery,
            id: self.id.clone(),
            first: identity::is_first(delivery),
            rows: rows.collect::<Result<_, Rejection>>()?,
        })
    }
}

fn transformed(transform: &Transform, body: &[u8], arrival: Timestamp) -> Result<Vec<Cow<'static, str>>, Rejection> {
    // Ticks are 100 ns.
    let ticks = i64::try_from(arrival.as_nanosecond() / 100).unwrap_or(i64::MAX);
    let rows = transform.apply(body, ticks).map_err(|error| match error {
        DataError::Decode(_) => Rejection::decode("NotJson", error.to_string()),
        _ => Rejection::transform("TransformFailed", error.to_string()),
    })?;
    Ok(rows.into_iter().map(|row| Cow::Owned(row.to_string())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(transform: Option<&str>, body: &str) -> Result<Vec<(Option<String>, String)>, &'static str> {
        let preparation = Preparation {
            id: MessageId::Path(vec!["id".to_owned()]),
            max_bytes: 1000,
            transform: transform.map(|query| Transform::new(query).unwrap()),
        };
        let delivery = Delivery::mock(1, "".into(), "".into(), false, body.as_bytes().to_vec());
        let prepared = preparation.prepare(&delivery, Timestamp::UNIX_EPOCH).map_err(|r| r.reason)?;
        let item = prepared.item(0, &delivery).map_err(|r| r.reason)?;
        let row = |n: usize| (item.row_id(n).map(Cow::into_owned), item.rows[n].0.to_owned());
        Ok((0..item.rows.len()).map(row).collect())
    }

    #[test]
    fn without_a_transform_a_body_is_one_row() {
        let body = r#"{ "id": "m", "a": 1.50 }"#;
        assert_eq!(items(None, body), Ok(vec![(Some("m".to_owned()), body.to_owned())]));
    }

    #[test]
    fn a_transform_makes_rows_with_ids_of_their_own_or_none() {
        let query = "SELECT e.ArrayValue.v AS v FROM input CROSS APPLY GetArrayElements(input.list) AS e WHERE e.ArrayValue.v > 0";
        let rows = items(Some(query), r#"{"id":"m","list":[{"v":1},{"v":-1},{"v":2}]}"#).unwrap();
        let wanted = [("m", r#"{"v":1}"#), ("m/1", r#"{"v":2}"#)].map(|(i, r)| (Some(i.to_owned()), r.to_owned()));
        assert_eq!(rows, wanted);
        assert_eq!(items(Some(query), r#"{"id":"m","list":[]}"#), Ok(Vec::new()));
    }

    #[test]
    fn a_failing_row_fails_the_message() {
        let query = "SELECT CAST(input.a AS bigint) AS a FROM input";
        assert_eq!(items(Some(query), r#"{"id":"m","a":"x"}"#), Err("TransformFailed"));
        assert_eq!(items(Some(query), "{"), Err("Truncated"));
    }
}
