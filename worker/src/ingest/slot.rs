//! One batch on its way: prepared, written, and what is refused dead-lettered. Acknowledges nothing.
//!
//! A batch stays with its slot until each of its messages has come to an end, however long the sink is down, or until it is
//! asked to surrender; then what is left goes back to the session.

use std::{mem, sync::Arc, time::Duration};

use lapin::message::Delivery;
use tokio::{sync::mpsc::UnboundedSender, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Context,
    backoff::Backoff,
    clock,
    halving::Halving,
    meter::Outcome,
    outage::Likeness,
    prepare::{Item, Prepared},
    publisher::Receipt,
    reject::Rejection,
    sink::{Attempt, End, Failure, Writer},
};

/// Time for an attempt; after it the connection is given up.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);
/// Tries at once where concurrent work is in the way.
const RETRIES: u32 = 5;

/// Messages whose effect is confirmed.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) tags: Vec<u64>,
    pub(crate) outcome: Outcome,
}

/// A batch's end.
#[derive(Debug)]
pub(crate) struct SlotEnd {
    pub(crate) slot: usize,
    pub(crate) writer: Writer,
    /// Messages that did not come to an end.
    pub(crate) left: Vec<Delivery>,
    /// How long the batch took.
    pub(crate) took: Duration,
}

/// A place for one batch.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) context: Arc<Context>,
    pub(crate) number: usize,
    pub(crate) writer: Writer,
    pub(crate) finished: UnboundedSender<Finished>,
    pub(crate) surrender: CancellationToken,
    pub(crate) backoff: Backoff,
    /// It has waited for the sink.
    pub(crate) waited: bool,
}

/// It was asked to surrender.
struct Surrendered;

impl Slot {
    /// Waits until the sink is there, so that the first message need not.
    pub(crate) async fn warm_up(mut self) -> SlotEnd {
        self.context.meter.works(clock::now());
        loop {
            let (surrender, probe) = (self.surrender.clone(), timeout(ATTEMPT_TIMEOUT, self.writer.probe()));
            let failure = tokio::select! {
                probed = probe => probed.unwrap_or_else(|_| Err(too_slow())).err(),
                () = surrender.cancelled() => break,
            };
            let Some(Failure::Hold { reason, message }) = failure else {
                self.context.holds.leave(self.number);
                break;
            };
            if self.hold("sink", &reason, &message).await.is_err() {
                break;
            }
        }
        self.context.meter.rests(clock::now());
        SlotEnd { slot: self.number, writer: self.writer, left: Vec::new(), took: Duration::ZERO }
    }

    /// Takes a batch to its end.
    pub(crate) async fn run(mut self, batch: Vec<Delivery>) -> SlotEnd {
        let (context, started) = (Arc::clone(&self.context), clock::now());
        context.meter.works(started);
        let mut course = Course::new(batch.len());
        let end = self.process(&batch, &mut course).await;
        let now = clock::now();
        context.meter.rests(now);
        if end.is_ok() {
            context.meter.batch(batch.len(), now.duration_since(started), self.waited);
        }
        SlotEnd { slot: self.number, writer: self.writer, left: course.left(batch), took: now.duration_since(started) }
    }

    async fn process(&mut self, batch: &[Delivery], course: &mut Course) -> Result<(), Surrendered> {
        let arrival = clock::today();
        let prepared: Vec<Option<Prepared<'_>>> = batch
            .iter()
            .enumerate()
            .map(|(n, delivery)| course.kept(n, self.context.preparation.prepare(delivery, arrival)))
            .collect();
        let mut items: Vec<Item<'_>> = prepared
            .iter()
            .enumerate()
            .filter_map(|(n, prepared)| Some((n, prepared.as_ref()?)))
            .filter_map(|(n, prepared)| course.kept(n, prepared.item(n, &batch[n])))
            .collect();
        let empty = items.iter().filter(|item| item.rows.is_empty()).map(|item| item.message);
        self.finish(batch, course, empty.collect(), Outcome::Filtered);
        self.write(batch, &mut items, course).await?;
        self.bury(batch, course).await
    }

    /// Until each message is written or found to be at fault.
    async fn write(
        &mut self,
        batch: &[Delivery],
        items: &mut [Item<'_>],
        course: &mut Course,
    ) -> Result<(), Surrendered> {
        let mut halving = Halving::new(items.len());
        let mut refusals = Vec::new();
        let mut before = None;
        loop {
            let endings = self.context.outage().endings();
            self.write_parts(batch, items, course, &mut halving, &mut refusals).await?;
            match self.judge(endings, before, items, course, &refusals) {
                Judgement::Final => break,
                Judgement::Stale => {}
                Judgement::Outage { message } => self.hold("sink", "MostMessagesRefused", &message).await?,
            }
            before = Some(refusals.len());
            refusals.clear();
            halving.again();
        }
        for (n, rejection, _) in refusals {
            course.reject(items[n].message, rejection);
        }
        Ok(())
    }

    async fn write_parts(
        &mut self,
        batch: &[Delivery],
        items: &mut [Item<'_>],
        course: &mut Course,
        halving: &mut Halving,
        refusals: &mut Vec<(usize, Rejection, Likeness)>,
    ) -> Result<(), Surrendered> {
        let mut retries = 0;
        while let Some(part) = halving.next() {
            let open: Vec<&Item<'_>> = items[part.clone()].iter().filter(|item| !course.ended[item.message]).collect();
            if open.is_empty() {
                halving.settled();
                continue;
            }
            let attempt = self.attempt(&open).await;
            if self.writer.in_doubt() {
                course.doubt(&mut items[part]);
            }
            let Attempt { ends, unknown_fields, failure } = attempt?;
            self.context.meter.unknown_fields.inc_by(unknown_fields);
            self.end(batch, course, ends);
            match failure {
                None => {
                    halving.settled();
                    self.goes_on();
                }
                Some(Failure::Content { rejection, likeness }) => {
                    self.goes_on();
                    refusals.extend(halving.refused().map(|n| (n, rejection, likeness)));
                }
                Some(Failure::Retry { .. }) if retries < RETRIES => retries += 1,
                Some(Failure::Retry { message }) => {
                    retries = 0;
                    self.hold("sink", "Conflict", &message).await?;
                }
                Some(Failure::Hold { reason, message }) => self.hold("sink", &reason, &message).await?,
            }
        }
        Ok(())
    }

    async fn attempt(&mut self, open: &[&Item<'_>]) -> Result<Attempt, Surrendered> {
        let surrender = self.surrender.clone();
        let attempt = tokio::select! {
            attempt = timeout(ATTEMPT_TIMEOUT, self.writer.attempt(open)) => attempt,
            () = surrender.cancelled() => {
                self.writer.abandon();
                return Err(Surrendered);
            }
        };
        Ok(attempt.unwrap_or_else(|_| {
            self.writer.abandon();
            Attempt { failure: Some(too_slow()), ..Attempt::default() }
        }))
    }

    fn end(&self, batch: &[Delivery], course: &mut Course, ends: Vec<(usize, End)>) {
        let (mut written, mut repeated) = (Vec::with_capacity(ends.len()), Vec::new());
        for (message, end) in ends {
            match end {
                End::Written => written.push(message),
                End::Repeated => repeated.push(message),
                End::Rejected(rejection) => course.reject(message, rejection),
            }
        }
        self.finish(batch, course, written, Outcome::Written);
        self.finish(batch, course, repeated, Outcome::Repeated);
    }

    fn finish(&self, batch: &[Delivery], course: &mut Course, messages: Vec<usize>, outcome: Outcome) {
        if messages.is_empty() {
            return;
        }
        for message in &messages {
            course.ended[*message] = true;
            course.settled[*message] = true;
        }
        let tags = messages.into_iter().map(|message| batch[message].delivery_tag).collect();
        // The session may be gone with its channel; then the messages come again.
        let _ = self.finished.send(Finished { tags, outcome });
    }

    /// Whether what was refused is to blame; `before` is how many were in the try before. In one step: an outage may end
    /// at any time.
    fn judge(
        &self,
        endings: u64,
        before: Option<usize>,
        items: &[Item<'_>],
        course: &Course,
        refusals: &[(usize, Rejection, Likeness)],
    ) -> Judgement {
        let mut outage = self.context.outage();
        match before {
            // Where some are taken that were refused before, an outage is over.
            Some(before) if refusals.len() < before => outage.over(),
            Some(_) => {}
            None => outage.record(ends(items, course, refusals)),
        }
        if !refusals.is_empty() && outage.endings() != endings {
            return Judgement::Stale;
        }
        match refusals.iter().find(|(_, _, likeness)| outage.is(likeness)) {
            None => Judgement::Final,
            // Without the error: it may show a row.
            Some((_, _, likeness)) => Judgement::Outage {
                message: format!("most messages are refused alike ({likeness}), so the sink is to blame: mend it"),
            },
        }
    }

    /// Dead-letters what is rejected. A dead letter that no queue takes is waited with, not lost.
    async fn bury(&mut self, batch: &[Delivery], course: &mut Course) -> Result<(), Surrendered> {
        let mut dead = mem::take(&mut course.dead);
        while !dead.is_empty() {
            let letters: Vec<(&Delivery, &Rejection)> = dead.iter().map(|(n, why)| (&batch[*n], why)).collect();
            let context = Arc::clone(&self.context);
            let receipts = tokio::select! {
                receipts = context.dead_letter(&letters) => receipts,
                () = self.surrender.cancelled() => return Err(Surrendered),
            };
            let (reason, message) = match receipts {
                Ok(receipts) => {
                    let mut receipts = receipts.into_iter();
                    dead.retain(|(n, why)| {
                        let confirmed = receipts.next() == Some(Receipt::Confirmed);
                        if confirmed {
                            // Without the error: it may show a row. The letter has it.
                            tracing::info!(stage = why.stage.as_str(), reason = why.reason, "dead-lettered a message");
                            self.context.meter.dead_letter(why.stage.as_str(), why.reason);
                            self.finish(batch, course, vec![*n], Outcome::DeadLettered);
                        }
                        !confirmed
                    });
                    ("DeadLetterRefused", "the dead-letter queue is missing, not bound or full: mend it".to_owned())
                }
                Err(error) => (error.reason(), format!("dead letters cannot be published: {error}")),
            };
            if dead.is_empty() {
                self.goes_on();
            } else {
                self.hold("deadLetter", reason, &message).await?;
            }
        }
        Ok(())
    }

    fn goes_on(&mut self) {
        self.context.holds.leave(self.number);
        self.backoff.reset();
    }

    /// Waits a while, or until another slot goes on.
    async fn hold(&mut self, stage: &'static str, reason: &str, message: &str) -> Result<(), Surrendered> {
        let context = Arc::clone(&self.context);
        self.waited = true;
        context.holds.enter(self.number, stage, reason, message, clock::now());
        context.meter.rests(clock::now());
        let left = context.holds.left();
        let surrendered = tokio::select! {
            () = tokio::time::sleep(self.backoff.next()) => false,
            () = left => false,
            () = self.surrender.cancelled() => true,
        };
        context.meter.works(clock::now());
        if surrendered { Err(Surrendered) } else { Ok(()) }
    }
}

fn too_slow() -> Failure {
    let message = format!("the sink does not answer within {} s", ATTEMPT_TIMEOUT.as_secs());
    Failure::Hold { reason: "Timeout".to_owned(), message }
}

/// What refusals of a batch mean.
enum Judgement {
    /// The messages are to blame.
    Final,
    /// They were refused before an outage's end, and are not to blame before they are refused once more.
    Stale,
    /// The sink is to blame.
    Outage { message: String },
}

/// How far the messages of a batch are.
struct Course {
    /// Written, or found to be at fault.
    ended: Vec<bool>,
    /// To be acknowledged.
    settled: Vec<bool>,
    /// Possibly written, though nothing said so.
    doubted: Vec<bool>,
    dead: Vec<(usize, Rejection)>,
}

impl Course {
    fn new(messages: usize) -> Self {
        let none = vec![false; messages];
        Self { ended: none.clone(), settled: none.clone(), doubted: none, dead: Vec::new() }
    }

    /// A row of an item's id may be its own from now on.
    fn doubt(&mut self, items: &mut [Item<'_>]) {
        for item in items.iter_mut().filter(|item| !self.ended[item.message]) {
            item.first = false;
            self.doubted[item.message] = true;
        }
    }

    /// What did not come to an end. What is possibly written counts as delivered before.
    fn left(self, batch: Vec<Delivery>) -> Vec<Delivery> {
        let states = self.settled.into_iter().zip(self.doubted);
        let open = batch.into_iter().zip(states).filter(|(_, (settled, _))| !settled);
        open.map(|(delivery, (_, doubted))| Delivery { redelivered: delivery.redelivered || doubted, ..delivery })
            .collect()
    }

    fn reject(&mut self, message: usize, rejection: Rejection) {
        self.ended[message] = true;
        self.dead.push((message, rejection));
    }

    fn kept<T>(&mut self, message: usize, result: Result<T, Rejection>) -> Option<T> {
        result.map_err(|rejection| self.reject(message, rejection)).ok()
    }
}

/// What the sink said to each message that it saw, in their order.
fn ends(items: &[Item<'_>], course: &Course, refusals: &[(usize, Rejection, Likeness)]) -> Vec<Option<Likeness>> {
    let likeness =
        |n: usize| refusals.iter().find(|(culprit, ..)| *culprit == n).map(|(_, _, likeness)| likeness.clone());
    let seen = |(n, item): (usize, &Item<'_>)| match likeness(n) {
        None => course.settled[item.message].then_some(None),
        some => Some(some),
    };
    items.iter().enumerate().filter_map(seen).collect()
}
