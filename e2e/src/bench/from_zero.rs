//! How long the first message waits where nothing runs: from its publishing to its row, and where the time goes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use drover_crds::api::IngestPipeline;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{WatchEvent, WatchParams};
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::{Figure, Outcome, median};
use crate::pipeline::{NAME, READY, SEEN, manifest};
use crate::trial::{Trial, lone_trial};
use crate::until::until;

/// First messages.
const TRIALS: u32 = 30;

/// How often hub and database are asked: short against what is measured.
const TICK: Duration = Duration::from_millis(10);

/// Promised, in seconds: half of the messages, and all but one of a hundred.
const AIMS: (f64, f64) = (1.0, 1.6);

/// The way of a first message, step by step.
const STAGES: [&str; 6] = [
    "seen and decided (the Deployment asks for a pod)",
    "pod created",
    "scheduled",
    "started (the container runs)",
    "consumed (the hub has a consumer)",
    "committed (the row is there)",
];

/// When each stage was first seen.
#[derive(Debug, Clone, Default)]
struct Marks(Arc<Mutex<[Option<Instant>; STAGES.len()]>>);

impl Marks {
    fn note(&self, stage: usize) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[stage].get_or_insert_with(Instant::now);
    }

    fn taken(&self) -> [Option<Instant>; STAGES.len()] {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Measures.
pub async fn run() -> Result<Outcome> {
    let mut samples = Vec::new();
    lone_trial("from-zero", async |t| {
        let mut pipeline = manifest(NAME);
        pipeline["spec"]["scaling"] = json!({ "cooldownSeconds": 5 });
        t.telemetry_as(&pipeline).await?;
        for number in 0..TRIALS {
            at_zero(t).await?;
            samples.push(first_message(t, number).await.with_context(|| format!("message {number}"))?);
        }
        Ok(())
    })
    .await?;
    let mut totals: Vec<f64> = samples.iter().map(|stages| stages[STAGES.len() - 1]).collect();
    let half = median(&mut totals);
    let slowest = totals.last().copied().unwrap_or_default();
    let row = |what: String, ours: f64, aim: Option<f64>| Figure {
        what,
        floor: None,
        peer: None,
        ours,
        unit: "s".to_owned(),
        aim: aim.map(|aim| format!("≤ {aim} s")).unwrap_or_default(),
        met: aim.is_none_or(|aim| ours <= aim),
    };
    let mut rows = vec![
        row(format!("published → row, p50 of {TRIALS}"), half, Some(AIMS.0)),
        row(format!("published → row, p99 of {TRIALS} (the slowest)"), slowest, Some(AIMS.1)),
    ];
    for (stage, what) in STAGES.iter().enumerate() {
        let before = |stages: &[f64; STAGES.len()]| if stage == 0 { 0.0 } else { stages[stage - 1] };
        let mut spans: Vec<f64> = samples.iter().map(|stages| (stages[stage] - before(stages)).max(0.0)).collect();
        rows.push(row(format!("of these, until {what}, p50"), median(&mut spans), None));
    }
    let more = serde_json::Map::from_iter([("samples".to_owned(), json!(samples))]);
    Ok(Outcome { bench: "from zero".to_owned(), rows, more })
}

/// Waits until nothing runs and nobody consumes.
async fn at_zero(t: &Trial) -> Result<()> {
    until(SEEN * 3, async || {
        let left = t.list::<Pod>(&format!("drover.dev/pipeline={NAME}")).await?.len();
        let depth = t.hub.depth(NAME).await?.context("no queue")?;
        let asked = t.api::<IngestPipeline>().get(NAME).await?.status.and_then(|s| s.scale).map(|s| s.desired);
        ensure!(left == 0 && depth.consumers == 0 && asked == Some(0), "{left} pods are left, {asked:?} asked for");
        Ok(())
    })
    .await
}

async fn first_message(t: &Trial, number: u32) -> Result<[f64; STAGES.len()]> {
    let channel = t.hub.channel().await?;
    let marks = Marks::default();
    let mut watches = JoinSet::new();
    let everything = WatchParams::default();
    let (deployments, pods) = (t.api::<Deployment>(), t.api::<Pod>());
    let (asked, seen) = (marks.clone(), marks.clone());
    let mut of_deployments = deployments.watch(&everything, "0").await?.boxed();
    let mut of_pods = pods.watch(&everything, "0").await?.boxed();
    watches.spawn(async move {
        while let Ok(Some(event)) = of_deployments.try_next().await {
            if let WatchEvent::Added(d) | WatchEvent::Modified(d) = event
                && d.spec.and_then(|s| s.replicas).is_some_and(|replicas| replicas > 0)
            {
                asked.note(0);
            }
        }
    });
    watches.spawn(async move {
        while let Ok(Some(event)) = of_pods.try_next().await {
            if let WatchEvent::Added(pod) | WatchEvent::Modified(pod) = event {
                progress(&seen, &pod);
            }
        }
    });
    let published = Instant::now();
    t.publish(number..number + 1).await?;
    let passive = QueueDeclareOptions { passive: true, ..Default::default() };
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let last = STAGES.len() - 1;
    let row = format!("select count(*) from {NAME} where message_id = 'm-{number:06}'");
    let arrived = async {
        while marks.taken()[last].is_none() {
            tick.tick().await;
            if channel.queue_declare(NAME.into(), passive, FieldTable::default()).await?.consumer_count() > 0 {
                marks.note(last - 1);
            }
            if t.store.admin.number(&row).await? > 0 {
                marks.note(last);
            }
        }
        anyhow::Ok(())
    };
    timeout(READY * 10, arrived).await.context("no row")??;
    let at = marks.taken();
    let mut filled = [0.0; STAGES.len()];
    let mut next = at[last].context("no row")?;
    // A stage that was over too soon to be seen took no time of its own.
    for stage in (0..STAGES.len()).rev() {
        next = at[stage].unwrap_or(next).min(next);
        filled[stage] = next.duration_since(published).as_secs_f64();
    }
    Ok(filled)
}

fn progress(marks: &Marks, pod: &Pod) {
    if pod.metadata.deletion_timestamp.is_some() {
        return;
    }
    marks.note(1);
    if pod.spec.as_ref().is_some_and(|s| s.node_name.is_some()) {
        marks.note(2);
    }
    let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    if statuses.into_iter().any(|c| c.state.as_ref().is_some_and(|s| s.running.is_some())) {
        marks.note(3);
    }
}
