//! How a session stops: for good on shutdown, or for a while, until a sink that was down for long is back.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use lapin::message::Delivery;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    super::{backoff::Backoff, clock, sink::Failure},
    LOOK, Lost, SELF, Session,
};

/// Time kept for what follows the last batch: returns, acknowledgements, and the end of the process.
const MARGIN: Duration = Duration::from_secs(3);
/// Slots that are asked to surrender do so at once; one that does not is given up after this.
const SURRENDER: Duration = Duration::from_secs(2);

impl Session<'_> {
    /// Stops intake, finishes what runs within the grace period, gives back the rest, and acknowledges.
    pub(super) async fn drain(&mut self) -> Result<(), Lost> {
        let grace = self.crew.limits.grace;
        let deadline = tokio::time::Instant::from_std(clock::now() + grace.saturating_sub(MARGIN.min(grace / 2)));
        tracing::info!(held = self.held.len(), unacknowledged = self.acks.unacknowledged(), "draining");
        let patience = CancellationToken::new();
        self.stop_intake().await?;
        let held = self.held.drain(..).collect();
        let given_back = self.give_back_by(held, deadline, &patience).await;
        if given_back.is_err() {
            tracing::warn!("the connection was lost while draining: messages that are not done come again");
        }
        self.finish_slots(deadline).await;
        let left: Vec<Delivery> = self.surrender().await;
        // Half of the margin at most; the rest of the messages comes again with the channel's end.
        let end = deadline + MARGIN.min(grace / 2) / 2;
        self.give_back_by(left, end, &patience).await?;
        self.acknowledge_all().await?;
        Ok(())
    }

    async fn give_back_by(
        &mut self,
        deliveries: Vec<Delivery>,
        deadline: tokio::time::Instant,
        patience: &CancellationToken,
    ) -> Result<(), Lost> {
        let given = tokio::time::timeout_at(deadline, self.give_back(deliveries, patience)).await;
        given.unwrap_or(Ok(()))
    }

    async fn acknowledge_all(&mut self) -> Result<(), Lost> {
        self.acknowledge().await?;
        if self.acks.pending() {
            // What is behind a gap is not waited with any more.
            sleep(super::PATIENCE).await;
            self.acknowledge().await?;
        }
        Ok(())
    }

    async fn stop_intake(&mut self) -> Result<(), Lost> {
        self.intake.cancel().await?;
        while let Ok(Some(arrival)) = timeout(LOOK, self.intake.next()).await {
            self.receive(arrival)?;
        }
        Ok(())
    }

    /// Until the deadline, or until only the sink is waited for.
    async fn finish_slots(&mut self, deadline: tokio::time::Instant) {
        while !self.crew.slots.is_empty() && !self.crew.context.holds.any() {
            tokio::select! {
                Some(end) = self.crew.slots.join_next() => self.slot_ended(end),
                Some(finished) = self.finished.recv() => self.finish(&finished, clock::now()),
                () = tokio::time::sleep_until(deadline) => return,
                () = sleep(super::PATIENCE / 2) => {}
            }
            if self.acknowledge().await.is_err() {
                return;
            }
        }
    }

    /// Takes back what slots have not finished.
    async fn surrender(&mut self) -> Vec<Delivery> {
        self.crew.surrender.cancel();
        while let Ok(Some(end)) = timeout(SURRENDER, self.crew.slots.join_next()).await {
            self.slot_ended(end);
        }
        let now = clock::now();
        while let Ok(finished) = self.finished.try_recv() {
            self.finish(&finished, now);
        }
        let left = self.held.drain(..).collect();
        self.tell_held();
        left
    }

    /// The sink has been down for long: gives back everything once, and waits for it without a consumer.
    pub(super) async fn wait_out(&mut self, shutdown: &CancellationToken) -> Result<(), Lost> {
        self.stop_intake().await?;
        let left = self.surrender().await;
        self.crew.context.holds.merge(SELF);
        tracing::warn!(messages = left.len(), "the sink has been down for long: messages go back to the queue");
        self.give_back(left, shutdown).await?;
        self.acknowledge_all().await?;
        self.crew.surrender = CancellationToken::new();
        self.await_sink(shutdown).await?;
        self.crew.context.holds.clear();
        self.crew.context.outage().abandoned();
        self.intake.want(self.crew.limits.start());
        Ok(())
    }

    async fn await_sink(&mut self, shutdown: &CancellationToken) -> Result<(), Lost> {
        let mut backoff = Backoff::default();
        let mut writer = self.crew.context.target.writer();
        loop {
            tokio::select! {
                () = sleep(backoff.next()) => {}
                () = shutdown.cancelled() => return Ok(()),
            }
            if !self.channel.status().connected() {
                return Err(Lost::Cancelled);
            }
            match writer.probe().await {
                Ok(()) => return Ok(()),
                Err(Failure::Hold { reason, message }) => {
                    self.crew.context.holds.enter(SELF, "sink", &reason, &message, clock::now());
                }
                Err(Failure::Content { .. } | Failure::Retry { .. }) => {}
            }
            self.crew.context.meter.consuming.store(true, Relaxed);
        }
    }
}
