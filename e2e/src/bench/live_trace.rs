//! The load trace, shortened, on the real cluster: what messages wait, what it costs, how often replicas change.

use std::time::Duration;

use anyhow::Result;
use drover_crds::api::IngestPipeline;
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::{Figure, Outcome, timed};
use crate::pipeline::{NAME, manifest};
use crate::publisher;
use crate::store::Each;
use crate::trial::{Trial, lone_trial};

/// Messages per second, and for how many seconds: 500 → 2,000 → 500 → 0 → 500, at a worker of 100 a second, by 12.5.
const TRACE: [(u32, u64); 5] = [(40, 60), (160, 60), (40, 60), (0, 40), (40, 40)];

/// What one worker does per second.
const PER_WORKER: f64 = 10.0;

/// The part of it that is to be used.
const TARGET: f64 = 0.8;

/// How often messages that are due are published.
const TICK: Duration = Duration::from_millis(20);

/// Replicas, as they were asked for over time.
#[derive(Debug, Default)]
struct Course {
    replicas: i32,
    changes: u32,
    pod_seconds: f64,
    most: i32,
}

/// Measures.
pub async fn run() -> Result<Outcome> {
    let mut rows = Vec::new();
    lone_trial("live-trace", async |t| {
        let mut pipeline = manifest(NAME);
        pipeline["spec"]["scaling"] = json!({ "maxReplicas": 30, "cooldownSeconds": 10 });
        pipeline["spec"]["worker"] = json!({ "concurrency": 1 });
        timed::start(t, pipeline).await?;
        t.store.slow(NAME, Each::Row, 1.0 / PER_WORKER).await?;
        let (published, course) = replay(t).await?;
        timed::written(t, published).await?;
        rows = figures(t, published, &course).await?;
        Ok(())
    })
    .await?;
    Ok(Outcome { bench: "load trace on the cluster".to_owned(), rows, more: serde_json::Map::new() })
}

async fn figures(t: &Trial, published: u32, course: &Course) -> Result<Vec<Figure>> {
    let wait = |share: f64| {
        format!(
            "select (1000 * extract(epoch from percentile_disc({share}) within group (order by received_at - ts)))::bigint from {NAME}"
        )
    };
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of minutes")]
    let seconds = |millis: i64| millis as f64 / 1000.0;
    let half = seconds(t.store.admin.number(&wait(0.5)).await?);
    let p99 = seconds(t.store.admin.number(&wait(0.99)).await?);
    let least = f64::from(published) / PER_WORKER / TARGET;
    Ok(vec![
        Figure::new("published → row, p50", None, half, "s", "", true),
        Figure::new("published → row, p99", None, p99, "s", "", true),
        Figure::new(
            "pod-seconds; floor: just enough pods at every moment",
            Some(least),
            course.pod_seconds,
            "s",
            "",
            true,
        ),
        Figure::new("replica changes in 260 s", None, f64::from(course.changes), "", "≤ 30", course.changes <= 30),
        Figure::new("most replicas; floor: what 160 a second need", Some(20.0), f64::from(course.most), "", "", true),
    ])
}

/// Publishes the trace and looks at replicas meanwhile, and until they are back at what the last rate needs.
async fn replay(t: &Trial) -> Result<(u32, Course)> {
    let channel = timed::channel(t).await?;
    let (mut course, mut number) = (Course::default(), 0);
    let mut looked = Instant::now();
    for (rate, seconds) in TRACE {
        let (start, span, first) = (Instant::now(), Duration::from_secs(seconds), number);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while start.elapsed() < span {
            tick.tick().await;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small number")]
            let due = first + (start.elapsed().as_secs_f64() * f64::from(rate)) as u32;
            while number < due {
                publisher::taken(timed::publish(&channel, number).await?).await?;
                number += 1;
            }
            if looked.elapsed() >= Duration::from_millis(250) {
                course.look(t, looked.elapsed()).await?;
                looked = Instant::now();
            }
        }
        sleep_until(start + span).await;
        let told = t.api::<IngestPipeline>().get(NAME).await?.status.and_then(|s| s.scale);
        println!("  {rate:>4}/s for {seconds} s: {} replicas, {told:?}", course.replicas);
    }
    Ok((number, course))
}

impl Course {
    async fn look(&mut self, t: &Trial, since: Duration) -> Result<()> {
        let all = t.list::<Deployment>("").await?;
        let now = all.iter().filter_map(|d| d.spec.as_ref()?.replicas).sum();
        self.pod_seconds += since.as_secs_f64() * f64::from(self.replicas);
        self.changes += u32::from(now != self.replicas);
        self.replicas = now;
        self.most = self.most.max(now);
        Ok(())
    }
}
