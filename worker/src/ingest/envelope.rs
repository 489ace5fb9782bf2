//! How a delivery looks when it is published again, as a dead letter or to come back. Pure.
//!
//! What would make the broker drop, double or refuse it is taken off and kept under a name of our own: an expiration, a
//! user, CC and BCC, and the broker's own records of deaths and deliveries. The body is never touched.

use lapin::{
    BasicProperties,
    message::Delivery,
    types::{AMQPValue, FieldTable, ShortString},
};

use super::{
    identity,
    reject::{Class, Rejection},
    spans::Onward,
};
use crate::settings::Identity;

/// Starts that a message has had.
pub(crate) const ATTEMPTS: &str = "x-drover-attempts";
/// The revision under which they are counted: under another one they do not.
pub(crate) const ATTEMPTS_REVISION: &str = "x-drover-attempts-revision";
/// The process that wrote the last of these starts before it made it.
pub(crate) const START: &str = "x-drover-start";
/// How the worker or handler ended with which it was in flight, as far as that is known.
pub(crate) const EXIT: &str = "x-drover-exit";
/// How often a message was given back by a worker that could not take it.
pub(crate) const RETURNED: &str = "x-drover-returned";
const ORIGINAL: &str = "x-drover-original-";
const ORIGINAL_EXCHANGE: &str = "x-drover-original-exchange";
const ORIGINAL_ROUTING_KEY: &str = "x-drover-original-routing-key";
pub(crate) const ORIGINAL_QUEUE: &str = "x-drover-original-queue";
const FIRST_FAILURE: &str = "x-drover-first-failure";
pub(crate) const LAST_FAILURE: &str = "x-drover-last-failure";

/// Longest error in a header, in bytes: headers share a frame.
pub(crate) const MAX_ERROR: usize = 4096;
/// Messages are kept on disk, whatever queue they come to.
pub(crate) const PERSISTENT: u8 = 2;

/// Who publishes again, and from which queue.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) identity: Identity,
    /// The pipeline's source.
    pub(crate) queue: String,
    /// Tells this process from any other.
    pub(crate) process: String,
}

/// What is written on a message that goes to another queue of the pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mark {
    /// It was in flight when its worker or handler died; how, where that is known.
    Suspect { exit: Option<String> },
    /// It is about to be started for the `attempts`th time.
    Start { attempts: i64 },
    /// It failed in passing, at the `attempts`th time.
    Failed { attempts: i64, reason: &'static str, error: String },
}

/// Whether it was in somebody's hands before, as far as the broker knows.
pub(crate) fn was_in_flight(delivery: &Delivery) -> bool {
    delivery.redelivered || number(delivery, "x-delivery-count") > 0
}

/// The process that wrote down the start that comes next.
pub(crate) fn start(delivery: &Delivery) -> Option<std::borrow::Cow<'_, str>> {
    delivery.properties.headers().as_ref().and_then(|headers| identity::header(headers, START))
}

/// Starts that count: those under this revision. One that was written down but not made is among them.
pub(crate) fn attempts(sender: &Sender, delivery: &Delivery) -> i64 {
    let headers = delivery.properties.headers().as_ref();
    let revision = headers.and_then(|h| identity::header(h, ATTEMPTS_REVISION));
    if revision.is_some_and(|revision| revision == sender.identity.revision) { number(delivery, ATTEMPTS) } else { 0 }
}

/// The same, with the one that is being made.
pub(crate) fn attempts_now(sender: &Sender, delivery: &Delivery) -> i64 {
    attempts(sender, delivery).saturating_add(i64::from(start(delivery).is_none()))
}

fn number(delivery: &Delivery, name: &str) -> i64 {
    let headers = delivery.properties.headers().as_ref();
    headers.and_then(|h| h.inner().get(name)).and_then(identity::integer).unwrap_or(0)
}

/// Exchange and routing key that a message was first published with.
pub(crate) fn origin(delivery: &Delivery) -> (String, String) {
    let kept = |name, now: &ShortString| {
        let headers = delivery.properties.headers().as_ref();
        headers.and_then(|h| identity::header(h, name)).map_or_else(|| now.to_string(), std::borrow::Cow::into_owned)
    };
    (kept(ORIGINAL_EXCHANGE, &delivery.exchange), kept(ORIGINAL_ROUTING_KEY, &delivery.routing_key))
}

/// A dead letter's properties. `now` is ISO 8601.
pub(crate) fn dead_letter(sender: &Sender, delivery: &Delivery, why: &Rejection, now: &str) -> BasicProperties {
    let headers = without(&cleaned(sender, delivery), START);
    let now_too = i64::from(start(delivery).is_none() && why.class != Class::Killer);
    let attempts = number(delivery, ATTEMPTS).saturating_add(now_too);
    let first = headers.inner().get(FIRST_FAILURE).cloned();
    // Whoever sends it in again wants it tried anew.
    let mut headers = without(&headers, ATTEMPTS_REVISION);
    let mut set = |name: &str, value: AMQPValue| {
        headers.insert(name.into(), value);
    };
    set("x-drover-stage", text(why.stage.as_str()));
    set("x-drover-reason", text(why.reason));
    set("x-drover-error", text(cut(&why.error, MAX_ERROR)));
    set("x-drover-class", text(why.class.as_str()));
    set(ATTEMPTS, AMQPValue::LongLongInt(attempts));
    set("x-drover-revision", text(&sender.identity.revision));
    set("x-drover-pod", text(&sender.identity.pod));
    set(FIRST_FAILURE, first.unwrap_or_else(|| text(now)));
    set(LAST_FAILURE, text(now));
    if let Some(id) = delivery.properties.message_id() {
        set("x-drover-message-id", text(id.as_str()));
    }
    properties(delivery, headers)
}

/// Properties of a message that goes to another queue of the pipeline, and of a trace if it is of none yet. `now` is ISO 8601.
pub(crate) fn transferred(
    sender: &Sender,
    delivery: &Delivery,
    mark: &Mark,
    trace: Option<&Onward>,
    now: &str,
) -> BasicProperties {
    let mut headers = without(&cleaned(sender, delivery), START);
    if let Some(trace) = trace {
        trace.put(&mut headers);
    }
    let first = headers.inner().get(FIRST_FAILURE).cloned();
    let mut set = |name: &str, value: AMQPValue| {
        headers.insert(name.into(), value);
    };
    if let Mark::Start { attempts } | Mark::Failed { attempts, .. } = mark {
        set(ATTEMPTS, AMQPValue::LongLongInt(*attempts));
        set(ATTEMPTS_REVISION, text(&sender.identity.revision));
    }
    match mark {
        Mark::Suspect { exit: None } => {}
        Mark::Suspect { exit: Some(exit) } => set(EXIT, text(cut(exit, MAX_ERROR))),
        Mark::Start { .. } => set(START, text(&sender.process)),
        Mark::Failed { reason, error, .. } => {
            set("x-drover-reason", text(reason));
            set("x-drover-error", text(cut(error, MAX_ERROR)));
            set(FIRST_FAILURE, first.unwrap_or_else(|| text(now)));
            set(LAST_FAILURE, text(now));
        }
    }
    properties(delivery, headers)
}

/// Properties of a message that is given back.
pub(crate) fn returned(sender: &Sender, delivery: &Delivery) -> BasicProperties {
    let mut headers = cleaned(sender, delivery);
    let before = headers.inner().get(RETURNED).and_then(identity::integer).unwrap_or(0);
    headers.insert(RETURNED.into(), AMQPValue::LongLongInt(before.saturating_add(1)));
    properties(delivery, headers)
}

/// Properties of a dead letter that is given another chance: it has no attempts, but is no first delivery either, and came
/// from where it came before it was dead.
pub(crate) fn redriven(sender: &Sender, delivery: &Delivery) -> BasicProperties {
    let mut headers = cleaned(sender, delivery);
    let old = delivery.properties.headers().as_ref();
    if let Some(queue) = old.and_then(|h| h.inner().get(ORIGINAL_QUEUE)) {
        headers.insert(ORIGINAL_QUEUE.into(), queue.clone());
    }
    headers.insert(ATTEMPTS.into(), AMQPValue::LongLongInt(0));
    let before = headers.inner().get(RETURNED).and_then(identity::integer).unwrap_or(0);
    headers.insert(RETURNED.into(), AMQPValue::LongLongInt(before.saturating_add(1)));
    properties(delivery, headers)
}

/// Properties of a result that is published on: those of its message, without what is the broker's or ours.
pub(crate) fn passed_on(delivery: &Delivery) -> BasicProperties {
    let mut headers = FieldTable::default();
    for (name, value) in delivery.properties.headers().iter().flatten() {
        if !is_the_brokers(name.as_str()) && !name.as_str().starts_with("x-drover-") {
            headers.insert(name.clone(), value.clone());
        }
    }
    properties(delivery, headers)
}

fn cleaned(sender: &Sender, delivery: &Delivery) -> FieldTable {
    let mut headers = FieldTable::default();
    let mut kept = Vec::new();
    for (name, value) in delivery.properties.headers().iter().flatten() {
        if is_the_brokers(name.as_str()) {
            kept.push((name.as_str().trim_start_matches("x-").to_ascii_lowercase(), value.clone()));
        } else {
            headers.insert(name.clone(), value.clone());
        }
    }
    let (exchange, routing_key) = (delivery.exchange.as_str(), delivery.routing_key.as_str());
    let property = |value: &Option<ShortString>| value.as_ref().map(|v| text(v.as_str()));
    kept.extend(property(delivery.properties.expiration()).map(|v| ("expiration".to_owned(), v)));
    kept.extend(property(delivery.properties.user_id()).map(|v| ("user-id".to_owned(), v)));
    kept.push(("exchange".to_owned(), text(exchange)));
    kept.push(("routing-key".to_owned(), text(routing_key)));
    for (name, value) in kept {
        // The first time is the original; later ones are our own doing. A name that is too long is not worth the message.
        if let Ok(name) = ShortString::try_new(format!("{ORIGINAL}{name}"))
            && !headers.contains_key(name.as_str())
        {
            headers.insert(name, value);
        }
    }
    headers.insert(ORIGINAL_QUEUE.into(), text(&sender.queue));
    headers
}

pub(crate) fn without(headers: &FieldTable, name: &str) -> FieldTable {
    let mut left = FieldTable::default();
    for (key, value) in headers.inner().iter().filter(|(key, _)| key.as_str() != name) {
        left.insert(key.clone(), value.clone());
    }
    left
}

fn is_the_brokers(name: &str) -> bool {
    matches!(name, "CC" | "BCC" | "x-death" | "x-delivery-count" | "x-acquired-count")
        || name.starts_with("x-first-death-")
        || name.starts_with("x-last-death-")
}

/// All properties but expiration and user, which the broker acts upon.
fn properties(delivery: &Delivery, headers: FieldTable) -> BasicProperties {
    let old = &delivery.properties;
    let mut new = BasicProperties::default().with_headers(headers).with_delivery_mode(PERSISTENT);
    if let Some(v) = old.content_type() {
        new = new.with_content_type(v.clone());
    }
    if let Some(v) = old.content_encoding() {
        new = new.with_content_encoding(v.clone());
    }
    if let Some(v) = old.priority() {
        new = new.with_priority(*v);
    }
    if let Some(v) = old.correlation_id() {
        new = new.with_correlation_id(v.clone());
    }
    if let Some(v) = old.reply_to() {
        new = new.with_reply_to(v.clone());
    }
    if let Some(v) = old.message_id() {
        new = new.with_message_id(v.clone());
    }
    if let Some(v) = old.timestamp() {
        new = new.with_timestamp(*v);
    }
    if let Some(v) = old.kind() {
        new = new.with_type(v.clone());
    }
    if let Some(v) = old.app_id() {
        new = new.with_app_id(v.clone());
    }
    if let Some(v) = old.cluster_id() {
        new = new.with_cluster_id(v.clone());
    }
    new
}

pub(crate) fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

pub(crate) fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

#[cfg(test)]
mod tests;
