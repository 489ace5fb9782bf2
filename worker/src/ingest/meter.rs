//! What a worker counts, for `/metrics`, `/status` and `/healthz`.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use super::{
    clock,
    holds::Holds,
    reject::{Class, Rejection},
    status,
};
use crate::traces::Counts;

/// A sink that is up and finishes nothing for so long while work is in flight means a worker that is stuck: twice the time
/// an attempt may take.
const STUCK: Duration = Duration::from_mins(1);

/// A number of messages of one batch.
fn real(messages: usize) -> f64 {
    f64::from(u32::try_from(messages).unwrap_or(u32::MAX))
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Written,
    Repeated,
    /// The transform left nothing of it.
    Filtered,
    DeadLettered,
    Returned,
    /// It goes to suspects.
    Suspected,
    /// Its start at the last step is written down.
    Started,
    /// It waits to be tried again.
    Delayed,
}

impl Outcome {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Repeated => "repeated",
            Self::Filtered => "filtered",
            Self::DeadLettered => "dead_lettered",
            Self::Returned => "returned",
            Self::Suspected => "suspected",
            Self::Started => "started_alone",
            Self::Delayed => "delayed",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassLabel {
    class: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    stage: &'static str,
    reason: &'static str,
}

/// Counters and gauges of a worker.
#[derive(Debug)]
pub(crate) struct Meter {
    registry: Registry,
    messages: Family<OutcomeLabel, Counter>,
    dead_letters: Family<ReasonLabel, Counter>,
    failures: Family<ClassLabel, Counter>,
    pub(crate) skipped: Counter,
    pub(crate) unknown_fields: Counter,
    pub(crate) reconnects: Counter,
    spans: Family<OutcomeLabel, Counter>,
    pub(crate) batch_messages: Histogram,
    batch_seconds: Histogram,
    pub(crate) prefetch: Gauge,
    in_flight_gauge: Gauge,
    held_gauge: Gauge,
    holding_gauge: Gauge,
    busy_counter: Counter<f64>,
    pub(crate) connected: AtomicBool,
    pub(crate) consuming: AtomicBool,
    in_flight: AtomicI64,
    pub(crate) held: AtomicU64,
    processed: AtomicU64,
    dead_lettered: AtomicU64,
    suspected: AtomicU64,
    delayed: AtomicU64,
    started_alone: AtomicU64,
    stuck: Duration,
    work: Mutex<Work>,
    sums: Mutex<status::BatchSums>,
    started_seconds: u64,
}

#[derive(Debug)]
struct Work {
    batches: usize,
    since: Instant,
    busy: Duration,
    progress: Instant,
}

impl Meter {
    /// `longest` is the time that a handler may take for a message.
    pub(crate) fn new(longest: Option<Duration>) -> Self {
        let now = clock::now();
        let mut registry = Registry::with_prefix("drover_worker");
        let meter = Self {
            messages: Family::default(),
            dead_letters: Family::default(),
            failures: Family::default(),
            skipped: Counter::default(),
            unknown_fields: Counter::default(),
            reconnects: Counter::default(),
            spans: Family::default(),
            batch_messages: Histogram::new(exponential_buckets(1.0, 2.0, 11)),
            batch_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
            prefetch: Gauge::default(),
            in_flight_gauge: Gauge::default(),
            held_gauge: Gauge::default(),
            holding_gauge: Gauge::default(),
            busy_counter: Counter::default(),
            connected: AtomicBool::new(false),
            consuming: AtomicBool::new(false),
            in_flight: AtomicI64::new(0),
            held: AtomicU64::new(0),
            processed: AtomicU64::new(0),
            dead_lettered: AtomicU64::new(0),
            sums: Mutex::default(),
            suspected: AtomicU64::new(0),
            delayed: AtomicU64::new(0),
            started_alone: AtomicU64::new(0),
            stuck: STUCK.max(longest.unwrap_or_default() * 2),
            work: Mutex::new(Work { batches: 0, since: now, busy: Duration::ZERO, progress: now }),
            started_seconds: u64::try_from(clock::today().as_second()).unwrap_or(0),
            registry: Registry::default(),
        };
        registry.register("messages", "Messages that came to an end, by what became of them", meter.messages.clone());
        registry.register("dead_letters", "Messages dead-lettered, by stage and reason", meter.dead_letters.clone());
        registry.register("failures", "Messages that failed here, each try, by whose fault", meter.failures.clone());
        registry.register("skipped", "Copies that a preview left alone", meter.skipped.clone());
        registry.register("unknown_fields", "Fields that no column takes, ignored", meter.unknown_fields.clone());
        registry.register(
            "hub_reconnects",
            "Connections to the hub that were lost or failed",
            meter.reconnects.clone(),
        );
        registry.register("spans", "Spans for the collector of traces, by what became of them", meter.spans.clone());
        registry.register("batch_messages", "Messages of a batch", meter.batch_messages.clone());
        registry.register_with_unit(
            "batch_duration",
            "Time from a batch's start to its end",
            Unit::Seconds,
            meter.batch_seconds.clone(),
        );
        registry.register("prefetch", "Messages that the hub may send ahead", meter.prefetch.clone());
        registry.register("in_flight", "Messages that are being written", meter.in_flight_gauge.clone());
        registry.register("held", "Messages received and not started", meter.held_gauge.clone());
        registry.register("holding", "1 while the sink takes nothing", meter.holding_gauge.clone());
        registry.register_with_unit(
            "busy",
            "Time in which at least one batch was being written",
            Unit::Seconds,
            meter.busy_counter.clone(),
        );
        Self { registry, ..meter }
    }

    /// Counts what becomes of spans.
    pub(crate) fn spans(&self) -> Counts {
        let of = |outcome| self.spans.get_or_create(&OutcomeLabel { outcome }).clone();
        Counts { exported: of("exported"), failed: of("failed"), dropped: of("dropped") }
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sums(&self) -> MutexGuard<'_, status::BatchSums> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How large batches may be, and how many at the same time.
    pub(crate) fn capacity(&self, full: usize, lanes: u16) {
        let mut sums = self.sums();
        (sums.full, sums.lanes) = (real(full), f64::from(lanes));
    }

    /// A batch was finished; where it has waited for the sink, that time tells nothing of what it costs.
    pub(crate) fn batch(&self, messages: usize, took: Duration, waited: bool) {
        let (messages, seconds) = (real(messages), took.as_secs_f64());
        self.batch_seconds.observe(seconds);
        if waited {
            return;
        }
        let mut sums = self.sums();
        sums.count += 1.0;
        sums.messages += messages;
        sums.seconds += seconds;
        sums.messages_seconds += messages * seconds;
        sums.messages_squared += messages * messages;
    }

    /// A batch goes to work, for the first time or after a wait.
    pub(crate) fn works(&self, now: Instant) {
        let mut work = self.work();
        if work.batches == 0 {
            (work.since, work.progress) = (now, now);
        }
        work.batches += 1;
    }

    /// A batch is done or waits.
    pub(crate) fn rests(&self, now: Instant) {
        let mut work = self.work();
        work.batches -= 1;
        if work.batches == 0 {
            work.busy = work.busy + now.duration_since(work.since);
        }
    }

    pub(crate) fn started(&self, messages: usize) {
        self.in_flight.fetch_add(i64::try_from(messages).unwrap_or(0), Relaxed);
    }

    pub(crate) fn ended(&self, messages: usize) {
        self.in_flight.fetch_sub(i64::try_from(messages).unwrap_or(0), Relaxed);
    }

    /// No session, nothing received.
    pub(crate) fn idle(&self) {
        self.in_flight.store(0, Relaxed);
        self.held.store(0, Relaxed);
    }

    pub(crate) fn finished(&self, outcome: Outcome, messages: usize, now: Instant) {
        let messages = messages as u64;
        self.messages.get_or_create(&OutcomeLabel { outcome: outcome.as_str() }).inc_by(messages);
        match outcome {
            Outcome::DeadLettered => self.dead_lettered.fetch_add(messages, Relaxed),
            Outcome::Written | Outcome::Repeated | Outcome::Filtered => self.processed.fetch_add(messages, Relaxed),
            Outcome::Suspected => self.suspected.fetch_add(messages, Relaxed),
            Outcome::Delayed => {
                self.failed(Class::Passing, messages);
                self.delayed.fetch_add(messages, Relaxed)
            }
            Outcome::Started => self.started_alone.fetch_add(messages, Relaxed),
            Outcome::Returned => 0,
        };
        self.work().progress = now;
    }

    /// A handler has answered, though the message has not come to an end yet.
    pub(crate) fn moves_on(&self, now: Instant) {
        self.work().progress = now;
    }

    pub(crate) fn dead_letter(&self, why: &Rejection) {
        let label = ReasonLabel { stage: why.stage.as_str(), reason: why.reason };
        self.dead_letters.get_or_create(&label).inc();
        self.failed(why.class, 1);
    }

    pub(crate) fn failed(&self, class: Class, messages: u64) {
        self.failures.get_or_create(&ClassLabel { class: class.as_str() }).inc_by(messages);
    }

    fn failures(&self) -> status::Failures {
        let of = |class: Class| self.failures.get(&ClassLabel { class: class.as_str() }).map_or(0, |count| count.get());
        status::Failures { content: of(Class::Content), passing: of(Class::Passing), killer: of(Class::Killer) }
    }

    /// Messages that came to an end here, those that went on to another queue among them: all took time.
    pub(crate) fn done(&self) -> u64 {
        let counts = [&self.processed, &self.dead_lettered, &self.suspected, &self.started_alone, &self.delayed];
        counts.into_iter().map(|count| count.load(Relaxed)).sum()
    }

    pub(crate) fn busy(&self, now: Instant) -> Duration {
        let work = self.work();
        if work.batches == 0 { work.busy } else { work.busy + now.duration_since(work.since) }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.connected.load(Relaxed) && self.consuming.load(Relaxed)
    }

    /// False where work is in flight, the sink is up and nothing finished for too long.
    pub(crate) fn is_healthy(&self, holds: &Holds, now: Instant) -> bool {
        let work = self.work();
        holds.any() || work.batches == 0 || now.saturating_duration_since(work.progress) < self.stuck
    }

    pub(crate) fn status(&self, revision: &str, role: &str, holds: &Holds, now: Instant) -> status::WorkerStatus {
        status::WorkerStatus {
            revision: revision.to_owned(),
            role: role.to_owned(),
            connected: self.connected.load(Relaxed),
            consuming: self.consuming.load(Relaxed),
            holding: holds.oldest().map(|holding| status::HoldingStatus {
                stage: holding.stage.to_owned(),
                reason: holding.reason,
                message: holding.message,
                since_seconds: now.saturating_duration_since(holding.since).as_secs(),
            }),
            in_flight: u64::try_from(self.in_flight.load(Relaxed)).unwrap_or(0),
            held: self.held.load(Relaxed),
            busy_seconds: self.busy(now).as_secs_f64(),
            processed: self.processed.load(Relaxed),
            dead_lettered: self.dead_lettered.load(Relaxed),
            suspected: self.suspected.load(Relaxed),
            delayed: self.delayed.load(Relaxed),
            failed: self.failures(),
            skipped: self.skipped.get(),
            started_seconds: self.started_seconds,
            batches: Some(*self.sums()),
        }
    }

    /// The text of `/metrics`.
    pub(crate) fn text(&self, holds: &Holds, now: Instant) -> String {
        self.in_flight_gauge.set(self.in_flight.load(Relaxed));
        self.held_gauge.set(i64::try_from(self.held.load(Relaxed)).unwrap_or(i64::MAX));
        self.holding_gauge.set(i64::from(holds.any()));
        self.busy_counter.inc_by((self.busy(now).as_secs_f64() - self.busy_counter.get()).max(0.0));
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_time_is_that_of_at_least_one_batch() {
        let (meter, start) = (Meter::new(None), clock::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        meter.works(at(0));
        meter.works(at(1));
        meter.rests(at(2));
        meter.rests(at(3));
        meter.works(at(10));
        assert_eq!(meter.busy(at(11)), Duration::from_secs(4));
    }

    #[test]
    fn a_worker_is_stuck_where_nothing_ends_while_the_sink_is_up() {
        let (meter, holds, start) = (Meter::new(None), Holds::default(), clock::now());
        let late = start + STUCK;
        assert!(meter.is_healthy(&holds, late));
        meter.works(start);
        assert!(meter.is_healthy(&holds, start + STUCK / 2));
        assert!(!meter.is_healthy(&holds, late));
        meter.finished(Outcome::Written, 1, late);
        assert!(meter.is_healthy(&holds, late));
        holds.enter(0, "sink", "Unreachable", "m", late);
        assert!(meter.is_healthy(&holds, late + STUCK));
    }

    #[test]
    fn metrics_have_their_usual_names() {
        let (meter, holds) = (Meter::new(None), Holds::default());
        meter.finished(Outcome::Written, 1, clock::now());
        meter.dead_letter(&Rejection::sink("IdReused", "m"));
        let text = meter.text(&holds, clock::now());
        for line in [
            "# TYPE drover_worker_messages counter",
            "drover_worker_messages_total{outcome=\"written\"} 1",
            "drover_worker_dead_letters_total{stage=\"sink\",reason=\"IdReused\"} 1",
            "drover_worker_failures_total{class=\"content\"} 1",
            "drover_worker_skipped_total 0",
            "drover_worker_in_flight 0",
            "drover_worker_busy_seconds_total 0.0",
            "drover_worker_holding 0",
            "# HELP drover_worker_batch_duration_seconds Time from a batch's start to its end.",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
