//! What the operator counts, for Prometheus.

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use kube::ResourceExt as _;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::{Atomic, Gauge},
        histogram::Histogram,
    },
    registry::{Registry, Unit},
};

use crate::{pipeline::act::Object, scaling::Numbers};

/// Labels of an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ObjectLabels {
    /// Its kind: a pipeline and a query may have the same name.
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectLabels {
    pub(crate) fn of<K: Object>(object: &K) -> Self {
        Self { kind: K::NAME, namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
    }
}

/// Labels of a write.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WriteLabels {
    /// Kind of the object.
    pub kind: &'static str,
    /// What was done: create, apply, replace, delete, status or finalizer.
    pub verb: &'static str,
}

/// The operator's metrics. Clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    /// 1 where this replica works, 0 where it stands by.
    pub leader: Gauge,
    /// Reconciles that ended well.
    pub reconciles: Counter,
    /// Reconciles that could not read or write.
    pub failures: Counter,
    /// How long they took.
    pub duration: Histogram,
    /// Writes to the API server.
    pub writes: Family<WriteLabels, Counter>,
    /// Messages in dead-letter queues.
    pub dead_letters: Family<ObjectLabels, Gauge>,
    oldest_dead: Family<ObjectLabels, Number>,
    dead_remaining: Family<ObjectLabels, Number>,
    /// Suspects that wait, of all steps.
    pub suspects: Family<ObjectLabels, Gauge>,
    /// 1 where an object is ready.
    pub ready: Family<ObjectLabels, Gauge>,
    /// 1 where passwords are in use that others have followed.
    pub users_in_use: Family<ObjectLabels, Gauge>,
    /// Worker pods.
    pub replicas: Family<ObjectLabels, Gauge>,
    /// What scaling is decided from.
    pub scale: Scale,
}

/// A number that may be a part of one.
type Number = Gauge<f64, AtomicU64>;

/// Sets a gauge; what is not known is not there.
fn set<N, A: Atomic<N> + Default>(
    family: &Family<ObjectLabels, Gauge<N, A>>,
    labels: &ObjectLabels,
    number: Option<N>,
) {
    match number {
        Some(number) => {
            family.get_or_create(labels).set(number);
        }
        None => {
            family.remove(labels);
        }
    }
}

/// What scaling is decided from. Numbers that are not known are not there.
#[derive(Debug, Clone, Default)]
pub struct Scale {
    lag: Family<ObjectLabels, Number>,
    backlog: Family<ObjectLabels, Number>,
    arrivals: Family<ObjectLabels, Number>,
    rate: Family<ObjectLabels, Number>,
    desired: Family<ObjectLabels, Gauge>,
    limited: Family<ObjectLabels, Gauge>,
    replica_seconds: Family<ObjectLabels, Counter<f64, AtomicU64>>,
}

impl Scale {
    fn register(&self, registry: &mut Registry) {
        registry.register_with_unit("lag", "Time until what waits now is begun", Unit::Seconds, self.lag.clone());
        registry.register("backlog", "Messages that wait longer than they should", self.backlog.clone());
        registry.register("arrival_rate", "Messages per second that arrive", self.arrivals.clone());
        registry.register("replica_rate", "Messages per second of a worker that is busy", self.rate.clone());
        registry.register("desired_replicas", "Workers that there should be", self.desired.clone());
        registry.register("sink_limited", "1 if more workers have not helped", self.limited.clone());
        let help = "Time of all worker pods together";
        registry.register_with_unit("replica_time", help, Unit::Seconds, self.replica_seconds.clone());
    }

    /// What a decision is made from.
    pub(crate) fn seen(&self, labels: &ObjectLabels, numbers: &Numbers, sink_limited: bool) {
        for (family, number) in [
            (&self.lag, numbers.lag),
            (&self.backlog, numbers.backlog),
            (&self.arrivals, numbers.arrival_rate),
            (&self.rate, numbers.rate_per_replica),
        ] {
            set(family, labels, number);
        }
        self.limited.get_or_create(labels).set(sink_limited.into());
    }

    /// So many workers are wanted by what the spec makes of the decision; `None` where nothing is decided.
    pub(crate) fn wanted(&self, labels: &ObjectLabels, replicas: Option<i32>) {
        set(&self.desired, labels, replicas.map(i64::from));
    }

    /// So many pods ran for so long.
    pub(crate) fn ran(&self, labels: &ObjectLabels, pod_seconds: f64) {
        self.replica_seconds.get_or_create(labels).inc_by(pod_seconds);
    }

    /// Nothing is sampled any more.
    pub(crate) fn unknown(&self, labels: &ObjectLabels) {
        for family in [&self.lag, &self.backlog, &self.arrivals, &self.rate] {
            family.remove(labels);
        }
        self.desired.remove(labels);
        self.limited.remove(labels);
    }

    fn forget(&self, labels: &ObjectLabels) {
        self.unknown(labels);
        self.replica_seconds.remove(labels);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("drover_operator");
        let metrics = Self {
            registry: Arc::default(),
            leader: Gauge::default(),
            reconciles: Counter::default(),
            failures: Counter::default(),
            duration: Histogram::new([0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]),
            writes: Family::default(),
            dead_letters: Family::default(),
            oldest_dead: Family::default(),
            dead_remaining: Family::default(),
            suspects: Family::default(),
            ready: Family::default(),
            users_in_use: Family::default(),
            replicas: Family::default(),
            scale: Scale::default(),
        };
        registry.register("leader", "1 if this replica works, 0 if it stands by", metrics.leader.clone());
        registry.register("reconciles", "Reconciles that ended well", metrics.reconciles.clone());
        registry.register("reconcile_failures", "Reconciles that could not read or write", metrics.failures.clone());
        registry.register_with_unit(
            "reconcile_duration",
            "Duration of a reconcile",
            Unit::Seconds,
            metrics.duration.clone(),
        );
        registry.register("writes", "Writes to the API server by kind and verb", metrics.writes.clone());
        registry.register("dead_letters", "Messages in the dead-letter queue", metrics.dead_letters.clone());
        registry.register_with_unit(
            "oldest_dead_letter_age",
            "Time that the oldest dead letter has been there, as seen every ten minutes",
            Unit::Seconds,
            metrics.oldest_dead.clone(),
        );
        registry.register_with_unit(
            "oldest_dead_letter_left",
            "Time until the oldest dead letter is dropped",
            Unit::Seconds,
            metrics.dead_remaining.clone(),
        );
        registry.register("suspects", "Messages in the queues of suspects", metrics.suspects.clone());
        registry.register("ready", "1 if the object is ready, 0 if it is not", metrics.ready.clone());
        registry.register(
            "users_in_use",
            "1 if users of the hub that others have followed are still in use, 0 if not",
            metrics.users_in_use.clone(),
        );
        registry.register("worker_replicas", "Worker pods", metrics.replicas.clone());
        metrics.scale.register(&mut registry);
        *metrics.registry.lock().unwrap_or_else(PoisonError::into_inner) = registry;
        metrics
    }
}

impl Metrics {
    /// The text of `/metrics`, in the format of `OpenMetrics`.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &registry);
        text
    }

    /// An object is gone: its numbers go too.
    pub(crate) fn forget(&self, labels: &ObjectLabels) {
        self.dead_letters.remove(labels);
        self.dead_letters_live(labels, None);
        self.suspects.remove(labels);
        self.ready.remove(labels);
        self.users_in_use.remove(labels);
        self.replicas.remove(labels);
        self.scale.forget(labels);
    }

    /// How old the oldest dead letter is, and how long it stays; none where there is none or nobody knows.
    pub(crate) fn dead_letters_live(&self, labels: &ObjectLabels, life: Option<(Duration, Duration)>) {
        let (age, left) = life.unzip();
        for (family, time) in [(&self.oldest_dead, age), (&self.dead_remaining, left)] {
            set(family, labels, time.map(|time| time.as_secs_f64()));
        }
    }

    /// Counts a write.
    pub(crate) fn wrote(&self, kind: &'static str, verb: &'static str) {
        self.writes.get_or_create(&WriteLabels { kind, verb }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(kind: &'static str) -> ObjectLabels {
        ObjectLabels { kind, namespace: "iot".to_owned(), name: "t".to_owned() }
    }

    #[test]
    fn a_pipeline_and_a_query_of_one_name_are_two() {
        let metrics = Metrics::default();
        for (kind, ready) in [("IngestPipeline", 0), ("WindowQuery", 1)] {
            metrics.ready.get_or_create(&labels(kind)).set(ready);
        }
        metrics.forget(&labels("WindowQuery"));
        let text = metrics.text();
        assert!(text.contains(r#"drover_operator_ready{kind="IngestPipeline",namespace="iot",name="t"} 0"#), "{text}");
        assert!(!text.contains("WindowQuery"), "{text}");
    }

    #[test]
    fn where_nothing_is_sampled_any_more_nothing_is_told_of_it() {
        let (metrics, labels) = (Metrics::default(), labels("IngestPipeline"));
        metrics.scale.seen(&labels, &Numbers { lag: Some(3.0), ..Numbers::default() }, true);
        metrics.scale.ran(&labels, 2.0);
        metrics.scale.wanted(&labels, Some(4));
        assert!(metrics.text().contains(r#"desired_replicas{kind="IngestPipeline",namespace="iot",name="t"} 4"#));
        metrics.scale.wanted(&labels, None);
        assert!(!metrics.text().contains("desired_replicas{"));
        metrics.scale.unknown(&labels);
        let text = metrics.text();
        let told: Vec<_> = text.lines().filter(|line| line.contains("IngestPipeline")).collect();
        assert_eq!(told.len(), 1, "but for what it has cost: {told:?}");
    }
}
