//! Consumers of the source, one after another: a consumer's prefetch is for life, so a change of it is a new consumer.
//!
//! A quorum queue may send messages to a consumer that it has just told to be cancelled; nobody is given them, and they stay
//! unacknowledged until the channel ends. So a consumer is cancelled only while it can be sent nothing, or at the very end.

use futures::{
    StreamExt,
    future::ready,
    stream::{self, BoxStream, SelectAll},
};
use lapin::{
    Channel,
    message::Delivery,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::{AMQPValue, FieldTable, ShortString},
};

use super::{Lost, Origin};

/// Most bytes of a pod's name in a consumer's tag: a tag has room for 255, and a number follows.
const MAX_TAG: usize = 200;

/// Something of a consumer: a delivery, an error, or its end.
pub(super) type Arrival = (u64, Option<lapin::Result<Delivery>>);

/// The consumer that is there, those that end, and the prefetch that is wanted.
pub(super) struct Intake {
    channel: Channel,
    queue: String,
    priority: i32,
    tag: String,
    streams: SelectAll<BoxStream<'static, Arrival>>,
    generation: u64,
    consuming: bool,
    prefetch: u16,
    wanted: Option<u16>,
    last_tag: u64,
    began_after: u64,
}

/// A consumer of no priority has that of 0.
fn arguments(priority: i32) -> FieldTable {
    let mut arguments = FieldTable::default();
    if priority != 0 {
        arguments.insert("x-priority".into(), AMQPValue::LongInt(priority));
    }
    arguments
}

impl std::fmt::Debug for Intake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intake").field("prefetch", &self.prefetch).field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

impl Intake {
    pub(super) fn new(channel: Channel, origin: &Origin, pod: &str) -> Self {
        let tag = if pod.is_empty() { "drover" } else { &pod[..pod.floor_char_boundary(MAX_TAG)] };
        Self {
            channel,
            queue: origin.queue.clone(),
            priority: origin.priority,
            tag: tag.to_owned(),
            streams: SelectAll::new(),
            generation: 0,
            consuming: false,
            prefetch: 0,
            wanted: None,
            last_tag: 0,
            began_after: 0,
        }
    }

    /// The prefetch that is, or else was, in force.
    pub(super) fn prefetch(&self) -> u16 {
        self.wanted.unwrap_or(self.prefetch).max(1)
    }

    pub(super) fn is_consuming(&self) -> bool {
        self.consuming
    }

    /// A delivery came, of whichever consumer.
    pub(super) fn received(&mut self, tag: u64) {
        self.last_tag = tag;
    }

    /// The last tag that is not of the consumer that is there.
    pub(super) fn began_after(&self) -> u64 {
        self.began_after
    }

    /// Asks for a consumer with this prefetch.
    pub(super) fn want(&mut self, prefetch: u16) {
        self.wanted = Some(prefetch);
    }

    /// Asks for another prefetch. To be called only while the consumer has used its credit, and before anything is
    /// acknowledged: then nothing is on its way to it.
    pub(super) async fn change(&mut self, prefetch: u16) -> Result<(), Lost> {
        self.want(prefetch);
        self.cancel().await
    }

    /// Begins the consumer that is wanted, as soon as the ceiling permits: what the old one brought counts. True if it did.
    pub(super) async fn begin(&mut self, unacknowledged: usize, ceiling: u16) -> Result<bool, Lost> {
        let Some(wanted) = self.wanted else { return Ok(false) };
        if unacknowledged > 0 && unacknowledged + usize::from(wanted) > usize::from(ceiling) {
            return Ok(false);
        }
        self.began_after = self.last_tag;
        self.generation += 1;
        let generation = self.generation;
        self.channel.basic_qos(wanted, BasicQosOptions::default()).await?;
        let consumer = self
            .channel
            .basic_consume(
                ShortString::try_new(self.queue.as_str())?,
                self.consumer_tag(),
                BasicConsumeOptions::default(),
                arguments(self.priority),
            )
            .await?;
        let end = stream::once(ready((generation, None)));
        self.streams.push(consumer.map(move |delivery| (generation, Some(delivery))).chain(end).boxed());
        (self.consuming, self.prefetch, self.wanted) = (true, wanted, None);
        Ok(true)
    }

    /// Stops intake. What is on its way still arrives.
    pub(super) async fn cancel(&mut self) -> Result<(), Lost> {
        if self.consuming {
            self.consuming = false;
            self.channel.basic_cancel(self.consumer_tag(), BasicCancelOptions::default()).await?;
        }
        Ok(())
    }

    /// The next arrival; none where no consumer is left, not even one that ends.
    pub(super) async fn next(&mut self) -> Option<Arrival> {
        self.streams.next().await
    }

    /// The delivery of an arrival.
    pub(super) fn accept(&mut self, (generation, arrival): Arrival) -> Result<Option<Delivery>, Lost> {
        match arrival {
            Some(delivery) => Ok(Some(delivery?)),
            None if self.consuming && generation == self.generation => Err(Lost::Cancelled),
            None => Ok(None),
        }
    }

    fn consumer_tag(&self) -> ShortString {
        ShortString::try_new(format!("{}-{}", self.tag, self.generation))
            .expect("the name is cut and a number is short")
    }
}
