//! Reads how many messages wait in queues, over a few channels of the shared connection.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use lapin::{Channel, options::QueueDeclareOptions, types::FieldTable};
use tokio::time::timeout;

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
        let open = match channel.take().filter(|c| c.status().connected()) {
            Some(open) => open,
            None => match timeout(PATIENCE, hub.channel()).await {
                Ok(Ok(opened)) => opened,
                // It is not the queue that does not answer but the hub: no other is asked for in vain.
                _ => break,
            },
        };
        // What was asked on a channel in vain may still be answered: it cannot be used again.
        let depth = timeout(PATIENCE, read_one(&open, queue)).await.ok().flatten();
        *channel = depth.is_some().then_some(open);
        depths.push(depth);
    }
    depths.resize(queues.len(), None);
    depths
}

async fn read_one(channel: &Channel, queue: &str) -> Option<Depth> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    // The hub closes the channel where there is no such queue.
    let found = channel.queue_declare(queue.into(), options, FieldTable::default()).await.ok()?;
    Some(Depth { ready: found.message_count().into(), consumers: found.consumer_count().into() })
}
