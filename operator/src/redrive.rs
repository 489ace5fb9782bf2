//! Sends dead letters back inside the cluster, once for each request's id: an annotation asks, a task of its own does it
//! outside the reconcile's time, the status tells what came of it.
//!
//! A task that dies with its operator is run again by the next one, and sends only what is left. Those that come while it
//! runs are not taken: a letter that fails again is sent back once a request.

mod decide;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use drover_crds::{
    api::{RevisionLetters, SecretRef},
    resolved::Pipeline,
};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use tokio::{sync::Semaphore, task::AbortHandle};
use tracing::Instrument as _;

use crate::{
    audit::{Cause, Effect, Outcome, Verb},
    context::{Context, now},
    metrics::ObjectLabels,
    pipeline::act::Object,
    plugin::dead::{self, DeadLetters, Destination, Pace, Report, Selection},
    reconcile::chain,
};

pub(crate) use decide::{Seen, answer, decide};

/// Redrives that run at the same time; others wait their turn.
const AT_ONCE: usize = 4;
/// Letters that a redrive holds at once: with bodies of a megabyte each, what the operator can bear.
const HELD: u16 = 50;

/// Header of a dead letter: the revision that made it.
const REVISION: &str = "x-drover-revision";
/// Clocks of nodes, which stamp dead letters, differ from the operator's by less.
const SKEW: Duration = Duration::from_mins(1);

/// A redrive to run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Order {
    /// Id of the request.
    pub(crate) id: String,
    /// Only those of a revision.
    pub(crate) of: Option<RevisionLetters>,
    /// Letters that it has sent back before this run.
    before: i64,
    /// Secret of the hub.
    hub: SecretRef,
    /// The dead-letter queue.
    queue: String,
    /// Where they go.
    destination: Destination,
}

impl Order {
    /// Of a pipeline, to where its dead letters came from.
    fn new(id: String, of: Option<RevisionLetters>, before: i64, pipeline: &Pipeline) -> Self {
        Self {
            id,
            of,
            before,
            hub: pipeline.hub.clone(),
            queue: pipeline.dead_letter_queue.clone(),
            destination: Destination::back(pipeline),
        }
    }
}

/// Which letters are meant at a moment.
fn selection(of: Option<&RevisionLetters>, now: Timestamp) -> Selection {
    let Some(of) = of else { return Selection::default() };
    let since: Option<Timestamp> = of.since.parse().ok();
    let age = since.map(|since| now.duration_since(since).try_into().unwrap_or_default());
    Selection {
        headers: vec![(REVISION.to_owned(), of.revision.clone())],
        newer_than: age.map(|age: Duration| age.saturating_add(SKEW)),
        ..Selection::default()
    }
}

/// What a run of this process says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Id of the request.
    pub(crate) id: String,
    /// Letters that it sent back, by this run and those before it.
    pub(crate) redriven: i64,
    /// Letters that are left of those that were there; `None` before it has begun.
    pub(crate) remaining: Option<i64>,
    /// How it ended, once it has.
    pub(crate) end: Option<Result<(), String>>,
}

impl Progress {
    fn told(&mut self, before: i64, report: &Report) {
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.redriven = before.saturating_add(count(report.done));
        self.remaining = Some(count(report.depth.saturating_sub(report.done)));
    }
}

/// The runs of this process, by the UIDs of their objects.
#[derive(Debug)]
pub struct Redrives {
    runs: Mutex<HashMap<String, Run>>,
    turns: Semaphore,
}

#[derive(Debug)]
struct Run {
    progress: Arc<Mutex<Progress>>,
    task: AbortHandle,
}

impl Drop for Run {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Default for Redrives {
    fn default() -> Self {
        Self { runs: Mutex::default(), turns: Semaphore::new(AT_ONCE) }
    }
}

impl Redrives {
    /// How far the last run for an object is.
    pub(crate) fn progress(&self, uid: &str) -> Option<Progress> {
        Some(locked(&locked(&self.runs).get(uid)?.progress).clone())
    }

    /// All that run end here: another process goes on with them.
    pub(crate) fn end(&self) {
        locked(&self.runs).clear();
    }

    /// The object is gone; what runs for it ends, and what is not sent stays where it is.
    pub(crate) fn forget(&self, uid: &str) {
        locked(&self.runs).remove(uid);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a run, in place of an earlier one for the same object; its end wakes the object's reconcile.
pub(crate) fn start<K: Object>(ctx: &Context, object: &K, order: Order) {
    let labels = ObjectLabels::of(object);
    let begun = Progress { id: order.id.clone(), redriven: order.before, ..Progress::default() };
    let progress = Arc::new(Mutex::new(begun));
    let span = tracing::info_span!("redrive", namespace = labels.namespace, object = labels.name, request = order.id);
    let cause = cause(object, &order);
    told(&cause, &order, None, Outcome::Begun);
    let work = {
        let (ctx, teller) = (ctx.clone(), Teller { cause, order, progress: Arc::clone(&progress) });
        async move {
            let end = run(&ctx, &labels.namespace, &teller.order, &teller.progress).await;
            locked(&teller.progress).end = Some(end);
            drop(teller);
            ctx.scales.tell(&labels);
        }
    };
    let task = tokio::spawn(work.instrument(span)).abort_handle();
    locked(&ctx.redrives.runs).insert(object.uid().unwrap_or_default(), Run { progress, task });
}

/// Tells of a run's end, also where it is cut off.
struct Teller {
    cause: Cause,
    order: Order,
    progress: Arc<Mutex<Progress>>,
}

impl Drop for Teller {
    fn drop(&mut self) {
        let progress = locked(&self.progress);
        let outcome = match progress.end {
            Some(Ok(())) => Outcome::Done,
            Some(Err(_)) => Outcome::Failed("RedriveFailed"),
            None => Outcome::Failed("Interrupted"),
        };
        told(&self.cause, &self.order, Some(progress.redriven), outcome);
    }
}

/// Letters of a revision that was given up are sent back as the spec says, all others as a person asks.
fn cause<K: Object>(object: &K, order: &Order) -> Cause {
    match order.of {
        None => Cause::of(object, "a person asked by annotation").asked(Some(&order.id)),
        Some(_) => Cause::of(object, "their revision was given up: rollout.redriveOnAbort"),
    }
}

fn told(cause: &Cause, order: &Order, messages: Option<i64>, outcome: Outcome<'_>) {
    let revision = order.of.as_ref().map(|of| of.revision.as_str());
    let effect = Effect::new(Verb::Redrive, "queue", &order.queue);
    cause.tell(&Effect { revision, messages, ..effect }, outcome);
}

async fn run(ctx: &Context, namespace: &str, order: &Order, progress: &Mutex<Progress>) -> Result<(), String> {
    let _turn = ctx.redrives.turns.acquire().await.map_err(|e| e.to_string())?;
    let (time, instant) = now();
    let data = ctx.secrets.get(&ctx.client, namespace, &order.hub.name, instant).await.map_err(|p| p.message)?;
    let hub = ctx.config.allowed_hosts.hub(&order.hub, &data).map_err(|p| p.message)?;
    let letters = DeadLetters { hub, queue: order.queue.clone() };
    let pace = Pace { held: Some(HELD), ..Pace::default() };
    let told = |report: &Report| locked(progress).told(order.before, report);
    let meant = selection(order.of.as_ref(), time);
    let done = dead::redrive(&letters, &order.destination, &meant, &pace, time, told).await;
    match done {
        Ok(report) => {
            locked(progress).told(order.before, &report);
            Ok(())
        }
        Err(error) => Err(chain(&error)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::audit::tests::{lines, object};

    fn teller(end: Option<Result<(), String>>) -> Teller {
        let order = Order {
            id: "r-1".into(),
            of: None,
            before: 3,
            hub: SecretRef { name: "hub".into(), keys: [].into() },
            queue: "q.dead".into(),
            destination: Destination::Queue("q".into()),
        };
        let progress = Progress { redriven: 7, end, ..Progress::default() };
        Teller { cause: cause(&object(), &order), order, progress: Arc::new(Mutex::new(progress)) }
    }

    #[test]
    fn the_end_of_a_run_is_told_also_where_it_is_cut_off() {
        let ends = [
            (Some(Ok(())), json!(null)),
            (Some(Err("x".into())), json!("RedriveFailed")),
            (None, json!("Interrupted")),
        ];
        for (end, reason) in ends {
            let written = lines(|| drop(teller(end)));
            let [line] = written.as_slice() else { panic!("one line: {written:?}") };
            assert_eq!((&line["fields"]["messages"], &line["fields"]["reason"]), (&json!(7), &reason), "{line}");
        }
    }

    #[test]
    fn a_person_means_all_letters_and_an_abort_those_of_its_revision_since_it_was_on_the_source() {
        let now = "2026-01-02T12:00:00Z".parse().unwrap();
        assert_eq!(selection(None, now), Selection::default());
        let of = RevisionLetters { revision: "b".into(), since: "2026-01-02T11:58:00Z".into(), until: None };
        let meant = selection(Some(&of), now);
        assert_eq!(meant.headers, [("x-drover-revision".to_owned(), "b".to_owned())]);
        assert_eq!(meant.newer_than, Some(Duration::from_mins(3)));
    }
}
