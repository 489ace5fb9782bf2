//! Time of events, per partition: early, late, out of order, the running watermark, and what is counted.

use super::clock;

/// An event further ahead of its arrival than this is dropped: its clock is wrong, and it would drag the watermark along.
pub(crate) const EARLY: i64 = 5 * 60 * drover_crds::query::TICKS_PER_SECOND;

/// What happens beyond a tolerance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// The system time moves to the edge of the tolerance.
    #[default]
    Adjust,
    /// Dropped and counted.
    Drop,
    /// Kept for a person.
    DeadLetter,
}

/// Tolerances, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tolerance {
    /// What happens beyond them.
    pub policy: Policy,
    /// How much later than its time an event may arrive.
    pub late: i64,
    /// How far behind the newest event one may be.
    pub out_of_order: i64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { policy: Policy::Adjust, late: 5 * drover_crds::query::TICKS_PER_SECOND, out_of_order: 0 }
    }
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It counts at its own time.
    OnTime(i64),
    /// It counts at a moved time.
    Adjusted(i64),
    /// It does not count.
    Dropped(Reason),
    /// It goes to the dead letters.
    DeadLetter(Reason),
}

/// Why an event is not on time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Ahead of its arrival by more than 5 minutes.
    Early,
    /// It arrived too late.
    Late,
    /// Behind the watermark.
    OutOfOrder,
}

/// Counters that add up to the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// At their own time.
    pub on_time: u64,
    /// At a moved time.
    pub adjusted: u64,
    /// Dropped.
    pub dropped: u64,
    /// Dead letters.
    pub dead_lettered: u64,
}

/// The time of one partition (or of one key of `TIMESTAMP BY … OVER`).
#[derive(Debug, Clone)]
pub struct Ordering {
    tolerance: Tolerance,
    watermark: i64,
    counters: Counters,
}

impl Ordering {
    /// From a watermark, `i64::MIN` at the beginning.
    #[must_use]
    pub fn new(tolerance: Tolerance, watermark: i64) -> Self {
        Self { tolerance, watermark, counters: Counters::default() }
    }

    /// Nothing earlier than this is to come.
    #[must_use]
    pub fn watermark(&self) -> i64 {
        self.watermark
    }

    /// What has been counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Judges an event and takes it, in the order of offsets.
    pub fn event(&mut self, time: i64, arrival: Option<i64>) -> Verdict {
        let verdict = self.judge(time, arrival);
        self.take(verdict);
        verdict
    }

    /// Counts an event and moves the watermark. One whose evaluation fails is not taken: it leaves no trace.
    pub fn take(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::OnTime(_) => self.counters.on_time += 1,
            Verdict::Adjusted(_) => self.counters.adjusted += 1,
            Verdict::Dropped(_) => self.counters.dropped += 1,
            Verdict::DeadLetter(_) => self.counters.dead_lettered += 1,
        }
        if let Verdict::OnTime(at) | Verdict::Adjusted(at) = verdict {
            self.watermark = self.watermark.max(at.saturating_sub(self.tolerance.out_of_order).max(clock::MIN));
        }
    }

    /// Judges an event by its own time and its arrival, where it has one; nothing changes.
    #[must_use]
    pub fn judge(&self, time: i64, arrival: Option<i64>) -> Verdict {
        let mut moved = time;
        let mut reason = None;
        if let Some(arrival) = arrival {
            if time > arrival.saturating_add(EARLY) {
                return Verdict::Dropped(Reason::Early);
            }
            let edge = arrival.saturating_sub(self.tolerance.late);
            if time < edge {
                moved = edge;
                reason = Some(Reason::Late);
            }
        }
        if moved < self.watermark {
            moved = self.watermark;
            reason = reason.or(Some(Reason::OutOfOrder));
        }
        match (reason, self.tolerance.policy) {
            (None, _) => Verdict::OnTime(time),
            (Some(_), Policy::Adjust) => Verdict::Adjusted(moved),
            (Some(reason), Policy::Drop) => Verdict::Dropped(reason),
            (Some(reason), Policy::DeadLetter) => Verdict::DeadLetter(reason),
        }
    }

    /// A tick that was read back: silence up to then is known.
    pub fn tick(&mut self, time: i64) {
        self.watermark = self.watermark.max(time.saturating_sub(self.tolerance.late));
    }
}
