//! A dead letter as a person reads it. Pure.

use std::{collections::BTreeMap, time::Duration};

use drover_worker::redrive::{died_by_broker, header, headers};
use k8s_openapi::{ByteString, jiff::Timestamp};
use lapin::message::Delivery;
use serde::Serialize;

/// The broker's own header, which each look raises: of the letter it tells nothing.
const LOOKS: &str = "x-delivery-count";

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Letter {
    /// Its place in the queue, from 1.
    pub position: u64,
    /// AMQP message id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Why it is dead, in one word.
    pub reason: String,
    /// Where it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// Why, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How often it was tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<String>,
    /// By which version of the workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// When it failed last, as far as it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<Timestamp>,
    /// The exchange that it was first published to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exchange: Option<String>,
    /// And with which routing key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routing_key: Option<String>,
    /// Size of its body.
    pub bytes: usize,
    /// All headers that are text, numbers or truth values.
    pub headers: BTreeMap<String, String>,
    /// The body, where it is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The body in base64, where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<ByteString>,
}

impl Letter {
    /// What a delivery of the dead-letter queue tells.
    #[must_use]
    pub fn read(position: u64, letter: &Delivery) -> Self {
        let own = |name: &str| header(letter, &format!("x-drover-{name}"));
        let text = String::from_utf8(letter.data.clone());
        Self {
            position,
            id: letter.properties.message_id().as_ref().map(ToString::to_string),
            reason: reason(letter),
            stage: own("stage"),
            error: own("error"),
            attempts: own("attempts"),
            revision: own("revision"),
            last_failure: died(letter),
            exchange: own("original-exchange"),
            routing_key: own("original-routing-key"),
            bytes: letter.data.len(),
            headers: headers(letter).into_iter().filter(|(name, _)| name != LOOKS).collect(),
            body_base64: text.is_err().then(|| ByteString(letter.data.clone())),
            body: text.ok(),
        }
    }
}

/// Why a letter is dead. What the broker itself struck out is `Broker`.
pub(super) fn reason(letter: &Delivery) -> String {
    let unknown = || if died_by_broker(letter) { "Broker" } else { "Unknown" }.to_owned();
    header(letter, "x-drover-reason").unwrap_or_else(unknown)
}

/// When it failed last; else when it was published, where that is known.
pub(super) fn died(letter: &Delivery) -> Option<Timestamp> {
    let failed = header(letter, "x-drover-last-failure").and_then(|text| text.parse().ok());
    let published = || letter.properties.timestamp().and_then(|s| Timestamp::from_second(i64::try_from(s).ok()?).ok());
    failed.or_else(published)
}

/// How long ago; a time that is yet to come is now.
pub(super) fn age(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_is_no_text_is_told_in_base64() {
        let letter = Delivery::mock(1, "e".into(), "dead".into(), false, vec![0xff, 0]);
        let read = serde_json::to_value(Letter::read(1, &letter)).unwrap();
        assert_eq!((&read["bodyBase64"], &read["reason"]), (&"/wA=".into(), &"Unknown".into()));
        assert!(read.get("body").is_none());
    }
}
