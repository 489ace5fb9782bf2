//! Looks at each query every second, decides how many workers it needs, and wakes the reconcile whose decision has changed. It writes
//! nothing: the reconcile is the one place that does. One task for each query; it ends with the query.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use drover_worker::stream::status::QueryStatus;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::ResourceExt as _;
use kube_runtime::reflector::{ObjectRef, Store};
use tokio::time::MissedTickBehavior;

use super::{
    scale::{Decision, Reason, Sample, Seen, State, decide},
    wake::{Streams, Waker},
};
use crate::{
    context::{GuardedQuery, now},
    metrics::{Metrics, ObjectLabels},
    names, scaling,
    workers::Workers,
};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// Of it, the time to listen for messages.
const LISTEN: Duration = Duration::from_millis(900);

/// A query to look at, as the last reconcile has found it.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    /// The object.
    pub labels: ObjectLabels,
    /// Bounds and aims.
    pub policy: scaling::Policy,
    /// Workers that are asked for.
    pub replicas: u32,
    /// The version of the state that is to have the last word.
    pub state: String,
    /// The pods of the cluster.
    pub pods: Store<Pod>,
    /// What can be listened to while there are no workers; `None` where hub or store are not known to be fine.
    pub streams: Option<Streams>,
    /// Windows are open, or something waits in the store.
    pub open: bool,
    /// One version of the state is to take over from another, for which both must be worked on.
    pub handing_over: bool,
}

#[derive(Debug)]
struct Entry {
    subject: Subject,
    state: State,
    decision: Option<Decision>,
    at: Option<f64>,
}

/// All queries that are looked at.
#[derive(Debug)]
pub(crate) struct Watches {
    entries: Mutex<HashMap<String, Entry>>,
    wake: Mutex<Vec<UnboundedSender<ObjectRef<GuardedQuery>>>>,
    workers: Workers,
    metrics: Metrics,
    start: Instant,
}

impl Watches {
    pub(crate) fn new(workers: Workers, metrics: Metrics) -> Self {
        Self { entries: Mutex::default(), wake: Mutex::default(), workers, metrics, start: now().1 }
    }

    /// Objects whose decision has changed.
    pub(crate) fn changes(&self) -> UnboundedReceiver<ObjectRef<GuardedQuery>> {
        let (sender, receiver) = unbounded();
        self.wake.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        receiver
    }

    /// Looks at a query from now on, or goes on with it; gives what was decided last.
    pub(super) fn watch(self: &Arc<Self>, uid: &str, subject: Subject) -> Option<Decision> {
        let mut entries = self.lock();
        if let Some(entry) = entries.get_mut(uid) {
            entry.subject = subject;
            return entry.decision;
        }
        entries.insert(uid.to_owned(), Entry { subject, state: State::default(), decision: None, at: None });
        tokio::spawn(run(Arc::downgrade(self), uid.to_owned()));
        None
    }

    /// What was decided last.
    pub(super) fn decision(&self, uid: &str) -> Option<Decision> {
        self.lock().get(uid)?.decision
    }

    /// The object is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    fn subject(&self, uid: &str) -> Option<Subject> {
        self.lock().get(uid).map(|e| e.subject.clone())
    }

    /// One more sample: a decision, and who must know of it.
    fn sample(&self, uid: &str, replicas: u32, running: usize, seen: Seen) {
        let at = now().1.duration_since(self.start).as_secs_f64();
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(uid) else { return };
        let since = entry.at.replace(at).map_or(0.0, |before| (at - before).max(0.0));
        let sample = Sample { at, replicas, seen };
        let decision;
        (entry.state, decision) = decide(&entry.subject.policy, std::mem::take(&mut entry.state), &sample);
        let told = |d: &Decision| (d.desired, d.reason == Reason::FactsMissing);
        let changed = entry.decision.as_ref().map(told) != Some(told(&decision));
        entry.decision = Some(decision);
        let labels = entry.subject.labels.clone();
        self.metrics.scale.seen(&labels, &decision.numbers, false);
        self.metrics.scale.ran(&labels, since * f64::from(u32::try_from(running).unwrap_or(u32::MAX)));
        drop(entries);
        if changed {
            self.tell(&labels);
        }
    }

    fn tell(&self, labels: &ObjectLabels) {
        let object = ObjectRef::<GuardedQuery>::new(&labels.name).within(&labels.namespace);
        let mut wake = self.wake.lock().unwrap_or_else(PoisonError::into_inner);
        // One that has ended with its scope is not told.
        wake.retain(|sender| sender.unbounded_send(object.clone()).is_ok());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn run(watches: Weak<Watches>, uid: String) {
    let mut waker = Waker::default();
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(watches) = watches.upgrade() else { break };
        let Some(subject) = watches.subject(&uid) else { break };
        let pods = reachable(&subject);
        let running = pods.len();
        let seen = if running == 0 && subject.replicas == 0 {
            asleep(&mut waker, &subject).await
        } else {
            waker.rest().await;
            let answers = watches.workers.ask::<QueryStatus>(pods).await;
            working(&answers, &subject.state, subject.handing_over, now().0)
        };
        watches.sample(&uid, subject.replicas, running, seen);
    }
    waker.rest().await;
}

async fn asleep(waker: &mut Waker, subject: &Subject) -> Seen {
    let Some(streams) = &subject.streams else { return Seen::Blind };
    if subject.open || subject.handing_over {
        return Seen::Work;
    }
    match waker.listen(streams, LISTEN).await {
        None => Seen::Blind,
        Some(false) => Seen::Quiet,
        Some(true) => Seen::Work,
    }
}

/// What the workers say together. All that run must answer, or it is not enough to go by; those of the version that is to have the last
/// word are heard, and others where none of it answers.
fn working(answers: &[(String, Option<QueryStatus>)], state: &str, handing_over: bool, now: Timestamp) -> Seen {
    let statuses: Option<Vec<&QueryStatus>> = answers.iter().map(|(_, s)| s.as_ref().filter(|s| s.ready)).collect();
    let Some(statuses) = statuses else { return Seen::Blind };
    let newest = statuses.iter().filter(|s| s.revision == state).max_by_key(|s| freshness(s));
    let Some(status) = newest.or_else(|| statuses.iter().max_by_key(|s| freshness(s))) else { return Seen::Blind };
    let now = now.as_millisecond();
    // A partition of which nothing was ever read has no age, until its first tick is read.
    let ages = status.partitions.iter().map(|p| p.read_at_millis.map(|at| now.saturating_sub(at).max(0)));
    let Some(oldest) = ages.collect::<Option<Vec<i64>>>().and_then(|ages| ages.into_iter().max()) else {
        return Seen::Blind;
    };
    let counts = status.partitions.iter().flat_map(|p| [p.on_time, p.adjusted, p.dropped, p.dead_lettered]);
    let waiting = status.dead_letters_waiting > 0 || status.rows_waiting > 0;
    Seen::Working {
        lag: scaling::real(oldest.unsigned_abs()) / 1_000.0,
        events: counts.map(|n| u64::try_from(n).unwrap_or(0)).fold(0, u64::saturating_add),
        open: status.open || waiting || handing_over,
    }
}

/// Each worker reads the store once a second: the one that has read it last knows most.
fn freshness(status: &QueryStatus) -> i64 {
    status.partitions.iter().filter_map(|p| p.read_at_millis).max().unwrap_or(i64::MIN)
}

/// Names and addresses of the query's pods that run and are not told to end.
fn reachable(subject: &Subject) -> Vec<(String, String)> {
    let labels = &subject.labels;
    let own = subject.pods.state_filter(|p| {
        p.metadata.namespace.as_deref() == Some(&*labels.namespace)
            && p.labels().get(names::QUERY) == Some(&labels.name)
    });
    own.iter().filter_map(|p| address(p)).collect()
}

fn address(pod: &Pod) -> Option<(String, String)> {
    let status = pod.status.as_ref()?;
    let runs = status.phase.as_deref() == Some("Running") && pod.metadata.deletion_timestamp.is_none();
    Some((pod.metadata.name.clone()?, status.pod_ip.clone().filter(|_| runs)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_worker::stream::status::PartitionStatus;

    fn answer(state: &str, read_at: Option<i64>, on_time: i64) -> (String, Option<QueryStatus>) {
        let partition = PartitionStatus { read_at_millis: read_at, on_time, ..PartitionStatus::default() };
        let status = QueryStatus {
            revision: state.to_owned(),
            ready: true,
            partitions: vec![partition],
            ..QueryStatus::default()
        };
        ("pod".to_owned(), Some(status))
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).unwrap()
    }

    #[test]
    fn one_worker_that_is_silent_is_enough_to_be_blind() {
        let answers = [answer("s", Some(1_000), 5), ("other".to_owned(), None)];
        assert_eq!(working(&answers, "s", false, at(3_000)), Seen::Blind);
        assert_eq!(working(&answers[..1], "s", false, at(3_000)), Seen::Working { lag: 2.0, events: 5, open: false });
    }

    #[test]
    fn a_partition_that_was_never_read_has_no_age() {
        assert_eq!(working(&[answer("s", None, 0)], "s", false, at(3_000)), Seen::Blind);
        assert_eq!(working(&[], "s", false, at(3_000)), Seen::Blind);
    }

    #[test]
    fn the_version_that_is_to_have_the_last_word_is_heard() {
        let answers = [answer("old", Some(9_000), 7), answer("new", Some(4_000), 3)];
        assert_eq!(working(&answers, "new", false, at(9_000)), Seen::Working { lag: 5.0, events: 3, open: false });
        let old = working(&answers[..1], "new", true, at(9_000));
        assert_eq!(old, Seen::Working { lag: 0.0, events: 7, open: true }, "both must go on until the boundary");
    }
}
