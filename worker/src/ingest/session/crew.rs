//! What outlives a session: slots with their connections to the sink, and what was measured.

use std::sync::Arc;

use tokio::{
    sync::mpsc::{UnboundedSender, unbounded_channel},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::super::{
    Context,
    backoff::Backoff,
    credit::{Limits, Rate},
    sink::Writer,
    slot::{Finished, Slot, SlotEnd},
};

/// What is read, and how.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) queue: String,
    /// Nothing is bound to give messages back by.
    pub(crate) by_nack: bool,
    /// Of the consumer.
    pub(crate) priority: i32,
}

/// What outlives a session.
#[derive(Debug)]
pub(crate) struct Crew {
    pub(crate) context: Arc<Context>,
    pub(crate) limits: Limits,
    pub(crate) origin: Origin,
    /// Slots without a batch.
    pub(super) free: Vec<(usize, Writer)>,
    /// Slots at work.
    pub(super) slots: JoinSet<SlotEnd>,
    pub(super) surrender: CancellationToken,
    pub(super) rate: Rate,
}

impl Crew {
    /// Slots, the first of which looks at once whether the sink is there.
    pub(crate) fn new(context: &Arc<Context>, limits: Limits, origin: Origin) -> Self {
        let mut crew = Self {
            context: Arc::clone(context),
            limits,
            origin,
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

    pub(super) fn slot(&self, number: usize, writer: Writer, finished: UnboundedSender<Finished>) -> Slot {
        Slot {
            context: Arc::clone(&self.context),
            number,
            writer,
            finished,
            surrender: self.surrender.clone(),
            backoff: Backoff::default(),
            waited: false,
        }
    }

    /// Ends all slots, and makes room for new ones. Messages that they had left go back with the channel.
    pub(crate) async fn reset(&mut self) {
        self.surrender.cancel();
        while let Some(end) = self.slots.join_next().await {
            if let Ok(end) = end {
                self.context.meter.ended(end.left.len() + end.strays.len());
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
