//! A consumer of one stream: from an exact offset, with a credit that bounds memory.

use std::time::Duration;

use futures::StreamExt;
use lapin::{
    Channel, Connection, Consumer,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::time::timeout;

use super::super::message::Message;

/// Bytes of bodies that may wait in memory.
const CREDIT_BYTES: u64 = 16 << 20;
/// Credit while nothing is known of the size of bodies.
const UNKNOWN: u16 = 200;
/// A marker that is in the stream is delivered within this.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most credit: enough for a batch to be read while another is committed.
const MOST: u64 = 12_000;

/// Nothing can be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// There is no such stream.
    #[error("stream {0} does not exist")]
    NotFound(String, #[source] lapin::Error),
    #[error("stream {0} cannot be read ({1})")]
    Refused(String, #[source] lapin::Error),
    #[error("the hub ended the consumer of stream {0}")]
    Ended(String),
    /// A delivery is missing on the way from the hub.
    #[error("of stream {stream} delivery {expected} was awaited and {got} came: it is read again")]
    Skipped { stream: String, expected: u64, got: u64 },
}

impl ReadError {
    /// The reason in `CamelCase`.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::NotFound(..) => "StreamNotFound",
            Self::Refused(..) => "StreamRefused",
            Self::Ended(_) | Self::Skipped { .. } => "ConnectionLost",
        }
    }
}

/// Messages that may be unacknowledged, by the mean size of bodies and the size of a batch.
pub(crate) fn prefetch(mean_body: u64, batch: usize) -> u16 {
    let batch = batch as u64;
    if mean_body == 0 {
        return UNKNOWN.min(u16::try_from(batch * 2).unwrap_or(u16::MAX)).max(2);
    }
    let wanted = (CREDIT_BYTES / mean_body).min(batch * 3).clamp(2, MOST);
    u16::try_from(wanted).unwrap_or(u16::MAX)
}

/// Whether a consumer's credit is so far from the right one that another consumer is worth its while.
pub(crate) fn is_off(now: u16, mean_body: u64, batch: usize) -> bool {
    let right = prefetch(mean_body, batch);
    now / 4 >= right.max(1) || right / 4 >= now.max(1)
}

/// Deliveries on a channel with one consumer are numbered without a gap.
#[derive(Debug, Default)]
struct Numbers(u64);

impl Numbers {
    fn follows(&mut self, stream: &str, tag: u64) -> Result<(), ReadError> {
        let expected = self.0 + 1;
        if tag != expected {
            return Err(ReadError::Skipped { stream: stream.to_owned(), expected, got: tag });
        }
        self.0 = tag;
        Ok(())
    }
}

/// Reads one stream, on a channel that has had no other consumer: what the hub still sends for one that was there before may carry the
/// next one's first messages ahead of the word that it consumes, and the client drops what is for nobody it knows.
#[derive(Debug)]
pub(crate) struct Reader {
    channel: Channel,
    consumer: Consumer,
    numbers: Numbers,
    stream: String,
    exchange: String,
    put_back: Option<Message>,
    pub(crate) prefetch: u16,
}

impl Reader {
    pub(crate) async fn open(
        hub: &Connection,
        stream: &str,
        exchange: &str,
        offset: i64,
        prefetch: u16,
    ) -> Result<Self, ReadError> {
        let channel = channel(hub, stream).await?;
        let consumer = consume(&channel, stream, prefetch, AMQPValue::LongLongInt(offset)).await;
        let consumer = consumer.map_err(|error| refused(stream, error))?;
        let (stream, exchange) = (stream.to_owned(), exchange.to_owned());
        Ok(Self { channel, consumer, numbers: Numbers::default(), stream, exchange, put_back: None, prefetch })
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> Result<Message, ReadError> {
        if let Some(message) = self.put_back.take() {
            return Ok(message);
        }
        loop {
            match self.consumer.next().await {
                Some(Ok(delivery)) => {
                    self.numbers.follows(&self.stream, delivery.delivery_tag)?;
                    if let Some(message) = Message::of(delivery, &self.exchange) {
                        return Ok(message);
                    }
                }
                Some(Err(error)) => return Err(refused(&self.stream, error)),
                None => return Err(ReadError::Ended(self.stream.clone())),
            }
        }
    }

    /// Lets a message be the next one again.
    pub(crate) fn put_back(&mut self, message: Message) {
        self.put_back = Some(message);
    }

    /// Gives credit for everything up to a message.
    pub(crate) async fn acknowledge(&self, tag: u64) -> Result<(), ReadError> {
        let all = BasicAckOptions { multiple: true };
        self.channel.basic_ack(tag, all).await.map(drop).map_err(|error| refused(&self.stream, error))
    }
}

/// A channel for one consumer; it closes with its last user.
async fn channel(hub: &Connection, stream: &str) -> Result<Channel, ReadError> {
    crate::hub::channel(hub).await.map_err(|error| refused(stream, error))
}

/// Whether the stream is there.
pub(crate) async fn exists(hub: &Connection, stream: &str) -> Result<(), ReadError> {
    let channel = channel(hub, stream).await?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(stream.into(), passive, FieldTable::default()).await;
    declared.map(drop).map_err(|error| refused(stream, error))
}

/// The offset of the first message that a stream still holds.
pub(crate) async fn first(hub: &Connection, stream: &str, exchange: &str) -> Result<i64, ReadError> {
    find(hub, stream, exchange, "first", |_| true).await
}

/// The offset of a marker that has just been published to a stream, or of any message that is no earlier than `reached`: while others
/// publish, the marker is soon not in the last chunk.
pub(crate) async fn last(
    hub: &Connection,
    stream: &str,
    exchange: &str,
    marker: &str,
    reached: i64,
) -> Result<i64, ReadError> {
    let enough = |message: &Message| message.offset >= reached || message.probe.as_deref() == Some(marker);
    find(hub, stream, exchange, "last", enough).await
}

/// The offset of a message, from one end of the stream on.
async fn find(
    hub: &Connection,
    stream: &str,
    exchange: &str,
    from: &str,
    wanted: impl Fn(&Message) -> bool,
) -> Result<i64, ReadError> {
    let refused = |error| refused(stream, error);
    let channel = channel(hub, stream).await?;
    let from = AMQPValue::LongString(from.into());
    let mut consumer = consume(&channel, stream, UNKNOWN, from).await.map_err(refused)?;
    let mut numbers = Numbers::default();
    loop {
        let delivery = match timeout(PATIENCE, consumer.next()).await {
            Ok(Some(delivery)) => delivery.map_err(refused)?,
            Ok(None) | Err(_) => return Err(ReadError::Ended(stream.to_owned())),
        };
        numbers.follows(stream, delivery.delivery_tag)?;
        // No nack and no reject: either would end the connection.
        channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default()).await.map_err(refused)?;
        if let Some(message) = Message::of(delivery, exchange).filter(&wanted) {
            return Ok(message.offset);
        }
    }
}

async fn consume(channel: &Channel, stream: &str, prefetch: u16, from: AMQPValue) -> Result<Consumer, lapin::Error> {
    channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-stream-offset".into(), from);
    channel.basic_consume(stream.into(), "".into(), BasicConsumeOptions::default(), arguments).await
}

fn refused(stream: &str, error: lapin::Error) -> ReadError {
    use lapin::{
        ErrorKind,
        protocol::{AMQPErrorKind, AMQPSoftError},
    };
    let missing = matches!(error.kind(), ErrorKind::ProtocolError(amqp)
        if matches!(amqp.kind(), AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND)));
    if missing { ReadError::NotFound(stream.to_owned(), error) } else { ReadError::Refused(stream.to_owned(), error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_that_is_missing_is_noticed() {
        let mut numbers = Numbers::default();
        assert!(numbers.follows("s", 1).is_ok() && numbers.follows("s", 2).is_ok());
        assert!(matches!(numbers.follows("s", 4), Err(ReadError::Skipped { expected: 3, got: 4, .. })));
        assert!(matches!(Numbers::default().follows("s", 2), Err(ReadError::Skipped { expected: 1, got: 2, .. })));
    }

    #[test]
    fn credit_is_bounded_by_bytes_and_by_batches() {
        assert_eq!(prefetch(0, 4_000), 200);
        assert_eq!(prefetch(200, 4_000), 12_000);
        assert_eq!(prefetch(1 << 20, 4_000), 16);
        assert_eq!(prefetch(100 << 20, 4_000), 2);
        assert_eq!(prefetch(200, 1), 3);
    }

    #[test]
    fn a_consumer_is_replaced_only_where_its_credit_is_far_off() {
        assert!(is_off(200, 200, 4_000) && is_off(12_000, 1 << 20, 4_000));
        assert!(!is_off(12_000, 300, 4_000) && !is_off(200, 60_000, 4_000));
        assert!(!is_off(2, 0, 1) && !is_off(3, 200, 1));
    }
}
