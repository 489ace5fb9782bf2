//! Dead letters published again. It acknowledges nothing: that is for whoever took them, once they are confirmed.

use std::{error::Error, sync::Arc};

use lapin::{message::Delivery, types::AMQPValue};

use super::{
    envelope::{self, Sender},
    identity,
    publisher::{Link, Outgoing, Publisher, Receipt},
};
use crate::{hub::HubAddress, settings::Identity};

/// Dead letters cannot be published.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct RedriveError {
    /// What is the matter, and what to do.
    message: String,
    #[source]
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// What became of a dead letter that was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// A queue has it.
    Confirmed,
    /// No queue is bound there.
    Unroutable,
    /// The queue refuses it: it is full.
    Refused,
}

/// Publishes dead letters to one place.
#[derive(Debug)]
pub struct Redriver {
    link: Arc<Link>,
    publisher: Publisher,
    sender: Sender,
    exchange: String,
    routing_key: String,
}

impl Redriver {
    /// From the dead-letter queue `from` to an exchange; connects when it is first used.
    #[must_use]
    pub fn new(hub: HubAddress, from: &str, exchange: &str, routing_key: &str) -> Self {
        let link = Arc::new(Link::new(hub, format!("drover redrive {from}")));
        Self {
            publisher: Publisher::new(Arc::clone(&link)),
            link,
            sender: Sender { identity: Identity::default(), queue: from.to_owned(), process: String::new() },
            exchange: exchange.to_owned(),
            routing_key: routing_key.to_owned(),
        }
    }

    /// Publishes all, without what would make the broker drop or double them, and waits for the confirms.
    ///
    /// # Errors
    /// If the hub did not take them all; any of them may be there nevertheless.
    pub async fn publish(&mut self, letters: &[&Delivery]) -> Result<Vec<Published>, RedriveError> {
        let outgoing: Vec<_> = letters
            .iter()
            .map(|letter| Outgoing {
                exchange: &self.exchange,
                routing_key: self.routing_key.clone(),
                properties: envelope::redriven(&self.sender, letter),
                body: &letter.data,
            })
            .collect();
        let receipts = self.publisher.publish(&outgoing).await;
        let receipts = receipts.map_err(|e| RedriveError { message: e.to_string(), source: Some(Box::new(e)) })?;
        Ok(receipts.into_iter().map(Published::from).collect())
    }

    /// Ends the connection.
    pub async fn close(self) {
        self.link.close().await;
    }
}

impl From<Receipt> for Published {
    fn from(receipt: Receipt) -> Self {
        match receipt {
            Receipt::Confirmed => Self::Confirmed,
            Receipt::Returned => Self::Unroutable,
            Receipt::Nacked => Self::Refused,
        }
    }
}

/// A header as text, where it is text, a number or a truth value.
#[must_use]
pub fn header(letter: &Delivery, name: &str) -> Option<String> {
    letter.properties.headers().as_ref().and_then(|h| identity::header(h, name)).map(std::borrow::Cow::into_owned)
}

/// All headers that [`header`] can tell, in the order of their names.
#[must_use]
pub fn headers(letter: &Delivery) -> Vec<(String, String)> {
    let table = letter.properties.headers().as_ref();
    let names = table.map(|t| t.inner().keys()).into_iter().flatten();
    names.filter_map(|name| Some((name.to_string(), header(letter, name.as_str())?))).collect()
}

/// True if the broker itself has dead-lettered it.
#[must_use]
pub fn died_by_broker(letter: &Delivery) -> bool {
    let table = letter.properties.headers().as_ref();
    matches!(table.and_then(|t| t.inner().get("x-death")), Some(AMQPValue::FieldArray(_)))
}
