//! One connection to the hub, from the first delivery to the last acknowledgement. The only place that acknowledges.
//!
//! It ends with the connection, the channel or the consumer; it repairs nothing. What is not acknowledged then comes again.

mod drain;
mod intake;

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use futures::FutureExt;
use lapin::{
    Channel,
    message::Delivery,
    options::{BasicAckOptions, BasicNackOptions},
    types::ShortStringError,
};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinSet,
    time::{sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    Context,
    acks::{Acks, Gap, PATIENCE},
    backoff::Backoff,
    clock,
    credit::{Facts, Limits, Rate},
    publisher::Receipt,
    sink::Writer,
    slot::{Finished, Slot, SlotEnd},
};
use intake::Intake;

/// After holding for so long messages go back to the queue, before a hub takes the worker for dead.
const HOLD_LIMIT: Duration = Duration::from_mins(1);
/// Most messages of a batch: larger ones are hardly faster, and halve longer.
const MAX_BATCH: usize = 500;
/// Most bytes of a batch, unless one message alone has more.
const MAX_BATCH_BYTES: usize = 4 * 1024 * 1024;
/// How long nothing may happen before the session looks around.
const LOOK: Duration = Duration::from_secs(1);
/// The slot number under which the session itself holds.
const SELF: usize = usize::MAX;

/// Why a session ended.
#[derive(Debug)]
pub(crate) enum End {
    /// As asked.
    Shutdown,
    /// The connection, the channel or the consumer is gone.
    Lost(String),
}

/// A session failed; its connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lost {
    #[error("{0}")]
    Hub(#[from] lapin::Error),
    #[error("the name of the queue is too long: {0}")]
    QueueName(#[from] ShortStringError),
    #[error(transparent)]
    Gap(#[from] Gap),
    #[error("the hub cancelled the consumer: the queue may be deleted, or the consumer timed out")]
    Cancelled,
}

/// What outlives a session.
#[derive(Debug)]
pub(crate) struct Crew {
    pub(crate) context: Arc<Context>,
    pub(crate) limits: Limits,
    pub(crate) queue: String,
    pub(crate) adopt: bool,
    free: Vec<(usize, Writer)>,
    slots: JoinSet<SlotEnd>,
    surrender: CancellationToken,
    rate: Rate,
}

impl Crew {
    /// Slots, the first of which looks at once whether the sink is there.
    pub(crate) fn new(context: &Arc<Context>, limits: Limits, queue: String, adopt: bool) -> Self {
        let mut crew = Self {
            context: Arc::clone(context),
            limits,
            queue,
            adopt,
            free: (1..usize::from(limits.concurrency)).rev().map(|n| (n, context.target.writer())).collect(),
            slots: JoinSet::new(),
            surrender: CancellationToken::new(),
            rate: Rate::default(),
        };
        let (finished, _) = unbounded_channel();
        let first = crew.slot(0, context.target.writer(), finished);
        crew.slots.spawn(first.warm_up());
        crew
    }

    fn slot(&self, number: usize, writer: Writer, finished: UnboundedSender<Finished>) -> Slot {
        Slot {
            context: Arc::clone(&self.context),
            number,
            writer,
            finished,
            surrender: self.surrender.clone(),
            backoff: Backoff::default(),
        }
    }

    /// Ends all slots, and makes room for new ones. Messages that they had left go back with the channel.
    pub(crate) async fn reset(&mut self) {
        self.surrender.cancel();
        while let Some(end) = self.slots.join_next().await {
            if let Ok(end) = end {
                self.context.meter.ended(end.left.len());
                self.free.push((end.slot, end.writer));
            }
        }
        let lost = (0..usize::from(self.limits.concurrency)).filter(|n| !self.free.iter().any(|(free, _)| free == n));
        let lost: Vec<usize> = lost.collect();
        self.free.extend(lost.into_iter().map(|n| (n, self.context.target.writer())));
        self.context.holds.clear();
        self.context.outage().abandoned();
        self.context.meter.idle();
        self.surrender = CancellationToken::new();
    }
}

/// A session.
#[derive(Debug)]
pub(crate) struct Session<'c> {
    crew: &'c mut Crew,
    channel: Channel,
    intake: Intake,
    acks: Acks,
    held: VecDeque<Delivery>,
    finished: UnboundedReceiver<Finished>,
    finishing: UnboundedSender<Finished>,
    mean_bytes: u64,
}

impl<'c> Session<'c> {
    pub(crate) fn new(crew: &'c mut Crew, channel: Channel) -> Self {
        let (finishing, finished) = unbounded_channel();
        let intake = Intake::new(channel.clone(), crew.queue.clone(), &crew.context.sender.identity.pod);
        Self { crew, channel, intake, acks: Acks::default(), held: VecDeque::new(), finished, finishing, mean_bytes: 0 }
    }

    /// Runs until it is asked to stop, or the connection is lost.
    pub(crate) async fn run(mut self, shutdown: &CancellationToken) -> End {
        let end = match self.work(shutdown).await {
            Ok(()) => match self.drain().await {
                Ok(()) => End::Shutdown,
                Err(lost) => End::Lost(lost.to_string()),
            },
            Err(lost) => End::Lost(lost.to_string()),
        };
        self.crew.context.meter.consuming.store(false, Relaxed);
        end
    }

    /// Until shutdown.
    async fn work(&mut self, shutdown: &CancellationToken) -> Result<(), Lost> {
        self.intake.want(self.crew.limits.start());
        loop {
            self.start_batches();
            self.adjust().await?;
            self.acknowledge().await?;
            if self.holding_too_long() {
                self.wait_out(shutdown).await?;
            }
            let pause = if self.acks.pending() || self.crew.context.holds.any() { PATIENCE / 2 } else { LOOK };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                Some(end) = self.crew.slots.join_next() => self.slot_ended(end),
                Some(finished) = self.finished.recv() => self.finish(&finished, clock::now()),
                Some(arrival) = self.intake.next() => self.receive(arrival)?,
                () = sleep(pause) => {}
            }
            self.gather()?;
        }
    }

    /// Whatever else is there already, so that batches and acknowledgements are large when there is much.
    fn gather(&mut self) -> Result<(), Lost> {
        while let Some(Some(arrival)) = self.intake.next().now_or_never() {
            self.receive(arrival)?;
        }
        while let Some(Some(end)) = self.crew.slots.join_next().now_or_never() {
            self.slot_ended(end);
        }
        let now = clock::now();
        while let Ok(finished) = self.finished.try_recv() {
            self.finish(&finished, now);
        }
        Ok(())
    }

    fn receive(&mut self, arrival: intake::Arrival) -> Result<(), Lost> {
        let Some(delivery) = self.intake.accept(arrival)? else { return Ok(()) };
        self.acks.received(delivery.delivery_tag)?;
        self.intake.received(delivery.delivery_tag);
        let size = delivery.data.len() as u64;
        self.mean_bytes = if self.mean_bytes == 0 { size } else { (self.mean_bytes * 15 + size) / 16 };
        self.held.push_back(delivery);
        self.tell_held();
        Ok(())
    }

    fn tell_held(&self) {
        self.crew.context.meter.held.store(self.held.len() as u64, Relaxed);
    }

    fn finish(&mut self, finished: &Finished, now: Instant) {
        self.acks.done(finished.tag, now);
        self.crew.context.meter.finished(finished.outcome, now);
        self.crew.context.meter.ended(1);
    }

    /// What a slot has left goes first next time: it waited longest.
    fn slot_ended(&mut self, end: Result<SlotEnd, tokio::task::JoinError>) {
        match end {
            Ok(end) => {
                self.crew.context.meter.ended(end.left.len());
                end.left.into_iter().rev().for_each(|delivery| self.held.push_front(delivery));
                self.crew.free.push((end.slot, end.writer));
                self.tell_held();
            }
            // Its messages stay unacknowledged and come again; its place is lost until then.
            Err(error) => tracing::error!(%error, "a batch ended in a panic"),
        }
    }

    /// As many as there is room and messages for. A message that comes alone waits for no other.
    fn start_batches(&mut self) {
        while !self.held.is_empty() && !self.crew.context.holds.any() {
            let Some((number, writer)) = self.crew.free.pop() else { return };
            let batch = self.next_batch();
            let meter = &self.crew.context.meter;
            meter.started(batch.len());
            #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
            meter.batch_messages.observe(batch.len() as f64);
            let slot = self.crew.slot(number, writer, self.finishing.clone());
            self.crew.slots.spawn(slot.run(batch));
            self.tell_held();
        }
    }

    fn next_batch(&mut self) -> Vec<Delivery> {
        let share = usize::from(self.intake.prefetch()).div_ceil(usize::from(self.crew.limits.concurrency));
        let (most, mut bytes, mut batch) = (share.clamp(1, MAX_BATCH), 0, Vec::new());
        while let Some(delivery) = self.held.front() {
            bytes += delivery.data.len();
            if batch.len() == most || (bytes > MAX_BATCH_BYTES && !batch.is_empty()) {
                break;
            }
            batch.extend(self.held.pop_front());
        }
        batch
    }

    async fn acknowledge(&mut self) -> Result<(), Lost> {
        if !self.acks.pending() {
            return Ok(());
        }
        for ack in self.acks.take(clock::now()) {
            self.channel.basic_ack(ack.tag, BasicAckOptions { multiple: ack.multiple }).await?;
        }
        Ok(())
    }

    /// Asks for more or less credit where all of it is used. Before any acknowledgement: see [`Intake::change`].
    async fn adjust(&mut self) -> Result<(), Lost> {
        let meter = &self.crew.context.meter;
        self.crew.rate.sample(meter.done(), meter.busy(clock::now()));
        let unacknowledged = self.acks.unacknowledged();
        if unacknowledged >= usize::from(self.intake.prefetch()) && !self.crew.context.holds.any() {
            let facts = Facts { limiting: true, rate: self.crew.rate.per_second(), mean_bytes: self.mean_bytes };
            let next = self.crew.limits.next(self.intake.prefetch(), facts);
            if let Some(next) = next.filter(|_| self.is_saturated()) {
                self.intake.change(next).await?;
            }
        }
        if self.intake.begin(unacknowledged, self.crew.limits.ceiling).await? {
            meter_consuming(&self.crew.context, self.intake.prefetch());
        }
        Ok(())
    }

    /// The consumer has used its credit: nothing of it can be on its way.
    fn is_saturated(&self) -> bool {
        self.intake.is_consuming()
            && self.acks.unacknowledged_after(self.intake.began_after()) >= usize::from(self.intake.prefetch())
    }

    fn holding_too_long(&self) -> bool {
        let holding = self.crew.context.holds.oldest();
        holding.is_some_and(|holding| clock::now().saturating_duration_since(holding.since) >= HOLD_LIMIT)
    }

    /// Gives deliveries back to the queue, and tells which it could not until then. Where nothing is bound to come back by,
    /// as to an adopted queue, they are requeued.
    async fn give_back(
        &mut self,
        mut deliveries: Vec<Delivery>,
        until: tokio::time::Instant,
    ) -> Result<Vec<Delivery>, Lost> {
        if self.crew.adopt {
            for delivery in &deliveries {
                let requeue = BasicNackOptions { multiple: false, requeue: true };
                self.channel.basic_nack(delivery.delivery_tag, requeue).await?;
                self.acks.forget(delivery.delivery_tag);
            }
            return Ok(Vec::new());
        }
        let mut backoff = Backoff::default();
        while !deliveries.is_empty() {
            match timeout_at(until, self.crew.context.give_back(&deliveries)).await {
                Ok(Ok(receipts)) => self.returned(&mut deliveries, &receipts),
                Ok(Err(error)) => tracing::warn!(reason = error.reason(), "messages cannot be given back: {error}"),
                Err(_) => break,
            }
            self.acknowledge().await?;
            if !deliveries.is_empty() && timeout_at(until, sleep(backoff.next())).await.is_err() {
                break;
            }
        }
        Ok(deliveries)
    }

    fn returned(&mut self, deliveries: &mut Vec<Delivery>, receipts: &[Receipt]) {
        let now = clock::now();
        let mut receipts = receipts.iter();
        deliveries.retain(|delivery| {
            let confirmed = receipts.next() == Some(&Receipt::Confirmed);
            if confirmed {
                self.acks.done(delivery.delivery_tag, now);
                self.crew.context.meter.finished(super::meter::Outcome::Returned, now);
            }
            !confirmed
        });
    }
}

fn meter_consuming(context: &Context, prefetch: u16) {
    context.meter.prefetch.set(prefetch.into());
    if !context.meter.consuming.swap(true, Relaxed) {
        tracing::info!(prefetch, "consuming");
    }
}
