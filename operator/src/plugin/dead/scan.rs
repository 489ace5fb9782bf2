//! Takes letters out of a queue, in order, and puts back in order what is not acknowledged.
//!
//! A quorum queue gives what was returned before what is fresh, puts what comes back behind what came back earlier, and
//! returns what a closed channel held in its order. So the order stays if each scan takes all that was ever returned, and
//! returns it window by window: one channel with one consumer each, closed one after the other.

use std::time::Duration;

use futures::StreamExt as _;
use lapin::{
    Channel, Connection, Consumer,
    message::Delivery,
    options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions},
    types::{FieldTable, ShortString},
};
use tokio::time::{Instant, sleep, timeout};

use super::{DeadError, DeadLetters};

/// Letters that a channel takes. Fewer are not worth a channel, and more are much memory.
pub(super) const WINDOW: u16 = 1000;
/// The consumers' tag.
const TAG: &str = "kubectl-drover";
/// A queue that gives nothing for so long has no more, whatever it told: others take from it too.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a channel held is back within this.
const RETURN: Duration = Duration::from_secs(5);
/// Between two looks whether it is.
const LOOK: Duration = Duration::from_millis(5);

/// Letters in the order of the queue.
pub(super) struct Scan {
    connection: Connection,
    queue: ShortString,
    window: u16,
    /// Letters that were there.
    pub(super) depth: u64,
    /// Letters that were taken.
    pub(super) taken: u64,
    /// For questions only.
    control: Channel,
    /// Those with a consumer, and how many letters of each are not acknowledged.
    channels: Vec<(Channel, u64)>,
    current: Option<Window>,
    /// The last one had been returned before: behind it there may be more.
    returned: bool,
}

/// A channel's consumer, and how many more it is given.
struct Window {
    consumer: Consumer,
    left: u16,
}

impl Scan {
    pub(super) async fn open(letters: &DeadLetters, window: u16) -> Result<Self, DeadError> {
        let queue =
            ShortString::try_new(letters.queue.as_str()).map_err(|_| DeadError::NameTooLong(letters.queue.clone()))?;
        let name = format!("kubectl-drover {}", letters.queue);
        let connection = drover_worker::hub::connect(&letters.hub, &name).await.map_err(DeadError::Hub)?;
        let control = drover_worker::hub::channel(&connection).await.map_err(DeadError::Lost)?;
        let depth = ready(&control, &queue).await?;
        Ok(Self {
            connection,
            queue,
            window: window.max(1),
            depth,
            taken: 0,
            control,
            channels: Vec::new(),
            current: None,
            returned: false,
        })
    }

    /// The next letters, at most so many and all of one channel; none once all that were there have come.
    pub(super) async fn batch(&mut self, most: usize) -> Result<Vec<Delivery>, DeadError> {
        let mut batch = Vec::new();
        if self.current.as_ref().is_none_or(|w| w.left == 0) && self.taken < self.depth {
            self.current = Some(self.consume().await?);
        }
        let Some(window) = &mut self.current else { return Ok(batch) };
        while batch.len() < most && window.left > 0 && self.taken < self.depth {
            match timeout(PATIENCE, window.consumer.next()).await {
                Ok(Some(Ok(letter))) => {
                    window.left -= 1;
                    self.taken += 1;
                    self.channels.last_mut().expect("a window has a channel").1 += 1;
                    self.returned = letter.redelivered;
                    batch.push(letter);
                }
                Ok(Some(Err(error))) => return Err(DeadError::Lost(error)),
                Ok(None) => {
                    return Err(DeadError::Lost(
                        lapin::ErrorKind::InvalidChannelState(lapin::ChannelState::Closed, "consumer").into(),
                    ));
                }
                Err(_) => self.depth = self.taken,
            }
        }
        Ok(batch)
    }

    /// Takes a letter of the last batch out of the queue.
    pub(super) async fn acknowledge(&mut self, letter: &Delivery) -> Result<(), DeadError> {
        letter.acker.ack(BasicAckOptions::default()).await.map_err(DeadError::Lost)?;
        // Whoever acknowledges is given another.
        if let (Some(window), Some((_, held))) = (&mut self.current, self.channels.last_mut()) {
            window.left = window.left.saturating_add(1);
            *held = held.saturating_sub(1);
        }
        Ok(())
    }

    /// Waits until the hub has all acknowledgements of the last batch: who is ended now has doubled nothing of it.
    pub(super) async fn flush(&self) -> Result<(), DeadError> {
        let Some((channel, _)) = self.channels.last() else { return Ok(()) };
        channel.basic_qos(self.window, BasicQosOptions::default()).await.map_err(DeadError::Lost)
    }

    async fn consume(&mut self) -> Result<Window, DeadError> {
        let channel = drover_worker::hub::channel(&self.connection).await.map_err(DeadError::Lost)?;
        channel.basic_qos(self.window, BasicQosOptions::default()).await.map_err(DeadError::Lost)?;
        self.channels.push((channel.clone(), 0));
        let options = BasicConsumeOptions::default();
        let consumer = channel.basic_consume(self.queue.clone(), TAG.into(), options, FieldTable::default()).await;
        let queue = self.queue.to_string();
        let consumer = consumer.map_err(|source| DeadError::Queue { queue, source })?;
        Ok(Window { consumer, left: self.window })
    }

    /// Returns what was not acknowledged, in its order.
    pub(super) async fn close(mut self) -> Result<(), DeadError> {
        self.window = WINDOW;
        loop {
            let open = self.current.as_ref().is_some_and(|w| w.left > 0);
            if !(open || self.returned) || self.batch(usize::from(WINDOW)).await?.is_empty() {
                break;
            }
        }
        // What a channel returns must not go to another one.
        for (channel, _) in &self.channels {
            channel.basic_cancel(TAG.into(), BasicCancelOptions::default()).await.map_err(DeadError::Lost)?;
        }
        for (channel, held) in &self.channels {
            let before = ready(&self.control, &self.queue).await?;
            channel.close(200, "done".into()).await.map_err(DeadError::Lost)?;
            // The hub answers before it has returned them, and the next channel's must not overtake these.
            let until = Instant::now() + RETURN;
            while ready(&self.control, &self.queue).await? < before + held && Instant::now() < until {
                sleep(LOOK).await;
            }
        }
        self.connection.close(200, "done".into()).await.map_err(DeadError::Lost)
    }
}

/// Letters that nobody holds.
async fn ready(control: &Channel, queue: &ShortString) -> Result<u64, DeadError> {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let declared = control.queue_declare(queue.clone(), passive, FieldTable::default()).await;
    let declared = declared.map_err(|source| DeadError::Queue { queue: queue.to_string(), source })?;
    Ok(u64::from(declared.message_count()))
}
