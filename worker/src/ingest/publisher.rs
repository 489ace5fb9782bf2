//! Publishes with confirms and `mandatory`, and tells for each message whether a queue has it.
//!
//! On a connection of its own: a broker that is short of memory or disk stops reading from connections that publish, and
//! acknowledgements must go on.

use std::{sync::Arc, time::Duration};

use futures::future::try_join_all;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ExchangeKind,
    message::BasicReturnMessage,
    options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions},
    types::{FieldTable, ShortString, ShortStringError},
};
use tokio::{sync::Mutex, time::timeout};

use crate::hub::{self, HubAddress, HubError, HubReason};

/// A hub that confirms nothing for so long takes nothing.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(20);
/// Messages whose confirms are awaited at once.
const WINDOW: usize = 1000;

/// What cannot be published.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError {
    /// There is no connection.
    #[error("{0}")]
    Hub(#[source] HubError),
    /// The exchange is missing.
    #[error("exchange {0} does not exist: create it")]
    ExchangeNotFound(String, #[source] lapin::Error),
    /// The user may not write to the exchange.
    #[error("the user may not write to exchange {0}: grant it")]
    AccessRefused(String, #[source] lapin::Error),
    /// The channel or the connection ended.
    #[error("the hub ended the channel")]
    Lost(#[source] lapin::Error),
    /// A name for which AMQP has no room.
    #[error("{0:?} is too long a name")]
    NameTooLong(String, #[source] ShortStringError),
    /// No confirm in time.
    #[error("the hub confirms nothing within {} s: it may be short of memory or disk", CONFIRM_TIMEOUT.as_secs())]
    Timeout,
}

impl PublishError {
    /// The reason in `CamelCase`.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Hub(error) => error.reason.as_str(),
            Self::ExchangeNotFound(..) => "ExchangeNotFound",
            Self::AccessRefused(..) => "AccessRefused",
            Self::Lost(_) => HubReason::ConnectionLost.as_str(),
            Self::NameTooLong(..) => "NameTooLong",
            Self::Timeout => HubReason::Timeout.as_str(),
        }
    }

    /// The fault is one exchange's or one name's: others may be published to.
    pub(crate) fn is_of_exchange(&self) -> bool {
        matches!(self, Self::ExchangeNotFound(..) | Self::AccessRefused(..) | Self::NameTooLong(..))
    }
}

/// A message to publish.
#[derive(Debug)]
pub(crate) struct Outgoing<'a> {
    pub(crate) exchange: &'a str,
    pub(crate) routing_key: String,
    pub(crate) properties: BasicProperties,
    pub(crate) body: &'a [u8],
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receipt {
    /// Queues have it.
    Confirmed,
    /// No queue is bound; it is lost but for us.
    Returned,
    /// A queue refused it.
    Nacked,
}

/// The connection that publishes, made when it is first needed.
#[derive(Debug)]
pub(crate) struct Link {
    address: HubAddress,
    name: String,
    connection: Mutex<Option<Connection>>,
}

impl Link {
    pub(crate) fn new(address: HubAddress, name: String) -> Self {
        Self { address, name, connection: Mutex::new(None) }
    }

    async fn channel(&self) -> Result<Channel, PublishError> {
        let mut connection = self.connection.lock().await;
        if !connection.as_ref().is_some_and(|c| c.status().connected()) {
            *connection = Some(hub::connect(&self.address, &self.name).await.map_err(PublishError::Hub)?);
        }
        let open = connection.as_ref().expect("connected above");
        let channel = hub::channel(open).await.map_err(PublishError::Lost)?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(PublishError::Lost)?;
        Ok(channel)
    }

    /// Closes the connection.
    pub(crate) async fn close(&self) {
        if let Some(connection) = self.connection.lock().await.take() {
            // It may be gone already.
            let _ = connection.close(200, "done".into()).await;
        }
    }
}

/// A channel of the link. One batch at a time: a channel's returns can only be told apart within a batch.
#[derive(Debug)]
pub(crate) struct Publisher {
    link: Arc<Link>,
    channel: Option<Channel>,
}

impl Publisher {
    pub(crate) fn new(link: Arc<Link>) -> Self {
        Self { link, channel: None }
    }

    pub(crate) fn abandon(&mut self) {
        self.channel = None;
    }

    /// Publishes all and waits for the confirms.
    pub(crate) async fn publish(&mut self, messages: &[Outgoing<'_>]) -> Result<Vec<Receipt>, PublishError> {
        let mut receipts = Vec::with_capacity(messages.len());
        for some in messages.chunks(WINDOW) {
            let channel = self.channel().await?;
            // Whoever stops waiting leaves confirms behind, which the next batch must not take for its own.
            self.channel = None;
            match timeout(CONFIRM_TIMEOUT, publish(&channel, some)).await {
                Ok(Ok(of_some)) => receipts.extend(of_some),
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(PublishError::Timeout),
            }
            self.channel = Some(channel);
        }
        Ok(receipts)
    }

    /// Whether the exchange is there.
    pub(crate) async fn exchange_exists(&mut self, exchange: &str) -> Result<(), PublishError> {
        let name = short(exchange)?;
        let channel = self.channel().await?;
        let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        let declared = channel.exchange_declare(name, ExchangeKind::Direct, passive, FieldTable::default()).await;
        declared.map_err(|error| {
            self.channel = None;
            classify(error, exchange)
        })
    }

    async fn channel(&mut self) -> Result<Channel, PublishError> {
        if let Some(channel) = self.channel.as_ref().filter(|c| c.status().connected()) {
            return Ok(channel.clone());
        }
        Ok(self.channel.insert(self.link.channel().await?).clone())
    }
}

async fn publish(channel: &Channel, messages: &[Outgoing<'_>]) -> Result<Vec<Receipt>, PublishError> {
    let confirmations = send(channel, messages).await?;
    Ok(receipts(messages, confirmations))
}

/// Sends nothing where a name is too long, and waits for the confirms.
async fn send(channel: &Channel, messages: &[Outgoing<'_>]) -> Result<Vec<Confirmation>, PublishError> {
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let mut sent = Vec::with_capacity(messages.len());
    for message in messages {
        let (exchange, key) = (short(message.exchange)?, short(&message.routing_key)?);
        sent.push(channel.basic_publish(exchange, key, options, message.body, message.properties.clone()));
    }
    let lost = |error| classify(error, messages.first().map_or("", |m| m.exchange));
    try_join_all(try_join_all(sent).await.map_err(lost)?).await.map_err(lost)
}

fn receipts(messages: &[Outgoing<'_>], confirmations: Vec<Confirmation>) -> Vec<Receipt> {
    let mut receipts = Vec::with_capacity(messages.len());
    let mut returns = Vec::new();
    for confirmation in confirmations {
        receipts.push(if confirmation.is_nack() { Receipt::Nacked } else { Receipt::Confirmed });
        returns.extend(confirmation.take_message());
    }
    // The client hands a return to whichever confirm comes next, so whose it is can only be told by what it is.
    for returned in returns {
        let whose = (0..messages.len()).find(|n| receipts[*n] != Receipt::Returned && is(&returned, &messages[*n]));
        match whose {
            Some(n) => receipts[n] = Receipt::Returned,
            None => receipts.fill(Receipt::Returned),
        }
    }
    receipts
}

fn is(returned: &BasicReturnMessage, message: &Outgoing<'_>) -> bool {
    returned.exchange.as_str() == message.exchange
        && returned.routing_key.as_str() == message.routing_key
        && returned.properties.message_id() == message.properties.message_id()
        && returned.data == message.body
}

/// A name for AMQP, which would take an empty one for the default exchange.
fn short(name: &str) -> Result<ShortString, PublishError> {
    ShortString::try_new(name).map_err(|error| PublishError::NameTooLong(name.to_owned(), error))
}

fn classify(error: lapin::Error, exchange: &str) -> PublishError {
    use lapin::{
        ErrorKind,
        protocol::{AMQPErrorKind, AMQPSoftError},
    };
    let soft = match error.kind() {
        ErrorKind::ProtocolError(amqp) => match amqp.kind() {
            AMQPErrorKind::Soft(soft) => Some(soft.clone()),
            AMQPErrorKind::Hard(_) => None,
        },
        _ => None,
    };
    match soft {
        Some(AMQPSoftError::NOTFOUND) => PublishError::ExchangeNotFound(exchange.to_owned(), error),
        Some(AMQPSoftError::ACCESSREFUSED) => PublishError::AccessRefused(exchange.to_owned(), error),
        _ => PublishError::Lost(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_too_long_is_no_name() {
        assert_eq!(short(&"é".repeat(127)).unwrap().as_str(), "é".repeat(127));
        let error = short(&"é".repeat(128)).unwrap_err();
        assert_eq!(error.reason(), "NameTooLong");
    }
}
