//! What a query's worker counts and shows: health, readiness, metrics and status.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use super::status::{HoldingStatus, QueryStatus};
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

/// Counters and last facts of one worker.
#[derive(Debug)]
pub(crate) struct Meter {
    pub(crate) connected: AtomicBool,
    pub(crate) ready: AtomicBool,
    messages: AtomicU64,
    batches: AtomicU64,
    close_errors: AtomicU64,
    closings: AtomicU64,
    body: AtomicU64,
    holding: Mutex<BTreeMap<String, Holding>>,
    last: Mutex<QueryStatus>,
    started_seconds: u64,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            connected: AtomicBool::default(),
            ready: AtomicBool::default(),
            messages: AtomicU64::default(),
            batches: AtomicU64::default(),
            close_errors: AtomicU64::default(),
            closings: AtomicU64::default(),
            body: AtomicU64::default(),
            holding: Mutex::default(),
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
        self.messages.fetch_add(messages, Relaxed);
        self.batches.fetch_add(1, Relaxed);
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
        self.closings.fetch_add(1, Relaxed);
        self.close_errors.fetch_add(dead, Relaxed);
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

    /// Metrics, as `OpenMetrics` text. Those of partitions are the query's, from whichever worker they are read.
    pub(crate) fn text(&self, revision: &str) -> String {
        let status = self.status(revision);
        let mut text = String::new();
        let own = [
            ("messages", "Messages whose batch is committed.", self.messages.load(Relaxed)),
            ("batches", "Batches committed.", self.batches.load(Relaxed)),
            ("closings", "Chunks of windows closed.", self.closings.load(Relaxed)),
            ("refused_rows", "Rows of windows that became dead letters.", self.close_errors.load(Relaxed)),
        ];
        for (name, help, value) in own {
            line(&mut text, &format!("# TYPE drover_query_{name} counter\n# HELP drover_query_{name} {help}"));
            line(&mut text, &format!("drover_query_{name}_total {value}"));
        }
        line(
            &mut text,
            "# TYPE drover_query_events counter\n# HELP drover_query_events Events by what became of them.",
        );
        for p in &status.partitions {
            let outcomes = [
                ("on_time", p.on_time),
                ("adjusted", p.adjusted),
                ("dropped", p.dropped),
                ("dead_lettered", p.dead_lettered),
            ];
            for (outcome, n) in outcomes {
                let labels = format!("partition=\"{}\",outcome=\"{outcome}\"", p.partition);
                line(&mut text, &format!("drover_query_events_total{{{labels}}} {n}"));
            }
        }
        let now = clock::today().as_millisecond();
        gauge(&mut text, &status, "lag_milliseconds", "Age of the newest message or tick that was read.", |p| {
            p.read_at_millis.map(|at| now - at)
        });
        gauge(&mut text, &status, "lost_messages", "Messages that were gone before they were read.", |p| Some(p.lost));
        line(&mut text, "# EOF");
        text
    }
}

fn gauge(
    text: &mut String,
    status: &QueryStatus,
    name: &str,
    help: &str,
    value: impl Fn(&super::status::PartitionStatus) -> Option<i64>,
) {
    line(text, &format!("# TYPE drover_query_{name} gauge\n# HELP drover_query_{name} {help}"));
    for p in &status.partitions {
        if let Some(value) = value(p) {
            line(text, &format!("drover_query_{name}{{partition=\"{}\"}} {value}", p.partition));
        }
    }
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a String takes everything");
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
        meter.go_on("close");
        assert!(meter.status("r").holding.is_empty());
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
