//! What a query's worker counts and shows: health, readiness, metrics and status.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use super::status::{HoldingStatus, PartitionStatus, QueryStatus};
use crate::ingest::clock;

/// Bodies are weighed over so many.
const WEIGHED: u64 = 16;

/// Why a stage waits.
#[derive(Debug)]
struct Holding {
    reason: String,
    message: String,
    since: Instant,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartitionLabel {
    partition: i32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    partition: i32,
    outcome: &'static str,
}

/// Counters and last facts of one worker.
#[derive(Debug)]
pub(crate) struct Meter {
    pub(crate) connected: AtomicBool,
    pub(crate) ready: AtomicBool,
    messages: Counter,
    batches: Counter,
    refused_rows: Counter,
    closings: Counter,
    body: AtomicU64,
    holding: Mutex<BTreeMap<String, Holding>>,
    holds: Gauge,
    last: Mutex<QueryStatus>,
    started_seconds: u64,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            connected: AtomicBool::default(),
            ready: AtomicBool::default(),
            messages: Counter::default(),
            batches: Counter::default(),
            refused_rows: Counter::default(),
            closings: Counter::default(),
            body: AtomicU64::default(),
            holding: Mutex::default(),
            holds: Gauge::default(),
            last: Mutex::default(),
            started_seconds: clock::today().as_second().cast_unsigned(),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Meter {
    /// A batch is committed.
    pub(crate) fn committed(&self, messages: usize, bytes: usize) {
        let (messages, bytes) = (messages as u64, bytes as u64);
        self.messages.inc_by(messages);
        self.batches.inc();
        if let Some(mean) = bytes.checked_div(messages) {
            let old = self.body.load(Relaxed);
            let new = if old == 0 { mean } else { (old * (WEIGHED - 1) + mean) / WEIGHED };
            self.body.store(new.max(1), Relaxed);
        }
    }

    /// Mean size of recent bodies, in bytes; 0 while unknown.
    pub(crate) fn mean_body(&self) -> u64 {
        self.body.load(Relaxed)
    }

    /// A chunk of windows is closed, with so many rows that became dead letters.
    pub(crate) fn closed(&self, dead: u64) {
        self.closings.inc();
        self.refused_rows.inc_by(dead);
    }

    /// A stage waits; said once in the log as long as the reason is the same.
    pub(crate) fn hold(&self, stage: &str, reason: &str, message: &str) {
        let mut holding = locked(&self.holding);
        if let Some(known) = holding.get_mut(stage).filter(|h| h.reason == reason) {
            message.clone_into(&mut known.message);
            return;
        }
        tracing::warn!(stage, reason, "waiting: {message}");
        let (reason, message) = (reason.to_owned(), message.to_owned());
        holding.insert(stage.to_owned(), Holding { reason, message, since: clock::now() });
    }

    /// A stage goes on.
    pub(crate) fn go_on(&self, stage: &str) {
        if locked(&self.holding).remove(stage).is_some() {
            tracing::info!(stage, "going on");
        }
    }

    /// What was read of the query's state.
    pub(crate) fn saw(&self, facts: QueryStatus) {
        *locked(&self.last) = facts;
    }

    pub(crate) fn status(&self, revision: &str) -> QueryStatus {
        let now = clock::now();
        let holding = locked(&self.holding);
        let holding = holding.iter().map(|(stage, h)| HoldingStatus {
            stage: stage.clone(),
            reason: h.reason.clone(),
            message: h.message.clone(),
            since_seconds: now.duration_since(h.since).as_secs(),
        });
        QueryStatus {
            revision: revision.to_owned(),
            connected: self.connected.load(Relaxed),
            ready: self.ready.load(Relaxed),
            holding: holding.collect(),
            started_seconds: self.started_seconds,
            ..locked(&self.last).clone()
        }
    }

    /// The text of `/metrics`. What is told of partitions is the query's, from whichever worker it is read.
    pub(crate) fn text(&self, revision: &str) -> String {
        let status = self.status(revision);
        let partitions = Partitions::of(&status.partitions);
        self.holds.set(i64::from(!status.holding.is_empty()));
        let mut registry = Registry::with_prefix("drover_query");
        registry.register("messages", "Messages whose batch is committed", self.messages.clone());
        registry.register("batches", "Batches committed", self.batches.clone());
        registry.register("closings", "Chunks of windows closed", self.closings.clone());
        registry.register("refused_rows", "Rows of windows that became dead letters", self.refused_rows.clone());
        registry.register("events", "Events by what became of them", partitions.events.clone());
        registry.register_with_unit(
            "lag",
            "Age of the newest message or tick that was read",
            Unit::Seconds,
            partitions.lag.clone(),
        );
        registry.register("lost_messages", "Messages that were gone before they were read", partitions.lost.clone());
        registry.register("holding", "1 while something waits for the hub or the store", self.holds.clone());
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &registry);
        text
    }
}

/// Events, lag and loss of each partition.
#[derive(Debug, Default)]
struct Partitions {
    events: Family<EventLabels, Counter>,
    lag: Family<PartitionLabel, Gauge<f64, AtomicU64>>,
    lost: Family<PartitionLabel, Gauge>,
}

impl Partitions {
    /// As the store has them.
    fn of(partitions: &[PartitionStatus]) -> Self {
        let (all, now) = (Self::default(), clock::today().as_millisecond());
        for p in partitions {
            let partition = p.partition;
            let outcomes = [
                ("on_time", p.on_time),
                ("adjusted", p.adjusted),
                ("dropped", p.dropped),
                ("dead_lettered", p.dead_lettered),
            ];
            for (outcome, n) in outcomes {
                let counted = all.events.get_or_create(&EventLabels { partition, outcome });
                counted.inc_by(u64::try_from(n).unwrap_or(0));
            }
            if let Some(at) = p.read_at_millis {
                let lag = Duration::from_millis(u64::try_from(now - at).unwrap_or(0));
                all.lag.get_or_create(&PartitionLabel { partition }).set(lag.as_secs_f64());
            }
            all.lost.get_or_create(&PartitionLabel { partition }).set(p.lost);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_holds_until_it_goes_on() {
        let meter = Meter::default();
        meter.hold("close", "TableNotFound", "one");
        meter.hold("close", "TableNotFound", "two");
        assert_eq!(meter.status("r").holding[0].message, "two");
        assert!(meter.text("r").contains("\ndrover_query_holding 1\n"));
        meter.go_on("close");
        assert!(meter.status("r").holding.is_empty());
        assert!(meter.text("r").contains("\ndrover_query_holding 0\n"));
    }

    #[test]
    fn metrics_have_their_usual_names() {
        let meter = Meter::default();
        meter.committed(3, 30);
        meter.saw(QueryStatus {
            partitions: vec![PartitionStatus { partition: 1, on_time: 2, lost: 4, ..PartitionStatus::default() }],
            ..QueryStatus::default()
        });
        let text = meter.text("r");
        for line in [
            "drover_query_messages_total 3",
            "drover_query_batches_total 1",
            "drover_query_events_total{partition=\"1\",outcome=\"on_time\"} 2",
            "drover_query_lost_messages{partition=\"1\"} 4",
            "# HELP drover_query_closings Chunks of windows closed.",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("drover_query_lag_seconds{"), "nothing was read yet");
    }

    #[test]
    fn the_mean_of_bodies_follows_them() {
        let meter = Meter::default();
        assert_eq!(meter.mean_body(), 0);
        meter.committed(10, 2_000);
        assert_eq!(meter.mean_body(), 200);
        (0..200).for_each(|_| meter.committed(1, 100_000));
        assert!(meter.mean_body() > 90_000);
    }
}
