//! A sink that publishes to an exchange of the same hub: with confirms, and what is routed nowhere is not delivered.
//!
//! Where each message has a routing key of its own, one that is routed nowhere is that message's fault; where all have the
//! same, it is the exchange's.

use std::sync::Arc;

use drover_crds::resolved::{Part, RoutingKey};
use lapin::{BasicProperties, types::ShortString};
use opentelemetry_sdk::trace::Span;

use super::{
    super::{
        envelope,
        prepare::Item,
        publisher::{Link, Outgoing, Publisher, Receipt},
        reject::Rejection,
        spans::{self, Onward, Telling},
        template,
    },
    Attempt, End, Failure,
};

/// A slot's channel.
#[derive(Debug)]
pub(crate) struct Writer {
    exchange: String,
    key: Option<RoutingKey>,
    /// Each message has a routing key of its own.
    own_keys: bool,
    /// Nothing is published.
    preview: bool,
    publisher: Publisher,
}

impl Writer {
    pub(super) fn new(exchange: String, key: Option<RoutingKey>, link: &Arc<Link>, preview: bool) -> Self {
        let of_field = |part: &Part| matches!(part, Part::Field(_));
        let own_keys = key.as_ref().is_none_or(|key| key.0.iter().any(of_field));
        Self { exchange, key, own_keys, preview, publisher: Publisher::new(Arc::clone(link)) }
    }

    pub(super) fn abandon(&mut self) {
        self.publisher.abandon();
    }

    pub(super) async fn probe(&mut self) -> Result<(), Failure> {
        self.publisher
            .exchange_exists(&self.exchange)
            .await
            .map_err(|e| Failure::Hold { reason: e.reason().to_owned(), message: e.to_string() })
    }

    pub(super) async fn attempt(&mut self, items: &[&Item<'_>], telling: Telling<'_>) -> Attempt {
        let mut attempt = Attempt::default();
        // They end with the attempt.
        let mut spans = Vec::with_capacity(items.len());
        let mut outgoing = Vec::with_capacity(items.len());
        let mut owners = Vec::with_capacity(items.len());
        for item in items {
            let span = telling.begin(item.message);
            match outgoing_of(&self.exchange, self.key.as_ref(), item, span.as_ref()) {
                Ok(of_item) => {
                    spans.extend(span.map(|span| (item.message, span)));
                    owners.extend(of_item.iter().map(|_| item.message));
                    outgoing.extend(of_item);
                }
                Err(rejection) => attempt.ends.push((item.message, End::Rejected(rejection))),
            }
        }
        let published = if self.preview {
            Ok(vec![Receipt::Confirmed; outgoing.len()])
        } else {
            self.publisher.publish(&outgoing).await
        };
        match published {
            Ok(receipts) => {
                let unconfirmed = |n: &usize| receipts[*n] != Receipt::Confirmed;
                let failed: Vec<usize> = (0..receipts.len()).filter(unconfirmed).collect();
                let done = |item: &&&Item<'_>| !failed.iter().any(|n| owners[*n] == item.message);
                let rejected: Vec<usize> = attempt.ends.iter().map(|(message, _)| *message).collect();
                let written = items.iter().filter(done).filter(|item| !rejected.contains(&item.message));
                attempt.ends.extend(written.map(|item| (item.message, End::Written)));
                attempt.failure = failed.first().map(|n| refused(receipts[*n], &outgoing[*n], self.own_keys));
            }
            Err(error) => {
                attempt.failure = Some(Failure::Hold { reason: error.reason().to_owned(), message: error.to_string() });
            }
        }
        let written = |message| attempt.ends.iter().any(|(ended, end)| *ended == message && *end == End::Written);
        for (_, span) in spans.iter_mut().filter(|(message, _)| !written(*message)) {
            spans::failed(span, attempt.failure.as_ref().map_or("PublishRefused", Failure::reason));
        }
        attempt
    }
}

fn refused(receipt: Receipt, outgoing: &Outgoing<'_>, own_keys: bool) -> Failure {
    /// What refusals of this kind have in common.
    const UNROUTABLE: &str = "Unroutable";
    let (exchange, key) = (outgoing.exchange, &outgoing.routing_key);
    let unroutable = || format!("exchange {exchange} routes {key:?} to no queue: bind one");
    match receipt {
        Receipt::Returned if own_keys => {
            Failure::Content { rejection: Rejection::sink(UNROUTABLE, unroutable()), likeness: UNROUTABLE.to_owned() }
        }
        Receipt::Returned => Failure::Hold { reason: UNROUTABLE.to_owned(), message: unroutable() },
        Receipt::Nacked | Receipt::Confirmed => Failure::Hold {
            reason: "PublishRefused".to_owned(),
            message: format!("a queue behind exchange {exchange} takes no messages: it may be full"),
        },
    }
}

fn outgoing_of<'i>(
    exchange: &'i str,
    key: Option<&RoutingKey>,
    item: &'i Item<'_>,
    span: Option<&Span>,
) -> Result<Vec<Outgoing<'i>>, Rejection> {
    let own = envelope::origin(item.delivery).1;
    let mut outgoing = Vec::with_capacity(item.rows.len());
    for (n, (text, fields)) in item.rows.iter().enumerate() {
        let routing_key = match key {
            Some(template) => template::render(template, fields)?,
            // A header may say more than a key has room for.
            None => template::fits(own.clone())?,
        };
        outgoing.push(Outgoing {
            exchange,
            routing_key,
            properties: properties(item, n, span)?,
            body: text.as_bytes(),
        });
    }
    Ok(outgoing)
}

fn properties(item: &Item<'_>, row: usize, span: Option<&Span>) -> Result<BasicProperties, Rejection> {
    let mut properties = envelope::passed_on(item.delivery);
    if let Some(trace) = span.and_then(|span| Onward::of(Some(span), item.delivery)) {
        let mut headers = properties.headers().clone().unwrap_or_default();
        trace.put(&mut headers);
        properties = properties.with_headers(headers);
    }
    if let Some(id) = item.row_id(row) {
        let id = ShortString::try_new(id)
            .map_err(|e| Rejection::sink("IdTooLong", format!("the message's id is too long for a property: {e}")))?;
        properties = properties.with_message_id(id);
    }
    Ok(properties)
}

#[cfg(test)]
mod tests {
    use lapin::{
        message::Delivery,
        types::{AMQPValue, FieldTable},
    };

    use super::{super::super::decode, *};

    #[test]
    fn a_kept_routing_key_without_room_is_the_messages_fault() {
        let mut headers = FieldTable::default();
        headers.insert("x-drover-original-routing-key".into(), AMQPValue::LongString("k".repeat(256).into()));
        let mut delivery = Delivery::mock(1, "e".into(), "k".into(), false, Vec::new());
        delivery.properties = BasicProperties::default().with_headers(headers);
        let rows = vec![("{}", decode::fields("{}").unwrap())];
        let item = Item { message: 0, delivery: &delivery, id: None, first: true, rows };
        assert_eq!(outgoing_of("e", None, &item, None).unwrap_err().reason, "RoutingKeyTooLong");
    }
}
