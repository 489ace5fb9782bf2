//! One batch on its way: prepared, written, and what is refused dead-lettered. Acknowledges nothing.
//!
//! A batch stays with its slot until each of its messages has come to an end, however long the sink is down, or until it is
//! asked to surrender; then what is left goes back to the session.

mod course;
mod handle;
mod way_out;

use std::{sync::Arc, time::Duration};

use lapin::message::Delivery;
use tokio::{
    sync::mpsc::UnboundedSender,
    time::{error::Elapsed, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Context,
    backoff::Backoff,
    clock,
    halving::Halving,
    meter::Outcome,
    prepare::{Item, Prepared},
    sink::{Attempt, End, Failure, Writer},
    spans::{Spans, Telling},
    suspect::Way,
};
use course::{Course, Judgement, Refusal, ends};

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
    /// Those of them that are not to be worked on here.
    pub(crate) strays: Vec<Delivery>,
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
            let (surrender, probe) = (self.surrender.clone(), timeout(self.writer.patience(), self.writer.probe()));
            let failure = tokio::select! {
                probed = probe => probed.unwrap_or_else(|elapsed| Err(too_slow(&elapsed))).err(),
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
        self.ended(Vec::new(), Vec::new(), Duration::ZERO)
    }

    fn ended(self, left: Vec<Delivery>, strays: Vec<Delivery>, took: Duration) -> SlotEnd {
        SlotEnd { slot: self.number, writer: self.writer, left, strays, took }
    }

    /// Takes a batch to its end.
    pub(crate) async fn run(mut self, batch: Vec<Delivery>) -> SlotEnd {
        let (context, started) = (Arc::clone(&self.context), clock::now());
        context.meter.works(started);
        let mut course = self.course(&batch);
        let end = self.process(&batch, &mut course).await;
        let now = clock::now();
        context.meter.rests(now);
        if end.is_ok() {
            context.meter.batch(batch.len(), now.duration_since(started), self.waited);
        }
        self.ended(course.left(batch), Vec::new(), now.duration_since(started))
    }

    async fn process(&mut self, batch: &[Delivery], course: &mut Course) -> Result<(), Surrendered> {
        let context = Arc::clone(&self.context);
        let prepared = match &context.handler {
            Some(handler) => self.handle(handler, batch, course).await?,
            None => self.prepare(batch, course),
        };
        let mut items: Vec<Item<'_>> = prepared
            .iter()
            .enumerate()
            .filter_map(|(n, prepared)| Some((n, prepared.as_ref()?)))
            .filter_map(|(n, prepared)| course.kept(n, prepared.item(n, &batch[n])))
            .collect();
        let empty = items.iter().filter(|item| item.rows.is_empty()).map(|item| item.message);
        self.finish(batch, course, empty.collect(), Outcome::Filtered);
        self.write(batch, &mut items, course).await?;
        self.relocate(batch, course).await?;
        self.bury(batch, course).await
    }

    fn course(&self, batch: &[Delivery]) -> Course {
        Course::new(batch.len(), Spans::begin(self.context.traces.as_ref(), &self.context.queue, batch))
    }

    fn prepare<'b>(&self, batch: &'b [Delivery], course: &mut Course) -> Vec<Option<Prepared<'b>>> {
        let (arrival, all) = (clock::today(), batch.iter().enumerate());
        all.map(|(n, delivery)| course.kept(n, self.context.preparation.prepare(delivery, arrival))).collect()
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
        for Refusal { message, why, wait, .. } in refusals {
            match wait {
                None => course.reject(message, why),
                Some(at_least) => self.try_later(&batch[message], message, why, at_least, course),
            }
        }
        Ok(())
    }

    async fn write_parts(
        &mut self,
        batch: &[Delivery],
        items: &mut [Item<'_>],
        course: &mut Course,
        halving: &mut Halving,
        refusals: &mut Vec<Refusal>,
    ) -> Result<(), Surrendered> {
        let mut retries = 0;
        while let Some(part) = halving.next() {
            let is_open = |item: &&Item<'_>| !course.ended[item.message] && !refusals.iter().any(|r| r.is_of(item));
            let open: Vec<&Item<'_>> = items[part.clone()].iter().filter(is_open).collect();
            if open.is_empty() {
                halving.settled();
                continue;
            }
            let context = Arc::clone(&self.context);
            let telling = Telling { spans: &course.spans, work: context.work.sink.as_ref() };
            let attempt = self.attempt(&open, telling).await;
            if self.writer.in_doubt() {
                course.doubt(&mut items[part]);
            }
            let Attempt { ends, unknown_fields, failure, unfinished, late } = attempt?;
            self.context.meter.unknown_fields.inc_by(unknown_fields);
            if late {
                halving.late();
            }
            for refusal in self.end(batch, course, ends) {
                let item = items.iter().position(|item| refusal.is_of(item));
                halving.found(item.expect("what the sink says is of one of its items"));
                refusals.push(refusal);
            }
            match failure {
                None if unfinished => self.goes_on(),
                None => {
                    halving.settled();
                    self.goes_on();
                }
                Some(Failure::Content { rejection, likeness }) => {
                    self.goes_on();
                    refusals.extend(halving.refused().map(|item| {
                        let message = items[item].message;
                        Refusal { message, why: rejection, likeness, wait: None }
                    }));
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

    async fn attempt(&mut self, open: &[&Item<'_>], telling: Telling<'_>) -> Result<Attempt, Surrendered> {
        let (surrender, patience) = (self.surrender.clone(), self.writer.patience());
        let attempt = tokio::select! {
            attempt = timeout(patience, self.writer.attempt(open, telling)) => attempt,
            () = surrender.cancelled() => {
                self.writer.abandon();
                return Err(Surrendered);
            }
        };
        Ok(attempt.unwrap_or_else(|elapsed| {
            self.writer.abandon();
            Attempt { failure: Some(too_slow(&elapsed)), late: true, ..Attempt::default() }
        }))
    }

    /// Those that the sink refused, with nothing done about them yet.
    fn end(&self, batch: &[Delivery], course: &mut Course, ends: Vec<(usize, End)>) -> Vec<Refusal> {
        let (mut written, mut repeated, mut refusals) = (Vec::with_capacity(ends.len()), Vec::new(), Vec::new());
        for (message, end) in ends {
            match end {
                End::Written => written.push(message),
                End::Repeated => repeated.push(message),
                End::Rejected(rejection) => course.reject(message, rejection),
                End::Refused { why, likeness } => {
                    refusals.push(Refusal { message, why, likeness, wait: None });
                }
                End::Later { why, likeness, at_least } => {
                    refusals.push(Refusal { message, why, likeness, wait: Some(at_least) });
                }
            }
        }
        self.finish(batch, course, written, Outcome::Written);
        self.finish(batch, course, repeated, Outcome::Repeated);
        refusals
    }

    fn finish(&self, batch: &[Delivery], course: &mut Course, messages: Vec<usize>, outcome: Outcome) {
        if messages.is_empty() {
            return;
        }
        for message in &messages {
            course.ended[*message] = true;
            course.settled[*message] = true;
            course.spans.end(*message, outcome);
        }
        if matches!(outcome, Outcome::Written | Outcome::Repeated | Outcome::Filtered) {
            self.context.guard().good(messages.len() as u64, clock::now());
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
        refusals: &[Refusal],
    ) -> Judgement {
        let mut outage = self.context.outage();
        match before {
            // Where some are taken that were refused before, an outage is over.
            Some(before) if refusals.len() < before => outage.over(),
            Some(_) => {}
            None => outage.record(ends(&self.context.sender, items, course, refusals)),
        }
        if !refusals.is_empty() && outage.endings() != endings {
            return Judgement::Stale;
        }
        match refusals.iter().find(|refusal| outage.is(&refusal.likeness)) {
            None => Judgement::Final,
            // Without the error: it may show a row.
            Some(Refusal { likeness, .. }) => Judgement::Outage {
                message: format!("most messages are refused alike ({likeness}), so the sink is to blame: mend it"),
            },
        }
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

fn too_slow(elapsed: &Elapsed) -> Failure {
    let message = format!("the sink does not answer in time: {elapsed}");
    Failure::Hold { reason: "Timeout".to_owned(), message }
}
