//! How messages leave a batch other than by the sink: to the dead letters, or to another queue of the pipeline. What no queue takes
//! is waited with, not lost.

use std::{mem, sync::Arc, time::Duration};

use lapin::message::Delivery;

use super::{
    super::{
        clock,
        context::Context,
        envelope::Mark,
        meter::Outcome,
        publisher::{PublishError, Receipt},
        reject::Rejection,
    },
    Course, Slot, SlotEnd, Surrendered, Way,
};

/// Time for a confirm after a surrender: less than a session waits for slots that surrender.
const LAST_WORD: Duration = Duration::from_secs(1);

impl Slot {
    /// Sends on what is not to be worked on here.
    pub(crate) async fn redirect(mut self, strays: Vec<Delivery>) -> SlotEnd {
        let (context, started) = (Arc::clone(&self.context), clock::now());
        context.meter.works(started);
        let mut course = self.course(&strays);
        for (message, way) in self.ways(&strays).await.into_iter().enumerate() {
            Self::send(message, way, &mut course);
        }
        // What is left after a surrender is a stray again.
        if self.relocate(&strays, &mut course).await.is_ok() {
            let _ = self.bury(&strays, &mut course).await;
        }
        let now = clock::now();
        context.meter.rests(now);
        self.ended(Vec::new(), course.left(strays), now.duration_since(started))
    }

    /// Where they go. A killer is there for some time longer if nobody has said yet how a container ended.
    async fn ways(&self, strays: &[Delivery]) -> Vec<Way> {
        let Context { sender, suspicion, .. } = &*self.context;
        let ways = |exit: Option<&str>| -> Vec<Way> {
            strays.iter().map(|delivery| suspicion.way(sender, delivery, exit)).collect()
        };
        let known = self.context.last_exit();
        let at_once = ways(known.as_deref());
        if known.is_some() || !at_once.iter().any(|way| matches!(way, Way::Dead(_))) {
            return at_once;
        }
        tokio::select! {
            exit = self.context.awaited_exit() => ways(exit.as_deref()),
            () = self.surrender.cancelled() => ways(self.context.last_exit().as_deref()),
        }
    }

    fn send(message: usize, way: Way, course: &mut Course) {
        match way {
            Way::Process => {}
            Way::Transfer(transfer) => course.transfer(message, transfer),
            Way::Dead(why) => course.reject(message, why),
        }
    }

    /// What is published and given back too is there twice, so a confirm that is on its way is waited for.
    async fn given_up(&self) {
        self.surrender.cancelled().await;
        tokio::time::sleep(LAST_WORD).await;
    }

    /// It failed in passing.
    pub(super) fn try_later(
        &self,
        delivery: &Delivery,
        message: usize,
        why: Rejection,
        at_least: u32,
        course: &mut Course,
    ) {
        let way = self.context.suspicion.failed(&self.context.sender, delivery, why, at_least);
        Self::send(message, way, course);
    }

    /// Publishes what goes to other queues of the pipeline.
    pub(super) async fn relocate(&mut self, batch: &[Delivery], course: &mut Course) -> Result<(), Surrendered> {
        let mut moves = mem::take(&mut course.moves);
        while !moves.is_empty() {
            let trace = |n: usize| course.spans.lasting(n, &batch[n]);
            let outgoing: Vec<_> = moves.iter().map(|(n, to)| (&batch[*n], to, trace(*n))).collect();
            let context = Arc::clone(&self.context);
            let receipts = tokio::select! {
                receipts = context.transfer(&outgoing) => receipts,
                () = self.given_up() => return Err(Surrendered),
            };
            let trouble = trouble(&receipts, "a queue that it needs is missing, not bound or full: mend it");
            let mut receipts = receipts.unwrap_or_default().into_iter();
            moves.retain(|(n, to)| {
                let confirmed = receipts.next() == Some(Receipt::Confirmed);
                if confirmed {
                    if let Mark::Failed { reason, .. } = &to.mark {
                        course.spans.fails(*n, reason);
                    }
                    self.finish(batch, course, vec![*n], outcome(&to.mark));
                }
                !confirmed
            });
            match moves.first() {
                None => self.goes_on(),
                Some((_, to)) => {
                    let (stage, (reason, message)) = (stage(&to.mark), trouble);
                    self.hold(stage, reason, &format!("{}: {message}", to.key)).await?;
                }
            }
        }
        Ok(())
    }

    /// Dead-letters what is rejected, unless that is a flood.
    pub(super) async fn bury(&mut self, batch: &[Delivery], course: &mut Course) -> Result<(), Surrendered> {
        let (mut dead, mut admitted) = (mem::take(&mut course.dead), 0);
        while !dead.is_empty() {
            if admitted == 0 {
                admitted = self.context.admit(dead.len());
            }
            if admitted == 0 {
                let message = "far more messages than usual are unfit, so the source stops rather than empties: mend the sender or the transform";
                self.hold("deadLetter", "TooManyDeadLetters", message).await?;
                continue;
            }
            let letters: Vec<(&Delivery, &Rejection)> =
                dead.iter().take(admitted).map(|(n, why)| (&batch[*n], why)).collect();
            let context = Arc::clone(&self.context);
            let receipts = tokio::select! {
                receipts = context.dead_letter(&letters) => receipts,
                () = self.given_up() => return Err(Surrendered),
            };
            let (reason, message) = trouble(&receipts, "the dead-letter queue is missing, not bound or full: mend it");
            let before = dead.len();
            let mut receipts = receipts.unwrap_or_default().into_iter();
            dead.retain(|(n, why)| {
                let confirmed = receipts.next() == Some(Receipt::Confirmed);
                if confirmed {
                    // Without the error: it may show a row. The letter has it.
                    let (stage, preview) = (why.stage.as_str(), self.context.preview.is_some());
                    tracing::info!(stage, reason = why.reason, preview, "dead-lettered a message");
                    self.context.meter.dead_letter(why);
                    course.spans.fails(*n, why.reason);
                    self.finish(batch, course, vec![*n], Outcome::DeadLettered);
                }
                !confirmed
            });
            admitted -= before - dead.len();
            if dead.is_empty() {
                self.goes_on();
            } else if admitted > 0 {
                self.hold("deadLetter", reason, &message).await?;
            }
        }
        Ok(())
    }
}

/// What is the matter where not everything was confirmed.
fn trouble(receipts: &Result<Vec<Receipt>, PublishError>, refused: &str) -> (&'static str, String) {
    match receipts {
        Ok(_) => ("DeadLetterRefused", refused.to_owned()),
        Err(error) => (error.reason(), format!("it cannot be published: {error}")),
    }
}

fn outcome(mark: &Mark) -> Outcome {
    match mark {
        Mark::Suspect { .. } => Outcome::Suspected,
        Mark::Start { .. } => Outcome::Started,
        Mark::Failed { .. } => Outcome::Delayed,
    }
}

fn stage(mark: &Mark) -> &'static str {
    match mark {
        Mark::Suspect { .. } | Mark::Start { .. } => "suspects",
        Mark::Failed { .. } => "delay",
    }
}
