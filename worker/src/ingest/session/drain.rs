//! How a session stops: for good on shutdown, or for a while, until a sink that was down for long is back.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use lapin::message::Delivery;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    super::{backoff::Backoff, clock, sink::Failure},
    LOOK, Lost, SELF, Session,
};

/// Time kept for what follows the last batch: returns, acknowledgements, and the end of the process.
const MARGIN: Duration = Duration::from_secs(3);
/// Slots that are asked to surrender do so at once; one that does not is given up after this.
const SURRENDER: Duration = Duration::from_secs(2);

/// A hub that sends nothing for so long has nothing to send.
const QUIET: Duration = Duration::from_millis(200);
/// Time to give messages back in, while the sink is waited for.
const RETURN: Duration = Duration::from_secs(20);

impl Session<'_> {
    /// Stops intake, finishes what runs within the grace period, gives back the rest, and acknowledges.
    pub(super) async fn drain(&mut self) -> Result<(), Lost> {
        let grace = self.crew.limits.grace;
        let deadline = Instant::from_std(clock::now() + grace.saturating_sub(MARGIN.min(grace / 2)));
        tracing::info!(held = self.held.len(), unacknowledged = self.acks.unacknowledged(), "draining");
        self.stop_intake().await?;
        // Those that nobody takes in time come again, and are still strays then.
        self.redirect_strays();
        let held = self.held.drain(..).collect();
        self.give_back(held, deadline).await?;
        self.finish_slots(deadline).await;
        let left = self.surrender().await;
        // Half of the margin at most; what is left then comes again with the channel's end.
        let left = self.give_back(left, deadline + MARGIN.min(grace / 2) / 2).await?;
        if !left.is_empty() {
            tracing::warn!(messages = left.len(), "messages could not be given back; they come again");
        }
        self.acknowledge_all().await
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

    /// Acknowledges nothing until the consumer can be sent nothing more: it has used its credit, or nothing came for a while.
    async fn stop_intake(&mut self) -> Result<(), Lost> {
        while self.intake.is_consuming() && !self.is_saturated() {
            let Ok(Some(arrival)) = timeout(QUIET, self.intake.next()).await else { break };
            self.receive(arrival)?;
        }
        self.intake.cancel().await?;
        while let Ok(Some(arrival)) = timeout(LOOK, self.intake.next()).await {
            self.receive(arrival)?;
        }
        Ok(())
    }

    /// Until the deadline, or until only the sink is waited for.
    async fn finish_slots(&mut self, deadline: Instant) {
        while !self.crew.slots.is_empty() && !self.crew.context.holds.any() {
            tokio::select! {
                Some(end) = self.crew.slots.join_next() => self.slot_ended(end),
                Some(finished) = self.finished.recv() => self.finish(&finished, clock::now()),
                () = sleep_until(deadline) => return,
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

    /// The sink has been down for long: gives back everything once, and waits for it without a consumer. Then the session is
    /// over: what the hub sent to the cancelled consumer after all comes again only with another channel.
    pub(super) async fn wait_out(&mut self, shutdown: &CancellationToken) -> Result<(), Lost> {
        self.stop_intake().await?;
        let left = self.surrender().await;
        self.crew.context.holds.merge(SELF);
        tracing::warn!(messages = left.len(), "the sink has been down for long: messages go back to the queue");
        let until = Instant::from_std(clock::now() + RETURN);
        let left = self.give_back(left, until).await?;
        // What cannot go back stays, and is written first.
        self.held.extend(left);
        self.acknowledge_all().await?;
        self.crew.surrender = CancellationToken::new();
        self.await_sink(shutdown).await
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
            let context = &self.crew.context;
            match writer.probe().await {
                Ok(()) => {
                    let there = match &context.handler {
                        Some(handler) => handler.is_there().await,
                        None => true,
                    };
                    if there {
                        return Err(Lost::WaitedOut);
                    }
                    let message = "the handler does not answer";
                    context.holds.enter(SELF, "handler", "HandlerUnreachable", message, clock::now());
                }
                Err(Failure::Hold { reason, message }) => {
                    self.crew.context.holds.enter(SELF, "sink", &reason, &message, clock::now());
                }
                Err(Failure::Content { .. } | Failure::Retry { .. }) => {}
            }
            self.crew.context.meter.consuming.store(true, Relaxed);
        }
    }
}
