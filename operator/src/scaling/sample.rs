//! What was seen at one moment. Data only; what is not known is `None`, never zero.

use drover_worker::status::BatchSums;

/// One look at a queue and at those who work on it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    /// When, in seconds of a clock that does not go back.
    pub at: f64,
    /// The queue; `None` where it could not be read.
    pub depth: Option<Depth>,
    /// Replicas that are asked for now.
    pub replicas: u32,
    /// The revision whose rate counts.
    pub revision: String,
    /// Workers, where they were asked at this moment; an empty list says that there are none.
    pub workers: Option<Vec<Worker>>,
    /// Workers that run and did not answer: what they hold is not known.
    pub silent: u32,
}

/// A queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Messages that nobody has.
    pub ready: u64,
    /// Consumers.
    pub consumers: u64,
}

impl Depth {
    /// A quorum queue without a leader answers 0 messages and 0 consumers: with fewer consumers than are known to be attached, no
    /// messages is no fact.
    #[must_use]
    pub fn is_fact(&self, attached: u64) -> bool {
        self.ready > 0 || self.consumers >= attached
    }
}

/// A worker; its counters begin with its process.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Worker {
    /// Name of its pod.
    pub id: String,
    /// Its revision.
    pub revision: String,
    /// Differs from one process in this pod to the next.
    pub started: u64,
    /// It has a consumer at the hub.
    pub attached: bool,
    /// Its sink takes nothing; it waits.
    pub holding: bool,
    /// Messages done with, dead-lettered ones among them.
    pub finished: u64,
    /// Seconds in which it was busy.
    pub busy: f64,
    /// Messages that it works on.
    pub in_flight: u64,
    /// Messages that it has received and not started.
    pub held: u64,
    /// Its batches, where it tells of them.
    pub batches: Option<Batches>,
}

impl Worker {
    /// Messages that it has and has not acknowledged.
    #[must_use]
    pub fn unacked(&self) -> u64 {
        self.in_flight.saturating_add(self.held)
    }
}

/// Fewer batches tell nothing of their cost.
const FEW: f64 = 8.0;

/// Sums over the batches that a worker has finished, from which their cost is fitted as a + b·rows.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Batches {
    /// Batches.
    pub count: f64,
    /// Rows.
    pub rows: f64,
    /// Seconds that each took.
    pub seconds: f64,
    /// Rows times seconds of each.
    pub rows_seconds: f64,
    /// Rows of each, squared.
    pub rows_squared: f64,
    /// Most rows of a batch.
    pub full: f64,
    /// Batches at the same time.
    pub lanes: f64,
}

impl From<BatchSums> for Batches {
    fn from(b: BatchSums) -> Self {
        Self {
            count: b.count,
            rows: b.messages,
            seconds: b.seconds,
            rows_seconds: b.messages_seconds,
            rows_squared: b.messages_squared,
            full: b.full,
            lanes: b.lanes,
        }
    }
}

impl Batches {
    /// What was added since `before`; `full` and `lanes` as they are now.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let grown = |now: f64, before: f64| if now.is_finite() { (now - before).max(0.0) } else { 0.0 };
        Self {
            count: grown(self.count, before.count),
            rows: grown(self.rows, before.rows),
            seconds: grown(self.seconds, before.seconds),
            rows_seconds: grown(self.rows_seconds, before.rows_seconds),
            rows_squared: grown(self.rows_squared, before.rows_squared),
            ..*self
        }
    }

    pub(crate) fn add(&mut self, more: &Self) {
        self.count += more.count;
        self.rows += more.rows;
        self.seconds += more.seconds;
        self.rows_seconds += more.rows_seconds;
        self.rows_squared += more.rows_squared;
        self.full = more.full;
        self.lanes = more.lanes;
    }

    pub(super) fn fade(&mut self, factor: f64) {
        for sum in [&mut self.count, &mut self.rows, &mut self.seconds, &mut self.rows_seconds, &mut self.rows_squared]
        {
            *sum *= factor;
        }
    }

    /// Rows per second with all lanes full, from the cost of a batch fitted as a + b·rows; `None` where batches were all alike, so that
    /// nothing tells a from b.
    pub(super) fn full_rate(&self) -> Option<f64> {
        let usable = self.full >= 1.0 && self.lanes >= 1.0;
        let (base, slope) = self.cost().filter(|_| usable)?;
        let cost = base + slope * self.full;
        (cost > 0.0).then(|| self.lanes * self.full / cost).filter(|r| r.is_finite())
    }

    /// Seconds that these batches take for each that those of another would take, at what a batch of the other costs; `None` while either
    /// has too few.
    pub(crate) fn pace(&self, other: &Self) -> Option<f64> {
        if self.count < FEW || other.count < FEW {
            return None;
        }
        let (base, slope) = other.cost().unwrap_or((other.seconds / other.count, 0.0));
        let expected = base * self.count + slope * self.rows;
        (expected > 0.0).then(|| self.seconds / expected).filter(|pace| pace.is_finite())
    }

    /// What a batch costs, as a and b of a + b·rows, in seconds.
    fn cost(&self) -> Option<(f64, f64)> {
        let spread = self.count * self.rows_squared - self.rows * self.rows;
        if self.count < FEW || self.seconds <= 0.0 || spread <= 0.01 * self.rows * self.rows {
            return None;
        }
        let slope = (self.count * self.rows_seconds - self.rows * self.seconds) / spread;
        let (mean_rows, mean_seconds) = (self.rows / self.count, self.seconds / self.count);
        // Neither can be negative: noise is put where it does least harm.
        let slope = slope.clamp(0.0, mean_seconds / mean_rows);
        Some((mean_seconds - slope * mean_rows, slope))
    }
}
