//! Reads how many messages wait in queues, over a few channels of the shared connection.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use lapin::{Channel, options::QueueDeclareOptions, types::FieldTable};

use super::pool::Hub;
use crate::scaling::Depth;

/// Channels over which queues are looked at: one that is slow to answer holds up few others.
const CHANNELS: usize = 4;
/// A queue that does not answer within this is not known.
const PATIENCE: Duration = Duration::from_secs(2);

/// Looks at queues of one hub.
#[derive(Debug)]
pub struct Depths {
    hub: Arc<Hub>,
    channels: [Option<Channel>; CHANNELS],
}

impl Depths {
    /// Of a hub.
    #[must_use]
    pub fn new(hub: Arc<Hub>) -> Self {
        Self { hub, channels: Default::default() }
    }

    /// Looks at queues; in their order, `None` for one that is not there or not answered for.
    pub async fn read(&mut self, queues: &[String]) -> Vec<Option<Depth>> {
        let share = queues.len().div_ceil(CHANNELS).max(1);
        let hub = &self.hub;
        let parts =
            self.channels.iter_mut().zip(queues.chunks(share)).map(|(channel, part)| read_part(hub, channel, part));
        join_all(parts).await.into_iter().flatten().collect()
    }
}

async fn read_part(hub: &Hub, channel: &mut Option<Channel>, queues: &[String]) -> Vec<Option<Depth>> {
    let mut depths = Vec::with_capacity(queues.len());
    for queue in queues {
        let depth = tokio::time::timeout(PATIENCE, read_one(hub, channel, queue)).await;
        // What was asked on it may still be answered: it cannot be used again.
        depths.push(depth.unwrap_or_else(|_| {
            *channel = None;
            None
        }));
    }
    depths
}

async fn read_one(hub: &Hub, channel: &mut Option<Channel>, queue: &str) -> Option<Depth> {
    let open = match channel.take().filter(|c| c.status().connected()) {
        Some(open) => open,
        None => hub.channel().await.ok()?,
    };
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    // The hub closes the channel where there is no such queue.
    let found = open.queue_declare(queue.into(), options, FieldTable::default()).await.ok()?;
    let depth = Depth { ready: found.message_count().into(), consumers: found.consumer_count().into() };
    *channel = Some(open);
    Some(depth)
}
