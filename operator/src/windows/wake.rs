//! Listens to the streams of a query that has no workers: one consumer for each partition, where the next worker would begin, with one
//! message of credit. The first message that is none of our own markers is the wake-up; nothing is taken from a stream by reading it.

use std::{sync::Arc, time::Duration};

use drover_worker::stream::{PROBE, TICK};
use futures::{StreamExt as _, stream::SelectAll};
use lapin::{
    Channel, Consumer,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::{AMQPValue, FieldTable},
};

use crate::hub::Hub;

/// What is listened to.
#[derive(Debug, Clone)]
pub struct Streams {
    /// The hub.
    pub hub: Arc<Hub>,
    /// The query's own exchange: what came through it with a tick's header is a tick.
    pub exchange: String,
    /// Streams, and the offset that is read next in each.
    pub next: Vec<(String, i64)>,
}

/// Consumers that wait.
#[derive(Debug, Default)]
pub struct Waker {
    open: Option<(String, Channel, SelectAll<Consumer>)>,
    heard: bool,
}

impl Waker {
    /// Listens for a while: `true` once something has come, `None` where the hub does not let anybody listen.
    pub async fn listen(&mut self, streams: &Streams, most: Duration) -> Option<bool> {
        let key = format!("{} {:?}", streams.hub.name(), streams.next);
        if self.open.as_ref().is_none_or(|(known, channel, _)| *known != key || !channel.status().connected()) {
            self.rest().await;
            self.open = Some(open(streams, key).await?);
        }
        if self.heard {
            return Some(true);
        }
        let (_, _, consumers) = self.open.as_mut()?;
        let heard = tokio::time::timeout(most, message(consumers, &streams.exchange)).await;
        match heard {
            Err(_) => Some(false),
            Ok(Some(())) => {
                self.heard = true;
                Some(true)
            }
            Ok(None) => {
                self.open = None;
                None
            }
        }
    }

    /// Stops listening: workers read.
    pub async fn rest(&mut self) {
        self.heard = false;
        if let Some((_, channel, _)) = self.open.take() {
            // A channel that is gone needs no closing.
            let _ = channel.close(200, "done".into()).await;
        }
    }
}

async fn open(streams: &Streams, key: String) -> Option<(String, Channel, SelectAll<Consumer>)> {
    let channel = streams.hub.channel().await.ok()?;
    channel.basic_qos(1, BasicQosOptions::default()).await.ok()?;
    let mut consumers = SelectAll::new();
    for (stream, offset) in &streams.next {
        let mut arguments = FieldTable::default();
        arguments.insert("x-stream-offset".into(), AMQPValue::LongLongInt(*offset));
        let (name, options) = (stream.as_str().into(), BasicConsumeOptions::default());
        consumers.push(channel.basic_consume(name, "".into(), options, arguments).await.ok()?);
    }
    Some((key, channel, consumers))
}

/// The first message that is no marker; `None` where the consumers have ended.
async fn message(consumers: &mut SelectAll<Consumer>, exchange: &str) -> Option<()> {
    loop {
        let delivery = consumers.next().await?.ok()?;
        if !is_marker(&delivery, exchange) {
            return Some(());
        }
        delivery.ack(BasicAckOptions::default()).await.ok()?;
    }
}

fn is_marker(delivery: &Delivery, exchange: &str) -> bool {
    let has = |name| delivery.properties.headers().as_ref().is_some_and(|h| h.inner().contains_key(name));
    let marked = has(TICK) || has(PROBE);
    marked && delivery.exchange.as_str() == exchange
}
