//! A publisher that loses nothing: paced, with confirms, repeating after a lost connection what was not confirmed.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::stream::{FuturesUnordered, StreamExt as _};
use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Channel, PublisherConfirm};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::hub::Hub;
use crate::pipeline::message;

/// Most messages that wait for their confirm.
const WINDOW: usize = 1000;

/// How often the pace is looked at.
const TICK: Duration = Duration::from_millis(10);

/// A hub that restarts is asked so often.
const RECONNECT: Duration = Duration::from_millis(500);

/// How long one attempt to connect may take.
const CONNECT: Duration = Duration::from_secs(10);

/// Numbered telemetry over at least this time; the clock stands while there is no connection.
#[derive(Debug)]
pub struct Publisher {
    count: u32,
    over: Duration,
    confirmed: AtomicU32,
    connections: AtomicU32,
}

impl Publisher {
    /// So many messages over so long.
    #[must_use]
    pub fn new(count: u32, over: Duration) -> Self {
        Self { count, over, confirmed: AtomicU32::new(0), connections: AtomicU32::new(0) }
    }

    /// Messages that the hub has confirmed.
    #[must_use]
    pub fn confirmed(&self) -> u32 {
        self.confirmed.load(Ordering::Relaxed)
    }

    /// All of them are confirmed.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.confirmed() == self.count
    }

    /// Connections that it has had so far.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Publishes until all are confirmed, through as many connections as it takes.
    pub async fn run(&self, hub: &Hub) -> Result<()> {
        let mut todo: VecDeque<u32> = VecDeque::new();
        let mut begun = 0;
        let mut active = Duration::ZERO;
        while !self.is_done() {
            let Ok(Ok(connection)) = timeout(CONNECT, hub.connect()).await else {
                sleep(RECONNECT).await;
                continue;
            };
            self.connections.fetch_add(1, Ordering::Relaxed);
            let start = Instant::now();
            // An error is a lost connection: what it left unconfirmed is in `todo`, and the next one goes on.
            let session = async {
                let channel = connection.create_channel().await?;
                channel.confirm_select(lapin::options::ConfirmSelectOptions::default()).await?;
                self.session(&channel, &mut todo, &mut begun, active).await
            };
            let ended = session.await;
            active += start.elapsed();
            if let Err(error) = ended {
                eprintln!("publisher: {error:#}; {} of {} confirmed", self.confirmed(), self.count);
                sleep(RECONNECT).await;
            }
        }
        Ok(())
    }

    /// Publishes through one channel. Ends with all confirmed, or with an error and the unconfirmed in `todo`.
    async fn session(
        &self,
        channel: &Channel,
        todo: &mut VecDeque<u32>,
        begun: &mut u32,
        active: Duration,
    ) -> Result<()> {
        let mut waiting: Vec<u32> = Vec::new();
        let outcome = self.pump(channel, todo, begun, active, &mut waiting).await;
        todo.extend(waiting);
        outcome
    }

    async fn pump(
        &self,
        channel: &Channel,
        todo: &mut VecDeque<u32>,
        begun: &mut u32,
        active: Duration,
        waiting: &mut Vec<u32>,
    ) -> Result<()> {
        let start = Instant::now();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut confirms = FuturesUnordered::new();
        while !self.is_done() {
            tokio::select! {
                Some((number, confirmed)) = confirms.next(), if !confirms.is_empty() => {
                    let _: () = confirmed?;
                    waiting.retain(|other| *other != number);
                    self.confirmed.fetch_add(1, Ordering::Relaxed);
                }
                _ = tick.tick() => {
                    let due = self.due(active + start.elapsed());
                    while waiting.len() < WINDOW && (!todo.is_empty() || *begun < due) {
                        let number = todo.pop_front().unwrap_or_else(|| { *begun += 1; *begun - 1 });
                        waiting.push(number);
                        let key = format!("devices.{}", number % 20);
                        let confirm = publish(channel, &key, &message(number)).await?;
                        confirms.push(async move { (number, taken(confirm).await) });
                    }
                }
            }
        }
        Ok(())
    }

    /// Messages that should be published after so long.
    fn due(&self, elapsed: Duration) -> u32 {
        let share = elapsed.as_secs_f64() / self.over.as_secs_f64();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the count")]
        let due = (f64::from(self.count) * share.min(1.0)) as u32;
        due
    }
}

/// Publishes a message as devices do, to be kept on disk.
pub(crate) async fn publish(channel: &Channel, key: &str, body: &[u8]) -> Result<PublisherConfirm> {
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let properties = BasicProperties::default().with_delivery_mode(2);
    channel.basic_publish("amq.topic".into(), key.into(), options, body, properties).await.context("not published")
}

/// Waits until a queue has it.
pub(crate) async fn taken(confirm: PublisherConfirm) -> Result<()> {
    let confirmation = confirm.await.context("not confirmed")?;
    if !confirmation.is_ack() {
        bail!("refused by the hub");
    }
    if confirmation.take_message().is_some() {
        bail!("routed nowhere");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_even_and_ends() {
        let publisher = Publisher::new(1000, Duration::from_secs(10));
        assert_eq!(publisher.due(Duration::from_secs(0)), 0);
        assert_eq!(publisher.due(Duration::from_secs(5)), 500);
        assert_eq!(publisher.due(Duration::from_secs(11)), 1000);
    }
}
