//! The handler's turn: each message of a batch is sent to it before any is written.

use std::{borrow::Cow, sync::Arc, time::Duration};

use lapin::message::Delivery;

use super::{
    super::{
        clock, envelope,
        handler::{Handler, Verdict},
        meter::Outcome,
        outage::Likeness,
        prepare::Prepared,
        reject::{Class, Rejection},
    },
    Course, Slot, Surrendered,
};

/// What failed in passing waits no longer than this to be sent on, so that it comes back when planned: a twentieth of the
/// shortest wait.
const LINGER: Duration = Duration::from_millis(50);

/// Whose fault a failure is.
enum Blame {
    Message,
    Everybody,
    /// It was told before an outage's end.
    Unclear,
}

/// A message in the handler's turn.
struct Turn<'h> {
    handler: &'h Handler,
    /// Place in the batch.
    message: usize,
    /// Nothing of it has been recorded.
    fresh: bool,
    /// It was held for an outage.
    held: bool,
}

impl Slot {
    pub(super) async fn handle<'b>(
        &mut self,
        handler: &Handler,
        batch: &'b [Delivery],
        course: &mut Course,
    ) -> Result<Vec<Option<Prepared<'b>>>, Surrendered> {
        let (mut prepared, mut since) = (Vec::with_capacity(batch.len()), clock::now());
        for (message, delivery) in batch.iter().enumerate() {
            let fresh = envelope::attempts(&self.context.sender, delivery) == 0;
            let turn = Turn { handler, message, fresh, held: false };
            let identified = self.context.preparation.identify(delivery);
            prepared.push(match course.kept(message, identified) {
                Some(id) => self.handle_one(turn, id, batch, course).await?,
                None => None,
            });
            let now = clock::now();
            if course.moves.is_empty() || now.saturating_duration_since(since) >= LINGER {
                self.relocate(batch, course).await?;
                since = now;
            }
        }
        self.relocate(batch, course).await?;
        Ok(prepared)
    }

    async fn handle_one<'b>(
        &mut self,
        mut turn: Turn<'_>,
        id: Option<Cow<'b, str>>,
        batch: &'b [Delivery],
        course: &mut Course,
    ) -> Result<Option<Prepared<'b>>, Surrendered> {
        let (context, delivery, message) = (Arc::clone(&self.context), &batch[turn.message], turn.message);
        loop {
            let (surrender, endings) = (self.surrender.clone(), context.outage().endings());
            let begin = || course.spans.child(message, &context.work.handler, clock::today());
            let verdict = tokio::select! {
                verdict = turn.handler.call(&context.sender, delivery, id.as_deref(), begin) => verdict,
                () = surrender.cancelled() => return Err(Surrendered),
            };
            context.meter.moves_on(clock::now());
            match verdict {
                Verdict::Passed(body) => {
                    self.went_well(&turn);
                    return Ok(course.kept(message, context.preparation.passed(delivery, id, body.as_deref())));
                }
                Verdict::Dropped => {
                    self.went_well(&turn);
                    self.finish(batch, course, vec![message], Outcome::Filtered);
                    return Ok(None);
                }
                Verdict::Refused { why, likeness } => {
                    if self.is_to_blame(&mut turn, &likeness, endings).await? {
                        course.reject(message, why);
                        return Ok(None);
                    }
                }
                Verdict::Later { why, likeness, at_least } => {
                    if self.is_to_blame(&mut turn, &likeness, endings).await? {
                        self.try_later(delivery, message, why, at_least, course);
                        return Ok(None);
                    }
                }
                Verdict::Absent(error) => {
                    let why = format!("the handler cannot be reached: {error}");
                    self.hold("handler", "HandlerUnreachable", &why).await?;
                }
                Verdict::Died { exit } => {
                    self.suspect(delivery, message, exit, course);
                    self.relocate(batch, course).await?;
                    self.bury(batch, course).await?;
                    self.await_handler(turn.handler).await?;
                    return Ok(None);
                }
            }
        }
    }

    fn went_well(&mut self, turn: &Turn<'_>) {
        let mut outage = self.context.outage();
        if turn.held {
            outage.over();
        } else {
            outage.record([None]);
        }
        drop(outage);
        self.goes_on();
    }

    /// Whether the message itself is to blame for a failure; where it is not, a while has passed.
    async fn is_to_blame(
        &mut self,
        turn: &mut Turn<'_>,
        likeness: &Likeness,
        endings: u64,
    ) -> Result<bool, Surrendered> {
        let blame = self.blame(turn.fresh, likeness, endings);
        turn.fresh &= matches!(blame, Blame::Unclear);
        match blame {
            Blame::Message => self.goes_on(),
            Blame::Unclear => {}
            Blame::Everybody => {
                turn.held = true;
                let why = format!(
                    "most messages fail alike ({likeness}), so the handler or what it needs is to blame: mend it"
                );
                self.hold("handler", "MostMessagesFail", &why).await?;
            }
        }
        Ok(matches!(blame, Blame::Message))
    }

    /// In one step: an outage may end at any time.
    fn blame(&self, fresh: bool, likeness: &Likeness, endings: u64) -> Blame {
        let mut outage = self.context.outage();
        if outage.endings() != endings {
            return Blame::Unclear;
        }
        if fresh {
            outage.record([Some(likeness.clone())]);
        }
        if outage.is(likeness) { Blame::Everybody } else { Blame::Message }
    }

    /// It was in flight when the handler died. Where nobody takes suspects it is tried again as what fails in passing is.
    fn suspect(&self, delivery: &Delivery, message: usize, exit: String, course: &mut Course) {
        let suspicion = &self.context.suspicion;
        tracing::warn!("a message was in flight when the handler died: {exit}");
        if self.context.preview.is_some() {
            course.reject(message, Rejection { class: Class::Killer, ..Rejection::transform("HandlerDied", exit) });
        } else if suspicion.active {
            self.context.meter.failed(Class::Killer, 1);
            course.transfer(message, suspicion.suspect(Some(exit)));
        } else {
            self.try_later(delivery, message, Rejection::transform("HandlerDied", exit), 0, course);
        }
    }

    async fn await_handler(&mut self, handler: &Handler) -> Result<(), Surrendered> {
        loop {
            let surrender = self.surrender.clone();
            let there = tokio::select! {
                there = handler.is_there() => there,
                () = surrender.cancelled() => return Err(Surrendered),
            };
            if there {
                self.goes_on();
                return Ok(());
            }
            self.hold("handler", "HandlerDied", "the handler died or hangs, and is waited for").await?;
        }
    }
}
