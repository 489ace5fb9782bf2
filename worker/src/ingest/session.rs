//! One connection to the hub, from the first delivery to the last acknowledgement. The only place that acknowledges.
//!
//! It ends with the connection, the channel or the consumer; it repairs nothing. What is not acknowledged then comes again.

mod crew;
mod drain;
mod intake;

use std::{
    collections::VecDeque,
    sync::atomic::Ordering::Relaxed,
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
    time::{sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    acks::{Acks, Gap, PATIENCE},
    backoff::Backoff,
    clock,
    credit::{Facts, batch_of},
    publisher::Receipt,
    slot::{Finished, SlotEnd},
    suspect::Way,
};
pub(crate) use crew::{Crew, Origin};
use intake::Intake;

/// After holding for so long messages go back to the queue, before a hub takes the worker for dead.
const HOLD_LIMIT: Duration = Duration::from_mins(1);
/// Most messages of a batch: larger ones are hardly faster, and halve longer.
const MAX_BATCH: usize = 500;
/// Most bytes of a batch, unless one message alone has more.
const MAX_BATCH_BYTES: usize = 4 * 1024 * 1024;
/// A sink that takes longer for a batch is slow: what it does is worth more than what a transaction costs.
const SLOW: Duration = Duration::from_millis(20);
/// How long a message waits for company while others are being written.
const LINGER: Duration = Duration::from_millis(5);
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
    #[error("the sink is back")]
    WaitedOut,
}

/// A session.
#[derive(Debug)]
pub(crate) struct Session<'c> {
    crew: &'c mut Crew,
    channel: Channel,
    intake: Intake,
    acks: Acks,
    held: VecDeque<Delivery>,
    held_since: Instant,
    /// Deliveries that are not to be worked on here.
    strays: Vec<Delivery>,
    finished: UnboundedReceiver<Finished>,
    finishing: UnboundedSender<Finished>,
    mean_bytes: u64,
    batch_time: Duration,
}

impl<'c> Session<'c> {
    pub(crate) fn new(crew: &'c mut Crew, channel: Channel) -> Self {
        let (finishing, finished) = unbounded_channel();
        let intake = Intake::new(channel.clone(), &crew.origin, &crew.context.sender.identity.pod);
        Self {
            crew,
            channel,
            intake,
            acks: Acks::default(),
            held: VecDeque::new(),
            held_since: clock::now(),
            strays: Vec::new(),
            finished,
            finishing,
            mean_bytes: 0,
            batch_time: Duration::ZERO,
        }
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
        self.intake.want(self.crew.limits.start(self.crew.rate.per_second()));
        loop {
            self.redirect_strays();
            self.start_batches();
            self.change_credit().await?;
            self.acknowledge().await?;
            self.consume().await?;
            if self.holding_too_long() {
                self.wait_out(shutdown).await?;
            }
            let pause = self.pause();
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

    fn pause(&self) -> Duration {
        let holding = self.crew.context.holds.any();
        if !self.held.is_empty() && !self.crew.free.is_empty() && !holding {
            LINGER
        } else if self.acks.pending() || holding {
            PATIENCE / 2
        } else {
            LOOK
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
        let context = &self.crew.context;
        if context.preview.as_ref().is_some_and(|sample| !sample.takes()) {
            context.meter.skipped.inc();
            self.acks.done(delivery.delivery_tag, clock::now());
            return Ok(());
        }
        if context.suspicion.way(&context.sender, &delivery, None) != Way::Process {
            self.strays.push(delivery);
            return Ok(());
        }
        let size = delivery.data.len() as u64;
        self.mean_bytes = if self.mean_bytes == 0 { size } else { (self.mean_bytes * 15 + size) / 16 };
        if self.held.is_empty() {
            self.held_since = clock::now();
        }
        self.held.push_back(delivery);
        self.tell_held();
        Ok(())
    }

    fn tell_held(&self) {
        self.crew.context.meter.held.store(self.held.len() as u64, Relaxed);
    }

    fn finish(&mut self, finished: &Finished, now: Instant) {
        for tag in &finished.tags {
            self.acks.done(*tag, now);
        }
        self.crew.context.meter.finished(finished.outcome, finished.tags.len(), now);
        self.crew.context.meter.ended(finished.tags.len());
    }

    /// What a slot has left goes first next time: it waited longest.
    fn slot_ended(&mut self, end: Result<SlotEnd, tokio::task::JoinError>) {
        match end {
            Ok(end) => {
                self.crew.context.meter.ended(end.left.len() + end.strays.len());
                if !end.left.is_empty() || end.strays.is_empty() {
                    self.batch_time = (self.batch_time * 7 + end.took) / 8;
                }
                self.strays.extend(end.strays);
                end.left.into_iter().rev().for_each(|delivery| self.held.push_front(delivery));
                self.crew.free.push((end.slot, end.writer));
                self.tell_held();
            }
            // Its messages stay unacknowledged and come again; its place is lost until then.
            Err(error) => tracing::error!(%error, "a batch ended in a panic"),
        }
    }

    /// They go first, and even while the sink is down.
    fn redirect_strays(&mut self) {
        if self.strays.is_empty() {
            return;
        }
        let Some((number, writer)) = self.crew.free.pop() else { return };
        let strays = std::mem::take(&mut self.strays);
        self.crew.context.meter.started(strays.len());
        let slot = self.crew.slot(number, writer, self.finishing.clone());
        self.crew.slots.spawn(slot.redirect(strays));
    }

    /// As many as there is room and messages for. A message that comes alone waits for no other; while batches are being
    /// written, the next is given a moment to fill: many small transactions cost far more than few large ones.
    fn start_batches(&mut self) {
        while !self.held.is_empty() && !self.crew.context.holds.any() && self.is_worth_a_batch() {
            let Some((number, writer)) = self.crew.free.pop() else { return };
            let batch = self.next_batch();
            self.held_since = clock::now();
            let meter = &self.crew.context.meter;
            meter.started(batch.len());
            #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
            meter.batch_messages.observe(batch.len() as f64);
            let slot = self.crew.slot(number, writer, self.finishing.clone());
            self.crew.slots.spawn(slot.run(batch));
            self.tell_held();
        }
    }

    fn is_worth_a_batch(&self) -> bool {
        self.crew.slots.is_empty()
            || self.held.len() >= self.share()
            || clock::now().saturating_duration_since(self.held_since) >= LINGER
    }

    /// Messages of a full batch. Where the sink is quick two batches use up the credit, one filled while the other is written;
    /// where it is slow, so many as may run at once.
    fn share(&self) -> usize {
        usize::from(self.intake.prefetch().div_ceil(self.parts())).clamp(1, MAX_BATCH)
    }

    /// Full batches that use up the credit.
    fn parts(&self) -> u16 {
        let concurrency = self.crew.limits.concurrency;
        if self.batch_time > SLOW { concurrency } else { concurrency.min(2) }
    }

    fn next_batch(&mut self) -> Vec<Delivery> {
        let parts = self.parts();
        let lasting = self.crew.rate.per_second().map_or(usize::MAX, |rate| batch_of(rate, parts));
        let (most, mut bytes, mut batch) = (self.share().min(lasting), 0, Vec::new());
        self.crew.context.meter.capacity(most, parts);
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
    async fn change_credit(&mut self) -> Result<(), Lost> {
        let meter = &self.crew.context.meter;
        self.crew.rate.sample(meter.done(), meter.busy(clock::now()));
        let prefetch = self.intake.prefetch();
        if self.acks.unacknowledged() >= usize::from(prefetch) && !self.crew.context.holds.any() {
            let facts = Facts { limiting: true, rate: self.crew.rate.per_second(), mean_bytes: self.mean_bytes };
            let next = self.crew.limits.next(prefetch, facts);
            if let Some(next) = next.filter(|_| self.is_saturated()) {
                self.intake.change(next).await?;
            }
        }
        Ok(())
    }

    /// Begins the consumer that is wanted, if its time has come.
    async fn consume(&mut self) -> Result<(), Lost> {
        let (unacknowledged, ceiling) = (self.acks.unacknowledged(), self.crew.limits.ceiling);
        if self.intake.begin(unacknowledged, ceiling).await? {
            let (meter, prefetch) = (&self.crew.context.meter, self.intake.prefetch());
            meter.prefetch.set(prefetch.into());
            if !meter.consuming.swap(true, Relaxed) {
                tracing::info!(prefetch, "consuming");
            }
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
    /// as to an adopted queue or to that of a preview, they are requeued.
    async fn give_back(
        &mut self,
        mut deliveries: Vec<Delivery>,
        until: tokio::time::Instant,
    ) -> Result<Vec<Delivery>, Lost> {
        if self.crew.origin.by_nack {
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
                self.crew.context.meter.finished(super::meter::Outcome::Returned, 1, now);
            }
            !confirmed
        });
    }
}
