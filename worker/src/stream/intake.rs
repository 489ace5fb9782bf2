//! Messages become a batch: partial aggregates in the engine, rows of steps without windows, dead letters and counts. Pure.

use crate::query::{Counters, DataError, Decoder, Engine, Event, OutputRow, Reason, Verdict, key, step::MAX_KEY};

use super::{
    message::{Message, event_text},
    time::Time,
};

/// Bits of an event's position that are its place in its message; a message of more events has them at one place.
const INDEX_BITS: u32 = 20;

/// What is kept for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeadLetter {
    /// Where it was read; none for a row of a window.
    pub(crate) at: Option<(i32, i64)>,
    pub(crate) message_id: Option<String>,
    pub(crate) stage: &'static str,
    /// In `CamelCase`.
    pub(crate) reason: &'static str,
    pub(crate) error: String,
    pub(crate) body: Vec<u8>,
}

/// A row for an output, and what it was made of: the same once more if that is done again.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) row: OutputRow,
    pub(crate) origin: String,
}

/// What is committed at once.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
    /// The last message's tag.
    pub(crate) tag: u64,
    /// The offset after the last message.
    pub(crate) next: Option<i64>,
    /// Messages that say nothing of their arrival.
    pub(crate) without_arrival: i64,
    pub(crate) max_event_time: Option<i64>,
    /// Arrival of the newest message, or the clock of the newest tick.
    pub(crate) read_at: Option<i64>,
    /// Events or offsets that were passed over because they end workers.
    pub(crate) skipped: i64,
    pub(crate) rows: Vec<Made>,
    pub(crate) dead: Vec<DeadLetter>,
}

impl Batch {
    fn pass(&mut self, message: &Message) {
        self.messages += 1;
        self.bytes += message.body.len();
        self.tag = message.tag;
        self.next = Some(message.offset + 1);
    }
}

/// One partition's reading of messages.
#[derive(Debug)]
pub(crate) struct Intake {
    part: i32,
    decoder: Decoder,
    pub(crate) engine: Engine,
    pub(crate) time: Time,
}

impl Intake {
    pub(crate) fn new(part: i32, decoder: Decoder, engine: Engine, time: Time) -> Self {
        Self { part, decoder, engine, time }
    }

    /// Takes a message; `now` is the reader's clock.
    pub(crate) fn take(&mut self, message: &Message, now: i64, batch: &mut Batch) {
        batch.pass(message);
        if message.probe.is_some() {
            return;
        }
        if let Some(tick) = message.tick {
            self.time.tick(tick);
            batch.read_at = batch.read_at.max(Some(tick));
            return;
        }
        batch.read_at = batch.read_at.max(Some(message.arrival.unwrap_or(now)));
        batch.without_arrival += i64::from(message.arrival.is_none());
        match self.decoder.message(&message.body) {
            Ok(events) => {
                for (index, event) in events.iter().enumerate() {
                    self.event(message, index, event, now, batch);
                }
            }
            Err(error) => self.reject(message, None, "decode", "Undecodable", error.to_string(), batch),
        }
    }

    /// Passes over a message that ends workers, without a look at its body.
    pub(crate) fn skip(&mut self, message: &Message, starts: i32, batch: &mut Batch) {
        batch.pass(message);
        batch.skipped += 1;
        let why = format!("the worker ended {starts} times while this message alone was being worked on");
        self.reject(message, None, "decode", "EndsWorkers", why, batch);
    }

    fn reject(
        &mut self,
        message: &Message,
        index: Option<usize>,
        stage: &'static str,
        reason: &'static str,
        error: String,
        batch: &mut Batch,
    ) {
        self.time.reject();
        let dead = self.dead_letter(message, index, stage, reason, error);
        batch.dead.push(dead);
    }

    fn dead_letter(
        &self,
        message: &Message,
        index: Option<usize>,
        stage: &'static str,
        reason: &'static str,
        error: String,
    ) -> DeadLetter {
        let body = index.map_or(&message.body[..], |index| event_text(&message.body, index)).to_vec();
        let at = Some((self.part, message.offset));
        DeadLetter { at, message_id: message.id.clone(), stage, reason, error, body }
    }

    fn event(&mut self, message: &Message, index: usize, event: &Event, now: i64, batch: &mut Batch) {
        match self.try_event(message, index, event, now, batch) {
            Ok(None) => {}
            Ok(Some(reason)) => {
                let (reason, error) = described(reason);
                let dead = self.dead_letter(message, Some(index), "time", reason, error.to_owned());
                batch.dead.push(dead);
            }
            Err((reason, error)) => self.reject(message, Some(index), "transform", reason, error, batch),
        }
    }

    /// Orders and takes an event; a reason where the policy makes it a dead letter.
    fn try_event(
        &mut self,
        message: &Message,
        index: usize,
        event: &Event,
        now: i64,
        batch: &mut Batch,
    ) -> Result<Option<Reason>, (&'static str, String)> {
        let wrong = |error: DataError| ("InvalidEvent", error.to_string());
        let time = self.engine.time_of(event).map_err(wrong)?.or(message.arrival);
        let time = time.ok_or_else(|| ("NoArrival", "the message says nothing of its arrival".to_owned()))?;
        let key = self.engine.substream_of(event).map_err(wrong)?;
        if key.len() > MAX_KEY {
            return Err(("KeyTooLong", format!("the values of OVER have {} bytes; at most {MAX_KEY} do", key.len())));
        }
        if let Some(arrival) = message.arrival {
            self.time.arrived(arrival);
        }
        let verdict = self.time.judge(&key, time, message.arrival, now);
        let reason = match verdict {
            Verdict::OnTime(at) | Verdict::Adjusted(at) => {
                let mut rows = Vec::new();
                self.engine.push(event, at, position(message.offset, index), &mut rows).map_err(wrong)?;
                let origin = || format!("{}/{}/{index}", self.part, message.offset);
                batch.rows.extend(rows.into_iter().map(|row| Made { row, origin: origin() }));
                batch.max_event_time = batch.max_event_time.max(Some(at));
                None
            }
            Verdict::Dropped(_) => None,
            Verdict::DeadLetter(reason) => Some(reason),
        };
        self.time.take(key, verdict);
        Ok(reason)
    }

    /// What was counted since this was asked last, and the times of OVER that moved.
    pub(crate) fn settle(&mut self) -> (Counters, Vec<(Vec<u8>, i64)>) {
        self.time.settle()
    }
}

/// The place of an event in its partition.
fn position(offset: i64, index: usize) -> u64 {
    let most = (1 << INDEX_BITS) - 1;
    offset.cast_unsigned() << INDEX_BITS | u64::try_from(index).unwrap_or(most).min(most)
}

fn described(reason: Reason) -> (&'static str, &'static str) {
    match reason {
        Reason::Early => ("Early", "its time is more than 5 minutes after its arrival"),
        Reason::Late => ("Late", "it arrived later after its time than ordering.lateArrivalSeconds"),
        Reason::OutOfOrder => {
            ("OutOfOrder", "its time is further behind an earlier event's than ordering.outOfOrderSeconds")
        }
    }
}

/// A group's key as JSON.
pub(crate) fn key_text(bytes: &[u8]) -> String {
    let mut reader = key::Reader::new(bytes);
    let mut values = Vec::new();
    while !reader.is_empty()
        && let Some(value) = reader.value()
    {
        values.push(value);
    }
    serde_json::to_string(&values).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use drover_crds::query::parse;

    use super::*;
    use crate::query::{Policy, Tolerance};

    const SECOND: i64 = 10_000_000;

    fn intake(query: &str, policy: Policy) -> Intake {
        let plan = parse(query).unwrap();
        let tolerance = Tolerance { policy, late: 5 * SECOND, out_of_order: 0 };
        Intake::new(0, Decoder::new(&plan, None), Engine::new(&plan), Time::new(tolerance, i64::MIN, None))
    }

    fn message(offset: i64, arrival: Option<i64>, body: &str) -> Message {
        let body = body.as_bytes().to_vec();
        Message { offset, tag: 1, body, id: None, arrival: arrival.map(|s| s * SECOND), tick: None, probe: None }
    }

    const BY_TIME: &str = "SELECT COUNT(*) AS c FROM input TIMESTAMP BY DATEADD(second, t, '1970-01-01') GROUP BY TUMBLINGWINDOW(second, 10)";

    #[test]
    fn every_event_is_counted_once() {
        let mut intake = intake(BY_TIME, Policy::DeadLetter);
        let mut batch = Batch::default();
        intake.take(&message(7, Some(20), r#"[{"t":20},{"t":3},{"t":19},{"t":"x"},{"t":900}]"#), 0, &mut batch);
        intake.take(&message(9, Some(20), "{"), 0, &mut batch);
        let (c, _) = intake.settle();
        assert_eq!((c.on_time, c.adjusted, c.dropped, c.dead_lettered), (1, 0, 1, 4));
        let reasons: Vec<&str> = batch.dead.iter().map(|d| d.reason).collect();
        assert_eq!(reasons, ["Late", "OutOfOrder", "InvalidEvent", "Undecodable"]);
        assert_eq!(batch.dead[1].body, br#"{"t":19}"#);
        assert_eq!((batch.next, batch.messages), (Some(10), 2));
    }

    #[test]
    fn an_event_in_error_moves_no_time() {
        let query = "SELECT SUM(10 / x) AS c FROM input TIMESTAMP BY DATEADD(second, t, '1970-01-01') GROUP BY TUMBLINGWINDOW(second, 10)";
        let mut intake = intake(query, Policy::Adjust);
        intake.take(&message(0, Some(20), r#"{"t":20,"x":0}"#), 0, &mut Batch::default());
        assert_eq!(intake.time.watermark(), i64::MIN);
        intake.take(&message(1, Some(20), r#"{"t":18,"x":1}"#), 0, &mut Batch::default());
        assert_eq!(intake.time.watermark(), 18 * SECOND);
    }

    #[test]
    fn without_timestamp_by_a_message_without_an_arrival_is_a_dead_letter() {
        let mut intake = intake("SELECT COUNT(*) AS c FROM input GROUP BY TUMBLINGWINDOW(second, 10)", Policy::Adjust);
        let mut batch = Batch::default();
        intake.take(&message(0, None, "{}"), 99 * SECOND, &mut batch);
        intake.take(&message(1, Some(3), "{}"), 99 * SECOND, &mut batch);
        assert_eq!(batch.dead[0].reason, "NoArrival");
        assert_eq!((batch.dead.len(), intake.time.watermark()), (1, 3 * SECOND));
    }

    #[test]
    fn a_key_that_no_index_takes_is_a_dead_letter() {
        let query = "SELECT k, COUNT(*) AS c FROM input GROUP BY k, TUMBLINGWINDOW(second, 10)";
        let mut intake = intake(query, Policy::Adjust);
        let mut batch = Batch::default();
        intake.take(&message(0, Some(3), &format!(r#"{{"k":"{}"}}"#, "x".repeat(2_000))), 0, &mut batch);
        assert_eq!(batch.dead[0].reason, "InvalidEvent");
        assert_eq!(intake.engine.open(), 0);
    }
}
